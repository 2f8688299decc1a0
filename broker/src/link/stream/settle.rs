//! Settlements: from an agent's word to the engine's commit.

mod append;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tonic::Status;
use tracing::{Instrument, debug_span};

use broker_proto::{
    AgentName, Down, Failure, FailureClass, Message, Part, Payload, SettleOutcome, SettledFrame,
    Settlement, Usage, convert::Stored as _,
};

use super::{Answering, Held, LinkTask, Services};
use crate::{
    context::Stored,
    core::{
        Command, Event, Outcome, Query, Refusal, Reply, SettleCommand,
        queue::{Body, Seq},
    },
    engine,
    intake::{bound, expected::Expected},
    reply::{Slot, Slots},
    service::{self, reason},
};

impl LinkTask {
    /// Settles one delivery. What touches its stream is done at once, in the order of the frames; the rest when polled.
    pub(super) fn settle(&self, settlement: Settlement) -> Answering {
        let Settlement { lease, outcome, usage, limits, first_token } = settlement;
        let Some((seq, epoch)) = self.services.leases.read(&lease) else {
            let refused = Some(reason::frame(&reason::lease_lost()));
            let settled = Down::Settled(SettledFrame { lease, refused, is_repeated: false });
            return async move { Some(settled) }.boxed();
        };
        let held = self.release(seq, epoch);
        if held.is_some() {
            self.services.slots.end_work(seq, epoch);
        }
        let id = held.as_ref().map(|held| held.id);
        let may_append = held.as_ref().is_none_or(|held| held.may_append);
        let shortened = held.as_ref().and_then(|held| held.shortened.clone());
        let held = held.map(|held| held.expected);
        let outcome = close_stream(&self.services.slots, seq, epoch, outcome, held);
        let (limits, usage) = (bound::limits(limits), usage.believable());
        let (services, agent, link) = (Arc::clone(&self.services), self.agent.clone(), self.link);
        let span = debug_span!("message", id = id.map(tracing::field::display), attempt = epoch);
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
            append: None,
            shortened,
        };
        async move {
            let mut is_repeated = false;
            let refused = match commit(&services, outcome, settle, may_append).await {
                Ok(Committed::Now) => None,
                Ok(Committed::Before) => {
                    is_repeated = true;
                    None
                }
                Err(status) if is_passing(&status) => {
                    // Not refused for good: the agent keeps it, greets again and settles again.
                    services.links.close(link, status);
                    return None;
                }
                Err(status) => Some(reason::frame(&status)),
            };
            Some(Down::Settled(SettledFrame { lease, refused, is_repeated }))
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
    pub(super) fn give_up(&self, seq: Seq, held: &Held, detail: String) -> Answering {
        let (epoch, id) = (held.epoch, held.id);
        let shown = self.services.slots.get(seq).is_some_and(|slot| slot.seal(epoch));
        let (services, agent) = (Arc::clone(&self.services), self.agent.clone());
        let lease = services.leases.token(seq, epoch);
        self.held().remove(&seq);
        async move {
            let failure = malformed(detail.clone());
            let command = Command::Settle(Box::new(SettleCommand {
                agent,
                seq,
                epoch,
                id: Some(id),
                outcome: Outcome::Failed { failure, partial: None, shown },
                usage: Usage::default(),
                limits: Vec::new(),
                first_token: None,
                earlier: None,
                append: None,
                shortened: None,
            }));
            // Refused when the lease is lost already; then there is nothing left to end.
            let _ = services.engine.command(command).await;
            Some(Down::Revoke { lease, reason: detail })
        }
        .boxed()
    }
}

/// Ends the live stream of an attempt: completed when it is done, sealed when it is not. `held` is what its result must
/// be, as far as that is known: one that must be JSON is shown when it is known to be, so its stream is left to [`commit`].
fn close_stream(
    slots: &Slots,
    seq: Seq,
    epoch: u32,
    outcome: SettleOutcome,
    held: Option<Option<Arc<Expected>>>,
) -> Sealed {
    let slot = slots.get(seq).filter(|_| held.is_some());
    let seal = || slot.as_ref().is_some_and(|slot| slot.seal(epoch));
    match outcome {
        SettleOutcome::Done { parts, stop_reason }
            if held.as_ref().is_some_and(|e| e.as_deref() != Some(&Expected::Text)) =>
        {
            Sealed::Unchecked { parts, stop_reason, slot, expected: held.flatten() }
        }
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
        SettleOutcome::Ask { question } => Sealed::Asked { question, shown: seal() },
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
        let id = holder.map(|holder| holder.id);
        let outcome = close_stream(&services.slots, seq, epoch, outcome, is_held.then_some(None));
        let settle = SettleCommand {
            agent,
            seq,
            epoch,
            id,
            outcome: Outcome::Release { shown: false },
            usage: usage.believable(),
            limits: bound::limits(limits),
            first_token,
            earlier: None,
            append: None,
            shortened: None,
        };
        // What it was delivered with is not kept for a pull.
        commit(services, outcome, settle, true).await
    };
    let settled = settled.await;
    let is_repeated = matches!(settled, Ok(Committed::Before));
    let refused = settled.err().map(|status| reason::frame(&status));
    SettledFrame { lease, refused, is_repeated }
}

/// What may be different a moment later.
fn is_passing(status: &Status) -> bool {
    use tonic::Code;
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::ResourceExhausted)
}

