//! Dead letters: how a message gets there, waits for room there, and leaves again.

use broker_proto::{Failure, MessageId, MessageState, Recipient, Sender};

use super::Run;
use crate::core::{
    Effect, Event, Refusal, Reply,
    command::{Handled, Letters, Skipped, Which},
    queue::{Body, Message, Seq},
};

/// Dead letters that one command may handle, so that a batch stays small; whoever asked goes on behind them.
const LETTER_STEPS: usize = 64;

impl Run<'_> {
    /// Into its recipient's dead letters, or parked in its queue until they have room (I-25, I-26).
    pub(super) fn bury(&mut self, seq: Seq, failure: Failure, reply: Option<Body>) {
        let Some(message) = self.state.queue.get(seq) else { return };
        if self.has_grave(&message.to, message.body.size_bytes) {
            self.end(seq, MessageState::Dead, Some(failure), reply);
            return;
        }
        let (subject, queue, left) =
            (message.subject(), Recipient::clone(&message.to), message.model().cloned());
        let (at, failure) = (self.now.wall, Box::new(failure));
        self.event(Event::Parked { subject, at, queue, failure, reply });
        if let Some(model) = left {
            self.end_probe(&model, seq);
        }
    }

    /// Whether a recipient's dead letters take one more. One that is larger than all of them may be alone there.
    fn has_grave(&self, recipient: &Recipient, size_bytes: u64) -> bool {
        let policy = &self.state.policy;
        let (letters, bytes) = self.state.queue.dead().load(recipient);
        letters == 0
            || (letters < policy.dead_letters
                && bytes.saturating_add(size_bytes) <= policy.dead_letter_bytes)
    }

    /// What was parked comes into the dead letters as far as they have room.
    pub(super) fn unpark(&mut self, recipient: &Recipient) {
        while let Some(seq) = self.state.queue.dead().first_parked(recipient) {
            let Some(message) = self.state.queue.get(seq) else { return };
            let Some((failure, reply)) = message.parked().cloned() else { return };
            if !self.has_grave(recipient, message.body.size_bytes) {
                return;
            }
            self.end(seq, MessageState::Dead, Some(failure), reply);
        }
    }

    /// Each gets a new life in the queue it came from (I-27).
    pub(super) fn redrive(&mut self, letters: &Letters) -> Result<Reply, Refusal> {
        self.each_letter(letters, |run, seq| {
            run.may_redrive(seq)?;
            if !letters.is_dry_run {
                run.revive(seq);
            }
            Ok(())
        })
    }

    /// Ended for good; their ids stay known.
    pub(super) fn purge(&mut self, letters: &Letters) -> Result<Reply, Refusal> {
        self.each_letter(letters, |run, seq| {
            let subject = run.state.queue.dead().get(seq).map(Message::subject);
            if let Some(subject) = subject.filter(|_| !letters.is_dry_run) {
                run.event(Event::Purged { subject, at: run.now.wall });
            }
            Ok(())
        })
    }

    fn each_letter(
        &mut self,
        letters: &Letters,
        act: impl Fn(&mut Self, Seq) -> Result<(), Refusal>,
    ) -> Result<Reply, Refusal> {
        let (chosen, next) = self.chosen(letters)?;
        let mut handled = Handled { next, ..Handled::default() };
        let mut recipients = Vec::new();
        for seq in chosen {
            let Some(letter) = self.state.queue.dead().get(seq) else { continue };
            let (sender, id, to) =
                (Sender::clone(&letter.sender), letter.id, Recipient::clone(&letter.to));
            match act(self, seq) {
                Ok(()) => handled.done += 1,
                Err(refusal) => handled.skipped.push(Skipped { sender, id, refusal }),
            }
            if !recipients.contains(&to) {
                recipients.push(to);
            }
        }
        for recipient in recipients {
            self.unpark(&recipient);
        }
        Ok(Reply::Handled(handled))
    }

    /// The dead letters a command is about, and where the next command goes on.
    fn chosen(&self, letters: &Letters) -> Result<(Vec<Seq>, Option<Seq>), Refusal> {
        let of = match &letters.which {
            Which::Named(names) => {
                let named = names.iter().map(|(sender, id)| self.letter(sender, *id));
                return Ok((named.collect::<Result<_, _>>()?, None));
            }
            Which::To(recipient) => Some(recipient),
            Which::All => None,
        };
        let chosen = self.state.queue.dead().behind(letters.after, of, LETTER_STEPS);
        let next = chosen.last().copied().filter(|_| chosen.len() == LETTER_STEPS);
        Ok((chosen, next))
    }

    fn letter(&self, sender: &Sender, id: MessageId) -> Result<Seq, Refusal> {
        let seq = self.state.queue.seq_of(sender, id);
        seq.filter(|seq| self.state.queue.dead().get(*seq).is_some()).ok_or(Refusal::NotDead(id))
    }

    fn may_redrive(&self, seq: Seq) -> Result<(), Refusal> {
        let Some(letter) = self.state.queue.dead().get(seq) else { return Ok(()) };
        if letter.next_deadline(self.now.wall) <= self.now.wall {
            return Err(Refusal::AlreadyExpired);
        }
        self.room(&letter.to, letter.body.size_bytes, false)
    }

    fn revive(&mut self, seq: Seq) {
        let Some(letter) = self.state.queue.dead().get(seq) else { return };
        let (subject, generation) = (letter.subject(), letter.generation() + 1);
        let deadline = letter.next_deadline(self.now.wall);
        let (sender, is_consultation) =
            (Sender::clone(&letter.sender), letter.consultation.is_some());
        let receipt = self.state.queue.known(&sender, subject.id).map(|(_, receipt)| receipt);
        self.event(Event::Redriven { subject, at: self.now.wall, deadline, generation });
        if let Some(receipt) = receipt.filter(|_| is_consultation) {
            self.effect(Effect::Opened { seq, id: subject.id, sender, receipt });
        }
        self.begin(seq, "redriven");
    }
}
