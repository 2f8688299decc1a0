//! An answer as it is read: what belongs to the attempt that counts, and where to go on after a break.
//!
//! Invariant: text of two attempts is never joined. Pure: frames go in, what to show comes out.

use std::collections::BTreeMap;

use broker_client::{Assembly, Error};
use broker_proto::types::{AnswerFrame, ModelName, Part, Receipt, Routed, Terminal};

/// What a frame means for whoever reads along.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Accepted {
        is_duplicate: bool,
    },
    Routed(Box<Routed>),
    Text(String),
    Thinking(String),
    /// A part that is neither text nor thinking, complete.
    Whole(Part),
    /// The answer begins anew; `to` is the model, where it is another one.
    Anew {
        attempt: u32,
        to: Option<ModelName>,
        reason: String,
        had_text: bool,
    },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Other,
}

/// One answer, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    assembly: Assembly,
    attempt: u32,
    /// Kind and bytes of the parts of the attempt that counts.
    shown: BTreeMap<u32, (Kind, u64)>,
}

impl Reading {
    /// Takes the next frame; returns what it adds.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a piece is missing in the middle.
    pub(crate) fn take(&mut self, frame: AnswerFrame) -> Result<Option<Event>, Error> {
        let event = self.event(&frame);
        let ended_part = match &frame {
            AnswerFrame::PartEnd { attempt, part, .. } if *attempt == self.attempt => Some(*part),
            _ => None,
        };
        self.assembly.push(frame)?;
        Ok(event.or_else(|| self.whole(ended_part?)))
    }

    fn event(&mut self, frame: &AnswerFrame) -> Option<Event> {
        match frame {
            // A stream that is come back to repeats what was said first.
            AnswerFrame::Accepted(receipt) => {
                let is_news = !self.is_accepted();
                is_news.then_some(Event::Accepted { is_duplicate: receipt.is_duplicate })
            }
            AnswerFrame::Routed(routed) => Some(Event::Routed(routed.clone())),
            AnswerFrame::PartStart { attempt, part, opening } => {
                let anew = self.turn_to(*attempt);
                if *attempt == self.attempt {
                    self.shown.entry(*part).or_insert((kind(opening), 0));
                }
                anew
            }
            AnswerFrame::PartDelta { attempt, part, offset, data } if *attempt == self.attempt => {
                self.delta(*part, *offset, data)
            }
            AnswerFrame::PartEnd { attempt, part, closing: Some(Part::Text(text)) }
                if *attempt == self.attempt && self.shown.get(part) == Some(&(Kind::Text, 0)) =>
            {
                // A text without deltas comes whole.
                self.delta(*part, 0, text.as_bytes())
            }
            AnswerFrame::Restarted { attempt, reason } => self.anew(*attempt, None, reason),
            AnswerFrame::Switched { to, reason, attempt, .. } => {
                self.anew(*attempt, Some(to.clone()), reason)
            }
            AnswerFrame::Terminal(_) => Some(Event::Ended),
            AnswerFrame::PartDelta { .. } | AnswerFrame::PartEnd { .. } | AnswerFrame::Usage(_) => {
                None
            }
        }
    }

    /// Whether the broker has the question.
    pub(crate) fn is_accepted(&self) -> bool {
        self.receipt().is_some()
    }

    /// What the broker said when it took the question.
    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        self.assembly.receipt()
    }

    /// The text of the attempt that counts.
    pub(crate) fn answer(&self) -> String {
        self.assembly.text()
    }

    /// How it ended, once it did.
    pub(crate) fn terminal(&self) -> Option<&Terminal> {
        self.assembly.terminal()
    }

    fn has_text(&self) -> bool {
        self.shown.values().any(|(kind, bytes)| *kind == Kind::Text && *bytes > 0)
    }

    /// An attempt may follow another without a word only while nothing was shown; should text have been shown, that is
    /// said here.
    fn turn_to(&mut self, attempt: u32) -> Option<Event> {
        if attempt <= self.attempt {
            return None;
        }
        let had_text = self.begin(attempt);
        let reason = "another attempt".to_owned();
        had_text.then_some(Event::Anew { attempt, to: None, reason, had_text })
    }

    fn anew(&mut self, attempt: u32, to: Option<ModelName>, reason: &str) -> Option<Event> {
        if attempt <= self.attempt {
            return None;
        }
        let had_text = self.begin(attempt);
        Some(Event::Anew { attempt, to, reason: reason.to_owned(), had_text })
    }

    fn begin(&mut self, attempt: u32) -> bool {
        let had_text = self.has_text();
        self.attempt = attempt;
        self.shown.clear();
        had_text
    }

    fn delta(&mut self, part: u32, offset: u64, data: &[u8]) -> Option<Event> {
        let (kind, bytes) = self.shown.get_mut(&part)?;
        // What was read before a break may come again.
        let known = usize::try_from(bytes.checked_sub(offset)?).ok()?;
        let fresh = data.get(known..).filter(|fresh| !fresh.is_empty())?;
        *bytes += fresh.len() as u64;
        let text = String::from_utf8_lossy(fresh).into_owned();
        match kind {
            Kind::Text => Some(Event::Text(text)),
            Kind::Thinking => Some(Event::Thinking(text)),
            Kind::Other => None,
        }
    }

    fn whole(&self, part: u32) -> Option<Event> {
        let (kind, _) = self.shown.get(&part)?;
        if *kind != Kind::Other {
            return None;
        }
        let place = self.shown.range(..part).count();
        self.assembly.parts().into_iter().nth(place).map(Event::Whole)
    }
}

