//! `rotation show|set|force`: rings of agents of one role.

use anyhow::bail;
use broker_client::Client;
use broker_proto::types::{
    ForceRotation, RoleName, Rotation, RotationHandover, RotationMember, RotationState,
    SetRotation, WallTime,
};

use super::connect;
use crate::{
    cli::{Global, RotationCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a command about rings.
pub(crate) async fn run(global: &Global, command: RotationCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        RotationCommand::Show { role } => {
            let rings = client.rotations(role.as_ref()).await?;
            if global.output == Format::Json {
                let rotations: Vec<_> = rings.iter().map(json).collect();
                output::json(&serde_json::json!({ "rotations": rotations }))?;
                return Ok(Exit::Done);
            }
            if rings.is_empty() {
                output::note("no rings: brokerctl rotation set --role ROLE --members A,B,C");
            }
            for ring in &rings {
                text(ring)?;
            }
        }
        RotationCommand::Set(args) => {
            let role = only(&client, args.role).await?;
            let set = SetRotation {
                role,
                members: args.members,
                pick: args.pick.map(Into::into),
                pause: args.pause,
                is_on: !args.off,
            };
            let ring = client.set_rotation(set).await?;
            one(global, &ring)?;
            if ring.members.len() == 1 && ring.state != RotationState::Off {
                output::note(
                    "a ring of one has nobody to hand on to: it stops when its member cannot go on",
                );
            }
        }
        RotationCommand::Force { role, to, reason } => {
            let role = only(&client, role).await?;
            let ring = client.force_rotation(ForceRotation { role, to, reason }).await?;
            one(global, &ring)?;
        }
    }
    Ok(Exit::Done)
}

/// The role that was named, or that of the only ring.
async fn only(client: &Client, role: Option<RoleName>) -> anyhow::Result<RoleName> {
    if let Some(role) = role {
        return Ok(role);
    }
    let mut rings = client.rotations(None).await?;
    match (rings.pop(), rings.len()) {
        (Some(ring), 0) => Ok(ring.role),
        (Some(_), _) => bail!("there are several rings: say which with --role"),
        (None, _) => bail!("there is no ring: brokerctl rotation set --role ROLE --members A,B,C"),
    }
}

fn one(global: &Global, ring: &Rotation) -> anyhow::Result<()> {
    match global.output {
        Format::Json => output::json(&json(ring))?,
        Format::Text => text(ring)?,
    }
    Ok(())
}

fn text(ring: &Rotation) -> anyhow::Result<()> {
    let owner = ring.owner.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let (state, pick, pause) = (ring.state.as_str(), ring.pick.as_str(), output::span(ring.pause));
    let (queued, leased) = (ring.queued, ring.leased);
    output::line(&format!(
        "{}: {state}, {owner} works (owner {}), {queued} waiting, {leased} running, pick {pick}, pause {pause}",
        ring.role, ring.epoch
    ))?;
    if let Some(handover) = &ring.handover {
        output::line(&format!("  {}", phase(handover)))?;
    }
    if !ring.stopped.is_empty() {
        let back = ring.back_at.map(|at| format!(", goes on at {}", output::clock(at, ring.at)));
        output::line(&format!("  stopped: {}{}", ring.stopped, back.unwrap_or_default()))?;
        output::line(&format!("  what helps: {}", what_helps(ring)))?;
    }
    let rows = ring.members.iter().map(|member| row(member, ring.at));
    let header =
        ["MEMBER", "STATUS", "LINK", "LIMITS", "ERRORS", "RESPONSE", "TURNS", "NEXT", "WHY"];
    output::line(&output::table(header, rows))?;
    Ok(())
}

/// What somebody can do about a ring that is stopped.
pub(super) fn what_helps(ring: &Rotation) -> String {
    let role = &ring.role;
    if ring.members.iter().all(|member| !member.is_connected) {
        return format!("start a member with the role: broker-agent --role {role} --name NAME ..");
    }
    let goes_on = if ring.back_at.is_some() { "wait, it goes on by itself; " } else { "" };
    format!("{goes_on}`brokerctl rotation force --role {role}` asks those that only pause")
}

fn phase(handover: &RotationHandover) -> String {
    let name = |agent: &Option<_>| agent.as_ref().map_or("-".to_owned(), ToString::to_string);
    let (from, to) = (name(&handover.from), name(&handover.to));
    let (phase, trigger) = (handover.phase.as_str(), handover.trigger.as_str());
    format!("{phase}: {from} to {to}, {trigger}: {}", handover.reason)
}

fn row(member: &RotationMember, now: WallTime) -> [String; 9] {
    let mark = if member.is_owner { "*" } else { "" };
    let until = member.until.map(|at| format!(" (until {})", output::clock(at, now)));
    [
        format!("{}{mark}", member.agent),
        member.status.clone(),
        match (member.is_connected, member.woken_by.as_str()) {
            (true, _) => "open",
            (false, "") => "-",
            (false, waker) => waker,
        }
        .to_owned(),
        member.rate_limit_count.to_string(),
        format!("{:.0} %", member.error_rate * 100.0),
        member.avg_response_time.map_or("-".to_owned(), output::span),
        member.turns.to_string(),
        member.next.to_string(),
        format!("{}{}", member.reason, until.unwrap_or_default()),
    ]
}

/// A ring as programs read it: the members under their names, as on seed 003's dashboard, and in their order.
fn json(ring: &Rotation) -> serde_json::Value {
    let handover = ring.handover.as_ref().map(|it| {
        serde_json::json!({
            "phase": it.phase.as_str(),
            "trigger": it.trigger.as_str(),
            "reason": it.reason,
            "from": it.from.as_ref().map(ToString::to_string),
            "to": it.to.as_ref().map(ToString::to_string),
            "begun_at": output::rfc3339(it.begun_at),
            "until": it.until.and_then(output::rfc3339),
            "tasks": it.tasks,
            "sessions": it.sessions,
        })
    });
    let order: Vec<_> = ring.members.iter().map(|member| member.agent.to_string()).collect();
    let members: serde_json::Map<String, serde_json::Value> =
        ring.members.iter().map(|it| (it.agent.to_string(), member(it))).collect();
    serde_json::json!({
        "role": ring.role.as_str(),
        "state": ring.state.as_str(),
        "owner": ring.owner.as_ref().map(ToString::to_string),
        "epoch": ring.epoch,
        "since": ring.since.and_then(output::rfc3339),
        "pick": ring.pick.as_str(),
        "pause_seconds": ring.pause.as_secs_f64(),
        "accept_deadline_seconds": ring.accept_deadline.as_secs_f64(),
        "queued": ring.queued,
        "leased": ring.leased,
        "handover": handover,
        "stopped": Some(&ring.stopped).filter(|why| !why.is_empty()),
        "back_at": ring.back_at.and_then(output::rfc3339),
        "order": order,
        "members": members,
        "last_update": output::rfc3339(ring.at),
    })
}

fn member(member: &RotationMember) -> serde_json::Value {
    serde_json::json!({
        "status": member.status,
        "owner": member.is_owner,
        "connected": member.is_connected,
        "woken_by": Some(&member.woken_by).filter(|waker| !waker.is_empty()),
        "rate_limit_count": member.rate_limit_count,
        "error_rate": member.error_rate,
        "avg_response_time": member.avg_response_time.map(|span| span.as_secs_f64()),
        "next": member.next.as_str(),
        "reason": Some(&member.reason).filter(|why| !why.is_empty()),
        "until": member.until.and_then(output::rfc3339),
        "turns": member.turns,
        "owned_seconds": member.owned.as_secs_f64(),
    })
}
