//! What callers were told, beside what is stored.

use broker_proto::{MessageState, Priority, Receipt, Recipient};

use super::{
    Answer, Checked, Key, Try, Violation, Witness, id,
    kept::{Kept, Over},
    must,
};
use crate::{
    core::{
        Accepted, Delivered, FannedOut, TaskStep,
        agent::LinkId,
        queue::{Seq, WINDOW},
    },
    sim::{agent::serves, callers::SENDERS},
};

impl Witness {
    /// A message to all agents of a model says the same to each of them, once.
    pub(super) fn fanned_out(&mut self, fanned: &FannedOut) -> Checked {
        let original = &fanned.original;
        let key = key_of(original);
        let Recipient::AgentsOf(model) = &original.to else { return Ok(()) };
        let mut names: Vec<_> = fanned.copies.iter().map(|copy| &copy.agent).collect();
        names.dedup();
        let is_once = names.len() == fanned.copies.len() && !names.is_empty();
        must!(is_once, "recipient", "the copies of {key:?} are for {names:?}");
        for copy in &fanned.copies {
            let queue = Recipient::Model(model.clone());
            let is_its = serves(&copy.agent, &queue);
            must!(is_its, "recipient", "{} gets a copy of {key:?}", copy.agent);
            let (copy, said) = ((key.0, id(copy.subject.id)), self.said.get(&key).copied());
            self.said.extend(said.map(|said| (copy, said)));
            // Nobody offers it but the broker.
            self.offers.entry(copy).or_default().in_flight += 1;
        }
        Ok(())
    }

    pub(super) fn accepted(
        &mut self,
        accepted: &Accepted,
        find: &impl Fn(&Accepted) -> Option<(Key, u8)>,
    ) -> Checked {
        let seq = accepted.subject.seq;
        must!(seq > self.last, "I-9", "{seq:?} comes after {:?}", self.last);
        self.last = seq;
        self.clocks.is_read(accepted.at)?;
        must!(accepted.at >= self.newest, "I-23", "broker time went back to {:?}", accepted.at);
        self.newest = accepted.at;
        let key = key_of(accepted);
        let found = find(accepted).filter(|(said, _)| self.said.get(&key) == Some(said));
        let Some((said, variant)) = found else {
            return Err(Violation { rule: "I-5", what: format!("the body of {seq:?} is lost") });
        };
        let before = self.by_key.insert(key, seq);
        must!(before.is_none(), "I-7", "{key:?} is stored twice, as {before:?} and {seq:?}");
        let offers = self.offers.entry(key).or_default();
        let may_be = offers.in_flight + offers.unknown > 0;
        must!(may_be, "I-2", "{key:?} is stored, but was refused");
        self.counted(accepted, key.0)?;
        self.has_room(accepted)?;
        self.kept.insert(seq, Kept::new(accepted, key, said, variant));
        Ok(())
    }

    /// I-8: each number once, and none that is too old to tell.
    fn counted(&mut self, accepted: &Accepted, sender: &'static str) -> Checked {
        let Some(number) = accepted.numbered.as_ref().map(|numbered| numbered.number) else {
            return Ok(());
        };
        let (seq, highest) = (accepted.subject.seq, self.highest.entry(sender).or_default());
        let is_young = number + WINDOW > *highest;
        must!(is_young, "I-8", "number {number} is taken although {highest} was");
        *highest = number.max(*highest);
        let before = self.by_number.insert((sender, number), seq);
        must!(before.is_none(), "I-8", "number {number} is {before:?} and {seq:?}");
        Ok(())
    }

    /// I-12, I-28: what is alive in a queue when one more is taken.
    fn has_room(&self, accepted: &Accepted) -> Checked {
        let (seq, cap) = (accepted.subject.seq, self.policy.queue_messages);
        let of_queue = |kept: &&Kept| kept.end.is_none() && kept.queue == accepted.to;
        let alive = self.kept.values().filter(of_queue).count() as u64;
        must!(alive < cap - cap / 10, "I-28", "{seq:?} is taken beside {alive} others");
        let is_urgent =
            |kept: &&Kept| kept.priority == Priority::Urgent && kept.sender == accepted.sender;
        let urgent = self.kept.values().filter(of_queue).filter(is_urgent).count() as u64;
        let may_be = accepted.priority != Priority::Urgent || urgent < (cap / 10).max(1);
        must!(may_be, "I-12", "{seq:?} is urgent beside {urgent} others of its sender");
        Ok(())
    }

    pub(in crate::sim) fn offered(&mut self, it: &Try) {
        self.offers.entry(it.key).or_default().in_flight += 1;
        self.said.insert(it.key, it.said);
    }

