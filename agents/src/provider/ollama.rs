//! Ollama's own API.
//!
//! ollama-rs gives the words of a request and its unary calls. It does not read the stream: its reader drops a network
//! chunk that ends inside a character, prints error lines to stderr and goes on, and loses all counts when one is
//! left out. The `/v1` wire is no way around: it ignores `num_ctx`, and a prompt over 4,096 tokens would be cut.

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
use ollama_rs::error::OllamaError;
use reqwest::Client;
use secrecy::SecretString;

use super::{
    ChunkStream, Clock, Prompt, Provider, Result, SetupError,
    decode::{self, Wire},
    http::{Refusal, client, host, malformed_unary, no_reply, secret_header},
};

const NAME: &str = "ollama";
/// How long the rest of a refusal may take; its status is known by then.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);

/// One model of an Ollama server.
pub struct Ollama {
    model: Model,
    /// For a server behind a proxy that wants one; Ollama itself has no keys.
    key: Option<SecretString>,
    http: Client,
    unary: ollama_rs::Ollama,
    clock: Clock,
}

/// The key stays out of every log.
impl fmt::Debug for Ollama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ollama").field("model", &self.model.name).finish_non_exhaustive()
    }
}

impl Ollama {
    /// The adapter for `model`.
    ///
    /// # Errors
    /// [`SetupError::Http`], [`SetupError::BaseUrl`].
    pub fn new(
        model: &Model,
        key: Option<SecretString>,
        clock: Clock,
    ) -> std::result::Result<Self, SetupError> {
        // The crate joins paths to this as text, so that it must end with a slash.
        let address = format!("{}/", model.base_url);
        let address = ollama_rs::Ollama::try_new(address)
            .map_err(|_| SetupError::BaseUrl { model: model.name.clone() })?;
        let builder =
            reqwest_012::Client::builder().connect_timeout(model.connect_timeout).no_proxy();
        let http =
            builder.build().map_err(|_| SetupError::BaseUrl { model: model.name.clone() })?;
        let unary =
            ollama_rs::Ollama::builder().url(address.url().clone()).reqwest_client(http).build();
        Ok(Self { model: model.clone(), key, http: client(model)?, unary, clock })
    }

    /// A reply to this chat that is not a refusal.
    async fn chat(&self, body: &serde_json::Value) -> Result<reqwest::Response> {
        let mut request = self.http.post(format!("{}/api/chat", self.model.base_url)).json(body);
        if let Some(key) = self.key.as_ref().and_then(|key| secret_header("Bearer ", key)) {
            request = request.header(http::header::AUTHORIZATION, key);
        }
        let response = request.send().await.map_err(|error| no_reply(NAME, &self.model, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = Refusal::read(response, REFUSAL_PATIENCE).await;
        Err(errors::classify(&refusal, self.clock.now()).into())
    }

    /// What a unary call of the crate failed with; of a refusal it keeps the text alone.
    fn refused(&self, error: &OllamaError) -> Failure {
        match error {
            OllamaError::ReqwestError(_) => {
                let detail = format!("cannot connect to {}", host(&self.model.base_url));
                Failure::new(FailureClass::Unreachable, NAME, detail)
            }
            OllamaError::Other(text) if text.contains("not found") => self.not_installed(),
            _ => malformed_unary(NAME),
        }
    }

    fn not_installed(&self) -> Failure {
        Failure::new(
            FailureClass::ModelNotFound,
            NAME,
            format!("{} is not installed", self.model.id),
        )
    }
}

#[async_trait]
impl Provider for Ollama {
    async fn complete(&self, prompt: Prompt) -> Result<ChunkStream> {
        let sizes = request::Sizes::of(&prompt, &self.model);
        let response = self.chat(&request::body(&prompt, &self.model, sizes)).await?;
        let wire = Wire::lines(response.bytes_stream().boxed());
        let reply =
            reply::Reply::new(prompt.least_tokens, prompt.estimated_tokens, self.clock.clone());
        Ok(decode::chunks(wire, reply, Vec::new()))
    }

    async fn load(&self, tokens: u64) -> Result<()> {
        let sizes = request::Sizes::for_tokens(tokens, None, &self.model);
        let response = self.chat(&request::empty(&self.model, sizes)).await?;
        // It ends when the model is there.
        let read = response.bytes().await;
        read.map(|_| ()).map_err(|error| no_reply(NAME, &self.model, &error).into())
    }

    async fn check(&self) -> Result<Option<String>> {
        if self.model.base_url.starts_with("https://") {
            // The crate is built without TLS, which a server on one's own network rarely has.
            return Ok(Some("an https address is not checked".to_owned()));
        }
        let installed =
            self.unary.list_local_models().await.map_err(|error| self.refused(&error))?;
        let is_meant = |name: &str| {
            name == self.model.id || name.strip_suffix(":latest") == Some(&self.model.id)
        };
        if !installed.iter().any(|model| is_meant(&model.name)) {
            return Err(self.not_installed().into());
        }
        let info = self
            .unary
            .show_model_info(self.model.id.clone())
            .await
            .map_err(|error| self.refused(&error))?;
        let architecture =
            info.model_info.get("general.architecture").and_then(|name| name.as_str());
        let trained = architecture
            .and_then(|name| info.model_info.get(&format!("{name}.context_length")))
            .and_then(serde_json::Value::as_u64);
        Ok(trained.filter(|trained| *trained < self.model.context_window).map(|trained| {
            format!(
                "the model was trained for {trained} tokens, and context_window says {}",
                self.model.context_window
            )
        }))
    }
}
