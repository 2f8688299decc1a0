//! What is typed behind `brokerctl rotation`.

use std::time::Duration;

use broker_proto::types::{AgentName, Pick, RoleName};
use clap::{Args, Subcommand, ValueEnum};

use super::value::{agent_name, role};

/// One verb of `rotation`.
#[derive(Debug, Subcommand)]
pub(crate) enum RotationCommand {
    /// Show rings: who works, how each member stands, who comes next
    ///
    /// LINK says what a member can be reached by: `open` is a link of its own; `hook` an entry of `wakes`, `standby` a
    /// process that stands by, which start it when its turn comes; `-` is nothing, and it is not asked. A ring that is
    /// stopped says why for each member, when it goes on by itself, and what helps.
    #[command(
        after_help = "Examples:\n  brokerctl rotation show\n  brokerctl rotation show --role builder --output json | jq '.rotations[0].members'"
    )]
    Show {
        /// Only this ring
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Option<RoleName>,
    },
    /// Say who is in a ring, in their order, and how it goes round; or put it off
    ///
    /// While a ring is on, its owner alone is given what waits for the role. The owner hands on at its third rate limit
    /// within a minute, when its replies are slow or fail, when all its models have reached a limit, when nothing is
    /// heard of it, and when somebody says so. What is left out stays as it was.
    #[command(
        after_help = "Examples:\n  brokerctl rotation set --role builder --members pc1,pc2,pc3\n  brokerctl rotation set --role builder --pick least-used --pause 10m\n  brokerctl rotation set --role builder --off\n\nExit codes: 0 done, 2 a ring cannot be like that (a member twice, a pause below the accept deadline, a pick that is none), 3 no such agent or ring."
    )]
    Set(SetArgs),
    /// Let the owner hand on now
    ///
    /// A member that only pauses is asked too, also one that handed on after rate limits: whoever forces it knows better.
    /// One whose models have reached a limit, that is drained, or that is not there and nothing wakes, is not. Prints how far it came at
    /// once: an incoming member may have to be woken.
    #[command(
        after_help = "Examples:\n  brokerctl rotation force --role builder\n  brokerctl rotation force --role builder --to pc3 --reason 'pc1 is restarted'\n\nExit codes: 0 begun, 1 it is off, under way, or nobody can take it, 3 no such ring."
    )]
    Force {
        /// The ring; not needed where there is only one
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Option<RoleName>,
        /// This member and no other
        #[arg(long, value_name = "AGENT", value_parser = agent_name)]
        to: Option<AgentName>,
        /// Why, for the events
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The role whose agents they are; not needed where there is only one ring
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub(crate) role: Option<RoleName>,
    /// Its members, in their order
    #[arg(long, value_name = "AGENT,..", value_delimiter = ',', value_parser = agent_name)]
    pub(crate) members: Vec<AgentName>,
    /// Who is asked first
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) pick: Option<PickBy>,
    /// How long whoever handed on is not asked again [default: rotation.pause]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) pause: Option<Duration>,
    /// Every agent of the role takes from its queue again
    #[arg(long, conflicts_with_all = ["members", "pick", "pause"])]
    pub(crate) off: bool,
}

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PickBy {
    /// The next one behind the owner
    Next,
    /// The one that is furthest from a limit, among those the one that has worked least
    LeastUsed,
}

impl From<PickBy> for Pick {
    fn from(pick: PickBy) -> Self {
        match pick {
            PickBy::Next => Self::Next,
            PickBy::LeastUsed => Self::LeastUsed,
        }
    }
}
