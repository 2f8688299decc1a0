//! What is typed behind `brokerctl handoff` about packages.

use std::{path::PathBuf, time::Duration};

use broker_proto::types::{
    Checkpoint, CheckpointStatus, ModelName, PackageId, PackageKey, Preservation, QueuedTask,
    SessionId, WallTime,
};
use clap::{Args, Subcommand};

use super::ConflictArgs;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// What is worked on; `-` reads it from stdin
    #[arg(long, value_name = "TEXT")]
    pub(crate) task: String,
    /// Files that are worked on
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) files: Vec<String>,
    /// What comes next, in order
    #[arg(long, value_name = "STEP", num_args = 1..)]
    pub(crate) steps: Vec<String>,
    /// Why it is saved
    #[arg(long, value_name = "REASON", default_value = "manual_save")]
    pub(crate) reason: String,
    /// The project it belongs to
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) project: String,
    /// The session it belongs to; only named here: `prepare` packs a session [default: $BROKER_SESSION, else the one last used from this folder, else none; stderr says which]
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
    /// The only model that may take it
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) to: Option<ModelName>,
    /// How long it may be taken [default: packages.ttl, 7 days as shipped]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// What must hold whatever else is done
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) constraints: Vec<String>,
    /// What was decided
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) decisions: Vec<String>,
    /// What is still open
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub(crate) open: Vec<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A waiting task: ID, or ID:PRIORITY:DESCRIPTION
    #[arg(long = "queue", value_name = "TASK", num_args = 1.., value_parser = queued)]
    pub(crate) queue: Vec<QueuedTask>,
    /// Tokens used so far of the model's window
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) tokens: u64,
    /// That window
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) window: u64,
    /// Free values: a JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "context_file")]
    pub(crate) context: Option<String>,
    /// A file with that object, 4 MiB at most; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) context_file: Option<PathBuf>,
    /// What the receiver is told to do first [default: made of the rest]
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) instructions: String,
    /// Who made it [default: who calls]
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) created_by: String,
    /// The version of the pipeline it comes from
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub(crate) pipeline_version: String,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The session that moves [default: $BROKER_SESSION, else the one last used from this folder; stderr says which]
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
    /// The model that is to go on
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) to: ModelName,
    /// How much of the conversation goes along: minimal (500 tokens), standard (1,200), full (2,000), complete (what fits the receiver's window)
    #[arg(long, value_name = "LEVEL", default_value = "complete", value_parser = level)]
    pub(crate) preserve: Preservation,
    /// Tokens of the conversation, in place of the level's
    #[arg(long, value_name = "N")]
    pub(crate) budget: Option<u64>,
    /// What the receiver will be asked [default: what the task says comes next]
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) next: String,
    /// List what must be kept and does not fit, in place of refusing
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Have what is left out summed up by the model of `sessions.summary_model`; used only if it keeps what must be kept
    #[arg(long)]
    pub(crate) summary: bool,
    /// Why it moves
    #[arg(long, value_name = "REASON", default_value = "user_request")]
    pub(crate) reason: String,
    /// The project it belongs to
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) project: String,
    /// How long it may be taken [default: packages.ttl, 7 days as shipped]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointArgs,
}

/// Where the work stands.
#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// The phase it is in, such as extraction, analysis, synthesis, validation, checkpoint, generation, finalization
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) phase: String,
    /// The phase that comes next [default: the same]
    #[arg(long, value_name = "NAME")]
    pub(crate) target_phase: Option<String>,
    /// The step it is at
    #[arg(long, value_name = "N", default_value_t = 0, requires = "total_steps")]
    pub(crate) step: u32,
    /// Of so many
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) total_steps: u32,
    /// How it stands
    #[arg(long, value_name = "STATUS", default_value = "paused", value_parser = status)]
    pub(crate) status: CheckpointStatus,
    /// Where to go on [of a session, default: its first step that is not done]
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) resume_point: String,
}

impl CheckpointArgs {
    /// The phase that comes next, and the checkpoint.
    pub(crate) fn into_parts(self) -> (String, Checkpoint) {
        let Self { phase, target_phase, step, total_steps, status, resume_point } = self;
        let target = target_phase.unwrap_or_else(|| phase.clone());
        (target, Checkpoint { phase, step, total_steps, status, resume_point })
    }
}

