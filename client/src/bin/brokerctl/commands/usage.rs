//! `usage status`: what the models have used and have left.

use broker_proto::types::{ModelUsage, UsageWindow, WallTime};

use super::{connect, consult};
use crate::{
    cli::Global,
    exit_code::Exit,
    output::{self, Format},
};

/// Shows every model's usage.
pub(crate) async fn status(global: &Global) -> anyhow::Result<Exit> {
    let models = connect(global).await?.usage().await?;
    match global.output {
        Format::Json => {
            let models: Vec<_> = models.iter().map(json).collect();
            output::json(&serde_json::json!({ "models": models }))?;
        }
        Format::Text => {
            let now = consult::now();
            let header =
                ["MODEL", "LEVEL", "CALLS", "FAILED", "TOKENS IN", "OUT", "COST", "LIMITS"];
            output::line(&output::table(header, models.iter().map(|model| row(model, now))))?;
        }
    }
    Ok(Exit::Done)
}

fn row(model: &ModelUsage, now: WallTime) -> [String; 8] {
    let mark = if model.is_simulated { " [simulated]" } else { "" };
    let mut level = model.level.level.clone();
    if !model.level.reason.is_empty() {
        level.push_str(&format!(": {}", model.level.reason));
    }
    let windows: Vec<String> =
        model.windows.iter().map(|window| window_words(window, now)).collect();
    [
        format!("{}{mark}", model.model),
        level,
        model.calls.to_string(),
        model.failures.to_string(),
        output::count(model.total.input_tokens),
        output::count(model.total.output_tokens),
        output::money(model.cost_usd),
        windows.join("; "),
    ]
}

/// `tokens 1200 of 40000, resets 10:04:05 UTC`
fn window_words(window: &UsageWindow, now: WallTime) -> String {
    let used = output::count(window.used);
    let mut words = format!("{} {used} of {}", window.name, output::count(window.limit));
    if let Some(at) = window.resets_at {
        words.push_str(&format!(", resets {}", output::clock(at, now)));
    }
    words
}

fn json(model: &ModelUsage) -> serde_json::Value {
    let windows: Vec<_> = model
        .windows
        .iter()
        .map(|window| {
            serde_json::json!({
                "name": window.name, "used": window.used, "limit": window.limit,
                "resets_at": window.resets_at.and_then(output::rfc3339),
            })
        })
        .collect();
    serde_json::json!({
        "name": model.model.to_string(),
        "level": model.level.level,
        "reason": model.level.reason,
        "windows": windows,
        "usage": {
            "input_tokens": model.total.input_tokens,
            "output_tokens": model.total.output_tokens,
            "cache_read_tokens": model.total.cache_read_tokens,
            "cache_write_tokens": model.total.cache_write_tokens,
            "reasoning_tokens": model.total.reasoning_tokens,
        },
        "calls": model.calls,
        "failures": model.failures,
        "cost_usd": model.cost_usd,
        "unavailable_until": model.unavailable_until.and_then(output::rfc3339),
        "simulated": model.is_simulated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_limit_is_a_dash() {
        let now = WallTime(1_795_255_200_000);
        let window =
            UsageWindow { used: Some(5), resets_at: Some(now), ..UsageWindow::named("tokens") };
        assert_eq!(window_words(&window, now), "tokens 5 of -, resets 10:00:00 UTC");
    }
}
