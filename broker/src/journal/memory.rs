//! The journal in memory, for tests and for a broker that may forget everything.
//!
//! It keeps the same frames as every backend, as bytes, and reads them back through the same decoder. A [`Store`]
//! outlives the journals opened on it, as a disk would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::content::{Content, ContentKey, NoRandomness, random};
use super::error::{AppendError, ClaimError, PutError, ReadError, Why};
use super::frame::{Frame, Sealed, Tail};
use super::id::{BatchNo, Digest, Epoch, JournalId};
use super::owner::{Log, Owner};
use super::{Answer, Claim, Durability, Identity, Journal, Manifest, Room, Until, Writer, claim};

/// What survives when a journal is dropped and opened again. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: JournalId,
    /// Bytes of frames and contents; past it, `Full`.
    capacity: u64,
    state: Mutex<State>,
    head: watch::Sender<BatchNo>,
}

#[derive(Debug, Default)]
struct State {
    frames: BTreeMap<BatchNo, (Epoch, Bytes)>,
    tail: Tail,
    /// What a claimer must be able to read.
    needs: u16,
    contents: BTreeMap<ContentKey, (SystemTime, Bytes)>,
    snapshots: BTreeMap<(BatchNo, u16), Manifest>,
    used: u64,
}

impl Store {
    /// A store without a limit.
    ///
    /// # Errors
    /// [`NoRandomness`] if no journal id can be drawn.
    pub fn new() -> Result<Self, NoRandomness> {
        Self::with_capacity(u64::MAX)
    }

    /// A store of `capacity` bytes.
    ///
    /// # Errors
    /// [`NoRandomness`] if no journal id can be drawn.
    pub fn with_capacity(capacity: u64) -> Result<Self, NoRandomness> {
        let journal = JournalId(random()?);
        let head = watch::Sender::new(BatchNo(0));
        Ok(Self { shared: Arc::new(Shared { journal, capacity, state: Mutex::default(), head }) })
    }
}

/// A journal in a [`Store`].
#[derive(Debug, Clone)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
}

impl MemoryJournal {
    /// Opens the journal that `store` holds, again or for the first time.
    #[must_use]
    pub fn open(store: &Store) -> Self {
        Self { shared: Arc::clone(&store.shared) }
    }
}

impl Shared {
    /// The lock guards the whole store, as a transaction would. Nothing panics under it, so poison means nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, me: Claim) -> Result<Tail, ClaimError> {
        let mut state = self.state();
        let (sealed, claimed) = claim::seal(self.journal, state.tail, state.needs, me)?;
        state.store(self.capacity, &sealed, Vec::new()).map_err(ClaimError::NotStored)?;
        state.needs = claimed.readable_by;
        drop(state);
        self.head.send_replace(sealed.tail.number);
        Ok(sealed.tail)
    }

    fn append(
        &self,
        place: Tail,
        sealed: &Sealed,
        contents: Vec<Content>,
    ) -> Result<(), AppendError> {
        let mut state = self.state();
        let behind = || state.frames.get(&place.number.next()).map(|(epoch, _)| *epoch);
        place.may_follow(state.tail, behind)?;
        state.store(self.capacity, sealed, contents).map_err(AppendError::NotStored)?;
        drop(state);
        self.head.send_replace(sealed.tail.number);
        Ok(())
    }

    fn forget(&self, decided: BatchNo, keys: &[ContentKey]) -> Result<(), PutError> {
        let mut state = self.state();
        state.check_durable(decided)?;
        for key in keys {
            if let Some((_, bytes)) = state.contents.remove(key) {
                state.used -= len(&bytes);
            }
        }
        Ok(())
    }

    fn truncate(&self, first: BatchNo) -> Result<(), PutError> {
        let mut state = self.state();
        let mut snapshots: Vec<_> = state.snapshots.keys().map(|(batch, _)| *batch).collect();
        snapshots.dedup();
        let limit = snapshots.iter().rev().nth(1).copied().unwrap_or(BatchNo(1));
        if first > limit {
            return Err(PutError::StillNeeded { first: limit });
        }
        let kept = state.frames.split_off(&first);
        let removed = std::mem::replace(&mut state.frames, kept);
        state.used -= removed.values().map(|(_, bytes)| len(bytes)).sum::<u64>();
        state.snapshots.retain(|(batch, _), _| *batch >= first);
        Ok(())
    }

    fn put(&self, content: &Content) -> Result<ContentKey, PutError> {
        let mut state = self.state();
        if !state.contents.contains_key(&content.key()) {
            state.reserve(self.capacity, len(content.bytes())).map_err(PutError::NotStored)?;
            state.contents.insert(content.key(), (SystemTime::now(), content.bytes().clone()));
        }
        Ok(content.key())
    }

    fn get(&self, key: ContentKey) -> Result<Bytes, ReadError> {
        let (_, bytes) = self.state().contents.get(&key).cloned().ok_or(ReadError::Missing)?;
        if Digest::of(&bytes) == key.hash() {
            Ok(bytes)
        } else {
            Err(ReadError::CorruptContent { key })
        }
    }

    fn publish(&self, snapshot: Manifest) -> Result<(), PutError> {
        let mut state = self.state();
        state.check_durable(snapshot.batch)?;
        if let Some(key) =
            snapshot.parts.iter().copied().find(|key| !state.contents.contains_key(key))
        {
            return Err(PutError::Missing { key });
        }
        let newest = state.snapshots.keys().next_back().map(|(batch, _)| *batch);
        if newest.is_none_or(|newest| newest <= snapshot.batch) {
            state.snapshots.entry((snapshot.batch, snapshot.format)).or_insert(snapshot);
        }
        Ok(())
    }

    fn snapshot(&self, formats: &[u16]) -> Option<Manifest> {
        let state = self.state();
        let readable =
            state.snapshots.values().rev().filter(|snapshot| formats.contains(&snapshot.format));
        readable
            .into_iter()
            .find(|it| it.parts.iter().all(|key| state.contents.contains_key(key)))
            .cloned()
    }

    /// The frame `at`, or nothing if it is not there yet.
    fn frame(&self, at: BatchNo) -> Result<Option<Frame>, ReadError> {
        let state = self.state();
        if let Some((_, bytes)) = state.frames.get(&at) {
            return Frame::decode(bytes, self.journal, at).map(Some);
        }
        match state.frames.first_key_value() {
            Some((first, _)) if at < *first => Err(ReadError::Gap { first: *first }),
            Some(_) if at <= state.tail.number => Err(ReadError::Corrupt { at }),
            Some(_) | None => Ok(None),
        }
    }

    /// The next frame of a reader that wants `at`, and no more than `last` if there is an end.
    async fn next(&self, at: BatchNo, last: Option<BatchNo>) -> Option<Result<Frame, ReadError>> {
        let mut head = self.head.subscribe();
        loop {
            if last.is_some_and(|last| at > last) {
                return None;
            }
            if let Some(found) = self.frame(at).transpose() {
                return Some(found);
            }
            // The sender lives in `self`, so the wait ends only with the frame.
            let _ = head.wait_for(|head| *head >= at).await;
        }
    }
}

