//! Sessions as programs read them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_proto::types::{
    EntryKind, Handoff, ModelName, PackageInfo, Part, Role, SessionDetail, SessionEntry,
    SessionInfo, SessionItem, SessionTask, SharedValue, TaskList, Unverified,
};
use serde_json::{Value, json};

use crate::{
    commands::{consult::text_of, handoff::moved},
    output,
};

/// A session's figures.
pub(crate) fn info(info: &SessionInfo) -> Value {
    json!({
        "id": info.id.as_str(),
        "title": info.title,
        "state": if info.pause.is_some() { "paused" } else { "running" },
        "pause": info.pause.as_ref().map(|pause| json!({
            "at": output::rfc3339(pause.at),
            "reason": pause.reason,
            "by": Some(&pause.by).filter(|by| !by.is_empty()),
            "package": pause.package.to_string(),
            "handoff": pause.handoff.map(|id| id.to_string()),
        })),
        "owner": {
            "model": info.owner.model.as_str(),
            "agent": info.owner.agent.as_ref().map(ToString::to_string),
            "epoch": info.owner.epoch,
        },
        "unverified": info.unverified.as_ref().map(unverified),
        "version": info.version,
        "entry_count": info.head.entries,
        "head": info.head.hash.to_string(),
        "tokens": info.tokens,
        "size_bytes": info.size_bytes,
        "started_at": output::rfc3339(info.started_at),
        "changed_at": output::rfc3339(info.changed_at),
        "forked_from": info.forked_from.as_ref().map(|(id, entries)| json!({
            "session": id.as_str(), "entries": entries,
        })),
        "active_models": info.models.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// What others wrote in a session's own model's place, and nobody has checked.
pub(crate) fn unverified(of: &Unverified) -> Value {
    json!({
        "home": of.home.as_str(),
        "first": of.from,
        "last": of.until.saturating_sub(1),
        "by": of.by.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// A session with its entries, its handoffs, and the packages that were made of it: both newest first.
pub(crate) fn detail(
    detail: &SessionDetail,
    entries: &[SessionEntry],
    handoffs: &[Handoff],
    packages: &[PackageInfo],
) -> Value {
    let mut json = info(&detail.info);
    let all = task(&detail.task);
    json["subagents"] = all["pending_subagents"].clone();
    json["preferences"] = all["preferences"].clone();
    json["task"] = all;
    json["shared"] = detail.shared.iter().map(shared).collect();
    json["handoffs"] = handoffs.iter().map(moved::json).collect();
    json["packages"] = packages.iter().map(package).collect();
    let unverified = detail.info.unverified.as_ref();
    json["entries"] = entries.iter().map(|it| entry(it, unverified)).collect();
    json
}

fn package(package: &PackageInfo) -> Value {
    let header = &package.header;
    json!({
        "package_id": header.id.to_string(),
        "at": output::rfc3339(header.created_at),
        "from": Some(&header.sender).filter(|name| !name.is_empty()),
        "to": header.recipient.as_ref().map(ToString::to_string),
        "reason": header.reason,
        "hops": header.hops,
        "imported": package.is_imported,
    })
}

/// What a session is about.
pub(crate) fn task(task: &SessionTask) -> Value {
    let mut json = json!({ "goal": task.goal, "progress": task.progress });
    for list in TaskList::ALL {
        json[list.as_str()] = task.list(list).iter().map(item).collect();
    }
    json["pending_subagents"] = task
        .pending_subagents
        .iter()
        .map(|pending| {
            json!({
                "id": pending.id, "kind": pending.kind, "model": pending.model,
                "status": pending.status, "description": pending.description,
            })
        })
        .collect();
    json
}

fn item(item: &SessionItem) -> Value {
    json!({ "id": item.id, "text": item.text, "done": item.is_done, "entry": item.entry })
}

/// One shared value. What is set as JSON is JSON here too.
pub(crate) fn shared(value: &SharedValue) -> Value {
    json!({
        "key": value.key,
        "value": serde_json::from_str(&value.value).unwrap_or(Value::Null),
        "source": value.source,
        "tags": value.tags,
        "set_at": output::rfc3339(value.set_at),
    })
}

pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// One entry with everything in it, and whether it is one that the session's own model has to check.
pub(crate) fn entry(entry: &SessionEntry, unverified: Option<&Unverified>) -> Value {
    let said = &entry.entry;
    let writer = unverified.and_then(|of| of.writer(entry));
    json!({
        "number": entry.number,
        "kind": match entry.kind { EntryKind::Turn => "turn", EntryKind::Advice => "advice" },
        "role": role(said.role),
        "name": Some(&said.name).filter(|name| !name.is_empty()),
        "model": entry.model.as_ref().map(ModelName::as_str).or(writer),
        "unverified": writer.is_some(),
        "created_at": entry.created_at.and_then(output::rfc3339),
        "tokens": entry.tokens,
        "hash": entry.hash.to_string(),
        "previous": entry.previous.to_string(),
        "text": text_of(&said.parts),
        "parts": said.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Thinking { text, signature, provider } => json!({
            "type": "thinking", "text": text, "signature": signature, "provider": provider,
        }),
        Part::ToolCall { id, name, arguments } => json!({
            "type": "tool_call", "id": id, "name": name,
            "arguments": String::from_utf8_lossy(arguments),
        }),
        Part::ToolResult { call_id, parts, is_error } => json!({
            "type": "tool_result", "call_id": call_id, "is_error": is_error,
            "parts": parts.iter().map(self::part).collect::<Vec<_>>(),
        }),
        Part::Image { media_type, data } => json!({
            "type": "image", "media_type": media_type, "data": STANDARD.encode(data),
        }),
        Part::Opaque { provider, kind, data } => json!({
            "type": "opaque", "provider": provider, "kind": kind, "data": STANDARD.encode(data),
        }),
        Part::Ref(part) => json!({
            "type": "ref", "hash": part.hash.to_string(), "size_bytes": part.size_bytes,
        }),
    }
}
