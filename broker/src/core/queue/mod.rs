//! Queues: what waits, what is leased, until when, and what is known of what has ended.
//!
//! Invariant: a message is ready, waiting, held, leased or closing; never two of these.
//! Invariant: this module knows neither models nor links, only whose turn it is.

mod body;
mod dead;
mod deadlines;
mod message;
mod producer;
mod ready;
mod seqs;
mod strict;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use broker_proto::{
    Counters, Failure, MessageId, MessageState, Numbered, ProducerName, Receipt, Recipient, Sender,
    WallTime,
};

pub use body::{Body, BodyKey, Keys};
pub use dead::Dead;
use deadlines::Deadlines;
pub(super) use message::Answered;
pub use message::{Consultation, Hold, Lease, Message, Place};
use producer::Producers;
pub use producer::{Counted, WINDOW};
pub use ready::{Line, Load, Ready};
use strict::Strict;
use table::{Keyed, Table};

use super::{
    BootTime, Event, Note, Now,
    planted::{self, Bug},
};

/// A message's number in its namespace: strictly rising, never used again (I-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// BLAKE3 over what the sender said.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// What a message that has ended is still known by.
#[derive(Debug)]
struct Known {
    seq: Seq,
    id: MessageId,
    sender: Arc<Sender>,
    digest: Digest,
    accepted_at: WallTime,
    deadline: WallTime,
    /// The lease that finished it last.
    ended_by: u32,
    numbered: Option<Box<Numbered>>,
}

impl Keyed for Known {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn key(&self) -> (&Sender, MessageId) {
        (&self.sender, self.id)
    }
}

#[derive(Debug, Default)]
pub struct State {
    last_seq: Seq,
    messages: Table<Message>,
    /// Those ended that the projection may not know, and the dead.
    known: Table<Known>,
    /// One of each name, which all messages share.
    senders: BTreeSet<Arc<Sender>>,
    recipients: BTreeSet<Arc<Recipient>>,
    /// Those that may be forgotten, in the order of their ends; the last one's is `finish_no`.
    ended: VecDeque<Seq>,
    finish_no: u64,
    queues: BTreeMap<Recipient, Ready>,
    strict: Strict,
    producers: Producers,
    deadlines: Deadlines,
    leases: BTreeSet<(BootTime, Seq)>,
    /// Leased before the broker's last start, and not heard of since.
    inherited: BTreeSet<Seq>,
    waits: BTreeSet<(BootTime, Seq)>,
    orphans: BTreeSet<(BootTime, Seq)>,
    unserved: BTreeSet<Recipient>,
    dead: Dead,
    /// Queues from which nothing is delivered.
    paused: BTreeSet<Recipient>,
    /// What is asked or given out in the name of a session, and has not ended yet.
    of_session: BTreeMap<Box<str>, BTreeSet<Seq>>,
    /// What was sent to each recipient, and where it stands (I-33).
    counters: BTreeMap<Recipient, Counters>,
}

