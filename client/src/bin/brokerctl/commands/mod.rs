//! One file per noun; each command is a thin face over the broker's services.

mod agent;
mod chat;
mod clock;
pub(crate) mod consult;
pub(crate) mod current;
mod dead_letter;
mod demo;
mod doctor;
mod drain;
mod events;
mod folder;
pub(crate) mod handoff;
mod message;
mod payload;
mod ping;
mod queue;
mod registry;
mod rotation;
pub(crate) mod session;
mod task;
mod token;
pub(crate) mod up;
mod usage;

use std::{path::Path, time::Duration};

use broker_client::{Client, Endpoint, Error, Watched};
use broker_proto::types::{Receipt, Recipient};
use clap::CommandFactory as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::{
        AgentCommand, Cli, Command, Global, HandoffCommand, Misused, RecordCommand, UsageCommand,
    },
    exit_code::Exit,
    output,
};

/// Whether what `--output` named is none of the formats, but something that this command knows.
fn takes_file(command: &Command, file: &Path) -> bool {
    match command {
        Command::Handoff(HandoffCommand::Generate(_)) => true,
        Command::Usage(UsageCommand::Ledger(_)) => file == Path::new("csv"),
        Command::Usage(UsageCommand::Record(RecordCommand::Tokens { .. })) => true,
        _ => false,
    }
}

/// Runs what was typed.
///
/// # Errors
/// What ended the command; [`crate::exit_code::of_error`] gives it a code.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &Global::from(cli.global);
    if let Some(file) = &global.output_file
        && !takes_file(&cli.command, file)
    {
        return Err(Misused::Format(file.display().to_string()).into());
    }
    match cli.command {
        Command::Up(args) => Box::pin(up::run(global, &args)).await,
        Command::Demo(args) => Box::pin(demo::run(&args)).await,
        Command::Consult(args) => Box::pin(consult::consult(global, args)).await,
        Command::Chat(args) => Box::pin(chat::run(global, args)).await,
        Command::Submit(args) => consult::submit(global, args).await,
        Command::Poll(args) => until_interrupted(consult::poll(global, &args)).await,
        Command::Attach(args) => Box::pin(consult::attach(global, &args)).await,
        Command::Explain(args) => consult::explain(global, args).await,
        Command::Delegate(args) => Box::pin(task::delegate(global, args)).await,
        Command::Task(command) => Box::pin(task::run(global, command)).await,
        Command::Ping(args) => until_interrupted(ping::run(global, args)).await,
        Command::Events(command) => events::run(global, command).await,
        Command::Models => registry::models(global).await,
        Command::Agents => registry::agents(global).await,
        Command::Message(command) => message::run(global, command).await,
        Command::Clock(command) => clock::run(global, command).await,
        Command::Queue(command) => queue::run(global, command).await,
        Command::DeadLetter(command) => dead_letter::run(global, command).await,
        Command::Session(args) => Box::pin(session::run(global, args)).await,
        Command::Handoff(command) => Box::pin(handoff::run(global, command)).await,
        Command::Rotation(command) => rotation::run(global, command).await,
        Command::Usage(command) => Box::pin(usage::run(global, command)).await,
        Command::Token(command) => token::run(global, command).await,
        Command::Agent(command @ AgentCommand::Pull { .. }) => {
            until_interrupted(agent::run(global, command)).await
        }
        Command::Agent(command) => agent::run(global, command).await,
        Command::Drain(args) => until_interrupted(drain::run(global, &args)).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "brokerctl", &mut script);
            output::text(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

/// Leaves at SIGINT or SIGTERM what only waits; a command that reads stdin must not come here, since nothing would end it.
async fn until_interrupted(
    waiting: impl Future<Output = anyhow::Result<Exit>>,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        done = waiting => done,
        () = interrupts.next() => Ok(Exit::Interrupted),
    }
}

/// The broker that the flags and the environment name.
async fn connect(global: &Global) -> anyhow::Result<Client> {
    let endpoint = Endpoint::unix(global.endpoint()?.socket());
    Ok(Client::connect(&endpoint).await?)
}

/// Says when the broker gives less time than was asked for.
fn note_granted(asked: Option<Duration>, receipt: &Receipt) {
    let granted = receipt.deadline.since(receipt.accepted_at);
    // A second time it is the first receipt, of what was asked then.
    if !receipt.is_duplicate && asked.is_some_and(|asked| asked > granted + Duration::from_secs(1))
    {
        output::note(&format!("the broker keeps it for {} only", output::span(granted)));
    }
}

/// A refusal of a model that nobody knows: who meant an agent is told how an agent is written.
async fn mistaken(client: &Client, to: &Recipient, err: Error) -> Error {
    let Recipient::Model(name) = to else { return err };
    if err.reason() != Some("UNKNOWN_MODEL") {
        return err;
    }
    // Without an answer there is only less to say.
    let tokens = client.tokens().await.unwrap_or_default();
    if tokens.iter().any(|token| token.name.as_str() == name.as_str()) {
        output::note(&format!("there is an agent of that name: --to agent:{name}"));
    }
    err
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
