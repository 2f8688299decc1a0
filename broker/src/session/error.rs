//! Why a session cannot be read or written.

use broker_proto::{SessionHead, SessionId, SessionPoint, convert::InvalidField};

use crate::{
    context,
    core::{Refusal, session},
    engine, intake, projection,
};

/// What differs between what a caller had seen and what a session has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub id: SessionId,
    pub version: u64,
    pub head: SessionHead,
    /// Where the other side ends: what the caller expected, or what is imported.
    pub other: SessionHead,
    /// Entries that both begin with.
    pub common: u64,
    /// `entries`, `task.FIELD` and `shared.KEY`.
    pub keys: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(engine::Error),
    #[error(transparent)]
    Refused(session::Refusal),
    #[error(transparent)]
    Intake(intake::Error),
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error("cannot look the session up")]
    Lookup(#[from] projection::Error),
    #[error("cannot read or store what it says")]
    Content(#[from] context::Error),
    #[error(transparent)]
    Edit(#[from] session::task::EditError),
    #[error("{}", in_words(.0))]
    Conflict(Box<Conflict>),
    #[error("session `{id}` has no point {}", shown(.point))]
    NoPoint { id: SessionId, point: SessionPoint },
    #[error("the digits {0} begin more than one entry's hash: give more of them")]
    Ambiguous(String),
    #[error("the {what} has over {limit} bytes, which is the limit")]
    TooLarge { what: &'static str, limit: usize },
    #[error("there is nothing to append")]
    Empty,
    #[error("session `{0}` changes too often: try again")]
    Busy(SessionId),
    #[error("no model is configured that could own a session")]
    NoModel,
    #[error(transparent)]
    Render(#[from] context::render::Error),
    #[error("the broker is stopping")]
    Stopped,
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Refused(Refusal::Session(refusal)) => Self::Refused(refusal),
            other => Self::Engine(other),
        }
    }
}

impl From<intake::Error> for Error {
    fn from(error: intake::Error) -> Self {
        match error {
            intake::Error::Engine(error) => error.into(),
            other => Self::Intake(other),
        }
    }
}

fn shown(point: &SessionPoint) -> String {
    match point {
        SessionPoint::Head => "at its head".to_owned(),
        other => format!("`{other}`"),
    }
}

fn in_words(conflict: &Conflict) -> String {
    let Conflict { id, version, head, other, common, keys } = conflict;
    format!(
        "session `{id}` went on meanwhile: it is at version {version} with {} ({}), the other side has {} ({}), \
         {common} in common; in conflict: {}. Choose with --on-conflict keep, replace or fork",
        session::count(head.entries),
        head.hash,
        session::count(other.entries),
        other.hash,
        keys.join(", ")
    )
}
