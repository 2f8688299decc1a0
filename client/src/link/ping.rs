//! Pings between models: what an agent says when it is asked to send one, gets one, or has its answer.

use std::{collections::BTreeMap, fmt, sync::Arc};

use broker_proto::{ModelName, PingText, Up};
use tokio::time::Instant;

/// Pings under way at most; of more the oldest is forgotten.
const UNDER_WAY: usize = 64;

type Seen = dyn Fn(&ModelName, &str) + Send + Sync;

/// Called with every ping that comes: the model it comes from, and its text.
///
/// It runs inside the link's own task, so it must return at once.
#[derive(Clone)]
pub struct PingHook(Arc<Seen>);

impl PingHook {
    /// A hook that calls `seen`.
    pub fn new(seen: impl Fn(&ModelName, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(seen))
    }
}

impl fmt::Debug for PingHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PingHook")
    }
}

/// The pings this agent has sent and has no answer to, and whom it shows those that come.
#[derive(Debug)]
pub(super) struct Pings {
    sent: BTreeMap<u64, Instant>,
    hook: Option<PingHook>,
}

impl Pings {
    pub(super) fn new(hook: Option<PingHook>) -> Self {
        Self { sent: BTreeMap::new(), hook }
    }

    pub(super) fn send(&mut self, nonce: u64, to: ModelName, text: PingText) -> Up {
        if self.sent.len() >= UNDER_WAY {
            self.sent.pop_first();
        }
        self.sent.insert(nonce, Instant::now());
        Up::SendPing { nonce, to, text }
    }

    pub(super) fn answer(&self, nonce: u64, from: &ModelName, text: &PingText) -> Up {
        if let Some(PingHook(seen)) = &self.hook {
            seen(from, &text.0);
        }
        Up::PeerPong { nonce }
    }

    /// `None` for an answer to nothing that was sent.
    pub(super) fn answered(&mut self, nonce: u64) -> Option<Up> {
        let sent = self.sent.remove(&nonce)?;
        Some(Up::PingDone { nonce, round_trip: sent.elapsed() })
    }
}
