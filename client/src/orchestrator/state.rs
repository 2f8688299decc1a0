//! The state file of an orchestrator: what its JSON must hold, and everything that is wrong with one.
//!
//! Fields that are not named here may stand in the file: an orchestrator keeps what it needs beside them. Its schema for
//! people and editors is `docs/schema/orchestrator-state.schema.json`.

mod read;

use broker_proto::types::WallTime;
use serde_json::{Map, Value};

use self::read::Reader;
pub(super) use self::read::{MOST_FINDINGS, time_of};
use super::{finding::Finding, graph, text};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    Pending,
    Active,
    Completed,
    Failed,
    /// It waits for something that is not a task.
    Blocked,
    Skipped,
}

impl TaskStatus {
    /// Every way to write one: the first word of each is how it is written here.
    const WORDS: [(&[&str], Self); 6] = [
        (&["pending", "ready", "queued", "todo"], Self::Pending),
        (&["active", "in_progress", "running"], Self::Active),
        (&["completed", "complete", "done"], Self::Completed),
        (&["failed", "error"], Self::Failed),
        (&["blocked"], Self::Blocked),
        (&["skipped", "cancelled"], Self::Skipped),
    ];

    /// The word it is written with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Skipped => "skipped",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(words, _)| words.contains(&word)).map(|(_, status)| *status)
    }

    /// Whether nothing waits for it any more.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Skipped)
    }
}

/// How soon a task is to be done; the order is that of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    Urgent,
    High,
    #[default]
    Normal,
    Low,
}

impl Priority {
    /// The word it is written with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Urgent, Self::High, Self::Normal, Self::Low].into_iter().find(|p| p.as_str() == word)
    }
}

/// One task of the plan.
#[derive(Clone, PartialEq)]
pub struct Task {
    pub id: String,
    /// Empty when the file gives none.
    pub title: String,
    pub status: TaskStatus,
    pub depends_on: Vec<String>,
    pub priority: Priority,
    /// 0 to 1.
    pub progress: Option<f64>,
    pub assignee: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    pub attempts: Option<u64>,
    pub next_subtask: Option<String>,
}

/// A file that the work changed or needs.
#[derive(Clone, PartialEq, Eq)]
pub struct FileState {
    pub path: String,
    pub status: Option<String>,
    pub note: Option<String>,
}

/// Where the run stands.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Execution {
    pub step: Option<u64>,
    pub total_steps: Option<u64>,
    pub status: Option<String>,
    pub resume_point: Option<String>,
}

/// What an orchestrator wrote down.
#[derive(Clone, PartialEq)]
pub struct State {
    pub project: String,
    pub phase: String,
    pub updated_at: WallTime,
    pub goal: Option<String>,
    /// 0 to 1; without one the finished tasks tell.
    pub progress: Option<f64>,
    pub execution: Execution,
    pub constraints: Vec<String>,
    pub decisions: Vec<String>,
    /// Facts without which the work cannot go on.
    pub critical: Vec<String>,
    pub open_items: Vec<String>,
    pub preferences: Vec<String>,
    pub next_steps: Vec<String>,
    pub tasks: Vec<Task>,
    pub files: Vec<FileState>,
    /// Names and values, by name.
    pub environment: Vec<(String, String)>,
}

impl State {
    /// Reads the bytes of a state file.
    ///
    /// The findings beside a state are what it can be used with (a dependency on a task that is not there); without one
    /// they are why there is none.
    ///
    /// # Errors
    /// [`text::Unreadable`] when the file holds no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<(Option<Self>, Vec<Finding>), text::Unreadable> {
        let object = text::object(text::of_bytes(bytes, text::MOST_BYTES)?)?;
        Ok(Self::of_object(&object))
    }

    pub(super) fn of_object(object: &Map<String, Value>) -> (Option<Self>, Vec<Finding>) {
        let mut reader = Reader::default();
        let state = reader.state(object);
        let mut findings = reader.findings;
        let is_whole = findings.is_empty();
        findings.extend(graph::findings(&state.tasks));
        findings.truncate(MOST_FINDINGS);
        (is_whole.then_some(state), findings)
    }

    /// Whole percent of the work that is done; 100 only when all of it is.
    pub(super) fn percent(&self) -> u64 {
        if let Some(progress) = self.progress {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1 was checked when it was read"
            )]
            return (progress * 100.0).floor() as u64;
        }
        // What was skipped is neither done nor to be done.
        let planned = self.tasks.len() - self.count(TaskStatus::Skipped);
        (self.count(TaskStatus::Completed) * 100).checked_div(planned).unwrap_or(0) as u64
    }

    pub(super) fn count(&self, status: TaskStatus) -> usize {
        self.tasks.iter().filter(|task| task.status == status).count()
    }
}

/// Counts; what a state says reaches no log.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("status", &self.status).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FileState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileState").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, total_steps, .. } = self;
        write!(f, "Execution({step:?} of {total_steps:?})")
    }
}
