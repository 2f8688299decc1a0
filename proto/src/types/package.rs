//! A context package: what one model's work needs to go on with another, in one signed file.

use std::fmt;

use super::{
    InvalidName, MessageId, ModelName, PackageKey, SessionId, SessionTask, SharedValue, WallTime,
};

/// A package's id: a ULID, so that ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(MessageId);

impl PackageId {
    /// Reads an id in its one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        MessageId::parse(text).map(Self)
    }

    /// A new id: 48 bits of `now` in front of 80 random bits.
    #[must_use]
    pub fn from_parts(now: WallTime, random: u128) -> Self {
        Self(MessageId::from_parts(now, random))
    }

    /// The id as a number, for keys.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The id that [`PackageId::as_u128`] gave.
    #[must_use]
    pub fn from_u128(number: u128) -> Self {
        Self(MessageId::from_u128(number))
    }
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much of a conversation a package carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Preservation {
    Minimal,
    Standard,
    Full,
    /// All that there is, or all that fits the receiver's window.
    #[default]
    Complete,
}

impl Preservation {
    /// Every level, the smallest first.
    pub const ALL: [Self; 4] = [Self::Minimal, Self::Standard, Self::Full, Self::Complete];

    /// The level's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Full => "full",
            Self::Complete => "complete",
        }
    }

    /// Reads a level's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The tokens of a rendering, as its receiver counts them; `None`: as many as the receiver has room for.
    #[must_use]
    pub fn budget(self) -> Option<u64> {
        match self {
            Self::Minimal => Some(500),
            Self::Standard => Some(1_200),
            Self::Full => Some(2_000),
            Self::Complete => None,
        }
    }
}

/// What a package says of itself; signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageHeader {
    pub id: PackageId,
    pub session: Option<SessionId>,
    /// Free text; empty when nobody said.
    pub project: String,
    /// The model that gives the work away; empty when none does. Who made the package is `created_by`.
    pub sender: String,
    /// The only model that may take it; `None`: any.
    pub recipient: Option<ModelName>,
    pub level: Preservation,
    pub created_at: WallTime,
    pub expires_at: WallTime,
    /// How often this work was packed and taken before.
    pub hops: u32,
    /// Never used twice, so that a copy is known for one.
    pub nonce: [u8; 16],
    /// A word or a sentence that its sender chose.
    pub reason: String,
}

/// One part as the manifest lists it; signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagePart {
    pub name: String,
    /// SHA-256 of its bytes, unpacked.
    pub sha256: [u8; 32],
    pub size_bytes: u64,
    /// As the package's tokenizer counts them.
    pub tokens: u64,
}

/// How far the work had come when it was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointStatus {
    #[default]
    Paused,
    Completed,
    Error,
}

impl CheckpointStatus {
    pub const ALL: [Self; 3] = [Self::Paused, Self::Completed, Self::Error];

    /// The status's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Error => "error",
        }
    }

    /// Reads a status's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The phases that pipelines usually have, in their order. Any other name is a phase too.
pub const PHASES: [&str; 7] = [
    "extraction",
    "analysis",
    "synthesis",
    "validation",
    "checkpoint",
    "generation",
    "finalization",
];

/// The place of a known phase among the known ones.
#[must_use]
pub fn phase_order(phase: &str) -> Option<usize> {
    PHASES.iter().position(|known| *known == phase)
}

/// Where the work stands, and where it goes on.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// A free name; empty when the work has no phases.
    pub phase: String,
    pub step: u32,
    pub total_steps: u32,
    pub status: CheckpointStatus,
    pub resume_point: String,
}

/// One piece of work that nobody has begun.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct QueuedTask {
    pub id: String,
    /// `low`, `normal`, `high` or `urgent`.
    pub priority: String,
    pub description: String,
}

/// The piece of work that was under way.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CurrentWork {
    pub task_id: String,
    /// As people say it: `50%`, or a word.
    pub progress: String,
    pub completed_subtasks: Vec<String>,
    pub next_subtask: String,
}

/// What a session had used of its model's window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenShare {
    pub total_tokens: u64,
    pub warning_threshold: u64,
    pub auto_switch_threshold: u64,
    /// In percent of the window.
    pub percentage_used: f64,
}

/// How the sender's model answered lately.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CreditState {
    pub rate_limit_count: u32,
    /// 0 to 1.
    pub error_rate: f64,
    /// In seconds.
    pub avg_response_time: f64,
}

/// The conversation as it was rendered for the receiver, and what that left out.
#[derive(Clone, PartialEq, Default)]
pub struct PackedConversation {
    pub text: String,
    pub tokens: u64,
    /// Who counted them: a tokenizer's name, or `estimated`.
    pub tokenizer: String,
    /// 0 to 1; `None` when nothing was chosen.
    pub score: Option<f64>,
    /// Entry numbers.
    pub kept: Vec<u64>,
    pub partly: Vec<u64>,
    pub dropped: Vec<u64>,
    pub must_keep_missing: Vec<String>,
    /// The session's newest entry that it was rendered from.
    pub through: Option<u64>,
    /// Turns of others, which the receiver has to check: entry numbers, and who wrote each.
    pub unverified: Vec<(u64, String)>,
}

