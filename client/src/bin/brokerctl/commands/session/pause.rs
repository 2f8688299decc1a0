//! `session pause|resume|transfer|verify`: sessions that stop, go on here or elsewhere, and come home.

use broker_client::Client;
use broker_proto::types::{
    AgentInfo, AgentName, HandoffId, HandoffState, ModelName, PackageId, SessionId, SessionInfo,
    SessionPoint, WallTime,
};
use serde_json::json;

use super::json;
use crate::{
    cli::Global,
    commands::{consult, current, handoff::moved, until_interrupted},
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
            output::note(&format!(
                "session {id} is paused; `brokerctl session resume {id}` lets it go on"
            ));
            output::line(&package)?;
        }
        Format::Json => output::json(&json::info(&info))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn verify(
    global: &Global,
    client: &Client,
    id: &SessionId,
) -> anyhow::Result<Exit> {
    let (info, was) = client.verify_session(id).await?;
    match global.output {
        Format::Text => match &was {
            Some(was) => {
                let (first, last) = (was.from, was.until.saturating_sub(1));
                output::line(&format!("entries {first}-{last} of session {id} are verified"))?;
            }
            None => output::note(&format!("nothing of session {id} is unverified")),
        },
        Format::Json => {
            let mut json = json::info(&info);
            json["verified"] = was.as_ref().map(json::unverified).into();
            output::json(&json)?;
        }
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
    let missing = missing(client, info).await?;
    match global.output {
        Format::Text => {
            output::note(&stands(info, false));
            if let Some(missing) = &missing {
                output::note(&format!("{missing}: what is asked of it waits"));
            }
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
            json["missing"] = missing.into();
            output::json(&json)?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn transfer(
    global: &Global,
    client: &Client,
    (id, to, reason): (&SessionId, &AgentName, &str),
    no_wait: bool,
) -> anyhow::Result<Exit> {
    let (handoff, model, at) = client.transfer_session(id, to, reason).await?;
    let begun = Begun { handoff, agent: to.clone(), model, at };
    until_interrupted(transferred(global, client, &begun, no_wait)).await
}

/// A transfer under way.
struct Begun {
    handoff: HandoffId,
    agent: AgentName,
    model: ModelName,
    at: WallTime,
}

/// Tells of a transfer once it is known who has the session.
async fn transferred(
    global: &Global,
    client: &Client,
    begun: &Begun,
    no_wait: bool,
) -> anyhow::Result<Exit> {
    let Begun { handoff: id, agent, model, at } = begun;
    let handoff = match no_wait {
        true => client.handoff(*id).await?,
        false => client.settled_handoff(*id, |_| {}).await?,
    };
    let info = client.session(&handoff.session, &SessionPoint::Head).await?.info;
    let has_moved = matches!(handoff.state, HandoffState::Active | HandoffState::Completed);
    match global.output {
        Format::Text => {
            let clock = output::clock(*at, consult::now());
            output::line(&format!("handoff {id} to agent {agent} ({model}), {clock}"))?;
            if !has_moved {
                output::note(&moved::sentence(&handoff));
            }
            output::note(&stands(&info, handoff.state.is_pending()));
        }
        Format::Json => {
            let mut json = json!({
                "handoff_id": id.to_string(),
                "session": handoff.session.as_str(),
                "target": { "agent": agent.to_string(), "model": model.as_str() },
                "at": output::rfc3339(*at),
                "state": handoff.state.as_str(),
                "outcome": Some(&handoff.outcome).filter(|outcome| !outcome.is_empty()),
            });
            let info = json::info(&info);
            json["session_state"] = info["state"].clone();
            json["owner"] = info["owner"].clone();
            output::json(&json)?;
        }
    }
    Ok(if has_moved || no_wait { Exit::Done } else { Exit::Failed })
}

/// `session s1 goes on with opus, agent opus-2`
fn stands(info: &SessionInfo, is_pending: bool) -> String {
    let owner = owner(info);
    match &info.pause {
        None => format!("session {} goes on with {owner}", info.id),
        Some(_) if is_pending => format!("session {} is paused until it is taken", info.id),
        Some(_) => format!(
            "session {id} stays paused with {owner}: `brokerctl session resume {id}` lets it go on",
            id = info.id
        ),
    }
}

fn owner(info: &SessionInfo) -> String {
    let agent = info.owner.agent.as_ref().map(|agent| format!(", agent {agent}"));
    format!("{}{}", info.owner.model, agent.unwrap_or_default())
}

/// Who is missing for a session to go on, where somebody is.
async fn missing(client: &Client, info: &SessionInfo) -> anyhow::Result<Option<String>> {
    let agents = client.agents().await?;
    let serves = |it: &&AgentInfo| it.is_connected && it.models.contains(&info.owner.model);
    let mut serving = agents.iter().filter(serves);
    Ok(match &info.owner.agent {
        _ if agents.iter().filter(serves).count() == 0 => {
            Some(format!("no agent of {} is connected", info.owner.model))
        }
        Some(own) if serving.all(|it| it.name != *own) => {
            Some(format!("agent {own} is not connected"))
        }
        _ => None,
    })
}
