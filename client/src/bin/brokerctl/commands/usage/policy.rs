//! `usage policy`: the settings that make levels of usage.

use broker_proto::types::UsageSetting;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn show(global: &Global) -> anyhow::Result<Exit> {
    let settings = connect(global).await?.usage_policy().await?;
    print(global, &settings)
}

pub(super) async fn set(
    global: &Global,
    set: Vec<(String, String)>,
    unset: Vec<String>,
) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let settings = client.set_usage_policy(set.into_iter().collect(), unset).await?;
    print(global, &settings)
}

fn print(global: &Global, settings: &[UsageSetting]) -> anyhow::Result<Exit> {
    match global.output {
        Format::Json => {
            let settings: Vec<Value> = settings.iter().map(json).collect();
            output::json(&json!({ "settings": settings }))?;
        }
        Format::Text => {
            let header = ["SETTING", "VALUE", "FILE", ""];
            output::line(&output::table(header, settings.iter().map(row)))?;
        }
    }
    Ok(Exit::Done)
}

fn json(setting: &UsageSetting) -> Value {
    json!({
        "key": setting.key,
        "value": setting.value,
        "file": setting.file,
        "overridden": setting.is_overridden,
    })
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
