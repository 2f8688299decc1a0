//! Numbers, order and shares.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::checker::{
    Verdict,
    book::{Book, OnLink, Story},
    report::Judge,
};

/// Deliveries to one queue below which shares are not judged.
const SHARES_FROM: usize = 15;
/// How long before a delivery another message must have been acknowledged, so that it was surely there to choose.
const CHOSEN_NS: u64 = 500_000_000;
/// Shares of low, normal, high and urgent.
const SHARES: [usize; 4] = [1, 2, 4, 8];

/// One message has one number, no number is given twice, and a send that began after another was acknowledged gets a
/// higher one.
///
/// Outside: a number is seen only with a delivery.
pub(super) fn i_9_numbers_rise_and_are_not_used_again(book: &Book<'_>, judge: &mut Judge) {
    let mut owners: HashMap<u64, &str> = HashMap::new();
    let mut by_begin = Vec::new();
    let mut by_end = Vec::new();
    for (id, story) in book.plain() {
        let Some(first) = story.deliveries.first() else { continue };
        judge.case();
        let number = first.it.number;
        if story.has_two_numbers() {
            judge.find(Verdict::Wrong, &[id], "two numbers for one message");
        }
        if let Some(other) = owners.insert(number, id) {
            let detail = format!("number {number} was given twice");
            judge.find(Verdict::Duplicated, &[other, id], detail);
        }
        let Some((acked, _)) = story.accepted() else { continue };
        let Some(begun) = story.begun() else { continue };
        by_begin.push((begun, number, id));
        by_end.push((acked.at, number, id));
    }
    by_begin.sort_unstable();
    by_end.sort_unstable();
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(u64, &str)> = None;
    for (begun, number, id) in by_begin {
        while let Some((_, earlier, other)) = ended.next_if(|(at, _, _)| *at < begun) {
            if highest.is_none_or(|(highest, _)| highest < earlier) {
                highest = Some((earlier, other));
            }
        }
        if let Some((earlier, other)) = highest.filter(|(earlier, _)| *earlier > number) {
            let detail = format!("{number} was given after {earlier}");
            judge.find(Verdict::Reordered, &[other, id], detail);
        }
    }
}

/// The key of an order: the queue, the ordering key and the priority of a message.
fn lane<'a>(story: &Story<'a>) -> Option<(&'a str, Option<&'a str>, u8)> {
    let said = story.said()?.said;
    Some((said.to.as_str(), said.key.as_deref(), said.priority))
}

/// On one link, first deliveries of one key and priority come in the order in which their sends were acknowledged.
///
/// Outside: only of two sends of which one began after the other was acknowledged is the order known; and only where
/// both first attempts were seen on the same link.
pub(super) fn i_10_first_deliveries_in_order(book: &Book<'_>, judge: &mut Judge) {
    for events in book.links.values() {
        let mut known = HashSet::new();
        // The latest beginning of a send already delivered, by lane.
        let mut latest: BTreeMap<_, (u64, &str)> = BTreeMap::new();
        for event in events {
            let OnLink::Delivered(it, _) = event else { continue };
            let is_first = known.insert(&it.id) && it.attempt == 1;
            let story =
                book.stories.get(it.id.as_str()).filter(|s| is_first && !s.is_taken_twice());
            let Some(story) = story else { continue };
            let Some(lane) = lane(story) else { continue };
            let Some(((acked, _), begun)) = story.accepted().zip(story.begun()) else { continue };
            judge.case();
            if let Some((other_begun, later)) = latest.get(&(it.queue.as_str(), lane))
                && acked.at < *other_begun
            {
                let detail = "the one that was sent later was delivered first";
                judge.find(Verdict::Reordered, &[&it.id, later], detail);
            }
            let begun = (begun, it.id.as_str());
            let latest = latest.entry((it.queue.as_str(), lane)).or_insert(begun);
            *latest = begun.max(*latest);
        }
    }
}

