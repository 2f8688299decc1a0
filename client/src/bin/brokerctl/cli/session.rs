//! What is typed behind `brokerctl session`.

use std::path::PathBuf;

use broker_proto::types::{OnConflict, PackageId, Preservation, SessionId, SessionPoint, TaskList};
use clap::{Args, Subcommand, ValueEnum};

/// One command about sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// The session [default: $BROKER_SESSION, else the one last used from this folder, else a new one; stderr says which]
    #[arg(long, global = true, value_name = "ID", value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

/// One verb of `session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Begin a session and print its id
    #[command(
        after_help = "Examples:\n  brokerctl session new\n  brokerctl session new refactoring --model sonnet --title \"The parser's errors\""
    )]
    New {
        /// Its id; without one the broker draws one
        #[arg(value_name = "ID", value_parser = session_id)]
        id: Option<SessionId>,
        /// Who owns it [default: the first configured model]
        #[arg(long, short, value_name = "MODEL")]
        model: Option<String>,
        /// What it is called in lists
        #[arg(long, default_value = "", hide_default_value = true)]
        title: String,
    },
    /// Append one entry; prints its number
    #[command(
        after_help = "Examples:\n  brokerctl session append refactoring --role user \"Keep the public names.\"\n  git diff | brokerctl session append refactoring --role tool --name diff -\n  brokerctl session append --role assistant --model opus --file answer.md"
    )]
    Append(AppendArgs),
    /// Show a session: its figures, its task, its entries
    ///
    /// A point is an entry's number, `vN` for a version of `session log`, or 8 or more digits of an entry's hash.
    #[command(
        after_help = "Examples:\n  brokerctl session show refactoring\n  brokerctl session show refactoring --at 12 --output json\n  brokerctl session show --last 5"
    )]
    Show {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: At,
        /// Only the last N entries
        #[arg(long, value_name = "N")]
        last: Option<u64>,
    },
    /// List sessions, the one that changed last first
    #[command(after_help = "Examples:\n  brokerctl session list --model opus")]
    List {
        /// Only those of this owner
        #[arg(long, short, value_name = "MODEL")]
        model: Option<String>,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Show what became of a session, version by version, newest first
    #[command(after_help = "Examples:\n  brokerctl session log refactoring")]
    Log {
        #[command(flatten)]
        which: Which,
        /// How many at once
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
    },
    /// Show or change what a session is about; every change is a version
    ///
    /// LIST is one of sub-goals, constraints, decisions, next-steps, open-items, files, critical-facts, preferences.
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl session task show --session refactoring\n  brokerctl session task set goal \"Errors name their line\"\n  brokerctl session task add next-step \"write the test\"\n  brokerctl session task done next-step 4\n  brokerctl session task progress 0.4"
    )]
    Task(TaskVerb),
    /// Begin a session at a point of another one, which stays as it is; prints the new id
    #[command(
        after_help = "Examples:\n  brokerctl session fork refactoring --at 12 --model local\n  brokerctl session fork refactoring --id other-way"
    )]
    Fork {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: At,
        /// Who owns the fork [default: the owner of the origin]
        #[arg(long, short, value_name = "MODEL")]
        model: Option<String>,
        /// The id of the fork
        #[arg(long = "id", value_name = "NEW_ID", value_parser = session_id)]
        new_id: Option<SessionId>,
        /// What the fork is called in lists
        #[arg(long, default_value = "", hide_default_value = true)]
        title: String,
    },
    /// Make an earlier point the head again; nothing is lost, `session log` still names what came after it
    #[command(
        after_help = "Examples:\n  brokerctl session restore refactoring --to 12\n  brokerctl session restore refactoring --to v3 --expect 9 --on-conflict fork"
    )]
    Restore {
        #[command(flatten)]
        which: Which,
        /// The point: an entry's number, `vN`, or digits of an entry's hash
        #[arg(long, value_name = "POINT", value_parser = point)]
        to: SessionPoint,
        /// The version that you have seen; a session that is further went on meanwhile [default: the present one]
        #[arg(long, value_name = "VERSION", value_parser = version)]
        expect: Option<u64>,
        #[command(flatten)]
        conflict: ConflictArgs,
    },
    /// Show where two sessions part, and what differs in their tasks and shared contexts
    #[command(
        after_help = "Examples:\n  brokerctl session diff refactoring other-way\n  brokerctl session diff refactoring@v3 refactoring"
    )]
    Diff {
        /// A session, or a point of it as ID@POINT
        #[arg(value_name = "ID[@POINT]", value_parser = session_at)]
        one: (SessionId, SessionPoint),
        /// The other one
        #[arg(value_name = "ID[@POINT]", value_parser = session_at)]
        other: (SessionId, SessionPoint),
    },
    /// Render a session as one text for whoever reads it next
    ///
    /// First what must be kept (goal, constraints, decisions, critical facts, open items, next steps, pending
    /// subagents), then the turns that the next step needs, the newest ones among them; `…` stands where something is
    /// left out. A level that cannot hold what must be kept is refused and says what would. Tokens are counted by the
    /// reader's tokenizer where there is one, else estimated, and `tokenizer` says which.
    #[command(
        after_help = "Examples:\n  brokerctl session render refactoring --level minimal\n  brokerctl session render --level full --for gpt-4o --next \"Why does the parser drop the last line?\"\n  brokerctl session render refactoring --budget 800 --allow-missing --output json\n  brokerctl session render refactoring --summary\n\nLevels: minimal 500 tokens, standard 1,200, full 2,000, complete what the reader's window holds beside its answer.\n\nJSON: text, kept, partly, dropped (numbers of entries), must_keep_missing, tokens, tokenizer, score; summary (null, or used, refused, failed, off, not needed: why)."
    )]
    Render(RenderArgs),
    /// Take a transcript in, all of it or nothing; prints the session's id
    ///
    /// One JSON object a line, as OpenAI or Anthropic write turns: `role`, `content` (a string or blocks), `tool_calls`,
    /// `tool_call_id`, `name`, `created_at`. Each line is one entry, numbered from 0.
    #[command(
        after_help = "Examples:\n  brokerctl session import --file run.jsonl --model opus\n  my-agent --transcript | brokerctl session import --file - --session refactoring --on-conflict fork"
    )]
    Import {
        /// The transcript; `-` reads it from stdin
        #[arg(long, value_name = "FILE.jsonl")]
        file: PathBuf,
        /// Who owns a new session [default: the first configured model]
        #[arg(long, short, value_name = "MODEL")]
        model: Option<String>,
        /// What a new session is called in lists
        #[arg(long, default_value = "", hide_default_value = true)]
        title: String,
        #[command(flatten)]
        conflict: ConflictArgs,
    },
    /// Write a session as a transcript that `import` takes
    #[command(
        after_help = "Examples:\n  brokerctl session export refactoring > refactoring.jsonl\n  brokerctl session export refactoring --at 12 --file half.jsonl"
    )]
    Export {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: At,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
        /// Where it goes [default: stdout]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Stop a session between two steps, with a package to go on with
    ///
    /// What runs for it is suspended with what it has so far, at models, agents and roles; what waits is kept until its
    /// deadline; new turns and tasks are refused (SESSION_PAUSED). Prints the package.
    #[command(
        after_help = "Examples:\n  brokerctl session pause refactoring --reason 'the build is red'\n\nExit codes: 0 paused, 1 it is not running or is being handed off, 3 no such session."
    )]
    Pause {
        #[command(flatten)]
        which: Which,
        /// Why, for whoever goes on
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Say that what others wrote in a session while it was away has been checked
    ///
    /// When a session comes home, the turns of those who had it meanwhile are marked as unverified, and checking them is
    /// the first next step. Both end with this.
    #[command(
        after_help = "Examples:\n  brokerctl session verify refactoring\n\nExit codes: 0 nothing is unverified any more, 3 no such session."
    )]
    Verify {
        #[command(flatten)]
        which: Which,
    },
    /// Let a paused session go on, once its package is verified; prints where it goes on
    #[command(
        after_help = "Examples:\n  brokerctl session resume refactoring\n  brokerctl session resume --package 01JD3Q8ZK5T0V9Y2X4W6R8P1NB\n\nExit codes: 0 running, 1 it is not paused, 3 no such session or package, 6 its package has expired, is gone, or is not what was signed: --force goes on without it, as the session itself is still here."
    )]
    Resume {
        #[command(flatten)]
        which: Which,
        /// The package that it was paused with, in place of the session's id; a session that is here no more begins anew
        #[arg(long, value_name = "ID", value_parser = super::package::package)]
        package: Option<PackageId>,
        /// Go on although the package has expired or is gone
        #[arg(long)]
        force: bool,
    },
    /// Pause a session and hand it to another agent's process, where it goes on
    ///
    /// It keeps its model where the agent serves that; no other agent may take it. Where the agent does not, the session goes
    /// on with its owner; one that was paused before stays paused. From then on its turns go to that agent; while it is away
    /// they wait for it (`routing.agent_grace`), then another process of the model answers and says so.
    #[command(
        after_help = "Examples:\n  brokerctl session transfer refactoring --to opus-2\n  brokerctl session transfer refactoring --to opus-2 --no-wait --output json\n\nPrints the handoff's id, its target and its time.\n\nExit codes: 0 it goes on there (with --no-wait: it is offered), 1 the agent did not take it, is not connected, or has it, 3 no such session or agent."
    )]
    Transfer {
        #[command(flatten)]
        which: Which,
        /// The agent, as `brokerctl agents` names it
        #[arg(long, value_name = "AGENT")]
        to: String,
        /// Why, for whoever goes on
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// Return once it is offered, and not when it is known who has it
        #[arg(long)]
        no_wait: bool,
    },
    /// Delete a session for good; its forks stay
    #[command(after_help = "Examples:\n  brokerctl session delete refactoring --yes")]
    Delete {
        /// The session
        #[arg(value_name = "ID", value_parser = session_id, required_unless_present = "session")]
        id: Option<SessionId>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Values that a session shares with whoever works for it
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl session context set api.version '\"v2\"' --tag api --source review\n  brokerctl session context get api.version\n  brokerctl session context list --match 'api.*'"
    )]
    Context(ContextVerb),
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) at: At,
    /// How much of it
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    pub(crate) level: RenderLevel,
    /// Tokens at most, in place of the level's
    #[arg(long, value_name = "N")]
    pub(crate) budget: Option<u64>,
    /// Who reads it, and whose tokens these are [default: the session's owner]
    #[arg(long = "for", value_name = "MODEL")]
    pub(crate) reader: Option<String>,
    /// What the reader will be asked; `-` reads it from stdin [default: the task's next steps, its goal and the last turn of a person]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) next: String,
    /// Go on when what must be kept does not fit, and list what is missing
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Have what is left out summed up by the model of `sessions.summary_model`; used only if it keeps what must be kept
    #[arg(long)]
    pub(crate) summary: bool,
}

