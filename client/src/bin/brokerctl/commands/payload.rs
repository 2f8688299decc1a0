//! What a message carries, as programs read it.

use broker_proto::{
    convert::encode_part,
    types::{
        ContentHash, Entry, Part, Payload, ResultType, Role, StatusKind, StatusNotice, TaskInput,
        TaskSpec,
    },
};
use serde_json::{Value, json};

use super::consult;

/// What a message says, whichever kind it is of.
pub(super) fn text(payload: &Payload) -> String {
    match (&payload.status, &payload.task) {
        (Some(status), _) => status.text.clone(),
        (None, Some(task)) => task.description.clone(),
        (None, None) => consult::text_of(&payload.request),
    }
}

/// A status message's body, with what belongs to its kind; null where there is none.
pub(super) fn status(status: Option<&StatusNotice>) -> Value {
    let Some(status) = status else { return Value::Null };
    let mut json = json!({
        "severity": status.severity.as_str(),
        "kind": status.what.as_str(),
        "text": status.text,
        "about": status.subject.map(|id| id.to_string()),
    });
    match &status.what {
        StatusKind::Note | StatusKind::Heartbeat => {}
        StatusKind::Level { model, level } => {
            json["model"] = model.as_str().into();
            json["level"] = level.as_str().into();
        }
        StatusKind::Progress { percent, step } => {
            json["percent"] = (*percent).into();
            json["step"] = step.clone().into();
        }
        StatusKind::Handoff { from, to } => {
            json["from"] = from.as_str().into();
            json["to"] = to.as_str().into();
        }
    }
    json
}

/// What a delegation gives out.
pub(super) fn task(task: &TaskSpec) -> Value {
    let (kind, schema) = match &task.result {
        ResultType::Text => ("text", None),
        ResultType::Json { schema } => ("json", schema.as_ref()),
    };
    let schema = schema.and_then(|schema| serde_json::from_slice::<Value>(schema).ok());
    json!({
        "description": task.description,
        "inputs": task.inputs.iter().map(input).collect::<Vec<_>>(),
        "result": { "type": kind, "schema": schema },
        "max_tokens": task.max_tokens,
        "max_cost_usd": task.max_cost_usd,
    })
}

fn input(input: &TaskInput) -> Value {
    json!({
        "name": input.name, "text": consult::text_of(&input.parts), "parts": parts(&input.parts),
    })
}

/// The conversation so far.
pub(super) fn context(entries: &[Entry]) -> Vec<Value> {
    let turns = entries.iter().map(|entry| {
        json!({
            "role": role(entry),
            "text": consult::text_of(&entry.parts),
            "parts": parts(&entry.parts),
        })
    });
    turns.collect()
}

/// What is no text, named by its kind and hash.
pub(super) fn parts(parts: &[Part]) -> Vec<Value> {
    let others = parts.iter().filter_map(|part| {
        let kind = match part {
            Part::Text(_) => return None,
            Part::Thinking { .. } => "thinking",
            Part::ToolCall { .. } => "tool_call",
            Part::ToolResult { .. } => "tool_result",
            Part::Image { .. } => "image",
            Part::Opaque { .. } => "opaque",
            Part::Ref(_) => "ref",
        };
        let hash = match part {
            Part::Ref(part) => part.hash,
            part => ContentHash::of(&encode_part(part.clone())),
        };
        let media_type = match part {
            Part::Image { media_type, .. } => Some(media_type),
            _ => None,
        };
        let size = part.size_bytes();
        let hash = hash.to_string();
        Some(json!({ "kind": kind, "hash": hash, "size_bytes": size, "media_type": media_type }))
    });
    others.collect()
}

pub(super) fn role(entry: &Entry) -> &'static str {
    match entry.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::types::{MessageId, Severity};

    use super::*;

    #[test]
    fn a_message_says_what_its_kind_says() {
        let notice = StatusNotice {
            severity: Severity::Warning,
            text: "half done".into(),
            subject: MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV"),
            what: StatusKind::Progress { percent: Some(50), step: None },
        };
        let payload = Payload { status: Some(notice), ..Payload::default() };
        assert_eq!(text(&payload), "half done");
        let want = json!({
            "severity": "warning", "kind": "progress", "text": "half done", "percent": 50,
            "step": null, "about": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        });
        assert_eq!(status(payload.status.as_ref()), want);

        let schema = Some(r#"{"type":"object"}"#.into());
        let image = Part::Image { media_type: "image/png".into(), data: "png".into() };
        let hash = ContentHash::of(&encode_part(image.clone())).to_string();
        let inputs = vec![TaskInput { name: "a".into(), parts: vec![Part::text("b"), image] }];
        let spec = TaskSpec {
            description: "sum".into(),
            inputs,
            result: ResultType::Json { schema },
            ..TaskSpec::default()
        };
        let want = json!({
            "description": "sum",
            "inputs": [{ "name": "a", "text": "b", "parts": [
                { "kind": "image", "hash": hash, "size_bytes": 3, "media_type": "image/png" },
            ] }],
            "result": { "type": "json", "schema": { "type": "object" } },
            "max_tokens": null,
            "max_cost_usd": null,
        });
        assert_eq!(task(&spec), want);
        let payload = Payload { task: Some(Box::new(spec)), ..Payload::default() };
        assert_eq!(text(&payload), "sum");
    }
}
