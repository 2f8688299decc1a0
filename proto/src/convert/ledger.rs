//! `usage.proto`: what is recorded of calls made elsewhere, and the lines of the ledger.

use std::time::Duration;

use super::{
    InvalidField,
    common::{
        message_id, model, none_if_empty, optional, optional_agent, optional_model, span, text_of,
        time, wire_span,
    },
    required,
};
use crate::{LedgerFilter, LedgerLine, Usage, UsageRecord, pb};

/// More than any call can have used: what is beyond it was negative, or no count.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// No reply takes longer than a day to begin.
const LONGEST_SECONDS: f64 = 86_400.0;

impl Usage {
    /// Refuses figures that no call can have.
    ///
    /// # Errors
    /// [`InvalidField`] for a count that is out of all reason, which is how a negative one arrives.
    pub fn checked(self) -> Result<Self, InvalidField> {
        let counts = [
            ("usage.input_tokens", self.input_tokens),
            ("usage.output_tokens", self.output_tokens),
            ("usage.cache_read_tokens", self.cache_read_tokens),
            ("usage.cache_write_tokens", self.cache_write_tokens),
            ("usage.reasoning_tokens", self.reasoning_tokens),
        ];
        let is_bad = |(_, count): &(&str, Option<u64>)| count.is_some_and(|it| it > MOST_TOKENS);
        match counts.into_iter().find(is_bad) {
            Some((field, _)) => Err(InvalidField::new(
                field,
                "is not a count of tokens between 0 and 1,000,000,000,000",
            )),
            None => Ok(self),
        }
    }

    /// The same without the figures that no call can have: they are as good as unknown.
    #[must_use]
    pub fn believable(self) -> Self {
        let sane = |count: Option<u64>| count.filter(|count| *count <= MOST_TOKENS);
        Self {
            input_tokens: sane(self.input_tokens),
            output_tokens: sane(self.output_tokens),
            cache_read_tokens: sane(self.cache_read_tokens),
            cache_write_tokens: sane(self.cache_write_tokens),
            reasoning_tokens: sane(self.reasoning_tokens),
            provenance: self.provenance,
        }
    }
}

impl TryFrom<pb::record_usage_request::What> for UsageRecord {
    type Error = InvalidField;

    fn try_from(wire: pb::record_usage_request::What) -> Result<Self, InvalidField> {
        use pb::record_usage_request::What as Wire;
        Ok(match wire {
            Wire::Tokens(usage) => Self::Tokens(recorded(usage.into())?),
            Wire::RateLimit(_) => Self::RateLimit,
            Wire::Slow(reply) => {
                let seconds = Some(reply.seconds).filter(|s| (0.0..=LONGEST_SECONDS).contains(s));
                let problem = "is not a number of seconds between 0 and 86400";
                let seconds = seconds.ok_or_else(|| InvalidField::new("slow.seconds", problem))?;
                Self::Slow(Duration::from_secs_f64(seconds))
            }
            Wire::Success(_) => Self::Success,
            Wire::Error(_) => Self::Error,
            Wire::Opinion(opinion) => read_opinion(opinion)?,
        })
    }
}

fn recorded(usage: Usage) -> Result<Usage, InvalidField> {
    if usage.input_tokens.is_none() && usage.output_tokens.is_none() {
        return Err(InvalidField::new("tokens", "holds neither input nor output tokens"));
    }
    usage.checked()
}

fn read_opinion(opinion: pb::RecordedOpinion) -> Result<UsageRecord, InvalidField> {
    let pb::RecordedOpinion { complexity, rating } = opinion;
    if complexity.is_some_and(|it| !(0.0..=1.0).contains(&it)) {
        return Err(InvalidField::new("opinion.complexity", "is not a number between 0 and 1"));
    }
    if rating.is_some_and(|it| !(1..=5).contains(&it)) {
        return Err(InvalidField::new("opinion.rating", "is not a whole number between 1 and 5"));
    }
    if complexity.is_none() && rating.is_none() {
        return Err(InvalidField::new("opinion", "holds neither a complexity nor a rating"));
    }
    Ok(UsageRecord::Session { complexity, rating })
}

impl From<UsageRecord> for pb::record_usage_request::What {
    fn from(record: UsageRecord) -> Self {
        match record {
            UsageRecord::Tokens(usage) => Self::Tokens(usage.into()),
            UsageRecord::RateLimit => Self::RateLimit(pb::RecordedRateLimit {}),
            UsageRecord::Slow(took) => {
                Self::Slow(pb::RecordedReply { seconds: took.as_secs_f64() })
            }
            UsageRecord::Success => Self::Success(pb::RecordedSuccess {}),
            UsageRecord::Error => Self::Error(pb::RecordedError {}),
            UsageRecord::Session { complexity, rating } => {
                Self::Opinion(pb::RecordedOpinion { complexity, rating })
            }
        }
    }
}

impl TryFrom<pb::LedgerFilter> for LedgerFilter {
    type Error = InvalidField;

    fn try_from(wire: pb::LedgerFilter) -> Result<Self, InvalidField> {
        Ok(Self {
            model: optional_model(&wire.model, "filter.model")?,
            key: none_if_empty(wire.key),
            session: none_if_empty(wire.session),
            agent: optional_agent(&wire.agent, "filter.agent")?,
            message: optional(&wire.message_id, |id| message_id(id, "filter.message_id"))?,
            outcome: none_if_empty(wire.outcome),
            since: time(wire.since, "filter.since")?,
            until: time(wire.until, "filter.until")?,
        })
    }
}

impl From<LedgerFilter> for pb::LedgerFilter {
    fn from(filter: LedgerFilter) -> Self {
        Self {
            model: text_of(filter.model),
            key: filter.key.unwrap_or_default(),
            session: filter.session.unwrap_or_default(),
            agent: text_of(filter.agent),
            message_id: text_of(filter.message),
            outcome: filter.outcome.unwrap_or_default(),
            since: filter.since.map(Into::into),
            until: filter.until.map(Into::into),
        }
    }
}

impl TryFrom<pb::LedgerLine> for LedgerLine {
    type Error = InvalidField;

    fn try_from(wire: pb::LedgerLine) -> Result<Self, InvalidField> {
        Ok(Self {
            at: required(time(wire.at, "line.at")?, "line.at")?,
            source: wire.source,
            model: model(&wire.model, "line.model")?,
            key: wire.key,
            session: none_if_empty(wire.session),
            message: optional(&wire.message_id, |id| message_id(id, "line.message_id"))?,
            attempt: wire.attempt,
            agent: optional_agent(&wire.agent, "line.agent")?,
            outcome: wire.outcome,
            usage: wire.usage.map(Into::into).unwrap_or_default(),
            cost_usd: wire.cost_usd,
            latency: span(wire.latency, "line.latency")?,
            first_token: span(wire.first_token, "line.first_token")?,
        })
    }
}

impl From<LedgerLine> for pb::LedgerLine {
    fn from(line: LedgerLine) -> Self {
        Self {
            at: Some(line.at.into()),
            source: line.source,
            model: line.model.to_string(),
            key: line.key,
            session: line.session.unwrap_or_default(),
            message_id: text_of(line.message),
            attempt: line.attempt,
            agent: text_of(line.agent),
            outcome: line.outcome,
            usage: Some(line.usage.into()),
            cost_usd: line.cost_usd,
            latency: line.latency.map(wire_span),
            first_token: line.first_token.map(wire_span),
        }
    }
}
