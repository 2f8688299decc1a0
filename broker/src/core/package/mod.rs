//! Packages: which are kept, which were taken before, and whose signatures count.
//!
//! Invariant: a nonce that came in from elsewhere is never taken a second time while its package has not expired, also
//! when the package was deleted meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{
    HandoffId, HandoffKept, ModelName, PackageId, PackageInfo, PackageKey, Preservation, SessionId,
    SessionInfo, TrustedKey, WallTime,
};

use super::{
    BootTime,
    queue::{Body, BodyKey},
};

/// A package as it is kept. Whether it has expired and who its signer is are said when it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    pub info: PackageInfo,
    /// Its bytes, packed.
    pub body: Body,
    pub at: WallTime,
    /// What it was made of, where the broker made it for a receiver.
    pub of: Option<Box<MadeOf>>,
}

/// The session as it was when a receiver's package was made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeOf {
    pub version: u64,
    pub kept: HandoffKept,
    /// Made before anybody asked: the next one of the same session and receiver replaces it, unless a handoff took it.
    pub is_ahead: bool,
}

/// A package that a receiver goes on with as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready {
    pub package: PackageId,
    pub manifest: [u8; 32],
    pub kept: HandoffKept,
}

/// How far a session's newest package for one receiver goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synced {
    pub package: PackageId,
    pub version: u64,
    pub entries: u64,
    /// Of the session, estimated.
    pub tokens: u64,
    pub at: WallTime,
}

/// Journalled.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Saved(Box<Saved>),
    /// `spent`: its nonce, and until when it must not come back.
    Deleted {
        id: PackageId,
        at: WallTime,
        spent: Option<Spent>,
    },
    /// The work that it was made for goes on at its receiver.
    Archived {
        id: PackageId,
        at: WallTime,
    },
    /// These nonces would be refused by their expiry now.
    Forgotten {
        nonces: Vec<[u8; 16]>,
        at: WallTime,
    },
    /// Packages signed with this key are taken from now on; `None`: no more.
    Trusted {
        name: String,
        key: Option<PackageKey>,
        at: WallTime,
    },
}

impl Event {
    /// The stored bytes that it refers to.
    #[must_use]
    pub fn body(&self) -> Option<&Body> {
        match self {
            Self::Saved(saved) => Some(&saved.body),
            Self::Deleted { .. }
            | Self::Archived { .. }
            | Self::Forgotten { .. }
            | Self::Trusted { .. } => None,
        }
    }

    #[must_use]
    pub fn at(&self) -> WallTime {
        match self {
            Self::Saved(saved) => saved.at,
            Self::Deleted { at, .. }
            | Self::Archived { at, .. }
            | Self::Forgotten { at, .. }
            | Self::Trusted { at, .. } => *at,
        }
    }
}

/// A nonce that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    pub nonce: [u8; 16],
    pub until: WallTime,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Save { info: Box<PackageInfo>, body: Body, of: Option<Box<MadeOf>> },
    Delete(PackageId),
    Trust { name: String, key: PackageKey },
    Distrust { name: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Keys,
    /// Whether a package of this nonce was taken from elsewhere and deleted, or is here.
    Nonce([u8; 16]),
    /// The packages that these sessions are owed: see [`Owed`].
    Owed(Vec<SessionId>),
    /// How often the work of a session was packed and taken before, by its packages from elsewhere.
    Hops(SessionId),
}

/// A session without a package of its present version for a model that is to find one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub session: SessionId,
    /// `None`: no model can go on with it.
    pub to: Option<ModelName>,
    /// How much of the conversation it carries.
    pub level: Preservation,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Keys(Vec<TrustedKey>),
    Nonce(Seen),
    Owed(Vec<Owed>),
    Hops(u32),
    /// Contents of the package that this one replaced, which nothing names any more.
    Saved {
        replaced: Vec<BodyKey>,
    },
}

