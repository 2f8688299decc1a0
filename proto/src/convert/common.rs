//! `common.proto`.

use std::time::Duration;

use bytes::Bytes;

use super::{InvalidField, Stored, each, required};
use crate::{
    AgentName, AnswerSummary, Attempt, ContentHash, Correlation, Entry, Failure, FailureClass,
    FailureScope, Generation, Message, MessageId, MessageState, MessageType, ModelName, Numbered,
    Part, PartRef, PassedOver, Payload, Priority, ProducerName, Provenance, RateLimit, Receipt,
    Recipient, Role, RoleName, RootBudget, Sender, StopReason, Tool, ToolChoice, Usage, WallTime,
    pb,
};

/// Tool results nest parts; deeper than this nobody means.
const MAX_PART_DEPTH: u32 = 4;

/// The form in which a part is uploaded, hashed and fetched.
#[must_use]
pub fn encode_part(part: Part) -> Bytes {
    part.encode()
}

/// Reads what [`encode_part`] wrote.
///
/// # Errors
/// [`InvalidField`] when the bytes are not such an encoding.
pub fn decode_part(bytes: Bytes) -> Result<Part, InvalidField> {
    Part::decode(bytes)
}

/// Seconds from 1970 to the end of 9999, the last year that RFC 3339 can write.
const END: u64 = 253_402_300_800;
/// The longest span the wire carries, in seconds: ten years.
const LONGEST: u64 = 10 * 366 * 86_400;

/// A later time becomes the last one of the wire: what is written can always be read back.
impl From<WallTime> for prost_types::Timestamp {
    fn from(time: WallTime) -> Self {
        let millis = time.0.min(END * 1000 - 1);
        Self {
            seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
        }
    }
}

/// A time of the wire: 1970 to 9999, as RFC 3339 can write it.
pub(super) fn time(
    wire: Option<prost_types::Timestamp>,
    field: &'static str,
) -> Result<Option<WallTime>, InvalidField> {
    let Some(wire) = wire else { return Ok(None) };
    let bad = || InvalidField::new(field, "is not a time between 1970 and 9999");
    let seconds = u64::try_from(wire.seconds).ok().filter(|at| *at < END).ok_or_else(bad)?;
    let nanos = u64::try_from(wire.nanos).ok().filter(|n| *n < 1_000_000_000).ok_or_else(bad)?;
    Ok(Some(WallTime(seconds * 1000 + nanos / 1_000_000)))
}

/// A span of the wire: not negative, at most ten years.
pub(super) fn span(
    wire: Option<prost_types::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, InvalidField> {
    let Some(wire) = wire else { return Ok(None) };
    let bad = || InvalidField::new(field, "is not a duration between zero and ten years");
    let seconds = u64::try_from(wire.seconds).ok().filter(|s| *s <= LONGEST).ok_or_else(bad)?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|n| *n < 1_000_000_000).ok_or_else(bad)?;
    Ok(Some(Duration::new(seconds, nanos)))
}

/// A longer span, as a clock that was set may leave behind, becomes the longest: what is written can be read back.
pub(super) fn wire_span(span: Duration) -> prost_types::Duration {
    let span = span.min(Duration::from_secs(LONGEST));
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) fn message_id(text: &str, field: &'static str) -> Result<MessageId, InvalidField> {
    MessageId::parse(text)
        .ok_or_else(|| InvalidField::new(field, "is not a ULID (26 characters, upper case)"))
}

pub(super) fn model(text: &str, field: &'static str) -> Result<ModelName, InvalidField> {
    ModelName::parse(text).map_err(|invalid| InvalidField::new(field, invalid.to_string()))
}

/// A moment, or none.
///
/// # Errors
/// [`InvalidField`] when it is out of range.
pub fn moment(
    wire: Option<prost_types::Timestamp>,
    field: &'static str,
) -> Result<Option<WallTime>, InvalidField> {
    time(wire, field)
}

/// A model's name.
///
/// # Errors
/// [`InvalidField`] when it is none.
pub fn model_name(text: &str, field: &'static str) -> Result<ModelName, InvalidField> {
    model(&text.to_lowercase(), field)
}

/// A model's name, or none.
///
/// # Errors
/// [`InvalidField`] when it is neither.
pub fn optional_model_name(
    text: &str,
    field: &'static str,
) -> Result<Option<ModelName>, InvalidField> {
    optional(text, |text| model_name(text, field))
}

