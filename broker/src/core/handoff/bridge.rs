//! Bridges: receivers whose package is kept current turn by turn, because somebody asked for it.
//!
//! Invariant: a bridge leads from its session's owner; it is closed in the commit in which the session moves or goes.

use std::collections::BTreeMap;

use broker_proto::{Bridge, BridgeStatus, ModelName, SessionId, WallTime};

/// Bridges of one session: each turn makes a package for each.
pub const MOST: usize = 4;

/// Journalled: a bridge is open from now on, or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub at: WallTime,
    pub bridge: Bridge,
    pub is_open: bool,
    /// Who or what closed it.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Open {
        session: SessionId,
        from: ModelName,
        to: ModelName,
    },
    /// `None` closes all of the session's.
    Close {
        session: SessionId,
        to: Option<ModelName>,
    },
    /// The last package for this receiver could not be made.
    NotSynced {
        session: SessionId,
        to: ModelName,
        problem: String,
    },
}

/// The bridges of one session, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub session: Option<SessionId>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("session `{session}` has no bridge{}", .to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default())]
    Unknown { session: SessionId, to: Option<ModelName> },
    #[error("session `{session}` belongs to {owner}, not to {given}: open the bridge from {owner}")]
    NotOwner { session: SessionId, owner: ModelName, given: ModelName },
    #[error(
        "session `{session}` has a bridge to {to} already: `brokerctl handoff bridge status --session {session}` says how it is"
    )]
    Open { session: SessionId, to: ModelName },
    #[error("session `{0}` has {MOST} bridges: close one first")]
    TooMany(SessionId),
}

/// What the answer to each command is.
pub type Reply = Vec<BridgeStatus>;

#[derive(Debug, Clone)]
struct Open {
    bridge: Bridge,
    /// Why the last package could not be made; of this run of the broker only.
    problem: String,
}

#[derive(Debug, Default)]
pub struct State {
    open: BTreeMap<(SessionId, ModelName), Open>,
}

impl State {
    /// Those of one session, by receiver.
    pub fn of(&self, session: &SessionId) -> impl Iterator<Item = &Bridge> {
        self.open_of(session).map(|open| &open.bridge)
    }

    fn open_of(&self, session: &SessionId) -> impl Iterator<Item = &Open> {
        let all = self.open.iter().skip_while(move |((id, _), _)| id < session);
        all.take_while(move |((id, _), _)| id == session).map(|(_, open)| open)
    }

    /// All of them, by session.
    pub fn all(&self) -> impl Iterator<Item = &Bridge> {
        self.open.values().map(|open| &open.bridge)
    }

    #[must_use]
    pub fn get(&self, session: &SessionId, to: &ModelName) -> Option<&Bridge> {
        self.open.get(&(session.clone(), to.clone())).map(|open| &open.bridge)
    }

    /// Why its last package could not be made; empty when it could.
    #[must_use]
    pub fn problem(&self, bridge: &Bridge) -> &str {
        let open = self.open.get(&(bridge.session.clone(), bridge.to.clone()));
        open.map_or("", |open| &open.problem)
    }

    pub(in crate::core) fn apply(&mut self, event: &Changed) {
        let Changed { bridge, is_open, .. } = event;
        let key = (bridge.session.clone(), bridge.to.clone());
        if *is_open {
            self.open.insert(key, Open { bridge: bridge.clone(), problem: String::new() });
        } else {
            self.open.remove(&key);
        }
    }

    pub(in crate::core) fn note_problem(&mut self, session: &SessionId, to: &ModelName, why: &str) {
        if let Some(open) = self.open.get_mut(&(session.clone(), to.clone())) {
            why.clone_into(&mut open.problem);
        }
    }
}
