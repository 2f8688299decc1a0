//! Usage: what was used of what, what is left, and which level that is. No model is asked for any of it.
//!
//! Every call is counted in a meter for the namespace, its key, its model and its session. Levels come from the limits
//! and signals of a meter (`cause`), budgets are held against it before a call (`budget`).
//!
//! Invariant: meters change by events alone, so that the rows of a restart are folded by the same code (`meter`).

mod budget;
mod cause;
mod command;
mod event;
mod forecast;
mod level;
mod meter;
mod price;
mod scope;
mod settings;
mod signal;
mod totals;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{ModelName, WallTime};

use super::{BootTime, Now, Policy, policy::Thresholds, queue::Seq};

pub use budget::{BudgetKey, Budgets, Reservations, Short, Wanted};
pub use cause::{Cause, Held, Kind, highest, of_signals};
pub use command::{Command, Query, Record, Reply};
pub use event::{Call, Change, Event, Near, Reservation, Said, Source, Subject, scopes};
pub use forecast::{Burn, FirstSeen, Recent, burn_of, per_call, reached_at};
pub use level::{Action, Level};
pub use meter::{Meter, SessionFigures};
pub use price::{Nanos, cost, is_unbilled, tokens};
pub use scope::{Scope, ScopeKind};
pub use settings::{Invalid, Rules};
pub use signal::{Ended, Heard, Readings, Signals};
pub use totals::{ModelTotals, matters};
pub use window::{Amount, Span, Unit, Window, Windows};

/// Sessions whose figures are kept; past it those go first that were heard of longest ago.
pub const MOST_SESSIONS: usize = 10_000;

#[derive(Debug, Default)]
pub struct State {
    meters: BTreeMap<Scope, Meter>,
    /// Every session of `meters`, by when it was heard of last.
    sessions: BTreeSet<(WallTime, String)>,
    /// Only what is not healthy.
    levels: BTreeMap<Subject, Held>,
    pub(super) reservations: Reservations,
    overrides: BTreeMap<String, String>,
    /// What the file says, and what counts.
    file: Rules,
    rules: Rules,
    /// Percent at which the limits of a model count as reached.
    limits: BTreeMap<ModelName, u8>,
    /// When to look again at what is not healthy; volatile.
    looks: BTreeSet<(WallTime, Subject)>,
    look_of: BTreeMap<Subject, WallTime>,
}

