//! Anthropic Messages, over an own thin client: no crate for it keeps the headers of a failure.
//!
//! Source: Messages API, version 2023-06-01, which every model and compatible server in the field still takes.

mod errors;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use broker_config::Model;
use broker_proto::{Failure, FailureClass};
use futures::StreamExt;
use http::HeaderValue;
use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::SecretString;

use super::{
    ChunkStream, Clock, Failed, Prompt, Provider, Result, SetupError,
    decode::{self, Wire},
    http::{Refusal, client, no_reply, secret_header},
    limits,
};

const NAME: &str = "anthropic";
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
/// How long the rest of a refusal may take; its status is known by then.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// One model of Anthropic, or of a server that speaks its wire.
pub struct Anthropic {
    model: Model,
    key: Option<SecretString>,
    http: Client,
    clock: Clock,
}

/// The key stays out of every log.
impl fmt::Debug for Anthropic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anthropic").field("model", &self.model.name).finish_non_exhaustive()
    }
}

impl Anthropic {
    /// The adapter for `model`.
    ///
    /// # Errors
    /// [`SetupError::Http`].
    pub fn new(
        model: &Model,
        key: Option<SecretString>,
        clock: Clock,
    ) -> std::result::Result<Self, SetupError> {
        Ok(Self { model: model.clone(), key, http: client(model)?, clock })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.model.base_url))
            .header("anthropic-version", VERSION);
        match self.key.as_ref().and_then(|key| secret_header("", key)) {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| no_reply(NAME, &self.model, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = Refusal::read(response, REFUSAL_PATIENCE).await;
        let failure = errors::classify(&refusal, self.clock.now());
        Err(Box::new(Failed {
            failure,
            usage: Default::default(),
            limits: limits::anthropic(&refusal.headers),
        }))
    }
}

#[async_trait]
impl Provider for Anthropic {
    async fn complete(&self, prompt: Prompt) -> Result<ChunkStream> {
        let body = request::body(&prompt, &self.model);
        let response = self.send(self.request(Method::POST, "/v1/messages").json(&body)).await?;
        let headers = response.headers().clone();
        let wire = Wire::events(response.bytes_stream().boxed());
        let reply = reply::Reply::new(headers.clone(), self.clock.clone());
        Ok(decode::chunks(wire, reply, limits::anthropic(&headers)))
    }

    async fn check(&self) -> Result<Option<String>> {
        let path = format!("/v1/models/{}", self.model.id);
        match self.send(self.request(Method::GET, &path)).await {
            Ok(_) => Ok(None),
            // A compatible server need not list models; Anthropic's own words for a missing one are another matter.
            Err(failed) if is_no_such_route(&failed.failure) => {
                Ok(Some("the server lists no models, so the id is not verified".to_owned()))
            }
            Err(failed) => Err(failed),
        }
    }
}

fn is_no_such_route(failure: &Failure) -> bool {
    failure.class == FailureClass::ModelNotFound && !failure.detail.contains("not_found_error")
}
