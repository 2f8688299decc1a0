//! What happened to sessions.

use broker_proto::{EntryHash, SessionId, WallTime};

use super::Session;
use crate::core::queue::Body;

/// Why a session has a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Started,
    Forked,
    Imported,
    Appended,
    Restored,
    TaskEdited,
    SharedChanged,
    OwnerChanged,
    Paused,
    Resumed,
    Verified,
    Deleted,
}

impl Change {
    pub const ALL: [Self; 12] = [
        Self::Started,
        Self::Forked,
        Self::Imported,
        Self::Appended,
        Self::Restored,
        Self::TaskEdited,
        Self::SharedChanged,
        Self::OwnerChanged,
        Self::Paused,
        Self::Resumed,
        Self::Verified,
        Self::Deleted,
    ];

    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Forked => "forked",
            Self::Imported => "imported",
            Self::Appended => "appended",
            Self::Restored => "restored",
            Self::TaskEdited => "task_edited",
            Self::SharedChanged => "shared_changed",
            Self::OwnerChanged => "owner_changed",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Verified => "verified",
            Self::Deleted => "deleted",
        }
    }
}

/// Entries that exist from now on, one behind the other, whichever head leads to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    pub at: WallTime,
    /// The number of the first.
    pub first: u64,
    /// The hash that the first follows.
    pub previous: EntryHash,
    /// Of all entries before the first.
    pub tokens: u64,
    pub size_bytes: u64,
    /// Where they are, the first from `offset` on.
    pub body: Body,
    pub offset: u64,
    pub rows: Vec<EntryRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRow {
    pub hash: EntryHash,
    /// Bytes in the body.
    pub length: u32,
    pub tokens: u64,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Entries(Box<Entries>),
    /// A session as it is from now on; `None` when it is no more.
    Changed {
        id: SessionId,
        at: WallTime,
        change: Change,
        detail: String,
        after: Option<Box<Session>>,
    },
}

impl Event {
    /// The stored bytes that it refers to. What of it a deleted session leaves behind is the sweep's to find: its entries
    /// may be a fork's.
    #[must_use]
    pub fn bodies(&self) -> Vec<&Body> {
        match self {
            Self::Entries(entries) => vec![&entries.body],
            Self::Changed { after, .. } => after
                .iter()
                .flat_map(|session| [session.task.as_ref(), session.shared.as_ref()])
                .flatten()
                .collect(),
        }
    }

    #[must_use]
    pub fn at(&self) -> WallTime {
        match self {
            Self::Entries(entries) => entries.at,
            Self::Changed { at, .. } => *at,
        }
    }
}
