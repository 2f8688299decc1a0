//! Which models there are to hand sessions to: by their keys, by an Ollama that answers, by a broker that runs.
//!
//! Invariant: of a key only whether it is set is looked at; no provider is called.

use std::{collections::BTreeMap, fs};

use broker_config::{Config, Model, Provider};
use broker_proto::types::ModelInfo;

use crate::{
    commands::{
        folder::PrivateFolder,
        up::{
            Programs,
            found::{self, Checked},
        },
    },
    output,
};

/// A configured model, and what speaks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) is_found: bool,
    /// Answers on this machine, without a key.
    pub(super) is_local: bool,
    /// What was found, or what is missing.
    pub(super) detail: String,
    /// What helps, where it was not found.
    pub(super) remedy: Option<String>,
}

/// Looks for every configured model; `served` is what a running broker says of its own.
pub(super) async fn look(config: &Config, served: &[ModelInfo]) -> Vec<Candidate> {
    let checked = ask_without_keys(config).await.unwrap_or_else(|err| {
        output::note(&format!("cannot look for local models: {}", output::sentence(&err)));
        BTreeMap::new()
    });
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|key| !key.is_empty());
    let models = config.models.iter();
    models.map(|model| candidate(model, checked.get(&model.name), served, is_set)).collect()
}

/// What needs no key is asked by the agents' own program: an Ollama for the list of what it has.
async fn ask_without_keys(config: &Config) -> anyhow::Result<BTreeMap<String, Checked>> {
    let models = config.models.iter().filter(|model| model.api_key_env.is_none());
    let names: Vec<&str> = models.map(|model| model.name.as_str()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let folder = PrivateFolder::make("init")?;
    let file = folder.path().join("effective.toml");
    fs::write(&file, config.to_toml())?;
    let found = found::look(&Programs::beside_this()?, &file, &names).await?;
    Ok(found.models.into_iter().map(|model| (model.name.clone(), model)).collect())
}

fn candidate(
    model: &Model,
    checked: Option<&Checked>,
    served: &[ModelInfo],
    is_set: impl Fn(&str) -> bool,
) -> Candidate {
    let (is_found, detail, remedy) = match (&model.api_key_env, checked) {
        (Some(variable), _) if is_set(variable) => (true, format!("{variable} is set"), None),
        (Some(variable), _) => {
            let remedy = format!("set {variable} to a key of {}", model.provider);
            (false, format!("{variable} is not set"), Some(remedy))
        }
        (None, Some(checked)) => {
            let detail = match checked.is_well() {
                true => format!("{} answers at {}", model.provider, model.base_url),
                false => checked.detail(),
            };
            (checked.is_well(), detail, checked.remedy.clone())
        }
        (None, None) => (false, "nobody asked for it".to_owned(), None),
    };
    let mut candidate = Candidate {
        name: model.name.clone(),
        provider: model.provider.to_string(),
        is_found,
        is_local: model.provider == Provider::Ollama,
        detail: one_line(&detail),
        remedy: remedy.filter(|_| !is_found).map(|remedy| one_line(&remedy)),
    };
    let running = served.iter().find(|it| it.name.as_str() == model.name && it.agents > 0);
    if let Some(running) = running.filter(|_| !is_found) {
        let mark = if running.is_simulated { " [simulated]" } else { "" };
        candidate.is_found = true;
        candidate.detail = format!("the running broker has it{mark}");
        candidate.remedy = None;
    }
    candidate
}

/// What came from outside becomes a comment of one line.
fn one_line(text: &str) -> String {
    output::printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use broker_proto::types::ModelName;

    use super::*;

    fn keyed() -> Model {
        Model {
            api_key_env: Some("OPENAI_API_KEY".into()),
            ..Model::new("gpt-4o", Provider::OpenAi, "gpt-4o")
        }
    }

    fn local() -> Model {
        Model::new("local", Provider::Ollama, "llama3.2")
    }

    fn served(name: &str, agents: u32) -> ModelInfo {
        ModelInfo {
            name: ModelName::parse(name).unwrap(),
            provider: "openai".into(),
            id: "x".into(),
            context_window: 1,
            level: "HEALTHY".into(),
            is_available: true,
            reason: String::new(),
            is_simulated: true,
            is_degraded: false,
            has_vision: false,
            unavailable_until: None,
            agents,
            queued: 0,
            leased: 0,
            fallback: Vec::new(),
        }
    }

    fn answered(status: &str, reachable: bool) -> Checked {
        serde_json::from_value(serde_json::json!({
            "name": "local", "provider": "ollama", "key": "not needed", "key_env": null,
            "reachable": reachable, "status": status,
            "problem": (status == "model_missing").then_some("not\ninstalled"),
            "remedy": (status != "ok").then_some("ollama pull llama3.2"),
        }))
        .unwrap()
    }

    #[test]
    fn a_key_is_there_or_not() {
        let found = candidate(&keyed(), None, &[], |name| name == "OPENAI_API_KEY");
        assert!(found.is_found && found.remedy.is_none(), "{found:?}");
        assert_eq!(found.detail, "OPENAI_API_KEY is set");

        let missing = candidate(&keyed(), None, &[], |_| false);
        assert!(!missing.is_found);
        assert_eq!(missing.remedy.as_deref(), Some("set OPENAI_API_KEY to a key of openai"));
    }

    #[test]
    fn a_local_model_has_to_answer_and_to_be_installed() {
        let found = candidate(&local(), Some(&answered("ok", true)), &[], |_| false);
        assert!(found.is_found && found.is_local, "{found:?}");
        for (status, reachable) in [("model_missing", true), ("unreachable", false)] {
            let missing = candidate(&local(), Some(&answered(status, reachable)), &[], |_| false);
            assert!(!missing.is_found && !missing.detail.contains('\n'), "{missing:?}");
            assert_eq!(missing.remedy.as_deref(), Some("ollama pull llama3.2"));
        }
        assert!(!candidate(&local(), None, &[], |_| false).is_found, "nobody could ask");
    }

    #[test]
    fn what_a_running_broker_has_an_agent_for_is_found() {
        let found = candidate(&keyed(), None, &[served("gpt-4o", 1)], |_| false);
        assert!(found.is_found && found.detail.ends_with("[simulated]"), "{found:?}");
        assert!(!candidate(&keyed(), None, &[served("gpt-4o", 0)], |_| false).is_found);
        assert!(!candidate(&keyed(), None, &[served("opus", 1)], |_| false).is_found);
    }
}
