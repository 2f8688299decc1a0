//! What is typed behind `brokerctl chat`.

use broker_proto::types::SessionId;
use clap::Args;

use super::session_id;

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
    /// Keep nothing of what is typed for the up arrow of later chats; without it a line that begins with a space is not kept
    #[arg(long)]
    pub(crate) no_history: bool,
}
