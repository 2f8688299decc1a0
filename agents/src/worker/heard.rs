//! What is heard of one answer, and what it comes to at the end.

use std::{future::Future, time::Duration};

use broker_client::link::{Job, Report};
use broker_proto::{
    Failure, FailureClass, Part, Provenance, RateLimit, SettleOutcome, StopReason, Usage,
};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Called, Ending, Served};
use crate::provider::{Chunk, Failed};

/// Who follows an answer while it is given.
pub(super) trait Listener: Sync {
    fn start_part(&self, part: u32, opening: Part) -> impl Future<Output = ()> + Send;
    fn delta(&self, part: u32, text: &str) -> impl Future<Output = ()> + Send;
    fn end_part(&self, part: u32, closing: Option<Part>) -> impl Future<Output = ()> + Send;
}

impl Listener for Job {
    fn start_part(&self, part: u32, opening: Part) -> impl Future<Output = ()> + Send {
        Job::start_part(self, part, opening)
    }

    fn delta(&self, part: u32, text: &str) -> impl Future<Output = ()> + Send {
        Job::delta(self, part, text)
    }

    fn end_part(&self, part: u32, closing: Option<Part>) -> impl Future<Output = ()> + Send {
        Job::end_part(self, part, closing)
    }
}

/// What has been heard of an answer.
pub(super) struct Heard {
    provider: &'static str,
    bytes_per_token: f64,
    estimated_input: u64,
    pub(super) began: Instant,
    first_token: Option<Duration>,
    parts: Vec<Piece>,
    bytes: usize,
    usage: Usage,
    pub(super) limits: Vec<RateLimit>,
}

/// A part as it grows.
struct Piece {
    opening: Part,
    text: String,
    closing: Option<Part>,
}

impl Heard {
    pub(super) fn new(served: &Served, estimated_input: u64) -> Self {
        Self {
            provider: served.model.provider.as_str(),
            bytes_per_token: served.model.bytes_per_token,
            estimated_input,
            began: Instant::now(),
            first_token: None,
            parts: Vec::new(),
            bytes: 0,
            usage: Usage::default(),
            limits: Vec::new(),
        }
    }

    /// Takes a chunk and passes it on. `Some` once the answer is complete.
    pub(super) async fn take(
        &mut self,
        chunk: Chunk,
        listener: &impl Listener,
    ) -> Option<(Usage, Option<StopReason>)> {
        match chunk {
            Chunk::Alive => {}
            Chunk::Started { limits } => self.limits = limits,
            Chunk::Usage(usage) => self.usage = usage,
            Chunk::PartStart { part, opening } => {
                self.parts.push(Piece {
                    opening: opening.clone(),
                    text: String::new(),
                    closing: None,
                });
                listener.start_part(part, opening).await;
            }
            Chunk::Delta { part, text } => {
                self.first_token.get_or_insert_with(|| self.began.elapsed());
                self.bytes += text.len();
                if let Some(piece) = self.piece(part) {
                    piece.text.push_str(&text);
                }
                listener.delta(part, &text).await;
            }
            Chunk::PartEnd { part, closing } => {
                if let Some(piece) = self.piece(part) {
                    piece.closing.clone_from(&closing);
                }
                listener.end_part(part, closing).await;
            }
            Chunk::Done { usage, stop_reason } => return Some((usage, stop_reason)),
        }
        None
    }

    fn piece(&mut self, part: u32) -> Option<&mut Piece> {
        self.parts.get_mut(usize::try_from(part).ok()?)
    }

    pub(super) fn late(&self, why: &str) -> Box<Failed> {
        self.failed(FailureClass::Timeout, &format!("{}: {why}", self.provider))
    }

    pub(super) fn cut(&self) -> Box<Failed> {
        self.failed(FailureClass::Truncated, "the answer ended before its final event")
    }

    fn failed(&self, class: FailureClass, detail: &str) -> Box<Failed> {
        let failure = Failure::new(class, self.provider, detail);
        let usage = Usage { provenance: Provenance::Partial, ..self.usage };
        Box::new(Failed { failure, usage, limits: self.limits.clone() })
    }

    /// What `ended` means for the delivery; `None`: it was cancelled.
    pub(super) fn end(mut self, ended: Option<Called>) -> Ending {
        let latency_ms = self.began.elapsed().as_millis();
        let parts: Vec<Part> =
            std::mem::take(&mut self.parts).into_iter().map(Piece::whole).collect();
        match ended {
            None => {
                let usage = self.counted(Usage { provenance: Provenance::Partial, ..self.usage });
                Ending::Abandon(self.report(usage))
            }
            Some(Ok((usage, stop_reason))) => {
                let usage = self.counted(usage);
                info!(latency_ms, ?stop_reason, output_tokens = usage.output_tokens, "answered");
                let outcome = SettleOutcome::Done { parts, stop_reason };
                Ending::Settle(Box::new(outcome), self.report(usage))
            }
            Some(Err(failed)) => {
                let Failed { failure, usage, limits } = *failed;
                let usage = self.counted(usage);
                if !limits.is_empty() {
                    self.limits = limits;
                }
                let class = failure.class.as_str();
                warn!(latency_ms, class, detail = failure.detail, "failed");
                let outcome = SettleOutcome::Failed { failure, partial: parts };
                Ending::Settle(Box::new(outcome), self.report(usage))
            }
        }
    }

    fn report(self, usage: Usage) -> Report {
        Report { usage, limits: self.limits, first_token: self.first_token }
    }

    /// `usage` with estimates for what the provider never counted of words that did arrive.
    fn counted(&self, mut usage: Usage) -> Usage {
        if self.bytes == 0 {
            return usage;
        }
        if usage.output_tokens.is_none() {
            // Answers are far below 2^52 bytes, where the conversion is exact.
            usage.output_tokens = Some((self.bytes as f64 / self.bytes_per_token).ceil() as u64);
            usage.provenance = Provenance::Partial;
        }
        if usage.input_tokens.is_none() {
            usage.input_tokens = Some(self.estimated_input);
            usage.provenance = Provenance::Estimated;
        }
        usage
    }
}

impl Piece {
    /// The part with all its content.
    fn whole(self) -> Part {
        let Self { opening, text, closing } = self;
        match (opening, closing) {
            (Part::Text(_), None) => Part::Text(text),
            (Part::Thinking { signature, provider, .. }, None) => {
                Part::Thinking { text, signature, provider }
            }
            (Part::Thinking { .. }, Some(Part::Thinking { signature, provider, .. })) => {
                Part::Thinking { text, signature, provider }
            }
            (Part::ToolCall { id, name, .. }, None) => {
                Part::ToolCall { id, name, arguments: Bytes::from(text) }
            }
            (_, Some(closing)) => closing,
            (opening, None) => opening,
        }
    }
}
