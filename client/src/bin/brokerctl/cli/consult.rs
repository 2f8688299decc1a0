//! What is typed behind `brokerctl consult` and its neighbours: `submit`, `explain`, `poll`, `attach`.

use std::{path::PathBuf, time::Duration};

use broker_proto::types::{MessageId, MessageName, SessionId};
use clap::Args;

use super::{
    session_id,
    value::{message_id, message_name, usd},
};

/// What is asked, and under which conditions.
#[derive(Debug, Args)]
pub(crate) struct QuestionArgs {
    /// The model to ask; the usual spellings count (gpt4o is gpt-4o) [default: with a session its owner]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// The session that the question belongs to: what was said goes along, question and answer are appended [default: $BROKER_SESSION]
    #[arg(long, value_name = "ID", value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    /// The question
    #[arg(
        long,
        short,
        value_name = "TEXT",
        conflicts_with = "stdin",
        required_unless_present = "stdin"
    )]
    pub(crate) question: Option<String>,
    /// `-` reads the question from stdin
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,
    /// The conversation so far: a transcript, one JSON object a line, as OpenAI or Anthropic write them. `shared` (a file of
    /// that name is ./shared) sends the session's shared values, and appends the answer as advice
    #[arg(long, value_name = "FILE.jsonl|shared")]
    pub(crate) context: Option<PathBuf>,
    /// A file with the system prompt
    #[arg(long, value_name = "FILE")]
    pub(crate) system: Option<PathBuf>,
    /// A picture to ask about: PNG, JPEG, GIF or WebP, at most 20 MiB
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Vec<PathBuf>,
    /// Ask the named model even when it is unavailable, and fail instead of asking another
    #[arg(long)]
    pub(crate) no_fallback: bool,
    /// How long the whole answer may take, such as 2m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// The most the answer may cost, in USD; it caps the output tokens
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub(crate) max_cost: Option<f64>,
    /// The most tokens of the answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_output_tokens: Option<u32>,
    /// The message's id, a ULID; the same id again gives the same answer
    #[arg(long, value_name = "ULID", value_parser = message_id)]
    pub(crate) id: Option<MessageId>,
}

impl QuestionArgs {
    /// The shared context of the session is asked for, not a file.
    pub(crate) fn wants_shared(&self) -> bool {
        self.context.as_deref() == Some(std::path::Path::new("shared"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConsultArgs {
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
    /// Show the answer only when it is complete
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Begin the answer anew when an attempt fails after text was shown
    #[arg(long)]
    pub(crate) restart: bool,
    /// Let the work go on when this command is gone
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PollArgs {
    /// The message's id, or SENDER/ID
    #[arg(value_name = "ID", value_parser = message_name)]
    pub(crate) message: MessageName,
    /// How long to wait for the end
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The message's id, or SENDER/ID
    #[arg(value_name = "ID", value_parser = message_name)]
    pub(crate) message: MessageName,
    /// Show the answer only when it is complete
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Begin the answer anew when an attempt fails after text was shown
    #[arg(long)]
    pub(crate) restart: bool,
}
