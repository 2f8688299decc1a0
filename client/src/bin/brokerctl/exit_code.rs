//! Exit codes: what a script can tell from a run without reading a word of it.

use broker_client::Code;
use broker_proto::types::{AnswerSummary, Failure, FailureClass};

use crate::{
    commands::{consult, handoff},
    output,
};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unreachable = 4,
    /// A limit is used up: the earliest time it helps to try again was printed, or what a person must do.
    Limited = 5,
    Integrity = 6,
    Deadline = 7,
    /// The broker is well, but no agent is there that could answer now.
    NobodyThere = 8,
    /// The task asked something back that nobody here can answer.
    AskedBack = 9,
    /// A check found that a session is to be handed off.
    HandoffDue = 10,
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of a message that failed with this class.
pub(crate) fn of_class(class: FailureClass) -> Exit {
    use FailureClass as C;
    match class {
        C::RateLimited | C::QuotaExhausted | C::CreditExhausted => Exit::Limited,
        C::ModelNotFound => Exit::NotFound,
        C::Timeout => Exit::Deadline,
        C::Overloaded
        | C::ContextTooLong
        | C::RequestTooLarge
        | C::ContentRefused
        | C::InvalidRequest
        | C::CredentialsRejected
        | C::Unreachable
        | C::Truncated
        | C::MalformedReply
        | C::AgentLost
        | C::Budget
        | C::Cancelled
        | C::Internal => Exit::Failed,
    }
}

/// The exit code of a consultation that failed: limited, when somebody of its chain will be back or can be paid for.
pub(crate) fn of_failure(failure: &Failure, summary: &AnswerSummary) -> Exit {
    use FailureClass as C;
    let attempts = summary.attempts.iter().filter_map(|attempt| attempt.failure.as_ref());
    let passed_over = summary.passed_over.iter().filter_map(|passed| passed.class);
    let is_limited = attempts.map(|met| met.class).chain(passed_over).any(C::is_limit);
    match failure.class {
        // What was asked is the reason; no other time would help.
        C::InvalidRequest
        | C::ContentRefused
        | C::ContextTooLong
        | C::RequestTooLarge
        | C::Budget
        | C::Cancelled => of_class(failure.class),
        _ if is_limited || failure.retry_at.is_some() => Exit::Limited,
        class => of_class(class),
    }
}

/// The exit code of a call that the broker refused.
pub(crate) fn of_refusal(code: Code, reason: &str) -> Exit {
    if matches!(reason, "NO_AGENT" | "NO_RECIPIENT") {
        return Exit::NobodyThere;
    }
    // It may help later: the metadata and the sentence say when.
    if reason == "HANDOFF_NOBODY" {
        return Exit::Limited;
    }
    if reason == "HANDOFF_MANIFEST" {
        return Exit::Integrity;
    }
    // A package is refused by what it is, whatever the reason; more room or another key is a person's decision.
    if reason.starts_with("PACKAGE_") {
        return Exit::Integrity;
    }
    match code {
        Code::Ok => Exit::Done,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::Unavailable => Exit::Unreachable,
        Code::ResourceExhausted => Exit::Limited,
        Code::DataLoss => Exit::Integrity,
        Code::DeadlineExceeded => Exit::Deadline,
        Code::Cancelled
        | Code::Unknown
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Exit::Failed,
    }
}

/// The exit code of an error that ended a command: decided by the first cause that has one.
pub(crate) fn of_error(err: &anyhow::Error) -> Exit {
    err.chain().find_map(of_cause).unwrap_or(Exit::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(err) = cause.downcast_ref::<output::Error>() {
        return Some(match err {
            output::Error::Closed => Exit::Done,
            output::Error::Write { .. } | output::Error::Encode { .. } => Exit::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<broker_client::Error>() {
        return Some(of_client(err));
    }
    if let Some(err) = cause.downcast_ref::<handoff::file::Error>() {
        return Some(err.exit());
    }
    if let Some(
        crate::cli::Misused::NoSharedValue(_)
        | crate::cli::Misused::NoHandoff(_)
        | crate::cli::Misused::NeitherOf(_)
        | crate::cli::Misused::NotHandoff(_),
    ) = cause.downcast_ref()
    {
        return Some(Exit::NotFound);
    }
    if let Some(consult::input::Error::Read { source, .. }) = cause.downcast_ref()
        && source.kind() == std::io::ErrorKind::NotFound
    {
        return Some(Exit::NotFound);
    }
    let is_usage = cause.is::<consult::input::Error>()
        || cause.is::<broker_config::Error>()
        || cause.is::<broker_config::PathError>()
        || cause.is::<crate::cli::Misused>();
    is_usage.then_some(Exit::Usage)
}

fn of_client(err: &broker_client::Error) -> Exit {
    match err {
        broker_client::Error::Unreachable { .. } | broker_client::Error::TimedOut { .. } => {
            Exit::Unreachable
        }
        broker_client::Error::Refused { code, reason, .. } => of_refusal(*code, reason),
        broker_client::Error::Corrupt { .. } => Exit::Integrity,
        broker_client::Error::Endpoint(_) => Exit::Usage,
        broker_client::Error::EndedEarly
        | broker_client::Error::Malformed(_)
        | broker_client::Error::Stalled { .. }
        | broker_client::Error::Token => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_exit_code() {
        use FailureClass as C;
        let table = FailureClass::ALL.map(|class| (class, of_class(class) as u8));
        let want = [
            (C::RateLimited, 5),
            (C::QuotaExhausted, 5),
            (C::CreditExhausted, 5),
            (C::Overloaded, 1),
            (C::ContextTooLong, 1),
            (C::RequestTooLarge, 1),
            (C::ContentRefused, 1),
            (C::InvalidRequest, 1),
            (C::CredentialsRejected, 1),
            (C::ModelNotFound, 3),
            (C::Timeout, 7),
            (C::Unreachable, 1),
            (C::Truncated, 1),
            (C::MalformedReply, 1),
            (C::AgentLost, 1),
            (C::Budget, 1),
            (C::Cancelled, 1),
            (C::Internal, 1),
        ];
        assert_eq!(table, want);
    }

    #[test]
    fn refusals_keep_their_meaning() {
        let table = [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::Unavailable, 4),
            (Code::ResourceExhausted, 5),
            (Code::DataLoss, 6),
            (Code::DeadlineExceeded, 7),
            (Code::FailedPrecondition, 1),
            (Code::AlreadyExists, 1),
        ];
        for (code, want) in table {
            assert_eq!(of_refusal(code, "") as u8, want, "{code:?}");
        }
        assert_eq!(of_refusal(Code::Unavailable, "NO_AGENT") as u8, 8);
        assert_eq!(of_refusal(Code::FailedPrecondition, "NO_RECIPIENT") as u8, 8);
        assert_eq!(of_refusal(Code::FailedPrecondition, "HANDOFF_NOBODY") as u8, 5);
        assert_eq!(of_refusal(Code::FailedPrecondition, "HANDOFF_MANIFEST") as u8, 6);
    }

    #[test]
    fn a_closed_pipe_is_success() {
        assert_eq!(of_error(&output::Error::Closed.into()), Exit::Done);
    }
}
