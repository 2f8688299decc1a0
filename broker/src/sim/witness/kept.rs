//! One message, by its records.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{
    FailureClass, MessageId, MessageState, MessageType, Priority, Recipient, Sender, WallTime,
};

use super::{Checked, Key, must};
use crate::core::{
    Accepted, Event, Finished, Policy,
    queue::{Hold, Seq},
    session,
};

/// How one lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Settled,
    Lost,
    /// Its message ended without it, or was taken from it.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Ready,
    Waiting,
    Leased,
    /// Between two attempts.
    Closing,
    Held(Hold),
}

/// What a task asked its requester.
#[derive(Debug, Default)]
struct Asked {
    questions: u32,
    is_open: bool,
    /// Inputs that were taken as answers.
    answers: BTreeSet<MessageId>,
    was_suspended: bool,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) seq: Seq,
    pub(super) key: Key,
    /// Whose words it says, and which variant of them.
    pub(super) said: Key,
    pub(super) variant: u8,
    pub(super) number: Option<u64>,
    pub(super) sender: Sender,
    pub(super) to: Recipient,
    pub(super) kind: MessageType,
    pub(super) priority: Priority,
    /// With whom it keeps its order, when its sender named a key.
    pub(super) line: Option<(Recipient, String)>,
    /// When it was accepted and its first deadline, as the receipt says them.
    pub(super) receipt: (WallTime, WallTime),
    expires_at: Option<WallTime>,
    pub(super) deadline: WallTime,
    pub(super) queue: Recipient,
    pub(super) place: Place,
    pub(super) epoch: u32,
    pub(super) generation: u32,
    /// Since when its last lease runs, and how long when it was pulled.
    leased: (WallTime, Option<Duration>),
    pub(super) over: BTreeMap<u32, Over>,
    lost: u32,
    asked: Asked,
    /// It was held before it was ever delivered, so that others might pass.
    pub(super) was_passed: bool,
    /// Receipts that call themselves the first.
    pub(super) firsts: u32,
    pub(super) end: Option<MessageState>,
    /// How its last life ended, whether it has another one or not.
    pub(super) last_end: Option<MessageState>,
}

impl Kept {
    pub(super) fn new(accepted: &Accepted, key: Key, said: Key, variant: u8) -> Self {
        let line = accepted.ordering_key.clone().map(|key| (accepted.to.clone(), key));
        Self {
            seq: accepted.subject.seq,
            key,
            said,
            variant,
            number: accepted.numbered.as_ref().map(|numbered| numbered.number),
            sender: accepted.sender.clone(),
            to: accepted.to.clone(),
            kind: accepted.kind,
            priority: accepted.priority,
            line,
            receipt: (accepted.at, accepted.deadline),
            expires_at: accepted.expires_at,
            deadline: accepted.deadline,
            queue: accepted.to.clone(),
            place: Place::New,
            epoch: 0,
            generation: 1,
            leased: (accepted.at, None),
            over: BTreeMap::new(),
            lost: 0,
            asked: Asked::default(),
            was_passed: false,
            firsts: 0,
            end: None,
            last_end: None,
        }
    }

    pub(super) fn is_task(&self) -> bool {
        self.kind == MessageType::Delegation
    }

    /// One at a time of its key is out (I-11).
    pub(super) fn strict_line(&self) -> Option<&(Recipient, String)> {
        let is_strict = matches!(self.kind, MessageType::Handoff | MessageType::Delegation);
        self.line.as_ref().filter(|_| is_strict)
    }

    pub(super) fn is_leased(&self) -> bool {
        self.place == Place::Leased
    }

    pub(super) fn is_out(&self) -> bool {
        self.end.is_none() && matches!(self.place, Place::Leased | Place::Closing)
    }

    /// When its last lease began, and how long it runs at least.
    pub(super) fn lease(&self, policy: &Policy) -> (WallTime, Duration) {
        (self.leased.0, self.leased.1.unwrap_or(policy.lease))
    }

    pub(super) fn has_answer(&self, input: MessageId) -> bool {
        self.asked.answers.contains(&input)
    }

    pub(super) fn was_suspended(&self) -> bool {
        self.asked.was_suspended
    }

