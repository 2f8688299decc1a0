//! `agent pull|settle|extend`: an agent's work from a shell.

use std::{
    env,
    io::{self, BufRead as _, Read as _},
    time::Duration,
};

use anyhow::Context as _;
use broker_client::Client;
use broker_proto::types::{
    Delivery, Failure, FailureClass, Part, Pull, SettleOutcome, SettledFrame, Settlement, Usage,
};
use serde::Deserialize;

use super::{connect, consult};
use crate::{
    cli::{AgentCommand, Global, SettleArgs},
    exit_code::Exit,
    output::{self, Format},
};

/// Settlements sent in one call.
const BATCH: usize = 100;

/// One settlement as a line of stdin says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    lease: String,
    text: Option<String>,
    failed: Option<String>,
    #[serde(default)]
    detail: String,
    retry_ms: Option<u64>,
    reject: Option<String>,
    #[serde(default)]
    release: bool,
}

/// Runs an agent command.
pub(crate) async fn run(global: &Global, command: AgentCommand) -> anyhow::Result<Exit> {
    let token = env::var("BROKER_AGENT_TOKEN").unwrap_or_default();
    if token.is_empty() {
        anyhow::bail!(
            "no token: set BROKER_AGENT_TOKEN to what `brokerctl token create NAME` prints"
        );
    }
    let client = connect(global).await?.with_token(token.into());
    match command {
        AgentCommand::Pull { model, max, wait, lease } => {
            let models = model.iter().map(|name| consult::input::model_name(name));
            let pull = Pull {
                models: models.collect::<Result<_, _>>()?,
                messages: max,
                size_bytes: 0,
                lease,
                wait,
            };
            for delivery in client.pull(pull).await? {
                output::json(&json(&delivery))?;
            }
            Ok(Exit::Done)
        }
        AgentCommand::Settle(args) if args.lease == "-" => settle_lines(&client, global).await,
        AgentCommand::Settle(args) => {
            let answers = client.settle(vec![settlement(line(args)?)?]).await?;
            said(global, &answers)
        }
        AgentCommand::Extend { lease, by } => {
            let left = client.extend(lease, by).await?;
            match global.output {
                Format::Text => output::line(&format!("{} left", output::span(left)))?,
                Format::Json => output::json(&serde_json::json!({ "time_left_ms": millis(left) }))?,
            }
            Ok(Exit::Done)
        }
    }
}

/// What is typed, in the form of a line.
fn line(args: SettleArgs) -> anyhow::Result<Line> {
    let SettleArgs { lease, text, failed, detail, retry, reject, release } = args;
    let text = match text.as_deref() {
        Some("-") => {
            let mut whole = String::new();
            io::stdin().read_to_string(&mut whole).context("cannot read stdin")?;
            Some(whole)
        }
        _ => text,
    };
    let retry_ms = retry.map(millis);
    Ok(Line { lease, text, failed, detail, retry_ms, reject, release })
}

fn settlement(line: Line) -> anyhow::Result<Settlement> {
    let Line { lease, text, failed, detail, retry_ms, reject, release } = line;
    let outcome = match (text, failed, retry_ms, reject, release) {
        (Some(text), None, None, None, false) => {
            SettleOutcome::Done { parts: vec![Part::Text(text)], stop_reason: None }
        }
        (None, Some(class), None, None, false) => {
            let known = FailureClass::ALL.into_iter().find(|known| known.as_str() == class);
            let class =
                known.with_context(|| format!("`{class}` is no class of docs/errors.md"))?;
            SettleOutcome::Failed {
                failure: Failure::new(class, "agent", detail),
                partial: Vec::new(),
            }
        }
        (None, None, Some(after), None, false) => {
            SettleOutcome::Retry { after: Duration::from_millis(after) }
        }
        (None, None, None, Some(reason), false) => SettleOutcome::Reject { reason },
        (None, None, None, None, true) => SettleOutcome::Release,
        _ => anyhow::bail!("a settlement needs one of text, failed, retry, reject and release"),
    };
    let (usage, limits) = (Usage::default(), Vec::new());
    Ok(Settlement { lease, outcome, usage, limits, first_token: None })
}

/// Settles what stdin says, a batch at a time; a line that cannot be read ends it, with what was before it settled.
async fn settle_lines(client: &Client, global: &Global) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut lines = io::stdin().lock().lines().enumerate().peekable();
    while lines.peek().is_some() {
        let mut batch = Vec::new();
        let mut broken = None;
        for (number, line) in lines.by_ref().take(BATCH) {
            let read = line.map_err(anyhow::Error::from).and_then(|line| {
                settlement(serde_json::from_str(&line).map_err(|err| {
                    // The line may hold an answer, which no message repeats.
                    anyhow::anyhow!(
                        "not a settlement: {:?} at column {}",
                        err.classify(),
                        err.column()
                    )
                })?)
            });
            match read.with_context(|| format!("line {}", number + 1)) {
                Ok(settlement) => batch.push(settlement),
                Err(err) => {
                    broken = Some(err);
                    break;
                }
            }
        }
        let answers = client.settle(batch).await?;
        if said(global, &answers)? != Exit::Done {
            exit = Exit::Failed;
        }
        if let Some(err) = broken {
            return Err(err);
        }
    }
    Ok(exit)
}

fn said(global: &Global, answers: &[SettledFrame]) -> anyhow::Result<Exit> {
    for answer in answers {
        let reason = answer.refused.as_ref().map(|refused| &refused.reason);
        match (global.output, &answer.refused) {
            (Format::Json, _) => output::json(&serde_json::json!({
                "lease": answer.lease, "settled": reason.is_none(), "reason": reason,
            }))?,
            (Format::Text, None) => output::line("settled")?,
            (Format::Text, Some(refused)) => {
                output::note(&format!("{}: {}", refused.reason, refused.detail));
            }
        }
    }
    let is_refused = answers.iter().any(|answer| answer.refused.is_some());
    Ok(if is_refused { Exit::Failed } else { Exit::Done })
}

fn json(delivery: &Delivery) -> serde_json::Value {
    let message = &delivery.message;
    serde_json::json!({
        "lease": delivery.lease,
        "message_id": message.id.to_string(),
        "from": message.from.as_ref().map(ToString::to_string),
        "to": message.to.to_string(),
        "model": delivery.model.as_ref().map(ToString::to_string),
        "attempt": delivery.attempt,
        "time_left_ms": millis(delivery.time_left),
        "max_output_tokens": delivery.max_output_tokens,
        "context": message.payload.context.iter().map(|entry| serde_json::json!({
            "role": super::message::role(entry), "text": consult::text_of(&entry.parts),
        })).collect::<Vec<_>>(),
        "text": consult::text_of(&message.payload.request),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
