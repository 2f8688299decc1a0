//! `consult.proto`.

use super::{
    InvalidField,
    common::{model, optional_agent, span, text_of, wire_span},
    each, required,
};
use crate::{AnswerFrame, AskOptions, Candidate, Part, RouteExplanation, Routed, Terminal, pb};

impl TryFrom<pb::AskOptions> for AskOptions {
    type Error = InvalidField;

    fn try_from(wire: pb::AskOptions) -> Result<Self, InvalidField> {
        if wire.max_cost_usd.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(InvalidField::new("options.max_cost_usd", "is not an amount"));
        }
        Ok(Self {
            no_fallback: wire.no_fallback,
            allow_restart: wire.allow_restart,
            max_cost_usd: wire.max_cost_usd,
            max_tokens: wire.max_tokens,
            deadline: span(wire.deadline, "options.deadline")?,
            return_window: span(wire.return_window, "options.return_window")?,
            keep: wire.keep,
        })
    }
}

impl From<AskOptions> for pb::AskOptions {
    fn from(options: AskOptions) -> Self {
        Self {
            no_fallback: options.no_fallback,
            allow_restart: options.allow_restart,
            max_cost_usd: options.max_cost_usd,
            max_tokens: options.max_tokens,
            deadline: options.deadline.map(wire_span),
            return_window: options.return_window.map(wire_span),
            keep: options.keep,
        }
    }
}

impl TryFrom<pb::Routed> for Routed {
    type Error = InvalidField;

    fn try_from(wire: pb::Routed) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "routed.model")?,
            agent: optional_agent(&wire.agent, "routed.agent")?,
            attempt: wire.attempt,
            why: wire.why,
            attempts: each(wire.attempts)?,
            passed_over: each(wire.passed_over)?,
            is_degraded: wire.degraded,
            is_simulated: wire.simulated,
        })
    }
}

impl From<Routed> for pb::Routed {
    fn from(routed: Routed) -> Self {
        Self {
            model: routed.model.to_string(),
            agent: text_of(routed.agent),
            attempt: routed.attempt,
            why: routed.why,
            attempts: routed.attempts.into_iter().map(Into::into).collect(),
            passed_over: routed.passed_over.into_iter().map(Into::into).collect(),
            degraded: routed.is_degraded,
            simulated: routed.is_simulated,
        }
    }
}

fn opening(wire: Option<pb::Part>) -> Result<Part, InvalidField> {
    required(wire, "part_start.opening")?.try_into()
}

impl TryFrom<pb::PartStart> for AnswerFrame {
    type Error = InvalidField;

    fn try_from(wire: pb::PartStart) -> Result<Self, InvalidField> {
        let opening = opening(wire.opening)?;
        Ok(Self::PartStart { attempt: wire.attempt, part: wire.part, opening })
    }
}

impl From<pb::PartDelta> for AnswerFrame {
    fn from(wire: pb::PartDelta) -> Self {
        Self::PartDelta {
            attempt: wire.attempt,
            part: wire.part,
            offset: wire.offset,
            data: wire.data,
        }
    }
}

impl TryFrom<pb::PartEnd> for AnswerFrame {
    type Error = InvalidField;

    fn try_from(wire: pb::PartEnd) -> Result<Self, InvalidField> {
        let closing = wire.closing.map(TryInto::try_into).transpose()?;
        Ok(Self::PartEnd { attempt: wire.attempt, part: wire.part, closing })
    }
}

impl TryFrom<pb::AnswerFrame> for AnswerFrame {
    type Error = InvalidField;

    fn try_from(wire: pb::AnswerFrame) -> Result<Self, InvalidField> {
        use pb::answer_frame::Frame as Wire;
        let summary = |wire, field| required(wire, field).and_then(TryInto::try_into);
        Ok(match required(wire.frame, "frame")? {
            Wire::Accepted(frame) => {
                Self::Accepted(required(frame.receipt, "accepted.receipt")?.try_into()?)
            }
            Wire::Routed(frame) => Self::Routed(Box::new(frame.try_into()?)),
            Wire::PartStart(frame) => frame.try_into()?,
            Wire::PartDelta(frame) => frame.into(),
            Wire::PartEnd(frame) => frame.try_into()?,
            Wire::Restarted(frame) => {
                Self::Restarted { attempt: frame.attempt, reason: frame.reason }
            }
            Wire::Switched(frame) => Self::Switched {
                from: model(&frame.from, "switched.from")?,
                to: model(&frame.to, "switched.to")?,
                reason: frame.reason,
                attempt: frame.attempt,
            },
            Wire::Usage(frame) => Self::Usage(frame.into()),
            Wire::Done(frame) => {
                Self::Terminal(Box::new(Terminal::Done(summary(frame.summary, "done.summary")?)))
            }
            Wire::Failed(frame) => Self::Terminal(Box::new(Terminal::Failed {
                failure: required(frame.failure, "failed.failure")?.try_into()?,
                summary: summary(frame.summary, "failed.summary")?,
            })),
            Wire::Expired(frame) => Self::Terminal(Box::new(Terminal::Expired(summary(
                frame.summary,
                "expired.summary",
            )?))),
            Wire::Cancelled(frame) => Self::Terminal(Box::new(Terminal::Cancelled(summary(
                frame.summary,
                "cancelled.summary",
            )?))),
        })
    }
}

