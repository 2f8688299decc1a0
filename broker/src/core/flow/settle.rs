//! How a delivery ends: settled, lost, given back, cancelled.

use std::time::Duration;

use broker_proto::{
    Attempt, Failure, FailureClass, MessageId, MessageState, MessageType, ModelName, Provenance,
    RateLimit, Recipient, Sender, Usage,
};

use super::{Run, route::Ending};
use crate::core::{
    Effect, Event, Note, Outcome, Refusal, Reply, SettleCommand,
    planted::{self, Bug},
    queue::{Body, Place, Seq},
    route::{self, Gate, Presence, Verdict},
    usage,
};

/// What an agent measured of one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    usage: Usage,
    limits: Vec<RateLimit>,
    first_token: Option<Duration>,
}

impl Run<'_> {
    pub(super) fn settle(&mut self, settle: SettleCommand) -> Result<Reply, Refusal> {
        let SettleCommand { agent, seq, epoch, id, outcome, usage, limits, first_token, .. } =
            settle;
        let SettleCommand { earlier, append, shortened, .. } = settle;
        let Some(message) = self.state.queue.get(seq) else {
            // Settled before, and the answer to that was lost on the way (I-19).
            let ended = self.state.queue.ended_by(seq).or(earlier);
            return if ended == Some(epoch) && epoch > 0 {
                Ok(Reply::SettledBefore)
            } else {
                Err(Refusal::LeaseLost(id))
            };
        };
        let holds = message.epoch == epoch && message.lease().is_some_and(|l| l.agent == agent);
        let holds = holds || planted::is(Bug::StaleToken) && message.lease().is_some();
        if !holds {
            return if message.settled() == Some(epoch) {
                if planted::is(Bug::SettledTwice) {
                    self.end(seq, MessageState::Done, None, None);
                }
                Ok(Reply::SettledBefore)
            } else {
                Err(Refusal::LeaseLost(Some(message.id)))
            };
        }
        let not_appended = self.may_append(append.as_ref())?;
        let usage = self.with_estimates(seq, usage, &outcome);
        self.count_usage(seq, usage);
        let figures = Figures { usage, limits, first_token };
        match outcome {
            Outcome::Done { reply, stop_reason } => {
                let answered = self.attempt(seq, None, &figures).map(|a| (a, stop_reason));
                self.succeeded(seq, &figures);
                let reply = planted::reply(reply);
                let shortened = self.shortened(seq, shortened);
                let ending =
                    Ending { reply, answered, not_appended, shortened, ..Ending::default() };
                self.end_with(seq, MessageState::Done, None, ending);
                return Ok(self.append_answer(append));
            }
            Outcome::Failed { failure, partial, shown } => {
                self.failed(seq, failure, partial, shown, &figures);
            }
            Outcome::Retry { after, shown } => {
                let mut failure =
                    Failure::new(FailureClass::Overloaded, "agent", "the agent asked for a retry");
                failure.retry_at = Some(self.now.wall.after(after));
                self.failed(seq, failure, None, shown, &figures);
            }
            Outcome::Ask { question, shown } => self.ask_back(seq, question, shown, &figures),
            Outcome::Reject { reason } => self.reject(seq, &reason),
            Outcome::Release { shown } => self.release(seq, shown),
        }
        Ok(Reply::None)
    }

    /// What its agent did not count of a call that has answered something, estimated from sizes: budgets are held
    /// against what was used, whoever worked.
    fn with_estimates(&self, seq: Seq, usage: Usage, outcome: &Outcome) -> Usage {
        let said = match outcome {
            Outcome::Done { reply, .. } => reply,
            Outcome::Failed { partial: Some(partial), .. } => partial,
            Outcome::Ask { question, .. } => question,
            Outcome::Failed { partial: None, .. }
            | Outcome::Retry { .. }
            | Outcome::Reject { .. }
            | Outcome::Release { .. } => return usage,
        };
        let Some(message) = self.state.queue.get(seq) else { return usage };
        let model = message.model().and_then(|model| self.model(model));
        let (Some(model), Some(consultation)) = (model, &message.consultation) else {
            return usage;
        };
        let mut counted = usage;
        let inputs = [usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens];
        if inputs.iter().all(Option::is_none) {
            let bytes = consultation.needs().prompt_bytes;
            counted.input_tokens = Some(route::estimated_tokens(model, bytes));
            counted.provenance = Provenance::Estimated;
        }
        if usage.output_tokens.is_none() {
            counted.output_tokens = Some(route::estimated_tokens(model, said.size_bytes));
            counted.provenance = Provenance::Estimated;
        }
        counted
    }

    /// What the model that answered was not sent of its session's history, as its shell knows, else as it was leased.
    fn shortened(&self, seq: Seq, told: Option<String>) -> Option<String> {
        if let Some(told) = told {
            return Some(told).filter(|what| !what.is_empty());
        }
        let message = self.state.queue.get(seq)?;
        let model = message.model().and_then(|model| self.model(model))?;
        let needs = message.consultation.as_ref()?.needs();
        let fit = needs.fit(model, self.state.policy.routing.min_output_tokens).ok()?;
        let room = fit.history?;
        Some(format!("{} was sent what fits {room} tokens of the session's history", model.name))
    }

    pub(super) fn attempt(
        &self,
        seq: Seq,
        failure: Option<Failure>,
        figures: &Figures,
    ) -> Option<Attempt> {
        let message = self.state.queue.get(seq)?;
        let (lease, model) = (message.lease(), message.model()?.clone());
        let since = lease.map_or(message.ready_at(), |lease| lease.since);
        let prices = self.model(&model).and_then(|model| model.prices);
        let is_unbilled = || failure.as_ref().is_some_and(|f| usage::is_unbilled(f.class));
        Some(Attempt {
            number: message.epoch,
            agent: lease.map(|lease| lease.agent.clone()),
            latency: self.now.wall.since(since),
            wait: since.since(message.ready_at()),
            first_token: figures.first_token,
            usage: figures.usage,
            cost_usd: usage::cost(prices, figures.usage).or_else(|| is_unbilled().then_some(0.0)),
            failure,
            model,
        })
    }

    pub(super) fn succeeded(&mut self, seq: Seq, figures: &Figures) {
        let Some(model) = self.state.queue.get(seq).and_then(|m| m.model()).cloned() else {
            return;
        };
        let Some(policy) = self.model(&model) else { return };
        let mut effects =
            route::consequences(&self.state.route, &self.state.policy, policy, None, self.now);
        self.drop_stale(&model, Some(seq), &mut effects);
        if let Some(attempt) = self.attempt(seq, None, figures) {
            self.count_attempt(seq, &attempt, &figures.limits);
        }
        self.reroute(effects);
    }

    /// A model that was shut while this call was out is not opened by it: it says how things were before. Whoever
    /// tries the model says how they are, and so does who insists on it.
    fn drop_stale(&self, model: &ModelName, seq: Option<Seq>, effects: &mut route::Effects) {
        let message = seq.and_then(|seq| self.state.queue.get(seq));
        let insists = message
            .and_then(|message| message.consultation.as_ref())
            .is_some_and(|consultation| consultation.options.no_fallback);
        let is_news = match self.state.route.gate(model, self.now) {
            Gate::Open | Gate::Due => true,
            Gate::Probing(prober) => insists || seq == Some(prober),
            Gate::Shut => insists,
        };
        effects.retain(|(_, route)| is_news || route.shut.is_some());
    }

    /// A failed attempt: of a consultation, routing's business (I-21); of anything else, back into its queue.
    pub(super) fn failed(
        &mut self,
        seq: Seq,
        failure: Failure,
        partial: Option<Body>,
        shown: bool,
        figures: &Figures,
    ) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let (subject, queue) = (message.subject(), Recipient::clone(&message.queue));
        if message.consultation.is_none() {
            let is_task = message.kind == MessageType::Delegation;
            self.delivery_failed(seq, failure.clone());
            let verdict = route::verdict(&failure, 0, &self.state.policy.routing, self.now);
            let is_final = is_task && failure.retry_at.is_none();
            if verdict == Verdict::Fail || is_final {
                // No other time and no other agent would make it right; of a task, its own agent's word counts.
                self.end(seq, MessageState::Failed, Some(failure), partial);
                return;
            }
            let until =
                failure.retry_at.unwrap_or_else(|| self.now.wall.after(Duration::from_secs(1)));
            self.event(Event::Routed {
                subject,
                at: self.now.wall,
                queue,
                candidate: 0,
                wait_until: Some(until),
                passed_over: Vec::new(),
                why: format!("failed: {}", failure.class.as_str()),
            });
            self.note(&Note::WaitRuns { seq, due: self.now.boot_at(until) });
            return;
        }
        let Some(attempt) = self.attempt(seq, Some(failure.clone()), figures) else { return };
        let model = attempt.model.clone();
        let at = self.now.wall;
        let told = Box::new(attempt.clone());
        self.event(Event::AttemptFailed { subject, at, attempt: told, shown });
        if failure.class == FailureClass::AgentLost {
            self.count_unsettled(seq, &attempt);
        } else {
            self.count_attempt(seq, &attempt, &figures.limits);
        }
        if let Some(policy) = self.model(&model) {
            let mut effects = route::consequences(
                &self.state.route,
                &self.state.policy,
                policy,
                Some(&failure),
                self.now,
            );
            self.drop_stale(&model, Some(seq), &mut effects);
            self.reroute(effects);
        }
        self.end_probe(&model, seq);
        self.after_failure(seq, &model, failure, partial);
    }

    /// Decides what follows a failed attempt, within the bounds on the whole chain.
    fn after_failure(
        &mut self,
        seq: Seq,
        model: &ModelName,
        failure: Failure,
        partial: Option<Body>,
    ) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        let may_start_anew = !consultation.shown || consultation.options.allow_restart;
        let routing = &self.state.policy.routing;
        // A task may take hours; it has its deadline.
        let is_late = message.kind != MessageType::Delegation
            && self.now.wall.since(message.accepted_at) >= routing.max_total;
        let is_spent = is_late || consultation.chain().len() >= routing.max_attempts as usize;
        // Nothing is gained by a wait that the deadline ends.
        let verdict = match route::verdict(&failure, consultation.tries_here, routing, self.now) {
            Verdict::Again { at: until } | Verdict::ShortWait { until }
                if until >= message.deadline =>
            {
                Verdict::Next
            }
            verdict => verdict,
        };
        let (candidate, is_alone) = (consultation.candidate, consultation.options.no_fallback);
        let why = format!("{model}: {}", failure.class.as_str());
        if !may_start_anew || is_spent {
            self.end(seq, MessageState::Failed, Some(failure), partial);
            return;
        }
        match verdict {
            Verdict::Fail => self.end(seq, MessageState::Failed, Some(failure), partial),
            Verdict::Next | Verdict::Larger if is_alone => {
                self.end(seq, MessageState::Failed, Some(failure), partial);
            }
            Verdict::Next => self.route(seq, candidate + 1, &why),
            Verdict::Larger => {
                let window = self.model(model).map_or(0, |model| model.context_window);
                self.note(&Note::TooSmall { seq, window });
                self.route(seq, candidate + 1, &why);
            }
            Verdict::Again { at } if at <= self.now.wall => self.route(seq, candidate, &why),
            Verdict::Again { at } => self.wait_here(seq, model, candidate, at, &why),
            Verdict::ShortWait { until } => {
                match self.idle_candidate(seq, candidate).filter(|_| !is_alone) {
                    Some(next) => self.route(seq, next, &why),
                    None => self.wait_here(seq, model, candidate, until, &why),
                }
            }
        }
    }

    fn wait_here(
        &mut self,
        seq: Seq,
        model: &ModelName,
        candidate: u32,
        until: broker_proto::WallTime,
        why: &str,
    ) {
        self.place(seq, model, candidate, Some(until), Vec::new(), why);
    }

    /// A candidate behind this one that could begin at once.
    fn idle_candidate(&self, seq: Seq, candidate: u32) -> Option<u32> {
        let message = self.state.queue.get(seq)?;
        let consultation = message.consultation.as_ref()?;
        let chain = &self.model(&consultation.asked)?.chain;
        let judged = self.judged(chain, &consultation.needs(), seq);
        let next = chain.iter().zip(judged).enumerate().skip(candidate as usize + 1).find(
            |(_, (model, judged))| {
                judged.verdict == route::Judgement::Good && self.presence(model) == Presence::Idle
            },
        );
        next.and_then(|(place, _)| u32::try_from(place).ok())
    }

    fn reject(&mut self, seq: Seq, reason: &str) {
        let failure = Failure::new(FailureClass::InvalidRequest, "agent", reason);
        match self.attempt(seq, Some(failure.clone()), &Figures::default()) {
            Some(attempt) => self.attempt_failed(seq, Some(Box::new(attempt)), false),
            None => self.delivery_failed(seq, failure.clone()),
        }
        if planted::is(Bug::RejectedAgain) {
            return self.after_loss(seq);
        }
        self.bury(seq, failure, None);
    }

    /// Keeps why a mailbox's delivery failed, for the chain of errors (I-25).
    fn delivery_failed(&mut self, seq: Seq, failure: Failure) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(lease) = message.lease() else { return };
        let (subject, epoch, agent) = (message.subject(), message.epoch, lease.agent.clone());
        let (at, failure) = (self.now.wall, Box::new(failure));
        self.event(Event::DeliveryFailed { subject, at, epoch, agent, failure });
    }

    fn attempt_failed(&mut self, seq: Seq, attempt: Option<Box<Attempt>>, shown: bool) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let (subject, at) = (message.subject(), self.now.wall);
        if let Some(attempt) = attempt {
            let told = attempt.clone();
            self.event(Event::AttemptFailed { subject, at, attempt: told, shown });
            self.count_unsettled(seq, &attempt);
        }
    }

    /// Given back unworked: its turn again, and no attempt counted.
    fn release(&mut self, seq: Seq, shown: bool) {
        if shown {
            // Something of it was shown, so it was worked on after all.
            let failure = Failure::new(FailureClass::AgentLost, "agent", "the agent gave it back");
            self.failed(seq, failure, None, shown, &Figures::default());
        } else {
            self.after_loss(seq);
        }
    }

    /// Ends a lease without a settlement (I-16, I-17). A consultation's stream is closed before what follows is decided.
    ///
    /// `counts`: somebody worked on it, so it was an attempt. It wears the message out unless the broker's own stop
    /// may have ended it (I-25).
    pub(super) fn lose_lease(&mut self, seq: Seq, why: &str, counts: bool) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(lease) = message.lease() else { return };
        let (agent, instance) = (lease.agent.clone(), lease.instance.clone());
        let (subject, epoch) = (message.subject(), message.epoch);
        let (sender, is_consultation) =
            (Sender::clone(&message.sender), message.consultation.is_some());
        let (id, at) = (subject.id, self.now.wall);
        let attempt = self.attempt(seq, None, &Figures::default());
        let why = why.to_owned();
        let wears_out = counts && !self.state.queue.is_inherited(seq);
        self.event(Event::LeaseLost { subject, at, epoch, why: why.clone(), counts: wears_out });
        self.effect(Effect::Revoke { agent, instance, seq, epoch, id, reason: why });
        if is_consultation {
            self.note(&Note::LostAttempt { seq, attempt: attempt.map(Box::new), counts });
            self.effect(Effect::Seal { seq, id, sender, epoch });
        } else {
            self.after_loss(seq);
        }
    }

    /// The stream of a lost attempt is closed; now it is known whether anything of it was shown.
    pub(super) fn sealed(&mut self, seq: Seq, epoch: u32, shown: bool, partial: Option<Body>) {
        if self.stopped(seq, epoch, partial.clone()) {
            return;
        }
        let Some(message) = self.state.queue.get(seq) else { return };
        let is_closing = matches!(message.place, Place::Closing) && message.epoch == epoch;
        if !is_closing {
            return;
        }
        let (counts, attempt) = message.lost_attempt().cloned().unwrap_or((true, None));
        if !counts && !shown {
            self.after_loss(seq);
            return;
        }
        let failure =
            Failure::new(FailureClass::AgentLost, "broker", "the agent that worked on it was lost");
        let Some(mut attempt) = attempt else {
            self.after_loss(seq);
            return;
        };
        let model = attempt.model.clone();
        attempt.failure = Some(failure.clone());
        self.attempt_failed(seq, Some(attempt), shown);
        self.end_probe(&model, seq);
        if self.is_worn_out(seq) {
            self.bury(seq, failure, partial);
        } else {
            self.after_failure(seq, &model, failure, partial);
        }
    }

    fn is_worn_out(&self, seq: Seq) -> bool {
        let most =
            self.state.policy.max_lost_leases + u32::from(planted::is(Bug::AttemptsOffByOne));
        self.state.queue.get(seq).is_some_and(|m| u32::from(m.lost()) >= most)
    }

    /// Back to its turn, or to the dead letters when it has worn out too many leases (I-25).
    fn after_loss(&mut self, seq: Seq) {
        if self.is_worn_out(seq) {
            let failure = Failure::new(
                FailureClass::AgentLost,
                "broker",
                "every agent that worked on it was lost",
            );
            self.bury(seq, failure, None);
            return;
        }
        let Some(message) = self.state.queue.get(seq) else { return };
        if let Some(consultation) = &message.consultation {
            let candidate = consultation.candidate;
            self.route(seq, candidate, "given back");
            return;
        }
        let (subject, queue) = (message.subject(), Recipient::clone(&message.queue));
        self.event(Event::Routed {
            subject,
            at: self.now.wall,
            queue: queue.clone(),
            candidate: 0,
            wait_until: None,
            passed_over: Vec::new(),
            why: "its lease was lost".into(),
        });
        self.dispatch(&queue);
    }

    pub(super) fn corrupt(&mut self, seq: Seq, epoch: u32) {
        let Some(message) = self.state.queue.get(seq).filter(|m| m.epoch == epoch) else { return };
        let queue = Recipient::clone(&message.queue);
        // Nothing was sent, so its link has still got the credit.
        let credit = message.lease().and_then(|lease| {
            let mut links = self.state.agent.links_of(&lease.agent);
            let (link, _) = links.find(|(_, link)| link.instance == lease.instance)?;
            Some(Note::Credit { link, messages: 1, size_bytes: self.delivered_bytes(seq) })
        });
        let failure = Failure::new(
            FailureClass::Internal,
            "broker",
            "CORRUPT: the stored message is not what was acknowledged",
        );
        self.bury(seq, failure, None);
        if let Some(credit) = credit {
            self.note(&credit);
            self.dispatch(&queue);
        }
    }

    pub(super) fn cancel(&mut self, sender: &Sender, id: MessageId) -> Result<Reply, Refusal> {
        let Some(message) = self.state.queue.find(sender, id) else {
            return Err(Refusal::UnknownMessage(id));
        };
        let seq = message.seq;
        if !planted::is(Bug::CancelForgotten) {
            self.end(seq, MessageState::Cancelled, None, None);
        }
        Ok(Reply::State(MessageState::Cancelled))
    }

    /// A call that did not settle here: made elsewhere, cancelled, or lost.
    pub(super) fn report(
        &mut self,
        model: &ModelName,
        usage: Usage,
        limits: &[RateLimit],
        failure: Option<&Failure>,
    ) -> Result<Reply, Refusal> {
        let Some(policy) = self.model(model) else {
            let given = model.to_string();
            return Err(Refusal::UnknownModel { given, nearest: Vec::new() });
        };
        let effects = failure.map(|failure| {
            route::consequences(
                &self.state.route,
                &self.state.policy,
                policy,
                Some(failure),
                self.now,
            )
        });
        self.count_report(model, usage, limits, failure.map(|failure| failure.class));
        if let Some(mut effects) = effects {
            self.drop_stale(model, None, &mut effects);
            self.reroute(effects);
        }
        Ok(Reply::None)
    }
}
