//! `handoff validate`: what is wrong with a file of a checkpoint.

use broker_client::orchestrator::{self, Finding, Level, Rules};

use super::file::{self, Error};
use crate::{
    cli::{Global, ValidateArgs},
    commands::consult,
    exit_code::Exit,
    output::{self, Format},
};

/// Lines of findings for people; programs get them all.
const SHOWN: usize = 50;

pub(super) fn run(global: &Global, args: &ValidateArgs) -> anyhow::Result<Exit> {
    let bytes = file::read(&args.file)?;
    let rules =
        Rules { now: consult::now(), max_age: args.max_age, level: args.level.map(Level::from) };
    let checked = orchestrator::check(&bytes, &rules)
        .map_err(|source| Error::Refused { path: args.file.clone(), source })?;
    let kind = checked.kind.as_str();
    let exit = if checked.findings.is_empty() { Exit::Done } else { Exit::Failed };
    if global.output == Format::Json {
        let size = checked.size.map(|size| {
            serde_json::json!({
                "level": size.level.as_str(),
                "tokens": {
                    "estimate": size.tokens, "budget": size.level.budget(),
                    "method": orchestrator::METHOD,
                },
            })
        });
        let mut told = serde_json::json!({
            "file": args.file.display().to_string(),
            "kind": kind,
            "ok": checked.findings.is_empty(),
            "findings": json(&checked.findings),
        });
        if let Some(serde_json::Value::Object(size)) = size {
            told.as_object_mut().into_iter().for_each(|told| told.extend(size.clone()));
        }
        output::json(&told)?;
        return Ok(exit);
    }
    if checked.findings.is_empty() {
        let size = checked.size.map(|size| {
            let (level, budget) = (size.level.as_str(), size.level.budget());
            format!(", level {level}, about {} of {budget} tokens", size.tokens)
        });
        output::line(&format!(
            "{}: a good {kind}{}",
            args.file.display(),
            size.unwrap_or_default()
        ))?;
        return Ok(exit);
    }
    tell(global, kind, &checked.findings)
}

/// Says what is wrong with a file that can be read; [`Exit::Failed`].
pub(super) fn tell(global: &Global, kind: &str, findings: &[Finding]) -> anyhow::Result<Exit> {
    if global.output == Format::Json {
        let told = serde_json::json!({ "kind": kind, "ok": false, "findings": json(findings) });
        output::json(&told)?;
        return Ok(Exit::Failed);
    }
    for finding in findings.iter().take(SHOWN) {
        output::line(&format!("{kind}: {}: {finding}", finding.fault.as_str()))?;
    }
    if findings.len() > SHOWN {
        output::line(&format!("{kind}: and {} more", findings.len() - SHOWN))?;
    }
    Ok(Exit::Failed)
}

pub(super) fn json(findings: &[Finding]) -> Vec<serde_json::Value> {
    let json = |finding: &Finding| {
        serde_json::json!({
            "fault": finding.fault.as_str(), "path": finding.place, "problem": finding.problem,
        })
    };
    findings.iter().map(json).collect()
}