/// An outcome whose stream is closed; its contents are still to be stored.
enum Sealed {
    Done {
        parts: Vec<Part>,
        stop_reason: Option<broker_proto::StopReason>,
    },
    /// Its parts are not in its stream yet.
    Unchecked {
        parts: Vec<Part>,
        stop_reason: Option<broker_proto::StopReason>,
        slot: Option<Arc<Slot>>,
        expected: Option<Arc<Expected>>,
    },
    Asked {
        question: Vec<Part>,
        shown: bool,
    },
    Failed {
        failure: Failure,
        partial: Vec<Part>,
        shown: bool,
    },
    Other(Outcome),
}

impl Sealed {
    fn parts(&self) -> &[Part] {
        match self {
            Self::Done { parts, .. } | Self::Unchecked { parts, .. } => parts,
            Self::Asked { question, .. } => question,
            Self::Failed { partial, .. } => partial,
            Self::Other(_) => &[],
        }
    }
}

fn malformed(detail: String) -> Failure {
    Failure::new(FailureClass::MalformedReply, "broker", detail)
}

/// Bytes of one question back; what is longer is no question.
const LONGEST_QUESTION: u64 = 64 * 1024;

/// When a lease was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Now,
    /// By an earlier word with the same token (I-19).
    Before,
}

