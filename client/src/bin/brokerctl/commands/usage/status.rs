//! `usage status`: level, limits, burn rate and forecast of every model, once or live.

use broker_client::{Client, UsageItem, Watched};
use broker_proto::types::{ModelUsage, SessionUsage, UsageStatus, UsageWindow, WallTime};

use super::json;
use crate::{
    cli::{Global, UsageStatusArgs as StatusArgs},
    commands::{Interrupts, connect, connection, consult},
    exit_code::Exit,
    output::{self, Format},
};

/// Cells of a bar.
const BAR: u64 = 10;

/// Shows every model's usage.
pub(super) async fn status(global: &Global, args: &StatusArgs) -> anyhow::Result<Exit> {
    let status = connect(global).await?.usage_status(args.session.as_deref()).await?;
    let is_missing = args.session.is_some() && status.sessions.is_empty();
    show(global, args, &status)?;
    if is_missing {
        output::note("nothing was ever counted for that session");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Done)
}

/// Shows it again and again, and at once when a level changes.
pub(super) async fn watch(global: &Global, args: &StatusArgs) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let client = connect(global).await?;
    let mut changes = client.follow_usage(None);
    loop {
        tokio::select! {
            change = changes.next() => match change? {
                Some(Watched::Item(item)) => on_item(global, args, &client, item).await?,
                Some(news) => connection(&news),
                None => return Ok(Exit::Done),
            },
            () = tokio::time::sleep(args.interval.max(std::time::Duration::from_millis(200))) => {
                redraw(global, args, &client).await?;
            }
            () = interrupts.next() => return Ok(Exit::Interrupted),
        }
    }
}

async fn on_item(
    global: &Global,
    args: &StatusArgs,
    client: &Client,
    item: UsageItem,
) -> anyhow::Result<()> {
    if let UsageItem::Change { change, .. } = &item {
        let words = format!(
            "{} {}: {} -> {}: {}",
            change.kind, change.name, change.from, change.to.level, change.to.reason
        );
        output::note(&words);
    }
    redraw(global, args, client).await
}

/// A broker that is away for a moment is waited for by the watch.
async fn redraw(global: &Global, args: &StatusArgs, client: &Client) -> anyhow::Result<()> {
    if let Ok(status) = client.usage_status(args.session.as_deref()).await {
        if global.output == Format::Text {
            output::clear_screen()?;
        }
        show(global, args, &status)?;
    }
    Ok(())
}

fn show(global: &Global, args: &StatusArgs, status: &UsageStatus) -> Result<(), output::Error> {
    if global.output == Format::Json {
        return output::json(&json::status(status));
    }
    output::line(&drawn(status, args.session.is_some(), consult::now()))
}

/// The table of the models and, below it, of the sessions that are not healthy; of all of them where `has_asked` for one.
fn drawn(status: &UsageStatus, has_asked: bool, now: WallTime) -> String {
    let header =
        ["MODEL", "LEVEL", "LIMITS", "CALLS", "FAILED", "TOKENS", "COST", "BURN", "FORECAST"];
    let mut drawn = output::table(header, status.models.iter().map(|model| row(model, now)));
    let is_shown = |it: &&SessionUsage| has_asked || it.level.level != "HEALTHY";
    let sessions: Vec<_> = status.sessions.iter().filter(is_shown).map(session_row).collect();
    if !sessions.is_empty() {
        let header = [
            "SESSION",
            "MODEL",
            "LEVEL",
            "WINDOW",
            "CALLS",
            "COST",
            "LASTED",
            "COMPLEXITY",
            "RATING",
        ];
        drawn.push_str("\n\n");
        drawn.push_str(&output::table(header, sessions));
    }
    drawn
}

fn level_words(level: &broker_proto::types::UsageLevel) -> String {
    let mut words = level.level.clone();
    if !level.reason.is_empty() {
        words.push_str(&format!(": {}", level.reason));
    }
    if level.action != "none" && !level.action.is_empty() {
        words.push_str(&format!(" ({})", level.action));
    }
    words
}

