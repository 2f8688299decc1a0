//! What can go wrong with a call to the broker.

use std::{collections::BTreeMap, error::Error as StdError, time::Duration};

use broker_proto::{ContentHash, convert::InvalidField};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::Endpoint;

/// Why a call to the broker did not do what was asked. Holds no content and no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answers there, or the connection was lost in the middle; what became of the call is unknown.
    /// Sending again with the same message id is always safe.
    #[error("no broker answers at {endpoint}")]
    Unreachable { endpoint: Endpoint, source: Box<dyn StdError + Send + Sync> },
    /// The broker is there and took too long; what became of the call is unknown.
    #[error("the broker at {endpoint} did not answer in time")]
    TimedOut { endpoint: Endpoint },
    /// The broker said no. Decide by `reason`, never by `message`.
    #[error("{message}")]
    Refused {
        code: Code,
        /// A reason of `docs/errors.md`, such as `UNKNOWN_MODEL`; the code's name when the broker gave none.
        reason: String,
        message: String,
        /// When it helps to try again, where the broker knows.
        retry_after: Option<Duration>,
        /// What the reason carries, such as the nearest names.
        metadata: BTreeMap<String, String>,
    },
    /// The stream ended without saying how the answer ended.
    #[error("the stream ended before the answer did")]
    EndedEarly,
    /// The broker said something that this version cannot read.
    #[error("the broker's reply cannot be read")]
    Malformed(#[from] InvalidField),
    /// What was fetched is not what was asked for.
    #[error("the content {hash} does not match its hash")]
    Corrupt { hash: ContentHash },
    /// The broker takes the chunks of a part and does not come to its end.
    #[error("the upload of {hash} does not come to its end")]
    Stalled { hash: ContentHash },
    #[error("the token holds characters that no token has")]
    Token,
    #[error(transparent)]
    Endpoint(#[from] broker_config::PathError),
}

impl Error {
    pub(crate) fn unreachable(
        endpoint: &Endpoint,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Unreachable { endpoint: endpoint.clone(), source: source.into() }
    }

    /// Sorts a gRPC status: said by the broker, or made on this side because there was no broker.
    pub(crate) fn from_status(status: Status, endpoint: &Endpoint) -> Self {
        let info = status.get_details_error_info();
        // Only a status made on this side has a source; over the wire comes none.
        let is_local = status.source().is_some();
        let timed_out = status.code() == Code::DeadlineExceeded
            || caused_by::<tonic::TimeoutExpired>(&status).is_some();
        match info {
            None if timed_out => Self::TimedOut { endpoint: endpoint.clone() },
            None if is_local || status.code() == Code::Unavailable => {
                Self::unreachable(endpoint, status)
            }
            info => {
                let (reason, metadata) = match info {
                    Some(info) => (info.reason, info.metadata.into_iter().collect()),
                    None => (code_name(status.code()).to_owned(), BTreeMap::new()),
                };
                let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
                Self::Refused {
                    code: status.code(),
                    reason,
                    message: status.message().to_owned(),
                    retry_after: retry,
                    metadata,
                }
            }
        }
    }

    /// The reason the broker gave, when it said no.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::EndedEarly
            | Self::Malformed(_)
            | Self::Corrupt { .. }
            | Self::Stalled { .. }
            | Self::Token
            | Self::Endpoint(_) => None,
        }
    }

    /// The name of the gRPC code, when the broker said no.
    #[must_use]
    pub fn code_name(&self) -> Option<&'static str> {
        match self {
            Self::Refused { code, .. } => Some(code_name(*code)),
            _ => None,
        }
    }

    /// Whether the connection is to blame, so that the same call may succeed later.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::EndedEarly)
    }
}

fn caused_by<T: StdError + 'static>(status: &Status) -> Option<&T> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn sorted(status: Status) -> Error {
        Error::from_status(status, &Endpoint::unix("/b.sock"))
    }

    #[test]
    fn a_refusal_keeps_its_reason_delay_and_metadata() {
        let metadata = [("nearest".to_owned(), "opus".to_owned())];
        let mut details =
            ErrorDetails::with_error_info("UNKNOWN_MODEL", "broker.v1", metadata.clone());
        details.set_retry_info(Some(Duration::from_secs(3)));

        let error = sorted(Status::with_error_details(Code::NotFound, "no model `opsu`", details));

        let Error::Refused { code, reason, message, retry_after, metadata: found } = error else {
            panic!("{error:?}")
        };
        assert_eq!((code, reason.as_str()), (Code::NotFound, "UNKNOWN_MODEL"));
        assert_eq!(
            (message.as_str(), retry_after),
            ("no model `opsu`", Some(Duration::from_secs(3)))
        );
        assert_eq!(found, BTreeMap::from(metadata));
    }

    #[test]
    fn unavailable_with_a_reason_is_a_refusal_and_without_one_a_lost_broker() {
        let details = ErrorDetails::with_error_info("STOPPING", "broker.v1", []);
        let said = Status::with_error_details(Code::Unavailable, "the broker is stopping", details);
        assert_eq!(sorted(said).reason(), Some("STOPPING"));
        assert!(matches!(sorted(Status::unavailable("gone")), Error::Unreachable { .. }));
    }

    #[test]
    fn a_code_alone_is_its_own_reason() {
        assert_eq!(sorted(Status::unimplemented("x")).reason(), Some("UNIMPLEMENTED"));
    }
}
