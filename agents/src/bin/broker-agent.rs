//! `broker-agent`: serves models. Takes deliveries from the broker, asks the provider, streams the answer back.
//!
//! Exit codes: 0 drained, 1 failed, 2 wrong usage, 10 superseded by a newer process, 11 refused by the broker.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use broker_agents::{
    provider::{
        self, Clock,
        check::{ModelCheck, check},
    },
    wake::Waker,
    worker::Worker,
};
use broker_client::{
    Endpoint,
    link::{Agent, AgentOptions, Ended, LinkState, PingHook, WarmHook},
};
use broker_config::{Config, Loader, Model, Paths};
use broker_proto::{AgentName, RoleName};
use clap::{Parser, ValueEnum};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

const SUPERSEDED: u8 = 10;
const REFUSED: u8 = 11;

/// Serves models: takes their messages from the broker and asks their providers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// A configuration file, over the shipped one. Without one, the user's own file is read, if there is one:
    /// $XDG_CONFIG_HOME/model-broker/config.toml, else below ~/.config.
    #[arg(long, value_name = "F")]
    config: Option<PathBuf>,
    /// A model to serve; may be given several times.
    #[arg(long = "model", value_name = "NAME", required_unless_present_any = ["check", "standby"])]
    models: Vec<String>,
    /// The agent's name, which its token proves. Default: the first model's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the broker listens: unix:PATH.
    #[arg(long, value_name = "ENDPOINT", env = "BROKER_ENDPOINT")]
    endpoint: Option<String>,
    /// Share the name with other processes (the default).
    #[arg(long, conflicts_with = "exclusive")]
    shared: bool,
    /// Be the only process with this name: the newest one takes over.
    #[arg(long)]
    exclusive: bool,
    /// A role whose queue it also takes from; may be given several times.
    #[arg(long = "role", value_name = "NAME", value_parser = RoleName::parse)]
    roles: Vec<RoleName>,
    /// Take nothing, and stand by for the ring member --name of each --role: when it is to take over and is not there, run
    /// its command from `[[wakes]]` of this program's own configuration, which starts it.
    #[arg(long, requires = "name", requires = "roles", conflicts_with_all = ["models", "check", "exclusive", "capacity"])]
    standby: bool,
    /// Messages worked on at once. Default: what the models' `concurrency` adds up to.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    capacity: Option<u32>,
    /// A file with the token, readable by its owner only. Default: the variable BROKER_AGENT_TOKEN.
    #[arg(long, value_name = "F")]
    token_file: Option<PathBuf>,
    /// Drain when stdin closes, so that nothing is left of a supervisor that died.
    #[arg(long)]
    exit_with_parent: bool,
    /// How logs are written to stderr. BROKER_LOG says which, as in `info,broker_agents=debug`.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Only check keys and providers of the models, all configured ones unless some are named, and print what is found.
    #[arg(long)]
    check: bool,
    /// How a check is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    // Before any HTTP client: one is built with the provider that is installed by then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    log_to_stderr(arguments.log_format)?;
    let config = load(arguments)?;
    let models = if arguments.standby { Vec::new() } else { chosen(&config, &arguments.models)? };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if arguments.check {
            let checks = check(models).await;
            return print(&checks, arguments.output).map(|()| ExitCode::SUCCESS);
        }
        if arguments.standby {
            return stand_by(arguments, &config).await;
        }
        serve(arguments, &config, &models).await
    })
}

fn load(arguments: &Arguments) -> anyhow::Result<Config> {
    let loader = Loader::new();
    // A file that is given is whole: `brokerctl up` gives one in which the user's own is applied already.
    let loader = match &arguments.config {
        Some(path) => loader.file(path),
        None => loader.user(broker_config::user_file(|name| env::var_os(name))),
    };
    Ok(loader.env(env::vars_os()).load()?)
}

/// The models named, or all of them.
fn chosen<'a>(config: &'a Config, names: &[String]) -> anyhow::Result<Vec<&'a Model>> {
    if names.is_empty() {
        return Ok(config.models.iter().collect());
    }
    let mut models: Vec<&Model> = Vec::new();
    for name in names {
        let model = config.models.resolve(name)?;
        if !models.iter().any(|known| known.name == model.name) {
            models.push(model);
        }
    }
    Ok(models)
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    models: &[&Model],
) -> anyhow::Result<ExitCode> {
    let mut served = Vec::new();
    for model in models {
        let adapter = provider::adapter(model, provider::key_of(model)?, Clock::system())?;
        served.push(((*model).clone(), adapter));
    }
    let worker = Worker::new(served)?;
    let mut options = AgentOptions::new(
        endpoint(arguments, config)?,
        name(arguments, models)?,
        token(arguments.token_file.as_deref())?,
        worker.models(),
    );
    options.is_exclusive = arguments.exclusive;
    options.capacity = arguments.capacity.unwrap_or_else(|| worker.capacity());
    options.roles.clone_from(&arguments.roles);
    // Its text is content.
    options.on_ping = Some(PingHook::new(|from, _| info!(%from, "pinged by another model")));
    let tracker = TaskTracker::new();
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    options.on_warm = Some(loads(&worker, &tracker, &over));
    options.byte_credit = config.links.byte_credit;
    options.reconnect_min = config.links.reconnect_min;
    options.reconnect_max = config.links.reconnect_max;

    tracker.spawn(over.clone().run_until_cancelled_owned(stop_on_signal(stop.clone())?));
    if arguments.exit_with_parent {
        stop_with_parent(stop.clone());
    }
    // From here on a signal drains; who waits for this line may send one.
    info!(agent = %options.name, endpoint = %options.endpoint, capacity = options.capacity, "starting");
    let name = options.name.clone();
    let agent = Agent::start(options);
    tracker.spawn(over.clone().run_until_cancelled_owned(tell_state(agent.state())));
    let ended = worker.run(agent, stop, config.broker.shutdown_grace).await;
    over.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(said(&name, &ended))
}

