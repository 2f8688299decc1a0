//! Packages made before somebody asks: for whom, and when. With one there, a handoff is offered in the commit that
//! begins it.

use std::time::Duration;

use broker_proto::{AskHandoff, ModelName, SessionId, TriggerKind, WallTime};

use super::Run;
use crate::core::{
    Effect, Note,
    package::Owed,
    session::Session,
    usage::{Level, Near, Scope, Subject},
};

/// A limit that is reached sooner than this, as things go, is near.
const SOON: Duration = Duration::from_secs(15 * 60);
/// A forecast that is less sure than this says nothing.
const SURE: f64 = 0.2;

/// A checkpoint that is overdue is made once the commit that asks for it is behind it.
const SETTLED: Duration = Duration::from_millis(1);

impl Run<'_> {
    /// A session has changed: whoever is likely to go on with it needs it as it is now.
    pub(super) fn session_went_on(&mut self, id: &SessionId) {
        if let Some(owed) = self.owed(id).into_iter().find(|owed| owed.to.is_some()) {
            let subject = Subject::Session(id.to_string());
            self.effect(Effect::Prepare(Near { subject, reason: owed.reason }));
        }
        self.expect_checkpoint(id);
    }

    /// The interval was set, or the broker has started: what is due by the clock is known anew.
    pub(super) fn expect_checkpoints(&mut self) {
        let sessions: Vec<SessionId> = self.state.session.ids().cloned().collect();
        for session in sessions {
            self.expect_checkpoint(&session);
        }
    }

    fn expect_checkpoint(&mut self, id: &SessionId) {
        let at = self.checkpoint_at(id).map(|at| at.max(self.now.wall.after(SETTLED)));
        self.note(&Note::LookAtCheckpoint { session: id.clone(), at });
    }

    /// It may be time for a session's checkpoint.
    pub(super) fn look_at_checkpoint(&mut self, id: &SessionId) {
        self.note(&Note::LookAtCheckpoint { session: id.clone(), at: None });
        if let Some(owed) = self.owed(id).into_iter().find(|owed| owed.to.is_some()) {
            let subject = Subject::Session(id.to_string());
            self.effect(Effect::Prepare(Near { subject, reason: owed.reason }));
        }
    }

    /// When a session with new turns gets its next package by the clock; `None`: there is nothing new, or no such setting.
    fn checkpoint_at(&self, id: &SessionId) -> Option<WallTime> {
        let every = self.state.policy.handoff.checkpoint_every?;
        let info = &self.state.session.get(id)?.info;
        let last = self.state.package.last_made(id);
        let is_new = last.is_none_or(|last| last < info.changed_at);
        (is_new && info.head.entries > 0).then(|| last.unwrap_or(info.started_at).after(every))
    }

    /// What a session is owed. One that is gone, in which nothing was said, or whose package is being made for a handoff
    /// is owed nothing.
    pub(super) fn owed(&self, id: &SessionId) -> Vec<Owed> {
        let Some(session) = self.state.session.get(id) else { return Vec::new() };
        let is_moving = self.state.handoff.open(id).is_some_and(|open| open.state.is_pending());
        if session.info.head.entries == 0 || is_moving {
            return Vec::new();
        }
        let level = self.state.policy.handoff.preserve;
        let owed = |to, reason| Owed { session: id.clone(), to, level, reason };
        let mut all = Vec::new();
        if let Some(why) = self.is_near_a_limit(session) {
            all.push(owed(self.likely_next(session), format!("usage_limit: {why}")));
        }
        let bridges = self.state.bridge.of(id);
        all.extend(bridges.map(|it| owed(Some(it.to.clone()), format!("bridge: to {}", it.to))));
        all.dedup_by(|later, earlier| later.to == earlier.to);
        if all.is_empty() && self.checkpoint_at(id).is_some_and(|at| at <= self.now.wall) {
            let to = self.likely_next(session).unwrap_or(session.info.owner.model.clone());
            all.push(owed(Some(to), "checkpoint: its time has come".to_owned()));
        }
        all.retain(|owed| owed.to.as_ref().is_none_or(|to| !self.has_package_for(session, to)));
        all
    }

    pub(super) fn has_package_for(&self, session: &Session, to: &ModelName) -> bool {
        let (level, now) = (self.state.policy.handoff.preserve, self.now.wall);
        self.state.package.is_current(&session.info, to, level, now)
    }

    /// Why the session may have to move soon: its own level, its model's, or what is forecast of one of the two.
    fn is_near_a_limit(&self, session: &Session) -> Option<String> {
        let (id, owner) = (session.info.id.to_string(), &session.info.owner.model);
        let subjects = [Subject::Session(id.clone()), Subject::Model(owner.clone())];
        let held = subjects.iter().map(|subject| self.state.usage.level(subject));
        if let Some(held) = held.into_iter().find(|held| held.level >= Level::Warning) {
            return Some(held.reason);
        }
        let scopes = [Scope::Session(id), Scope::Model(owner.clone())];
        scopes.iter().find_map(|scope| self.reached_soon(scope))
    }

    fn reached_soon(&self, scope: &Scope) -> Option<String> {
        let meter = self.state.usage.meter(scope)?;
        let is_soon = |at: broker_proto::WallTime| at.since(self.now.wall) < SOON;
        let mut limits = self.limits_of(scope, meter).into_iter();
        let limit =
            limits.find(|it| it.confidence >= SURE && it.reached_at.is_some_and(is_soon))?;
        Some(format!("{} of {scope} is reached soon", limit.window.name))
    }

    /// Whom the arbiter would ask first if the limit were reached now.
    fn likely_next(&self, session: &Session) -> Option<ModelName> {
        let ask = asking(session, None);
        let asked = self.receivers(&ask, &session.info.owner.model, TriggerKind::UsageLimit);
        asked.ok().map(|(to, _)| to)
    }
}

/// Whether a session could be handed to this model, or to whom.
pub(super) fn asking(session: &Session, to: Option<ModelName>) -> AskHandoff {
    AskHandoff {
        session: session.info.id.clone(),
        to,
        agent: None,
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    }
}
