//! A journal that misbehaves on command, around any other; for tests of what stands above.
//!
//! Faults are scripted one per append and used up in order; an append without one is passed through. Or every append is
//! held until it is told what becomes of it. What the log holds afterwards is what the fault says, so a test may open the
//! inner journal and look.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::Semaphore;

use super::{
    Answer, AppendError, Batch, BatchNo, Cause, Claim, ClaimError, Content, ContentKey, Damage,
    Epoch, Frame, Identity, Journal, Manifest, PutError, ReadError, Room, Until, Why, Writer,
};

/// What becomes of one append.
#[derive(Debug, Clone)]
pub enum Fault {
    /// [`AppendError::NotStored`]; the writer stays good.
    NotStored(Why),
    /// [`AppendError::Unknown`], and it is stored.
    UnknownStored,
    /// [`AppendError::Unknown`], and it is not stored.
    UnknownLost,
    /// [`AppendError::Broken`], as after a failed sync; not stored.
    Broken,
    /// Waits at the gate before anything is stored, then goes on as usual.
    HoldBefore(Gate),
    /// Is stored, visible to readers, and waits at the gate before it is answered.
    HoldAfter(Gate),
}

/// Where an append waits until the test lets it pass.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    #[must_use]
    pub fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Returns once an append waits here; each arrival is seen once.
    pub async fn arrived(&self) {
        pass(&self.arrived).await;
    }

    /// Lets one append pass, now or when it comes.
    pub fn release(&self) {
        self.open.add_permits(1);
    }

    async fn wait(&self) {
        self.arrived.add_permits(1);
        pass(&self.open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes one permit for good. The semaphores are never closed.
async fn pass(semaphore: &Semaphore) {
    if let Ok(permit) = semaphore.acquire().await {
        permit.forget();
    }
}

/// The test's side: what goes wrong next, and what was asked so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Script {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    faults: Mutex<VecDeque<Fault>>,
    holds_all: AtomicBool,
    /// The append that is held, and the word it waits for.
    held: Gate,
    is_held: AtomicBool,
    verdict: Mutex<Option<Fault>>,
    /// At most this much room is left.
    room: AtomicU64,
    claims: AtomicU64,
    appends: AtomicU64,
    syncs: AtomicU64,
    puts: AtomicU64,
    frames: AtomicU64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            faults: Mutex::default(),
            holds_all: AtomicBool::default(),
            held: Gate::new(),
            is_held: AtomicBool::default(),
            verdict: Mutex::default(),
            room: AtomicU64::new(u64::MAX),
            claims: AtomicU64::default(),
            appends: AtomicU64::default(),
            syncs: AtomicU64::default(),
            puts: AtomicU64::default(),
            frames: AtomicU64::default(),
        }
    }
}

impl Script {
    /// From now on each append waits for [`Script::decide`].
    pub fn hold_all(&self) {
        self.state.holds_all.store(true, Ordering::SeqCst);
    }

