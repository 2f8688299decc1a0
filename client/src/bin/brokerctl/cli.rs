//! What is typed.

mod bridge;
mod handoff;
mod package;
mod rotation;
mod session;
mod usage;
mod written;

use std::{path::PathBuf, time::Duration};

use broker_config::{Config, Endpoint, Loader, Paths};
use broker_proto::types::{
    AgentName, FailureClass, HandoffId, MessageId, MessageName, MessageState, Recipient, RoleName,
    SessionId, TaskState, WallTime,
};
use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{commands::consult::input, output::Format};

pub(crate) use self::{
    bridge::{BridgeCommand, EndsArgs},
    handoff::{
        CheckArgs, CompleteArgs, ConfigArgs, ExecuteArgs, GenerateArgs, HandoffCommand,
        HandoffStatusArgs, HistoryArgs, ModelsArgs, OfSession, OfferArgs, SayArgs, ShowArgs,
        ValidateArgs, WhichHandoff, with_limits,
    },
    package::{PackagesArgs, PlaceArgs, PrepareArgs, RestoreArgs, SaveArgs, Since, TrustCommand},
    rotation::RotationCommand,
    session::{
        AppendArgs, ConflictArgs, ContextVerb, ExportFormat, RenderArgs, SessionArgs,
        SessionCommand, SpeakerRole, TaskVerb, Which, session_id,
    },
    usage::{
        LedgerArgs, PolicyCommand, RecordCommand, RecordedFor, ResetArgs, UsageCommand,
        UsageStatusArgs,
    },
    written::{Written, WrittenParser},
};

/// The broker between model agents: ask a model, see why which one answered, run the house.
///
/// A question goes to the model you name; when that model is rate limited, out of quota or unreachable, the next of
/// its chain answers, and stderr says why. Answers stream to stdout. Start with `brokerctl up --simulated`, which needs
/// no key, then `brokerctl consult --model opus --question "..."`.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 broker unreachable, 5 limited (the earliest time it helps
/// to try again is printed), 6 integrity refused, 7 deadline passed, 8 no agent is there, 9 the task asks back, 130
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = "brokerctl", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes, before or after its name.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) output: Format,
    /// A file that `--output` named instead of a format.
    pub(crate) output_file: Option<PathBuf>,
    pub(crate) verbose: bool,
}

/// The same as it is typed.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Where the broker listens, as unix:PATH [env: BROKER_ENDPOINT] [default: the socket that `up` makes]
    #[arg(long, global = true, help_heading = "Every command takes", value_name = "unix:PATH", value_parser = Endpoint::parse)]
    endpoint: Option<Endpoint>,
    /// The folder that holds everything, its socket DIR/broker.sock too
    #[arg(long, global = true, help_heading = "Every command takes", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are written
    #[arg(
        long,
        id = "output",
        global = true,
        help_heading = "Every command takes",
        value_parser = WrittenParser,
        default_value = "text",
        value_name = "FORMAT"
    )]
    output: Written,
    /// Also show a model's thinking and the details of what happens, on stderr
    #[arg(long, short, global = true, help_heading = "Every command takes")]
    verbose: bool,
}

impl GlobalArgs {
    /// How results are written, errors too.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            Written::As(format) => format,
            Written::To(_) => Format::Text,
        }
    }
}

impl From<GlobalArgs> for Global {
    fn from(typed: GlobalArgs) -> Self {
        let output = typed.format();
        let output_file = match typed.output {
            Written::As(_) => None,
            Written::To(path) => Some(path),
        };
        let GlobalArgs { endpoint, data_dir, verbose, .. } = typed;
        Self { endpoint, data_dir, output, output_file, verbose }
    }
}

