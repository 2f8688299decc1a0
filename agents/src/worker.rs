//! An agent's work: take a delivery, ask the provider, stream, settle.
//!
//! The deadlines of a call live here, once for all providers: first byte, between bytes, total. The one for
//! connecting is the HTTP client's, which alone sees a connection.
//!
//! Invariant: one delivery is one provider call; whether another follows is the broker's to decide.
//! Invariant: every delivery ends in exactly one settlement, or in a report when its lease is lost.
//! Invariant: no content in a log.

mod heard;
pub mod task;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use broker_client::link::{Agent, Ended, Job, Report};
use broker_config::Model;
use broker_proto::{
    Delivery, Failure, FailureClass, InvalidName, MessageType, ModelName, SettleOutcome,
    StopReason, Usage,
};
use futures::FutureExt;
use humantime::format_duration;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info, warn};

use heard::{Heard, Listener};

use crate::provider::{self, Chunk, Prompt, Provider};

/// A model that this process serves.
#[derive(Debug)]
struct Served {
    model: Model,
    provider: Arc<dyn Provider>,
    /// One per call at once: the broker grants by the process, the provider counts by the model.
    slots: Semaphore,
}

/// Answers deliveries for one or more models.
#[derive(Debug, Clone)]
pub struct Worker {
    served: Arc<BTreeMap<ModelName, Served>>,
    /// Whom a message asks that is addressed to the agent itself.
    first: Option<ModelName>,
}

impl Worker {
    /// A worker for these models.
    ///
    /// # Errors
    /// [`InvalidName`] when a model's name is none, which a checked configuration never has.
    pub fn new(
        models: impl IntoIterator<Item = (Model, Arc<dyn Provider>)>,
    ) -> Result<Self, InvalidName> {
        let mut served = BTreeMap::new();
        let mut first = None;
        for (model, provider) in models {
            let name = ModelName::parse(&model.name)?;
            first.get_or_insert_with(|| name.clone());
            let slots = Semaphore::new(usize::try_from(model.concurrency).unwrap_or(1));
            served.insert(name, Served { model, provider, slots });
        }
        Ok(Self { served: Arc::new(served), first })
    }

    /// The models it serves.
    #[must_use]
    pub fn models(&self) -> Vec<ModelName> {
        self.served.keys().cloned().collect()
    }