/// What is known of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Never,
    Here,
    Spent,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no package {0}")]
    Unknown(PackageId),
    #[error("the package was taken here before")]
    Replayed,
    #[error("`{name}` is trusted with another key: remove it first")]
    NameTaken { name: String },
    #[error("no key is trusted as `{0}`")]
    UnknownName(String),
    #[error("{limit} packages are kept: delete some first")]
    Full { limit: usize },
    #[error("{limit} keys are trusted: remove one first")]
    TooManyKeys { limit: usize },
}

/// Packages kept at most: a start reads a line about each.
const KEPT_MAX: usize = 100_000;
const KEYS_MAX: usize = 1_000;
/// Nonces forgotten by one command, so that a batch stays small.
const FORGET: usize = 64;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    nonce: [u8; 16],
    expires_at: WallTime,
    is_imported: bool,
    made_at: WallTime,
    hops: u32,
    session: Option<SessionId>,
    made: Option<Box<Made>>,
}

/// For whom a package was made, and of what.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    to: ModelName,
    level: Preservation,
    manifest: [u8; 32],
    of: MadeOf,
    /// The first piece of its content: it has its nonce in it, so nothing else can have the same.
    own: Option<BodyKey>,
}

#[derive(Debug, Default)]
pub struct State {
    kept: BTreeMap<PackageId, Kept>,
    /// Of what is kept, by session; ids sort by the time they were made.
    of_session: BTreeSet<(SessionId, PackageId)>,
    /// Taken by a handoff: they stay when newer ones are made.
    claimed: BTreeSet<PackageId>,
    /// Those whose work goes on.
    archived: BTreeSet<PackageId>,
    /// Those that moved a session, and the handoff that each did it with: none does so twice.
    used: BTreeMap<PackageId, HandoffId>,
    /// Of what is kept.
    nonces: BTreeMap<[u8; 16], PackageId>,
    /// Of what came from elsewhere and was deleted, until it has expired.
    spent: BTreeMap<[u8; 16], WallTime>,
    keys: BTreeMap<String, (PackageKey, WallTime)>,
    /// Models whose agents were told to load them, and for prompts of how many tokens; volatile.
    warmed: BTreeMap<ModelName, (u64, BootTime)>,
}

/// Ollama keeps a model for five minutes unless it is told otherwise.
const WARM: Duration = Duration::from_secs(4 * 60);

impl State {
    /// Whether a model is to be loaded for a prompt of so many tokens: it was not told so lately. Another window is
    /// another load, and windows are powers of two.
    #[must_use]
    pub fn is_cold(&self, model: &ModelName, tokens: u64, now: BootTime) -> bool {
        self.warmed.get(model).is_none_or(|(known, at)| {
            known.next_power_of_two() != tokens.next_power_of_two()
                || now.0.saturating_sub(at.0) >= WARM
        })
    }

    pub(super) fn note_warmed(&mut self, model: &ModelName, tokens: u64, at: BootTime) {
        self.warmed.insert(model.clone(), (tokens, at));
    }

    /// A handoff has moved its session with this package.
    pub(super) fn used(&mut self, package: PackageId, by: HandoffId) {
        self.used.entry(package).or_insert(by);
    }

    /// The handoff that moved its session with this package.
    #[must_use]
    pub fn used_by(&self, package: PackageId) -> Option<HandoffId> {
        self.used.get(&package).copied()
    }

    /// What is known of a nonce.
    #[must_use]
    pub fn seen(&self, nonce: &[u8; 16]) -> Seen {
        if self.nonces.contains_key(nonce) {
            Seen::Here
        } else if self.spent.contains_key(nonce) {
            Seen::Spent
        } else {
            Seen::Never
        }
    }

    /// Those of a session, the newest first.
    fn of(&self, session: &SessionId) -> impl Iterator<Item = (PackageId, &Kept)> {
        let bound = |number| (session.clone(), PackageId::from_u128(number));
        let own = self.of_session.range(bound(0)..=bound(u128::MAX)).rev();
        own.filter_map(|(_, id)| Some((*id, self.kept.get(id)?)))
    }