/// A choice of [`Preservation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RenderLevel {
    Minimal,
    #[default]
    Standard,
    Full,
    Complete,
}

impl From<RenderLevel> for Preservation {
    fn from(level: RenderLevel) -> Self {
        match level {
            RenderLevel::Minimal => Self::Minimal,
            RenderLevel::Standard => Self::Standard,
            RenderLevel::Full => Self::Full,
            RenderLevel::Complete => Self::Complete,
        }
    }
}

/// The session, as the first word or as `--session`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The session; `--session` says the same
    #[arg(value_name = "ID", value_parser = session_id)]
    pub(crate) id: Option<SessionId>,
}

/// A point of a session.
#[derive(Debug, Clone, Args)]
pub(crate) struct At {
    /// A point of it: an entry's number, `vN`, or digits of an entry's hash [default: its head]
    #[arg(long, value_name = "POINT", value_parser = point, default_value = "", hide_default_value = true)]
    pub(crate) at: SessionPoint,
}

/// What to do with a session that went on meanwhile.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConflictArgs {
    /// What to do when the session went on meanwhile: refuse and list what differs, keep it, replace it, or begin another
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_conflict: Choice,
    /// The id of the session that `--on-conflict fork` begins
    #[arg(long = "as", value_name = "ID", value_parser = session_id)]
    pub(crate) new_id: Option<SessionId>,
}

