//! An agent's side of the link: deliveries in, answers and settlements out.
//!
//! [`Agent`] keeps one link to the broker standing, whatever becomes of connections: it greets, grants credit,
//! heartbeats, and after a reconnect names the leases it still works on, says again what it streamed of them,
//! and settles again what was not acknowledged. [`Job`] is one delivery. Neither calls a provider.
//!
//! Invariant: what to say, and when, is decided in `work`, `streamed`, `outbox` and `backoff`, which know no
//! socket and no clock; `task` carries it out.
//! Invariant: at most `capacity` jobs exist at once, so every queue here is bounded by it.

mod backoff;
mod connection;
mod job;
mod offer;
mod outbox;
mod ping;
mod pulse;
mod streamed;
mod task;
mod wake;
mod warm;
mod work;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use broker_proto::{AgentName, ModelName, RoleName};
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

pub use job::{Job, Report, SettleError};
pub use ping::PingHook;
pub use pulse::Watched;
pub use wake::WakeHook;
pub use warm::WarmHook;

use crate::{Endpoint, Error};

/// Who an agent is, and what it takes.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    pub endpoint: Endpoint,
    pub name: AgentName,
    /// Proves the name. Made by `brokerctl token create NAME`.
    pub token: SecretString,
    /// One link at a time under this name; the newest one takes over.
    pub is_exclusive: bool,
    /// The models whose queues this agent serves.
    pub models: Vec<ModelName>,
    /// The roles whose queues it takes from.
    pub roles: Vec<RoleName>,
    /// Deliveries it works on at once; at least one.
    pub capacity: u32,
    /// Bytes of deliveries it has in hand at once.
    pub byte_credit: u64,
    /// Whether sessions that are offered to its models are taken over. Where it is not, an offer is left to other
    /// processes of the model until its time is over.
    pub takes_sessions: bool,
    /// Is shown every ping from another model; the link answers by itself.
    pub on_ping: Option<PingHook>,
    /// Is told which model a session may come to soon.
    pub on_warm: Option<WarmHook>,
    /// Takes nothing, and is told when the member of its name is to take over a ring of one of its roles: the link
    /// stands by, beside those that work. `on_wake` starts that member.
    pub is_standby: bool,
    /// Is told, on a link that stands by, that its member is to take over.
    pub on_wake: Option<WakeHook>,
    /// The first wait before connecting again, after one attempt at once.
    pub reconnect_min: Duration,
    /// The longest wait before connecting again.
    pub reconnect_max: Duration,
}

impl AgentOptions {
    /// One delivery at a time, shared queues, sessions taken over, and the shipped values of `[links]`.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        name: AgentName,
        token: SecretString,
        models: Vec<ModelName>,
    ) -> Self {
        Self {
            endpoint,
            name,
            token,
            is_exclusive: false,
            models,
            roles: Vec::new(),
            capacity: 1,
            byte_credit: 8 * 1024 * 1024,
            takes_sessions: true,
            on_ping: None,
            on_warm: None,
            is_standby: false,
            on_wake: None,
            reconnect_min: Duration::from_millis(200),
            reconnect_max: Duration::from_secs(10),
        }
    }
}

/// Where a link is.
#[derive(Debug, Clone)]
pub enum LinkState {
    /// Not connected; `attempt` counts from 1 since the link last stood, `error` is why the one before failed.
    Connecting {
        attempt: u32,
        error: Option<Arc<Error>>,
    },
    Connected,
    /// One of the two sides stops: nothing new is taken, running jobs settle.
    Draining,
    /// For good; [`Agent::ended`] says why.
    Ended,
}

/// Why a link ended for good.
#[derive(Debug, Clone)]
pub enum Ended {
    /// As this side wished.
    Drained,
    /// A newer process greeted under the same exclusive name.
    Superseded,
    /// The broker does not take this agent: its token, or its name.
    Refused(Arc<Error>),
}

/// A link that stands, or is being brought back. Dropping it ends the link and gives back what is in hand.
#[derive(Debug)]
pub struct Agent {
    jobs: mpsc::Receiver<Job>,
    leave: mpsc::Sender<Duration>,
    state: watch::Receiver<LinkState>,
    ended: Arc<OnceLock<Ended>>,
    tracker: TaskTracker,
}

impl Agent {
    /// Connects, and keeps the link until it ends for good. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(options: AgentOptions) -> Self {
        let tracker = TaskTracker::new();
        let ended = Arc::new(OnceLock::new());
        let (leave, leaving) = mpsc::channel(1);
        let (link, jobs, state) =
            task::LinkTask::new(options, leaving, ended.clone(), tracker.clone());
        tracker.spawn(link.run());
        Self { jobs, leave, state, ended, tracker }
    }

    /// The next delivery; `None` once the link has ended for good. Parts that came by hash are inline again.
    pub async fn next(&mut self) -> Option<Job> {
        let job = self.jobs.recv().await;
        job.inspect(Job::taken)
    }

    /// Why the link ended for good; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended.get().cloned()
    }

    /// Takes no new work, lets running jobs settle, says goodbye and closes. What is not settled within `grace`
    /// is given back.
    pub async fn drain(&mut self, grace: Duration) {
        self.jobs.close();
        // What nobody took yet is given back at once.
        while self.jobs.try_recv().is_ok() {}
        // The link may have ended by itself: then there is nobody to tell.
        let _ = self.leave.send(grace).await;
        let _ = self.state.wait_for(|state| matches!(state, LinkState::Ended)).await;
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Where the link is, now and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }
}
