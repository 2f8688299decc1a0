//! The reasons clients match on: one table, which `docs/errors.md` repeats and a test compares.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use broker_proto::{AgentName, FrameGap, RefusedFrame, TaskState};

/// One reason of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    pub name: &'static str,
    pub code: Code,
    /// Sending the same call again may succeed.
    pub retry_helps: bool,
}

macro_rules! reasons {
    ($($name:ident = $code:ident, $retry:literal;)+) => {
        $(pub(crate) const $name: Reason =
            Reason { name: stringify!($name), code: Code::$code, retry_helps: $retry };)+
        /// Every reason, in the order of the documentation.
        pub const REASONS: &[Reason] = &[INVALID_FIELD, $($name),+];
    };
}

/// Made where the wire is converted, in `broker-proto`.
pub(crate) const INVALID_FIELD: Reason =
    Reason { name: "INVALID_FIELD", code: Code::InvalidArgument, retry_helps: false };

reasons! {
    EMPTY_QUESTION = InvalidArgument, false;
    TOO_LARGE = InvalidArgument, false;
    WRONG_TYPE = InvalidArgument, false;
    HASH_MISMATCH = InvalidArgument, false;
    ALREADY_EXPIRED = InvalidArgument, false;
    AMBIGUOUS_MESSAGE = InvalidArgument, false;
    INVALID_EDIT = InvalidArgument, false;
    UNKNOWN_MODEL = NotFound, false;
    UNKNOWN_AGENT = NotFound, false;
    UNKNOWN_ROLE = NotFound, false;
    UNKNOWN_MESSAGE = NotFound, false;
    UNKNOWN_QUEUE = NotFound, false;
    UNKNOWN_CONTENT = NotFound, false;
    UNKNOWN_TOKEN = NotFound, false;
    UNKNOWN_SESSION = NotFound, false;
    UNKNOWN_POINT = NotFound, false;
    UNKNOWN_VALUE = NotFound, false;
    UNCOUNTED_SESSION = NotFound, false;
    INVALID_POLICY = InvalidArgument, false;
    RESERVED_NAME = InvalidArgument, false;
    ID_REUSED = AlreadyExists, false;
    SESSION_EXISTS = AlreadyExists, false;
    SESSION_CONFLICT = Aborted, false;
    SESSION_BUSY = Aborted, true;
    UNKNOWN_PACKAGE = NotFound, false;
    UNKNOWN_KEY_NAME = NotFound, false;
    KEY_NAME_TAKEN = AlreadyExists, false;
    NOT_DEAD = FailedPrecondition, false;
    NUMBER_REUSED = AlreadyExists, false;
    SEQUENCE_TOO_OLD = FailedPrecondition, false;
    BUDGET = FailedPrecondition, false;
    TOKEN_BUDGET = FailedPrecondition, false;
    LEASE_LOST = FailedPrecondition, false;
    LINK_CLOSED = FailedPrecondition, false;
    UPLOAD_OUT_OF_ORDER = FailedPrecondition, false;
    NOT_A_CONSULTATION = FailedPrecondition, false;
    NOT_A_TASK = FailedPrecondition, false;
    TASK_STATE = FailedPrecondition, false;
    QUESTION_CLOSED = FailedPrecondition, false;
    CURSOR_ELSEWHERE = FailedPrecondition, false;
    CURSOR_AHEAD = FailedPrecondition, false;
    NO_RECIPIENT = FailedPrecondition, true;
    TOO_MANY_RECIPIENTS = FailedPrecondition, false;
    QUEUE_FULL = ResourceExhausted, true;
    URGENT_SHARE = ResourceExhausted, true;
    TOO_MANY_PRODUCERS = ResourceExhausted, false;
    STORE_FULL = ResourceExhausted, true;
    TOO_MANY_CALLS = ResourceExhausted, true;
    TOO_MANY_UPLOADS = ResourceExhausted, true;
    TOO_MANY_ROLES = ResourceExhausted, false;
    TOO_MANY_SESSIONS = ResourceExhausted, false;
    SESSION_PAUSED = FailedPrecondition, false;
    SESSION_RUNNING = FailedPrecondition, false;
    NOT_READING = ResourceExhausted, true;
    TOKEN_REJECTED = Unauthenticated, false;
    NOT_ALLOWED = PermissionDenied, false;
    SUPERSEDED = Aborted, false;
    RESUME_REJECTED = FailedPrecondition, false;
    FRAME_GAP = DataLoss, true;
    NO_HEARTBEAT = DeadlineExceeded, true;
    RELOADING = Unavailable, true;
    STOPPING = Unavailable, true;
    NO_HELLO = DeadlineExceeded, true;
    DEADLINE = DeadlineExceeded, true;
    NO_AGENT = Unavailable, true;
    STORE_UNAVAILABLE = Unavailable, true;
    OUTCOME_UNKNOWN = Unknown, true;
    STORE_FAILED = Internal, false;
    CORRUPT = DataLoss, false;
    TOO_MANY_PACKAGES = ResourceExhausted, false;
    TOO_MANY_KEYS = ResourceExhausted, false;
    PACKAGE_MALFORMED = FailedPrecondition, false;
    PACKAGE_VERSION = FailedPrecondition, false;
    PACKAGE_TOO_LARGE = FailedPrecondition, false;
    PACKAGE_UNKNOWN_KEY = FailedPrecondition, false;
    PACKAGE_SIGNATURE = FailedPrecondition, false;
    PACKAGE_EXPIRED = FailedPrecondition, false;
    PACKAGE_RECIPIENT = FailedPrecondition, false;
    PACKAGE_HOPS = FailedPrecondition, false;
    PACKAGE_REPLAYED = FailedPrecondition, false;
    PACKAGE_BOMB = FailedPrecondition, false;
    PACKAGE_DAMAGED = FailedPrecondition, false;
    PACKAGE_CONTENTS = FailedPrecondition, false;
    UNKNOWN_HANDOFF = NotFound, false;
    UNKNOWN_BRIDGE = NotFound, false;
    BRIDGE_REFUSED = FailedPrecondition, false;
    HANDOFF_STATE = FailedPrecondition, false;
    HANDOFF_UNDER_WAY = FailedPrecondition, true;
    HANDOFF_REFUSED = FailedPrecondition, false;
    HANDOFF_NOBODY = FailedPrecondition, true;
    HANDOFF_NOT_YOURS = PermissionDenied, false;
    HANDOFF_MANIFEST = FailedPrecondition, false;
    HANDOFF_LATE = FailedPrecondition, false;
    UNKNOWN_RING = NotFound, false;
    RING_INVALID = InvalidArgument, false;
    RING_REFUSED = FailedPrecondition, false;
    RING_UNDER_WAY = FailedPrecondition, true;
}

