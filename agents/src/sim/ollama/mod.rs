//! Ollama's wire: errors and lists. Requests are read in [`request`], answers written in [`reply`].

pub(super) mod reply;
pub(super) mod request;

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    models::Model,
    reply::{Moment, Reply},
};

pub(super) const VERSION: &str = "0.12.6";
const BUSY: &str = "server busy, please try again.  maximum pending requests exceeded";
/// How long a model stays loaded when nobody says otherwise.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// `{"error":"text"}`: a string, no code.
pub(super) fn error(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"error": message}))
}

pub(super) fn not_found(model: &str) -> Reply {
    error(404, &format!("model '{model}' not found"))
}

/// Every quota ends in this: the wire has no other word for "not now".
pub(super) fn busy() -> Reply {
    error(503, BUSY)
}

pub(super) fn tags(models: &[Model]) -> Value {
    let entries: Vec<Value> = models
        .iter()
        .map(|model| {
            let mut entry = entry(model);
            entry["modified_at"] = json!("2026-08-01T08:00:00Z");
            entry
        })
        .collect();
    json!({"models": entries})
}

/// `loaded`: the models in memory, each with its context length in force.
pub(super) fn ps(loaded: &[(Model, u64)], at: &Moment) -> Value {
    let entries: Vec<Value> = loaded
        .iter()
        .map(|(model, num_ctx)| {
            let mut entry = entry(model);
            entry["expires_at"] = json!(at.rfc3339_exact(KEEP_ALIVE));
            entry["size_vram"] = json!(0);
            entry["context_length"] = json!(num_ctx);
            entry
        })
        .collect();
    json!({"models": entries})
}

pub(super) fn show(model: &Model) -> Value {
    let mut capabilities = vec!["completion".to_owned()];
    capabilities.extend(model.capabilities.iter().cloned());
    let mut parameters = String::new();
    if model.num_ctx != 4_096 {
        parameters = format!("num_ctx                        {}", model.num_ctx);
    }
    json!({
        "modelfile": format!("FROM {}", model.id),
        "parameters": parameters,
        "template": "{{ .Prompt }}",
        "details": details(),
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 3_212_749_888_u64,
            "llama.context_length": model.window,
            "llama.embedding_length": 3_072,
        },
        "capabilities": capabilities,
        "modified_at": "2026-08-01T08:00:00Z",
    })
}

fn entry(model: &Model) -> Value {
    let name =
        if model.id.contains(':') { model.id.clone() } else { format!("{}:latest", model.id) };
    json!({
        "name": name,
        "model": name,
        "size": 2_019_393_189_u64,
        "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
        "details": details(),
    })
}

fn details() -> Value {
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    })
}
