//! Settlements: from an agent's word to the engine's commit.

use bytes::Bytes;
use futures::FutureExt;
use tonic::Status;
use tracing::{Instrument, info_span};

use broker_proto::{
    AgentName, Down, Failure, FailureClass, Part, Payload, SettleOutcome, SettledFrame, Settlement,
    Usage, convert::Stored as _,
};

use super::{Answering, Held, LinkTask, Services};
use crate::{
    context::Stored,
    core::{Command, Outcome, Query, Refusal, Reply, SettleCommand, queue::Seq},
    engine,
    intake::bound,
    reply::Slots,
    service::{self, reason},
};

impl LinkTask {
    /// Settles one delivery. What touches its stream is done at once, in the order of the frames; the rest when polled.
    pub(super) fn settle(&self, settlement: Settlement) -> Answering {
        let Settlement { lease, outcome, usage, limits, first_token } = settlement;
        let Some((seq, epoch)) = self.services.leases.read(&lease) else {
            let refused = Some(reason::frame(&reason::lease_lost()));
            let settled = Down::Settled(SettledFrame { lease, refused });
            return async move { Some(settled) }.boxed();
        };
        let held = self.release(seq, epoch);
        let id = held.map_or(broker_proto::MessageId::from_u128(0), |held| held.id);
        let is_held = held.is_some();
        let outcome = close_stream(&self.services.slots, seq, epoch, outcome, is_held);
        let limits = bound::limits(limits);
        let (services, agent) = (self.services.clone(), self.agent.clone());
        let (links, link) = (services.links.clone(), self.link);
        let span = info_span!("message", %id, attempt = epoch);
        let settle = SettleCommand {
            agent,
            seq,
            epoch,
            id,
            outcome: Outcome::Release { shown: false },
            usage,
            limits,
            first_token,
            earlier: None,
        };
        async move {
            let refused = match commit(&services, outcome, settle).await {
                Ok(()) => None,
                Err(status) if is_passing(&status) => {
                    // Not refused for good: the agent keeps it, greets again and settles again.
                    links.close(link, status);
                    return None;
                }
                Err(status) => Some(reason::frame(&status)),
            };
            Some(Down::Settled(SettledFrame { lease, refused }))
        }
        .instrument(span)
        .boxed()
    }

    /// Takes a delivery out of what this link holds. A stale token takes nothing from the lease that followed it (I-14).
    fn release(&self, seq: Seq, epoch: u32) -> Option<Held> {
        let mut held = self.held();
        let is_current = held.get(&seq).is_some_and(|held| held.epoch == epoch);
        is_current.then(|| held.remove(&seq))?
    }

    /// Ends an attempt whose answer nobody can hold, and tells its agent to stop.
    pub(super) fn give_up(&self, seq: Seq, held: Held, detail: String) -> Answering {
        let shown = self.services.slots.get(seq).is_some_and(|slot| slot.seal(held.epoch));
        let (services, agent) = (self.services.clone(), self.agent.clone());
        let lease = services.leases.token(seq, held.epoch);
        self.held().remove(&seq);
        async move {
            let failure = malformed(detail.clone());
            let command = Command::Settle(Box::new(SettleCommand {
                agent,
                seq,
                epoch: held.epoch,
                id: held.id,
                outcome: Outcome::Failed { failure, partial: None, shown },
                usage: Usage::default(),
                limits: Vec::new(),
                first_token: None,
                earlier: None,
            }));
            // Refused when the lease is lost already; then there is nothing left to end.
            let _ = services.engine.command(command).await;
            Some(Down::Revoke { lease, reason: detail })
        }
        .boxed()
    }
}

/// Ends the live stream of an attempt: completed when it is done, sealed when it is not.
fn close_stream(
    slots: &Slots,
    seq: Seq,
    epoch: u32,
    outcome: SettleOutcome,
    is_held: bool,
) -> Sealed {
    let slot = slots.get(seq).filter(|_| is_held);
    let seal = || slot.as_ref().is_some_and(|slot| slot.seal(epoch));
    match outcome {
        SettleOutcome::Done { parts, stop_reason } => {
            let completed = slot.as_ref().map_or(Ok(()), |slot| slot.complete(epoch, &parts));
            match completed {
                Ok(()) => Sealed::Done { parts, stop_reason },
                Err(too_large) => Sealed::Failed {
                    failure: malformed(too_large.to_string()),
                    partial: Vec::new(),
                    shown: seal(),
                },
            }
        }
        SettleOutcome::Failed { failure, partial } => {
            Sealed::Failed { failure: bound::failure(failure), partial, shown: seal() }
        }
        SettleOutcome::Retry { after } => Sealed::Other(Outcome::Retry { after, shown: seal() }),
        SettleOutcome::Reject { reason } => {
            seal();
            Sealed::Other(Outcome::Reject { reason: bound::text(reason) })
        }
        SettleOutcome::Release => Sealed::Other(Outcome::Release { shown: seal() }),
    }
}

