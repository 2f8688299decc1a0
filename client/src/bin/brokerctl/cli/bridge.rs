//! What is typed behind `brokerctl handoff bridge`.

use broker_proto::types::SessionId;
use clap::{Args, Subcommand};

use super::session_id;

/// One verb of `handoff bridge`.
#[derive(Debug, Subcommand)]
pub(crate) enum BridgeCommand {
    /// Keep a session's package for another model current from now on, turn by turn
    ///
    /// A handoff to that model is then offered at once. The bridge closes when the session moves.
    #[command(
        after_help = "Examples:\n  brokerctl handoff bridge open --session s1 --from opus --to local\n\nExit codes: 0 open, 1 refused: it is open already, --from is not the session's owner, --to is, may not receive it, or has too small a window, 3 no such session or model."
    )]
    Open {
        #[command(flatten)]
        ends: EndsArgs,
    },
    /// Make the package of a bridge now, and say how it is
    #[command(
        after_help = "Examples:\n  brokerctl handoff bridge sync --session s1 --to local\n\nExit codes: 0 current, 1 no package can be made, 3 no such bridge."
    )]
    Sync {
        #[command(flatten)]
        ends: EndsArgs,
    },
    /// Show bridges: how far each is behind in turns and tokens, its last package, its health
    #[command(
        after_help = "Examples:\n  brokerctl handoff bridge status\n  brokerctl handoff bridge status --session s1 --output json\n\nHealth: healthy, stale (the session went on, the next package is being made), broken (the last one could not be made, or its receiver could not take the session now; the reason is said)."
    )]
    Status {
        #[command(flatten)]
        ends: EndsArgs,
    },
    /// Keep it current no more
    #[command(
        after_help = "Examples:\n  brokerctl handoff bridge close --session s1 --to local\n  brokerctl handoff bridge close --session s1\n\nExit codes: 0 closed, 3 no such bridge."
    )]
    Close {
        #[command(flatten)]
        ends: EndsArgs,
    },
}

/// The ends of a bridge.
#[derive(Debug, Args)]
pub(crate) struct EndsArgs {
    /// The session [default: the one last used from here; for `status`: all]
    #[arg(long, short, value_name = "ID", value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    /// Its owner [default for `open`: whoever owns it]
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<String>,
    /// Who is to be ready
    #[arg(long, value_name = "MODEL")]
    pub(crate) to: Option<String>,
}
