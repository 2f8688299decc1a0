//! Settlements and results.

use std::collections::HashMap;

use crate::{
    checker::{Verdict, book::Book, report::Judge},
    history::{Frame, How},
};

/// Once a settlement as done is acknowledged, the message is not delivered again.
///
/// Outside: by the order of the agents' own notes. A later attempt seen before the acknowledgement is I-14's.
pub(super) fn i_18_settled_means_never_again(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        for settle in story.first_words().filter(|s| s.how.is_last()) {
            let Some((acked, ())) = settle.call.ok() else { continue };
            judge.case();
            let again = story
                .deliveries
                .iter()
                .find(|seen| seen.it.attempt > settle.attempt && seen.when.at > acked.at);
            if let Some(seen) = again {
                let detail = format!(
                    "attempt {} was settled as done, then came attempt {}",
                    settle.attempt, seen.it.attempt
                );
                judge.find(Verdict::Duplicated, &[id], detail);
            }
        }
    }
}

/// A token settles once: said again, the answer is the same, and only the first word counts.
///
/// Outside: judged on settlements that were sent after the first of their token was answered, while no later attempt
/// was seen.
pub(super) fn i_19_the_first_word_counts(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        for first in &story.settles {
            let Some((acked, ())) = first.call.ok().filter(|_| first.how != How::Forged) else {
                continue;
            };
            let again = story.settles.iter().find(|s| {
                s.lease == first.lease && s.how != How::Forged && s.call.begun.at > acked.at
            });
            let Some(again) = again else { continue };
            judge.case();
            let later = |at: u64| {
                story.deliveries.iter().any(|d| d.it.attempt > first.attempt && d.when.at < at)
            };
            if let Some((answered, outcome)) = again.call.answer
                && outcome.is_sure_refusal()
                && !later(answered.at)
            {
                judge.find(
                    Verdict::Wrong,
                    &[id],
                    "the same settlement was refused when said again",
                );
            }
            let is_open = matches!(first.how, How::Retry | How::Release);
            let is_done = story.learned.as_ref().is_some_and(|learned| learned.state == "done");
            let others = story.settles.iter().any(|s| {
                s.lease != first.lease
                    && s.how == How::Done
                    && (s.call.ok().is_some() || s.call.is_unknown())
            });
            if is_open && again.how == How::Done && is_done && !others {
                judge.find(Verdict::Duplicated, &[id], "the second word of one token counted");
            }
        }
    }
}

/// A question that is done has exactly the reply that one attempt settled it with.
///
/// Outside: what the asker's stream and the sender's look-up show, against what the agents sent.
pub(super) fn i_20_one_result(book: &Book<'_>, judge: &mut Judge) {
    let mut replies: HashMap<&str, &str> = HashMap::new();
    for (id, story) in book.plain() {
        for reply in story.settles.iter().filter_map(|settle| settle.reply) {
            replies.insert(reply, id);
        }
    }
    for (id, story) in book.plain() {
        let learned = story
            .learned
            .as_ref()
            .filter(|learned| learned.state == "done" && story.is_consultation())
            .map(|learned| learned.reply);
        let streamed = story.streams.values().flat_map(|stream| &stream.frames);
        let streamed = streamed.filter_map(|frame| match frame {
            Frame::Terminal { state, reply } if state == "done" => Some(Some(reply.as_str())),
            _ => None,
        });
        for shown in learned.into_iter().chain(streamed) {
            judge.case();
            let Some(shown) = shown else {
                judge.find(Verdict::Lost, &[id], "done without its reply");
                continue;
            };
            let is_own = story.settles.iter().any(|settle| {
                settle.how == How::Done
                    && settle.reply == Some(shown)
                    && (settle.call.ok().is_some() || settle.call.is_unknown())
            });
            if is_own {
                continue;
            }
            match replies.get(shown) {
                Some(other) if *other != id => {
                    judge.find(Verdict::Altered, &[id, other], "has the reply of another");
                }
                _ => judge.find(Verdict::Lost, &[id], "has not the reply it was settled with"),
            }
        }
    }
}