/// A use that no single flag is to blame for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misused {
    #[error("`{0}` is no model name: 1 to 64 of a-z, 0-9, `.`, `_`, `-` are")]
    ModelName(String),
    #[error("`{0}` is no agent's name: 1 to 64 of a-z, 0-9, `.`, `_`, `-` are")]
    AgentName(String),
    #[error("name the model: --model MODEL, or a session whose owner is asked: --session ID")]
    NoModel,
    #[error("name who is to be ready: --to MODEL")]
    NoReceiver,
    #[error("--context shared is a session's: name it with --session ID or BROKER_SESSION")]
    SharedOfNone,
    #[error("`{0}` is no time: 2026-11-20T08:00:00Z is, and 2h ago is written 2h")]
    Moment(String),
    #[error("invalid value '{0}' for '--output': a number of tokens is wanted")]
    OutputTokens(String),
    #[error("--output is missing: the number of output tokens")]
    NoOutputTokens,
    #[error("the number of output tokens is given twice")]
    OutputTokensTwice,
    #[error("the task is empty")]
    NoTask,
    #[error("the message is empty")]
    NoText,
    #[error("--severity, --percent and --about belong to a status: --type status")]
    NoStatus,
    #[error("no token: set BROKER_AGENT_TOKEN to what `brokerctl token create NAME` prints")]
    NoToken,
    #[error("a settlement needs one of text, failed, retry, reject, release and ask")]
    NoOutcome,
    #[error("`{0}` is no class of a failure: {known} are", known = classes())]
    FailureClass(String),
    #[error(
        "`{0}` is no message id: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV, or SENDER/ID"
    )]
    MessageId(String),
    /// What stands in it may be an answer, which no message repeats.
    #[error("not a settlement: {problem} at column {column}")]
    NoSettlement { problem: String, column: usize },
    #[error("the {what} is larger than {limit_mib} MiB")]
    TooLong { what: &'static str, limit_mib: u64 },
    #[error("what was given is not UTF-8 text")]
    NotText,
    #[error("the answer is empty")]
    NoAnswer,
    #[error("`{0}` is no session's id: 1 to 64 of a-z, 0-9, `_`, `-` are")]
    SessionId(String),
    #[error("two sessions are named: say one of them")]
    TwoSessions,
    #[error("name the session: --session ID")]
    NoSession,
    #[error("say what is appended: a text, `-` for stdin, or --file")]
    AppendWhat,
    #[error("nobody can be asked here whether to delete it: say --yes")]
    DeleteUnasked,
    #[error(
        "which session? name it with --session ID or BROKER_SESSION; none was used from this folder yet"
    )]
    NoneUsed,
    #[error("session `{0}` has no handoff: `handoff offer --session {0} --to MODEL` begins one")]
    NoHandoff(SessionId),
    #[error("handoff {handoff} is one of session `{of}`, not of `{session}`")]
    OtherSession { handoff: HandoffId, of: SessionId, session: SessionId },
    #[error(
        "there is no handoff and no package {0}: `handoff history` and `handoff list` show them"
    )]
    NeitherOf(HandoffId),
    #[error("a chat is text: a program asks with `consult --session ID --output json`")]
    ChatIsText,
    #[error("there is no handoff {0}: of a package `handoff report` prints the report")]
    NotHandoff(HandoffId),
    #[error("there is no shared value `{0}`")]
    NoSharedValue(String),
    #[error("nobody can be asked here whether to purge them all: say --yes")]
    PurgeUnasked,
    #[error("invalid value '{0}' for '--output': text and json are the formats")]
    Format(String),
}

