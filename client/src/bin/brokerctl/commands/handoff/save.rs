//! `handoff save`: what is worked on, packed.

use std::path::Path;

use broker_proto::types::{
    CurrentWork, NewPackage, PackageContents, PackageInfo, SessionItem, SessionTask, TokenShare,
};

use super::{file, list};
use crate::{
    cli::{Global, Misused, PlaceArgs, SaveArgs},
    commands::{connect, consult, current},
    exit_code::Exit,
    output::{self, Format},
};

/// Shares of a window at which a session is warned and moved. Source: `thresholds` in `broker.toml`.
const WARNING_PERCENT: u64 = 75;
const SWITCH_PERCENT: u64 = 90;
/// Bytes of a task and of free context; the broker says the same of the second.
const TASK_MAX: u64 = 1 << 20;
const CONTEXT_MAX: u64 = 4 << 20;

pub(super) async fn run(global: &Global, args: SaveArgs) -> anyhow::Result<Exit> {
    let mut new = new_package(args)?;
    let client = connect(global).await?;
    new.session = current::known(global, &client, new.session).await?;
    let info = client.save_package(new).await?;
    told(global, &info)
}

/// The id on stdout, everything else where people read it.
pub(super) fn told(global: &Global, info: &PackageInfo) -> anyhow::Result<Exit> {
    match global.output {
        Format::Json => output::json(&list::json(info))?,
        Format::Text => {
            output::line(&info.header.id.to_string())?;
            let expires = output::clock(info.header.expires_at, consult::now());
            output::note(&format!("{}; may be taken until {expires}", list::size(info)));
        }
    }
    Ok(Exit::Done)
}

fn new_package(mut args: SaveArgs) -> anyhow::Result<NewPackage> {
    if args.task == "-" {
        args.task = bounded("task", Path::new("-"), TASK_MAX)?;
    }
    if args.task.trim().is_empty() {
        return Err(Misused::NoTask.into());
    }
    let context = match (args.context, args.context_file) {
        (Some(context), _) => context,
        (None, Some(path)) => bounded("context", &path, CONTEXT_MAX)?,
        (None, None) => String::new(),
    };
    let PlaceArgs { checkpoint, work, progress, done, next } = args.place;
    let (target_phase, checkpoint) = checkpoint.into_parts();
    let current_work =
        CurrentWork { task_id: work, progress, completed_subtasks: done, next_subtask: next };
    let task = SessionTask {
        goal: args.task.trim().to_owned(),
        constraints: items(args.constraints),
        decisions: items(args.decisions),
        open_items: items(args.open),
        next_steps: items(args.steps),
        files: items(args.files),
        ..SessionTask::default()
    };
    let contents = PackageContents {
        target_phase,
        source_phase: checkpoint.phase.clone(),
        created_by: args.created_by,
        pipeline_version: args.pipeline_version,
        checkpoint,
        task_queue: args.queue,
        current_work,
        token_usage: share(args.tokens, args.window),
        task,
        resumption_instructions: args.instructions,
        context,
        ..PackageContents::default()
    };
    Ok(NewPackage {
        session: args.session,
        project: args.project,
        recipient: args.to,
        reason: args.reason,
        ttl: args.ttl,
        contents,
    })
}

/// A text of at most `most` bytes; a longer one is refused, and not cut.
fn bounded(what: &'static str, from: &Path, most: u64) -> anyhow::Result<String> {
    let bytes = file::read_at_most(from, most)?;
    if bytes.len() as u64 > most {
        return Err(Misused::TooLong { what, limit_mib: most >> 20 }.into());
    }
    Ok(String::from_utf8(bytes).map_err(|_| Misused::NotText)?)
}

fn items(texts: Vec<String>) -> Vec<SessionItem> {
    let item = |(id, text)| SessionItem { id, text, is_done: false, entry: None };
    (1..).zip(texts).map(item).collect()
}

fn share(total_tokens: u64, window: u64) -> TokenShare {
    let part = |percent: u64| (u128::from(window) * u128::from(percent) / 100) as u64;
    TokenShare {
        total_tokens,
        warning_threshold: part(WARNING_PERCENT),
        auto_switch_threshold: part(SWITCH_PERCENT),
        percentage_used: total_tokens as f64 / window.max(1) as f64 * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_shares_of_the_window() {
        let whole = share(150_000, 200_000);
        assert_eq!((whole.warning_threshold, whole.auto_switch_threshold), (150_000, 180_000));
        assert!((whole.percentage_used - 75.0).abs() < 1e-9);
        assert_eq!(share(0, 128_000).auto_switch_threshold, 115_200);
    }
}