/// Settles a lease that was pulled, for the agent that holds it.
pub(in crate::link) async fn settle_pulled(
    services: &Services,
    agent: AgentName,
    settlement: Settlement,
) -> SettledFrame {
    let Settlement { lease, outcome, usage, limits, first_token } = settlement;
    let settled = async {
        let (seq, epoch) = services.leases.read(&lease).ok_or_else(reason::lease_lost)?;
        let holder = services.engine.query(Query::Lease(seq)).await;
        let Reply::Lease(holder) = holder.map_err(service::status::engine)? else {
            return Err(reason::lease_lost());
        };
        let is_held = holder.as_ref().is_some_and(|h| h.epoch == epoch && h.agent == agent);
        let id = holder.map_or(broker_proto::MessageId::from_u128(0), |holder| holder.id);
        let outcome = close_stream(&services.slots, seq, epoch, outcome, is_held);
        let settle = SettleCommand {
            agent,
            seq,
            epoch,
            id,
            outcome: Outcome::Release { shown: false },
            usage,
            limits: bound::limits(limits),
            first_token,
            earlier: None,
        };
        commit(services, outcome, settle).await
    };
    let refused = settled.await.err().map(|status| reason::frame(&status));
    SettledFrame { lease, refused }
}

/// What may be different a moment later.
fn is_passing(status: &Status) -> bool {
    use tonic::Code;
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::ResourceExhausted)
}

/// An outcome whose stream is closed; its contents are still to be stored.
enum Sealed {
    Done { parts: Vec<Part>, stop_reason: Option<broker_proto::StopReason> },
    Failed { failure: Failure, partial: Vec<Part>, shown: bool },
    Other(Outcome),
}

fn malformed(detail: String) -> Failure {
    Failure::new(FailureClass::MalformedReply, "broker", detail)
}

/// Stores the reply and ends the lease in one commit (I-20); the command's outcome is the one given here.
async fn commit(
    services: &Services,
    outcome: Sealed,
    mut command: SettleCommand,
) -> Result<(), Status> {
    let (outcome, contents) = match outcome {
        Sealed::Done { parts, stop_reason } => {
            let stored = store(services, parts).await?;
            (Outcome::Done { reply: stored.body, stop_reason }, stored.contents)
        }
        Sealed::Failed { failure, partial, shown } if partial.is_empty() => {
            (Outcome::Failed { failure, partial: None, shown }, Vec::new())
        }
        Sealed::Failed { failure, partial, shown } => {
            let stored = store(services, partial).await?;
            let partial = Some(stored.body);
            (Outcome::Failed { failure, partial, shown }, stored.contents)
        }
        Sealed::Other(outcome) => (outcome, Vec::new()),
    };
    command.outcome = outcome;
    let (seq, epoch) = (command.seq, command.epoch);
    let settled = services.engine.with_contents(Command::Settle(Box::new(command)), contents).await;
    match settled {
        Ok(_) => Ok(()),
        // Settled so long ago that only the projection knows (I-19).
        Err(engine::Error::Refused(Refusal::LeaseLost(id))) => {
            let head = services.engine.head();
            match services.projection.ended(seq, head).await {
                Ok(Some(ended)) if ended == epoch => Ok(()),
                _ => Err(service::status::engine(Refusal::LeaseLost(id).into())),
            }
        }
        Err(error) => Err(service::status::engine(error)),
    }
}

async fn store(services: &Services, response: Vec<Part>) -> Result<Stored, Status> {
    services.intake.check_refs(&response).await.map_err(service::status::intake)?;
    let bytes: Bytes = Payload { response, ..Payload::default() }.encode();
    services.bodies.store(bytes).await.map_err(|error| service::status::context(&error))
}
