//! `link.proto`.

use std::time::Duration;

use super::{
    InvalidField,
    common::{
        agent, message_id, model, numbered, optional_agent, optional_model, role, span, text_of,
        time, wire_numbered, wire_span,
    },
    each, required,
};
use crate::{
    AnswerFrame, Delivery, Down, Extension, Failure, Hello, Message, ModelName, PingText, Pull,
    RefusedFrame, SettleOutcome, SettledFrame, Settlement, Stamp, StopReason, Up, Wake, Welcome,
    pb,
};

/// Bytes of a ping's text.
const PING_TEXT: usize = 4096;

pub(super) fn ping_text(text: String, field: &'static str) -> Result<PingText, InvalidField> {
    if text.len() > PING_TEXT {
        return Err(InvalidField::new(field, format!("is longer than {PING_TEXT} bytes")));
    }
    Ok(PingText(text))
}

impl TryFrom<pb::Hello> for Hello {
    type Error = InvalidField;

    fn try_from(wire: pb::Hello) -> Result<Self, InvalidField> {
        let models = wire.models.iter().map(|name| model(name, "hello.models"));
        let roles = wire.roles.iter().map(|name| role(name, "hello.roles"));
        Ok(Self {
            agent: agent(&wire.agent, "hello.agent")?,
            token: wire.token,
            instance: wire.instance,
            is_exclusive: wire.exclusive,
            models: models.collect::<Result<Vec<ModelName>, _>>()?,
            capacity: wire.capacity,
            resume: wire.resume,
            resume_token: Some(wire.resume_token).filter(|token| !token.is_empty()),
            resume_seen: wire.resume_seen,
            roles: roles.collect::<Result<_, _>>()?,
            is_standby: wire.standby,
        })
    }
}

impl From<Hello> for pb::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            agent: hello.agent.to_string(),
            token: hello.token,
            instance: hello.instance,
            exclusive: hello.is_exclusive,
            models: hello.models.iter().map(ToString::to_string).collect(),
            capacity: hello.capacity,
            resume: hello.resume,
            resume_token: hello.resume_token.unwrap_or_default(),
            resume_seen: hello.resume_seen,
            roles: hello.roles.iter().map(ToString::to_string).collect(),
            standby: hello.is_standby,
        }
    }
}

impl TryFrom<pb::Settlement> for Settlement {
    type Error = InvalidField;

    fn try_from(wire: pb::Settlement) -> Result<Self, InvalidField> {
        use pb::settlement::Outcome as Wire;
        let outcome = match required(wire.outcome, "settlement.outcome")? {
            Wire::Done(done) => SettleOutcome::Done {
                parts: each(done.parts)?,
                stop_reason: StopReason::from_wire(done.stop_reason),
            },
            Wire::Failed(failed) => SettleOutcome::Failed {
                failure: Failure::try_from(required(failed.failure, "settlement.failure")?)?,
                partial: each(failed.partial)?,
            },
            Wire::Retry(retry) => SettleOutcome::Retry {
                after: span(retry.after, "retry.after")?.unwrap_or_default(),
            },
            Wire::Ask(ask) => SettleOutcome::Ask { question: each(ask.question)? },
            Wire::Reject(reject) => SettleOutcome::Reject { reason: reject.reason },
            Wire::Release(_) => SettleOutcome::Release,
        };
        Ok(Self {
            lease: wire.lease,
            outcome,
            usage: wire.usage.map(Into::into).unwrap_or_default(),
            limits: each(wire.limits)?,
            first_token: span(wire.first_token, "settlement.first_token")?,
        })
    }
}

impl From<Settlement> for pb::Settlement {
    fn from(settlement: Settlement) -> Self {
        use pb::settlement::Outcome as Wire;
        let outcome = match settlement.outcome {
            SettleOutcome::Done { parts, stop_reason } => Wire::Done(pb::SettleDone {
                parts: parts.into_iter().map(Into::into).collect(),
                stop_reason: stop_reason.map_or(0, StopReason::to_wire),
            }),
            SettleOutcome::Failed { failure, partial } => Wire::Failed(pb::SettleFailed {
                failure: Some(failure.into()),
                partial: partial.into_iter().map(Into::into).collect(),
            }),
            SettleOutcome::Retry { after } => {
                Wire::Retry(pb::SettleRetry { after: Some(wire_span(after)) })
            }
            SettleOutcome::Ask { question } => Wire::Ask(pb::SettleAsk {
                question: question.into_iter().map(Into::into).collect(),
            }),
            SettleOutcome::Reject { reason } => Wire::Reject(pb::SettleReject { reason }),
            SettleOutcome::Release => Wire::Release(pb::SettleRelease {}),
        };
        Self {
            lease: settlement.lease,
            outcome: Some(outcome),
            usage: Some(settlement.usage.into()),
            limits: settlement.limits.into_iter().map(Into::into).collect(),
            first_token: settlement.first_token.map(wire_span),
        }
    }
}