pub(super) fn agent(text: &str, field: &'static str) -> Result<AgentName, InvalidField> {
    AgentName::parse(text).map_err(|invalid| InvalidField::new(field, invalid.to_string()))
}

pub(super) fn role(text: &str, field: &'static str) -> Result<RoleName, InvalidField> {
    RoleName::parse(text)
        .map_err(|_| InvalidField::new(field, "is not a role: 1 to 64 of a-z, 0-9, `_`, `-` are"))
}

pub(super) fn optional<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, InvalidField>,
) -> Result<Option<T>, InvalidField> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

pub(super) fn optional_model(
    text: &str,
    field: &'static str,
) -> Result<Option<ModelName>, InvalidField> {
    optional(text, |text| model(text, field))
}

pub(super) fn optional_agent(
    text: &str,
    field: &'static str,
) -> Result<Option<AgentName>, InvalidField> {
    optional(text, |text| agent(text, field))
}

pub(super) fn text_of<T: ToString>(name: Option<T>) -> String {
    name.map(|name| name.to_string()).unwrap_or_default()
}

pub(super) fn none_if_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// One pair of functions per enum that has an unspecified value: to the wire, and back as an option.
macro_rules! wire_enum {
    ($domain:ident, $wire:path, { $($variant:ident),+ $(,)? }) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => <$wire>::$variant),+ }
            }
        }
        impl $domain {
            #[doc = "The wire's number read back; unspecified and unknown numbers are `None`."]
            #[must_use]
            pub fn from_wire(number: i32) -> Option<Self> {
                match <$wire>::try_from(number).ok()? {
                    $(<$wire>::$variant => Some(Self::$variant),)+
                    <$wire>::Unspecified => None,
                }
            }
            #[doc = "The number on the wire."]
            #[must_use]
            pub fn to_wire(self) -> i32 {
                <$wire>::from(self) as i32
            }
        }
    };
}

wire_enum!(MessageType, pb::MessageType, { Handoff, Consultation, Delegation, Status });
wire_enum!(Priority, pb::Priority, { Low, Normal, High, Urgent });
wire_enum!(Role, pb::Role, { System, User, Assistant, Tool });
wire_enum!(ToolChoice, pb::ToolChoice, { Auto, None, Required });
wire_enum!(FailureClass, pb::FailureClass, {
    RateLimited, QuotaExhausted, CreditExhausted, Overloaded, ContextTooLong, RequestTooLarge,
    ContentRefused, InvalidRequest, CredentialsRejected, ModelNotFound, Timeout, Unreachable,
    Truncated, MalformedReply, AgentLost, Budget, Cancelled, Internal,
});
wire_enum!(FailureScope, pb::FailureScope, { Request, Key, Account, Model, Provider });
wire_enum!(Provenance, pb::Provenance, { Reported, Estimated, Partial });
wire_enum!(StopReason, pb::StopReason, {
    End, MaxTokens, StopSequence, ToolCall, Paused, WindowFull,
});
wire_enum!(MessageState, pb::MessageState, {
    Queued, Waiting, Leased, Done, Failed, Expired, Cancelled, Dead, Purged,
});

impl TryFrom<pb::Recipient> for Recipient {
    type Error = InvalidField;

    fn try_from(wire: pb::Recipient) -> Result<Self, InvalidField> {
        use pb::recipient::Recipient as Wire;
        match required(wire.recipient, "to")? {
            // Names are lower case; people also write GPT-4o.
            Wire::Model(name) => Ok(Self::Model(model(&name.to_lowercase(), "to.model")?)),
            Wire::Agent(name) => Ok(Self::Agent(agent(&name, "to.agent")?)),
            Wire::Role(name) => Ok(Self::Role(role(&name, "to.role")?)),
            Wire::AgentsOf(name) => {
                Ok(Self::AgentsOf(model(&name.to_lowercase(), "to.agents_of")?))
            }
            Wire::Topic(_) => {
                Err(InvalidField::new("to.topic", "is not served by this broker yet"))
            }
        }
    }
}

