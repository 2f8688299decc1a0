//! `handoff execute|force`: a session handed over, and waited for.

use broker_client::Client;
use broker_proto::types::{
    AskHandoff, Handoff, HandoffFilter, HandoffState, ModelInfo, PackageFilter, PackageId,
    PackageInfo, SessionId, SessionOwner, SessionPoint,
};

use super::{moved, offer};
use crate::{
    cli::{ExecuteArgs, Global},
    commands::{connect, current, until_interrupted},
    exit_code::Exit,
    output::{self, Format},
};

/// Packages of a session among which the one prepared last is looked for.
const LOOKED_AT: u32 = 100;

/// How it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Asked,
    /// At once, without regard to cool-down, hops and loops.
    Forced,
}

pub(super) async fn run(
    global: &Global,
    args: ExecuteArgs,
    manner: Manner,
) -> anyhow::Result<Exit> {
    with(global, &connect(global).await?, args, manner).await
}

/// The same over a connection that is there.
pub(super) async fn with(
    global: &Global,
    client: &Client,
    args: ExecuteArgs,
    manner: Manner,
) -> anyhow::Result<Exit> {
    let session = current::needed(global, client, args.of.session.clone()).await?;
    let is_forced = manner == Manner::Forced;
    let no_wait = args.no_wait;
    let (to, package) = match args.to {
        Some(to) => (Some(to), None),
        None => match prepared(client, &session).await? {
            Some(info) => {
                let id = info.header.id;
                let to = info.header.recipient;
                let name = to.as_ref().map(ToString::to_string).unwrap_or_default();
                output::note(&format!("package {id} is prepared for {name}"));
                (to, Some(id))
            }
            None => {
                output::note("nothing is prepared: the broker chooses who takes it");
                (None, None)
            }
        },
    };
    let ask = AskHandoff {
        session,
        to,
        agent: None,
        reason: args.reason,
        level: args.preserve,
        package,
        is_forced,
        at_once: is_forced,
    };
    let handoff = client.begin_handoff(ask).await?;
    if no_wait {
        return offer::begun(global, &handoff);
    }
    until_interrupted(wait(global, client, handoff)).await
}

/// The package made last for another model than the owner, which may still be taken.
async fn prepared(client: &Client, session: &SessionId) -> anyhow::Result<Option<PackageInfo>> {
    let owner = client.session(session, &SessionPoint::Head).await?.info.owner.model;
    let filter = PackageFilter {
        session: Some(session.clone()),
        is_expired: Some(false),
        ..PackageFilter::default()
    };
    let page = client.packages(filter, LOOKED_AT, None).await?;
    let filter = HandoffFilter { session: Some(session.clone()), ..HandoffFilter::default() };
    let handoffs = client.list_handoffs(filter, LOOKED_AT, None).await?;
    let taken = handoffs.items.into_iter().filter(|handoff| handoff.accepted_at.is_some());
    let taken: Vec<PackageId> = taken.filter_map(|handoff| handoff.package).collect();
    // One that an earlier owner made does not know what was said since it left.
    let (used, free): (Vec<_>, Vec<_>) = page
        .items
        .into_iter()
        .filter(|info| {
            let header = &info.header;
            header.recipient.as_ref().is_some_and(|to| *to != owner)
                && header.sender == owner.as_str()
        })
        .partition(|info| taken.contains(&info.header.id));
    if free.is_empty() && !used.is_empty() {
        output::note("what was prepared was taken before");
    }
    Ok(free.into_iter().next())
}

async fn wait(global: &Global, client: &Client, begun: Handoff) -> anyhow::Result<Exit> {
    let told = |handoff: &Handoff| {
        if handoff.state.is_pending() {
            output::note(&moved::sentence(handoff));
        }
    };
    let handoff = client.settled_handoff(begun.id, told).await?;
    let owner = client.session(&handoff.session, &SessionPoint::Head).await?.info.owner;
    let has_moved = matches!(handoff.state, HandoffState::Active | HandoffState::Completed);
    match global.output {
        Format::Json => {
            let mut shown = moved::json(&handoff);
            shown["owner"] = serde_json::json!({
                "model": owner.model.as_str(),
                "agent": owner.agent.as_ref().map(ToString::to_string),
                "epoch": owner.epoch,
            });
            output::json(&shown)?;
        }
        Format::Text => {
            if !has_moved {
                output::note(&moved::sentence(&handoff));
            }
            output::line(&belongs(&handoff, &owner))?;
        }
    }
    Ok(match handoff.state {
        _ if has_moved => Exit::Done,
        // It may help later: whoever was asked said nothing.
        HandoffState::Expired => {
            say_who_is_away(&client.models().await?, &handoff);
            Exit::Limited
        }
        _ => Exit::Failed,
    })
}

/// Nobody could answer for a model without an agent.
fn say_who_is_away(models: &[ModelInfo], handoff: &Handoff) {
    let was_asked = |model: &&ModelInfo| handoff.tried.iter().any(|it| it.model == model.name);
    let away = models.iter().filter(was_asked).filter(|model| model.agents == 0);
    let away: Vec<&str> = away.map(|model| model.name.as_str()).collect();
    if !away.is_empty() {
        let away = away.join(" and ");
        output::note(&format!(
            "no agent of {away} is connected: `brokerctl up` starts one per model, `brokerctl agents` shows them"
        ));
    }
}

/// `session s1 belongs to sonnet now (agent sonnet-1, epoch 2)`
fn belongs(handoff: &Handoff, owner: &SessionOwner) -> String {
    let agent = owner.agent.as_ref().map(|agent| format!("agent {agent}, ")).unwrap_or_default();
    let still = if owner.model == handoff.from.model { "still belongs" } else { "belongs" };
    let SessionOwner { model, epoch, .. } = owner;
    format!("session {} {still} to {model} ({agent}epoch {epoch})", handoff.session)
}