impl TryFrom<pb::AnswerPart> for Up {
    type Error = InvalidField;

    fn try_from(wire: pb::AnswerPart) -> Result<Self, InvalidField> {
        use pb::answer_part::Part as Wire;
        let frame = match required(wire.part, "answer_part.part")? {
            Wire::Start(frame) => frame.try_into()?,
            Wire::Delta(frame) => frame.into(),
            Wire::End(frame) => frame.try_into()?,
        };
        Ok(Self::Part { delivery: wire.delivery, frame })
    }
}

/// Only part frames go up a link; anything else has no place there.
fn answer_part(delivery: u64, frame: AnswerFrame) -> Option<pb::AnswerPart> {
    use pb::{answer_frame::Frame, answer_part::Part as Wire};
    let part = match pb::AnswerFrame::from(frame).frame? {
        Frame::PartStart(frame) => Wire::Start(frame),
        Frame::PartDelta(frame) => Wire::Delta(frame),
        Frame::PartEnd(frame) => Wire::End(frame),
        _ => return None,
    };
    Some(pb::AnswerPart { delivery, part: Some(part) })
}

impl TryFrom<pb::ConnectRequest> for Up {
    type Error = InvalidField;

    fn try_from(wire: pb::ConnectRequest) -> Result<Self, InvalidField> {
        use pb::connect_request::Frame as Wire;
        Ok(match required(wire.frame, "frame")? {
            Wire::Hello(hello) => Self::Hello(hello.try_into()?),
            Wire::Credit(credit) => {
                Self::Credit { messages: credit.messages, size_bytes: credit.size_bytes }
            }
            Wire::Settle(settle) => Self::Settle(each(settle.settlements)?),
            Wire::AnswerPart(part) => part.try_into()?,
            Wire::Progress(progress) => {
                Self::Progress { lease: progress.lease, text: progress.text }
            }
            Wire::Usage(notice) => Self::Usage {
                model: model(&notice.model, "usage.model")?,
                usage: notice.usage.map(Into::into).unwrap_or_default(),
                limits: each(notice.limits)?,
                message: match notice.message_id.as_str() {
                    "" => None,
                    text => Some(message_id(text, "usage.message_id")?),
                },
            },
            Wire::Send(send) => {
                let mut message: Message = required(send.message, "send.message")?.try_into()?;
                message.numbered = numbered(&send.producer, send.number)?;
                Self::Send(Box::new(message))
            }
            Wire::Heartbeat(beat) => Self::Heartbeat { leases: beat.leases },
            Wire::Bye(bye) => Self::Bye { reason: bye.reason },
            Wire::Pong(pong) => Self::Pong { nonce: pong.nonce },
            Wire::SendPing(ping) => Self::SendPing {
                nonce: ping.nonce,
                to: model(&ping.to, "send_ping.to")?,
                text: ping_text(ping.text, "send_ping.text")?,
            },
            Wire::PeerPong(pong) => Self::PeerPong { nonce: pong.nonce },
            Wire::PingDone(done) => Self::PingDone {
                nonce: done.nonce,
                round_trip: span(done.round_trip, "ping_done.round_trip")?.unwrap_or_default(),
            },
        })
    }
}

