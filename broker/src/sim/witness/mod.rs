//! What was seen from outside, and what must be true of it whatever happened inside.
//!
//! The witness reads frames from the store itself and hears every answer and every delivery. It never asks the core.

mod answers;
mod clock;
mod kept;
mod moves;
mod purse;
mod talks;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use broker_proto::{MessageId, MessageState, Receipt, Recipient, WallTime};

use super::{broker::Machine, step::Act};
use crate::{
    core::{Accepted, Event, Policy, agent::LinkId, handoff, queue::Seq},
    journal::{Frame, record},
};
use clock::Clocks;
use kept::{Kept, brief};
use moves::Moves;
use purse::Purse;
use talks::Talks;
use turns::Turns;

/// A broken promise.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    /// The invariant by its number in the contract.
    pub(super) rule: &'static str,
    pub(super) what: String,
}

pub(super) type Checked = Result<(), Violation>;

/// Fails with this rule unless the condition holds.
macro_rules! must {
    ($condition:expr, $rule:expr, $($what:tt)*) => {
        if !$condition {
            return Err($crate::sim::witness::Violation { rule: $rule, what: format!($($what)*) });
        }
    };
}
pub(super) use must;

/// A message as its sender counts it: who sent it, under which number.
pub(super) type Key = (&'static str, u128);

/// One call that offers a message.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub(super) key: Key,
    /// Whose words it says, and which variant of them.
    pub(super) said: Key,
    pub(super) variant: u8,
    pub(super) number: Option<u64>,
}

/// What callers know of one message.
#[derive(Debug, Default)]
struct Offers {
    in_flight: u32,
    unknown: u32,
    accepted: u32,
    /// Refused in a way that another try will not change.
    is_refused: bool,
}

/// How a call ended, as I-2 sorts it.
#[derive(Debug)]
pub(super) enum Answer<T> {
    Ok(T),
    /// Surely not stored, and why.
    Refused(String),
    Unknown,
}

