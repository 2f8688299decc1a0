//! An answer as it arrives, and put together.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use broker_proto::{AnswerFrame, Part, Receipt, Routed, Terminal, convert::InvalidField, pb};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tonic::Status;

use crate::{Client, Error};

type Frames = Pin<Box<dyn Stream<Item = Result<Option<pb::AnswerFrame>, Status>> + Send>>;

/// The frames of one answer. Ends behind its terminal frame; an end without one is [`Error::EndedEarly`].
/// A part that the broker names by hash is fetched and comes as if it had been streamed.
///
/// Dropping it leaves the answer: the work goes on for the return window, and [`Client::attach`] comes back to it.
pub struct AnswerStream {
    frames: Frames,
    client: Client,
    /// A part that came by hash, on its way.
    fetching: Option<BoxFuture<'static, Result<Vec<AnswerFrame>, Error>>>,
    /// What is given before the broker's next frame.
    next: VecDeque<AnswerFrame>,
    has_ended: bool,
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl AnswerStream {
    pub(crate) fn new(
        client: Client,
        frames: impl Stream<Item = Result<Option<pb::AnswerFrame>, Status>> + Send + 'static,
    ) -> Self {
        let (fetching, next) = (None, VecDeque::new());
        Self { frames: Box::pin(frames), client, fetching, next, has_ended: false }
    }

    /// Reads to the end and puts the answer together; parts named by hash are fetched.
    ///
    /// # Errors
    /// Whatever ended the stream before its terminal frame.
    pub async fn collect(mut self) -> Result<Answer, Error> {
        let mut assembly = Assembly::default();
        while let Some(frame) = self.next().await {
            assembly.push(frame?)?;
        }
        let mut answer = assembly.finish().ok_or(Error::EndedEarly)?;
        answer.parts = self.client.inline(answer.parts).await?;
        Ok(answer)
    }

    fn read(
        &mut self,
        item: Option<Result<Option<pb::AnswerFrame>, Status>>,
    ) -> Result<AnswerFrame, Error> {
        let wire = item.ok_or(Error::EndedEarly)?.map_err(|status| self.client.error(status))?;
        let wire = wire.ok_or_else(|| InvalidField::new("frame", "is missing"))?;
        Ok(AnswerFrame::try_from(wire)?)
    }
}

impl Stream for AnswerStream {
    type Item = Result<AnswerFrame, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.has_ended {
            if let Some(frame) = self.next.pop_front() {
                self.has_ended = matches!(frame, AnswerFrame::Terminal(_));
                return Poll::Ready(Some(Ok(frame)));
            }
            let frames = match &mut self.fetching {
                Some(fetching) => {
                    let fetched = ready!(fetching.poll_unpin(cx));
                    self.fetching = None;
                    fetched
                }
                None => {
                    let item = ready!(self.frames.poll_next_unpin(cx));
                    self.read(item).map(|frame| self.spell_out(frame).into_iter().collect())
                }
            };
            match frames {
                Ok(frames) => self.next.extend(frames),
                Err(error) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl AnswerStream {
    /// The frame as it is, or nothing where it names a part by hash: that is fetched at the part's end.
    fn spell_out(&mut self, frame: AnswerFrame) -> Option<AnswerFrame> {
        match frame {
            AnswerFrame::PartStart { opening: Part::Ref(_), .. } => None,
            AnswerFrame::PartEnd { attempt, part, closing: Some(Part::Ref(named)) } => {
                let client = self.client.clone();
                let fetch = async move {
                    let whole = client.fetch(named).await?;
                    Ok(streamed(attempt, part, whole))
                };
                self.fetching = Some(fetch.boxed());
                None
            }
            frame => Some(frame),
        }
    }
}

/// The frames of a part that is known as a whole. What was streamed of it before is not taken twice.
fn streamed(attempt: u32, part: u32, whole: Part) -> Vec<AnswerFrame> {
    let (opening, text, closing) = match whole {
        Part::Text(text) => (Part::text(""), text, None),
        Part::Thinking { text, signature, provider } => {
            let frame = Part::Thinking { text: String::new(), signature, provider };
            (frame.clone(), text, Some(frame))
        }
        whole => (whole.clone(), String::new(), Some(whole)),
    };
    let data = Bytes::from(text);
    let mut frames = vec![AnswerFrame::PartStart { attempt, part, opening }];
    if !data.is_empty() {
        frames.push(AnswerFrame::PartDelta { attempt, part, offset: 0, data });
    }
    frames.push(AnswerFrame::PartEnd { attempt, part, closing });
    frames
}

/// How much of an answer the asker has, to come back to the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    pub attempt: u32,
    pub part: u32,
    /// Bytes of that part.
    pub offset: u64,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub receipt: Option<Receipt>,
    /// The delivery that answered, or the last one.
    pub routed: Option<Routed>,
    /// What that delivery said, in order.
    pub parts: Vec<Part>,
    pub terminal: Terminal,
}

impl Answer {
    /// The text parts, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(&self.parts)
    }
}

/// Puts an answer together from its frames. What an attempt said is thrown away when the next one begins.
#[derive(Debug, Default)]
pub struct Assembly {
    attempt: u32,
    receipt: Option<Receipt>,
    routed: Option<Routed>,
    parts: BTreeMap<u32, Growing>,
    terminal: Option<Terminal>,
}

/// A part of which more may come.
struct Growing {
    opening: Part,
    data: BytesMut,
    closing: Option<Part>,
}

/// Counts; content never reaches a log.
impl fmt::Debug for Growing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Growing({} bytes)", self.data.len())
    }
}