/// Where the work stands, and what of it is under way.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointArgs,
    /// The piece of work under way
    #[arg(long, value_name = "ID", default_value = "")]
    pub(crate) work: String,
    /// How far that is, such as 50%
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) progress: String,
    /// What of it is done
    #[arg(long, value_name = "SUBTASK", num_args = 1..)]
    pub(crate) done: Vec<String>,
    /// What of it comes next
    #[arg(long, value_name = "SUBTASK", default_value = "")]
    pub(crate) next: String,
}

#[derive(Debug, Args)]
pub(crate) struct PackagesArgs {
    /// Only of this session
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Only from this model or for it
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) model: Option<ModelName>,
    /// Only what may still be taken
    #[arg(long, conflicts_with = "expired")]
    pub(crate) active: bool,
    /// Only what has expired
    #[arg(long)]
    pub(crate) expired: bool,
    /// Only newer ones: 2026-11-20T18:00:00Z, or 2h for the last two hours
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) created_after: Option<Since>,
    /// How many at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Where the page before ended
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page: Option<String>,
}

/// A moment, as people name one that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    At(WallTime),
    Ago(Duration),
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The package's id
    #[arg(value_name = "ID", value_parser = package)]
    pub(crate) id: PackageId,
    /// The session it goes into [default: its own, else a new one]
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
    #[command(flatten)]
    pub(crate) conflict: ConflictArgs,
}

/// One verb of `handoff trust`.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Take packages that are signed with this key
    #[command(
        after_help = "Examples:\n  brokerctl handoff trust add laptop ed25519:9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    )]
    Add {
        /// A name for it: 1 to 64 of a-z, 0-9, `_`, `-`
        #[arg(value_name = "NAME")]
        name: String,
        /// The key, as `trust list` shows it there under `self`
        #[arg(value_name = "KEY", value_parser = key)]
        key: PackageKey,
    },
    /// List the keys whose packages are taken; `self` is this broker's own
    #[command(after_help = "Examples:\n  brokerctl handoff trust list --output json")]
    List,
    /// Take them no more; what was taken stays, and is not loaded either
    #[command(after_help = "Examples:\n  brokerctl handoff trust remove laptop")]
    Remove {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) fn named(text: &str) -> Result<ModelName, String> {
    ModelName::parse(&text.to_lowercase()).map_err(|invalid| format!("`{text}` {invalid}"))
}

/// The id of a package.
pub(super) fn package(text: &str) -> Result<PackageId, String> {
    PackageId::parse(text).ok_or_else(|| {
        "a package's id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()
    })
}

pub(super) fn session(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text).map_err(|invalid| format!("`{text}` {invalid}"))
}

pub(super) fn level(text: &str) -> Result<Preservation, String> {
    Preservation::parse(text).ok_or_else(|| "is not minimal, standard, full or complete".to_owned())
}

fn key(text: &str) -> Result<PackageKey, String> {
    PackageKey::parse(text).map_err(|invalid| invalid.to_string())
}

fn status(text: &str) -> Result<CheckpointStatus, String> {
    CheckpointStatus::parse(text).ok_or_else(|| "is not paused, completed or error".to_owned())
}

fn queued(text: &str) -> Result<QueuedTask, String> {
    let mut fields = text.splitn(3, ':');
    let mut next = || fields.next().unwrap_or_default().to_owned();
    let task = QueuedTask { id: next(), priority: next(), description: next() };
    let known = ["", "low", "normal", "high", "urgent"];
    if task.id.is_empty() || !known.contains(&task.priority.as_str()) {
        return Err("is not ID or ID:PRIORITY:DESCRIPTION with low, normal, high or urgent".into());
    }
    Ok(task)
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        return Ok(Since::Ago(span));
    }
    // A day alone begins at its midnight, UTC.
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339));
    at.map(|at| Since::At(WallTime::from_system(at.into())))
        .map_err(|_| "a time such as 2026-11-20T18:00:00Z, 2026-11-20 or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_task_may_be_an_id_alone() {
        let task = |id: &str, priority: &str, description: &str| QueuedTask {
            id: id.into(),
            priority: priority.into(),
            description: description.into(),
        };
        assert_eq!(queued("docs"), Ok(task("docs", "", "")));
        assert_eq!(queued("docs:high:a: b"), Ok(task("docs", "high", "a: b")));
        assert!(queued(":high:x").is_err() && queued("docs:now:x").is_err());
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_how_long_ago_it_was() {
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7_200))));
        let day = WallTime(1_795_132_800_000);
        assert_eq!(since("2026-11-20"), Ok(Since::At(day)));
        assert_eq!(since("2026-11-20T00:00:00Z"), Ok(Since::At(day)));
        assert!(since("yesterday").is_err());
    }
}
