//! `message send|get|list|cancel|trace|watch`: sending messages, and what became of them.

use broker_client::{Client, ListFilter, WatchItem, Watched};
use broker_proto::types::{
    Message, MessageInfo, MessageState, MessageType, Part, Payload, Priority, Recipient, Severity,
    StatusKind, StatusNotice, TaskSpec, TraceStep,
};

use super::{Interrupts, connect, connection, consult, mistaken, note_granted, payload};
use crate::{
    cli::{Concern, Expiry, Global, Kind, Level, MessageCommand, Misused, SendArgs},
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
        MessageCommand::Send(args) => sent(global, &client, args).await?,
        MessageCommand::Trace { message } => {
            let (info, steps) = client.trace(message).await?;
            traced(global, &info, &steps)?;
        }
        MessageCommand::List { state, to, limit, page } => {
            let filter = ListFilter {
                states: state,
                to: to.map(|to| to.to_string()),
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
            if state != MessageState::Cancelled {
                output::note("it had ended before");
                return Ok(Exit::Failed);
            }
        }
        MessageCommand::Watch { message, cursor } => {
            let mut interrupts = Interrupts::listen()?;
            let mut changes = client.follow_messages(cursor, message);
            loop {
                let change = tokio::select! {
                    change = changes.next() => change?,
                    () = interrupts.next() => return Ok(Exit::Interrupted),
                };
                match change {
                    Some(Watched::Item(item)) => watched(global, item)?,
                    Some(news) => connection(&news),
                    None => break,
                }
            }
        }
    }
    Ok(Exit::Done)
}

async fn sent(global: &Global, client: &Client, args: SendArgs) -> anyhow::Result<()> {
    let kind = match (args.kind, &args.to) {
        (Some(Kind::Handoff), _) => MessageType::Handoff,
        (Some(Kind::Consultation), _) | (None, Recipient::Model(_)) => MessageType::Consultation,
        (Some(Kind::Delegation), _) => MessageType::Delegation,
        (Some(Kind::Status), _) | (None, _) => MessageType::Status,
    };
    let is_status = kind == MessageType::Status;
    if !is_status && (args.severity.is_some() || args.percent.is_some() || args.about.is_some()) {
        return Err(Misused::NoStatus.into());
    }
    let text = consult::input::from_stdin(args.text)?;
    if text.trim().is_empty() && args.percent.is_none() {
        return Err(Misused::NoText.into());
    }
    let mut payload = Payload::default();
    if is_status {
        payload.status = Some(StatusNotice {
            severity: match args.severity {
                None | Some(Concern::Info) => Severity::Info,
                Some(Concern::Warning) => Severity::Warning,
                Some(Concern::Error) => Severity::Error,
            },
            text,
            subject: args.about,
            what: match args.percent {
                None => StatusKind::Note,
                percent => StatusKind::Progress { percent, step: None },
            },
        });
    } else if kind == MessageType::Delegation {
        payload.task = Some(Box::new(TaskSpec { description: text, ..TaskSpec::default() }));
    } else {
        payload.request.push(Part::Text(text));
    }
    let id = args.id.map_or_else(consult::input::new_id, Ok)?;
    let now = consult::now();
    let (expires_at, wanted) = match args.expires {
        None => (None, None),
        Some(Expiry::After(span)) => (Some(now.after(span)), Some(span)),
        Some(Expiry::At(at)) => (Some(at), Some(at.since(now))),
    };
    let to = args.to.clone();
    let message = Message {
        priority: match args.priority {
            Level::Low => Priority::Low,
            Level::Normal => Priority::Normal,
            Level::High => Priority::High,
            Level::Urgent => Priority::Urgent,
        },
        session: args.session,
        expires_at,
        ..Message::new(id, args.to, kind, payload)
    };
    let receipt = match client.send(message, args.allow_future_recipient).await {
        Err(err) => return Err(mistaken(client, &to, err).await.into()),
        Ok(receipt) => receipt,
    };
    note_granted(wanted, &receipt);
    let copies = match to {
        Recipient::AgentsOf(_) => Some(client.message(id, false).await?.0.copies),
        _ => None,
    };
    match global.output {
        Format::Text => {
            output::line(&receipt.message_id.to_string())?;
            if let Some(copies) = copies {
                output::note(&format!("copies: {copies}"));
            }
        }
        Format::Json => output::json(&serde_json::json!({
            "message_id": receipt.message_id.to_string(),
            "copies": copies,
            "duplicate": receipt.is_duplicate,
            "accepted_at": output::rfc3339(receipt.accepted_at),
            "deadline": output::rfc3339(receipt.deadline),
        }))?,
    }
    Ok(())
}

