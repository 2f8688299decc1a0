//! What a status message tells. It asks nothing, and never reaches a model as a prompt.

use std::fmt;

use super::{MessageId, ModelName};

/// How much somebody should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Severity {
    #[default]
    Info,
    Warning,
    Error,
}

impl Severity {
    /// The severity's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The body of a status message.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StatusNotice {
    pub severity: Severity,
    /// For people; at most 16 KiB.
    pub text: String,
    /// The message it is about.
    pub subject: Option<MessageId>,
    pub what: StatusKind,
}

/// What kind of thing is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatusKind {
    /// Its text alone.
    #[default]
    Note,
    /// What a model has left: HEALTHY, WARNING, CRITICAL or EXHAUSTED.
    Level { model: ModelName, level: String },
    /// How far the work has come; at most 100.
    Progress { percent: Option<u8>, step: Option<String> },
    /// Whoever sends it still works.
    Heartbeat,
    /// A session is about to move, or has moved.
    Handoff { from: ModelName, to: ModelName },
}

impl StatusKind {
    /// The kind's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Level { .. } => "level",
            Self::Progress { .. } => "progress",
            Self::Heartbeat => "heartbeat",
            Self::Handoff { .. } => "handoff",
        }
    }
}

/// Its text stays out of every log.
impl fmt::Debug for StatusNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusNotice")
            .field("severity", &self.severity)
            .field("what", &self.what.as_str())
            .field("subject", &self.subject)
            .field("text_bytes", &self.text.len())
            .finish()
    }
}
