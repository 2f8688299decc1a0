//! `handoff trust add|list|remove`: whose packages are taken.

use crate::{
    cli::{Global, TrustCommand},
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, command: TrustCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        TrustCommand::Add { name, key } => {
            client.trust_key(&name, key).await?;
            match global.output {
                Format::Json => {
                    output::json(&serde_json::json!({ "name": name, "key": key.to_string() }))?;
                }
                Format::Text => output::note(&format!("packages signed by {name} are taken")),
            }
        }
        TrustCommand::List => list(global, &client.trusted_keys().await?)?,
        TrustCommand::Remove { name } => {
            client.remove_trusted_key(&name).await?;
            match global.output {
                Format::Json => {
                    output::json(&serde_json::json!({ "name": name, "removed": true }))?;
                }
                Format::Text => {
                    output::note(&format!("packages signed by {name} are taken no more"));
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn list(global: &Global, keys: &[broker_proto::types::TrustedKey]) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                serde_json::json!({
                    "name": key.name, "key": key.key.to_string(), "own": key.is_own,
                    "trusted_at": key.trusted_at.and_then(output::rfc3339),
                })
            })
            .collect();
        return Ok(output::json(&serde_json::json!({ "keys": keys }))?);
    }
    let now = consult::now();
    // Wider than a table's columns, and to be copied whole.
    for key in keys {
        let since = key.trusted_at.map_or_else(
            || "this broker's own".to_owned(),
            |at| format!("since {}", output::clock(at, now)),
        );
        output::line(&format!("{}  {}  {since}", key.name, key.key))?;
    }
    Ok(())
}
