//! How the members of a ring stand, and what their own calls say of them.

use broker_proto::{AgentName, ModelName, RotationTrigger, WallTime};

use crate::core::{
    Event, Note,
    flow::Run,
    queue::Message,
    ring::{Exhausted, Ring, Standing, Unfit, Waker},
    usage::{self, Cause, Ended, Heard, Held, Kind, Level},
};

impl Run<'_> {
    pub(super) fn standing(&self, ring: &Ring, agent: &AgentName) -> Standing {
        let agents = &self.state.agent;
        let links: Vec<_> = self.state.ring.links_of(&ring.role, agent).collect();
        let is_there = !links.is_empty();
        let gives = |link| agents.link(link).is_some_and(|link| link.credit_messages > 0);
        let takes = links.into_iter().any(gives);
        let has_hook = self.state.policy.rotation.woken.contains(agent);
        let stands_by = || self.state.ring.standby_of(&ring.role, agent).next();
        let woken_by = match has_hook {
            true => Some(Waker::Hook),
            false => stands_by().map(|_| Waker::Standby),
        };
        let (limit, level) = self.limit_of(agent);
        let of = |reason: &str| Some(Unfit { reason: reason.to_owned(), until: None });
        let unfit = if agents.is_draining(Some(agent)) {
            of("is being drained")
        } else {
            limit.as_ref().map(|(reason, until)| Unfit { reason: reason.clone(), until: *until })
        };
        let is_owner = ring.owner.as_ref() == Some(agent);
        let exhausted = is_owner.then(|| self.exhausted(ring, agent, limit)).flatten();
        Standing { is_there, woken_by, takes, unfit, exhausted, level }
    }

    /// Why an owner cannot go on.
    pub(super) fn exhausted(
        &self,
        ring: &Ring,
        agent: &AgentName,
        limit: Option<(String, Option<WallTime>)>,
    ) -> Option<Exhausted> {
        let of = |trigger, reason: String| {
            let is_gradual = trigger == RotationTrigger::SlowReplies;
            Some(Exhausted { trigger, reason, is_gradual })
        };
        if self.state.agent.is_draining(Some(agent)) {
            return of(RotationTrigger::Drained, "it is being drained".into());
        }
        let silence = self.state.policy.rotation.silence;
        let silent = self.state.ring.silent_at(&ring.role, agent, silence);
        if silent.is_some_and(|at| at <= self.now.boot) {
            let silence = silence.as_secs_f64();
            return of(RotationTrigger::Silent, format!("nothing was heard of it for {silence} s"));
        }
        let causes = self.signals_of(agent);
        if let Some(cause) = causes.into_iter().find(|cause| cause.level == Level::Exhausted) {
            let trigger = match cause.kind {
                Kind::RateLimits => RotationTrigger::RateLimits,
                Kind::SlowReplies => RotationTrigger::SlowReplies,
                Kind::ErrorRate => RotationTrigger::ErrorRate,
                Kind::Limit => RotationTrigger::Limit,
            };
            return of(trigger, cause.reason);
        }
        limit.and_then(|(reason, _)| of(RotationTrigger::Limit, reason))
    }

    /// What a member's own calls and deliveries say of it, since it became the owner.
    pub(super) fn signals_of(&self, agent: &AgentName) -> Vec<Cause> {
        let thresholds = &self.state.usage.rules().thresholds;
        let signals = self.state.ring.signals(agent);
        usage::of_signals(&signals, thresholds, &Held::default(), self.now.wall)
    }

    /// The limit that keeps an agent from all its models, and how near it is to one of each.
    pub(super) fn limit_of(
        &self,
        agent: &AgentName,
    ) -> (Option<(String, Option<WallTime>)>, Level) {
        let limits: Vec<Option<Cause>> =
            self.models_of(agent).iter().map(|it| self.limit(it)).collect();
        let level = |limit: &Option<Cause>| limit.as_ref().map_or(Level::Healthy, |it| it.level);
        let least = limits.iter().map(level).min().unwrap_or_default();
        if least < Level::Exhausted {
            return (None, least);
        }
        let until = limits.iter().flatten().filter_map(|cause| cause.until).min();
        let reason = limits.into_iter().flatten().next().map(|cause| cause.reason);
        (reason.map(|reason| (reason, until)), least)
    }

    /// The nearest limit of a model. Signals are none: they are the agent's that made the calls.
    pub(super) fn limit(&self, name: &ModelName) -> Option<Cause> {
        let model = self.model(name)?;
        let causes = self.state.usage.causes_of_model(name, &model.key, self.now.wall);
        let causes = causes.into_iter().filter(|cause| cause.kind == Kind::Limit);
        usage::highest(causes.chain(self.refused(name)).collect(), &Held::default())
    }

    /// Notes what an event says of a ring's member: how one of its calls, or a delivery to it, ended.
    pub(in crate::core::flow) fn hear(&mut self, event: &Event) {
        let new = Heard {
            at: self.now.wall,
            ended: Ended::Unknown,
            latency: None,
            first_token: None,
            message: event.subject().map(|subject| subject.id),
        };
        let (agents, heard) = match event {
            Event::Usage(usage::Event::Counted(call)) => {
                let agents = match &call.agent {
                    Some(agent) => vec![agent.clone()],
                    // Recorded by somebody who names the model only: whoever works for a ring made it.
                    None => self.owners_serving(&call.model),
                };
                let (latency, first_token) = (call.latency, call.first_token);
                (agents, Heard { ended: call.ended, latency, first_token, ..new })
            }
            Event::DeliveryFailed { agent, failure, .. } => {
                (vec![agent.clone()], Heard { ended: Ended::Failed(failure.class), ..new })
            }
            Event::Finished(finished) if finished.state == broker_proto::MessageState::Done => {
                let message = self.state.queue.get(finished.subject.seq);
                let message = message.filter(|message| message.consultation.is_none());
                let lease = message.and_then(Message::lease);
                let agent = lease.map(|lease| lease.agent.clone());
                (agent.into_iter().collect(), Heard { ended: Ended::Done, ..new })
            }
            _ => return,
        };
        for agent in agents {
            if self.state.ring.is_member(&agent) {
                let is_against = self.is_against(&agent, heard);
                self.note(&Note::Heard { agent, heard, is_against });
            }
        }
    }

    /// Whether a call makes more of a signal.
    fn is_against(&self, agent: &AgentName, heard: Heard) -> bool {
        let thresholds = &self.state.usage.rules().thresholds;
        let mut signals = self.state.ring.signals(agent);
        let before = signals.read(thresholds, self.now.wall);
        signals.hear(heard);
        let after = signals.read(thresholds, self.now.wall);
        after.rate_limits > before.rate_limits
            || after.slow_streak > before.slow_streak
            || after.errors > before.errors
    }

    /// What an owner's last calls come to.
    pub(super) fn readings_of(&self, agent: &AgentName) -> String {
        let thresholds = &self.state.usage.rules().thresholds;
        let it = self.state.ring.signals(agent).read(thresholds, self.now.wall);
        format!(
            "{} of {} rate limits, {} of {} slow replies, {} errors of {} calls",
            it.rate_limits,
            thresholds.rate_limits,
            it.slow_streak,
            thresholds.slow_replies,
            it.errors,
            it.calls
        )
    }

    pub(super) fn owners_serving(&self, model: &ModelName) -> Vec<AgentName> {
        let owners = self.state.ring.on().filter_map(|ring| ring.owner.clone());
        let mut owners: Vec<_> = owners.filter(|it| self.models_of(it).contains(model)).collect();
        owners.sort();
        owners.dedup();
        owners
    }
}
