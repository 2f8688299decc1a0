//! `events tail`: what happens.

use broker_client::{EventItem, Watched};
use broker_proto::types::{AgentName, EventFilter, EventInfo, EventStart, MessageName};

use super::{Interrupts, connect, connection, consult};
use crate::{
    cli::{EventsCommand, Global, Misused},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs an events command.
pub(crate) async fn run(global: &Global, command: EventsCommand) -> anyhow::Result<Exit> {
    let EventsCommand::Tail { from, filter } = command;
    let start = match from.as_str() {
        "now" => EventStart::Now,
        "start" => EventStart::First,
        _ => EventStart::Behind(from),
    };
    let mut interrupts = Interrupts::listen()?;
    let mut events = connect(global).await?.follow_events(start, wanted(filter)?);
    let mut behind = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            () = interrupts.next() => break,
        };
        match event {
            Some(Watched::Item(EventItem::Event { cursor, event })) => {
                told(global, &cursor, &event)?;
                behind = Some(cursor);
            }
            Some(Watched::Item(EventItem::Gap { cursor })) => gap(global, &cursor)?,
            Some(news) => connection(&news),
            None => return Ok(Exit::Done),
        }
    }
    if let (Some(cursor), Format::Text) = (behind, global.output) {
        output::note(&format!("`brokerctl events tail --from {cursor}` goes on from here"));
    }
    Ok(Exit::Interrupted)
}

fn wanted(pairs: Vec<(String, String)>) -> anyhow::Result<EventFilter> {
    let mut filter = EventFilter::default();
    for (key, value) in pairs {
        match key.as_str() {
            "kind" => filter.kinds.push(value),
            "message" => {
                let name = MessageName::parse(&value);
                filter.message = Some(name.ok_or(Misused::MessageId(value))?);
            }
            "model" => filter.model = Some(consult::input::model_name(&value)?),
            "agent" => {
                let name = AgentName::parse(&value);
                filter.agent = Some(name.map_err(|_| Misused::AgentName(value))?);
            }
            _ => filter.session = Some(value),
        }
    }
    Ok(filter)
}

fn told(global: &Global, cursor: &str, event: &EventInfo) -> Result<(), output::Error> {
    let (id, state) = event.message.unzip();
    if global.output == Format::Json {
        return output::json(&serde_json::json!({
            "cursor": cursor,
            "kind": event.kind,
            "at": output::rfc3339(event.at),
            "message_id": id.map(|id| id.to_string()),
            "state": state.map(|state| state.as_str()),
            "model": event.model.as_ref().map(ToString::to_string),
            "agent": event.agent.as_ref().map(ToString::to_string),
            "session": event.session,
            "detail": event.detail,
        }));
    }
    let mut line = format!("{} {}", output::clock(event.at, consult::now()), event.kind);
    if let (Some(id), Some(state)) = (id, state) {
        line.push_str(&format!(" {id} [{}]", state.as_str()));
    }
    for name in [event.model.as_ref().map(ToString::to_string), event.session.clone()] {
        line.extend(name.map(|name| format!(" {name}")));
    }
    if !event.detail.is_empty() {
        line.push_str(": ");
        line.push_str(&event.detail);
    }
    output::line(&output::printable(&line))
}

fn gap(global: &Global, cursor: &str) -> Result<(), output::Error> {
    if global.output == Format::Json {
        return output::json(&serde_json::json!({ "kind": "gap", "cursor": cursor }));
    }
    output::note(&format!("events before {cursor} are no longer kept"));
    Ok(())
}