    /// Its last lease ended like this, if it is still out.
    fn lease_is(&mut self, over: Over) {
        if self.is_leased() {
            self.over.insert(self.epoch, over);
            self.place = Place::Closing;
        }
    }

    pub(super) fn apply(&mut self, event: &Event, policy: &Policy) -> Checked {
        let seq = self.seq.0;
        if let Event::Redriven { deadline, generation, .. } = event {
            return self.redriven(*deadline, *generation);
        }
        if let Event::Purged { .. } = event {
            must!(self.end == Some(MessageState::Dead), "I-27", "{seq} is purged, not dead");
            self.end = Some(MessageState::Purged);
            return Ok(());
        }
        let is_new_end = !matches!(event, Event::Finished(_)) || self.end.is_none();
        must!(is_new_end, "I-6", "message {seq} ends again");
        must!(self.end.is_none(), "I-18", "message {seq} has ended, then: {}", brief(event));
        match event {
            Event::Leased { epoch, at, pulled, .. } => {
                must!(!self.is_leased(), "I-13", "message {seq} is leased twice at a time");
                must!(*epoch == self.epoch + 1, "I-13", "lease {epoch} of message {seq}");
                let place = self.place;
                must!(place == Place::Ready, "I-13", "message {seq} is leased while {place:?}");
                must!(*at < self.deadline, "I-22", "message {seq} is leased at its deadline");
                (self.epoch, self.place, self.leased) = (*epoch, Place::Leased, (*at, *pulled));
            }
            Event::LeaseLost { epoch, counts, .. } => {
                self.over.insert(*epoch, Over::Lost);
                self.place = Place::Closing;
                self.lost += u32::from(*counts);
            }
            Event::Finished(finished) => return self.finished(finished, policy.max_lost_leases),
            Event::Routed { queue, wait_until, .. } => {
                let is_parked = self.place == Place::Held(Hold::Parked);
                must!(!is_parked, "I-26", "message {seq} is parked, and comes back");
                self.lease_is(Over::Settled);
                self.queue = queue.clone();
                self.place = if wait_until.is_some() { Place::Waiting } else { Place::Ready };
            }
            Event::Held { queue, hold, .. } => return self.held(queue, *hold),
            Event::Redirected(redirected) if self.place != Place::Closing => {
                self.queue = Recipient::Model(redirected.to.clone());
                self.place = Place::Ready;
            }
            Event::Parked { queue, .. } => {
                self.lease_is(Over::Settled);
                (self.queue, self.place) = (queue.clone(), Place::Held(Hold::Parked));
            }
            Event::TaskAsked { number, .. } => {
                must!(self.is_leased(), "task", "{seq} asks, and nobody works on it");
                let is_next = *number == self.asked.questions + 1 && !self.asked.is_open;
                must!(is_next, "task", "{seq} asks question {number} after {:?}", self.asked);
                self.lease_is(Over::Settled);
                (self.asked.questions, self.asked.is_open) = (*number, true);
            }
            Event::TaskAnswered { id, .. } => {
                let is_held = self.place == Place::Held(Hold::InputRequired);
                must!(is_held && self.asked.is_open, "task", "{seq} is answered unasked");
                must!(self.asked.answers.insert(*id), "task", "{seq} takes {id} twice");
                self.asked.is_open = false;
            }
            // Straight out of a lease it was settled; otherwise the lease was over before.
            _ => self.lease_is(Over::Settled),
        }
        Ok(())
    }

    fn held(&mut self, queue: &Recipient, hold: Hold) -> Checked {
        let (seq, is_open) = (self.seq.0, self.asked.is_open);
        must!(hold != Hold::InputRequired || is_open, "task", "{seq} waits, and asked nothing");
        // Whoever works on what is suspended is told that its lease is lost (I-14).
        let over = if matches!(hold, Hold::Suspended | Hold::Paused) {
            Over::Taken
        } else {
            Over::Settled
        };
        self.lease_is(over);
        self.asked.was_suspended |= hold == Hold::Suspended;
        self.was_passed |= self.epoch == 0;
        (self.queue, self.place) = (queue.clone(), Place::Held(hold));
        Ok(())
    }

