//! When sessions move, as people see and set it: the policy, the check of one session, and what is recommended to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{
    Advice, AskHandoff, HandoffCheck, HandoffOutlook, HandoffPolicyChange, HandoffStatus,
    LimitForecast, ModelName, Pace, SessionId, Trigger, TriggerKind, UsageSetting, UsageWindow,
};

use super::{Run, handoff::Wanted};
use crate::core::{
    Event, Note, Refusal, Reply,
    handoff::{
        Advised, Candidate, Case, Event as HandoffEvent, Reply as HandoffReply, Settings, Verdict,
        arbiter,
        policy::{Invalid, Known, written},
        trigger::{self, Complexity, Limit, Room, Worker},
    },
    policy::Model,
    queue::Seq,
    route,
    usage::{self, Level, Scope, Subject},
};

/// What a turn takes where no reply was timed yet, and the least tokens of an answer that nobody has capped.
const TURN: Duration = Duration::from_secs(60);
const ANSWER: u64 = 4_096;
/// Sessions whose ratings count, those heard of last.
const RATED_SESSIONS: usize = 256;

/// Sessions that one status shows where none is named.
const SHOWN_SESSIONS: usize = 100;

/// Estimated tokens of a turn's prompt.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prompt {
    /// With the history that goes before it.
    pub(super) all: u64,
    /// What it says itself.
    pub(super) own: u64,
}

