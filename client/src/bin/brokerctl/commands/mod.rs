//! One file per noun; each command is a thin face over the broker's services.

mod agent;
mod clock;
pub(crate) mod consult;
mod dead_letter;
mod demo;
mod doctor;
mod drain;
mod events;
mod folder;
mod message;
mod ping;
mod queue;
mod registry;
mod task;
mod token;
pub(crate) mod up;
mod usage;

use broker_client::{Client, Endpoint, Watched};
use clap::CommandFactory as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{Cli, Command, Global},
    exit_code::Exit,
    output,
};

/// Runs what was typed.
///
/// # Errors
/// What ended the command; [`crate::exit_code::of_error`] gives it a code.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => Box::pin(up::run(global, &args)).await,
        Command::Demo(args) => Box::pin(demo::run(&args)).await,
        Command::Consult(args) => Box::pin(consult::consult(global, args)).await,
        Command::Submit(args) => consult::submit(global, args).await,
        Command::Poll(args) => consult::poll(global, &args).await,
        Command::Attach(args) => Box::pin(consult::attach(global, &args)).await,
        Command::Explain(args) => consult::explain(global, args).await,
        Command::Delegate(args) => Box::pin(task::delegate(global, args)).await,
        Command::Task(command) => Box::pin(task::run(global, command)).await,
        Command::Ping(args) => ping::run(global, args).await,
        Command::Events(command) => events::run(global, command).await,
        Command::Models => registry::models(global).await,
        Command::Agents => registry::agents(global).await,
        Command::Message(command) => message::run(global, command).await,
        Command::Clock(command) => clock::run(global, command).await,
        Command::Queue(command) => queue::run(global, command).await,
        Command::DeadLetter(command) => dead_letter::run(global, command).await,
        Command::Usage(crate::cli::UsageCommand::Status) => usage::status(global).await,
        Command::Token(command) => token::run(global, command).await,
        Command::Agent(command) => agent::run(global, command).await,
        Command::Drain(args) => drain::run(global, &args).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "brokerctl", &mut script);
            output::text(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

/// The broker that the flags and the environment name.
async fn connect(global: &Global) -> anyhow::Result<Client> {
    let endpoint = Endpoint::unix(global.endpoint()?.socket());
    Ok(Client::connect(&endpoint).await?)
}

/// SIGINT and SIGTERM, from when this is made: one that comes while something else is done is not lost.
#[derive(Debug)]
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns at the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Says on stderr that a watch lost its broker, and that it is back.
fn connection<I>(news: &Watched<I>) {
    match news {
        Watched::Item(_) => {}
        Watched::Broken(error) => {
            output::note(&format!("the connection broke ({error}); waiting for the broker"));
        }
        Watched::Back { is_whole: true } => output::note("the broker is back"),
        Watched::Back { is_whole: false } => {
            output::note("the broker is back; what happened meanwhile is not shown");
        }
    }
}
