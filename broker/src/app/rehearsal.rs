//! The shell without its sockets, on a journal in memory that misbehaves on command: wired as in `app.rs`, for tests.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use broker_config::Config;
use broker_proto::{
    AgentName, AskOptions, Correlation, Message, MessageId, MessageType, ModelName, Part, Payload,
    Priority, Recipient, Sender, WallTime,
};

use super::forward_leaving;
use crate::{
    context::Bodies,
    core::{
        BootTime, BrokerClock, Command, Jump, NewConsultation, NewMessage, Now, Policy,
        queue::{Body, Digest},
    },
    engine::{self, Clock, EngineHandle, Fatal},
    intake::{Intake, Limits},
    journal::{
        Journal,
        faulty::{Faulty, Script},
        memory::{MemoryJournal, Store},
    },
    link::{self, AgentToken, LeaseKey, LinkOutlet, Links},
    projection::{self, Projection},
    reply::Slots,
    session::Sessions,
};

/// 2026-01-01, a moment like any other.
const START: u64 = 1_767_225_600_000;
/// Longer than anything in a test takes; a wait that lasts so long is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The runtime's clock, which a test may pause, and on top what the test adds.
#[derive(Debug)]
pub(crate) struct TestClock {
    began: tokio::time::Instant,
    added: Mutex<Duration>,
    /// How far the wall clock was set ahead.
    ahead: Mutex<Duration>,
    rule: Mutex<BrokerClock>,
}

impl TestClock {
    pub(crate) fn new() -> Self {
        Self {
            began: tokio::time::Instant::now(),
            added: Mutex::default(),
            ahead: Mutex::default(),
            rule: Mutex::default(),
        }
    }

    /// Lets time pass; what is due is decided with the next command.
    pub(crate) fn advance(&self, by: Duration) {
        *self.added.lock().unwrap() += by;
    }

    /// Sets the wall clock ahead; the boot-time clock knows nothing of it.
    pub(crate) fn jump_ahead(&self, by: Duration) {
        self.now();
        *self.ahead.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let passed = self.began.elapsed() + *self.added.lock().unwrap();
        let wall = WallTime(START).after(passed + *self.ahead.lock().unwrap());
        let boot = BootTime(Duration::from_secs(1_000) + passed);
        self.rule.lock().unwrap().read(wall, boot)
    }

    fn jump(&self) -> Option<Jump> {
        self.rule.lock().unwrap().jump()
    }

    fn confirm(&self) -> bool {
        self.rule.lock().unwrap().confirm()
    }
}

pub(crate) struct Shell {
    pub(crate) store: Store,
    pub(crate) script: Script,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) projection: Projection,
    pub(crate) bodies: Bodies,
    pub(crate) engine: EngineHandle,
    pub(crate) slots: Slots,
    pub(crate) links: Links,
    pub(crate) leases: LeaseKey,
    pub(crate) intake: Intake,
    pub(crate) clock: Arc<TestClock>,
    /// Fires when the services are to stop.
    pub(crate) stop: CancellationToken,
    pub(crate) stop_engine: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), Fatal>>,
    next_link: Arc<AtomicU64>,
    stop_store: CancellationToken,
}

