//! What can go wrong between a command and its answer.

use crate::{core::Refusal, journal};

/// Why a command was not answered with its result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Surely not stored.
    #[error("the store is full: free space on its disk")]
    StoreFull,
    /// Surely not stored; offering it again may help.
    #[error("the store does not answer")]
    StoreUnavailable,
    #[error("the broker is stopping")]
    Stopping,
    /// Stored, or not: sending again with the same id settles it (I-2).
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why the engine cannot go on. The process exits non-zero (I-31).
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("cannot append to the journal")]
    Append { source: journal::AppendError },
    #[error("cannot become the owner of the journal")]
    Claim { source: journal::ClaimError },
    #[error("cannot load the state")]
    Load { source: crate::projection::Error },
}