impl Global {
    /// Where the broker listens: the flag, the data folder's socket, BROKER_ENDPOINT, the default.
    ///
    /// # Errors
    /// What is wrong with the variables that say where.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        if self.data_dir.is_none()
            && let Some(endpoint) = std::env::var_os("BROKER_ENDPOINT").filter(|v| !v.is_empty())
        {
            return Ok(Endpoint::parse(&endpoint.to_string_lossy())?);
        }
        let config = self.loaded(Loader::new())?;
        Ok(Endpoint::Unix(Paths::resolve(&config.broker, |name| std::env::var_os(name))?.socket))
    }

    /// `layers`, then the environment and the flags that are settings.
    ///
    /// # Errors
    /// The first thing that is wrong in the configuration.
    pub(crate) fn loaded(&self, layers: Loader) -> anyhow::Result<Config> {
        let mut loader = layers.env(std::env::vars_os());
        if let Some(folder) = &self.data_dir {
            let folder = std::path::absolute(folder)?;
            loader = loader.set("broker.data_dir", folder.display().to_string());
            // The folder holds everything: a socket named in a file must not lead elsewhere.
            let socket = folder.join("broker.sock");
            loader = loader.set("broker.socket", socket.display().to_string());
        }
        if let Some(endpoint) = &self.endpoint {
            let socket = std::path::absolute(endpoint.socket())?;
            loader = loader.set("broker.socket", socket.display().to_string());
        }
        Ok(loader.load()?)
    }
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker and one agent per model, in the foreground
    ///
    /// Finds the keys that the models need (ANTHROPIC_API_KEY, OPENAI_API_KEY) and an Ollama at OLLAMA_HOST or
    /// 127.0.0.1:11434, says what it found and what is missing, starts the broker and the agents, restarts what falls
    /// over, and prints a `ready:` line. Ctrl-C or SIGTERM drains the agents first, then stops the broker. With
    /// --simulated every model is answered by a simulator on loopback, without keys and offline.
    #[command(
        after_help = "Examples:\n  brokerctl up --simulated\n  brokerctl up --data-dir /tmp/house --config my.toml"
    )]
    Up(UpArgs),
    /// Show the whole house at work in seconds, offline, and check it
    ///
    /// Starts a house of its own in a temporary folder with simulated providers, lets models run out, agents and the
    /// broker be killed, and checks after each step that the question was still answered, once. Ends with a table of
    /// what was asked, who answered and why. Exits 1 if any expectation fails.
    #[command(after_help = "Examples:\n  brokerctl demo\n  brokerctl demo --json")]
    Demo(DemoArgs),
    /// Ask a model and stream its answer
    ///
    /// The answer goes to stdout as it comes, the routing story to stderr. When the model cannot answer, the next of its
    /// chain does; --no-fallback fails instead. Ctrl-C cancels the work. If the broker restarts meanwhile, consult comes
    /// back to its answer. Asking again with the same --id gives the same answer and calls no provider again.
    #[command(
        after_help = "Examples:\n  brokerctl consult --model opus --question \"Why is the sky blue?\"\n  git diff | brokerctl consult --model sonnet --system review.md -\n  brokerctl consult --model opus --question \"What is left to do?\" --context session.jsonl --output json"
    )]
    Consult(ConsultArgs),
    /// Talk with a session's owner, line by line
    ///
    /// Answers stream as they come. The prompt shows who is asked, the tokens left in its window and the level; `/help`
    /// lists the verbs: /handoff, /consult, /status, /fork, /undo, /save, /model, /quit. Says when the model changed and
    /// why. With --handoff-enabled the session is handed over before the next question once its switch threshold is
    /// reached. Ctrl-C cancels an answer, Ctrl-D leaves. Without a terminal it reads lines from stdin.
    #[command(
        after_help = "Examples:\n  brokerctl chat\n  brokerctl chat --handoff-enabled --session refactoring --model sonnet\n  printf 'What is left?\\n/save talk.jsonl\\n' | brokerctl chat --session s1"
    )]
    Chat(ChatArgs),
    /// Leave a question with the broker and print its id
    ///
    /// Takes what consult takes and returns at once; the work goes on without you. `brokerctl poll ID` asks what became
    /// of it, `brokerctl attach ID` streams the answer.
    #[command(
        after_help = "Examples:\n  id=$(brokerctl submit --model opus --question \"Summarise the log\" --context log.jsonl)\n  brokerctl poll \"$id\" --wait 2m"
    )]
    Submit(SubmitArgs),
    /// Ask what became of a question
    ///
    /// Prints the answer once there is one, else the message's state. --wait stays until the end or until the time is
    /// over; the exit code of a failed question is that of consult.
    #[command(after_help = "Examples:\n  brokerctl poll 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --wait 30s")]
    Poll(PollArgs),
    /// Come back to an answer's stream
    ///
    /// Shows the answer from its beginning and follows it to its end, whoever asked. Ctrl-C leaves without cancelling.
    #[command(after_help = "Examples:\n  brokerctl attach 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Attach(AttachArgs),
    /// Show where a question would go, and send nothing
    ///
    /// Takes what consult takes and prints every model of the chain: the estimate of the prompt beside its window, its
    /// cost, and why it would be passed over.
    #[command(
        after_help = "Examples:\n  brokerctl explain --model opus --question \"hi\" --context session.jsonl"
    )]
    Explain(ExplainArgs),
    /// Give out a task and wait for its result
    ///
    /// The result goes to stdout, what happens on the way to stderr. When the task asks something back and stdin is a
    /// terminal, you are asked; otherwise the command ends with 9 and says how to answer. The task goes on without you:
    /// Ctrl-C only leaves, and `brokerctl task watch ID` comes back. The same --id again is the same task.
    #[command(
        after_help = "Examples:\n  brokerctl delegate --to opus --task \"Summarise the log\" --input build.log\n  brokerctl delegate --to opus --task \"Extract the totals\" --input report.txt --json-schema totals.json --output json\n  brokerctl delegate --to agent:scribe --task \"Write it down\" --input tone=dry --detach"
    )]
    Delegate(DelegateArgs),
    /// Look at tasks and steer them: list, show, watch, provide, suspend, resume, cancel
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl task list --state input_required\n  brokerctl task provide 01JD3Q8ZK5T0V9Y2X4W6R8P1NB \"in ten words\""
    )]
    Task(TaskCommand),
    /// See whether the broker, a model's agent, or two models' agents answer
    ///
    /// Without a model only the broker is asked; with one, an agent that serves it. With --from and --to an agent of the
    /// one model pings an agent of the other, and the time of each hop is shown. No provider is called.
    #[command(
        after_help = "Examples:\n  brokerctl ping\n  brokerctl ping opus\n  brokerctl ping --from opus --to sonnet --message \"are you there?\""
    )]
    Ping(PingArgs),
    /// List the models: their level, and why one is not called now
    #[command(after_help = "Examples:\n  brokerctl models\n  brokerctl models --output json")]
    Models,
    /// List the agents: which models they serve, and whether they are connected
    #[command(after_help = "Examples:\n  brokerctl agents")]
    Agents,
    /// Send messages and look at them: send, get, list, cancel, trace, watch
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl message list --state failed\n  brokerctl message watch"
    )]
    Message(MessageCommand),
    /// What happens in the broker
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl events tail\n  brokerctl events tail --from start --filter kind=finished --filter model=opus"
    )]
    Events(EventsCommand),
    /// Broker time, and a wall clock that jumped ahead
    ///
    /// When the wall clock jumps more than a minute ahead of the clock that counts since the machine started, broker time
    /// goes on without it, so that nothing expires by a mistake, until the jump is confirmed or 10 minutes have passed.
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl clock status\n  brokerctl clock confirm"
    )]
    Clock(ClockCommand),
    /// Queues: what waits in them, and stopping what they deliver
    ///
    /// A queue is named model:NAME, agent:NAME or role:NAME; a name alone is a model's.
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl queue list\n  brokerctl queue pause opus\n  brokerctl queue peek agent:reviewer"
    )]
    Queue(QueueCommand),
    /// Dead letters: what nobody could finish, and another life or a last end for it
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl dead-letter list\n  brokerctl dead-letter redrive --to agent:reviewer --dry-run\n  brokerctl dead-letter purge 01JD3Q8ZK5T0V9Y2X4W6R8P1NB"
    )]
    DeadLetter(DeadLetterCommand),
    /// Conversations that the broker keeps: append, go back, fork, share
    #[command(
        after_help = "Examples:\n  brokerctl session import --file run.jsonl --model opus\n  brokerctl session append refactoring --role user \"Keep the public names.\"\n  brokerctl session show refactoring --last 5\n  brokerctl session fork refactoring --at 12 --model local"
    )]
    Session(SessionArgs),
    /// Packages that carry work elsewhere, and an orchestrator's checkpoints
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl handoff generate --level standard\n  brokerctl handoff validate context_payload.json"
    )]
    Handoff(HandoffCommand),
    /// Rings of agents of one role, of which one works at a time: show, set, force
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl rotation set --role builder --members pc1,pc2,pc3\n  brokerctl rotation show\n  brokerctl rotation force --role builder"
    )]
    Rotation(RotationCommand),
    /// What was used and is left: status, forecast, policy, ledger, reset, record
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl usage status --watch\n  brokerctl usage forecast\n  brokerctl usage ledger --model opus --output csv\n  brokerctl usage record tokens --model opus --input 1200 --output 300"
    )]
    Usage(UsageCommand),
    /// Tokens that prove an agent's name
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl token create reviewer\n  brokerctl token revoke reviewer"
    )]
    Token(TokenCommand),
    /// Work as an agent from a shell: pull deliveries, settle them, extend their leases
    ///
    /// For what need not stream: a script takes a message, works, and settles it with the lease it was given. The agent's
    /// token comes from the variable BROKER_AGENT_TOKEN. A delivery that is not settled before its lease ends goes to
    /// somebody else, and settling it then exits 1 with LEASE_LOST.
    #[command(
        subcommand,
        after_help = "Examples:\n  export BROKER_AGENT_TOKEN=$(brokerctl token create reviewer)\n  brokerctl agent pull --wait 20s | while read -r job; do\n    lease=$(printf '%s' \"$job\" | jq -r .lease)\n    printf '%s' \"$job\" | jq -r .text | wc -w | brokerctl agent settle \"$lease\" --text -\n  done"
    )]
    Agent(AgentCommand),
    /// Let running work end and give out nothing new, before a restart
    ///
    /// Accepting goes on; what waits is delivered afterwards. Without --wait it returns at once. With --stop the broker
    /// exits with 0 once nothing runs, or at the deadline: what is still leased then is kept for its agents, who come back
    /// to the next broker with it. Under `brokerctl up` the broker is started again. Exits 7 when --wait saw the deadline
    /// pass first.
    #[command(
        after_help = "Examples:\n  brokerctl drain --wait --stop\n  brokerctl drain --agent opus --wait --deadline 2m\n  brokerctl drain --status\n  brokerctl drain --undo\n\nA drain ends with the broker's process: its next one gives out deliveries. `brokerctl queue pause` outlasts it."
    )]
    Drain(DrainArgs),
    /// Check everything the house needs, with a remedy for what is not right
    ///
    /// Configuration, keys, providers, Ollama and its models, the clock, how long the disk takes to sync, the broker and
    /// its socket. Exits 1 if a line says fail.
    #[command(after_help = "Examples:\n  brokerctl doctor\n  brokerctl doctor --output json")]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  brokerctl completions bash > ~/.local/share/bash-completion/completions/brokerctl"
    )]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Answer for every model with a simulator on loopback; needs no key
    #[arg(long)]
    pub(crate) simulated: bool,
    /// A file of settings over the shipped ones; its `[[models]]` replace the list
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

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The session that is talked in; it begins where there is none of this id [default: $BROKER_SESSION, else the one last used from this folder, else a new one]
    #[arg(long, value_name = "ID", value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    /// The model that is asked in place of the session's owner; the owner of a session that begins
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Hand the session over before the next question once its switch threshold is reached
    #[arg(long)]
    pub(crate) handoff_enabled: bool,
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

