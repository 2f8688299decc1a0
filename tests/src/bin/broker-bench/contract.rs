//! The scenarios of the delivery contract: what a durable message costs beside what the machine gives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use broker_proto::{AgentName, Message, pb};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    Settings,
    ask::{Ask, Heard},
    brokerd::Brokerd,
    disk::Log,
    echo::{self, Caller},
    fused::Fused,
    jetstream::{self, JetStream},
    progress,
    report::{Figure, Goal},
    sample::{Crowd, Times, many_at_once},
    wire::{self, Counts, Link, channel, letter},
};

/// The body of a message.
const SIZE: usize = 1024;
/// Callers and calls share these: one connection carries at most 32 calls at once.
const CONNECTIONS: usize = 8;
/// How many sends are under way at once.
const IN_FLIGHT: [usize; 4] = [1, 8, 64, 256];

/// How long everything takes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each number of callers.
    pub(crate) sends: Duration,
    pub(crate) work: Duration,
    pub(crate) fan: Duration,
    pub(crate) backlog: u64,
    pub(crate) soak: Duration,
}

impl Plan {
    pub(crate) const QUICK: Self = Self {
        sends: Duration::from_secs(3),
        work: Duration::from_secs(9),
        fan: Duration::from_secs(3),
        backlog: 100_000,
        soak: Duration::from_secs(20),
    };
    pub(crate) const FULL: Self = Self {
        sends: Duration::from_secs(12),
        work: Duration::from_secs(45),
        fan: Duration::from_secs(10),
        backlog: 1_000_000,
        soak: Duration::from_secs(600),
    };
}

/// A broker with nothing in it, and the folder it works in.
struct Fresh {
    broker: Brokerd,
    folder: TempDir,
}

async fn fresh(settings: &Settings) -> anyhow::Result<Fresh> {
    let folder = settings.folder()?;
    let broker = Brokerd::unbounded(folder.path(), settings.layout()).await?;
    Ok(Fresh { broker, folder })
}

fn name(text: &str) -> anyhow::Result<AgentName> {
    AgentName::parse(text).context("not a name")
}

/// Durable unary sends to one mailbox.
struct Sends {
    clients: Vec<pb::message_service_client::MessageServiceClient<Channel>>,
    message: Message,
}

impl Ask for Sends {
    async fn ask(&self, asker: usize) -> anyhow::Result<Heard> {
        let mut client = self.clients[asker % self.clients.len()].clone();
        let message = Message { id: wire::next_id(), ..self.message.clone() };
        let request = pb::SendMessageRequest {
            message: Some(message.into()),
            allow_future_recipient: true,
            ..Default::default()
        };
        let began = Instant::now();
        let reply = client.send_message(request).await?.into_inner();
        let whole = began.elapsed();
        ensure!(reply.receipt.is_some_and(|receipt| !receipt.duplicate), "a send was not new");
        Ok(Heard { whole, ..Heard::default() })
    }
}

/// The same calls into a server that does nothing.
struct Echoes(Vec<Caller>);

impl Ask for Echoes {
    async fn ask(&self, asker: usize) -> anyhow::Result<Heard> {
        let began = Instant::now();
        self.0[asker % self.0.len()].give().await?;
        Ok(Heard { whole: began.elapsed(), ..Heard::default() })
    }
}

