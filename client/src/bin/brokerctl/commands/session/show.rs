//! Sessions as people read them.

use broker_client::{Client, Page};
use broker_proto::types::{
    EntryKind, Handoff, ModelName, PackageFilter, PackageInfo, Part, SessionDetail, SessionDiff,
    SessionEntry, SessionId, SessionInfo, SessionPause, SessionPoint, SessionTask, SessionVersion,
    SharedValue, TaskList, Unverified, WallTime,
};

use super::json;
use crate::{
    cli::Global,
    commands::{consult, handoff::moved},
    exit_code::Exit,
    output::{self, Format},
};

/// Handoffs of a session that are shown, newest first; `handoff history --session` has the rest.
const HANDOFFS: u32 = 1_000;
/// Those that people are told of beside its figures.
const TOLD: usize = 5;
/// Packages of a session that are shown with it; `handoff list --session` has all.
const PACKAGES: u32 = 20;

/// Shows a session at a point: the last so many entries, or all.
pub(super) async fn session(
    global: &Global,
    client: &Client,
    id: &SessionId,
    at: &SessionPoint,
    last: Option<u64>,
) -> anyhow::Result<Exit> {
    let detail = client.session(id, at).await?;
    let from = last.map_or(0, |last| detail.info.head.entries.saturating_sub(last));
    // What came since belongs to another look.
    let at = match at {
        SessionPoint::Head => &SessionPoint::Version(detail.info.version),
        named => named,
    };
    let entries = if last == Some(0) || detail.info.head.entries == 0 {
        Vec::new()
    } else {
        client.session_entries(id, at, from, usize::MAX).await?
    };
    let filter = PackageFilter { session: Some(id.clone()), ..PackageFilter::default() };
    let packages = client.packages(filter, PACKAGES, None).await?.items;
    let handoffs = moved::last_of(client, id, HANDOFFS).await?.items;
    match global.output {
        Format::Json => output::json(&json::detail(&detail, &entries, &handoffs, &packages))?,
        Format::Text => {
            figures(&detail, &handoffs, &packages)?;
            task(&detail.task)?;
            shared(&detail.shared)?;
            entries.iter().try_for_each(|it| entry(it, detail.info.unverified.as_ref()))?;
        }
    }
    Ok(Exit::Done)
}

/// `01ARZ3NDEKTSV4RRFFQ69G5FAV, opus to sonnet, 10:04:05 UTC: session window`
fn packed(package: &PackageInfo, now: WallTime) -> String {
    let header = &package.header;
    let to = header.recipient.as_ref().map_or("any model", |model| model.as_str());
    let from = if header.sender.is_empty() { "nobody" } else { &header.sender };
    let at = output::clock(header.created_at, now);
    let mut words = format!("{}, {from} to {to}, {at}", header.id);
    if !header.reason.is_empty() {
        words.push_str(&format!(": {}", header.reason));
    }
    words
}

