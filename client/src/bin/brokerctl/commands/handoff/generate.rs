//! `handoff generate`: a payload and a report from a state file.

use std::path::{Path, PathBuf};

use broker_client::orchestrator::{
    self, DEFAULT_TEMPLATE, Finding, Level, METHOD, MustKeep, Payload, Rules, State,
};

use super::file::{self, Error};
use crate::{
    cli::{GenerateArgs, Global, Written},
    commands::consult,
    exit_code::Exit,
    output::{self, Format},
};

/// Where the payload goes when nobody says.
const PAYLOAD: &str = "context_payload.json";
/// Stdin for what is read, stdout for what is written.
const STREAM: &str = "-";

/// What was made, as it is told.
struct Made<'a> {
    id: String,
    level: Level,
    payload: &'a Payload,
    payload_path: &'a Path,
    report_path: &'a Path,
    template: &'static str,
    findings: &'a [Finding],
}

pub(super) fn run(global: &Global, args: &GenerateArgs) -> anyhow::Result<Exit> {
    let payload_path = match (&args.payload, &args.output) {
        (Some(path), _) | (None, Some(Written::To(path))) => path.clone(),
        (None, _) => PathBuf::from(PAYLOAD),
    };
    apart([&args.state, &payload_path, &args.report])?;
    let bytes = file::read(&args.state)?;
    let (state, mut findings) = State::parse(&bytes)
        .map_err(|source| Error::Refused { path: args.state.clone(), source })?;
    let Some(state) = state else { return super::validate::tell(global, "state", &findings) };
    let now = consult::now();
    let rules = Rules { now, max_age: args.max_age, level: None };
    findings.extend(orchestrator::age(&state, &rules));
    let level = Level::from(args.level);
    let must_keep = if args.allow_missing { MustKeep::WhatFits } else { MustKeep::All };
    let id = consult::input::new_id()?.to_string();
    let payload = orchestrator::build(&state, level, must_keep, &id, now)
        .map_err(|source| Error::TooSmall { source })?;
    let (report, template) = report(&payload, args.template.as_deref());
    put(&payload_path, payload.text())?;
    put(&args.report, &report)?;
    let (payload_path, report_path) = (payload_path.as_path(), args.report.as_path());
    let payload = &payload;
    let made =
        Made { id, level, payload, payload_path, report_path, template, findings: &findings };
    told(global, &made)
}

/// Writes to a file, or with `-` to stdout.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new(STREAM) { Ok(output::text(text)?) } else { Ok(file::replace(path, text)?) }
}

/// Refuses to write over the state, which comes first, and one file over the other.
fn apart(paths: [&Path; 3]) -> Result<(), Error> {
    let real = |path: &Path| {
        std::fs::canonicalize(path)
            .or_else(|_| std::path::absolute(path))
            .unwrap_or_else(|_| path.to_owned())
    };
    for (index, path) in paths.iter().enumerate() {
        let same = paths[..index].iter().position(|other| real(other) == real(path));
        // Stdin and stdout have one name and are two things; a device takes everything.
        let is_stream = *path == Path::new(STREAM) && same == Some(0);
        if same.is_some() && !is_stream && !path.starts_with("/dev") {
            return Err(Error::Same(path.to_path_buf()));
        }
    }
    Ok(())
}

/// The report, and which template it was made with.
fn report(payload: &Payload, template: Option<&Path>) -> (String, &'static str) {
    let Some(path) = template else {
        return (orchestrator::render(payload, DEFAULT_TEMPLATE).text, "default");
    };
    let read = file::read(path).and_then(|bytes| {
        let text = orchestrator::template(&bytes).map(str::to_owned);
        text.map_err(|source| Error::Refused { path: path.to_owned(), source })
    });
    match read {
        Ok(template) => {
            let report = orchestrator::render(payload, &template);
            for name in &report.unknown {
                output::note(&format!("{}: nothing fills in {{{name}}}", path.display()));
            }
            (report.text, "given")
        }
        Err(err) => {
            let err = output::sentence(&err.into());
            output::note(&format!("{err}; the report is a plain one, without a template"));
            (orchestrator::plain(payload), "none")
        }
    }
}

fn told(global: &Global, made: &Made<'_>) -> anyhow::Result<Exit> {
    for finding in made.findings {
        output::note(&format!("state: {finding}"));
    }
    // What is on stdout already is the result.
    if [made.payload_path, made.report_path].contains(&Path::new(STREAM)) {
        return Ok(Exit::Done);
    }
    let (tokens, budget) = (made.payload.tokens(), made.level.budget());
    if global.output == Format::Json {
        let left_out: serde_json::Map<_, _> =
            made.payload.left_out().map(|(what, count)| (what.to_owned(), count.into())).collect();
        output::json(&serde_json::json!({
            "handoff_id": made.id,
            "level": made.level.as_str(),
            "tokens": { "estimate": tokens, "budget": budget, "method": METHOD },
            "payload": made.payload_path.display().to_string(),
            "report": made.report_path.display().to_string(),
            "template": made.template,
            "left_out": left_out,
            "shortened": made.payload.shortened(),
            "findings": super::validate::json(made.findings),
        }))?;
        return Ok(Exit::Done);
    }
    let (payload, report) = (made.payload_path.display(), made.report_path.display());
    output::line(&format!("handoff {}, level {}", made.id, made.level.as_str()))?;
    output::line(&format!("payload {payload}: about {tokens} of {budget} tokens ({METHOD})"))?;
    output::line(&format!("report  {report}"))?;
    let left_out: Vec<String> =
        made.payload.left_out().map(|(what, count)| format!("{count} {what}")).collect();
    if !left_out.is_empty() {
        output::line(&format!("left out and counted: {}", left_out.join(", ")))?;
    }
    Ok(Exit::Done)
}
