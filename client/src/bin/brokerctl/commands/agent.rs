//! `agent pull|settle|extend`: an agent's work from a shell.

use std::{
    env,
    io::{self, BufRead as _},
    time::Duration,
};

use anyhow::Context as _;
use broker_client::Client;
use broker_proto::types::{
    Delivery, Failure, FailureClass, Part, Priority, Pull, SettleOutcome, SettledFrame, Settlement,
    Usage,
};
use serde::Deserialize;

use super::{connect, consult, payload, task};
use crate::{
    cli::{AgentCommand, Global, Misused, SettleArgs},
    exit_code::Exit,
    output::{self, Format, millis},
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
    ask: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// Runs an agent command.
pub(crate) async fn run(global: &Global, command: AgentCommand) -> anyhow::Result<Exit> {
    let token = env::var("BROKER_AGENT_TOKEN").unwrap_or_default();
    if token.is_empty() {
        return Err(Misused::NoToken.into());
    }
    let client = connect(global).await?.with_token(token.into());
    match command {
        AgentCommand::Pull { model, role, max, wait, lease } => {
            let models = model.iter().map(|name| consult::input::model_name(name));
            let pull = Pull {
                models: models.collect::<Result<_, _>>()?,
                roles: role,
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
    let SettleArgs {
        lease,
        text,
        failed,
        detail,
        retry,
        reject,
        release,
        ask,
        input_tokens,
        output_tokens,
    } = args;
    let text = text.map(consult::input::from_stdin).transpose()?;
    let retry_ms = retry.map(millis);
    Ok(Line {
        lease,
        text,
        failed,
        detail,
        retry_ms,
        reject,
        release,
        ask,
        input_tokens,
        output_tokens,
    })
}

fn settlement(line: Line) -> Result<Settlement, Misused> {
    let Line { lease, text, failed, detail, retry_ms, reject, release, ask, .. } = line;
    let outcome = match (text, failed, retry_ms, reject, ask, release) {
        (Some(text), None, None, None, None, false) => {
            SettleOutcome::Done { parts: vec![Part::Text(text)], stop_reason: None }
        }
        (None, Some(class), None, None, None, false) => {
            let known = FailureClass::ALL.into_iter().find(|known| known.as_str() == class);
            let class = known.ok_or(Misused::FailureClass(class))?;
            SettleOutcome::Failed {
                failure: Failure::new(class, "agent", detail),
                partial: Vec::new(),
            }
        }
        (None, None, Some(after), None, None, false) => {
            SettleOutcome::Retry { after: Duration::from_millis(after) }
        }
        (None, None, None, Some(reason), None, false) => SettleOutcome::Reject { reason },
        (None, None, None, None, Some(question), false) => {
            SettleOutcome::Ask { question: vec![Part::Text(question)] }
        }
        (None, None, None, None, None, true) => SettleOutcome::Release,
        _ => return Err(Misused::NoOutcome),
    };
    let usage = Usage {
        input_tokens: line.input_tokens,
        output_tokens: line.output_tokens,
        ..Usage::default()
    };
    Ok(Settlement { lease, outcome, usage, limits: Vec::new(), first_token: None })
}

/// Settles what stdin says, a batch at a time; a line that cannot be read ends it, with what was before it settled.
async fn settle_lines(client: &Client, global: &Global) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut lines = io::stdin().lock().lines().enumerate().peekable();
    while lines.peek().is_some() {
        let mut batch = Vec::new();
        let mut broken = None;
        for (number, line) in lines.by_ref().take(BATCH) {
            match read(line) {
                Ok(settlement) => batch.push(settlement),
                Err(err) => {
                    broken = Some((number + 1, err));
                    break;
                }
            }
        }
        let answers = client.settle(batch).await?;
        if said(global, &answers)? != Exit::Done {
            exit = Exit::Failed;
        }
        if let Some((number, err)) = broken {
            return Err(err).with_context(|| {
                format!("line {number}, which is not settled, nor is what follows")
            });
        }
    }
    Ok(exit)
}

fn read(line: io::Result<String>) -> anyhow::Result<Settlement> {
    let line = line.map_err(consult::input::Error::of_stdin)?;
    let line = serde_json::from_str(&line).map_err(|err| Misused::NoSettlement {
        problem: format!("{:?}", err.classify()).to_lowercase(),
        column: err.column(),
    })?;
    Ok(settlement(line)?)
}

fn said(global: &Global, answers: &[SettledFrame]) -> anyhow::Result<Exit> {
    for answer in answers {
        let SettledFrame { lease, refused, is_repeated } = answer;
        let reason = refused.as_ref().map(|refused| &refused.reason);
        match (global.output, refused) {
            (Format::Json, _) => output::json(&serde_json::json!({
                "lease": lease,
                "settled": reason.is_none(),
                "repeated": is_repeated,
                "reason": reason,
                "message": refused.as_ref().map(|refused| &refused.detail),
            }))?,
            (Format::Text, None) if *is_repeated => {
                output::line(&format!("{lease} was settled before, and stays as it was"))?;
            }
            (Format::Text, None) => output::line(&format!("{lease} settled"))?,
            (Format::Text, Some(refused)) => {
                output::note(&format!("{lease} {}: {}", refused.reason, refused.detail));
            }
        }
    }
    let is_refused = answers.iter().any(|answer| answer.refused.is_some());
    Ok(if is_refused { Exit::Failed } else { Exit::Done })
}

fn json(delivery: &Delivery) -> serde_json::Value {
    let message = &delivery.message;
    let payload = &message.payload;
    let priority = match message.priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Urgent => "urgent",
    };
    let mut task = payload.task.as_deref().map(payload::task);
    if let Some(task) = &mut task {
        let exchanges = delivery.exchanges.iter().map(task::show::exchange_json);
        task["exchanges"] = exchanges.collect::<Vec<_>>().into();
    }
    serde_json::json!({
        "lease": delivery.lease,
        "lease_left_ms": millis(delivery.lease_left),
        "message_id": message.id.to_string(),
        "type": message.kind.as_str(),
        "from": message.from.as_ref().map(ToString::to_string),
        "to": message.to.to_string(),
        "model": delivery.model.as_ref().map(ToString::to_string),
        "priority": priority,
        "session": message.session,
        "parent": message.correlation.parent.map(|id| id.to_string()),
        "attempt": delivery.attempt,
        "generation": delivery.generation,
        "time_left_ms": millis(delivery.time_left),
        "max_output_tokens": delivery.max_output_tokens,
        "context": payload::context(&payload.context),
        "text": payload::text(payload),
        "parts": payload::parts(&payload.request),
        "status": payload::status(payload.status.as_ref()),
        "task": task,
    })
}
