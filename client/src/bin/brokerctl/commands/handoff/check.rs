//! `handoff check`: whether a session is to be handed off now.

use broker_proto::types::HandoffCheck;
use serde_json::json;

use crate::{
    cli::{CheckArgs, Global},
    commands::{connect, current},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: CheckArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let session = match args.session {
        Some(name) => name,
        None => current::needed(global, &client, None).await?.to_string(),
    };
    let check = client.check_handoff(&session, args.warning_only).await?;
    match global.output {
        Format::Json => output::json(&json_of(&check))?,
        Format::Text => output::line(&words(&check))?,
    }
    Ok(exit(&check))
}

pub(super) fn exit(check: &HandoffCheck) -> Exit {
    if check.should_handoff { Exit::HandoffDue } else { Exit::Done }
}

pub(super) fn words(check: &HandoffCheck) -> String {
    let answer = if check.should_handoff { "yes" } else { "no" };
    let HandoffCheck { reason, session, model, tokens, context_window, .. } = check;
    let share = check.percentage();
    let window = format!("{tokens} of {context_window} tokens of {model}'s window, {share:.1} %");
    let line = format!("{answer}: {reason}\nsession {session}: {window}");
    // What speaks against its owner is not in its window.
    if check.detail.starts_with(&format!("{tokens} of ")) {
        return line;
    }
    format!("{line}\n{}", check.detail)
}

pub(super) fn json_of(check: &HandoffCheck) -> serde_json::Value {
    json!({
        "should_handoff": check.should_handoff,
        "reason": check.reason,
        "level": check.level,
        "confidence": check.confidence,
        "urgency": check.urgency.as_str(),
        "session": check.session,
        "model": check.model.as_str(),
        "tokens": check.tokens,
        "window": check.context_window,
        "percentage": super::status::rounded(check.percentage()),
        "warning_threshold": check.warning_threshold,
        "switch_threshold": check.switch_threshold,
        "detail": check.detail,
    })
}
