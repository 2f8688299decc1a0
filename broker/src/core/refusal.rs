//! Why a command was refused: data for the caller, decided by rules.

use std::time::Duration;

use broker_proto::{MessageId, MessageType, Recipient};

/// A refusal says that surely nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no model is called `{given}`{}", suggestion(nearest))]
    UnknownModel { given: String, nearest: Vec<String> },
    #[error("no agent is called `{0}`: create its token first, or allow a future recipient")]
    UnknownAgent(String),
    #[error("message id {0} was used before for another message")]
    IdReused(MessageId),
    #[error("the message expired before it arrived")]
    AlreadyExpired,
    #[error("queue `{queue}` is full ({limit})")]
    QueueFull { queue: Recipient, limit: String, retry_after: Duration },
    #[error("a model's queue takes consultations, not a {0:?}")]
    WrongType(MessageType),
    #[error("there is no message {0}")]
    UnknownMessage(MessageId),
    #[error("the lease on message {0} is lost")]
    LeaseLost(MessageId),
    #[error("there is no token for agent `{0}`")]
    UnknownToken(String),
    #[error("link {0} is not open")]
    LinkClosed(u64),
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; nearest: {}", names.join(", ")),
    }
}
