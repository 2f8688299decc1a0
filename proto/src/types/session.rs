//! A session: one conversation, owned by one model at a time, with what it is about and what it shares.

use std::fmt;

use super::{
    AgentName, ContentHash, Entry, HandoffId, ModelName, PackageId, Role, SessionId, WallTime,
};

/// BLAKE3 over an entry's encoding and the hash of the entry before it: equal hashes mean equal conversations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// What the first entry of a session follows.
    pub const NONE: Self = Self([0; 32]);
}

impl EntryHash {
    /// The hash of an entry of this `encoding` behind `self`.
    #[must_use]
    pub fn next(self, encoding: ContentHash) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&encoding.0);
        Self(*hasher.finalize().as_bytes())
    }
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

/// The label of a question whose answer is appended to its session once it is there: as a `turn` behind the question
/// itself, or alone as `advice`.
pub const APPEND_LABEL: &str = "session";

/// The label of a question that says which entries of its context are the history of its session ([`HistoryRange`]), so
/// that a model whose window does not hold them is sent a smaller one.
pub const HISTORY_LABEL: &str = "session_history";

/// The entries of a question's context that are its session's history. Written as `VERSION:FIRST:COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRange {
    /// Of the session, whose history it is.
    pub version: u64,
    /// The place of the first in the context.
    pub first: usize,
    pub count: usize,
}

impl HistoryRange {
    /// What a message says of its context; nothing where that is not there, or cannot be.
    #[must_use]
    pub fn of(message: &super::Message) -> Option<Self> {
        let mut numbers = message.labels.get(HISTORY_LABEL)?.split(':').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (version, first, count) = (next()?, next()?, next()?);
        let (first, count) = (usize::try_from(first).ok()?, usize::try_from(count).ok()?);
        let end = first.checked_add(count)?;
        let fits = count > 0 && end <= message.payload.context.len() && message.session.is_some();
        fits.then_some(Self { version, first, count })
    }

    /// Where they are.
    #[must_use]
    pub fn places(self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }
}

impl std::fmt::Display for HistoryRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.version, self.first, self.count)
    }
}

/// One entry as it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSessionEntry {
    pub kind: EntryKind,
    pub entry: Entry,
    pub model: Option<ModelName>,
    pub created_at: Option<WallTime>,
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
    /// The last id that an item of any list was given.
    pub last_id: u32,
}

/// The lists of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskList {
    SubGoals,
    Constraints,
    Decisions,
    NextSteps,
    OpenItems,
    Files,
    CriticalFacts,
    Preferences,
}

impl TaskList {
    pub const ALL: [Self; 8] = [
        Self::SubGoals,
        Self::Constraints,
        Self::Decisions,
        Self::NextSteps,
        Self::OpenItems,
        Self::Files,
        Self::CriticalFacts,
        Self::Preferences,
    ];

    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubGoals => "sub_goals",
            Self::Constraints => "constraints",
            Self::Decisions => "decisions",
            Self::NextSteps => "next_steps",
            Self::OpenItems => "open_items",
            Self::Files => "files",
            Self::CriticalFacts => "critical_facts",
            Self::Preferences => "preferences",
        }
    }

    /// Reads what [`TaskList::as_str`] writes, also with dashes and in the singular.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.replace('-', "_");
        Self::ALL.into_iter().find(|list| {
            let name = list.as_str();
            name == text || name.strip_suffix('s') == Some(&text)
        })
    }
}

impl SessionTask {
    #[must_use]
    pub fn list(&self, list: TaskList) -> &Vec<SessionItem> {
        match list {
            TaskList::SubGoals => &self.sub_goals,
            TaskList::Constraints => &self.constraints,
            TaskList::Decisions => &self.decisions,
            TaskList::NextSteps => &self.next_steps,
            TaskList::OpenItems => &self.open_items,
            TaskList::Files => &self.files,
            TaskList::CriticalFacts => &self.critical_facts,
            TaskList::Preferences => &self.preferences,
        }
    }

    pub fn list_mut(&mut self, list: TaskList) -> &mut Vec<SessionItem> {
        match list {
            TaskList::SubGoals => &mut self.sub_goals,
            TaskList::Constraints => &mut self.constraints,
            TaskList::Decisions => &mut self.decisions,
            TaskList::NextSteps => &mut self.next_steps,
            TaskList::OpenItems => &mut self.open_items,
            TaskList::Files => &mut self.files,
            TaskList::CriticalFacts => &mut self.critical_facts,
            TaskList::Preferences => &mut self.preferences,
        }
    }
}

/// A session in which nothing happens until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPause {
    pub at: WallTime,
    /// As somebody said it; empty when nobody did.
    pub reason: String,
    /// What it goes on with.
    pub package: PackageId,
    /// Who paused it; empty where that was not kept yet.
    pub by: String,
    /// The transfer that it is paused for, and goes on after; `None`: somebody paused it, and resumes it.
    pub handoff: Option<HandoffId>,
}

