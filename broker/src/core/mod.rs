//! The rules of a namespace: what may happen, and what follows from it.
//!
//! Invariant: nothing here knows a clock, a disk, a network or randomness; the same history gives the same state.
//! Invariant: state changes only through [`apply`] (journalled events) and `note` (volatile notes).
//! Invariant: a refusal leaves the state as it was.
//!
//! The nouns (`queue`, `route`, `agent`, `usage`, `task`) do not call each other. `flow` is where what one of them says
//! becomes something for another.

pub mod agent;
mod clock;
mod command;
mod event;
mod flow;
pub mod handoff;
pub mod package;
#[doc(hidden)]
pub mod planted;
pub mod policy;
pub mod queue;
mod refusal;
pub mod ring;
pub mod route;
pub mod session;
pub mod task;
mod time;
pub mod tree;
pub mod usage;

pub use clock::{BrokerClock, Jump};
pub(crate) use command::terminal;
pub use command::{
    Append, Command, Delivered, Draining, Earlier, Effect, Handled, Holder, Letters,
    NewConsultation, NewMessage, Outcome, Query, Reply, Resumed, SettleCommand, Skipped, TaskStep,
    View, Which,
};
pub use event::{
    Accepted, Copied, Event, FannedOut, Finished, Note, Redirected, SliceMoved, Subject,
};
pub use policy::Policy;
pub use refusal::Refusal;
pub use time::{BootTime, Now};

/// Everything that is alive in a namespace. Bodies are not in it, only their keys, sizes and digests.
#[derive(Debug)]
pub struct State {
    pub policy: Policy,
    pub queue: queue::State,
    pub route: route::State,
    pub agent: agent::State,
    pub usage: usage::State,
    pub tree: tree::State,
    pub task: task::State,
    pub session: session::State,
    pub package: package::State,
    pub handoff: handoff::State,
    pub bridge: handoff::bridge::State,
    pub ring: ring::State,
}

/// What one command led to: in this order journalled, carried out, answered.
#[derive(Debug)]
pub struct Decision {
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
    pub reply: Reply,
}

impl State {
    /// A namespace in which nothing has happened yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let usage = usage::State::new(&policy);
        let handoff = handoff::State::new(&policy.handoff);
        Self {
            policy,
            queue: queue::State::default(),
            route: route::State::default(),
            agent: agent::State::default(),
            usage,
            tree: tree::State::default(),
            task: task::State::default(),
            session: session::State::default(),
            package: package::State::default(),
            handoff,
            bridge: handoff::bridge::State::default(),
            ring: ring::State::default(),
        }
    }

    /// The settings as the file has them, without what overrides them: what another state begins with.
    #[must_use]
    pub fn file_policy(&self) -> Policy {
        Policy { handoff: self.handoff.file().clone(), ..self.policy.clone() }
    }

    /// What overrides the file has changed: `policy.handoff` is what counts, and limits of models are part of levels.
    fn renew_handoff_policy(&mut self) {
        let thresholds = &self.usage.rules().thresholds;
        let known = handoff::policy::Known { models: &self.policy.models, thresholds };
        let (file, overrides) = (self.handoff.file(), self.handoff.overrides());
        let settings = handoff::Settings::as_far_as(file, overrides, known);
        self.usage.limit_models(settings.limits.clone());
        self.policy.handoff = settings;
    }

    /// Applies what is volatile: links, credit, timers of this boot. Total, and never journalled.
    pub(crate) fn note(&mut self, note: &Note) {
        self.queue.note(note);
        self.route.note(note);
        self.agent.note(note);
        self.tree.note(note);
        self.ring.note(note);
        match note {
            Note::LookAtUsage { subject, at } => self.usage.look_at(subject, *at),
            Note::NotSynced { session, to, problem } => {
                self.bridge.note_problem(session, to, problem);
            }
            Note::Warmed { model, tokens, at } => self.package.note_warmed(model, *tokens, *at),
            Note::LookAfter { handoff, at } => self.handoff.look_after(*handoff, *at),
            _ => {}
        }
        if let Note::LookHome { model, at } = note {
            self.handoff.look_home(model, *at);
        }
        if let Note::LookAtCheckpoint { session, at } = note {
            self.handoff.look_at_checkpoint(session, *at);
        }
    }
}

/// Decides `command` at `now` and applies what was decided, sub-commands and their consequences included.
///
/// # Errors
/// The [`Refusal`], with the state unchanged.
pub fn decide(state: &mut State, command: Command, now: Now) -> Result<Decision, Refusal> {
    let mut run = flow::Run::new(state, now);
    let reply = run.command(command)?;
    Ok(run.finish(reply))
}

/// Applies an event that was decided earlier. Total: an event that was journalled cannot fail.
pub fn apply(state: &mut State, event: &Event) {
    event.each(|event| {
        state.queue.apply(event);
        state.route.apply(event);
        state.agent.apply(event);
        state.usage.apply(event);
        state.tree.apply(event);
        state.task.apply(event);
        if let Event::Session(event) = event {
            state.session.apply(event);
            if let session::Event::Changed { id, after: None, .. } = event.as_ref() {
                state.handoff.forget(id);
            }
        }
        if let Event::Package(event) = event {
            state.package.apply(event);
        }
        if let Event::Bridge(event) = event {
            state.bridge.apply(event);
        }
        if let Event::Handoff(event) = event {
            state.handoff.apply(event);
            match event.as_ref() {
                handoff::Event::Changed { handoff, .. } => {
                    if let Some(package) = handoff.package {
                        state.package.claim(package);
                        if handoff.accepted_at.is_some() {
                            state.package.used(package, handoff.id);
                        }
                    }
                }
                handoff::Event::PolicySet { .. } => state.renew_handoff_policy(),
                handoff::Event::Advised { .. } | handoff::Event::Forgotten { .. } => {}
            }
        }
        if let Event::Ring(event) = event {
            state.ring.apply(event);
        }
    });
}

/// When the shell must come back with [`Command::Tick`], if nothing else happens.
#[must_use]
pub fn next_deadline(state: &State, now: Now) -> Option<BootTime> {
    [
        state.queue.next_deadline(now),
        state.route.next_deadline(now),
        state.agent.next_deadline(),
        state.tree.next_deadline(now),
        state.usage.next_deadline(now),
        state.handoff.next_deadline(now),
        state.ring.next_deadline(state.policy.rotation.silence, now),
    ]
    .into_iter()
    .flatten()
    .min()
}

#[cfg(test)]
mod tests;
