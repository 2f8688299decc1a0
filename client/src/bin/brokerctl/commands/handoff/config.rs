//! `handoff config` and `handoff models`: when sessions move, and who receives them.

use std::collections::BTreeMap;

use broker_client::Client;
use broker_proto::types::{HandoffOutlook, HandoffPolicyChange, Preservation, UsageSetting};
use serde_json::{Map, Value, json};

use super::status;
use crate::{
    cli::{ConfigArgs, Global, ModelsArgs},
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

/// How the limit of one model begins; its name follows.
const LIMIT: &str = "limit.";

pub(super) async fn config(global: &Global, args: ConfigArgs) -> anyhow::Result<Exit> {
    let mut set = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        set.extend(value.map(|value| (key.to_owned(), value)));
    };
    put("auto", args.auto.map(|auto| auto.to_string()));
    put("auto_switch", args.auto_switch.map(|switch| switch.to_string()));
    put("preserve", args.preserve.map(|level| Preservation::from(level).as_str().to_owned()));
    put("checkpoint_every", args.checkpoint_every);
    for (model, percent) in args.limits {
        put(&format!("{LIMIT}{model}"), Some(percent));
    }
    let change = HandoffPolicyChange { set, unset: args.unset, ..HandoffPolicyChange::default() };
    let client = connect(global).await?;
    // A session that nobody knows is told before anything is set.
    let session = session(&client, args.session).await?;
    let settings = changed(&client, change).await?;
    match global.output {
        Format::Json => output::json(&with_session(json_of(&settings), session.as_ref()))?,
        Format::Text => {
            let header = ["SETTING", "VALUE", "FILE", ""];
            output::line(&output::table(header, settings.iter().map(row)))?;
            session.iter().try_for_each(|it| output::line(&status::of_session(it)))?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn models(global: &Global, args: ModelsArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let session = session(&client, args.session).await?;
    let change = HandoffPolicyChange {
        add_receivers: args.add,
        remove_receivers: args.remove,
        ..HandoffPolicyChange::default()
    };
    let settings = changed(&client, change).await?;
    let receivers = settings.iter().find(|setting| setting.key == "receivers");
    let is_overridden = receivers.is_some_and(|setting| setting.is_overridden);
    let status = client.handoff_status(None).await?;
    match global.output {
        Format::Json => {
            let models = status.models.iter().map(|model| {
                json!({ "model": model.name, "receives": model.receives, "level": model.level })
            });
            let models: Vec<Value> = models.collect();
            let all = json!({ "models": models, "overridden": is_overridden });
            output::json(&with_session(all, session.as_ref()))?;
        }
        Format::Text => {
            let rows = status.models.iter().map(|model| {
                let receives = if model.receives { "yes" } else { "no" };
                [model.name.clone(), receives.to_owned(), model.level.clone()]
            });
            output::line(&output::table(["MODEL", "RECEIVES", "LEVEL"], rows))?;
            session.iter().try_for_each(|it| output::line(&status::of_session(it)))?;
            if is_overridden {
                output::note(
                    "this overrides the file; `handoff config --unset receivers` undoes it",
                );
            }
        }
    }
    Ok(Exit::Done)
}

/// How near the session that was named is to a move.
async fn session(
    client: &Client,
    named: Option<String>,
) -> Result<Option<HandoffOutlook>, broker_client::Error> {
    let Some(named) = named else { return Ok(None) };
    Ok(client.handoff_status(Some(&named)).await?.sessions.into_iter().next())
}

fn with_session(mut all: Value, session: Option<&HandoffOutlook>) -> Value {
    if let Some(session) = session {
        all["session"] = status::json_of(session, "session");
    }
    all
}

async fn changed(
    client: &Client,
    change: HandoffPolicyChange,
) -> Result<Vec<UsageSetting>, broker_client::Error> {
    if change == HandoffPolicyChange::default() {
        return client.handoff_policy().await;
    }
    client.set_handoff_policy(change).await
}

/// Each setting by its name, with the limits that are set by model, and all of them with what the file says.
fn json_of(settings: &[UsageSetting]) -> Value {
    let mut all = Map::new();
    let mut limits = Map::new();
    for setting in settings {
        match setting.key.strip_prefix(LIMIT) {
            Some(model) => {
                let percent = setting.value.trim_end_matches('%').parse::<u8>().ok();
                limits.extend(percent.map(|percent| (model.to_owned(), json!(percent))));
            }
            None => {
                all.insert(setting.key.clone(), value(setting));
            }
        }
    }
    all.insert("limits".into(), limits.into());
    let settings = settings.iter().map(|setting| {
        json!({
            "key": setting.key,
            "value": setting.value,
            "file": setting.file,
            "overridden": setting.is_overridden,
        })
    });
    all.insert("settings".into(), settings.collect());
    all.into()
}

fn value(setting: &UsageSetting) -> Value {
    match (setting.key.as_str(), setting.value.as_str()) {
        (_, "true") => json!(true),
        (_, "false") => json!(false),
        ("checkpoint_every", "off") => Value::Null,
        ("receivers", names) if names != "all" => json!(names.split(',').collect::<Vec<_>>()),
        (_, value) => json!(value),
    }
}

fn row(setting: &UsageSetting) -> [String; 4] {
    let mark = if setting.is_overridden { "overrides the file" } else { "" };
    [
        setting.key.clone(),
        setting.value.clone(),
        setting.file.clone().unwrap_or_else(|| "-".to_owned()),
        mark.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str) -> UsageSetting {
        UsageSetting { key: key.into(), value: value.into(), file: None, is_overridden: false }
    }

    #[test]
    fn programs_read_values_and_people_words() {
        let all = [
            setting("auto", "true"),
            setting("checkpoint_every", "off"),
            setting("receivers", "opus,local"),
            setting("limit.opus", "80%"),
            setting("limit.local", "none"),
        ];
        let json = json_of(&all);
        assert_eq!(json["auto"], true);
        assert_eq!(json["checkpoint_every"], Value::Null);
        assert_eq!(json["receivers"], json!(["opus", "local"]));
        assert_eq!(json["limits"], json!({ "opus": 80 }));
        assert_eq!(json["settings"].as_array().map(Vec::len), Some(5));
    }
}
