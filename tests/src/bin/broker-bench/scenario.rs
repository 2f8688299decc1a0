//! The scenarios: what is measured in turns, and which figures come of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    Settings,
    ask::{Ask, Heard},
    context, contract,
    disk::Log,
    echo::Caller,
    exhaustion, handoff,
    house::{CROWD, Cpu, House, Pace},
    ledger,
    report::{Figure, Goal},
    sample::{Crowd, Times, many_at_once, one_at_a_time},
};

/// Their names, in the order they run: consultations, then the delivery contract and a session's context.
pub(crate) const SCENARIOS: [&str; 17] = [
    "latency",
    "load",
    "rate",
    "stream",
    "sends",
    "work",
    "fan",
    "backlog",
    "idle",
    "turn",
    "render",
    "package",
    "ledger",
    "handoff",
    "handoffs",
    "exhaustion",
    "soak",
];

/// What the broker may add to the first token, in milliseconds.
const FIRST_TOKEN_ADDS: f64 = 0.5;

/// How long everything takes.
#[derive(Debug)]
pub(crate) struct Plan {
    latency: Duration,
    load: Duration,
    rate: Duration,
    stream: Duration,
    contract: contract::Plan,
}

impl Plan {
    pub(crate) const QUICK: Self = Self {
        latency: Duration::from_secs(9),
        load: Duration::from_secs(8),
        rate: Duration::from_secs(9),
        stream: Duration::from_secs(9),
        contract: contract::Plan::QUICK,
    };
    pub(crate) const FULL: Self = Self {
        latency: Duration::from_secs(40),
        load: Duration::from_secs(30),
        rate: Duration::from_secs(40),
        stream: Duration::from_secs(40),
        contract: contract::Plan::FULL,
    };
}

/// Whether this scenario asks questions, and so needs a house with a simulator and an agent.
pub(crate) fn asks(name: &str) -> bool {
    matches!(name, "latency" | "load" | "rate" | "stream")
}

/// Runs one of [`SCENARIOS`] that asks.
pub(crate) async fn run(name: &str, house: &House, plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    match name {
        "latency" => latency(house, plan.latency).await,
        "load" => load(house, plan.load).await,
        "rate" => rate(house, plan.rate).await,
        "stream" => stream(house, plan.stream).await,
        _ => bail!("no such scenario"),
    }
}

/// Runs one of [`SCENARIOS`] on a broker of its own.
pub(crate) async fn run_alone(
    name: &str,
    settings: &Settings,
    plan: &Plan,
) -> anyhow::Result<Vec<Figure>> {
    let plan = &plan.contract;
    match name {
        "sends" => contract::sends(settings, plan).await,
        "work" => contract::work(settings, plan).await,
        "fan" => contract::fan(settings, plan).await,
        "backlog" => contract::backlog(settings, plan).await,
        "idle" => contract::idle(settings, plan).await,
        "turn" => context::turn(settings).await,
        "render" => context::rendering(),
        "package" => context::package(),
        "ledger" => ledger::ledger(settings).await,
        "handoff" => handoff::handoff(settings).await,
        "handoffs" => handoff::handoffs(settings).await,
        "exhaustion" => exhaustion::exhaustion(settings.is_quick),
        "soak" => contract::soak(settings, plan).await,
        _ => bail!("no such scenario"),
    }
}

