//! Calls as they are counted, what they reserve before, and the levels they lead to.

use std::time::Duration;

use broker_proto::{
    Attempt, FailureClass, ModelName, Provenance, RateLimit, SessionId, Usage, UsageRecord,
    WallTime,
};

use super::Run;
use crate::core::{
    Effect, Event, Note, Refusal, Reply,
    policy::Model,
    queue::Seq,
    route,
    usage::{
        self, Amount, Call, Cause, Change, Command, Ended, Kind, Level, Nanos, Record, Reservation,
        Said, Scope, Short, Source, Subject, Wanted,
    },
};

/// A provider's word that it refuses for longer than a minute's bucket explains is a limit.
const MORE_THAN_A_DELAY: Duration = Duration::from_secs(60);

impl Run<'_> {
    pub(super) fn of_usage(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Record(record) => self.record(record),
            Command::Holds { session, model, tokens } => {
                self.known_model(&model)?;
                self.session_holds(session, model, tokens, false);
                Ok(Reply::None)
            }
            Command::SetPolicy { set, unset } => self.set_policy(set, &unset),
            Command::Reset(scope) => self.reset(scope),
        }
    }

    fn known_model(&self, name: &ModelName) -> Result<&Model, Refusal> {
        let unknown = || Refusal::UnknownModel { given: name.to_string(), nearest: Vec::new() };
        self.model(name).ok_or_else(unknown)
    }

    /// The entries of a session hold `tokens` now, in the window of `model`: to be told after every change of one of the
    /// two. It decides the session's level in the same commit. A session that was just handed over is `is_fresh`: nothing
    /// of what was recorded for its last owner is in the new one's window.
    pub(in crate::core) fn session_holds(
        &mut self,
        session: String,
        model: ModelName,
        tokens: u64,
        is_fresh: bool,
    ) {
        let meter = self.state.usage.meter(&Scope::Session(session.clone()));
        let (held, on) = meter.map_or((0, None), |m| (m.session.held, m.session.model.as_ref()));
        if !is_fresh && held == tokens && (tokens == 0 || on == Some(&model)) {
            return;
        }
        let at = self.now.wall;
        let name = session.clone();
        self.event(Event::Usage(usage::Event::Holds { session, model, at, tokens, is_fresh }));
        self.after_session(&name);
    }

    /// A session of whose figures nothing is known any more holds what it holds.
    pub(super) fn recount(&mut self, session: &SessionId) {
        let name = session.to_string();
        let meter = self.state.usage.meter(&Scope::Session(name.clone()));
        if meter.is_some_and(|meter| meter.session.model.is_some()) {
            return;
        }
        if let Some(session) = self.state.session.get(session) {
            let (owner, tokens) = (session.info.owner.model.clone(), session.info.window_tokens());
            self.session_holds(name, owner, tokens, false);
        }
    }

    /// An attempt at a message, as it is counted.
    fn call_of(&self, seq: Seq, attempt: &Attempt, limits: &[RateLimit]) -> Call {
        let key = self.model(&attempt.model).map_or("", |model| &model.key);
        let consultation = self.state.queue.get(seq).and_then(|m| m.consultation.as_ref());
        let failed = attempt.failure.as_ref().map(|failure| Ended::Failed(failure.class));
        Call {
            session: consultation.and_then(|c| c.session.as_deref()).map(str::to_owned),
            message: self.state.queue.get(seq).map(|message| message.id),
            number: attempt.number,
            agent: attempt.agent.clone(),
            ended: failed.unwrap_or(Ended::Done),
            usage: attempt.usage,
            cost: attempt.cost_usd.map(Nanos::from_usd),
            latency: Some(attempt.latency),
            first_token: attempt.first_token,
            limits: limits.to_vec(),
            ..Call::new(self.now.wall, Source::Attempt, attempt.model.clone(), key)
        }
    }

    /// Counts an attempt whose agent settled it.
    pub(super) fn count_attempt(&mut self, seq: Seq, attempt: &Attempt, limits: &[RateLimit]) {
        let call = self.call_of(seq, attempt, limits);
        self.count(call);
    }

    /// Writes an attempt down that nobody settled. What was sent of its prompt may have been billed when its agent was
    /// lost, and nobody will tell; of one that was ended from here, its agent still reports.
    pub(super) fn count_unsettled(&mut self, seq: Seq, attempt: &Attempt) {
        let mut call = self.call_of(seq, attempt, &[]);
        call.requests = 0;
        let is_lost = call.ended == Ended::Failed(FailureClass::AgentLost);
        if let (true, Some(wanted)) = (is_lost, self.wanted(seq, &attempt.model)) {
            call.usage.input_tokens = Some(wanted.input);
            call.usage.provenance = Provenance::Estimated;
            call.cost = wanted.prices.map(|(input, _)| input);
        }
        self.count(call);
    }

    /// Counts a call that did not settle here: made elsewhere, cancelled, or lost.
    pub(super) fn count_report(
        &mut self,
        model: &ModelName,
        usage: Usage,
        limits: &[RateLimit],
        class: Option<FailureClass>,
    ) {
        let Some(policy) = self.model(model) else { return };
        let cost = usage::cost(policy.prices, usage);
        let is_unbilled = class.is_some_and(usage::is_unbilled);
        let call = Call {
            ended: class.map_or(Ended::Unknown, Ended::Failed),
            usage,
            cost: cost.or_else(|| is_unbilled.then_some(0.0)).map(Nanos::from_usd),
            limits: limits.to_vec(),
            ..Call::new(self.now.wall, Source::Reported, model.clone(), &policy.key)
        };
        self.count(call);
    }

    fn count(&mut self, call: Call) {
        let (model, session) = (call.model.clone(), call.session.clone());
        self.event(Event::Usage(usage::Event::Counted(Box::new(call))));
        if let Some(session) = session {
            self.after_session(&session);
        }
        self.assess_model(&model);
        if self.state.usage.has_budgets() {
            self.assess_models();
        }
    }

    fn after_session(&mut self, session: &str) {
        self.assess_session(session);
        if let Some(oldest) = self.state.usage.to_forget().map(str::to_owned) {
            let at = self.now.wall;
            self.event(Event::Usage(usage::Event::Forgotten { session: oldest, at }));
        }
    }

    fn record(&mut self, record: Record) -> Result<Reply, Refusal> {
        let Record { model, session, what } = record;
        let of_session = session.as_ref().and_then(|name| self.model_of_session(name));
        let of_session = of_session.map(|model| model.name.clone());
        let first = || self.in_order().next().map(|model| model.name.clone());
        let Some(model) = model.or(of_session).or_else(first) else {
            return Err(Refusal::UnknownModel { given: String::new(), nearest: Vec::new() });
        };
        let policy = self.known_model(&model)?;
        let new = Call::new(self.now.wall, Source::Recorded, model.clone(), &policy.key);
        let signal = Call { requests: 0, session: session.clone(), ..new };
        let call = match what {
            UsageRecord::Tokens(usage) => {
                let cost = usage::cost(policy.prices, usage).map(Nanos::from_usd);
                Call { requests: 1, usage, cost, grows_session: true, ..signal }
            }
            UsageRecord::RateLimit => {
                // Nobody bills what was refused.
                let ended = Ended::Failed(FailureClass::RateLimited);
                Call { ended, cost: Some(Nanos(0)), ..signal }
            }
            UsageRecord::Slow(took) => {
                Call { latency: Some(took), first_token: Some(took), ..signal }
            }
            UsageRecord::Success => Call { ended: Ended::Done, ..signal },
            UsageRecord::Error => Call { ended: Ended::Failed(FailureClass::Internal), ..signal },
            UsageRecord::Session { complexity, rating } => {
                let session = session.unwrap_or_default();
                let at = self.now.wall;
                let said = Said { session: session.clone(), at, complexity, rating };
                self.event(Event::Usage(usage::Event::Said(said)));
                self.after_session(&session);
                if let Ok(session) = SessionId::parse(&session) {
                    self.advise(&session, 0);
                }
                return Ok(Reply::OfUsage(usage::Reply::Recorded(model)));
            }
        };
        let session = call.session.clone();
        self.count(call);
        if let Some(session) = session {
            self.still_at_limit(&session);
        }
        Ok(Reply::OfUsage(usage::Reply::Recorded(model)))
    }

    fn set_policy(
        &mut self,
        set: std::collections::BTreeMap<String, String>,
        unset: &[String],
    ) -> Result<Reply, Refusal> {
        let mut overrides = self.state.usage.overrides().clone();
        for key in unset {
            if overrides.remove(key).is_none() && !set.contains_key(key) {
                return Err(usage::Invalid::NotSet(key.clone()).into());
            }
        }
        overrides.extend(set);
        let rules = usage::Rules::with(self.state.usage.file(), &overrides)?;
        let mut limits = self.state.policy.handoff.limits.values();
        if limits.any(|limit| *limit <= rules.thresholds.warning) {
            let why =
                "`warning` must be below the limit of each model (`brokerctl handoff config`)";
            return Err(usage::Invalid::Contradiction(why).into());
        }
        let at = self.now.wall;
        self.event(Event::Usage(usage::Event::PolicySet { at, overrides }));
        self.assess_all();
        Ok(self.usage_query(usage::Query::Policy))
    }

    fn reset(&mut self, scope: Scope) -> Result<Reply, Refusal> {
        match &scope {
            Scope::Model(model) => {
                self.known_model(model)?;
            }
            Scope::Session(name) if self.state.usage.meter(&scope).is_none() => {
                return Err(Refusal::UncountedSession(name.clone()));
            }
            Scope::Namespace | Scope::Key(_) | Scope::Session(_) => {}
        }
        let at = self.now.wall;
        let subject = match &scope {
            Scope::Model(model) => Some(Subject::Model(model.clone())),
            Scope::Session(name) => Some(Subject::Session(name.clone())),
            Scope::Namespace | Scope::Key(_) => None,
        };
        if let Some(subject) = subject {
            self.become_healthy(subject);
        }
        let session = match &scope {
            Scope::Session(name) => SessionId::parse(name).ok(),
            _ => None,
        };
        self.event(Event::Usage(usage::Event::Reset { scope, at }));
        if let Some(session) = session {
            self.recount(&session);
        }
        self.assess_all();
        Ok(Reply::None)
    }

    /// A reset is told as what it does to the level.
    fn become_healthy(&mut self, subject: Subject) {
        let held = self.state.usage.level(&subject);
        if held.level > Level::Healthy {
            let healthy = Change {
                at: self.now.wall,
                model: None,
                from: held.level,
                to: Level::Healthy,
                cause: String::new(),
                reason: "what was counted begins anew".into(),
                action: usage::Action::None,
                diagnosis: Vec::new(),
                subject,
            };
            self.level_changed(healthy);
        }
    }

    /// What a message would take of its budgets at this model.
    fn wanted(&self, seq: Seq, model: &ModelName) -> Option<Wanted> {
        let model = self.model(model)?;
        let consultation = self.state.queue.get(seq)?.consultation.as_ref()?;
        Some(self.wanted_for(model, &consultation.needs()))
    }

    fn wanted_for(&self, model: &Model, needs: &route::Needs) -> Wanted {
        let least = self.state.policy.routing.min_output_tokens;
        let cap = route::output_cap(model, needs, least).ok().flatten();
        wanted(model, needs.input(model, least), cap, needs.max_output_tokens, least)
    }

    /// What budgets leave for a question that was not sent, as [`Run::afford`] says of one that was.
    pub(super) fn afford_for(
        &self,
        model: &Model,
        needs: &route::Needs,
        session: Option<&str>,
    ) -> Result<Option<(u64, Amount)>, Short> {
        let scopes = usage::scopes(&model.name, &model.key, session);
        let budgets = &self.state.usage.rules().budgets;
        let wanted = self.wanted_for(model, needs);
        self.state.usage.afford(budgets, &scopes, &wanted, self.now.wall)
    }

    /// The most output tokens that budgets leave for a message at this model, and what to reserve for it; `None` where
    /// no budget applies.
    pub(super) fn afford(&self, seq: Seq, model: &Model) -> Result<Option<(u64, Amount)>, Short> {
        if !self.state.usage.has_budgets() {
            return Ok(None);
        }
        let consultation = self.state.queue.get(seq).and_then(|m| m.consultation.as_ref());
        let Some(consultation) = consultation else { return Ok(None) };
        self.afford_for(model, &consultation.needs(), consultation.session.as_deref())
    }

    /// Reserves what a message that was just leased may use at most; gives the cap on its answer.
    pub(super) fn reserve(&mut self, seq: Seq, model: &ModelName) -> Option<u32> {
        let policy = self.model(model)?;
        let (output, amount) = self.afford(seq, policy).ok().flatten()?;
        let key = policy.key.clone();
        let consultation = self.state.queue.get(seq)?.consultation.as_ref()?;
        let session = consultation.session.as_deref().map(str::to_owned);
        let (at, model) = (self.now.wall, model.clone());
        let reservation = Reservation { seq, at, model, key, session, amount };
        self.event(Event::Usage(usage::Event::Reserved(Box::new(reservation))));
        u32::try_from(output).ok()
    }

    /// Whatever happens next to a leased message, its reservation ends: what it used is counted instead.
    pub(super) fn ends_lease(event: &Event) -> Option<Seq> {
        let is_lease = matches!(event, Event::Leased { .. });
        event.subject().map(|subject| subject.seq).filter(|_| !is_lease)
    }

    pub(super) fn release_budget(&mut self, seq: Seq) {
        if self.state.usage.is_reserved(seq) {
            let at = self.now.wall;
            self.event(Event::Usage(usage::Event::Released { seq, at }));
        }
    }

    pub(super) fn assess_all(&mut self) {
        self.assess_models();
        let sessions: Vec<String> = self
            .state
            .usage
            .levels()
            .filter_map(|(subject, _)| match subject {
                Subject::Session(name) => Some(name.clone()),
                Subject::Model(_) => None,
            })
            .collect();
        for session in sessions {
            self.assess_session(&session);
        }
    }

    fn assess_models(&mut self) {
        let models: Vec<ModelName> = self.in_order().map(|model| model.name.clone()).collect();
        for model in models {
            self.assess_model(&model);
        }
    }

    pub(super) fn assess(&mut self, subject: &Subject) {
        match subject {
            Subject::Model(model) => self.assess_model(model),
            Subject::Session(name) => self.assess_session(name),
        }
    }

    /// Decides a model's level anew.
    pub(super) fn assess_model(&mut self, name: &ModelName) {
        let Some(model) = self.model(name) else {
            // It is no longer configured; nobody asks for it.
            self.note(&Note::LookAtUsage { subject: Subject::Model(name.clone()), at: None });
            return;
        };
        let now = self.now.wall;
        let mut causes = self.state.usage.causes_of_model(name, &model.key, now);
        causes.extend(self.refused(name));
        self.settle_level(Subject::Model(name.clone()), Some(name.clone()), causes);
    }

    /// Whose window a session is in: its owner's, whoever answered a turn of it; of one that is only counted here, the
    /// model's that it was on last.
    pub(super) fn model_of_session(&self, name: &str) -> Option<&Model> {
        let owner = SessionId::parse(name).ok().and_then(|id| self.state.session.get(&id));
        let owner = owner.map(|session| &session.info.owner.model);
        let meter = self.state.usage.meter(&Scope::Session(name.to_owned()));
        let counted = meter.and_then(|meter| meter.session.model.as_ref());
        self.model(owner.or(counted)?)
    }

    fn assess_session(&mut self, name: &str) {
        let subject = Subject::Session(name.to_owned());
        let window = self.model_of_session(name).map(|model| (&model.name, model.context_window));
        let causes = self.state.usage.causes_of_session(name, window, self.now.wall);
        let model = window.map(|(model, _)| model.clone());
        self.settle_level(subject, model, causes);
    }

    /// What a provider's refusal says of a model: used up until a time, or until a person pays.
    pub(super) fn refused(&self, model: &ModelName) -> Option<Cause> {
        let shut = self.state.route.shut(model)?;
        let is_long =
            shut.until.is_some_and(|until| until.since(self.now.wall) > MORE_THAN_A_DELAY);
        let is_limit = match shut.class {
            FailureClass::QuotaExhausted | FailureClass::CreditExhausted => true,
            FailureClass::RateLimited => shut.is_told && is_long,
            _ => false,
        };
        is_limit.then(|| Cause {
            kind: Kind::Limit,
            name: "refused".into(),
            level: Level::Exhausted,
            reason: shut.reason.clone(),
            until: shut.until.filter(|until| *until > self.now.wall),
        })
    }

    fn settle_level(&mut self, subject: Subject, model: Option<ModelName>, causes: Vec<Cause>) {
        let held = self.state.usage.level(&subject);
        let soonest = |at: &WallTime| *at > self.now.wall;
        let raised = causes.iter().filter(|cause| cause.level > Level::Healthy);
        let look = raised.filter_map(|cause| cause.until).filter(soonest).min();
        let cause = usage::highest(causes, &held);
        let (level, name, action) = match &cause {
            Some(cause) => (cause.level, cause.name.as_str(), cause.action()),
            None => (Level::Healthy, "", usage::Action::None),
        };
        if (level, name, action) != (held.level, held.cause.as_str(), held.action) {
            let reason = cause.as_ref().map_or_else(
                || format!("no longer {}: {}", held.level.as_str(), held.cause),
                |cause| cause.reason.clone(),
            );
            let change = Change {
                at: self.now.wall,
                model,
                from: held.level,
                to: level,
                cause: name.to_owned(),
                reason,
                action,
                diagnosis: self.diagnosis(&subject, action),
                subject: subject.clone(),
            };
            self.level_changed(change);
        }
        self.note(&Note::LookAtUsage { subject, at: look });
    }

    /// The one place that every change of a level passes, in the commit of what led to it. The event says what is to be
    /// done ([`usage::Action`]): at `Prepare` a package is made, at the moves the arbiter decides where to.
    fn level_changed(&mut self, change: Change) {
        // A session that moves with its next turn finds its package then.
        let is_full =
            change.to == Level::Exhausted && matches!(change.subject, Subject::Session(_));
        if change.action == usage::Action::Prepare || is_full {
            let (subject, reason) = (change.subject.clone(), change.reason.clone());
            self.effect(Effect::Prepare(usage::Near { subject, reason }));
        }
        let (subject, action, reason) =
            (change.subject.clone(), change.action, change.reason.clone());
        let is_well = change.to == Level::Healthy;
        self.event(Event::Usage(usage::Event::LevelChanged(Box::new(change))));
        self.limit_reached(&subject, action, &reason);
        if let (Subject::Model(model), true) = (&subject, is_well) {
            self.may_be_home(model);
        }
    }

    /// The calls that went wrong, for the people who will look for the cause.
    fn diagnosis(&self, subject: &Subject, action: usage::Action) -> Vec<String> {
        if action != usage::Action::MoveDiagnosed {
            return Vec::new();
        }
        let Some(meter) = self.state.usage.meter(&subject.scope()) else { return Vec::new() };
        let thresholds = &self.state.usage.rules().thresholds;
        let line = |heard: &usage::Heard| {
            let class = heard.ended.class().map_or("", FailureClass::as_str);
            let which =
                heard.message.map_or("a call made elsewhere".to_owned(), |id| id.to_string());
            let ago = self.now.wall.since(heard.at).as_secs();
            format!("{which}: {class}, {ago} s before")
        };
        meter.signals.errors(thresholds, self.now.wall).map(line).collect()
    }
}

/// What a prompt of so many tokens would take of a budget.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn wanted(model: &Model, input: u64, cap: Option<u32>, asked: Option<u32>, least: u32) -> Wanted {
    let most_output = cap.map_or(model.max_output_tokens, u64::from);
    let prices = model.prices.map(|prices| {
        // Writing the prompt to the provider's cache is the dearest way to send it.
        let dearest = prices.input.max(prices.cache_write);
        (Nanos::from_usd(input as f64 * dearest / 1e6), prices.output * 1e3)
    });
    let least_output = u64::from(asked.unwrap_or(u32::MAX).min(least)).min(most_output);
    Wanted { input, least_output, most_output, prices }
}
