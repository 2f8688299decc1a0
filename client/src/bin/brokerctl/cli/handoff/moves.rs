//! What is typed about sessions that move: offers, answers to them, and what became of them.

use broker_proto::types::{
    AgentName, HandoffId, HandoffState, ModelName, PackageId, Preservation, SessionId,
};
use clap::Args;

use super::super::package::{level, named, package, session};

/// The session that a command about handoffs is about.
#[derive(Debug, Args)]
pub(crate) struct OfSession {
    /// The session [default: $BROKER_SESSION, else the one last used from this folder; stderr says which]
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
}

#[derive(Debug, Args)]
pub(crate) struct OfferArgs {
    #[command(flatten)]
    pub(crate) of: OfSession,
    /// The model that is to go on [default: the broker chooses]
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) to: Option<ModelName>,
    /// The only agent that may take it [default: any of the model's]
    #[arg(long, value_name = "NAME", value_parser = agent)]
    pub(crate) agent: Option<AgentName>,
    /// How much of the conversation goes along [default: handoff.preserve]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub(crate) preserve: Option<Preservation>,
    /// A package of this session that is there already [default: one is made]
    #[arg(long, value_name = "ID", value_parser = package)]
    pub(crate) package: Option<PackageId>,
    /// Why, on one line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Without regard to cool-down, hops and loops
    #[arg(long)]
    pub(crate) force: bool,
}

/// One handoff: by its id, else the one that its session is in.
#[derive(Debug, Args)]
pub(crate) struct WhichHandoff {
    /// The handoff [default: the session's last one]
    #[arg(value_name = "ID", value_parser = handoff)]
    pub(crate) id: Option<HandoffId>,
    #[command(flatten)]
    pub(crate) of: OfSession,
}

#[derive(Debug, Args)]
pub(crate) struct SayArgs {
    #[command(flatten)]
    pub(crate) which: WhichHandoff,
    /// Why, on one line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    #[command(flatten)]
    pub(crate) which: WhichHandoff,
    /// What became of it, on one line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) outcome: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExecuteArgs {
    #[command(flatten)]
    pub(crate) of: OfSession,
    /// The model that is to go on [default: that of the package prepared last, else the broker chooses]
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) to: Option<ModelName>,
    /// Why, on one line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// How much of the conversation goes along, where a package is made [default: handoff.preserve]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub(crate) preserve: Option<Preservation>,
    /// Return once it is begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// `show` may be written, and changes nothing
    #[arg(value_name = "show", value_parser = ["show"], hide = true)]
    pub(crate) show: Option<String>,
    /// Only of this session [default: of all]
    #[arg(long, value_name = "ID", value_parser = session)]
    pub(crate) session: Option<SessionId>,
    /// Only from this model or to it
    #[arg(long, value_name = "MODEL", value_parser = named)]
    pub(crate) model: Option<ModelName>,
    /// Only in this state, such as ACTIVE
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub(crate) state: Option<HandoffState>,
    /// How many at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Where the page before ended
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The id of a handoff or of a package [default: the session's last handoff]
    #[arg(value_name = "ID", value_parser = handoff)]
    pub(crate) id: Option<HandoffId>,
    #[command(flatten)]
    pub(crate) of: OfSession,
    /// How the handoff went: the parts that the receiver confirmed, what its first reply contradicts or asks for again
    #[arg(long)]
    pub(crate) report: bool,
}

fn handoff(text: &str) -> Result<HandoffId, String> {
    HandoffId::parse(text).ok_or_else(|| {
        "an id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()
    })
}

fn agent(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|invalid| format!("`{text}` {invalid}"))
}

fn state(text: &str) -> Result<HandoffState, String> {
    HandoffState::parse(&text.to_uppercase()).ok_or_else(|| {
        let known: Vec<&str> = HandoffState::ALL.iter().map(|state| state.as_str()).collect();
        format!("is not one of {}", known.join(", "))
    })
}