/// Stores the reply and ends the lease in one commit (I-20), and with it what a session goes on with, where one may; the
/// command's outcome is the one given here.
async fn commit(
    services: &Services,
    outcome: Sealed,
    mut command: SettleCommand,
    may_append: bool,
) -> Result<Committed, Status> {
    let is_done = matches!(outcome, Sealed::Done { .. } | Sealed::Unchecked { .. });
    let may_append = may_append && is_done;
    let _stay = if may_append {
        Some(Arc::clone(&services.intake.parts).read_owned().await)
    } else {
        services.intake.stay(outcome.parts()).await
    };
    let outcome = match outcome {
        Sealed::Unchecked { parts, stop_reason, slot, expected } => {
            check(services, &command, parts, stop_reason, slot, expected).await?
        }
        outcome => outcome,
    };
    let answer = match &outcome {
        Sealed::Done { parts, .. } if may_append => {
            append::answer(services, command.seq, parts).await?
        }
        _ => append::Appending::Nothing,
    };
    let (outcome, contents) = match outcome {
        // Checked above.
        Sealed::Unchecked { parts, stop_reason, .. } | Sealed::Done { parts, stop_reason } => {
            let stored = store(services, parts).await?;
            (Outcome::Done { reply: stored.body, stop_reason }, stored.contents)
        }
        Sealed::Asked { question, shown } => {
            let size: u64 = question.iter().map(Part::size_bytes).sum();
            if (1..=LONGEST_QUESTION).contains(&size) {
                let stored = store(services, question).await?;
                (Outcome::Ask { question: stored.body, shown }, stored.contents)
            } else {
                let why = "what it asked back is empty or too long to be a question";
                let failure = Failure::new(FailureClass::MalformedReply, "broker", why);
                (Outcome::Failed { failure, partial: None, shown }, Vec::new())
            }
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
    match append::settle(services, command, contents, answer).await? {
        Ok(Reply::SettledBefore) => Ok(Committed::Before),
        Ok(_) => Ok(Committed::Now),
        // Settled so long ago that only the projection knows (I-19).
        Err(engine::Error::Refused(Refusal::LeaseLost(id))) => {
            let head = services.engine.head();
            match services.projection.ended(seq, head).await {
                Ok(Some(ended)) if ended == epoch => Ok(Committed::Before),
                Ok(_) => Err(service::status::engine(Refusal::LeaseLost(id).into())),
                // It may have been settled: to say that it was not would be a lie.
                Err(_) => Err(service::status::engine(engine::Error::Unknown)),
            }
        }
        Err(error) => Err(service::status::engine(error)),
    }
}

/// A result against what its task asked for; shown only if it is that.
async fn check(
    services: &Services,
    command: &SettleCommand,
    parts: Vec<Part>,
    stop_reason: Option<broker_proto::StopReason>,
    slot: Option<Arc<Slot>>,
    expected: Option<Arc<Expected>>,
) -> Result<Sealed, Status> {
    let expected = match expected {
        Some(expected) => expected,
        None => Arc::new(look_up(services, command.seq).await?),
    };
    // What is stored apart is read first.
    let mut whole = Vec::new();
    for part in &parts {
        match part {
            Part::Ref(_) => {
                let fetched = services.intake.check_refs([part]).await;
                whole.extend(fetched.map_err(service::status::intake)?);
            }
            part => whole.push(part.clone()),
        }
    }
    let wrong = expected.check(&whole).err().map(|problem| format!("the result {problem}"));
    let wrong = wrong.or_else(|| {
        let complete = |slot: &Arc<Slot>| slot.complete(command.epoch, &parts);
        slot.as_ref().map(complete).and_then(Result::err).map(|too_large| too_large.to_string())
    });
    Ok(match wrong {
        None => Sealed::Done { parts, stop_reason },
        Some(detail) => {
            let shown = slot.is_some_and(|slot| slot.seal(command.epoch));
            Sealed::Failed { failure: malformed(detail), partial: parts, shown }
        }
    })
}

/// What a message asks for, whose delivery went out over an earlier link.
async fn look_up(services: &Services, seq: Seq) -> Result<Expected, Status> {
    let life = services.projection.life(seq, services.engine.head()).await;
    let life = life.map_err(|error| service::status::projection(&error))?;
    let Some(Event::Accepted(accepted)) = life.into_iter().next().map(|step| step.event) else {
        return Err(reason::lease_lost());
    };
    let bytes = services.bodies.load(&accepted.body).await;
    let bytes = bytes.map_err(|error| service::status::context(&error))?;
    Ok(Expected::of_message(&Message::decode(bytes)?))
}

async fn store(services: &Services, response: Vec<Part>) -> Result<Stored, Status> {
    if response.is_empty() {
        // Nothing was answered, as to most letters: no bytes are stored for it.
        return Ok(Stored { body: Body::default(), contents: Vec::new() });
    }
    services.intake.check_refs(&response).await.map_err(service::status::intake)?;
    let bytes: Bytes = Payload { response, ..Payload::default() }.encode();
    services.bodies.store(bytes).await.map_err(|error| service::status::context(&error))
}
