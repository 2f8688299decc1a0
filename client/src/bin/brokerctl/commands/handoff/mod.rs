//! `handoff`: giving work away with what it needs to go on. One file per verb.

use crate::{
    cli::{Global, HandoffCommand},
    exit_code::Exit,
};

/// Runs one verb.
pub(crate) async fn run(_global: &Global, command: HandoffCommand) -> anyhow::Result<Exit> {
    match command {}
}
