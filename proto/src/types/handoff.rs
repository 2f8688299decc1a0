//! A handoff: a session's work on its way from the model that owns it to another.

use std::{collections::BTreeMap, fmt};

use super::{
    AgentName, MessageId, ModelName, PackageId, Preservation, SessionId, SessionOwner, WallTime,
};

/// A handoff's id: a ULID, so that ids sort by the time they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoffId(MessageId);

impl HandoffId {
    /// Reads an id in its one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        MessageId::parse(text).map(Self)
    }

    /// A new id: 48 bits of `now` in front of a number of 80 bits.
    #[must_use]
    pub fn from_parts(now: WallTime, number: u128) -> Self {
        Self(MessageId::from_parts(now, number))
    }

    /// The number that [`HandoffId::from_parts`] was given.
    #[must_use]
    pub fn number(self) -> u128 {
        self.0.as_u128() & ((1 << 80) - 1)
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$of:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$of])* $variant),+ }

        impl $type {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it, as people and scripts read it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads its word.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == text)
            }
        }
    };
}
pub(super) use words;

words! {
    /// Where a handoff stands. The first six follow one another; the others are ends.
    HandoffState {
        /// Its package is being made.
        Building = "BUILDING",
        /// The package is there; it is offered next.
        Ready = "READY",
        /// A receiver has been asked, and has until a time to answer.
        Offered = "OFFERED",
        /// The receiver has verified the package; running work of the old owner ends first.
        Accepted = "ACCEPTED",
        /// The session has its new owner, who has not answered a turn yet.
        Active = "ACTIVE",
        /// The new owner works on.
        Completed = "COMPLETED",
        /// Every receiver that was asked declined.
        Declined = "DECLINED",
        /// No receiver that was asked answered in time.
        Expired = "EXPIRED",
        /// It could not be carried out; the session stays with its owner.
        Failed = "FAILED",
        /// The session was given back to where it came from.
        Returned = "RETURNED",
    }
}

impl HandoffState {
    /// Whether the session's owner is still the old one and may become the new one.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Building | Self::Ready | Self::Offered | Self::Accepted)
    }

    /// Whether nothing follows any more, except that what is completed may be given back.
    #[must_use]
    pub fn is_over(self) -> bool {
        !self.is_pending() && self != Self::Active
    }
}

words! {
    /// Why a session is to move.
    TriggerKind {
        /// A limit of its model, or of its own window, is near or reached.
        UsageLimit = "usage_limit",
        /// The next step asks for more, or for much less, than its model is meant for.
        ComplexityMismatch = "complexity_mismatch",
        /// Another model is expected to do as well for less, or better.
        Optimisation = "optimisation",
        /// Somebody asked for it.
        UserRequest = "user_request",
    }
}

words! {
    /// How soon it must happen.
    Urgency {
        Low = "low",
        Medium = "medium",
        High = "high",
    }
}

words! {
    /// What becomes of work that the old owner has in hand.
    Pace {
        /// Its leases end with the switch when it cannot answer any more; else they may end first.
        AtOnce = "at_once",
        /// They end where they are, however long that takes; what is queued waits for the new owner.
        Gradually = "gradually",
    }
}

/// What a handoff is for, and how sure that is.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    pub kind: TriggerKind,
    /// One line: which limit, which step, who asked.
    pub reasoning: String,
    /// 0 to 1.
    pub confidence: f64,
    pub urgency: Urgency,
}

/// A receiver that was asked and did not take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedReceiver {
    pub model: ModelName,
    pub agent: Option<AgentName>,
    pub at: WallTime,
    /// DECLINED, EXPIRED or FAILED.
    pub state: HandoffState,
    pub reason: String,
}

/// What the package kept of the conversation, and what moved with the session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HandoffKept {
    /// Entries that the package knows, and their estimated tokens.
    pub entries: u64,
    pub tokens_before: u64,
    /// Of the rendering, as the receiver counts.
    pub tokens: u64,
    /// Entries that are in it as they were, in part, and not at all.
    pub kept: u64,
    pub partly: u64,
    pub dropped: u64,
    /// The share of what the next step needs that was kept, 0 to 1.
    pub score: f64,
    pub must_keep_missing: Vec<String>,
    /// Messages that waited, and leases that ended for it.
    pub moved: u64,
    pub revoked: u64,
}

