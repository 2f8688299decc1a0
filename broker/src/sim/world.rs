//! The scheduler: brokers, disk, clocks, callers and agents, moved one step at a time on a single thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};

use broker_proto::{
    AskOptions, FailureClass, Message, MessageId, MessageState, MessageType, Part, Payload,
    Priority, Receipt, Recipient, Sender, Terminal, Usage, WallTime, convert::Stored as _,
};

use super::{
    agent::{NAMES, Process, Token},
    broker::{Broker, Machine, Out, POLICY, poll},
    disk::Verdict,
    step::{Fault, Step},
    witness::{Answer, Checked, Key, Violation, Witness, must},
};
use crate::{
    app::rehearsal::{agent, model},
    core::{
        Accepted, Command, Effect, Outcome, Reply, SettleCommand,
        agent::LinkId,
        queue::{Body, Seq},
    },
    engine, intake,
    journal::{
        BatchNo, ContentKey, Frame, Journal, Until,
        memory::{MemoryJournal, Store},
    },
    projection::{Filter, Rows},
};

/// 2026-01-01, a moment like any other.
const START: u64 = 1_767_225_600_000;
const SENDERS: [&str; 2] = ["app", "batch"];
/// Bytes of credit that come with each message of it; most messages are smaller.
const BYTES_PER_CREDIT: u64 = 150;
/// Rounds within which everything that was accepted comes to its end once nothing goes wrong any more.
const REST_ROUNDS: usize = 90;

/// A message as its sender keeps it, to send it again.
#[derive(Debug, Clone)]
struct Offer {
    key: Key,
    message: Message,
    options: Option<AskOptions>,
}

