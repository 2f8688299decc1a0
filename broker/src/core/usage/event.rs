//! What happens to usage: journalled, and counted in each scope it concerns.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::{AgentName, MessageId, ModelName, RateLimit, Usage, WallTime};

use super::{Action, Amount, Ended, Level, Meter, Nanos, Scope, price};
use crate::core::queue::Seq;

/// How the broker came to know of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// It was an attempt at one of the broker's messages.
    #[default]
    Attempt,
    /// An agent or a program reported it.
    Reported,
    /// A person or a script recorded what they knew of it.
    Recorded,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::Attempt, Self::Reported, Self::Recorded];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Reported => "reported",
            Self::Recorded => "recorded",
        }
    }
}

/// One call of a provider, or what was recorded of one: a line of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub at: WallTime,
    pub source: Source,
    pub model: ModelName,
    /// The name of the variable that holds it.
    pub key: String,
    pub session: Option<String>,
    pub message: Option<MessageId>,
    /// The attempt's; 0 for a call made elsewhere.
    pub number: u32,
    pub agent: Option<AgentName>,
    pub ended: Ended,
    pub usage: Usage,
    /// `None` when a price or a count is not known.
    pub cost: Option<Nanos>,
    pub latency: Option<Duration>,
    pub first_token: Option<Duration>,
    /// 1, or 0 where only a signal was recorded, or the call is counted by a report of its own.
    pub requests: u32,
    pub limits: Vec<RateLimit>,
    /// These tokens grow the session itself, as nobody else says how long it is.
    pub grows_session: bool,
}

impl Call {
    /// A call of which nothing else is known.
    #[must_use]
    pub fn new(at: WallTime, source: Source, model: ModelName, key: &str) -> Self {
        Self {
            at,
            source,
            model,
            key: key.to_owned(),
            session: None,
            message: None,
            number: 0,
            agent: None,
            ended: Ended::Unknown,
            usage: Usage::default(),
            cost: None,
            latency: None,
            first_token: None,
            requests: 1,
            limits: Vec::new(),
            grows_session: false,
        }
    }

    /// What it adds to every window.
    #[must_use]
    pub fn amount(&self) -> Amount {
        Amount {
            requests: u64::from(self.requests),
            tokens: price::tokens(self.usage),
            cost: self.cost.unwrap_or_default(),
        }
    }
}

/// Whose level it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Model(ModelName),
    Session(String),
}

/// Somebody's limit that is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    pub subject: Subject,
    /// Which limit, and how near.
    pub reason: String,
}

impl Subject {
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Model(model) => Scope::Model(model.clone()),
            Self::Session(name) => Scope::Session(name.clone()),
        }
    }
}

/// A level changed: to what, from what, why, and what is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub at: WallTime,
    pub subject: Subject,
    /// The model that a session's level is about.
    pub model: Option<ModelName>,
    pub from: Level,
    pub to: Level,
    /// What raised it, or kept it up: `5h`, `rate_limits`, ...; empty when it is healthy again.
    pub cause: String,
    pub reason: String,
    pub action: Action,
    /// For an error rate: the calls that went wrong, the newest first.
    pub diagnosis: Vec<String>,
}

/// What one leased message may use at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    pub seq: Seq,
    pub at: WallTime,
    pub model: ModelName,
    pub key: String,
    pub session: Option<String>,
    pub amount: Amount,
}

impl Reservation {
    /// Whose budgets it counts against.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        scopes(&self.model, &self.key, self.session.as_deref())
    }
}

/// Whose use a call is.
#[must_use]
pub fn scopes(model: &ModelName, key: &str, session: Option<&str>) -> Vec<Scope> {
    let session = session.map(|name| Scope::Session(name.to_owned()));
    [Scope::Namespace, Scope::Key(key.to_owned()), Scope::Model(model.clone())]
        .into_iter()
        .chain(session)
        .collect()
}

/// What people say of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    pub session: String,
    pub at: WallTime,
    /// 0 to 1.
    pub complexity: Option<f64>,
    /// 1 to 5.
    pub rating: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Counted(Box<Call>),
    /// The entries of a session hold so many tokens now, in this model's window.
    Holds {
        session: String,
        model: ModelName,
        at: WallTime,
        tokens: u64,
        /// It has just changed its owner: what calls made elsewhere added was in the window before.
        is_fresh: bool,
    },
    Said(Said),
    /// What was counted for one begins anew, and its level with it. The ledger stays.
    Reset {
        scope: Scope,
        at: WallTime,
    },
    /// A session that nothing was heard of for long.
    Forgotten {
        session: String,
        at: WallTime,
    },
    /// What has been counted for one so far: what a restart loads in place of every call. Never in the journal.
    Metered {
        scope: Scope,
        meter: Box<Meter>,
    },
    LevelChanged(Box<Change>),
    Reserved(Box<Reservation>),
    Released {
        seq: Seq,
        at: WallTime,
    },
    /// Settings that override the file from now on, as they were written.
    PolicySet {
        at: WallTime,
        overrides: BTreeMap<String, String>,
    },
}

impl Event {
    #[must_use]
    pub fn at(&self) -> WallTime {
        match self {
            Self::Counted(call) => call.at,
            Self::Said(said) => said.at,
            Self::LevelChanged(change) => change.at,
            Self::Reserved(reservation) => reservation.at,
            Self::Holds { at, .. }
            | Self::Reset { at, .. }
            | Self::Forgotten { at, .. }
            | Self::Released { at, .. }
            | Self::PolicySet { at, .. } => *at,
            Self::Metered { .. } => WallTime(0),
        }
    }

    /// Whose meter it changes.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Counted(call) => scopes(&call.model, &call.key, call.session.as_deref()),
            Self::Holds { session, .. } => vec![Scope::Session(session.clone())],
            Self::Said(said) => vec![Scope::Session(said.session.clone())],
            Self::Reset { scope, .. } | Self::Metered { scope, .. } => vec![scope.clone()],
            Self::Forgotten { .. }
            | Self::LevelChanged(_)
            | Self::Reserved(_)
            | Self::Released { .. }
            | Self::PolicySet { .. } => Vec::new(),
        }
    }
}