/// `brokerctl clock ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Show broker time, and whether the wall clock has jumped
    Status,
    /// Believe a wall clock that jumped ahead
    Confirm,
}

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

fn classes() -> String {
    FailureClass::ALL.map(FailureClass::as_str).join(", ")
}

/// A recipient as people type it; a name alone is a model's.
fn recipient(text: &str) -> Result<Recipient, String> {
    if !text.contains([':', '/']) {
        let name = input::model_name(text).map_err(|misused| misused.to_string())?;
        return Ok(Recipient::Model(name));
    }
    // Models' names are lower case; people also write GPT-4o.
    let is_model = text.starts_with("model") || text.starts_with("agents");
    let text = if is_model { text.to_lowercase() } else { text.to_owned() };
    Recipient::parse(&text).map_err(|invalid| invalid.to_string())
}

/// A ping is for whoever serves a model: no mailbox and no role answers it.
fn pinged(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("model:").unwrap_or(text);
    if name.contains([':', '/']) { Err("a ping goes to a model".into()) } else { Ok(name.into()) }
}

/// What one call waits for at most.
fn short_wait(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(25);
    let wait = humantime::parse_duration(text).map_err(|err| err.to_string())?;
    if wait > LONGEST { Err("is over 25s".into()) } else { Ok(wait) }
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(Expiry::After(span));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = at.map(|at| Expiry::At(WallTime::from_system(at.into())));
    at.ok_or_else(|| "a time such as 10m, or 2026-11-20T18:00:00Z".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    if !["kind", "message", "model", "agent", "session"].contains(&key) || value.is_empty() {
        return Err("has no key of kind, message, model, agent, session, or no value".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text).ok_or_else(|| {
        "an id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()
    })
}

fn task_states() -> impl TypedValueParser<Value = TaskState> {
    let words = PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str));
    words.try_map(|word| {
        let found = TaskState::ALL.into_iter().find(|state| state.as_str() == word);
        found.ok_or("is no state")
    })
}

