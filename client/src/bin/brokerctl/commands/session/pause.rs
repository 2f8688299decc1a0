//! `session pause|resume|transfer`: sessions that stop, and go on here or elsewhere.

use broker_client::Client;
use broker_proto::types::{AgentName, PackageId, SessionId};
use serde_json::json;

use super::json;
use crate::{
    cli::Global,
    commands::{consult, current},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn pause(
    global: &Global,
    client: &Client,
    id: &SessionId,
    reason: &str,
) -> anyhow::Result<Exit> {
    let info = client.pause_session(id, reason).await?;
    let package = info.pause.as_ref().map(|pause| pause.package.to_string()).unwrap_or_default();
    match global.output {
        Format::Text => {
            output::note(&format!("session {id} is paused; it goes on with its package"));
            output::line(&package)?;
        }
        Format::Json => output::json(&json::info(&info))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn resume(
    global: &Global,
    client: &Client,
    (id, package): (Option<SessionId>, Option<PackageId>),
    force: bool,
) -> anyhow::Result<Exit> {
    let resumed = client.resume_session(id.as_ref(), package, force).await?;
    let info = &resumed.session;
    current::remember(global, &info.id);
    match global.output {
        Format::Text => {
            output::note(&format!("session {} goes on with {}", info.id, info.owner.model));
            let point = match resumed.resume_point.as_str() {
                "" => "where it stopped; nobody said what comes next",
                point => point,
            };
            output::line(&format!("resume point: {point}"))?;
        }
        Format::Json => {
            let mut json = json::info(info);
            json["package"] = resumed.package.map(|id| id.to_string()).into();
            json["resume_point"] = resumed.resume_point.into();
            json["resumption_instructions"] = resumed.instructions.into();
            output::json(&json)?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn transfer(
    global: &Global,
    client: &Client,
    id: &SessionId,
    to: &AgentName,
    reason: &str,
) -> anyhow::Result<Exit> {
    let (handoff, model, at) = client.transfer_session(id, to, reason).await?;
    match global.output {
        Format::Text => {
            let at = output::clock(at, consult::now());
            output::line(&format!("handoff {handoff} to agent {to} ({model}), {at}"))?;
        }
        Format::Json => output::json(&json!({
            "handoff_id": handoff.to_string(),
            "session": id.as_str(),
            "target": { "agent": to.to_string(), "model": model.as_str() },
            "at": output::rfc3339(at),
        }))?,
    }
    Ok(Exit::Done)
}