/// What a session goes on with when it is resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionResumed {
    pub session: SessionInfo,
    /// `None` when it went on without one.
    pub package: Option<PackageId>,
    /// Where the work goes on; empty when nobody said.
    pub resume_point: String,
    pub instructions: String,
}

/// One change of a task.
#[derive(Clone, PartialEq)]
pub enum TaskEdit {
    SetGoal(String),
    /// 0 to 1.
    SetProgress(f64),
    Add {
        list: TaskList,
        text: String,
        entry: Option<u64>,
    },
    Done {
        list: TaskList,
        id: u32,
        is_done: bool,
    },
    Remove {
        list: TaskList,
        id: u32,
    },
    SetSubagent(PendingSubagent),
    RemoveSubagent(String),
}

/// Where a session ends, at some point of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHead {
    pub entries: u64,
    pub hash: EntryHash,
}

impl SessionHead {
    /// That of an empty session.
    pub const EMPTY: Self = Self { entries: 0, hash: EntryHash::NONE };
}

impl Default for SessionHead {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A session without its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    pub id: SessionId,
    pub title: String,
    pub owner: SessionOwner,
    pub head: SessionHead,
    /// Estimated, of all its entries.
    pub tokens: u64,
    pub size_bytes: u64,
    /// Rises with every change.
    pub version: u64,
    pub started_at: WallTime,
    pub changed_at: WallTime,
    /// The session it was forked from, and how many entries it took along.
    pub forked_from: Option<(SessionId, u64)>,
    /// Every model that spoke in it.
    pub models: Vec<ModelName>,
    /// What its owner took over; `None` while its first owner has it.
    pub handed_over: Option<HandedOver>,
    /// Set while it is paused.
    pub pause: Option<SessionPause>,
    /// What others wrote in its own model's place, until somebody has checked it.
    pub unverified: Option<Unverified>,
}

impl SessionInfo {
    /// Estimated tokens that it takes of its owner's window: what was taken over, and all entries since.
    #[must_use]
    pub fn window_tokens(&self) -> u64 {
        match &self.handed_over {
            Some(over) => over.tokens + self.tokens.saturating_sub(over.tokens_before),
            None => self.tokens,
        }
    }
}

/// What a session's owner took over: of the entries before, it knows what the package says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandedOver {
    pub handoff: HandoffId,
    pub package: PackageId,
    /// Entries before it, and their tokens.
    pub entries: u64,
    pub tokens_before: u64,
    /// Tokens of what it took over, in its own window.
    pub tokens: u64,
}

/// Turns that others wrote while a session was away from its own model, and that nobody has checked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// The model whose session it is: what it said itself meanwhile is none of them.
    pub home: ModelName,
    /// The number of the first entry that may be one of them, and the one behind the last.
    pub from: u64,
    pub until: u64,
    /// Those who owned it meanwhile, in their order.
    pub by: Vec<ModelName>,
}

impl Unverified {
    /// Who wrote this entry in the place of the session's own model; `None` where nobody did.
    #[must_use]
    pub fn writer<'a>(&'a self, entry: &'a SessionEntry) -> Option<&'a str> {
        let is_turn = entry.kind == EntryKind::Turn && entry.entry.role == Role::Assistant;
        let model = entry.model.as_ref().map_or("", ModelName::as_str);
        if is_turn { self.writer_of(entry.number, model) } else { None }
    }

    /// The same of a model's turn with this number; `model` is empty where nobody said which one it was.
    #[must_use]
    pub fn writer_of<'a>(&'a self, number: u64, model: &'a str) -> Option<&'a str> {
        if !(self.from..self.until).contains(&number) || model == self.home.as_str() {
            return None;
        }
        match model {
            // Then it was one of those.
            "" => self.by.last().map(ModelName::as_str),
            named => Some(named),
        }
    }

    /// What the session's own model does first.
    #[must_use]
    pub fn step(&self) -> String {
        let names: Vec<&str> = self.by.iter().map(ModelName::as_str).collect();
        let (first, last) = (self.from, self.until.saturating_sub(1));
        format!(
            "Check what {} did in entries {first}-{last}: it is unverified",
            names.join(" and ")
        )
    }

    /// Of the first so many entries.
    #[must_use]
    pub fn within(self, entries: u64) -> Option<Self> {
        let until = self.until.min(entries);
        (self.from < until).then_some(Self { until, ..self })
    }

    /// Both: what was unverified before, and what is now.
    #[must_use]
    pub fn and(self, before: Option<Self>) -> Self {
        let Some(before) = before.filter(|before| before.home == self.home) else { return self };
        let mut by = before.by;
        by.extend(self.by);
        let mut known = std::collections::BTreeSet::new();
        by.retain(|name| known.insert(name.clone()));
        let (from, until) = (self.from.min(before.from), self.until.max(before.until));
        Self { home: self.home, from, until, by }
    }
}

/// A session, what it is about and what it shares, at some point of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionDetail {
    pub info: SessionInfo,
    pub task: SessionTask,
    pub shared: Vec<SharedValue>,
}

