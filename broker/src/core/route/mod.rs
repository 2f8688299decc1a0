//! Routing: which model may be called now, who answers in its place, and what a failure means.
//!
//! Invariant: this module knows no message and no link; it judges models by what it is told of both.

mod choose;
mod failure;

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{FailureClass, ModelName, WallTime};

pub use choose::{
    Bounds, Choice, Fit, Judged, Needs, Presence, Verdict as Judgement, choose, estimated_tokens,
    judge, output_cap,
};
pub use failure::{Effects, Verdict, consequences, verdict};

use super::{BootTime, Event, Note, Now, queue::Seq};

/// What routing says of one model: shut or not, and how often it has failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelRoute {
    /// Failures in a row that count towards the breaker.
    pub failures: u32,
    /// Times it was shut without a success between: the breaker's waits grow with it.
    pub closings: u32,
    pub shut: Option<Shut>,
}

/// Why a model is not called, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// When it is tried again; `None` is not before its configuration changes.
    pub until: Option<WallTime>,
    /// `until` is the provider's word, not ours.
    pub is_told: bool,
    pub class: FailureClass,
    /// A sentence for people, without the model's name.
    pub reason: String,
}

/// Whether a model's queue may be delivered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    Shut,
    /// Its time has come; nobody tries it yet.
    Due,
    /// This message tries it.
    Probing(Seq),
}

#[derive(Debug, Default)]
pub struct State {
    routes: BTreeMap<ModelName, ModelRoute>,
    probing: BTreeMap<ModelName, Seq>,
    sweeps: BTreeSet<ModelName>,
}

impl State {
    #[must_use]
    pub fn get(&self, model: &ModelName) -> ModelRoute {
        self.routes.get(model).cloned().unwrap_or_default()
    }

    #[must_use]
    pub fn shut(&self, model: &ModelName) -> Option<&Shut> {
        self.routes.get(model)?.shut.as_ref()
    }

    #[must_use]
    pub fn gate(&self, model: &ModelName, now: Now) -> Gate {
        let Some(shut) = self.shut(model) else { return Gate::Open };
        match (self.probing.get(model), shut.until) {
            (Some(seq), _) => Gate::Probing(*seq),
            (None, Some(until)) if until <= now.wall => Gate::Due,
            (None, _) => Gate::Shut,
        }
    }

    /// The message that tries this model.
    #[must_use]
    pub fn prober(&self, model: &ModelName) -> Option<Seq> {
        self.probing.get(model).copied()
    }

    /// A model whose queue is to be routed again.
    #[must_use]
    pub fn to_sweep(&self) -> Option<&ModelName> {
        self.sweeps.first()
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<BootTime> {
        (!self.sweeps.is_empty()).then_some(now.boot)
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if let Event::RouteChanged { model, route, .. } = event {
            self.routes.insert(model.clone(), route.clone());
            if route.shut.is_none() {
                self.probing.remove(model);
            }
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Probing { model, seq: Some(seq) } => {
                self.probing.insert(model.clone(), *seq);
            }
            Note::Probing { model, seq: None } => {
                self.probing.remove(model);
            }
            Note::Sweep { model, is_due: true } => {
                self.sweeps.insert(model.clone());
            }
            Note::Sweep { model, is_due: false } => {
                self.sweeps.remove(model);
            }
            Note::Started { .. }
            | Note::LeaseRuns { .. }
            | Note::WaitRuns { .. }
            | Note::TreeLives { .. }
            | Note::LookAtUsage { .. }
            | Note::LookHome { .. }
            | Note::LookAfter { .. }
            | Note::NotSynced { .. }
            | Note::Warmed { .. }
            | Note::Heard { .. }
            | Note::LookAtCheckpoint { .. }
            | Note::Orphaned { .. }
            | Note::Unserved { .. }
            | Note::TooSmall { .. }
            | Note::LostAttempt { .. }
            | Note::Away { .. }
            | Note::ToldAway { .. }
            | Note::ToldAbsent { .. }
            | Note::Projected { .. }
            | Note::LinkUp { .. }
            | Note::LinkDown { .. }
            | Note::Drain { .. }
            | Note::Credit { .. }
            | Note::Spent { .. }
            | Note::TookTurn { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
