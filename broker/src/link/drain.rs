//! Draining: nothing new is given out, what runs settles, and then it is said.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use broker_proto::{AgentName, Down, DrainStep};

use super::{LeaseKey, Links};
use crate::{
    core::{Command, Draining, Query, Reply},
    engine::{Clock, EngineHandle, Error},
};

/// How often it is looked whether everything has settled; only while somebody waits for it.
const LOOK: Duration = Duration::from_millis(50);

/// What a drain needs of the broker.
#[derive(Debug, Clone)]
pub struct Drain {
    pub engine: EngineHandle,
    pub links: Links,
    pub leases: LeaseKey,
    pub clock: std::sync::Arc<dyn Clock>,
    /// Stops the broker.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl Drain {
    /// Does what a drain asks for, and waits for its end, at most `most`.
    ///
    /// # Errors
    /// When the engine is gone.
    pub async fn run(
        &self,
        drain: broker_proto::Drain,
        most: Duration,
    ) -> Result<broker_proto::Draining, Error> {
        let broker_proto::Drain { agent, deadline, step, stops, wait } = drain;
        let mut draining = match step {
            DrainStep::Undo => return self.undo(agent).await.map(Into::into),
            DrainStep::Look => self.state(agent.clone()).await?,
            DrainStep::Begin => self.begin(agent.clone(), deadline).await?,
        };
        if stops {
            self.stop_after(deadline);
        }
        if !wait.is_zero() {
            draining = self.wait(agent, wait.min(most)).await?;
        }
        Ok(draining.into())
    }

    /// Gives nothing new to `agent`, or to nobody, and tells the links, once.
    async fn begin(&self, agent: Option<AgentName>, deadline: Duration) -> Result<Draining, Error> {
        let before = self.state(agent.clone()).await?;
        if before.is_draining {
            return Ok(before);
        }
        let draining = self.set(agent.clone(), false).await?;
        let until = Some(self.clock.now().wall.after(deadline));
        let open = self.links.len();
        self.links.send_each(agent.as_ref(), |link| Down::Drain {
            reason: "an operator drains the broker".to_owned(),
            until,
            reconnect_after: Some(self.leases.reconnect_after(link, open)),
            is_over: false,
        });
        info!(
            agent = agent.as_ref().map(AgentName::as_str),
            running = draining.running,
            "draining"
        );
        Ok(draining)
    }

    async fn undo(&self, agent: Option<AgentName>) -> Result<Draining, Error> {
        let draining = self.set(agent.clone(), true).await?;
        self.links.send_each(agent.as_ref(), |_| Down::Drain {
            reason: "the drain was undone".to_owned(),
            until: None,
            reconnect_after: None,
            is_over: true,
        });
        info!(agent = agent.as_ref().map(AgentName::as_str), "no longer draining");
        Ok(draining)
    }

    /// Waits until everything has settled, the drain was undone, or the time is over.
    async fn wait(&self, agent: Option<AgentName>, most: Duration) -> Result<Draining, Error> {
        let end = tokio::time::Instant::now() + most;
        loop {
            let draining = self.state(agent.clone()).await?;
            let is_over = draining.running == 0 || !draining.is_draining;
            if is_over || tokio::time::Instant::now() >= end {
                return Ok(draining);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops the broker once it is drained, at the latest after `deadline`: leases that are still out outlive it.
    fn stop_after(&self, deadline: Duration) {
        let drain = self.clone();
        self.tasks.spawn(async move {
            let stop = drain.stop.clone();
            match stop.run_until_cancelled(drain.wait(None, deadline)).await {
                Some(Ok(draining)) if !draining.is_draining => return,
                Some(Ok(Draining { running: 0, .. })) => info!("drained; stopping"),
                Some(Ok(draining)) => {
                    warn!(running = draining.running, "not drained in time; stopping");
                }
                // It stops already.
                Some(Err(_)) | None => {}
            }
            stop.cancel();
        });
    }

    async fn set(&self, agent: Option<AgentName>, is_over: bool) -> Result<Draining, Error> {
        draining(&self.engine.command(Command::Drain { agent, is_over }).await?)
    }

    async fn state(&self, agent: Option<AgentName>) -> Result<Draining, Error> {
        draining(&self.engine.query(Query::Drain(agent)).await?)
    }
}

impl From<Draining> for broker_proto::Draining {
    fn from(draining: Draining) -> Self {
        Self { is_draining: draining.is_draining, running: draining.running as u64 }
    }
}

fn draining(reply: &Reply) -> Result<Draining, Error> {
    match reply {
        Reply::Drain(draining) => Ok(*draining),
        _ => Err(Error::Unknown),
    }
}