/// One change of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionVersion {
    pub version: u64,
    pub at: WallTime,
    pub change: String,
    pub detail: String,
    pub head: SessionHead,
}

/// A point of a session, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SessionPoint {
    #[default]
    Head,
    /// Behind the entry of this number.
    Entry(u64),
    Version(u64),
    /// Behind the entry whose hash begins with these digits.
    Hash(String),
}

/// A text that names no point of a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no point of a session: an entry's number, `vN` for a version, or 8 or more digits of an entry's hash are"
)]
pub struct InvalidPoint;

impl SessionPoint {
    /// Reads `12`, `v3`, a hash or its beginning; nothing is the head.
    ///
    /// # Errors
    /// [`InvalidPoint`] when it is none of them.
    pub fn parse(text: &str) -> Result<Self, InvalidPoint> {
        let is_hash = |text: &str| {
            (8..=64).contains(&text.len())
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.strip_prefix('v').filter(|version| is_number(version)) {
            Some(version) => version.parse().map(Self::Version).map_err(|_| InvalidPoint),
            None if text.is_empty() || text == "head" => Ok(Self::Head),
            None if is_number(text) && text.len() < 16 => {
                text.parse().map(Self::Entry).map_err(|_| InvalidPoint)
            }
            None if is_hash(text) => Ok(Self::Hash(text.to_owned())),
            None => Err(InvalidPoint),
        }
    }
}

impl fmt::Display for SessionPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => Ok(()),
            Self::Entry(number) => write!(f, "{number}"),
            Self::Version(version) => write!(f, "v{version}"),
            Self::Hash(digits) => f.write_str(digits),
        }
    }
}

/// What to do with a session that went on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Refuse, and list what differs.
    #[default]
    Fail,
    /// Leave the session as it is.
    Keep,
    /// Go on with what is restored or imported.
    Replace,
    /// Begin another session with what is restored or imported.
    Fork,
}

/// What came of restoring or importing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOutcome {
    Done,
    /// It was there already.
    Unchanged,
    Kept,
    Replaced,
    Forked,
}

impl SessionOutcome {
    /// As programs read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Kept => "kept",
            Self::Replaced => "replaced",
            Self::Forked => "forked",
        }
    }
}

/// Where two sessions, or two points, part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDiff {
    /// How many entries both begin with.
    pub common_entries: u64,
    pub head: SessionHead,
    pub other_head: SessionHead,
    /// `task.FIELD` and `shared.KEY` that differ.
    pub keys: Vec<String>,
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

/// Names the kind of change; content never reaches a log.
impl fmt::Debug for TaskEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words())
    }
}

impl TaskEdit {
    /// The edit without its text, such as `next_steps: add`.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::SetGoal(_) => "goal: set".into(),
            Self::SetProgress(progress) => format!("progress: {progress}"),
            Self::Add { list, .. } => format!("{}: add", list.as_str()),
            Self::Done { list, id, is_done: true } => format!("{}: {id} done", list.as_str()),
            Self::Done { list, id, is_done: false } => format!("{}: {id} open", list.as_str()),
            Self::Remove { list, id } => format!("{}: {id} removed", list.as_str()),
            Self::SetSubagent(_) => "pending_subagents: set".into(),
            Self::RemoveSubagent(_) => "pending_subagents: removed".into(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_number_a_version_or_a_hash() {
        let check = |text: &str, want| assert_eq!(SessionPoint::parse(text), want, "{text}");
        check("", Ok(SessionPoint::Head));
        check("0", Ok(SessionPoint::Entry(0)));
        check("12345678", Ok(SessionPoint::Entry(12_345_678)));
        check("v3", Ok(SessionPoint::Version(3)));
        check("0123abcd", Ok(SessionPoint::Hash("0123abcd".into())));
        let whole = EntryHash([7; 32]).to_string();
        check(&whole, Ok(SessionPoint::Hash(whole.clone())));
        for text in ["-1", "v", "v-1", "abc", "../x", "0123ABCD", "1e3", " 1"] {
            check(text, Err(InvalidPoint));
        }
    }

    #[test]
    fn a_list_has_its_singular_and_dashes() {
        for (text, list) in [
            ("next-step", TaskList::NextSteps),
            ("files", TaskList::Files),
            ("critical_fact", TaskList::CriticalFacts),
        ] {
            assert_eq!(TaskList::parse(text), Some(list), "{text}");
        }
        assert_eq!(TaskList::parse("goal"), None);
    }

    #[test]
    fn a_hash_depends_on_what_came_before() {
        let (one, other) = (ContentHash::of(b"one"), ContentHash::of(b"other"));
        let start = EntryHash::NONE;
        assert_eq!(start.next(one).next(other), start.next(one).next(other));
        assert_ne!(start.next(one).next(other), start.next(other).next(one));
        assert_ne!(start.next(one), start.next(one).next(one));
    }

    #[test]
    fn nothing_that_was_said_is_shown() {
        let edit = TaskEdit::SetGoal("sk-canary".into());
        assert!(!format!("{edit:?}").contains("canary"));
    }
}