fn figures(
    detail: &SessionDetail,
    handoffs: &[Handoff],
    packages: &[PackageInfo],
) -> Result<(), output::Error> {
    let info = &detail.info;
    let names = |names: Vec<String>| {
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    };
    let mut rows = vec![["session".to_owned(), info.id.to_string()]];
    if !info.title.is_empty() {
        rows.push(["title".to_owned(), info.title.clone()]);
    }
    let agent = info.owner.agent.as_ref().map(|agent| format!(", agent {agent}"));
    let owner =
        format!("{}{} (epoch {})", info.owner.model, agent.unwrap_or_default(), info.owner.epoch);
    if let Some(pause) = &info.pause {
        rows.push(["state".to_owned(), paused(pause)]);
        let goes_on = match pause.handoff {
            None => format!("brokerctl session resume {}", info.id),
            Some(handoff) => format!("once handoff {handoff} ends"),
        };
        rows.push(["paused with".to_owned(), format!("package {}", pause.package)]);
        rows.push(["goes on".to_owned(), goes_on]);
    }
    let size = format!("{}, about {} tokens", super::count(info.head.entries), info.tokens);
    rows.extend([
        ["owner".to_owned(), owner],
        ["size".to_owned(), size],
        ["version".to_owned(), format!("v{}, head {}", info.version, info.head.hash)],
        ["changed".to_owned(), output::clock(info.changed_at, consult::now())],
        ["models".to_owned(), names(info.models.iter().map(ToString::to_string).collect())],
        ["handoffs".to_owned(), names(handoffs.iter().take(TOLD).map(in_short).collect())],
    ]);
    let packages: Vec<String> =
        packages.iter().map(|package| packed(package, consult::now())).collect();
    let packages = if packages.is_empty() { "-".to_owned() } else { packages.join("\n") };
    rows.push(["packages".to_owned(), packages]);
    if let Some(of) = &info.unverified {
        let (first, last) = (of.from, of.until.saturating_sub(1));
        let by = names(of.by.iter().map(ToString::to_string).collect());
        let what = format!(
            "entries {first}-{last}, by {by}; once checked: brokerctl session verify {}",
            info.id
        );
        rows.push(["unverified".to_owned(), what]);
    }
    if let Some((from, entries)) = &info.forked_from {
        rows.push(["forked from".to_owned(), format!("{from}, {}", super::count(*entries))]);
    }
    let subagents = detail.task.pending_subagents.iter();
    let subagents = subagents.map(|it| format!("{} ({}) {}", it.id, it.status, it.description));
    rows.push(["subagents".to_owned(), names(subagents.collect())]);
    output::line(&output::table(["", ""], rows))
}

/// `paused since 10:04:05 UTC by app: the build is red`
fn paused(pause: &SessionPause) -> String {
    let mut words = format!("paused since {}", output::clock(pause.at, consult::now()));
    if !pause.by.is_empty() {
        words.push_str(&format!(" by {}", pause.by));
    }
    if !pause.reason.is_empty() {
        words.push_str(&format!(": {}", pause.reason));
    }
    words
}

/// `opus → sonnet (COMPLETED)`
fn in_short(handoff: &Handoff) -> String {
    format!("{} → {} ({})", handoff.from.model, handoff.to, handoff.state.as_str())
}

/// What a session is about, list by list, with the ids that verbs take.
pub(super) fn task(task: &SessionTask) -> Result<(), output::Error> {
    if !task.goal.is_empty() {
        output::line(&format!("goal: {}", task.goal))?;
    }
    if let Some(progress) = task.progress {
        output::line(&format!("progress: {:.0} %", progress * 100.0))?;
    }
    for list in TaskList::ALL {
        for (place, item) in task.list(list).iter().enumerate() {
            if place == 0 {
                output::line(&format!("{}:", list.as_str().replace('_', "-")))?;
            }
            let done = if item.is_done { "x" } else { " " };
            let entry = item.entry.map_or(String::new(), |entry| format!(" (entry {entry})"));
            output::line(&format!("  {} [{done}] {}{entry}", item.id, item.text))?;
        }
    }
    Ok(())
}

/// What a session shares.
pub(super) fn shared(values: &[SharedValue]) -> Result<(), output::Error> {
    for value in values {
        let tags = value.tags.iter().map(|tag| format!(" #{tag}")).collect::<String>();
        let source =
            if value.source.is_empty() { String::new() } else { format!(" from {}", value.source) };
        output::line(&format!("{} = {}{source}{tags}", value.key, value.value))?;
    }
    Ok(())
}

fn entry(entry: &SessionEntry, unverified: Option<&Unverified>) -> Result<(), output::Error> {
    let said = &entry.entry;
    let name = if said.name.is_empty() { String::new() } else { format!(" {}", said.name) };
    let writer = unverified.and_then(|of| of.writer(entry));
    let model = entry.model.as_ref().map(ModelName::as_str).or(writer);
    let model = model.map_or(String::new(), |model| format!(" ({model})"));
    let mark = if writer.is_some() { ", unverified" } else { "" };
    let kind = match entry.kind {
        EntryKind::Turn => "",
        EntryKind::Advice => ", advice",
    };
    let role = json::role(said.role);
    output::line(&format!("\n[{}] {role}{name}{model}{kind}{mark}", entry.number))?;
    said.parts.iter().try_for_each(|part| output::line(&in_words(part)))
}