/// A choice of [`OnConflict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Choice {
    #[default]
    Fail,
    Keep,
    Replace,
    Fork,
}

impl From<Choice> for OnConflict {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Fail => Self::Fail,
            Choice::Keep => Self::Keep,
            Choice::Replace => Self::Replace,
            Choice::Fork => Self::Fork,
        }
    }
}

/// How a transcript is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object a line.
    #[default]
    Jsonl,
}

#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// The session, and the text; one word alone is the text. `-` reads the text from stdin
    #[arg(value_name = "[ID] TEXT", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
    /// Who speaks
    #[arg(long, value_enum)]
    pub(crate) role: SpeakerRole,
    /// Which of several speakers
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// The model that said it
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// A file with what was said: a text, or a picture
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Refuse unless the session still ends with this entry's hash
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub(crate) expect_head: Option<broker_proto::types::EntryHash>,
}

/// Who speaks in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpeakerRole {
    System,
    User,
    Assistant,
    Tool,
}

/// One verb of `session task`.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskVerb {
    /// Show it
    Show,
    /// Set its goal
    Set {
        /// What is set
        #[arg(value_parser = ["goal"])]
        field: String,
        /// Its text; `-` reads it from stdin, nothing takes it back
        text: String,
    },
    /// Say how much of it is done, from 0 to 1
    Progress {
        #[arg(value_name = "SHARE", value_parser = share)]
        share: f64,
    },
    /// Add an item to a list; prints its id
    Add {
        #[arg(value_name = "LIST", value_parser = list)]
        list: TaskList,
        /// Its text; `-` reads it from stdin
        text: String,
        /// The entry that states it
        #[arg(long, value_name = "N")]
        entry: Option<u64>,
    },
    /// Mark an item as done
    Done {
        #[arg(value_name = "LIST", value_parser = list)]
        list: TaskList,
        /// The item's id
        #[arg(value_name = "ITEM")]
        item: u32,
        /// It is open after all
        #[arg(long)]
        undo: bool,
    },
    /// Remove an item
    Remove {
        #[arg(value_name = "LIST", value_parser = list)]
        list: TaskList,
        /// The item's id
        #[arg(value_name = "ITEM")]
        item: u32,
    },
    /// Say what is known of a subagent whose result is waited for
    Subagent {
        /// The subagent's id
        #[arg(value_name = "SUBAGENT")]
        subagent: String,
        /// What kind it is
        #[arg(long, default_value = "", hide_default_value = true)]
        kind: String,
        /// The model it works with
        #[arg(long, short, default_value = "", hide_default_value = true)]
        model: String,
        /// How far it is
        #[arg(long, default_value = "pending")]
        status: String,
        /// What it does
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        /// Nobody waits for it any more
        #[arg(long)]
        remove: bool,
    },
}