impl From<Recipient> for pb::Recipient {
    fn from(to: Recipient) -> Self {
        use pb::recipient::Recipient as Wire;
        let recipient = match to {
            Recipient::Model(name) => Wire::Model(name.to_string()),
            Recipient::Agent(name) => Wire::Agent(name.to_string()),
            Recipient::Role(name) => Wire::Role(name.to_string()),
            Recipient::AgentsOf(name) => Wire::AgentsOf(name.to_string()),
        };
        Self { recipient: Some(recipient) }
    }
}

impl TryFrom<pb::Part> for Part {
    type Error = InvalidField;

    fn try_from(wire: pb::Part) -> Result<Self, InvalidField> {
        part_at(wire, 0)
    }
}

fn part_at(wire: pb::Part, depth: u32) -> Result<Part, InvalidField> {
    use pb::part::Part as Wire;
    if depth > MAX_PART_DEPTH {
        return Err(InvalidField::new("part", "nests tool results too deep"));
    }
    Ok(match required(wire.part, "part")? {
        Wire::Text(part) => Part::Text(part.text),
        Wire::Thinking(part) => {
            Part::Thinking { text: part.text, signature: part.signature, provider: part.provider }
        }
        Wire::ToolCall(part) => {
            Part::ToolCall { id: part.id, name: part.name, arguments: part.arguments }
        }
        Wire::ToolResult(part) => Part::ToolResult {
            call_id: part.call_id,
            parts: part
                .parts
                .into_iter()
                .map(|p| part_at(p, depth + 1))
                .collect::<Result<_, _>>()?,
            is_error: part.is_error,
        },
        Wire::Image(part) => Part::Image { media_type: part.media_type, data: part.data },
        Wire::Opaque(part) => {
            Part::Opaque { provider: part.provider, kind: part.r#type, data: part.data }
        }
        Wire::Ref(part) => Part::Ref(PartRef {
            hash: content_hash(&part.hash, "ref.hash")?,
            size_bytes: part.size_bytes,
        }),
    })
}

/// A hash of the wire.
///
/// # Errors
/// [`InvalidField`] when it is not 32 bytes.
pub(super) fn content_hash(bytes: &[u8], field: &'static str) -> Result<ContentHash, InvalidField> {
    let hash = bytes.try_into().map_err(|_| InvalidField::new(field, "is not 32 bytes"))?;
    Ok(ContentHash(hash))
}

impl From<Part> for pb::Part {
    fn from(part: Part) -> Self {
        use pb::part::Part as Wire;
        let part = match part {
            Part::Text(text) => Wire::Text(pb::TextPart { text }),
            Part::Thinking { text, signature, provider } => {
                Wire::Thinking(pb::ThinkingPart { text, signature, provider })
            }
            Part::ToolCall { id, name, arguments } => {
                Wire::ToolCall(pb::ToolCallPart { id, name, arguments })
            }
            Part::ToolResult { call_id, parts, is_error } => Wire::ToolResult(pb::ToolResultPart {
                call_id,
                parts: parts.into_iter().map(Into::into).collect(),
                is_error,
            }),
            Part::Image { media_type, data } => Wire::Image(pb::ImagePart { media_type, data }),
            Part::Opaque { provider, kind, data } => {
                Wire::Opaque(pb::OpaquePart { provider, r#type: kind, data })
            }
            Part::Ref(part) => Wire::Ref(pb::PartRef {
                hash: part.hash.0.to_vec().into(),
                size_bytes: part.size_bytes,
            }),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<pb::Entry> for Entry {
    type Error = InvalidField;

    fn try_from(wire: pb::Entry) -> Result<Self, InvalidField> {
        let role = required(Role::from_wire(wire.role), "entry.role")?;
        Ok(Self { role, name: wire.name, parts: each(wire.parts)? })
    }
}

impl From<Entry> for pb::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            role: entry.role.to_wire(),
            name: entry.name,
            parts: entry.parts.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<pb::Tool> for Tool {
    fn from(wire: pb::Tool) -> Self {
        Self { name: wire.name, description: wire.description, input_schema: wire.input_schema }
    }
}

impl From<Tool> for pb::Tool {
    fn from(tool: Tool) -> Self {
        Self { name: tool.name, description: tool.description, input_schema: tool.input_schema }
    }
}

impl TryFrom<pb::Generation> for Generation {
    type Error = InvalidField;

    fn try_from(wire: pb::Generation) -> Result<Self, InvalidField> {
        if wire.temperature.is_some_and(|warmth| !warmth.is_finite() || warmth < 0.0) {
            return Err(InvalidField::new("generation.temperature", "is not a temperature"));
        }
        let tool_choice =
            match wire.tool_choice {
                0 => None,
                number => Some(ToolChoice::from_wire(number).ok_or_else(|| {
                    InvalidField::new("generation.tool_choice", "is not a choice")
                })?),
            };
        Ok(Self {
            max_output_tokens: wire.max_output_tokens,
            temperature: wire.temperature,
            stop_sequences: wire.stop_sequences,
            tools: wire.tools.into_iter().map(Into::into).collect(),
            tool_choice,
        })
    }
}

impl From<Generation> for pb::Generation {
    fn from(generation: Generation) -> Self {
        Self {
            max_output_tokens: generation.max_output_tokens,
            temperature: generation.temperature,
            stop_sequences: generation.stop_sequences,
            tools: generation.tools.into_iter().map(Into::into).collect(),
            tool_choice: generation.tool_choice.map_or(0, ToolChoice::to_wire),
        }
    }
}

impl TryFrom<pb::Payload> for Payload {
    type Error = InvalidField;

    fn try_from(wire: pb::Payload) -> Result<Self, InvalidField> {
        Ok(Self {
            context: each(wire.context)?,
            request: each(wire.request)?,
            response: each(wire.response)?,
            metadata: wire.metadata,
            generation: wire.generation.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            task: wire.task.map(|task| task.try_into().map(Box::new)).transpose()?,
            status: wire.status.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Payload> for pb::Payload {
    fn from(payload: Payload) -> Self {
        let generation = (payload.generation != Generation::default())
            .then(|| pb::Generation::from(payload.generation));
        Self {
            context: payload.context.into_iter().map(Into::into).collect(),
            request: payload.request.into_iter().map(Into::into).collect(),
            response: payload.response.into_iter().map(Into::into).collect(),
            metadata: payload.metadata,
            generation,
            task: payload.task.map(|task| (*task).into()),
            status: payload.status.map(Into::into),
        }
    }
}

impl TryFrom<pb::Correlation> for Correlation {
    type Error = InvalidField;

    fn try_from(wire: pb::Correlation) -> Result<Self, InvalidField> {
        let id = |text: &str, field| optional(text, |text| message_id(text, field));
        Ok(Self {
            root: id(&wire.root, "correlation.root")?,
            parent: id(&wire.parent, "correlation.parent")?,
            hops: wire.hops,
        })
    }
}

impl From<Correlation> for pb::Correlation {
    fn from(correlation: Correlation) -> Self {
        Self {
            root: text_of(correlation.root),
            parent: text_of(correlation.parent),
            hops: correlation.hops,
        }
    }
}

impl TryFrom<pb::ModelMessage> for Message {
    type Error = InvalidField;

    fn try_from(wire: pb::ModelMessage) -> Result<Self, InvalidField> {
        let from = optional(&wire.from, |text| {
            Sender::parse(text).map_err(|bad| InvalidField::new("from", bad.to_string()))
        })?;
        let priority = match wire.priority {
            0 => Priority::default(),
            number => Priority::from_wire(number)
                .ok_or_else(|| InvalidField::new("priority", "is not a priority"))?,
        };
        Ok(Self {
            id: message_id(&wire.id, "id")?,
            from,
            to: required(wire.to, "to")?.try_into()?,
            kind: required(MessageType::from_wire(wire.r#type), "type")?,
            priority,
            payload: required(wire.payload, "payload")?.try_into()?,
            timestamp: time(wire.timestamp, "timestamp")?,
            expires_at: time(wire.expires_at, "expires_at")?,
            ordering_key: none_if_empty(wire.ordering_key),
            correlation: wire.correlation.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            session: none_if_empty(wire.session),
            labels: wire.labels,
            trace: none_if_empty(wire.trace),
            budget: wire.budget.map(TryInto::try_into).transpose()?,
            numbered: None,
        })
    }
}

impl TryFrom<pb::RootBudget> for RootBudget {
    type Error = InvalidField;

    fn try_from(wire: pb::RootBudget) -> Result<Self, InvalidField> {
        if wire.max_total_cost_usd.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(InvalidField::new("budget.max_total_cost_usd", "is not an amount"));
        }
        Ok(Self {
            max_total_tokens: wire.max_total_tokens,
            max_total_cost_usd: wire.max_total_cost_usd,
        })
    }
}

impl From<RootBudget> for pb::RootBudget {
    fn from(budget: RootBudget) -> Self {
        Self {
            max_total_tokens: budget.max_total_tokens,
            max_total_cost_usd: budget.max_total_cost_usd,
        }
    }
}

/// How a bulk sender counts a message; empty and 0 when it does not.
pub(super) fn numbered(producer: &str, number: u64) -> Result<Option<Numbered>, InvalidField> {
    if producer.is_empty() && number == 0 {
        return Ok(None);
    }
    let producer = ProducerName::parse(producer)
        .map_err(|_| InvalidField::new("producer", "is not 1 to 64 of a-z, 0-9, `_`, `-`"))?;
    // Stores count in signed 64 bits.
    if number == 0 || i64::try_from(number).is_err() {
        return Err(InvalidField::new("number", "is not 1 to 2^63 - 1"));
    }
    Ok(Some(Numbered { producer, number }))
}

/// The producer and number as the wire has them.
pub(super) fn wire_numbered(numbered: Option<&Numbered>) -> (String, u64) {
    numbered.map(|numbered| (numbered.producer.to_string(), numbered.number)).unwrap_or_default()
}

impl From<Message> for pb::ModelMessage {
    fn from(message: Message) -> Self {
        Self {
            id: message.id.to_string(),
            from: text_of(message.from),
            to: Some(message.to.into()),
            r#type: message.kind.to_wire(),
            priority: message.priority.to_wire(),
            payload: Some(message.payload.into()),
            timestamp: message.timestamp.map(Into::into),
            expires_at: message.expires_at.map(Into::into),
            ordering_key: message.ordering_key.unwrap_or_default(),
            correlation: Some(message.correlation.into()),
            session: message.session.unwrap_or_default(),
            labels: message.labels,
            trace: message.trace.unwrap_or_default(),
            budget: message.budget.map(Into::into),
        }
    }
}

impl TryFrom<pb::Failure> for Failure {
    type Error = InvalidField;

    fn try_from(wire: pb::Failure) -> Result<Self, InvalidField> {
        Ok(Self {
            class: required(FailureClass::from_wire(wire.class), "failure.class")?,
            scope: FailureScope::from_wire(wire.scope).unwrap_or(FailureScope::Request),
            refused_by: wire.refused_by,
            detail: wire.detail,
            retry_at: time(wire.retry_at, "failure.retry_at")?,
            another_model_may_help: wire.another_model_may_help,
            limit_tokens: wire.limit_tokens,
            actual_tokens: wire.actual_tokens,
        })
    }
}

impl From<Failure> for pb::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            class: failure.class.to_wire(),
            scope: failure.scope.to_wire(),
            refused_by: failure.refused_by,
            detail: failure.detail,
            retry_at: failure.retry_at.map(Into::into),
            another_model_may_help: failure.another_model_may_help,
            limit_tokens: failure.limit_tokens,
            actual_tokens: failure.actual_tokens,
        }
    }
}

impl From<pb::Usage> for Usage {
    fn from(wire: pb::Usage) -> Self {
        Self {
            input_tokens: wire.input_tokens,
            output_tokens: wire.output_tokens,
            cache_read_tokens: wire.cache_read_tokens,
            cache_write_tokens: wire.cache_write_tokens,
            reasoning_tokens: wire.reasoning_tokens,
            provenance: Provenance::from_wire(wire.provenance).unwrap_or_default(),
        }
    }
}

impl From<Usage> for pb::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            provenance: usage.provenance.to_wire(),
        }
    }
}

impl TryFrom<pb::RateLimit> for RateLimit {
    type Error = InvalidField;

    fn try_from(wire: pb::RateLimit) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            limit: wire.limit,
            remaining: wire.remaining,
            resets_at: time(wire.resets_at, "limits.resets_at")?,
        })
    }
}

impl From<RateLimit> for pb::RateLimit {
    fn from(limit: RateLimit) -> Self {
        Self {
            name: limit.name,
            limit: limit.limit,
            remaining: limit.remaining,
            resets_at: limit.resets_at.map(Into::into),
        }
    }
}

impl TryFrom<pb::Attempt> for Attempt {
    type Error = InvalidField;

    fn try_from(wire: pb::Attempt) -> Result<Self, InvalidField> {
        Ok(Self {
            number: wire.number,
            model: model(&wire.model, "attempt.model")?,
            agent: optional_agent(&wire.agent, "attempt.agent")?,
            failure: wire.failure.map(TryInto::try_into).transpose()?,
            latency: span(wire.latency, "attempt.latency")?.unwrap_or_default(),
            wait: span(wire.wait, "attempt.wait")?.unwrap_or_default(),
            first_token: span(wire.first_token, "attempt.first_token")?,
            usage: wire.usage.map(Into::into).unwrap_or_default(),
            cost_usd: wire.cost_usd,
        })
    }
}

impl From<Attempt> for pb::Attempt {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            model: attempt.model.to_string(),
            agent: text_of(attempt.agent),
            failure: attempt.failure.map(Into::into),
            latency: Some(wire_span(attempt.latency)),
            wait: Some(wire_span(attempt.wait)),
            first_token: attempt.first_token.map(wire_span),
            usage: Some(attempt.usage.into()),
            cost_usd: attempt.cost_usd,
        }
    }
}