impl From<Up> for pb::ConnectRequest {
    fn from(up: Up) -> Self {
        use pb::connect_request::Frame as Wire;
        let frame = match up {
            Up::Hello(hello) => Some(Wire::Hello(hello.into())),
            Up::Credit { messages, size_bytes } => {
                Some(Wire::Credit(pb::Credit { messages, size_bytes }))
            }
            Up::Settle(settlements) => Some(Wire::Settle(pb::Settle {
                settlements: settlements.into_iter().map(Into::into).collect(),
            })),
            Up::Part { delivery, frame } => answer_part(delivery, frame).map(Wire::AnswerPart),
            Up::Progress { lease, text } => Some(Wire::Progress(pb::Progress { lease, text })),
            Up::Usage { model, usage, limits, message } => Some(Wire::Usage(pb::UsageNotice {
                model: model.to_string(),
                usage: Some(usage.into()),
                limits: limits.into_iter().map(Into::into).collect(),
                message_id: text_of(message),
            })),
            Up::Send(message) => {
                let (producer, number) = wire_numbered(message.numbered.as_ref());
                Some(Wire::Send(pb::Send { message: Some((*message).into()), producer, number }))
            }
            Up::Heartbeat { leases } => Some(Wire::Heartbeat(pb::Heartbeat { leases })),
            Up::Bye { reason } => Some(Wire::Bye(pb::Bye { reason })),
            Up::Pong { nonce } => Some(Wire::Pong(pb::Pong { nonce })),
            Up::SendPing { nonce, to, text } => {
                Some(Wire::SendPing(pb::SendPing { nonce, to: to.to_string(), text: text.0 }))
            }
            Up::PeerPong { nonce } => Some(Wire::PeerPong(pb::PeerPong { nonce })),
            Up::PingDone { nonce, round_trip } => {
                let round_trip = Some(wire_span(round_trip));
                Some(Wire::PingDone(pb::PingDone { nonce, round_trip }))
            }
        };
        Self { frame, ..Self::default() }
    }
}

/// What a lease that is pulled may be.
const PULL_LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(30 * 60);
const PULL_MESSAGES: u32 = 100;
const PULL_ROLES: usize = 16;
/// One answer must fit what clients of gRPC read by default, 4 MiB.
const PULL_BYTES: u64 = 3 * 1024 * 1024;

