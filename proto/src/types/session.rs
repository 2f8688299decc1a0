//! A session: one conversation, owned by one model at a time, with what it is about and what it shares.

use std::fmt;

use super::{AgentName, Entry, ModelName, WallTime};

/// BLAKE3 over an entry's encoding and the hash of the entry before it: equal hashes mean equal conversations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// What the first entry of a session follows.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an entry is to the conversation it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryKind {
    /// Something that was said in it.
    #[default]
    Turn,
    /// What another model advised when it was consulted; the owner did not say it.
    Advice,
}

/// One entry of a session, as it was appended; it never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEntry {
    /// From 0, in the order of the conversation.
    pub number: u64,
    pub kind: EntryKind,
    pub entry: Entry,
    /// The model that said it; `None` for people, tools, and where nobody told.
    pub model: Option<ModelName>,
    /// When it was said, as its source says.
    pub created_at: Option<WallTime>,
    /// Estimated from its bytes; exact counts are made where a budget is filled.
    pub tokens: u64,
    pub previous: EntryHash,
    pub hash: EntryHash,
}

/// One line of a task's lists.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SessionItem {
    /// Unique within its list and never given again, so that a verb can name it.
    pub id: u32,
    pub text: String,
    pub is_done: bool,
    /// The entry that states it, where it was taken from one.
    pub entry: Option<u64>,
}

/// A subagent whose result the session still waits for.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PendingSubagent {
    pub id: String,
    pub kind: String,
    pub model: String,
    pub status: String,
    pub description: String,
}

/// What a session is about: what must go along whatever else is left behind.
#[derive(Clone, PartialEq, Default)]
pub struct SessionTask {
    pub goal: String,
    pub sub_goals: Vec<SessionItem>,
    pub constraints: Vec<SessionItem>,
    pub decisions: Vec<SessionItem>,
    /// 0 to 1; `None` when nobody said.
    pub progress: Option<f64>,
    pub next_steps: Vec<SessionItem>,
    pub open_items: Vec<SessionItem>,
    pub files: Vec<SessionItem>,
    pub critical_facts: Vec<SessionItem>,
    pub preferences: Vec<SessionItem>,
    pub pending_subagents: Vec<PendingSubagent>,
}

/// One value of a session's shared context.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedValue {
    pub key: String,
    /// JSON text.
    pub value: String,
    /// Who or what it came from; empty when nobody said.
    pub source: String,
    pub tags: Vec<String>,
    pub set_at: WallTime,
}

/// Whose session it is. A handoff changes all of it in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOwner {
    pub model: ModelName,
    /// The agent that holds it, where one process does.
    pub agent: Option<AgentName>,
    /// Rises with each change of owner.
    pub epoch: u64,
}

/// Counts what there is; content never reaches a log.
impl fmt::Debug for SessionTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTask")
            .field("goal_bytes", &self.goal.len())
            .field("next_steps", &self.next_steps.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionItem({}, {} bytes)", self.id, self.text.len())
    }
}

impl fmt::Debug for PendingSubagent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingSubagent({})", self.id)
    }
}

impl fmt::Debug for SharedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedValue({} bytes)", self.value.len())
    }
}
