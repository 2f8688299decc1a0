//! One slot: a log of frames, and how far the current attempt has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use broker_proto::{AnswerFrame, MessageId, ModelName, Part, Receipt, Routed, Terminal};

use super::AskerLeft;
use crate::core::queue::Seq;
use crate::planted::{self, Bug};

/// An answer is larger than a slot may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is larger than {limit} bytes")]
pub struct TooLarge {
    pub limit: u64,
}

/// What a frame counts for beside its content, so that a flood of empty ones is bounded too.
const FRAME_BYTES: u64 = 16;

/// What one consultation's attempts have said so far.
#[derive(Debug)]
pub struct Slot {
    pub(super) seq: Seq,
    pub(super) id: MessageId,
    pub(super) left: tokio::sync::mpsc::UnboundedSender<AskerLeft>,
    limit: u64,
    /// Written by the link (parts), the engine's outlet (attempts, the end) and askers (what was shown).
    log: Mutex<Log>,
    /// Rises with every frame; askers wait on it.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) frames: Vec<AnswerFrame>,
    bytes: u64,
    pub(super) attempt: u32,
    pub(super) model: Option<ModelName>,
    /// Part frames of `attempt` are taken.
    is_open: bool,
    /// The parts of `attempt`: bytes so far, and whether it has ended.
    parts: Vec<(u64, bool)>,
    /// Parts that have begun and said nothing yet: an attempt that ends with no more was never shown.
    silent: Vec<AnswerFrame>,
    /// Where the frames of `attempt` begin.
    first_part: Option<usize>,
    /// An asker has taken some of `attempt`.
    pub(super) shown: bool,
    /// `attempt` was sealed before anybody saw it, and what follows was decided by that: nobody sees it until it is
    /// known to be the last.
    pub(super) is_withheld: bool,
    pub(super) is_closed: bool,
    pub(super) askers: u32,
}

impl Slot {
    pub(super) fn new(
        seq: Seq,
        id: MessageId,
        limit: u64,
        left: tokio::sync::mpsc::UnboundedSender<AskerLeft>,
    ) -> Self {
        let log = Mutex::new(Log::default());
        Self { seq, id, left, limit, log, version: watch::Sender::new(0) }
    }

