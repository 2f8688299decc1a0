//! What is typed behind `brokerctl dead-letter`.

use broker_proto::types::{MessageName, Recipient};
use clap::{Args, Subcommand};

use super::value::{message_name, recipient};

/// `brokerctl dead-letter ...`
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterCommand {
    /// List dead letters, newest first
    #[command(after_help = "Examples:\n  brokerctl dead-letter list --to agent:reviewer")]
    List {
        /// Only those sent to this recipient; a name alone is a model's
        #[arg(long, value_name = "RECIPIENT", value_parser = recipient)]
        to: Option<Recipient>,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Show one dead letter with every delivery that did not end well
    #[command(after_help = "Examples:\n  brokerctl dead-letter show 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Show {
        /// The message's id, or SENDER/ID
        #[arg(value_name = "ID", value_parser = message_name)]
        message: MessageName,
    },
    /// Give dead letters another life in the queue they were sent to, under their ids
    ///
    /// One that expired, or whose queue is full, stays where it is; then the exit code is 1.
    #[command(
        after_help = "Examples:\n  brokerctl dead-letter redrive 01JD3Q8ZK5T0V9Y2X4W6R8P1NB\n  brokerctl dead-letter redrive --all --dry-run"
    )]
    Redrive {
        #[command(flatten)]
        letters: LetterArgs,
    },
    /// Give dead letters up for good. Asks first on a terminal; without one, --to and --all need --yes
    ///
    /// Their ids stay known, and what they said stays in the store.
    #[command(
        after_help = "Examples:\n  brokerctl dead-letter purge --to agent:reviewer --dry-run"
    )]
    Purge {
        #[command(flatten)]
        letters: LetterArgs,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// What is done to which dead letters.
#[derive(Debug, Args)]
pub(crate) struct LetterArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// Only say how many
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichArgs {
    /// The messages' ids, or SENDER/ID
    #[arg(value_name = "ID", value_parser = message_name)]
    pub(crate) messages: Vec<MessageName>,
    /// All that were sent to this recipient; a name alone is a model's
    #[arg(long, value_name = "RECIPIENT", value_parser = recipient)]
    pub(crate) to: Option<Recipient>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}