fn row(model: &ModelUsage, now: WallTime) -> [String; 9] {
    let mark = if model.is_simulated { " [simulated]" } else { "" };
    let windows: Vec<String> = model.windows.iter().map(|it| window_words(it, now)).collect();
    let forecast = match model.forecast_at {
        Some(at) => format!("limit at {}", output::clock(at, now)),
        None => "-".to_owned(),
    };
    let tokens = [model.total.input_tokens, model.total.output_tokens];
    [
        format!("{}{mark}", model.model),
        level_words(&model.level),
        windows.join("\n"),
        model.calls.to_string(),
        model.failures.to_string(),
        format!("{} in, {} out", output::count(tokens[0]), output::count(tokens[1])),
        output::money(model.cost_usd),
        burn_words(model),
        forecast,
    ]
}

fn burn_words(model: &ModelUsage) -> String {
    match model.burn.tokens_per_hour {
        0 => "-".to_owned(),
        tokens => format!("{tokens} tokens/h"),
    }
}

fn session_row(session: &SessionUsage) -> [String; 9] {
    let window = UsageWindow {
        used: Some(session.tokens),
        limit: session.context_window,
        ..UsageWindow::named("")
    };
    [
        session.session.clone(),
        session.model.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        level_words(&session.level),
        bar_words(&window),
        session.calls.to_string(),
        output::money(session.cost_usd),
        output::span(session.duration),
        session.complexity.map_or_else(|| "-".to_owned(), |share| share.to_string()),
        session.rating.map_or_else(|| "-".to_owned(), |rating| format!("{rating} of 5")),
    ]
}

/// `5h [#######---] 70 % of 100, resets 10:04:05 UTC`
fn window_words(window: &UsageWindow, now: WallTime) -> String {
    let mut words = format!("{} {}", window.name, bar_words(window));
    if let Some(at) = window.resets_at {
        words.push_str(&format!(", resets {}", output::clock(at, now)));
    }
    words
}

fn bar_words(window: &UsageWindow) -> String {
    let figure = |figure| match json::figure(figure, &window.unit) {
        serde_json::Value::Null => "-".to_owned(),
        value if window.unit == "usd" => format!("${value}"),
        value => value.to_string(),
    };
    match json::percent(window.used, window.limit) {
        Some(percent) => {
            format!("{} {percent} % of {}", bar(window.used, window.limit), figure(window.limit))
        }
        None => format!("{} of {}", figure(window.used), figure(window.limit)),
    }
}

