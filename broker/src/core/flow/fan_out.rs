//! A message to all agents of a model: one copy each, all in one commit.

use broker_proto::{AgentName, MessageId, ModelName, Receipt, Recipient, WallTime};

use super::Run;
use crate::core::{
    Copied, Event, FannedOut, NewMessage, Note, Refusal, Reply, Subject, queue::Seq,
};

/// Copies of one message at most.
const MAX_COPIES: usize = 256;
/// Mailboxes served in the decision itself, so that a batch stays small; the next ticks come at once.
const SERVED: usize = 32;

impl Run<'_> {
    /// Puts a copy into the mailbox of every agent that serves the model now, and ends the original (I-6).
    pub(super) fn fan_out(
        &mut self,
        new: NewMessage,
        model: &ModelName,
        deadline: WallTime,
    ) -> Result<Reply, Refusal> {
        let agents = self.state.agent.names_serving(&Recipient::Model(model.clone()));
        let (count, limit) = (agents.len(), MAX_COPIES);
        if count == 0 {
            return Err(Refusal::NoRecipient(model.clone()));
        }
        if count > limit {
            return Err(Refusal::TooManyRecipients { model: model.clone(), count, limit });
        }
        for agent in &agents {
            self.check_room(&Recipient::Agent(agent.clone()), &new)?;
        }
        let id = new.id;
        let seq = self.state.queue.next_seq();
        let original = self.accepted(new, seq, deadline);
        let numbers = (seq.0 + 1..).map(Seq);
        let copies = numbers.zip(&agents).map(|(seq, agent)| Copied {
            subject: Subject { seq, id: copy_id(id, agent) },
            agent: agent.clone(),
        });
        let copies = copies.collect();
        self.event(Event::FannedOut(Box::new(FannedOut { original, copies })));
        for (place, agent) in agents.into_iter().enumerate() {
            let queue = Recipient::Agent(agent);
            if place < SERVED {
                self.dispatch(&queue);
            } else {
                self.note(&Note::Unserved { queue, is_due: true });
            }
        }
        Ok(Reply::Receipt(Receipt {
            message_id: id,
            is_duplicate: false,
            accepted_at: self.now.wall,
            deadline,
        }))
    }
}

/// The id of one agent's copy: the same whenever it is made, and as old as its original.
fn copy_id(original: MessageId, agent: &AgentName) -> MessageId {
    /// The bits of a ULID that are not its time.
    const CHANCE: u128 = (1 << 80) - 1;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"broker.v1 copy");
    hasher.update(&original.as_u128().to_be_bytes());
    hasher.update(agent.as_str().as_bytes());
    let mut drawn = [0; 16];
    hasher.finalize_xof().fill(&mut drawn);
    let time = original.as_u128() & !CHANCE;
    MessageId::from_u128(time | (u128::from_be_bytes(drawn) & CHANCE))
}
