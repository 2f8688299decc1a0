//! How messages end.

use std::collections::BTreeMap;

use crate::{
    checker::{
        Verdict,
        book::{Book, Learned, Story},
        report::Judge,
    },
    history::How,
};

/// What a delivery may take from the broker to an agent's note of it, in milliseconds.
const ON_THE_WAY_MS: u64 = 3_000;
/// What the commit of a lease may take, for a delivery that was decided just before its deadline.
const SET_OUT_MS: u64 = 500;
/// The resolution of deadlines.
const RESOLUTION_MS: u64 = 1_000;

/// What was acknowledged, with what its sender learned of it in the end.
fn learned<'b, 'a>(
    book: &'b Book<'a>,
) -> impl Iterator<Item = (&'a str, &'b Story<'a>, &'b Learned<'a>)> {
    book.plain().filter_map(|(id, story)| {
        let learned = story.learned.as_ref()?;
        story.accepted().map(|_| (id, story, learned))
    })
}

/// Every message that was acknowledged has come to one end, for which somebody gave cause.
///
/// Outside: what the sender learns when all is quiet. A message that is still leased is I-16's, one past its deadline
/// I-22's, one that is not known I-1's. Causes of expiry, death and cancelling are judged where they belong; what
/// routing does to a consultation is not seen from here.
pub(super) fn i_6_exactly_one_outcome(book: &Book<'_>, judge: &mut Judge) {
    for (id, story, learned) in learned(book) {
        judge.case();
        let is_elsewhere = matches!(learned.state, "leased" | "lost") || is_overdue(story, learned);
        if !learned.is_terminal() && !is_elsewhere {
            let detail = format!("still {} when all was quiet", learned.state);
            judge.find(Verdict::Late, &[id], detail);
        }
        if learned.state == "done" && !story.may_be_settled(|how| how == How::Done) {
            judge.find(Verdict::Unknown, &[id], "done, and nobody did it");
        }
        let is_failed = learned.state == "failed" && !story.is_consultation();
        if is_failed
            && !story.may_be_settled(|how| how == How::Failed)
            && !has_passed(story, learned)
        {
            judge.find(Verdict::Unknown, &[id], "failed, and nobody failed it");
        }
    }
    if !book.is_whole {
        return;
    }
    for (id, story) in book.plain() {
        if story.accepted().is_some() && story.learned.is_none() {
            judge.find(Verdict::Lost, &[id], "its sender could not learn what became of it");
        }
    }
}

fn has_passed(story: &Story<'_>, learned: &Learned<'_>) -> bool {
    story.deadline().is_some_and(|deadline| deadline <= learned.when.wall)
}

/// Not ended although its deadline is long over.
fn is_overdue(story: &Story<'_>, learned: &Learned<'_>) -> bool {
    let latest = learned.when.wall.saturating_sub(ON_THE_WAY_MS);
    let is_alive = !learned.is_terminal() && learned.state != "lost";
    is_alive && story.deadline().is_some_and(|deadline| deadline < latest)
}

/// Nothing is delivered at or after its deadline, and nothing expires before it.
///
/// Outside: by the outside clock, a delivery may be late by the resolution and by its way here. Nothing is judged while
/// the broker's clock was moved (I-23 does), nor what a held agent got.
pub(super) fn i_22_deadlines(book: &Book<'_>, judge: &mut Judge) {
    let is_clock_true = !book.clock_moved();
    for (id, story) in book.plain() {
        let Some(deadline) = story.deadline() else { continue };
        for seen in &story.deliveries {
            judge.case();
            let is_trusted = is_clock_true && !book.was_held(&seen.it.agent, seen.when.at);
            // One that says itself that nothing is left was late when it set out.
            let on_the_way = if seen.it.left_ms == 0 { SET_OUT_MS } else { ON_THE_WAY_MS };
            if is_trusted && seen.when.wall > deadline + RESOLUTION_MS + on_the_way {
                judge.find(Verdict::Late, &[id], "delivered after its deadline");
            }
        }
        let Some(learned) = &story.learned else { continue };
        if is_clock_true && learned.state == "expired" && learned.when.wall < deadline {
            judge.find(Verdict::Early, &[id], "expired before its deadline");
        }
        if is_clock_true && is_overdue(story, learned) && learned.state != "leased" {
            judge.find(Verdict::Late, &[id], format!("{} after its deadline", learned.state));
        }
    }
}

/// A clock that steps back revives nothing.
///
/// Outside: broker time is at least the highest that the broker's clock has shown; a forward jump of more than a
/// minute is not counted, as the broker halts there. A delivery may be late by its way here.
pub(super) fn i_23_no_step_back(book: &Book<'_>, judge: &mut Judge) {
    if !book.clock_moved() {
        return;
    }
    for (id, story) in book.plain() {
        let Some(deadline) = story.deadline() else { continue };
        for seen in &story.deliveries {
            judge.case();
            let shown = book.highest_clock(seen.when.at.saturating_sub(ON_THE_WAY_MS * 1_000_000));
            if shown > deadline + RESOLUTION_MS && !book.was_held(&seen.it.agent, seen.when.at) {
                judge.find(
                    Verdict::Late,
                    &[id],
                    "delivered after a clock that showed its deadline",
                );
            }
        }
    }
}

