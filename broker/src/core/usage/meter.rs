//! A meter: everything that was counted for one scope.

use std::time::Duration;

use broker_proto::{ModelName, WallTime};

use super::{
    Event, Heard, ModelTotals, Recent, Scope, ScopeKind, Signals, Windows,
    forecast::{self, FirstSeen},
};

/// Everything that was counted for one scope. What only some scopes have is empty in the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Meter {
    pub totals: ModelTotals,
    pub windows: Windows,
    pub recent: Recent,
    /// Of a model.
    pub signals: Signals,
    /// Of a model: where its provider's windows stood at first.
    pub seen: Vec<FirstSeen>,
    pub session: SessionFigures,
}

/// What is known of a session as such.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionFigures {
    /// Whose window it is in: the model that it was on last.
    pub model: Option<ModelName>,
    /// What its entries hold.
    pub held: u64,
    /// What calls made elsewhere added.
    pub recorded: u64,
    pub first_at: Option<WallTime>,
    pub last_at: Option<WallTime>,
    /// What its calls took, together.
    pub worked: Duration,
    pub complexity: Option<f64>,
    pub rating: Option<u32>,
}

impl Meter {
    /// Takes in an event that concerns the scope it belongs to.
    pub fn apply(&mut self, scope: &Scope, event: &Event) {
        match event {
            Event::Counted(call) => self.count(scope.kind(), call),
            Event::Holds { model, at, tokens, is_fresh, .. } => {
                self.session.on(model, *at);
                self.session.held = *tokens;
                if *is_fresh {
                    self.session.recorded = 0;
                }
            }
            Event::Said(said) => {
                self.session.touch(said.at);
                self.session.complexity = said.complexity.or(self.session.complexity);
                self.session.rating = said.rating.or(self.session.rating);
            }
            Event::Reset { .. } => *self = Self::default(),
            Event::Metered { meter, .. } => *self = (**meter).clone(),
            Event::Forgotten { .. }
            | Event::LevelChanged(_)
            | Event::Reserved(_)
            | Event::Released { .. }
            | Event::PolicySet { .. } => {}
        }
    }

    fn count(&mut self, kind: ScopeKind, call: &super::Call) {
        let amount = call.amount();
        self.windows.add(call.at, amount);
        self.recent.add(call.at, amount);
        self.total(call, kind);
        match kind {
            ScopeKind::Namespace | ScopeKind::Key => {}
            ScopeKind::Model => {
                forecast::see(&mut self.seen, call.at, &call.limits);
                self.signals.hear(Heard {
                    at: call.at,
                    ended: call.ended,
                    latency: call.latency,
                    first_token: call.first_token,
                    message: call.message,
                });
            }
            ScopeKind::Session => {
                self.session.touch(call.at);
                self.session.worked += call.latency.unwrap_or_default();
                self.session.on(&call.model, call.at);
                if call.grows_session {
                    let recorded = &mut self.session.recorded;
                    *recorded = recorded.saturating_add(amount.tokens);
                }
            }
        }
    }

    fn total(&mut self, call: &super::Call, kind: ScopeKind) {
        let totals = &mut self.totals;
        totals.usage = totals.usage.plus(call.usage);
        totals.calls += u64::from(call.requests);
        if call.requests > 0 {
            totals.failures += u64::from(call.ended.class().is_some());
            match call.cost {
                Some(cost) => totals.cost_usd += cost.usd(),
                None => totals.unpriced += 1,
            }
        }
        if kind == ScopeKind::Model && !call.limits.is_empty() {
            totals.limits.clone_from(&call.limits);
        }
    }
}

impl SessionFigures {
    fn touch(&mut self, at: WallTime) {
        self.first_at = self.first_at.or(Some(at));
        self.last_at = self.last_at.max(Some(at));
    }

    fn on(&mut self, model: &ModelName, at: WallTime) {
        self.touch(at);
        self.model = Some(model.clone());
    }

    /// What it takes of its model's window.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.held.saturating_add(self.recorded)
    }

    /// From its first call to its last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.first_at.zip(self.last_at).map_or(Duration::ZERO, |(first, last)| last.since(first))
    }
}
