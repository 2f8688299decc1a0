//! `handoff offer`: a session, offered to another model.

use broker_proto::types::{AskHandoff, Handoff};

use super::moved;
use crate::{
    cli::{Global, OfferArgs},
    commands::{connect, current},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: OfferArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let session = current::needed(global, &client, args.of.session).await?;
    let ask = AskHandoff {
        session,
        to: args.to,
        agent: args.agent,
        reason: args.reason,
        level: args.preserve,
        package: args.package,
        is_forced: args.force,
        at_once: false,
    };
    begun(global, &client.begin_handoff(ask).await?)
}

/// A handoff that has begun: its id for people, all of it for programs.
pub(super) fn begun(global: &Global, handoff: &Handoff) -> anyhow::Result<Exit> {
    match global.output {
        Format::Json => output::json(&moved::json(handoff))?,
        Format::Text => {
            output::note(&format!(
                "session {} is offered to {}; `brokerctl handoff show {}` says how far it is",
                handoff.session, handoff.to, handoff.id
            ));
            output::line(&handoff.id.to_string())?;
        }
    }
    Ok(Exit::Done)
}
