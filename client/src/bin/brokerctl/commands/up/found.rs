//! What there is to work with: which models have a key, and whether Ollama answers.
//!
//! How a provider is reached only the agents know, so `broker-agent --check` is asked.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::process::Command;

use super::{Error, Programs};
use crate::output;

/// How long the check may take: it only looks at the environment and at Ollama's door.
const WITHIN: Duration = Duration::from_secs(20);

/// What `broker-agent --check --output json` prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    pub(crate) models: Vec<Checked>,
}

/// One model, as far as it can be known without calling it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Checked {
    pub(crate) name: String,
    pub(crate) provider: String,
    /// `present`, `missing` or `not needed`.
    key: String,
    key_env: Option<String>,
    /// Whether the provider answers.
    reachable: bool,
    /// `ok`, or in a word what is not.
    status: String,
    problem: Option<String>,
    /// What helps; absent where nothing is missing.
    pub(crate) remedy: Option<String>,
}

impl Checked {
    /// Whether an agent for it is worth starting. What has a key is: a provider that is away now may come back, and a
    /// key that is rejected or a model that is not installed is told by the broker. What needs no key has to answer.
    pub(crate) fn is_usable(&self) -> bool {
        match self.key.as_str() {
            "missing" => false,
            "present" => true,
            _ => self.reachable,
        }
    }

    /// Whether everything about it is right.
    pub(crate) fn is_well(&self) -> bool {
        self.status == "ok"
    }

    /// What was found, or what is missing.
    pub(crate) fn detail(&self) -> String {
        let key = match (self.key.as_str(), &self.key_env) {
            ("present", Some(variable)) => format!("{variable} is set"),
            _ if self.reachable => "it answers".to_owned(),
            _ => "nothing answers".to_owned(),
        };
        self.problem.clone().unwrap_or(key)
    }
}

/// Asks the agents' program what it finds with `config`, of these models or of all when none is named.
///
/// # Errors
/// [`Error::Check`] when the program does not say.
pub(crate) async fn look(
    programs: &Programs,
    config: &Path,
    models: &[&str],
) -> Result<Found, Error> {
    let failed = |how: String| Error::Check { how };
    let mut command = Command::new(programs.find("broker-agent")?);
    command
        .args(["--check", "--output", "json", "--config"])
        .arg(config)
        .args(models.iter().flat_map(|model| ["--model", model]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| broker_config::is_setting(name)) {
        command.env_remove(name);
    }
    let ran = tokio::time::timeout(WITHIN, command.output()).await;
    let ran = ran
        .map_err(|_| failed(format!("no answer within {}", output::span(WITHIN))))?
        .map_err(|source| Error::Spawn { name: "broker-agent".to_owned(), source })?;
    let stdout = String::from_utf8_lossy(&ran.stdout);
    // The exit code says whether everything is there, which is not the question here.
    serde_json::from_str(stdout.trim()).map_err(|_| {
        let said = String::from_utf8_lossy(&ran.stderr);
        failed(output::printable(said.lines().last().unwrap_or("it printed nothing")))
    })
}

impl Found {
    /// The models that an agent can work for.
    pub(crate) fn usable(&self) -> Vec<String> {
        self.models
            .iter()
            .filter(|model| model.is_usable())
            .map(|model| model.name.clone())
            .collect()
    }

    /// What was found and what is missing, for a person.
    pub(crate) fn table(&self) -> String {
        let rows = self.models.iter().map(|model| {
            let state = match (model.is_usable(), model.is_well()) {
                (true, true) => "found",
                (true, false) => "found, but",
                (false, _) => "missing",
            };
            [
                model.name.clone(),
                model.provider.clone(),
                format!("{state}: {}", model.detail()),
                model.remedy.clone().unwrap_or_default(),
            ]
        });
        output::table(["MODEL", "PROVIDER", "FOUND", "REMEDY"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_listed_with_its_remedy() {
        let json = r#"{"models":[
            {"name":"opus","provider":"anthropic","id":"i","base_url":"b","key":"present","key_env":"ANTHROPIC_API_KEY",
             "reachable":true,"status":"ok","problem":null,"remedy":null},
            {"name":"gpt","provider":"openai","id":"i","base_url":"b","key":"present","key_env":"OPENAI_API_KEY",
             "reachable":true,"status":"key_rejected","problem":"rejected","remedy":"set another"},
            {"name":"sonnet","provider":"anthropic","id":"i","base_url":"b","key":"missing","key_env":"ANTHROPIC_API_KEY",
             "reachable":true,"status":"key_missing","problem":"no key","remedy":"set it"},
            {"name":"local","provider":"ollama","id":"i","base_url":"b","key":"not needed","key_env":null,
             "reachable":false,"status":"unreachable","problem":null,"remedy":"start Ollama"},
            {"name":"small","provider":"ollama","id":"i","base_url":"b","key":"not needed","key_env":null,
             "reachable":true,"status":"model_missing","problem":"not installed","remedy":"ollama pull i"}]}"#;

        let found: Found = serde_json::from_str(json).unwrap();

        assert_eq!(found.usable(), ["opus", "gpt", "small"]);
        let table = found.table();
        for want in [
            "found: ANTHROPIC_API_KEY is set",
            "found, but: rejected",
            "missing: no key",
            "missing: nothing answers",
            "start Ollama",
        ] {
            assert!(table.contains(want), "{want}\n{table}");
        }
    }
}
