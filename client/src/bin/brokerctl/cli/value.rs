//! Values as people type them, wherever they are typed.

use std::time::Duration;

use broker_proto::types::{AgentName, MessageId, MessageName, Recipient, RoleName};

use crate::commands::consult::input;

/// A recipient as people type it; a name alone is a model's.
pub(super) fn recipient(text: &str) -> Result<Recipient, String> {
    if !text.contains([':', '/']) {
        let name = input::model_name(text).map_err(|misused| misused.to_string())?;
        return Ok(Recipient::Model(name));
    }
    // Models' names are lower case; people also write GPT-4o.
    let is_model = text.starts_with("model") || text.starts_with("agents");
    let text = if is_model { text.to_lowercase() } else { text.to_owned() };
    Recipient::parse(&text).map_err(|invalid| invalid.to_string())
}

/// What one call waits for at most.
pub(super) fn short_wait(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(25);
    let wait = humantime::parse_duration(text).map_err(|err| err.to_string())?;
    if wait > LONGEST { Err("is over 25s".into()) } else { Ok(wait) }
}

pub(super) fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text).ok_or_else(|| {
        "an id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned()
    })
}

pub(super) fn message_name(text: &str) -> Result<MessageName, String> {
    MessageName::parse(text).ok_or_else(|| {
        "an id is a ULID: 26 characters, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV; its sender's name and a slash may stand before it".to_owned()
    })
}

pub(super) fn agent_name(text: &str) -> Result<AgentName, String> {
    AgentName::parse(text).map_err(|err| err.to_string())
}

pub(super) fn role(text: &str) -> Result<RoleName, String> {
    RoleName::parse(text).map_err(|err| err.to_string())
}

pub(super) fn usd(text: &str) -> Result<f64, String> {
    let number = text.trim_start_matches('$').parse::<f64>().ok();
    number
        .filter(|usd| usd.is_finite() && *usd > 0.0)
        .ok_or_else(|| "a sum above 0, such as 0.50".to_owned())
}
