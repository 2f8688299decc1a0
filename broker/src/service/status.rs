//! Error -> Status: the single table.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::StatusExt as _;

use broker_proto::convert::InvalidField;

use super::reason;
use crate::{
    context::{
        self,
        package::{PackError, Refused},
    },
    core::{self, Refusal, handoff, package, ring},
    engine, handoffs, intake,
    link::PingError,
    packages, projection, session,
};

pub(crate) fn refusal(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::UnknownModel { nearest, .. } => {
            let nearest = nearest.join(", ");
            reason::UNKNOWN_MODEL.with(text, HashMap::from([("nearest".to_owned(), nearest)]))
        }
        Refusal::UnknownAgent(_) => reason::UNKNOWN_AGENT.status(text),
        Refusal::UnknownRole(_) => reason::UNKNOWN_ROLE.status(text),
        Refusal::TooManyRoles { .. } => reason::TOO_MANY_ROLES.status(text),
        Refusal::NoRecipient(_) => reason::NO_RECIPIENT.status(text),
        Refusal::TooManyRecipients { .. } => reason::TOO_MANY_RECIPIENTS.status(text),
        Refusal::IdReused(_) => reason::ID_REUSED.status(text),
        Refusal::NumberReused(_) => reason::NUMBER_REUSED.status(text),
        Refusal::SequenceTooOld { oldest, .. } => {
            let oldest = HashMap::from([("oldest".to_owned(), oldest.to_string())]);
            reason::SEQUENCE_TOO_OLD.with(text, oldest)
        }
        Refusal::TooManyProducers { .. } => reason::TOO_MANY_PRODUCERS.status(text),
        Refusal::Budget { bound, limit } => {
            let named = [("bound", (*bound).to_owned()), ("limit", limit.clone())];
            reason::BUDGET.with(text, named.map(|(key, value)| (key.to_owned(), value)).into())
        }
        Refusal::AlreadyExpired => reason::ALREADY_EXPIRED.status(text),
        Refusal::QueueFull { retry_after, .. } => reason::QUEUE_FULL.after(text, *retry_after),
        Refusal::WrongType { .. } => reason::WRONG_TYPE.status(text),
        Refusal::UrgentShare { retry_after, .. } => reason::URGENT_SHARE.after(text, *retry_after),
        Refusal::UnknownMessage(_) => reason::UNKNOWN_MESSAGE.status(text),
        Refusal::NotDead(_) => reason::NOT_DEAD.status(text),
        Refusal::UnknownQueue(_) => reason::UNKNOWN_QUEUE.status(text),
        Refusal::NotATask(_) => reason::NOT_A_TASK.status(text),
        Refusal::TaskState { state, .. } => reason::task_state(*state, text),
        Refusal::TaskEnded => reason::TASK_STATE.status(text),
        Refusal::QuestionClosed { .. } => reason::QUESTION_CLOSED.status(text),
        Refusal::TaskFull(_) => reason::TOO_LARGE.status(text),
        Refusal::LeaseLost(_) => reason::LEASE_LOST.status(text),
        Refusal::ReservedName(_) => reason::RESERVED_NAME.status(text),
        Refusal::UnknownToken(_) => reason::UNKNOWN_TOKEN.status(text),
        Refusal::Session(refused) => session_refusal(refused),
        Refusal::Policy(_) => reason::INVALID_POLICY.status(text),
        Refusal::UncountedSession(_) => reason::UNCOUNTED_SESSION.status(text),
        Refusal::LinkClosed(_) => reason::LINK_CLOSED.status(text),
        Refusal::Package(refusal) => package_refusal(refusal, text),
        Refusal::Handoff(refusal) => handoff_refusal(refusal, text),
        Refusal::Bridge(handoff::bridge::Refusal::Unknown { .. }) => {
            reason::UNKNOWN_BRIDGE.status(text)
        }
        Refusal::Bridge(_) => reason::BRIDGE_REFUSED.status(text),
        Refusal::Ring(refusal) => ring_refusal(refusal, text),
    }
}

fn handoff_refusal(refusal: &handoff::Refusal, text: String) -> Status {
    use handoff::Refusal as Refused;
    match refusal {
        Refused::Unknown(_) => reason::UNKNOWN_HANDOFF.status(text),
        Refused::State { .. } => reason::HANDOFF_STATE.status(text),
        Refused::UnderWay { .. } => reason::HANDOFF_UNDER_WAY.status(text),
        Refused::NoTurns(_)
        | Refused::Owner { .. }
        | Refused::HasIt { .. }
        | Refused::Unfit { .. }
        | Refused::NoOrigin(_)
        | Refused::OwnerChanged(_) => reason::HANDOFF_REFUSED.status(text),
        Refused::Nobody { until, .. } => {
            let until = until.map(|at| ("until_ms".to_owned(), at.0.to_string()));
            reason::HANDOFF_NOBODY.with(text, until.into_iter().collect())
        }
        Refused::NotYours { .. } => reason::HANDOFF_NOT_YOURS.status(text),
        Refused::Manifest(_) => reason::HANDOFF_MANIFEST.status(text),
        Refused::Late(_) => reason::HANDOFF_LATE.status(text),
        Refused::Policy(_) => reason::INVALID_POLICY.status(text),
    }
}

