//! `queue list|show|peek|pause|resume`: queues as an operator sees them.

use broker_proto::types::{Counters, MessageState, QueueInfo};

use super::{connect, message};
use crate::{
    cli::{Global, QueueCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a queue command.
pub(crate) async fn run(global: &Global, command: QueueCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        QueueCommand::List => {
            let queues = client.queues().await?;
            list(global, &queues, client.counters(None).await?)?;
        }
        QueueCommand::Show { queue } => show(global, &client.queue(&queue).await?)?,
        QueueCommand::Peek { queue, limit, page } => {
            let page = client.peek(&queue, limit, page).await?;
            message::list(global, &page.items, page.next_page_token.as_deref())?;
        }
        QueueCommand::Pause { queue } => show(global, &client.pause_queue(&queue).await?)?,
        QueueCommand::Resume { queue } => show(global, &client.resume_queue(&queue).await?)?,
    }
    Ok(Exit::Done)
}

fn state(info: &QueueInfo) -> &'static str {
    match (info.is_degraded, info.is_paused) {
        (true, true) => "DEGRADED, paused",
        (true, false) => "DEGRADED",
        (false, true) => "paused",
        (false, false) => "active",
    }
}

fn list(global: &Global, queues: &[QueueInfo], totals: Counters) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let queues: Vec<_> = queues.iter().map(json).collect();
        let json = serde_json::json!({ "queues": queues, "totals": counters(totals) });
        output::json(&json)?;
        return Ok(());
    }
    let rows = queues.iter().map(|info| {
        [
            info.queue.to_string(),
            state(info).to_owned(),
            info.ready.to_string(),
            info.leased.to_string(),
            info.counters.waiting.to_string(),
            info.counters.dead.to_string(),
            info.links.to_string(),
            info.reason.clone(),
        ]
    });
    let header = ["QUEUE", "STATE", "READY", "LEASED", "WAITING", "DEAD", "LINKS", "WHY"];
    output::line(&output::table(header, rows))?;
    let in_words = words(totals).map(|(word, count)| format!("{count} {word}")).join(", ");
    output::note(&format!("in all: {} accepted = {in_words}", totals.accepted));
    Ok(())
}

fn show(global: &Global, info: &QueueInfo) -> Result<(), output::Error> {
    if global.output == Format::Json {
        return output::json(&json(info));
    }
    let mut rows = vec![
        ["queue".to_owned(), info.queue.to_string()],
        ["state".to_owned(), state(info).to_owned()],
        ["ready".to_owned(), format!("{} ({} bytes)", info.ready, info.size_bytes)],
        ["leased".to_owned(), info.leased.to_string()],
        ["links".to_owned(), info.links.to_string()],
        ["parked".to_owned(), info.parked.to_string()],
        ["dead letters".to_owned(), format!("{} ({} bytes)", info.counters.dead, info.dead_bytes)],
        ["accepted".to_owned(), info.counters.accepted.to_string()],
    ];
    rows.extend(words(info.counters).map(|(word, count)| [format!("= {word}"), count.to_string()]));
    if !info.reason.is_empty() {
        rows.push(["why".to_owned(), info.reason.clone()]);
    }
    output::line(&output::table(["FIELD", "VALUE"], rows))
}

/// Where the accepted messages stand; all of them together are as many.
fn words(counters: Counters) -> [(&'static str, u64); 9] {
    MessageState::ALL.map(|state| (state.as_str(), *{ counters }.of(state)))
}

fn counters(counters: Counters) -> serde_json::Value {
    let mut json = serde_json::json!({ "accepted": counters.accepted });
    for (word, count) in words(counters) {
        json[word] = count.into();
    }
    json
}

fn json(info: &QueueInfo) -> serde_json::Value {
    serde_json::json!({
        "queue": info.queue.to_string(),
        "paused": info.is_paused,
        "degraded": info.is_degraded,
        "reason": info.reason,
        "ready": info.ready,
        "leased": info.leased,
        "size_bytes": info.size_bytes,
        "links": info.links,
        "parked": info.parked,
        "dead_size_bytes": info.dead_bytes,
        "counters": counters(info.counters),
    })
}
