//! `session context ...`: what a session shares.

use broker_proto::types::{SessionId, SharedValue, WallTime};

use super::{chosen, json, show};
use crate::{
    cli::{ContextVerb, Global, Misused},
    commands::{connect, consult::input::from_stdin},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs one verb.
pub(super) async fn run(
    global: &Global,
    session: Option<SessionId>,
    verb: ContextVerb,
) -> anyhow::Result<Exit> {
    let verb = match verb {
        ContextVerb::Set { key, value, tag, source } => {
            ContextVerb::Set { key, value: from_stdin(value)?.trim().to_owned(), tag, source }
        }
        other => other,
    };
    let client = connect(global).await?;
    let id = chosen(global, &client, session).await?;
    let info = match verb {
        ContextVerb::Set { key, value, tag: tags, source } => {
            let value = SharedValue { key, value, source, tags, set_at: WallTime(0) };
            client.set_shared_value(&id, value).await?
        }
        ContextVerb::Delete { key } => client.delete_shared_value(&id, &key).await?,
        ContextVerb::Get { key } => {
            let values = client.shared_values(&id, "").await?;
            let value = values.into_iter().find(|value| value.key == key);
            let Some(value) = value else { return Err(Misused::NoSharedValue(key).into()) };
            match global.output {
                Format::Json => output::json(&json::shared(&value))?,
                Format::Text => output::line(&value.value)?,
            }
            return Ok(Exit::Done);
        }
        ContextVerb::List { matching, tag } => {
            let mut values = client.shared_values(&id, &matching).await?;
            values.retain(|value| tag.as_ref().is_none_or(|tag| value.tags.contains(tag)));
            match global.output {
                Format::Json => {
                    let values: Vec<_> = values.iter().map(json::shared).collect();
                    output::json(&serde_json::json!({ "id": id.as_str(), "values": values }))?;
                }
                Format::Text => show::shared(&values)?,
            }
            return Ok(Exit::Done);
        }
    };
    match global.output {
        Format::Json => output::json(&json::info(&info))?,
        Format::Text => output::note(&format!("session {id} is at v{}", info.version)),
    }
    Ok(Exit::Done)
}
