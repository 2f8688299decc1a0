//! What waits to be said, in the order in which it will be.

use std::collections::VecDeque;

use broker_proto::{AnswerFrame, Up};

use super::work::Work;

/// Items that wait before jobs are made to wait too.
const ROOM: usize = 64;
/// Items kept over a lost connection: figures of calls, which nobody else has.
const KEPT: usize = 256;
/// Bytes of content in one frame of settlements; each of them alone is below it.
const BATCH: u64 = 512 * 1024;
/// Bytes of text in one frame.
const JOINED: usize = 16 * 1024;

/// One thing to say.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// Before everything else: answers to pings, heartbeats, credit.
    Urgent(Up),
    /// In its turn.
    Say(Up),
    /// The settlement of this lease, if it still waits by then.
    Settle(String),
}

/// Control frames first, then the rest in order: a settlement never overtakes the parts before it.
#[derive(Default)]
pub(super) struct Outbox {
    urgent: VecDeque<Up>,
    rest: VecDeque<Item>,
}

impl Outbox {
    pub(super) fn push(&mut self, item: Item) {
        match item {
            Item::Urgent(up) => self.urgent.push_back(up),
            item => self.rest.push_back(item),
        }
    }

    /// Whether running jobs may say more.
    pub(super) fn has_room(&self) -> bool {
        self.rest.len() < ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.rest.is_empty()
    }

    /// The next frame. Settlements that wait one behind the other go together.
    pub(super) fn next(&mut self, work: &Work) -> Option<Up> {
        if let Some(up) = self.urgent.pop_front() {
            return Some(up);
        }
        loop {
            match self.rest.pop_front()? {
                Item::Urgent(up) => return Some(up),
                Item::Say(up) => return Some(self.joined(up)),
                Item::Settle(lease) => {
                    let Some(first) = work.settlement(&lease) else { continue };
                    let mut size = first.outcome.inline_bytes();
                    let mut batch = vec![first.clone()];
                    while let Some(Item::Settle(lease)) = self.rest.front() {
                        if let Some(next) = work.settlement(lease) {
                            size += next.outcome.inline_bytes();
                            if size > BATCH {
                                break;
                            }
                            batch.push(next.clone());
                        }
                        self.rest.pop_front();
                    }
                    return Some(Up::Settle(batch));
                }
            }
        }
    }

    /// A delta together with those that wait right behind it and go on where it ends.
    fn joined(&mut self, first: Up) -> Up {
        let Up::Part { delivery, frame: AnswerFrame::PartDelta { attempt, part, offset, data } } =
            first
        else {
            return first;
        };
        let mut all = vec![data];
        let mut size = all[0].len();
        while let Some(Item::Say(Up::Part { delivery: next, frame })) = self.rest.front() {
            let AnswerFrame::PartDelta { attempt: a, part: p, offset: o, data } = frame else {
                break;
            };
            let goes_on = *next == delivery
                && (*a, *p, *o) == (attempt, part, offset + size as u64)
                && size + data.len() <= JOINED;
            if !goes_on {
                break;
            }
            size += data.len();
            all.push(data.clone());
            self.rest.pop_front();
        }
        let data = if all.len() == 1 { all.remove(0) } else { all.concat().into() };
        Up::Part { delivery, frame: AnswerFrame::PartDelta { attempt, part, offset, data } }
    }

    /// The connection is gone: the next one begins with what is in hand then, and figures that no one heard.
    pub(super) fn unlinked(&mut self) {
        self.urgent.clear();
        self.rest.retain(|item| matches!(item, Item::Say(Up::Usage { .. })));
        while self.rest.len() > KEPT {
            self.rest.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::{Part, SettleOutcome, Settlement};

    use super::*;
    use crate::{fake::delivery, link::work::release};

    fn delta(delivery: u64, offset: u64, text: &'static str) -> Item {
        let data = bytes::Bytes::from_static(text.as_bytes());
        let frame = AnswerFrame::PartDelta { attempt: 1, part: 0, offset, data };
        Item::Say(Up::Part { delivery, frame })
    }

    #[test]
    fn text_that_waits_goes_together_and_nothing_else_with_it() {
        let (work, mut outbox) = (Work::new(8, 1), Outbox::default());
        for item in
            [delta(7, 0, "one "), delta(7, 4, "two"), delta(8, 0, "other"), delta(7, 9, "gap")]
        {
            outbox.push(item);
        }

        let said: Vec<Item> = std::iter::from_fn(|| outbox.next(&work)).map(Item::Say).collect();

        assert_eq!(said, [delta(7, 0, "one two"), delta(8, 0, "other"), delta(7, 9, "gap")]);
    }

    fn settling(leases: &[&str], text: usize) -> (Work, Outbox) {
        let (mut work, mut outbox) = (Work::new(8, 1), Outbox::default());
        for lease in leases {
            work.take(&delivery(lease)).unwrap();
            let parts = vec![Part::Text("x".repeat(text))];
            let outcome = SettleOutcome::Done { parts, stop_reason: None };
            let settlement = Settlement { outcome, ..release((*lease).into()) };
            for item in work.settle(Box::new(settlement), None) {
                outbox.push(item);
            }
        }
        (work, outbox)
    }

    fn batches(work: &Work, outbox: &mut Outbox) -> Vec<usize> {
        std::iter::from_fn(|| outbox.next(work))
            .map(|up| match up {
                Up::Settle(batch) => batch.len(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn settlements_that_wait_go_together_as_far_as_a_frame_holds() {
        let (work, mut outbox) = settling(&["a", "b", "c"], 10);
        assert_eq!(batches(&work, &mut outbox), [3]);
        let (work, mut outbox) = settling(&["a", "b", "c"], 200 * 1024);
        assert_eq!(batches(&work, &mut outbox), [2, 1]);
    }

    #[test]
    fn a_pong_goes_before_what_waits_and_a_settlement_behind_its_parts() {
        let (work, mut outbox) = settling(&["a"], 1);
        outbox.push(Item::Say(Up::Progress { lease: "b".into(), text: String::new() }));
        outbox.push(Item::Urgent(Up::Pong { nonce: 1 }));
        let order: Vec<Up> = std::iter::from_fn(|| outbox.next(&work)).collect();
        assert!(matches!(order[..], [Up::Pong { .. }, Up::Settle(_), Up::Progress { .. }]));
    }

    #[test]
    fn only_figures_outlive_the_connection() {
        let (work, mut outbox) = settling(&["a"], 1);
        let model = broker_proto::ModelName::parse("opus").unwrap();
        let usage = Up::Usage { model, usage: Default::default(), limits: vec![], message: None };
        outbox.push(Item::Say(usage.clone()));
        outbox.push(Item::Urgent(Up::Pong { nonce: 1 }));

        outbox.unlinked();

        assert_eq!(outbox.next(&work), Some(usage));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_outbox_makes_jobs_wait() {
        let mut outbox = Outbox::default();
        for _ in 0..ROOM {
            assert!(outbox.has_room());
            outbox.push(Item::Settle("a".into()));
        }
        assert!(!outbox.has_room());
    }
}
