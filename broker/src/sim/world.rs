//! The scheduler: brokers, disk, clocks, callers and agents, moved one step at a time on a single thread.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, StreamExt};

use broker_proto::{MessageState, Terminal};

use super::{
    agent::{NAMES, Process},
    broker::{Broker, Machine, Out, policy},
    callers::{Offer, said_in},
    calls::{Call, Way},
    step::{self, History, Step},
    witness::{Answer, Checked, Witness, must},
};
use crate::{
    core::{Accepted, Effect, Policy, agent::LinkId, queue::Seq},
    engine::Clock as _,
    journal::{
        BatchNo, Frame, Journal, Until, Why,
        faulty::{Fault, Gate},
        memory::{MemoryJournal, Store},
    },
    projection::Rows,
};

/// 2026-01-01, a moment like any other.
const START: u64 = 1_767_225_600_000;
/// Bytes of credit that come with each message of it; most messages are smaller.
const BYTES_PER_CREDIT: u64 = 150;

pub(super) struct World {
    store: Store,
    pub(super) rows: Rows,
    pub(super) policy: Policy,
    pub(super) bytes_per_credit: u64,
    pub(super) machine: Arc<Mutex<Machine>>,
    /// The last one is the owner; those before it do not know yet that they are not.
    pub(super) brokers: Vec<Broker>,
    started: u64,
    pub(super) calls: Vec<Call>,
    pub(super) ways: Vec<Way>,
    pub(super) processes: Vec<Process>,
    pub(super) links: BTreeMap<LinkId, u64>,
    pub(super) last_link: u64,
    pub(super) offers: Vec<Offer>,
    pub(super) asked: Vec<Seq>,
    /// Sessions begun so far, by anybody.
    pub(super) begun: u64,
    read: BatchNo,
    pub(super) witness: Witness,
    pub(super) trace: Vec<String>,
}

impl World {
    pub(super) async fn new(history: &History) -> Self {
        let is_roomy = history.is_roomy;
        let (store, rows) = (Store::new().unwrap(), Rows::new());
        let (wall, boot) = (START, Duration::from_secs(1_000));
        let machine = Machine { wall, boot, read: BTreeMap::new() };
        let machine = Arc::new(Mutex::new(machine));
        let policy = policy(is_roomy, history.calls_a_day);
        let first = Broker::start(1, &store, rows.clone(), &machine, policy.clone()).await;
        let mut witness = Witness::new(policy.clone(), Arc::clone(&machine), is_roomy);
        witness.started();
        Self {
            store,
            rows,
            policy,
            bytes_per_credit: if is_roomy { 1 << 20 } else { BYTES_PER_CREDIT },
            machine,
            brokers: vec![first],
            started: 1,
            calls: Vec::new(),
            ways: Vec::new(),
            processes: (0..NAMES.len()).map(Process::new).collect(),
            links: BTreeMap::new(),
            last_link: 0,
            offers: Vec::new(),
            asked: Vec::new(),
            begun: 0,
            read: BatchNo(1),
            witness,
            trace: Vec::new(),
        }
    }

    pub(super) fn owner(&mut self) -> &mut Broker {
        self.brokers.last_mut().unwrap()
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.trace.push(what.into());
    }

    /// Takes one step, then looks at everything that came of it.
    pub(super) async fn take(&mut self, step: Step) -> Checked {
        self.note(format!("{step:?}"));
        if !self.say(step) && !self.agent(step) {
            self.happen(step).await?;
        }
        self.turn()?;
        if self.owner().is_over() {
            self.restart().await?;
            self.turn()?;
        }
        Ok(())
    }