/// One question at a time, beside echoes and syncs.
async fn latency(house: &House, lasts: Duration) -> anyhow::Result<Vec<Figure>> {
    const SLICE: Duration = Duration::from_millis(150);
    let caller = Caller::connect(&house.echo_socket()).await?;
    let mut log = Log::create(&house.data_dir())?;
    let (direct, brokered) = (house.direct(Pace::Fast)?, house.brokered(Pace::Fast)?);
    warm_up(&direct, &brokered).await?;
    let [mut echoes, mut syncs] = [Times::new()?, Times::new()?];
    let [mut directs, mut consults] = [Times::new()?, Times::new()?];
    let mut firsts = [Times::new()?, Times::new()?];
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        caller.say().await?;
        let slice = Instant::now() + SLICE / 2;
        while Instant::now() < slice {
            let began = Instant::now();
            caller.say().await?;
            echoes.add(began.elapsed())?;
        }
        let slice = Instant::now() + SLICE / 2;
        while Instant::now() < slice {
            let began = Instant::now();
            log.append()?;
            syncs.add(began.elapsed())?;
        }
        let count = |heard: Heard| {
            firsts[0].add(heard.first)?;
            directs.add(heard.whole)
        };
        one_at_a_time(&direct, SLICE, count).await?;
        let count = |heard: Heard| {
            firsts[1].add(heard.first)?;
            consults.add(heard.whole)
        };
        one_at_a_time(&brokered, SLICE, count).await?;
    }
    let (echo, sync, direct, consult) =
        (echoes.p50()?, syncs.p50()?, directs.p50()?, consults.p50()?);
    let mut figures = vec![Figure::new("echo_p50", echo, "ms")];
    figures.extend(echoes.p99().map(|p99| Figure::new("echo_p99", p99, "ms")));
    figures.push(Figure::new("sync_p50", sync, "ms"));
    figures.extend(syncs.p99().map(|p99| Figure::new("sync_p99", p99, "ms")));
    figures.extend(beside("1", (&directs, &consults))?);
    let made_of = 3.0 * echo + 2.0 * sync;
    let added = Figure::new("added_p50_1", consult - direct, "ms");
    figures.push(added.beside("3 echoes + 2 syncs", made_of).with(Goal::AtMost(2.0)));
    figures.extend(first_token("first_token", &firsts)?);
    Ok(figures)
}

/// As many questions at a time as the machine can take, and what each costs.
async fn load(house: &House, lasts: Duration) -> anyhow::Result<Vec<Figure>> {
    let (direct, brokered, cpu) = crowds(house, Pace::Fast, lasts).await?;
    let mut figures = beside("64", (&direct.times, &brokered.times))?;
    figures.push(Figure::new("direct_rate_64", direct.rate(), "/s"));
    let rate = Figure::new("consult_rate_64", brokered.rate(), "/s");
    figures.push(rate.beside("direct rate", direct.rate()));
    // The window is what counts answers, the processors also work on the ramp; the share of it is small.
    let each = |seconds: f64| seconds * 1e6 / brokered.times.len() as f64;
    figures.push(Figure::new("cpu_broker", each(cpu.broker), "us"));
    figures.push(Figure::new("cpu_agent", each(cpu.agent), "us"));
    figures.push(Figure::new("cpu_simulator", each(cpu.simulator), "us"));
    figures.push(Figure::new("cpu_asker", each(cpu.asker), "us"));
    Ok(figures)
}

/// 64 questions at a time to a provider that takes 50 ms.
async fn rate(house: &House, lasts: Duration) -> anyhow::Result<Vec<Figure>> {
    let (direct, brokered, _) = crowds(house, Pace::Slow, lasts).await?;
    let mut figures = beside("64_50ms", (&direct.times, &brokered.times))?;
    figures.push(Figure::new("direct_rate_64_50ms", direct.rate(), "/s"));
    let rate = Figure::new("consult_rate_64_50ms", brokered.rate(), "/s");
    figures.push(rate.beside("direct rate", direct.rate()).with(Goal::AtLeast(0.9)));
    Ok(figures)
}

/// One streamed answer at a time.
async fn stream(house: &House, lasts: Duration) -> anyhow::Result<Vec<Figure>> {
    const SLICE: Duration = Duration::from_millis(400);
    const REST: Duration = Duration::from_millis(20);
    let (direct, brokered) = (house.direct(Pace::Paced)?, house.brokered(Pace::Paced)?);
    let caller = Caller::connect(&house.echo_socket()).await?;
    let mut log = Log::create(&house.data_dir())?;
    warm_up(&direct, &brokered).await?;
    let [mut echoes, mut syncs] = [Times::new()?, Times::new()?];
    let mut firsts = [Times::new()?, Times::new()?];
    let mut gaps = [Times::new()?, Times::new()?];
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        let mut count = |way: usize, heard: Heard| {
            firsts[way].add(heard.first)?;
            gaps[way].add(heard.largest_gap)
        };
        one_at_a_time(&direct, SLICE, |heard| count(0, heard)).await?;
        one_at_a_time(&brokered, SLICE, |heard| count(1, heard)).await?;
        // Between two answers everyone sleeps, and waking costs; so it does here.
        for _ in 0..4 {
            tokio::time::sleep(REST).await;
            let began = Instant::now();
            caller.say().await?;
            echoes.add(began.elapsed())?;
            tokio::time::sleep(REST).await;
            let began = Instant::now();
            log.append()?;
            syncs.add(began.elapsed())?;
        }
    }
    let mut figures = vec![
        Figure::new("rested_echo_p50", echoes.p50()?, "ms"),
        Figure::new("rested_sync_p50", syncs.p50()?, "ms"),
    ];
    figures.extend(first_token("rested_first_token", &firsts)?);
    let gap = gaps[0].p50()?;
    figures.push(Figure::new("direct_largest_gap_p50", gap, "ms"));
    figures.push(Figure::new("largest_gap_p50", gaps[1].p50()?, "ms").beside("direct", gap));
    let worst = Figure::new("largest_gap_max", gaps[1].max(), "ms");
    figures.push(worst.beside("direct", gaps[0].max()));
    Ok(figures)
}

