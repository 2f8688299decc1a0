//! `clock status|confirm`: broker time, and a wall clock that jumped.

use super::{connect, consult};
use crate::{
    cli::{ClockCommand, Global},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a clock command.
pub(crate) async fn run(global: &Global, command: ClockCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        ClockCommand::Status => {
            let info = client.clock().await?;
            if global.output == Format::Json {
                let jump = info.jump.map(|jump| {
                    serde_json::json!({
                        "ahead_seconds": jump.ahead.as_secs_f64(),
                        "believed_in_seconds": jump.believed_in.as_secs_f64(),
                    })
                });
                let at = output::rfc3339(info.broker_time);
                output::json(&serde_json::json!({ "broker_time": at, "clock_jump": jump }))?;
                return Ok(Exit::Done);
            }
            output::line(&output::clock(info.broker_time, consult::now()))?;
            if let Some(jump) = info.jump {
                output::note(&format!(
                    "clock_jump: the wall clock is {} ahead and expiry by it is halted; it is believed in {}, or with \
                     `brokerctl clock confirm`",
                    output::span(jump.ahead),
                    output::span(jump.believed_in)
                ));
            }
        }
        ClockCommand::Confirm => {
            let confirmed = client.confirm_clock().await?;
            match global.output {
                Format::Json => output::json(&serde_json::json!({ "confirmed": confirmed }))?,
                Format::Text => output::line(if confirmed {
                    "the wall clock is believed"
                } else {
                    "the wall clock has not jumped"
                })?,
            }
        }
    }
    Ok(Exit::Done)
}
