//! `brokerd`: arguments, configuration, logs, run, exit code.

use std::{
    io::{IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use broker_config::{Config, Loader, Paths, Runtime};

/// What one thread takes, another gives back: messages pass from a connection to the engine and to the journal. The
/// system's allocator spent a seventh of the broker's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The broker: durable queues between model agents, routing and streamed consultations.
///
/// Usually started by `brokerctl up`. It listens on a unix socket that only you may open, keeps everything in its
/// data folder, and stops cleanly on SIGTERM or Ctrl-C.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A configuration file; what it does not say stays as shipped. Without one, the user's own file is read, if there
    /// is one: $XDG_CONFIG_HOME/model-broker/config.toml, else below ~/.config.
    #[arg(long, value_name = "FILE", env = "BROKER_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything is stored, the socket too.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Stop when standard input closes, so that a dead supervisor leaves no broker behind.
    #[arg(long)]
    exit_with_parent: bool,
    /// Look at the whole store, say what is damaged where, and end. No broker may use it meanwhile.
    #[arg(long)]
    check: bool,
    /// How the log is written to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log_format);
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one place where the chain is printed.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config = load(arguments)?;
    let mut runtime = match config.broker.runtime {
        Runtime::Current => tokio::runtime::Builder::new_current_thread(),
        Runtime::Multi => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    if arguments.check {
        return runtime.block_on(check(&config));
    }
    runtime.block_on(serve(&config, arguments.exit_with_parent))
}

fn load(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut loader = Loader::new().env(std::env::vars_os());
    // A file that is given is whole: `brokerctl up` gives one in which the user's own is applied already.
    loader = match &arguments.config {
        Some(file) => loader.file(file),
        None => loader.user(broker_config::user_file(|name| std::env::var_os(name))),
    };
    if let Some(folder) = &arguments.data_dir {
        loader = loader.set("broker.data_dir", folder.to_string_lossy());
    }
    Ok(loader.load()?)
}

async fn check(config: &Config) -> anyhow::Result<()> {
    let paths = Paths::resolve(&config.broker, |name| std::env::var_os(name))?;
    let found = broker::check(&paths.data_dir).await?;
    let (batches, contents) = found.journal.map_or((0, 0), |it| (it.batches, it.contents));
    let events = found.events.unwrap_or(0);
    let data = paths.data_dir.display();
    info!(%data, batches, contents, events, "the store is whole");
    Ok(())
}

async fn serve(config: &Config, exit_with_parent: bool) -> anyhow::Result<()> {
    let paths = Paths::resolve(&config.broker, |name| std::env::var_os(name))?;
    let listener = broker::listen(&paths.socket).await?;
    info!(socket = %paths.socket.display(), data = %paths.data_dir.display(), "broker starts");
    let stop = CancellationToken::new();
    let server =
        broker::run(listener, broker::Store::Folder(&paths.data_dir), config, stop.clone());
    tokio::pin!(server);
    tokio::select! {
        served = &mut server => served?,
        reason = asked_to_stop(exit_with_parent) => {
            info!(reason = reason?, "broker stops");
            stop.cancel();
            server.await?;
        }
    }
    // The next broker makes its own; one that is left over would only be replaced.
    let _ = std::fs::remove_file(&paths.socket);
    info!("broker stopped");
    Ok(())
}

/// Returns once the process is to end, with the reason.
async fn asked_to_stop(exit_with_parent: bool) -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent = async {
        if !exit_with_parent {
            return std::future::pending().await;
        }
        // A thread of its own: a read of the runtime's would hold up its end.
        let (gone, parent) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut ignored = [0; 64];
            while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
            // The broker may have stopped for another reason.
            let _ = gone.send(());
        });
        let _ = parent.await;
    };
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "interrupted",
        () = parent => "the supervisor has gone",
    })
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BROKER_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("info,h2=warn,hyper=warn,tower=warn")
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
        }
        LogFormat::Json => log.json().init(),
    }
}
