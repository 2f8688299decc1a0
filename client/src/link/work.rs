//! What an agent has in hand: its deliveries, their leases, and the credit they take.
//!
//! Invariant: credit is what capacity and bytes leave beside the deliveries in hand, so it can never run out by
//! counting wrongly over a reconnect.
//! Invariant: a delivery stays in hand until its job ended and, if it settled, until the broker answered.

use std::{collections::BTreeMap, sync::Arc};

use broker_proto::{Delivery, MessageId, ModelName, SettleOutcome, SettledFrame, Settlement, Up};
use tokio_util::sync::CancellationToken;

use super::{
    job::{Done, Order, Report, Say, SettleError},
    outbox::Item,
    pulse::Pulse,
    streamed::Streamed,
};

/// The reason of a settlement that came too late. Source: `docs/errors.md`.
const LEASE_LOST: &str = "LEASE_LOST";

/// Every delivery in hand, by its lease.
pub(super) struct Work {
    held: BTreeMap<String, Held>,
    capacity: u32,
    byte_credit: u64,
    /// This side leaves: no credit any more.
    is_leaving: bool,
}

struct Held {
    number: u64,
    attempt: u32,
    model: Option<ModelName>,
    message: MessageId,
    size_bytes: u64,
    /// Fires when the lease is lost.
    lost: CancellationToken,
    pulse: Arc<Pulse>,
    streamed: Streamed,
    settling: Option<Settling>,
}

struct Settling {
    settlement: Box<Settlement>,
    done: Option<Done>,
}

impl Work {
    pub(super) fn new(capacity: u32, byte_credit: u64) -> Self {
        Self { held: BTreeMap::new(), capacity, byte_credit, is_leaving: false }
    }

