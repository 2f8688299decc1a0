//! Usage from the street: what is counted, which level that is, and what it says to people and programs.

use broker_client::{Client, UsageItem};
use broker_proto::types::{ModelName, UsageRecord};
use broker_tests::{Place, TestBroker, TestHouse, brokerctl, within};
use futures::StreamExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

async fn status(broker: &TestBroker) -> Value {
    broker.run(&["usage", "status", "--output", "json"]).await.exits(0).json()
}

async fn opus(broker: &TestBroker) -> Value {
    let status = status(broker).await;
    let models = status["models"].as_array().unwrap();
    models.iter().find(|model| model["name"] == "opus").unwrap().clone()
}

async fn record(broker: &TestBroker, args: &[&str]) {
    let command = [&["usage", "record"], args, &["--model", "opus"]].concat();
    broker.run(&command).await.exits(0);
}

#[tokio::test]
async fn a_status_has_these_keys_for_scripts() {
    let broker = TestBroker::start().await;
    let model = opus(&broker).await;
    for key in ["name", "level", "action", "next", "signals", "windows", "forecast_at"] {
        assert!(keys(&model).contains(&key), "{key}");
    }
    let signals = ["avg_response_seconds", "error_rate", "rate_limit_count", "slow_streak"];
    assert_eq!(keys(&model["signals"]), signals);
    assert_eq!((&model["level"], &model["action"]), (&json!("HEALTHY"), &json!("none")));
    assert_eq!((&model["forecast_at"], &model["windows"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn three_recorded_rate_limits_exhaust_a_model_and_its_next_is_named() {
    let broker = TestBroker::start().await;
    let mut levels = Vec::new();
    for _ in 0..3 {
        record(&broker, &["rate-limit"]).await;
        let model = opus(&broker).await;
        levels.push((model["level"].clone(), model["action"].clone()));
        assert_eq!(model["signals"]["rate_limit_count"], levels.len());
    }
    let want = [("HEALTHY", "none"), ("WARNING", "log"), ("EXHAUSTED", "move")];
    assert_eq!(levels, want.map(|(level, action)| (json!(level), json!(action))));
    let model = opus(&broker).await;
    assert_eq!(model["next"], "sonnet");
    assert_eq!(model["reason"], "3 of 3 rate limits within 60 s");
    let table = broker.run(&["usage", "status"]).await.exits(0).stdout;
    assert!(table.contains("EXHAUSTED: 3 of 3 rate limits within 60 s (move)"), "{table}");
    let _agent = broker.agent("a", &["opus"]).await;
    let table = broker.run(&["models"]).await.exits(0).stdout;
    let opus = table.lines().find(|line| line.trim_start().starts_with("opus")).unwrap();
    let cells: Vec<&str> =
        opus.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(&cells[4..6], ["EXHAUSTED: 3 of 3 rate limits within 60 s", "available"], "{table}");
}

#[tokio::test]
async fn slow_replies_successes_and_errors_are_signals() {
    let broker = TestBroker::start().await;
    record(&broker, &["slow", "15"]).await;
    record(&broker, &["slow", "11"]).await;
    record(&broker, &["error"]).await;
    for _ in 0..3 {
        record(&broker, &["success"]).await;
    }
    let signals = opus(&broker).await["signals"].clone();
    assert_eq!((&signals["slow_streak"], &signals["error_rate"]), (&json!(2), &json!(0.25)));
    assert_eq!(signals["avg_response_seconds"], 13.0);
    record(&broker, &["slow", "2.5"]).await;
    assert_eq!(opus(&broker).await["signals"]["slow_streak"], 0);
}

#[tokio::test]
async fn recorded_tokens_count_towards_the_sessions_window() {
    let broker = TestBroker::start().await;
    let session = async || {
        let show = ["usage", "status", "--session", "review-7", "--output", "json"];
        broker.run(&show).await.exits(0).json()["sessions"][0].clone()
    };
    let tokens = ["tokens", "--session", "review-7", "--input", "1000", "--output", "500"];
    record(&broker, &tokens).await;
    let one = session().await;
    assert_eq!((&one["tokens"], &one["model"]), (&json!(1500), &json!("opus")));
    let window = one["context_window"].as_u64().unwrap();
    assert_eq!(one["warning_threshold"], window * 75 / 100);
    assert_eq!(one["auto_switch_threshold"], window * 90 / 100);

    let rest = (window * 90 / 100 - 1500).to_string();
    let more = ["usage", "record", "tokens", "--session", "review-7", "--input", &rest];
    let said = [&more[..], &["--output-tokens", "0", "--output", "json"]].concat();
    assert_eq!(broker.run(&said).await.exits(0).json()["model"], "opus");
    let full = session().await;
    assert_eq!((&full["level"], &full["action"]), (&json!("EXHAUSTED"), &json!("move")));
    assert_eq!(full["percentage_used"], 90.0);
    let opinion = ["usage", "record", "opinion", "--session", "review-7", "--complexity", "0.7"];
    broker.run(&[&opinion[..], &["--rating", "4"]].concat()).await.exits(0);
    let judged = session().await;
    assert_eq!((&judged["complexity"], &judged["rating"]), (&json!(0.7), &json!(4)));
    broker.run(&["usage", "status", "--session", "nobody"]).await.exits(3);
}

#[tokio::test]
async fn what_is_no_figure_is_refused_and_counts_nothing() {
    let broker = TestBroker::start().await;
    for args in [
        &["tokens", "--input", "-5", "--output", "1"][..],
        &["tokens", "--input", "NaN", "--output", "1"],
        &["tokens", "--input", "1", "--output", "-1"],
        &["tokens", "--input", "1"],
        &["slow", "NaN"],
        &["slow", "--", "-1"],
        &["slow", "inf"],
        &["opinion", "--session", "s", "--complexity", "NaN"],
        &["opinion", "--session", "s", "--rating", "6"],
    ] {
        broker.run(&[&["usage", "record"], args].concat()).await.exits(2);
    }
    let huge = u64::MAX.to_string();
    let tokens = ["usage", "record", "tokens", "--input", &huge, "--output", "1"];
    let refused = broker.run(&tokens).await.exits(2);
    assert!(refused.stderr.contains("usage.input_tokens"), "{refused:?}");
    let unknown = ["usage", "record", "error", "--model", "opsu"];
    broker.run(&unknown).await.exits(3);
    assert_eq!(opus(&broker).await["calls"], 0);
    let lines = broker.run(&["usage", "ledger", "--output", "json"]).await.exits(0).json();
    assert_eq!(lines["lines"], json!([]));
}

#[tokio::test]
async fn a_policy_set_at_run_time_is_shown_as_overriding_the_file() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let set = ["usage", "policy", "set", "warning=60", "budget.model.opus.day.tokens=1000"];
    broker.run(&set).await.exits(0);
    let refused = broker.run(&["usage", "policy", "set", "warning=90"]).await.exits(2);
    assert!(refused.stderr.contains("`warning` must be below `critical`"), "{refused:?}");
    broker.run(&["usage", "policy", "set", "nonsense=1"]).await.exits(2);
    broker.restart().await;

    let show = broker.run(&["usage", "policy", "show", "--output", "json"]).await.exits(0).json();
    let settings = show["settings"].as_array().unwrap();
    let of = |key: &str| settings.iter().find(|it| it["key"] == key).unwrap().clone();
    let warning = json!({"key": "warning", "value": "60", "file": "70", "overridden": true});
    assert_eq!(of("warning"), warning);
    assert_eq!(of("critical")["overridden"], false);
    assert_eq!(of("budget.model.opus.day.tokens")["value"], "1000");
    let unset = ["usage", "policy", "set", "--unset", "warning"];
    let table = broker.run(&unset).await.exits(0).stdout;
    assert!(!table.lines().any(|line| line.starts_with("warning ") && line.contains("overrides")));
}

#[tokio::test]
async fn a_budget_becomes_levels_and_a_forecast() {
    let broker = TestBroker::start().await;
    let set = ["usage", "policy", "set", "budget.model.opus.day.tokens=10000"];
    broker.run(&set).await.exits(0);
    record(&broker, &["tokens", "--input", "8000", "--output", "600"]).await;

    let model = opus(&broker).await;
    assert_eq!((&model["level"], &model["action"]), (&json!("CRITICAL"), &json!("prepare")));
    let window = &model["windows"][0];
    assert_eq!((&window["name"], &window["used"]), (&json!("day tokens"), &json!(8600)));
    assert!(window["resets_at"].is_string() && window["limit"] == 10_000);
    let forecast = broker.run(&["usage", "forecast", "--output", "json"]).await.exits(0).json();
    let limit = &forecast["limits"][0];
    assert_eq!((&limit["scope"], &limit["name"]), (&json!("model"), &json!("opus")));
    assert!(limit["per_hour"].as_u64().unwrap() > 8_600);
    // Of one call within one moment nobody is sure.
    assert!(limit["confidence"].as_f64().unwrap() < 0.1, "{limit}");
    broker.run(&["usage", "reset", "--model", "opus"]).await.exits(0);
    assert_eq!(opus(&broker).await["level"], "HEALTHY");
}

#[tokio::test]
async fn a_call_that_its_budget_has_no_room_for_is_refused_before_it_is_made() {
    let settings =
        "[[budgets]]\nscope = \"namespace\"\nwindow = \"day\"\nunit = \"requests\"\nlimit = 1\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut agent = broker.agent("a", &["opus", "sonnet"]).await;
    let submit = ["submit", "--model", "opus", "--question", "hi"];
    broker.run(&submit).await.exits(0);
    let work = agent.next().await;

    let refused = broker.run(&["consult", "--model", "opus", "--question", "again"]).await.exits(1);

    assert!(refused.stderr.contains("BUDGET"), "{refused:?}");
    assert!(refused.stderr.contains("namespace day requests has 0 left of 1"), "{refused:?}");
    drop(work);
}

#[tokio::test]
async fn the_ledger_has_one_line_for_each_attempt() {
    let house = TestHouse::start().await;
    house.sim.refuse("anthropic.overloaded_529", "claude-opus-*", json!(1)).await;
    house.ask("opus", &[]).await.exits(0);
    house.ask("local", &[]).await.exits(0);
    let tokens = ["usage", "record", "tokens", "--session", "s1", "--input", "5", "--output", "7"];
    house.run(&tokens).await.exits(0);

    let ledger = async |more: &[&str]| {
        let list = [&["usage", "ledger", "--output", "json"], more].concat();
        house.run(&list).await.exits(0).json()
    };
    let all = ledger(&[]).await;
    let lines = all["lines"].as_array().unwrap();
    let brief: Vec<_> = lines.iter().map(|line| (&line["source"], &line["outcome"])).collect();
    let attempt = json!("attempt");
    let (recorded, done, overloaded) = (json!("recorded"), json!("done"), json!("OVERLOADED"));
    let nobody = json!("");
    let want =
        [(&recorded, &nobody), (&attempt, &done), (&attempt, &done), (&attempt, &overloaded)];
    assert_eq!(brief, want);
    assert_eq!(ledger(&["--outcome", "OVERLOADED"]).await["lines"].as_array().unwrap().len(), 1);
    assert_eq!(ledger(&["--model", "local"]).await["lines"].as_array().unwrap().len(), 1);
    let of_session = ledger(&["--session", "s1"]).await["lines"].clone();
    assert_eq!(of_session[0]["usage"]["output_tokens"], 7);
    assert_eq!(ledger(&["--until", "1h"]).await["lines"], json!([]));
    let count = async |more: &[&str]| ledger(more).await["lines"].as_array().unwrap().len();
    assert_eq!(count(&["--since", "1h"]).await, 4);
    assert_eq!(count(&["--since", "2099-01-01T00:00:00Z"]).await, 0);
    let done = &lines[1];
    assert_eq!(count(&["--message", done["message_id"].as_str().unwrap()]).await, 1);
    let agent = done["agent"].as_str().unwrap();
    let by_agent = lines.iter().filter(|line| line["agent"] == agent).count();
    assert_eq!(count(&["--agent", agent]).await, by_agent);
    let key = lines[2]["key"].as_str().unwrap();
    let of_key = lines.iter().filter(|line| line["key"] == key).count();
    assert_eq!(count(&["--key", key]).await, of_key);
    assert!(of_key > 0 && of_key < 4 && by_agent < 4, "{lines:?}");
    let model = lines[2]["model"].as_str().unwrap();
    assert_eq!(count(&["--model", model, "--outcome", "done"]).await, 1);
    assert_eq!(count(&["--model", model, "--outcome", "RATE_LIMITED"]).await, 0);
    let first = ledger(&["--limit", "3"]).await;
    let next = first["next_page_token"].as_str().unwrap();
    let second = ledger(&["--limit", "3", "--page", next]).await;
    assert_eq!(
        (second["lines"].as_array().unwrap().len(), &second["next_page_token"]),
        (1, &Value::Null)
    );
    let csv = house.run(&["usage", "ledger", "--all", "--limit", "1", "--output", "csv"]).await;
    let csv = csv.exits(0).stdout;
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 5);
    assert!(rows[0].starts_with("at,source,model,key,session"), "{csv}");
    assert!(rows.iter().all(|row| row.split(',').count() == 18), "{csv}");
}

/// What is known of usage comes from the headers of replies that were made anyway.
#[tokio::test]
async fn looking_at_usage_calls_no_provider() {
    let house = TestHouse::start().await;
    house.ask("opus", &[]).await.exits(0);
    let before = house.sim.calls().await.len();
    for args in [
        &["status"][..],
        &["forecast"],
        &["ledger"],
        &["policy", "show"],
        &["record", "rate-limit", "--model", "opus"],
        &["reset", "--model", "opus"],
    ] {
        house.run(&[&["usage"], args].concat()).await.exits(0);
    }
    assert_eq!(house.sim.calls().await.len(), before);
}

async fn next(items: &mut broker_client::UsageStream) -> UsageItem {
    within("the next of a watch", items.next()).await.unwrap().unwrap()
}

async fn limited(client: &Client) {
    let opus = ModelName::parse("opus").unwrap();
    client.record_usage(Some(&opus), None, UsageRecord::RateLimit).await.unwrap();
}

#[tokio::test]
async fn a_watch_begins_with_the_status_and_goes_on_behind_its_cursor() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let mut items = client.watch_usage(None).await.unwrap();
    let UsageItem::Status { status, .. } = next(&mut items).await else { panic!("the status") };
    assert!(status.models.iter().all(|model| model.level.level == "HEALTHY"));
    limited(&client).await;
    limited(&client).await;
    let UsageItem::Change { cursor, change } = next(&mut items).await else { panic!("a change") };
    assert_eq!((change.name.as_str(), change.to.level.as_str()), ("opus", "WARNING"));
    limited(&client).await;
    drop(items);
    broker.restart().await;

    let mut items = broker.client().watch_usage(Some(cursor)).await.unwrap();
    let UsageItem::Change { change, .. } = next(&mut items).await else { panic!("a change") };
    assert_eq!((change.from.as_str(), change.to.action.as_str()), ("WARNING", "move"));
}

/// Between two changes nothing is drawn within this test: what comes, comes of the change.
#[tokio::test]
async fn a_watched_table_is_drawn_anew_when_a_level_changes_until_it_is_interrupted() {
    let broker = TestBroker::start().await;
    let args = ["usage", "status", "--watch", "--interval", "1h"];
    let mut watch = brokerctl(&broker.endpoint()).args(&args).start().await;
    let mut opus = async |level: &str| loop {
        let line = watch.line().await;
        if line.trim_start().starts_with("opus") && line.contains(level) {
            return line;
        }
    };
    opus("HEALTHY").await;
    record(&broker, &["rate-limit"]).await;
    record(&broker, &["rate-limit"]).await;
    let warned = opus("WARNING").await;
    assert!(warned.contains("2 of 3 rate limits within 60 s (log)"), "{warned}");
    record(&broker, &["rate-limit"]).await;
    opus("EXHAUSTED").await;

    watch.signal(Signal::INT);

    let ended = watch.finish().await.exits(130);
    let told = "model opus: WARNING -> EXHAUSTED: 3 of 3 rate limits within 60 s";
    assert!(ended.stderr.contains(told), "{ended:?}");
}

#[tokio::test]
async fn a_watch_for_programs_is_one_status_a_line() {
    let broker = TestBroker::start().await;
    let args = ["usage", "status", "--watch", "--interval", "1h", "--output", "json"];
    let mut watch = brokerctl(&broker.endpoint()).args(&args).start().await;
    let mut level = async || {
        let status: Value = serde_json::from_str(&watch.line().await).unwrap();
        status["models"][0]["level"].clone()
    };
    assert_eq!(level().await, "HEALTHY");
    record(&broker, &["rate-limit"]).await;
    record(&broker, &["rate-limit"]).await;
    assert_eq!(level().await, "WARNING");
}

#[tokio::test]
async fn what_was_counted_is_the_same_after_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let tokens = ["tokens", "--session", "s", "--input", "100", "--output", "50"];
    record(&broker, &tokens).await;
    record(&broker, &["slow", "15"]).await;
    let kept = |status: &Value| {
        let model = &status["models"][0];
        let session = &status["sessions"][0];
        let of = |value: &Value, keys: &[&str]| -> Vec<Value> {
            keys.iter().map(|key| value[*key].clone()).collect()
        };
        let counted = of(model, &["calls", "usage", "signals", "counted", "cost_usd"]);
        [counted, of(session, &["tokens", "usage", "counted", "model", "calls"])]
    };
    let before = kept(&status(&broker).await);
    broker.restart().await;
    assert_eq!(kept(&status(&broker).await), before);
}