impl Assembly {
    /// Takes the next frame. Frames of an attempt that is over are dropped; bytes that came before are not taken twice.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a delta leaves a gap, or belongs to no part.
    pub fn push(&mut self, frame: AnswerFrame) -> Result<(), Error> {
        match frame {
            AnswerFrame::Accepted(receipt) => self.receipt = Some(receipt),
            AnswerFrame::Routed(routed) => {
                if self.is_current(routed.attempt) {
                    self.routed = Some(*routed);
                }
            }
            AnswerFrame::Restarted { attempt, .. } | AnswerFrame::Switched { attempt, .. } => {
                self.is_current(attempt);
            }
            AnswerFrame::PartStart { attempt, part, opening } => {
                if self.is_current(attempt) {
                    let new = || Growing { opening, data: BytesMut::new(), closing: None };
                    self.parts.entry(part).or_insert_with(new);
                }
            }
            AnswerFrame::PartDelta { attempt, part, offset, data } => {
                if self.is_current(attempt) {
                    self.grow(part, offset, &data)?;
                }
            }
            AnswerFrame::PartEnd { attempt, part, closing } => {
                if self.is_current(attempt)
                    && let Some(growing) = self.parts.get_mut(&part)
                {
                    growing.closing = closing.or_else(|| growing.closing.take());
                }
            }
            AnswerFrame::Usage(_) => {}
            AnswerFrame::Terminal(terminal) => self.terminal = Some(*terminal),
        }
        Ok(())
    }

    /// Whether this attempt is the one to listen to; a newer one begins anew.
    fn is_current(&mut self, attempt: u32) -> bool {
        if attempt > self.attempt {
            self.attempt = attempt;
            self.parts.clear();
        }
        attempt == self.attempt
    }

    fn grow(&mut self, part: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        let bad = |problem| Error::from(InvalidField::new("part_delta.offset", problem));
        let growing = self.parts.get_mut(&part).ok_or_else(|| bad("is of a part not begun"))?;
        let had = growing.data.len() as u64;
        let known = had.checked_sub(offset).ok_or_else(|| bad("leaves a gap"))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        growing.data.extend_from_slice(data.get(known..).unwrap_or_default());
        Ok(())
    }

    /// The text parts of the current attempt so far.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(&self.parts())
    }

    /// The parts of the current attempt so far, in order.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        self.parts.values().map(Growing::part).collect()
    }

    /// How far it has come, for [`Client::attach`].
    #[must_use]
    pub fn seen(&self) -> Seen {
        let last = self.parts.last_key_value();
        let (part, offset) = last.map_or((0, 0), |(part, grown)| (*part, grown.data.len() as u64));
        Seen { attempt: self.attempt, part, offset }
    }

    /// The last receipt and delivery the broker told of.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// The delivery that is being listened to.
    #[must_use]
    pub fn routed(&self) -> Option<&Routed> {
        self.routed.as_ref()
    }

    /// How the answer ended, once it did.
    #[must_use]
    pub fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// The whole answer; `None` while it has not ended.
    #[must_use]
    pub fn finish(self) -> Option<Answer> {
        let parts = self.parts();
        let terminal = self.terminal?;
        Some(Answer { receipt: self.receipt, routed: self.routed, parts, terminal })
    }
}

