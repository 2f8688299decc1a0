//! Deliveries for whoever cannot hold a stream: one call takes what there is, others settle and extend.
//!
//! Invariant: a pull is a link for as long as its call waits, with exactly its credit; its leases outlive it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::info;

use broker_proto::{AgentName, Delivery, Pull, SettleOutcome, SettledFrame, Settlement, Usage};

use super::{Out, Services, stream::settle::settle_pulled, table::Open};
use crate::{
    core::{
        Command, Delivered, Reply,
        agent::{Link, LinkId},
    },
    service::{self, reason},
};

/// The longest a pull waits: below the deadline of a unary call.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Frames that a waiting pull may be told without reading them: more than ever come.
const OUT: usize = 1024;

impl Services {
    /// Leases what there is, or what comes first within the wait. What the caller, having left, never gets is given
    /// back; so this must run to its end, whatever becomes of the call.
    pub async fn pull(
        self,
        agent: AgentName,
        pull: Pull,
        mut answer: oneshot::Sender<Result<Vec<Delivery>, Status>>,
    ) {
        let leased = self.lease(agent.clone(), pull, &mut answer).await;
        let deliveries = match leased {
            Ok(leased) => {
                let mut deliveries = Vec::new();
                for delivered in leased {
                    let body = self.bodies.load(&delivered.body).await;
                    let delivery = self.delivery(&agent, delivered, body).await;
                    deliveries.extend(delivery.map(|(delivery, _)| delivery));
                }
                Ok(deliveries)
            }
            Err(status) => Err(status),
        };
        if let Err(Ok(deliveries)) = answer.send(deliveries) {
            let leases = deliveries.into_iter().map(|delivery| delivery.lease);
            self.give_back(agent, leases).await;
        }
    }

    async fn lease(
        &self,
        agent: AgentName,
        pull: Pull,
        answer: &mut oneshot::Sender<Result<Vec<Delivery>, Status>>,
    ) -> Result<Vec<Delivered>, Status> {
        let Pull { models, roles, messages, size_bytes, lease, wait } = pull;
        let models = models.iter().map(|name| self.intake.model(name));
        let models = models.collect::<Result<Vec<_>, _>>().map_err(service::status::intake)?;
        let link = self.number();
        let (tx, mut out) = mpsc::channel(OUT);
        let instance = format!("pull-{}", link.0);
        let open = Open {
            agent: agent.clone(),
            instance: instance.clone(),
            // A ping is for who stays to answer it.
            models: Vec::new(),
            out: tx,
            close: CancellationToken::new(),
            reason: std::sync::Arc::default(),
            pings: std::sync::Arc::default(),
        };
        self.links.insert(link, open);
        let up = Box::new(Link {
            agent,
            instance,
            resumes: None,
            pull: Some(lease.unwrap_or(self.settings.pull_lease)),
            is_exclusive: false,
            models,
            roles,
            stands_by: Vec::new(),
            capacity: messages,
            since: self.clock.now().wall,
            credit_messages: messages,
            credit_bytes: size_bytes,
        });
        let began = Command::LinkUp { link, up, resume: Vec::new() };
        let began = self.engine.command(began).await.map_err(service::status::engine);
        let mut leased = Vec::new();
        if began.is_ok() {
            tokio::select! {
                first = delivered(&mut out) => leased.extend(first),
                () = tokio::time::sleep(wait.min(LONGEST_WAIT)) => {}
                () = self.stop.cancelled() => {}
                () = answer.closed() => {}
            }
        }
        self.end(link).await;
        while let Ok(next) = out.try_recv() {
            if let Out::Deliver(delivered) = next {
                leased.push(*delivered);
            }
        }
        began.map(|_| leased)
    }

    /// From its answer on nothing is given to this link any more, and what was is in its channel.
    async fn end(&self, link: LinkId) {
        // An engine that has stopped gives nothing.
        let _ = self.engine.command(Command::LinkDown { link }).await;
        self.links.remove(link);
    }

    async fn give_back(&self, agent: AgentName, leases: impl Iterator<Item = String>) {
        for lease in leases {
            info!(%agent, "the caller left before its delivery");
            let release = Settlement {
                lease,
                outcome: SettleOutcome::Release,
                usage: Usage::default(),
                limits: Vec::new(),
                first_token: None,
            };
            settle_pulled(self, agent.clone(), release).await;
        }
    }

    /// Settles for `agent`, one after the other; each has its own answer.
    pub async fn settle_pulled(
        &self,
        agent: &AgentName,
        settlements: Vec<Settlement>,
    ) -> Vec<SettledFrame> {
        let settling = settlements.into_iter().map(|next| settle_pulled(self, agent.clone(), next));
        futures::future::join_all(settling).await
    }

    /// Lets a lease of `agent` run for `by` from now; gives how long it runs.
    ///
    /// # Errors
    /// `LEASE_LOST` for a token that holds no lease of this agent.
    pub async fn extend(
        &self,
        agent: AgentName,
        lease: &str,
        by: Duration,
    ) -> Result<Duration, Status> {
        let (seq, epoch) = self.leases.read(lease).ok_or_else(reason::lease_lost)?;
        let command = Command::Extend { agent, seq, epoch, by };
        match self.engine.command(command).await.map_err(service::status::engine)? {
            Reply::Extended(left) => Ok(left),
            _ => Err(reason::lease_lost()),
        }
    }
}

/// The next delivery; frames that only a stream could take are passed over.
async fn delivered(out: &mut mpsc::Receiver<Out>) -> Option<Delivered> {
    while let Some(next) = out.recv().await {
        if let Out::Deliver(delivered) = next {
            return Some(*delivered);
        }
    }
    None
}
