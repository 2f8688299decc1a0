//! `broker-recorder`: one process of the outside world. It uses a broker over its socket and writes its own history.
//!
//! Standard input tells it when to be quiet (`quiet`) and when to stop (its end).

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use broker_client::Endpoint;
use broker_proto::{AgentName, ModelName};
use broker_tests::recorder::{self, AgentOptions, Conduct, Plan, SenderOptions};
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Uses a broker as its senders and agents do, and writes down what happened"
)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Args)]
struct Common {
    /// The broker's socket.
    #[arg(long)]
    socket: PathBuf,
    /// Where its history is written; appended to.
    #[arg(long)]
    history: PathBuf,
    /// Its name in the history.
    #[arg(long)]
    name: String,
    /// What it does follows from this.
    #[arg(long)]
    seed: u64,
    /// Models it asks, or serves.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Sends, asks and cancels; says `sent` when its plan has come to an end.
    Sender {
        #[command(flatten)]
        common: Common,
        #[arg(long, value_enum, default_value_t = Plan::Mixed)]
        plan: Plan,
        /// Agents to write to.
        #[arg(long, value_delimiter = ',')]
        mailboxes: Vec<String>,
        /// How long it waits for the end of all it sent, once it is quiet.
        #[arg(long, value_parser = humantime::parse_duration, default_value = "20s")]
        patience: Duration,
    },
    /// Takes deliveries. Its token is in RECORDER_TOKEN.
    Agent {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        agent: String,
        #[arg(long, value_enum, default_value_t = Conduct::Mixed)]
        conduct: Conduct,
        /// Deliveries it takes at once.
        #[arg(long, default_value_t = 16)]
        capacity: u32,
        /// One process under this name at a time.
        #[arg(long)]
        exclusive: bool,
    },
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "broker-recorder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let orders = recorder::orders(&tasks);
        match arguments.role {
            Role::Sender { common, plan, mailboxes, patience } => {
                let options = SenderOptions {
                    endpoint: Endpoint::unix(common.socket),
                    history: common.history,
                    name: common.name,
                    seed: common.seed,
                    plan,
                    mailboxes: agents(&mailboxes)?,
                    models: models(&common.models)?,
                    patience,
                };
                recorder::send(options, orders).await
            }
            Role::Agent { common, agent, conduct, capacity, exclusive } => {
                let token = std::env::var("RECORDER_TOKEN").context("RECORDER_TOKEN is not set")?;
                let options = AgentOptions {
                    endpoint: Endpoint::unix(common.socket),
                    history: common.history,
                    name: common.name,
                    agent: AgentName::parse(&agent)?,
                    token: SecretString::from(token),
                    models: models(&common.models)?,
                    seed: common.seed,
                    conduct,
                    capacity,
                    is_exclusive: exclusive,
                };
                recorder::work(options, orders).await
            }
        }
    })
}

fn agents(names: &[String]) -> anyhow::Result<Vec<AgentName>> {
    names.iter().map(|name| AgentName::parse(name).context(name.clone())).collect()
}

fn models(names: &[String]) -> anyhow::Result<Vec<ModelName>> {
    names.iter().map(|name| ModelName::parse(name).context(name.clone())).collect()
}
