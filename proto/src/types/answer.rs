//! An answer: the frames of its stream, and what is said of it at the end.

use std::time::Duration;

use bytes::Bytes;

use super::{AgentName, Failure, FailureClass, MessageId, ModelName, Part, Receipt, Usage};

/// One delivery, which is one provider call.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub number: u32,
    pub model: ModelName,
    pub agent: Option<AgentName>,
    /// `None` for the attempt that answered.
    pub failure: Option<Failure>,
    /// From the delivery to its end.
    pub latency: Duration,
    /// From the acceptance, or from the end of the attempt before, to this delivery: queues and limits waited for.
    pub wait: Duration,
    pub first_token: Option<Duration>,
    pub usage: Usage,
    pub cost_usd: Option<f64>,
}

/// A candidate that was not called, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    pub model: ModelName,
    pub reason: String,
    /// The class it would have failed with, where one is known.
    pub class: Option<FailureClass>,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    End,
    MaxTokens,
    StopSequence,
    ToolCall,
    Paused,
    WindowFull,
}

/// What became of a consultation, without its text.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerSummary {
    pub message_id: MessageId,
    pub asked: ModelName,
    /// The model that answered; `None` when none did.
    pub model: Option<ModelName>,
    pub agent: Option<AgentName>,
    /// Answered by a model declared as a degraded mode.
    pub is_degraded: bool,
    /// Answered by a simulator.
    pub is_simulated: bool,
    pub stop_reason: Option<StopReason>,
    pub attempts: Vec<Attempt>,
    pub passed_over: Vec<PassedOver>,
    /// Of all attempts together.
    pub usage: Usage,
    /// USD; `None` when a price is not known.
    pub cost_usd: Option<f64>,
    /// Why its session does not go on with this answer, when one was to; the answer stands.
    pub not_appended: Option<String>,
    /// What the model that answered was not sent of its session's history, when its window did not hold all of it.
    pub shortened: Option<String>,
}

/// A delivery to a model begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    pub model: ModelName,
    pub agent: Option<AgentName>,
    pub attempt: u32,
    pub why: String,
    pub attempts: Vec<Attempt>,
    pub passed_over: Vec<PassedOver>,
    pub is_degraded: bool,
    pub is_simulated: bool,
}

/// A part as it opens: what it is, without its content.
pub type Opening = Part;

/// One frame of an answer stream. Exactly one [`Terminal`] ends it.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerFrame {
    Accepted(Receipt),
    Routed(Box<Routed>),
    PartStart {
        attempt: u32,
        part: u32,
        opening: Opening,
    },
    /// `offset` counts the bytes of this part before `data`; `data` is never cut inside a character.
    PartDelta {
        attempt: u32,
        part: u32,
        offset: u64,
        data: Bytes,
    },
    PartEnd {
        attempt: u32,
        part: u32,
        closing: Option<Part>,
    },
    Restarted {
        attempt: u32,
        reason: String,
    },
    Switched {
        from: ModelName,
        to: ModelName,
        reason: String,
        attempt: u32,
    },
    Usage(Usage),
    Terminal(Box<Terminal>),
}

/// How an answer stream ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Terminal {
    Done(AnswerSummary),
    Failed { failure: Failure, summary: AnswerSummary },
    Expired(AnswerSummary),
    Cancelled(AnswerSummary),
}

impl Terminal {
    /// What became of the consultation.
    #[must_use]
    pub fn summary(&self) -> &AnswerSummary {
        match self {
            Self::Done(summary)
            | Self::Failed { summary, .. }
            | Self::Expired(summary)
            | Self::Cancelled(summary) => summary,
        }
    }
}