impl State {
    fn reserve(&mut self, capacity: u64, bytes: u64) -> Result<(), Why> {
        let used =
            self.used.checked_add(bytes).filter(|used| *used <= capacity).ok_or(Why::Full)?;
        self.used = used;
        Ok(())
    }

    fn store(&mut self, capacity: u64, sealed: &Sealed, contents: Vec<Content>) -> Result<(), Why> {
        let bytes =
            contents.iter().map(|content| len(content.bytes())).sum::<u64>() + len(&sealed.bytes);
        self.reserve(capacity, bytes)?;
        for content in contents {
            let stored = (SystemTime::now(), content.bytes().clone());
            if let Some((_, same)) = self.contents.insert(content.key(), stored) {
                self.used -= len(&same);
            }
        }
        self.frames.insert(sealed.tail.number, (sealed.tail.epoch, sealed.bytes.clone()));
        self.tail = sealed.tail;
        Ok(())
    }

    fn check_durable(&self, batch: BatchNo) -> Result<(), PutError> {
        let head = self.tail.number;
        if batch > head { Err(PutError::Undecided { batch, head }) } else { Ok(()) }
    }
}

fn len(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

impl Log for Shared {
    fn offer(
        &self,
        place: Tail,
        sealed: Sealed,
        contents: Vec<Content>,
    ) -> Answer<'_, (), AppendError> {
        Box::pin(async move {
            // Like every log that is somewhere else, this one does not answer at once, so tests may give it up.
            tokio::task::yield_now().await;
            self.append(place, &sealed, contents)
        })
    }

    fn forget(&self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError> {
        Box::pin(async move { self.forget(decided, &keys) })
    }

    fn truncate(&self, first: BatchNo) -> Answer<'_, (), PutError> {
        Box::pin(async move { self.truncate(first) })
    }

    fn room(&self) -> Room {
        Room { bytes: self.capacity - self.state().used, whole: self.capacity }
    }
}

impl Journal for MemoryJournal {
    fn identity(&self) -> Identity {
        Identity { journal: self.shared.journal, durability: Durability::Relaxed }
    }

    fn claim(&self, me: Claim) -> Answer<'_, Box<dyn Writer>, ClaimError> {
        Box::pin(async move {
            let tail = self.shared.claim(me)?;
            let log: Arc<dyn Log> = Arc::<Shared>::clone(&self.shared);
            Ok(Box::new(Owner::new(log, self.shared.journal, tail)) as Box<dyn Writer>)
        })
    }

    fn read(&self, from: BatchNo, until: Until) -> BoxStream<'static, Result<Frame, ReadError>> {
        let shared = Arc::clone(&self.shared);
        let frames = stream::once(async move {
            let last = match until {
                Until::Head => Some(shared.state().tail.number),
                Until::Batch(last) => Some(last),
                Until::Forever => None,
            };
            stream::unfold(Some(from.max(BatchNo(1))), move |at| {
                let shared = Arc::clone(&shared);
                async move {
                    let at = at?;
                    let found = shared.next(at, last).await?;
                    let next = found.is_ok().then(|| at.next());
                    Some((found, next))
                }
            })
        });
        frames.flatten().boxed()
    }

    fn put(&self, content: Content) -> Answer<'_, ContentKey, PutError> {
        Box::pin(async move { self.shared.put(&content) })
    }

    fn get(&self, key: ContentKey) -> Answer<'_, Bytes, ReadError> {
        Box::pin(async move { self.shared.get(key) })
    }

    fn keys(&self, grace: Duration) -> BoxStream<'static, Result<ContentKey, ReadError>> {
        let now = SystemTime::now();
        let old = |stored: SystemTime| now.duration_since(stored).is_ok_and(|age| age >= grace);
        let state = self.shared.state();
        let keys: Vec<_> =
            state.contents.iter().filter(|it| old(it.1.0)).map(|it| Ok(*it.0)).collect();
        stream::iter(keys).boxed()
    }

    fn snapshot(&self, formats: &[u16]) -> Answer<'_, Option<Manifest>, ReadError> {
        let found = self.shared.snapshot(formats);
        Box::pin(async move { Ok(found) })
    }

    fn publish(&self, snapshot: Manifest) -> Answer<'_, (), PutError> {
        Box::pin(async move { self.shared.publish(snapshot) })
    }
}
