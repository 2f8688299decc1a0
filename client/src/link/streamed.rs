//! What one delivery has streamed so far, to be said again after a reconnect.

use std::collections::BTreeMap;

use broker_proto::{AnswerFrame, Part};
use bytes::Bytes;

use super::job::Say;

/// Bytes of text that one frame carries.
const FRAME: usize = 64 * 1024;
/// Bytes kept of one answer; the broker keeps as much of it for those who read it. Source: `streams.slot_bytes`.
const KEPT: usize = 8 * 1024 * 1024;

/// The parts of one answer so far.
#[derive(Default)]
pub(super) struct Streamed {
    parts: BTreeMap<u32, Piece>,
    kept: usize,
}

struct Piece {
    opening: Part,
    text: String,
    /// Bytes said of this part, kept or not.
    offset: u64,
    end: Option<Option<Part>>,
}

impl Streamed {
    /// The frames that say it, for `attempt`. What belongs to no part that was begun, or to one that ended, is dropped.
    pub(super) fn say(&mut self, attempt: u32, say: Say) -> Vec<AnswerFrame> {
        match say {
            Say::Start { part, opening } => {
                if self.parts.contains_key(&part) {
                    return Vec::new();
                }
                let piece =
                    Piece { opening: opening.clone(), text: String::new(), offset: 0, end: None };
                self.parts.insert(part, piece);
                vec![AnswerFrame::PartStart { attempt, part, opening }]
            }
            Say::Delta { part, text } => {
                let Some(piece) = self.parts.get_mut(&part).filter(|piece| piece.end.is_none())
                else {
                    return Vec::new();
                };
                let frames = deltas(attempt, part, piece.offset, &text);
                piece.offset += text.len() as u64;
                self.kept += text.len();
                if self.kept <= KEPT {
                    piece.text.push_str(&text);
                }
                frames
            }
            Say::End { part, closing } => {
                let Some(piece) = self.parts.get_mut(&part).filter(|piece| piece.end.is_none())
                else {
                    return Vec::new();
                };
                piece.end = Some(closing.clone());
                vec![AnswerFrame::PartEnd { attempt, part, closing }]
            }
            Say::Progress(_) => Vec::new(),
        }
    }

    /// Everything again, each part from its first byte. Nothing of an answer too long to be kept: its settlement
    /// carries it whole.
    pub(super) fn again(&self, attempt: u32) -> Vec<AnswerFrame> {
        if self.is_overlong() {
            return Vec::new();
        }
        let mut frames = Vec::new();
        for (&part, piece) in &self.parts {
            let opening = piece.opening.clone();
            frames.push(AnswerFrame::PartStart { attempt, part, opening });
            frames.extend(deltas(attempt, part, 0, &piece.text));
            if let Some(closing) = piece.end.clone() {
                frames.push(AnswerFrame::PartEnd { attempt, part, closing });
            }
        }
        frames
    }

    fn is_overlong(&self) -> bool {
        self.kept > KEPT
    }
}

/// Cuts at most [`FRAME`] bytes at a time, never inside a character.
fn deltas(attempt: u32, part: u32, mut offset: u64, mut text: &str) -> Vec<AnswerFrame> {
    let mut frames = Vec::new();
    while !text.is_empty() {
        let mut cut = text.len().min(FRAME);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let (now, rest) = text.split_at(cut);
        let data = Bytes::copy_from_slice(now.as_bytes());
        frames.push(AnswerFrame::PartDelta { attempt, part, offset, data });
        offset += now.len() as u64;
        text = rest;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(part: u32) -> Say {
        Say::Start { part, opening: Part::text("") }
    }

    fn delta(part: u32, text: &str) -> Say {
        Say::Delta { part, text: text.into() }
    }

    fn said(says: impl IntoIterator<Item = Say>) -> (Streamed, Vec<AnswerFrame>) {
        let mut streamed = Streamed::default();
        let frames = says.into_iter().flat_map(|say| streamed.say(3, say)).collect();
        (streamed, frames)
    }

    fn texts(frames: &[AnswerFrame]) -> Vec<(u64, usize)> {
        let deltas = frames.iter().filter_map(|frame| match frame {
            AnswerFrame::PartDelta { offset, data, .. } => Some((*offset, data.len())),
            _ => None,
        });
        deltas.collect()
    }

    #[test]
    fn offsets_count_the_bytes_of_each_part() {
        let (_, frames) = said([start(0), delta(0, "é"), delta(0, "b"), start(1), delta(1, "c")]);
        assert_eq!(texts(&frames), [(0, 2), (2, 1), (0, 1)]);
    }

    #[test]
    fn again_says_each_part_from_its_first_byte() {
        let (streamed, _) = said([start(0), delta(0, "ab"), delta(0, "cd"), start(1)]);
        let again = streamed.again(3);
        assert_eq!(texts(&again), [(0, 4)]);
        assert_eq!(again.len(), 3, "two openings and the text");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let (_, frames) = said([start(0), delta(0, &"é".repeat(FRAME))]);
        let data = frames.iter().filter_map(|frame| match frame {
            AnswerFrame::PartDelta { data, .. } => Some(data),
            _ => None,
        });
        let cut: Vec<_> = data.map(|data| std::str::from_utf8(data).map(str::len)).collect();
        assert_eq!(cut, [Ok(FRAME), Ok(FRAME)]);
        let (_, frames) = said([start(0), delta(0, &format!("a{}", "é".repeat(FRAME)))]);
        assert_eq!(texts(&frames)[1].0, FRAME as u64 - 1);
    }

    #[test]
    fn nothing_is_said_of_a_part_before_its_start_or_behind_its_end() {
        let end = Say::End { part: 0, closing: None };
        let (_, frames) = said([delta(0, "early"), start(0), end, delta(0, "late"), start(0)]);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn an_answer_too_long_to_keep_still_streams_and_is_not_said_again() {
        let (streamed, frames) = said([start(0), delta(0, &"x".repeat(KEPT + 1))]);
        assert_eq!(texts(&frames).iter().map(|(_, len)| len).sum::<usize>(), KEPT + 1);
        assert_eq!(streamed.again(3), []);
    }
}
