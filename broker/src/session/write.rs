//! Entries on their way in: what is large goes apart, the rest into one body.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use broker_proto::{ContentHash, Entry, NewSessionEntry, Part, PartRef, convert::Stored as _};

use super::{Error, Sessions};
use crate::{
    core::session::{NewEntries, NewEntry},
    intake::{PartsStay, check},
    journal::Content,
};

/// Encoded bytes above which a part is stored by its hash, once for however many entries and sessions have it.
pub(super) const APART: usize = 4 * 1024;
/// The same in an entry of very many parts, so that each entry fits a frame.
const APART_IN_LONG: usize = 256;
/// Bytes of parts from which an entry is such a one.
const LONG: usize = 256 * 1024;
/// Bytes that ride in the batch of their append; what is beyond is stored before it.
const IN_BATCH: usize = 256 * 1024;
/// Bytes of text that are about one token.
const BYTES_PER_TOKEN: u64 = 4;
/// Entries of one append.
const MOST: usize = 50_000;

/// Entries that are ready for a command. Hold it until that is decided: the parts that they name stay that long.
pub(super) struct Prepared {
    pub(super) entries: NewEntries,
    pub(super) contents: Vec<Content>,
    pub(super) stay: PartsStay,
}

/// What is stored apart, by hash, in the order it was met.
#[derive(Default)]
struct Apart {
    order: Vec<ContentHash>,
    bytes: BTreeMap<ContentHash, Bytes>,
}

impl Sessions {
    /// Stores what is large and encodes the rest.
    pub(super) async fn prepare(&self, entries: Vec<NewSessionEntry>) -> Result<Prepared, Error> {
        // From now on the sweep leaves what is there already.
        let stay = Arc::clone(&self.intake.parts).read_owned().await;
        if self.intake.engine.is_full() {
            return Err(Error::Engine(crate::engine::Error::StoreFull));
        }
        let (entries, contents) = self.encode(entries).await?;
        Ok(Prepared { entries, contents, stay })
    }

    /// The same for whoever keeps the parts where they are.
    pub(super) async fn encode(
        &self,
        entries: Vec<NewSessionEntry>,
    ) -> Result<(NewEntries, Vec<Content>), Error> {
        if entries.len() > MOST {
            return Err(Error::TooLarge { what: "append, counted in entries,", limit: MOST });
        }
        let (mut apart, mut new) = (Apart::default(), NewEntries::default());
        let mut body = BytesMut::new();
        let mut models = BTreeSet::new();
        for said in entries {
            let (said, size_bytes, prompt) = self.lighten(said, &mut apart).await?;
            models.extend(said.model.clone());
            let encoding = said.encode();
            let length = u32::try_from(encoding.len())
                .map_err(|_| Error::TooLarge { what: "entry", limit: LONG })?;
            new.entries.push(NewEntry {
                hash: ContentHash::of(&encoding),
                length,
                tokens: prompt.div_ceil(BYTES_PER_TOKEN),
                size_bytes,
            });
            body.extend_from_slice(&encoding);
        }
        new.models = models;
        self.store(new, body.freeze(), apart).await
    }

    async fn store(
        &self,
        mut new: NewEntries,
        body: Bytes,
        apart: Apart,
    ) -> Result<(NewEntries, Vec<Content>), Error> {
        let (bodies, mut contents) = (&self.intake.bodies, Vec::new());
        let mut room = IN_BATCH.saturating_sub(body.len());
        let stored = bodies.store(body).await?;
        new.body = stored.body;
        contents.extend(stored.contents);
        let head = self.intake.engine.head();
        for hash in apart.order {
            let Some(bytes) = apart.bytes.get(&hash) else { continue };
            if self.intake.projection.content(hash, head).await?.is_some() {
                continue;
            }
            let stored = if bytes.len() <= room {
                bodies.store(bytes.clone()).await?
            } else {
                bodies.store_before(bytes.clone()).await?
            };
            room = room.saturating_sub(bytes.len());
            contents.extend(stored.contents);
            new.contents.push((hash, stored.body));
        }
        Ok((new, contents))
    }

    /// The entry with what is large named by hash: the same entry has the same encoding, however it came. Gives its
    /// bytes and what they are worth in a prompt, too.
    async fn lighten(
        &self,
        said: NewSessionEntry,
        apart: &mut Apart,
    ) -> Result<(NewSessionEntry, u64, u64), Error> {
        let NewSessionEntry { entry: Entry { role, name, parts }, .. } = said;
        let (mut whole, mut size, mut prompt) = (Vec::with_capacity(parts.len()), 0, 0);
        for part in parts {
            let named = match &part {
                Part::Ref(named) => Some(*named),
                _ => None,
            };
            let part = self.whole(part).await?;
            size += part.size_bytes();
            prompt += check::prompt_bytes(&part);
            whole.push((named, part.encode()));
        }
        let limit = self.intake.limits.message;
        if size > limit {
            return Err(crate::intake::Error::TooLarge { what: "entry", size, limit }.into());
        }
        let encoded: usize = whole.iter().map(|(_, bytes)| bytes.len()).sum();
        let most = if encoded > LONG { APART_IN_LONG } else { APART };
        let mut parts = Vec::with_capacity(whole.len());
        for (named, bytes) in whole {
            if bytes.len() <= most {
                parts.push(Part::decode(bytes)?);
                continue;
            }
            let hash = ContentHash::of(&bytes);
            parts.push(Part::Ref(PartRef { hash, size_bytes: bytes.len() as u64 }));
            // What came by this hash is stored.
            if named.is_none_or(|named| named.hash != hash)
                && apart.bytes.insert(hash, bytes).is_none()
            {
                apart.order.push(hash);
            }
        }
        let entry = Entry { role, name, parts };
        Ok((NewSessionEntry { entry, ..said }, size, prompt))
    }

    /// A part with nothing named by hash in it.
    pub(super) async fn whole(&self, part: Part) -> Result<Part, Error> {
        let mut refs = Vec::new();
        check::refs(&part, &mut refs);
        if refs.is_empty() {
            return Ok(part);
        }
        let fetched = self.intake.check_refs([&part]).await?;
        let found = refs.into_iter().map(|named| named.hash).zip(fetched).collect();
        Ok(filled_in(part, &found))
    }
}

fn filled_in(part: Part, found: &BTreeMap<ContentHash, Part>) -> Part {
    match part {
        Part::Ref(named) => found.get(&named.hash).cloned().unwrap_or(Part::Ref(named)),
        Part::ToolResult { call_id, parts, is_error } => {
            let parts = parts.into_iter().map(|part| filled_in(part, found)).collect();
            Part::ToolResult { call_id, parts, is_error }
        }
        other => other,
    }
}