    /// I-27: the id is kept, the generation rises, and the sender's own expiry still holds.
    fn redriven(&mut self, deadline: WallTime, generation: u32) -> Checked {
        let seq = self.seq.0;
        must!(self.end == Some(MessageState::Dead), "I-27", "{seq} is redriven, not dead");
        let is_next = generation == self.generation + 1;
        must!(is_next, "I-27", "{seq} comes to life {generation} after {}", self.generation);
        let is_due = self.expires_at.is_none_or(|expires_at| deadline <= expires_at);
        must!(is_due, "I-27", "{seq} lives on beyond its expiry");
        (self.end, self.generation, self.deadline) = (None, generation, deadline);
        (self.lost, self.place, self.asked) = (0, Place::New, Asked::default());
        Ok(())
    }

    fn finished(&mut self, finished: &Finished, max_lost: u32) -> Checked {
        let seq = finished.subject.seq.0;
        if self.is_leased() {
            let is_settled = finished.epoch == self.epoch;
            self.over.insert(self.epoch, if is_settled { Over::Settled } else { Over::Taken });
        }
        let class = finished.failure.as_ref().map(|failure| failure.class);
        let wears_out =
            matches!(class, Some(FailureClass::AgentLost | FailureClass::InvalidRequest));
        let is_dead = finished.state == MessageState::Dead;
        must!(wears_out || !is_dead, "I-21", "message {seq} is dead of {class:?}");
        let is_worn_out = finished.state == MessageState::Dead
            && finished.failure.as_ref().is_some_and(|f| f.class == FailureClass::AgentLost);
        let is_enough = !is_worn_out || self.lost >= max_lost;
        must!(is_enough, "I-25", "message {seq} is dead after {} lost leases", self.lost);
        if finished.state == MessageState::Expired {
            let is_due = finished.at >= self.deadline;
            must!(is_due, "I-22", "message {seq} expires before its deadline");
        }
        (self.place, self.end) = (Place::Closing, Some(finished.state));
        self.last_end = self.end;
        Ok(())
    }
}

/// One event on one line, without anything that is random in it.
pub(super) fn brief(event: &Event) -> String {
    match event {
        Event::Accepted(a) => format!("{} accepted for {}", a.subject.seq.0, a.to),
        Event::FannedOut(fanned) => {
            let original = &fanned.original;
            let (seq, copies) = (original.subject.seq.0, fanned.copies.len());
            format!("{seq} accepted for {}, {copies} copies", original.to)
        }
        Event::Routed { subject, queue, wait_until, why, .. } => {
            format!("{} routed to {queue} until {wait_until:?}: {why}", subject.seq.0)
        }
        Event::Held { subject, hold, .. } => format!("{} held: {hold:?}", subject.seq.0),
        Event::Leased { subject, epoch, agent, .. } => {
            format!("{} leased {epoch} to {agent}", subject.seq.0)
        }
        Event::LeaseLost { subject, epoch, why, counts, .. } => {
            format!("{} lease {epoch} lost ({counts}): {why}", subject.seq.0)
        }
        Event::Finished(f) => format!("{} {} by {}", f.subject.seq.0, f.state.as_str(), f.epoch),
        Event::AttemptFailed { subject, attempt, .. } => {
            format!("{} attempt {} failed", subject.seq.0, attempt.number)
        }
        Event::Redriven { subject, generation, .. } => {
            format!("{} redriven, life {generation}", subject.seq.0)
        }
        Event::Purged { subject, .. } => format!("{} purged", subject.seq.0),
        Event::Parked { subject, .. } => format!("{} parked", subject.seq.0),
        Event::TaskAsked { subject, number, .. } => format!("{} asks {number}", subject.seq.0),
        Event::TaskAnswered { subject, .. } => format!("{} answered", subject.seq.0),
        Event::QueuePaused { queue, is_paused, .. } => format!("{queue} paused: {is_paused}"),
        Event::ClockJumped { ahead, .. } => format!("clock jump {ahead:?}"),
        Event::Session(event) => match &**event {
            session::Event::Entries(entries) => {
                format!("{} entries from {} on", entries.rows.len(), entries.first)
            }
            session::Event::Changed { id, change, .. } => format!("{id} {}", change.as_str()),
        },
        other => match other.subject() {
            Some(subject) => format!("{} changed", subject.seq.0),
            None => "something about a model".into(),
        },
    }
}