    /// What happens to the wires, the disk, the clocks and the broker itself.
    async fn happen(&mut self, step: Step) -> Checked {
        match step {
            Step::Arrive { count, order } => {
                for turn in 0..u16::from(count) {
                    if let Some(at) = pick(order.wrapping_add(turn * 7), self.ways.len()) {
                        let way = self.ways.remove(at);
                        self.arrive(way, order);
                    }
                }
            }
            Step::Lose { which } => {
                if let Some(at) = pick(which, self.ways.len()) {
                    // A message that is lost on the way is one whose sender will offer it again.
                    let way = self.ways.remove(at);
                    self.note(format!("      lost {way:?}"));
                }
            }
            Step::Sync { count } => {
                for _ in 0..count {
                    self.sync()?;
                }
            }
            Step::Disk { fault } => self.fail(fault)?,
            Step::Room { is_left } => {
                let room = if is_left { u64::MAX } else { 1024 };
                self.owner().script.set_room(room);
            }
            Step::Fold => self.fold().await,
            Step::Pass { millis } => self.pass(Duration::from_millis(millis.into())).await?,
            Step::Clock { seconds } => {
                {
                    let mut machine = self.machine.lock().unwrap();
                    machine.wall = machine.wall.saturating_add_signed(i64::from(seconds) * 1000);
                }
                self.witness.clock_set();
            }
            Step::Confirm => {
                self.owner().clock.confirm();
                self.witness.confirmed();
            }
            Step::Crash { is_stored, millis, loses_rows } => {
                self.crash(is_stored)?;
                if loses_rows {
                    self.rows = Rows::new();
                }
                self.sleep(Duration::from_millis(millis.into())).await;
                self.restart().await?;
            }
            Step::Stop => {
                self.owner().stop.cancel();
                for _ in 0..64 {
                    self.sync()?;
                    self.fold().await;
                }
                let is_over = self.owner().is_over();
                must!(is_over, "stop", "the broker does not stop");
                self.restart().await?;
            }
            // Elsewhere: it folds rows of its own.
            Step::TakeOver => {
                self.rows = Rows::new();
                self.start().await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The disk answers the owner's append, and that of each who still believes to be the owner.
    pub(super) fn sync(&mut self) -> Checked {
        self.brokers.iter().for_each(|broker| broker.script.decide(None));
        self.turn()
    }

    fn fail(&mut self, fault: step::Fault) -> Checked {
        if !self.owner().script.is_waiting() {
            return Ok(());
        }
        let is_fatal = !matches!(fault, step::Fault::Full | step::Fault::Unavailable);
        self.owner().script.decide(Some(match fault {
            step::Fault::Full => Fault::NotStored(Why::Full),
            step::Fault::Unavailable => Fault::NotStored(Why::Unavailable),
            step::Fault::UnknownStored => Fault::UnknownStored,
            step::Fault::UnknownLost => Fault::UnknownLost,
            step::Fault::Broken => Fault::Broken,
        }));
        self.owner().has_failed = is_fatal;
        self.turn()?;
        let goes_on = is_fatal && !self.owner().is_over();
        must!(!goes_on, "I-31", "the broker goes on after {fault:?}");
        Ok(())
    }

    pub(super) async fn fold(&mut self) {
        tokio::time::advance(Duration::from_millis(20)).await;
        self.owner().fold();
    }

    /// Time passes, in pieces in which whatever is due is done.
    async fn pass(&mut self, mut span: Duration) -> Checked {
        while !span.is_zero() {
            let piece = span.min(Duration::from_secs(1));
            span -= piece;
            self.sleep(piece).await;
            self.turn()?;
        }
        Ok(())
    }

    pub(super) async fn sleep(&mut self, span: Duration) {
        {
            let mut machine = self.machine.lock().unwrap();
            machine.boot += span;
            machine.wall += u64::try_from(span.as_millis()).unwrap();
        }
        tokio::time::advance(span).await;
    }

    /// The process is gone, between two instructions.
    fn crash(&mut self, is_stored: bool) -> Checked {
        if is_stored && self.owner().script.is_waiting() {
            // Its writer does not live to hear of it.
            self.owner().script.decide(Some(Fault::HoldAfter(Gate::new())));
            self.owner().run();
        }
        let gone = self.brokers.pop().unwrap();
        self.read_store()?;
        self.forget(gone.number)
    }

    /// Nobody will hear what this broker had still to say.
    fn forget(&mut self, broker: u64) -> Checked {
        let (gone, left) =
            std::mem::take(&mut self.calls).into_iter().partition(|call| call.broker == broker);
        self.calls = left;
        let gone: Vec<Call> = gone;
        for call in gone {
            if let Some(it) = &call.unheard {
                self.witness.sent(it, &Answer::Unknown)?;
            }
            if let Some(act) = call.act {
                self.witness.operated(act);
            }
        }
        self.close_links(broker);
        Ok(())
    }

    fn close_links(&mut self, broker: u64) {
        let links = &mut self.links;
        for process in &mut self.processes {
            if process.link.is_some_and(|link| links.get(&link) == Some(&broker)) {
                process.hang_up();
            }
            process.pulls.retain(|link| links.get(link) != Some(&broker));
        }
        links.retain(|_, owner| *owner != broker);
    }

    pub(super) async fn restart(&mut self) -> Checked {
        if let Some(before) = self.brokers.pop_if(|broker| broker.is_over()) {
            self.close_links(before.number);
        }
        self.start().await
    }

    async fn start(&mut self) -> Checked {
        self.read_store()?;
        self.started += 1;
        let number = self.started;
        self.note(format!("      broker {number} starts"));
        self.witness.started();
        let (rows, policy) = (self.rows.clone(), self.policy.clone());
        let next = Broker::start(number, &self.store, rows, &self.machine, policy).await;
        self.brokers.push(next);
        Ok(())
    }

    /// Everybody does what can be done now; the witness sees each piece of it.
    pub(super) fn turn(&mut self) -> Checked {
        for _ in 0..3 {
            for at in 0..self.brokers.len() {
                let ended = self.brokers[at].run();
                if let Some(ended) = ended {
                    let number = self.brokers[at].number;
                    self.note(format!("      broker {number} ends: {ended:?}"));
                }
                self.read_store()?;
                for out in self.brokers[at].let_out() {
                    self.let_out(at, out)?;
                }
            }
            self.hear()?;
        }
        let owner = self.owner().number;
        let gone: Vec<u64> =
            self.brokers.iter().filter(|it| it.is_over()).map(|it| it.number).collect();
        for number in gone {
            self.close_links(number);
        }
        self.brokers.retain(|it| it.number == owner || !it.is_over());
        self.processes.iter_mut().for_each(Process::read);
        Ok(())
    }

    fn let_out(&mut self, at: usize, out: Out) -> Checked {
        let number = self.brokers[at].number;
        let effect = match out {
            Out::Reset => {
                self.note(format!("      broker {number} closes its links"));
                self.close_links(number);
                self.witness.turns_begin_anew();
                return Ok(());
            }
            Out::Effect(effect) => effect,
        };
        match effect {
            Effect::Deliver(delivered) => {
                let (seq, epoch) = (delivered.seq, delivered.epoch);
                self.note(format!("      {} lease {epoch} on {:?}", seq.0, delivered.link));
                self.witness.delivered(&delivered)?;
                let process = self.processes.iter_mut().find(|it| it.has(delivered.link));
                if let Some(process) = process {
                    process.deliver(&delivered);
                }
            }
            Effect::Closed { seq, terminal, .. } => {
                let is_first = self.brokers[at].closed.insert(seq);
                must!(is_first, "I-35", "{seq:?} is closed twice");
                self.witness.closed(seq, state_of(&terminal))?;
            }
            Effect::Opened { seq, .. } => {
                // A dead letter that lives again has a stream again.
                self.brokers[at].closed.remove(&seq);
                self.asked.push(seq);
            }
            Effect::AttemptBegins { seq, .. } => {
                let is_closed = self.brokers[at].closed.contains(&seq);
                must!(!is_closed, "I-35", "{seq:?} goes on after its last frame");
            }
            Effect::Cancel { instance, seq, epoch, .. }
            | Effect::Revoke { instance, seq, epoch, .. } => {
                let is_its = |it: &&mut Process| it.instance() == instance;
                for process in self.processes.iter_mut().filter(is_its) {
                    if process.link.is_some() && !process.is_stalled {
                        process.revoke(seq, epoch);
                    }
                }
            }
            Effect::Supersede { link } => {
                for process in &mut self.processes {
                    if process.link == Some(link) {
                        process.hang_up();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Shows the witness what is durable by now.
    fn read_store(&mut self) -> Checked {
        let journal = MemoryJournal::open(&self.store);
        let frames: Vec<Frame> = journal
            .read(self.read, Until::Head)
            .map(Result::unwrap)
            .collect()
            .now_or_never()
            .unwrap();
        for frame in frames {
            self.read = frame.number.next();
            let find = |accepted: &Accepted| said_in(&journal, accepted);
            self.witness.stored(&frame, find, &mut self.trace)?;
        }
        Ok(())
    }
}

pub(super) fn pick(of: u16, count: usize) -> Option<usize> {
    (count > 0).then(|| usize::from(of) % count)
}

fn state_of(terminal: &Terminal) -> MessageState {
    match terminal {
        Terminal::Done(_) => MessageState::Done,
        Terminal::Expired(_) => MessageState::Expired,
        Terminal::Cancelled(_) => MessageState::Cancelled,
        Terminal::Failed { .. } => MessageState::Failed,
    }
}
