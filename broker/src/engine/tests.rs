use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use futures::{FutureExt, StreamExt, future::join_all};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use broker_proto::{MessageId, MessageState, Receipt, WallTime};

use super::{Clock, Content, EngineHandle, Error, Fatal, Outlet, Returned, engine, recover};
use crate::{
    app::rehearsal::{
        Shell, TestClock, agent, consultation, letter, local, model, policy, question, send, soon,
    },
    core::{
        Command, Effect, NewMessage, Outcome, Query, Refusal, Reply, SettleCommand,
        agent::{Link, LinkId},
        queue::{Body, BodyKey, Seq},
    },
    journal::{
        self, BatchNo, Journal, Until, Why,
        faulty::{Fault, Faulty, Gate, Script},
        memory::{MemoryJournal, Store},
        record,
    },
    projection::{self, Projection},
};

/// Writes down what it is told to do.
struct Recorder {
    effects: mpsc::UnboundedSender<Effect>,
    resets: Arc<AtomicU64>,
}

impl Outlet for Recorder {
    fn carry_out(&mut self, effect: Effect) -> Option<Returned> {
        let sealed = match &effect {
            Effect::Seal { seq, epoch, .. } | Effect::Stop { seq, epoch } => Some((*seq, *epoch)),
            _ => None,
        };
        let _ = self.effects.send(effect);
        let (shown, partial) = (false, None);
        sealed.map(|(seq, epoch)| Command::Sealed { seq, epoch, shown, partial }.into())
    }

    fn reset(&mut self) -> Vec<Command> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
}

/// An engine by itself.
struct Bench {
    store: Store,
    script: Script,
    journal: Arc<dyn Journal>,
    projection: Projection,
    handle: EngineHandle,
    clock: Arc<TestClock>,
    effects: mpsc::UnboundedReceiver<Effect>,
    resets: Arc<AtomicU64>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Fatal>>,
}

#[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl Bench {
    async fn new() -> Self {
        Self::on(Store::new().unwrap()).await
    }

    async fn on(store: Store) -> Self {
        let journal = Faulty::new(Arc::new(MemoryJournal::open(&store)));
        let script = journal.script();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let place = projection::Place::Memory;
        let (projection, fold) = projection::open(Arc::clone(&journal), place).await.unwrap();
        spawn(fold.run(CancellationToken::new()));
        let (writer, state) = recover(&journal, &projection, policy()).await.unwrap();
        let clock = Arc::new(TestClock::new());
        let (tx, effects) = mpsc::unbounded_channel();
        let resets = Arc::new(AtomicU64::new(0));
        let outlet = Box::new(Recorder { effects: tx, resets: Arc::clone(&resets) });
        let as_clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let (handle, task) = engine(state, writer, projection.clone(), as_clock, outlet);
        let stop = CancellationToken::new();
        let running = spawn(task.run(stop.clone()));
        Self { store, script, journal, projection, handle, clock, effects, resets, stop, running }
    }

    async fn send(&self, new: NewMessage) -> Result<Receipt, Error> {
        match soon(self.handle.command(send(new))).await? {
            Reply::Receipt(receipt) => Ok(receipt),
            other => panic!("a send was answered by {other:?}"),
        }
    }

    /// Sends these all at once, and returns when the engine has them or they wait for it.
    fn sends(&self, numbers: impl IntoIterator<Item = u128>) -> JoinHandle<Vec<Sent>> {
        let handle = self.handle.clone();
        let sends = numbers.into_iter().map(move |number| {
            let handle = handle.clone();
            async move { handle.command(send(letter(number))).await }
        });
        spawn(join_all(sends.collect::<Vec<_>>()))
    }

    /// The next append waits at this gate, which one has reached when this returns.
    async fn held(&self) -> (Gate, JoinHandle<Vec<Sent>>) {
        let gate = Gate::new();
        self.script.then(Fault::HoldBefore(gate.clone()));
        let first = self.sends([1]);
        soon(gate.arrived()).await;
        (gate, first)
    }

    /// Returns once everybody has gone as far as they can: what was sent is decided, or waits in the engine's channel.
    async fn idle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn view(&self, number: u128) -> Option<MessageState> {
        let id = MessageId::from_u128(number);
        match soon(self.handle.query(Query::Message(local(), id))).await.unwrap() {
            Reply::Message(view) => view.map(|view| view.state),
            other => panic!("a query was answered by {other:?}"),
        }
    }

    async fn end(self) -> Store {
        self.stop.cancel();
        soon(self.running).await.unwrap().unwrap();
        self.store
    }

    async fn contents(&self) -> usize {
        self.journal.keys(Duration::ZERO).count().await
    }

    /// An agent that takes everything addressed to `reviewer`, and questions to `opus`.
    async fn link(&self, link: u64) {
        let up = Box::new(Link {
            agent: agent("reviewer"),
            instance: "i".into(),
            resumes: None,
            pull: None,
            is_exclusive: true,
            models: vec![model("opus")],
            roles: vec![],
            stands_by: vec![],
            capacity: 4,
            since: WallTime(0),
            credit_messages: 0,
            credit_bytes: 0,
        });
        let link = LinkId(link);
        soon(self.handle.command(Command::LinkUp { link, up, resume: vec![] })).await.unwrap();
        let credit = Command::Credit { link, messages: 9, size_bytes: 1 << 20 };
        soon(self.handle.command(credit)).await.unwrap();
    }
}