    /// Calls at once that its models' providers are said to take.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.served.values().map(|served| served.model.concurrency).fold(0, u32::saturating_add)
    }

    /// Loads a model that may be asked soon, where its provider loads models. What fails is logged: the call itself will
    /// say so too.
    pub async fn load(&self, model: &ModelName, tokens: u64) {
        let Some(served) = self.served.get(model) else { return };
        match timeout(served.model.total_timeout, served.provider.load(tokens)).await {
            Ok(Ok(())) => info!(%model, tokens, "loaded ahead"),
            Ok(Err(failed)) => {
                let (class, detail) = (failed.failure.class.as_str(), &failed.failure.detail);
                warn!(%model, class, detail, "could not be loaded ahead");
            }
            Err(_) => warn!(%model, "could not be loaded ahead in time"),
        }
    }

    /// Works until the link ends for good, or until `stop`: then running calls have `grace` to end.
    pub async fn run(&self, mut agent: Agent, stop: CancellationToken, grace: Duration) -> Ended {
        let tracker = TaskTracker::new();
        let over = CancellationToken::new();
        loop {
            let job = tokio::select! {
                job = agent.next() => job,
                () = stop.cancelled() => {
                    info!(running = tracker.len(), "draining");
                    agent.drain(grace).await;
                    None
                }
            };
            let Some(job) = job else { break };
            let (worker, over) = (self.clone(), over.clone());
            tracker.spawn(async move { worker.work(job, over).await });
        }
        // What still runs has no one left to tell.
        over.cancel();
        tracker.close();
        tracker.wait().await;
        agent.ended().unwrap_or(Ended::Drained)
    }

    async fn work(&self, job: Job, over: CancellationToken) {
        let span = job.span().clone();
        let ending = async {
            let lost = job.cancelled();
            tokio::select! {
                biased;
                () = over.cancelled() => Ending::Abandon(Report::default()),
                ending = self.answer(job.delivery(), &job, &lost) => ending,
            }
        };
        // A call that hangs must not keep its lease only because this process stands.
        let ending = job.watch(ending).instrument(span.clone()).await;
        match ending {
            Ending::Abandon(report) => {
                span.in_scope(|| info!("abandoned"));
                job.abandon(report).await;
            }
            Ending::Settle(outcome, report) => {
                let settled = job.settle(*outcome, report).await;
                if let Err(error) = settled {
                    span.in_scope(|| info!(%error, "the settlement did not count"));
                }
            }
        }
    }

    /// What becomes of `delivery`. Pieces of the answer go to `listener` as they come.
    async fn answer(
        &self,
        delivery: &Delivery,
        listener: &impl Listener,
        lost: &CancellationToken,
    ) -> Ending {
        // A panic would give the delivery back, to panic again at the next agent.
        let ending = AssertUnwindSafe(self.consult(delivery, listener, lost)).catch_unwind().await;
        ending.unwrap_or_else(|_| {
            let failure =
                Failure::new(FailureClass::Internal, "agent", "the agent failed on this message");
            Ending::settle(SettleOutcome::Failed { failure, partial: Vec::new() })
        })
    }

    async fn consult(
        &self,
        delivery: &Delivery,
        listener: &impl Listener,
        lost: &CancellationToken,
    ) -> Ending {
        match delivery.message.kind {
            MessageType::Consultation | MessageType::Delegation => {}
            // It tells, and asks nothing: taking it is all there is to do.
            MessageType::Status => {
                if let Some(status) = &delivery.message.payload.status {
                    let (severity, what) = (status.severity.as_str(), status.what.as_str());
                    info!(severity, what, "status");
                }
                return Ending::settle(SettleOutcome::Done {
                    parts: Vec::new(),
                    stop_reason: None,
                });
            }
            MessageType::Handoff => {
                return Ending::reject("this agent takes consultations and delegations only");
            }
        }
        let name = delivery.model.as_ref().or(self.first.as_ref());
        let Some(served) = name.and_then(|name| self.served.get(name)) else {
            return Ending::reject("this agent does not serve the model");
        };
        let task = delivery.message.payload.task.as_deref();
        let asked = match (delivery.message.kind, task) {
            (MessageType::Delegation, None) => {
                return Ending::reject("a delegation without a task");
            }
            (_, None) => Prompt::of(delivery, &served.model),
            (_, Some(task)) => {
                Prompt::of(&task::as_question(delivery, task, &served.model), &served.model)
            }
        };
        let prompt = match asked {
            Ok(prompt) => prompt,
            Err(failure) => {
                return Ending::settle(SettleOutcome::Failed { failure, partial: Vec::new() });
            }
        };
        let began = Instant::now();
        let mut heard = Heard::new(served, prompt.estimated_tokens);
        let call = async {
            // Fails only once the semaphore is closed, which nobody does.
            let _slot = served.slots.acquire().await;
            heard.began = Instant::now();
            let left = delivery.time_left.saturating_sub(began.elapsed());
            let total = served.model.total_timeout;
            match timeout(left.min(total), served.call(prompt, &mut heard, listener)).await {
                Ok(ended) => ended,
                Err(_) if left < total => {
                    Err(heard.late("the message's deadline passed during the call"))
                }
                Err(_) => {
                    Err(heard.late(&format!("the whole call took over {}", format_duration(total))))
                }
            }
        };
        let ended = tokio::select! {
            biased;
            // Dropping the call closes the provider's connection.
            () = lost.cancelled() => None,
            ended = call => Some(ended),
        };
        match (heard.end(ended), task) {
            (Ending::Settle(outcome, report), Some(task)) => {
                let outcome = task::outcome(*outcome, task, &served.model);
                Ending::Settle(Box::new(outcome), report)
            }
            (ending, _) => ending,
        }
    }
}

/// How the work on a delivery ended.
#[derive(Debug)]
enum Ending {
    Settle(Box<SettleOutcome>, Report),
    Abandon(Report),
}

impl Ending {
    fn settle(outcome: SettleOutcome) -> Self {
        Self::Settle(Box::new(outcome), Report::default())
    }

    fn reject(reason: &str) -> Self {
        warn!(reason, "rejected");
        Self::settle(SettleOutcome::Reject { reason: reason.to_owned() })
    }
}

type Called = provider::Result<(Usage, Option<StopReason>)>;

impl Served {
    /// Makes the one call, within the deadlines for its bytes.
    async fn call(&self, prompt: Prompt, heard: &mut Heard, listener: &impl Listener) -> Called {
        let wait = self.model.first_byte_timeout;
        let first_by = heard.began + wait;
        let silent =
            |heard: &Heard| heard.late(&format!("no first byte within {}", format_duration(wait)));
        let opened = timeout_at(first_by, self.provider.complete(prompt)).await;
        let mut chunks = opened.map_err(|_| silent(heard))??;
        // Headers are no answer: some servers send them at once and the first byte minutes later.
        let first = loop {
            let chunk = timeout_at(first_by, chunks.next()).await.map_err(|_| silent(heard))?;
            match chunk.ok_or_else(|| heard.cut())?? {
                Chunk::Started { limits } => heard.limits = limits,
                chunk => break chunk,
            }
        };
        if let Some(done) = heard.take(first, listener).await {
            return Ok(done);
        }
        let wait = self.model.between_bytes_timeout;
        let mut chunks = pin!(chunks.timeout(wait));
        while let Some(chunk) = chunks.next().await {
            let silence =
                |_| heard.late(&format!("no byte for {} within the answer", format_duration(wait)));
            let chunk = chunk.map_err(silence)??;
            if let Some(done) = heard.take(chunk, listener).await {
                return Ok(done);
            }
        }
        Err(heard.cut())
    }
}
