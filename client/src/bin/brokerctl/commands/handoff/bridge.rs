//! `handoff bridge open|sync|status|close`: packages that are kept current.

use broker_proto::types::{BridgeStatus, ModelName, SessionPoint};
use serde_json::{Value, json};

use crate::{
    cli::{BridgeCommand, EndsArgs, Global, Misused},
    commands::{connect, consult, current, session::model_name},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, command: BridgeCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let bridges = match command {
        BridgeCommand::Open { ends } => {
            let Ends { session, from, to } = ends.try_into()?;
            let to = to.ok_or(Misused::NoReceiver)?;
            let session = current::needed(global, &client, session).await?;
            let from = match from {
                Some(from) => from,
                None => client.session(&session, &SessionPoint::Head).await?.info.owner.model,
            };
            vec![client.open_bridge(&session, &from, &to).await?]
        }
        BridgeCommand::Sync { ends } => {
            let Ends { session, to, .. } = ends.try_into()?;
            let session = current::needed(global, &client, session).await?;
            client.sync_bridge(&session, to.as_ref()).await?
        }
        BridgeCommand::Status { ends } => {
            let Ends { session, from, to } = ends.try_into()?;
            let is_meant = |it: &BridgeStatus| {
                let is = |end: &Option<ModelName>, of: &ModelName| {
                    end.as_ref().is_none_or(|end| end == of)
                };
                is(&from, &it.bridge.from) && is(&to, &it.bridge.to)
            };
            let all = client.bridges(session.as_ref()).await?;
            all.into_iter().filter(is_meant).collect()
        }
        BridgeCommand::Close { ends } => {
            let Ends { session, to, .. } = ends.try_into()?;
            let session = current::needed(global, &client, session).await?;
            let closed = client.close_bridge(&session, to.as_ref()).await?;
            for status in &closed {
                let bridge = &status.bridge;
                output::note(&format!(
                    "the bridge from {} to {} is closed",
                    bridge.from, bridge.to
                ));
            }
            closed
        }
    };
    show(global, &bridges)?;
    Ok(Exit::Done)
}

/// The ends as the broker knows them.
struct Ends {
    session: Option<broker_proto::types::SessionId>,
    from: Option<ModelName>,
    to: Option<ModelName>,
}

impl TryFrom<EndsArgs> for Ends {
    type Error = Misused;

    fn try_from(args: EndsArgs) -> Result<Self, Misused> {
        let EndsArgs { session, from, to } = args;
        Ok(Self { session, from: model_name(from)?, to: model_name(to)? })
    }
}

fn show(global: &Global, bridges: &[BridgeStatus]) -> Result<(), output::Error> {
    if global.output == Format::Json {
        let bridges: Vec<Value> = bridges.iter().map(json_of).collect();
        return output::json(&json!({ "bridges": bridges }));
    }
    let now = consult::now();
    let row = |it: &BridgeStatus| {
        let synced = it.synced.map_or_else(|| "never".to_owned(), |(_, at)| output::clock(at, now));
        let lag = format!("{} turns, {} tokens", it.lag_turns, it.lag_tokens);
        let health = match it.problem.as_str() {
            "" => it.health.as_str().to_owned(),
            problem => format!("{}: {problem}", it.health.as_str()),
        };
        let ends = format!("{} to {}", it.bridge.from, it.bridge.to);
        [it.bridge.session.to_string(), ends, lag, synced, health]
    };
    let rows: Vec<_> = bridges.iter().map(row).collect();
    output::line(&output::table(["session", "bridge", "behind", "last sync", "health"], rows))
}

fn json_of(it: &BridgeStatus) -> Value {
    let (package, synced_at) = it.synced.unzip();
    json!({
        "session": it.bridge.session.as_str(),
        "from": it.bridge.from.as_str(),
        "to": it.bridge.to.as_str(),
        "opened_at": output::rfc3339(it.bridge.opened_at),
        "package": package.map(|id| id.to_string()),
        "last_sync": synced_at.and_then(output::rfc3339),
        "lag_turns": it.lag_turns,
        "lag_tokens": it.lag_tokens,
        "health": it.health.as_str(),
        "problem": it.problem,
    })
}
