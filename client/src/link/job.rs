//! One delivery being worked on.

use std::{sync::Arc, time::Duration};

use broker_proto::{
    Delivery, Failure, FailureClass, Part, RateLimit, SettleOutcome, Settlement, TaskExchange,
    TaskSpec, Usage,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    LinkState,
    pulse::{Pulse, Watched},
};
use crate::{
    Client, Error,
    content::{Cache, has_reference, payload_parts},
};

/// What is known of a delivery's call besides its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub usage: Usage,
    pub limits: Vec<RateLimit>,
    /// From the call to its first token.
    pub first_token: Option<Duration>,
}

/// Why a settlement did not count.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The lease is another's, or the message ended: nothing more is to be done.
    #[error("the lease is lost")]
    LeaseLost,
    /// The broker does not take this settlement.
    #[error("the settlement was refused: {detail}")]
    Refused { reason: String, detail: String },
    /// The answer could not be stored apart; the delivery was settled as failed instead.
    #[error("the answer could not be stored")]
    Content(#[source] Error),
    /// The link ended for good before the broker answered; its outcome is unknown.
    #[error("the link has ended")]
    Ended,
}

/// What a job says while it runs.
pub(super) struct Order {
    pub(super) lease: String,
    pub(super) say: Say,
}

pub(super) enum Say {
    Start { part: u32, opening: Part },
    Delta { part: u32, text: String },
    End { part: u32, closing: Option<Part> },
    Progress(String),
}

pub(super) type Done = oneshot::Sender<Result<(), SettleError>>;

/// What a job says last, and once.
pub(super) enum Ending {
    Settle { settlement: Box<Settlement>, done: Option<Done> },
    Abandon { lease: String, report: Report },
}

/// What the jobs of one link share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) cache: Cache,
    pub(super) state: watch::Receiver<LinkState>,
    /// The pause before a content call that a lost connection broke is made again.
    pub(super) retry: Duration,
}

/// One delivery being worked on. Dropping it unsettled gives it back ([`SettleOutcome::Release`]).
#[derive(Debug)]
pub struct Job {
    delivery: Delivery,
    lost: CancellationToken,
    pulse: Arc<Pulse>,
    orders: mpsc::Sender<Order>,
    /// A place kept for the one ending, so that `drop` never has to wait for it. `None` once it was used.
    ending: Option<mpsc::OwnedPermit<Ending>>,
    shared: Arc<Shared>,
    span: tracing::Span,
}

impl Job {
    pub(super) fn new(
        delivery: Delivery,
        (lost, pulse): (CancellationToken, Arc<Pulse>),
        orders: mpsc::Sender<Order>,
        ending: mpsc::OwnedPermit<Ending>,
        shared: Arc<Shared>,
    ) -> Self {
        let span = tracing::info_span!(
            "delivery",
            message_id = %delivery.message.id,
            attempt = delivery.attempt,
            model = delivery.model.as_ref().map(tracing::field::display),
        );
        Self { delivery, lost, pulse, orders, ending: Some(ending), shared, span }
    }

    /// What was delivered.
    #[must_use]
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The task that was delivered: its description and inputs. `None` for any other message.
    #[must_use]
    pub fn task(&self) -> Option<&TaskSpec> {
        self.delivery.message.payload.task.as_deref()
    }

    /// What this task asked its requester so far, oldest first, each with its answer.
    #[must_use]
    pub fn exchanges(&self) -> &[TaskExchange] {
        &self.delivery.exchanges
    }

    /// Asks the requester of this task something, which ends the delivery; the task comes again with the answer.
    ///
    /// # Errors
    /// As [`Job::settle`].
    pub async fn ask(self, question: Vec<Part>, report: Report) -> Result<(), SettleError> {
        self.settle(SettleOutcome::Ask { question }, report).await
    }

    /// The span of this message, for what is done about it.
    #[must_use]
    pub fn span(&self) -> &tracing::Span {
        &self.span
    }

    /// Fires when the message was cancelled or the lease is lost: drop the provider's call, then [`Job::abandon`].
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// The work on this delivery, watched: its lease is renewed only while it moves. Every heartbeat wakes it; if it is
    /// not polled for two of them, it hangs, and its lease runs out for somebody else. A job that is held without this
    /// keeps its lease for as long as it is held.
    #[must_use = "nothing is done until it is polled"]
    pub fn watch<F: Future>(&self, work: F) -> Watched<F> {
        self.pulse.watch(work)
    }

    pub(super) fn taken(&self) {
        self.pulse.take();
    }

    /// Begins part `part` of the answer; `opening` is the part without its content.
    pub async fn start_part(&self, part: u32, opening: Part) {
        self.say(Say::Start { part, opening }).await;
    }

    /// Streams the next piece of a part. Waits while the link is behind.
    pub async fn delta(&self, part: u32, text: &str) {
        if !text.is_empty() {
            self.say(Say::Delta { part, text: text.to_owned() }).await;
        }
    }

    /// Ends a part; `closing` is what is known only now.
    pub async fn end_part(&self, part: u32, closing: Option<Part>) {
        self.say(Say::End { part, closing }).await;
    }

    /// Tells that work goes on, which renews the lease.
    pub async fn progress(&self, text: &str) {
        self.say(Say::Progress(text.to_owned())).await;
    }

