//! Wakes the members of rings: with a program or a file that the broker's own configuration names, and nobody else.
//!
//! Invariant: a hook that hangs is killed with everything it started, and its member is passed over.

mod hook;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker_config::Config;
use broker_proto::AgentName;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    core::{
        Command,
        ring::{Call, Command as RingCommand},
    },
    engine::EngineHandle,
};
use hook::Hook;

/// Runs the hooks of members whose turn it is, each in a task of its own.
#[derive(Debug)]
pub struct Wakes {
    hooks: Arc<BTreeMap<AgentName, Hook>>,
    deadline: Duration,
    calls: mpsc::Receiver<Box<Call>>,
    engine: EngineHandle,
    tasks: TaskTracker,
}

impl Wakes {
    #[must_use]
    pub fn new(
        config: &Config,
        calls: mpsc::Receiver<Box<Call>>,
        engine: EngineHandle,
        tasks: TaskTracker,
    ) -> Self {
        let hook = |wake: &broker_config::Wake| {
            let agent = AgentName::parse(&wake.agent).ok()?;
            Some((agent, Hook { command: wake.command.clone(), file: wake.file.clone() }))
        };
        let hooks = Arc::new(config.wakes.iter().filter_map(hook).collect());
        Self { hooks, deadline: config.rotation.wake_deadline, calls, engine, tasks }
    }

    /// Wakes until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(call)) = stop.run_until_cancelled(self.calls.recv()).await {
            let (hooks, engine) = (Arc::clone(&self.hooks), self.engine.clone());
            let (deadline, stop) = (self.deadline, stop.clone());
            self.tasks.spawn(async move {
                let waking = wake(&hooks, &engine, deadline, *call);
                stop.run_until_cancelled(waking).await;
            });
        }
    }
}

/// Wakes one, and says so where that failed. What cannot be said is found out when its time is over.
async fn wake(
    hooks: &BTreeMap<AgentName, Hook>,
    engine: &EngineHandle,
    deadline: Duration,
    call: Call,
) {
    let Some(hook) = hooks.get(&call.to) else { return };
    let error = match hook.run(&call, deadline).await {
        Ok(()) => {
            info!(role = %call.role, to = %call.to, "the wake hook of a ring's member has run");
            return;
        }
        Err(error) => error,
    };
    let reason = error.to_string();
    warn!(role = %call.role, to = %call.to, reason, "a ring's member could not be woken");
    let command = RingCommand::NotWoken { role: call.role, to: call.to.clone(), reason };
    if let Err(error) = engine.command(Command::Ring(Box::new(command))).await {
        warn!(to = %call.to, %error, "nobody is told that a ring's member was not woken");
    }
}
