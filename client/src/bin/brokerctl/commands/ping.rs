//! `ping`: who answers.

use std::time::Duration;

use broker_proto::types::{PeerPing, PingText};

use super::{connect, consult};
use crate::{
    cli::{Global, PingArgs},
    exit_code::Exit,
    output::{self, Format},
};

/// Pings the broker, an agent, or one agent from another.
pub(crate) async fn run(global: &Global, args: PingArgs) -> anyhow::Result<Exit> {
    match (args.from, args.to) {
        (Some(from), Some(to)) => {
            let ping = PeerPing {
                from: consult::input::model_name(&from)?,
                to: consult::input::model_name(&to)?,
                text: PingText(args.message),
                wait: args.wait,
            };
            between(global, ping).await
        }
        _ => one(global, args.model.as_deref()).await,
    }
}

/// What each hop of a ping is.
const HOPS: [&str; 3] = ["sends it", "answers it", "has the answer"];

async fn between(global: &Global, ping: PeerPing) -> anyhow::Result<Exit> {
    let (from, to) = (ping.from.clone(), ping.to.clone());
    let trip = connect(global).await?.ping_model(ping).await?;
    let hops = || trip.hops.iter().zip(HOPS);
    match global.output {
        Format::Json => {
            let hops: Vec<_> = hops()
                .map(|(hop, what)| {
                    serde_json::json!({
                        "agent": hop.agent.to_string(), "what": what, "ms": millis(hop.took),
                    })
                })
                .collect();
            output::json(&serde_json::json!({
                "from": from.to_string(),
                "to": to.to_string(),
                "round_trip_ms": millis(trip.round_trip),
                "total_ms": millis(trip.total),
                "hops": hops,
            }))?;
        }
        Format::Text => {
            let round_trip = millis(trip.round_trip);
            output::line(&format!("{from} to {to} and back: {round_trip:.1} ms"))?;
            let rows = hops().map(|(hop, what)| {
                let way = format!("broker -> {} -> broker", hop.agent);
                [way, what.to_owned(), format!("{:.1} ms", millis(hop.took))]
            });
            output::line(&output::table(["HOP", "AGENT", "TIME"], rows))?;
        }
    }
    Ok(Exit::Done)
}

fn millis(span: Duration) -> f64 {
    // A microsecond is the finest that means anything.
    (span.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// Sees whether the broker, or a model's agent, answers.
async fn one(global: &Global, model: Option<&str>) -> anyhow::Result<Exit> {
    let model = model.map(consult::input::model_name).transpose()?;
    let client = connect(global).await?;
    let began = std::time::Instant::now();
    let pong = client.ping(model.as_ref().map(|name| name.as_str())).await?;
    let took = began.elapsed();
    match global.output {
        Format::Json => output::json(&serde_json::json!({
            "version": pong.version,
            "journal": pong.journal,
            "agent": pong.agent.as_ref().map(ToString::to_string),
            "broker_ms": millis(took),
            "agent_ms": pong.round_trip.map(millis),
        }))?,
        Format::Text => {
            let millis = took.as_secs_f64() * 1_000.0;
            output::line(&format!(
                "broker {} answered in {millis:.1} ms (journal: {})",
                pong.version, pong.journal
            ))?;
            if let (Some(agent), Some(span)) = (pong.agent, pong.round_trip) {
                let millis = span.as_secs_f64() * 1_000.0;
                output::line(&format!("agent {agent} answered in {millis:.1} ms"))?;
            }
        }
    }
    Ok(Exit::Done)
}
