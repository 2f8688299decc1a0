//! What is typed behind `brokerctl delegate` and `brokerctl task`.

use std::{path::PathBuf, time::Duration};

use broker_proto::types::{MessageId, MessageName, Recipient, SessionId, TaskState};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{
    session_id,
    value::{message_id, message_name, recipient, usd},
};

/// What is given out, to whom, and under which conditions.
#[derive(Debug, Args)]
pub(crate) struct DelegateArgs {
    /// MODEL, agent:NAME, or role:NAME (one of its agents)
    #[arg(long, value_name = "TO", value_parser = recipient)]
    pub(crate) to: Recipient,
    /// What is to be done; `-` reads it from stdin
    #[arg(long, value_name = "TEXT")]
    pub(crate) task: String,
    /// What to work on: a text or picture file, NAME=VALUE, or NAME=@FILE; may be given several times
    #[arg(long, value_name = "FILE|NAME=VALUE")]
    pub(crate) input: Vec<String>,
    /// The conversation so far: a transcript, one JSON object a line, as OpenAI or Anthropic write them
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) context: Option<PathBuf>,
    /// The session in whose name it is done: a pause of that suspends it
    #[arg(long, value_name = "ID", value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    /// How long the task may live, such as 2h; default: as long as the broker keeps messages
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// The most it may cost over all attempts, in USD
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub(crate) max_cost: Option<f64>,
    /// The most tokens of input and output together, over all attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_tokens: Option<u64>,
    /// The result must be one JSON value
    #[arg(long)]
    pub(crate) json: bool,
    /// The result must be JSON that matches this JSON Schema
    #[arg(long, value_name = "FILE")]
    pub(crate) json_schema: Option<PathBuf>,
    /// Give it to the named model only, and fail instead of asking another
    #[arg(long)]
    pub(crate) no_fallback: bool,
    /// The task's id, a ULID; the same id again is the same task
    #[arg(long, value_name = "ULID", value_parser = message_id)]
    pub(crate) id: Option<MessageId>,
    /// Wait for the result; this is what happens without --detach
    #[arg(long, conflicts_with = "detach")]
    pub(crate) wait: bool,
    /// Print the task's id and leave
    #[arg(long)]
    pub(crate) detach: bool,
}

/// `brokerctl task ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks, newest first
    #[command(after_help = "Examples:\n  brokerctl task list --state working --to opus")]
    List {
        /// Only tasks in this state; may be given several times
        #[arg(long, value_parser = task_states())]
        state: Vec<TaskState>,
        /// Only tasks to this recipient: MODEL, agent:NAME or role:NAME
        #[arg(long, value_name = "TO", value_parser = recipient)]
        to: Option<Recipient>,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Show one task: its state, questions and result
    #[command(after_help = "Examples:\n  brokerctl task show 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Show {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
    },
    /// Follow one task to its end, one line for each step
    #[command(after_help = "Examples:\n  brokerctl task watch 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Watch {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
        /// Go on behind this cursor, as an earlier watch printed it with --output json
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Answer what a task asks back
    #[command(
        after_help = "Examples:\n  brokerctl task provide 01JD3Q8ZK5T0V9Y2X4W6R8P1NB \"in ten words\""
    )]
    Provide {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
        /// The answer; `-` reads it from stdin
        text: String,
        /// The question that this answers; default: the open one
        #[arg(long, value_name = "N", default_value_t = 0)]
        question: u32,
        /// A ULID of this answer; the same again changes nothing
        #[arg(long, value_name = "ULID", value_parser = message_id)]
        input_id: Option<MessageId>,
    },
    /// Take a task back until it is resumed; what works on it is stopped
    #[command(after_help = "Examples:\n  brokerctl task suspend 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Suspend {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
    },
    /// Let a suspended task go on
    #[command(after_help = "Examples:\n  brokerctl task resume 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Resume {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
    },
    /// End a task, down to the provider's call
    #[command(after_help = "Examples:\n  brokerctl task cancel 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Cancel {
        /// The task's id
        #[arg(value_name = "ID", value_parser = message_name)]
        id: MessageName,
    },
}

fn task_states() -> impl TypedValueParser<Value = TaskState> {
    let words = PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str));
    words.try_map(|word| {
        let found = TaskState::ALL.into_iter().find(|state| state.as_str() == word);
        found.ok_or("is no state")
    })
}
