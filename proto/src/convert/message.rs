//! `message.proto`.

use super::{
    InvalidField,
    common::{
        message_id, numbered, optional_agent, optional_model, span, text_of, time, wire_span,
    },
    required,
};
use crate::{
    Message, MessageChange, MessageInfo, MessageState, MessageType, Priority, Sender, TraceStep, pb,
};

impl TryFrom<pb::MessageInfo> for MessageInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::MessageInfo) -> Result<Self, InvalidField> {
        let from = Sender::parse(&wire.from)
            .map_err(|invalid| InvalidField::new("info.from", invalid.to_string()))?;
        Ok(Self {
            id: message_id(&wire.id, "info.id")?,
            from,
            to: required(wire.to, "info.to")?.try_into()?,
            kind: required(MessageType::from_wire(wire.r#type), "info.type")?,
            priority: Priority::from_wire(wire.priority).unwrap_or_default(),
            state: required(MessageState::from_wire(wire.state), "info.state")?,
            accepted_at: required(time(wire.accepted_at, "info.accepted_at")?, "info.accepted_at")?,
            deadline: required(time(wire.deadline, "info.deadline")?, "info.deadline")?,
            finished_at: time(wire.finished_at, "info.finished_at")?,
            queue: queue(&wire.queue)?,
            size_bytes: wire.size_bytes,
            generation: wire.generation.max(1),
            summary: wire.summary.map(TryInto::try_into).transpose()?,
            failure: wire.failure.map(TryInto::try_into).transpose()?,
            session: (!wire.session.is_empty()).then_some(wire.session),
            labels: wire.labels,
            copies: wire.copies,
            correlation: wire.correlation.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

/// A queue is written as its recipient's kind and name: `model/opus`, `agent/reviewer`.
fn queue(text: &str) -> Result<Option<crate::Recipient>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let queue = crate::Recipient::parse(text);
    queue.map(Some).map_err(|_| InvalidField::new("info.queue", "is not kind/name"))
}

impl From<MessageInfo> for pb::MessageInfo {
    fn from(info: MessageInfo) -> Self {
        Self {
            id: info.id.to_string(),
            from: info.from.to_string(),
            to: Some(info.to.into()),
            r#type: info.kind.to_wire(),
            priority: info.priority.to_wire(),
            state: info.state.to_wire(),
            accepted_at: Some(info.accepted_at.into()),
            deadline: Some(info.deadline.into()),
            finished_at: info.finished_at.map(Into::into),
            queue: text_of(info.queue),
            size_bytes: info.size_bytes,
            generation: info.generation,
            summary: info.summary.map(Into::into),
            failure: info.failure.map(Into::into),
            session: info.session.unwrap_or_default(),
            labels: info.labels,
            copies: info.copies,
            correlation: Some(info.correlation.into()),
        }
    }
}

impl TryFrom<pb::MessageChange> for MessageChange {
    type Error = InvalidField;

    fn try_from(wire: pb::MessageChange) -> Result<Self, InvalidField> {
        Ok(Self {
            id: message_id(&wire.message_id, "change.message_id")?,
            at: required(time(wire.at, "change.at")?, "change.at")?,
            change: wire.change,
            detail: wire.detail,
            state: required(MessageState::from_wire(wire.state), "change.state")?,
        })
    }
}

impl From<MessageChange> for pb::MessageChange {
    fn from(change: MessageChange) -> Self {
        Self {
            message_id: change.id.to_string(),
            at: Some(change.at.into()),
            change: change.change,
            detail: change.detail,
            state: change.state.to_wire(),
        }
    }
}

impl TryFrom<pb::SendMessageRequest> for (Message, bool) {
    type Error = InvalidField;

    /// The message, and whether its recipient need not be known yet.
    fn try_from(wire: pb::SendMessageRequest) -> Result<Self, InvalidField> {
        let mut message: Message = required(wire.message, "message")?.try_into()?;
        message.numbered = numbered(&wire.producer, wire.number)?;
        Ok((message, wire.allow_future_recipient))
    }
}

impl TryFrom<pb::TraceStep> for TraceStep {
    type Error = InvalidField;

    fn try_from(wire: pb::TraceStep) -> Result<Self, InvalidField> {
        Ok(Self {
            change: required(wire.change, "step.change")?.try_into()?,
            since_previous: span(wire.since_previous, "step.since_previous")?.unwrap_or_default(),
            model: optional_model(&wire.model, "step.model")?,
            agent: optional_agent(&wire.agent, "step.agent")?,
        })
    }
}

impl From<TraceStep> for pb::TraceStep {
    fn from(step: TraceStep) -> Self {
        Self {
            change: Some(step.change.into()),
            since_previous: Some(wire_span(step.since_previous)),
            model: text_of(step.model),
            agent: text_of(step.agent),
        }
    }
}
