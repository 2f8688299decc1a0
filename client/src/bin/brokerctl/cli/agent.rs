//! What is typed behind `brokerctl agent` and `brokerctl token`.

use std::time::Duration;

use broker_proto::types::{AgentName, RoleName};
use clap::{Args, Subcommand};

use super::value::{agent_name, role, short_wait};

/// `brokerctl agent ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Take deliveries, one JSON object a line; nothing when none came in time
    #[command(
        after_help = "Examples:\n  brokerctl agent pull --model opus --role reviewer --wait 20s"
    )]
    Pull {
        /// A model whose queue to take from, besides the agent's mailbox; may be given again
        #[arg(long, short, value_name = "MODEL")]
        model: Vec<String>,
        /// A role whose queue to take from; may be given again
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Vec<RoleName>,
        /// The most deliveries
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        max: u32,
        /// How long to wait for the first; at most 25s
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = short_wait)]
        wait: Duration,
        /// How long they are this agent's, 5s to 30m [default: the broker's, 2m]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        lease: Option<Duration>,
    },
    /// Settle a delivery, or with - one from each line of stdin
    ///
    /// A line is a JSON object with `lease` and one of `text`, `failed` (a class) with `detail`, `retry_ms`, `reject`, `ask`
    /// or `release`: true, and perhaps `input_tokens` and `output_tokens`. Every settlement is answered by a line; exits 1 if
    /// one was refused. Saying it again is safe: the first outcome stands, and the answer says so.
    #[command(
        after_help = "Examples:\n  brokerctl agent settle \"$lease\" --text \"looks good\"\n  make review | brokerctl agent settle \"$lease\" --text -\n  brokerctl agent settle \"$lease\" --failed OVERLOADED --detail \"try later\"\n  brokerctl agent settle \"$lease\" --ask \"in which language?\"\n  jq -c '{lease, text: .answer}' done.jsonl | brokerctl agent settle -"
    )]
    Settle(SettleArgs),
    /// Let a lease run on from now
    #[command(after_help = "Examples:\n  brokerctl agent extend \"$lease\" --for 10m")]
    Extend {
        /// The lease, as pull printed it
        lease: String,
        /// For how long, 5s to 30m
        #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
        by: Duration,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("outcome").args(["text", "failed", "retry", "reject", "release", "ask"]))]
pub(crate) struct SettleArgs {
    /// The lease, as pull printed it; `-` reads settlements from stdin
    #[arg(value_name = "LEASE|-")]
    pub(crate) lease: String,
    /// Done, with this answer; `-` reads it from stdin
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Failed, in this class of docs/errors.md
    #[arg(long, value_name = "CLASS")]
    pub(crate) failed: Option<String>,
    /// What went wrong
    #[arg(long, requires = "failed", value_name = "TEXT", default_value = "")]
    pub(crate) detail: String,
    /// Give it back, to be delivered again after this long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) retry: Option<Duration>,
    /// Never deliver it again: a dead letter, for this reason
    #[arg(long, value_name = "REASON")]
    pub(crate) reject: Option<String>,
    /// Give it back unworked
    #[arg(long)]
    pub(crate) release: bool,
    /// Of a task: ask its requester this; it comes again with the answer
    #[arg(long, value_name = "TEXT")]
    pub(crate) ask: Option<String>,
    /// The tokens that the work took in, as its provider counted them
    #[arg(long, value_name = "N")]
    pub(crate) input_tokens: Option<u64>,
    /// The tokens that the work gave out
    #[arg(long, value_name = "N")]
    pub(crate) output_tokens: Option<u64>,
}

/// `brokerctl token ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for an agent's name and print it, once; an earlier one ends
    Create {
        /// The agent's name
        #[arg(value_name = "NAME", value_parser = agent_name)]
        name: AgentName,
    },
    /// List the names that have a token
    List,
    /// End the token of a name
    Revoke {
        /// The agent's name
        #[arg(value_name = "NAME", value_parser = agent_name)]
        name: AgentName,
    },
}
