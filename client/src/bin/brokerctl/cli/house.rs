//! What is typed to run the house and to look at it: `up`, `demo`, `ping`, `doctor`, `drain`, `clock`, `events`.

use std::{path::PathBuf, time::Duration};

use broker_proto::types::AgentName;
use clap::{Args, Subcommand};

use super::value::{agent_name, short_wait};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Answer for every model with a simulator on loopback; needs no key
    #[arg(long)]
    pub(crate) simulated: bool,
    /// A file of settings over the shipped ones and your own (`handoff init`); its `[[models]]` replace the list
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print {"expectations": [...], "ok": bool} on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The model whose agent is to answer
    #[arg(conflicts_with_all = ["from", "to", "message", "wait"], value_parser = pinged)]
    pub(crate) model: Option<String>,
    /// The model whose agent sends the ping
    #[arg(long, value_name = "MODEL", requires = "to", value_parser = pinged)]
    pub(crate) from: Option<String>,
    /// The model whose agent answers it
    #[arg(long, value_name = "MODEL", requires = "from", value_parser = pinged)]
    pub(crate) to: Option<String>,
    /// What the ping says; at most 4 KiB
    #[arg(long, value_name = "TEXT", requires = "from", default_value = "")]
    pub(crate) message: String,
    /// How long to wait for both agents, at most 25s
    #[arg(long, value_name = "TIME", requires = "from", value_parser = short_wait)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A file of settings, as `up` takes it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `brokerctl drain ...`
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Only this agent; it takes work again when it is started anew, or with --undo
    #[arg(long, value_name = "NAME", value_parser = agent_name)]
    pub(crate) agent: Option<AgentName>,
    /// How long running work is given
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// Stay until nothing runs any more, or the deadline has passed
    #[arg(long)]
    pub(crate) wait: bool,
    /// The broker exits when it is drained
    #[arg(long, conflicts_with = "agent")]
    pub(crate) stop: bool,
    /// Give out deliveries again
    #[arg(long, conflicts_with_all = ["wait", "stop"])]
    pub(crate) undo: bool,
    /// Only say how far it is; exits 0 whether or not anything is drained
    #[arg(long, conflicts_with_all = ["undo", "stop"])]
    pub(crate) status: bool,
}

/// `brokerctl clock ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Show broker time, and whether the wall clock has jumped
    Status,
    /// Believe a wall clock that jumped ahead
    Confirm,
}

/// `brokerctl events ...`
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Follow what happens, one line each, until Ctrl-C
    ///
    /// Kinds: accepted, routed, held, leased, attempt_failed, task_asked, task_answered, task_stopped, lease_lost,
    /// delivery_failed, parked, finished, redriven, purged, queue_paused, queue_resumed, clock_jump, clock_settled,
    /// model_available, model_unavailable, usage_changed, level_changed, usage_policy_set, usage_reset, token_created,
    /// token_revoked, role_known, content_stored, content_forgotten, session_changed, handoff_policy_set. With
    /// --output json each line has a `cursor`, from which a later --from goes on.
    #[command(
        after_help = "Examples:\n  brokerctl events tail --from start --filter kind=finished --filter model=opus"
    )]
    Tail {
        /// Where to begin: `now`, `start`, or behind a cursor that an earlier tail printed
        #[arg(long, value_name = "CURSOR", default_value = "now")]
        from: String,
        /// Only events with this: kind=, message=, model=, agent=, session=; kinds add up, all others must hold
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
        filter: Vec<(String, String)>,
    },
}

/// A ping is for whoever serves a model: no mailbox and no role answers it.
fn pinged(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("model:").unwrap_or(text);
    if name.contains([':', '/']) { Err("a ping goes to a model".into()) } else { Ok(name.into()) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    if !["kind", "message", "model", "agent", "session"].contains(&key) || value.is_empty() {
        return Err("has no key of kind, message, model, agent, session, or no value".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}
