//! `handoff list`: the packages there are.

use broker_proto::types::{PackageFilter, PackageInfo, WallTime};

use crate::{
    cli::{Global, PackagesArgs, Since},
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

/// Characters of a task in a table.
const TASK: usize = 60;

pub(super) async fn run(global: &Global, args: PackagesArgs) -> anyhow::Result<Exit> {
    let now = consult::now();
    let filter = PackageFilter {
        session: args.session,
        project: args.project,
        model: args.model,
        is_expired: (args.active || args.expired).then_some(args.expired),
        created_after: args.created_after.map(|since| match since {
            Since::At(at) => at,
            Since::Ago(span) => WallTime(now.0.saturating_sub(output::millis(span))),
        }),
    };
    let page = connect(global).await?.packages(filter, args.limit, args.page).await?;
    let next = page.next_page_token.as_deref();
    match global.output {
        Format::Json => {
            let packages: Vec<_> = page.items.iter().map(json).collect();
            output::json(&serde_json::json!({ "packages": packages, "next_page_token": next }))?;
        }
        Format::Text => {
            let header = ["ID", "TIME", "TASK", "REASON", "TOKENS", "UNTIL"];
            output::line(&output::table(header, page.items.iter().map(|info| row(info, now))))?;
            if let Some(next) = next {
                output::note(&format!("more: --page {next}"));
            }
        }
    }
    Ok(Exit::Done)
}

fn row(info: &PackageInfo, now: WallTime) -> [String; 6] {
    let header = &info.header;
    let mut task: String =
        info.task.lines().next().unwrap_or_default().chars().take(TASK).collect();
    if task.len() < info.task.len() {
        task.push('…');
    }
    let until = output::clock(header.expires_at, now);
    [
        header.id.to_string(),
        output::clock(header.created_at, now),
        task,
        header.reason.clone(),
        info.tokens().to_string(),
        match info.archived_at {
            Some(at) => format!("archived {}", output::clock(at, now)),
            None if info.is_expired => format!("expired {until}"),
            None => until,
        },
    ]
}

/// Bytes and tokens in words; who counted them, where nobody had to estimate.
pub(super) fn size(info: &PackageInfo) -> String {
    let (bytes, tokens, by) = (info.size_bytes, info.tokens(), &info.tokenizer);
    if by.starts_with("estimated") {
        format!("{bytes} bytes, about {tokens} tokens")
    } else {
        format!("{bytes} bytes, {tokens} tokens by {by}")
    }
}

/// A package as programs read it, wherever one is told.
pub(super) fn json(info: &PackageInfo) -> serde_json::Value {
    let header = &info.header;
    serde_json::json!({
        "id": header.id.to_string(),
        "time": output::rfc3339(header.created_at),
        "task": info.task,
        "reason": header.reason,
        "tokens": info.tokens(),
        "tokens_are": info.tokenizer,
        "session_id": header.session.as_ref().map(ToString::to_string),
        "project": header.project,
        "source_model": Some(header.sender.as_str()).filter(|name| !name.is_empty()),
        "target_model": header.recipient.as_ref().map(ToString::to_string),
        "preservation_level": header.level.as_str(),
        "expires_at": output::rfc3339(header.expires_at),
        "expired": info.is_expired,
        "archived_at": info.archived_at.and_then(output::rfc3339),
        "hops": header.hops,
        "size_bytes": info.size_bytes,
        "signed_by": info.signed_by,
        "signer": info.signer.to_string(),
        "imported": info.is_imported,
    })
}