type Sent = Result<Reply, Error>;

fn settle(seq: u64, number: u128) -> Command {
    Command::Settle(Box::new(SettleCommand {
        agent: agent("reviewer"),
        seq: Seq(seq),
        epoch: 1,
        id: Some(MessageId::from_u128(number)),
        outcome: Outcome::Done { reply: Body::default(), stop_reason: None },
        usage: broker_proto::Usage::default(),
        limits: vec![],
        first_token: None,
        earlier: None,
        append: None,
        shortened: None,
    }))
}

fn cancel(number: u128) -> Command {
    Command::Cancel { sender: local(), id: MessageId::from_u128(number) }
}

/// I-1.
#[tokio::test]
async fn no_send_is_answered_before_its_append() {
    for hold in [Fault::HoldBefore as fn(Gate) -> Fault, Fault::HoldAfter] {
        let bench = Bench::new().await;
        let gate = Gate::new();
        bench.script.then(hold(gate.clone()));
        let mut sent = bench.sends([1]);

        soon(gate.arrived()).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }

        assert!((&mut sent).now_or_never().is_none());
        gate.release();
        assert!(soon(sent).await.unwrap()[0].is_ok());
    }
}

/// I-1: one sync may serve many sends.
#[tokio::test]
async fn what_arrives_while_an_append_runs_is_one_batch() {
    let mut bench = Bench::new().await;
    let (gate, first) = bench.held().await;
    let more = bench.sends(2..62);
    bench.idle().await;
    let second = Gate::new();
    bench.script.then(Fault::HoldBefore(second.clone()));

    gate.release();
    soon(second.arrived()).await;

    assert!(soon(first).await.unwrap()[0].is_ok());
    assert!(!more.is_finished());
    second.release();
    assert!(soon(more).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(bench.script.appends(), 2);
    assert!(bench.effects.try_recv().is_err());
}

#[tokio::test]
async fn effects_wait_for_the_commit_that_decided_them() {
    let mut bench = Bench::new().await;
    let gate = Gate::new();
    bench.script.then(Fault::HoldAfter(gate.clone()));
    let asked = bench.handle.command(send(consultation(1)));
    let asked = async { tokio::join!(asked, gate.arrived()).0 };
    tokio::pin!(asked);
    assert!(asked.as_mut().now_or_never().is_none());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }

    assert!(bench.effects.try_recv().is_err());
    gate.release();

    soon(asked).await.unwrap();
    assert!(matches!(bench.effects.try_recv(), Ok(Effect::Opened { .. })));
}

