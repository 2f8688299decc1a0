//! Causes: what raises a level, each with its own share of its own limit. The highest wins and is named.

use broker_proto::{ModelName, WallTime};

use super::{Action, BudgetKey, Level, Meter, Scope, Signals, State, Unit, Window, matters};
use crate::core::policy::Thresholds;

/// What a level comes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A limit that the provider, the configuration or a session's window sets.
    Limit,
    RateLimits,
    SlowReplies,
    ErrorRate,
}

/// One thing that speaks for a level.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    pub kind: Kind,
    /// Unique among those of one subject: `5h`, `day tokens`, `rate_limits`, ...
    pub name: String,
    pub level: Level,
    pub reason: String,
    /// When time alone makes it another.
    pub until: Option<WallTime>,
}

/// What was held before: a level and the cause that held it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    pub level: Level,
    pub cause: String,
    pub reason: String,
    pub action: Action,
    pub since: WallTime,
}

impl Held {
    /// The level that a cause of this name had; another's is none of its business.
    fn of(&self, cause: &str) -> Level {
        if self.cause == cause { self.level } else { Level::Healthy }
    }
}

impl Cause {
    /// What is to be done about it.
    #[must_use]
    pub fn action(&self) -> Action {
        match (self.level, self.kind) {
            (Level::Healthy, _) => Action::None,
            (Level::Warning, _) => Action::Log,
            (Level::Critical, _) => Action::Prepare,
            (Level::Exhausted, Kind::Limit | Kind::RateLimits) => Action::Move,
            (Level::Exhausted, Kind::SlowReplies) => Action::MoveGradually,
            (Level::Exhausted, Kind::ErrorRate) => Action::MoveDiagnosed,
        }
    }
}

/// The cause that decides: the highest, and among equals the one that already held, else the first.
#[must_use]
pub fn highest(causes: Vec<Cause>, held: &Held) -> Option<Cause> {
    let causes = causes.into_iter().filter(|cause| cause.level > Level::Healthy);
    causes.reduce(|best, next| {
        let wins = (next.level, next.name == held.cause) > (best.level, best.name == held.cause);
        if wins { next } else { best }
    })
}

/// What signals say, those of a model or of one agent.
#[must_use]
pub fn of_signals(
    signals: &Signals,
    thresholds: &Thresholds,
    held: &Held,
    now: WallTime,
) -> Vec<Cause> {
    let readings = signals.read(thresholds, now);
    let signal = |kind, name: &str, used: u32, full: u32, one_more: u32, reason, until| {
        let (used, full, one_more) = (u64::from(used), u64::from(full), u64::from(one_more));
        let level = thresholds.held(held.of(name), used, full);
        // One short of it is at least a warning, however small the numbers are.
        let is_short = used > 0 && used + one_more >= full;
        let level = if is_short { level.max(Level::Warning) } else { level };
        Cause { kind, name: name.to_owned(), level, reason, until }
    };
    let span = thresholds.rate_limit_window.as_secs_f64();
    let (limits, full) = (readings.rate_limits, thresholds.rate_limits);
    let reason = format!("{limits} of {full} rate limits within {span} s");
    let until = signals.rate_limits_until(thresholds, now);
    let mut causes = vec![signal(Kind::RateLimits, "rate_limits", limits, full, 1, reason, until)];
    let (slow, full) = (readings.slow_streak, thresholds.slow_replies);
    let after = thresholds.slow_after.as_secs_f64();
    let reason = format!("{slow} of {full} replies in a row took over {after} s to begin");
    let until = signals.calls_until(now);
    causes.push(signal(Kind::SlowReplies, "slow_replies", slow, full, 1, reason, until));
    if readings.calls >= thresholds.error_min {
        let (errors, calls) = (readings.errors, readings.calls);
        let reason = format!(
            "{errors} errors of the last {calls} calls, at {} % it moves",
            thresholds.error_rate
        );
        let full = calls * u32::from(thresholds.error_rate);
        causes.push(signal(Kind::ErrorRate, "error_rate", errors * 100, full, 100, reason, until));
    }
    causes
}

/// What a model's provider has said of its own windows.
pub(super) fn of_provider(
    meter: &Meter,
    thresholds: &Thresholds,
    held: &Held,
    now: WallTime,
) -> Vec<Cause> {
    let windows = meter.totals.windows(now).into_iter().filter(|window| matters(&window.name));
    let cause = |window: broker_proto::UsageWindow| {
        let (used, limit) = (window.used?, window.limit.filter(|limit| *limit > 0)?);
        Some(Cause {
            kind: Kind::Limit,
            level: thresholds.held(held.of(&window.name), used, limit),
            reason: format!("{used} of {limit} {}", window.name),
            name: window.name,
            until: window.resets_at,
        })
    };
    windows.filter_map(cause).collect()
}

impl State {
    /// A budget's window of one scope.
    #[must_use]
    pub fn budget_window(&self, key: &BudgetKey, scope: &Scope, now: WallTime) -> Window {
        let open = self.meter(scope).map(|meter| meter.windows.at(key.span, now));
        open.unwrap_or_else(|| super::Windows::default().at(key.span, now))
    }

    /// What the budgets of these scopes say. Only what was used counts; what is reserved may come back.
    pub(super) fn of_budgets(
        &self,
        thresholds: &Thresholds,
        scopes: &[Scope],
        held: &Held,
        now: WallTime,
    ) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (key, limit) in self.rules().budgets.iter().filter(|(key, _)| key.span.matters()) {
            for scope in scopes.iter().filter(|scope| key.is_for(scope)) {
                let window = self.budget_window(key, scope, now);
                let (used, name) = (window.used.of(key.unit), key.words());
                let of = |figure: u64| key.unit.words(figure);
                let (is_money, words) = (key.unit == Unit::Usd, key.words());
                let words = if is_money { words.trim_end_matches(" usd") } else { &words };
                causes.push(Cause {
                    kind: Kind::Limit,
                    level: thresholds.held(held.of(&name), used, *limit),
                    reason: format!("{} of {} {words}", of(used), of(*limit)),
                    name,
                    until: window.ends,
                });
            }
        }
        causes
    }

    /// What a session's share of its model's window says.
    pub(super) fn of_window(
        &self,
        session: &str,
        (model, window): (&ModelName, u64),
        thresholds: &Thresholds,
        held: &Held,
    ) -> Option<Cause> {
        let tokens = self.meter(&Scope::Session(session.to_owned()))?.session.tokens();
        let name = "context_window";
        Some(Cause {
            kind: Kind::Limit,
            name: name.into(),
            level: thresholds.of_session(held.of(name), tokens, window),
            reason: format!("{tokens} of {window} tokens of {model}'s window"),
            until: None,
        })
    }
}