impl State {
    /// The number the next message gets.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        Seq(self.last_seq.0 + 1)
    }

    /// Numbers up to `seq` are taken, even if their messages are no longer here.
    pub fn skip_to(&mut self, seq: Seq) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// The digest and first receipt of a message that this sender sent before.
    #[must_use]
    pub fn known(&self, sender: &Sender, id: MessageId) -> Option<(Digest, Receipt)> {
        let (digest, accepted_at, deadline) = match self.known.find(sender, id) {
            Some(known) => (known.digest, known.accepted_at, known.deadline),
            None => {
                let message = self.messages.find(sender, id)?;
                (message.digest, message.accepted_at, message.deadline)
            }
        };
        Some((digest, Receipt { message_id: id, is_duplicate: false, accepted_at, deadline }))
    }

    /// What is known here of a bulk sender's number (I-8).
    #[must_use]
    pub fn counted(&self, sender: &Sender, numbered: &Numbered) -> Counted {
        match self.producers.find(sender, numbered) {
            Err(refused) => refused,
            Ok(id) => match id.and_then(|id| self.known(sender, id)) {
                Some((digest, receipt)) => Counted::Before { digest, receipt },
                None => Counted::Unknown,
            },
        }
    }

    /// A producer has come to this number, even if its messages are no longer here.
    pub fn skip_numbers(&mut self, sender: &Sender, producer: &ProducerName, highest: u64) {
        self.producers.skip_to(sender, producer, highest);
    }

    /// The lease that finished this message last, if one did and is still remembered here.
    #[must_use]
    pub fn ended_by(&self, seq: Seq) -> Option<u32> {
        Some(self.known.get(seq)?.ended_by)
    }

    /// How many messages have finished; the shell pairs it with a batch, and says when that batch is projected.
    #[must_use]
    pub fn finish_no(&self) -> u64 {
        self.finish_no
    }

    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&Message> {
        self.messages.get(seq)
    }

    #[must_use]
    pub fn find(&self, sender: &Sender, id: MessageId) -> Option<&Message> {
        self.messages.find(sender, id)
    }

    /// Whether this ready message is to be delivered only after others of its strict key (I-11).
    #[must_use]
    pub fn is_held_back(&self, seq: Seq) -> bool {
        is_held_back(&self.messages, &self.strict, seq)
    }

    /// The number of the newest message of this sender and id that is still remembered here.
    #[must_use]
    pub fn seq_of(&self, sender: &Sender, id: MessageId) -> Option<Seq> {
        let known = || self.known.find(sender, id).map(|known| known.seq);
        self.messages.find(sender, id).map(|message| message.seq).or_else(known)
    }

    #[must_use]
    pub fn dead(&self) -> &Dead {
        &self.dead
    }

    #[must_use]
    pub fn is_paused(&self, queue: &Recipient) -> bool {
        self.paused.contains(queue)
    }

    /// Everything that was ever sent to each recipient, and where it stands.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<Recipient, Counters> {
        &self.counters
    }

    /// Takes over what was counted before a start: of what has ended only the projection knows.
    pub fn restore(&mut self, ended: impl IntoIterator<Item = (Recipient, Counters)>) {
        for (recipient, stored) in ended {
            let counters = self.counters.entry(recipient).or_default();
            let Counters { queued, waiting, leased, dead, .. } = *counters;
            *counters = Counters { queued, waiting, leased, dead, ..stored };
        }
    }

    /// Names of queues that hold something, were sent something, or are paused.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&Recipient> {
        self.queues.keys().chain(self.counters.keys()).chain(&self.paused).collect()
    }

    /// The messages ready in a queue, best first.
    #[must_use]
    pub fn ready(&self, queue: &Recipient) -> Option<&Ready> {
        self.queues.get(queue)
    }

    /// Ready and leased messages of a queue, and the bytes of both.
    #[must_use]
    pub fn load(&self, queue: &Recipient) -> (u64, u64, u64) {
        self.queues
            .get(queue)
            .map_or((0, 0, 0), |ready| (ready.len(), ready.leased(), ready.size_bytes()))
    }

    /// Leased messages in the order of their numbers; for a hello, which is rare.
    #[must_use]
    pub fn leased_by(&self, agent: &broker_proto::AgentName) -> Vec<Seq> {
        let mut leased: Vec<Seq> = self
            .leases
            .iter()
            .filter(|(_, seq)| {
                self.messages.get(*seq).and_then(Message::lease).is_some_and(|l| l.agent == *agent)
            })
            .map(|(_, seq)| *seq)
            .collect();
        leased.sort_unstable();
        leased
    }

    /// The sessions in whose name something is asked or given out, and not ended yet.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.of_session.keys().map(|name| &**name)
    }

    /// What is asked or given out in the name of a session and has not ended, in the order of its numbers.
    pub fn of_session(&self, session: &str) -> impl Iterator<Item = &Message> {
        let seqs = self.of_session.get(session).into_iter().flatten();
        seqs.filter_map(|seq| self.messages.get(*seq))
    }

    /// How many leases are out.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leases.len()
    }

    /// The queues in which something is ready, in their order.
    pub fn waiting_queues(&self) -> impl Iterator<Item = &Recipient> {
        self.queues.iter().filter(|(_, ready)| !ready.is_empty()).map(|(queue, _)| queue)
    }

    /// Whether this lease is older than the broker's last start and its agent has not been heard of since: what
    /// ended it may have been the broker's stop.
    #[must_use]
    pub fn is_inherited(&self, seq: Seq) -> bool {
        self.inherited.contains(&seq)
    }

    /// Every living message, in the order of their numbers; for a restart.
    #[must_use]
    pub fn living(&self) -> Vec<Seq> {
        self.messages.seqs().collect()
    }

    /// The first message whose deadline has come.
    #[must_use]
    pub fn expired(&self, now: Now) -> Option<Seq> {
        let (_, seq) = self.first_deadline().filter(|(at, _)| planted::is_past(*at, now.wall))?;
        Some(seq)
    }

    fn first_deadline(&self) -> Option<(WallTime, Seq)> {
        self.deadlines.first(|seq| self.messages.get(seq).map(|message| message.deadline))
    }

    /// The first lease that has ended.
    #[must_use]
    pub fn lapsed(&self, now: Now) -> Option<Seq> {
        due(&self.leases, now)
    }

    /// The first waiting message whose time has come.
    #[must_use]
    pub fn awake(&self, now: Now) -> Option<Seq> {
        due(&self.waits, now)
    }

    /// The first consultation that nobody came back to.
    #[must_use]
    pub fn abandoned(&self, now: Now) -> Option<Seq> {
        due(&self.orphans, now)
    }

    /// A queue whose delivery was broken off.
    #[must_use]
    pub fn unserved(&self) -> Option<&Recipient> {
        self.unserved.first()
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<BootTime> {
        let first = |set: &BTreeSet<(BootTime, Seq)>| set.first().map(|(at, _)| *at);
        let deadline = self.first_deadline().map(|(at, _)| now.boot_at(at));
        if !self.unserved.is_empty() {
            return Some(now.boot);
        }
        [first(&self.leases), first(&self.waits), first(&self.orphans), deadline]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Accepted(accepted) => self.accept(accepted),
            Event::Routed { subject, at, queue, candidate, wait_until, passed_over, why } => {
                let queue = shared(&mut self.recipients, queue);
                self.place(subject.seq, |message| {
                    // Straight out of a lease: its agent settled it, and may say so again (I-19).
                    if message.lease().is_some() {
                        message.settle_at(*at);
                    }
                    let is_held = matches!(message.place, Place::Held(_));
                    if let Some(consultation) = message.consultation.as_mut().filter(|_| is_held) {
                        consultation.begin_anew();
                        message.tried().ready_at = *at;
                    }
                    message.routed(*candidate, passed_over, why);
                    message.queue = queue;
                    wait_until.map_or(Place::Ready, Place::Waiting)
                });
            }
            Event::Held { subject, at, queue, hold, .. } => {
                let queue = shared(&mut self.recipients, queue);
                self.place(subject.seq, |message| {
                    // Whoever works on what is suspended is told that its lease is lost (I-14).
                    if message.lease().is_some() && !matches!(hold, Hold::Suspended | Hold::Paused) {
                        message.tried().settled = Some(message.epoch);
                    }
                    message.tried().ready_at = *at;
                    message.queue = queue;
                    Place::Held(*hold)
                });
            }
            Event::Leased { subject, at, epoch, agent, instance, pulled } => {
                self.charge(subject.seq);
                self.place(subject.seq, |message| {
                    message.epoch = *epoch;
                    Place::Leased(Box::new(Lease {
                        agent: agent.clone(),
                        instance: instance.clone(),
                        pulled: *pulled,
                        since: *at,
                        ends: BootTime::default(),
                        cap: BootTime::default(),
                    }))
                });
            }
            Event::AttemptFailed { subject, at, attempt, shown } => {
                self.place(subject.seq, |message| {
                    message.attempt_failed(attempt, *shown);
                    // An attempt whose lease was lost settled nothing: its agent is told so if it comes late (I-14).
                    let is_settled = message.lease().is_some();
                    let tried = message.tried();
                    if is_settled {
                        tried.settled = Some(attempt.number);
                    }
                    tried.lost_attempt = None;
                    tried.ready_at = *at;
                    Place::Closing
                });
            }
            Event::LeaseLost { subject, at, counts, .. } => self.place(subject.seq, |message| {
                let attempt = message.lost_at(*at).map(Box::new);
                let tried = message.tried();
                tried.lost = tried.lost.saturating_add(u16::from(*counts));
                tried.lost_attempt = Some((*counts, attempt));
                tried.ready_at = *at;
                Place::Closing
            }),
            Event::DeliveryFailed { subject, at, epoch, .. } => {
                self.place(subject.seq, |message| {
                    let tried = message.tried();
                    tried.settled = Some(*epoch);
                    tried.ready_at = *at;
                    Place::Closing
                });
            }
            Event::Parked { subject, queue, failure, reply, .. } => {
                self.park(subject.seq, queue, failure, reply.as_ref());
            }
            Event::TaskAsked { subject, question, attempt, .. } => {
                self.consultation(subject.seq, |consultation| {
                    consultation.attempts.extend(attempt.as_deref().cloned());
                    consultation.prompt_bytes += question.size_bytes;
                });
            }
            Event::TaskAnswered { subject, answer, has_images, .. } => {
                self.consultation(subject.seq, |consultation| {
                    consultation.prompt_bytes += answer.size_bytes;
                    consultation.needs_vision |= has_images;
                });
            }
            Event::TaskStopped { subject, attempt, .. } => {
                if let Some(message) = self.messages.get_mut(subject.seq) {
                    message.forget_lost_attempt();
                }
                self.consultation(subject.seq, |consultation| {
                    consultation.attempts.extend(attempt.as_deref().cloned());
                });
            }
            Event::Redirected(redirected) => self.redirect(redirected),
            Event::Finished(finished) => self.end(finished),
            Event::Redriven { subject, at, deadline, generation } => {
                self.redrive(subject.seq, *at, *deadline, *generation);
            }
            Event::Purged { subject, .. } => self.purge(subject.seq),
            Event::QueuePaused { queue, is_paused: true, .. } => {
                self.paused.insert(queue.clone());
            }
            Event::QueuePaused { queue, is_paused: false, .. } => {
                self.paused.remove(queue);
            }
            Event::RouteChanged { .. }
            | Event::UsageChanged { .. }
            | Event::TokenChanged { .. }
            | Event::ClockJumped { .. }
            | Event::RoleKnown { .. }
            | Event::TreeChanged { .. }
            | Event::ContentStored { .. }
            | Event::ContentForgotten { .. }
            | Event::Session(_)
            | Event::Package(_)
            | Event::Handoff(_)
            | Event::Bridge(_)
            | Event::Ring(_)
            | Event::Usage(_)
            // Their steps are applied, one by one.
            | Event::SliceMoved(_)
            | Event::FannedOut(_) => {}
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::LeaseRuns { seq, ends, cap } => {
                let Some(message) = self.messages.get_mut(*seq) else { return };
                let Place::Leased(lease) = &mut message.place else { return };
                self.leases.remove(&(lease.ends, *seq));
                if cap.is_none() {
                    self.inherited.remove(seq);
                }
                lease.cap = cap.unwrap_or(lease.cap);
                lease.ends = *ends;
                self.leases.insert((*ends, *seq));
            }
            Note::WaitRuns { seq, due } => {
                let Some(message) = self.messages.get_mut(*seq) else { return };
                self.waits.remove(&(message.due(), *seq));
                message.timers.get_or_insert_default().due = *due;
                self.waits.insert((*due, *seq));
            }
            Note::Orphaned { seq, until } => {
                let Some(message) = self.messages.get_mut(*seq) else { return };
                if let Some(before) = message.orphaned() {
                    self.orphans.remove(&(before, *seq));
                }
                message.timers.get_or_insert_default().orphaned = *until;
                if let Some(until) = until {
                    self.orphans.insert((*until, *seq));
                }
            }
            Note::Unserved { queue, is_due: true } => {
                self.unserved.insert(queue.clone());
            }
            Note::Unserved { queue, is_due: false } => {
                self.unserved.remove(queue);
            }
            Note::TooSmall { seq, window } => {
                let message = self.messages.get_mut(*seq);
                if let Some(consultation) = message.and_then(|m| m.consultation.as_mut()) {
                    consultation.too_small = consultation.too_small.max(*window);
                }
            }
            Note::LostAttempt { seq, attempt, counts } => {
                if let Some(message) = self.messages.get_mut(*seq) {
                    message.tried().lost_attempt = Some((*counts, attempt.clone()));
                }
            }
            Note::Projected { finish_no } => self.forget(*finish_no),
            Note::Started { .. } => {
                self.inherited = self.leases.iter().map(|(_, seq)| *seq).collect();
                self.queues.values_mut().for_each(Ready::forget_turns);
                // Nobody is linked yet; whoever greets is served.
                self.unserved.clear();
            }
            Note::LinkUp { .. }
            | Note::LinkDown { .. }
            | Note::Drain { .. }
            | Note::Credit { .. }
            | Note::Spent { .. }
            | Note::TookTurn { .. }
            | Note::Probing { .. }
            | Note::Sweep { .. }
            | Note::TreeLives { .. }
            | Note::LookAtUsage { .. }
            | Note::LookHome { .. }
            | Note::LookAfter { .. }
            | Note::NotSynced { .. }
            | Note::Warmed { .. }
            | Note::Heard { .. }
            | Note::LookAtCheckpoint { .. }
            | Note::Away { .. }
            | Note::ToldAway { .. }
            | Note::ToldAbsent { .. } => {}
        }
    }

    fn accept(&mut self, accepted: &super::Accepted) {
        let seq = accepted.subject.seq;
        self.skip_to(seq);
        let sender = shared(&mut self.senders, &accepted.sender);
        let to = shared(&mut self.recipients, &accepted.to);
        let mut message = Message::accepted(accepted, sender, to);
        let counters = self.counters.entry(accepted.to.clone()).or_default();
        counters.accepted += 1;
        *counters.of(message.state()) += 1;
        if let Some(numbered) = &accepted.numbered {
            let numbered = self.producers.accept(&accepted.sender, numbered, accepted.subject.id);
            message.timers.get_or_insert_default().numbered = Some(numbered);
        }
        self.deadlines.insert(accepted.deadline, seq);
        self.know_session(&message);
        self.messages.insert(message);
    }

    fn know_session(&mut self, message: &Message) {
        if let Some(session) = message.session() {
            self.of_session.entry(session.into()).or_default().insert(message.seq);
        }
    }

    fn leave_session(&mut self, message: &Message) {
        let Some(session) = message.session() else { return };
        if let Some(seqs) = self.of_session.get_mut(session) {
            seqs.remove(&message.seq);
            if seqs.is_empty() {
                self.of_session.remove(session);
            }
        }
    }

    /// Asked of another model from now on; what runs or is held for something else stays where it is until that ends.
    fn redirect(&mut self, redirected: &super::Redirected) {
        let queue = Recipient::Model(redirected.to.clone());
        let queue = shared(&mut self.recipients, &queue);
        self.place(redirected.subject.seq, |message| {
            if let Some(consultation) = message.consultation.as_deref_mut() {
                consultation.redirect(&redirected.to, &redirected.why);
            }
            match std::mem::replace(&mut message.place, Place::Closing) {
                Place::Ready | Place::Waiting(_) | Place::Held(Hold::Handoff | Hold::Paused) => {
                    message.queue = queue;
                    Place::Ready
                }
                place @ (Place::New | Place::Closing | Place::Leased(_) | Place::Held(_)) => place,
            }
        });
    }

    fn consultation(&mut self, seq: Seq, change: impl FnOnce(&mut message::Consultation)) {
        let message = self.messages.get_mut(seq);
        if let Some(consultation) = message.and_then(|m| m.consultation.as_deref_mut()) {
            change(consultation);
        }
    }

    /// Moves a message to the place `to` gives, and keeps every index in step with it.
    fn place(&mut self, seq: Seq, to: impl FnOnce(&mut Message) -> Place) {
        if self.messages.get(seq).is_none() {
            return;
        }
        self.inherited.remove(&seq);
        self.leave(seq);
        let Some(message) = self.messages.get_mut(seq) else { return };
        let before = message.state();
        message.place = to(message);
        count(&mut self.counters, &message.to, before, message.state());
        self.enter(seq);
        self.judge_line(seq);
    }

    /// Takes a message into the indexes of the place it is in.
    fn enter(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(seq) else { return };
        if let Some(line) = message.strict_line() {
            self.strict.enter(line, message);
        }
        let ready = self.queues.entry(Recipient::clone(&message.queue)).or_default();
        ready.count(message);
        match &message.place {
            Place::Ready => {
                ready.push(message, |seq| is_held_back(&self.messages, &self.strict, seq));
            }
            Place::Leased(lease) => {
                ready.lease();
                self.leases.insert((lease.ends, seq));
            }
            Place::Waiting(_) => {
                self.waits.insert((message.due(), seq));
            }
            Place::New | Place::Closing | Place::Held(_) => {}
        }
    }

    /// Takes a message out of the indexes of the place it is in.
    fn leave(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(seq) else { return };
        if let Some(line) = message.strict_line() {
            self.strict.leave(line, seq);
        }
        // A new message is nowhere yet.
        if matches!(message.place, Place::New) {
            return;
        }
        let Some(ready) = self.queues.get_mut(&*message.queue) else { return };
        ready.discount(message);
        match &message.place {
            Place::Ready => {
                ready.remove(message, |seq| is_held_back(&self.messages, &self.strict, seq));
            }
            Place::Leased(lease) => {
                ready.unlease();
                self.leases.remove(&(lease.ends, seq));
            }
            Place::Waiting(_) => {
                self.waits.remove(&(message.due(), seq));
            }
            Place::Held(Hold::Parked) => self.dead.unpark(&message.to, seq),
            Place::New | Place::Closing | Place::Held(_) => {}
        }
    }

    /// After a message of a strict line came somewhere else: who of its line may be delivered now.
    fn judge_line(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(seq) else { return };
        let Some(line) = message.strict_line() else { return };
        for queue in self.strict.queues(line, &message.to) {
            let Some(ready) = self.queues.get_mut(&queue) else { continue };
            let is_news = ready.settle(line, |seq| is_held_back(&self.messages, &self.strict, seq));
            if !ready.has(line) {
                self.strict.forget_stray(line, &queue);
            }
            if is_news {
                self.unserved.insert(queue);
            }
        }
    }

    /// A delivery counts against its priority's share while the message is still in its lane.
    fn charge(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(seq) else { return };
        if let Some(ready) = self.queues.get_mut(&*message.queue) {
            ready.charge(message.priority);
        }
    }

    fn end(&mut self, finished: &super::Finished) {
        let seq = finished.subject.seq;
        self.inherited.remove(&seq);
        self.leave(seq);
        self.judge_line(seq);
        let Some(mut message) = self.messages.remove(seq) else { return };
        self.leave_session(&message);
        count(&mut self.counters, &message.to, message.state(), finished.state);
        self.deadlines.remove(message.deadline, seq);
        if let Some(until) = message.orphaned() {
            self.orphans.remove(&(until, seq));
        }
        match self.known.get_mut(seq) {
            // One that lived again is still known by its first receipt.
            Some(known) => known.ended_by = finished.epoch,
            None => self.known.insert(message.known(finished.epoch)),
        }
        if finished.state == MessageState::Dead {
            message.die(finished.epoch);
            self.dead.insert(*message);
        } else {
            self.let_go(seq);
        }
    }

    /// It is forgotten here once the projection knows of its end.
    fn let_go(&mut self, seq: Seq) {
        self.finish_no += 1;
        self.ended.push_back(seq);
    }

    fn park(&mut self, seq: Seq, queue: &Recipient, failure: &Failure, reply: Option<&Body>) {
        let queue = shared(&mut self.recipients, queue);
        self.place(seq, |message| {
            let settled = message.lease().map(|_| message.epoch);
            let tried = message.tried();
            tried.settled = settled.or(tried.settled);
            tried.parked = Some(Box::new((failure.clone(), reply.cloned())));
            message.queue = queue;
            Place::Held(Hold::Parked)
        });
        if let Some(message) = self.messages.get(seq) {
            self.dead.park(&message.to, seq);
        }
    }

    fn redrive(&mut self, seq: Seq, at: WallTime, deadline: WallTime, generation: u32) {
        let Some(mut message) = self.dead.remove(seq) else { return };
        message.revive(at, deadline, generation);
        count(&mut self.counters, &message.to, MessageState::Dead, message.state());
        self.deadlines.insert(deadline, seq);
        self.know_session(&message);
        self.messages.insert(message);
    }

    fn purge(&mut self, seq: Seq) {
        let Some(message) = self.dead.remove(seq) else { return };
        count(&mut self.counters, &message.to, MessageState::Dead, MessageState::Purged);
        self.let_go(seq);
    }

    fn forget(&mut self, finish_no: u64) {
        while self.finish_no - (self.ended.len() as u64) < finish_no {
            let Some(seq) = self.ended.pop_front() else { return };
            if let Some(known) = self.known.remove(seq)
                && let Some(numbered) = &known.numbered
            {
                self.producers.forget(&known.sender, numbered);
            }
        }
    }
}

/// The one copy of this name that all messages share.
fn shared<T: Clone + Ord>(names: &mut BTreeSet<Arc<T>>, name: &T) -> Arc<T> {
    if let Some(name) = names.get(name) {
        return Arc::clone(name);
    }
    let name = Arc::new(name.clone());
    names.insert(Arc::clone(&name));
    name
}

fn is_held_back(messages: &Table<Message>, strict: &Strict, seq: Seq) -> bool {
    let line = messages.get(seq).and_then(Message::strict_line);
    line.is_some_and(|line| strict.holds_back(line, seq)) && !planted::is(Bug::StrictKeyIgnored)
}

/// A message sent to `recipient` stands somewhere else (I-33).
fn count(
    counters: &mut BTreeMap<Recipient, Counters>,
    recipient: &Recipient,
    before: MessageState,
    after: MessageState,
) {
    let Some(counters) = counters.get_mut(recipient) else { return };
    let left = counters.of(before);
    *left = left.saturating_sub(1);
    *counters.of(after) += 1;
}

fn due(set: &BTreeSet<(BootTime, Seq)>, now: Now) -> Option<Seq> {
    set.first().filter(|(at, _)| *at <= now.boot).map(|(_, seq)| *seq)
}
