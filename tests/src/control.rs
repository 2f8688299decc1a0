//! The simulator's control endpoint, as `docs/simulator.md` has it.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::within;

/// Drives one simulator.
#[derive(Debug, Clone)]
pub struct Control {
    address: String,
}

impl Control {
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    /// Adds a fault.
    pub async fn fault(&self, fault: Value) {
        self.call("POST", "/_sim/faults", &fault.to_string()).await;
    }

    /// Adds a preset's refusal for a model's ids, as often as `times` says.
    pub async fn refuse(&self, preset: &str, model: &str, times: Value) {
        self.fault(json!({"model": model, "times": times, "do": {"preset": preset}})).await;
    }

    /// Takes every fault away.
    pub async fn heal(&self) {
        self.call("DELETE", "/_sim/faults", "").await;
    }

    pub async fn quota(&self, change: Value) {
        self.call("POST", "/_sim/quotas", &change.to_string()).await;
    }

    /// Every call for an answer so far, oldest first.
    pub async fn calls(&self) -> Vec<Value> {
        calls(self.call("GET", "/_sim/journal", "").await)
    }

    /// Every call for an answer, once there are at least `count`.
    pub async fn calls_once_there_are(&self, count: usize) -> Vec<Value> {
        let path = format!("/_sim/journal?wait={count}&timeout_ms=30000");
        let calls = calls(self.call("GET", &path, "").await);
        assert!(calls.len() >= count, "{count} calls, not {calls:?}");
        calls
    }

    /// Every call, once the client has left at least `count` of them.
    pub async fn calls_once_left(&self, count: usize) -> Vec<Value> {
        let path = format!("/_sim/journal?gone={count}&timeout_ms=30000");
        let calls = calls(self.call("GET", &path, "").await);
        let left = calls.iter().filter(|call| call["client_gone"] == json!(true)).count();
        assert!(left >= count, "{count} calls left by their client, not {calls:?}");
        calls
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let call = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            );
            stream.write_all(request.as_bytes()).await?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await?;
            std::io::Result::Ok(reply)
        };
        let reply = within("the simulator's answer", call).await.expect("the simulator answers");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a whole reply");
        assert!(head.starts_with("HTTP/1.1 200"), "the simulator refused: {body}");
        serde_json::from_str(body).expect("the simulator answers in JSON")
    }
}

fn calls(mut journal: Value) -> Vec<Value> {
    let entries = journal["entries"].take();
    let entries = entries.as_array().cloned().unwrap_or_default();
    entries.into_iter().filter(|entry| entry["method"] == json!("POST")).collect()
}
