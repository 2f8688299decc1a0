//! What can go wrong with a package on its way.

use broker_proto::{PackageId, SessionId, convert::InvalidField};

use crate::{
    context::{
        self,
        package::{PackError, Refused},
    },
    engine, handoffs, intake, projection, session,
};

/// Why nothing was made, taken or shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error("there is no package {0}")]
    Unknown(PackageId),
    #[error("there is no package that has not expired: `handoff save --task TEXT` makes one")]
    None,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Intake(#[from] intake::Error),
    #[error(transparent)]
    Content(#[from] context::Error),
    #[error(transparent)]
    Lookup(#[from] projection::Error),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error("the file was never uploaded")]
    NotUploaded,
    /// What is wrong with its package is in `source`.
    #[error(
        "session `{session}` stays paused: `brokerctl session resume {session} --force` goes on without its package"
    )]
    NotResumed { session: SessionId, source: Box<Error> },
}

impl From<handoffs::Error> for Error {
    fn from(error: handoffs::Error) -> Self {
        match error {
            handoffs::Error::Engine(error) => Self::Engine(error),
            handoffs::Error::Intake(error) => Self::Intake(error),
            handoffs::Error::Lookup(error) => Self::Lookup(error),
        }
    }
}

impl Error {
    pub(super) fn key(problem: &str) -> Self {
        Self::field("key", problem)
    }

    pub(super) fn field(field: &'static str, problem: &str) -> Self {
        Self::Invalid(InvalidField::new(field, problem))
    }
}