impl Reason {
    /// A status of this reason.
    pub(crate) fn status(&self, message: impl Into<String>) -> Status {
        self.with(message, HashMap::new())
    }

    /// A status of this reason with what a program may want to know.
    pub(crate) fn with(
        &self,
        message: impl Into<String>,
        metadata: HashMap<String, String>,
    ) -> Status {
        let details = ErrorDetails::with_error_info(self.name, "broker.v1", metadata);
        Status::with_error_details(self.code, message, details)
    }

    /// A status of this reason that says when to come again.
    pub(crate) fn after(&self, message: impl Into<String>, wait: Duration) -> Status {
        let mut details = ErrorDetails::with_error_info(self.name, "broker.v1", HashMap::new());
        details.set_retry_info(Some(wait));
        Status::with_error_details(self.code, message, details)
    }
}

/// A status as a frame of a link says it.
pub(crate) fn frame(status: &Status) -> RefusedFrame {
    let info = status.get_details_error_info();
    let reason = info.map_or_else(|| "UNKNOWN".to_owned(), |info| info.reason);
    RefusedFrame { reason, detail: status.message().to_owned() }
}

/// The state that a task is in, in words and as `state` for programs.
pub(crate) fn task_state(state: TaskState, text: impl Into<String>) -> Status {
    let state = HashMap::from([("state".to_owned(), state.as_str().to_owned())]);
    TASK_STATE.with(text, state)
}

pub(crate) fn superseded() -> Status {
    SUPERSEDED.status("a newer link under this exclusive name has taken over")
}

pub(crate) fn reloading(wait: Duration) -> Status {
    RELOADING.after("the broker loads its state again; greet again", wait)
}

pub(crate) fn stopping() -> Status {
    STOPPING.status("the broker is stopping")
}

pub(crate) fn stopping_link(wait: Duration) -> Status {
    STOPPING.after("the broker is stopping", wait)
}

pub(crate) fn frame_gap(gap: FrameGap) -> Status {
    FRAME_GAP.status(format!("{gap}; greet again"))
}

pub(crate) fn resume_rejected() -> Status {
    RESUME_REJECTED
        .status("the resume token was not given to this name and instance; greet without one")
}

pub(crate) fn no_heartbeat(silence: Duration) -> Status {
    NO_HEARTBEAT.status(format!("no heartbeat came for {} s; greet again", silence.as_secs_f64()))
}

pub(crate) fn no_hello() -> Status {
    NO_HELLO.status("the first frame of a link must be a hello")
}

/// Over a limit of bytes, which programs find as `limit_bytes`.
pub(crate) fn too_large(text: impl Into<String>, limit: u64) -> Status {
    TOO_LARGE.with(text, HashMap::from([("limit_bytes".to_owned(), limit.to_string())]))
}

pub(crate) fn lease_lost() -> Status {
    LEASE_LOST.status("this token holds no lease")
}

pub(crate) fn token_rejected(agent: &AgentName) -> Status {
    TOKEN_REJECTED.status(format!(
        "the token does not prove the name `{agent}`; make one with `brokerctl token create {agent}`"
    ))
}
