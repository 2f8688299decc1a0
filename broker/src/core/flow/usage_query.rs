//! Usage as people and scripts see it; nothing changes by looking.

use broker_proto::{
    CountedWindow, LimitForecast, ModelName, ModelUsage, ScopeUsage, SessionUsage, UsageBurn,
    UsageLevel, UsageSignals, UsageStatus, UsageWindow, WallTime,
};

use super::Run;
use crate::core::{
    Reply,
    policy::Model,
    usage::{
        self, Held, Level, Meter, Query, Scope, Span, Subject, Unit, Windows, burn_of, matters,
        reached_at,
    },
};

/// Sessions that one status shows where none is named.
const SHOWN_SESSIONS: usize = 100;

impl Run<'_> {
    pub(super) fn usage_query(&self, query: Query) -> Reply {
        Reply::OfUsage(match query {
            Query::Status { session } => {
                usage::Reply::Status(Box::new(self.usage_status(session.as_deref())))
            }
            Query::Forecast => usage::Reply::Forecast(self.forecast()),
            Query::Near => usage::Reply::Near(self.state.usage.near().collect()),
            Query::Policy => {
                let (rules, overrides) = (self.state.usage.rules(), self.state.usage.overrides());
                usage::Reply::Policy(rules.list(self.state.usage.file(), overrides))
            }
        })
    }

    fn usage_status(&self, session: Option<&str>) -> UsageStatus {
        let mut keys: Vec<&str> = self.in_order().map(|model| model.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let keys = keys.into_iter().map(|key| Scope::Key(key.to_owned()));
        let scopes = [Scope::Namespace].into_iter().chain(keys);
        let sessions: Vec<&str> = match session {
            Some(name) => vec![name],
            None => self.state.usage.sessions().take(SHOWN_SESSIONS).collect(),
        };
        UsageStatus {
            models: self.in_order().map(|model| self.model_usage(model)).collect(),
            scopes: scopes.map(|scope| self.scope_usage(&scope)).collect(),
            sessions: sessions.into_iter().filter_map(|name| self.session_usage(name)).collect(),
        }
    }

    pub(super) fn model_usage(&self, model: &Model) -> ModelUsage {
        let scope = Scope::Model(model.name.clone());
        let meter = self.state.usage.meter(&scope).cloned().unwrap_or_default();
        let (level, unavailable_until) = self.shown_level(model);
        let thresholds = &self.state.usage.rules().thresholds;
        let readings = meter.signals.read(thresholds, self.now.wall);
        let mut windows = meter.totals.windows(self.now.wall);
        windows.extend(self.budget_windows(&scope));
        let shared = [Scope::Key(model.key.clone()), Scope::Namespace];
        windows.extend(shared.iter().flat_map(|scope| self.budget_windows(scope)));
        let forecast = self.limits_of(&scope, &meter);
        let shared = shared.iter().flat_map(|scope| {
            let meter = self.state.usage.meter(scope).cloned().unwrap_or_default();
            self.limits_of(scope, &meter)
        });
        ModelUsage {
            model: model.name.clone(),
            level,
            windows,
            total: meter.totals.usage,
            calls: meter.totals.calls,
            failures: meter.totals.failures,
            cost_usd: meter.totals.known_cost(),
            unavailable_until,
            is_simulated: model.is_simulated,
            next: self.next_healthy(model),
            signals: UsageSignals {
                rate_limit_count: readings.rate_limits,
                slow_streak: readings.slow_streak,
                error_rate: readings.error_rate(),
                avg_response_seconds: readings.avg_response.map(|average| average.as_secs_f64()),
            },
            forecast_at: forecast.into_iter().chain(shared).filter_map(|it| it.reached_at).min(),
            burn: burn(&meter, self.now.wall),
            counted: counted(&meter.windows, self.now.wall),
            key: model.key.clone(),
        }
    }

    /// The first model behind this one in its chain that is healthy and may be called.
    fn next_healthy(&self, model: &Model) -> Option<ModelName> {
        let is_healthy = |name: &&ModelName| {
            let level = self.state.usage.level(&Subject::Model((*name).clone())).level;
            level == Level::Healthy && self.state.route.shut(name).is_none()
        };
        model.chain.iter().skip(1).find(is_healthy).cloned()
    }

    fn scope_usage(&self, scope: &Scope) -> ScopeUsage {
        let meter = self.state.usage.meter(scope).cloned().unwrap_or_default();
        ScopeUsage {
            kind: scope.kind().as_str().into(),
            name: scope.name().into(),
            windows: self.budget_windows(scope),
            counted: counted(&meter.windows, self.now.wall),
            burn: burn(&meter, self.now.wall),
            calls: meter.totals.calls,
            cost_usd: meter.totals.known_cost(),
        }
    }

    fn session_usage(&self, name: &str) -> Option<SessionUsage> {
        let scope = Scope::Session(name.to_owned());
        let meter = self.state.usage.meter(&scope)?;
        let figures = &meter.session;
        let model = self.model_of_session(name);
        let window = model.map(|model| model.context_window);
        let thresholds = self.state.usage.thresholds(model.map(|model| &model.name));
        let share = |percent: u8| {
            let at = u128::from(window?) * u128::from(percent) / 100;
            u64::try_from(at).ok()
        };
        let held = self.state.usage.level(&Subject::Session(name.to_owned()));
        let mut level = level_info(&held);
        let named = model.map(|model| (&model.name, model.context_window));
        say_now(&mut level, &self.state.usage.causes_of_session(name, named, self.now.wall));
        Some(SessionUsage {
            session: name.to_owned(),
            model: model.map(|model| model.name.clone()).or_else(|| figures.model.clone()),
            tokens: figures.tokens(),
            context_window: window,
            warning_threshold: share(thresholds.session_warning),
            switch_threshold: share(thresholds.session_switch),
            level,
            windows: self.budget_windows(&scope),
            counted: counted(&meter.windows, self.now.wall),
            total: meter.totals.usage,
            calls: meter.totals.calls,
            cost_usd: meter.totals.known_cost(),
            duration: figures.duration(),
            worked: figures.worked,
            complexity: figures.complexity,
            rating: figures.rating,
            last_at: figures.last_at,
        })
    }

    /// The budgets that one is under, as windows.
    fn budget_windows(&self, scope: &Scope) -> Vec<UsageWindow> {
        let budgets = &self.state.usage.rules().budgets;
        let own = budgets.iter().filter(|(key, _)| key.is_for(scope));
        own.map(|(key, limit)| {
            let window = self.state.usage.budget_window(key, scope, self.now.wall);
            UsageWindow {
                name: key.words(),
                used: Some(window.used.of(key.unit)),
                limit: Some(*limit),
                resets_at: window.ends,
                unit: key.unit.as_str().into(),
            }
        })
        .collect()
    }

    /// When each limit is reached; what is reached first comes first, then what is nearest.
    fn forecast(&self) -> Vec<LimitForecast> {
        let mut keys: Vec<&str> = self.in_order().map(|model| model.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let keys = keys.into_iter().map(|key| Scope::Key(key.to_owned()));
        let models = self.in_order().map(|model| Scope::Model(model.name.clone()));
        let sessions = self.state.usage.sessions().take(SHOWN_SESSIONS);
        let sessions = sessions.map(|name| Scope::Session(name.to_owned()));
        let scopes = [Scope::Namespace].into_iter().chain(keys).chain(models).chain(sessions);
        let mut all: Vec<LimitForecast> = scopes
            .flat_map(|scope| {
                let meter = self.state.usage.meter(&scope).cloned().unwrap_or_default();
                self.limits_of(&scope, &meter)
            })
            .collect();
        all.sort_by_key(|it| (it.reached_at.is_none(), it.reached_at));
        all
    }

    /// The limits of one that matter, each with when it is reached as things go.
    pub(super) fn limits_of(&self, scope: &Scope, meter: &Meter) -> Vec<LimitForecast> {
        let now = self.now.wall;
        let of = |window: UsageWindow, per_hour: u64, confidence: f64| {
            let (used, limit) = (window.used?, window.limit?);
            Some(LimitForecast {
                kind: scope.kind().as_str().into(),
                name: scope.name().into(),
                reached_at: reached_at(used, limit, per_hour, window.resets_at, now),
                window,
                per_hour,
                confidence,
            })
        };
        let provider = meter.totals.windows(now).into_iter().filter(|w| matters(&w.name));
        let provider = provider.filter_map(|window| {
            let first = meter.seen.iter().find(|first| first.name == window.name)?;
            let (per_hour, confidence) = burn_of(first, window.used?, now);
            of(window, per_hour, confidence)
        });
        let rate = meter.recent.burn(now);
        let budgets = self.state.usage.rules().budgets.keys();
        let spans: Vec<(Span, Unit)> =
            budgets.filter(|key| key.is_for(scope)).map(|key| (key.span, key.unit)).collect();
        let own = self.budget_windows(scope).into_iter().zip(spans);
        let own = own.filter(|(_, (span, _))| span.matters());
        let own = own
            .filter_map(|(window, (_, unit))| of(window, rate.per_hour.of(unit), rate.confidence));
        provider.chain(own).chain(self.window_of(scope, meter)).collect()
    }

    /// A session's share of its model's window, as a limit like others.
    fn window_of(&self, scope: &Scope, meter: &Meter) -> Option<LimitForecast> {
        let Scope::Session(name) = scope else { return None };
        let model = self.model_of_session(name)?;
        let thresholds = self.state.usage.thresholds(Some(&model.name));
        let switch = u128::from(model.context_window) * u128::from(thresholds.session_switch);
        let limit = u64::try_from(switch / 100).ok()?;
        let rate = meter.recent.burn(self.now.wall);
        let (used, per_hour) = (meter.session.tokens(), rate.per_hour.tokens);
        Some(LimitForecast {
            kind: scope.kind().as_str().into(),
            name: name.clone(),
            window: UsageWindow {
                used: Some(used),
                limit: Some(limit),
                unit: Unit::Tokens.as_str().into(),
                ..UsageWindow::named("context_window")
            },
            per_hour,
            reached_at: reached_at(used, limit, per_hour, None, self.now.wall),
            confidence: rate.confidence,
        })
    }
}

pub(super) fn level_info(held: &Held) -> UsageLevel {
    UsageLevel {
        level: held.level.as_str().into(),
        cause: held.cause.clone(),
        reason: held.reason.clone(),
        action: held.action.as_str().into(),
        pace: held.action.pace().into(),
        since: (held.level > Level::Healthy).then_some(held.since),
    }
}

/// What decides is told as it is now, and not as it was when the level changed.
pub(super) fn say_now(level: &mut UsageLevel, causes: &[usage::Cause]) {
    if let Some(cause) = causes.iter().find(|cause| cause.name == level.cause) {
        level.reason.clone_from(&cause.reason);
    }
}

fn counted(windows: &Windows, now: WallTime) -> Vec<CountedWindow> {
    let window = |span: Span| {
        let open = windows.at(span, now);
        CountedWindow {
            name: span.as_str().into(),
            requests: open.used.requests,
            tokens: open.used.tokens,
            cost_usd: open.used.cost.usd(),
            resets_at: open.ends,
        }
    };
    Span::ALL.into_iter().map(window).collect()
}

fn burn(meter: &Meter, now: WallTime) -> UsageBurn {
    let burn = meter.recent.burn(now);
    UsageBurn {
        requests_per_hour: burn.per_hour.requests,
        tokens_per_hour: burn.per_hour.tokens,
        cost_usd_per_hour: burn.per_hour.cost.usd(),
        confidence: burn.confidence,
    }
}
