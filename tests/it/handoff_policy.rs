//! `brokerctl handoff config|models|status|check`: when sessions move, as people set it and as it is told.

use broker_client::{NewSession, SessionFilter};
use broker_proto::{Entry, EntryKind, ModelName, NewSessionEntry, Part, Role, SessionId};
use broker_tests::{Output, Place, TestBroker, TestHouse, brokerctl, eventually};
use serde_json::{Value, json};

/// Of opus, as the test's models have it.
const WINDOW: u64 = 4_000_000;

async fn handoff(broker: &TestBroker, args: &[&str]) -> Output {
    broker.run(&[&["handoff"], args].concat()).await
}

async fn json_of(broker: &TestBroker, args: &[&str]) -> Value {
    handoff(broker, &[args, &["--output", "json"]].concat()).await.exits(0).json()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A session of opus with one turn.
async fn begin(broker: &TestBroker, name: &str) -> SessionId {
    let client = broker.client();
    let id = SessionId::parse(name).unwrap();
    let model = Some(ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id.clone()), model, ..NewSession::default() };
    client.start_session(new).await.unwrap();
    let entry = Entry { role: Role::User, name: String::new(), parts: vec![Part::text("hello")] };
    let entry = NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None };
    client.append_entries(&id, vec![entry], None).await.unwrap();
    id
}

async fn record(broker: &TestBroker, session: &str, input: u64, output: u64) {
    let (input, output) = (input.to_string(), output.to_string());
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", session];
    let counted = [&record[..], &["--input", &input, "--output", &output]].concat();
    broker.run(&counted).await.exits(0);
}

#[tokio::test]
async fn each_setting_is_set_shown_and_unset() {
    let broker = TestBroker::start().await;
    let set = [
        &["config", "--auto", "false", "--auto-switch", "true", "--opus-limit", "80%"][..],
        &["--sonnet-limit=95", "--limit", "local=91%", "--preserve", "full"],
        &["--checkpoint-every", "30m"],
    ];
    let said = json_of(&broker, &set.concat()).await;
    let shown = json_of(&broker, &["config"]).await;
    assert_eq!(said, shown, "the result is what counts");
    assert_eq!((&shown["auto"], &shown["auto_switch"]), (&json!(false), &json!(true)));
    assert_eq!((&shown["preserve"], &shown["receivers"]), (&json!("full"), &json!("all")));
    assert_eq!(shown["checkpoint_every"], "30m");
    assert_eq!(shown["limits"], json!({"opus": 80, "sonnet": 95, "local": 91}));

    let table = handoff(&broker, &["config"]).await.exits(0).stdout;
    let line = table.lines().find(|line| line.contains("limit.opus")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["limit.opus", "80%", "none", "overrides", "the", "file"]);

    let unset =
        ["config", "--unset", "limit.opus", "--unset", "auto", "--unset", "checkpoint-every"];
    let shown = json_of(&broker, &unset).await;
    assert_eq!((&shown["auto"], &shown["checkpoint_every"]), (&json!(true), &Value::Null));
    assert_eq!(shown["limits"], json!({"sonnet": 95, "local": 91}));
    let off = json_of(&broker, &["config", "--checkpoint-every", "off"]).await;
    assert_eq!(off["checkpoint_every"], Value::Null);
}

#[tokio::test]
async fn a_policy_that_cannot_be_is_refused_with_what_would_be_right() {
    let broker = TestBroker::start().await;
    let before = json_of(&broker, &["config", "--auto-switch", "true"]).await;
    for (args, code, said) in [
        (&["config", "--opus-limit", "180%"][..], 2, "a whole percentage from 1 to 100"),
        (&["config", "--opus-limit", "0%"], 2, "a whole percentage from 1 to 100"),
        (&["config", "--opus-limit", "eighty"], 2, "a whole percentage from 1 to 100"),
        (&["config", "--opus-limit", "80.5%"], 2, "a whole percentage from 1 to 100"),
        (&["config", "--opus-limit"], 2, "--opus-limit is a percentage, such as 80%"),
        (&["config", "--opsu-limit", "80%"], 3, "nearest: opus"),
        (&["config", "--auto", "false", "--opus-limit", "60%"], 2, "above the warning at 70 %"),
        (&["config", "--checkpoint-every", "soon"], 2, "a duration such as 30m"),
        (&["config", "--checkpoint-every", "10ms"], 2, "from 1s"),
        (&["config", "--auto", "perhaps"], 2, "possible values: true, false"),
        (&["config", "--preserve", "most"], 2, "minimal, standard, full, complete"),
        (&["config", "--unset", "preserve"], 2, "nothing to unset"),
        (&["models", "--remove", "opus", "sonnet", "local"], 2, "nobody would be left"),
        (&["models", "--add", "opsu"], 3, "nearest: opus"),
        (&["models", "--remove", "opsu"], 3, "nearest: opus"),
        (&["config", "--warning", "80"], 2, "--warning"),
    ] {
        let refused = handoff(&broker, args).await.exits(code);
        assert!(refused.stderr.contains(said), "{args:?}: {refused:?}");
    }
    assert_eq!(json_of(&broker, &["config"]).await, before, "nothing was changed");
    // The other side of the contradiction: the warning is raised over a limit.
    handoff(&broker, &["config", "--opus-limit", "80%"]).await.exits(0);
    let refused = broker.run(&["usage", "policy", "set", "warning=82"]).await.exits(2);
    assert!(refused.stderr.contains("handoff config"), "{refused:?}");
}

