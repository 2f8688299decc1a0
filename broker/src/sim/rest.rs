//! The end of a history: nothing goes wrong any more, and everything comes to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use broker_proto::{Counters, MessageId, MessageState, Recipient, Sender};

use super::{
    broker::poll,
    callers::{recipient, wish},
    calls::Way,
    step::{Act, HOWS, PROCESSES, Want},
    witness::{Checked, Key, Violation, must},
    world::World,
};
use crate::{
    core::{Command, Query, Reply, TaskStep, queue::Seq, session},
    projection::{self, Filter},
};

/// Rounds within which everything that was accepted comes to its end once nothing goes wrong any more.
const ROUNDS: usize = 90;

impl World {
    /// Everybody is there and answers: then everything comes to its end.
    pub(super) async fn come_to_rest(&mut self) -> Checked {
        self.note("-- rest");
        let mut is_new = true;
        for round in 0..ROUNDS {
            self.owner().script.set_room(u64::MAX);
            self.everybody_answers(is_new, round);
            self.people_act(round);
            is_new = false;
            // In the end their senders give up.
            let tries = round < ROUNDS * 2 / 3;
            let open: BTreeSet<Key> = self.witness.unknown().filter(|_| tries).collect();
            let again = self.offers.iter().enumerate().filter(|(_, it)| open.contains(&it.key));
            let again: Vec<usize> = again.map(|(at, _)| at).collect();
            if self.calls.is_empty() {
                again.into_iter().for_each(|offer| self.offer(offer, 0));
            }
            for way in std::mem::take(&mut self.ways) {
                self.arrive(way, 1);
            }
            for _ in 0..4 {
                self.sync()?;
                self.fold().await;
            }
            let span = [3, 60, 24 * 3600][round * 3 / ROUNDS];
            self.sleep(Duration::from_secs(span)).await;
            self.turn()?;
            if self.owner().is_over() {
                self.restart().await?;
                is_new = true;
            }
            let is_quiet = self.calls.is_empty() && !self.owner().script.is_waiting();
            let is_still = self.witness.moves.pending().is_none();
            if is_quiet && is_still && open.is_empty() && self.witness.living().next().is_none() {
                break;
            }
        }
        self.witness.at_rest()?;
        self.compare_rows().await?;
        self.compare_sessions()?;
        self.compare_counters()
    }

    /// Every session is where it was written to, and its rows are its chain.
    fn compare_sessions(&mut self) -> Checked {
        let all: Vec<_> = self
            .witness
            .talks
            .sessions()
            .map(|(id, now)| {
                let owner = self.witness.moves.owner(id).cloned();
                let now = now.zip(owner);
                (id.clone(), now.map(|((version, point), owner)| (version, point.head, owner)))
            })
            .collect();
        for (id, want) in all {
            let query = Query::Session(session::Query::Get(id.clone()));
            let said = match self.asked_engine(query) {
                Some(Reply::Session(session::Reply::Found(found))) => found
                    .map(|session| (session.info.version, session.info.head, session.info.owner)),
                _ => None,
            };
            must!(said == want, "session", "{id} is at {want:?}, the broker says {said:?}");
            let Some((_, head, _)) = want else { continue };
            let (projection, batch) = (self.owner().projection.clone(), self.owner().handle.head());
            let rows = at_once(projection.session_chain(head.hash, batch))?;
            let chain = self.witness.talks.chain(head.hash);
            must!(rows == chain, "session", "{id} has the rows {rows:?} for {chain:?}");
        }
        Ok(())
    }

    fn asked_engine(&mut self, query: Query) -> Option<Reply> {
        let engine = self.owner().handle.clone();
        let mut asked = Box::pin(async move { engine.query(query).await });
        let _ = poll(asked.as_mut());
        self.owner().run();
        poll(asked.as_mut()).and_then(Result::ok)
    }

