//! `usage forecast`: when each limit is reached, as things go.

use broker_proto::types::{LimitForecast, WallTime};

use super::json;
use crate::{
    cli::Global,
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn forecast(global: &Global) -> anyhow::Result<Exit> {
    let limits = connect(global).await?.usage_forecast().await?;
    if global.output == Format::Json {
        let limits: Vec<_> = limits.iter().map(json::forecast).collect();
        output::json(&serde_json::json!({ "limits": limits }))?;
        return Ok(Exit::Done);
    }
    if limits.is_empty() {
        output::note("no limit is known yet: no provider has told one, and no budget is set");
        return Ok(Exit::Done);
    }
    let now = consult::now();
    let header = ["SCOPE", "NAME", "LIMIT", "USED", "PER HOUR", "REACHED", "RESETS", "SURE"];
    output::line(&output::table(header, limits.iter().map(|limit| row(limit, now))))?;
    Ok(Exit::Done)
}

fn row(limit: &LimitForecast, now: WallTime) -> [String; 8] {
    let window = &limit.window;
    let unit = &window.unit;
    let figure = |figure| json::figure(figure, unit).to_string();
    let clock = |at: WallTime| output::clock(at, now);
    [
        limit.kind.clone(),
        limit.name.clone(),
        window.name.clone(),
        format!("{} of {}", figure(window.used), figure(window.limit)),
        figure(Some(limit.per_hour)),
        reached(limit, now),
        window.resets_at.map_or_else(|| "-".to_owned(), clock),
        sureness(limit.confidence),
    ]
}

fn reached(limit: &LimitForecast, now: WallTime) -> String {
    let window = &limit.window;
    match limit.reached_at {
        Some(_) if window.used >= window.limit => "it is".to_owned(),
        Some(at) => output::clock(at, now),
        None => "not before its reset".to_owned(),
    }
}

/// `70 %: rather`
fn sureness(confidence: f64) -> String {
    let word = match confidence {
        sure if sure >= 0.7 => "rather",
        sure if sure >= 0.3 => "somewhat",
        _ => "a guess",
    };
    format!("{:.0} %: {word}", confidence * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_sure_it_is_stands_beside_it() {
        assert_eq!(sureness(0.05), "5 %: a guess");
        assert_eq!(sureness(0.3), "30 %: somewhat");
        assert_eq!(sureness(1.0), "100 %: rather");
    }
}
