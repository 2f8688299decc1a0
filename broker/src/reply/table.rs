//! The table of slots.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use tokio::{sync::mpsc, time::Instant};

use broker_proto::{MessageId, Part, Receipt, Routed, Sender, Terminal};

use super::{Slot, slot::finished};
use crate::core::queue::Seq;

/// The last asker of a consultation has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskerLeft {
    pub seq: Seq,
}

/// How long a closed slot is kept: longer than the projection needs to know the answer.
const KEEP: Duration = Duration::from_secs(30);

/// Every open slot, and those closed a moment ago.
#[derive(Debug, Clone)]
pub struct Slots {
    slots: Arc<DashMap<Seq, Entry>>,
    by_key: Arc<DashMap<(Sender, MessageId), Seq>>,
    /// What agents say of tasks in mailboxes, which nobody listens to: kept while each is worked on, for its suspension.
    /// Begun by the link that delivers it, ended with its lease.
    work: Arc<DashMap<Seq, Arc<Slot>>>,
    left: mpsc::UnboundedSender<AskerLeft>,
    limit: u64,
}

/// Bytes that are kept of a suspended delivery, its first ones: with what frames them they are one content of the journal.
pub const LONGEST_PARTIAL: u64 = 192 * 1024;

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    closed: Option<Instant>,
}

impl Slots {
    /// An empty table whose slots hold at most `limit` bytes, and where it says who has left.
    #[must_use]
    pub fn new(limit: u64) -> (Self, mpsc::UnboundedReceiver<AskerLeft>) {
        // One message for each asker that leaves; the askers are bounded by the streams.
        let (left, gone) = mpsc::unbounded_channel();
        let (slots, by_key, work) = Default::default();
        (Self { slots, by_key, work, left, limit }, gone)
    }

    /// The slot of a message, made when it is not there: after a restart its agent may stream on.
    #[must_use]
    pub fn open(&self, seq: Seq, sender: &Sender, id: MessageId) -> Arc<Slot> {
        let entry = self.slots.entry(seq).or_insert_with(|| {
            let slot = Slot::new(seq, id, self.limit, self.left.clone());
            Entry { slot: Arc::new(slot), closed: None }
        });
        let slot = Arc::clone(&entry.slot);
        drop(entry);
        self.by_key.insert((sender.clone(), id), seq);
        slot
    }

    /// The slot of a consultation that has just been accepted, or begins another life: never one that was closed.
    #[must_use]
    pub fn begin(&self, seq: Seq, sender: &Sender, id: MessageId) -> Arc<Slot> {
        self.slots.remove_if(&seq, |_, entry| entry.closed.is_some());
        self.open(seq, sender, id)
    }

    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<Arc<Slot>> {
        self.slots.get(&seq).map(|entry| Arc::clone(&entry.slot))
    }

    #[must_use]
    pub fn find(&self, sender: &Sender, id: MessageId) -> Option<Arc<Slot>> {
        let seq = *self.by_key.get(&(sender.clone(), id))?;
        self.get(seq)
    }

    /// The consultation ended.
    pub fn close(&self, seq: Seq, sender: &Sender, id: MessageId, terminal: Terminal) {
        self.open(seq, sender, id).close(terminal);
        if let Some(mut entry) = self.slots.get_mut(&seq) {
            entry.closed = Some(Instant::now());
        }
    }

    /// A task in a mailbox is worked on from now on.
    pub fn begin_work(&self, seq: Seq, id: MessageId, epoch: u32) {
        let slot = Slot::new(seq, id, LONGEST_PARTIAL, self.left.clone());
        slot.begin_work(epoch);
        self.work.insert(seq, Arc::new(slot));
    }

    /// What was said so far of a task in a mailbox.
    #[must_use]
    pub fn work(&self, seq: Seq) -> Option<Arc<Slot>> {
        self.work.get(&seq).map(|entry| Arc::clone(&entry))
    }

    /// The lease on a task in a mailbox is over.
    pub fn end_work(&self, seq: Seq, epoch: u32) {
        self.work.remove_if(&seq, |_, slot| slot.is_of(epoch));
    }

    /// The consultations somebody listens to.
    #[must_use]
    pub fn attended(&self) -> Vec<Seq> {
        self.slots
            .iter()
            .filter(|entry| entry.slot.has_askers())
            .map(|entry| *entry.key())
            .collect()
    }

    /// Lets go of slots that were closed long enough ago. Safe to repeat.
    pub fn sweep(&self) {
        self.slots.retain(|_, entry| entry.closed.is_none_or(|at| at.elapsed() < KEEP));
        self.by_key.retain(|_, seq| self.slots.contains_key(seq));
    }

    /// A slot for an answer read from the store.
    #[must_use]
    pub fn finished(
        id: MessageId,
        receipt: Receipt,
        routed: Option<Routed>,
        parts: &[Part],
        terminal: Terminal,
    ) -> Arc<Slot> {
        finished(id, receipt, routed, parts, terminal)
    }
}