impl Run<'_> {
    pub(super) fn set_handoff_policy(
        &mut self,
        change: HandoffPolicyChange,
    ) -> Result<Reply, Refusal> {
        let HandoffPolicyChange { set, unset, add_receivers, remove_receivers } = change;
        let mut overrides = self.state.handoff.overrides().clone();
        for key in &unset {
            if overrides.remove(key).is_none() && !set.contains_key(key) {
                return Err(self.invalid(Invalid::NotSet(key.clone())));
            }
        }
        // What a new file contradicts does not count, and stands in the way of nothing else.
        let changed: BTreeSet<String> = set.keys().cloned().collect();
        overrides.extend(set);
        let file = self.state.handoff.file();
        let thresholds = &self.state.usage.rules().thresholds;
        let known = Known { models: &self.state.policy.models, thresholds };
        let settings =
            Settings::with(file, &overrides, &changed, known).map_err(|it| self.invalid(it))?;
        if !(add_receivers.is_empty() && remove_receivers.is_empty()) {
            for model in add_receivers.iter().chain(&remove_receivers) {
                if self.model(model).is_none() {
                    let (given, nearest) = (model.to_string(), Vec::new());
                    return Err(Refusal::UnknownModel { given, nearest });
                }
            }
            let all = || self.state.policy.models.keys().cloned().collect();
            let mut names: BTreeSet<ModelName> = settings.receivers.unwrap_or_else(all);
            names.extend(add_receivers);
            names.retain(|name| !remove_receivers.contains(name));
            overrides.insert("receivers".into(), written(&names));
            let changed = changed.iter().cloned().chain(["receivers".to_owned()]).collect();
            Settings::with(file, &overrides, &changed, known).map_err(|it| self.invalid(it))?;
        }
        if overrides != *self.state.handoff.overrides() {
            let at = self.now.wall;
            self.event(Event::Handoff(Box::new(HandoffEvent::PolicySet { at, overrides })));
            self.assess_all();
            // A limit that is lower now may be one that a session has reached, though it was healthy.
            let sessions: Vec<String> = self.state.usage.sessions().map(str::to_owned).collect();
            let at = Some(self.now.wall);
            for session in sessions {
                // They may be many: the next steps look at them.
                self.note(&Note::LookAtUsage { subject: Subject::Session(session), at });
            }
            self.expect_checkpoints();
        }
        Ok(Reply::Handoff(HandoffReply::Policy(self.handoff_policy())))
    }

    fn invalid(&self, invalid: Invalid) -> Refusal {
        crate::core::handoff::Refusal::from(invalid).into()
    }

    pub(super) fn handoff_policy(&self) -> Vec<UsageSetting> {
        let models: Vec<&ModelName> = self.in_order().map(|model| &model.name).collect();
        let (file, overrides) = (self.state.handoff.file(), self.state.handoff.overrides());
        self.state.policy.handoff.list(file, overrides, &models)
    }

    /// Whether a session is to be handed off now; `None` where nothing is known of it.
    pub(super) fn check_handoff(&self, name: &str, warning_only: bool) -> Option<HandoffCheck> {
        let (model, tokens) = self.window_of_session(name)?;
        let thresholds = self.state.usage.thresholds(Some(&model.name));
        let owner = self.state.usage.level(&Subject::Model(model.name.clone()));
        let can_go_on = owner.level < Level::Exhausted;
        let window = model.context_window;
        let checked = trigger::check(&thresholds, tokens, window, can_go_on, warning_only);
        let detail = if can_go_on {
            format!("{tokens} of {window} tokens of {}'s window", model.name)
        } else {
            format!("{}: {}", model.name, owner.reason)
        };
        Some(HandoffCheck {
            should_handoff: checked.should_handoff,
            reason: checked.reason.to_owned(),
            level: checked.level.as_str().to_owned(),
            confidence: checked.confidence,
            urgency: checked.urgency,
            session: name.to_owned(),
            model: model.name.clone(),
            tokens,
            context_window: window,
            warning_threshold: trigger::share(window, thresholds.session_warning),
            switch_threshold: trigger::share(window, thresholds.session_switch),
            detail,
        })
    }

    /// The model whose window a session is in, and the tokens it holds there.
    fn window_of_session(&self, name: &str) -> Option<(&Model, u64)> {
        let meter = self.state.usage.meter(&Scope::Session(name.to_owned()));
        let session = SessionId::parse(name).ok().and_then(|id| self.state.session.get(&id));
        // Its figures may have been forgotten, or reset.
        let meter = meter.filter(|meter| meter.session.model.is_some());
        let model = self.model_of_session(name)?;
        let holds = session.map_or(0, |session| session.info.window_tokens());
        Some((model, meter.map_or(holds, |meter| meter.session.tokens())))
    }

    /// The limit that a turn's session or its owner has reached, or would reach with it; and whether its session is only
    /// lent for that.
    pub(super) fn limit_of_turn(
        &self,
        seq: Seq,
        session: &SessionId,
        owner: &ModelName,
    ) -> Option<(Trigger, bool)> {
        let model = self.model(owner)?;
        let meter = self.state.usage.meter(&Scope::Model(owner.clone()));
        let thresholds = &self.state.usage.rules().thresholds;
        let readings = meter.map(|meter| meter.signals.read(thresholds, self.now.wall));
        let takes = readings.and_then(|it| it.avg_response).unwrap_or(TURN);
        let of_session = || {
            let held = self.state.usage.level(&Subject::Session(session.to_string()));
            let room = self.room_of_window(seq, session, model);
            // Its own limit leaves a reserve of its window behind it.
            let limit = Limit { reason: &held.reason, room: Some(room), ..Limit::at(held.level) };
            trigger::usage_limit(&limit, takes)
        };
        let of_model = || {
            let held = self.state.usage.level(&Subject::Model(owner.clone()));
            let over =
                if held.level > Level::Warning { self.limits_over(model) } else { Vec::new() };
            let rooms = over.iter().filter_map(|it| self.room_of(seq, session, model, &it.window));
            let soonest = over
                .iter()
                .filter_map(|it| Some((it.reached_at?.since(self.now.wall), it.confidence)));
            let limit = Limit {
                level: held.level,
                reason: &held.reason,
                room: Room::least(rooms),
                reached_in: soonest.min_by_key(|(reached_in, _)| *reached_in),
            };
            trigger::usage_limit(&limit, takes)
        };
        let own = of_session().map(|trigger| (trigger, false));
        own.or_else(|| of_model().map(|trigger| (trigger, true)))
    }

    /// What is left of a model's context window, and what this turn adds to what its session holds of it.
    fn room_of_window(&self, seq: Seq, session: &SessionId, model: &Model) -> Room {
        let meter = self.state.usage.meter(&Scope::Session(session.to_string()));
        let held = meter.map_or(0, |meter| meter.session.tokens());
        let turn = self.prompt_of(seq).own.saturating_add(self.answer_of(seq, session, model));
        Room { left: model.context_window.saturating_sub(held), turn }
    }

    /// What is left of a limit over a model, and what this turn takes of it; `None` where nothing is known of that.
    fn room_of(
        &self,
        seq: Seq,
        session: &SessionId,
        model: &Model,
        window: &UsageWindow,
    ) -> Option<Room> {
        let (limit, used) = (window.limit?, window.used?);
        let left = limit.saturating_sub(used);
        let turn = if window.unit == usage::Unit::Tokens.as_str() {
            let answer = self.answer_of(seq, session, model);
            let usual = self.state.usage.meter(&Scope::Session(session.to_string()));
            let usual = usual.and_then(|meter| meter.recent.per_call()).unwrap_or_default();
            self.prompt_of(seq).all.saturating_add(answer).max(usual)
        } else if window.unit.is_empty() {
            let meter = self.state.usage.meter(&Scope::Model(model.name.clone()))?;
            let first = meter.seen.iter().find(|first| first.name == window.name)?;
            usage::per_call(first, used)?
        } else {
            return None;
        };
        Some(Room { left, turn })
    }

    /// Estimated tokens of a turn's prompt.
    pub(super) fn prompt_of(&self, seq: Seq) -> Prompt {
        let consultation = self.state.queue.get(seq).and_then(|it| it.consultation.as_ref());
        let asked = consultation.and_then(|it| Some((it.needs(), self.model(&it.asked)?)));
        let Some((needs, model)) = asked else { return Prompt::default() };
        let tokens = |bytes| route::estimated_tokens(model, bytes);
        let own = tokens(needs.prompt_bytes.saturating_sub(needs.history_bytes));
        Prompt { all: tokens(needs.prompt_bytes), own }
    }

    /// Tokens that a turn's answer takes: as many as its asker allows, else what answers of its session had.
    fn answer_of(&self, seq: Seq, session: &SessionId, model: &Model) -> u64 {
        let consultation = self.state.queue.get(seq).and_then(|it| it.consultation.as_ref());
        let asked = consultation.and_then(|it| it.needs().max_output_tokens).map(u64::from);
        let usual = || {
            let totals = &self.state.usage.meter(&Scope::Session(session.to_string()))?.totals;
            totals.usage.output_tokens?.checked_div(totals.calls)
        };
        asked
            .unwrap_or_else(|| usual().unwrap_or_default().max(ANSWER))
            .min(model.max_output_tokens)
    }

    /// Looks whether a session is better off elsewhere: says so, and moves it where that is asked for. `prompt` is the
    /// tokens of its next step; 0: not known.
    pub(super) fn advise(&mut self, session: &SessionId, prompt: u64) {
        let is_moving = |open: &broker_proto::Handoff| open.state.is_pending();
        if self.state.handoff.open(session).is_some_and(is_moving) {
            return;
        }
        let is_kept = self.is_kept_by_ring(session);
        let advised = (!is_kept).then(|| self.better_off(session, prompt)).flatten();
        if let Some(advised) = &advised
            && self.state.policy.handoff.auto
            && self.state.policy.handoff.auto_switch
            && advised.trigger.confidence >= trigger::SURE
            && self.carry_out(session, advised)
        {
            return;
        }
        self.advice_is(session, advised);
    }

    /// What is advised to a session, where that is news.
    pub(super) fn advice_is(&mut self, session: &SessionId, advised: Option<Advised>) {
        let known = self.state.handoff.advised(session);
        let is_same = match (known, &advised) {
            (Some(known), Some(new)) => {
                known.to == new.to && known.trigger.kind == new.trigger.kind
            }
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            let (at, session) = (self.now.wall, session.clone());
            let event = HandoffEvent::Advised { at, session, advised };
            self.event(Event::Handoff(Box::new(event)));
        }
    }

    fn carry_out(&mut self, session: &SessionId, advised: &Advised) -> bool {
        let Advised { to, trigger } = advised.clone();
        let ask = AskHandoff {
            session: session.clone(),
            to: Some(to),
            agent: None,
            reason: trigger.reasoning.clone(),
            level: None,
            package: None,
            is_forced: false,
            at_once: false,
        };
        let pace = Pace::Gradually;
        let wanted =
            Wanted { ask, trigger, pace, returns: None, is_lent: false, is_rotation: false };
        self.begin_handoff(wanted).is_ok()
    }

    /// The model that a session is better off with, by what its next step asks for, and by what models cost.
    fn better_off(&self, session: &SessionId, prompt: u64) -> Option<Advised> {
        let owner = self.state.session.get(session)?.info.owner.model.clone();
        let model = self.model(&owner)?;
        let meter = self.state.usage.meter(&Scope::Session(session.to_string()));
        let said = meter.and_then(|meter| meter.session.complexity);
        let complexity = said.map_or(Complexity::of_size(prompt), Complexity::Said);
        let settings = &self.state.policy.handoff;
        let can = |it: &&Candidate| {
            let is_open = it.shut.is_none() && !it.is_absent && !it.is_degraded;
            is_open && it.level < Level::Critical && settings.may_receive(&it.model)
        };
        let candidates = self.candidates(&owner);
        let others: Vec<&Model> =
            candidates.iter().filter(can).filter_map(|it| self.model(&it.model)).collect();
        let tiers: BTreeSet<u8> = self.in_order().map(|model| model.tier).collect();
        if let Some(trigger) =
            trigger::complexity_mismatch(complexity, (&owner, model.tier), &tiers)
        {
            let needed = complexity.tier(&tiers).unwrap_or_default();
            let able = others.iter().find(|other| other.tier >= needed)?;
            return Some(Advised { to: able.name.clone(), trigger });
        }
        let needed = said.and_then(|_| complexity.tier(&tiers));
        let ratings = self.ratings();
        let worker = |model: &Model| Worker {
            model: model.name.clone(),
            tier: model.tier,
            price: model.prices.map(|prices| prices.input + prices.output),
            rating: ratings.get(&model.name).copied(),
        };
        let others: Vec<Worker> = others.into_iter().map(worker).collect();
        let (to, trigger) = trigger::optimisation(&worker(model), &others, needed)?;
        Some(Advised { to, trigger })
    }

    /// The mean of what the sessions of each model were rated lately, and how many of them were.
    fn ratings(&self) -> BTreeMap<ModelName, (f64, u32)> {
        let mut sums: BTreeMap<ModelName, (f64, u32)> = BTreeMap::new();
        for name in self.state.usage.sessions().take(RATED_SESSIONS) {
            let meter = self.state.usage.meter(&Scope::Session(name.to_owned()));
            let Some(figures) = meter.map(|meter| &meter.session) else { continue };
            let Some((model, rating)) = figures.model.clone().zip(figures.rating) else { continue };
            let (sum, count) = sums.entry(model).or_default();
            *sum += f64::from(rating);
            *count += 1;
        }
        sums.into_iter()
            .map(|(model, (sum, count))| (model, (sum / f64::from(count), count)))
            .collect()
    }

    pub(super) fn handoff_status(&self, session: Option<&str>) -> HandoffStatus {
        let sessions: Vec<HandoffOutlook> = match session {
            Some(name) => self.session_outlook(name).into_iter().collect(),
            None => self.sessions_to_tell(),
        };
        let models = self.in_order().map(|model| self.model_outlook(model)).collect();
        HandoffStatus { models, sessions }
    }

    fn sessions_to_tell(&self) -> Vec<HandoffOutlook> {
        let outlooks = self.state.usage.sessions().filter_map(|name| self.session_outlook(name));
        let tells = |it: &HandoffOutlook| it.advice > Advice::None;
        outlooks.filter(tells).take(SHOWN_SESSIONS).collect()
    }

    fn model_outlook(&self, model: &Model) -> HandoffOutlook {
        let held = self.state.usage.level(&Subject::Model(model.name.clone()));
        let nearest = nearest(&self.limits_over(model));
        let reason = match (&held.level, &nearest) {
            (Level::Healthy, Some(it)) => words(it),
            _ => held.reason,
        };
        HandoffOutlook {
            name: model.name.to_string(),
            model: model.name.clone(),
            level: held.level.as_str().to_owned(),
            percentage: nearest.as_ref().and_then(percentage),
            advice: advice(held.level),
            reason,
            to: self.first_receiver(&model.name, None),
            trigger: None,
            receives: self.state.policy.handoff.may_receive(&model.name),
            limit_at: nearest.and_then(|it| it.reached_at),
        }
    }

    /// Every limit that a model's calls count towards.
    pub(super) fn limits_over(&self, model: &Model) -> Vec<LimitForecast> {
        let scopes =
            [Scope::Model(model.name.clone()), Scope::Key(model.key.clone()), Scope::Namespace];
        let of = |scope: &Scope| {
            let meter = self.state.usage.meter(scope).cloned().unwrap_or_default();
            self.limits_of(scope, &meter)
        };
        scopes.iter().flat_map(of).collect()
    }

    fn session_outlook(&self, name: &str) -> Option<HandoffOutlook> {
        let check = self.check_handoff(name, false)?;
        let level = Level::parse(&check.level).unwrap_or_default();
        let scope = Scope::Session(name.to_owned());
        let meter = self.state.usage.meter(&scope).cloned().unwrap_or_default();
        let limit_at = self.limits_of(&scope, &meter).iter().filter_map(|it| it.reached_at).min();
        let advised = SessionId::parse(name).ok();
        let advised = advised.and_then(|id| self.state.handoff.advised(&id)).cloned();
        // What moves it comes before what is better for it.
        let advised =
            advised.filter(|advised| level < Level::Critical && advised.to != check.model);
        let (to, trigger) = match advised {
            Some(Advised { to, trigger }) => (Some(to), Some(trigger)),
            None => (self.first_receiver(&check.model, Some(name)), None),
        };
        Some(HandoffOutlook {
            name: name.to_owned(),
            level: check.level.clone(),
            percentage: Some(check.percentage()),
            advice: if trigger.is_some() { Advice::Recommended } else { advice(level) },
            to,
            trigger,
            receives: false,
            limit_at,
            model: check.model,
            reason: check.detail,
        })
    }

    /// Who would be asked first, of a session or of any.
    fn first_receiver(&self, owner: &ModelName, session: Option<&str>) -> Option<ModelName> {
        let session = session.and_then(|name| SessionId::parse(name).ok());
        let track = session.and_then(|id| self.state.handoff.track(&id));
        let recent: Vec<_> =
            track.map(|track| track.recent.iter().cloned().collect()).unwrap_or_default();
        let settings = &self.state.policy.handoff;
        let verdict = arbiter::judge(&Case {
            settings,
            kind: TriggerKind::UsageLimit,
            owner,
            owner_back_at: self.model(owner).and_then(|owner| self.back_at(owner)),
            candidates: &self.candidates(owner),
            needs: settings.preserve.budget().unwrap_or(super::handoff::LEAST),
            recent: &recent,
            hops: track.map_or(0, |track| track.hops),
            is_forced: false,
            now: self.now.wall,
        });
        match verdict {
            Verdict::Offer { to, .. } | Verdict::Recommend { to, .. } => Some(to),
            Verdict::Stay { .. } => None,
        }
    }
}

fn advice(level: Level) -> Advice {
    match level {
        Level::Healthy => Advice::None,
        Level::Warning => Advice::Watch,
        Level::Critical => Advice::Recommended,
        Level::Exhausted => Advice::Needed,
    }
}

/// The limit of which the largest share is used.
fn nearest(limits: &[LimitForecast]) -> Option<LimitForecast> {
    let share = |it: &LimitForecast| percentage(it).unwrap_or_default();
    limits.iter().max_by(|a, b| share(a).total_cmp(&share(b))).cloned()
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn percentage(limit: &LimitForecast) -> Option<f64> {
    let (used, all) = limit.window.used.zip(limit.window.limit)?;
    Some(used as f64 * 100.0 / all.max(1) as f64)
}

fn words(limit: &LimitForecast) -> String {
    let unit = usage::Unit::parse(&limit.window.unit);
    let of = |figure: Option<u64>| {
        let figure = figure.unwrap_or_default();
        unit.map_or_else(|| figure.to_string(), |unit| unit.words(figure))
    };
    format!("{} of {} {}", of(limit.window.used), of(limit.window.limit), limit.window.name)
}
