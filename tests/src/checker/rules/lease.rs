//! Leases: one at a time, fenced, as long as promised, and only for credit.

use std::collections::HashMap;

use crate::{
    checker::{
        Verdict,
        book::{Book, OnLink},
        report::Judge,
    },
    history::How,
};

/// Every delivery of a message has a number and a token of its own.
///
/// Outside: two deliveries with one attempt number, or one token, are two agents with one lease. Two numbers of one
/// message are I-7's or I-9's.
pub(super) fn i_13_one_lease_at_a_time(book: &Book<'_>, judge: &mut Judge) {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for (id, story) in book.plain() {
        let mut attempts = HashMap::new();
        for seen in &story.deliveries {
            judge.case();
            let attempt = (seen.it.number, seen.it.attempt);
            if let Some(other) = attempts.insert(attempt, seen.it.lease.as_str()) {
                let same = if other == seen.it.lease { "one token" } else { "two tokens" };
                let detail = format!("attempt {} was delivered twice, {same}", seen.it.attempt);
                judge.find(Verdict::Duplicated, &[id], detail);
            } else if let Some(other) = owners.insert(&seen.it.lease, id) {
                judge.find(Verdict::Duplicated, &[other, id], "two deliveries with one token");
            }
        }
    }
}

/// A token that is not the newest settles nothing.
///
/// Outside: a settlement sent after a later attempt was seen, anywhere in the run, must be refused as `LEASE_LOST`;
/// so must one with a token that nobody was given. One that settled in time before may be acknowledged again (I-19).
pub(super) fn i_14_fencing(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        for settle in &story.settles {
            let is_stale = story.deliveries.iter().any(|seen| {
                seen.it.attempt > settle.attempt && seen.when.at < settle.call.begun.at
            });
            if !is_stale && settle.how != How::Forged {
                continue;
            }
            let had_settled = settle.how != How::Forged
                && story.settles.iter().any(|s| {
                    s.lease == settle.lease
                        && s.call.begun.at < settle.call.begun.at
                        && (s.call.ok().is_some() || s.call.is_unknown())
                });
            let Some((_, outcome)) = settle.call.answer else { continue };
            judge.case();
            if outcome.ok().is_some() && !had_settled {
                let kind = if settle.how == How::Forged { "forged" } else { "stale" };
                let detail = format!("a {kind} token of attempt {} was taken", settle.attempt);
                judge.find(Verdict::Wrong, &[id], detail);
            }
            let reason = outcome.reason();
            if outcome.is_sure_refusal() && reason != Some("LEASE_LOST") {
                let detail = format!("refused with {reason:?} instead of LEASE_LOST");
                judge.find(Verdict::Wrong, &[id], detail);
            }
        }
    }
}

/// No delivery is taken from an agent before its lease has run out.
///
/// Outside: judged on two deliveries in a row of which the first was neither settled nor given back, while its
/// agent's link and the broker stood. The lease began when it was decided, a sync before the broker says that it
/// delivered: four tenths of it must have passed, less what the slowest call took at that time, which waited for the
/// same syncs. Whether renewals count in full is not seen from here.
pub(super) fn i_16_a_lease_lasts(book: &Book<'_>, judge: &mut Judge) {
    let least = book.settings.lease_ms * 4 / 10;
    // The stamps are of the broker's wall clock.
    if book.clock_moved() {
        return;
    }
    for (id, story) in book.plain() {
        for pair in story.deliveries.windows(2) {
            let [first, next] = pair else { continue };
            let (from, to) = (first.when.at, next.when.at);
            let is_settled =
                story.settles.iter().any(|s| s.attempt == first.it.attempt && s.call.begun.at < to);
            let is_disturbed = is_settled
                || next.it.attempt != first.it.attempt + 1
                || book.broker_fell(from, to)
                || book.process_changed(&first.it.agent, from, to)
                || book.was_held(&first.it.agent, to);
            if is_disturbed {
                continue;
            }
            let Some(stamps) = story.stamp(first.it).zip(story.stamp(next.it)) else { continue };
            judge.case();
            let held_ms = stamps.1.saturating_sub(stamps.0);
            let lease_ns = book.settings.lease_ms * 1_000_000;
            let is_early = held_ms < least
                && held_ms + book.slowest_call(from.saturating_sub(lease_ns), from) < least;
            if is_early {
                let attempt = next.it.attempt;
                let detail = format!("attempt {attempt} came {held_ms} ms after the one before");
                judge.find(Verdict::Early, &[id], detail);
            }
        }
    }
}

/// A lease that is not renewed ends, and the message goes on.
///
/// Outside: a message that is still leased when its sender gives up asking, long after all agents work properly.
pub(super) fn i_16_a_lease_ends(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        let Some(learned) = &story.learned else { continue };
        if story.accepted().is_none() || story.deliveries.is_empty() {
            continue;
        }
        judge.case();
        if learned.state == "leased" {
            judge.find(Verdict::Late, &[id], "its lease does not end");
        }
    }
}

/// Nothing is delivered beyond what a link gave credit for.
///
/// Outside: by link, all messages and bytes ever granted before against all that came.
pub(super) fn i_29_credit(book: &Book<'_>, judge: &mut Judge) {
    for ((_, link), events) in &book.links {
        let (mut messages, mut size_bytes) = (0_i128, 0_i128);
        for event in events {
            match event {
                OnLink::Credit { messages: more, size_bytes: bytes } => {
                    messages += i128::from(*more);
                    size_bytes += i128::from(*bytes);
                }
                OnLink::Delivered(it, _) => {
                    judge.case();
                    messages -= 1;
                    size_bytes -= i128::from(it.size_bytes);
                    if messages < 0 || size_bytes < 0 {
                        let detail = format!("link {link} had no credit left for it");
                        judge.find(Verdict::Early, &[&it.id], detail);
                        break;
                    }
                }
            }
        }
    }
}
