//! The wires over a real socket, with a client that knows nothing of the simulator.

mod anthropic;
mod control;
mod faults;
mod ollama;
mod openai;
mod quotas;

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{Options, Script, Simulator, Wire, script::ModelSpec};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    sim: Simulator,
    client: Client,
}

impl World {
    async fn new() -> Self {
        Self::with(Script::fast()).await
    }

    async fn with(script: Script) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sim = Simulator::start(Options { script, ..Options::default() }).await.unwrap();
        Self { sim, client: Client::new() }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.sim.address())).json(body)
    }

    async fn get(&self, path: &str) -> Value {
        let response = self
            .client
            .get(format!("http://{}{path}", self.sim.address()))
            .bearer_auth("key")
            .send()
            .await;
        response.unwrap().json().await.unwrap()
    }

    async fn messages(&self, body: &Value) -> Response {
        let request = self.post("/v1/messages?beta=true", body).header("x-api-key", "key");
        request.header("anthropic-version", "2023-06-01").send().await.unwrap()
    }

    async fn completions(&self, body: &Value) -> Response {
        self.post("/v1/chat/completions", body).bearer_auth("key").send().await.unwrap()
    }

    async fn ollama(&self, body: &Value) -> Response {
        self.post("/api/chat", body).send().await.unwrap()
    }
}

fn fast_with(models: Vec<ModelSpec>) -> Script {
    Script { models, ..Script::fast() }
}

fn spec(id: &str) -> ModelSpec {
    ModelSpec { id: id.to_owned(), ..ModelSpec::default() }
}

fn claude(question: &str) -> Value {
    json!({"model": "claude-opus-5-5", "max_tokens": 1024, "messages": [{"role": "user", "content": question}]})
}

fn gpt(question: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": question}]})
}

fn llama(question: &str) -> Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": question}]})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

async fn body(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

fn header(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().unwrap().to_owned())
}

/// The JSON of every `data:` line.
fn data(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn joined(values: &[Value], pointer: &str) -> String {
    values.iter().filter_map(|value| value.pointer(pointer).and_then(Value::as_str)).collect()
}