fn message_name(text: &str) -> Result<MessageName, String> {
    MessageName::parse(text).ok_or_else(|| {
        "an id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV; its sender's name and a slash may stand before it".to_owned()
    })
}

fn agent_name(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|err| err.to_string())
}

fn role(text: &str) -> Result<RoleName, String> {
    RoleName::parse(text).map_err(|err| err.to_string())
}

fn usd(text: &str) -> Result<f64, String> {
    let number = text.trim_start_matches('$').parse::<f64>().ok();
    number
        .filter(|usd| usd.is_finite() && *usd > 0.0)
        .ok_or_else(|| "a sum above 0, such as 0.50".to_owned())
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
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoint_counts_before_and_after_the_command() {
        for line in ["brokerctl --endpoint unix:/a models", "brokerctl models --endpoint unix:/a"] {
            let endpoint = Global::from(parse(line).unwrap().global).endpoint().unwrap();
            assert_eq!(endpoint.to_string(), "unix:/a", "{line}");
        }
    }

    #[test]
    fn a_data_folder_names_its_socket() {
        let cli = parse("brokerctl models --data-dir /d").unwrap();
        assert_eq!(Global::from(cli.global).endpoint().unwrap().to_string(), "unix:/d/broker.sock");
    }

    #[test]
    fn every_command_has_a_text_and_the_long_ones_an_example() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn a_recipient_has_two_spellings_and_a_model_none() {
        for (typed, to) in [
            ("GPT-4o", "model/gpt-4o"),
            ("gpt 4o", "model/gpt-4o"),
            ("model:Opus", "model/opus"),
            ("agent:scribe", "agent/scribe"),
            ("agent/scribe", "agent/scribe"),
            ("role:r", "role/r"),
        ] {
            assert_eq!(recipient(typed).unwrap().to_string(), to, "{typed}");
            let lines = ["brokerctl delegate --task x --to", "brokerctl task list --to"];
            for line in lines.into_iter().chain(["brokerctl message list --to"]) {
                let args = line.split(' ').chain([typed]);
                assert!(Cli::try_parse_from(args).is_ok(), "{line} {typed}");
            }
        }
        assert!(recipient("agent/../x").is_err());
    }

    #[test]
    fn an_expiry_is_a_span_or_a_time() {
        assert_eq!(expiry("10m"), Ok(Expiry::After(Duration::from_secs(600))));
        let at = WallTime(1_795_255_200_000);
        assert_eq!(expiry("2026-11-21T10:00:00Z"), Ok(Expiry::At(at)));
        assert!(expiry("9999-12-31T00:00:00Z").is_ok(), "the broker judges it");
        assert!(expiry("soon").unwrap_err().contains("10m"));
    }

    #[test]
    fn every_leaf_of_these_has_an_example() {
        for name in ["task", "queue", "dead-letter", "events", "agent"] {
            let cli = Cli::command();
            for leaf in cli.find_subcommand(name).unwrap().get_subcommands() {
                assert!(leaf.get_after_help().is_some(), "{name} {}", leaf.get_name());
            }
        }
    }

    #[test]
    fn help_lists_states_and_keeps_what_is_everywhere_apart() {
        for (name, state) in [("task", "input_required"), ("message", "waiting")] {
            let mut cli = Cli::command();
            cli.build();
            let list = cli.find_subcommand_mut(name).unwrap().find_subcommand_mut("list").unwrap();
            let help = list.render_long_help().to_string();
            assert!(help.contains(state) && help.contains("Every command takes:"), "{help}");
        }
    }

    #[test]
    fn a_question_is_text_or_stdin_and_never_both() {
        assert!(parse("brokerctl consult --model opus --question hi").is_ok());
        assert!(parse("brokerctl consult --model opus -").is_ok());
        assert!(parse("brokerctl consult --model opus").is_err());
        assert!(parse("brokerctl consult --model opus --question hi -").is_err());
        assert!(parse("brokerctl consult --model opus hello").is_err());
    }

    #[test]
    fn impossible_values_are_refused() {
        for line in [
            "brokerctl consult -m opus - --max-cost 0",
            "brokerctl consult -m opus - --max-cost NaN",
            "brokerctl consult -m opus - --deadline soon",
            "brokerctl consult -m opus - --id 1",
            "brokerctl consult -m opus - --max-output-tokens 0",
            "brokerctl models --endpoint http://x",
            "brokerctl token create Opus",
            "brokerctl message list --state sleeping",
            "brokerctl task list --state asleep",
            "brokerctl delegate --to opus --task x --wait --detach",
            "brokerctl delegate --to opus --task x --max-tokens 0",
            "brokerctl dead-letter purge",
            "brokerctl dead-letter purge --all --to opus",
            "brokerctl queue show topic:news",
            "brokerctl ping --from opus --to sonnet --wait 26s",
            "brokerctl ping --from agent:opus --to sonnet",
            "brokerctl agent pull --wait 10m",
            "brokerctl message send --to agent:a --expires soon x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