fn bar(used: Option<u64>, limit: Option<u64>) -> String {
    let (used, limit) = (used.unwrap_or(0), limit.unwrap_or(0).max(1));
    let filled = u128::from(used.min(limit)) * u128::from(BAR) / u128::from(limit);
    let cell = |at: u64| if u128::from(at) < filled { '#' } else { '-' };
    let cells: String = (0..BAR).map(cell).collect();
    format!("[{cells}]")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_proto::types::{ModelName, Usage, UsageBurn, UsageLevel, UsageSignals};

    use super::*;

    const NOW: WallTime = WallTime(1_795_255_200_000);

    fn used(name: &str, used: u64) -> UsageWindow {
        let resets_at = Some(NOW.after(Duration::from_secs(3_600)));
        UsageWindow { used: Some(used), limit: Some(100), resets_at, ..UsageWindow::named(name) }
    }

    fn warned() -> UsageLevel {
        UsageLevel {
            level: "WARNING".into(),
            cause: "5h".into(),
            reason: "75 of 100 5h".into(),
            action: "log".into(),
            ..UsageLevel::default()
        }
    }

    fn model() -> ModelUsage {
        ModelUsage {
            model: ModelName::parse("opus").unwrap(),
            level: warned(),
            windows: vec![used("5h", 75), used("7d", 10)],
            total: Usage {
                input_tokens: Some(1_200),
                output_tokens: Some(300),
                ..Usage::default()
            },
            calls: 7,
            failures: 1,
            cost_usd: Some(0.5),
            unavailable_until: None,
            is_simulated: true,
            next: None,
            signals: UsageSignals::default(),
            forecast_at: Some(NOW.after(Duration::from_secs(1_800))),
            burn: UsageBurn { tokens_per_hour: 9_000, ..UsageBurn::default() },
            counted: vec![],
            key: String::new(),
        }
    }

    fn session(level: UsageLevel) -> SessionUsage {
        SessionUsage {
            session: "review-7".into(),
            model: Some(ModelName::parse("opus").unwrap()),
            tokens: 150_000,
            context_window: Some(200_000),
            warning_threshold: Some(150_000),
            switch_threshold: Some(180_000),
            level,
            windows: vec![],
            counted: vec![],
            total: Usage::default(),
            calls: 3,
            cost_usd: Some(0.25),
            duration: Duration::from_secs(125),
            worked: Duration::from_secs(5),
            complexity: Some(0.7),
            rating: Some(4),
            last_at: None,
        }
    }

    fn status(models: Vec<ModelUsage>, sessions: Vec<SessionUsage>) -> UsageStatus {
        UsageStatus { models, scopes: vec![], sessions }
    }

    /// The cells of a line: they are two spaces apart at least.
    fn cells(line: &str) -> Vec<&str> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn a_model_has_its_level_a_bar_for_each_window_its_burn_rate_and_its_forecast() {
        let drawn = drawn(&status(vec![model()], vec![]), false, NOW);
        let lines: Vec<Vec<&str>> = drawn.lines().map(cells).collect();
        let header =
            ["MODEL", "LEVEL", "LIMITS", "CALLS", "FAILED", "TOKENS", "COST", "BURN", "FORECAST"];
        assert_eq!(lines[0], header);
        let first = [
            "opus [simulated]",
            "WARNING: 75 of 100 5h (log)",
            "5h [#######---] 75 % of 100, resets 11:00:00 UTC",
            "7",
            "1",
            "1200 in, 300 out",
            "$0.50",
            "9000 tokens/h",
            "limit at 10:30:00 UTC",
        ];
        assert_eq!(lines[1], first);
        assert_eq!(lines[2], ["7d [#---------] 10 % of 100, resets 11:00:00 UTC"]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_nothing_is_known_of_has_a_dash() {
        let quiet = ModelUsage {
            level: UsageLevel {
                level: "HEALTHY".into(),
                action: "none".into(),
                ..Default::default()
            },
            windows: vec![],
            total: Usage::default(),
            cost_usd: None,
            is_simulated: false,
            forecast_at: None,
            burn: UsageBurn::default(),
            ..model()
        };
        let drawn = drawn(&status(vec![quiet], vec![]), false, NOW);
        let row = cells(drawn.lines().nth(1).unwrap());
        assert_eq!(row, ["opus", "HEALTHY", "7", "1", "- in, - out", "cost unknown", "-", "-"]);
    }

    #[test]
    fn a_session_is_shown_when_it_is_asked_for_or_not_healthy_with_what_was_said_of_it() {
        let healthy = UsageLevel { level: "HEALTHY".into(), ..UsageLevel::default() };
        let drawn =
            |level, has_asked| drawn(&status(vec![model()], vec![session(level)]), has_asked, NOW);
        let of_session = |drawn: String| drawn.lines().last().map(str::to_owned).unwrap();
        let want = [
            "review-7",
            "opus",
            "WARNING: 75 of 100 5h (log)",
            "[#######---] 75 % of 200000",
            "3",
            "$0.25",
            "2m 5s",
            "0.7",
            "4 of 5",
        ];
        assert_eq!(cells(&of_session(drawn(warned(), false))), want);
        assert!(!drawn(healthy.clone(), false).contains("review-7"));
        assert!(of_session(drawn(healthy, true)).contains("review-7"));
    }

    #[test]
    fn a_window_is_a_bar_with_its_share_and_its_reset() {
        let now = WallTime(1_795_255_200_000);
        let window = UsageWindow {
            used: Some(75),
            limit: Some(100),
            resets_at: Some(now),
            ..UsageWindow::named("5h")
        };
        let words = "5h [#######---] 75 % of 100, resets 10:00:00 UTC";
        assert_eq!(window_words(&window, now), words);
        let unknown = UsageWindow { limit: None, ..window };
        assert_eq!(window_words(&unknown, now), "5h 75 of -, resets 10:00:00 UTC");
    }

    #[test]
    fn money_is_shown_in_dollars() {
        let window = UsageWindow {
            used: Some(500_000_000),
            limit: Some(2_000_000_000),
            unit: "usd".into(),
            ..UsageWindow::named("day usd")
        };
        assert_eq!(bar_words(&window), "[##--------] 25 % of $2.0");
    }

    #[test]
    fn a_bar_never_leaves_its_frame() {
        assert_eq!(bar(Some(u64::MAX), Some(10)), "[##########]");
        assert_eq!(bar(Some(0), Some(0)), "[----------]");
    }
}
