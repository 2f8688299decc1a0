//! `broker-bench`: what the broker adds to a call, beside what it is made of, in one run on one machine.
//!
//! Every figure stands beside its limit, measured in the same run and in turns with it, so that drift of the machine
//! hits both alike. `docs/benchmarks.md` says what each figure means.

mod ask;
mod disk;
mod echo;
mod house;
mod machine;
mod process;
mod report;
mod sample;
mod scenario;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;

use house::House;
use machine::Machine;
use report::Report;
use scenario::{Plan, SCENARIOS};

/// No run takes longer, whatever hangs.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// Measures a consultation through a real broker and agent beside the direct call to the same simulator.
///
/// Results go to stdout, progress to stderr. The programs beside this one are measured: run it from target/release.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Fewer samples: ends within 45 seconds.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains this: latency, load, rate, stream.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Keep the data folder on this disk, which is the one whose sync is measured. [default: the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Serve the echo that others are compared with; for the bench itself.
    #[arg(long, hide = true, value_name = "SOCKET")]
    serve_echo: Option<PathBuf>,
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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(socket) = &arguments.serve_echo {
        return runtime.block_on(echo::serve(socket));
    }
    let report = runtime.block_on(async {
        tokio::time::timeout(GIVE_UP_AFTER, measure(arguments)).await.context("it hangs")?
    })?;
    let text = if arguments.json { report.json()? } else { report.table() };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the results"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let wanted = arguments.filter.as_deref().unwrap_or_default();
    let chosen: Vec<_> = SCENARIOS.iter().filter(|name| name.contains(wanted)).collect();
    if chosen.is_empty() {
        bail!("no scenario contains `{wanted}`; there are {}", SCENARIOS.join(", "));
    }
    let plan = if arguments.quick { Plan::QUICK } else { Plan::FULL };
    let machine = Machine::look();
    if cfg!(debug_assertions) {
        progress("a debug build: its figures say little; use target/release/broker-bench");
    }
    progress("starting the simulator, the broker, an agent and the echo");
    let house = House::start(arguments.dir.as_deref()).await?;
    let mut figures = Vec::new();
    for name in chosen {
        progress(&format!("{name}: {} s", plan.of(name).as_secs()));
        let measured = scenario::run(name, &house, &plan).await;
        figures.extend(measured.with_context(|| format!("scenario {name}"))?);
    }
    house.stop().await;
    Ok(Report { machine, figures })
}

/// A line on stderr; if nobody can read it there is nobody to tell.
pub(crate) fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