fn kind(opening: &Part) -> Kind {
    match opening {
        Part::Text(_) => Kind::Text,
        Part::Thinking { .. } => Kind::Thinking,
        Part::ToolCall { .. }
        | Part::ToolResult { .. }
        | Part::Image { .. }
        | Part::Opaque { .. }
        | Part::Ref(_) => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn start(attempt: u32, part: u32) -> AnswerFrame {
        AnswerFrame::PartStart { attempt, part, opening: Part::text("") }
    }

    fn delta(attempt: u32, part: u32, offset: u64, data: &'static str) -> AnswerFrame {
        AnswerFrame::PartDelta { attempt, part, offset, data: Bytes::from(data) }
    }

    fn read(frames: impl IntoIterator<Item = AnswerFrame>) -> (Reading, Vec<Event>) {
        let mut reading = Reading::default();
        let events = frames.into_iter().filter_map(|frame| reading.take(frame).unwrap()).collect();
        (reading, events)
    }

    #[test]
    fn what_comes_again_after_a_break_is_not_shown_again() {
        let frames = [
            start(1, 0),
            delta(1, 0, 0, "one "),
            delta(1, 0, 4, "two "),
            start(1, 0),
            delta(1, 0, 0, "one two three"),
        ];

        let (reading, events) = read(frames);

        let shown = ["one ", "two ", "three"].map(|text| Event::Text(text.into()));
        assert_eq!(events, shown);
        assert_eq!(reading.answer(), "one two three");
    }

    #[test]
    fn text_of_two_attempts_is_never_joined() {
        let restarted = AnswerFrame::Restarted { attempt: 2, reason: "agent lost".into() };
        let frames = [
            start(1, 0),
            delta(1, 0, 0, "half"),
            restarted,
            delta(1, 0, 4, " late"),
            start(2, 0),
            delta(2, 0, 0, "whole"),
        ];

        let (reading, events) = read(frames);

        let anew =
            Event::Anew { attempt: 2, to: None, reason: "agent lost".into(), had_text: true };
        assert_eq!(events, [Event::Text("half".into()), anew, Event::Text("whole".into())]);
        assert_eq!(reading.answer(), "whole");
    }

    #[test]
    fn an_attempt_after_a_silent_one_needs_no_word() {
        let (reading, events) = read([start(1, 0), start(2, 0), delta(2, 0, 0, "a")]);

        assert_eq!(events, [Event::Text("a".into())]);
        assert_eq!(reading.answer(), "a");
    }

    #[test]
    fn thinking_is_not_answer_and_a_whole_text_counts() {
        let thinking = Part::Thinking {
            text: String::new(),
            signature: String::new(),
            provider: String::new(),
        };
        let frames = [
            AnswerFrame::PartStart { attempt: 1, part: 0, opening: thinking },
            delta(1, 0, 0, "hm"),
            start(1, 1),
            AnswerFrame::PartEnd { attempt: 1, part: 1, closing: Some(Part::text("yes")) },
        ];

        let (reading, events) = read(frames);

        assert_eq!(events, [Event::Thinking("hm".into()), Event::Text("yes".into())]);
        assert_eq!(reading.answer(), "yes");
    }

    #[test]
    fn a_tool_call_is_whole_at_its_end() {
        let call = |arguments: &'static str| Part::ToolCall {
            id: "c1".into(),
            name: "ls".into(),
            arguments: arguments.into(),
        };
        let frames = [
            AnswerFrame::PartStart { attempt: 1, part: 0, opening: call("") },
            delta(1, 0, 0, "{\"a\""),
            delta(1, 0, 4, ":1}"),
            AnswerFrame::PartEnd { attempt: 1, part: 0, closing: None },
        ];

        let (_, events) = read(frames);

        assert_eq!(events, [Event::Whole(call("{\"a\":1}"))]);
    }
}
