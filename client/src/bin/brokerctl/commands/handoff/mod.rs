//! `handoff`: giving work away with what it needs to go on. One file per verb.

pub(crate) mod file;
mod generate;
mod validate;

use crate::{
    cli::{Global, HandoffCommand},
    exit_code::Exit,
};

/// Runs one verb.
pub(crate) async fn run(global: &Global, command: HandoffCommand) -> anyhow::Result<Exit> {
    match command {
        HandoffCommand::Generate(args) => generate::run(global, &args),
        HandoffCommand::Validate(args) => validate::run(global, &args),
    }
}
