//! A member of a ring that is started when its turn comes, by a program that its own configuration names.
//!
//! Invariant: what is run comes from this machine's configuration; the broker says only that the turn has come.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use broker_client::link::WakeHook;
use broker_proto::Wake;
use tokio::process::Command;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// Starts one member; at most one of its programs runs at a time.
#[derive(Debug, Clone)]
pub struct Waker {
    agent: String,
    command: Vec<String>,
    tracker: TaskTracker,
    over: CancellationToken,
    runs: Arc<Mutex<bool>>,
}

impl Waker {
    /// For the member that this entry names. Its programs are waited for on `tracker`, until `over`; they go on then.
    #[must_use]
    pub fn new(
        wake: &broker_config::Wake,
        tracker: &TaskTracker,
        over: &CancellationToken,
    ) -> Self {
        Self {
            agent: wake.agent.clone(),
            command: wake.command.clone(),
            tracker: tracker.clone(),
            over: over.clone(),
            runs: Arc::default(),
        }
    }

    /// What a link that stands by calls.
    #[must_use]
    pub fn hook(self) -> WakeHook {
        WakeHook::new(move |wake| self.start(wake))
    }

    /// Starts it, in a process group of its own, so that it outlives this program. Whether it comes is seen by the broker,
    /// which asks the next member when it does not.
    fn start(&self, wake: &Wake) {
        let Some((program, arguments)) = self.command.split_first() else { return };
        if std::mem::replace(&mut *self.running(), true) {
            warn!(program, "what was started before still runs: nothing is started");
            return;
        }
        let from = wake.from.as_ref().map_or("", |agent| agent.as_str());
        let child = Command::new(program)
            .args(arguments)
            .env("BROKER_WAKE_ROLE", wake.role.as_str())
            .env("BROKER_WAKE_FROM", from)
            .env("BROKER_WAKE_TO", &self.agent)
            .env("BROKER_WAKE_REASON", wake.reason.replace('\0', " "))
            .stdin(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                *self.running() = false;
                warn!(program, %error, "cannot be started");
                return;
            }
        };
        info!(program, role = %wake.role, "started");
        let (waker, program) = (self.clone(), program.clone());
        self.tracker.spawn(self.over.clone().run_until_cancelled_owned(async move {
            match child.wait().await {
                Ok(status) if status.success() => info!(program, "ended"),
                Ok(status) => warn!(program, %status, "ended"),
                Err(error) => warn!(program, %error, "cannot be waited for"),
            }
            *waker.running() = false;
        }));
    }

    fn running(&self) -> std::sync::MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
