//! One running broker, driven by hand: the real engine, intake and fold on a fake disk and a fake clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::{Pin, pin},
    sync::{Arc, LazyLock, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use broker_config::Config;
use broker_proto::WallTime;

use crate::{
    app::rehearsal,
    context::Bodies,
    core::{
        BootTime, BrokerClock, Command, Effect, Jump, Now, Policy,
        queue::Seq,
        usage::{BudgetKey, ScopeKind, Span, Unit},
    },
    engine::{self, Clock, EngineHandle, Fatal, Outlet, Returned},
    intake::{Intake, Limits},
    journal::{
        Journal,
        faulty::{Faulty, Script},
        memory::{MemoryJournal, Store},
    },
    projection::{self, Projection},
};

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config::shipped().unwrap());

/// Tokens of each model in a minute, where calls have budgets: few of them at a time have room.
const TOKENS_A_MINUTE: u64 = 20_000;

/// Small bounds, so that they are reached; or a queue with room for a backlog. Calls may have budgets: so many in a day
/// together, and each model's tokens in a minute.
pub(super) fn policy(is_roomy: bool, calls_a_day: Option<u64>) -> Policy {
    static POLICY: LazyLock<Policy> = LazyLock::new(rehearsal::policy);
    let queue_messages = if is_roomy { 120 } else { 6 };
    let key = |kind, span, unit| BudgetKey { kind, name: "*".into(), span, unit };
    let day = |calls| (key(ScopeKind::Namespace, Span::Day, Unit::Requests), calls);
    let minute = (key(ScopeKind::Model, Span::Minute, Unit::Tokens), TOKENS_A_MINUTE);
    let budgets = calls_a_day.into_iter().flat_map(|calls| [day(calls), minute.clone()]).collect();
    Policy { max_lost_leases: 3, dead_letters: 2, queue_messages, budgets, ..POLICY.clone() }
}

/// The machine's two clocks. Written by the scheduler.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) wall: u64,
    pub(super) boot: Duration,
    /// When broker time was read as what: the first time and the last.
    pub(super) read: BTreeMap<WallTime, (Duration, Duration)>,
}

/// One broker's view of them, by the rules of broker time (I-23).
#[derive(Debug)]
pub(super) struct SimClock {
    machine: Arc<Mutex<Machine>>,
    rule: Mutex<BrokerClock>,
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let mut machine = self.machine.lock().unwrap();
        let boot = machine.boot;
        let now = self.rule.lock().unwrap().read(WallTime(machine.wall), BootTime(boot));
        machine.read.entry(now.wall).or_insert((boot, boot)).1 = boot;
        now
    }

    fn jump(&self) -> Option<Jump> {
        self.rule.lock().unwrap().jump()
    }

    fn confirm(&self) -> bool {
        self.rule.lock().unwrap().confirm()
    }

    fn looks_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(10))
    }
}

/// What the engine let out.
#[derive(Debug)]
pub(super) enum Out {
    Effect(Effect),
    /// Every link is closed.
    Reset,
}

#[derive(Debug, Clone, Default)]
struct Hands {
    out: Arc<Mutex<Vec<Out>>>,
    attended: Arc<Mutex<BTreeSet<Seq>>>,
}

impl Outlet for Hands {
    fn carry_out(&mut self, effect: Effect) -> Option<Returned> {
        let sealed = match &effect {
            Effect::Seal { seq, epoch, .. } | Effect::Stop { seq, epoch } => Some((*seq, *epoch)),
            _ => None,
        };
        self.out.lock().unwrap().push(Out::Effect(effect));
        let (seq, epoch) = sealed?;
        let shown = (seq.0 + u64::from(epoch)).is_multiple_of(3);
        Some(Command::Sealed { seq, epoch, shown, partial: None }.into())
    }

    fn reset(&mut self) -> Vec<Command> {
        self.out.lock().unwrap().push(Out::Reset);
        let attended = self.attended.lock().unwrap();
        attended.iter().map(|seq| Command::AskerBack { seq: *seq }).collect()
    }
}

type Running<T> = Pin<Box<dyn Future<Output = T>>>;

