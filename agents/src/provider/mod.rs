//! Providers: one way to ask a model, whatever its wire, and the list of those that can be asked.
//!
//! Invariant: one [`Provider::complete`] is one upstream call. Nothing here retries, waits for a limit or picks a
//! model; the broker does, where it can be seen.
//! Invariant: no key, prompt or answer in an error, a log or a `Debug` text. A provider's own words are read for
//! their meaning and never passed on: the one of a rejected key quotes the key.

pub mod anthropic;
pub mod check;
mod clock;
mod decode;
#[cfg(test)]
pub(crate) mod fixture;
mod http;
mod limits;
pub mod ollama;
pub mod openai;
pub mod prompt;
mod when;

use std::{env, fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use broker_config::{Model, Provider as Name};
use broker_proto::{Failure, Part, RateLimit, StopReason, Usage};
use futures::Stream;
use secrecy::SecretString;

pub use clock::Clock;
pub use prompt::Prompt;

/// A piece of an answer. Parts are numbered from 0 in the order they open; their deltas may be interleaved.
#[derive(Clone, PartialEq)]
pub enum Chunk {
    /// The provider took the request. `limits` is what its headers say is left.
    Started { limits: Vec<RateLimit> },
    /// Bytes came that say nothing: a ping, a comment, half a record.
    Alive,
    /// What is known of the usage so far; each replaces the one before.
    Usage(Usage),
    /// A part begins: what it is, without its content.
    PartStart { part: u32, opening: Part },
    /// More of a part: text, thinking, or JSON of a tool call's arguments.
    Delta { part: u32, text: String },
    /// A part ends; `closing` is what is known only now, as in `PartEnd` of `broker.v1`.
    PartEnd { part: u32, closing: Option<Part> },
    /// The last chunk.
    Done { usage: Usage, stop_reason: Option<StopReason> },
}

/// Content never reaches a log.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { limits } => write!(f, "Started({} limits)", limits.len()),
            Self::Alive => f.write_str("Alive"),
            Self::Usage(usage) => write!(f, "Usage({usage:?})"),
            Self::PartStart { part, opening } => write!(f, "PartStart({part}, {opening:?})"),
            Self::Delta { part, text } => write!(f, "Delta({part}, {} bytes)", text.len()),
            Self::PartEnd { part, closing } => write!(f, "PartEnd({part}, {closing:?})"),
            Self::Done { usage, stop_reason } => write!(f, "Done({usage:?}, {stop_reason:?})"),
        }
    }
}

/// A call that failed, with what its reply said on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    pub failure: Failure,
    /// What the provider had counted before it failed.
    pub usage: Usage,
    pub limits: Vec<RateLimit>,
}

impl From<Failure> for Box<Failed> {
    fn from(failure: Failure) -> Self {
        Self::new(Failed { failure, usage: Usage::default(), limits: Vec::new() })
    }
}

pub type Result<T> = std::result::Result<T, Box<Failed>>;

/// An answer as it arrives: [`Chunk::Started`] first, [`Chunk::Done`] last, or an error in its place.
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<Chunk>> + Send>>;

/// A model behind its provider's wire.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// Streams one completion. Dropping the future or the stream closes the upstream connection, which is how
    /// every provider is told to stop. Deadlines, except the one for connecting, are the caller's.
    async fn complete(&self, prompt: Prompt) -> Result<ChunkStream>;

    /// Loads the model for a prompt of about so many tokens, where the provider loads models. No tokens are spent; what
    /// is loaded anyway costs nothing.
    async fn load(&self, _tokens: u64) -> Result<()> {
        Ok(())
    }

    /// Whether the provider is there, takes the key and has the model. `Ok` may hold a warning.
    /// No tokens are spent.
    async fn check(&self) -> Result<Option<String>>;
}

/// Why a model cannot be served by this process.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{variable} is not set: model `{model}` needs a key")]
    KeyMissing { model: String, variable: String },
    #[error("{variable} holds no key: it has characters that no key has")]
    KeyMalformed { variable: String },
    #[error("cannot set up HTTP for model `{model}`")]
    Http { model: String, source: reqwest::Error },
    #[error("models.{model}.base_url is not an address that can be called")]
    BaseUrl { model: String },
}

/// The adapter for `model`: the list of all there are. Names that are on no list never get here:
/// the configuration refuses them with the nearest one.
///
/// # Errors
/// [`SetupError`].
pub fn adapter(
    model: &Model,
    key: Option<SecretString>,
    clock: Clock,
) -> std::result::Result<Arc<dyn Provider>, SetupError> {
    Ok(match model.provider {
        Name::Anthropic => Arc::new(anthropic::Anthropic::new(model, key, clock)?),
        Name::OpenAi => Arc::new(openai::OpenAi::new(model, key, clock)?),
        Name::Ollama => Arc::new(ollama::Ollama::new(model, key, clock)?),
    })
}

/// The key that `model`'s configuration names, from the environment. `None`: it needs none.
///
/// A simulator gets a word that is no key, so that a real one never leaves for it.
///
/// # Errors
/// [`SetupError::KeyMissing`], [`SetupError::KeyMalformed`].
pub fn key_of(model: &Model) -> std::result::Result<Option<SecretString>, SetupError> {
    let Some(variable) = &model.api_key_env else { return Ok(None) };
    if model.simulated {
        return Ok(Some("simulated".into()));
    }
    let text = match env::var(variable) {
        Ok(text) if !text.trim().is_empty() => text,
        Err(env::VarError::NotUnicode(_)) => {
            return Err(SetupError::KeyMalformed { variable: variable.clone() });
        }
        _ => {
            return Err(SetupError::KeyMissing {
                model: model.name.clone(),
                variable: variable.clone(),
            });
        }
    };
    // A key pasted with its newline is common, and a newline cannot go into a header.
    let text = text.trim();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SetupError::KeyMalformed { variable: variable.clone() });
    }
    Ok(Some(text.into()))
}
