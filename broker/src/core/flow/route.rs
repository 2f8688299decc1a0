//! Moving a consultation along its chain, and ending it.

use broker_proto::{
    Attempt, Failure, FailureClass, MessageState, ModelName, Recipient, Sender, StopReason, Usage,
    WallTime,
};

use super::{Run, settle::Figures};
use crate::core::{
    Effect, Event, Finished, Note,
    command::terminal,
    planted,
    policy::Model,
    queue::{Answered, Body, Consultation, Place, Seq},
    route::{self, Bounds, Choice, Judged, Needs, Presence},
    usage::Short,
};

/// Messages that one sweep may move, so that a batch stays small.
const SWEEP_STEPS: usize = 32;

impl Consultation {
    pub(in crate::core) fn needs(&self) -> Needs {
        Needs {
            prompt_bytes: self.prompt_bytes,
            history_bytes: self.history_bytes,
            has_images: self.needs_vision,
            max_output_tokens: self.max_output_tokens,
            max_cost_usd: self.options.max_cost_usd.map(|budget| (budget - self.spent()).max(0.0)),
            max_tokens: self.options.max_tokens.map(|budget| budget.saturating_sub(self.tokens())),
            too_small: self.too_small,
        }
    }
}

impl Consultation {
    /// USD of the attempts so far, as far as they are known: one budget holds over the whole chain.
    fn spent(&self) -> f64 {
        self.attempts.iter().filter_map(|attempt| attempt.cost_usd).sum()
    }

    /// Tokens of the attempts so far, as far as they are known.
    fn tokens(&self) -> u64 {
        let of = |usage: Usage| {
            let input = [usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens];
            input.into_iter().chain([usage.output_tokens]).flatten().sum::<u64>()
        };
        self.attempts.iter().map(|attempt| of(attempt.usage)).sum()
    }
}

/// What else there is to say of a message that ends.
#[derive(Debug, Default)]
pub(super) struct Ending<'a> {
    pub(super) reply: Option<Body>,
    pub(super) answered: Option<(Attempt, Option<StopReason>)>,
    /// Why a session does not go on with its answer.
    pub(super) not_appended: Option<String>,
    /// What its model was not sent of its session's history.
    pub(super) shortened: Option<String>,
    pub(super) passed_over: &'a [broker_proto::PassedOver],
}

