//! `message get|list|cancel|watch`: what became of messages.

use broker_client::{ListFilter, WatchItem};
use broker_proto::types::{Entry, MessageInfo, MessageType, Part, Payload, Role};
use tokio_stream::StreamExt as _;

use super::{connect, consult};
use crate::{
    cli::{Global, MessageCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a message command.
pub(crate) async fn run(global: &Global, command: MessageCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        MessageCommand::Get { message, payload } => {
            let (info, payload) = client.message(message, payload).await?;
            get(global, &info, payload.as_ref())?;
        }
        MessageCommand::List { state, to, limit, page } => {
            let to = to.as_deref().map(consult::input::model_name).transpose()?;
            let filter = ListFilter {
                states: state,
                to: to.map(|model| model.to_string()),
                page_size: limit,
                page_token: page,
            };
            let page = client.messages(filter).await?;
            list(global, &page.items, page.next_page_token.as_deref())?;
        }
        MessageCommand::Cancel { message } => {
            let id = message.id;
            let state = client.cancel(message).await?;
            match global.output {
                Format::Text => output::line(state.as_str())?,
                Format::Json => output::json(&serde_json::json!({
                    "message_id": id.to_string(), "state": state.as_str(),
                }))?,
            }
        }
        MessageCommand::Watch { message, cursor } => {
            let mut changes = client.watch(cursor, message).await?;
            while let Some(item) = changes.next().await {
                watched(global, item?)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn list(global: &Global, messages: &[MessageInfo], next: Option<&str>) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let messages: Vec<_> = messages.iter().map(|info| json(info, None)).collect();
        output::json(&serde_json::json!({ "messages": messages, "next_page_token": next }))?;
        return Ok(());
    }
    let now = consult::now();
    let rows = messages.iter().map(|info| {
        let answered = info.summary.as_ref().and_then(|summary| summary.model.as_ref());
        let outcome = match (&info.failure, answered) {
            (Some(failure), _) => failure.class.as_str().to_owned(),
            (None, Some(model)) => format!("answered by {model}"),
            (None, None) => String::new(),
        };
        [
            info.id.to_string(),
            kind(info.kind).to_owned(),
            info.to.to_string(),
            info.state.as_str().to_owned(),
            output::clock(info.accepted_at, now),
            outcome,
        ]
    });
    let header = ["ID", "TYPE", "TO", "STATE", "ACCEPTED", "OUTCOME"];
    output::line(&output::table(header, rows))?;
    if let Some(next) = next {
        output::note(&format!("more: --page {next}"));
    }
    Ok(())
}

fn get(global: &Global, info: &MessageInfo, payload: Option<&Payload>) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&json(info, payload))?;
        return Ok(());
    }
    let now = consult::now();
    let mut rows = vec![
        ["id".to_owned(), info.id.to_string()],
        ["type".to_owned(), kind(info.kind).to_owned()],
        ["from".to_owned(), info.from.to_string()],
        ["to".to_owned(), info.to.to_string()],
        ["state".to_owned(), info.state.as_str().to_owned()],
        ["accepted".to_owned(), output::clock(info.accepted_at, now)],
        ["deadline".to_owned(), output::clock(info.deadline, now)],
        ["bytes".to_owned(), info.size_bytes.to_string()],
    ];
    if let Some(failure) = &info.failure {
        let words = format!("{}: {}", failure.class.as_str(), failure.detail);
        rows.push(["failure".to_owned(), words]);
    }
    if let Some(summary) = &info.summary {
        for attempt in &summary.attempts {
            let outcome =
                attempt.failure.as_ref().map_or("answered", |f| consult::story::words(f.class));
            let words = format!("{}: {outcome}, {}", attempt.model, output::span(attempt.latency));
            rows.push([format!("attempt {}", attempt.number), words]);
        }
        rows.push(["cost".to_owned(), output::money(summary.cost_usd)]);
    }
    output::line(&output::table(["FIELD", "VALUE"], rows))?;
    if let Some(payload) = payload {
        for entry in &payload.context {
            shown(role(entry), &entry.parts)?;
        }
        shown("request", &payload.request)?;
        shown("response", &payload.response)?;
    }
    Ok(())
}

fn shown(title: &str, parts: &[Part]) -> Result<(), output::Error> {
    for part in parts {
        match part {
            Part::Text(text) => output::line(&format!("\n[{title}]\n{text}"))?,
            other => output::line(&format!("\n[{title}]\n{other:?}"))?,
        }
    }
    Ok(())
}

fn json(info: &MessageInfo, payload: Option<&Payload>) -> serde_json::Value {
    let failure = info.failure.as_ref().map(|failure| {
        serde_json::json!({
            "class": failure.class.as_str(),
            "message": failure.detail,
            "retry_at": failure.retry_at.and_then(output::rfc3339),
        })
    });
    let summary = info.summary.as_ref().map(consult::summary_json);
    let mut json = serde_json::json!({
        "message_id": info.id.to_string(),
        "type": kind(info.kind),
        "from": info.from.to_string(),
        "to": info.to.to_string(),
        "state": info.state.as_str(),
        "accepted_at": output::rfc3339(info.accepted_at),
        "deadline": output::rfc3339(info.deadline),
        "finished_at": info.finished_at.and_then(output::rfc3339),
        "size_bytes": info.size_bytes,
        "summary": summary,
        "failure": failure,
    });
    if let Some(payload) = payload {
        let turns: Vec<_> = payload
            .context
            .iter()
            .map(|entry| serde_json::json!({ "role": role(entry), "text": consult::text_of(&entry.parts) }))
            .collect();
        json["context"] = turns.into();
        json["request"] = consult::text_of(&payload.request).into();
        json["response"] = consult::text_of(&payload.response).into();
    }
    json
}

fn watched(global: &Global, item: WatchItem) -> Result<(), output::Error> {
    let (cursor, change) = match item {
        WatchItem::Change { cursor, change } => (cursor, change),
        WatchItem::Gap { cursor, first_cursor } => {
            output::note(&format!(
                "changes between {cursor} and {first_cursor} are no longer kept"
            ));
            return Ok(());
        }
    };
    let state = change.state.as_str();
    match global.output {
        Format::Text => {
            let at = output::clock(change.at, consult::now());
            let detail = if change.detail.is_empty() {
                String::new()
            } else {
                format!(": {}", change.detail)
            };
            output::line(&format!("{at} {} {} [{state}]{detail}", change.id, change.change))
        }
        Format::Json => output::json(&serde_json::json!({
            "cursor": cursor,
            "message_id": change.id.to_string(),
            "at": output::rfc3339(change.at),
            "change": change.change,
            "detail": change.detail,
            "state": state,
        })),
    }
}

fn kind(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Handoff => "handoff",
        MessageType::Consultation => "consultation",
        MessageType::Delegation => "delegation",
        MessageType::Status => "status",
    }
}

pub(super) fn role(entry: &Entry) -> &'static str {
    match entry.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}