/// Everything a package carries behind its header.
#[derive(Clone, PartialEq, Default)]
pub struct PackageContents {
    pub source_phase: String,
    pub target_phase: String,
    pub created_by: String,
    pub pipeline_version: String,
    pub checkpoint: Checkpoint,
    pub task_queue: Vec<QueuedTask>,
    /// How many more were waiting than `task_queue` has room for.
    pub queue_left_out: u64,
    pub current_work: CurrentWork,
    pub token_usage: TokenShare,
    pub credit_state: CreditState,
    /// Goal, sub-goals, constraints, decisions, next steps, files, preferences, subagents.
    pub task: SessionTask,
    pub resumption_instructions: String,
    /// Free values of the sender: JSON text of an object.
    pub context: String,
    pub shared: Vec<SharedValue>,
    pub conversation: PackedConversation,
}

/// A package that somebody asks for without a session.
#[derive(Clone, PartialEq, Default)]
pub struct NewPackage {
    pub session: Option<SessionId>,
    pub project: String,
    pub recipient: Option<ModelName>,
    pub reason: String,
    /// `None`: what the configuration says.
    pub ttl: Option<std::time::Duration>,
    pub contents: PackageContents,
}

/// A package that somebody asks for of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparePackage {
    pub session: SessionId,
    /// Its reader is who the package is for.
    pub ask: super::RenderAsk,
    /// What is not the session's.
    pub package: NewPackage,
}

/// What lists show of a package.
#[derive(Clone, PartialEq, Eq)]
pub struct PackageInfo {
    pub header: PackageHeader,
    /// The beginning of its goal.
    pub task: String,
    pub parts: Vec<PackagePart>,
    /// Who counted their tokens: the receiver's tokenizer, or how they were estimated.
    pub tokenizer: String,
    /// As it is kept; what is exported may be smaller.
    pub size_bytes: u64,
    /// SHA-256 over header and parts, however they are packed.
    pub checksum: [u8; 32],
    pub signer: PackageKey,
    /// The name its signer is trusted under; `self` for this broker's own key, `None` when it is trusted no more.
    pub signed_by: Option<String>,
    /// It came from another broker.
    pub is_imported: bool,
    /// By broker time, now.
    pub is_expired: bool,
    /// Since when the work that it was made for goes on at its receiver; `None`: not yet.
    pub archived_at: Option<WallTime>,
}

impl PackageInfo {
    /// Of all parts together, as its tokenizer counts them.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.tokens).fold(0, u64::saturating_add)
    }
}

/// Which packages a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackageFilter {
    pub session: Option<SessionId>,
    pub project: Option<String>,
    /// Its sender's or its recipient's.
    pub model: Option<ModelName>,
    /// `Some(true)`: only what has expired; `Some(false)`: only what has not.
    pub is_expired: Option<bool>,
    pub created_after: Option<WallTime>,
}

/// A key whose packages are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// `self` for this broker's own.
    pub name: String,
    pub key: PackageKey,
    pub trusted_at: Option<WallTime>,
    pub is_own: bool,
}

/// The name that this broker's own key has in lists.
pub const OWN_KEY: &str = "self";

/// Checks the name of a trusted key.
///
/// # Errors
/// [`InvalidName`] when it is none, or this broker's own.
pub fn key_name(text: &str) -> Result<(), InvalidName> {
    super::ProducerName::parse(text)?;
    if text == OWN_KEY { Err(InvalidName) } else { Ok(()) }
}

/// Content never reaches a log: sizes stand for texts.
impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}/{}, {})", self.step, self.total_steps, self.status.as_str())
    }
}

impl fmt::Debug for QueuedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuedTask({} bytes)", self.description.len())
    }
}

impl fmt::Debug for CurrentWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurrentWork({} done)", self.completed_subtasks.len())
    }
}

impl fmt::Debug for PackedConversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedConversation({} bytes)", self.text.len())
    }
}

impl fmt::Debug for PackageContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageContents")
            .field("checkpoint", &self.checkpoint)
            .field("conversation", &self.conversation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewPackage").field("session", &self.session).finish_non_exhaustive()
    }
}

impl fmt::Debug for PackageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageInfo")
            .field("header", &self.header)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_phases_have_an_order_and_others_are_free() {
        assert!(phase_order("extraction") < phase_order("finalization"));
        assert_eq!(phase_order("checkpoint"), Some(4));
        assert_eq!(phase_order("polishing"), None);
    }

    #[test]
    fn a_key_may_not_take_the_name_of_the_own_one() {
        assert!(key_name("laptop").is_ok());
        for bad in ["self", "", "../x", "A"] {
            assert!(key_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_content() {
        let work = CurrentWork { next_subtask: "secret".into(), ..Default::default() };
        let contents = PackageContents { current_work: work, ..Default::default() };
        assert!(!format!("{contents:?}").contains("secret"));
    }
}