impl TryFrom<pb::PassedOver> for PassedOver {
    type Error = InvalidField;

    fn try_from(wire: pb::PassedOver) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "passed_over.model")?,
            reason: wire.reason,
            class: FailureClass::from_wire(wire.class),
        })
    }
}

impl From<PassedOver> for pb::PassedOver {
    fn from(passed: PassedOver) -> Self {
        Self {
            model: passed.model.to_string(),
            reason: passed.reason,
            class: passed.class.map_or(0, FailureClass::to_wire),
        }
    }
}

impl TryFrom<pb::AnswerSummary> for AnswerSummary {
    type Error = InvalidField;

    fn try_from(wire: pb::AnswerSummary) -> Result<Self, InvalidField> {
        Ok(Self {
            message_id: message_id(&wire.message_id, "summary.message_id")?,
            asked: model(&wire.asked, "summary.asked")?,
            model: optional_model(&wire.model, "summary.model")?,
            agent: optional_agent(&wire.agent, "summary.agent")?,
            is_degraded: wire.degraded,
            is_simulated: wire.simulated,
            stop_reason: StopReason::from_wire(wire.stop_reason),
            attempts: each(wire.attempts)?,
            passed_over: each(wire.passed_over)?,
            usage: wire.usage.map(Into::into).unwrap_or_default(),
            cost_usd: wire.cost_usd,
            not_appended: Some(wire.not_appended).filter(|why| !why.is_empty()),
            shortened: Some(wire.shortened).filter(|what| !what.is_empty()),
        })
    }
}