/// The shipped configuration, without the limits of one that is shared.
pub(crate) fn policy() -> Policy {
    super::policy::policy(&Config::shipped().unwrap())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test waits for its tasks or ends them with its runtime"
)]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl Shell {
    pub(crate) async fn start() -> Self {
        Self::on(Store::new().unwrap()).await
    }

    /// A broker over what an earlier one left in `store`.
    pub(crate) async fn on(store: Store) -> Self {
        let journal = Faulty::new(Arc::new(MemoryJournal::open(&store)));
        let script = journal.script();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let (projection, fold) =
            projection::open(Arc::clone(&journal), projection::Place::Memory).await.unwrap();
        let stop_store = CancellationToken::new();
        spawn(fold.run(stop_store.clone()));
        let (writer, state) = engine::recover(&journal, &projection, policy()).await.unwrap();
        let clock = Arc::new(TestClock::new());
        let (slots, gone) = Slots::new(64 * 1024);
        let links = Links::default();
        let leases = LeaseKey::new([7; 32]);
        // Nobody makes packages ahead of time here.
        let (near, _) = mpsc::channel(1);
        let (builds, _) = mpsc::channel(1);
        let (probes, _) = mpsc::channel(1);
        let (wakes, _) = mpsc::channel(1);
        let (of_links, of_slots) = (links.clone(), slots.clone());
        let outlet =
            LinkOutlet::new(of_links, of_slots, leases.clone(), near, builds, probes, wakes);
        let outlet = Box::new(outlet);
        let as_clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let (engine, task) =
            engine::engine(state, writer, projection.clone(), Arc::clone(&as_clock), outlet);
        let stop_engine = CancellationToken::new();
        let running = spawn(task.run(stop_engine.clone()));
        spawn(forward_leaving(gone, slots.clone(), engine.clone(), stop_engine.clone()));
        let bodies = Bodies::new(Arc::clone(&journal));
        let config = Config::shipped().unwrap();
        let intake = Intake {
            engine: engine.clone(),
            projection: projection.clone(),
            bodies: bodies.clone(),
            models: Arc::new(config.models.clone()),
            limits: Limits {
                message: 1024 * 1024,
                inline_part: 64 * 1024,
                dedup_window: config.broker.dedup_window,
                dedup_keys: config.broker.dedup_keys,
            },
            clock: as_clock,
            seen: Arc::default(),
            highest: Arc::default(),
            parts: Arc::default(),
        };
        Self {
            store,
            script,
            journal,
            projection,
            bodies,
            engine,
            slots,
            links,
            leases,
            intake,
            clock,
            stop: CancellationToken::new(),
            stop_engine,
            running,
            next_link: Arc::new(AtomicU64::new(1)),
            stop_store,
        }
    }

    /// Stops everything; what is durable is in the store.
    pub(crate) async fn end(self) -> Store {
        self.stop.cancel();
        self.stop_engine.cancel();
        soon(self.running).await.unwrap().unwrap();
        self.stop_store.cancel();
        self.store
    }

    /// What a link needs of this broker.
    pub(crate) fn services(&self) -> link::Services {
        link::Services {
            engine: self.engine.clone(),
            projection: self.projection.clone(),
            bodies: self.bodies.clone(),
            slots: self.slots.clone(),
            links: self.links.clone(),
            leases: self.leases.clone(),
            intake: self.intake.clone(),
            sessions: Sessions {
                intake: self.intake.clone(),
                indexes: Arc::default(),
                said: Arc::default(),
                slots: self.slots.clone(),
                settings: Default::default(),
            },
            clock: Arc::<TestClock>::clone(&self.clock),
            settings: link::Settings {
                heartbeat: Duration::from_secs(5),
                lease: Duration::from_secs(15),
                pull_lease: Duration::from_secs(120),
                hello_deadline: Duration::from_secs(10),
                heartbeat_deadline: Duration::from_secs(20),
            },
            next_link: Arc::clone(&self.next_link),
            stop: self.stop.clone(),
        }
    }

    /// A token that proves this name.
    pub(crate) async fn token(&self, name: &str) -> String {
        let token = AgentToken::generate().unwrap();
        let command = Command::SetToken { agent: agent(name), hash: Some(token.hash()) };
        self.engine.command(command).await.unwrap();
        token.reveal()
    }

    /// Asks `opus`, as a person does who stays.
    pub(crate) async fn ask(&self, number: u128) -> MessageId {
        let options = AskOptions { keep: true, ..AskOptions::default() };
        let message = question(number, "why?");
        let id = message.id;
        self.intake.consult(&local(), message, options).await.unwrap();
        id
    }

    /// Returns once everything sent to the engine before has been decided.
    pub(crate) async fn settled(&self) {
        soon(self.engine.query(crate::core::Query::Tokens)).await.unwrap();
    }

    /// Decides what is due by now.
    pub(crate) async fn tick(&self) {
        soon(self.engine.command(Command::Tick)).await.unwrap();
    }
}

/// The value, or a failure of the test when it does not come.
pub(crate) async fn soon<T>(value: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, value).await.expect("it comes soon")
}

pub(crate) fn local() -> Sender {
    Sender::parse("local").unwrap()
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

pub(crate) fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

pub(crate) fn question(number: u128, text: &str) -> Message {
    let payload = Payload { request: vec![Part::text(text)], ..Payload::default() };
    Message::consultation(MessageId::from_u128(number), model("opus"), payload)
}

/// A letter to an agent that need not exist, as the core takes it.
pub(crate) fn letter(number: u128) -> NewMessage {
    NewMessage {
        id: MessageId::from_u128(number),
        sender: local(),
        to: Recipient::Agent(agent("reviewer")),
        kind: MessageType::Status,
        priority: Priority::Normal,
        digest: Digest([1; 32]),
        body: Body::default(),
        expires_at: None,
        session: None,
        ordering_key: None,
        correlation: Correlation::default(),
        labels: std::collections::BTreeMap::new(),
        allow_future_recipient: true,
        consultation: None,
        earlier: None,
        numbered: None,
        earlier_number: None,
        parent: None,
        budget: None,
    }
}

/// A question to `opus`, as the core takes it.
pub(crate) fn consultation(number: u128) -> NewMessage {
    NewMessage {
        to: Recipient::Model(model("opus")),
        kind: MessageType::Consultation,
        consultation: Some(NewConsultation {
            asked: model("opus"),
            options: AskOptions { keep: true, ..AskOptions::default() },
            prompt_bytes: 40,
            history_bytes: 0,
            needs_vision: false,
            max_output_tokens: None,
        }),
        ..letter(number)
    }
}

pub(crate) fn send(new: NewMessage) -> Command {
    Command::Send(Box::new(new))
}
