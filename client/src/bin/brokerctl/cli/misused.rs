//! What is wrong with a command line as a whole.

use broker_proto::types::{FailureClass, HandoffId, SessionId};

/// A use that no single flag is to blame for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misused {
    #[error("`{0}` is no model name: 1 to 64 of a-z, 0-9, `.`, `_`, `-` are")]
    ModelName(String),
    #[error("`{0}` is no agent's name: 1 to 64 of a-z, 0-9, `.`, `_`, `-` are")]
    AgentName(String),
    #[error("name the model: --model MODEL, or a session whose owner is asked: --session ID")]
    NoModel,
    #[error("name who is to be ready: --to MODEL")]
    NoReceiver,
    #[error("--context shared is a session's: name it with --session ID or BROKER_SESSION")]
    SharedOfNone,
    #[error("`{0}` is no time: 2026-11-20T08:00:00Z is, and 2h ago is written 2h")]
    Moment(String),
    #[error("invalid value '{0}' for '--output': a number of tokens is wanted")]
    OutputTokens(String),
    #[error("--output is missing: the number of output tokens")]
    NoOutputTokens,
    #[error("the number of output tokens is given twice")]
    OutputTokensTwice,
    #[error("the task is empty")]
    NoTask,
    #[error("the message is empty")]
    NoText,
    #[error("--severity, --percent and --about belong to a status: --type status")]
    NoStatus,
    #[error("no token: set BROKER_AGENT_TOKEN to what `brokerctl token create NAME` prints")]
    NoToken,
    #[error("a settlement needs one of text, failed, retry, reject, release and ask")]
    NoOutcome,
    #[error("`{0}` is no class of a failure: {known} are", known = classes())]
    FailureClass(String),
    #[error(
        "`{0}` is no message id: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV, or SENDER/ID"
    )]
    MessageId(String),
    /// What stands in it may be an answer, which no message repeats.
    #[error("not a settlement: {problem} at column {column}")]
    NoSettlement { problem: String, column: usize },
    #[error("the {what} is larger than {limit_mib} MiB")]
    TooLong { what: &'static str, limit_mib: u64 },
    #[error("what was given is not UTF-8 text")]
    NotText,
    #[error("the answer is empty")]
    NoAnswer,
    #[error("`{0}` is no session's id: 1 to 64 of a-z, 0-9, `_`, `-` are")]
    SessionId(String),
    #[error("two sessions are named: say one of them")]
    TwoSessions,
    #[error("name the session: --session ID")]
    NoSession,
    #[error("say what is appended: a text, `-` for stdin, or --file")]
    AppendWhat,
    #[error("nobody can be asked here whether to delete it: say --yes")]
    DeleteUnasked,
    #[error(
        "which session? name it with --session ID or BROKER_SESSION; none was used from this folder yet"
    )]
    NoneUsed,
    #[error("session `{0}` has no handoff: `handoff offer --session {0} --to MODEL` begins one")]
    NoHandoff(SessionId),
    #[error("handoff {handoff} is one of session `{of}`, not of `{session}`")]
    OtherSession { handoff: HandoffId, of: SessionId, session: SessionId },
    #[error(
        "there is no handoff and no package {0}: `handoff history` and `handoff list` show them"
    )]
    NeitherOf(HandoffId),
    #[error("a chat is text: a program asks with `consult --session ID --output json`")]
    ChatIsText,
    #[error("there is no handoff {0}: of a package `handoff report` prints the report")]
    NotHandoff(HandoffId),
    #[error("there is no shared value `{0}`")]
    NoSharedValue(String),
    #[error("nobody can be asked here whether to purge them all: say --yes")]
    PurgeUnasked,
    #[error("invalid value '{0}' for '--output': text and json are the formats")]
    Format(String),
}

fn classes() -> String {
    FailureClass::ALL.map(FailureClass::as_str).join(", ")
}
