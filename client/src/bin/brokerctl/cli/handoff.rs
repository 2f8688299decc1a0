//! What is typed behind `brokerctl handoff`.

mod advice;
mod moves;

use std::{path::PathBuf, time::Duration};

use broker_client::orchestrator::Level;
use broker_proto::types::PackageId;
use clap::{Args, Subcommand, ValueEnum};

pub(crate) use self::advice::{
    CheckArgs, ConfigArgs, HandoffStatusArgs, InitArgs, ModelsArgs, with_limits,
};
pub(crate) use self::moves::{
    CompleteArgs, ExecuteArgs, HistoryArgs, OfSession, OfferArgs, SayArgs, ShowArgs, WhichHandoff,
};
use super::{
    Written, WrittenParser,
    bridge::BridgeCommand,
    package::{PackagesArgs, PrepareArgs, RestoreArgs, SaveArgs, TrustCommand, package},
};

/// One verb of `handoff`.
#[derive(Debug, Subcommand)]
pub(crate) enum HandoffCommand {
    /// Begin here: find the models, write settings of your own, and check
    ///
    /// Looks for the keys that the models need (whether they are set, never what they are), for an Ollama and the model
    /// it is to have, and for what a running broker serves. Writes $XDG_CONFIG_HOME/model-broker/config.toml (else below
    /// ~/.config), which `up`, `doctor` and `brokerd` read: which models may receive sessions, when sessions move, and with
    /// which local fallback. Without any model it is written all the same, and what to do is said. With a running broker
    /// it ends as `handoff check` does, otherwise it says what comes next.
    #[command(
        after_help = "Examples:\n  brokerctl handoff init\n  brokerctl handoff init --print\n  brokerctl handoff init --force --output json | jq -r '.receivers[]'\n\nExit codes: 0 written, 10 written, and the session is to be handed off now, 1 there is a file already or it cannot be written, 2 neither XDG_CONFIG_HOME nor HOME says where, 3 nothing is known of the session that was named."
    )]
    Init(InitArgs),
    /// Save what is worked on as a package that somebody else can go on with; prints its id
    ///
    /// Needs neither a session nor a model. The package is signed with this broker's key, kept, and may be taken until
    /// it expires.
    #[command(
        after_help = "Examples:\n  brokerctl handoff save --task 'Port the parser' --files src/parse.rs --steps 'Read the grammar' 'Port lists'\n  brokerctl handoff save --task 'Nightly run' --phase analysis --target-phase synthesis --step 2 --total-steps 5 --resume-point lists --reason user-requested\n  git log -1 --format=%B | brokerctl handoff save --task - --context '{\"branch\":\"port\"}' --output json\n\nExit codes: 0 saved, 2 no task or another mistake in what was typed."
    )]
    Save(Box<SaveArgs>),
    /// Pack a session for another model: rendered for it, with its task, what it shares and what it used
    ///
    /// What must be kept goes in first, then the turns that the next step needs; what was kept, kept in part and dropped is
    /// listed in it, as is what waits or runs for the session: questions, tasks, messages. The session stays as it is.
    #[command(
        after_help = "Examples:\n  brokerctl handoff prepare --session s1 --to sonnet --preserve full\n  id=$(brokerctl handoff prepare --session s1 --to local --output json | jq -r .id)\n  brokerctl handoff prepare --session s1 --to sonnet --next 'Port the lists' --phase analysis --step 2 --total-steps 5\n\nExit codes: 0 prepared, 1 the level does not hold what must be kept, 3 no such session or model, 6 the work went through too many handoffs."
    )]
    Prepare(Box<PrepareArgs>),
    /// Offer a session to another model: its package is made, and an agent of that model is asked; prints the handoff's id
    ///
    /// Returns once it is begun. The session stays with its owner until the receiver has verified the package and accepted.
    #[command(
        after_help = "Examples:\n  brokerctl handoff offer --to sonnet --session s1\n  brokerctl handoff offer --to sonnet --agent sonnet-2 --preserve full --reason 'opus is needed elsewhere'\n\nExit codes: 0 begun, 1 the session cannot go there, 3 no such session or model, 5 nobody can take it now (with the earliest time)."
    )]
    Offer(OfferArgs),
    /// Take an offered session over by hand: fetch its package, have it verified, repeat its manifest's hash
    #[command(
        after_help = "Examples:\n  brokerctl handoff accept 01JD3Q8ZK5T0V9Y2X4W6R8P1NB\n  brokerctl handoff accept --session s1\n\nExit codes: 0 accepted, 1 it is not offered now, 3 no such handoff, 6 what was received is not what was sent."
    )]
    Accept(WhichHandoff),
    /// Say no to an offer: the next candidate is asked, and without one the session stays
    #[command(
        after_help = "Examples:\n  brokerctl handoff decline 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --reason 'no room today'"
    )]
    Decline(SayArgs),
    /// Say that the new owner has taken the work up, and what became of it
    #[command(
        after_help = "Examples:\n  brokerctl handoff complete 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --outcome 'tests pass'"
    )]
    Complete(CompleteArgs),
    /// Give a session back to where it came from: a handoff of its own, which is printed
    #[command(
        after_help = "Examples:\n  brokerctl handoff give-back --session s1\n  brokerctl handoff give-back 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --reason 'opus is back'"
    )]
    GiveBack(SayArgs),
    /// Hand a session over and wait for it: to the model named, else with the package prepared last
    ///
    /// Shows how far it is and prints who owns the session then. Ctrl-C only leaves; the handoff goes on.
    #[command(
        after_help = "Examples:\n  brokerctl handoff execute --to sonnet --reason 'opus is at 90 %'\n  brokerctl handoff prepare --session s1 --to local && brokerctl handoff execute --session s1\n\nExit codes: 0 the session has its new owner, 1 it stays with the old one (stderr says why), 3 no such session or model, 5 nobody can take it now (with the earliest time), or nobody who was asked answered."
    )]
    Execute(ExecuteArgs),
    /// As `execute`, at once: also to a model near a limit of its own, and waiting for work in hand 30 s at most
    #[command(after_help = "Examples:\n  brokerctl handoff force --to local --session s1")]
    Force(ExecuteArgs),
    /// List handoffs, newest first: when, of which session, from whom to whom, why, and how it ended
    #[command(
        after_help = "Examples:\n  brokerctl handoff history --limit 5\n  brokerctl handoff history show --session s1 --output json"
    )]
    History(HistoryArgs),
    /// Print a package as JSON, verified first; without an id the newest that has not expired
    ///
    /// The document is described in docs/schema/handoff-package.schema.json.
    #[command(
        after_help = "Examples:\n  brokerctl handoff load\n  brokerctl handoff load 01JD3Q8ZK5T0V9Y2X4W6R8P1NB | jq -r .resumption_instructions\n\nExit codes: 0 done, 3 there is none, 6 refused: it has expired, or is not what was signed."
    )]
    Load {
        /// The package's id
        #[arg(value_name = "ID", value_parser = package)]
        id: Option<PackageId>,
    },
    /// Put a package into a session, to go on with it: what was rendered of its conversation, its task, what it shares
    ///
    /// A session that has something else is refused, with what differs and both heads, unless --on-conflict says what to do:
    /// keep it, replace its head (what it had stays in `session log`), or begin another.
    #[command(
        after_help = "Examples:\n  brokerctl handoff restore 01JD3Q8ZK5T0V9Y2X4W6R8P1NB\n  brokerctl handoff restore 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --session s1 --on-conflict fork --as s1-desktop\n\nExit codes: 0 done, 1 the session went on, 3 no such package, 6 refused: it has expired, or is not what was signed."
    )]
    Restore(RestoreArgs),
    /// List packages, newest first
    #[command(
        after_help = "Examples:\n  brokerctl handoff list --active\n  brokerctl handoff list --project parser --created-after 24h --output json"
    )]
    List(PackagesArgs),
    /// Show a handoff or a package: from whom, for whom, how far it is
    ///
    /// Of a handoff also what was attempted, kept and lost; of a package its parts, without their contents, and whether it
    /// can be taken.
    #[command(
        after_help = "Examples:\n  brokerctl handoff show 01JD3Q8ZK5T0V9Y2X4W6R8P1NB\n  brokerctl handoff show --session s1 --output json\n  brokerctl handoff show 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --report\n\nExit codes: 0 done, 3 there is none of this id."
    )]
    Show(ShowArgs),
    /// Forget a package
    #[command(after_help = "Examples:\n  brokerctl handoff delete 01JD3Q8ZK5T0V9Y2X4W6R8P1NB")]
    Delete {
        /// The package's id
        #[arg(value_name = "ID", value_parser = package)]
        id: PackageId,
    },
    /// Write a package's file, as it was signed, for another broker
    #[command(
        after_help = "Examples:\n  brokerctl handoff export 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --file port.pkg\n  brokerctl handoff export 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --file - | ssh laptop brokerctl handoff import -"
    )]
    Export {
        /// The package's id
        #[arg(value_name = "ID", value_parser = package)]
        id: PackageId,
        /// Where to; `-` is stdout
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take a package's file in, once; prints its id
    ///
    /// It is verified before a byte of it is unpacked: its signature by a trusted key, its expiry, its recipient, its
    /// hops, whether it was taken before, and every part.
    #[command(
        after_help = "Examples:\n  brokerctl handoff import port.pkg\n  ssh laptop cat port.pkg | brokerctl handoff import -\n\nExit codes: 0 taken, 3 no such file, 6 refused, with the reason."
    )]
    Import {
        /// The file; `-` reads it from stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a package's file as `import` does, and keep nothing
    #[command(
        after_help = "Examples:\n  brokerctl handoff verify port.pkg && scp port.pkg laptop:\n\nExit codes: 0 it can be taken, 3 no such file, 6 it is refused, with the reason."
    )]
    Verify {
        /// The file; `-` reads it from stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a package in Markdown: what, where it stands, what comes next, what was dropped
    #[command(
        after_help = "Examples:\n  brokerctl handoff report 01JD3Q8ZK5T0V9Y2X4W6R8P1NB > handoff.md\n  brokerctl handoff report 01JD3Q8ZK5T0V9Y2X4W6R8P1NB --template ours.md\n\nPlaceholders of a template: {id} {task} {project} {reason} {from} {to} {session} {level} {created_at} {expires_at} {created_by} {source_phase} {target_phase} {standing} {sub_goals} {constraints} {decisions} {open_items} {critical_facts} {next_steps} {files} {task_queue} {resumption_instructions} {dropped} {tokens} {integrity}. With any other, or when it cannot be read, the plain report is printed and stderr says why."
    )]
    Report {
        /// The package's id
        #[arg(value_name = "ID", value_parser = package)]
        id: PackageId,
        /// Markdown with placeholders [default: packages.report_template, else the plain report]
        #[arg(long, value_name = "FILE")]
        template: Option<PathBuf>,
    },
    /// Keep the package for another model current turn by turn, so that a handoff costs one delivery
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl handoff bridge open --session s1 --from opus --to local\n  brokerctl handoff bridge status"
    )]
    Bridge(BridgeCommand),
    /// Whose packages are taken
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl handoff trust list\n  brokerctl handoff trust add laptop ed25519:9d61b19d..."
    )]
    Trust(TrustCommand),
    /// Make a payload and a report from an orchestrator's state file
    ///
    /// The payload is JSON within the level's tokens: 500, 1,200 or 2,000, estimated. What must not be lost goes in
    /// first (goal, resume point, next steps; from standard on constraints, facts, decisions, open items), then work in
    /// hand, what failed and what can begin, then the rest; what has no room is counted in it. The report says the same
    /// in Markdown. Both files are replaced in one step each. Needs no broker.
    #[command(
        after_help = "Examples:\n  brokerctl handoff generate\n  brokerctl handoff generate --level full --state run/state.json --output run/payload.json --report run/report.md\n  my-orchestrator --dump | brokerctl handoff generate --state - --level minimal\n  brokerctl handoff generate --payload out.json --output json\n\nExit codes: 0 done, 1 the state has mistakes (each is named) or the level cannot hold what must be kept, 2 wrong usage, 3 no such file, 6 the file is no JSON object, over 8 MiB or too deep.\n\nPlaceholders of a template: {handoff_id} {timestamp} {project_name} {current_phase} {overall_progress} {tasks_complete} {tasks_total} {tasks_active} {tasks_failed} {level} {tokens} {token_budget} {token_method} {state_updated_at} {goal} {resume_point} {active} {failed} {next} {execution_state} {critical_context} {dag_snapshot} {file_state} {environment} {left_out} {payload_json}\n\nJSON Schemas and examples are in docs/schema/."
    )]
    Generate(GenerateArgs),
    /// Check a state, a payload, a template or a report; its content says which it is
    ///
    /// Finds missing and wrong fields by their place, a state that is too old or from the future, dependencies on
    /// nothing and in circles, placeholders that nothing fills in, and payloads over their level. Needs no broker.
    #[command(
        after_help = "Examples:\n  brokerctl handoff validate .orchestrator_state.json --max-age 4h\n  brokerctl handoff validate context_payload.json --level minimal --output json\n  brokerctl handoff validate templates/standard_handoff.md\n\nExit codes: 0 nothing found, 1 something found (each on its line, or in `findings`), 2 wrong usage, 3 no such file, 6 refused: no JSON object, no UTF-8 text, over 8 MiB, or nested too deep to be looked into."
    )]
    Validate(ValidateArgs),
    /// When sessions move by themselves: shows it, and overrides the file
    ///
    /// What is set here survives restarts, until it is unset. A limit, such as --opus-limit 80%, is where that model's
    /// limits and the windows of its sessions count as reached. A policy that contradicts itself is refused.
    #[command(
        after_help = "Examples:\n  brokerctl handoff config\n  brokerctl handoff config --auto true --auto-switch true --opus-limit 80%\n  brokerctl handoff config --preserve full --checkpoint-every 30m --output json\n  brokerctl handoff config --unset limit.opus\n\nExit codes: 0 done, 2 the policy contradicts itself, or another mistake in what was typed, 3 no such model."
    )]
    Config(ConfigArgs),
    /// Which models may receive sessions
    #[command(
        after_help = "Examples:\n  brokerctl handoff models\n  brokerctl handoff models --remove gpt-4o\n  brokerctl handoff models --add sonnet local --output json\n\nExit codes: 0 done, 2 nobody would be left, 3 no such model."
    )]
    Models(ModelsArgs),
    /// How near models and sessions are to a move, and what is recommended
    #[command(
        after_help = "Examples:\n  brokerctl handoff status\n  brokerctl handoff status --session review-7 --output json | jq '.sessions[0].recommendation'"
    )]
    Status(HandoffStatusArgs),
    /// Whether a session is to be handed off now, by its share of its model's window
    ///
    /// Yes from the warning threshold (approaching_limit; with --warning-only no, and warning_threshold_reached), always yes
    /// from the switch threshold (auto_switch_threshold_reached), else no (normal).
    #[command(
        after_help = "Examples:\n  brokerctl handoff check --session review-7\n  brokerctl handoff check --warning-only || brokerctl handoff execute\n  brokerctl handoff check --output json | jq -r .reason\n\nExit codes: 0 no, 10 yes, 3 nothing is known of the session."
    )]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Where the payload goes, `-` is stdout [default: context_payload.json]; `text` and `json` are formats of what is printed, as everywhere
    #[arg(long = "output", id = "output", value_name = "FILE", value_parser = WrittenParser, hide_possible_values = true)]
    pub(crate) output: Option<Written>,
    /// Where the payload goes, when --output names a format
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: Option<PathBuf>,
    /// Where the report goes, `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "handoff_report.md")]
    pub(crate) report: PathBuf,
    /// The orchestrator's state; `-` reads it from stdin
    #[arg(long, value_name = "FILE", default_value = ".orchestrator_state.json")]
    pub(crate) state: PathBuf,
    /// How much goes along
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "standard")]
    pub(crate) level: PayloadLevel,
    /// A Markdown template for the report; when it cannot be read, the report is a plain one
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// Shorten and leave out what must be kept when the level cannot hold it, and count it
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Say so when the state is older
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) max_age: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The file; `-` reads it from stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How old a state may be, and the state that a payload was made from
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) max_age: Duration,
    /// The level whose budget a payload must be within [default: its own]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) level: Option<PayloadLevel>,
}

/// How much of a state a payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadLevel {
    /// At most 500 tokens
    Minimal,
    /// At most 1,200 tokens
    Standard,
    /// At most 2,000 tokens
    Full,
}

impl From<PayloadLevel> for Level {
    fn from(level: PayloadLevel) -> Self {
        match level {
            PayloadLevel::Minimal => Self::Minimal,
            PayloadLevel::Standard => Self::Standard,
            PayloadLevel::Full => Self::Full,
        }
    }
}
