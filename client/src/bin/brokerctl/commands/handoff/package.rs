//! `handoff load|show|delete|export|import|verify`: one package.

use std::path::Path;

use broker_client::Client;
use broker_proto::types::{Hex, PackageFilter, PackageId, PackageInfo};

use super::{file, list, save};
use crate::{
    cli::{Global, RestoreArgs},
    commands::{connect, consult, session::ended},
    exit_code::Exit,
    output::{self, Format},
};

/// What a package's file has at most: 64 MiB packed, and its head.
const FILE_MAX: u64 = 65 << 20;

pub(super) async fn load(global: &Global, id: Option<PackageId>) -> anyhow::Result<Exit> {
    let document = connect(global).await?.load_package(id, PackageFilter::default()).await?;
    match global.output {
        Format::Json => output::line(&document)?,
        Format::Text => {
            let document: serde_json::Value = serde_json::from_str(&document)?;
            output::line(&serde_json::to_string_pretty(&document)?)?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn show(
    global: &Global,
    client: &Client,
    info: &PackageInfo,
) -> anyhow::Result<Exit> {
    let problem = problem(client, info.header.id).await?;
    match global.output {
        Format::Json => {
            let mut shown = list::json(info);
            shown["parts"] = info
                .parts
                .iter()
                .map(|part| {
                    serde_json::json!({
                        "name": part.name, "sha256": Hex(&part.sha256).to_string(),
                        "bytes": part.size_bytes, "tokens": part.tokens,
                    })
                })
                .collect();
            shown["integrity"] = serde_json::json!({
                "algorithm": "sha256", "checksum": Hex(&info.checksum).to_string(),
                "valid": problem.is_none(), "problem": problem,
            });
            output::json(&shown)?;
        }
        Format::Text => output::text(&described(info, problem.as_deref()))?,
    }
    Ok(Exit::Done)
}

/// Why it could not be loaded, if it could not.
async fn problem(client: &Client, id: PackageId) -> anyhow::Result<Option<String>> {
    match client.load_package(Some(id), PackageFilter::default()).await {
        Ok(_) => Ok(None),
        Err(err) => match err.reason().filter(|reason| reason.starts_with("PACKAGE_")) {
            Some(reason) => Ok(Some(reason.to_owned())),
            None => Err(err.into()),
        },
    }
}

fn described(info: &PackageInfo, problem: Option<&str>) -> String {
    let (header, now) = (&info.header, consult::now());
    let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let to = header.recipient.as_ref().map_or("anyone", |name| name.as_str());
    let session = header.session.as_ref().map_or("-", |id| id.as_str());
    let signed_by = info.signed_by.as_deref().unwrap_or("nobody trusted");
    let rows = [
        ("id", header.id.to_string()),
        ("task", info.task.clone()),
        ("reason", header.reason.clone()),
        ("from", or(&header.sender)),
        ("to", to.to_owned()),
        ("session", session.to_owned()),
        ("project", or(&header.project)),
        ("level", header.level.as_str().to_owned()),
        ("made", output::clock(header.created_at, now)),
        ("until", output::clock(header.expires_at, now)),
        ("hops", header.hops.to_string()),
        ("size", list::size(info)),
        ("signed by", format!("{signed_by} ({})", info.signer)),
        (
            "integrity",
            problem.map_or_else(|| "valid".to_owned(), |reason| format!("refused: {reason}")),
        ),
    ];
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let parts = info
        .parts
        .iter()
        .map(|part| [part.name.clone(), part.size_bytes.to_string(), part.tokens.to_string()]);
    text.push_str(&format!("\n{}\n", output::table(["PART", "BYTES", "TOKENS"], parts)));
    text
}

pub(super) async fn restore(global: &Global, args: RestoreArgs) -> anyhow::Result<Exit> {
    let RestoreArgs { id, session, conflict } = args;
    let client = connect(global).await?;
    let on_conflict = conflict.on_conflict.into();
    let (info, outcome) = client.restore_package(id, session, on_conflict, conflict.new_id).await?;
    ended(global, &info, outcome)
}

pub(super) async fn delete(global: &Global, id: PackageId) -> anyhow::Result<Exit> {
    connect(global).await?.delete_package(id).await?;
    match global.output {
        Format::Json => {
            output::json(&serde_json::json!({ "id": id.to_string(), "deleted": true }))?
        }
        Format::Text => output::note(&format!("package {id} is deleted")),
    }
    Ok(Exit::Done)
}

pub(super) async fn export(global: &Global, id: PackageId, to: &Path) -> anyhow::Result<Exit> {
    let bytes = connect(global).await?.export_package(id).await?;
    if to == Path::new("-") {
        output::bytes(&bytes)?;
        return Ok(Exit::Done);
    }
    file::replace(to, &bytes)?;
    match global.output {
        Format::Json => output::json(&serde_json::json!({
            "id": id.to_string(), "file": to.display().to_string(), "size_bytes": bytes.len(),
        }))?,
        Format::Text => {
            output::note(&format!("{}: {} bytes", to.display(), bytes.len()));
        }
    }
    Ok(Exit::Done)
}

fn read(from: &Path) -> Result<Vec<u8>, file::Error> {
    let bytes = file::read_at_most(from, FILE_MAX)?;
    // As the broker would say; it need not be sent for that.
    let is_too_large = bytes.len() as u64 > FILE_MAX;
    if is_too_large { Err(file::Error::PackageTooLarge(from.to_owned())) } else { Ok(bytes) }
}

pub(super) async fn import(global: &Global, from: &Path) -> anyhow::Result<Exit> {
    let bytes = read(from)?;
    let info = connect(global).await?.import_package(bytes.into()).await?;
    save::told(global, &info)
}

pub(super) async fn verify(global: &Global, from: &Path) -> anyhow::Result<Exit> {
    let bytes = read(from)?;
    let info = connect(global).await?.verify_package(bytes.into()).await?;
    match global.output {
        Format::Json => {
            let mut shown = list::json(&info);
            shown["valid"] = true.into();
            output::json(&shown)?;
        }
        Format::Text => {
            let signed_by = info.signed_by.as_deref().unwrap_or_default();
            let until = output::clock(info.header.expires_at, consult::now());
            let id = info.header.id;
            output::line(&format!(
                "valid: {id}, signed by {signed_by}, may be taken until {until}"
            ))?;
        }
    }
    Ok(Exit::Done)
}
