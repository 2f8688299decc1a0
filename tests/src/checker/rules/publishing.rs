//! What a sender was told, and what became of it.

use crate::checker::{
    Verdict,
    book::{Book, Send, Story, When},
    report::Judge,
};

/// A message that was acknowledged is still known when its sender asks at the end, and when it is sent again.
///
/// Outside: every acknowledgement is checked against what the sender learns later. That a sync came before the
/// acknowledgement shows only when something kills the broker, or cuts the power, in between.
pub(super) fn i_1_acknowledged_means_kept(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        let Some((acked, _)) = story.accepted() else { continue };
        judge.case();
        let is_forgotten = story.learned.as_ref().is_some_and(|learned| learned.state == "lost");
        if (is_forgotten || is_taken_anew(story)) && !was_full(book, story, acked) {
            let fell = book.broker_fell(acked.at, u64::MAX);
            let why = if fell { "the broker fell after it" } else { "the broker never fell" };
            judge.find(Verdict::Lost, &[id], format!("acknowledged, then not known; {why}"));
        }
    }
}

/// Acknowledged, never seen, and acknowledged again as if it were new: it had been forgotten.
fn is_taken_anew(story: &Story<'_>) -> bool {
    second_acceptance(story).is_some_and(|(again, _)| !was_seen_before(story, again.at))
}

fn was_seen_before(story: &Story<'_>, at: u64) -> bool {
    story.deliveries.iter().any(|seen| seen.when.at < at)
}

/// An acknowledgement as new, of what had been acknowledged before.
fn second_acceptance<'a>(story: &'a Story<'_>) -> Option<(When, &'a Send<'a>)> {
    let (first, _) = story.accepted()?;
    story.sends.iter().find_map(|send| {
        let (_, accepted) = send.call.ok()?;
        (send.call.begun.at > first.at && !accepted.is_duplicate).then_some((send.call.begun, send))
    })
}

/// What was surely refused is never delivered, and its sender is told that there is no such message.
///
/// Outside: a delivery of an id that nobody of the run sent is found too. What a refusal left in the store unseen is not.
pub(super) fn i_2_refused_means_not_stored(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        if story.sends.is_empty() {
            if !story.deliveries.is_empty() {
                judge.find(Verdict::Unknown, &[id], "delivered, and never sent");
            }
            continue;
        }
        let is_refused = story
            .sends
            .iter()
            .all(|send| send.call.answer.is_some_and(|(_, outcome)| outcome.is_sure_refusal()));
        if !is_refused {
            continue;
        }
        judge.case();
        let is_known = story.learned.as_ref().is_some_and(|learned| learned.state != "lost");
        if is_known || !story.deliveries.is_empty() {
            judge.find(Verdict::Unknown, &[id], "refused, and stored all the same");
        }
    }
}

/// A message whose send was cut off is delivered whole, or not at all.
///
/// Outside: judged on what is delivered of sends without an answer. Those that were acknowledged are I-5's.
pub(super) fn i_3_no_half_message(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        if story.accepted().is_some() || story.sends.is_empty() {
            continue;
        }
        for seen in &story.deliveries {
            judge.case();
            if !story.sends.iter().any(|send| send.said.digest == seen.it.digest) {
                judge.find(Verdict::Altered, &[id], "delivered otherwise than it was sent");
            }
        }
    }
}

/// Every delivery holds the bytes that were acknowledged.
///
/// Outside: by a digest over payload and labels, made on both sides of the broker.
pub(super) fn i_5_bytes_as_acknowledged(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        if story.accepted().is_none() {
            continue;
        }
        let taken = |send: &&Send<'_>| send.call.ok().is_some() || send.is_unknown();
        for seen in &story.deliveries {
            judge.case();
            let mut taken = story.sends.iter().filter(taken);
            if !taken.any(|send| send.said.digest == seen.it.digest) {
                let detail = format!("attempt {} has other bytes", seen.it.attempt);
                judge.find(Verdict::Altered, &[id], detail);
            }
        }
    }
}

/// The same id with the same digest is the first receipt again; with another digest it is refused.
///
/// Outside: judged on every send that began after the first acknowledgement was heard. Runs are shorter than the window.
pub(super) fn i_7_the_same_id_is_the_same_message(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        let Some((acked, first)) = story.accepted() else { continue };
        let digest =
            story.sends.iter().find(|send| send.call.ok().is_some()).map(|s| &s.said.digest);
        for send in story.sends.iter().filter(|send| send.call.begun.at > acked.at) {
            let Some((_, outcome)) = send.call.answer else { continue };
            let is_same = Some(&send.said.digest) == digest;
            judge.case();
            match (outcome.ok(), is_same) {
                (Some(again), _) if !again.is_duplicate => {
                    // One that was never seen had been lost, which is I-1's.
                    if was_seen_before(story, send.call.begun.at) {
                        judge.find(Verdict::Duplicated, &[id], "taken a second time as new");
                    }
                    // What follows is said of the second.
                    break;
                }
                (Some(_), false) => {
                    judge.find(Verdict::Duplicated, &[id], "taken with another content");
                }
                (Some(again), true) => {
                    if (again.accepted_at, again.deadline) != (first.accepted_at, first.deadline) {
                        judge.find(Verdict::Altered, &[id], "another receipt than the first");
                    }
                }
                (None, true) if outcome.reason() == Some("ID_REUSED") => {
                    judge.find(Verdict::Wrong, &[id], "refused as another message");
                }
                (None, _) => {}
            }
        }
        if story.has_two_numbers() && story.is_taken_twice() {
            judge.find(Verdict::Duplicated, &[id], "delivered under two numbers");
        }
    }
}

