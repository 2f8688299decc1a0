//! From bytes to chunks: lines, server-sent events, and the loop that feeds a wire's decoder.
//!
//! Invariant: bytes become text only once a whole line is there, so a character may be split over any two chunks.
//! Invariant: an answer ends with `Done` or with a failure, never just so.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use broker_proto::{Failure, FailureClass, RateLimit, Usage};
use bytes::{Bytes, BytesMut};
use eventsource_stream::{EventStream, EventStreamError};
use futures::{Stream, StreamExt, stream};

use super::{Chunk, ChunkStream, Failed};

/// No line of any of the three wires comes near this; a server that sends no newline must not fill the memory.
const LONGEST_LINE: usize = 16 << 20;

pub(super) type Bodies = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// What can go wrong below the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection ended early.
    Connection,
    /// Not UTF-8, or no end of a line.
    NotText,
}

/// One line, or what was left of one when the wire ended.
pub(super) struct Line {
    text: String,
    is_whole: bool,
}

/// Signs of life below the records; set by [`Lines`], read by [`Wire`] and its reader.
#[derive(Default)]
struct Signs {
    /// Bytes came since the last look.
    stirred: AtomicBool,
    /// Bytes came at all.
    began: AtomicBool,
}

/// A body cut at its newlines.
struct Lines {
    body: Bodies,
    buffer: BytesMut,
    scanned: usize,
    is_first: bool,
    is_over: bool,
    signs: Arc<Signs>,
}

impl Lines {
    fn new(body: Bodies, signs: Arc<Signs>) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, is_first: true, is_over: false, signs }
    }

    fn line(&mut self, bytes: &[u8], is_whole: bool) -> Result<Line, Broken> {
        let text = std::str::from_utf8(bytes).map_err(|_| Broken::NotText)?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        // eventsource-stream 0.2.3 panics on a byte order mark, which may only stand at the beginning.
        let text = if self.is_first { text.trim_start_matches('\u{feff}') } else { text };
        self.is_first = false;
        Ok(Line { text: text.to_owned(), is_whole })
    }
}

impl Stream for Lines {
    type Item = Result<Line, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let newline = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = newline {
                let end = self.scanned + at;
                let line = self.buffer.split_to(end + 1);
                self.scanned = 0;
                return Poll::Ready(Some(self.line(&line[..end], true)));
            }
            self.scanned = self.buffer.len();
            if self.is_over {
                let rest = self.buffer.split();
                self.scanned = 0;
                // A cut inside a character is a cut like any other.
                let tail = self.line(&rest, false).or(Err(Broken::Connection));
                return Poll::Ready((!rest.is_empty()).then_some(tail));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Poll::Ready(Some(Err(Broken::NotText)));
            }
            match self.body.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.is_over = true,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Broken::Connection))),
                Poll::Ready(Some(Ok(bytes))) => {
                    self.signs.stirred.store(true, Ordering::Relaxed);
                    self.signs.began.fetch_or(!bytes.is_empty(), Ordering::Relaxed);
                    self.buffer.extend_from_slice(&bytes);
                }
            }
        }
    }
}

/// What a wire said next.
pub(super) enum Heard {
    Record(Line),
    /// Bytes that made no record.
    Alive,
}

/// The records of a body, and a sign of life for bytes that make none.
pub(super) struct Wire {
    records: Pin<Box<dyn Stream<Item = Result<Line, Broken>> + Send>>,
    signs: Arc<Signs>,
}

impl Wire {
    /// Server-sent events; a record is an event's data. An event that the wire's end cut is none.
    pub(super) fn events(body: Bodies) -> Self {
        let signs = Arc::<Signs>::default();
        let lines = Lines::new(body, Arc::clone(&signs))
            .map(|line| line.map(|line| if line.is_whole { line.text + "\n" } else { line.text }));
        let events = EventStream::new(lines).map(|event| match event {
            Ok(event) => Ok(Line { text: event.data, is_whole: true }),
            Err(EventStreamError::Transport(broken)) => Err(broken),
            Err(EventStreamError::Utf8(_) | EventStreamError::Parser(_)) => Err(Broken::NotText),
        });
        Self { records: Box::pin(events), signs }
    }

    /// A record per line; empty lines are none.
    pub(super) fn lines(body: Bodies) -> Self {
        let signs = Arc::<Signs>::default();
        let lines = Lines::new(body, Arc::clone(&signs));
        let is_record = |line: &Result<Line, Broken>| {
            let is_empty = line.as_ref().is_ok_and(|line| line.text.trim().is_empty());
            std::future::ready(!is_empty)
        };
        Self { records: Box::pin(lines.filter(is_record)), signs }
    }
}

impl Stream for Wire {
    type Item = Result<Heard, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.records.as_mut().poll_next(cx);
        let is_stirred = self.signs.stirred.swap(false, Ordering::Relaxed);
        match polled {
            // The waker is registered: the next poll goes on from here.
            Poll::Pending if is_stirred => Poll::Ready(Some(Ok(Heard::Alive))),
            Poll::Pending => Poll::Pending,
            Poll::Ready(record) => Poll::Ready(record.map(|record| record.map(Heard::Record))),
        }
    }
}

/// The words of one wire: a state machine without a connection.
pub(super) trait Decoder: Send + 'static {
    /// Takes a record. What it means goes to `out`, also when it ends in a failure.
    ///
    /// # Errors
    /// The failure that the record is, or that it cannot be read.
    fn record(&mut self, text: &str, out: &mut VecDeque<Chunk>) -> Result<(), Failure>;

    /// The wire has ended; [`Chunk::Done`] goes to `out` if what came is an answer.
    ///
    /// # Errors
    /// [`truncated`] otherwise.
    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Failure>;

    /// What is known of the usage so far.
    fn usage(&self) -> Usage;

    /// Whose wire this is.
    fn provider(&self) -> &'static str;
}

