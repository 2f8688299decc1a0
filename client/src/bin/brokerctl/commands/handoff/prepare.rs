//! `handoff prepare`: a session, packed for another model.

use broker_proto::types::{NewPackage, PackageContents, PackageInfo, PreparePackage, RenderAsk};

use super::list;
use crate::{
    cli::{Global, PrepareArgs},
    commands::{connect, current},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: PrepareArgs) -> anyhow::Result<Exit> {
    let (target_phase, checkpoint) = args.checkpoint.into_parts();
    let contents = PackageContents {
        target_phase,
        source_phase: checkpoint.phase.clone(),
        checkpoint,
        ..PackageContents::default()
    };
    let client = connect(global).await?;
    let session = current::session(global, &client, args.session).await?;
    let prepare = PreparePackage {
        session,
        ask: RenderAsk {
            level: args.preserve,
            budget: args.budget,
            reader: Some(args.to),
            next: args.next,
            allow_missing: args.allow_missing,
            summary: args.summary,
        },
        package: NewPackage {
            project: args.project,
            reason: args.reason,
            ttl: args.ttl,
            contents,
            ..NewPackage::default()
        },
    };
    let (info, summary) = client.prepare_package(prepare).await?;
    if !summary.is_empty() {
        output::note(&format!("summary: {summary}"));
    }
    match global.output {
        Format::Json => {
            let mut shown = list::json(&info);
            shown["summary"] = Some(summary).filter(|summary| !summary.is_empty()).into();
            output::json(&shown)?;
        }
        Format::Text => output::line(&sentence(&info))?,
    }
    Ok(Exit::Done)
}

/// `context packaged (2417 bytes, about 900 tokens, full): 01J... is ready for sonnet`
fn sentence(info: &PackageInfo) -> String {
    let header = &info.header;
    let to = header.recipient.as_ref().map_or("anyone", |name| name.as_str());
    format!(
        "context packaged ({}, {}): {} is ready for {to}",
        list::size(info),
        header.level.as_str(),
        header.id
    )
}
