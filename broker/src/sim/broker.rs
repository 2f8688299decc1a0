//! One running broker, driven by hand: the real engine, intake and fold on a fake disk and a fake clock.

use std::{
    collections::BTreeSet,
    pin::{Pin, pin},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use broker_config::Config;
use broker_proto::WallTime;

use super::disk::{Arm, SimJournal};
use crate::{
    app::rehearsal,
    context::Bodies,
    core::{BootTime, Command, Effect, Now, Policy, queue::Seq},
    engine::{self, Clock, EngineHandle, Fatal, Outlet, Returned},
    intake::{Intake, Limits},
    journal::{
        Journal,
        memory::{MemoryJournal, Store},
    },
    projection::{self, Projection},
};

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config::shipped().unwrap());

/// Small bounds, so that they are reached.
pub(super) static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let policy = rehearsal::policy();
    Policy { max_lost_leases: 3, queue_messages: 6, ..policy }
});

/// The machine's two clocks. Written by the scheduler.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) wall: u64,
    pub(super) boot: Duration,
}

/// One broker's view of them: broker time never steps back (I-23).
#[derive(Debug)]
struct SimClock {
    machine: Arc<Mutex<Machine>>,
    highest: AtomicU64,
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let machine = self.machine.lock().unwrap();
        let before = self.highest.fetch_max(machine.wall, Ordering::Relaxed);
        Now { wall: WallTime(before.max(machine.wall)), boot: BootTime(machine.boot) }
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
            Effect::Seal { seq, epoch, .. } => Some((*seq, *epoch)),
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
    pub(super) arm: Arm,
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
    ) -> Self {
        let arm = Arm::new();
        let inner: Arc<dyn Journal> = Arc::new(MemoryJournal::open(store));
        let journal: Arc<dyn Journal> = Arc::new(SimJournal { inner, arm: arm.clone() });
        let opening = projection::open(Arc::clone(&journal), projection::Place::Rows(rows));
        let (projection, fold) = opening.now_or_never().unwrap().unwrap();
        let mut fold: Running<_> = Box::pin(fold.run(CancellationToken::new()));
        let (writer, state) = {
            let mut recovering = pin!(engine::recover(&journal, &projection, POLICY.clone()));
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
        let clock: Arc<dyn Clock> =
            Arc::new(SimClock { machine, highest: AtomicU64::new(stored.0) });
        let hands = Hands::default();
        let (handle, task) = engine::engine(
            state,
            writer,
            projection.clone(),
            Arc::clone(&clock),
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
            clock,
            seen: Arc::default(),
            highest: Arc::default(),
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
            arm,
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