    /// Those that were made for this receiver, the newest first.
    fn made_for(
        &self,
        session: &SessionId,
        to: &ModelName,
    ) -> impl Iterator<Item = (PackageId, &Kept, &Made)> {
        let made =
            self.of(session).filter_map(|(id, kept)| Some((id, kept, &**kept.made.as_ref()?)));
        made.filter(move |(_, _, made)| made.to == *to)
    }

    /// The package that this model goes on with now: all of the session as it is, at this level, and not expired.
    #[must_use]
    pub fn ready(
        &self,
        session: &SessionInfo,
        to: &ModelName,
        level: Preservation,
        now: WallTime,
    ) -> Option<Ready> {
        let mut made = self.made_for(&session.id, to);
        let (package, _, made) = made.find(|(_, kept, made)| {
            made.level == level
                && made.of.version == session.version
                && made.of.kept.must_keep_missing.is_empty()
                && now < kept.expires_at
        })?;
        Some(Ready { package, manifest: made.manifest, kept: made.of.kept.clone() })
    }

    /// Whether nothing better can be made for this receiver: of the session as it is, whatever did not fit.
    #[must_use]
    pub fn is_current(
        &self,
        session: &SessionInfo,
        to: &ModelName,
        level: Preservation,
        now: WallTime,
    ) -> bool {
        self.made_for(&session.id, to).any(|(_, kept, made)| {
            made.level == level && made.of.version == session.version && now < kept.expires_at
        })
    }

    /// How far the newest package of a session for this receiver goes.
    #[must_use]
    pub fn synced(&self, session: &SessionId, to: &ModelName) -> Option<Synced> {
        self.made_for(session, to).next().map(|(package, kept, made)| Synced {
            package,
            version: made.of.version,
            entries: made.of.kept.entries,
            tokens: made.of.kept.tokens_before,
            at: kept.made_at,
        })
    }

    /// When the newest package of a session was made.
    #[must_use]
    pub fn last_made(&self, session: &SessionId) -> Option<WallTime> {
        self.of(session).map(|(_, kept)| kept.made_at).max()
    }

    /// One more than the most hops of a session's packages from elsewhere; 0 when there is none.
    #[must_use]
    pub fn hops(&self, session: &SessionId) -> u32 {
        let imported = self.of(session).filter(|(_, kept)| kept.is_imported);
        imported.map(|(_, kept)| kept.hops.saturating_add(1)).max().unwrap_or(0)
    }

    /// Whether it is kept, and its work has not gone on yet.
    #[must_use]
    pub fn may_archive(&self, id: PackageId) -> bool {
        self.kept.contains_key(&id) && !self.archived.contains(&id)
    }

    /// A handoff goes on with this package.
    pub(super) fn claim(&mut self, package: PackageId) {
        self.claimed.insert(package);
    }

    /// What a new package of this session for this receiver replaces, and the contents that go with it.
    fn replaced(&self, session: &SessionId, to: &ModelName) -> Vec<(PackageId, Option<BodyKey>)> {
        let ahead = self.made_for(session, to).filter(|(_, _, made)| made.of.is_ahead);
        let free = ahead.filter(|(id, _, _)| !self.claimed.contains(id));
        free.map(|(id, _, made)| (id, made.own)).collect()
    }

    /// The keys of others, by name.
    #[must_use]
    pub fn keys(&self) -> Vec<TrustedKey> {
        let key = |(name, (key, at)): (&String, &(PackageKey, WallTime))| TrustedKey {
            name: name.clone(),
            key: *key,
            trusted_at: Some(*at),
            is_own: false,
        };
        self.keys.iter().map(key).collect()
    }

