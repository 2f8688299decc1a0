//! What is typed.

mod agent;
mod bridge;
mod chat;
mod consult;
mod dead_letter;
mod global;
mod handoff;
mod house;
mod message;
mod misused;
mod package;
mod queue;
mod rotation;
mod session;
mod task;
mod usage;
mod value;
mod written;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::{
    agent::{AgentCommand, SettleArgs, TokenCommand},
    bridge::{BridgeCommand, EndsArgs},
    chat::ChatArgs,
    consult::{AttachArgs, ConsultArgs, ExplainArgs, PollArgs, QuestionArgs, SubmitArgs},
    dead_letter::{DeadLetterCommand, LetterArgs},
    global::{Global, GlobalArgs, user_file},
    handoff::{
        CheckArgs, CompleteArgs, ConfigArgs, ExecuteArgs, GenerateArgs, HandoffCommand,
        HandoffStatusArgs, HistoryArgs, InitArgs, ModelsArgs, OfSession, OfferArgs, SayArgs,
        ShowArgs, ValidateArgs, WhichHandoff, with_limits,
    },
    house::{ClockCommand, DemoArgs, DoctorArgs, DrainArgs, EventsCommand, PingArgs, UpArgs},
    message::{Concern, Expiry, Kind, Level, MessageCommand, SendArgs},
    misused::Misused,
    package::{PackagesArgs, PlaceArgs, PrepareArgs, RestoreArgs, SaveArgs, Since, TrustCommand},
    queue::QueueCommand,
    rotation::RotationCommand,
    session::{
        AppendArgs, ConflictArgs, ContextVerb, ExportFormat, RenderArgs, SessionArgs,
        SessionCommand, SpeakerRole, TaskVerb, Which, session_id,
    },
    task::{DelegateArgs, TaskCommand},
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{value::recipient, *};

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
