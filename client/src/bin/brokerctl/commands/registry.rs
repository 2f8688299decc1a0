//! `models`, `agents`: who is there.

use broker_proto::types::{ModelInfo, WallTime};
use serde::Serialize;

use super::{connect, consult};
use crate::{
    cli::Global,
    exit_code::Exit,
    output::{self, Format},
};

/// One model of `models --output json`, which scripts rely on.
#[derive(Debug, Serialize)]
struct ModelRow {
    name: String,
    provider: String,
    id: String,
    context_window: u64,
    level: String,
    reason: String,
    simulated: bool,
}

impl From<ModelInfo> for ModelRow {
    fn from(model: ModelInfo) -> Self {
        Self {
            name: model.name.to_string(),
            provider: model.provider,
            id: model.id,
            context_window: model.context_window,
            level: model.level,
            reason: model.reason,
            simulated: model.is_simulated,
        }
    }
}

/// Lists the models.
pub(crate) async fn models(global: &Global) -> anyhow::Result<Exit> {
    let models = connect(global).await?.models().await?;
    if global.output == Format::Json {
        let models: Vec<ModelRow> = models.into_iter().map(ModelRow::from).collect();
        output::json(&serde_json::json!({ "models": models }))?;
        return Ok(Exit::Done);
    }
    let now = consult::now();
    let rows = models.into_iter().map(|model| {
        let mark = if model.is_simulated { " [simulated]" } else { "" };
        let (level, state) = level_and_state(&model, now);
        let fallback: Vec<&str> = model.fallback.iter().map(|name| name.as_str()).collect();
        [
            format!("{}{mark}", model.name),
            model.provider,
            model.id,
            model.context_window.to_string(),
            level,
            state,
            model.agents.to_string(),
            format!("{} + {}", model.queued, model.leased),
            fallback.join(" → "),
        ]
    });
    let header = [
        "MODEL",
        "PROVIDER",
        "ID",
        "WINDOW",
        "LEVEL",
        "STATE",
        "AGENTS",
        "QUEUED + LEASED",
        "FALLBACK",
    ];
    output::line(&output::table(header, rows))?;
    Ok(Exit::Done)
}

/// What a model's level is and why, and whether it is called. A level takes no model out of use by itself.
fn level_and_state(model: &ModelInfo, now: WallTime) -> (String, String) {
    let ModelInfo { level, reason, .. } = model;
    if model.is_available {
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        return (format!("{level}{why}"), "available".to_owned());
    }
    let mut state = reason.clone();
    if let Some(at) = model.unavailable_until {
        let at = output::clock(at, now);
        if !state.contains(&at) {
            state.push_str(&format!(", until {at}"));
        }
    }
    (level.clone(), state)
}

/// Lists the agents.
pub(crate) async fn agents(global: &Global) -> anyhow::Result<Exit> {
    let agents = connect(global).await?.agents().await?;
    if global.output == Format::Json {
        let agents: Vec<_> = agents
            .iter()
            .map(|agent| {
                serde_json::json!({
                    "name": agent.name.to_string(),
                    "connected": agent.is_connected,
                    "exclusive": agent.is_exclusive,
                    "models": agent.models.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "roles": agent.roles.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "capacity": agent.capacity,
                    "leased": agent.leased,
                    "free_credit": agent.free_credit,
                    "since": output::rfc3339(agent.since),
                    "instance": agent.instance,
                    "draining": agent.is_draining,
                })
            })
            .collect();
        output::json(&serde_json::json!({ "agents": agents }))?;
        return Ok(Exit::Done);
    }
    let now = consult::now();
    let rows = agents.into_iter().map(|agent| {
        let models: Vec<&str> = agent.models.iter().map(|name| name.as_str()).collect();
        let roles: Vec<&str> = agent.roles.iter().map(|role| role.as_str()).collect();
        [
            agent.name.to_string(),
            match (agent.is_connected, agent.is_draining) {
                (true, true) => "draining",
                (true, false) => "connected",
                (false, _) => "gone",
            }
            .to_owned(),
            models.join(", "),
            roles.join(", "),
            format!("{} of {}", agent.leased, agent.capacity),
            if agent.is_exclusive { "exclusive" } else { "shared" }.to_owned(),
            output::clock(agent.since, now),
        ]
    });
    let header = ["AGENT", "LINK", "MODELS", "ROLES", "WORKING ON", "NAME", "SINCE"];
    output::line(&output::table(header, rows))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use broker_proto::types::ModelName;

    use super::*;

    fn opus() -> ModelInfo {
        ModelInfo {
            name: ModelName::parse("opus").unwrap(),
            provider: "anthropic".into(),
            id: "claude".into(),
            context_window: 1_000,
            level: "HEALTHY".into(),
            is_available: true,
            reason: String::new(),
            is_simulated: true,
            is_degraded: false,
            has_vision: true,
            unavailable_until: None,
            agents: 1,
            queued: 0,
            leased: 0,
            fallback: vec![],
        }
    }

    #[test]
    fn a_levels_reason_stands_with_the_level_and_not_with_the_state() {
        let now = WallTime(1_795_255_200_000);
        let shown = |model: ModelInfo| level_and_state(&model, now);
        let pair = |level: &str, state: &str| (level.to_owned(), state.to_owned());
        assert_eq!(shown(opus()), pair("HEALTHY", "available"));
        let warned = ModelInfo { level: "WARNING".into(), reason: "75 of 100 5h".into(), ..opus() };
        assert_eq!(shown(warned.clone()), pair("WARNING: 75 of 100 5h", "available"));
        let shut = ModelInfo {
            is_available: false,
            reason: "rate limited".into(),
            unavailable_until: Some(now),
            ..warned
        };
        assert_eq!(shown(shut), pair("WARNING", "rate limited, until 10:00:00 UTC"));
    }

    #[test]
    fn a_model_has_exactly_these_keys_for_scripts() {
        let want = serde_json::json!({
            "name": "opus", "provider": "anthropic", "id": "claude", "context_window": 1_000,
            "level": "HEALTHY", "reason": "", "simulated": true,
        });
        assert_eq!(serde_json::to_value(ModelRow::from(opus())).unwrap(), want);
    }
}