    /// Whether an append waits for its word.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state.is_held.load(Ordering::SeqCst)
    }

    /// What becomes of the append that waits; `None`: it is stored. Nothing when none waits.
    pub fn decide(&self, fault: Option<Fault>) {
        if self.state.is_held.swap(false, Ordering::SeqCst) {
            *lock(&self.state.verdict) = fault;
            self.state.held.release();
        }
    }

    /// The store shows no more room than this.
    pub fn set_room(&self, bytes: u64) {
        self.state.room.store(bytes, Ordering::SeqCst);
    }

    /// The next append without a fault of its own gets this one.
    pub fn then(&self, fault: Fault) {
        lock(&self.state.faults).push_back(fault);
    }

    /// Claims that were answered with a writer.
    #[must_use]
    pub fn claims(&self) -> u64 {
        self.state.claims.load(Ordering::SeqCst)
    }

    /// Appends that were offered, faults included.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.state.appends.load(Ordering::SeqCst)
    }

    /// Appends that the inner journal stored, which is one sync each.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.syncs.load(Ordering::SeqCst)
    }

    /// Contents that were put on their own, outside any batch.
    #[must_use]
    pub fn puts(&self) -> u64 {
        self.state.puts.load(Ordering::SeqCst)
    }

    /// Frames that were read.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.state.frames.load(Ordering::SeqCst)
    }

    async fn next(&self) -> Option<Fault> {
        if !self.state.holds_all.load(Ordering::SeqCst) {
            return lock(&self.state.faults).pop_front();
        }
        self.state.is_held.store(true, Ordering::SeqCst);
        self.state.held.wait().await;
        lock(&self.state.verdict).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The misbehaving journal.
#[derive(Debug, Clone)]
pub struct Faulty {
    inner: Arc<dyn Journal>,
    script: Script,
}

impl Faulty {
    /// Wraps `inner`; the script starts empty.
    #[must_use]
    pub fn new(inner: Arc<dyn Journal>) -> Self {
        Self { inner, script: Script::default() }
    }

    /// What the test holds on to.
    #[must_use]
    pub fn script(&self) -> Script {
        self.script.clone()
    }
}

impl Journal for Faulty {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn claim(&self, me: Claim) -> Answer<'_, Box<dyn Writer>, ClaimError> {
        Box::pin(async move {
            let inner = self.inner.claim(me).await?;
            self.script.state.claims.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(FaultyWriter { inner, script: self.script(), dead: None })
                as Box<dyn Writer>)
        })
    }

    fn read(&self, from: BatchNo, until: Until) -> BoxStream<'static, Result<Frame, ReadError>> {
        let state = Arc::clone(&self.script.state);
        let count = move |_: &_| {
            state.frames.fetch_add(1, Ordering::SeqCst);
        };
        self.inner.read(from, until).inspect(count).boxed()
    }

    fn put(&self, content: Content) -> Answer<'_, ContentKey, PutError> {
        self.script.state.puts.fetch_add(1, Ordering::SeqCst);
        self.inner.put(content)
    }

    fn get(&self, key: ContentKey) -> Answer<'_, Bytes, ReadError> {
        self.inner.get(key)
    }

    fn keys(&self, grace: Duration) -> BoxStream<'static, Result<ContentKey, ReadError>> {
        self.inner.keys(grace)
    }

    fn snapshot(&self, formats: &[u16]) -> Answer<'_, Option<Manifest>, ReadError> {
        self.inner.snapshot(formats)
    }

    fn publish(&self, snapshot: Manifest) -> Answer<'_, (), PutError> {
        self.inner.publish(snapshot)
    }
}

#[derive(Debug)]
struct FaultyWriter {
    inner: Box<dyn Writer>,
    script: Script,
    /// As in a real writer: what killed it, set before the append is offered.
    dead: Option<AppendError>,
}

impl FaultyWriter {
    async fn append(&mut self, batch: Batch) -> Result<BatchNo, AppendError> {
        if let Some(err) = &self.dead {
            return Err(err.clone());
        }
        self.script.state.appends.fetch_add(1, Ordering::SeqCst);
        self.dead = Some(AppendError::Unknown(Cause::Abandoned));
        let answer = self.suffer(batch).await;
        self.dead = match &answer {
            Ok(_) | Err(AppendError::NotStored(_)) => None,
            Err(err) => Some(err.clone()),
        };
        answer
    }

    async fn suffer(&mut self, batch: Batch) -> Result<BatchNo, AppendError> {
        match self.script.next().await {
            None => self.store(batch).await,
            Some(Fault::NotStored(why)) => Err(AppendError::NotStored(why)),
            Some(Fault::UnknownStored) => {
                self.store(batch).await?;
                Err(AppendError::Unknown(Cause::Stopped))
            }
            Some(Fault::UnknownLost) => Err(AppendError::Unknown(Cause::Stopped)),
            Some(Fault::Broken) => {
                Err(AppendError::Broken(Damage::store(std::io::Error::other("the sync failed"))))
            }
            Some(Fault::HoldBefore(gate)) => {
                gate.wait().await;
                self.store(batch).await
            }
            Some(Fault::HoldAfter(gate)) => {
                let number = self.store(batch).await?;
                gate.wait().await;
                Ok(number)
            }
        }
    }