    /// I-1, I-2, I-7, I-8.
    pub(in crate::sim) fn sent(&mut self, it: &Try, answer: &Answer<Receipt>) -> Checked {
        let key = it.key;
        let counted = it.number.and_then(|number| self.by_number.get(&(key.0, number)));
        let kept = |seq: &Seq| self.kept.get(seq);
        let (counted, named) = (counted.and_then(kept), self.by_key.get(&key).and_then(kept));
        let is_other = |kept: &Kept| (kept.said, kept.variant) != (it.said, it.variant);
        let highest = self.highest.get(key.0).copied().unwrap_or(0);
        let offers = self.offers.entry(key).or_default();
        offers.in_flight -= 1;
        match answer {
            Answer::Unknown => offers.unknown += 1,
            Answer::Refused(why) if why == "IdReused" => {
                // Under its number it may say what another message says under its id.
                let is_used = named.is_some_and(|kept| is_other(kept) || kept.number != it.number);
                must!(is_used, "I-7", "{key:?} is refused as used before");
                offers.is_refused = true;
            }
            Answer::Refused(why) if why == "NumberReused" => {
                must!(counted.is_some_and(is_other), "I-8", "{it:?} is refused as used before");
                offers.is_refused = true;
            }
            Answer::Refused(why) if why == "SequenceTooOld" => {
                let is_old = it.number.is_some_and(|number| number + WINDOW <= highest);
                must!(is_old, "I-8", "{it:?} is refused as too old, the highest is {highest}");
                offers.is_refused = true;
            }
            Answer::Refused(why) => {
                let is_passing =
                    ["QueueFull", "UrgentShare", "NoRecipient", "StoreFull", "StoreUnavailable"];
                offers.is_refused |= !is_passing.contains(&why.as_str());
            }
            Answer::Ok(receipt) => {
                offers.accepted += 1;
                return self.receipt(it, receipt);
            }
        }
        Ok(())
    }

    fn receipt(&mut self, it: &Try, receipt: &Receipt) -> Checked {
        let key = it.key;
        let seq = self.receipted(key.0, receipt);
        let Some(kept) = seq.and_then(|seq| self.kept.get_mut(&seq)) else {
            return Err(Violation { rule: "I-1", what: format!("{key:?} is not stored") });
        };
        let (is_named, is_counted) = (kept.key == key, it.number.is_some());
        must!(is_named || is_counted, "I-7", "{key:?} got the receipt of {:?}", kept.key);
        must!(kept.number == it.number, "I-8", "{it:?} got the receipt of {:?}", kept.key);
        let is_same = (kept.said, kept.variant) == (it.said, it.variant);
        must!(is_same, "I-7", "{key:?} is another message");
        let said = (receipt.accepted_at, receipt.deadline);
        must!(said == kept.receipt, "I-7", "{key:?} got a receipt that is not its first");
        kept.firsts += u32::from(!receipt.is_duplicate);
        must!(kept.firsts <= 1, "I-7", "{key:?} was accepted twice");
        Ok(())
    }

    pub(in crate::sim) fn granted(&mut self, link: LinkId, messages: u64, bytes: u64) {
        let granted = self.granted.entry(link).or_default();
        granted.0 += messages;
        granted.1 += bytes;
    }

    /// I-13, I-27, I-29.
    pub(in crate::sim) fn delivered(&mut self, delivered: &Delivered) -> Checked {
        let Delivered { link, seq, epoch, generation, .. } = *delivered;
        let kept = self.kept.get(&seq).filter(|kept| kept.epoch >= epoch);
        let Some(kept) = kept else {
            let what = format!("lease {epoch} of {seq:?} is given out before it is stored");
            return Err(Violation { rule: "I-13", what });
        };
        let is_its_life = kept.epoch > epoch || kept.generation == generation;
        must!(is_its_life, "I-27", "{seq:?} is delivered as of life {generation}");
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
    pub(in crate::sim) fn settled(
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
                let is_leased = kept.is_leased() && kept.epoch == epoch;
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

    pub(in crate::sim) fn was_settled(&self, seq: Seq, epoch: u32) -> bool {
        self.settled.contains(&(seq, epoch))
    }

    /// OK to what a person did to a task: it is stored.
    pub(in crate::sim) fn tasked(&self, seq: Seq, step: &TaskStep, answer: &Answer<()>) -> Checked {
        let Some(kept) = self.kept.get(&seq).filter(|_| answer.is_ok()) else { return Ok(()) };
        let is_stored = match step {
            TaskStep::Suspend => kept.was_suspended() || kept.generation > 1,
            TaskStep::Provide { id, .. } => kept.has_answer(*id) || kept.generation > 1,
            TaskStep::Cancel => kept.end == Some(MessageState::Cancelled),
            TaskStep::Resume => true,
        };
        must!(is_stored, "I-1", "{step:?} of {seq:?} is OK and not stored");
        Ok(())
    }

    /// I-20, I-35: what a stream ends with is what is stored.
    pub(in crate::sim) fn closed(&self, seq: Seq, state: MessageState) -> Checked {
        let stored = self.kept.get(&seq).and_then(|kept| kept.last_end);
        // A dead message failed, in the eyes of its asker.
        let stored =
            stored.map(|end| if end == MessageState::Dead { MessageState::Failed } else { end });
        must!(stored == Some(state), "I-20", "{seq:?} is closed as {state:?}, stored {stored:?}");
        Ok(())
    }

    /// Calls whose outcome nobody knows.
    pub(in crate::sim) fn unknown(&self) -> impl Iterator<Item = Key> {
        let open = |(key, offers): (&Key, &super::Offers)| {
            (offers.unknown > 0 && offers.accepted == 0 && !offers.is_refused).then_some(*key)
        };
        self.offers.iter().filter_map(open)
    }
}

fn key_of(accepted: &Accepted) -> Key {
    let sender = SENDERS.into_iter().find(|known| *known == accepted.sender.as_str());
    (sender.unwrap_or("somebody"), id(accepted.subject.id))
}
