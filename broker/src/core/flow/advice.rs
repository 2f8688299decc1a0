//! When sessions move, as people see and set it: the policy, the check of one session, and what is recommended to whom.

use std::collections::BTreeSet;

use broker_proto::{
    Advice, HandoffCheck, HandoffOutlook, HandoffPolicyChange, HandoffStatus, LimitForecast,
    ModelName, SessionId, TriggerKind, UsageSetting,
};

use super::Run;
use crate::core::{
    Event, Refusal, Reply,
    handoff::{
        Case, Event as HandoffEvent, Reply as HandoffReply, Settings, Verdict, arbiter,
        policy::{Invalid, Known, written},
        trigger,
    },
    policy::Model,
    usage::{self, Level, Scope, Subject},
};

/// Sessions that one status shows where none is named.
const SHOWN_SESSIONS: usize = 100;

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
        overrides.extend(set);
        let file = self.state.handoff.file();
        let thresholds = &self.state.usage.rules().thresholds;
        let known = Known { models: &self.state.policy.models, thresholds };
        let settings = Settings::with(file, &overrides, known).map_err(|it| self.invalid(it))?;
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
            Settings::with(file, &overrides, known).map_err(|it| self.invalid(it))?;
        }
        if overrides != *self.state.handoff.overrides() {
            let at = self.now.wall;
            self.event(Event::Handoff(Box::new(HandoffEvent::PolicySet { at, overrides })));
            self.assess_all();
            // A limit that is lower now may be one that a session has reached, though it was healthy.
            let sessions: Vec<String> = self.state.usage.sessions().map(str::to_owned).collect();
            for session in sessions {
                self.assess(&Subject::Session(session));
            }
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
        let owner = SessionId::parse(name).ok().and_then(|id| self.state.session.get(&id));
        let owner = owner.map(|session| &session.info.owner.model);
        let counted = meter.and_then(|meter| meter.session.model.as_ref());
        let model = self.model(owner.or(counted)?)?;
        Some((model, meter.map_or(0, |meter| meter.session.tokens())))
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
        Some(HandoffOutlook {
            name: name.to_owned(),
            level: check.level.clone(),
            percentage: Some(check.percentage()),
            advice: advice(level),
            to: self.first_receiver(&check.model, Some(name)),
            trigger: None,
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
            owner_back_at: None,
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