impl From<AnswerSummary> for pb::AnswerSummary {
    fn from(summary: AnswerSummary) -> Self {
        Self {
            message_id: summary.message_id.to_string(),
            asked: summary.asked.to_string(),
            model: text_of(summary.model),
            agent: text_of(summary.agent),
            degraded: summary.is_degraded,
            simulated: summary.is_simulated,
            stop_reason: summary.stop_reason.map_or(0, StopReason::to_wire),
            attempts: summary.attempts.into_iter().map(Into::into).collect(),
            passed_over: summary.passed_over.into_iter().map(Into::into).collect(),
            usage: Some(summary.usage.into()),
            cost_usd: summary.cost_usd,
            not_appended: summary.not_appended.unwrap_or_default(),
            shortened: summary.shortened.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Receipt> for Receipt {
    type Error = InvalidField;

    fn try_from(wire: pb::Receipt) -> Result<Self, InvalidField> {
        Ok(Self {
            message_id: message_id(&wire.message_id, "receipt.message_id")?,
            is_duplicate: wire.duplicate,
            accepted_at: required(
                time(wire.accepted_at, "receipt.accepted_at")?,
                "receipt.accepted_at",
            )?,
            deadline: required(time(wire.deadline, "receipt.deadline")?, "receipt.deadline")?,
        })
    }
}

impl From<Receipt> for pb::Receipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            message_id: receipt.message_id.to_string(),
            durability: pb::Durability::Synced as i32,
            duplicate: receipt.is_duplicate,
            accepted_at: Some(receipt.accepted_at.into()),
            deadline: Some(receipt.deadline.into()),
        }
    }
}
