//! Packages: which are kept, which were taken before, and whose signatures count.
//!
//! Invariant: a nonce that came in from elsewhere is never taken a second time while its package has not expired, also
//! when the package was deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{
    PackageHeader, PackageId, PackageInfo, PackageKey, Preservation, SessionId, SessionInfo,
    TrustedKey, WallTime,
};

use super::queue::Body;

/// A package as it is kept. Whether it has expired and who its signer is are said when it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    pub info: PackageInfo,
    /// Its bytes, packed.
    pub body: Body,
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
            Self::Deleted { .. } | Self::Forgotten { .. } | Self::Trusted { .. } => None,
        }
    }

    #[must_use]
    pub fn at(&self) -> WallTime {
        match self {
            Self::Saved(saved) => saved.at,
            Self::Deleted { at, .. } | Self::Forgotten { at, .. } | Self::Trusted { at, .. } => *at,
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
    Save { info: Box<PackageInfo>, body: Body },
    Delete(PackageId),
    Trust { name: String, key: PackageKey },
    Distrust { name: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Keys,
    /// Whether a package of this nonce was taken from elsewhere and deleted, or is here.
    Nonce([u8; 16]),
    /// Which of these sessions has no package that its next model could go on with now.
    Owed(Vec<SessionId>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Keys(Vec<TrustedKey>),
    Nonce(Seen),
    Owed(Vec<SessionId>),
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
    /// The session that a model goes on with from it alone.
    goes_on: Option<SessionId>,
}

#[derive(Debug, Default)]
pub struct State {
    kept: BTreeMap<PackageId, Kept>,
    /// Of what is kept, by the session that goes on with it.
    going_on: BTreeSet<(SessionId, PackageId)>,
    /// Of what is kept.
    nonces: BTreeMap<[u8; 16], PackageId>,
    /// Of what came from elsewhere and was deleted, until it has expired.
    spent: BTreeMap<[u8; 16], WallTime>,
    keys: BTreeMap<String, (PackageKey, WallTime)>,
}

impl State {
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

    /// Whether this session's next model finds all of it in a package: one for a model, complete, not expired, and made
    /// after the session changed last.
    #[must_use]
    pub fn is_ready(&self, session: &SessionInfo, now: WallTime) -> bool {
        let first = (session.id.clone(), PackageId::from_parts(WallTime(0), 0));
        let of_session = self.going_on.range(first..).take_while(|(id, _)| *id == session.id);
        let mut kept = of_session.filter_map(|(_, package)| self.kept.get(package));
        kept.any(|kept| kept.made_at > session.changed_at && now < kept.expires_at)
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
    pub(super) fn decide(&self, command: Command, now: WallTime) -> Result<Vec<Event>, Refusal> {
        let mut events = match command {
            Command::Save { info, body } => vec![self.save(*info, body, now)?],
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
        Ok(events)
    }

    fn save(&self, info: PackageInfo, body: Body, now: WallTime) -> Result<Event, Refusal> {
        let is_new = self.seen(&info.header.nonce) == Seen::Never;
        if !is_new || self.kept.contains_key(&info.header.id) {
            return Err(Refusal::Replayed);
        }
        if self.kept.len() >= KEPT_MAX {
            return Err(Refusal::Full { limit: KEPT_MAX });
        }
        Ok(Event::Saved(Box::new(Saved { info, body, at: now })))
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Saved(saved) => {
                let header = &saved.info.header;
                self.nonces.insert(header.nonce, header.id);
                let kept = Kept {
                    nonce: header.nonce,
                    expires_at: header.expires_at,
                    is_imported: saved.info.is_imported,
                    made_at: header.created_at,
                    goes_on: goes_on(header).filter(|_| !saved.info.is_imported),
                };
                self.going_on.extend(kept.goes_on.clone().map(|session| (session, header.id)));
                self.kept.insert(header.id, kept);
            }
            Event::Deleted { id, spent, .. } => {
                if let Some(kept) = self.kept.remove(id) {
                    self.nonces.remove(&kept.nonce);
                    if let Some(session) = kept.goes_on {
                        self.going_on.remove(&(session, *id));
                    }
                }
                if let Some(Spent { nonce, until }) = spent {
                    self.spent.insert(*nonce, *until);
                }
            }
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

fn goes_on(header: &PackageHeader) -> Option<SessionId> {
    let is_whole = header.recipient.is_some() && header.level == Preservation::Complete;
    header.session.clone().filter(|_| is_whole)
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
