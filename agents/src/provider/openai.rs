//! OpenAI chat completions, and whatever speaks them.
//!
//! async-openai writes the request: its types, its URLs, its serialisation, and its unary calls. It does not read the
//! stream. Its own reader goes through an unbounded channel, cannot tell `[DONE]` from a cut connection, and turns an
//! error within the stream, a code that is a number or a body that is HTML into a JSON error without the status. So
//! the tower service that it sends through keeps the reply for itself, headers and all, and hands the crate an empty
//! one; its retry layer, which would sleep for as long as a `Retry-After` says, is not in that service.

mod capture;
mod errors;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use async_openai::{config::Config, error::OpenAIError};
use async_trait::async_trait;
use broker_config::Model;
use broker_proto::{Failure, FailureClass};
use futures::StreamExt;
use http::{HeaderMap, header::AUTHORIZATION};
use reqwest::{Client, Response};
use secrecy::SecretString;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{
    ChunkStream, Clock, Failed, Prompt, Provider, Result, SetupError,
    decode::{self, Wire},
    http::{Refusal, client, malformed_unary, no_reply, secret_header},
    limits,
};
use capture::{Capture, NoReply};

const NAME: &str = "openai";
/// How long the rest of a refusal may take; its status is known by then.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// One model of OpenAI, or of a server that speaks its wire.
pub struct OpenAi {
    model: Model,
    address: Address,
    http: Client,
    clock: Clock,
}

/// The key stays out of every log.
impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").field("model", &self.model.name).finish_non_exhaustive()
    }
}

/// Where to call and with which key. The crate's own configuration would read variables of the environment, and
/// writes a key into a header that logs show.
#[derive(Clone)]
struct Address {
    base_url: String,
    key: Option<SecretString>,
    no_key: SecretString,
}

impl Config for Address {
    fn headers(&self) -> HeaderMap {
        let header = self.key.as_ref().and_then(|key| secret_header("Bearer ", key));
        header.into_iter().map(|value| (AUTHORIZATION, value)).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base_url
    }

    fn api_key(&self) -> &SecretString {
        self.key.as_ref().unwrap_or(&self.no_key)
    }
}

impl OpenAi {
    /// The adapter for `model`.
    ///
    /// # Errors
    /// [`SetupError::Http`].
    pub fn new(
        model: &Model,
        key: Option<SecretString>,
        clock: Clock,
    ) -> std::result::Result<Self, SetupError> {
        let address =
            Address { base_url: model.base_url.clone(), key, no_key: SecretString::default() };
        Ok(Self { model: model.clone(), address, http: client(model)?, clock })
    }

    /// A client for one call, and what keeps that call's reply.
    fn call(&self) -> (async_openai::Client<Address>, Capture) {
        let capture = Capture::new(self.http.clone());
        let client = async_openai::Client::build(self.http.clone(), self.address.clone());
        (client.with_http_service(capture.service()), capture)
    }

    /// The reply that `capture` kept, if it is a success.
    async fn reply(&self, capture: Capture, error: Option<&OpenAIError>) -> Result<Response> {
        let Some(response) = capture.take() else {
            return Err(self.no_reply(error).into());
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = Refusal::read(response, REFUSAL_PATIENCE).await;
        let now = self.clock.now();
        let failure = errors::classify(&refusal, now);
        Err(Box::new(Failed {
            failure,
            usage: Default::default(),
            limits: limits::openai(&refusal.headers, now),
        }))
    }

    fn no_reply(&self, error: Option<&OpenAIError>) -> Failure {
        if let Some(OpenAIError::Boxed(source)) = error
            && let Some(NoReply(source)) = source.downcast_ref()
        {
            return no_reply(NAME, &self.model, source);
        }
        Failure::new(FailureClass::Internal, NAME, "the request could not be written")
    }
}

#[async_trait]
impl Provider for OpenAi {
    async fn complete(&self, prompt: Prompt) -> Result<ChunkStream> {
        let request = request::body(&prompt, &self.model);
        let (client, capture) = self.call();
        let stream = client.chat().create_stream_byot::<_, IgnoredAny>(request).await;
        let response = self.reply(capture, stream.err().as_ref()).await?;
        let now = self.clock.now();
        let headers = response.headers().clone();
        let limits = limits::openai(&headers, now);
        let wire = Wire::events(response.bytes_stream().boxed());
        Ok(decode::chunks(wire, reply::Reply::new(headers, self.clock.clone()), limits))
    }

    async fn check(&self) -> Result<Option<String>> {
        let (client, capture) = self.call();
        let listed = client.models().list_byot::<IgnoredAny>().await;
        let response = self.reply(capture, listed.err().as_ref()).await;
        let response = match response {
            Err(failed) if failed.failure.class == FailureClass::ModelNotFound => {
                return Ok(Some(
                    "the server lists no models, so the id is not verified".to_owned(),
                ));
            }
            response => response?,
        };
        let list: Value = response.json().await.map_err(|_| malformed_unary(NAME))?;
        let ids: Vec<&str> = list["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m["id"].as_str())
            .collect();
        if ids.contains(&self.model.id.as_str()) {
            return Ok(None);
        }
        if request::is_vendor(&self.model.base_url) {
            return Err(Failure::new(
                FailureClass::ModelNotFound,
                NAME,
                "the key's account has no such model",
            )
            .into());
        }
        // Servers with one model often answer to any id.
        Ok(Some("the server does not list this id".to_owned()))
    }
}