/// Waits for the member's turn, and starts it then.
async fn stand_by(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let name = name(arguments, &[])?;
    let wake = config.wakes.iter().find(|wake| wake.agent == name.as_str());
    let wake = wake.filter(|wake| !wake.command.is_empty()).with_context(|| {
        format!("no [[wakes]] entry with a command for `{name}` in the configuration: --config F")
    })?;
    let token = token(arguments.token_file.as_deref())?;
    let mut options = AgentOptions::new(endpoint(arguments, config)?, name, token, Vec::new());
    options.roles.clone_from(&arguments.roles);
    options.is_standby = true;
    options.reconnect_min = config.links.reconnect_min;
    options.reconnect_max = config.links.reconnect_max;
    let tracker = TaskTracker::new();
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    options.on_wake = Some(Waker::new(wake, &tracker, &over).hook());
    tracker.spawn(over.clone().run_until_cancelled_owned(stop_on_signal(stop.clone())?));
    if arguments.exit_with_parent {
        stop_with_parent(stop.clone());
    }
    info!(agent = %options.name, endpoint = %options.endpoint, "standing by");
    let name = options.name.clone();
    let mut agent = Agent::start(options);
    tracker.spawn(over.clone().run_until_cancelled_owned(tell_state(agent.state())));
    tokio::select! {
        // Nothing is given to it; it ends when the link does.
        _ = agent.next() => {}
        () = stop.cancelled() => agent.drain(config.broker.shutdown_grace).await,
    }
    over.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(said(&name, &agent.ended().unwrap_or(Ended::Drained)))
}

/// Loads what may be asked soon, beside the work.
fn loads(worker: &Worker, tracker: &TaskTracker, over: &CancellationToken) -> WarmHook {
    let (worker, tracker, over) = (worker.clone(), tracker.clone(), over.clone());
    WarmHook::new(move |model, tokens| {
        let (worker, model) = (worker.clone(), model.clone());
        let loading = async move { worker.load(&model, tokens).await };
        tracker.spawn(over.clone().run_until_cancelled_owned(loading));
    })
}

/// The exit code, and on stderr what to do about it.
fn said(name: &AgentName, ended: &Ended) -> ExitCode {
    match ended {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Superseded => {
            complain(&format!(
                "superseded: a newer process serves as `{name}`; stop that one, or use another --name"
            ));
            ExitCode::from(SUPERSEDED)
        }
        Ended::Refused(error) => {
            complain(&format!(
                "refused: {error}; make a token with `brokerctl token create {name}` and give it in BROKER_AGENT_TOKEN"
            ));
            ExitCode::from(REFUSED)
        }
    }
}

fn endpoint(arguments: &Arguments, config: &Config) -> anyhow::Result<Endpoint> {
    match &arguments.endpoint {
        Some(text) => Ok(Endpoint::parse(text)?),
        None => {
            Ok(Endpoint::unix(Paths::resolve(&config.broker, |name| env::var_os(name))?.socket))
        }
    }
}

fn name(arguments: &Arguments, models: &[&Model]) -> anyhow::Result<AgentName> {
    let first = models.first().map(|model| model.name.as_str());
    let name = arguments.name.as_deref().or(first).context("no model is given")?;
    AgentName::parse(name).with_context(|| format!("--name `{name}`"))
}

/// The token, from a file that only its owner can read, else from the environment.
fn token(file: Option<&Path>) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(path) => {
            let show = path.display();
            let mode = fs::metadata(path)
                .with_context(|| format!("token file {show}"))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                bail!("token file {show} can be read by others: chmod 600 it");
            }
            fs::read_to_string(path).with_context(|| format!("token file {show}"))?
        }
        None => env::var("BROKER_AGENT_TOKEN").unwrap_or_default(),
    };
    if text.trim().is_empty() {
        bail!(
            "no token: set BROKER_AGENT_TOKEN to what `brokerctl token create NAME` prints, or give --token-file"
        );
    }
    Ok(text.trim().to_owned().into())
}

/// Asks for a stop at SIGTERM or SIGINT.
fn stop_on_signal(
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}

/// Asks for a stop when stdin ends. A thread of its own: a blocking read on the runtime would hold up its end.
fn stop_with_parent(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        stop.cancel();
    });
}

/// Says when the link stands and when it does not.
async fn tell_state(mut state: tokio::sync::watch::Receiver<LinkState>) {
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            LinkState::Connected => info!("connected"),
            LinkState::Connecting { attempt, error: Some(error) } => {
                warn!(attempt, %error, "connecting")
            }
            LinkState::Connecting { .. } | LinkState::Draining => {}
            LinkState::Ended => return,
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

fn log_to_stderr(format: LogFormat) -> anyhow::Result<()> {
    let wanted = env::var("BROKER_LOG").ok().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or("info")).context("BROKER_LOG")?;
    // It logs whole bodies that it cannot read: prompts and answers, whatever BROKER_LOG says.
    let filter = filter.add_directive("async_openai=off".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn print(checks: &[ModelCheck], output: Output) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            serde_json::to_writer(&mut out, &serde_json::json!({ "models": checks }))?;
            writeln!(out)?;
        }
        Output::Text => {
            for check in checks {
                writeln!(
                    out,
                    "{:<12} {:<10} {:<14} key {}",
                    check.name, check.provider, check.status, check.key
                )?;
                for line in [&check.problem, &check.remedy].into_iter().flatten() {
                    writeln!(out, "             {line}")?;
                }
            }
        }
    }
    Ok(())
}

/// A line on stderr; if nobody can read it there is nobody to tell.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
