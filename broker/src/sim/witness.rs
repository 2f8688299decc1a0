//! What was seen from outside, and what must be true of it whatever happened inside.
//!
//! The witness reads frames from the store itself and hears every answer and every delivery. It never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{FailureClass, MessageState, Priority, Receipt, Recipient, WallTime};

use crate::{
    core::{Accepted, Delivered, Event, Finished, agent::LinkId, queue::Seq},
    journal::{Frame, record},
};

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
            return Err(Violation { rule: $rule, what: format!($($what)*) });
        }
    };
}
pub(super) use must;

/// A message as its sender counts it: who sent it, under which number.
pub(super) type Key = (&'static str, u128);

/// How one lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Settled,
    Lost,
    /// Its message ended without it.
    Taken,
}

/// First deliveries of one of these follow the sequence (I-10).
type Lane = (String, String, Priority);

/// One message, by its records.
#[derive(Debug)]
struct Kept {
    key: Key,
    /// Which of the texts offered under its key it holds.
    variant: u8,
    lane: Option<Lane>,
    accepted_at: WallTime,
    deadline: WallTime,
    epoch: u32,
    is_leased: bool,
    over: BTreeMap<u32, Over>,
    lost: u32,
    end: Option<MessageState>,
}

/// What callers know of one message.
#[derive(Debug, Default)]
struct Offers {
    in_flight: u32,
    unknown: u32,
    firsts: u32,
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

#[derive(Debug, Default)]
pub(super) struct Witness {
    kept: BTreeMap<Seq, Kept>,
    by_key: BTreeMap<Key, Seq>,
    newest: WallTime,
    last: Seq,
    firsts: BTreeMap<Lane, Seq>,
    offers: BTreeMap<Key, Offers>,
    granted: BTreeMap<LinkId, (u64, u64)>,
    given: BTreeMap<LinkId, (u64, u64)>,
    /// Settlements that were answered with OK.
    settled: BTreeSet<(Seq, u32)>,
    max_lost: u32,
}

impl Witness {
    pub(super) fn new(max_lost: u32) -> Self {
        Self { max_lost, ..Self::default() }
    }

