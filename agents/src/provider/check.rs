//! Whether each configured model could be asked, without asking it: for `up` and `doctor`.
//!
//! Invariant: a key is only ever said to be there or not.

use std::{sync::Arc, time::Duration};

use broker_config::{Model, Provider as Name};
use broker_proto::{Failure, FailureClass};
use futures::future;
use serde::Serialize;

use super::{Clock, Provider, SetupError, adapter, key_of};

/// A provider that says nothing for this long is not there, for a person who waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was found out about one model. Scripts read it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCheck {
    pub name: String,
    pub provider: String,
    pub id: String,
    pub base_url: String,
    /// `present`, `missing` or `not needed`.
    pub key: &'static str,
    pub key_env: Option<String>,
    pub reachable: bool,
    /// `ok`, `key_missing`, `key_rejected`, `unreachable`, `model_missing`, `limited` or `error`.
    pub status: &'static str,
    pub problem: Option<String>,
    pub remedy: Option<String>,
}

/// Checks every model, all at once.
pub async fn check<'a>(models: impl IntoIterator<Item = &'a Model>) -> Vec<ModelCheck> {
    future::join_all(models.into_iter().map(|model| one(model, key_of(model)))).await
}

async fn one(model: &Model, key: Result<Option<secrecy::SecretString>, SetupError>) -> ModelCheck {
    let mut check = ModelCheck {
        name: model.name.clone(),
        provider: model.provider.to_string(),
        id: model.id.clone(),
        base_url: model.base_url.clone(),
        key: "not needed",
        key_env: model.api_key_env.clone(),
        reachable: false,
        status: "ok",
        problem: None,
        remedy: None,
    };
    let no_key = key.as_ref().err().map(ToString::to_string);
    check.key = match (&key, model.simulated) {
        (Err(_), _) => "missing",
        (Ok(Some(_)), false) => "present",
        _ => "not needed",
    };
    // Without a key the provider refuses, and so is there.
    let failure = match adapter(model, key.ok().flatten(), Clock::system()) {
        Ok(provider) => ask(provider, &mut check).await,
        Err(error) => Some(Failure::new(FailureClass::Internal, "agent", error.to_string())),
    };
    check.reachable = failure.as_ref().is_none_or(is_there);
    if let Some(problem) = no_key {
        check.status = "key_missing";
        check.problem = Some(problem);
    } else if let Some(failure) = failure {
        check.status = status(failure.class);
        check.problem = Some(failure.detail);
    }
    check.remedy = remedy(model, check.status);
    check
}

/// Asks the provider; a warning goes straight to `check`.
async fn ask(provider: Arc<dyn Provider>, check: &mut ModelCheck) -> Option<Failure> {
    match tokio::time::timeout(PATIENCE, provider.check()).await {
        Ok(Ok(warning)) => {
            check.problem = warning;
            None
        }
        Ok(Err(failed)) => Some(failed.failure),
        Err(_) => {
            let detail = format!("no answer within {}", humantime::format_duration(PATIENCE));
            Some(Failure::new(FailureClass::Timeout, "agent", detail))
        }
    }
}

fn is_there(failure: &Failure) -> bool {
    !matches!(
        failure.class,
        FailureClass::Unreachable | FailureClass::Timeout | FailureClass::Internal
    )
}

fn status(class: FailureClass) -> &'static str {
    match class {
        FailureClass::CredentialsRejected => "key_rejected",
        FailureClass::Unreachable | FailureClass::Timeout => "unreachable",
        FailureClass::ModelNotFound => "model_missing",
        FailureClass::RateLimited
        | FailureClass::QuotaExhausted
        | FailureClass::CreditExhausted => "limited",
        _ => "error",
    }
}

fn remedy(model: &Model, status: &str) -> Option<String> {
    let variable = model.api_key_env.as_deref().unwrap_or("api_key_env");
    let is_local = model.provider == Name::Ollama;
    Some(match status {
        "ok" => return None,
        "key_missing" => format!("set {variable} to a key of {}", model.provider),
        "key_rejected" => {
            format!("set {variable} to a key that {} takes for this model", model.provider)
        }
        "unreachable" if is_local => "start it with `ollama serve`".to_owned(),
        "unreachable" => format!("check the network, and base_url of [[models]] {}", model.name),
        "model_missing" if is_local => format!("ollama pull {}", model.id),
        "model_missing" => {
            format!("set id of [[models]] {} to one that the key may use", model.name)
        }
        "limited" => {
            format!("wait for the limit to reset, or look at the account at {}", model.provider)
        }
        _ => format!("check base_url of [[models]] {}", model.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::fixture::{self, Fake};

    #[tokio::test]
    async fn a_missing_key_and_a_missing_server_each_have_a_remedy() {
        let mut model = fixture::model(Name::Anthropic);
        model.base_url = fixture::nowhere();
        let missing =
            SetupError::KeyMissing { model: "m".into(), variable: "ANTHROPIC_API_KEY".into() };

        let check = one(&model, Err(missing)).await;

        assert_eq!((check.key, check.status, check.reachable), ("missing", "key_missing", false));
        assert_eq!(check.remedy.as_deref(), Some("set ANTHROPIC_API_KEY to a key of anthropic"));
        let check = one(&model, Ok(Some("k".into()))).await;
        assert_eq!((check.key, check.status, check.reachable), ("present", "unreachable", false));
    }

    #[tokio::test]
    async fn a_rejected_key_shows_that_the_provider_is_there() {
        let fake = Fake::start(fixture::load("anthropic/401-invalid-key.http")).await;
        let model = fake.model(Name::Anthropic);

        let check = one(&model, Ok(Some("sk-canary".into()))).await;

        assert_eq!((check.status, check.reachable), ("key_rejected", true));
        assert!(!serde_json::to_string(&check).unwrap().contains("canary"));
    }

    #[tokio::test]
    async fn an_ollama_model_that_is_not_installed_can_be_pulled() {
        let fake = Fake::start(fixture::load("ollama/tags.http")).await;
        let mut model = fake.model(Name::Ollama);
        model.id = "absent".into();

        let check = one(&model, Ok(None)).await;

        assert_eq!((check.status, check.reachable), ("model_missing", true));
        assert_eq!(check.remedy.as_deref(), Some("ollama pull absent"));
    }

    #[tokio::test]
    async fn an_openai_model_that_is_listed_is_ok() {
        let fake = Fake::start(fixture::load("openai/models.http")).await;

        let check = one(&fake.model(Name::OpenAi), Ok(Some("k".into()))).await;

        assert_eq!((check.status, check.problem), ("ok", None));
    }
}