impl<T> Answer<T> {
    pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Ok(value) => Answer::Ok(with(value)),
            Self::Refused(why) => Answer::Refused(why),
            Self::Unknown => Answer::Unknown,
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }

    pub(super) fn brief(&self) -> String {
        match self {
            Self::Ok(_) => "OK".into(),
            Self::Refused(why) => why.clone(),
            Self::Unknown => "unknown".into(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Witness {
    policy: Policy,
    clocks: Clocks,
    turns: Turns,
    purse: Purse,
    pub(super) talks: Talks,
    pub(super) moves: Moves,
    /// Messages that call a provider when they are leased.
    callers: BTreeSet<Seq>,
    kept: BTreeMap<Seq, Kept>,
    by_key: BTreeMap<Key, Seq>,
    /// By the sender's own number (I-8), and the highest of each sender.
    by_number: BTreeMap<(&'static str, u64), Seq>,
    highest: BTreeMap<&'static str, u64>,
    newest: WallTime,
    last: Seq,
    offers: BTreeMap<Key, Offers>,
    /// Whose words a message under this key says.
    said: BTreeMap<Key, Key>,
    granted: BTreeMap<LinkId, (u64, u64)>,
    given: BTreeMap<LinkId, (u64, u64)>,
    /// Settlements that were answered with OK.
    settled: BTreeSet<(Seq, u32)>,
    paused: BTreeSet<Recipient>,
    /// Commands under way that redrive dead letters, and that purge them.
    redrives: u32,
    purges: u32,
}

impl Witness {
    pub(super) fn new(policy: Policy, machine: Arc<Mutex<Machine>>, is_roomy: bool) -> Self {
        let purse = Purse::new(policy.budgets.clone());
        Self {
            policy,
            purse,
            talks: Talks::default(),
            moves: Moves::default(),
            callers: BTreeSet::new(),
            clocks: Clocks::new(machine),
            turns: Turns::new(is_roomy),
            kept: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_number: BTreeMap::new(),
            highest: BTreeMap::new(),
            newest: WallTime::default(),
            last: Seq::default(),
            offers: BTreeMap::new(),
            said: BTreeMap::new(),
            granted: BTreeMap::new(),
            given: BTreeMap::new(),
            settled: BTreeSet::new(),
            paused: BTreeSet::new(),
            redrives: 0,
            purges: 0,
        }
    }

    /// A broker starts on what is stored.
    pub(super) fn started(&mut self) {
        self.clocks.started();
        self.turns_begin_anew();
    }

    /// The state was loaded anew: turns are not stored.
    pub(super) fn turns_begin_anew(&mut self) {
        self.turns.begin_anew();
    }

    pub(super) fn clock_set(&mut self) {
        self.clocks.set();
    }

    pub(super) fn confirmed(&mut self) {
        self.clocks.confirmed();
    }

    pub(super) fn operates(&mut self, act: Act) {
        match act {
            Act::Redrive => self.redrives += 1,
            Act::Purge => self.purges += 1,
            Act::Try => {}
        }
    }

    pub(super) fn operated(&mut self, act: Act) {
        match act {
            Act::Redrive => self.redrives -= 1,
            Act::Purge => self.purges -= 1,
            Act::Try => {}
        }
    }

    /// A frame that is durable now; `find` tells whose words a stored body holds.
    pub(super) fn stored(
        &mut self,
        frame: &Frame,
        find: impl Fn(&Accepted) -> Option<(Key, u8)>,
        trace: &mut Vec<String>,
    ) -> Checked {
        for stored in &frame.records {
            let Ok(Some(event)) = record::decode(stored) else { continue };
            trace.push(format!("      stored {}: {}", frame.number, brief(&event)));
            let mut checked = Ok(());
            if let Event::FannedOut(fanned) = &event {
                self.fanned_out(fanned)?;
            }
            event.each(|event| {
                if checked.is_ok() {
                    checked = self.event(event, &find);
                }
            });
            checked?;
        }
        self.moves.frame_ends()?;
        self.reservations_are_leases()
    }

    /// What is leased to a model holds what it may use at most, and nothing else does.
    fn reservations_are_leases(&self) -> Checked {
        if !self.purse.has_budgets() {
            return Ok(());
        }
        let is_leased = |seq: &&Seq| self.kept.get(seq).is_some_and(Kept::is_leased);
        self.purse.is_held_by(&self.callers.iter().filter(is_leased).copied().collect())
    }

    fn event(&mut self, event: &Event, find: &impl Fn(&Accepted) -> Option<(Key, u8)>) -> Checked {
        match event {
            Event::Accepted(accepted) => {
                if accepted.consultation.is_some() {
                    self.callers.insert(accepted.subject.seq);
                }
                return self.accepted(accepted, find);
            }
            Event::Usage(event) => return self.purse.event(event),
            Event::Session(event) => {
                self.moves.session(event)?;
                return self.talks.event(event);
            }
            Event::Handoff(event) => {
                if let handoff::Event::Changed { handoff, .. } = event.as_ref() {
                    return self.moves.handoff(handoff);
                }
            }
            Event::QueuePaused { queue, is_paused: true, .. } => {
                self.paused.insert(queue.clone());
            }
            Event::QueuePaused { queue, is_paused: false, .. } => {
                self.paused.remove(queue);
            }
            _ => {}
        }
        let Some(subject) = event.subject() else { return Ok(()) };
        let seq = subject.seq;
        must!(self.kept.contains_key(&seq), "I-3", "{subject:?} was never accepted");
        match event {
            Event::Leased { at, agent, .. } => {
                self.clocks.is_read(*at)?;
                must!(*at >= self.newest, "I-23", "broker time went back to {at:?}");
                self.newest = *at;
                self.may_be_leased(seq, agent, *at)?;
            }
            Event::LeaseLost { at, why, .. } if why.contains("without a heartbeat") => {
                let (since, length) = self.kept[&seq].lease(&self.policy);
                self.clocks.lease_ended(seq, since, *at, length)?;
            }
            Event::Finished(finished) => {
                self.clocks.is_read(finished.at)?;
                if finished.state == MessageState::Dead {
                    self.has_grave(seq, true)?;
                }
            }
            Event::Parked { .. } => self.has_grave(seq, false)?,
            Event::Redriven { .. } => {
                must!(self.redrives > 0, "I-27", "{seq:?} lives again, and nobody asked for it");
            }
            Event::Purged { .. } => {
                must!(self.purges > 0, "I-27", "{seq:?} is purged, and nobody asked for it");
            }
            _ => {}
        }
        let Some(kept) = self.kept.get_mut(&seq) else { return Ok(()) };
        kept.apply(event, &self.policy)
    }

    /// I-26: dead letters are as many as may be, and nothing is parked while they have room.
    fn has_grave(&self, seq: Seq, wants_one: bool) -> Checked {
        let to = &self.kept[&seq].to;
        let is_dead = |kept: &&Kept| kept.end == Some(MessageState::Dead) && kept.to == *to;
        let letters = self.kept.values().filter(is_dead).count() as u64;
        let has_room = letters == 0 || letters < self.policy.dead_letters;
        must!(has_room == wants_one, "I-26", "{seq:?} comes to {letters} dead letters of {to}");
        Ok(())
    }

    /// Messages that have not ended.
    pub(super) fn living(&self) -> impl Iterator<Item = Seq> {
        self.kept.iter().filter(|(_, kept)| kept.end.is_none()).map(|(seq, _)| *seq)
    }

    /// Every task, whether it has ended or not.
    pub(super) fn tasks(&self) -> impl Iterator<Item = Seq> {
        self.kept.iter().filter(|(_, kept)| kept.is_task()).map(|(seq, _)| *seq)
    }

    pub(super) fn dead(&self) -> impl Iterator<Item = (Key, Recipient)> {
        let dead = self.kept.values().filter(|kept| kept.end == Some(MessageState::Dead));
        dead.map(|kept| (kept.key, kept.to.clone()))
    }

    /// To whom every message was sent, and how it ended.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Key, &Recipient, Option<MessageState>)> {
        self.kept.values().map(|kept| (kept.key, &kept.to, kept.end))
    }

    /// I-6: each message has come to one end.
    pub(super) fn at_rest(&self) -> Checked {
        for (seq, kept) in &self.kept {
            must!(kept.end.is_some(), "I-6", "{seq:?} {:?} never ends", kept.key);
        }
        self.moves.at_rest()
    }

    /// What an OK stands for: the message that was stored under the id in the receipt.
    fn receipted(&self, sender: &'static str, receipt: &Receipt) -> Option<Seq> {
        self.by_key.get(&(sender, id(receipt.message_id))).copied()
    }
}

fn id(message: MessageId) -> u128 {
    message.as_u128()
}
