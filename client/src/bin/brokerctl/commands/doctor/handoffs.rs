//! The four things that go wrong with handoffs, as `docs/troubleshooting.md` has them: not triggering, the next one not
//! waking, not found, and going round in a loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_client::{Client, Error};
use broker_proto::types::{
    Advice, AgentInfo, Handoff, HandoffFilter, HandoffState, HandoffStatus, ModelName,
    PackageFilter, PackageInfo, SessionId, UsageSetting, WallTime,
};

use super::Check;
use crate::output;

const TRIGGERS: &str = "handoff triggers";
const RECEIVERS: &str = "handoff receivers";
const PACKAGES: &str = "handoff packages";
const LOOPS: &str = "handoff loops";
/// The newest that are looked at.
const LOOKED_AT: u32 = 500;
/// An offer that nobody answered longer ago is history.
const LATELY: Duration = Duration::from_secs(24 * 3600);
/// So many moves of one session in so short a time are a loop.
const MOVES: usize = 4;
const AN_HOUR: Duration = Duration::from_secs(3600);

/// What a broker says of its handoffs.
#[derive(Debug, Default)]
struct Found {
    policy: Vec<UsageSetting>,
    status: HandoffStatus,
    agents: Vec<AgentInfo>,
    /// Newest first.
    handoffs: Vec<Handoff>,
    packages: Vec<PackageInfo>,
}

/// Asks the broker, and looks for all four.
pub(super) async fn look(client: &Client, now: WallTime) -> Vec<Check> {
    match ask(client).await {
        Ok(found) => vec![
            triggers(&found),
            receivers(&found, now),
            packages(&found, now),
            loops(&found.handoffs, now),
        ],
        Err(err) => {
            let remedy = "the broker may be older than this program: start it again";
            vec![Check::warn("handoffs", err.to_string(), remedy)]
        }
    }
}

async fn ask(client: &Client) -> Result<Found, Error> {
    Ok(Found {
        policy: client.handoff_policy().await?,
        status: client.handoff_status(None).await?,
        agents: client.agents().await?,
        handoffs: client.list_handoffs(HandoffFilter::default(), LOOKED_AT, None).await?.items,
        packages: client.packages(PackageFilter::default(), LOOKED_AT, None).await?.items,
    })
}

impl Found {
    /// Models that may receive sessions.
    fn receiving(&self) -> impl Iterator<Item = &ModelName> {
        self.status.models.iter().filter(|it| it.receives).map(|it| &it.model)
    }
}

/// Whether a limit that is reached leads to anything.
fn triggers(found: &Found) -> Check {
    let is_off = |key: &str| found.policy.iter().any(|it| it.key == key && it.value == "false");
    if is_off("auto") {
        let remedy = "`brokerctl handoff config --auto true`";
        return Check::warn(TRIGGERS, "auto is off: no session moves by itself", remedy);
    }
    let receiving: Vec<&str> = found.receiving().map(ModelName::as_str).collect();
    if receiving.len() < 2 {
        let detail = format!("only {} may receive sessions", names(receiving, "no model"));
        return Check::warn(TRIGGERS, detail, "`brokerctl handoff models --add MODEL`");
    }
    let outlooks = found.status.sessions.iter().chain(&found.status.models);
    let (stuck, moving): (Vec<_>, Vec<_>) =
        outlooks.filter(|it| it.advice == Advice::Needed).partition(|it| it.to.is_none());
    if let Some(first) = stuck.first() {
        let detail = format!("{}: {}, and nobody can take it", first.name, first.reason);
        let remedy = "connect an agent of another model, or wait: `brokerctl handoff status`";
        return Check::warn(TRIGGERS, detail, remedy);
    }
    let moving = match moving.as_slice() {
        [] => "none has to move".to_owned(),
        some => format!("{} with the next turn", names(some.iter().map(|it| it.name.as_str()), "")),
    };
    Check::ok(TRIGGERS, format!("sessions move by themselves; {moving}"))
}

/// Whether those who are asked can answer, and did.
fn receivers(found: &Found, now: WallTime) -> Check {
    let connected: BTreeSet<&ModelName> =
        found.agents.iter().filter(|it| it.is_connected).flat_map(|it| &it.models).collect();
    let silent: Vec<&str> = found
        .receiving()
        .filter(|model| !connected.contains(model))
        .map(ModelName::as_str)
        .collect();
    let tried = found.handoffs.iter().flat_map(|it| &it.tried);
    let is_late = |state, at: WallTime| state == HandoffState::Expired && now.since(at) < LATELY;
    let mut late: BTreeMap<&ModelName, u32> = BTreeMap::new();
    for tried in tried.filter(|it| is_late(it.state, it.at)) {
        *late.entry(&tried.model).or_default() += 1;
    }
    if let Some((model, count)) = late.into_iter().max_by_key(|(_, count)| *count) {
        let offers = if count == 1 { "an offer".to_owned() } else { format!("{count} offers") };
        let detail = format!("{model} did not answer {offers} in the last day");
        let remedy =
            "look at its agent's log; `brokerctl agents`, `brokerctl handoff history --limit 10`";
        return Check::warn(RECEIVERS, detail, remedy);
    }
    if !silent.is_empty() {
        let detail = format!("no agent is connected for {}", names(silent, ""));
        return Check::warn(RECEIVERS, detail, "`brokerctl up` starts one per model");
    }
    Check::ok(
        RECEIVERS,
        format!("{} can be asked", names(found.receiving().map(ModelName::as_str), "nobody")),
    )
}

/// Whether there is anything to find.
fn packages(found: &Found, now: WallTime) -> Check {
    let all = found.packages.len();
    let expired = found.packages.iter().filter(|it| it.header.expires_at <= now).count();
    let detail =
        format!("{} handoffs, {all} packages, {expired} of them expired", found.handoffs.len());
    if all > 0 && expired == all {
        let remedy = "`brokerctl handoff prepare --session S --to MODEL` makes another; packages.ttl says how long one lives";
        return Check::warn(PACKAGES, detail, remedy);
    }
    Check::ok(PACKAGES, detail)
}

/// Whether a session goes round.
fn loops(handoffs: &[Handoff], now: WallTime) -> Check {
    let mut moves: BTreeMap<&SessionId, Vec<&Handoff>> = BTreeMap::new();
    for handoff in handoffs {
        if handoff.active_at.is_some_and(|at| now.since(at) < AN_HOUR) {
            moves.entry(&handoff.session).or_default().push(handoff);
        }
    }
    let worst = moves.into_iter().max_by_key(|(_, moves)| moves.len());
    let Some((session, moves)) = worst.filter(|(_, moves)| moves.len() >= MOVES) else {
        return Check::ok(LOOPS, "no session goes round");
    };
    let models: BTreeSet<&str> =
        moves.iter().flat_map(|it| [it.from.model.as_str(), it.to.as_str()]).collect();
    let why = moves.first().map(|it| it.trigger.reasoning.as_str()).unwrap_or_default();
    let detail = format!(
        "session {session} moved {} times in the last {} among {}, at last because: {why}",
        moves.len(),
        output::span(AN_HOUR),
        names(models, "")
    );
    let remedy = "fewer tasks at a time, more models, a longer handoff.cooldown; `brokerctl handoff config --auto false` stops it";
    Check::warn(LOOPS, detail, remedy)
}

fn names<'a>(all: impl IntoIterator<Item = &'a str>, none: &str) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    if all.is_empty() { none.to_owned() } else { all.join(", ") }
}
