//! Why a command was refused: data for the caller, decided by rules.

use std::time::Duration;

use broker_proto::{MessageId, MessageType, ModelName, Numbered, Recipient, RoleName, TaskState};

/// A refusal says that surely nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no model is called `{given}`{}", suggestion(nearest))]
    UnknownModel { given: String, nearest: Vec<String> },
    #[error("no agent is called `{0}`: create its token first, or allow a future recipient")]
    UnknownAgent(String),
    #[error(
        "no agent has ever taken the role `{0}`: start one with it, or allow a future recipient"
    )]
    UnknownRole(RoleName),
    #[error("{known} roles are known; use one of them")]
    TooManyRoles { known: usize },
    #[error("no agent serves {0} now, so nobody would get the message")]
    NoRecipient(ModelName),
    #[error("{count} agents serve {model}; one message goes to at most {limit}")]
    TooManyRecipients { model: ModelName, count: usize, limit: usize },
    #[error("message id {0} was used before for another message")]
    IdReused(MessageId),
    #[error("producer `{}` used number {} before for another message", .0.producer, .0.number)]
    NumberReused(Numbered),
    #[error(
        "number {} of producer `{}` is too old to tell whether it was sent; the oldest known is {oldest}",
        numbered.number, numbered.producer
    )]
    SequenceTooOld { numbered: Numbered, oldest: u64 },
    #[error("a sender has {limit} producers at most: use one it has")]
    TooManyProducers { limit: usize },
    #[error("the request this belongs to has reached its bound on {bound} ({limit})")]
    Budget { bound: &'static str, limit: String },
    #[error("the message expired before it arrived")]
    AlreadyExpired,
    #[error("queue `{queue}` is full ({limit})")]
    QueueFull { queue: Recipient, limit: String, retry_after: Duration },
    #[error("{}", wrong_type(*.kind, .to))]
    WrongType { kind: MessageType, to: Recipient },
    #[error(
        "this sender fills its tenth of queue `{queue}` as urgent ({limit}): send it as high, or later"
    )]
    UrgentShare { queue: Recipient, limit: String, retry_after: Duration },
    #[error("there is no message {0}")]
    UnknownMessage(MessageId),
    #[error("message {0} is not a dead letter")]
    NotDead(MessageId),
    #[error("there is no queue `{0}`")]
    UnknownQueue(Recipient),
    #[error("message {0} is no task")]
    NotATask(MessageId),
    #[error("task {id} is {}: it cannot be {wanted} now", state.as_str())]
    TaskState { id: MessageId, state: TaskState, wanted: &'static str },
    /// What it has become, the projection knows.
    #[error("the task has ended")]
    TaskEnded,
    #[error("question {question} of task {id} is not the one that is open")]
    QuestionClosed { id: MessageId, question: u32 },
    #[error(
        "the questions and answers of task {0} are as large as they may become: shorten this one"
    )]
    TaskFull(MessageId),
    #[error("the lease{} is lost", .0.map(|id| format!(" on message {id}")).unwrap_or_default())]
    LeaseLost(Option<MessageId>),
    #[error("there is no token for agent `{0}`")]
    UnknownToken(String),
    #[error(
        "`{0}` is one of the broker's own names: give the agent another, not beginning with `broker.`"
    )]
    ReservedName(String),
    #[error(transparent)]
    Session(#[from] super::session::Refusal),
    #[error(transparent)]
    Policy(#[from] super::usage::Invalid),
    #[error("nothing was ever counted for session `{0}`")]
    UncountedSession(String),
    #[error("link {0} is not open")]
    LinkClosed(u64),
    #[error(transparent)]
    Package(#[from] super::package::Refusal),
    #[error(transparent)]
    Handoff(#[from] super::handoff::Refusal),
    #[error(transparent)]
    Bridge(#[from] super::handoff::bridge::Refusal),
    #[error(transparent)]
    Ring(#[from] super::ring::Refusal),
}

fn wrong_type(kind: MessageType, to: &Recipient) -> String {
    let kind = kind.as_str();
    match to {
        Recipient::Model(_) if kind == "status" => {
            format!("a status never reaches a model: send it to an agent or a role, not to {to}")
        }
        Recipient::Model(_) => format!("a model's queue takes consultations, not a {kind}"),
        Recipient::Agent(_) | Recipient::Role(_) | Recipient::AgentsOf(_) => {
            format!("a {kind} cannot go to {to}: ask a model, or one agent")
        }
    }
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; nearest: {}", names.join(", ")),
    }
}