    /// Ends the delivery. Returns once the broker has answered that this is durable; over a lost connection it is
    /// said again. Parts too large for a frame are stored apart first.
    ///
    /// # Errors
    /// [`SettleError::LeaseLost`] when the delivery is another's by now; the usage is reported all the same.
    pub async fn settle(
        mut self,
        outcome: SettleOutcome,
        report: Report,
    ) -> Result<(), SettleError> {
        let span = self.span.clone();
        async {
            let (outcome, refused) = match self.offload(outcome).await {
                Ok(outcome) => (outcome, None),
                Err(SettleError::Content(error)) => {
                    let detail = "the answer could not be stored with the broker";
                    (internal(detail), Some(SettleError::Content(error)))
                }
                Err(error) => {
                    self.end(Ending::Abandon { lease: self.lease(), report });
                    return Err(error);
                }
            };
            let (done, answer) = oneshot::channel();
            let settlement = self.settlement(outcome, report);
            self.end(Ending::Settle { settlement, done: Some(done) });
            let settled = answer.await.unwrap_or(Err(SettleError::Ended));
            refused.map_or(settled, Err)
        }
        .instrument(span)
        .await
    }

    /// Ends a delivery whose lease is lost or whose message was cancelled: only reports what the call took.
    /// A delivery that is still this agent's is given back.
    pub async fn abandon(mut self, report: Report) {
        self.end(Ending::Abandon { lease: self.lease(), report });
    }

    /// Fetches what came by hash.
    pub(super) async fn fetch(&mut self) -> Result<(), SettleError> {
        let pulse = Arc::clone(&self.pulse);
        pulse.watch(self.fetch_parts()).await
    }

    async fn fetch_parts(&mut self) -> Result<(), SettleError> {
        let shared = self.shared.clone();
        let mut payload = std::mem::take(&mut self.delivery.message.payload);
        let mut exchanges = std::mem::take(&mut self.delivery.exchanges);
        let fetched = loop {
            let mut parts = payload_parts(&mut payload);
            parts.extend(
                exchanges.iter_mut().flat_map(|e| e.question.iter_mut().chain(&mut e.answer)),
            );
            let fetch = shared.client.fetch_into(parts, Some(&shared.cache));
            match self.unless_lost(fetch).await {
                Ok(Err(error)) if error.is_connection() => {
                    if let Err(lost) = self.unless_lost(shared.connected_again()).await {
                        break Err(lost);
                    }
                }
                Ok(fetched) => break fetched.map_err(SettleError::Content),
                Err(lost) => break Err(lost),
            }
        };
        self.delivery.message.payload = payload;
        self.delivery.exchanges = exchanges;
        fetched
    }

    pub(super) fn has_reference(&self) -> bool {
        let exchanges = &self.delivery.exchanges;
        let exchanged = exchanges.iter().flat_map(|e| e.question.iter().chain(&e.answer));
        has_reference(self.delivery.message.payload.parts().chain(exchanged))
    }

    /// Ends a delivery that never came to its worker.
    pub(super) fn fail(mut self, detail: &str) {
        let settlement = self.settlement(internal(detail), Report::default());
        self.end(Ending::Settle { settlement, done: None });
    }

    async fn offload(&self, outcome: SettleOutcome) -> Result<SettleOutcome, SettleError> {
        Ok(match outcome {
            SettleOutcome::Done { parts, stop_reason } => {
                SettleOutcome::Done { parts: self.offload_parts(parts).await?, stop_reason }
            }
            SettleOutcome::Failed { failure, partial } => {
                SettleOutcome::Failed { failure, partial: self.offload_parts(partial).await? }
            }
            SettleOutcome::Ask { question } => {
                SettleOutcome::Ask { question: self.offload_parts(question).await? }
            }
            SettleOutcome::Retry { .. } | SettleOutcome::Reject { .. } | SettleOutcome::Release => {
                outcome
            }
        })
    }

    async fn offload_parts(&self, parts: Vec<Part>) -> Result<Vec<Part>, SettleError> {
        loop {
            let offload = self.shared.client.offload_parts(parts.clone());
            match self.unless_lost(offload).await? {
                Ok(parts) => return Ok(parts),
                Err(error) if error.is_connection() => {
                    self.unless_lost(self.shared.connected_again()).await?;
                }
                Err(error) => return Err(SettleError::Content(error)),
            }
        }
    }

    async fn unless_lost<T>(&self, work: impl Future<Output = T>) -> Result<T, SettleError> {
        let lost = self.lost.clone();
        lost.run_until_cancelled_owned(work).await.ok_or(SettleError::LeaseLost)
    }

    async fn say(&self, say: Say) {
        let order = Order { lease: self.lease(), say };
        // Neither a lost lease nor an ended link has anyone to listen.
        let _ = self.unless_lost(self.orders.send(order)).await;
    }

    fn lease(&self) -> String {
        self.delivery.lease.clone()
    }

    fn settlement(&self, outcome: SettleOutcome, report: Report) -> Box<Settlement> {
        let Report { usage, limits, first_token } = report;
        Box::new(Settlement { lease: self.lease(), outcome, usage, limits, first_token })
    }

    fn end(&mut self, ending: Ending) {
        if let Some(place) = self.ending.take() {
            place.send(ending);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.ending.is_some() {
            let settlement = self.settlement(SettleOutcome::Release, Report::default());
            self.end(Ending::Settle { settlement, done: None });
        }
    }
}

impl Shared {
    /// Returns when a connection stands, never at once: a call that fails on a standing one must not spin.
    async fn connected_again(&self) {
        tokio::time::sleep(self.retry).await;
        let mut state = self.state.clone();
        let stands = |state: &LinkState| !matches!(state, LinkState::Connecting { .. });
        // The link's task has ended: the next call says what is the matter.
        let _ = state.wait_for(stands).await;
    }
}

fn internal(detail: &str) -> SettleOutcome {
    let failure = Failure::new(FailureClass::Internal, "agent", detail);
    SettleOutcome::Failed { failure, partial: Vec::new() }
}
