//! Answer streams.

use crate::{
    checker::{Verdict, book::Book, report::Judge},
    history::Frame,
};

/// A stream that ends in order ends with exactly one terminal frame; attempts are never joined; every stream of one
/// answer ends alike.
///
/// Outside: judged on the frames as an asker read them. A stream that broke is judged on what came before.
pub(super) fn i_35_one_terminal_frame(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        let mut ends: Vec<(&str, &str)> = Vec::new();
        for stream in story.streams.values() {
            judge.case();
            let mut attempt = None;
            let mut terminals = 0;
            for frame in &stream.frames {
                if terminals > 0 {
                    judge.find(Verdict::Wrong, &[id], "a frame behind the terminal one");
                    break;
                }
                match frame {
                    Frame::Said { attempt: of, .. } => {
                        if attempt.is_some_and(|before| before != *of) {
                            judge.find(Verdict::Altered, &[id], "two attempts joined unsaid");
                        }
                        attempt = Some(*of);
                    }
                    // Nothing of this attempt was said yet, and maybe nothing ever is.
                    Frame::Anew { .. } => attempt = None,
                    Frame::Terminal { state, reply } => {
                        terminals += 1;
                        ends.push((state, reply));
                    }
                    Frame::Accepted | Frame::Routed { .. } | Frame::Other => {}
                }
            }
            if terminals == 0 && stream.end == Some(None) {
                judge.find(Verdict::Lost, &[id], "the stream ended without a terminal frame");
            }
        }
        ends.dedup();
        if ends.len() > 1 {
            judge.find(Verdict::Duplicated, &[id], format!("its streams ended as {ends:?}"));
        }
    }
}
