//! `provider-sim`: the three providers' wires on loopback. `docs/simulator.md` is its manual.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use broker_agents::sim::{Options, Script, Simulator, script::Span};
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Answers on the wires of Anthropic, OpenAI and Ollama, on loopback, with scripted quotas and faults.
///
/// Prints one line, {"listening":"127.0.0.1:PORT"}, once it answers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address on loopback; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// JSON file with models, quotas and faults.
    #[arg(long)]
    script: Option<PathBuf>,
    /// Pace of answers; 0 sends as fast as possible. [default: the script's, else 200]
    #[arg(long)]
    tokens_per_second: Option<f64>,
    /// Silence before the first byte of an answer, such as 40ms. [default: the script's, else 40ms]
    #[arg(long, value_parser = humantime::parse_duration)]
    first_token: Option<Duration>,
    /// The same seed and request give the same answer. [default: the script's, else 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Also refuse what only a strict reading of the wires forbids.
    #[arg(long)]
    strict: bool,
    /// End when stdin closes, so that nothing is left of a supervisor that died.
    #[arg(long)]
    exit_with_parent: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("provider-sim: {err:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let parent = parent_gone(arguments.exit_with_parent);
    let simulator = Simulator::start(options(arguments)?).await?;
    writeln!(std::io::stdout(), r#"{{"listening":"{}"}}"#, simulator.address())
        .and_then(|()| std::io::stdout().flush())
        .context("cannot say where it listens")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = parent => {}
    }
    simulator.stop().await;
    Ok(())
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let mut script = match &arguments.script {
        Some(path) => Script::read(path)?,
        None => Script::default(),
    };
    script.tokens_per_second = arguments.tokens_per_second.or(script.tokens_per_second);
    script.first_token = arguments.first_token.map(Span).or(script.first_token);
    script.seed = arguments.seed.or(script.seed);
    script.strict |= arguments.strict;
    Ok(Options { listen: arguments.listen, script })
}

/// Ends when stdin does. A thread of its own: a blocking read on the runtime would hold up its end.
async fn parent_gone(is_watched: bool) {
    if !is_watched {
        return std::future::pending().await;
    }
    let (closed, is_closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
        let _ = closed.send(());
    });
    let _ = is_closed.await;
}
