//! Accepting a message.

use broker_proto::{MessageType, Priority, Receipt, Recipient, WallTime};

use super::{Run, tree::branch};
use crate::core::{
    Accepted, Effect, Event, NewMessage, Note, Refusal, Reply, Subject,
    planted::{self, Bug},
    queue::{Counted, Ready, Seq},
};

/// How long a sender waits before it offers a message to a full queue again.
const RETRY_FULL: std::time::Duration = std::time::Duration::from_secs(1);

/// What of a cap is for anybody: a tenth is kept for replies, so that two full queues cannot block each other.
fn kept(cap: u64) -> u64 {
    cap - cap / 10
}

/// A reply goes back to whoever sent what its own sender was given.
fn is_reply(to: &Recipient, new: &NewMessage) -> bool {
    let asker = new.parent.as_ref().map(|parent| parent.sender.as_str());
    matches!(to, Recipient::Agent(name) if Some(name.as_str()) == asker)
}

impl Run<'_> {
    pub(super) fn send(&mut self, new: NewMessage) -> Result<Reply, Refusal> {
        if let Some(receipt) = self.counted_before(&new)?.or(self.duplicate(&new)?) {
            return Ok(Reply::Receipt(Receipt { is_duplicate: true, ..receipt }));
        }
        self.check_recipient(&new)?;
        self.check_not_paused(&new)?;
        let deadline = self.deadline(&new)?;
        self.check_bounds(&new)?;
        if let Recipient::AgentsOf(model) = &new.to {
            let model = model.clone();
            return self.fan_out(new, &model, deadline);
        }
        let receipt = Receipt {
            message_id: new.id,
            is_duplicate: false,
            accepted_at: self.now.wall,
            deadline,
        };
        let room = self.check_room(&new.to, &new);
        if matches!(room, Err(Refusal::QueueFull { .. })) && planted::is(Bug::DropWhenFull) {
            return Ok(Reply::Receipt(receipt));
        }
        room?;

        let seq = self.state.queue.next_seq();
        let subject = Subject { seq, id: new.id };
        let sender = new.sender.clone();
        let is_consultation = new.consultation.is_some();
        let accepted = self.accepted(new, seq, deadline);
        let budget = accepted.budget;
        self.event(Event::Accepted(Box::new(accepted)));
        self.count_message(seq, budget);
        if is_consultation {
            let receipt = receipt.clone();
            let id = subject.id;
            self.effect(Effect::Opened { seq, id, sender, receipt });
            self.expect_asker(seq);
            self.begin(seq, "asked");
        } else {
            self.begin(seq, "addressed");
        }
        Ok(Reply::Receipt(receipt))
    }

    /// The message as it is accepted now, under this number.
    pub(super) fn accepted(&self, new: NewMessage, seq: Seq, deadline: WallTime) -> Accepted {
        let branch = branch(&new);
        Accepted {
            subject: Subject { seq, id: new.id },
            at: self.now.wall,
            sender: new.sender,
            to: new.to,
            kind: new.kind,
            priority: new.priority,
            digest: new.digest,
            body: new.body,
            deadline,
            session: new.session,
            ordering_key: new.ordering_key,
            correlation: new.correlation,
            labels: new.labels,
            expires_at: new.expires_at,
            consultation: new.consultation,
            branch,
            numbered: new.numbered,
            budget: new.budget.filter(|_| new.parent.is_none()),
        }
    }

    /// The first receipt, when its bulk sender gave this number to it before (I-8).
    fn counted_before(&self, new: &NewMessage) -> Result<Option<Receipt>, Refusal> {
        let Some(numbered) = &new.numbered else { return Ok(None) };
        let reused = || Refusal::NumberReused(numbered.clone());
        match self.state.queue.counted(&new.sender, numbered) {
            Counted::TooOld { oldest } => {
                Err(Refusal::SequenceTooOld { numbered: numbered.clone(), oldest })
            }
            Counted::TooMany { limit } => Err(Refusal::TooManyProducers { limit }),
            Counted::Before { digest, receipt } if digest == new.digest => Ok(Some(receipt)),
            Counted::Before { .. } => Err(reused()),
            Counted::Unknown => match &new.earlier_number {
                None => Ok(None),
                Some(earlier) if earlier.digest == new.digest => Ok(Some(earlier.receipt.clone())),
                Some(_) => Err(reused()),
            },
        }
    }

    /// A message's way begins: along its chain, or in the queue it is addressed to.
    pub(super) fn begin(&mut self, seq: Seq, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        if message.consultation.is_some() {
            self.before_turn(seq);
            if !self.is_held_for_handoff(seq) {
                self.route(seq, 0, why);
            }
            return;
        }
        let (subject, queue) = (message.subject(), Recipient::clone(&message.to));
        if self.is_held_by_pause(seq) {
            return;
        }
        self.event(Event::Routed {
            subject,
            at: self.now.wall,
            queue: queue.clone(),
            candidate: 0,
            wait_until: None,
            passed_over: Vec::new(),
            why: why.to_owned(),
        });
        self.dispatch(&queue);
    }

    /// The first receipt, when this message was accepted before (I-7).
    fn duplicate(&self, new: &NewMessage) -> Result<Option<Receipt>, Refusal> {
        let known = self.state.queue.known(&new.sender, new.id);
        let earlier = || new.earlier.as_ref().map(|e| (e.digest, e.receipt.clone()));
        match known.or_else(earlier) {
            None => Ok(None),
            Some((digest, receipt)) if digest == new.digest || planted::is(Bug::IdReused) => {
                Ok(Some(receipt))
            }
            Some(_) => Err(Refusal::IdReused(new.id)),
        }
    }

    fn check_recipient(&self, new: &NewMessage) -> Result<(), Refusal> {
        match &new.to {
            Recipient::Model(name) => {
                if !matches!(new.kind, MessageType::Consultation | MessageType::Delegation) {
                    return Err(Refusal::WrongType { kind: new.kind, to: new.to.clone() });
                }
                if self.model(name).is_none() {
                    let given = name.to_string();
                    return Err(Refusal::UnknownModel { given, nearest: Vec::new() });
                }
            }
            Recipient::Agent(name) => {
                if self.state.agent.token(name).is_none() && !new.allow_future_recipient {
                    return Err(Refusal::UnknownAgent(name.to_string()));
                }
            }
            // Who asks there names no model, so nobody could say which one answers.
            Recipient::Role(_) | Recipient::AgentsOf(_)
                if new.kind == MessageType::Consultation =>
            {
                return Err(Refusal::WrongType { kind: new.kind, to: new.to.clone() });
            }
            Recipient::Role(role) => {
                if !self.state.agent.knows_role(role) && !new.allow_future_recipient {
                    return Err(Refusal::UnknownRole(role.clone()));
                }
            }
            Recipient::AgentsOf(name) => {
                if self.model(name).is_none() {
                    let given = name.to_string();
                    return Err(Refusal::UnknownModel { given, nearest: Vec::new() });
                }
            }
        }
        Ok(())
    }

    /// The earliest of what the sender said and what the broker allows (I-22).
    fn deadline(&self, new: &NewMessage) -> Result<WallTime, Refusal> {
        let policy = &self.state.policy;
        let asked =
            new.consultation.as_ref().and_then(|c| match (c.options.deadline, new.expires_at) {
                (None, Some(_)) => None,
                // A task may wait for people.
                (None, None) if new.kind == MessageType::Delegation => None,
                (None, None) => Some(policy.default_deadline),
                (span, _) => span,
            });
        let longest = self.now.wall.after(policy.max_lifetime);
        let by_span = asked.map_or(longest, |span| self.now.wall.after(span));
        let deadline = new.expires_at.unwrap_or(longest).min(by_span).min(longest);
        if deadline <= self.now.wall { Err(Refusal::AlreadyExpired) } else { Ok(deadline) }
    }

    pub(super) fn check_room(&self, to: &Recipient, new: &NewMessage) -> Result<(), Refusal> {
        self.room(to, new.body.size_bytes, is_reply(to, new))?;
        self.check_urgent(to, new)
    }

    /// A queue holds everything alive in it, moved here or sent here (I-28).
    pub(super) fn room(
        &self,
        to: &Recipient,
        size_bytes: u64,
        is_reply: bool,
    ) -> Result<(), Refusal> {
        let policy = &self.state.policy;
        let alive = self.state.queue.ready(to).map(Ready::alive).unwrap_or_default();
        let (messages, bytes) = (policy.queue_messages, policy.queue_bytes);
        let (messages, bytes) =
            if is_reply { (messages, bytes) } else { (kept(messages), kept(bytes)) };
        let limit = if alive.messages >= messages {
            format!("{messages} messages")
        } else if alive.size_bytes.saturating_add(size_bytes) > bytes {
            format!("{bytes} bytes")
        } else {
            return Ok(());
        };
        Err(Refusal::QueueFull { queue: to.clone(), limit, retry_after: RETRY_FULL })
    }

    /// One sender fills a tenth of a queue's caps as urgent, and no more (I-12).
    fn check_urgent(&self, to: &Recipient, new: &NewMessage) -> Result<(), Refusal> {
        if new.priority != Priority::Urgent {
            return Ok(());
        }
        let policy = &self.state.policy;
        let ready = self.state.queue.ready(to);
        let urgent = ready.map(|ready| ready.urgent_of(&new.sender)).unwrap_or_default();
        let (messages, bytes) = ((policy.queue_messages / 10).max(1), policy.queue_bytes / 10);
        let limit = if urgent.messages >= messages {
            format!("{messages} messages")
        } else if urgent.size_bytes.saturating_add(new.body.size_bytes) > bytes {
            format!("{bytes} bytes")
        } else {
            return Ok(());
        };
        Err(Refusal::UrgentShare { queue: to.clone(), limit, retry_after: RETRY_FULL })
    }

    /// Nobody is known to listen yet: the usual time to come, or what the asker was promised if that is longer.
    pub(super) fn expect_asker(&mut self, seq: Seq) {
        let window = self.state.policy.return_window;
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        let window = consultation.options.return_window.map_or(window, |own| own.max(window));
        if !consultation.options.keep {
            self.note(&Note::Orphaned { seq, until: Some(self.now.boot.after(window)) });
        }
    }

    /// Starts the time within which somebody must listen again (I-37).
    pub(super) fn asker_left(&mut self, seq: Seq) {
        let window = self.state.policy.return_window;
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        if consultation.options.keep {
            return;
        }
        let window = consultation.options.return_window.unwrap_or(window);
        self.note(&Note::Orphaned { seq, until: Some(self.now.boot.after(window)) });
    }
}
