//! Entries on their way out.

use std::collections::BTreeMap;

use bytes::Bytes;

use broker_proto::{
    EntryHash, ModelName, NewSessionEntry, SessionEntry, SessionHead, SessionId, SessionInfo,
    SessionPoint, SessionVersion, convert::Stored as _,
};

use super::{Error, Sessions};
use crate::{
    context,
    core::queue::{Body, BodyKey},
    projection::{StoredEntry, WantedEntries},
};

/// Entries read at a time by whoever wants them all.
const PIECE: u32 = 1000;
/// Encoded bytes of one page; an entry has less, and a frame takes four times as much.
const PAGE_BYTES: u64 = 512 * 1024;

/// A page of entries, and the number that the next one begins with.
#[derive(Debug, Clone)]
pub struct EntryPage {
    pub entries: Vec<SessionEntry>,
    pub next: Option<u64>,
}

impl Sessions {
    /// A page of entries from this number on. What is large in them is named by its hash.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn page(&self, head: SessionHead, from: u64, limit: u32) -> Result<EntryPage, Error> {
        let batch = self.intake.engine.head();
        let wanted = WantedEntries::From(from, limit);
        let mut stored = self.intake.projection.session_entries(head.hash, wanted, batch).await?;
        let mut bytes = 0;
        let fits = stored.iter().take_while(|entry| {
            bytes += entry.length;
            bytes <= PAGE_BYTES
        });
        let fits = fits.count().max(1);
        stored.truncate(fits);
        let behind = from + stored.len() as u64;
        let next = (!stored.is_empty() && behind < head.entries).then_some(behind);
        Ok(EntryPage { entries: self.load(&stored).await?, next })
    }

    /// All entries of a session that ends with `head`, oldest first. What is large in them is named by its hash.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn entries(&self, head: SessionHead) -> Result<Vec<SessionEntry>, Error> {
        self.entries_from(head, 0).await
    }

    /// These entries from this number on, as they are stored.
    pub(super) async fn entries_from(
        &self,
        head: SessionHead,
        mut from: u64,
    ) -> Result<Vec<SessionEntry>, Error> {
        let mut all = Vec::new();
        loop {
            let page = self.page(head, from, PIECE).await?;
            all.extend(page.entries);
            match page.next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// The same with everything in its place, for whoever reads it here.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn whole_entries(&self, head: SessionHead) -> Result<Vec<SessionEntry>, Error> {
        self.whole_entries_from(head, 0).await
    }

    /// The same from this number on.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn whole_entries_from(
        &self,
        head: SessionHead,
        from: u64,
    ) -> Result<Vec<SessionEntry>, Error> {
        if from >= head.entries {
            return Ok(Vec::new());
        }
        let entries = self.entries_from(head, from).await?;
        self.made_whole(entries).await
    }

    /// These entries with everything in its place.
    pub(super) async fn made_whole(
        &self,
        mut entries: Vec<SessionEntry>,
    ) -> Result<Vec<SessionEntry>, Error> {
        for entry in &mut entries {
            for part in &mut entry.entry.parts {
                *part = self.whole(part.clone()).await?;
            }
        }
        Ok(entries)
    }

    async fn load(&self, stored: &[StoredEntry]) -> Result<Vec<SessionEntry>, Error> {
        let mut bodies: BTreeMap<BodyKey, &Body> = BTreeMap::new();
        for entry in stored {
            if let Some(key) = entry.body.keys.first() {
                bodies.entry(*key).or_insert(&entry.body);
            }
        }
        let wanted: Vec<&Body> = bodies.values().copied().collect();
        let loaded = self.intake.bodies.load_all(&wanted).await;
        let mut bytes: BTreeMap<BodyKey, Bytes> = BTreeMap::new();
        for (key, loaded) in bodies.into_keys().zip(loaded) {
            bytes.insert(key, loaded?);
        }
        stored.iter().map(|entry| read(entry, &bytes)).collect()
    }

    /// What became of a session, newest first, before this version; and where the next page begins.
    ///
    /// # Errors
    /// [`Error`] when there is no such session.
    pub async fn versions(
        &self,
        id: &SessionId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<(Vec<SessionVersion>, Option<u64>), Error> {
        self.get(id).await?;
        let (before, batch) = (before.unwrap_or(i64::MAX as u64), self.intake.engine.head());
        let projection = &self.intake.projection;
        let found = projection.session_versions(id.clone(), before, limit + 1, batch).await?;
        let has_more = found.len() > limit as usize;
        let shown = found.into_iter().take(limit as usize).map(|stored| SessionVersion {
            version: stored.session.info.version,
            at: stored.session.info.changed_at,
            change: stored.change.as_str().to_owned(),
            detail: stored.detail,
            head: stored.session.info.head,
        });
        let shown: Vec<SessionVersion> = shown.collect();
        let next = shown.last().filter(|_| has_more).map(|last| last.version);
        Ok((shown, next))
    }

    /// Sessions, the one that changed last first; and what the next page is behind.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn list(
        &self,
        owner: Option<ModelName>,
        behind: Option<(u64, SessionId)>,
        limit: u32,
    ) -> Result<(Vec<SessionInfo>, Option<(u64, SessionId)>), Error> {
        let batch = self.intake.engine.head();
        let owner = owner.map(|owner| self.intake.model(&owner)).transpose()?;
        let mut found = self.intake.projection.sessions(owner, behind, limit + 1, batch).await?;
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let last = found.last().filter(|_| has_more);
        let next = last.map(|last| (last.changed_at.0, last.id.clone()));
        Ok((found, next))
    }

    /// The hashes of all entries up to a head.
    pub(super) async fn chain(&self, head: EntryHash) -> Result<Vec<EntryHash>, Error> {
        let batch = self.intake.engine.head();
        Ok(self.intake.projection.session_chain(head, batch).await?)
    }

    /// The one entry that is meant by a point on the way to `head`.
    pub(super) async fn entry_at(
        &self,
        id: &SessionId,
        head: SessionHead,
        point: &SessionPoint,
    ) -> Result<StoredEntry, Error> {
        let wanted = match point {
            SessionPoint::Entry(number) => WantedEntries::Number(*number),
            SessionPoint::Hash(digits) => WantedEntries::Prefix(digits.clone()),
            SessionPoint::Head | SessionPoint::Version(_) => WantedEntries::Number(u64::MAX),
        };
        let batch = self.intake.engine.head();
        let found = self.intake.projection.session_entries(head.hash, wanted, batch).await?;
        match (found.len(), point) {
            (2.., SessionPoint::Hash(digits)) => Err(Error::Ambiguous(digits.clone())),
            _ => found
                .into_iter()
                .next()
                .ok_or_else(|| Error::NoPoint { id: id.clone(), point: point.clone() }),
        }
    }
}

fn read(stored: &StoredEntry, bodies: &BTreeMap<BodyKey, Bytes>) -> Result<SessionEntry, Error> {
    let corrupt = || Error::Content(context::Error::Corrupt);
    let body = stored.body.keys.first().and_then(|key| bodies.get(key)).ok_or_else(corrupt)?;
    let from = usize::try_from(stored.offset).map_err(|_| corrupt())?;
    let length = usize::try_from(stored.length).map_err(|_| corrupt())?;
    let end = from.checked_add(length).filter(|end| *end <= body.len()).ok_or_else(corrupt)?;
    let said = NewSessionEntry::decode(body.slice(from..end)).map_err(|_| corrupt())?;
    Ok(SessionEntry {
        number: stored.number,
        kind: said.kind,
        entry: said.entry,
        model: said.model,
        created_at: said.created_at,
        tokens: stored.tokens,
        previous: stored.previous,
        hash: stored.hash,
    })
}
