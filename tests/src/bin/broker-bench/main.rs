//! `broker-bench`: what the broker adds to a call, beside what it is made of, in one run on one machine.
//!
//! Every figure stands beside its limit, measured in the same run and in turns with it, so that drift of the machine
//! hits both alike. `docs/benchmarks.md` says what each figure means.

mod ask;
mod brokerd;
mod context;
mod contract;
mod disk;
mod echo;
mod exhaustion;
mod fused;
mod handoff;
mod house;
mod jetstream;
mod ledger;
mod machine;
mod process;
mod report;
mod sample;
mod scenario;
mod wire;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;
use tempfile::TempDir;

use house::House;
use machine::Machine;
use report::Report;
use scenario::{Plan, SCENARIOS};

/// The broker's: contexts and packages are measured in this process, and with the memory they have there. The system's
/// gives a buffer of 800 kB back at once, and each page of the next one costs a fault.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// No run takes longer than this and its soak, whatever hangs.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1500);

/// Measures the broker beside what the machine gives: consultations beside direct calls, durable messages beside
/// echoes, syncs, SQLite and NATS JetStream.
///
/// Results go to stdout, progress to stderr. The programs beside this one are measured: run it from target/release.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Fewer samples and a smaller backlog: ends within three minutes.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains one of these, separated by commas: latency, load, rate, stream, sends,
    /// work, fan, backlog, idle, turn, render, package, ledger, handoff, handoffs,
    /// exhaustion, soak.
    #[arg(long, value_name = "NAMES")]
    filter: Option<String>,
    /// Keep the data folder on this disk, which is the one whose sync is measured. [default: the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The runtime of the broker and of the echo beside it, for durable messages. [default: as shipped]
    #[arg(long, value_name = "LAYOUT")]
    runtime: Option<Layout>,
    /// How long the soak lasts. [default: 10min, with --quick 20s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// Serve the echo that others are compared with; for the bench itself.
    #[arg(long, hide = true, value_name = "SOCKET")]
    serve_echo: Option<PathBuf>,
}

/// The layouts of `broker.runtime`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Layout {
    Current,
    Multi,
}

/// What the scenarios on a broker of their own are told.
#[derive(Debug)]
pub(crate) struct Settings {
    dir: Option<PathBuf>,
    layout: Option<Layout>,
    soak: Option<Duration>,
    is_quick: bool,
}

impl Settings {
    /// A new folder on the disk that is measured.
    pub(crate) fn folder(&self) -> anyhow::Result<TempDir> {
        let mut named = tempfile::Builder::new();
        let named = named.prefix("broker-bench-");
        let folder = match &self.dir {
            Some(dir) => named.tempdir_in(dir),
            None => named.tempdir(),
        };
        folder.context("cannot make a data folder")
    }

    /// The runtime as the configuration names it.
    pub(crate) fn layout(&self) -> Option<&'static str> {
        self.layout.map(|layout| match layout {
            Layout::Current => "current",
            Layout::Multi => "multi",
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "broker-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(socket) = &arguments.serve_echo {
        let mut runtime = match arguments.runtime {
            Some(Layout::Current) | None => tokio::runtime::Builder::new_current_thread(),
            Some(Layout::Multi) => tokio::runtime::Builder::new_multi_thread(),
        };
        return runtime.enable_all().build()?.block_on(echo::serve(socket));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let give_up = GIVE_UP_AFTER + arguments.soak.unwrap_or_default();
    let report = runtime.block_on(async {
        tokio::time::timeout(give_up, measure(arguments)).await.context("it hangs")?
    })?;
    let text = if arguments.json { report.json()? } else { report.table() };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the results"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let wanted: Vec<&str> = arguments.filter.as_deref().unwrap_or_default().split(',').collect();
    let is_wanted = |name: &&&str| wanted.iter().any(|wanted| name.contains(wanted));
    let chosen: Vec<_> = SCENARIOS.iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        bail!("no scenario contains `{}`; there are {}", wanted.join(","), SCENARIOS.join(", "));
    }
    let plan = if arguments.quick { Plan::QUICK } else { Plan::FULL };
    let machine = Machine::look();
    if cfg!(debug_assertions) {
        progress("a debug build: its figures say little; use target/release/broker-bench");
    }
    let settings = Settings {
        dir: arguments.dir.clone(),
        layout: arguments.runtime,
        soak: arguments.soak,
        is_quick: arguments.quick,
    };
    let mut figures = Vec::new();
    let (asking, alone): (Vec<&str>, Vec<&str>) =
        chosen.into_iter().partition(|name| scenario::asks(name));
    if !asking.is_empty() {
        progress("starting the simulator, the broker, an agent and the echo");
        let house = House::start(settings.folder()?).await?;
        for name in asking {
            progress(name);
            let measured = scenario::run(name, &house, &plan).await;
            figures.extend(measured.with_context(|| format!("scenario {name}"))?);
        }
        house.stop().await;
    }
    for name in alone {
        progress(name);
        let measured = scenario::run_alone(name, &settings, &plan).await;
        figures.extend(measured.with_context(|| format!("scenario {name}"))?);
    }
    Ok(Report { machine, figures })
}

/// A line on stderr; if nobody can read it there is nobody to tell.
pub(crate) fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
