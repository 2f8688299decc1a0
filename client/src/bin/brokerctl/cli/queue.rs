//! What is typed behind `brokerctl queue`.

use broker_proto::types::Recipient;
use clap::Subcommand;

use super::value::recipient;

/// `brokerctl queue ...`
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the queues, and how many messages were accepted and where they stand
    #[command(after_help = "Examples:\n  brokerctl queue list")]
    List,
    /// Show one queue
    #[command(after_help = "Examples:\n  brokerctl queue show agent:reviewer")]
    Show {
        /// model:NAME, agent:NAME or role:NAME; a name alone is a model's
        #[arg(value_parser = recipient)]
        queue: Recipient,
    },
    /// List what is ready in a queue, without content: the most urgent first
    #[command(after_help = "Examples:\n  brokerctl queue peek opus --limit 5")]
    Peek {
        /// model:NAME, agent:NAME or role:NAME; a name alone is a model's
        #[arg(value_parser = recipient)]
        queue: Recipient,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Deliver nothing more from a queue, over restarts too; sends, settlements and expiry go on
    #[command(after_help = "Examples:\n  brokerctl queue pause opus")]
    Pause {
        /// model:NAME, agent:NAME or role:NAME; a name alone is a model's
        #[arg(value_parser = recipient)]
        queue: Recipient,
    },
    /// Deliver from a queue again
    #[command(after_help = "Examples:\n  brokerctl queue resume opus")]
    Resume {
        /// model:NAME, agent:NAME or role:NAME; a name alone is a model's
        #[arg(value_parser = recipient)]
        queue: Recipient,
    },
}