fn ring_refusal(refusal: &ring::Refusal, text: String) -> Status {
    use ring::Refusal as Refused;
    match refusal {
        Refused::Unknown(_) => reason::UNKNOWN_RING.status(text),
        Refused::UnknownAgent(_) => reason::UNKNOWN_AGENT.status(text),
        Refused::NoMembers
        | Refused::Twice(_)
        | Refused::TooMany
        | Refused::ShortPause { .. }
        | Refused::LongPause
        | Refused::NoMember { .. } => reason::RING_INVALID.status(text),
        Refused::TooManyRings
        | Refused::Off(_)
        | Refused::Owner(_)
        | Refused::Alone(_)
        | Refused::Unfit { .. } => reason::RING_REFUSED.status(text),
        Refused::UnderWay { .. } => reason::RING_UNDER_WAY.status(text),
    }
}

/// Why a handoff was not begun, changed or shown.
pub(crate) fn handoffs(error: handoffs::Error) -> Status {
    match error {
        handoffs::Error::Engine(error) => engine(error),
        handoffs::Error::Intake(error) => intake(error),
        handoffs::Error::Lookup(error) => projection(&error),
    }
}

fn package_refusal(refusal: &package::Refusal, text: String) -> Status {
    match refusal {
        package::Refusal::Unknown(_) => reason::UNKNOWN_PACKAGE.status(text),
        package::Refusal::Replayed => reason::PACKAGE_REPLAYED.status(text),
        package::Refusal::NameTaken { .. } => reason::KEY_NAME_TAKEN.status(text),
        package::Refusal::UnknownName(_) => reason::UNKNOWN_KEY_NAME.status(text),
        package::Refusal::Full { .. } => reason::TOO_MANY_PACKAGES.status(text),
        package::Refusal::TooManyKeys { .. } => reason::TOO_MANY_KEYS.status(text),
    }
}

/// Why a package is not taken; all of these are refusals of integrity, and `reason` tells them apart.
fn package(refused: &Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::Malformed(_) => reason::PACKAGE_MALFORMED.status(text),
        Refused::Version(_) => reason::PACKAGE_VERSION.status(text),
        Refused::TooLarge => reason::PACKAGE_TOO_LARGE.status(text),
        Refused::UnknownKey(key) => {
            let key = HashMap::from([("key".to_owned(), key.to_string())]);
            reason::PACKAGE_UNKNOWN_KEY.with(text, key)
        }
        Refused::Signature => reason::PACKAGE_SIGNATURE.status(text),
        Refused::Expired(_) => reason::PACKAGE_EXPIRED.status(text),
        Refused::Recipient(_) => reason::PACKAGE_RECIPIENT.status(text),
        Refused::Hops(_) => reason::PACKAGE_HOPS.status(text),
        Refused::Replayed => reason::PACKAGE_REPLAYED.status(text),
        Refused::Bomb => reason::PACKAGE_BOMB.status(text),
        Refused::Damaged(_) => reason::PACKAGE_DAMAGED.status(text),
        Refused::Contents(_) => reason::PACKAGE_CONTENTS.status(text),
    }
}

pub(crate) fn packages(error: packages::Error) -> Status {
    let text = error.to_string();
    match error {
        packages::Error::Invalid(invalid) => invalid.into(),
        packages::Error::Unknown(_) | packages::Error::None => reason::UNKNOWN_PACKAGE.status(text),
        packages::Error::Refused(refused) => package(&refused),
        packages::Error::Pack(PackError::TooLarge | PackError::OthersTooLarge) => {
            reason::PACKAGE_TOO_LARGE.status(text)
        }
        packages::Error::Pack(PackError::Hops(_)) => reason::PACKAGE_HOPS.status(text),
        packages::Error::Pack(PackError::Compress) | packages::Error::Random(_) => {
            reason::STORE_FAILED.status(text)
        }
        packages::Error::Engine(error) => engine(error),
        packages::Error::Intake(error) => intake(error),
        packages::Error::Content(error) => context(&error),
        packages::Error::Lookup(error) => projection(&error),
        packages::Error::Session(error) => session(error),
        packages::Error::NotUploaded => reason::UNKNOWN_CONTENT.status(text),
        packages::Error::NotResumed { source, .. } => also(&packages(*source), &text),
    }
}

/// The same, with what to do about it.
fn also(status: &Status, text: &str) -> Status {
    let message = format!("{}; {text}", status.message());
    let details = status.get_error_details();
    Status::with_error_details(status.code(), message, details)
}

