//! Queues as an operator sees them, and what he may stop.

use std::ops::Bound;

use broker_proto::{Counters, Priority, QueueInfo, Recipient};

use super::Run;
use crate::core::{Event, Refusal, Reply, queue::Seq};

impl Run<'_> {
    /// Stops or resumes what a queue delivers; what is out goes on.
    pub(super) fn pause(&mut self, queue: Recipient, is_paused: bool) -> Result<Reply, Refusal> {
        if !self.is_queue(&queue) {
            return Err(Refusal::UnknownQueue(queue));
        }
        if self.state.queue.is_paused(&queue) != is_paused {
            let at = self.now.wall;
            self.event(Event::QueuePaused { queue: queue.clone(), at, is_paused });
            self.dispatch(&queue);
        }
        Ok(Reply::Queues(vec![self.queue_info(&queue)]))
    }

    /// Queues there are, or would be with the next message.
    fn is_queue(&self, queue: &Recipient) -> bool {
        let is_known = match queue {
            Recipient::Model(name) => self.model(name).is_some(),
            Recipient::Agent(name) => self.state.agent.token(name).is_some(),
            Recipient::Role(role) => self.state.agent.knows_role(role),
            // Its copies are in its agents' mailboxes.
            Recipient::AgentsOf(_) => return false,
        };
        is_known || self.state.queue.names().contains(queue)
    }

    pub(super) fn queues(&self, after: Option<&Recipient>, limit: usize) -> Vec<QueueInfo> {
        let models: Vec<Recipient> =
            self.state.policy.models.keys().cloned().map(Recipient::Model).collect();
        let mut names = self.state.queue.names();
        names.extend(&models);
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = names.range::<&Recipient, _>((behind.as_ref(), Bound::Unbounded));
        let is_queue = |queue: &&&Recipient| !matches!(queue, Recipient::AgentsOf(_));
        page.filter(is_queue).take(limit).map(|queue| self.queue_info(queue)).collect()
    }

    pub(super) fn queue(&self, queue: &Recipient) -> Vec<QueueInfo> {
        self.is_queue(queue).then(|| self.queue_info(queue)).into_iter().collect()
    }

    fn queue_info(&self, queue: &Recipient) -> QueueInfo {
        let (ready, leased, size_bytes) = self.state.queue.load(queue);
        let dead = self.state.queue.dead();
        let (letters, dead_bytes) = dead.load(queue);
        let parked = dead.parked(queue);
        let reason = match (self.state.queue.is_paused(queue), parked) {
            (_, 1..) => format!(
                "{parked} parked: its {letters} dead letters are as many as may be; redrive or purge some"
            ),
            (true, 0) => "paused: nothing is delivered until it is resumed".to_owned(),
            (false, 0) => String::new(),
        };
        QueueInfo {
            queue: queue.clone(),
            is_paused: self.state.queue.is_paused(queue),
            is_degraded: parked > 0,
            reason,
            ready,
            leased,
            size_bytes,
            links: self.state.agent.serving(queue) as u64,
            dead_bytes,
            parked,
            counters: self.state.queue.counters().get(queue).copied().unwrap_or_default(),
        }
    }

    /// The next messages of a queue, the most urgent first and each priority in the order of its numbers.
    pub(super) fn peek(
        &self,
        queue: &Recipient,
        after: Option<(Priority, Seq)>,
        limit: usize,
    ) -> Vec<(Priority, Seq)> {
        let Some(ready) = self.state.queue.ready(queue) else { return Vec::new() };
        let place = |(priority, seq): (Priority, Seq)| (std::cmp::Reverse(priority), seq);
        let mut heads: Vec<(Priority, Seq)> = ready
            .all()
            .into_iter()
            .filter_map(|seq| Some((self.state.queue.get(seq)?.priority, seq)))
            .filter(|head| after.is_none_or(|after| place(*head) > place(after)))
            .collect();
        if heads.len() > limit {
            heads.select_nth_unstable_by_key(limit, |head| place(*head));
            heads.truncate(limit);
        }
        heads.sort_unstable_by_key(|head| place(*head));
        heads
    }

    pub(super) fn counters(&self, of: Option<&Recipient>) -> Counters {
        let all = self.state.queue.counters();
        match of {
            Some(recipient) => all.get(recipient).copied().unwrap_or_default(),
            None => all.values().copied().fold(Counters::default(), Counters::plus),
        }
    }
}