pub(super) struct Broker {
    pub(super) number: u64,
    engine: Option<Running<Result<(), Fatal>>>,
    fold: Running<Result<(), projection::Error>>,
    pub(super) handle: EngineHandle,
    pub(super) intake: Intake,
    pub(super) projection: Projection,
    pub(super) clock: Arc<SimClock>,
    pub(super) script: Script,
    pub(super) stop: CancellationToken,
    hands: Hands,
    /// Consultations whose stream has had its last frame.
    pub(super) closed: BTreeSet<Seq>,
    /// The journal said something after which nobody may be told OK (I-31).
    pub(super) has_failed: bool,
}

/// Polls by hand, whatever was woken; the runtime's budget does not count here.
pub(super) fn poll<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    let future = pin!(tokio::task::unconstrained(future));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

impl Broker {
    /// Starts on what is in the store, as `app.rs` does.
    pub(super) async fn start(
        number: u64,
        store: &Store,
        rows: projection::Rows,
        machine: &Arc<Mutex<Machine>>,
        policy: Policy,
    ) -> Self {
        let journal = Faulty::new(Arc::new(MemoryJournal::open(store)));
        let script = journal.script();
        script.hold_all();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let opening = projection::open(Arc::clone(&journal), projection::Place::Rows(rows));
        let (projection, fold) = opening.now_or_never().unwrap().unwrap();
        let mut fold: Running<_> = Box::pin(fold.run(CancellationToken::new()));
        let (writer, state) = {
            let mut recovering = pin!(engine::recover(&journal, &projection, policy));
            loop {
                if let Some(recovered) = poll(recovering.as_mut()) {
                    break recovered.unwrap();
                }
                assert!(poll(fold.as_mut()).is_none(), "the fold fails");
                tokio::time::advance(Duration::from_millis(20)).await;
            }
        };
        let stored = projection.broker_time().now_or_never().unwrap().unwrap();
        let machine = Arc::clone(machine);
        let rule = Mutex::new(BrokerClock::not_below(stored));
        let clock = Arc::new(SimClock { machine, rule });
        // As soon as it runs; what the wall clock does before that cannot be seen.
        clock.now();
        let as_clock: Arc<dyn Clock> = Arc::<SimClock>::clone(&clock);
        let hands = Hands::default();
        let (handle, task) = engine::engine(
            state,
            writer,
            projection.clone(),
            Arc::clone(&as_clock),
            Box::new(hands.clone()),
        );
        let stop = CancellationToken::new();
        let intake = Intake {
            engine: handle.clone(),
            projection: projection.clone(),
            bodies: Bodies::new(journal),
            models: Arc::new(CONFIG.models.clone()),
            limits: Limits {
                message: 1024 * 1024,
                inline_part: 64 * 1024,
                dedup_window: CONFIG.broker.dedup_window,
                dedup_keys: CONFIG.broker.dedup_keys,
            },
            clock: as_clock,
            seen: Arc::default(),
            highest: Arc::default(),
            parts: Arc::default(),
        };
        let engine: Option<Running<_>> = Some(Box::pin(task.run(stop.clone())));
        let (closed, has_failed) = (BTreeSet::new(), false);
        Self {
            number,
            engine,
            fold,
            handle,
            intake,
            projection,
            clock,
            script,
            stop,
            hands,
            closed,
            has_failed,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.engine.is_none()
    }

    /// Lets the engine run until it waits; gives how it ended, once it did.
    pub(super) fn run(&mut self) -> Option<Result<(), Fatal>> {
        let ended = poll(self.engine.as_mut()?.as_mut())?;
        // With it the answers that it never gave.
        self.engine = None;
        Some(ended)
    }

    /// Folds what is there.
    pub(super) fn fold(&mut self) {
        assert!(poll(self.fold.as_mut()).is_none(), "the fold fails");
    }

    pub(super) fn let_out(&self) -> Vec<Out> {
        std::mem::take(&mut *self.hands.out.lock().unwrap())
    }

    pub(super) fn attend(&self, seq: Seq, is_there: bool) {
        let mut attended = self.hands.attended.lock().unwrap();
        if is_there {
            attended.insert(seq);
        } else {
            attended.remove(&seq);
        }
    }
}