fn in_words(part: &Part) -> String {
    match part {
        Part::Text(text) => text.clone(),
        Part::Thinking { text, .. } => format!("(thinking) {text}"),
        Part::ToolCall { name, arguments, .. } => {
            format!("(calls {name}) {}", String::from_utf8_lossy(arguments))
        }
        Part::ToolResult { parts, is_error, .. } => {
            let texts: Vec<String> = parts.iter().map(in_words).collect();
            let how = if *is_error { "failed" } else { "result" };
            format!("({how}) {}", texts.join("\n"))
        }
        Part::Image { media_type, data } => format!("({media_type}, {} bytes)", data.len()),
        Part::Opaque { provider, kind, data } => {
            format!("({kind} of {provider}, {} bytes)", data.len())
        }
        Part::Ref(part) => format!("(part {}, {} bytes)", part.hash, part.size_bytes),
    }
}

/// A page of sessions.
pub(super) fn list(global: &Global, page: &Page<SessionInfo>) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let sessions: Vec<_> = page.items.iter().map(json::info).collect();
        output::json(&serde_json::json!({
            "sessions": sessions, "next_page_token": page.next_page_token,
        }))?;
        return Ok(());
    }
    let now = consult::now();
    let rows = page.items.iter().map(|info| {
        [
            info.id.to_string(),
            info.owner.model.to_string(),
            info.head.entries.to_string(),
            info.tokens.to_string(),
            output::clock(info.changed_at, now),
            info.title.clone(),
        ]
    });
    let header = ["SESSION", "OWNER", "ENTRIES", "TOKENS", "CHANGED", "TITLE"];
    output::line(&output::table(header, rows))?;
    more(page.next_page_token.as_deref());
    Ok(())
}

/// A page of versions.
pub(super) fn log(
    global: &Global,
    id: &SessionId,
    page: &Page<SessionVersion>,
) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let versions: Vec<_> = page
            .items
            .iter()
            .map(|version| {
                serde_json::json!({
                    "version": version.version, "at": output::rfc3339(version.at),
                    "change": version.change, "detail": version.detail,
                    "entry_count": version.head.entries, "head": version.head.hash.to_string(),
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "id": id.as_str(), "versions": versions, "next_page_token": page.next_page_token,
        }))?;
        return Ok(());
    }
    let now = consult::now();
    let rows = page.items.iter().map(|version| {
        let hash = version.head.hash.to_string();
        [
            format!("v{}", version.version),
            output::clock(version.at, now),
            version.change.clone(),
            version.detail.clone(),
            version.head.entries.to_string(),
            hash.get(..12).unwrap_or_default().to_owned(),
        ]
    });
    let header = ["VERSION", "AT", "CHANGE", "WHAT", "ENTRIES", "HEAD"];
    output::line(&output::table(header, rows))?;
    more(page.next_page_token.as_deref());
    Ok(())
}

fn more(token: Option<&str>) {
    if let Some(token) = token {
        output::note(&format!("there are more: --page {token}"));
    }
}

/// Where two sessions part.
pub(super) fn diff(global: &Global, diff: &SessionDiff) -> Result<(), output::Error> {
    let SessionDiff { common_entries, head, other_head, keys } = diff;
    if global.output == Format::Json {
        return output::json(&serde_json::json!({
            "common_entries": common_entries,
            "one": { "entry_count": head.entries, "head": head.hash.to_string() },
            "other": { "entry_count": other_head.entries, "head": other_head.hash.to_string() },
            "keys": keys,
        }));
    }
    let own = head.entries - common_entries;
    let others = other_head.entries - common_entries;
    output::line(&format!("{} the same", super::count(*common_entries)))?;
    output::line(&format!("{own} more in the first, which ends with {}", head.hash))?;
    output::line(&format!("{others} more in the other, which ends with {}", other_head.hash))?;
    keys.iter().try_for_each(|key| output::line(&format!("differs: {key}")))
}