    /// Tasks are taken up again, and dead letters have another chance before most of them are let go.
    fn people_act(&mut self, round: usize) {
        let tasks: Vec<Seq> = self.witness.tasks().collect();
        for (number, seq) in (0..).zip(tasks) {
            let step = match round {
                2 if number % 3 == 0 => TaskStep::Suspend,
                3 | 9 => wish(Want::Answer { input: number % 4, is_other: false }),
                6 | 12 => wish(Want::Resume),
                _ => continue,
            };
            self.ways.push(Way::Task { seq, step });
        }
        match round {
            5 | 14 => self.operate(0, 0, Act::Redrive),
            10 => (0..9).for_each(|of| self.operate(of, 2, Act::Purge)),
            _ => {}
        }
    }

    fn everybody_answers(&mut self, is_new: bool, round: usize) {
        for queue in (0..PROCESSES as u8).map(recipient).filter(|_| is_new) {
            self.ways.push(Way::Pause(Command::Pause { queue, is_paused: false }));
        }
        for process in 0..self.processes.len() {
            self.processes[process].is_stalled = false;
            self.pull_ends(process);
            if is_new || self.processes[process].link.is_none() {
                self.greet(process, is_new, true, 50);
            }
            let agent = self.processes[process].agent();
            let held = std::mem::take(&mut self.processes[process].held);
            let settled = held.into_iter().map(|token| {
                // First in every way there is.
                let how =
                    if round < 12 { (token.seq.0 + u64::from(token.epoch)) % HOWS } else { 0 };
                Way::Settle { agent, token, how: how as u8 }
            });
            self.ways.extend(settled);
            let link = self.processes[process].link;
            self.ways.extend(link.map(|link| Way::Credit { link, messages: 10 }));
        }
    }

    /// I-6, I-33: everybody can learn how each message ended, and the figures agree.
    async fn compare_rows(&mut self) -> Checked {
        self.fold().await;
        let (projection, head) = (self.owner().projection.clone(), self.owner().handle.head());
        let mut counts: BTreeMap<MessageState, u64> = BTreeMap::new();
        for (key, _, end) in self.witness.ends() {
            let (sender, id) = (Sender::parse(key.0).unwrap(), MessageId::from_u128(key.1));
            let row = at_once(projection.find(sender, id, head))?;
            let said = row.map(|row| row.state);
            must!(said == end, "I-6", "{key:?} ended as {end:?}, its sender learns {said:?}");
            *counts.entry(end.unwrap_or(MessageState::Queued)).or_default() += 1;
        }
        for state in MessageState::ALL {
            let filter = Filter { states: vec![state], limit: 1000, ..Filter::default() };
            let page = at_once(projection.list(filter, head))?;
            let want = counts.get(&state).copied().unwrap_or(0);
            let listed = page.rows.len() as u64;
            must!(listed == want, "I-33", "{listed} of {want} messages are {}", state.as_str());
        }
        Ok(())
    }

    /// I-33: the broker's own counters, of each recipient and of all, are what was seen from outside.
    fn compare_counters(&mut self) -> Checked {
        let mut seen: BTreeMap<Option<Recipient>, Counters> = BTreeMap::new();
        for (_, to, end) in self.witness.ends() {
            for of in [Some(to.clone()), None] {
                let counters = seen.entry(of).or_default();
                counters.accepted += 1;
                *counters.of(end.unwrap_or(MessageState::Queued)) += 1;
            }
        }
        for (of, seen) in seen {
            let said = self.asked_engine(Query::Counters(of.clone()));
            let is_same = matches!(&said, Some(Reply::Counters(said)) if *said == seen);
            must!(is_same, "I-33", "{of:?} has {seen:?}, the broker says {said:?}");
        }
        Ok(())
    }
}

/// What needs no more than what is folded already.
fn at_once<T>(reading: impl Future<Output = Result<T, projection::Error>>) -> Result<T, Violation> {
    let read = poll(pin!(reading)).and_then(Result::ok);
    read.ok_or_else(|| Violation { rule: "rows", what: "they cannot be read".into() })
}
