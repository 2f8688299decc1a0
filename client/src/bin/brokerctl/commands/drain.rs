//! `drain`: running work ends, nothing new is given out.

use std::time::Duration;

use broker_proto::types::{Drain, DrainStep, Draining};
use tokio::time::Instant;

use super::connect;
use crate::{
    cli::{DrainArgs, Global},
    exit_code::Exit,
    output::{self, Format},
};

/// How long one call waits; the broker waits no longer.
const CALL: Duration = Duration::from_secs(20);

/// Drains, and waits if that was asked.
pub(crate) async fn run(global: &Global, args: &DrainArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let end = Instant::now() + args.deadline;
    let step = match (args.undo, args.status) {
        (true, _) => DrainStep::Undo,
        (_, true) => DrainStep::Look,
        _ => DrainStep::Begin,
    };
    let drain = Drain {
        agent: args.agent.clone(),
        deadline: args.deadline,
        step,
        stops: args.stop,
        wait: Duration::ZERO,
    };
    let mut draining = client.drain(drain.clone()).await?;
    while args.wait && draining.is_draining && draining.running > 0 && Instant::now() < end {
        let wait = CALL.min(end - Instant::now());
        draining = match client.drain(Drain { stops: false, wait, ..drain.clone() }).await {
            Ok(draining) => draining,
            // It said that it would stop, and it does so only when it is drained or out of time.
            Err(err) if args.stop && err.is_connection() => Draining { running: 0, ..draining },
            Err(err) => return Err(err.into()),
        };
    }
    let Draining { is_draining, running } = draining;
    match global.output {
        Format::Json => output::json(&serde_json::json!({
            "draining": is_draining,
            "running": running,
            "drained": is_draining && running == 0,
        }))?,
        Format::Text if !is_draining && step == DrainStep::Look => output::line("not draining")?,
        Format::Text if !is_draining => output::line("deliveries go on")?,
        Format::Text if running == 0 => output::line("drained")?,
        Format::Text => output::line(&format!("draining: {running} still running"))?,
    }
    if args.stop && running > 0 {
        output::note(
            "the broker stops all the same; its agents keep what runs and come back with it",
        );
    }
    let is_late = args.wait && is_draining && running > 0;
    Ok(if is_late { Exit::Deadline } else { Exit::Done })
}