#[tokio::test]
async fn a_batch_that_is_not_stored_never_was() {
    for (why, is_answer) in [
        (Why::Full, (|e| matches!(e, Error::StoreFull)) as fn(&Error) -> bool),
        (Why::Unavailable, |e| matches!(e, Error::StoreUnavailable)),
    ] {
        let bench = Bench::new().await;
        bench.send(letter(1)).await.unwrap();
        bench.script.then(Fault::NotStored(why));

        let refused = bench.send(letter(2)).await.unwrap_err();

        assert!(is_answer(&refused), "{refused}");
        assert_eq!(bench.view(1).await, Some(MessageState::Queued));
        assert_eq!(bench.resets.load(Ordering::SeqCst), 1);
        assert_eq!(bench.view(2).await, None);
        bench.clock.advance(Duration::from_secs(2));
        soon(bench.handle.command(Command::Tick)).await.unwrap();
        assert!(!bench.send(letter(2)).await.unwrap().is_duplicate);
    }
}

/// I-28, I-31: read-and-settle-only, and back alone.
#[tokio::test]
async fn a_full_store_takes_settlements_and_nothing_new_until_there_is_room() {
    let bench = Bench::new().await;
    bench.link(1).await;
    bench.send(letter(1)).await.unwrap();
    bench.send(letter(2)).await.unwrap();
    bench.script.set_room(1024);
    soon(bench.handle.command(cancel(2))).await.unwrap();
    assert!(bench.handle.is_full());

    for _ in 0..2 {
        assert!(matches!(bench.send(letter(3)).await, Err(Error::StoreFull)));
        let hash = broker_proto::ContentHash::of(b"part");
        let stored = bench.handle.command(Command::StoreContent { hash, body: Body::default() });
        assert!(matches!(soon(stored).await, Err(Error::StoreFull)));
        bench.clock.advance(Duration::from_secs(2));
    }
    soon(bench.handle.command(settle(1, 1))).await.unwrap();
    assert_eq!(bench.view(1).await, None);

    bench.script.set_room(u64::MAX);
    bench.clock.advance(Duration::from_secs(2));
    soon(bench.handle.command(Command::Tick)).await.unwrap();
    bench.send(letter(3)).await.unwrap();
    assert!(!bench.handle.is_full());
}

/// Nobody needs to send for the store to be looked at again.
#[tokio::test(start_paused = true)]
async fn a_full_store_recovers_without_a_command() {
    let bench = Bench::new().await;
    bench.script.set_room(0);
    bench.send(letter(1)).await.unwrap();
    assert!(bench.handle.is_full());
    bench.script.set_room(u64::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!bench.handle.is_full());
}

/// I-2, I-31.
#[tokio::test]
async fn an_outcome_that_nobody_knows_ends_the_engine() {
    for (fault, is_stored) in
        [(Fault::UnknownStored, true), (Fault::UnknownLost, false), (Fault::Broken, false)]
    {
        let bench = Bench::new().await;
        bench.script.then(fault.clone());

        let sent = bench.send(letter(1)).await;

        assert!(matches!(sent, Err(Error::Unknown)), "{fault:?}: {sent:?}");
        let ended = soon(bench.running).await.unwrap();
        assert!(matches!(ended, Err(Fatal::Append { .. })), "{fault:?}: {ended:?}");
        assert_eq!(bench.script.appends(), 1, "{fault:?}");
        let late = soon(bench.handle.command(send(letter(2)))).await;
        assert!(matches!(late, Err(Error::Stopping)), "{fault:?}: {late:?}");

        let next = Bench::on(bench.store).await;
        assert_eq!(next.send(letter(1)).await.unwrap().is_duplicate, is_stored, "{fault:?}");
    }
}

#[tokio::test]
async fn callers_behind_a_broken_append_learn_that_nothing_is_known() {
    let bench = Bench::new().await;
    let (gate, first) = bench.held().await;
    bench.script.then(Fault::Broken);
    let more = bench.sends(2..10);
    bench.idle().await;

    gate.release();

    assert!(soon(first).await.unwrap()[0].is_ok());
    for sent in soon(more).await.unwrap() {
        assert!(matches!(sent, Err(Error::Unknown)), "{sent:?}");
    }
}