/// One handoff, from its trigger to its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Handoff {
    pub id: HandoffId,
    pub session: SessionId,
    pub state: HandoffState,
    pub trigger: Trigger,
    pub pace: Pace,
    /// The owner it began with; its epoch must still be the session's when it switches.
    pub from: SessionOwner,
    /// The receiver that is asked now, or took it.
    pub to: ModelName,
    /// The only agent that may take it, or the one that did.
    pub agent: Option<AgentName>,
    /// Who is asked next, in order.
    pub then: Vec<ModelName>,
    pub tried: Vec<TriedReceiver>,
    /// Where the session goes back to, when its model can go on.
    pub origin: ModelName,
    /// The handoff that this one gives back.
    pub returns: Option<HandoffId>,
    pub level: Preservation,
    pub package: Option<PackageId>,
    /// SHA-256 over the package's header and manifest: what an acceptance repeats.
    pub manifest: Option<[u8; 32]>,
    /// Owners since a person last chose one.
    pub hops: u32,
    pub kept: HandoffKept,
    /// Parts of the package that the receiver says it has verified.
    pub confirmed: Vec<String>,
    pub begun_at: WallTime,
    pub offered_at: Option<WallTime>,
    /// When the state it is in ends by itself.
    pub until: Option<WallTime>,
    pub accepted_at: Option<WallTime>,
    pub active_at: Option<WallTime>,
    pub ended_at: Option<WallTime>,
    /// What became of it, in words; empty while nothing is known.
    pub outcome: String,
    /// It goes back by itself once the model that it left can go on.
    pub is_lent: bool,
}

/// What is to change of when sessions move, and who receives them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandoffPolicyChange {
    /// Settings by name, as they are typed.
    pub set: BTreeMap<String, String>,
    /// Back to what the file says.
    pub unset: Vec<String>,
    pub add_receivers: Vec<ModelName>,
    pub remove_receivers: Vec<ModelName>,
}

/// Whether a session is to be handed off now.
#[derive(Debug, Clone, PartialEq)]
pub struct HandoffCheck {
    pub should_handoff: bool,
    /// `normal`, `warning_threshold_reached`, `approaching_limit` or `auto_switch_threshold_reached`.
    pub reason: String,
    /// A level's word.
    pub level: String,
    /// 0 to 1.
    pub confidence: f64,
    pub urgency: Urgency,
    pub session: String,
    pub model: ModelName,
    pub tokens: u64,
    /// Tokens.
    pub context_window: u64,
    pub warning_threshold: u64,
    pub switch_threshold: u64,
    /// Which limit, and how near.
    pub detail: String,
}

impl HandoffCheck {
    /// Of the window, in percent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn percentage(&self) -> f64 {
        self.tokens as f64 * 100.0 / self.context_window.max(1) as f64
    }
}

/// What is recommended to one model's sessions, or to one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    None,
    /// A limit comes nearer.
    Watch,
    Recommended,
    /// It cannot go on where it is.
    Needed,
}

impl Advice {
    pub const ALL: [Self; 4] = [Self::None, Self::Watch, Self::Recommended, Self::Needed];

    /// Its word, in output and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Watch => "watch",
            Self::Recommended => "recommended",
            Self::Needed => "needed",
        }
    }

    /// The advice of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|advice| advice.as_str() == word)
    }
}

/// How near one model or session is to a move.
#[derive(Debug, Clone, PartialEq)]
pub struct HandoffOutlook {
    pub name: String,
    /// The owner of a session; itself of a model.
    pub model: ModelName,
    /// A level's word.
    pub level: String,
    /// Of the limit that is nearest; `None` where no limit is known.
    pub percentage: Option<f64>,
    pub advice: Advice,
    /// Which limit, and how near.
    pub reason: String,
    /// Who would be asked first; `None`: nobody can take it.
    pub to: Option<ModelName>,
    /// Why it is better off elsewhere, or what would move it.
    pub trigger: Option<Trigger>,
    /// Of a model: it may receive sessions.
    pub receives: bool,
    /// When the limit that is nearest is reached, as things go.
    pub limit_at: Option<WallTime>,
}