    /// The log; a panic elsewhere cannot leave it half-written, because every change is one push.
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn wake(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// The message was accepted. Said once, however often a slot is opened.
    pub fn accepted(&self, receipt: Receipt) {
        let mut log = self.log();
        let is_said = log.frames.iter().any(|frame| matches!(frame, AnswerFrame::Accepted(_)));
        if is_said || log.is_closed {
            return;
        }
        log.frames.push(AnswerFrame::Accepted(receipt));
        drop(log);
        self.wake();
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn has_askers(&self) -> bool {
        self.log().askers > 0
    }

    /// An attempt begins. What an earlier one said and nobody saw is gone; what was seen is marked as over.
    pub fn begin(&self, routed: Routed) {
        let mut log = self.log();
        if log.is_closed {
            return;
        }
        if log.attempt == routed.attempt && log.model.is_some() {
            // The agent has only linked again: it goes on where it was, or settles again what was not stored.
            log.is_open = true;
            log.is_withheld = false;
            drop(log);
            self.wake();
            return;
        }
        let (attempt, why) = (routed.attempt, routed.why.clone());
        let before = log.model.replace(routed.model.clone());
        let was_shown = log.shown;
        if let Some(first) = log.first_part.take().filter(|_| !was_shown) {
            log.frames.truncate(first);
        }
        log.frames.push(AnswerFrame::Routed(Box::new(routed.clone())));
        if was_shown && !planted::is(Bug::AttemptsJoined) {
            log.frames.push(match before {
                Some(from) if from != routed.model => {
                    AnswerFrame::Switched { from, to: routed.model, reason: why, attempt }
                }
                _ => AnswerFrame::Restarted { attempt, reason: why },
            });
        }
        log.attempt = attempt;
        log.is_open = true;
        log.shown = false;
        log.is_withheld = false;
        log.parts.clear();
        log.silent.clear();
        log.bytes = 0;
        drop(log);
        self.wake();
    }

    /// A delivery from a mailbox begins, which nobody is shown.
    pub(super) fn begin_work(&self, epoch: u32) {
        let mut log = self.log();
        (log.attempt, log.is_open) = (epoch, true);
    }

    /// Whether `attempt` is the current one.
    #[must_use]
    pub fn is_of(&self, attempt: u32) -> bool {
        self.log().attempt == attempt
    }

    /// Takes a part frame of the current attempt; one of another attempt, or one that is known, is dropped.
    ///
    /// # Errors
    /// [`TooLarge`] when the slot is full; the attempt is then closed.
    pub fn part(&self, frame: AnswerFrame) -> Result<(), TooLarge> {
        let mut log = self.log();
        let took = log.take(frame, self.limit);
        drop(log);
        if took? {
            self.wake();
        }
        Ok(())
    }

    /// Adds what the settled answer has beyond what was streamed of it.
    ///
    /// # Errors
    /// [`TooLarge`] when the slot is full.
    pub fn complete(&self, attempt: u32, parts: &[Part]) -> Result<(), TooLarge> {
        for (number, part) in (0..).zip(parts) {
            let (opening, content) = split(part);
            self.part(AnswerFrame::PartStart { attempt, part: number, opening })?;
            if let Some(data) = content.clone().filter(|data| !data.is_empty()) {
                self.part(AnswerFrame::PartDelta { attempt, part: number, offset: 0, data })?;
            }
            let closing = content.is_none().then(|| part.clone());
            self.part(AnswerFrame::PartEnd { attempt, part: number, closing })?;
        }
        Ok(())
    }

    /// Closes an attempt's stream, and says whether anything of it was shown. What was not is not shown from now on,
    /// so that the answer stays true until the next attempt begins or the consultation ends.
    pub fn seal(&self, attempt: u32) -> bool {
        let mut log = self.log();
        if log.attempt != attempt {
            return false;
        }
        log.is_open = false;
        log.is_withheld = !log.shown;
        log.shown
    }

    /// What has arrived of the current attempt, as parts.
    #[must_use]
    pub fn arrived(&self) -> Vec<Part> {
        let log = self.log();
        let Some(first) = log.first_part else { return Vec::new() };
        let mut parts: Vec<(Part, Vec<u8>)> = Vec::new();
        for frame in &log.frames[first..] {
            match frame {
                AnswerFrame::PartStart { opening, .. } => parts.push((opening.clone(), Vec::new())),
                AnswerFrame::PartDelta { part, data, .. } => {
                    if let Some((_, said)) = parts.get_mut(*part as usize) {
                        said.extend_from_slice(data);
                    }
                }
                _ => {}
            }
        }
        parts.into_iter().map(|(opening, said)| filled(opening, said)).collect()
    }

    /// The attempt whose parts are taken, if one is open.
    #[must_use]
    pub fn open_attempt(&self) -> Option<u32> {
        let log = self.log();
        log.is_open.then_some(log.attempt)
    }

    /// The end; the first one counts (I-35).
    pub fn close(&self, terminal: Terminal) {
        let mut log = self.log();
        if log.is_closed {
            return;
        }
        log.is_closed = true;
        log.is_open = false;
        log.is_withheld = false;
        if matches!(terminal, Terminal::Done(_)) {
            log.frames.push(AnswerFrame::Usage(terminal.summary().usage));
        }
        log.frames.push(AnswerFrame::Terminal(Box::new(terminal)));
        drop(log);
        self.wake();
    }

    /// Returns once the consultation has ended.
    pub async fn closed(&self) {
        let mut version = self.subscribe();
        while !self.log().is_closed {
            // The sender lives as long as this slot.
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    /// The number of the consultation this slot is for.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

impl Log {
    /// Whether the frame is one to wake askers for.
    fn take(&mut self, frame: AnswerFrame, limit: u64) -> Result<bool, TooLarge> {
        let (AnswerFrame::PartStart { attempt, part, .. }
        | AnswerFrame::PartDelta { attempt, part, .. }
        | AnswerFrame::PartEnd { attempt, part, .. }) = frame
        else {
            return Ok(false);
        };
        if !self.is_open || attempt != self.attempt {
            return Ok(false);
        }
        let place = part as usize;
        let known = self.parts.get(place).copied();
        let frame = match (frame, known) {
            (AnswerFrame::PartStart { opening, .. }, None) if place == self.parts.len() => {
                self.grow(opening.inline_bytes(), limit)?;
                self.parts.push((0, false));
                self.silent.push(AnswerFrame::PartStart { attempt, part, opening });
                return Ok(false);
            }
            (AnswerFrame::PartDelta { offset, data, .. }, Some((have, false)))
                if offset <= have =>
            {
                let skip = usize::try_from(have - offset).unwrap_or(usize::MAX);
                if skip >= data.len() {
                    return Ok(false);
                }
                let data = data.slice(skip..);
                let size = data.len() as u64;
                self.grow(size, limit)?;
                self.parts[place].0 += size;
                AnswerFrame::PartDelta { attempt, part, offset: have, data }
            }
            (AnswerFrame::PartEnd { closing, .. }, Some((_, false))) => {
                self.grow(closing.as_ref().map_or(0, Part::inline_bytes), limit)?;
                self.parts[place].1 = true;
                AnswerFrame::PartEnd { attempt, part, closing }
            }
            _ => return Ok(false),
        };
        self.first_part.get_or_insert(self.frames.len());
        self.frames.append(&mut self.silent);
        self.frames.push(frame);
        Ok(true)
    }

    /// Counts a frame with `content` bytes; past the limit the attempt is closed.
    fn grow(&mut self, content: u64, limit: u64) -> Result<(), TooLarge> {
        let bytes = self.bytes.saturating_add(content).saturating_add(FRAME_BYTES);
        if bytes > limit {
            self.is_open = false;
            return Err(TooLarge { limit });
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// A part as it opens, and its content; parts that have no deltas come whole at their end.
fn split(part: &Part) -> (Part, Option<Bytes>) {
    match part {
        Part::Text(text) => {
            (Part::Text(String::new()), Some(Bytes::copy_from_slice(text.as_bytes())))
        }
        Part::Thinking { text, signature, provider } => {
            let opening = Part::Thinking {
                text: String::new(),
                signature: signature.clone(),
                provider: provider.clone(),
            };
            (opening, Some(Bytes::copy_from_slice(text.as_bytes())))
        }
        Part::ToolCall { id, name, arguments } => {
            let (id, name) = (id.clone(), name.clone());
            (Part::ToolCall { id, name, arguments: Bytes::new() }, Some(arguments.clone()))
        }
        Part::ToolResult { call_id, is_error, .. } => {
            let (call_id, is_error) = (call_id.clone(), *is_error);
            (Part::ToolResult { call_id, parts: Vec::new(), is_error }, None)
        }
        Part::Image { media_type, .. } => {
            (Part::Image { media_type: media_type.clone(), data: Bytes::new() }, None)
        }
        Part::Opaque { provider, kind, .. } => {
            let (provider, kind) = (provider.clone(), kind.clone());
            (Part::Opaque { provider, kind, data: Bytes::new() }, None)
        }
        Part::Ref(part) => (Part::Ref(*part), None),
    }
}

/// A part with what was said of it.
fn filled(opening: Part, said: Vec<u8>) -> Part {
    let text = || String::from_utf8_lossy(&said).into_owned();
    match opening {
        Part::Text(_) => Part::Text(text()),
        Part::Thinking { signature, provider, .. } => {
            Part::Thinking { text: text(), signature, provider }
        }
        Part::ToolCall { id, name, .. } => Part::ToolCall { id, name, arguments: said.into() },
        whole => whole,
    }
}

/// A slot that nobody writes to any more, for an answer read from the store.
#[must_use]
pub(super) fn finished(
    id: MessageId,
    receipt: Receipt,
    routed: Option<Routed>,
    parts: &[Part],
    terminal: Terminal,
) -> Arc<Slot> {
    let (left, _) = tokio::sync::mpsc::unbounded_channel();
    let slot = Slot::new(Seq(0), id, u64::MAX, left);
    slot.accepted(receipt);
    if let Some(routed) = routed {
        let attempt = routed.attempt;
        slot.begin(routed);
        // Without a limit it cannot be too large.
        let _ = slot.complete(attempt, parts);
    }
    slot.close(terminal);
    Arc::new(slot)
}
