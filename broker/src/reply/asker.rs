//! One asker: reads a slot at its own place.

use std::sync::Arc;

use tokio::sync::watch;

use broker_proto::{AnswerFrame, AnswerSummary, Failure, FailureClass, ModelName, Terminal, Usage};

use super::{AskerLeft, Slot};
use crate::planted::{self, Bug};

/// What an asker that comes back has already: part `part` of `attempt`, up to `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    pub attempt: u32,
    pub part: u32,
    pub offset: u64,
}

impl Seen {
    fn has_text(self) -> bool {
        self.attempt > 0 && (self.part > 0 || self.offset > 0)
    }
}

/// Reads frames one by one; its drop tells the slot that it has left.
#[derive(Debug)]
pub struct Asker {
    slot: Arc<Slot>,
    version: watch::Receiver<u64>,
    next: usize,
    seen: Seen,
    allow_restart: bool,
    is_over: bool,
}

impl Asker {
    /// Joins a slot. `true` when nobody had listened until now.
    #[must_use]
    pub fn join(slot: Arc<Slot>, seen: Seen, allow_restart: bool) -> (Self, bool) {
        let version = slot.subscribe();
        let mut log = slot.log();
        log.askers += 1;
        let is_first = log.askers == 1 && !log.is_closed;
        drop(log);
        (Self { slot, version, next: 0, seen, allow_restart, is_over: false }, is_first)
    }

    /// The next frame; `None` after the terminal one.
    pub async fn next(&mut self) -> Option<AnswerFrame> {
        while !self.is_over {
            self.version.mark_unchanged();
            match self.take() {
                Some(AnswerFrame::Terminal(_)) if planted::is(Bug::NoTerminalFrame) => return None,
                Some(frame) => return Some(frame),
                // The slot lives as long as this asker, so its sender does too.
                None => self.version.changed().await.ok()?,
            }
        }
        None
    }

    fn take(&mut self) -> Option<AnswerFrame> {
        let slot = Arc::clone(&self.slot);
        let mut log = slot.log();
        loop {
            let frame = log.frames.get(self.next)?.clone();
            if let AnswerFrame::PartStart { attempt, .. }
            | AnswerFrame::PartDelta { attempt, .. }
            | AnswerFrame::PartEnd { attempt, .. } = &frame
            {
                if log.is_withheld && *attempt == log.attempt {
                    return None;
                }
                if *attempt > self.seen.attempt && self.seen.has_text() {
                    let attempt = *attempt;
                    return Some(self.cross(attempt, log.model.clone()));
                }
                log.shown = true;
            }
            self.next += 1;
            if let Some(frame) = self.unseen(frame) {
                self.is_over = matches!(frame, AnswerFrame::Terminal(_));
                return Some(frame);
            }
        }
    }

    /// What of a frame this asker does not have yet.
    fn unseen(&mut self, frame: AnswerFrame) -> Option<AnswerFrame> {
        let seen = self.seen;
        match frame {
            AnswerFrame::PartStart { attempt, part, .. }
            | AnswerFrame::PartEnd { attempt, part, .. }
                if (attempt, part) < (seen.attempt, seen.part) =>
            {
                None
            }
            AnswerFrame::PartStart { attempt, part, .. }
                if (attempt, part) == (seen.attempt, seen.part) && seen.has_text() =>
            {
                None
            }
            AnswerFrame::PartDelta { attempt, part, .. }
                if (attempt, part) < (seen.attempt, seen.part) =>
            {
                None
            }
            AnswerFrame::PartDelta { attempt, part, offset, data }
                if (attempt, part) == (seen.attempt, seen.part) && offset < seen.offset =>
            {
                let skip = usize::try_from(seen.offset - offset).unwrap_or(usize::MAX);
                (skip < data.len()).then(|| AnswerFrame::PartDelta {
                    attempt,
                    part,
                    offset: seen.offset,
                    data: data.slice(skip..),
                })
            }
            AnswerFrame::Restarted { attempt, .. } | AnswerFrame::Switched { attempt, .. } => {
                let is_news = attempt > seen.attempt;
                if is_news {
                    self.seen = Seen { attempt, ..Seen::default() };
                }
                is_news.then_some(frame)
            }
            other => Some(other),
        }
    }

    /// What this asker has is of another attempt than what follows, and the slot has not said so.
    fn cross(&mut self, attempt: u32, model: Option<ModelName>) -> AnswerFrame {
        self.seen = Seen { attempt, ..Seen::default() };
        let reason = "the attempt it came from is over".to_owned();
        if self.allow_restart {
            return AnswerFrame::Restarted { attempt, reason };
        }
        self.is_over = true;
        let failure = Failure::new(FailureClass::AgentLost, "broker", reason);
        let asked = model.unwrap_or_else(unknown);
        AnswerFrame::Terminal(Box::new(Terminal::Failed {
            failure,
            summary: AnswerSummary {
                message_id: self.slot.id,
                asked,
                model: None,
                agent: None,
                is_degraded: false,
                is_simulated: false,
                stop_reason: None,
                attempts: Vec::new(),
                passed_over: Vec::new(),
                usage: Usage::default(),
                cost_usd: None,
                not_appended: None,
                shortened: None,
            },
        }))
    }
}

#[expect(clippy::expect_used, reason = "the text is a name: letters only")]
fn unknown() -> ModelName {
    ModelName::parse("unknown").expect("letters are a name")
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut log = self.slot.log();
        log.askers = log.askers.saturating_sub(1);
        let is_last = log.askers == 0 && !log.is_closed;
        drop(log);
        if is_last {
            // The table may be gone when the broker stops.
            let _ = self.slot.left.send(AskerLeft { seq: self.slot.seq });
        }
    }
}