/// One verb of `session context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// Set one value
    Set {
        key: String,
        /// JSON; `-` reads it from stdin
        #[arg(value_name = "JSON")]
        value: String,
        /// A word to find it by; may be given several times
        #[arg(long)]
        tag: Vec<String>,
        /// Who or what it came from
        #[arg(long, default_value = "", hide_default_value = true)]
        source: String,
    },
    /// Print one value
    Get { key: String },
    /// List what is shared
    List {
        /// Only these keys; `*` stands for anything
        #[arg(
            long = "match",
            value_name = "PATTERN",
            default_value = "",
            hide_default_value = true
        )]
        matching: String,
        /// Only values with this tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// Delete one value
    Delete { key: String },
}

pub(crate) fn session_id(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text)
        .map_err(|_| "1 to 64 of a-z, 0-9, `_`, `-` are a session's id".to_owned())
}

fn point(text: &str) -> Result<SessionPoint, String> {
    SessionPoint::parse(text).map_err(|invalid| invalid.to_string())
}

fn session_at(text: &str) -> Result<(SessionId, SessionPoint), String> {
    let (id, at) = text.split_once('@').unwrap_or((text, ""));
    Ok((session_id(id)?, point(at)?))
}

fn version(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    let version = digits.parse().ok().filter(|version| *version > 0);
    version.ok_or_else(|| "a version is a number from 1 on, as `session log` shows it".to_owned())
}

fn hash(text: &str) -> Result<broker_proto::types::EntryHash, String> {
    let wrong = || "an entry's hash has 64 hexadecimal digits".to_owned();
    let byte =
        |at: usize| text.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return Err(wrong());
    }
    for (at, slot) in bytes.iter_mut().enumerate() {
        *slot = byte(at).ok_or_else(wrong)?;
    }
    Ok(broker_proto::types::EntryHash(bytes))
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().map(|percent: f64| percent / 100.0),
        None => text.parse().ok(),
    };
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a share is a number from 0 to 1, or a percentage".to_owned())
}

fn list(text: &str) -> Result<TaskList, String> {
    TaskList::parse(text).ok_or_else(|| {
        let known = TaskList::ALL.map(|list| list.as_str().replace('_', "-"));
        format!("the lists are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        for text in ["../x", "a/b", ".", "", "A", "a.b"] {
            assert!(session_id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("40%"), Ok(0.4));
        for text in ["-0.1", "1.5", "NaN", "inf", "x"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_point_stands_behind_its_session() {
        let (id, at) = session_at("s@v3").unwrap();
        assert_eq!((id.as_str(), at), ("s", SessionPoint::Version(3)));
        assert_eq!(session_at("s").unwrap().1, SessionPoint::Head);
        assert!(session_at("s@../x").is_err());
    }
}
