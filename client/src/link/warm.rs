//! Models that are loaded before they are asked.

use std::{fmt, sync::Arc};

use broker_proto::ModelName;

type Warm = dyn Fn(&ModelName, u64) + Send + Sync;

/// Called when a session may come to a model soon: its name, and about how many tokens the prompt would have.
///
/// It runs inside the link's own task, so it must return at once.
#[derive(Clone)]
pub struct WarmHook(Arc<Warm>);

impl WarmHook {
    /// A hook that calls `warm`.
    pub fn new(warm: impl Fn(&ModelName, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(warm))
    }

    pub(super) fn call(&self, model: &ModelName, tokens: u64) {
        (self.0)(model, tokens);
    }
}

impl fmt::Debug for WarmHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WarmHook")
    }
}
