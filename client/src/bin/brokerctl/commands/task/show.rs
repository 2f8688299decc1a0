//! Tasks as people and programs read them.

use broker_client::TaskItem;
use broker_proto::types::{Part, TaskDetail, TaskExchange, TaskInfo, TaskState};
use serde_json::{Value, json};

use super::consult;
use crate::{
    cli::Global,
    output::{self, Format},
};

/// A page of tasks.
pub(super) fn list(global: &Global, tasks: &[TaskInfo], next: Option<&str>) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let tasks: Vec<_> = tasks.iter().map(info_json).collect();
        output::json(&json!({ "tasks": tasks, "next_page_token": next }))?;
        return Ok(());
    }
    let now = consult::now();
    let rows = tasks.iter().map(|task| {
        [
            task.id.to_string(),
            task.to.to_string(),
            task.state.as_str().to_owned(),
            output::clock(task.submitted_at, now),
            output::clock(task.deadline, now),
            outcome(task),
        ]
    });
    let header = ["ID", "TO", "STATE", "SUBMITTED", "DEADLINE", "OUTCOME"];
    output::line(&output::table(header, rows))?;
    if let Some(next) = next {
        output::note(&format!("more: --page {next}"));
    }
    Ok(())
}

fn outcome(task: &TaskInfo) -> String {
    let worker = task.summary.as_ref().and_then(|summary| summary.model.as_ref());
    match (&task.failure, worker) {
        (Some(failure), _) => failure.class.as_str().to_owned(),
        (None, Some(model)) => format!("done by {model}"),
        (None, None) => String::new(),
    }
}

/// One task with everything that is known of it.
pub(super) fn task(global: &Global, task: &TaskDetail) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&json(task))?;
        return Ok(());
    }
    let now = consult::now();
    let info = &task.info;
    let mut rows = vec![
        ["id".to_owned(), info.id.to_string()],
        ["from".to_owned(), info.from.to_string()],
        ["to".to_owned(), info.to.to_string()],
        ["state".to_owned(), info.state.as_str().to_owned()],
        ["submitted".to_owned(), output::clock(info.submitted_at, now)],
        ["deadline".to_owned(), output::clock(info.deadline, now)],
        ["task".to_owned(), output::printable(&task.task.description)],
    ];
    for input in &task.task.inputs {
        let bytes: u64 = input.parts.iter().map(Part::size_bytes).sum();
        rows.push(["input".to_owned(), format!("{} ({bytes} bytes)", input.name)]);
    }
    for exchange in &task.exchanges {
        let asked = output::printable(&consult::text_of(&exchange.question));
        rows.push([format!("question {}", exchange.number), asked]);
        if exchange.answered_at.is_some() {
            let answered = output::printable(&consult::text_of(&exchange.answer));
            rows.push([format!("answer {}", exchange.number), answered]);
        }
    }
    if let Some(failure) = &info.failure {
        let words = format!("{}: {}", failure.class.as_str(), failure.detail);
        rows.push(["failure".to_owned(), words]);
    }
    if let Some(summary) = &info.summary {
        for attempt in &summary.attempts {
            let class = attempt.failure.as_ref().map(|failure| failure.class);
            let how = class.map_or("ended well", consult::story::words);
            let words = format!("{}: {how}, {}", attempt.model, output::span(attempt.latency));
            rows.push([format!("attempt {}", attempt.number), words]);
        }
        rows.push(["cost".to_owned(), output::money(summary.cost_usd)]);
    }
    output::line(&output::table(["FIELD", "VALUE"], rows))?;
    let text = consult::text_of(&task.result);
    if !text.is_empty() {
        let title = if info.state == TaskState::Completed { "result" } else { "so far" };
        output::line(&format!("\n[{title}]\n{text}"))?;
    }
    Ok(())
}