impl State {
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let rules = Rules::of(policy);
        Self { file: rules.clone(), rules, ..Self::default() }
    }

    /// What counts now.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    #[must_use]
    pub fn has_budgets(&self) -> bool {
        !self.rules.budgets.is_empty()
    }

    /// What the file says.
    #[must_use]
    pub fn file(&self) -> &Rules {
        &self.file
    }

    #[must_use]
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    #[must_use]
    pub fn meter(&self, scope: &Scope) -> Option<&Meter> {
        self.meters.get(scope)
    }

    /// The thresholds of a model and its sessions; without one, of all.
    #[must_use]
    pub fn thresholds(&self, model: Option<&ModelName>) -> Thresholds {
        let limit = model.and_then(|model| self.limits.get(model));
        limit.map_or(self.rules.thresholds, |limit| self.rules.thresholds.limited(*limit))
    }

    pub(super) fn limit_models(&mut self, limits: BTreeMap<ModelName, u8>) {
        self.limits = limits;
    }

    /// What one model has used.
    #[must_use]
    pub fn get(&self, model: &ModelName) -> ModelTotals {
        let meter = self.meters.get(&Scope::Model(model.clone()));
        meter.map(|meter| meter.totals.clone()).unwrap_or_default()
    }

    /// Sessions that anything is known of, those heard of last first.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter().rev().map(|(_, name)| name.as_str())
    }

    /// A session too many: the one heard of longest ago.
    #[must_use]
    pub fn to_forget(&self) -> Option<&str> {
        let oldest = self.sessions.first().map(|(_, name)| name.as_str());
        oldest.filter(|_| self.sessions.len() > MOST_SESSIONS)
    }

    #[must_use]
    pub fn level(&self, subject: &Subject) -> Held {
        self.levels.get(subject).cloned().unwrap_or_default()
    }

    /// Everything that is not healthy.
    pub fn levels(&self) -> impl Iterator<Item = (&Subject, &Held)> {
        self.levels.iter()
    }

    /// Whoever is to find a package when the limit comes. Those that are to move already make their own.
    pub fn near(&self) -> impl Iterator<Item = Near> {
        let wanted = self.levels.iter().filter(|(_, held)| held.action == Action::Prepare);
        wanted.map(|(subject, held)| Near { subject: subject.clone(), reason: held.reason.clone() })
    }

    /// What speaks for a model's level: its provider's windows, the budgets it is under, its signals.
    #[must_use]
    pub fn causes_of_model(&self, model: &ModelName, key: &str, now: WallTime) -> Vec<Cause> {
        let (rules, held) = (self.rules(), self.level(&Subject::Model(model.clone())));
        let thresholds = &self.thresholds(Some(model));
        let scopes = scopes(model, key, None);
        let mut causes = self.of_budgets(thresholds, &scopes, &held, now);
        if let Some(meter) = self.meter(&Scope::Model(model.clone())) {
            causes.extend(cause::of_provider(meter, thresholds, &held, now));
            // A signal is no limit, of which a share could be kept.
            causes.extend(cause::of_signals(&meter.signals, &rules.thresholds, &held, now));
        }
        causes
    }

    /// What speaks for a session's level: its share of the `window` of the model that has it, and the budgets it is under.
    #[must_use]
    pub fn causes_of_session(
        &self,
        session: &str,
        window: Option<(&ModelName, u64)>,
        now: WallTime,
    ) -> Vec<Cause> {
        let (rules, held) = (self.rules(), self.level(&Subject::Session(session.to_owned())));
        let scope = Scope::Session(session.to_owned());
        let thresholds = &self.thresholds(window.map(|(model, _)| model));
        let mut causes = self.of_budgets(&rules.thresholds, &[scope], &held, now);
        causes.extend(window.and_then(|all| self.of_window(session, all, thresholds, &held)));
        causes
    }

    /// What is to be looked at again, as time alone may have changed it.
    #[must_use]
    pub fn due(&self, now: Now) -> Option<&Subject> {
        self.looks.first().filter(|(at, _)| *at <= now.wall).map(|(_, subject)| subject)
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<BootTime> {
        self.looks.first().map(|(at, _)| now.boot_at(*at))
    }

    /// Looks at it again then.
    pub(super) fn look_at(&mut self, subject: &Subject, at: Option<WallTime>) {
        if let Some(before) = self.look_of.remove(subject) {
            self.looks.remove(&(before, subject.clone()));
        }
        if let Some(at) = at {
            self.looks.insert((at, subject.clone()));
            self.look_of.insert(subject.clone(), at);
        }
    }

    pub(super) fn apply(&mut self, event: &super::Event) {
        match event {
            super::Event::UsageChanged { model, totals, .. } => {
                let meter = self.meters.entry(Scope::Model(model.clone())).or_default();
                meter.totals = (**totals).clone();
            }
            super::Event::Usage(event) => self.happened(event),
            _ => {}
        }
    }

    fn happened(&mut self, event: &Event) {
        for scope in event.scopes() {
            self.count(scope, event);
        }
        match event {
            Event::Forgotten { session, .. } => self.forget(session),
            Event::Reset { scope, .. } => {
                let subject = match scope {
                    Scope::Model(model) => Subject::Model(model.clone()),
                    Scope::Session(name) => {
                        self.forget(&name.clone());
                        return;
                    }
                    Scope::Namespace | Scope::Key(_) => return,
                };
                self.levels.remove(&subject);
            }
            Event::LevelChanged(change) => self.change(change),
            Event::Reserved(reservation) => self.reservations.hold(reservation),
            Event::Released { seq, .. } => self.reservations.release(*seq),
            Event::PolicySet { overrides, .. } => {
                self.rules = Rules::as_far_as(&self.file, overrides);
                self.overrides.clone_from(overrides);
            }
            Event::Counted(_) | Event::Holds { .. } | Event::Said(_) | Event::Metered { .. } => {}
        }
    }

    fn count(&mut self, scope: Scope, event: &Event) {
        let meter = self.meters.entry(scope.clone()).or_default();
        let before = meter.session.last_at;
        meter.apply(&scope, event);
        let after = meter.session.last_at;
        if let Scope::Session(name) = scope {
            if let Some(at) = before {
                self.sessions.remove(&(at, name.clone()));
            }
            self.sessions.extend(after.map(|at| (at, name)));
        }
    }

    fn forget(&mut self, session: &str) {
        let scope = Scope::Session(session.to_owned());
        let meter = self.meters.remove(&scope);
        if let Some(at) = meter.and_then(|meter| meter.session.last_at) {
            self.sessions.remove(&(at, session.to_owned()));
        }
        self.levels.remove(&Subject::Session(session.to_owned()));
    }

    fn change(&mut self, change: &Change) {
        if change.to == Level::Healthy {
            self.levels.remove(&change.subject);
            return;
        }
        let held = Held {
            level: change.to,
            cause: change.cause.clone(),
            reason: change.reason.clone(),
            action: change.action,
            since: change.at,
        };
        self.levels.insert(change.subject.clone(), held);
    }

    /// Whether anything is reserved at all.
    #[must_use]
    pub fn is_reserving(&self) -> bool {
        !self.reservations.is_empty()
    }

    /// Whether anything is reserved for this message.
    #[must_use]
    pub fn is_reserved(&self, seq: Seq) -> bool {
        self.reservations.is_held(seq)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_proto::{FailureClass, RateLimit};

    use super::*;
    use crate::core::tests::given::policy;

    const NOW: WallTime = WallTime(1_795_132_800_000);

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    fn state() -> State {
        State::new(&policy())
    }

    fn call(ended: Ended) -> Call {
        Call { ended, ..Call::new(NOW, Source::Attempt, opus(), "KEY") }
    }

    fn hear(state: &mut State, call: Call) {
        state.happened(&Event::Counted(Box::new(call)));
    }

    fn level(state: &State) -> (Level, Action, String) {
        let subject = Subject::Model(opus());
        let causes = state.causes_of_model(&opus(), "KEY", NOW);
        let cause = highest(causes, &state.level(&subject));
        cause.map_or((Level::Healthy, Action::None, String::new()), |cause| {
            (cause.level, cause.action(), cause.reason)
        })
    }

    fn said(name: &str, left: u64) -> Vec<RateLimit> {
        let resets_at = Some(NOW.after(Duration::from_secs(60)));
        vec![RateLimit { name: name.into(), limit: Some(100), remaining: Some(left), resets_at }]
    }

    #[test]
    fn minute_windows_raise_no_level() {
        let mut state = state();
        hear(&mut state, Call { limits: said("tokens", 1), ..call(Ended::Done) });
        assert_eq!(level(&state).0, Level::Healthy);
        hear(&mut state, Call { limits: said("5h", 1), ..call(Ended::Done) });
        assert_eq!(level(&state), (Level::Critical, Action::Prepare, "99 of 100 5h".into()));
    }

    #[test]
    fn three_rate_limits_within_a_minute_move_at_once_and_two_warn() {
        let mut state = state();
        let mut levels = Vec::new();
        for _ in 0..3 {
            hear(&mut state, call(Ended::Failed(FailureClass::RateLimited)));
            levels.push(level(&state));
        }
        let levels: Vec<_> = levels.iter().map(|(level, action, _)| (*level, *action)).collect();
        assert_eq!(
            levels,
            [
                (Level::Healthy, Action::None),
                (Level::Warning, Action::Log),
                (Level::Exhausted, Action::Move)
            ]
        );
        assert_eq!(level(&state).2, "3 of 3 rate limits within 60 s");
    }

    #[test]
    fn five_slow_replies_move_gradually() {
        let mut state = state();
        let slow = || Call { first_token: Some(Duration::from_secs(11)), ..call(Ended::Done) };
        for _ in 0..3 {
            hear(&mut state, slow());
        }
        assert_eq!(level(&state).0, Level::Healthy);
        hear(&mut state, slow());
        assert_eq!(level(&state).0, Level::Warning);
        hear(&mut state, slow());
        assert_eq!((level(&state).0, level(&state).1), (Level::Exhausted, Action::MoveGradually));
    }

    #[test]
    fn thirty_percent_errors_of_at_least_ten_calls_move_with_a_diagnosis() {
        let mut state = state();
        for _ in 0..3 {
            hear(&mut state, call(Ended::Failed(FailureClass::Overloaded)));
        }
        for _ in 0..6 {
            hear(&mut state, call(Ended::Done));
        }
        assert_eq!(level(&state).0, Level::Healthy);
        hear(&mut state, call(Ended::Done));
        assert_eq!((level(&state).0, level(&state).1), (Level::Exhausted, Action::MoveDiagnosed));
        // 3 of 13 are 23 % of the 30 %, and one more would be 30.7 %.
        for _ in 0..3 {
            hear(&mut state, call(Ended::Done));
        }
        assert_eq!(level(&state).0, Level::Warning);
    }

    #[test]
    fn of_all_levels_the_highest_wins_and_is_named() {
        let mut state = state();
        hear(&mut state, Call { limits: said("5h", 25), ..call(Ended::Done) });
        assert_eq!(level(&state).2, "75 of 100 5h");
        for _ in 0..3 {
            hear(&mut state, call(Ended::Failed(FailureClass::RateLimited)));
        }
        assert_eq!(level(&state).2, "3 of 3 rate limits within 60 s");
    }

    #[test]
    fn no_more_sessions_are_kept_than_there_is_room_for() {
        let mut state = state();
        for number in 0..=MOST_SESSIONS as u64 {
            let at = WallTime(NOW.0 + number);
            let session = format!("s{number}");
            state.happened(&Event::Holds {
                session,
                model: opus(),
                at,
                tokens: 1,
                is_fresh: false,
            });
        }
        let oldest = state.to_forget().map(str::to_owned);
        assert_eq!(oldest.as_deref(), Some("s0"));
        state.happened(&Event::Forgotten { session: "s0".into(), at: NOW });
        assert_eq!(state.to_forget(), None);
        assert_eq!(state.sessions().count(), MOST_SESSIONS);
    }

    #[test]
    fn meters_loaded_for_a_restart_are_those_that_were_counted() {
        let (mut whole, mut loaded) = (state(), state());
        for _ in 0..3 {
            let usage = broker_proto::Usage { input_tokens: Some(5), ..Default::default() };
            let session = Some("s".to_owned());
            hear(&mut whole, Call { usage, session, ..call(Ended::Done) });
        }
        for (scope, meter) in &whole.meters {
            let meter = Box::new(meter.clone());
            loaded.happened(&Event::Metered { scope: scope.clone(), meter });
        }
        assert_eq!(loaded.meters, whole.meters);
        assert_eq!(loaded.sessions, whole.sessions);
    }
}