impl From<AnswerFrame> for pb::AnswerFrame {
    fn from(frame: AnswerFrame) -> Self {
        use pb::answer_frame::Frame as Wire;
        let frame = match frame {
            AnswerFrame::Accepted(receipt) => {
                Wire::Accepted(pb::Accepted { receipt: Some(receipt.into()) })
            }
            AnswerFrame::Routed(routed) => Wire::Routed((*routed).into()),
            AnswerFrame::PartStart { attempt, part, opening } => {
                Wire::PartStart(pb::PartStart { attempt, part, opening: Some(opening.into()) })
            }
            AnswerFrame::PartDelta { attempt, part, offset, data } => {
                Wire::PartDelta(pb::PartDelta { attempt, part, offset, data })
            }
            AnswerFrame::PartEnd { attempt, part, closing } => {
                Wire::PartEnd(pb::PartEnd { attempt, part, closing: closing.map(Into::into) })
            }
            AnswerFrame::Restarted { attempt, reason } => {
                Wire::Restarted(pb::Restarted { attempt, reason })
            }
            AnswerFrame::Switched { from, to, reason, attempt } => Wire::Switched(pb::Switched {
                from: from.to_string(),
                to: to.to_string(),
                reason,
                attempt,
            }),
            AnswerFrame::Usage(usage) => Wire::Usage(usage.into()),
            AnswerFrame::Terminal(terminal) => match *terminal {
                Terminal::Done(summary) => Wire::Done(pb::Done { summary: Some(summary.into()) }),
                Terminal::Failed { failure, summary } => Wire::Failed(pb::Failed {
                    failure: Some(failure.into()),
                    summary: Some(summary.into()),
                }),
                Terminal::Expired(summary) => {
                    Wire::Expired(pb::Expired { summary: Some(summary.into()) })
                }
                Terminal::Cancelled(summary) => {
                    Wire::Cancelled(pb::Cancelled { summary: Some(summary.into()) })
                }
            },
        };
        Self { frame: Some(frame) }
    }
}

impl From<Candidate> for pb::Candidate {
    fn from(candidate: Candidate) -> Self {
        Self {
            model: candidate.model.to_string(),
            chosen: candidate.is_chosen,
            reason: candidate.reason,
            context_window: candidate.context_window,
            estimated_input_tokens: candidate.estimated_input_tokens,
            estimated_cost_usd: candidate.estimated_cost_usd,
            max_output_tokens: candidate.max_output_tokens,
            degraded: candidate.is_degraded,
        }
    }
}

impl TryFrom<pb::Candidate> for Candidate {
    type Error = InvalidField;

    fn try_from(wire: pb::Candidate) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "candidate.model")?,
            is_chosen: wire.chosen,
            reason: wire.reason,
            context_window: wire.context_window,
            estimated_input_tokens: wire.estimated_input_tokens,
            estimated_cost_usd: wire.estimated_cost_usd,
            max_output_tokens: wire.max_output_tokens,
            is_degraded: wire.degraded,
        })
    }
}

impl From<RouteExplanation> for pb::ExplainRouteResponse {
    fn from(explanation: RouteExplanation) -> Self {
        Self {
            asked: explanation.asked.to_string(),
            candidates: explanation.candidates.into_iter().map(Into::into).collect(),
            decision: explanation.decision,
        }
    }
}

impl TryFrom<pb::ExplainRouteResponse> for RouteExplanation {
    type Error = InvalidField;

    fn try_from(wire: pb::ExplainRouteResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            asked: model(&wire.asked, "asked")?,
            candidates: each(wire.candidates)?,
            decision: wire.decision,
        })
    }
}
