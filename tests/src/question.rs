//! Messages for tests.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use broker_proto::{Message, MessageId, ModelName, Part, Payload, WallTime};

/// Three models with one chain, for brokers whose agents are scripted.
pub const MODELS: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
context_window = 4_000_000
fallback = ["sonnet", "local"]

[[models]]
name = "sonnet"
provider = "anthropic"
id = "claude-sonnet-5-5"
fallback = ["local"]

[[models]]
name = "local"
provider = "ollama"
id = "llama3.2"
"#;

/// An id that this process has not given before.
#[must_use]
pub fn new_id() -> MessageId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    MessageId::from_parts(WallTime::from_system(SystemTime::now()), u128::from(number))
}

/// A question to a model, under a new id.
#[must_use]
pub fn question(model: &str, text: &str) -> Message {
    let model = ModelName::parse(model).expect("the test names a model");
    Message::consultation(new_id(), model, text_payload(text))
}

/// A payload that asks `text`.
#[must_use]
pub fn text_payload(text: &str) -> Payload {
    Payload { request: vec![Part::text(text)], ..Payload::default() }
}
