//! `handoff show`: a handoff or a package, whichever has the id.

use broker_client::Client;
use broker_proto::types::{Echo, Handoff, HandoffId, Judged, PackageId};

use super::{moved, package};
use crate::{
    cli::{Global, Misused, ShowArgs, WhichHandoff},
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: ShowArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let ShowArgs { id, of, report } = args;
    let handoff = match id {
        None => moved::chosen(global, &client, WhichHandoff { id, of }).await?,
        Some(id) => match found(&client, id).await? {
            Some(handoff) => {
                if let Some(session) = of.session.filter(|session| *session != handoff.session) {
                    return Err(moved::of_another(&handoff, session));
                }
                handoff
            }
            None if report => return Err(Misused::NotHandoff(id).into()),
            None => return of_package(global, &client, id).await,
        },
    };
    if report {
        return reported(global, &client, handoff.id).await;
    }
    match global.output {
        Format::Json => output::json(&moved::json(&handoff))?,
        Format::Text => output::text(&moved::described(&handoff))?,
    }
    Ok(Exit::Done)
}

async fn reported(global: &Global, client: &Client, id: HandoffId) -> anyhow::Result<Exit> {
    let report = client.report_handoff(id).await?;
    if global.output == Format::Text {
        output::text(&report.markdown)?;
        return Ok(Exit::Done);
    }
    let echoes = |echoes: &[Echo]| -> Vec<serde_json::Value> {
        let one = |it: &Echo| serde_json::json!({ "item": it.item, "sentence": it.sentence });
        echoes.iter().map(one).collect()
    };
    let confirmed = &report.handoff.confirmed;
    let unconfirmed: Vec<&String> =
        report.parts.iter().filter(|part| !confirmed.contains(part)).collect();
    output::json(&serde_json::json!({
        "handoff": moved::json(&report.handoff),
        "score": report.handoff.kept.score,
        "must_keep": report.items,
        "must_keep_missing": report.handoff.kept.must_keep_missing,
        "confirmed": confirmed,
        "unconfirmed": unconfirmed,
        "reply": report.reply,
        "contradicted": echoes(&report.contradicted),
        "asked_again": echoes(&report.asked_again),
        "judged": report.judged.iter().map(judged).collect::<Vec<_>>(),
        "judged_by": report.basis,
        "problem": Some(&report.problem).filter(|problem| !problem.is_empty()),
        "markdown": report.markdown,
    }))?;
    Ok(Exit::Done)
}

fn judged(it: &Judged) -> serde_json::Value {
    let sentence = Some(&it.sentence).filter(|sentence| !sentence.is_empty());
    serde_json::json!({ "item": it.item, "verdict": it.verdict.as_str(), "sentence": sentence })
}

async fn found(client: &Client, id: HandoffId) -> Result<Option<Handoff>, broker_client::Error> {
    match client.handoff(id).await {
        Ok(handoff) => Ok(Some(handoff)),
        Err(err) if err.reason() == Some("UNKNOWN_HANDOFF") => Ok(None),
        Err(err) => Err(err),
    }
}

/// Ids of both are written alike.
async fn of_package(global: &Global, client: &Client, id: HandoffId) -> anyhow::Result<Exit> {
    let neither = || Misused::NeitherOf(id);
    let package = PackageId::parse(&id.to_string()).ok_or_else(neither)?;
    match client.package(package).await {
        Ok(info) => package::show(global, client, &info).await,
        Err(err) if err.reason() == Some("UNKNOWN_PACKAGE") => Err(neither().into()),
        Err(err) => Err(err.into()),
    }
}
