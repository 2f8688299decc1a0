//! Members of rings that are started when it is their turn.

use std::{fmt, sync::Arc};

use broker_proto::Wake;

type Woken = dyn Fn(&Wake) + Send + Sync;

/// Called when the member that a link stands by for is to take over.
///
/// It runs inside the link's own task, so it must return at once.
#[derive(Clone)]
pub struct WakeHook(Arc<Woken>);

impl WakeHook {
    /// A hook that calls `wake`.
    pub fn new(wake: impl Fn(&Wake) + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    pub(super) fn call(&self, wake: &Wake) {
        (self.0)(wake);
    }
}

impl fmt::Debug for WakeHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WakeHook")
    }
}
