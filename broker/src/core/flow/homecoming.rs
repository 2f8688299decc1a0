//! Sessions that a model's limit has moved away go back once that model can go on.

use std::time::Duration;

use broker_proto::{Handoff, ModelName, SessionId, TriggerKind, WallTime};

use super::Run;
use crate::core::{
    Effect, Note,
    handoff::{Hop, arbiter},
    route::{Gate, Presence},
    usage::{Level, Subject},
};

/// Sessions that go back in one step, and how long the others wait for theirs.
const AT_ONCE: usize = 8;
const APART: Duration = Duration::from_secs(1);
/// How long a turn that runs is left alone before it is looked at again; its end is told.
const RUNS: Duration = Duration::from_secs(5);
/// When to look again at what nobody tells.
const AGAIN: Duration = Duration::from_secs(60);

/// Whether one session may go back.
enum Home {
    /// Away with this one.
    Now(Box<Handoff>),
    After(WallTime),
}

impl Run<'_> {
    /// The model can go on, or something else has changed that kept its sessions away.
    pub(super) fn may_be_home(&mut self, model: &ModelName) {
        if self.state.handoff.lent_by(model).next().is_some() {
            let at = Some(self.now.wall);
            self.note(&Note::LookHome { model: model.clone(), at });
        }
    }

    /// The model cannot go on until then, which is when to look; without a time the look that is due finds it.
    pub(super) fn is_away_until(&mut self, model: &ModelName, until: Option<WallTime>) {
        let until = until.map(|until| until.max(self.now.wall.after(APART)));
        if until.is_some() && self.state.handoff.lent_by(model).next().is_some() {
            self.note(&Note::LookHome { model: model.clone(), at: until });
        }
    }

    /// A session that was paused goes on: where it was lent, it may go home.
    pub(super) fn goes_on(&mut self, session: &SessionId) {
        let track = self.state.handoff.track(session);
        if let Some(origin) = track.and_then(|track| track.origin.clone()) {
            self.may_be_home(&origin);
        }
    }

    /// A session has another owner now: what was advised to the old one is over, and what was lent is looked after.
    pub(super) fn settled_elsewhere(&mut self, session: &SessionId) {
        self.advice_is(session, None);
        let track = self.state.handoff.track(session);
        let Some(origin) = track.and_then(|track| track.origin.clone()) else { return };
        if self.state.handoff.lent_by(&origin).any(|lent| lent == session) {
            let at = Some(self.now.wall.after(self.state.policy.handoff.cooldown));
            self.note(&Note::LookHome { model: origin, at });
        }
    }

    /// After a start: every model that has lent sessions.
    pub(super) fn resume_homecomings(&mut self) {
        let lenders: Vec<ModelName> = self.state.handoff.lenders().cloned().collect();
        for lender in lenders {
            self.may_be_home(&lender);
        }
    }

    /// Gives back what this model has lent, if it can go on, and says when to look again.
    pub(super) fn look_home(&mut self, model: &ModelName) {
        self.note(&Note::LookHome { model: model.clone(), at: None });
        if let Some(at) = self.homecoming(model) {
            self.note(&Note::LookHome { model: model.clone(), at: Some(at) });
        }
    }

    fn homecoming(&mut self, model: &ModelName) -> Option<WallTime> {
        let lent: Vec<SessionId> = self.state.handoff.lent_by(model).cloned().collect();
        if lent.is_empty() {
            return None;
        }
        let now = self.now.wall;
        if let Some(at) = self.away_until(model) {
            return Some(at);
        }
        let (mut next, mut begun) = (now.after(AGAIN), 0);
        for session in lent {
            match self.may_go_home(&session) {
                Home::After(at) => next = next.min(at),
                Home::Now(_) if begun == AT_ONCE => next = next.min(now.after(APART)),
                Home::Now(away) => {
                    // Where it cannot begin, a later look tries again.
                    let why = format!("{model} can go on");
                    let back = self.return_session(&away, &why, TriggerKind::UsageLimit);
                    begun += usize::from(back.is_ok());
                }
            }
        }
        Some(next)
    }

    /// When to look again at a model that cannot take its sessions back now.
    fn away_until(&mut self, model: &ModelName) -> Option<WallTime> {
        let now = self.now.wall;
        match self.state.route.gate(model, self.now) {
            Gate::Open => {}
            // Its time has come and nobody tries it: what it lent would not come back before somebody does.
            Gate::Due => {
                self.effect(Effect::Probe(model.clone()));
                return Some(now.after(self.state.policy.routing.probe_after));
            }
            Gate::Shut | Gate::Probing(_) => {
                let until = self.state.route.shut(model).and_then(|shut| shut.until);
                return Some(until.filter(|until| *until > now).unwrap_or(now.after(AGAIN)));
            }
        }
        let level = self.state.usage.level(&Subject::Model(model.clone())).level;
        let can_go_on = level == Level::Healthy
            && self.presence(model) != Presence::Absent
            && self.state.policy.handoff.auto;
        (!can_go_on).then(|| now.after(AGAIN))
    }

    fn may_go_home(&self, session: &SessionId) -> Home {
        let (now, handoffs) = (self.now.wall, &self.state.handoff);
        // One that is gone, or goes nowhere by itself.
        if self.state.session.get(session).is_none_or(|it| it.info.pause.is_some()) {
            return Home::After(now.after(AGAIN));
        }
        let (track, settings) = (handoffs.track(session), &self.state.policy.handoff);
        let moved = track.and_then(|track| track.recent.back());
        let cool = moved.map_or(now, |hop| hop.at.after(settings.cooldown));
        let left = |hop: &Hop| track.is_some_and(|track| track.origin.as_ref() == Some(&hop.from));
        let recent = track.into_iter().flat_map(|track| &track.recent);
        let cool = cool.max(arbiter::loops_until(recent, left, settings, now).unwrap_or(now));
        if cool > now {
            return Home::After(cool);
        }
        if handoffs.open(session).is_some_and(|open| open.state.is_pending()) {
            return Home::After(now.after(RUNS));
        }
        let mut turns = self.state.queue.of_session(session.as_str());
        if turns.any(|it| it.consultation.is_some() && it.lease().is_some()) {
            return Home::After(now.after(RUNS));
        }
        match handoffs.away_of(session).last() {
            Some(away) => Home::Now(Box::new(away.clone())),
            None => Home::After(now.after(AGAIN)),
        }
    }
}