/// How a task that was waited for has ended: its result on stdout, what went wrong on stderr.
pub(super) fn result(global: &Global, task: &TaskDetail) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&json(task))?;
    } else {
        let text = match &task.result_json {
            Some(json) => String::from_utf8_lossy(json).into_owned(),
            None => consult::text_of(&task.result),
        };
        if !text.is_empty() {
            output::line(text.trim_end_matches('\n'))?;
        }
    }
    let now = consult::now();
    match &task.info.failure {
        Some(failure) => {
            output::note(&format!("failed: {}: {}", failure.class.as_str(), failure.detail));
            if let Some(at) = failure.retry_at {
                let wait = output::span(at.since(now));
                output::note(&format!(
                    "the earliest time to try again is {} (in {wait})",
                    output::clock(at, now)
                ));
            }
        }
        None => {
            if let Some(summary) = &task.info.summary
                && let Some(model) = &summary.model
            {
                for passed in summary.passed_over.iter().filter(|passed| passed.model != *model) {
                    output::note(&format!("{}: passed over, {}", passed.model, passed.reason));
                }
                let simulated = if summary.is_simulated { " [simulated]" } else { "" };
                let cost = output::money(summary.cost_usd);
                output::note(&format!("done by {model}{simulated}, {cost}"));
            }
        }
    }
    Ok(())
}

/// A step for whoever waits.
pub(super) fn progress(global: &Global, item: &TaskItem) {
    match item {
        TaskItem::Change { change, .. } => {
            let about = change.exchange.as_ref();
            match change.change.as_str() {
                "asked" => {
                    let question = about.map(|asked| consult::text_of(&asked.question));
                    output::note(&format!("it asks: {}", question.unwrap_or_default()));
                }
                // The result says it.
                "finished" => {}
                "submitted" | "queued" | "answered" if !global.verbose => {}
                word => output::note(&format!("{}: {}", word.replace('_', " "), change.detail)),
            }
        }
        TaskItem::Gap { first_cursor, .. } => {
            output::note(&format!("steps before {first_cursor} are no longer kept"));
        }
    }
}

/// A step for whoever watches.
pub(super) fn step(global: &Global, item: &TaskItem) -> Result<(), output::Error> {
    let (cursor, change) = match item {
        TaskItem::Change { cursor, change } => (cursor, change),
        TaskItem::Gap { first_cursor, .. } => {
            output::note(&format!("steps before {first_cursor} are no longer kept"));
            return Ok(());
        }
    };
    let state = change.state.as_str();
    let asked = change.exchange.as_ref();
    match global.output {
        Format::Json => output::json(&json!({
            "cursor": cursor,
            "at": output::rfc3339(change.at),
            "change": change.change,
            "detail": change.detail,
            "state": state,
            "exchange": asked.map(exchange_json),
        })),
        Format::Text => {
            let at = output::clock(change.at, consult::now());
            let said = match (change.change.as_str(), asked) {
                ("asked", Some(asked)) => consult::text_of(&asked.question),
                ("answered", Some(asked)) => consult::text_of(&asked.answer),
                _ => change.detail.clone(),
            };
            let said =
                if said.is_empty() { said } else { format!(": {}", output::printable(&said)) };
            output::line(&format!("{at} {} [{state}]{said}", change.change))
        }
    }
}

/// A task as one JSON object, which scripts rely on.
pub(super) fn json(task: &TaskDetail) -> Value {
    let mut json = info_json(&task.info);
    let exchanges: Vec<_> = task.exchanges.iter().map(exchange_json).collect();
    let text = consult::text_of(&task.result);
    let value = task.result_json.as_ref().and_then(|json| serde_json::from_slice(json).ok());
    json["task"] = task.task.description.clone().into();
    json["exchanges"] = exchanges.into();
    json["result"] = if text.is_empty() { Value::Null } else { text.into() };
    json["result_json"] = value.unwrap_or_default();
    json
}

/// What a task asked back, and the answer once there is one.
pub(crate) fn exchange_json(exchange: &TaskExchange) -> Value {
    let answered = exchange.answered_at;
    json!({
        "number": exchange.number,
        "question": consult::text_of(&exchange.question),
        "asked_at": output::rfc3339(exchange.asked_at),
        "answer": answered.map(|_| consult::text_of(&exchange.answer)),
        "answered_at": answered.and_then(output::rfc3339),
    })
}

fn info_json(info: &TaskInfo) -> Value {
    let failure = info.failure.as_ref().map(|failure| {
        json!({
            "class": failure.class.as_str(),
            "message": failure.detail,
            "retry_at": failure.retry_at.and_then(output::rfc3339),
        })
    });
    json!({
        "task_id": info.id.to_string(),
        "from": info.from.to_string(),
        "to": info.to.to_string(),
        "state": info.state.as_str(),
        "submitted_at": output::rfc3339(info.submitted_at),
        "deadline": output::rfc3339(info.deadline),
        "finished_at": info.finished_at.and_then(output::rfc3339),
        "summary": info.summary.as_ref().map(consult::summary_json),
        "failure": failure,
    })
}
