//! What happens to a task beside its deliveries: it asks back, is answered, suspended and resumed.

use broker_proto::{Failure, FailureClass, MessageType, Recipient, TaskState};

use super::{Run, pause::is_work, settle::Figures};
use crate::core::{
    Effect, Event, Note, Refusal, Reply, TaskStep,
    queue::{Body, Hold, Message, Place, Seq},
    task,
};

/// Attempts that ended without a failure are kept up to here; nothing else bounds how often a task is suspended.
const KEPT_ATTEMPTS: usize = 64;

impl Message {
    /// The state of the task that this message carries; `None` for any other message.
    pub(in crate::core) fn task_state(&self) -> Option<TaskState> {
        let hold = match self.place {
            Place::Held(hold) => Some(hold),
            Place::New | Place::Ready | Place::Waiting(_) | Place::Leased(_) | Place::Closing => {
                None
            }
        };
        (self.kind == MessageType::Delegation).then(|| task::of_message(self.state(), hold))
    }
}

impl Run<'_> {
    /// Carries out what a requester or a person wants of a task.
    pub(super) fn task(&mut self, seq: Seq, step: TaskStep) -> Result<Reply, Refusal> {
        let Some(message) = self.state.queue.get(seq) else { return Err(Refusal::TaskEnded) };
        let (id, Some(state)) = (message.id, message.task_state()) else {
            return Err(Refusal::NotATask(message.id));
        };
        let to = match &step {
            TaskStep::Provide { .. } | TaskStep::Resume => TaskState::Submitted,
            TaskStep::Suspend => TaskState::Suspended,
            TaskStep::Cancel => TaskState::Cancelled,
        };
        let is_said_before = self.is_answered_by(seq, &step)?;
        if is_said_before {
            return Ok(Reply::Task(state));
        }
        // A state may be entered in several ways; each has its own way out.
        let is_its_way = match &step {
            TaskStep::Provide { .. } => state == TaskState::InputRequired,
            TaskStep::Resume => state == TaskState::Suspended,
            TaskStep::Suspend | TaskStep::Cancel => true,
        };
        let is_parked = matches!(message.place, Place::Held(Hold::Parked));
        let is_legal = task::may_become(state, to) && is_its_way;
        if !is_legal || (is_parked && step == TaskStep::Resume) {
            return Err(Refusal::TaskState { id, state, wanted: step.verb() });
        }
        match step {
            TaskStep::Provide { question, .. } if !self.is_open(seq, question) => {
                return Err(Refusal::QuestionClosed { id, question });
            }
            TaskStep::Provide { id: input, digest, answer, has_images, .. } => {
                if self.state.task.size_bytes(seq) + answer.size_bytes > task::MOST_BYTES {
                    return Err(Refusal::TaskFull(id));
                }
                let (subject, at) = (message.subject(), self.now.wall);
                let event =
                    Event::TaskAnswered { subject, at, id: input, digest, answer, has_images };
                self.event(event);
                self.take_up(seq, "answered");
            }
            TaskStep::Suspend => self.suspend(seq, Hold::Suspended, "the task was suspended"),
            TaskStep::Resume if self.state.task.open(seq).is_some() => {
                self.hold(seq, Hold::InputRequired, "resumed; its question is still open");
            }
            TaskStep::Resume => self.take_up(seq, "resumed"),
            TaskStep::Cancel => self.end(seq, broker_proto::MessageState::Cancelled, None, None),
        }
        Ok(Reply::Task(self.task_state(seq).unwrap_or(to)))
    }

    /// The state that a step has led to, the end of the task included.
    fn task_state(&self, seq: Seq) -> Option<TaskState> {
        let ended = self.events.iter().find_map(|event| match event {
            Event::Finished(finished) if finished.subject.seq == seq => {
                Some(task::of_end(finished.state, finished.failure.as_ref()))
            }
            _ => None,
        });
        ended.or_else(|| self.state.queue.get(seq)?.task_state())
    }

    fn is_open(&self, seq: Seq, question: u32) -> bool {
        let open = self.state.task.open(seq);
        open.is_some_and(|exchange| question == 0 || exchange.number == question)
    }

    /// Whether this input came before; an id that was used for another one is refused.
    fn is_answered_by(&self, seq: Seq, step: &TaskStep) -> Result<bool, Refusal> {
        let TaskStep::Provide { id, digest, .. } = step else { return Ok(false) };
        let mut answers = self.state.task.exchanges(seq).iter().filter_map(|e| e.answer.as_ref());
        match answers.find(|answer| answer.id == *id) {
            None => Ok(false),
            Some(answer) if answer.digest == *digest => Ok(true),
            Some(_) => Err(Refusal::IdReused(*id)),
        }
    }

    /// A task needs to know something: its delivery is settled, and it waits for its requester.
    pub(super) fn ask_back(&mut self, seq: Seq, question: Body, shown: bool, figures: &Figures) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let subject = message.subject();
        let asked = self.state.task.exchanges(seq).len();
        let size = self.state.task.size_bytes(seq) + question.size_bytes;
        let refused = if message.kind != MessageType::Delegation {
            Some((FailureClass::InvalidRequest, "only a delegation may ask something back"))
        } else if asked >= task::MOST_QUESTIONS {
            Some((FailureClass::Budget, "it asked back more often than a task may"))
        } else if size > task::MOST_BYTES {
            Some((FailureClass::Budget, "what it asked back is more than a task may hold"))
        } else {
            None
        };
        if let Some((class, why)) = refused {
            let failure = Failure::new(class, "broker", why);
            self.failed(seq, failure, None, shown, figures);
            return;
        }
        let model = message.model().cloned();
        let attempt = self.attempt(seq, None, figures).map(Box::new);
        let attempt = attempt.filter(|_| self.keeps_attempts(seq));
        self.succeeded(seq, figures);
        let number = u32::try_from(asked + 1).unwrap_or(u32::MAX);
        let at = self.now.wall;
        self.event(Event::TaskAsked { subject, at, number, question, attempt });
        self.hold(seq, Hold::InputRequired, "asked back");
        if let Some(model) = model {
            self.end_probe(&model, seq);
        }
    }

    pub(super) fn hold(&mut self, seq: Seq, hold: Hold, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let (subject, queue) = (message.subject(), Recipient::clone(&message.queue));
        self.event(Event::Held { subject, at: self.now.wall, queue, hold, why: why.to_owned() });
    }

    /// Takes a task out of its queue; a running attempt is ended, and wears nothing out.
    pub(super) fn suspend(&mut self, seq: Seq, hold: Hold, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let (id, epoch) = (message.id, message.epoch);
        let worker = message.lease().map(|lease| (lease.agent.clone(), lease.instance.clone()));
        let model = message.model().cloned();
        let is_work = is_work(message.kind);
        let failure = Failure::new(FailureClass::Cancelled, "broker", why);
        let attempt = worker
            .as_ref()
            .and_then(|_| self.attempt(seq, Some(failure), &Figures::default()).map(Box::new));
        self.hold(seq, hold, why);
        if let Some(model) = model {
            self.end_probe(&model, seq);
        }
        let Some((agent, instance)) = worker else { return };
        if is_work {
            self.note(&Note::LostAttempt { seq, attempt, counts: false });
            // First: with its lease goes what its agent has said.
            self.effect(Effect::Stop { seq, epoch });
        }
        self.effect(Effect::Revoke { agent, instance, seq, epoch, id, reason: why.into() });
    }

    /// A suspended attempt is closed: what its agent had said is kept.
    pub(super) fn stopped(&mut self, seq: Seq, epoch: u32, partial: Option<Body>) -> bool {
        let Some(message) = self.state.queue.get(seq) else { return false };
        let is_suspended = matches!(message.place, Place::Held(Hold::Suspended | Hold::Paused));
        let Some((_, attempt)) = message.lost_attempt().cloned().filter(|_| is_suspended) else {
            return false;
        };
        if message.epoch == epoch {
            let (subject, at) = (message.subject(), self.now.wall);
            let attempt = attempt.filter(|_| self.keeps_attempts(seq));
            self.event(Event::TaskStopped { subject, at, attempt, partial });
        }
        true
    }

    fn keeps_attempts(&self, seq: Seq) -> bool {
        let consultation = self.state.queue.get(seq).and_then(|m| m.consultation.as_ref());
        consultation.is_some_and(|c| c.attempts.len() < KEPT_ATTEMPTS)
    }

    /// Back into its queue: a task to a model begins its chain anew.
    pub(super) fn take_up(&mut self, seq: Seq, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        if message.consultation.is_some() {
            self.route(seq, 0, why);
            return;
        }
        if self.is_held_by_pause(seq) {
            return;
        }
        let Some(message) = self.state.queue.get(seq) else { return };
        let (subject, queue) = (message.subject(), Recipient::clone(&message.queue));
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
}
