//! `dead-letter list|show|redrive|purge`: what nobody could finish, and what becomes of it.

use std::io::{self, IsTerminal as _};

use broker_client::{Client, LetterSelection};
use broker_proto::types::{DeadLetter, Trial};

use super::{connect, consult, message};
use crate::{
    cli::{DeadLetterCommand, Global, LetterArgs, Misused},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a dead-letter command.
pub(crate) async fn run(global: &Global, command: DeadLetterCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        DeadLetterCommand::List { to, limit, page } => {
            let page = client.dead_letters(to.as_ref(), limit, page).await?;
            list(global, &page.items, page.next_page_token.as_deref())?;
            Ok(Exit::Done)
        }
        DeadLetterCommand::Show { message } => {
            show(global, &client.dead_letter(message).await?)?;
            Ok(Exit::Done)
        }
        DeadLetterCommand::Redrive { letters } => redrive(global, &client, letters).await,
        DeadLetterCommand::Purge { letters, yes } => purge(global, &client, letters, yes).await,
    }
}

fn selection(letters: LetterArgs) -> (LetterSelection, bool) {
    let which = match (letters.which.messages, letters.which.to) {
        (names, _) if !names.is_empty() => LetterSelection::Named(names),
        (_, Some(to)) => LetterSelection::To(to),
        (_, None) => LetterSelection::All,
    };
    (which, letters.dry_run)
}

async fn redrive(global: &Global, client: &Client, letters: LetterArgs) -> anyhow::Result<Exit> {
    let (which, dry_run) = selection(letters);
    let handled = client.redrive(&which, dry_run).await;
    if let (Err(err), LetterSelection::Named(names)) = (&handled, &which)
        && names.len() > 1
        && err.reason() == Some("UNKNOWN_MESSAGE")
    {
        output::note("nothing was redriven");
    }
    let handled = handled?;
    if global.output == Format::Json {
        let skipped = handled.skipped.iter().map(|(name, reason)| {
            serde_json::json!({ "message_id": name.to_string(), "reason": reason })
        });
        let skipped: Vec<_> = skipped.collect();
        output::json(&serde_json::json!({
            "redriven": handled.done, "skipped": skipped, "dry_run": dry_run,
        }))?;
    } else {
        let would = if dry_run { "would be redriven" } else { "redriven" };
        output::line(&format!("{} {would}", handled.done))?;
        for (name, reason) in &handled.skipped {
            output::note(&format!("left: {name}: {reason}"));
        }
    }
    Ok(if handled.skipped.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn purge(
    global: &Global,
    client: &Client,
    letters: LetterArgs,
    yes: bool,
) -> anyhow::Result<Exit> {
    let (which, dry_run) = selection(letters);
    let is_asked = !dry_run && !yes;
    if is_asked && !io::stdin().is_terminal() && !matches!(which, LetterSelection::Named(_)) {
        return Err(Misused::PurgeUnasked.into());
    }
    if is_asked && io::stdin().is_terminal() {
        let count = client.purge(&which, true).await?;
        output::mutter(&format!("purge {count} dead letters for good? [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            output::note("nothing was purged");
            return Ok(Exit::Failed);
        }
    }
    let purged = client.purge(&which, dry_run).await?;
    match global.output {
        Format::Json => {
            output::json(&serde_json::json!({ "purged": purged, "dry_run": dry_run }))?;
        }
        Format::Text => {
            let would = if dry_run { "would be purged" } else { "purged" };
            output::line(&format!("{purged} {would}"))?;
        }
    }
    Ok(Exit::Done)
}

fn list(global: &Global, letters: &[DeadLetter], next: Option<&str>) -> anyhow::Result<()> {
    if global.output == Format::Json {
        let letters: Vec<_> = letters.iter().map(row).collect();
        output::json(&serde_json::json!({ "dead_letters": letters, "next_page_token": next }))?;
        return Ok(());
    }
    let now = consult::now();
    let rows = letters.iter().map(|letter| {
        let info = &letter.info;
        [
            format!("{}/{}", info.from, info.id),
            info.to.to_string(),
            info.finished_at.map(|at| output::clock(at, now)).unwrap_or_default(),
            letter.deliveries.to_string(),
            info.generation.to_string(),
            info.failure.as_ref().map(|failure| failure.detail.clone()).unwrap_or_default(),
        ]
    });
    let header = ["ID", "TO", "DIED", "DELIVERIES", "LIFE", "REASON"];
    output::line(&output::table(header, rows))?;
    if let Some(next) = next {
        output::note(&format!("more: --page {next}"));
    }
    Ok(())
}

fn show(global: &Global, letter: &DeadLetter) -> anyhow::Result<()> {
    if global.output == Format::Json {
        output::json(&json(letter))?;
        return Ok(());
    }
    message::get(global, &letter.info, None)?;
    let now = consult::now();
    let rows = letter.trials.iter().map(|trial| {
        [
            trial.generation.to_string(),
            trial.number.to_string(),
            trial.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
            output::clock(trial.ended_at, now),
            trial.class.as_str().to_owned(),
            trial.detail.clone(),
        ]
    });
    output::line("")?;
    let header = ["LIFE", "DELIVERY", "AGENT", "ENDED", "CLASS", "WHY"];
    output::line(&output::table(header, rows))?;
    Ok(())
}

/// A letter of a list, which comes without its trials.
fn row(letter: &DeadLetter) -> serde_json::Value {
    let mut json = message::json(&letter.info, None);
    json["deliveries"] = letter.deliveries.into();
    json
}

fn json(letter: &DeadLetter) -> serde_json::Value {
    let mut json = row(letter);
    json["trials"] = letter.trials.iter().map(trial).collect::<Vec<_>>().into();
    json
}

fn trial(trial: &Trial) -> serde_json::Value {
    serde_json::json!({
        "generation": trial.generation,
        "number": trial.number,
        "agent": trial.agent.as_ref().map(ToString::to_string),
        "model": trial.model.as_ref().map(ToString::to_string),
        "began_at": trial.began_at.and_then(output::rfc3339),
        "ended_at": output::rfc3339(trial.ended_at),
        "class": trial.class.as_str(),
        "detail": trial.detail,
    })
}