/// Durable unary sends, some at a time, in turns with echoes and syncs.
pub(crate) async fn sends(settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    const RAMP: Duration = Duration::from_millis(100);
    const SLICE: Duration = Duration::from_millis(500);
    let Fresh { broker, folder } = fresh(settings).await?;
    let echo = echo::start(folder.path(), settings.layout()).await?;
    let (mut clients, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let channel = channel(&broker.endpoint()).await?;
        clients.push(pb::message_service_client::MessageServiceClient::new(channel));
        callers.push(Caller::connect(&echo::socket(folder.path())).await?);
    }
    let sends = Arc::new(Sends { clients, message: letter(&name("nobody")?, SIZE) });
    let echoes = Arc::new(Echoes(callers));
    let mut log = Log::create(&broker.data_dir())?;
    let mut syncs = Times::new()?;
    let mut figures = Vec::new();
    let mut at = Vec::new();
    for many in IN_FLIGHT {
        let (mut sent, mut echoed) = (Crowd::new()?, Crowd::new()?);
        let until = Instant::now() + plan.sends;
        let mut cpu = 0.0;
        while Instant::now() < until {
            echoed.add(&many_at_once(&echoes, many, RAMP, SLICE).await?)?;
            let before = broker.cpu_seconds();
            sent.add(&many_at_once(&sends, many, RAMP, SLICE).await?)?;
            cpu += broker.cpu_seconds() - before;
            let slice = Instant::now() + SLICE / 2;
            while Instant::now() < slice {
                let began = Instant::now();
                log.append()?;
                syncs.add(began.elapsed())?;
            }
        }
        // The ramp is worked on too, but not counted.
        let counted = SLICE.as_secs_f64() / (RAMP + SLICE).as_secs_f64();
        at.push((many, sent, echoed, cpu * counted));
    }
    let sync = (syncs.p50()?, syncs.p99().context("too few syncs")?);
    figures.push(Figure::new("send_sync_p50", sync.0, "ms"));
    figures.push(Figure::new("send_sync_p99", sync.1, "ms"));
    for (many, sent, echoed, cpu) in at {
        let (p50, echo) = (sent.times.p50()?, echoed.times.p50()?);
        figures.push(Figure::new(&format!("echo_p50_{many}"), echo, "ms"));
        let p50 = Figure::new(&format!("send_p50_{many}"), p50, "ms");
        figures.push(if many == 1 {
            p50.beside("echo p50 + sync p50", echo + sync.0).with(Goal::AtMost(1.5))
        } else {
            p50.beside("echo p50 + sync p50", echo + sync.0)
        });
        if let Some(p99) = sent.times.p99() {
            let p99 = Figure::new(&format!("send_p99_{many}"), p99, "ms");
            let p99 = p99.beside("4 sync p99 + 20 ms", 4.0 * sync.1 + 20.0);
            figures.push(if many == 64 { p99.with(Goal::AtMost(1.0)) } else { p99 });
        }
        figures.push(Figure::new(&format!("echo_rate_{many}"), echoed.rate(), "/s"));
        let rate = Figure::new(&format!("send_rate_{many}"), sent.rate(), "/s");
        let rate = rate.beside("echo rate", echoed.rate());
        figures.push(if many == 64 { rate.with(Goal::AtLeast(0.5)) } else { rate });
        let each = cpu * 1e6 / sent.times.len() as f64;
        figures.push(Figure::new(&format!("send_cpu_{many}"), each, "us"));
    }
    broker.stop().await;
    echo.stop().await;
    Ok(figures)
}

/// A work queue over links: who sends, who settles, and what they count.
struct Yard {
    counts: Arc<Counts>,
    /// Ends the senders first, so that what is under way is settled.
    stop_sending: CancellationToken,
    stop: CancellationToken,
    senders: JoinSet<anyhow::Result<()>>,
    agents: JoinSet<anyhow::Result<()>>,
}

/// How a yard is laid out.
#[derive(Clone, Copy)]
struct Layout {
    senders: usize,
    agents: usize,
    /// Messages of each sender that are not settled, and in the hands of each agent.
    window: u64,
    capacity: u32,
}

const PIPE: Layout = Layout { senders: 2, agents: 2, window: 256, capacity: 256 };
const FAN_IN: Layout = Layout { senders: 64, agents: 1, window: 8, capacity: 512 };
const FAN_OUT: Layout = Layout { senders: 1, agents: 64, window: 512, capacity: 8 };

impl Yard {
    async fn open(broker: &Brokerd, layout: Layout, what: &str) -> anyhow::Result<Self> {
        let mut yard = Self {
            counts: Counts::with_room(layout.senders * layout.window as usize),
            stop_sending: CancellationToken::new(),
            stop: CancellationToken::new(),
            senders: JoinSet::new(),
            agents: JoinSet::new(),
        };
        let mut channels = Vec::new();
        for _ in 0..4 {
            channels.push(channel(&broker.endpoint()).await?);
        }
        let agents: Vec<AgentName> = (0..layout.agents)
            .map(|number| name(&format!("{what}-agent-{number}")))
            .collect::<anyhow::Result<_>>()?;
        for (number, agent) in agents.iter().enumerate() {
            let link = Link::greet(&channels[number % channels.len()], agent).await?;
            let (counts, stop) = (Arc::clone(&yard.counts), yard.stop.clone());
            yard.agents.spawn(link.settle_all(layout.capacity, counts, stop));
        }
        for number in 0..layout.senders {
            let sender = name(&format!("{what}-sender-{number}"))?;
            let link = Link::greet(&channels[(number + 1) % channels.len()], &sender).await?;
            let letters: Vec<Message> = agents.iter().map(|agent| letter(agent, SIZE)).collect();
            let letters =
                move |sent: u64| letters[(sent as usize + number) % letters.len()].clone();
            let (counts, stop) = (Arc::clone(&yard.counts), yard.stop_sending.clone());
            let sending = link.send_all(letters, layout.window, u64::MAX, counts, stop);
            yard.senders.spawn(sending);
        }
        Ok(yard)
    }

