//! `broker-faults`: real brokers, senders and agents, hurt in every way there is; then the judge reads what they wrote.
//!
//! Each case is a file in `cases/` and a line of `cases::CASES`. A case starts a [`world::World`], does its harm, lets
//! everything become quiet, and is judged by the checker alone. Progress goes to standard error, one JSON object with
//! the seed and the figures of every case to standard output.

mod cases;
mod clock;
mod disk;
mod scene;
mod world;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_tests::checker::Report;
use clap::Parser;
use futures::{StreamExt as _, stream};
use serde::Serialize;

use cases::Case;

/// No case takes longer, whatever hangs.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);
const GIVE_UP_AFTER_LONG: Duration = Duration::from_secs(1800);

#[derive(Debug, Parser)]
#[command(version, about = "Hurts brokers under load, and judges what became of their promises")]
struct Arguments {
    /// Name the cases and end.
    #[arg(long)]
    list: bool,
    /// Only cases whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// What is done follows from this; when it is done does not.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// As often and as long as a night allows.
    #[arg(long)]
    long: bool,
    /// Cases that mostly wait run together, so many at a time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Where the histories of failed cases are kept.
    #[arg(long, default_value = "target/faults")]
    keep: PathBuf,
}

/// What every case is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) seed: u64,
    pub(crate) is_long: bool,
    pub(crate) keep: PathBuf,
    pub(crate) name: &'static str,
    /// The run of a report with findings is kept.
    pub(crate) keeps_findings: bool,
}

impl Context {
    /// `short` of something in the short set, `long` in the long run.
    pub(crate) fn times(&self, short: u32, long: u32) -> u32 {
        if self.is_long { long } else { short }
    }

    /// A line for whoever watches; if nobody can read it there is nobody to tell.
    pub(crate) fn progress(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{:<28} {line}", self.name);
    }
}

/// How a case ended.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed {
        report: Option<Box<Report>>,
    },
    /// This machine cannot do it.
    Skipped {
        why: String,
    },
    Failed {
        why: String,
        report: Option<Box<Report>>,
    },
}

#[derive(Debug, Serialize)]
struct Ran {
    case: &'static str,
    seconds: f64,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
struct Summary {
    seed: u64,
    is_long: bool,
    seconds: f64,
    passed: usize,
    skipped: usize,
    failed: usize,
    cases: Vec<Ran>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "broker-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<bool> {
    let is_wanted = |case: &&Case| {
        arguments.only.is_empty() || arguments.only.iter().any(|part| case.name.contains(part))
    };
    let chosen: Vec<Case> = cases::all().into_iter().filter(|case| is_wanted(&case)).collect();
    if arguments.list {
        for case in chosen {
            writeln!(io::stdout(), "{:<28} {}", case.name, case.about)?;
        }
        return Ok(true);
    }
    anyhow::ensure!(!chosen.is_empty(), "no case is named so; --list names them");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let summary = runtime.block_on(run(arguments, chosen));
    writeln!(io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    Ok(summary.failed == 0)
}

/// First the cases that load the machine, one after the other; then those that mostly wait, several at once.
async fn run(arguments: &Arguments, chosen: Vec<Case>) -> Summary {
    let began = Instant::now();
    let arguments =
        Arc::new((arguments.seed, arguments.long, arguments.keep.clone(), arguments.jobs));
    let (together, alone): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|case| case.mostly_waits);
    let one = |case: Case| {
        let (seed, is_long, keep, _) = (*arguments).clone();
        one(case, Context { seed, is_long, keep, name: case.name, keeps_findings: true })
    };
    let mut cases: Vec<Ran> = stream::iter(alone).then(one).collect().await;
    cases.extend(
        stream::iter(together).map(one).buffer_unordered(arguments.3).collect::<Vec<_>>().await,
    );
    let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|ran| is(&ran.outcome)).count();
    Summary {
        seed: arguments.0,
        is_long: arguments.1,
        seconds: began.elapsed().as_secs_f64(),
        passed: count(|outcome| matches!(outcome, Outcome::Passed { .. })),
        skipped: count(|outcome| matches!(outcome, Outcome::Skipped { .. })),
        failed: count(|outcome| matches!(outcome, Outcome::Failed { .. })),
        cases,
    }
}

async fn one(case: Case, context: Context) -> Ran {
    let began = Instant::now();
    let patience = if context.is_long { GIVE_UP_AFTER_LONG } else { GIVE_UP_AFTER };
    context.progress(case.about);
    let outcome = match tokio::time::timeout(patience, (case.run)(context.clone())).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed { why: format!("{error:#}"), report: None },
        Err(_) => Outcome::Failed { why: format!("not within {patience:?}"), report: None },
    };
    let seconds = began.elapsed().as_secs_f64();
    match &outcome {
        Outcome::Passed { .. } => context.progress(&format!("passed, {seconds:.1} s")),
        Outcome::Skipped { why } => context.progress(&format!("SKIP: {why}")),
        Outcome::Failed { why, .. } => context.progress(&format!("FAILED, {seconds:.1} s: {why}")),
    }
    Ran { case: case.name, seconds, outcome }
}
