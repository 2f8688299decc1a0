//! Where what one noun says becomes something for another.
//!
//! A command is decided step by step: each event is applied as soon as it is decided, so that the next step sees it,
//! and all of them are one commit. A handler refuses before its first event or not at all.

mod advice;
mod ahead;
mod bridge;
mod dead;
mod fan_out;
mod handoff;
mod homecoming;
mod inspect;
mod lease;
mod link;
mod own;
mod package;
mod pause;
mod query;
mod ring;
mod route;
mod send;
mod session;
mod settle;
mod task;
mod transfer;
mod tree;
mod usage;
mod usage_query;

use broker_proto::ModelName;

use super::{
    Command, Decision, Effect, Event, Note, Now, Refusal, Reply, State, apply, usage::Subject,
};

/// The decision of one command while it is being made.
#[derive(Debug)]
pub(super) struct Run<'a> {
    state: &'a mut State,
    now: Now,
    events: Vec<Event>,
    effects: Vec<Effect>,
}

/// Events after which a step that can be cut leaves the rest to the next, which comes at once: a commit is one frame.
const LONG: usize = crate::journal::MAX_EVENTS / 2;
/// Messages that one tick may end, move or wake, so that a batch stays small; the next tick comes at once.
const TICK_STEPS: usize = 32;

impl<'a> Run<'a> {
    pub(super) fn new(state: &'a mut State, now: Now) -> Self {
        Self { state, now, events: Vec::new(), effects: Vec::new() }
    }

    pub(super) fn finish(self, reply: Reply) -> Decision {
        Decision { events: self.events, effects: self.effects, reply }
    }

    pub(super) fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let is_query = matches!(command, Command::Query(_));
        let reply = self.one(command)?;
        self.finish_accepted();
        if !is_query {
            self.look_at_rings();
        }
        Ok(reply)
    }

    fn one(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Send(new) => self.send(*new),
            Command::Settle(settle) => self.settle(*settle),
            Command::Cancel { sender, id } => self.cancel(&sender, id),
            Command::Redrive(letters) => self.redrive(&letters),
            Command::Purge(letters) => self.purge(&letters),
            Command::Pause { queue, is_paused } => self.pause(queue, is_paused),
            Command::Task { seq, step } => self.task(seq, step),
            Command::ClockJumped { ahead } => {
                self.event(Event::ClockJumped { at: self.now.wall, ahead });
                Ok(Reply::None)
            }
            Command::Renew { agent, leases } => {
                self.renew(&agent, &leases);
                Ok(Reply::None)
            }
            Command::Extend { agent, seq, epoch, by } => self.extend(&agent, seq, epoch, by),
            Command::Drain { agent, is_over } => self.drain(agent.as_ref(), is_over),
            Command::LinkUp { link, up, resume } => self.link_up(link, *up, &resume),
            Command::LinkDown { link } => {
                self.note(&Note::LinkDown { link, at: self.now.boot });
                Ok(Reply::None)
            }
            Command::Credit { link, messages, size_bytes } => {
                self.credit(link, messages, size_bytes)
            }
            Command::Sealed { seq, epoch, shown, partial } => {
                self.sealed(seq, epoch, shown, partial);
                Ok(Reply::None)
            }
            Command::Corrupt { seq, epoch } => {
                self.corrupt(seq, epoch);
                Ok(Reply::None)
            }
            Command::AskerLeft { seq } => {
                self.asker_left(seq);
                Ok(Reply::None)
            }
            Command::AskerBack { seq } => {
                self.note(&Note::Orphaned { seq, until: None });
                Ok(Reply::None)
            }
            Command::Report { model, usage, limits, failure } => {
                self.report(&model, usage, &limits, failure.as_ref())
            }
            Command::StoreContent { hash, body } => {
                self.event(Event::ContentStored { hash, at: self.now.wall, body });
                Ok(Reply::None)
            }
            Command::ForgetContents { hashes } => {
                let at = self.now.wall;
                for hash in hashes {
                    self.event(Event::ContentForgotten { hash, at });
                }
                Ok(Reply::None)
            }
            Command::Session(command) => self.session(*command),
            Command::SetToken { agent, hash } => self.set_token(agent, hash),
            Command::Package(command) => self.package(command),
            Command::Handoff(command) => self.handoff(*command),
            Command::Bridge(command) => self.bridge(*command),
            Command::Ring(command) => self.ring(*command),
            Command::Usage(command) => self.of_usage(*command),
            Command::Recovered => {
                self.recovered();
                Ok(Reply::None)
            }
            Command::Projected { finish_no } => {
                self.note(&Note::Projected { finish_no });
                Ok(Reply::None)
            }
            Command::Tick => {
                self.tick();
                Ok(Reply::None)
            }
            Command::Query(query) => Ok(self.query(query)),
        }
    }

    fn event(&mut self, event: Event) {
        if !self.state.ring.is_empty() {
            self.hear(&event);
        }
        apply(self.state, &event);
        let leased = self.state.usage.is_reserving().then(|| Self::ends_lease(&event)).flatten();
        self.events.push(event);
        if let Some(seq) = leased {
            self.release_budget(seq);
        }
    }

    /// Whether this step is long enough.
    fn is_long(&self) -> bool {
        self.events.len() >= LONG
    }

    fn note(&mut self, note: &Note) {
        self.state.note(note);
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// What time alone has brought about, oldest debts first.
    fn tick(&mut self) {
        for _ in 0..TICK_STEPS {
            if self.is_long() {
                break;
            }
            if let Some(seq) = self.state.queue.expired(self.now) {
                self.expire(seq);
            } else if let Some(seq) = self.state.queue.lapsed(self.now) {
                self.lose_lease(seq, "its lease ended without a heartbeat", true);
            } else if let Some(seq) = self.state.queue.abandoned(self.now) {
                self.end_abandoned(seq);
            } else if let Some(seq) = self.state.queue.awake(self.now) {
                self.wake(seq);
            } else if let Some(subject) = self.state.usage.due(self.now).cloned() {
                self.assess(&subject);
                if let Subject::Session(name) = &subject {
                    self.still_at_limit(name);
                }
            } else if let Some(id) = self.state.handoff.due(self.now) {
                self.handoff_is_due(id);
            } else if let Some(model) = self.state.handoff.home_due(self.now).cloned() {
                self.look_home(&model);
            } else if let Some(session) = self.state.handoff.checkpoint_due(self.now).cloned() {
                self.look_at_checkpoint(&session);
            } else if let Some(root) = self.state.tree.idle(self.now) {
                self.look_at_tree(root);
            } else {
                break;
            }
        }
        if let Some(queue) = self.state.queue.unserved().cloned() {
            self.note(&Note::Unserved { queue: queue.clone(), is_due: false });
            self.dispatch(&queue);
        }
        let absent = self.state.agent.newly_absent(self.now.boot);
        for model in absent {
            self.note(&Note::ToldAbsent { model: model.clone() });
            self.note(&Note::Sweep { model, is_due: true });
        }
        for agent in self.state.agent.newly_away(self.now.boot) {
            self.stop_waiting_for(&agent);
        }
        if let Some(model) = self.state.route.to_sweep().cloned() {
            self.sweep(&model);
        }
    }

    fn model(&self, name: &ModelName) -> Option<&super::policy::Model> {
        self.state.policy.models.get(name)
    }
}
