//! What all requests of one simulator share: the script, the clock, and the state that faults, quotas and caches
//! live in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    faults::Faults,
    journal::Journal,
    models::{self, Model},
    presets,
    quota::{QuotaSpec, Quotas},
    reply::Moment,
    script::{Effect, Fault, ModelSpec, Script, Wire},
    tokens::PrefixCache,
};

const DEFAULT_SEED: u64 = 1;
const DEFAULT_PACE: f64 = 200.0;
const DEFAULT_FIRST_TOKEN: Duration = Duration::from_millis(40);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) script: Script,
    pub(super) seed: u64,
    pub(super) pace: f64,
    pub(super) first_token: Duration,
    pub(super) journal: Arc<Journal>,
    pub(super) stopping: CancellationToken,
    started: Instant,
    wall: OffsetDateTime,
    /// Every request takes it for a moment, without waiting while it holds it.
    state: Mutex<State>,
    refusals: mpsc::Sender<Refusal>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    pub(super) quotas: Quotas,
    pub(super) cache: PrefixCache,
    /// Ollama's models in memory, with the context length in force.
    pub(super) loaded: BTreeMap<String, u64>,
}

/// Nobody listens for so long; `begun` is told when the port is closed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) lasts: Duration,
    pub(super) begun: oneshot::Sender<()>,
}

impl Shared {
    pub(super) fn new(script: Script, refusals: mpsc::Sender<Refusal>) -> Result<Self, Error> {
        let shared = Self {
            seed: script.seed.unwrap_or(DEFAULT_SEED),
            pace: script.tokens_per_second.unwrap_or(DEFAULT_PACE),
            first_token: script.first_token.map_or(DEFAULT_FIRST_TOKEN, |span| span.0),
            script,
            journal: Arc::new(Journal::new()),
            stopping: CancellationToken::new(),
            started: Instant::now(),
            wall: OffsetDateTime::now_utc(),
            state: Mutex::default(),
            refusals,
        };
        for fault in &shared.script.faults {
            checked(fault.clone())?;
        }
        for quota in &shared.script.quotas {
            check_quota(quota)?;
        }
        Ok(shared)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn moment(&self, number: u64) -> Moment {
        let now = self.now();
        Moment { number, now, wall: self.wall + now }
    }

    /// Back to the script: its quotas full, its faults unspent, nothing in journal and caches.
    pub(super) async fn reset(&self) -> Result<(), Error> {
        {
            let now = self.now();
            let mut state = self.state();
            *state = State::default();
            for quota in &self.script.quotas {
                state.quotas.set(quota.clone(), now);
            }
        }
        self.journal.clear();
        for fault in &self.script.faults {
            self.install(fault.clone()).await?;
        }
        Ok(())
    }

    /// Adds a fault; one that refuses connections has begun when this returns.
    pub(super) async fn install(&self, fault: Fault) -> Result<u64, Error> {
        let fault = checked(fault)?;
        let effects = fault.effects.as_slice();
        let refusal = effects.iter().find_map(|effect| {
            if let Effect::Refuse(lasts) = effect { Some(lasts.0) } else { None }
        });
        if let Some(lasts) = refusal {
            let (begun, is_begun) = oneshot::channel();
            self.refusals.send(Refusal { lasts, begun }).await.map_err(|_| Error::Stopped)?;
            is_begun.await.map_err(|_| Error::Stopped)?;
            return Ok(0);
        }
        Ok(self.state().faults.add(fault))
    }

    pub(super) fn set_quota(&self, spec: QuotaSpec) -> Result<(), Error> {
        check_quota(&spec)?;
        let now = self.now();
        self.state().quotas.set(spec, now);
        Ok(())
    }

    /// The model of this id on this wire; `None` when the script declares others only.
    pub(super) fn model(&self, wire: Wire, id: &str) -> Option<Model> {
        let mut declared = self.declared(wire).peekable();
        if declared.peek().is_none() {
            let spec = ModelSpec { id: id.to_owned(), ..ModelSpec::default() };
            return Some(Model::of(&spec, wire));
        }
        declared.find(|model| model.is_named(id))
    }

    /// What this wire lists.
    pub(super) fn models(&self, wire: Wire) -> Vec<Model> {
        let declared: Vec<Model> = self.declared(wire).collect();
        if !declared.is_empty() {
            return declared;
        }
        let usual = models::LISTED.iter().filter(|id| models::wire_of(id) == wire);
        usual
            .map(|id| Model::of(&ModelSpec { id: (*id).to_owned(), ..ModelSpec::default() }, wire))
            .collect()
    }

    fn declared(&self, wire: Wire) -> impl Iterator<Item = Model> {
        let specs = self.script.models.iter();
        specs
            .filter(move |spec| spec.wire.unwrap_or_else(|| models::wire_of(&spec.id)) == wire)
            .map(move |spec| Model::of(spec, wire))
    }
}

fn check_quota(spec: &QuotaSpec) -> Result<(), Error> {
    match &spec.refusal {
        Some(name) if presets::find(name).is_none() => Err(Error::UnknownPreset(name.clone())),
        _ => Ok(()),
    }
}

/// Presets exist, and belong to one wire: a fault that names none is on its preset's.
fn checked(mut fault: Fault) -> Result<Fault, Error> {
    for effect in fault.effects.as_slice() {
        let Effect::Preset(name) = effect else { continue };
        let preset = presets::find(name).ok_or_else(|| Error::UnknownPreset(name.clone()))?;
        if fault.wire.is_none() {
            fault.wire = Some(preset.wire());
            break;
        }
    }
    Ok(fault)
}
