//! `handoff history`: the handoffs there were.

use broker_proto::types::{Handoff, HandoffFilter, WallTime};

use super::moved;
use crate::{
    cli::{Global, HistoryArgs},
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: HistoryArgs) -> anyhow::Result<Exit> {
    let filter = HandoffFilter { session: args.session, model: args.model, state: args.state };
    let page = connect(global).await?.list_handoffs(filter, args.limit, args.page).await?;
    let next = page.next_page_token.as_deref();
    match global.output {
        Format::Json => {
            let handoffs: Vec<_> = page.items.iter().map(moved::json).collect();
            output::json(&serde_json::json!({ "handoffs": handoffs, "next_page_token": next }))?;
        }
        Format::Text => {
            let now = consult::now();
            let header = ["ID", "AT", "SESSION", "FROM", "TO", "STATE", "WHY"];
            output::line(&output::table(header, page.items.iter().map(|it| row(it, now))))?;
            if let Some(next) = next {
                output::note(&format!("more: --page {next}"));
            }
        }
    }
    Ok(Exit::Done)
}

fn row(handoff: &Handoff, now: WallTime) -> [String; 7] {
    let trigger = &handoff.trigger;
    [
        handoff.id.to_string(),
        output::clock(handoff.begun_at, now),
        handoff.session.to_string(),
        handoff.from.model.to_string(),
        handoff.to.to_string(),
        handoff.state.as_str().to_owned(),
        format!("{}: {}", trigger.kind.as_str(), trigger.reasoning),
    ]
}
