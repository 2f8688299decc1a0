//! `handoff`: giving work away with what it needs to go on. One file per verb.

mod check;
mod config;
pub(crate) mod file;
mod generate;
mod list;
mod package;
mod prepare;
mod report;
mod save;
mod status;
mod trust;
mod validate;

use crate::{
    cli::{Global, HandoffCommand},
    exit_code::Exit,
};

/// Runs one verb.
pub(crate) async fn run(global: &Global, command: HandoffCommand) -> anyhow::Result<Exit> {
    match command {
        HandoffCommand::Save(args) => save::run(global, *args).await,
        HandoffCommand::Prepare(args) => prepare::run(global, *args).await,
        HandoffCommand::Load { id } => package::load(global, id).await,
        HandoffCommand::Restore(args) => package::restore(global, args).await,
        HandoffCommand::List(args) => list::run(global, args).await,
        HandoffCommand::Show { id } => package::show(global, id).await,
        HandoffCommand::Delete { id } => package::delete(global, id).await,
        HandoffCommand::Export { id, file } => package::export(global, id, &file).await,
        HandoffCommand::Import { file } => package::import(global, &file).await,
        HandoffCommand::Verify { file } => package::verify(global, &file).await,
        HandoffCommand::Report { id, template } => {
            report::run(global, id, template.as_deref()).await
        }
        HandoffCommand::Trust(command) => trust::run(global, command).await,
        HandoffCommand::Generate(args) => generate::run(global, &args),
        HandoffCommand::Validate(args) => validate::run(global, &args),
        HandoffCommand::Config(args) => config::config(global, args).await,
        HandoffCommand::Models(args) => config::models(global, args).await,
        HandoffCommand::Status(args) => status::run(global, args).await,
        HandoffCommand::Check(args) => check::run(global, args).await,
    }
}