/// I-4.
/// I-7: what was looked up may not be true any more.
#[tokio::test]
async fn a_send_rests_on_a_look_up_that_is_still_good() {
    let bench = Bench::new().await;
    let as_of = || bench.handle.as_of(bench.clock.now().boot);
    let offer = async |number, as_of| {
        soon(bench.handle.send(send(letter(number)), Vec::new(), as_of)).await
    };
    let refused = |answer: Result<Reply, Error>| matches!(answer, Err(Error::StoreUnavailable));

    // It has waited for longer than memory surely remembers.
    let old = as_of();
    bench.clock.advance(Duration::from_secs(11));
    assert!(refused(offer(1, old).await));

    // The state was loaded anew meanwhile, without what was only in memory.
    let before = as_of();
    bench.script.then(Fault::NotStored(Why::Unavailable));
    assert!(bench.send(letter(2)).await.is_err());
    assert!(refused(offer(1, before).await));

    assert_eq!(bench.view(1).await, None);
    bench.clock.advance(Duration::from_secs(9));
    assert!(matches!(offer(1, as_of()).await, Ok(Reply::Receipt(_))));
}

#[tokio::test]
async fn what_is_refused_leaves_no_content() {
    let bench = Bench::new().await;
    let body = || {
        let content = Content::new(&b"body"[..]).unwrap();
        let keys = BodyKey(content.key().to_bytes()).into();
        (Body { keys, size_bytes: 4 }, vec![content])
    };
    let (stored, contents) = body();
    let new = NewMessage { body: stored, ..letter(2) };
    soon(bench.handle.with_contents(send(new.clone()), contents)).await.unwrap();

    // In one batch with something that is stored.
    let (gate, _) = bench.held().await;
    let nobody = NewMessage { allow_future_recipient: false, ..letter(3) };
    let handle = bench.handle.clone();
    let all = spawn(async move {
        tokio::join!(
            handle.command(send(letter(4))),
            handle.with_contents(send(new), body().1),
            handle.with_contents(send(nobody), body().1)
        )
    });
    bench.idle().await;
    gate.release();

    let (stored, again, refused) = soon(all).await.unwrap();
    assert!(stored.is_ok());
    assert!(matches!(again, Ok(Reply::Receipt(Receipt { is_duplicate: true, .. }))));
    assert!(matches!(refused, Err(Error::Refused(Refusal::UnknownAgent(_)))));
    assert_eq!(bench.contents().await, 1);
}

/// Its record alone takes more than half of a frame.
fn large(number: u128) -> NewMessage {
    let label = ("l".to_owned(), "x".repeat(500 * 1024));
    NewMessage { labels: [label].into(), ..letter(number) }
}

/// One message whose record seals no batch, and one behind it that fits no frame with it.
async fn held_with_two_frames(bench: &Bench) -> (Gate, JoinHandle<(Sent, Sent)>) {
    let (gate, _) = bench.held().await;
    let handle = bench.handle.clone();
    let label = ("l".to_owned(), "x".repeat(300 * 1024));
    let small = NewMessage { labels: [label].into(), ..letter(2) };
    let both = spawn(async move {
        tokio::join!(handle.command(send(small)), handle.command(send(large(3))))
    });
    bench.idle().await;
    (gate, both)
}

#[tokio::test]
async fn a_batch_larger_than_a_frame_is_split() {
    let bench = Bench::new().await;
    let (gate, both) = held_with_two_frames(&bench).await;

    gate.release();

    let (first, second) = soon(both).await.unwrap();
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(bench.script.appends(), 3);
    let next = Bench::on(bench.end().await).await;
    for number in 1..=3 {
        assert_eq!(next.view(number).await, Some(MessageState::Queued));
    }
}

/// I-2: nobody is told "surely not stored" when a part of it is.
#[tokio::test]
async fn a_batch_stored_in_part_has_an_unknown_outcome() {
    let bench = Bench::new().await;
    let (gate, both) = held_with_two_frames(&bench).await;
    let pass = Gate::new();
    pass.release();
    bench.script.then(Fault::HoldBefore(pass));
    bench.script.then(Fault::NotStored(Why::Unavailable));

    gate.release();

    let (first, second) = soon(both).await.unwrap();
    assert!(matches!((first, second), (Err(Error::Unknown), Err(Error::Unknown))));
    assert_eq!(bench.view(2).await, Some(MessageState::Queued));
    assert_eq!(bench.view(3).await, None);
}