/// A message that its deadline ended is expired, and neither failed nor dead.
///
/// Outside: judged on mail past its deadline that nobody failed or rejected and no agent lost.
pub(super) fn i_24_expiry_is_its_own_outcome(book: &Book<'_>, judge: &mut Judge) {
    for (id, story, learned) in learned(book) {
        let is_settled = story.may_be_settled(|how| how != How::Forged);
        if is_settled || story.is_consultation() || !has_passed(story, learned) {
            continue;
        }
        judge.case();
        let lost = u32::try_from(story.deliveries.len()).unwrap_or(u32::MAX);
        let may_be_worn_out = lost >= book.settings.max_lost_leases;
        if learned.state == "failed" || (learned.state == "dead" && !may_be_worn_out) {
            let detail = format!("{} at its deadline, and not expired", learned.state);
            judge.find(Verdict::Wrong, &[id], detail);
        }
    }
}

/// A message dies by so many lost leases, not sooner and not later, or by a rejection.
///
/// Outside: a lease is surely lost when its agent never settled it in time and the broker stood meanwhile; leases the
/// broker's own fall ended count neither way. Judged as too early only where the broker never fell.
pub(super) fn i_25_dead_letters(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        let most = book.settings.max_lost_leases;
        let mut lost = 0;
        for pair in story.deliveries.windows(2) {
            let [one, next] = pair else { continue };
            let is_settled =
                story.settles_of(one.it.attempt).any(|s| s.call.begun.at < next.when.at);
            let is_undisturbed = next.it.attempt == one.it.attempt + 1
                && !book.broker_fell(one.when.at, next.when.at)
                && !book.process_changed(&one.it.agent, one.when.at, next.when.at);
            if is_settled || !is_undisturbed {
                continue;
            }
            lost += 1;
            judge.case();
            if lost == most {
                let detail = format!("delivered again after {lost} lost leases");
                judge.find(Verdict::Late, &[id], detail);
            }
        }
        let rejected = story.first_words().find_map(|settle| {
            (settle.how == How::Reject)
                .then(|| settle.call.ok().map(|(when, ())| (settle, when)))?
        });
        if let Some((settle, when)) = rejected {
            judge.case();
            let again = story
                .deliveries
                .iter()
                .any(|seen| seen.it.attempt > settle.attempt && seen.when.at > when.at);
            if again {
                judge.find(Verdict::Duplicated, &[id], "rejected, and delivered again");
            }
            if story.learned.as_ref().is_some_and(|l| l.is_terminal() && l.state != "dead")
                && !again
            {
                judge.find(Verdict::Wrong, &[id], "rejected, and not dead");
            }
        }
        if let Some(learned) = story.learned.as_ref().filter(|l| l.state == "dead") {
            let attempts = story.deliveries.iter().map(|seen| seen.it.attempt).max().unwrap_or(0);
            let is_rejected = story.may_be_settled(|how| how == How::Reject);
            let is_elsewhere = has_passed(story, learned) || learned.class == Some("internal");
            judge.case();
            if !is_rejected && !is_elsewhere && attempts < most && !book.broker_fell(0, u64::MAX) {
                let detail = format!("dead after {attempts} deliveries, and not rejected");
                judge.find(Verdict::Early, &[id], detail);
            }
        }
    }
}

/// When all is quiet, what the broker lists is what was acknowledged, state by state.
///
/// Outside: messages whose fate the sender could not learn are left out on this side, so that only a whole run is
/// judged.
pub(super) fn i_33_counts_agree(book: &Book<'_>, judge: &mut Judge) {
    let Some(counted) = book.counted.filter(|_| book.is_whole) else { return };
    let mut own: BTreeMap<String, u64> = BTreeMap::new();
    for story in book.stories.values() {
        if let Some(learned) = story.learned.as_ref().filter(|learned| learned.state != "lost") {
            *own.entry(learned.state.to_owned()).or_default() += 1;
        }
    }
    judge.case();
    if own != *counted {
        let detail = format!("the broker lists {counted:?}, its senders know of {own:?}");
        judge.find(Verdict::Wrong, &[], detail);
    }
}

/// A message that was cancelled is cancelled: not delivered any more, and nothing else becomes of it.
///
/// Outside: a delivery that says it was made half a second after the cancel was acknowledged; and the end that the
/// sender learns.
pub(super) fn i_37_cancel_cancels(book: &Book<'_>, judge: &mut Judge) {
    for (id, story) in book.plain() {
        let acked = story.cancels.iter().find_map(|call| {
            let (when, state) = call.ok()?;
            (state == "cancelled").then_some(when)
        });
        let Some(when) = acked else { continue };
        judge.case();
        let late = story.deliveries.iter().any(|seen| {
            let is_clock_true = !book.clock_moved();
            is_clock_true && story.stamp(seen.it).is_some_and(|stamp| stamp > when.wall + 500)
        });
        if late {
            judge.find(Verdict::Late, &[id], "delivered after it was cancelled");
        }
        if let Some(learned) = story.learned.as_ref().filter(|l| l.state != "cancelled") {
            let detail = format!("cancelled, and then {}", learned.state);
            judge.find(Verdict::Lost, &[id], detail);
        }
    }
}