    fn settled(&self) -> u64 {
        self.counts.settled.load(Ordering::Relaxed)
    }

    /// Lets everything that was accepted be settled, and ends everybody.
    async fn close(mut self) -> anyhow::Result<u64> {
        const WITHIN: Duration = Duration::from_secs(60);
        self.stop_sending.cancel();
        while let Some(sender) = self.senders.join_next().await {
            sender??;
        }
        let began = Instant::now();
        while self.settled() < self.counts.accepted.load(Ordering::Relaxed) {
            if let Some(agent) = self.agents.try_join_next() {
                agent??;
                bail!("an agent has left");
            }
            ensure!(began.elapsed() < WITHIN, "what was accepted is not settled");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.cancel();
        while let Some(agent) = self.agents.join_next().await {
            agent??;
        }
        Ok(self.counts.settled.load(Ordering::Relaxed))
    }
}

/// How many went through a yard in so much time, and what the broker worked for it.
#[derive(Default)]
struct Through {
    messages: u64,
    window: Duration,
    cpu: f64,
}

impl Through {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.window.as_secs_f64()
    }

    fn cpu_each(&self) -> f64 {
        self.cpu * 1e6 / self.messages as f64
    }
}

/// Opens a yard, counts for `slice` once everybody is at it, and closes it.
async fn turn(
    broker: &Brokerd,
    layout: Layout,
    what: &str,
    slice: Duration,
    all: &mut Through,
) -> anyhow::Result<()> {
    const RAMP: Duration = Duration::from_millis(500);
    let yard = Yard::open(broker, layout, what).await?;
    tokio::time::sleep(RAMP).await;
    let (before, began, cpu) = (yard.settled(), Instant::now(), broker.cpu_seconds());
    tokio::time::sleep(slice).await;
    all.messages += yard.settled() - before;
    all.window += began.elapsed();
    all.cpu += broker.cpu_seconds() - cpu;
    yard.close().await?;
    Ok(())
}

/// Send, deliver and settle over links, in turns with SQLite and with JetStream.
pub(crate) async fn work(settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    const SLICE: Duration = Duration::from_secs(2);
    let Fresh { broker, folder } = fresh(settings).await?;
    let mut fused = Fused::create(&broker.data_dir(), SIZE)?;
    let other = match jetstream::program() {
        Some(program) => Some(JetStream::start(&program, folder.path()).await?),
        None => {
            progress("SKIP: no nats-server, so nothing beside JetStream; .ci/nats installs it");
            None
        }
    };
    let (mut ours, mut theirs, mut sqlite) =
        (Through::default(), Through::default(), Through::default());
    let until = Instant::now() + plan.work;
    let mut round = 0;
    while Instant::now() < until {
        turn(&broker, PIPE, &format!("pipe{round}"), SLICE, &mut ours).await?;
        sqlite.messages += fused.work(SLICE / 2)?;
        sqlite.window += SLICE / 2;
        if let Some(other) = &other {
            beside(other, SLICE, &mut theirs).await?;
        }
        round += 1;
    }
    let mut figures = vec![Figure::new("sqlite_fused_16", sqlite.rate(), "/s")];
    let rate = Figure::new("work_rate", ours.rate(), "/s");
    figures.push(rate.beside("SQLite fused, groups of 16", sqlite.rate()).with(Goal::AtLeast(0.5)));
    let rate = Figure::new("work_rate_absolute", ours.rate(), "/s");
    figures.push(rate.beside("30,000/s", 30_000.0).with(Goal::AtLeast(1.0)));
    if let Some(other) = other {
        figures.push(Figure::new("jetstream_rate", theirs.rate(), "/s"));
        let rate = Figure::new("work_rate_jetstream", ours.rate(), "/s");
        figures.push(rate.beside("JetStream, sync always", theirs.rate()).with(Goal::AtLeast(5.0)));
        other.stop().await;
    }
    figures.push(Figure::new("work_cpu_broker", ours.cpu_each(), "us"));
    broker.stop().await;
    Ok(figures)
}

