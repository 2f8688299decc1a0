//! What is typed behind `brokerctl message`.

use std::time::Duration;

use broker_proto::types::{MessageId, MessageName, MessageState, Recipient, WallTime};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::value::{message_id, message_name, recipient};

/// `brokerctl message ...`
#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Send a message and print its id
    #[command(
        after_help = "Examples:\n  brokerctl message send --to agent:reviewer \"the build is green\"\n  brokerctl message send --to agents:opus --severity warning --percent 80 \"tests run\"\n  git diff | brokerctl message send --to role:reviewer --type delegation -"
    )]
    Send(SendArgs),
    /// Show one message: its state, attempts and cost
    Get {
        /// The message's id, or SENDER/ID
        #[arg(value_name = "ID", value_parser = message_name)]
        message: MessageName,
        /// Also print what was asked and answered
        #[arg(long)]
        payload: bool,
    },
    /// List messages, newest first
    List {
        /// Only messages in this state; may be given several times
        #[arg(long, value_parser = states())]
        state: Vec<MessageState>,
        /// Only messages to this recipient: MODEL, agent:NAME, role:NAME or agents:MODEL
        #[arg(long, value_name = "TO", value_parser = recipient)]
        to: Option<Recipient>,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Stop the work on a message, down to the provider's call
    Cancel {
        /// The message's id, or SENDER/ID
        #[arg(value_name = "ID", value_parser = message_name)]
        message: MessageName,
    },
    /// Show the life of one message, step by step, with the time between the steps
    Trace {
        /// The message's id, or SENDER/ID
        #[arg(value_name = "ID", value_parser = message_name)]
        message: MessageName,
    },
    /// Follow what happens to messages, one line each, until Ctrl-C
    Watch {
        /// Only this message
        #[arg(value_name = "ID", value_parser = message_name)]
        message: Option<MessageName>,
        /// Go on behind this cursor, as an earlier watch printed it with --output json
        #[arg(long)]
        cursor: Option<String>,
    },
}

/// What is sent, and to whom.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// agent:NAME, role:NAME (one of its agents), agents:MODEL (a copy for each), or model:NAME
    #[arg(long, value_name = "TO", value_parser = recipient)]
    pub(crate) to: Recipient,
    /// What it is for [default: consultation for a model, status for all others]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub(crate) kind: Option<Kind>,
    /// Its share of a queue that is behind
    #[arg(long, value_enum, default_value_t, value_name = "PRIORITY")]
    pub(crate) priority: Level,
    /// The session it belongs to
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// When it is no longer wanted: after a time such as 10m, or at one such as 2026-11-20T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    pub(crate) expires: Option<Expiry>,
    /// Take a recipient that nobody knows yet
    #[arg(long)]
    pub(crate) allow_future_recipient: bool,
    /// The message's id, a ULID; the same id again sends nothing twice
    #[arg(long, value_name = "ULID", value_parser = message_id)]
    pub(crate) id: Option<MessageId>,
    /// How much somebody should care, of a status
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub(crate) severity: Option<Concern>,
    /// How far the work has come, of a status
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) percent: Option<u8>,
    /// The message that a status is about
    #[arg(long, value_name = "ULID", value_parser = message_id)]
    pub(crate) about: Option<MessageId>,
    /// What it says; `-` reads it from stdin
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
}

/// When a message is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    After(Duration),
    At(WallTime),
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Handoff,
    Consultation,
    Delegation,
    Status,
}

/// A priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Level {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

/// How much somebody should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Concern {
    Info,
    Warning,
    Error,
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(Expiry::After(span));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = at.map(|at| Expiry::At(WallTime::from_system(at.into())));
    at.ok_or_else(|| "a time such as 10m, or 2026-11-20T18:00:00Z".to_owned())
}

fn states() -> impl TypedValueParser<Value = MessageState> {
    let words = PossibleValuesParser::new(MessageState::ALL.map(MessageState::as_str));
    words.try_map(|word| {
        let found = MessageState::ALL.into_iter().find(|state| state.as_str() == word);
        found.ok_or("is no state")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_span_or_a_time() {
        assert_eq!(expiry("10m"), Ok(Expiry::After(Duration::from_secs(600))));
        let at = WallTime(1_795_255_200_000);
        assert_eq!(expiry("2026-11-21T10:00:00Z"), Ok(Expiry::At(at)));
        assert!(expiry("9999-12-31T00:00:00Z").is_ok(), "the broker judges it");
        assert!(expiry("soon").unwrap_err().contains("10m"));
    }
}