/// Refused by the journal before anything is offered; the engine goes on.
#[tokio::test]
async fn a_record_larger_than_a_frame_is_refused_alone() {
    let bench = Bench::new().await;
    let label = ("l".to_owned(), "x".repeat(journal::MAX_BATCH_BYTES));
    let refused = bench.send(NewMessage { labels: [label].into(), ..letter(1) }).await;
    assert!(matches!(refused, Err(Error::StoreUnavailable)));
    bench.send(letter(1)).await.unwrap();
}

#[tokio::test]
async fn a_stopping_engine_answers_what_had_arrived() {
    let bench = Bench::new().await;
    let (gate, first) = bench.held().await;
    let more = bench.sends(2..400);
    bench.idle().await;

    bench.stop.cancel();
    gate.release();

    assert!(soon(bench.running).await.unwrap().is_ok());
    assert!(soon(first).await.unwrap()[0].is_ok());
    for sent in soon(more).await.unwrap() {
        assert!(sent.is_ok(), "{sent:?}");
    }
    let late = soon(bench.handle.command(send(letter(999)))).await;
    assert!(matches!(late, Err(Error::Stopping)));
}

/// I-22: under load too.
#[tokio::test]
async fn commands_that_keep_coming_do_not_put_off_what_is_due() {
    let bench = Bench::new().await;
    let expires_at = Some(bench.clock.now().wall.after(Duration::from_secs(60)));
    bench.send(NewMessage { expires_at, ..letter(1_000) }).await.unwrap();
    let (gate, first) = bench.held().await;
    let more = bench.sends(2..602);
    bench.idle().await;
    bench.clock.advance(Duration::from_secs(61));

    gate.release();

    soon(first).await.unwrap();
    soon(more).await.unwrap();
    let frames: Vec<_> = bench.journal.read(BatchNo(1), Until::Head).collect().await;
    let is_end = |record: &journal::Record| {
        matches!(record::decode(record), Ok(Some(crate::core::Event::Finished(_))))
    };
    let ended = frames.iter().position(|f| f.as_ref().unwrap().records.iter().any(is_end));
    assert!(ended.unwrap() + 2 < frames.len(), "{ended:?} of {}", frames.len());
}

#[tokio::test(start_paused = true)]
async fn time_alone_ends_a_message() {
    let mut bench = Bench::new().await;
    let expires_at = Some(bench.clock.now().wall.after(Duration::from_secs(3)));
    bench.send(NewMessage { expires_at, ..consultation(1) }).await.unwrap();
    let began = tokio::time::Instant::now();

    let closed = loop {
        match soon(bench.effects.recv()).await.unwrap() {
            Effect::Closed { terminal, .. } => break terminal,
            _ => continue,
        }
    };

    assert!(matches!(*closed, broker_proto::Terminal::Expired(_)), "{closed:?}");
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(began.elapsed() < Duration::from_secs(4));
}

/// I-23: nothing expires by a jump alone; the jump and its end are told.
#[tokio::test]
async fn a_jump_of_the_wall_clock_halts_expiry_until_it_is_believed() {
    for is_confirmed in [true, false] {
        let bench = Bench::new().await;
        let expires_at = Some(bench.clock.now().wall.after(Duration::from_secs(3_600)));
        bench.send(NewMessage { expires_at, ..letter(1) }).await.unwrap();

        bench.clock.jump_ahead(Duration::from_secs(7_200));
        soon(bench.handle.command(Command::Tick)).await.unwrap();
        bench.clock.advance(Duration::from_secs(599));
        soon(bench.handle.command(Command::Tick)).await.unwrap();
        assert_eq!(bench.view(1).await, Some(MessageState::Queued));

        if is_confirmed {
            assert!(bench.clock.confirm());
        } else {
            bench.clock.advance(Duration::from_secs(1));
        }
        soon(bench.handle.command(Command::Tick)).await.unwrap();
        soon(bench.handle.command(Command::Tick)).await.unwrap();
        assert_eq!(bench.view(1).await, None);
        let frames: Vec<_> = bench.journal.read(BatchNo(1), Until::Head).collect().await;
        let events = frames.iter().flat_map(|frame| &frame.as_ref().unwrap().records);
        let jumps = events.filter_map(|stored| match record::decode(stored) {
            Ok(Some(crate::core::Event::ClockJumped { ahead, .. })) => Some(ahead.is_some()),
            _ => None,
        });
        assert_eq!(jumps.collect::<Vec<_>>(), [true, false]);
    }
}