    /// A frame that is durable now; `find` tells whose message a stored body is.
    pub(super) fn stored(
        &mut self,
        frame: &Frame,
        find: impl Fn(&Accepted) -> Option<(Key, u8)>,
        trace: &mut Vec<String>,
    ) -> Checked {
        for stored in &frame.records {
            let Ok(Some(event)) = record::decode(stored) else { continue };
            trace.push(format!("      stored {}: {}", frame.number, brief(&event)));
            self.event(&event, &find)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, find: &impl Fn(&Accepted) -> Option<(Key, u8)>) -> Checked {
        if let Event::Accepted(accepted) = event {
            return self.accepted(accepted, find);
        }
        let Some(subject) = event.subject() else { return Ok(()) };
        let Some(kept) = self.kept.get_mut(&subject.seq) else {
            return Err(Violation { rule: "I-3", what: format!("{subject:?} was never accepted") });
        };
        let seq = subject.seq.0;
        let is_new_end = !matches!(event, Event::Finished(_)) || kept.end.is_none();
        must!(is_new_end, "I-6", "message {seq} ends again");
        must!(kept.end.is_none(), "I-18", "message {seq} has ended, then: {}", brief(event));
        match event {
            Event::Leased { epoch, at, .. } => {
                must!(!kept.is_leased, "I-13", "message {seq} is leased twice at a time");
                must!(*epoch == kept.epoch + 1, "I-13", "lease {epoch} of message {seq}");
                must!(*at < kept.deadline, "I-22", "message {seq} is leased at its deadline");
                must!(*at >= self.newest, "I-23", "broker time went back to {at:?}");
                self.newest = *at;
                (kept.epoch, kept.is_leased) = (*epoch, true);
                if let Some(lane) = kept.lane.clone().filter(|_| *epoch == 1) {
                    let before = self.firsts.insert(lane, subject.seq);
                    let is_next = before.is_none_or(|before| before < subject.seq);
                    must!(is_next, "I-10", "message {seq} comes after {before:?}");
                }
            }
            Event::LeaseLost { epoch, counts, .. } => {
                kept.over.insert(*epoch, Over::Lost);
                kept.is_leased = false;
                kept.lost += u32::from(*counts);
            }
            Event::Finished(finished) => return kept.finished(finished, self.max_lost),
            // Straight out of a lease it was settled; otherwise the lease was over before.
            _ if kept.is_leased => {
                kept.over.insert(kept.epoch, Over::Settled);
                kept.is_leased = false;
            }
            _ => {}
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        accepted: &Accepted,
        find: &impl Fn(&Accepted) -> Option<(Key, u8)>,
    ) -> Checked {
        let seq = accepted.subject.seq;
        must!(seq > self.last, "I-9", "{seq:?} comes after {:?}", self.last);
        self.last = seq;
        must!(accepted.at >= self.newest, "I-23", "broker time went back to {:?}", accepted.at);
        self.newest = accepted.at;
        let Some((key, variant)) = find(accepted) else {
            return Err(Violation { rule: "I-5", what: format!("the body of {seq:?} is lost") });
        };
        let before = self.by_key.insert(key, seq);
        must!(before.is_none(), "I-7", "{key:?} is stored twice, as {before:?} and {seq:?}");
        let offers = self.offers.entry(key).or_default();
        let may_be = offers.in_flight + offers.unknown > 0;
        must!(may_be, "I-2", "{key:?} is stored, but was refused");
        // A question moves from queue to queue, and its place in the chain decides.
        let lane = matches!(accepted.to, Recipient::Agent(_)).then(|| {
            let of_session = || format!("{}/{:?}", accepted.sender, accepted.session);
            let own = accepted.ordering_key.clone().unwrap_or_else(of_session);
            (accepted.to.to_string(), own, accepted.priority)
        });
        let kept = Kept {
            key,
            variant,
            lane,
            accepted_at: accepted.at,
            deadline: accepted.deadline,
            epoch: 0,
            is_leased: false,
            over: BTreeMap::new(),
            lost: 0,
            end: None,
        };
        self.kept.insert(seq, kept);
        Ok(())
    }

    pub(super) fn offered(&mut self, key: Key) {
        self.offers.entry(key).or_default().in_flight += 1;
    }

    /// I-1, I-2, I-7.
    pub(super) fn sent(&mut self, key: Key, variant: u8, answer: &Answer<Receipt>) -> Checked {
        let offers = self.offers.entry(key).or_default();
        offers.in_flight -= 1;
        let kept = self.by_key.get(&key).and_then(|seq| self.kept.get(seq));
        match answer {
            Answer::Unknown => offers.unknown += 1,
            Answer::Refused(why) if why == "IdReused" => {
                let is_other = kept.is_some_and(|kept| kept.variant != variant);
                must!(is_other, "I-7", "{key:?} is refused as used before");
                offers.is_refused = true;
            }
            Answer::Refused(why) => {
                let is_passing = ["QueueFull", "StoreFull", "StoreUnavailable"];
                offers.is_refused |= !is_passing.contains(&why.as_str());
            }
            Answer::Ok(receipt) => {
                let Some(kept) = kept else {
                    return Err(Violation { rule: "I-1", what: format!("{key:?} is not stored") });
                };
                must!(kept.variant == variant, "I-7", "{key:?} is another message");
                let said = (receipt.accepted_at, receipt.deadline);
                let is_same = said == (kept.accepted_at, kept.deadline);
                must!(is_same, "I-7", "{key:?} got a receipt that is not its first");
                offers.accepted += 1;
                offers.firsts += u32::from(!receipt.is_duplicate);
                must!(offers.firsts <= 1, "I-7", "{key:?} was accepted twice");
            }
        }
        Ok(())
    }

    pub(super) fn granted(&mut self, link: LinkId, messages: u64, bytes: u64) {
        let granted = self.granted.entry(link).or_default();
        granted.0 += messages;
        granted.1 += bytes;
    }

    /// I-13, I-18, I-29.
    pub(super) fn delivered(&mut self, delivered: &Delivered) -> Checked {
        let Delivered { link, seq, epoch, .. } = *delivered;
        let is_stored = self.kept.get(&seq).is_some_and(|kept| kept.epoch >= epoch);
        must!(is_stored, "I-13", "lease {epoch} of {seq:?} is given out before it is stored");
        let given = self.given.entry(link).or_default();
        given.0 += 1;
        given.1 += delivered.body.size_bytes;
        let granted = self.granted.get(&link).copied().unwrap_or_default();
        let is_covered = given.0 <= granted.0 && given.1 <= granted.1;
        must!(is_covered, "I-29", "{link:?} was given {given:?} of {granted:?}");
        Ok(())
    }

    /// I-14, I-18, I-19.
    ///
    /// `again`: the same settlement had been answered with OK before this one was sent.
    pub(super) fn settled(
        &mut self,
        seq: Seq,
        epoch: u32,
        again: bool,
        answer: &Answer<()>,
    ) -> Checked {
        let Some(kept) = self.kept.get(&seq) else { return Ok(()) };
        let over = kept.over.get(&epoch);
        match answer {
            Answer::Ok(()) => {
                let is_settled = over == Some(&Over::Settled);
                let is_leased = kept.is_leased && kept.epoch == epoch;
                must!(!is_leased, "I-18", "{seq:?} is settled by {epoch}, but not in the store");
                must!(is_settled, "I-14", "{seq:?} is settled by {epoch}, which is {over:?}");
                self.settled.insert((seq, epoch));
            }
            Answer::Refused(why) if why == "LeaseLost" => {
                let is_newest = epoch == kept.epoch;
                must!(
                    !(again && is_newest),
                    "I-19",
                    "{seq:?} was settled by {epoch}, and is refused now"
                );
            }
            Answer::Refused(_) | Answer::Unknown => {}
        }
        Ok(())
    }

    pub(super) fn was_settled(&self, seq: Seq, epoch: u32) -> bool {
        self.settled.contains(&(seq, epoch))
    }

    /// I-20, I-35: what a stream ends with is what is stored.
    pub(super) fn closed(&self, seq: Seq, state: MessageState) -> Checked {
        let stored = self.kept.get(&seq).and_then(|kept| kept.end);
        // A dead message failed, in the eyes of its asker.
        let stored =
            stored.map(|end| if end == MessageState::Dead { MessageState::Failed } else { end });
        must!(stored == Some(state), "I-20", "{seq:?} is closed as {state:?}, stored {stored:?}");
        Ok(())
    }

    /// Calls whose outcome nobody knows.
    pub(super) fn unknown(&self) -> impl Iterator<Item = Key> {
        let open = |(key, offers): (&Key, &Offers)| {
            (offers.unknown > 0 && offers.accepted == 0 && !offers.is_refused).then_some(*key)
        };
        self.offers.iter().filter_map(open)
    }

    /// Messages that have not ended.
    pub(super) fn living(&self) -> impl Iterator<Item = Seq> {
        self.kept.iter().filter(|(_, kept)| kept.end.is_none()).map(|(seq, _)| *seq)
    }

    /// How many messages ended in each state, and how every one did.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Key, Option<MessageState>)> {
        self.kept.values().map(|kept| (kept.key, kept.end))
    }

    /// I-1, I-6: whoever got OK has a message, and each of them one end.
    pub(super) fn at_rest(&self) -> Checked {
        for (key, offers) in &self.offers {
            let kept = self.by_key.get(key).and_then(|seq| self.kept.get(seq));
            must!(offers.accepted == 0 || kept.is_some(), "I-1", "{key:?} is lost");
        }
        for (seq, kept) in &self.kept {
            must!(kept.end.is_some(), "I-6", "{seq:?} {:?} never ends", kept.key);
        }
        Ok(())
    }
}

impl Kept {
    fn finished(&mut self, finished: &Finished, max_lost: u32) -> Checked {
        let seq = finished.subject.seq.0;
        if self.is_leased {
            let is_settled = finished.epoch == self.epoch;
            self.over.insert(self.epoch, if is_settled { Over::Settled } else { Over::Taken });
        }
        let is_worn_out = finished.state == MessageState::Dead
            && finished.failure.as_ref().is_some_and(|f| f.class == FailureClass::AgentLost);
        let is_enough = !is_worn_out || self.lost >= max_lost;
        must!(is_enough, "I-25", "message {seq} is dead after {} lost leases", self.lost);
        if finished.state == MessageState::Expired {
            let is_due = finished.at >= self.deadline;
            must!(is_due, "I-22", "message {seq} expires before its deadline");
        }
        (self.is_leased, self.end) = (false, Some(finished.state));
        Ok(())
    }
}

/// One event on one line, without anything that is random in it.
fn brief(event: &Event) -> String {
    match event {
        Event::Accepted(a) => format!("{} accepted for {}", a.subject.seq.0, a.to),
        Event::Routed { subject, queue, wait_until, why, .. } => {
            format!("{} routed to {queue} until {wait_until:?}: {why}", subject.seq.0)
        }
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
        other => match other.subject() {
            Some(subject) => format!("{} changed", subject.seq.0),
            None => "something about a model".into(),
        },
    }
}