#[tokio::test]
async fn a_policy_outlives_the_broker() {
    let mut broker = TestBroker::with(Place::Folder, "[handoff]\npreserve = \"standard\"\n").await;
    let set =
        ["config", "--auto-switch", "true", "--opus-limit", "80%", "--checkpoint-every", "2h"];
    handoff(&broker, &set).await.exits(0);
    let before = json_of(&broker, &["models", "--remove", "local"]).await;
    let policy = json_of(&broker, &["config"]).await;

    broker.restart().await;

    assert_eq!(json_of(&broker, &["config"]).await, policy);
    assert_eq!(json_of(&broker, &["models"]).await, before);
    assert_eq!(policy["preserve"], "standard", "the file's");
    assert_eq!(policy["receivers"], json!(["opus", "sonnet"]));
}

#[tokio::test]
async fn who_may_receive_is_taken_away_and_given_back() {
    let broker = TestBroker::start().await;
    let receives = |said: &Value| {
        let models = said["models"].as_array().unwrap().clone();
        let yes = models.into_iter().filter(|it| it["receives"] == true);
        yes.map(|it| it["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = json_of(&broker, &["models"]).await;
    assert_eq!(receives(&all), ["opus", "sonnet", "local"]);
    assert_eq!(all["overridden"], false);
    assert_eq!(keys(&all["models"][0]), ["level", "model", "receives"]);

    let fewer = json_of(&broker, &["models", "--remove", "sonnet", "--remove", "local"]).await;
    assert_eq!((receives(&fewer), &fewer["overridden"]), (vec!["opus".to_owned()], &json!(true)));
    let more = json_of(&broker, &["models", "--add", "local", "Sonnet", "--remove", "opus"]).await;
    assert_eq!(receives(&more), ["sonnet", "local"]);
    let people = handoff(&broker, &["models"]).await.exits(0);
    let opus = people.stdout.lines().find(|line| line.contains("opus")).unwrap();
    assert!(opus.contains("no"), "{people:?}");
    assert!(people.stderr.contains("--unset receivers"), "{people:?}");
    handoff(&broker, &["config", "--unset", "receivers"]).await.exits(0);
    assert_eq!(json_of(&broker, &["models"]).await, all);
}

#[tokio::test]
async fn what_holds_for_all_sessions_is_shown_beside_one_of_them() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    record(&broker, "s", 3_000_000, 500).await;
    for noun in ["config", "models"] {
        let said = json_of(&broker, &[noun, "--session", "s"]).await;
        let session = &said["session"];
        assert_eq!((&session["session"], &session["model"]), (&json!("s"), &json!("opus")));
        assert_eq!(session["level"], "WARNING", "{said}");
        assert_eq!(json_of(&broker, &[noun]).await.get("session"), None);
        let people = handoff(&broker, &[noun, "--session", "s"]).await.exits(0).stdout;
        assert!(people.lines().any(|line| line.starts_with("session s (opus) 75 %: ")), "{people}");
    }
    // Nothing is set for a session that nobody knows.
    let before = json_of(&broker, &["config"]).await;
    let config = ["config", "--auto", "false", "--session", "nobodys"];
    handoff(&broker, &config).await.exits(3);
    assert_eq!(json_of(&broker, &["config"]).await, before);
}

#[tokio::test]
async fn what_is_of_no_use_to_a_new_session_begins_none() {
    let broker = TestBroker::start().await;
    for args in [
        &["show"][..],
        &["accept"],
        &["decline"],
        &["complete"],
        &["give-back"],
        &["offer", "--to", "sonnet"],
        &["execute"],
        &["bridge", "sync"],
    ] {
        let refused = handoff(&broker, args).await.exits(2);
        assert!(refused.stderr.contains("--session"), "{args:?}: {refused:?}");
    }
    let sessions = broker.client().sessions(SessionFilter::default()).await.unwrap();
    assert!(sessions.items.is_empty(), "{sessions:?}");
}

#[tokio::test]
async fn a_check_answers_by_its_exit_code_at_each_threshold() {
    let broker = TestBroker::start().await;
    // Recorded in steps; the turn of the session is in its window, too.
    let steps = [
        (1_000, "normal", 0, 0, "HEALTHY"),
        (3_000_000, "approaching_limit", 10, 0, "WARNING"),
        (600_000, "auto_switch_threshold_reached", 10, 10, "EXHAUSTED"),
    ];
    begin(&broker, "s").await;
    for (input, reason, yes, cautious, level) in steps {
        record(&broker, "s", input, 500).await;
        let check = ["check", "--session", "s"];
        let people = handoff(&broker, &check).await.exits(yes).stdout;
        let said = handoff(&broker, &[&check[..], &["--output", "json"]].concat()).await.exits(yes);
        let said = said.json();
        let due = yes == 10;
        assert_eq!((&said["should_handoff"], &said["reason"]), (&json!(due), &json!(reason)));
        assert_eq!((&said["level"], &said["window"]), (&json!(level), &json!(WINDOW)));
        let tokens = said["tokens"].as_u64().unwrap();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = tokens as f64 * 100.0 / WINDOW as f64;
        assert!((said["percentage"].as_f64().unwrap() - share).abs() < 0.01, "{said}");
        let answer = if due { "yes" } else { "no" };
        let line = format!(
            "{answer}: {reason}\nsession s: {tokens} of {WINDOW} tokens of opus's window, {share:.1} %\n"
        );
        assert_eq!(people, line);

        let only = handoff(&broker, &[&check[..], &["--warning-only"]].concat()).await;
        let only = only.exits(cautious).stdout;
        let reason =
            if reason == "approaching_limit" { "warning_threshold_reached" } else { reason };
        let answer = if cautious == 10 { "yes" } else { "no" };
        assert!(only.starts_with(&format!("{answer}: {reason}\n")), "{only}");
    }
}

#[tokio::test]
async fn a_check_is_read_by_programs_under_these_names() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    record(&broker, "s", 3_000_000, 0).await;
    let checked =
        handoff(&broker, &["check", "--session", "s", "--output", "json"]).await.exits(10);
    let checked = checked.json();
    let mut want = ["should_handoff", "reason", "level", "confidence", "urgency"].to_vec();
    want.extend(["session", "model", "tokens", "window", "percentage"]);
    want.extend(["warning_threshold", "switch_threshold", "detail"]);
    want.sort_unstable();
    assert_eq!(keys(&checked), want);
    assert_eq!((&checked["urgency"], &checked["model"]), (&json!("medium"), &json!("opus")));
    let confidence = checked["confidence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&confidence), "{checked}");
    assert_eq!(checked["warning_threshold"], WINDOW * 75 / 100);
    assert_eq!(checked["switch_threshold"], WINDOW * 90 / 100);

    // A limit of its model is where its sessions move.
    handoff(&broker, &["config", "--opus-limit", "80%"]).await.exits(0);
    let checked = handoff(&broker, &["check", "--session", "s", "--output", "json"]).await.json();
    assert_eq!(checked["switch_threshold"], WINDOW * 80 / 100);
    let unknown = handoff(&broker, &["check", "--session", "gone"]).await.exits(3);
    assert!(unknown.stderr.contains("UNCOUNTED_SESSION"), "{unknown:?}");
    let of_env =
        brokerctl(&broker.endpoint()).args(&["handoff", "check"]).env("BROKER_SESSION", "s");
    let of_env = of_env.output().await.exits(10);
    assert!(of_env.stderr.contains("from BROKER_SESSION"), "{of_env:?}");
}

#[tokio::test]
async fn a_status_says_what_is_recommended_by_model_and_session() {
    let broker = TestBroker::start().await;
    let budget = ["usage", "policy", "set", "budget.model.opus.day.tokens=1000000"];
    broker.run(&budget).await.exits(0);
    let quiet = handoff(&broker, &["status"]).await.exits(0).stdout;
    assert!(quiet.starts_with("opus 0 %: no handoff needed"), "{quiet}");
    begin(&broker, "s").await;
    record(&broker, "s", 850_000, 0).await;

    let said = handoff(&broker, &["status", "--session", "s"]).await.exits(0).stdout;
    let opus = "opus 85 %: handoff recommended (850000 of 1000000 day tokens), to sonnet";
    assert!(said.lines().any(|line| line == opus), "{said}");
    assert!(said.contains("session s (opus) 21 %"), "{said}");
    let json = json_of(&broker, &["status", "--session", "s"]).await;
    let opus = &json["models"][0];
    assert_eq!((&opus["model"], &opus["recommendation"]), (&json!("opus"), &json!("recommended")));
    assert_eq!((&opus["level"], &opus["percentage"]), (&json!("CRITICAL"), &json!(85.0)));
    assert_eq!((&opus["to"], &json["sessions"][0]["session"]), (&json!("sonnet"), &json!("s")));

    record(&broker, "s", 150_000, 0).await;
    let said = handoff(&broker, &["status"]).await.exits(0).stdout;
    assert!(said.contains("opus 100 %: handoff needed"), "{said}");
    handoff(&broker, &["status", "--session", "gone"]).await.exits(3);
}

/// A session of opus in a real house, of whose window so many tokens are recorded.
async fn full(house: &TestHouse, session: &str) {
    house.run(&["session", "new", session, "--model", "opus"]).await.exits(0);
    let append = ["session", "append", session, "--role", "user", "The port is 7411."];
    house.run(&append).await.exits(0);
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", session];
    house.run(&[&record[..], &["--input", "910000", "--output", "60"]].concat()).await.exits(0);
}

/// Follows what happens to a session until its handoff is there, and gives its new owner.
async fn moved(house: &TestHouse, session: &str) -> Value {
    let of = format!("session={session}");
    let tail = ["events", "tail", "--from", "start", "--filter", "kind=handoff", "--filter", &of];
    let mut events = house.start_command(&tail).await;
    let mut line = String::new();
    while !line.contains("ACTIVE, opus to sonnet") {
        line = events.line().await;
    }
    assert!(line.contains("usage_limit: "), "{line}");
    let shown = house.run(&["session", "show", session, "--output", "json"]).await.exits(0).json();
    shown["owner"].clone()
}

#[tokio::test]
async fn with_auto_switch_recorded_tokens_move_a_session() {
    let house = TestHouse::with("[handoff]\nauto_switch = true\n").await;
    full(&house, "s").await;
    assert_eq!(moved(&house, "s").await, json!({"model": "sonnet", "agent": "sonnet", "epoch": 2}));
    // What was recorded was in the window of opus.
    let check = house.run(&["handoff", "check", "--session", "s", "--output", "json"]).await;
    let check = check.exits(0).json();
    assert_eq!((&check["reason"], &check["model"]), (&json!("normal"), &json!("sonnet")));
}

#[tokio::test]
async fn a_session_at_its_limit_moves_when_auto_switch_is_turned_on() {
    let house = TestHouse::start().await;
    full(&house, "s").await;
    let history = house.run(&["handoff", "history", "--output", "json"]).await.exits(0).json();
    assert_eq!(history["handoffs"], json!([]), "its next turn would move it");
    house.run(&["handoff", "config", "--auto-switch", "true"]).await.exits(0);
    assert_eq!(moved(&house, "s").await["model"], "sonnet");
}

#[tokio::test]
async fn a_session_with_new_turns_gets_a_package_at_each_checkpoint() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    assert_eq!(json_of(&broker, &["list", "--session", "s"]).await["packages"], json!([]));

    handoff(&broker, &["config", "--checkpoint-every", "1s"]).await.exits(0);

    let package = eventually("a package by the clock", async || {
        let list = json_of(&broker, &["list", "--session", "s"]).await;
        list["packages"].as_array().unwrap().first().cloned()
    })
    .await;
    let told = [&package["source_model"], &package["target_model"], &package["reason"]];
    assert_eq!(told, ["opus", "sonnet", "checkpoint: its time has come"]);
}