/// An end without the final event.
pub(super) fn truncated(provider: &str) -> Failure {
    Failure::new(FailureClass::Truncated, provider, "the answer ended before its final event")
}

/// A record that cannot be read.
pub(super) fn malformed(provider: &str, what: &str) -> Failure {
    Failure::new(FailureClass::MalformedReply, provider, format!("the answer has {what}"))
}

struct Reading<D> {
    wire: Wire,
    decoder: D,
    limits: Vec<RateLimit>,
    ready: VecDeque<Chunk>,
    /// Given once what came before it has been.
    failure: Option<Failure>,
    has_records: bool,
    is_over: bool,
}

/// Reads `wire` to its end. The first chunk is [`Chunk::Started`].
pub(super) fn chunks(wire: Wire, decoder: impl Decoder, limits: Vec<RateLimit>) -> ChunkStream {
    let ready = VecDeque::from([Chunk::Started { limits: limits.clone() }]);
    let reading =
        Reading { wire, decoder, limits, ready, failure: None, has_records: false, is_over: false };
    Box::pin(stream::unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Some((next, reading))
    }))
}

impl<D: Decoder> Reading<D> {
    async fn next(&mut self) -> Option<super::Result<Chunk>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                if matches!(chunk, Chunk::Done { .. }) {
                    self.is_over = true;
                    self.ready.clear();
                }
                return Some(Ok(chunk));
            }
            if let Some(failure) = self.failure.take() {
                self.is_over = true;
                let usage = self.decoder.usage();
                let limits = std::mem::take(&mut self.limits);
                return Some(Err(Box::new(Failed { failure, usage, limits })));
            }
            if self.is_over {
                return None;
            }
            let heard = match self.wire.next().await {
                Some(Ok(Heard::Alive)) => return Some(Ok(Chunk::Alive)),
                Some(Ok(Heard::Record(line))) => self.take(&line),
                // A page or a plain object, with status 200.
                None if !self.has_records && self.wire.signs.began.load(Ordering::Relaxed) => {
                    Err(malformed(self.decoder.provider(), "nothing that can be read"))
                }
                // A connection that breaks behind the last word has taken nothing away.
                Some(Err(Broken::Connection)) | None => self.end(),
                Some(Err(Broken::NotText)) => {
                    Err(malformed(self.decoder.provider(), "bytes that are no text"))
                }
            };
            self.failure = heard.err();
        }
    }

    fn take(&mut self, line: &Line) -> Result<(), Failure> {
        self.has_records = true;
        match self.decoder.record(&line.text, &mut self.ready) {
            Err(_) if !line.is_whole => Err(truncated(self.decoder.provider())),
            other => other,
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.decoder.end(&mut self.ready)?;
        if self.ready.iter().any(|chunk| matches!(chunk, Chunk::Done { .. })) {
            return Ok(());
        }
        Err(truncated(self.decoder.provider()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&[u8]]) -> Bodies {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Box::pin(stream::iter(pieces))
    }

    async fn records(mut wire: Wire) -> Result<Vec<String>, Broken> {
        let mut records = Vec::new();
        while let Some(heard) = wire.next().await {
            if let Heard::Record(line) = heard? {
                records.push(line.text);
            }
        }
        Ok(records)
    }

    #[tokio::test]
    async fn events_survive_every_split_of_their_bytes() {
        let text = "\u{feff}: comment\r\nevent: x\r\ndata: naïve\r\ndata:two\r\n\r\ndata: 🦀\n\n"
            .as_bytes();
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            let got = records(Wire::events(body(&[head, tail]))).await;
            assert_eq!(got, Ok(vec!["naïve\ntwo".to_owned(), "🦀".to_owned()]), "split at {at}");
        }
    }

    #[tokio::test]
    async fn an_event_that_the_end_cut_is_none() {
        assert_eq!(
            records(Wire::events(body(&[b"data: a\n\ndata: b\n"]))).await,
            Ok(vec!["a".to_owned()])
        );
    }

    #[tokio::test]
    async fn lines_survive_every_split_of_their_bytes() {
        let text = "naïve\n\n🦀\r\nlast".as_bytes();
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            let got = records(Wire::lines(body(&[head, tail]))).await;
            assert_eq!(
                got,
                Ok(vec!["naïve".to_owned(), "🦀".to_owned(), "last".to_owned()]),
                "split at {at}"
            );
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_said_to_be_none() {
        assert_eq!(records(Wire::lines(body(&[b"a\xff\n"]))).await, Err(Broken::NotText));
        assert_eq!(records(Wire::events(body(&[b"data: \xff\n\n"]))).await, Err(Broken::NotText));
        // Half a character at the very end is a cut.
        assert_eq!(records(Wire::lines(body(&[b"a\xc3"]))).await, Err(Broken::Connection));
    }

    #[tokio::test]
    async fn a_line_without_an_end_does_not_fill_the_memory() {
        let piece = vec![b'x'; 1 << 20];
        let endless = stream::repeat_with(move || Ok(Bytes::from(piece.clone())));
        assert_eq!(records(Wire::lines(Box::pin(endless))).await, Err(Broken::NotText));
    }

    #[tokio::test]
    async fn a_comment_is_a_sign_of_life() {
        let pieces =
            stream::iter([Ok(Bytes::from_static(b": keep-alive\n\n"))]).chain(stream::pending());
        let mut wire = Wire::events(Box::pin(pieces));
        assert!(matches!(wire.next().await, Some(Ok(Heard::Alive))));
    }
}