/// Something on its way to the broker.
#[derive(Debug)]
enum Way {
    Send { offer: usize, variant: u8 },
    Cancel { sender: &'static str, id: MessageId },
    Settle { agent: &'static str, token: Token, how: u8 },
    Renew { agent: &'static str, leases: Vec<(Seq, u32)> },
    Credit { link: LinkId, messages: u32 },
    Asker { seq: Seq, is_back: bool },
}

/// What a call came back with.
enum Heard {
    Sent { key: Key, variant: u8, answer: Answer<Receipt> },
    Settled { seq: Seq, epoch: u32, again: bool, answer: Answer<()> },
    Greeted,
    Other,
}

struct Call {
    broker: u64,
    what: String,
    /// What it is when the broker is gone before it answers.
    unheard: Option<(Key, u8)>,
    future: Pin<Box<dyn Future<Output = Heard>>>,
}

pub(super) struct World {
    store: Store,
    rows: Rows,
    machine: Arc<Mutex<Machine>>,
    /// The last one is the owner; those before it do not know yet that they are not.
    brokers: Vec<Broker>,
    started: u64,
    calls: Vec<Call>,
    ways: Vec<Way>,
    processes: Vec<Process>,
    links: BTreeMap<LinkId, u64>,
    last_link: u64,
    offers: Vec<Offer>,
    asked: Vec<Seq>,
    read: BatchNo,
    witness: Witness,
    pub(super) trace: Vec<String>,
}

impl World {
    pub(super) async fn new() -> Self {
        let (store, rows) = (Store::new().unwrap(), Rows::new());
        let boot = Duration::from_secs(1_000);
        let machine = Arc::new(Mutex::new(Machine { wall: START, boot }));
        let first = Broker::start(1, &store, rows.clone(), &machine).await;
        let witness = Witness::new(POLICY.max_lost_leases);
        Self {
            store,
            rows,
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
            read: BatchNo(1),
            witness,
            trace: Vec::new(),
        }
    }

    fn owner(&mut self) -> &mut Broker {
        self.brokers.last_mut().unwrap()
    }

    fn note(&mut self, what: impl Into<String>) {
        self.trace.push(what.into());
    }

    /// Takes one step, then looks at everything that came of it.
    pub(super) async fn take(&mut self, step: Step) -> Checked {
        self.note(format!("{step:?}"));
        match step {
            Step::Send { sender, to, priority, key, seconds } => {
                self.write(sender, to, priority, key, seconds);
            }
            Step::Ask { model, options } => self.ask(model, options),
            Step::Again { of, is_other } => {
                if let Some(offer) = pick(of, self.offers.len()) {
                    self.offer(offer, u8::from(is_other));
                }
            }
            Step::Cancel { of } => {
                if let Some(offer) = pick(of, self.offers.len()) {
                    let Offer { key, message, .. } = &self.offers[offer];
                    self.ways.push(Way::Cancel { sender: key.0, id: message.id });
                }
            }
            Step::Asker { of, is_back } => {
                if let Some(seq) = pick(of, self.asked.len()).map(|at| self.asked[at]) {
                    self.ways.push(Way::Asker { seq, is_back });
                }
            }
            Step::Greet { process, is_new, resumes, credit } => {
                self.greet(usize::from(process), is_new, resumes, u32::from(credit));
            }
            Step::HangUp { process } => self.hang_up(usize::from(process)),
            Step::Credit { process, messages } => {
                if let Some(link) = self.processes[usize::from(process)].link {
                    self.ways.push(Way::Credit { link, messages: u32::from(messages) });
                }
            }
            Step::Settle { process, which, how } => {
                let process = &mut self.processes[usize::from(process)];
                if let Some(at) = pick(which.into(), process.held.len()) {
                    let (agent, token) = (process.agent(), process.held.remove(at));
                    self.ways.push(Way::Settle { agent, token, how });
                }
            }
            Step::Stale { process, which, how } => {
                let process = &self.processes[usize::from(process)];
                if let Some(at) = pick(which.into(), process.seen.len()) {
                    let (agent, token) = (process.agent(), process.seen[at]);
                    self.ways.push(Way::Settle { agent, token, how });
                }
            }
            Step::Foreign { process, which } => {
                let agent = self.processes[usize::from(process)].agent();
                let all: Vec<Token> =
                    self.processes.iter().flat_map(|other| other.held.iter().copied()).collect();
                if let Some(at) = pick(which.into(), all.len()) {
                    self.ways.push(Way::Settle { agent, token: all[at], how: 0 });
                }
            }
            Step::Beat { process } => {
                let process = &self.processes[usize::from(process)];
                if process.link.is_some() {
                    let leases = process.held.iter().map(|it| (it.seq, it.epoch)).collect();
                    self.ways.push(Way::Renew { agent: process.agent(), leases });
                }
            }
            Step::Die { process } => {
                self.hang_up(usize::from(process));
                self.processes[usize::from(process)].die();
            }
            Step::Stall { process } => {
                let process = &mut self.processes[usize::from(process)];
                process.is_stalled = !process.is_stalled;
            }
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
                self.owner().arm.set_room(room);
            }
            Step::Fold => self.fold().await,
            Step::Pass { millis } => self.pass(Duration::from_millis(millis.into())).await?,
            Step::Clock { seconds } => {
                let mut machine = self.machine.lock().unwrap();
                let by = i64::from(seconds) * 1000;
                machine.wall = machine.wall.saturating_add_signed(by);
            }
            Step::Crash { is_stored, millis, loses_rows } => {
                self.crash(is_stored)?;
                if loses_rows {
                    self.rows = Rows::new();
                }
                self.sleep(Duration::from_millis(millis.into())).await;
                self.restart().await;
            }
            Step::Stop => {
                self.owner().stop.cancel();
                for _ in 0..64 {
                    self.sync()?;
                    self.fold().await;
                }
                let is_over = self.owner().is_over();
                must!(is_over, "stop", "the broker does not stop");
                self.restart().await;
            }
            Step::TakeOver => {
                // Elsewhere: it folds rows of its own.
                self.rows = Rows::new();
                self.start().await;
            }
        }
        self.turn()?;
        if self.owner().is_over() {
            self.restart().await;
            self.turn()?;
        }
        Ok(())
    }

    fn write(&mut self, sender: u8, to: u8, priority: u8, key: u8, seconds: Option<u16>) {
        let to = ["reviewer", "pool", "nobody"][usize::from(to)];
        let kind = [MessageType::Status, MessageType::Delegation][usize::from(key % 2)];
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
        let wall = WallTime(self.machine.lock().unwrap().wall);
        let to = Recipient::Agent(agent(to));
        let message = Message {
            priority: priorities[usize::from(priority)],
            ordering_key: (key > 0).then(|| format!("key {key}")),
            expires_at: seconds.map(|seconds| wall.after(Duration::from_secs(seconds.into()))),
            ..Message::new(MessageId::from_u128(0), to, kind, Payload::default())
        };
        self.new_offer(SENDERS[usize::from(sender)], message, None);
    }

    fn ask(&mut self, asked: u8, options: u8) {
        let asked = ["opus", "sonnet", "gpt-4o"][usize::from(asked)];
        let message =
            Message::consultation(MessageId::from_u128(0), model(asked), Payload::default());
        let options = AskOptions {
            no_fallback: options & 3 == 0,
            allow_restart: options & 4 == 0,
            keep: options & 8 == 0,
            return_window: (options & 16 == 0).then(|| Duration::from_secs(options.into())),
            deadline: (options & 96 == 0).then(|| Duration::from_secs(40)),
            ..AskOptions::default()
        };
        self.new_offer("app", message, Some(options));
    }

    fn new_offer(&mut self, sender: &'static str, message: Message, options: Option<AskOptions>) {
        // Ids of one sender mostly rise, and sometimes do not. Another sender uses the same ones.
        let count = self.offers.iter().filter(|offer| offer.key.0 == sender).count() as u128;
        let number = 1_000 + count * 10 - if count.is_multiple_of(3) { 25 } else { 0 };
        let key = (sender, number);
        let message = Message { id: MessageId::from_u128(number), ..message };
        self.offers.push(Offer { key, message, options });
        self.offer(self.offers.len() - 1, 0);
    }

    fn offer(&mut self, offer: usize, variant: u8) {
        self.ways.push(Way::Send { offer, variant });
    }

    /// Something reaches a broker: the owner, or now and then one that was.
    fn arrive(&mut self, way: Way, order: u16) {
        let last = self.brokers.len() - 1;
        let at = if order.is_multiple_of(3) { usize::from(order) % (last + 1) } else { last };
        let what = format!("{way:?}");
        let broker = &self.brokers[at];
        let (engine, projection) = (broker.handle.clone(), broker.projection.clone());
        let mut unheard = None;
        let future: Pin<Box<dyn Future<Output = Heard>>> = match way {
            Way::Send { offer, variant } => {
                let Offer { key, mut message, options } = self.offers[offer].clone();
                message.payload.request = vec![Part::text(text(key, variant))];
                let (intake, sender) = (broker.intake.clone(), Sender::parse(key.0).unwrap());
                unheard = Some((key, variant));
                self.witness.offered(key);
                Box::pin(async move {
                    let answer = match options {
                        Some(options) => intake.consult(&sender, message, options).await,
                        None => intake.send(&sender, message, true).await,
                    };
                    Heard::Sent { key, variant, answer: of_intake(answer) }
                })
            }
            Way::Settle { agent: name, token, how } => {
                let command = settlement(name, token, how, self.machine.lock().unwrap().wall);
                let Token { seq, epoch, .. } = token;
                let again = self.witness.was_settled(seq, epoch);
                Box::pin(async move {
                    let answer = match of_engine(engine.command(command).await) {
                        // As the link does: settled so long ago that only the projection knows.
                        Answer::Refused(why) if why == "LeaseLost" => {
                            match projection.ended(seq, engine.head()).await {
                                Ok(Some(ended)) if ended == epoch => Answer::Ok(()),
                                Ok(_) => Answer::Refused(why),
                                Err(_) => Answer::Unknown,
                            }
                        }
                        Answer::Refused(why) => Answer::Refused(why),
                        Answer::Ok(_) => Answer::Ok(()),
                        Answer::Unknown => Answer::Unknown,
                    };
                    Heard::Settled { seq, epoch, again, answer }
                })
            }
            Way::Cancel { sender, id } => {
                let sender = Sender::parse(sender).unwrap();
                other(engine, Command::Cancel { sender, id })
            }
            Way::Renew { agent: name, leases } => {
                other(engine, Command::Renew { agent: agent(name), leases })
            }
            Way::Credit { link, messages } => {
                if self.links.get(&link) != Some(&broker.number) {
                    return;
                }
                let bytes = u64::from(messages) * BYTES_PER_CREDIT;
                self.witness.granted(link, messages.into(), bytes);
                other(engine, Command::Credit { link, messages, size_bytes: bytes })
            }
            Way::Asker { seq, is_back } => {
                broker.attend(seq, is_back);
                let command =
                    if is_back { Command::AskerBack { seq } } else { Command::AskerLeft { seq } };
                other(engine, command)
            }
        };
        self.call(at, what, unheard, future);
    }

    fn call(
        &mut self,
        at: usize,
        what: String,
        unheard: Option<(Key, u8)>,
        future: Pin<Box<dyn Future<Output = Heard>>>,
    ) {
        let broker = self.brokers[at].number;
        self.note(format!("      arrives at {broker}: {what}"));
        self.calls.push(Call { broker, what, unheard, future });
    }

    fn greet(&mut self, process: usize, is_new: bool, resumes: bool, credit: u32) {
        self.hang_up(process);
        if is_new {
            self.processes[process].die();
        }
        self.last_link += 1;
        let (link, at) = (LinkId(self.last_link), self.brokers.len() - 1);
        let bytes = u64::from(credit) * BYTES_PER_CREDIT;
        let process = &mut self.processes[process];
        process.link = Some(link);
        let up = Box::new(process.hello(credit, bytes));
        let held = process.held.iter().map(|token| (token.seq, token.epoch));
        let resume = if resumes { held.collect() } else { Vec::new() };
        self.links.insert(link, self.brokers[at].number);
        self.witness.granted(link, credit.into(), bytes);
        let engine = self.brokers[at].handle.clone();
        let greeting = async move {
            // What it holds and the broker does not know of any more it finds out when it settles.
            let _ = engine.command(Command::LinkUp { link, up, resume }).await;
            Heard::Greeted
        };
        self.call(at, format!("greeting on {link:?}"), None, Box::pin(greeting));
    }

    fn hang_up(&mut self, process: usize) {
        let Some(link) = self.processes[process].hang_up() else { return };
        let number = self.links.remove(&link);
        let Some(at) = self.brokers.iter().position(|it| Some(it.number) == number) else { return };
        let engine = self.brokers[at].handle.clone();
        let what = format!("{link:?} is down");
        self.call(at, what, None, other(engine, Command::LinkDown { link }));
    }

    /// The disk answers the owner's append, and that of each who still believes to be the owner.
    fn sync(&mut self) -> Checked {
        for broker in &self.brokers {
            if broker.arm.is_waiting() {
                broker.arm.decide(Verdict::Stored);
            }
        }
        self.turn()
    }

    fn fail(&mut self, fault: Fault) -> Checked {
        if !self.owner().arm.is_waiting() {
            return Ok(());
        }
        let is_fatal = !matches!(fault, Fault::Full | Fault::Unavailable);
        self.owner().arm.decide(Verdict::Fault(fault));
        self.owner().has_failed = is_fatal;
        self.turn()?;
        let goes_on = is_fatal && !self.owner().is_over();
        must!(!goes_on, "I-31", "the broker goes on after {fault:?}");
        Ok(())
    }

    async fn fold(&mut self) {
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

    async fn sleep(&mut self, span: Duration) {
        {
            let mut machine = self.machine.lock().unwrap();
            machine.boot += span;
            machine.wall += u64::try_from(span.as_millis()).unwrap();
        }
        tokio::time::advance(span).await;
    }

    /// The process is gone, between two instructions.
    fn crash(&mut self, is_stored: bool) -> Checked {
        if is_stored && self.owner().arm.is_waiting() {
            self.owner().arm.decide(Verdict::StoredUnheard);
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
        for (key, variant) in gone.into_iter().filter_map(|call| call.unheard) {
            self.witness.sent(key, variant, &Answer::Unknown)?;
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
        }
        links.retain(|_, owner| *owner != broker);
    }

    async fn restart(&mut self) {
        if let Some(before) = self.brokers.pop_if(|broker| broker.is_over()) {
            self.close_links(before.number);
        }
        self.start().await;
    }

    async fn start(&mut self) {
        self.started += 1;
        let number = self.started;
        self.note(format!("      broker {number} starts"));
        let next = Broker::start(number, &self.store, self.rows.clone(), &self.machine).await;
        self.brokers.push(next);
    }

    /// Everybody does what can be done now; the witness sees each piece of it.
    fn turn(&mut self) -> Checked {
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
                return Ok(());
            }
            Out::Effect(effect) => effect,
        };
        match effect {
            Effect::Deliver(delivered) => {
                let (seq, epoch) = (delivered.seq, delivered.epoch);
                self.note(format!("      {} lease {epoch} on {:?}", seq.0, delivered.link));
                self.witness.delivered(&delivered)?;
                let process = self.processes.iter_mut().find(|it| it.link == Some(delivered.link));
                if let Some(process) = process {
                    process.deliver(&delivered);
                }
            }
            Effect::Closed { seq, terminal, .. } => {
                let is_first = self.brokers[at].closed.insert(seq);
                must!(is_first, "I-35", "{seq:?} is closed twice");
                self.witness.closed(seq, state_of(&terminal))?;
            }
            Effect::Opened { seq, .. } => self.asked.push(seq),
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

    fn hear(&mut self) -> Checked {
        let mut at = 0;
        while at < self.calls.len() {
            let Some(heard) = poll(self.calls[at].future.as_mut()) else {
                at += 1;
                continue;
            };
            let call = self.calls.remove(at);
            let broker = self.brokers.iter().find(|it| it.number == call.broker);
            let has_failed = broker.is_some_and(|it| it.has_failed);
            // Who is no longer the owner, and has not noticed, knows only what was before.
            let is_owner = self.brokers.last().is_some_and(|it| it.number == call.broker);
            let rest = &call.what;
            match heard {
                Heard::Sent { key, variant, answer } => {
                    self.trace.push(format!("      {rest}: {}", brief(&answer)));
                    let is_late = has_failed && matches!(answer, Answer::Ok(_));
                    must!(!is_late, "I-31", "{key:?} is OK after the journal failed");
                    self.witness.sent(key, variant, &answer)?;
                }
                Heard::Settled { seq, epoch, again, answer } => {
                    self.trace.push(format!("      {rest}: {}", brief(&answer)));
                    let is_late = has_failed && matches!(answer, Answer::Ok(_));
                    must!(!is_late, "I-31", "{seq:?} is settled after the journal failed");
                    self.witness.settled(seq, epoch, again && is_owner, &answer)?;
                }
                Heard::Greeted | Heard::Other => {}
            }
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
            let find = |accepted: &Accepted| find(&journal, accepted);
            self.witness.stored(&frame, find, &mut self.trace)?;
        }
        Ok(())
    }

    /// Nothing goes wrong any more, everybody is there and answers: then everything comes to its end.
    pub(super) async fn come_to_rest(&mut self) -> Checked {
        self.note("-- rest");
        let mut is_new = true;
        for round in 0..REST_ROUNDS {
            self.owner().arm.set_room(u64::MAX);
            for process in 0..self.processes.len() {
                self.processes[process].is_stalled = false;
                if is_new || self.processes[process].link.is_none() {
                    self.greet(process, is_new, true, 50);
                }
                let agent = self.processes[process].agent();
                let held = std::mem::take(&mut self.processes[process].held);
                self.ways.extend(held.into_iter().map(|token| Way::Settle {
                    agent,
                    token,
                    how: 0,
                }));
            }
            is_new = false;
            let open: BTreeSet<Key> = self.witness.unknown().collect();
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
            let span = [3, 60, 24 * 3600][round * 3 / REST_ROUNDS];
            self.sleep(Duration::from_secs(span)).await;
            self.turn()?;
            if self.owner().is_over() {
                self.restart().await;
            }
            let is_quiet = self.calls.is_empty() && !self.owner().arm.is_waiting();
            if is_quiet && open.is_empty() && self.witness.living().next().is_none() {
                break;
            }
        }
        self.witness.at_rest()?;
        self.compare_rows().await
    }

    /// I-6, I-33: everybody can learn how each message ended, and the figures agree.
    async fn compare_rows(&mut self) -> Checked {
        self.fold().await;
        let (projection, head) = (self.owner().projection.clone(), self.owner().handle.head());
        let mut counts: BTreeMap<MessageState, u64> = BTreeMap::new();
        for (key, end) in self.witness.ends() {
            let (sender, id) = (Sender::parse(key.0).unwrap(), MessageId::from_u128(key.1));
            let row = projection.find(sender, id, head).now_or_never().unwrap().unwrap();
            let said = row.map(|row| row.state);
            must!(said == end, "I-6", "{key:?} ended as {end:?}, its sender learns {said:?}");
            *counts.entry(end.unwrap_or(MessageState::Queued)).or_default() += 1;
        }
        for state in MessageState::ALL {
            let filter = Filter { states: vec![state], limit: 1000, ..Filter::default() };
            let page = projection.list(filter, head).now_or_never().unwrap().unwrap();
            let want = counts.get(&state).copied().unwrap_or(0);
            let listed = page.rows.len() as u64;
            must!(listed == want, "I-33", "{listed} of {want} messages are {}", state.as_str());
        }
        Ok(())
    }
}

fn pick(of: u16, count: usize) -> Option<usize> {
    (count > 0).then(|| usize::from(of) % count)
}

fn text(key: Key, variant: u8) -> String {
    format!("{} {} {variant}", key.0, key.1)
}

/// Whose message a stored one is, by its own bytes.
fn find(journal: &MemoryJournal, accepted: &Accepted) -> Option<(Key, u8)> {
    let mut bytes = BytesMut::new();
    for key in &*accepted.body.keys {
        let piece = journal.get(ContentKey::from_bytes(&key.0)?).now_or_never()?.ok()?;
        bytes.extend_from_slice(&piece);
    }
    let message = Message::decode(Bytes::from(bytes)).ok()?;
    let Some(Part::Text(text)) = message.payload.request.first() else { return None };
    let mut words = text.split(' ');
    let sender = words.next()?;
    let sender = SENDERS.into_iter().find(|known| *known == sender)?;
    let (number, variant) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_own = accepted.subject.id == MessageId::from_u128(number)
        && accepted.sender.as_str() == sender
        && message.id == accepted.subject.id;
    is_own.then_some(((sender, number), variant))
}

fn other(engine: engine::EngineHandle, command: Command) -> Pin<Box<dyn Future<Output = Heard>>> {
    Box::pin(async move {
        let _ = engine.command(command).await;
        Heard::Other
    })
}

fn settlement(name: &str, token: Token, how: u8, wall: u64) -> Command {
    let failure = |class| broker_proto::Failure::new(class, "provider", "");
    let shown = token.seq.0.is_multiple_of(5);
    let outcome = match how {
        0..=4 => Outcome::Done { reply: Body::default(), stop_reason: None },
        5 => Outcome::Failed { failure: failure(FailureClass::Overloaded), partial: None, shown },
        6 => {
            let retry_at = Some(WallTime(wall).after(Duration::from_secs(4)));
            let failure = broker_proto::Failure { retry_at, ..failure(FailureClass::RateLimited) };
            Outcome::Failed { failure, partial: None, shown }
        }
        7 => Outcome::Retry { after: Duration::from_secs(2), shown },
        8 => Outcome::Reject { reason: "no".into() },
        _ => Outcome::Release { shown },
    };
    Command::Settle(Box::new(SettleCommand {
        agent: agent(name),
        seq: token.seq,
        epoch: token.epoch,
        id: token.id,
        outcome,
        usage: Usage::default(),
        limits: Vec::new(),
        first_token: None,
        earlier: None,
    }))
}

fn of_engine(answer: Result<Reply, engine::Error>) -> Answer<Reply> {
    match answer {
        Ok(reply) => Answer::Ok(reply),
        Err(engine::Error::Refused(refusal)) => Answer::Refused(name(&refusal)),
        Err(error @ (engine::Error::StoreFull | engine::Error::StoreUnavailable)) => {
            Answer::Refused(name(&error))
        }
        Err(_) => Answer::Unknown,
    }
}

fn of_intake(answer: Result<Receipt, intake::Error>) -> Answer<Receipt> {
    match answer {
        Ok(receipt) => Answer::Ok(receipt),
        Err(intake::Error::Engine(error)) => match of_engine(Err(error)) {
            Answer::Refused(why) => Answer::Refused(why),
            Answer::Ok(_) | Answer::Unknown => Answer::Unknown,
        },
        Err(intake::Error::Content(_) | intake::Error::Lookup(_)) => Answer::Unknown,
        Err(refused) => Answer::Refused(name(&refused)),
    }
}

/// The variant alone.
fn name(refusal: &impl std::fmt::Debug) -> String {
    let whole = format!("{refusal:?}");
    whole.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn brief<T>(answer: &Answer<T>) -> String {
    match answer {
        Answer::Ok(_) => "OK".into(),
        Answer::Refused(why) => why.clone(),
        Answer::Unknown => "unknown".into(),
    }
}

fn state_of(terminal: &Terminal) -> MessageState {
    match terminal {
        Terminal::Done(_) => MessageState::Done,
        Terminal::Expired(_) => MessageState::Expired,
        Terminal::Cancelled(_) => MessageState::Cancelled,
        Terminal::Failed { .. } => MessageState::Failed,
    }
}