    /// Takes a delivery in hand. `None` when it is there already.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Option<(CancellationToken, Arc<Pulse>)> {
        if self.held.contains_key(&delivery.lease) {
            return None;
        }
        let lost = CancellationToken::new();
        let pulse = Arc::<Pulse>::default();
        let held = Held {
            number: delivery.number,
            attempt: delivery.attempt,
            model: delivery.model.clone(),
            message: delivery.message.id,
            size_bytes: delivery.size_bytes,
            lost: lost.clone(),
            pulse: Arc::clone(&pulse),
            streamed: Streamed::default(),
            settling: None,
        };
        self.held.insert(delivery.lease.clone(), held);
        Some((lost, pulse))
    }

    /// The leases that a heartbeat names: those on which somebody still works, or whose settlement waits for its answer.
    pub(super) fn beat(&self) -> Vec<String> {
        let is_alive = |held: &Held| {
            !held.lost.is_cancelled() && (held.settling.is_some() || held.pulse.beat())
        };
        self.held
            .iter()
            .filter(|(_, held)| is_alive(held))
            .map(|(lease, _)| lease.clone())
            .collect()
    }

    /// The leases in hand: named in a hello.
    pub(super) fn leases(&self) -> Vec<String> {
        let held = self.held.iter().filter(|(_, held)| !held.lost.is_cancelled());
        held.map(|(lease, _)| lease.clone()).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// What a new connection has to hear: the credit that is left, and of each delivery in hand its settlement,
    /// or what was streamed of it. A lease that did not survive is lost; one that is being settled may have ended
    /// by just that, so the broker is asked again.
    pub(super) fn reconnected(&mut self, resumed: &[String]) -> Vec<Item> {
        let mut items = Vec::new();
        for (lease, held) in &self.held {
            if held.lost.is_cancelled() {
                continue;
            }
            if held.settling.is_some() {
                items.push(Item::Settle(lease.clone()));
            } else if resumed.contains(lease) {
                let frames = held.streamed.again(held.attempt);
                let part = |frame| Item::Say(Up::Part { delivery: held.number, frame });
                items.extend(frames.into_iter().map(part));
            } else {
                held.lost.cancel();
            }
        }
        items.extend(self.free());
        items
    }

    /// All the credit that is left.
    fn free(&self) -> Option<Item> {
        let in_hand = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let messages = self.capacity.saturating_sub(in_hand);
        let bytes: u64 = self.held.values().map(|held| held.size_bytes).sum();
        let size_bytes = self.byte_credit.saturating_sub(bytes);
        (!self.is_leaving && (messages, size_bytes) != (0, 0))
            .then_some(Item::Urgent(Up::Credit { messages, size_bytes }))
    }

    /// What a running job says. Nothing once its lease is lost or it settles.
    pub(super) fn order(&mut self, order: Order) -> Vec<Item> {
        let Some(held) = self.held.get_mut(&order.lease) else { return Vec::new() };
        if held.lost.is_cancelled() || held.settling.is_some() {
            return Vec::new();
        }
        if let Say::Progress(text) = order.say {
            return vec![Item::Say(Up::Progress { lease: order.lease, text })];
        }
        let frames = held.streamed.say(held.attempt, order.say);
        let part = |frame| Item::Say(Up::Part { delivery: held.number, frame });
        frames.into_iter().map(part).collect()
    }

    /// A job settles. On a lost lease only what its call took is still told.
    pub(super) fn settle(&mut self, settlement: Box<Settlement>, done: Option<Done>) -> Vec<Item> {
        let lease = settlement.lease.clone();
        match self.held.get_mut(&lease) {
            Some(held) if !held.lost.is_cancelled() => {
                held.streamed = Streamed::default();
                held.settling = Some(Settling { settlement, done });
                vec![Item::Settle(lease)]
            }
            _ => {
                answer(done, Err(SettleError::LeaseLost));
                let Settlement { usage, limits, first_token, .. } = *settlement;
                self.let_go(&lease, Some(Report { usage, limits, first_token }))
            }
        }
    }

    /// A job ends without a settlement. If its lease still holds, that is given back.
    pub(super) fn abandon(&mut self, lease: String, report: Report) -> Vec<Item> {
        if self.held.get(&lease).is_some_and(|held| held.lost.is_cancelled()) {
            return self.let_go(&lease, Some(report));
        }
        let Report { usage, limits, first_token } = report;
        let outcome = SettleOutcome::Release;
        self.settle(Box::new(Settlement { lease, outcome, usage, limits, first_token }), None)
    }

    /// The broker answers a settlement.
    pub(super) fn settled(&mut self, frame: SettledFrame) -> Vec<Item> {
        let held = self.held.get_mut(&frame.lease);
        let Some(settling) = held.and_then(|held| held.settling.take()) else { return Vec::new() };
        let result = match frame.refused {
            None => Ok(()),
            Some(refused) if refused.reason == LEASE_LOST => Err(SettleError::LeaseLost),
            Some(refused) => {
                Err(SettleError::Refused { reason: refused.reason, detail: refused.detail })
            }
        };
        answer(settling.done, result);
        self.let_go(&frame.lease, None)
    }

    /// The broker took a lease back. One that is being settled waits for the answer to its settlement.
    pub(super) fn lose(&mut self, lease: &str) {
        if let Some(held) = self.held.get(lease).filter(|held| held.settling.is_none()) {
            held.lost.cancel();
        }
    }

    /// The settlement that waits for its answer.
    pub(super) fn settlement(&self, lease: &str) -> Option<&Settlement> {
        Some(&self.held.get(lease)?.settling.as_ref()?.settlement)
    }

    /// Everything that is not settled, given back; its jobs learn that their lease is lost.
    pub(super) fn give_back(&mut self) -> Vec<Item> {
        let mut released = Vec::new();
        for (lease, held) in &self.held {
            if held.settling.is_none() && !held.lost.is_cancelled() {
                held.lost.cancel();
                released.push(release(lease.clone()));
            }
        }
        (!released.is_empty()).then_some(Item::Say(Up::Settle(released))).into_iter().collect()
    }

    /// The link ended for good: nobody will answer any more.
    pub(super) fn end(&mut self) {
        for (_, held) in std::mem::take(&mut self.held) {
            held.lost.cancel();
            answer(held.settling.and_then(|settling| settling.done), Err(SettleError::Ended));
        }
    }

    fn let_go(&mut self, lease: &str, report: Option<Report>) -> Vec<Item> {
        let Some(held) = self.held.remove(lease) else { return Vec::new() };
        let mut items = Vec::new();
        // A mailbox delivery calls no model; without figures there is nothing to tell.
        if let (Some(model), Some(report)) = (held.model, report)
            && (report.usage != Default::default() || !report.limits.is_empty())
        {
            let Report { usage, limits, .. } = report;
            items.push(Item::Say(Up::Usage { model, usage, limits, message: Some(held.message) }));
        }
        if !self.is_leaving {
            let size_bytes = held.size_bytes;
            items.push(Item::Urgent(Up::Credit { messages: 1, size_bytes }));
        }
        items
    }
}

/// A settlement that gives a delivery back unworked.
pub(super) fn release(lease: String) -> Settlement {
    Settlement {
        lease,
        outcome: SettleOutcome::Release,
        usage: Default::default(),
        limits: Vec::new(),
        first_token: None,
    }
}