/// The same through JetStream.
async fn beside(other: &JetStream, slice: Duration, all: &mut Through) -> anyhow::Result<()> {
    const RAMP: Duration = Duration::from_millis(500);
    let settled = Arc::<AtomicU64>::default();
    let (stop_sending, stop) = (CancellationToken::new(), CancellationToken::new());
    let window = PIPE.window;
    let through = async {
        tokio::time::sleep(RAMP).await;
        let (before, began) = (settled.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(slice).await;
        all.messages += settled.load(Ordering::Relaxed) - before;
        all.window += began.elapsed();
        stop_sending.cancel();
        // What is under way is still consumed.
        tokio::time::sleep(RAMP).await;
        stop.cancel();
        Ok(())
    };
    tokio::try_join!(
        other.publish(0, SIZE, window, stop_sending.clone()),
        other.publish(1, SIZE, window, stop_sending.clone()),
        other.consume(0, window, Arc::clone(&settled), stop.clone()),
        other.consume(1, window, Arc::clone(&settled), stop.clone()),
        through,
    )?;
    Ok(())
}

/// 64 agents sending to one, and one sending to 64.
pub(crate) async fn fan(settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let Fresh { broker, folder } = fresh(settings).await?;
    let (mut pipe, mut fan_in, mut fan_out) =
        (Through::default(), Through::default(), Through::default());
    let slice = plan.fan / 2;
    for round in 0..2 {
        turn(&broker, PIPE, &format!("pipe{round}"), slice, &mut pipe).await?;
        turn(&broker, FAN_IN, &format!("in{round}"), slice, &mut fan_in).await?;
        turn(&broker, FAN_OUT, &format!("out{round}"), slice, &mut fan_out).await?;
    }
    broker.stop().await;
    drop(folder);
    let beside = |name: &str, through: &Through| {
        Figure::new(name, through.rate(), "/s").beside("2 to 2", pipe.rate())
    };
    Ok(vec![
        Figure::new("fan_pipe", pipe.rate(), "/s"),
        beside("fan_in_64", &fan_in),
        beside("fan_out_64", &fan_out),
    ])
}

/// Many messages that nobody takes: memory, and a restart with them.
pub(crate) async fn backlog(settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    const SENDERS: u64 = 4;
    const WINDOW: u64 = 256;
    /// Of the whole, from the issue: 400 MB and 4 s for a million.
    const MEMORY: f64 = 400.0;
    const READY: f64 = 4.0;
    let Fresh { mut broker, folder } = fresh(settings).await?;
    let bodies = 2 * SIZE;
    let nobody = name("nobody")?;
    Link::greet(&channel(&broker.endpoint()).await?, &nobody).await?;
    let empty = broker.usage().memory;
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let sender = name(&format!("backlog-{number}"))?;
        let link = Link::greet(&channel(&broker.endpoint()).await?, &sender).await?;
        let message = letter(&nobody, bodies);
        let many = plan.backlog / SENDERS;
        let counts = Counts::with_room(many as usize);
        let sending =
            link.send_all(move |_| message.clone(), WINDOW, many, counts, CancellationToken::new());
        senders.spawn(sending);
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let rate = plan.backlog as f64 / began.elapsed().as_secs_f64();
    let full = settled_memory(&broker).await;
    let (restarted, ready) = broker.restart().await?;
    broker = restarted;
    let again = settled_memory(&broker).await;
    broker.stop().await;
    drop(folder);
    // A shorter run is held to its share.
    let share = plan.backlog as f64 / 1e6;
    let each = |memory: f64| (memory - empty).max(0.0) * 1e6 / plan.backlog as f64;
    Ok(vec![
        Figure::new("backlog_messages", plan.backlog as f64, ""),
        Figure::new("backlog_rate", rate, "/s"),
        Figure::new("backlog_memory", full, "MB")
            .beside("400 MB a million", MEMORY * share)
            .with(Goal::AtMost(1.0)),
        Figure::new("backlog_memory_each", each(full), "B"),
        Figure::new("backlog_memory_again", again, "MB")
            .beside("400 MB a million", MEMORY * share)
            .with(Goal::AtMost(1.0)),
        Figure::new("backlog_ready", ready.as_secs_f64(), "s")
            .beside("4 s a million", READY * share)
            .with(Goal::AtMost(1.0)),
    ])
}

/// The most it takes within a few seconds of rest: the projection may still be folding.
async fn settled_memory(broker: &Brokerd) -> f64 {
    let mut most: f64 = 0.0;
    for _ in 0..15 {
        most = most.max(broker.usage().memory);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    most
}

/// A broker that nobody uses, and one with many agents that wait.
pub(crate) async fn idle(settings: &Settings, _: &Plan) -> anyhow::Result<Vec<Figure>> {
    const AGENTS: usize = 1000;
    const CONNECTIONS: usize = 50;
    let Fresh { broker, folder } = fresh(settings).await?;
    let alone = settled_memory(&broker).await;
    let stop = CancellationToken::new();
    let mut agents = JoinSet::new();
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(channel(&broker.endpoint()).await?);
    }
    for number in 0..AGENTS {
        let agent = name(&format!("idle-{number}"))?;
        let link = Link::greet(&channels[number % CONNECTIONS], &agent).await?;
        agents.spawn(link.idle(stop.clone()));
    }
    let crowd = settled_memory(&broker).await;
    stop.cancel();
    while let Some(agent) = agents.join_next().await {
        agent??;
    }
    broker.stop().await;
    drop(folder);
    Ok(vec![
        Figure::new("idle_memory", alone, "MB").beside("25 MB", 25.0).with(Goal::AtMost(1.0)),
        Figure::new("idle_agents_memory", crowd, "MB")
            .beside("150 MB for 1,000 agents", 150.0)
            .with(Goal::AtMost(1.0)),
    ])
}

/// A steady load for a long time: nothing may grow.
pub(crate) async fn soak(settings: &Settings, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    const LAYOUT: Layout = Layout { senders: 8, agents: 8, window: 2, capacity: 16 };
    /// Growth that is no growth: allocators breathe.
    const FLAT: f64 = 1.10;
    /// Until the store's caches are full and as much is forgotten as is learnt; growth before that says nothing.
    const WARM: Duration = Duration::from_secs(120);
    let Fresh { broker, folder } = fresh(settings).await?;
    let lasts = settings.soak.unwrap_or(plan.soak);
    let yard = Yard::open(&broker, LAYOUT, "soak").await?;
    let quarter = lasts / 4;
    tokio::time::sleep(quarter).await;
    let (before, counted) = (yard.settled(), Instant::now());
    let early = averages(&broker, quarter).await;
    tokio::time::sleep(quarter).await;
    let late = averages(&broker, quarter).await;
    let rate = (yard.settled() - before) as f64 / counted.elapsed().as_secs_f64();
    yard.close().await?;
    broker.stop().await;
    drop(folder);
    let flat = |what: &str, unit, late: f64, early: f64| {
        let figure = Figure::new(what, late, unit).beside("two quarters before", early);
        if quarter < WARM { figure } else { figure.with(Goal::AtMost(FLAT)) }
    };
    Ok(vec![
        Figure::new("soak_time", lasts.as_secs_f64(), "s"),
        Figure::new("soak_rate", rate, "/s"),
        flat("soak_memory", "MB", late[0], early[0]),
        flat("soak_files", "", late[1], early[1]),
        flat("soak_threads", "", late[2], early[2]),
    ])
}

/// Memory, open files and threads over a time, looked at every second.
async fn averages(broker: &Brokerd, over: Duration) -> [f64; 3] {
    let until = Instant::now() + over;
    let (mut sums, mut looks) = ([0.0; 3], 0.0);
    while looks < 1.0 || Instant::now() < until {
        let usage = broker.usage();
        for (sum, value) in sums.iter_mut().zip([usage.memory, usage.files, usage.threads]) {
            *sum += value;
        }
        looks += 1.0;
        tokio::time::sleep(Duration::from_secs(1).min(over / 4)).await;
    }
    sums.map(|sum| sum / looks)
}
