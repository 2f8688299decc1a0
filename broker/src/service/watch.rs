//! Watches: cursors over the journal, never queues (I-30). A slow watcher falls behind on disk; what is no longer
//! kept there it is told as a gap, and goes on behind it.

use std::sync::Arc;

use futures::{
    Stream, StreamExt,
    stream::{BoxStream, iter, unfold},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use broker_proto::convert::InvalidField;

use super::reason;
use crate::{
    core::Event,
    engine::EngineHandle,
    journal::{BatchNo, Cursor, Frame, Journal, JournalId, ReadError, Until, record},
};

/// One item of a watch.
#[derive(Debug)]
pub(super) enum Seen {
    /// `cursor` continues behind it.
    Event { cursor: String, event: Box<Event> },
    /// What was before this cursor is no longer kept.
    Gap { first_cursor: String },
}

/// Reads the journal for whoever watches.
#[derive(Debug, Clone)]
pub struct Watches {
    pub engine: EngineHandle,
    pub journal: Arc<dyn Journal>,
    /// Fires when the broker stops; watches then end.
    pub stop: CancellationToken,
}

/// Where a watch begins: a batch, and how many of its records are behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    batch: BatchNo,
    skip: u32,
}

impl Start {
    /// The first event there ever was.
    pub(super) const FIRST: Self = Self { batch: BatchNo(1), skip: 0 };

    /// Everything from this batch on.
    pub(super) fn at(batch: BatchNo) -> Self {
        Self { batch, skip: 0 }
    }

    /// Whether it is behind the record at this place.
    pub(super) fn is_behind(self, batch: BatchNo, place: u32) -> bool {
        (self.batch, self.skip) > (batch, place)
    }
}

impl Watches {
    /// What comes from now on.
    pub(super) fn now(&self) -> Start {
        Start { batch: self.engine.head().next(), skip: 0 }
    }

    /// What comes behind a cursor.
    ///
    /// # Errors
    /// When it is not a cursor, belongs to another journal, or lies ahead of this one's end.
    pub(super) fn behind(&self, cursor: &str) -> Result<Start, Status> {
        let cursor: Cursor = cursor
            .parse()
            .map_err(|_| InvalidField::new("cursor", "is not a cursor of a watch"))?;
        let batch = self.journal.locate(cursor).map_err(|_| {
            reason::CURSOR_ELSEWHERE.status("the cursor belongs to another broker's journal")
        })?;
        // One batch further: a watch may see a batch a moment before its callers are answered.
        if batch > self.engine.head().next() {
            return Err(reason::CURSOR_AHEAD.status(
                "the cursor is ahead of the journal, which has lost what it points at: watch from the start",
            ));
        }
        Ok(Start { batch, skip: cursor.index })
    }

    /// Everything from `start` on, for ever. It ends with the broker, and says so.
    pub(super) fn from(&self, start: Start) -> BoxStream<'static, Result<Seen, Status>> {
        let journal = self.journal.identity().journal;
        let seen = frames(Arc::clone(&self.journal), start.batch).flat_map(move |frame| {
            let is_first = frame.as_ref().is_ok_and(|frame| frame.number == start.batch);
            iter(seen(frame, journal, if is_first { start.skip } else { 0 }))
        });
        let stopping = iter([Err(reason::stopping())]);
        seen.take_until(self.stop.clone().cancelled_owned()).chain(stopping).boxed()
    }
}

/// Frames from `from` on; behind a gap it goes on with what is kept.
fn frames(
    journal: Arc<dyn Journal>,
    from: BatchNo,
) -> impl Stream<Item = Result<Frame, ReadError>> + Send {
    let kept = journal.read(from, Until::Forever);
    unfold((journal, kept), |(journal, mut kept)| async move {
        let frame = kept.next().await?;
        if let Err(ReadError::Gap { first }) = &frame {
            kept = journal.read(*first, Until::Forever);
        }
        Some((frame, (journal, kept)))
    })
}

/// The events of one frame behind the first `skip` records; a gap is seen too.
fn seen(
    frame: Result<Frame, ReadError>,
    journal: JournalId,
    skip: u32,
) -> Vec<Result<Seen, Status>> {
    let frame = match frame {
        Ok(frame) => frame,
        Err(ReadError::Gap { first }) => {
            let first_cursor = Cursor { journal, batch: first, index: 0 }.to_string();
            return vec![Ok(Seen::Gap { first_cursor })];
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a watch cannot read on");
            return vec![Err(reason::STORE_FAILED.status("the journal cannot be read"))];
        }
    };
    let mut all = Vec::new();
    for (place, stored) in (0u32..).zip(&frame.records).skip(skip as usize) {
        let event = match record::decode(stored) {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(error) => {
                all.push(Err(reason::STORE_FAILED.status(error.to_string())));
                break;
            }
        };
        let mut steps = Vec::new();
        event.each(|step| steps.push(Box::new(step.clone())));
        let last = steps.len();
        for (step, event) in (1..).zip(steps) {
            // Inside a set the cursor stays before it: told twice is better than not at all.
            let index = if step == last { place + 1 } else { place };
            let cursor = Cursor { journal, batch: frame.number, index }.to_string();
            all.push(Ok(Seen::Event { cursor, event }));
        }
    }
    all
}