    /// What `command` leads to at `now`; nothing when it asks for what already is.
    pub(super) fn decide(
        &self,
        command: Command,
        now: WallTime,
    ) -> Result<(Vec<Event>, Vec<BodyKey>), Refusal> {
        let mut freed = Vec::new();
        let mut events = match command {
            Command::Save { info, body, of } => {
                let header = &info.header;
                let made_of = header.session.as_ref().zip(header.recipient.as_ref());
                let replaced = made_of.filter(|_| of.as_ref().is_some_and(|of| of.is_ahead));
                let replaced = replaced.map(|(session, to)| self.replaced(session, to));
                let mut events = vec![self.save(*info, body, of, now)?];
                for (id, own) in replaced.into_iter().flatten() {
                    events.push(Event::Deleted { id, at: now, spent: None });
                    freed.extend(own);
                }
                events
            }
            Command::Delete(id) => {
                let kept = self.kept.get(&id).ok_or(Refusal::Unknown(id))?;
                let spent = Spent { nonce: kept.nonce, until: kept.expires_at };
                let spent = Some(spent).filter(|it| kept.is_imported && it.until > now);
                vec![Event::Deleted { id, at: now, spent }]
            }
            Command::Trust { name, key } => match self.keys.get(&name) {
                Some((known, _)) if *known == key => Vec::new(),
                Some(_) => return Err(Refusal::NameTaken { name }),
                None if self.keys.len() >= KEYS_MAX => {
                    return Err(Refusal::TooManyKeys { limit: KEYS_MAX });
                }
                None => vec![Event::Trusted { name, key: Some(key), at: now }],
            },
            Command::Distrust { name } if !self.keys.contains_key(&name) => {
                return Err(Refusal::UnknownName(name));
            }
            Command::Distrust { name } => vec![Event::Trusted { name, key: None, at: now }],
        };
        let old = self.spent.iter().filter(|(_, until)| **until <= now).take(FORGET);
        let nonces: Vec<[u8; 16]> = old.map(|(nonce, _)| *nonce).collect();
        if !events.is_empty() && !nonces.is_empty() {
            events.push(Event::Forgotten { nonces, at: now });
        }
        Ok((events, freed))
    }

    fn save(
        &self,
        info: PackageInfo,
        body: Body,
        of: Option<Box<MadeOf>>,
        now: WallTime,
    ) -> Result<Event, Refusal> {
        let is_new = self.seen(&info.header.nonce) == Seen::Never;
        if !is_new || self.kept.contains_key(&info.header.id) {
            return Err(Refusal::Replayed);
        }
        if self.kept.len() >= KEPT_MAX {
            return Err(Refusal::Full { limit: KEPT_MAX });
        }
        Ok(Event::Saved(Box::new(Saved { info, body, at: now, of })))
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Saved(saved) => {
                let header = &saved.info.header;
                self.nonces.insert(header.nonce, header.id);
                let of = saved.of.as_ref().filter(|_| !saved.info.is_imported);
                let made = of.zip(header.recipient.clone()).map(|(of, to)| Made {
                    to,
                    level: header.level,
                    manifest: saved.info.checksum,
                    of: MadeOf::clone(of),
                    own: saved.body.keys.first().copied(),
                });
                let kept = Kept {
                    nonce: header.nonce,
                    expires_at: header.expires_at,
                    is_imported: saved.info.is_imported,
                    made_at: header.created_at,
                    hops: header.hops,
                    session: header.session.clone(),
                    made: made.map(Box::new),
                };
                self.of_session.extend(kept.session.clone().map(|session| (session, header.id)));
                self.kept.insert(header.id, kept);
            }
            Event::Deleted { id, spent, .. } => {
                if let Some(kept) = self.kept.remove(id) {
                    self.nonces.remove(&kept.nonce);
                    self.claimed.remove(id);
                    self.archived.remove(id);
                    if let Some(session) = kept.session {
                        self.of_session.remove(&(session, *id));
                    }
                }
                if let Some(Spent { nonce, until }) = spent {
                    self.spent.insert(*nonce, *until);
                }
            }
            // What a start reads has no order.
            Event::Archived { id, .. } => _ = self.archived.insert(*id),
            Event::Forgotten { nonces, .. } => {
                for nonce in nonces {
                    self.spent.remove(nonce);
                }
            }
            Event::Trusted { name, key: Some(key), at } => {
                self.keys.insert(name.clone(), (*key, *at));
            }
            Event::Trusted { name, key: None, .. } => {
                self.keys.remove(name);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