impl Growing {
    /// What is known at the end wins over what was known at the beginning; deltas are the content of either.
    fn part(&self) -> Part {
        let frame = self.closing.as_ref().unwrap_or(&self.opening);
        if self.data.is_empty() {
            return frame.clone();
        }
        let text = || String::from_utf8_lossy(&self.data).into_owned();
        let arguments = || Bytes::copy_from_slice(&self.data);
        match (frame, &self.opening) {
            (Part::Text(_), _) => Part::Text(text()),
            (
                Part::Thinking { signature, provider, .. },
                Part::Thinking { provider: opened, .. },
            ) => {
                let provider = if provider.is_empty() { opened } else { provider };
                Part::Thinking {
                    text: text(),
                    signature: signature.clone(),
                    provider: provider.clone(),
                }
            }
            (Part::Thinking { signature, provider, .. }, _) => Part::Thinking {
                text: text(),
                signature: signature.clone(),
                provider: provider.clone(),
            },
            (Part::ToolCall { id, name, .. }, Part::ToolCall { id: first, name: called, .. }) => {
                let or = |late: &String, early: &String| {
                    if late.is_empty() { early.clone() } else { late.clone() }
                };
                Part::ToolCall { id: or(id, first), name: or(name, called), arguments: arguments() }
            }
            // A whole part closes over whatever was streamed before it.
            (whole, _) => whole.clone(),
        }
    }
}

fn text_of(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use broker_proto::ModelName;

    use super::*;

    fn start(attempt: u32, part: u32) -> AnswerFrame {
        AnswerFrame::PartStart { attempt, part, opening: Part::text("") }
    }

    fn delta(attempt: u32, part: u32, offset: u64, text: &str) -> AnswerFrame {
        AnswerFrame::PartDelta {
            attempt,
            part,
            offset,
            data: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    fn assembled(frames: impl IntoIterator<Item = AnswerFrame>) -> Assembly {
        let mut assembly = Assembly::default();
        for frame in frames {
            assembly.push(frame).unwrap();
        }
        assembly
    }

    #[test]
    fn deltas_of_one_part_become_its_text() {
        let answer = assembled([start(1, 0), delta(1, 0, 0, "one "), delta(1, 0, 4, "two")]);
        assert_eq!(answer.text(), "one two");
        assert_eq!(answer.seen(), Seen { attempt: 1, part: 0, offset: 7 });
    }

    #[test]
    fn a_restart_throws_away_what_the_attempt_before_said() {
        let restarted = AnswerFrame::Restarted { attempt: 2, reason: "agent lost".into() };
        let answer = assembled([start(1, 0), delta(1, 0, 0, "old"), restarted, start(2, 0)]);
        assert_eq!((answer.text().as_str(), answer.seen().attempt), ("", 2));
    }

    #[test]
    fn frames_of_an_attempt_that_is_over_are_dropped() {
        let model = |name| ModelName::parse(name).unwrap();
        let switched = AnswerFrame::Switched {
            from: model("opus"),
            to: model("sonnet"),
            reason: "limit".into(),
            attempt: 2,
        };
        let frames =
            [start(1, 0), switched, delta(1, 0, 0, "late"), start(2, 0), delta(2, 0, 0, "new")];
        assert_eq!(assembled(frames).text(), "new");
    }

    #[test]
    fn bytes_that_came_before_are_not_taken_twice() {
        let again = [start(1, 0), delta(1, 0, 0, "abc"), start(1, 0), delta(1, 0, 0, "abcd")];
        assert_eq!(assembled(again).text(), "abcd");
    }

    #[test]
    fn a_gap_is_an_error_and_never_a_joined_text() {
        let mut answer = assembled([start(1, 0), delta(1, 0, 0, "abc")]);
        assert!(matches!(answer.push(delta(1, 0, 4, "e")), Err(Error::Malformed(_))));
        assert!(matches!(answer.push(delta(1, 1, 0, "e")), Err(Error::Malformed(_))));
        assert_eq!(answer.text(), "abc");
    }

    #[test]
    fn a_closing_adds_what_is_known_only_at_the_end() {
        let thinking = |text: &str, signature: &str| Part::Thinking {
            text: text.into(),
            signature: signature.into(),
            provider: "anthropic".into(),
        };
        let call = |id: &str, name: &str, arguments: &'static [u8]| Part::ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: Bytes::from_static(arguments),
        };
        let image = Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"p") };
        let open = |part, opening| AnswerFrame::PartStart { attempt: 1, part, opening };
        let close = |part, closing| AnswerFrame::PartEnd { attempt: 1, part, closing };

        let answer = assembled([
            open(0, thinking("", "")),
            delta(1, 0, 0, "hm"),
            close(0, Some(thinking("", "signed"))),
            open(1, call("c1", "grep", b"")),
            delta(1, 1, 0, "{}"),
            close(1, None),
            open(2, image.clone()),
            close(2, Some(image.clone())),
        ]);

        assert_eq!(answer.parts(), [thinking("hm", "signed"), call("c1", "grep", b"{}"), image]);
    }

    #[test]
    fn an_answer_without_an_end_is_none() {
        assert!(assembled([start(1, 0)]).finish().is_none());
    }
}