/// A full queue refuses with a delay, refuses only when it is full, and drops nothing it has acknowledged.
///
/// Outside: a queue surely holds what was acknowledged and not yet delivered, cancelled or expired; and at most what
/// was sent and has not surely ended. Between the two nothing is judged.
pub(super) fn i_28_caps(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in &book.stories {
        for send in &story.sends {
            let Some((_, outcome)) = send.call.answer else { continue };
            if let crate::history::Outcome::Refused { code, retry_ms, .. } = outcome
                && code == "RESOURCE_EXHAUSTED"
            {
                judge.case();
                if retry_ms.is_none() {
                    judge.find(Verdict::Wrong, &[id], "refused for room without a delay");
                }
                // A tenth of the cap is kept for replies, and deliveries under way are not seen: half is surely early.
                let most = at_most_held(book, &send.said.to, send.call.begun.at);
                if outcome.reason() == Some("QUEUE_FULL")
                    && most.saturating_mul(2) < book.settings.queue_messages
                {
                    let detail = format!("refused as full with at most {most} messages in it");
                    judge.find(Verdict::Early, &[id], detail);
                }
            }
        }
        let Some((acked, _)) = story.accepted() else { continue };
        let is_lost = story.learned.as_ref().is_some_and(|learned| learned.state == "lost");
        if is_lost && was_full(book, story, acked) {
            judge.find(Verdict::Lost, &[id], "acknowledged at the cap, and dropped");
        }
    }
    let mut queues: Vec<&str> =
        book.stories.values().filter_map(|s| s.said().map(|s| s.said.to.as_str())).collect();
    queues.sort_unstable();
    queues.dedup();
    for queue in queues {
        judge.case();
        let most = surely_held_at_most(book, queue);
        if most > book.settings.queue_messages {
            let detail = format!("{queue} held {most} messages at once");
            judge.find(Verdict::Wrong, &[], detail);
        }
    }
}

/// Whether the queue of this message may have been at its cap when it was acknowledged.
fn was_full(book: &Book<'_>, story: &Story<'_>, acked: When) -> bool {
    let Some(send) = story.said() else { return false };
    let most = at_most_held(book, &send.said.to, acked.at);
    // Without many sends under way the upper bound is close. A tenth of the cap is kept for replies.
    most * 10 >= book.settings.queue_messages * 8
}

/// Messages of this queue that may have been alive at `at`.
fn at_most_held(book: &Book<'_>, queue: &str, at: u64) -> u64 {
    let alive = book.stories.values().filter(|story| {
        let sent = story.sends.iter().any(|send| {
            let may_be_stored = send.call.ok().is_some() || send.is_unknown();
            send.said.to == queue && send.call.begun.at < at && may_be_stored
        });
        let is_over = story
            .settles
            .iter()
            .any(|s| s.how.is_last() && s.call.ok().is_some_and(|(when, ())| when.at < at));
        let is_cancelled =
            story.cancels.iter().any(|call| call.ok().is_some_and(|(when, _)| when.at < at));
        sent && !is_over && !is_cancelled
    });
    alive.count() as u64
}

/// The most messages that were surely in this queue at one time: acknowledged, never delivered or cancelled so far,
/// without a deadline in the run.
fn surely_held_at_most(book: &Book<'_>, queue: &str) -> u64 {
    let mut steps: Vec<(u64, i64)> = Vec::new();
    for story in book.stories.values() {
        let Some(send) = story.said().filter(|send| send.said.to == queue) else { continue };
        let Some((acked, _)) = story.accepted() else { continue };
        let is_lost = story.learned.as_ref().is_some_and(|learned| learned.state == "lost");
        if send.said.expires_at.is_some() || is_lost {
            continue;
        }
        let delivered = story.deliveries.iter().map(|seen| seen.when.at);
        let cancelled = story.cancels.iter().map(|call| call.begun.at);
        // A delivery that its agent never saw is not known here, so one that waits for another attempt is left out.
        let Some(out) = delivered.chain(cancelled).min() else { continue };
        let is_first = story.deliveries.first().is_none_or(|seen| seen.it.attempt == 1);
        if is_first && out > acked.at {
            steps.push((acked.at, 1));
            steps.push((out, -1));
        }
    }
    steps.sort_unstable();
    let (mut now, mut most) = (0_i64, 0_i64);
    for (_, step) in steps {
        now += step;
        most = most.max(now);
    }
    u64::try_from(most).unwrap_or(0)
}