/// The length of a lease that is pulled or extended.
fn pull_lease(
    wire: Option<prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidField> {
    let lease = span(wire, field)?;
    match lease.filter(|lease| !PULL_LEASE.contains(lease)) {
        Some(_) => Err(InvalidField::new(field, "is not between 5 s and 30 min")),
        None => Ok(lease),
    }
}

impl TryFrom<pb::PullMessagesRequest> for Pull {
    type Error = InvalidField;

    fn try_from(wire: pb::PullMessagesRequest) -> Result<Self, InvalidField> {
        let models = wire.models.iter().map(|name| model(name, "models"));
        let roles = wire.roles.iter().map(|name| role(name, "roles"));
        if wire.max_messages > PULL_MESSAGES {
            return Err(InvalidField::new("max_messages", "is over 100"));
        }
        if wire.roles.len() > PULL_ROLES {
            return Err(InvalidField::new("roles", "are more than 16"));
        }
        if wire.max_bytes > PULL_BYTES {
            return Err(InvalidField::new("max_bytes", "is over 3 MiB"));
        }
        Ok(Self {
            models: models.collect::<Result<_, _>>()?,
            roles: roles.collect::<Result<_, _>>()?,
            messages: wire.max_messages.max(1),
            size_bytes: if wire.max_bytes == 0 { PULL_BYTES } else { wire.max_bytes },
            lease: pull_lease(wire.lease, "lease")?,
            wait: span(wire.wait, "wait")?.unwrap_or_default(),
        })
    }
}

impl TryFrom<pb::ExtendLeaseRequest> for Extension {
    type Error = InvalidField;

    fn try_from(wire: pb::ExtendLeaseRequest) -> Result<Self, InvalidField> {
        let by = required(pull_lease(wire.duration, "duration")?, "duration")?;
        Ok(Self { lease: wire.lease, by })
    }
}

impl From<Extension> for pb::ExtendLeaseRequest {
    fn from(extension: Extension) -> Self {
        Self { lease: extension.lease, duration: Some(wire_span(extension.by)) }
    }
}

impl From<Duration> for pb::ExtendLeaseResponse {
    fn from(left: Duration) -> Self {
        Self { time_left: Some(wire_span(left)) }
    }
}

impl From<Pull> for pb::PullMessagesRequest {
    fn from(pull: Pull) -> Self {
        Self {
            models: pull.models.iter().map(ToString::to_string).collect(),
            roles: pull.roles.iter().map(ToString::to_string).collect(),
            max_messages: pull.messages,
            max_bytes: pull.size_bytes,
            lease: pull.lease.map(wire_span),
            wait: Some(wire_span(pull.wait)),
        }
    }
}

impl From<SettledFrame> for pb::SettleResult {
    fn from(settled: SettledFrame) -> Self {
        let ok = settled.refused.is_none();
        let (reason, detail) =
            settled.refused.map(|refused| (refused.reason, refused.detail)).unwrap_or_default();
        Self { lease: settled.lease, ok, reason, detail, repeated: settled.is_repeated }
    }
}

impl From<pb::SettleResult> for SettledFrame {
    fn from(wire: pb::SettleResult) -> Self {
        let refused = (!wire.ok).then(|| refused(wire.reason, wire.detail));
        Self { lease: wire.lease, refused, is_repeated: wire.repeated }
    }
}

impl TryFrom<pb::Deliver> for Delivery {
    type Error = InvalidField;

    fn try_from(wire: pb::Deliver) -> Result<Self, InvalidField> {
        Ok(Self {
            lease: wire.lease,
            number: wire.delivery,
            size_bytes: wire.size_bytes,
            message: required(wire.message, "deliver.message")?.try_into()?,
            attempt: wire.attempt,
            model: optional_model(&wire.model, "deliver.model")?,
            time_left: span(wire.time_left, "deliver.time_left")?.unwrap_or_default(),
            max_output_tokens: wire.max_output_tokens,
            exchanges: each(wire.exchanges)?,
            lease_left: span(wire.lease_left, "deliver.lease_left")?.unwrap_or_default(),
            generation: wire.generation,
        })
    }
}

impl From<Delivery> for pb::Deliver {
    fn from(delivery: Delivery) -> Self {
        Self {
            lease: delivery.lease,
            delivery: delivery.number,
            size_bytes: delivery.size_bytes,
            message: Some(delivery.message.into()),
            attempt: delivery.attempt,
            model: text_of(delivery.model),
            time_left: Some(wire_span(delivery.time_left)),
            max_output_tokens: delivery.max_output_tokens,
            exchanges: delivery.exchanges.into_iter().map(Into::into).collect(),
            lease_left: Some(wire_span(delivery.lease_left)),
            generation: delivery.generation,
        }
    }
}

fn refused(reason: String, detail: String) -> RefusedFrame {
    RefusedFrame { reason, detail }
}

impl TryFrom<pb::ConnectResponse> for Down {
    type Error = InvalidField;

    fn try_from(wire: pb::ConnectResponse) -> Result<Self, InvalidField> {
        use pb::connect_response::Frame as Wire;
        Ok(match required(wire.frame, "frame")? {
            Wire::Welcome(welcome) => Self::Welcome(Welcome {
                link: welcome.link,
                epoch: welcome.epoch,
                heartbeat: required(
                    span(welcome.heartbeat, "welcome.heartbeat")?,
                    "welcome.heartbeat",
                )?,
                lease: required(span(welcome.lease, "welcome.lease")?, "welcome.lease")?,
                resumed: welcome.resumed,
                resume_token: welcome.resume_token,
            }),
            Wire::Deliver(deliver) => Self::Deliver(Box::new(deliver.try_into()?)),
            Wire::Cancel(cancel) => Self::Cancel { lease: cancel.lease, reason: cancel.reason },
            Wire::Revoke(revoke) => Self::Revoke { lease: revoke.lease, reason: revoke.reason },
            Wire::Level(level) => Self::Level {
                model: model(&level.model, "level.model")?,
                level: level.level,
                reason: level.reason,
            },
            Wire::Drain(drain) => Self::Drain {
                reason: drain.reason,
                until: time(drain.until, "drain.until")?,
                reconnect_after: span(drain.reconnect_after, "drain.reconnect_after")?,
                is_over: drain.over,
            },
            Wire::SettleResult(result) => Self::Settled(result.into()),
            Wire::SendResult(sent) => Self::Sent {
                message: message_id(&sent.message_id, "send_result.message_id")?,
                result: match sent.receipt {
                    Some(receipt) => Ok(receipt.try_into()?),
                    None => Err(refused(sent.reason, sent.detail)),
                },
            },
            Wire::HandoffOffer(offer) => Self::Offer(offer.try_into()?),
            Wire::Warm(warm) => {
                Self::Warm { model: model(&warm.model, "warm.model")?, tokens: warm.tokens }
            }
            Wire::Wake(wake) => Self::Wake(Wake {
                role: role(&wake.role, "wake.role")?,
                from: optional_agent(&wake.from, "wake.from")?,
                reason: wake.reason,
                at: required(time(wake.at, "wake.at")?, "wake.at")?,
            }),
            Wire::Ping(ping) => Self::Ping { nonce: ping.nonce },
            Wire::AskPing(ping) => Self::AskPing {
                nonce: ping.nonce,
                to: model(&ping.to, "ask_ping.to")?,
                text: ping_text(ping.text, "ask_ping.text")?,
            },
            Wire::PeerPing(ping) => Self::PeerPing {
                nonce: ping.nonce,
                from: model(&ping.from, "peer_ping.from")?,
                text: ping_text(ping.text, "peer_ping.text")?,
            },
            Wire::PeerPong(pong) => Self::PeerPong { nonce: pong.nonce },
        })
    }
}

impl From<Down> for pb::ConnectResponse {
    fn from(down: Down) -> Self {
        use pb::connect_response::Frame as Wire;
        let frame = match down {
            Down::Welcome(welcome) => Wire::Welcome(pb::Welcome {
                link: welcome.link,
                epoch: welcome.epoch,
                heartbeat: Some(wire_span(welcome.heartbeat)),
                lease: Some(wire_span(welcome.lease)),
                resumed: welcome.resumed,
                resume_token: welcome.resume_token,
            }),
            Down::Deliver(delivery) => Wire::Deliver((*delivery).into()),
            Down::Cancel { lease, reason } => Wire::Cancel(pb::Cancel { lease, reason }),
            Down::Revoke { lease, reason } => Wire::Revoke(pb::Revoke { lease, reason }),
            Down::Level { model, level, reason } => {
                Wire::Level(pb::Level { model: model.to_string(), level, reason })
            }
            Down::Drain { reason, until, reconnect_after, is_over } => Wire::Drain(pb::Drain {
                reason,
                until: until.map(Into::into),
                reconnect_after: reconnect_after.map(wire_span),
                over: is_over,
            }),
            Down::Settled(settled) => Wire::SettleResult(settled.into()),
            Down::Sent { message, result } => {
                let (receipt, reason, detail) = match result {
                    Ok(receipt) => (Some(receipt.into()), String::new(), String::new()),
                    Err(refused) => (None, refused.reason, refused.detail),
                };
                Wire::SendResult(pb::SendResult {
                    message_id: message.to_string(),
                    receipt,
                    reason,
                    detail,
                })
            }
            Down::Offer(offer) => Wire::HandoffOffer(offer.into()),
            Down::Warm { model, tokens } => {
                Wire::Warm(pb::Warm { model: model.to_string(), tokens })
            }
            Down::Wake(wake) => Wire::Wake(pb::Wake {
                role: wake.role.to_string(),
                from: wake.from.map(|agent| agent.to_string()).unwrap_or_default(),
                reason: wake.reason,
                at: Some(wake.at.into()),
            }),
            Down::Ping { nonce } => Wire::Ping(pb::Ping { nonce }),
            Down::AskPing { nonce, to, text } => {
                Wire::AskPing(pb::AskPing { nonce, to: to.to_string(), text: text.0 })
            }
            Down::PeerPing { nonce, from, text } => {
                Wire::PeerPing(pb::PeerPing { nonce, from: from.to_string(), text: text.0 })
            }
            Down::PeerPong { nonce } => Wire::PeerPong(pb::PeerPong { nonce }),
        };
        Self { frame: Some(frame), ..Self::default() }
    }
}

macro_rules! stamped {
    ($($frame:ident),+) => {$(
        impl pb::$frame {
            /// Where it stands in its stream.
            #[must_use]
            pub fn stamp(&self) -> Stamp {
                Stamp { number: self.number, seen: self.seen }
            }

            /// The same frame at this place of its stream.
            #[must_use]
            pub fn stamped(self, stamp: Stamp) -> Self {
                Self { number: stamp.number, seen: stamp.seen, ..self }
            }
        }
    )+};
}

stamped!(ConnectRequest, ConnectResponse);
