//! `usage ledger`: one line for each attempt, for people, as CSV and as JSON.

use std::path::Path;

use broker_client::Page;
use broker_proto::types::{AgentName, LedgerFilter, LedgerLine, MessageId, WallTime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{json, model};
use crate::{
    cli::{Global, LedgerArgs, Misused},
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Text,
    Json,
    Csv,
}

const COLUMNS: [&str; 18] = [
    "at",
    "source",
    "model",
    "key",
    "session",
    "message_id",
    "attempt",
    "agent",
    "outcome",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "provenance",
    "cost_usd",
    "latency_ms",
    "first_token_ms",
];

pub(super) async fn ledger(global: &Global, args: LedgerArgs) -> anyhow::Result<Exit> {
    let is_csv = global.output_file.as_deref() == Some(Path::new("csv"));
    let written = match global.output {
        _ if is_csv => Written::Csv,
        Format::Json => Written::Json,
        Format::Text => Written::Text,
    };
    let (limit, mut token, is_all) = (args.limit, args.page.clone(), args.all);
    let filter = filter(args)?;
    let client = connect(global).await?;
    let mut page = client.ledger(filter.clone(), limit, token.take()).await?;
    while is_all && let Some(next) = page.next_page_token.take() {
        let more = client.ledger(filter.clone(), limit, Some(next)).await?;
        page.items.extend(more.items);
        page.next_page_token = more.next_page_token;
    }
    print(written, &page)?;
    Ok(Exit::Done)
}

fn filter(args: LedgerArgs) -> anyhow::Result<LedgerFilter> {
    let agent =
        args.agent.map(|name| AgentName::parse(&name).map_err(|_| Misused::AgentName(name)));
    let message = args.message.map(|id| MessageId::parse(&id).ok_or(Misused::MessageId(id)));
    let when = |text: Option<String>| text.map(|text| moment(&text, consult::now())).transpose();
    Ok(LedgerFilter {
        model: model(args.model)?,
        key: args.key,
        session: args.session,
        agent: agent.transpose()?,
        message: message.transpose()?,
        outcome: args.outcome,
        since: when(args.since)?,
        until: when(args.until)?,
    })
}

/// A point in time, or how long ago.
fn moment(text: &str, now: WallTime) -> Result<WallTime, Misused> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(WallTime(now.0.saturating_sub(ago)));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Misused::Moment(text.to_owned()))?;
    let millis = at.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(millis).map(WallTime).map_err(|_| Misused::Moment(text.to_owned()))
}

fn print(written: Written, page: &Page<LedgerLine>) -> Result<(), output::Error> {
    match written {
        Written::Json => {
            let lines: Vec<_> = page.items.iter().map(json::line).collect();
            let next = &page.next_page_token;
            output::json(&serde_json::json!({ "lines": lines, "next_page_token": next }))
        }
        Written::Csv => {
            output::line(&COLUMNS.join(","))?;
            for line in &page.items {
                output::line(&csv(line))?;
            }
            more(page);
            Ok(())
        }
        Written::Text => {
            let now = consult::now();
            let header =
                ["AT", "MODEL", "OUTCOME", "IN", "OUT", "COST", "TOOK", "SESSION", "MESSAGE"];
            let rows = page.items.iter().map(|line| row(line, now));
            output::line(&output::table(header, rows))?;
            more(page);
            Ok(())
        }
    }
}

fn more(page: &Page<LedgerLine>) {
    if let Some(next) = &page.next_page_token {
        output::note(&format!("more: --page {next}"));
    }
}

fn row(line: &LedgerLine, now: WallTime) -> [String; 9] {
    let outcome = match line.outcome.as_str() {
        "" => line.source.clone(),
        outcome => outcome.to_owned(),
    };
    [
        output::clock(line.at, now),
        line.model.to_string(),
        outcome,
        output::count(line.usage.input_tokens),
        output::count(line.usage.output_tokens),
        output::money(line.cost_usd),
        line.latency.map(output::span).unwrap_or_default(),
        line.session.clone().unwrap_or_default(),
        line.message.map(|id| id.to_string()).unwrap_or_default(),
    ]
}

fn csv(line: &LedgerLine) -> String {
    let number = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    let millis = |span: Option<_>| number(span.map(output::millis));
    let usage = line.usage;
    let cells: [String; COLUMNS.len()] = [
        output::rfc3339(line.at).unwrap_or_default(),
        line.source.clone(),
        line.model.to_string(),
        line.key.clone(),
        line.session.clone().unwrap_or_default(),
        line.message.map(|id| id.to_string()).unwrap_or_default(),
        line.attempt.to_string(),
        line.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        line.outcome.clone(),
        number(usage.input_tokens),
        number(usage.output_tokens),
        number(usage.cache_read_tokens),
        number(usage.cache_write_tokens),
        number(usage.reasoning_tokens),
        json::provenance(usage).to_owned(),
        line.cost_usd.map(|usd| usd.to_string()).unwrap_or_default(),
        millis(line.latency),
        millis(line.first_token),
    ];
    cells.map(|cell| quoted(&cell)).join(",")
}

/// As RFC 4180 has it. What a spreadsheet would take for a formula is kept as text.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"] {
            assert_eq!(quoted(formula), format!("'{formula}"));
        }
        assert_eq!(quoted("=\"a\",b"), "\"'=\"\"a\"\",b\"");
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now = WallTime(1_795_255_200_000);
        assert_eq!(moment("1h", now).unwrap(), WallTime(now.0 - 3_600_000));
        assert_eq!(moment("2026-11-21T10:00:00Z", now).unwrap(), now);
        assert!(moment("yesterday", now).is_err());
    }
}