/// Levels, and what is recommended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HandoffStatus {
    pub models: Vec<HandoffOutlook>,
    pub sessions: Vec<HandoffOutlook>,
}

/// Which handoffs a list shows. Everything that is set must be so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandoffFilter {
    pub session: Option<SessionId>,
    /// From it or to it.
    pub model: Option<ModelName>,
    pub state: Option<HandoffState>,
}

/// A handoff that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct AskHandoff {
    pub session: SessionId,
    /// `None` leaves it to the arbiter.
    pub to: Option<ModelName>,
    /// The only agent that may take it.
    pub agent: Option<AgentName>,
    /// Why; empty: a person asked.
    pub reason: String,
    pub level: Option<Preservation>,
    /// A package of this session that is there already.
    pub package: Option<PackageId>,
    /// Without regard to cool-down, hops and loops.
    pub is_forced: bool,
    /// Running work of the old owner is not waited for.
    pub at_once: bool,
}

/// An agent's word that it takes a session over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptHandoff {
    pub id: HandoffId,
    /// What it computed over the package it received.
    pub manifest: [u8; 32],
    /// The names of the parts whose hashes it verified.
    pub confirmed: Vec<String>,
}

/// An item that must be kept, and what a reply says of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Echo {
    /// As `Decisions: the text`.
    pub item: String,
    pub sentence: String,
}

/// What a first reply makes of an item that must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It states another value, or the opposite.
    Contradicted,
    AskedAgain,
    /// It says the same. Whether it acts on that is not known.
    Restated,
    /// It cannot be told from the reply.
    Unknown,
}

impl Verdict {
    pub const ALL: [Self; 4] =
        [Self::Contradicted, Self::AskedAgain, Self::Restated, Self::Unknown];

    /// Its word, in output and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contradicted => "contradicted",
            Self::AskedAgain => "asked_again",
            Self::Restated => "restated",
            Self::Unknown => "unknown",
        }
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// What a first reply shows of one item.
#[derive(Clone, PartialEq, Eq)]
pub struct Judged {
    /// As `Decisions: the text`.
    pub item: String,
    pub verdict: Verdict,
    /// Empty where nothing shows it.
    pub sentence: String,
}

/// Content never reaches a log.
impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judged({})", self.verdict.as_str())
    }
}

/// Content never reaches a log.
impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Echo({} bytes)", self.sentence.len())
    }
}

/// How a handoff went: what the receiver confirmed, and what its first reply shows of what must be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct HandoffReport {
    pub handoff: Handoff,
    /// For people.
    pub markdown: String,
    /// The parts of its package; `handoff.confirmed` are those that the receiver says it verified.
    pub parts: Vec<String>,
    /// Items that must be kept.
    pub items: u64,
    /// The entry that is the new owner's first reply.
    pub reply: Option<u64>,
    /// One for each item, in their order: a guess, as are the next.
    pub judged: Vec<Judged>,
    /// What the verdicts go by, in words.
    pub basis: String,
    pub contradicted: Vec<Echo>,
    pub asked_again: Vec<Echo>,
    /// Why something could not be looked at; empty when all was.
    pub problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for state in HandoffState::ALL {
            assert_eq!(HandoffState::parse(state.as_str()), Some(*state));
        }
        for kind in TriggerKind::ALL {
            assert_eq!(TriggerKind::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!(Pace::parse("gradually"), Some(Pace::Gradually));
        assert_eq!(Urgency::parse("none"), None);
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::parse(verdict.as_str()), Some(verdict));
        }
    }

    #[test]
    fn an_id_gives_its_number_back() {
        let id = HandoffId::from_parts(WallTime(1_700_000_000_000), 77);
        assert_eq!(id.number(), 77);
        assert_eq!(HandoffId::parse(&id.to_string()), Some(id));
    }
}