fn session_refusal(refusal: &core::session::Refusal) -> Status {
    use core::session::Refusal as Refused;
    let text = refusal.to_string();
    match refusal {
        Refused::Unknown(_) => reason::UNKNOWN_SESSION.status(text),
        Refused::Exists(_) => reason::SESSION_EXISTS.status(text),
        Refused::Moved(_) => reason::SESSION_CONFLICT.status(text),
        Refused::TooMany => reason::TOO_MANY_SESSIONS.status(text),
        Refused::Paused(_) => reason::SESSION_PAUSED.status(text),
        Refused::Running(_) => reason::SESSION_RUNNING.status(text),
    }
}

/// Why a session was not read or changed.
pub(crate) fn session(error: session::Error) -> Status {
    use core::session::task::EditError;
    use session::Error as Failed;
    let text = error.to_string();
    match error {
        Failed::Engine(error) => engine(error),
        Failed::Refused(refused) => session_refusal(&refused),
        Failed::Intake(error) => intake(error),
        Failed::Invalid(invalid) => invalid.into(),
        Failed::Lookup(error) => projection(&error),
        Failed::Content(error) => context(&error),
        Failed::Edit(EditError::NoKey(_)) => reason::UNKNOWN_VALUE.status(text),
        Failed::Edit(_) => reason::INVALID_EDIT.status(text),
        Failed::Conflict(conflict) => {
            let named = [
                ("session", conflict.id.to_string()),
                ("version", conflict.version.to_string()),
                ("head", conflict.head.hash.to_string()),
                ("entries", conflict.head.entries.to_string()),
                ("other_head", conflict.other.hash.to_string()),
                ("other_entries", conflict.other.entries.to_string()),
                ("common_entries", conflict.common.to_string()),
                ("keys", conflict.keys.join(", ")),
            ];
            let named = named.map(|(key, value)| (key.to_owned(), value));
            reason::SESSION_CONFLICT.with(text, named.into())
        }
        Failed::NoPoint { .. } | Failed::Ambiguous(_) => reason::UNKNOWN_POINT.status(text),
        Failed::TooLarge { limit, .. } => reason::too_large(text, limit as u64),
        Failed::Empty => InvalidField::new("entries", "are none").into(),
        Failed::Busy(_) => reason::SESSION_BUSY.status(text),
        Failed::NoModel => reason::UNKNOWN_MODEL.status(text),
        Failed::Render(error) => {
            let needed = HashMap::from([("needed".to_owned(), error.needed().to_string())]);
            reason::TOKEN_BUDGET.with(text, needed)
        }
        Failed::Stopped => reason::stopping(),
        Failed::NoRandomness => reason::STORE_FAILED.status(text),
    }
}

pub(crate) fn engine(error: engine::Error) -> Status {
    let text = error.to_string();
    match error {
        engine::Error::Refused(refused) => refusal(&refused),
        engine::Error::StoreFull => {
            reason::STORE_FULL.after(text, std::time::Duration::from_secs(10))
        }
        engine::Error::StoreUnavailable => reason::STORE_UNAVAILABLE.status(text),
        engine::Error::Stopping => reason::stopping(),
        engine::Error::Unknown => reason::OUTCOME_UNKNOWN.status(text),
    }
}

pub(crate) fn intake(error: intake::Error) -> Status {
    let text = error.to_string();
    match error {
        intake::Error::Invalid(invalid) => invalid.into(),
        intake::Error::Engine(error) => engine(error),
        intake::Error::TooLarge { limit, .. } => reason::too_large(text, limit),
        intake::Error::Empty => reason::EMPTY_QUESTION.status(text),
        intake::Error::UnknownContent(_) => reason::UNKNOWN_CONTENT.status(text),
        intake::Error::Content(error) => context(&error),
        intake::Error::Lookup(error) => projection(&error),
    }
}

pub(crate) fn context(error: &context::Error) -> Status {
    use crate::journal::{PutError, Why};
    let text = error.to_string();
    match error {
        context::Error::Put(PutError::NotStored(Why::Full)) => {
            reason::STORE_FULL.after(text, std::time::Duration::from_secs(10))
        }
        context::Error::Corrupt => reason::CORRUPT.status(text),
        context::Error::Put(_) | context::Error::Prepare(_) | context::Error::Read(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "the store failed");
            reason::STORE_FAILED.status(text)
        }
    }
}

pub(crate) fn ping(error: &PingError) -> Status {
    let (PingError::Nobody { side, model } | PingError::Silent { side, model, .. }) = error;
    let metadata = HashMap::from([
        ("side".to_owned(), side.as_str().to_owned()),
        ("model".to_owned(), model.to_string()),
    ]);
    reason::NO_AGENT.with(error.to_string(), metadata)
}

pub(crate) fn projection(error: &projection::Error) -> Status {
    tracing::error!(error = error as &dyn std::error::Error, "the projection failed");
    reason::STORE_FAILED.status(error.to_string())
}