impl Run<'_> {
    /// Places a consultation at the first candidate from `from` on that may be called, or ends it.
    pub(super) fn route(&mut self, seq: Seq, from: u32, why: &str) {
        if self.is_held_by_pause(seq) {
            return;
        }
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        let Some(asked) = self.model(&consultation.asked) else {
            let failure = Failure::new(
                FailureClass::ModelNotFound,
                "broker",
                format!("{} is no longer configured", consultation.asked),
            );
            self.end(seq, MessageState::Failed, Some(failure), None);
            return;
        };
        let chain = asked.chain.clone();
        let needs = consultation.needs();
        // Where nobody was called yet, an earlier candidate that has come back is as good as new.
        // A task that is taken up again begins anew.
        let is_anew = matches!(message.place, Place::Held(_));
        let walked = if is_anew { &[][..] } else { consultation.chain() };
        let from = if walked.is_empty() { 0 } else { from };
        if consultation.options.no_fallback {
            self.route_without_fallback(seq, &needs, why);
            return;
        }
        let deadline = message.deadline;
        // A provider has refused it: whoever asked learns that now, and not when some agent comes.
        let mut failures = walked.iter().filter_map(|a| a.failure.as_ref());
        let was_refused = failures.any(|failure| failure.class != FailureClass::AgentLost);
        let bounds = Bounds { may_wait_until: deadline, may_wait_for_agents: !was_refused };
        let judged = self.judged(&chain, &needs, seq);
        let (choice, passed_over) =
            route::choose(&self.state.policy, &chain, &judged, from as usize, bounds, self.now);
        match choice {
            Choice::Call { candidate, is_probe } => {
                let Some(model) = chain.get(candidate as usize).cloned() else { return };
                self.place(seq, &model, candidate, None, passed_over, why);
                if is_probe {
                    self.note(&Note::Probing { model: model.clone(), seq: Some(seq) });
                }
                self.dispatch(&Recipient::Model(model));
            }
            Choice::Wait { candidate, until } => {
                let Some(model) = chain.get(candidate as usize).cloned() else { return };
                let why = format!("{why}; waits for {model}");
                self.place(seq, &model, candidate, Some(until), passed_over, &why);
            }
            Choice::Nobody { class, retry_at, detail } => {
                let failure = self.nobody(seq, class, retry_at, detail);
                let ending = Ending { passed_over: &passed_over, ..Ending::default() };
                self.end_with(seq, MessageState::Failed, Some(failure), ending);
            }
        }
    }

    /// The named model and no other: what speaks against it for good fails, what may pass is the person's probe.
    fn route_without_fallback(&mut self, seq: Seq, needs: &Needs, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(asked) = message.consultation.as_ref().map(|c| c.asked.clone()) else { return };
        let deadline = message.deadline;
        let judged = self.model(&asked).map(|model| match self.judge(model, needs, seq) {
            // Its shut gate is passed, a budget is not.
            judged @ Judged { verdict: route::Judgement::Shut { .. }, .. } => {
                self.within_budget(judged, model, seq)
            }
            judged => judged,
        });
        let failed = |class, reason| Failure::new(class, "broker", format!("{asked}: {reason}"));
        let refused = match judged {
            Some(Judged { verdict: route::Judgement::Unfit(class), reason }) => {
                Some(failed(class, reason))
            }
            Some(Judged { verdict: route::Judgement::Delayed { until }, reason }) => {
                if until < deadline {
                    let why = format!("{why}; waits for {asked}");
                    self.place(seq, &asked, 0, Some(until), Vec::new(), &why);
                    return;
                }
                Some(Failure { retry_at: Some(until), ..failed(FailureClass::Budget, reason) })
            }
            Some(Judged { verdict: route::Judgement::Spent { until }, reason }) => {
                Some(Failure { retry_at: until, ..failed(FailureClass::Budget, reason) })
            }
            _ => None,
        };
        if let Some(failure) = refused {
            self.end(seq, MessageState::Failed, Some(failure), None);
            return;
        }
        self.place(seq, &asked, 0, None, Vec::new(), why);
        self.dispatch(&Recipient::Model(asked));
    }

    /// Every model of a chain, judged for one message.
    pub(super) fn judged(&self, chain: &[ModelName], needs: &Needs, seq: Seq) -> Vec<Judged> {
        let models = chain.iter().filter_map(|name| self.model(name));
        models.map(|model| self.judge(model, needs, seq)).collect()
    }

    fn judge(&self, model: &Model, needs: &Needs, seq: Seq) -> Judged {
        let presence = self.presence(&model.name);
        let judged =
            route::judge(&self.state.route, &self.state.policy, model, needs, presence, self.now);
        // The message that tries a model does not wait for itself, and nobody for one that waits for others.
        let prober = self.state.route.prober(&model.name);
        let is_under_way = prober.is_some_and(|p| p != seq && !self.state.queue.is_held_back(p));
        let judged = match judged.verdict {
            route::Judgement::UnderProbe if !is_under_way => {
                Judged { verdict: route::Judgement::Probe, reason: String::new() }
            }
            _ => judged,
        };
        match judged.verdict {
            route::Judgement::Unfit(_) | route::Judgement::Shut { .. } => judged,
            _ => self.within_budget(judged, model, seq),
        }
    }

    /// The same, or what speaks against it when a budget has no room for the message.
    fn within_budget(&self, judged: Judged, model: &Model, seq: Seq) -> Judged {
        self.unless_short(judged, self.afford(seq, model).err())
    }

    fn unless_short(&self, judged: Judged, short: Option<Short>) -> Judged {
        let Some(short) = short else { return judged };
        let verdict = match (short.resets_at, &judged.verdict) {
            // Who is not there is not waited for on top of that.
            (Some(_), route::Judgement::Absent) if short.is_passing => return judged,
            (Some(until), _) if short.is_passing => route::Judgement::Delayed { until },
            (resets_at, _) => {
                route::Judgement::Spent { until: resets_at.filter(|_| short.fits_anew) }
            }
        };
        Judged { verdict, reason: short.words }
    }

    /// The same of a question that was not sent: what its budgets have room for now.
    pub(super) fn judged_unsent(
        &self,
        chain: &[ModelName],
        needs: &Needs,
        session: Option<&str>,
    ) -> Vec<Judged> {
        let judged = self.judged(chain, needs, Seq(0)).into_iter();
        let models = chain.iter().filter_map(|name| self.model(name));
        let of = |(judged, model): (Judged, &Model)| match judged.verdict {
            route::Judgement::Unfit(_) | route::Judgement::Shut { .. } => judged,
            _ => self.unless_short(judged, self.afford_for(model, needs, session).err()),
        };
        judged.zip(models).map(of).collect()
    }

    pub(super) fn presence(&self, model: &ModelName) -> Presence {
        let queue = Recipient::Model(model.clone());
        if self.state.agent.serving(&queue) == 0 {
            return if self.state.agent.is_absent(model, self.now.boot) {
                Presence::Absent
            } else {
                Presence::Expected
            };
        }
        let (ready, _, _) = self.state.queue.load(&queue);
        if ready == 0
            && !self.state.queue.is_paused(&queue)
            && self.state.agent.taker(&queue, 0, None).is_some()
        {
            Presence::Idle
        } else {
            Presence::Busy
        }
    }

    pub(super) fn place(
        &mut self,
        seq: Seq,
        model: &ModelName,
        candidate: u32,
        wait_until: Option<WallTime>,
        passed_over: Vec<broker_proto::PassedOver>,
        why: &str,
    ) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let queue = Recipient::Model(model.clone());
        let stays = matches!(message.place, Place::Ready) && *message.queue == queue;
        if stays && wait_until.is_none() {
            return;
        }
        let subject = message.subject();
        let left = message.model().filter(|left| *left != model).cloned();
        let at = self.now.wall;
        let why = self.with_own_agent(seq, &queue, why);
        self.event(Event::Routed { subject, at, queue, candidate, wait_until, passed_over, why });
        if let Some(until) = wait_until {
            self.note(&Note::WaitRuns { seq, due: self.now.boot_at(until) });
        }
        if let Some(left) = left {
            self.end_probe(&left, seq);
        }
    }

    /// A waiting message's time has come: whoever may be called now is.
    pub(super) fn wake(&mut self, seq: Seq) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let queue = Recipient::clone(&message.queue);
        match &message.consultation {
            Some(consultation) => {
                let candidate = consultation.candidate;
                self.route(seq, candidate, "its wait is over");
            }
            None => {
                let subject = message.subject();
                self.event(Event::Routed {
                    subject,
                    at: self.now.wall,
                    queue: queue.clone(),
                    candidate: 0,
                    wait_until: None,
                    passed_over: Vec::new(),
                    why: "its wait is over".into(),
                });
                self.dispatch(&queue);
            }
        }
    }

    /// Routes again what waits in a model's queue, after what is known of the model has changed.
    pub(super) fn sweep(&mut self, model: &ModelName) {
        let queue = Recipient::Model(model.clone());
        let waiting: Vec<Seq> =
            self.state.queue.ready(&queue).map(crate::core::queue::Ready::all).unwrap_or_default();
        let before = self.events.len();
        let mut is_done = true;
        // First, because what moves here may ask for another sweep.
        self.note(&Note::Sweep { model: model.clone(), is_due: false });
        for seq in waiting {
            if self.events.len() - before >= SWEEP_STEPS {
                is_done = false;
                break;
            }
            let Some(message) = self.state.queue.get(seq) else { continue };
            let Some(consultation) = &message.consultation else { continue };
            if consultation.options.no_fallback {
                continue;
            }
            let candidate = consultation.candidate;
            self.route(seq, candidate, "routed again");
        }
        if !is_done {
            self.note(&Note::Sweep { model: model.clone(), is_due: true });
        }
    }

    /// Takes in what an attempt's end says of models, and lets their queues feel it.
    pub(super) fn reroute(&mut self, effects: route::Effects) {
        for (model, route) in effects {
            if self.state.route.get(&model) == route {
                continue;
            }
            let is_available = route.shut.is_none();
            let reason = route.shut.as_ref().map(|shut| shut.reason.clone()).unwrap_or_default();
            let was_available = self.state.route.shut(&model).is_none();
            let at = self.now.wall;
            self.event(Event::RouteChanged { model: model.clone(), at, route });
            self.assess_model(&model);
            if is_available && !was_available {
                self.may_be_home(&model);
                self.dispatch(&Recipient::Model(model.clone()));
            }
            if !is_available {
                self.note(&Note::Probing { model: model.clone(), seq: None });
                self.note(&Note::Sweep { model: model.clone(), is_due: true });
                let until = self.state.route.shut(&model).and_then(|shut| shut.until);
                self.is_away_until(&model, until);
            }
            if is_available != was_available {
                self.effect(Effect::ModelChanged { model, is_available, reason });
            }
        }
        while let Some(model) = self.state.route.to_sweep().cloned() {
            let before = self.events.len();
            self.sweep(&model);
            // What is left over is the next tick's.
            if self.events.len() - before >= SWEEP_STEPS {
                break;
            }
        }
    }

    /// Ends a consultation for which no candidate is left.
    fn nobody(
        &self,
        seq: Seq,
        class: FailureClass,
        retry_at: Option<WallTime>,
        detail: String,
    ) -> Failure {
        let attempts = self.state.queue.get(seq).and_then(|m| m.consultation.as_ref());
        let last = attempts.and_then(|c| c.attempts.last()).and_then(|a| a.failure.clone());
        let mut failure = match last {
            Some(last) => Failure { detail: format!("{}; {detail}", last.detail), ..last },
            None => Failure::new(class, "broker", detail),
        };
        let is_ahead = |at: &WallTime| *at > self.now.wall;
        failure.retry_at =
            [failure.retry_at.filter(is_ahead), retry_at].into_iter().flatten().min();
        failure
    }

    pub(super) fn expire(&mut self, seq: Seq) {
        self.end(seq, planted::expired(), None, None);
    }

    pub(super) fn end_abandoned(&mut self, seq: Seq) {
        self.end(seq, MessageState::Cancelled, None, None);
    }

    pub(super) fn end(
        &mut self,
        seq: Seq,
        state: MessageState,
        failure: Option<Failure>,
        reply: Option<Body>,
    ) {
        self.end_with(seq, state, failure, Ending { reply, ..Ending::default() });
    }

    /// The one terminal outcome of a message (I-6), its reply in the same commit (I-20).
    pub(super) fn end_with(
        &mut self,
        seq: Seq,
        state: MessageState,
        failure: Option<Failure>,
        ending: Ending<'_>,
    ) {
        let Ending { reply, answered, not_appended, shortened, passed_over } = ending;
        let Some(message) = self.state.queue.get(seq) else { return };
        let subject = message.subject();
        // A lease that is still held is settled by this end, unless its agent had no part in it.
        let is_settled = message.lease().is_some()
            && !matches!(state, MessageState::Expired | MessageState::Cancelled);
        let epoch = if is_settled { message.epoch } else { message.settled().unwrap_or(0) };
        let sender = Sender::clone(&message.sender);
        let model = message.model().cloned();
        let cut_short = self.cut_short(seq, state);
        self.cancel_lease(seq, state);
        let Some(message) = self.state.queue.get(seq) else { return };
        let summary = message.consultation.as_ref().map(|consultation| {
            let answered = answered.and_then(|(attempt, stop_reason)| {
                let model = self.model(&attempt.model)?;
                Some(Answered { attempt, stop_reason, model })
            });
            let mut summary = consultation.summary(subject.id, answered);
            (summary.not_appended, summary.shortened) = (not_appended, shortened);
            if let Some(attempt) = &cut_short {
                summary.cost_usd = summary.cost_usd.zip(attempt.cost_usd).map(|(a, b)| a + b);
                summary.attempts.push(attempt.clone());
            }
            for passed in passed_over {
                if summary.passed_over.iter().all(|before| before.model != passed.model)
                    && summary.attempts.iter().all(|attempt| attempt.model != passed.model)
                {
                    summary.passed_over.push(passed.clone());
                }
            }
            summary
        });
        if let Some(attempt) = cut_short {
            self.count_unsettled(seq, &attempt);
        }
        let at = self.now.wall;
        self.event(Event::Finished(Box::new(Finished {
            subject,
            at,
            state,
            epoch,
            summary: summary.clone(),
            failure: failure.clone(),
            reply,
            copies: 0,
        })));
        if let Some(model) = model {
            self.end_probe(&model, seq);
        }
        if let Some(summary) = summary {
            let terminal = Box::new(terminal(state, failure, summary));
            self.effect(Effect::Closed { seq, id: subject.id, sender, terminal });
        }
    }

    /// The attempt that its message's end ends with it, so that the summary names who was being called.
    fn cut_short(&self, seq: Seq, state: MessageState) -> Option<Attempt> {
        let (class, why) = match state {
            MessageState::Expired => (FailureClass::Timeout, "the deadline came first"),
            MessageState::Cancelled => (FailureClass::Cancelled, "it was cancelled"),
            MessageState::Queued
            | MessageState::Waiting
            | MessageState::Leased
            | MessageState::Done
            | MessageState::Failed
            | MessageState::Dead
            | MessageState::Purged => return None,
        };
        self.state.queue.get(seq)?.lease()?;
        self.attempt(seq, Some(Failure::new(class, "broker", why)), &Figures::default())
    }

    /// A lease whose message has ended is not worked on any further.
    fn cancel_lease(&mut self, seq: Seq, state: MessageState) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(lease) = message.lease() else { return };
        if !matches!(state, MessageState::Expired | MessageState::Cancelled) {
            return;
        }
        let effect = Effect::Cancel {
            agent: lease.agent.clone(),
            instance: lease.instance.clone(),
            seq,
            epoch: message.epoch,
            id: message.id,
            reason: state.as_str().into(),
        };
        self.effect(effect);
    }

    /// A message that tried a model has left it: the next one may.
    pub(super) fn end_probe(&mut self, model: &ModelName, seq: Seq) {
        if self.state.route.prober(model) != Some(seq) {
            return;
        }
        self.note(&Note::Probing { model: model.clone(), seq: None });
        self.note(&Note::Sweep { model: model.clone(), is_due: true });
    }
}
