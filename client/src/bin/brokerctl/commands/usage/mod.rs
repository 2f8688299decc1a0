//! `usage ...`: what was used and is left, and the settings that make levels of it.

mod forecast;
mod json;
mod ledger;
mod policy;
mod record;
mod status;

use broker_client::UsageScope;
use broker_proto::types::ModelName;

use super::{connect, consult};
use crate::{
    cli::{Global, PolicyCommand, ResetArgs, UsageCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a usage command.
pub(crate) async fn run(global: &Global, command: UsageCommand) -> anyhow::Result<Exit> {
    match command {
        UsageCommand::Status(args) if args.watch => Box::pin(status::watch(global, &args)).await,
        UsageCommand::Status(args) => status::status(global, &args).await,
        UsageCommand::Forecast => forecast::forecast(global).await,
        UsageCommand::Policy(PolicyCommand::Show) => policy::show(global).await,
        UsageCommand::Policy(PolicyCommand::Set { set, unset }) => {
            policy::set(global, set, unset).await
        }
        UsageCommand::Ledger(args) => ledger::ledger(global, args).await,
        UsageCommand::Reset(args) => reset(global, args).await,
        UsageCommand::Record(command) => record::record(global, command).await,
    }
}

fn model(text: Option<String>) -> anyhow::Result<Option<ModelName>> {
    Ok(text.map(|text| consult::input::model_name(&text)).transpose()?)
}

async fn reset(global: &Global, args: ResetArgs) -> anyhow::Result<Exit> {
    let ResetArgs { model: named, key, session, namespace: _ } = args;
    let (scope, words) = match (model(named)?, key, session) {
        (Some(model), ..) => (UsageScope::Model(model.clone()), model.to_string()),
        (_, Some(key), _) => (UsageScope::Key(key.clone()), key),
        (.., Some(session)) => (UsageScope::Session(session.clone()), session),
        _ => (UsageScope::Namespace, "everything together".to_owned()),
    };
    connect(global).await?.reset_usage(scope).await?;
    match global.output {
        Format::Json => output::json(&serde_json::json!({ "reset": words }))?,
        Format::Text => output::line(&format!("what was counted for {words} begins anew"))?,
    }
    Ok(Exit::Done)
}