    async fn store(&mut self, batch: Batch) -> Result<BatchNo, AppendError> {
        let number = self.inner.append(batch).await?;
        self.script.state.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(number)
    }
}

impl Writer for FaultyWriter {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    fn head(&self) -> BatchNo {
        self.inner.head()
    }

    fn append(&mut self, batch: Batch) -> Answer<'_, BatchNo, AppendError> {
        Box::pin(self.append(batch))
    }

    fn forget(&mut self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError> {
        self.inner.forget(decided, keys)
    }

    fn truncate(&mut self, first: BatchNo) -> Answer<'_, (), PutError> {
        self.inner.truncate(first)
    }

    fn room(&self) -> Room {
        let room = self.inner.room();
        let bytes = room.bytes.min(self.script.state.room.load(Ordering::SeqCst));
        Room { bytes, ..room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::{MemoryJournal, Store};
    use crate::journal::{Record, Until};

    async fn faulty() -> (Faulty, Script, Box<dyn Writer>) {
        let journal = Faulty::new(Arc::new(MemoryJournal::open(&Store::new().unwrap())));
        let (script, writer) = (journal.script(), claim(&journal).await);
        (journal, script, writer)
    }

    async fn claim(journal: &Faulty) -> Box<dyn Writer> {
        journal.claim(Claim::new(1, 1).unwrap()).await.unwrap()
    }

    fn batch() -> Batch {
        Batch {
            events: vec![Record { kind: 1, version: 1, body: Bytes::new() }],
            contents: Vec::new(),
        }
    }

    async fn head(journal: &Faulty) -> u64 {
        journal.read(BatchNo(1), Until::Head).count().await as u64
    }

    #[tokio::test]
    async fn a_full_store_leaves_the_writer_good() {
        let (journal, script, mut writer) = faulty().await;
        script.then(Fault::NotStored(Why::Full));

        let refused = writer.append(batch()).await;

        assert!(matches!(refused, Err(AppendError::NotStored(Why::Full))), "{refused:?}");
        assert_eq!(writer.append(batch()).await.unwrap(), BatchNo(2));
        assert_eq!((head(&journal).await, script.appends(), script.syncs()), (2, 2, 1));
    }

    async fn check_deadly(fault: Fault, stored: u64) {
        let (journal, script, mut writer) = faulty().await;
        script.then(fault.clone());

        let first = writer.append(batch()).await.unwrap_err();
        let second = writer.append(batch()).await.unwrap_err();

        assert_eq!(first.to_string(), second.to_string(), "{fault:?}");
        assert_eq!(head(&journal).await, 1 + stored, "{fault:?}");
        assert_eq!(claim(&journal).await.head(), BatchNo(2 + stored), "{fault:?}");
        assert_eq!(
            (script.appends(), script.syncs(), script.claims()),
            (1, stored, 2),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_told_by_the_next_claim() {
        check_deadly(Fault::UnknownStored, 1).await;
        check_deadly(Fault::UnknownLost, 0).await;
        check_deadly(Fault::Broken, 0).await;
    }

    #[tokio::test]
    async fn a_held_append_is_stored_before_or_after_its_gate() {
        for (is_after, fault) in
            [(false, Fault::HoldBefore as fn(Gate) -> Fault), (true, Fault::HoldAfter)]
        {
            let (journal, script, mut writer) = faulty().await;
            let gate = Gate::new();
            script.then(fault(gate.clone()));
            let test = async {
                gate.arrived().await;
                assert_eq!(head(&journal).await, 1 + u64::from(is_after));
                gate.release();
            };

            let (stored, ()) = tokio::join!(writer.append(batch()), test);

            assert_eq!(stored.unwrap(), BatchNo(2));
        }
    }
}
