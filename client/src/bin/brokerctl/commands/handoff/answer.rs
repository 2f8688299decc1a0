//! `handoff accept|decline|complete|give-back`: what agents do, by hand.

use broker_proto::types::{AcceptHandoff, Handoff, HandoffState};

use super::moved;
use crate::{
    cli::{CompleteArgs, Global, SayArgs, WhichHandoff},
    commands::{connect, current},
    exit_code::Exit,
    output::{self, Format},
};

/// Takes a session over: the package is fetched and verified first, as an agent would.
pub(super) async fn accept(global: &Global, which: WhichHandoff) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let handoff = moved::chosen(global, &client, which).await?;
    let mut accept = AcceptHandoff { id: handoff.id, manifest: [0; 32], confirmed: Vec::new() };
    // Without an offer there is nothing to fetch; the broker says why it cannot be accepted.
    if let (HandoffState::Offered, Some(package)) = (handoff.state, handoff.package) {
        let received = client.received_package(package).await?;
        accept.manifest = received.checksum;
        accept.confirmed = received.parts.iter().map(|part| part.name.clone()).collect();
    }
    told(global, &client.accept_handoff(accept).await?)
}

pub(super) async fn decline(global: &Global, args: SayArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let handoff = moved::chosen(global, &client, args.which).await?;
    told(global, &client.decline_handoff(handoff.id, args.reason).await?)
}

pub(super) async fn complete(global: &Global, args: CompleteArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let handoff = moved::chosen(global, &client, args.which).await?;
    told(global, &client.complete_handoff(handoff.id, args.outcome).await?)
}

pub(super) async fn give_back(global: &Global, args: SayArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let handoff = match args.which.id {
        Some(_) => moved::chosen(global, &client, args.which).await?,
        None => {
            let session = current::needed(global, &client, args.which.of.session).await?;
            moved::brought(&client, &session).await?
        }
    };
    let back = client.give_back_handoff(handoff.id, args.reason).await?;
    super::offer::begun(global, &back)
}

/// A handoff as it stands then.
fn told(global: &Global, handoff: &Handoff) -> anyhow::Result<Exit> {
    match global.output {
        Format::Json => output::json(&moved::json(handoff))?,
        Format::Text => output::line(&moved::sentence(handoff))?,
    }
    Ok(Exit::Done)
}