/// While one message of a strict key is being worked on, no later one of that key is delivered.
///
/// Outside: between the delivery of one and the settlement that ended it, as its agent sent it, none that began after
/// its acknowledgement may arrive. Messages that ended otherwise are left out.
pub(super) fn i_11_strict_keys_wait(book: &Book<'_>, judge: &mut Judge) {
    let mut keys: BTreeMap<_, Vec<(&str, &Story<'_>)>> = BTreeMap::new();
    for (id, story) in book.plain() {
        let Some(send) = story.said() else { continue };
        if matches!(send.said.kind.as_str(), "handoff" | "delegation")
            && let Some(key) = &send.said.key
        {
            keys.entry((send.said.to.as_str(), key.as_str())).or_default().push((id, story));
        }
    }
    for stories in keys.values() {
        for (id, story) in stories {
            let Some((acked, _)) = story.accepted() else { continue };
            let Some(first) = story.deliveries.first() else { continue };
            let Some(done) = story.settles.iter().find(|s| s.how.is_last()) else { continue };
            for (other_id, other) in stories {
                if other.begun().is_none_or(|begun| begun <= acked.at) {
                    continue;
                }
                judge.case();
                let came = other.deliveries.first().map(|seen| seen.when.at);
                if came.is_some_and(|at| first.when.at < at && at < done.call.begun.at) {
                    let detail = "a later one of a strict key came before its end";
                    judge.find(Verdict::Reordered, &[id, other_id], detail);
                }
            }
        }
    }
}

/// A queue with a backlog of all four priorities gives them 8:4:2:1.
///
/// Outside: judged on mailboxes, which one link serves, over spans of deliveries during which at least one message of
/// each priority had been acknowledged half a second before and not been delivered yet, and neither the broker nor the
/// link fell; 10 % and two messages either way. What was chosen while its agent was held is seen only once it goes on:
/// no span holds such a delivery.
pub(super) fn i_12_shares(book: &Book<'_>, judge: &mut Judge) {
    for events in book.links.values() {
        let mut spans: BTreeMap<&str, Span<'_>> = BTreeMap::new();
        for event in events {
            let OnLink::Delivered(it, when) = event else { continue };
            if !it.queue.starts_with("agent/") {
                continue;
            }
            let span = spans.entry(&it.queue).or_insert_with(|| Span::new(book, &it.queue));
            let was_held = book.was_held(&it.agent, when.at);
            if was_held || !span.is_backlogged(when.at) || book.broker_fell(span.began, when.at) {
                span.judge(judge, &it.queue);
                span.restart(when.at);
            }
            if was_held {
                continue;
            }
            span.take(&it.id, it.priority);
        }
        for (queue, mut span) in spans {
            span.judge(judge, queue);
        }
    }
}

/// A stretch of deliveries from one queue.
struct Span<'a> {
    began: u64,
    /// Not taken from here so far, by priority: when each was acknowledged, and delivered in the end.
    waiting: [BTreeMap<&'a str, (u64, u64)>; 4],
    taken: [usize; 4],
    /// Deliveries since one of low priority.
    since_low: usize,
    longest: usize,
}

impl<'a> Span<'a> {
    fn new(book: &Book<'a>, queue: &str) -> Self {
        let mut waiting: [BTreeMap<&str, (u64, u64)>; 4] = Default::default();
        for (id, story) in book.plain() {
            let Some(send) = story.said().filter(|send| send.said.to == queue) else { continue };
            let Some((acked, _)) = story.accepted() else { continue };
            // What may have ended or been given to somebody else by itself is not surely waiting.
            let is_plain = story.cancels.is_empty()
                && send.said.expires_at.is_none()
                && send.said.key.is_none();
            if let [seen] = &story.deliveries[..]
                && is_plain
                && seen.it.attempt == 1
            {
                let lane = usize::from(send.said.priority.min(3));
                waiting[lane].insert(id, (acked.at, seen.when.at));
            }
        }
        Self { began: 0, waiting, taken: [0; 4], since_low: 0, longest: 0 }
    }

    fn is_backlogged(&self, at: u64) -> bool {
        self.waiting
            .iter()
            .all(|lane| lane.values().any(|(acked, out)| acked + CHOSEN_NS < at && at <= *out))
    }

    fn restart(&mut self, at: u64) {
        self.began = at;
        self.taken = [0; 4];
        (self.since_low, self.longest) = (0, 0);
    }

    fn take(&mut self, id: &str, priority: u8) {
        let lane = usize::from(priority.min(3));
        self.waiting[lane].remove(id);
        self.taken[lane] += 1;
        self.since_low = if lane == 0 { 0 } else { self.since_low + 1 };
        self.longest = self.longest.max(self.since_low);
    }

    fn judge(&mut self, judge: &mut Judge, queue: &str) {
        let all: usize = self.taken.iter().sum();
        if all < SHARES_FROM {
            return;
        }
        judge.case();
        for (share, taken) in SHARES.into_iter().zip(self.taken) {
            let due = all * share;
            // Fifteenths, so that everything stays whole.
            if (taken * 15).abs_diff(due) * 10 > due + 300 {
                let detail =
                    format!("{queue}: low, normal, high, urgent got {:?} of {all}", self.taken);
                judge.find(Verdict::Reordered, &[], detail);
                return;
            }
        }
        if self.longest > 15 {
            let detail = format!("{queue}: low waited {} deliveries", self.longest);
            judge.find(Verdict::Late, &[], detail);
        }
    }
}
