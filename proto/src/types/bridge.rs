//! A bridge: a receiver whose package of a session is kept current, so that a handoff to it costs one delivery.

use super::{ModelName, PackageId, SessionId, WallTime};

/// A bridge from a session's owner to whoever may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub session: SessionId,
    pub from: ModelName,
    pub to: ModelName,
    pub opened_at: WallTime,
}

/// How a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeHealth {
    /// Its package has all of the session.
    Healthy,
    /// The session went on; the next package is being made.
    Stale,
    /// The last package could not be made, or its receiver could not take the session now.
    Broken,
}

impl BridgeHealth {
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Stale, Self::Broken];

    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stale => "stale",
            Self::Broken => "broken",
        }
    }

    /// Reads what [`BridgeHealth::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// A bridge as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeStatus {
    pub bridge: Bridge,
    /// Its last package; `None` while there is none.
    pub synced: Option<(PackageId, WallTime)>,
    /// Entries that came after it, and their estimated tokens.
    pub lag_turns: u64,
    pub lag_tokens: u64,
    pub health: BridgeHealth,
    /// Why it is failing or blocked; empty when it is not.
    pub problem: String,
}
