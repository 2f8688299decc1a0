//! Samples, and how they are taken: one call after the other, or many at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::ask::{Ask, Heard};

/// Fewer samples say nothing about the middle.
const ENOUGH_FOR_P50: u64 = 30;
/// Fewer say nothing about the slowest twentieth.
const ENOUGH_FOR_P95: u64 = 100;
/// Fewer say nothing about the slowest hundredth.
const ENOUGH_FOR_P99: u64 = 500;

/// Times, in nanoseconds with three digits.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    pub(crate) fn add(&mut self, time: Duration) -> anyhow::Result<()> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).context("a time beyond measure")
    }

    pub(crate) fn add_all(&mut self, others: &Self) -> anyhow::Result<()> {
        self.0.add(&others.0).context("times that do not add up")
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds.
    pub(crate) fn p50(&self) -> anyhow::Result<f64> {
        ensure!(self.len() >= ENOUGH_FOR_P50, "only {} samples", self.len());
        Ok(millis(self.0.value_at_quantile(0.5)))
    }

    /// Milliseconds; `None` where there are too few samples for it.
    pub(crate) fn p95(&self) -> Option<f64> {
        (self.len() >= ENOUGH_FOR_P95).then(|| millis(self.0.value_at_quantile(0.95)))
    }

    /// Milliseconds; `None` where there are too few samples for it.
    pub(crate) fn p99(&self) -> Option<f64> {
        (self.len() >= ENOUGH_FOR_P99).then(|| millis(self.0.value_at_quantile(0.99)))
    }

    /// Milliseconds.
    pub(crate) fn max(&self) -> f64 {
        millis(self.0.max())
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Calls one after the other for `slice`. The first is not counted: it warms up what others have cooled down.
pub(crate) async fn one_at_a_time(
    who: &impl Ask,
    slice: Duration,
    mut count: impl FnMut(Heard) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    who.ask(0).await?;
    let until = Instant::now() + slice;
    while Instant::now() < until {
        count(who.ask(0).await?)?;
    }
    Ok(())
}

/// What many at once came to.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) times: Times,
    /// How long was counted.
    pub(crate) window: Duration,
}

impl Crowd {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { times: Times::new()?, window: Duration::ZERO })
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.times.add_all(&other.times)?;
        self.window += other.window;
        Ok(())
    }

    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.window.as_secs_f64()
    }
}

/// `many` askers, each asking again as soon as it has its answer. Answers count that come between `ramp` and the end
/// of `window` behind it, when all are at it.
pub(crate) async fn many_at_once<A: Ask>(
    who: &Arc<A>,
    many: usize,
    ramp: Duration,
    window: Duration,
) -> anyhow::Result<Crowd> {
    let from = Instant::now() + ramp;
    let until = from + window;
    let mut askers = JoinSet::new();
    for asker in 0..many {
        let who = Arc::clone(who);
        askers.spawn(async move {
            let mut times = Times::new()?;
            loop {
                let heard = who.ask(asker).await?;
                let now = Instant::now();
                if now >= until {
                    return anyhow::Ok(times);
                }
                if now >= from {
                    times.add(heard.whole)?;
                }
            }
        });
    }
    let mut crowd = Crowd { times: Times::new()?, window };
    while let Some(times) = askers.join_next().await {
        crowd.times.add_all(&times.context("an asker fell over")??)?;
    }
    Ok(crowd)
}