#[tokio::test]
async fn a_restart_loads_what_was_alive_and_no_more() {
    let bench = Bench::new().await;
    bench.link(1).await;
    for number in [1, 2] {
        bench.send(letter(number)).await.unwrap();
    }
    soon(bench.handle.command(settle(1, 1))).await.unwrap();
    bench
        .send(NewMessage { to: broker_proto::Recipient::Agent(agent("other")), ..letter(3) })
        .await
        .unwrap();
    bench.send(letter(4)).await.unwrap();
    soon(bench.handle.command(cancel(4))).await.unwrap();
    let report = Command::Report {
        model: model("opus"),
        usage: broker_proto::Usage { input_tokens: Some(7), ..Default::default() },
        limits: vec![],
        failure: Some(broker_proto::Failure::new(
            broker_proto::FailureClass::CreditExhausted,
            "provider",
            "pay",
        )),
    };
    soon(bench.handle.command(report)).await.unwrap();
    let ask = async |bench: &Bench, query| soon(bench.handle.query(query)).await.unwrap();
    let usage = ask(&bench, Query::Usage).await;
    soon(bench.handle.command(Command::LinkDown { link: LinkId(1) })).await.unwrap();
    let models = ask(&bench, Query::Models).await;
    let tokens = ask(&bench, Query::Tokens).await;

    let next = Bench::on(bench.end().await).await;

    assert_eq!(next.view(1).await, None);
    assert_eq!(next.view(2).await, Some(MessageState::Leased));
    assert_eq!(next.view(3).await, Some(MessageState::Queued));
    assert_eq!(next.view(4).await, None);
    assert_eq!(ask(&next, Query::Usage).await, usage);
    assert_eq!(ask(&next, Query::Models).await, models);
    assert_eq!(ask(&next, Query::Tokens).await, tokens);
    // The lease is still its agent's, and numbers go on where they were (I-9, I-16).
    soon(next.handle.command(settle(2, 2))).await.unwrap();
    next.send(letter(5)).await.unwrap();
    let id = MessageId::from_u128(5);
    let Reply::Message(Some(view)) = ask(&next, Query::Message(local(), id)).await else {
        panic!()
    };
    assert_eq!(view.seq, Seq(5));
    assert_eq!(next.projection.ended(Seq(2), next.handle.head()).await.unwrap(), Some(1));
}

/// I-7: what memory lets go of is found in the projection.
#[tokio::test]
async fn a_message_that_memory_has_forgotten_is_still_known() {
    let shell = Shell::start().await;
    let first = shell.intake.send(&local(), question(1, "why?"), false).await.unwrap();
    soon(shell.engine.command(cancel(1))).await.unwrap();
    soon(shell.projection.find(local(), first.message_id, shell.engine.head()))
        .await
        .unwrap()
        .unwrap();
    shell.clock.advance(Duration::from_secs(61));
    shell.tick().await;
    shell.tick().await;

    let again = shell.intake.send(&local(), question(1, "why?"), false).await.unwrap();

    assert_eq!(again, Receipt { is_duplicate: true, ..first });
    let other = shell.intake.send(&local(), question(1, "how?"), false).await;
    assert!(other.unwrap_err().to_string().contains("was used before"));
    // The engine alone does not know it any more.
    let unknown = soon(shell.engine.command(send(consultation(1)))).await.unwrap();
    assert!(matches!(unknown, Reply::Receipt(Receipt { is_duplicate: false, .. })));
}
