//! Tasks: what a delegation gives out, what it asks back, and what becomes of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;

use super::{
    AnswerSummary, Correlation, Failure, MessageId, Part, Priority, Recipient, Sender, WallTime,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Waits for whoever is to work on it: at first, between two attempts, after it was resumed or answered.
    Submitted,
    Working,
    /// Asked its requester something back.
    InputRequired,
    Suspended,
    Completed,
    /// Also past its deadline: then the failure's class is `Timeout`.
    Failed,
    Cancelled,
    /// The agent would not take it.
    Rejected,
}

impl TaskState {
    /// Every state, in the order of its number on the wire.
    pub const ALL: [Self; 8] = [
        Self::Submitted,
        Self::Working,
        Self::InputRequired,
        Self::Suspended,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Whether a task in this state has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Rejected)
    }

    /// The state's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// What a task's result is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ResultType {
    #[default]
    Text,
    /// One JSON value, matching the JSON Schema where there is one.
    Json { schema: Option<Bytes> },
}

/// One thing a task works on; the name is empty where none is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInput {
    pub name: String,
    pub parts: Vec<Part>,
}

/// What a delegation gives out.
#[derive(Clone, PartialEq, Default)]
pub struct TaskSpec {
    pub description: String,
    pub inputs: Vec<TaskInput>,
    pub result: ResultType,
    pub deadline: Option<Duration>,
    /// Input and output together, over all attempts.
    pub max_tokens: Option<u64>,
    pub max_cost_usd: Option<f64>,
    /// Give it to the named model only.
    pub no_fallback: bool,
}

/// Counts inputs; content never reaches a log.
impl fmt::Debug for TaskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSpec")
            .field("description", &format_args!("{} bytes", self.description.len()))
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

/// A question of a task to its requester, and the answer once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskExchange {
    /// From 1.
    pub number: u32,
    pub question: Vec<Part>,
    pub asked_at: WallTime,
    pub answer: Vec<Part>,
    /// `None` while the question is open.
    pub answered_at: Option<WallTime>,
}

/// A task as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInfo {
    pub id: MessageId,
    pub from: Sender,
    pub to: Recipient,
    pub state: TaskState,
    pub priority: Priority,
    pub submitted_at: WallTime,
    pub deadline: WallTime,
    pub finished_at: Option<WallTime>,
    pub summary: Option<AnswerSummary>,
    pub failure: Option<Failure>,
    pub correlation: Correlation,
    pub session: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// A task with its contents.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDetail {
    pub info: TaskInfo,
    pub task: TaskSpec,
    /// Oldest first.
    pub exchanges: Vec<TaskExchange>,
    /// The result, once it is completed; what arrived, when it failed or was suspended after something was shown.
    pub result: Vec<Part>,
    /// The result as JSON, where JSON was asked for and it is completed.
    pub result_json: Option<Bytes>,
}

/// One step in a task's life, and the state it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskChange {
    pub at: WallTime,
    /// submitted, queued, started, attempt_failed, lease_lost, asked, waiting, answered, suspended, stopped, parked,
    /// redriven, finished.
    pub change: String,
    pub detail: String,
    pub state: TaskState,
    /// What was asked, and answered.
    pub exchange: Option<TaskExchange>,
}