fn answer(done: Option<Done>, result: Result<(), SettleError>) {
    if let Some(done) = done {
        // Who settled may have left meanwhile; the settlement counts all the same.
        let _ = done.send(result);
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::{Part, RefusedFrame, Usage};
    use tokio::sync::oneshot;

    use super::*;
    use crate::fake::delivery;

    fn work() -> Work {
        Work::new(2, 100)
    }

    fn with(lease: &str) -> (Work, CancellationToken) {
        let mut work = work();
        let mut taken = delivery(lease);
        taken.size_bytes = 10;
        let (lost, _) = work.take(&taken).unwrap();
        (work, lost)
    }

    fn credit(messages: u32, size_bytes: u64) -> Item {
        Item::Urgent(Up::Credit { messages, size_bytes })
    }

    fn done(lease: &str) -> Box<Settlement> {
        Box::new(Settlement {
            outcome: SettleOutcome::Reject { reason: "r".into() },
            ..release(lease.into())
        })
    }

    fn usage() -> Usage {
        Usage { output_tokens: Some(7), ..Usage::default() }
    }

    #[test]
    fn a_first_link_grants_everything_and_a_later_one_what_is_not_in_hand() {
        assert_eq!(work().reconnected(&[]), [credit(2, 100)]);
        let (mut work, _) = with("a");
        assert_eq!(work.reconnected(&["a".into()]), [credit(1, 90)]);
    }

    #[test]
    fn credit_comes_back_once_the_broker_answered() {
        let (mut work, _) = with("a");
        assert_eq!(work.settle(done("a"), None), [Item::Settle("a".into())]);

        let items =
            work.settled(SettledFrame { lease: "a".into(), refused: None, is_repeated: false });

        assert_eq!(items, [credit(1, 10)]);
        assert!(work.is_idle());
        assert_eq!(
            work.settled(SettledFrame { lease: "a".into(), refused: None, is_repeated: false }),
            []
        );
    }

    #[test]
    fn an_agent_that_leaves_grants_nothing() {
        let (mut work, _) = with("a");
        work.leave();
        assert_eq!(work.reconnected(&["a".into()]), []);
        work.settle(done("a"), None);
        assert_eq!(
            work.settled(SettledFrame { lease: "a".into(), refused: None, is_repeated: false }),
            []
        );
    }

    #[test]
    fn a_lease_that_did_not_survive_is_lost_and_one_being_settled_is_settled_again() {
        let (mut work, lost) = with("a");
        work.take(&delivery("b")).unwrap();
        work.settle(done("b"), None);

        assert_eq!(work.reconnected(&[]), [Item::Settle("b".into()), credit(0, 90)]);
        assert!(lost.is_cancelled());
        assert_eq!(work.leases(), ["b"]);
    }

    #[test]
    fn a_lost_delivery_keeps_its_credit_until_its_job_ends_and_then_only_tells_its_usage() {
        let (mut work, lost) = with("a");
        work.lose("a");
        assert!(lost.is_cancelled());
        assert_eq!(work.reconnected(&[]), [credit(1, 90)]);

        let items = work.abandon("a".into(), Report { usage: usage(), ..Report::default() });

        assert!(matches!(&items[0], Item::Say(Up::Usage { usage: told, .. }) if *told == usage()));
        assert_eq!(items[1], credit(1, 10));
    }

    #[test]
    fn a_settlement_of_a_lost_lease_is_answered_here() {
        let (mut work, _) = with("a");
        work.lose("a");
        let (tx, mut rx) = oneshot::channel();

        let items = work.settle(done("a"), Some(tx));

        assert!(matches!(rx.try_recv(), Ok(Err(SettleError::LeaseLost))));
        assert_eq!(items, [credit(1, 10)], "and nothing is settled");
    }

    #[test]
    fn a_refused_settlement_says_whether_the_lease_was_lost() {
        for (reason, is_lost) in [("LEASE_LOST", true), ("TOO_LARGE", false)] {
            let (mut work, _) = with("a");
            let (tx, mut rx) = oneshot::channel();
            work.settle(done("a"), Some(tx));
            let refused = RefusedFrame { reason: reason.into(), detail: String::new() };
            work.settled(SettledFrame {
                lease: "a".into(),
                refused: Some(refused),
                is_repeated: false,
            });
            let answer = rx.try_recv().unwrap().unwrap_err();
            assert_eq!(matches!(answer, SettleError::LeaseLost), is_lost, "{reason}");
        }
    }

    #[test]
    fn abandoning_a_lease_that_holds_gives_it_back() {
        let (mut work, _) = with("a");
        assert_eq!(work.abandon("a".into(), Report::default()), [Item::Settle("a".into())]);
        assert_eq!(work.settlement("a").map(|s| &s.outcome), Some(&SettleOutcome::Release));
    }

    #[test]
    fn a_job_that_settles_says_nothing_more() {
        let (mut work, _) = with("a");
        work.settle(done("a"), None);
        let say = Say::Start { part: 0, opening: Part::text("") };
        assert_eq!(work.order(Order { lease: "a".into(), say }), []);
    }
}
