//! Every other command of `brokerctl`: what it prints for people and for programs.

use broker_tests::{PATIENCE, Program, TestHouse};
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_submitted_question_is_polled_and_attached_to() {
    let house = TestHouse::start().await;
    let submit = ["submit", "--model", "opus", "--question", "later"];

    let id = house.run(&submit).await.exits(0).stdout;
    let id = id.trim();
    let wait = format!("{}s", PATIENCE.as_secs());
    let polled = house.run(&["poll", id, "--wait", &wait]).await.exits(0);
    assert!(polled.stdout.contains("later"), "{polled:?}");
    let json = house.run(&["poll", id, "--output", "json"]).await.exits(0).json();
    assert_eq!((&json["state"], &json["model"]), (&json!("done"), &json!("opus")));
    let attached = house.run(&["attach", id]).await.exits(0);
    assert_eq!(attached.stdout, polled.stdout);

    let again = house.run(&[&submit[..], &["--id", id, "--output", "json"]].concat()).await;
    let again = again.exits(0).json();
    assert_eq!((&again["message_id"], &again["duplicate"]), (&json!(id), &json!(true)));
    assert_eq!(house.sim.calls().await.len(), 1);
}

#[tokio::test]
async fn a_failed_submission_polls_with_the_exit_code_of_consult() {
    let house = TestHouse::start().await;
    house.sim.refuse("anthropic.family_429", "claude-opus-*", json!("forever")).await;
    let submit = ["submit", "--model", "opus", "--question", "later", "--no-fallback"];
    let id = house.run(&submit).await.exits(0).stdout;
    let polled = house.run(&["poll", id.trim(), "--wait", "30s"]).await.exits(5);
    assert!(polled.stderr.contains("RATE_LIMITED"), "{polled:?}");
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_shown() {
    let house = TestHouse::start().await;
    house.ask("opus", &[]).await.exits(0);
    house.ask("local", &[]).await.exits(0);

    let list = async |more: &[&str]| {
        let list = [&["message", "list", "--output", "json"], more].concat();
        house.run(&list).await.exits(0).json()
    };
    let all = list(&[]).await;
    let to: Vec<_> = all["messages"].as_array().unwrap().iter().map(|m| m["to"].clone()).collect();
    assert_eq!(to, ["model/local", "model/opus"]);
    assert_eq!(list(&["--to", "opus"]).await["messages"].as_array().unwrap().len(), 1);
    assert_eq!(list(&["--state", "failed"]).await["messages"], json!([]));
    let page = list(&["--limit", "1"]).await;
    let next = page["next_page_token"].as_str().unwrap();
    let second = list(&["--limit", "1", "--page", next]).await;
    assert_eq!(second["messages"][0]["to"], "model/opus");

    let id = all["messages"][1]["message_id"].as_str().unwrap();
    let got = house.run(&["message", "get", id, "--payload", "--output", "json"]).await.exits(0);
    let got = got.json();
    assert_eq!((&got["state"], &got["request"]), (&json!("done"), &json!("hi")));
    assert!(got["response"].as_str().unwrap().contains("hi"), "{got}");
    let shown = house.run(&["message", "get", id]).await.exits(0).stdout;
    assert!(shown.contains("done") && shown.contains("opus"), "{shown}");
    let table = house.run(&["message", "list"]).await.exits(0).stdout;
    assert!(table.contains(id) && table.contains("answered by opus"), "{table}");
}

#[tokio::test]
async fn a_cancelled_message_ends_its_call() {
    let house = TestHouse::with("[simulator]\ntokens_per_second = 30\n").await;
    let submit = ["submit", "--model", "opus", "--question", "never mind"];
    let id = house.run(&submit).await.exits(0).stdout;
    let id = id.trim();
    house.sim.calls_once_there_are(1).await;

    let cancelled = house.run(&["message", "cancel", id]).await.exits(0);

    assert_eq!(cancelled.stdout.trim(), "cancelled");
    house.sim.calls_once_left(1).await;
    let again = house.run(&["message", "cancel", id, "--output", "json"]).await.exits(0).json();
    assert_eq!(again["state"], "cancelled", "it had ended before");
    house.run(&["poll", id]).await.exits(1);
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_goes_on_behind_a_cursor() {
    let house = TestHouse::start().await;
    let first = house.ask("opus", &[]).await.exits(0).json();
    let id = first["message_id"].as_str().unwrap();

    let watched = house.run(&["message", "watch", id, "--output", "json"]).await.exits(0).stdout;
    let changes: Vec<Value> =
        watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: Vec<_> = changes.iter().map(|change| change["change"].as_str().unwrap()).collect();
    assert_eq!(words, ["accepted", "routed", "leased", "finished"]);
    let cursor = changes[3]["cursor"].as_str().unwrap();
    let mut watch = house.start_command(&["message", "watch", "--cursor", cursor]).await;
    house.ask("local", &[]).await.exits(0);
    for word in ["accepted", "routed", "leased", "finished"] {
        let line = watch.line().await;
        assert!(line.contains(word) && !line.contains(id), "{line}");
    }
}

#[tokio::test]
async fn usage_is_counted_for_each_model() {
    let house = TestHouse::start().await;
    let reply = house.ask("opus", &[]).await.exits(0).json();
    house.sim.refuse("anthropic.overloaded_529", "claude-sonnet-*", json!(1)).await;
    house.ask("sonnet", &[]).await.exits(0);

    let usage = house.run(&["usage", "status", "--output", "json"]).await.exits(0).json();

    let of = |name: &str| {
        let models = usage["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == name).unwrap().clone()
    };
    let opus = of("opus");
    assert_eq!((&opus["calls"], &opus["failures"]), (&json!(1), &json!(0)));
    assert_eq!(opus["usage"], reply["usage"]);
    let cost = |value: &Value| value["cost_usd"].as_f64().unwrap();
    assert!((cost(&opus) - cost(&reply)).abs() < 1e-9, "{opus}");
    assert_eq!((&of("sonnet")["calls"], &of("sonnet")["failures"]), (&json!(2), &json!(1)));
    assert_eq!(of("gpt-4o")["calls"], 0);
    let table = house.run(&["usage", "status"]).await.exits(0).stdout;
    assert!(table.contains("opus [simulated]"), "{table}");
}

#[tokio::test]
async fn limits_from_the_headers_of_good_replies_are_shown() {
    let house = TestHouse::start().await;
    let quota = json!({"set": {
        "name": "opus", "wire": "anthropic", "model": "claude-opus-*", "kind": "requests",
        "limit": 4, "per": "10m", "refill": "window",
    }});
    house.sim.quota(quota).await;
    for _ in 0..3 {
        house.ask("opus", &[]).await.exits(0);
    }

    let usage = house.run(&["usage", "status", "--output", "json"]).await.exits(0).json();

    let models = usage["models"].as_array().unwrap();
    let opus = models.iter().find(|model| model["name"] == "opus").unwrap();
    let windows = opus["windows"].as_array().unwrap();
    let requests = windows.iter().find(|window| window["name"] == "requests").unwrap();
    assert_eq!((&requests["used"], &requests["limit"]), (&json!(3), &json!(4)));
}

#[tokio::test]
async fn models_have_these_keys_for_scripts() {
    let house = TestHouse::start().await;
    let models = house.run(&["models", "--output", "json"]).await.exits(0).json();
    assert_eq!(keys(&models), ["models"]);
    let models = models["models"].as_array().unwrap();
    assert_eq!(models.len(), 4);
    for model in models {
        let want = ["context_window", "id", "level", "name", "provider", "reason", "simulated"];
        assert_eq!(keys(model), want);
        assert_eq!((&model["level"], &model["simulated"]), (&json!("HEALTHY"), &json!(true)));
        assert!(model["context_window"].is_u64() && model["reason"].is_string());
    }
    let table = house.run(&["models"]).await.exits(0).stdout;
    assert!(table.contains("opus") && table.contains("[simulated]"), "{table}");
}

#[tokio::test]
async fn a_ping_asks_the_broker_or_an_agent_and_no_provider() {
    let house = TestHouse::start().await;
    let broker = house.run(&["ping", "--output", "json"]).await.exits(0).json();
    assert_eq!((&broker["agent"], &broker["journal"]), (&Value::Null, &json!("sqlite")));
    let agent = house.run(&["ping", "opus", "--output", "json"]).await.exits(0).json();
    assert_eq!(agent["agent"], "opus");
    assert!(agent["agent_ms"].as_f64().unwrap() > 0.0, "{agent}");
    assert_eq!(house.sim.calls().await.len(), 0);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let house = TestHouse::start().await;
    let made = house.run(&["token", "create", "reviewer"]).await.exits(0);
    assert_eq!(made.stdout.lines().count(), 1);
    assert!(made.stdout.trim().len() >= 32, "long enough not to be guessed");
    let names = async || {
        let listed = house.run(&["token", "list", "--output", "json"]).await.exits(0).json();
        let tokens = listed["tokens"].as_array().unwrap().clone();
        assert!(!listed.to_string().contains(made.stdout.trim()), "shown once");
        tokens.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(names().await.contains(&"reviewer".to_owned()));
    house.run(&["token", "revoke", "reviewer"]).await.exits(0);
    assert!(!names().await.contains(&"reviewer".to_owned()));
    let bad = house.run(&["token", "create", "../x"]).await;
    assert_eq!(bad.code, 2, "{bad:?}");
}

#[tokio::test]
async fn the_doctor_finds_a_well_house_well_and_says_what_is_not() {
    let house = TestHouse::start().await;
    let config = house.data_dir().join("effective.toml").display().to_string();
    let data = house.data_dir().display().to_string();
    let doctor = || {
        let args = ["doctor", "--config", &config, "--data-dir", &data, "--output", "json"];
        Program::new("brokerctl").args(&args)
    };

    let well = doctor().env("ANTHROPIC_API_KEY", "x").env("OPENAI_API_KEY", "x").output().await;
    let json = well.exits(0).json();
    assert_eq!(json["ok"], true, "{json}");
    let names: Vec<_> =
        json["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in ["configuration", "model opus", "model local", "clock", "disk", "broker", "agents"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    // The same models, no longer declared as simulated: now the keys are asked for.
    let real = std::fs::read_to_string(&config).unwrap();
    let real = real.replace("simulated = true", "simulated = false");
    std::fs::write(&config, real.replace("enabled = true", "enabled = false")).unwrap();
    let missing = doctor().output().await.json();
    let checks = missing["checks"].as_array().unwrap();
    let opus = checks.iter().find(|check| check["name"] == "model opus").unwrap();
    assert_eq!(opus["verdict"], "warn");
    assert!(opus.to_string().contains("ANTHROPIC_API_KEY"), "{opus}");
}
