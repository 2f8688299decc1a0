//! `handoff`: giving work away with what it needs to go on. One file per verb.

mod answer;
mod bridge;
mod check;
mod config;
mod execute;
pub(crate) mod file;
mod generate;
mod history;
mod init;
mod list;
pub(crate) mod moved;
mod offer;
mod package;
mod prepare;
mod report;
mod save;
mod show;
mod status;
mod trust;
mod validate;

use broker_client::Client;

use self::execute::Manner;
use crate::{
    cli::{ExecuteArgs, Global, HandoffCommand},
    exit_code::Exit,
};

/// Hands a session over and waits for it, as `handoff execute` does.
pub(crate) async fn execute(
    global: &Global,
    client: &Client,
    args: ExecuteArgs,
) -> anyhow::Result<Exit> {
    execute::with(global, client, args, Manner::Asked).await
}

/// Runs one verb.
pub(crate) async fn run(global: &Global, command: HandoffCommand) -> anyhow::Result<Exit> {
    match command {
        HandoffCommand::Init(args) => init::run(global, args).await,
        HandoffCommand::Save(args) => save::run(global, *args).await,
        HandoffCommand::Prepare(args) => prepare::run(global, *args).await,
        HandoffCommand::Offer(args) => offer::run(global, args).await,
        HandoffCommand::Accept(which) => answer::accept(global, which).await,
        HandoffCommand::Decline(args) => answer::decline(global, args).await,
        HandoffCommand::Complete(args) => answer::complete(global, args).await,
        HandoffCommand::GiveBack(args) => answer::give_back(global, args).await,
        HandoffCommand::Execute(args) => execute::run(global, args, Manner::Asked).await,
        HandoffCommand::Force(args) => execute::run(global, args, Manner::Forced).await,
        HandoffCommand::History(args) => history::run(global, args).await,
        HandoffCommand::Load { id } => package::load(global, id).await,
        HandoffCommand::Restore(args) => package::restore(global, args).await,
        HandoffCommand::List(args) => list::run(global, args).await,
        HandoffCommand::Show(args) => show::run(global, args).await,
        HandoffCommand::Delete { id } => package::delete(global, id).await,
        HandoffCommand::Export { id, file } => package::export(global, id, &file).await,
        HandoffCommand::Import { file } => package::import(global, &file).await,
        HandoffCommand::Verify { file } => package::verify(global, &file).await,
        HandoffCommand::Report { id, template } => {
            report::run(global, id, template.as_deref()).await
        }
        HandoffCommand::Bridge(command) => bridge::run(global, command).await,
        HandoffCommand::Trust(command) => trust::run(global, command).await,
        HandoffCommand::Generate(args) => generate::run(global, &args),
        HandoffCommand::Validate(args) => validate::run(global, &args),
        HandoffCommand::Config(args) => config::config(global, args).await,
        HandoffCommand::Models(args) => config::models(global, args).await,
        HandoffCommand::Status(args) => status::run(global, args).await,
        HandoffCommand::Check(args) => check::run(global, args).await,
    }
}