fn traced(global: &Global, info: &MessageInfo, steps: &[TraceStep]) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                serde_json::json!({
                    "at": output::rfc3339(step.change.at),
                    "since_previous_ms": step.since_previous.as_secs_f64() * 1_000.0,
                    "step": step.change.change,
                    "state": step.change.state.as_str(),
                    "model": step.model.as_ref().map(ToString::to_string),
                    "agent": step.agent.as_ref().map(ToString::to_string),
                    "detail": step.change.detail,
                })
            })
            .collect();
        output::json(&serde_json::json!({ "message": json(info, None), "steps": steps }))?;
        return Ok(());
    }
    let (kind, to, state) = (info.kind.as_str(), &info.to, info.state.as_str());
    output::line(&format!("{} {kind} from {} to {to}: {state}", info.id, info.from))?;
    let rows = steps.iter().map(|step| {
        [
            output::rfc3339(step.change.at).unwrap_or_default(),
            format!("+{}", output::span(step.since_previous)),
            step.change.change.clone(),
            step.change.state.as_str().to_owned(),
            output::printable(&step.change.detail),
        ]
    });
    output::line(&output::table(["AT", "AFTER", "STEP", "STATE", "DETAIL"], rows))?;
    Ok(())
}

pub(super) fn list(
    global: &Global,
    messages: &[MessageInfo],
    next: Option<&str>,
) -> anyhow::Result<()> {
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
            info.kind.as_str().to_owned(),
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

pub(super) fn get(
    global: &Global,
    info: &MessageInfo,
    payload: Option<&Payload>,
) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&json(info, payload))?;
        return Ok(());
    }
    let now = consult::now();
    let mut rows = vec![
        ["id".to_owned(), info.id.to_string()],
        ["type".to_owned(), info.kind.as_str().to_owned()],
        ["from".to_owned(), info.from.to_string()],
        ["to".to_owned(), info.to.to_string()],
        ["state".to_owned(), info.state.as_str().to_owned()],
        ["accepted".to_owned(), output::clock(info.accepted_at, now)],
        ["deadline".to_owned(), output::clock(info.deadline, now)],
        ["bytes".to_owned(), info.size_bytes.to_string()],
    ];
    if info.copies > 0 {
        rows.push(["copies".to_owned(), info.copies.to_string()]);
    }
    if let Some(parent) = info.correlation.parent {
        rows.push(["parent".to_owned(), parent.to_string()]);
    }
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
    if let Some(status) = payload.and_then(|payload| payload.status.as_ref()) {
        let title = format!("{} {}", status.severity.as_str(), status.what.as_str());
        output::line(&format!("\n[{title}]\n{}", status.text))?;
    }
    if let Some(payload) = payload {
        for entry in &payload.context {
            shown(payload::role(entry), &entry.parts)?;
        }
        if let Some(task) = &payload.task {
            output::line(&format!("\n[task]\n{}", task.description))?;
            for input in &task.inputs {
                shown(&format!("input {}", input.name), &input.parts)?;
            }
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

pub(super) fn json(info: &MessageInfo, payload: Option<&Payload>) -> serde_json::Value {
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
        "type": info.kind.as_str(),
        "from": info.from.to_string(),
        "to": info.to.to_string(),
        "state": info.state.as_str(),
        "accepted_at": output::rfc3339(info.accepted_at),
        "deadline": output::rfc3339(info.deadline),
        "finished_at": info.finished_at.and_then(output::rfc3339),
        "size_bytes": info.size_bytes,
        "session": info.session,
        "copies": info.copies,
        "parent": info.correlation.parent.map(|id| id.to_string()),
        "generation": info.generation,
        "summary": summary,
        "failure": failure,
    });
    if let Some(payload) = payload {
        json["context"] = payload::context(&payload.context).into();
        json["request"] = consult::text_of(&payload.request).into();
        json["parts"] = payload::parts(&payload.request).into();
        json["status"] = payload::status(payload.status.as_ref());
        json["task"] = payload.task.as_deref().map(payload::task).into();
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