/// Both ways with many at once, in turns; and the processors' time of the brokered turns.
async fn crowds(house: &House, pace: Pace, lasts: Duration) -> anyhow::Result<(Crowd, Crowd, Cpu)> {
    const RAMP: Duration = Duration::from_millis(250);
    const SLICE: Duration = Duration::from_millis(1250);
    let (direct, brokered) = (house.direct(pace)?, house.brokered(pace)?);
    warm_up(&direct, &brokered).await?;
    let (direct, brokered) = (Arc::new(direct), Arc::new(brokered));
    let (mut directs, mut consults) = (Crowd::new()?, Crowd::new()?);
    let mut cpu = Cpu { broker: 0.0, agent: 0.0, simulator: 0.0, asker: 0.0 };
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        directs.add(&many_at_once(&direct, CROWD, RAMP, SLICE).await?)?;
        let before = house.cpu();
        consults.add(&many_at_once(&brokered, CROWD, RAMP, SLICE).await?)?;
        let after = house.cpu();
        cpu.broker += after.broker - before.broker;
        cpu.agent += after.agent - before.agent;
        cpu.simulator += after.simulator - before.simulator;
        cpu.asker += after.asker - before.asker;
    }
    let counted = SLICE.as_secs_f64() / (RAMP + SLICE).as_secs_f64();
    for seconds in [&mut cpu.broker, &mut cpu.agent, &mut cpu.simulator, &mut cpu.asker] {
        *seconds *= counted;
    }
    Ok((directs, consults, cpu))
}

/// Connections stand, pools are filled and caches warm before anything counts.
async fn warm_up(direct: &impl Ask, brokered: &impl Ask) -> anyhow::Result<()> {
    const WARM: Duration = Duration::from_millis(250);
    one_at_a_time(direct, WARM, |_| Ok(())).await?;
    one_at_a_time(brokered, WARM, |_| Ok(())).await
}

/// First tokens of direct calls and of consultations.
fn first_token(what: &str, [direct, consult]: &[Times; 2]) -> anyhow::Result<[Figure; 2]> {
    let first = direct.p50()?;
    let consult = Figure::new(&format!("{what}_p50"), consult.p50()?, "ms");
    let limit = first + FIRST_TOKEN_ADDS;
    Ok([
        Figure::new(&format!("direct_{what}_p50"), first, "ms"),
        consult.beside("direct + 0.5 ms", limit).with(Goal::AtMost(1.0)),
    ])
}

/// p50 and p99 of consultations beside those of direct calls.
fn beside(what: &str, (direct, consult): (&Times, &Times)) -> anyhow::Result<Vec<Figure>> {
    let (d50, c50) = (direct.p50()?, consult.p50()?);
    let mut figures = vec![
        Figure::new(&format!("direct_p50_{what}"), d50, "ms"),
        Figure::new(&format!("consult_p50_{what}"), c50, "ms").beside("direct p50", d50),
    ];
    if let (Some(d99), Some(c99)) = (direct.p99(), consult.p99()) {
        figures.push(Figure::new(&format!("direct_p99_{what}"), d99, "ms"));
        let consult = Figure::new(&format!("consult_p99_{what}"), c99, "ms");
        figures.push(consult.beside("direct p99", d99));
    }
    Ok(figures)
}
