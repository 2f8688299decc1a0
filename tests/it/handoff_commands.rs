//! `brokerctl handoff ...` on sessions that move: what a person types, and what programs read.

use broker_client::NewSession;
use broker_proto::{
    Down, Entry, EntryKind, ModelName, NewSessionEntry, Part, Role, SessionId, SessionPoint,
};
use broker_tests::{Output, Place, RawLink, TestBroker, TestHouse, eventually, hello};
use serde_json::{Value, json};

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn said(role: Role, text: &str) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts: vec![Part::text(text)] };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

/// A session of opus with two turns.
async fn begin(broker: &TestBroker, name: &str) -> SessionId {
    let model = Some(ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id(name)), model, ..NewSession::default() };
    let session = broker.client().start_session(new).await.unwrap().id;
    let turns = vec![
        said(Role::User, "The port is 7411. Keep it."),
        said(Role::Assistant, "The port stays 7411."),
    ];
    broker.client().append_entries(&session, turns, None).await.unwrap();
    session
}

/// An agent that is there, and answers no offer by itself.
async fn deaf(broker: &TestBroker, name: &str, model: &str) -> RawLink {
    let mut link = broker.link().await;
    link.greet(hello(&broker.endpoint(), name, &[model]).await).await.unwrap();
    link
}

async fn handoff(broker: &TestBroker, args: &[&str]) -> Output {
    broker.run(&[&["handoff"], args].concat()).await
}

async fn json_of(broker: &TestBroker, args: &[&str]) -> Value {
    handoff(broker, &[args, &["--output", "json"]].concat()).await.exits(0).json()
}

/// Waits until it is in this state.
async fn until(broker: &TestBroker, id: &str, state: &str) -> Value {
    eventually(state, async || {
        let shown = json_of(broker, &["show", id]).await;
        (shown["state"] == state).then_some(shown)
    })
    .await
}

async fn owner(broker: &TestBroker, session: &str) -> Value {
    let shown = broker.run(&["session", "show", session, "--output", "json"]).await;
    shown.exits(0).json()["owner"].clone()
}

#[tokio::test]
async fn a_session_is_offered_accepted_given_back_and_told_of_by_hand() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    let _opus = deaf(&broker, "opus-1", "opus").await;
    let _sonnet = deaf(&broker, "sonnet-1", "sonnet").await;

    let offered =
        handoff(&broker, &["offer", "--session", "s", "--to", "sonnet", "--reason", "busy"]);
    let first = offered.await.exits(0).stdout.trim().to_owned();
    let shown = until(&broker, &first, "OFFERED").await;
    let fields = [&shown["from"], &shown["to"], &shown["trigger"], &shown["reason"]];
    assert_eq!(fields, [&json!("opus"), &json!("sonnet"), &json!("user_request"), &json!("busy")]);
    assert_eq!(owner(&broker, "s").await["model"], "opus", "until it is accepted");

    let accepted = handoff(&broker, &["accept", "--session", "s"]).await.exits(0);
    assert!(accepted.stderr.contains(&first), "says which: {accepted:?}");
    let is = until(&broker, &first, "ACTIVE").await;
    assert!(is["confirmed"].as_array().unwrap().len() > 3, "each part was verified: {is}");
    let now = owner(&broker, "s").await;
    assert_eq!((&now["model"], &now["epoch"]), (&json!("sonnet"), &json!(2)));

    handoff(&broker, &["complete", &first, "--outcome", "tests pass"]).await.exits(0);
    let session = broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();
    let told = &session["handoffs"][0];
    assert_eq!((&told["id"], &told["outcome"]), (&json!(first), &json!("tests pass")));
    assert!(told["at"].is_string());

    let back = handoff(&broker, &["give-back", "--session", "s"]).await.exits(0).stdout;
    let back = back.trim();
    until(&broker, back, "OFFERED").await;
    let accepted = json_of(&broker, &["accept", back, "--session", "s"]).await;
    assert_eq!(accepted["returns"], json!(first));
    assert_eq!(owner(&broker, "s").await, json!({"model": "opus", "agent": null, "epoch": 3}));
    assert_eq!(until(&broker, &first, "RETURNED").await["to"], "sonnet");

    let history = json_of(&broker, &["history", "show", "--session", "s"]).await;
    let ids: Vec<&Value> =
        history["handoffs"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, [&json!(back), &json!(first)], "newest first");
    let newest = json_of(&broker, &["history", "--limit", "1", "--model", "sonnet"]).await;
    assert_eq!(newest["handoffs"][0]["id"], back);
    assert!(newest["next_page_token"].is_string());
    let people = handoff(&broker, &["history"]).await.exits(0).stdout;
    assert!(people.contains("RETURNED") && people.contains("user_request: busy"), "{people}");
}

#[tokio::test]
async fn execute_takes_the_package_prepared_last_and_waits_for_its_owner() {
    let settings = "[handoff]\nreceivers = [\"local\"]\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    begin(&broker, "s").await;
    let mut local = deaf(&broker, "local-1", "local").await;
    let prepared = json_of(&broker, &["prepare", "--session", "s", "--to", "local"]).await;

    let run = handoff(&broker, &["execute", "--session", "s", "--reason", "opus is at 90 %"]);
    let answer = async {
        let offer = loop {
            if let Down::Offer(offer) = local.hear().await.unwrap() {
                break offer;
            }
        };
        handoff(&broker, &["accept", &offer.handoff.to_string()]).await.exits(0);
        offer
    };
    let (done, offer) = tokio::join!(run, answer);

    assert_eq!(json!(offer.package.to_string()), prepared["id"]);
    let done = done.exits(0);
    assert_eq!(done.stdout.trim(), "session s belongs to local (epoch 2)");
    assert!(done.stderr.contains("is prepared for local"), "{done:?}");

    // Nobody else may receive one.
    let nobody = handoff(&broker, &["force", "--session", "s", "--output", "json"]).await.exits(5);
    assert!(nobody.stderr.contains("HANDOFF_NOBODY"), "{nobody:?}");
    assert!(nobody.stderr.contains("opus: may not receive sessions"), "{nobody:?}");
}

#[tokio::test]
async fn a_declined_offer_leaves_the_session_and_says_so() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    let mut sonnet = deaf(&broker, "sonnet-1", "sonnet").await;
    let run = handoff(&broker, &["execute", "--session", "s", "--to", "sonnet"]);
    let answer = async {
        loop {
            if let Down::Offer(offer) = sonnet.hear().await.unwrap() {
                let id = offer.handoff.to_string();
                return handoff(&broker, &["decline", &id, "--reason", "no room"]).await.exits(0);
            }
        }
    };
    let (done, _) = tokio::join!(run, answer);
    let done = done.exits(1);
    assert_eq!(done.stdout.trim(), "session s still belongs to opus (epoch 1)");
    assert!(done.stderr.contains("no room"), "{done:?}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_cannot_be_says_why() {
    let broker = TestBroker::start().await;
    let none = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for verb in ["show", "accept", "decline", "complete", "give-back"] {
        let refused = handoff(&broker, &[verb, none]).await.exits(3);
        assert!(refused.stderr.contains(none), "{refused:?}");
    }
    begin(&broker, "s").await;
    begin(&broker, "other").await;
    let refused = handoff(&broker, &["accept", "--session", "s"]).await.exits(3);
    assert!(refused.stderr.contains("handoff offer --session s"), "{refused:?}");
    let refused = handoff(&broker, &["give-back", "--session", "s"]).await.exits(3);
    assert!(refused.stderr.contains("has no handoff"), "{refused:?}");
    let refused = handoff(&broker, &["offer", "--session", "s", "--to", "opsu"]).await.exits(3);
    assert!(refused.stderr.contains("opus"), "{refused:?}");
    let refused = handoff(&broker, &["offer", "--session", "s", "--to", "opus"]).await.exits(1);
    assert!(refused.stderr.contains("belongs to opus already"), "{refused:?}");
    handoff(&broker, &["history", "--state", "GONE"]).await.exits(2);

    let _sonnet = deaf(&broker, "sonnet-1", "sonnet").await;
    let offer = ["offer", "--session", "s", "--to", "sonnet"];
    let offered = handoff(&broker, &offer).await.exits(0).stdout;
    let refused = handoff(&broker, &offer).await.exits(1);
    assert!(refused.stderr.contains("HANDOFF_UNDER_WAY"), "{refused:?}");
    let refused = handoff(&broker, &["decline", offered.trim(), "--session", "other"]).await;
    assert!(refused.exits(2).stderr.contains("is one of session `s`"));
    let shown = handoff(&broker, &["show", "--session", "s"]).await.exits(0).stdout;
    assert!(shown.contains("user_request: a person asked for it"), "{shown}");
}

#[tokio::test]
async fn a_question_without_a_model_goes_to_the_new_owner() {
    let broker = TestBroker::start().await;
    let session = begin(&broker, "s").await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let consult = ["consult", "--session", "s", "--question", "Which port?"];
    let in_json = [&consult[..], &["--output", "json"]].concat();
    let (asked, ()) = tokio::join!(broker.run(&in_json), opus.answer("7411."));
    let owner = asked.exits(0).json()["owner"].take();
    assert_eq!((&owner["model"], &owner["changed"]), (&json!("opus"), &json!(false)));
    assert_eq!((&owner["epoch"], &owner["reason"]), (&json!(1), &Value::Null));

    let link = deaf(&broker, "sonnet-1", "sonnet").await;
    let offer = ["offer", "--session", "s", "--to", "sonnet", "--reason", "opus is busy"];
    let run = handoff(&broker, &offer).await.exits(0);
    let handed = run.stdout.trim();
    until(&broker, handed, "OFFERED").await;
    handoff(&broker, &["accept", "--session", "s"]).await.exits(0);
    drop(link);
    let mut sonnet = broker.agent("sonnet-2", &["sonnet"]).await;

    let (asked, ()) = tokio::join!(broker.run(&consult), sonnet.answer("7411."));

    let asked = asked.exits(0);
    assert_eq!(asked.stdout.trim(), "7411.");
    let told = "session s: owned by sonnet since a handoff from opus at";
    assert!(asked.stderr.contains(told), "{asked:?}");
    assert!(!asked.stderr.contains("does not fit"), "all of it was handed over: {asked:?}");
    let head = broker.client().session(&session, &SessionPoint::Head).await.unwrap().info.head;
    assert_eq!(head.entries, 6);
    let (again, ()) = tokio::join!(broker.run(&consult), sonnet.answer("7411."));
    assert!(!again.exits(0).stderr.contains(told), "it is told once");

    let (asked, ()) = tokio::join!(broker.run(&in_json), sonnet.answer("7411."));
    let owner = asked.exits(0).json()["owner"].take();
    assert!(owner["since"].is_string(), "{owner}");
    let fields = ["model", "from", "trigger", "reason", "handoff"].map(|key| &owner[key]);
    let [model, from, trigger] = ["sonnet", "opus", "user_request"].map(Value::from);
    let (reason, id) = (json!("opus is busy"), json!(handed));
    assert_eq!(fields, [&model, &from, &trigger, &reason, &id]);
    assert_eq!((&owner["epoch"], &owner["changed"]), (&json!(2), &json!(false)));
}

#[tokio::test]
async fn programs_learn_with_the_answer_that_its_session_has_another_owner() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    let link = deaf(&broker, "sonnet-1", "sonnet").await;
    let offer = ["offer", "--session", "s", "--to", "sonnet"];
    let run = handoff(&broker, &offer).await.exits(0);
    until(&broker, run.stdout.trim(), "OFFERED").await;
    handoff(&broker, &["accept", "--session", "s"]).await.exits(0);
    drop(link);
    let mut sonnet = broker.agent("sonnet-2", &["sonnet"]).await;

    let consult = ["consult", "--session", "s", "--question", "Which port?", "--output", "json"];
    let (asked, ()) = tokio::join!(broker.run(&consult), sonnet.answer("7411."));

    let told = asked.exits(0).json();
    assert_eq!((&told["owner"]["changed"], &told["owner"]["from"]), (&json!(true), &json!("opus")));
    assert_eq!(told["owner"]["reason"], "a person asked for it");
    let free = ["consult", "--model", "sonnet", "--question", "Why?", "--output", "json"];
    let (asked, ()) = tokio::join!(broker.run(&free), sonnet.answer("So."));
    assert!(asked.exits(0).json().get("owner").is_none(), "it belongs to no session");
}

#[tokio::test]
async fn the_report_says_what_was_confirmed_and_what_the_first_reply_asks_for_again() {
    let broker = TestBroker::start().await;
    begin(&broker, "s").await;
    let fact = ["session", "task", "add", "critical-fact", "The port is 7411", "--session", "s"];
    broker.run(&fact).await.exits(0);
    let link = deaf(&broker, "sonnet-1", "sonnet").await;
    let offered = handoff(&broker, &["offer", "--session", "s", "--to", "sonnet"]).await.exits(0);
    let id = offered.stdout.trim().to_owned();
    until(&broker, &id, "OFFERED").await;
    let report = json_of(&broker, &["show", &id, "--report"]).await;
    assert_eq!((&report["reply"], &report["confirmed"]), (&Value::Null, &json!([])));
    assert!(report["unconfirmed"].as_array().unwrap().len() > 3, "{report}");
    let item = "Critical facts: The port is 7411";
    let unknown = json!({"item": item, "verdict": "unknown", "sentence": null});
    assert_eq!(report["judged"], json!([unknown]), "there is no reply yet");
    handoff(&broker, &["accept", &id]).await.exits(0);
    drop(link);
    let mut sonnet = broker.agent("sonnet-2", &["sonnet"]).await;
    let consult = ["consult", "--session", "s", "--question", "Go on."];
    let reply = "Der Port ist 8080. Welchen Port\u{1b}[2J meinst du?";
    let (asked, ()) = tokio::join!(broker.run(&consult), sonnet.answer(reply));
    asked.exits(0);

    let report = json_of(&broker, &["show", &id, "--report"]).await;

    assert_eq!((&report["reply"], &report["unconfirmed"]), (&json!(3), &json!([])));
    let again = json!([{"item": item, "sentence": "Welchen Port [2J meinst du?"}]);
    assert_eq!(report["asked_again"], again);
    let against = json!({"item": item, "sentence": "Der Port ist 8080."});
    assert_eq!(report["contradicted"], json!([against]));
    assert_eq!(report["judged"][0]["verdict"], "contradicted");
    assert!(report["judged_by"].as_str().unwrap().contains("not that it is known"), "{report}");
    let people = handoff(&broker, &["show", &id, "--report"]).await.exits(0).stdout;
    assert!(
        people.contains("> `Der Port ist 8080.`") && people.contains("by values and key words"),
        "{people}"
    );
}

#[tokio::test]
async fn a_session_is_moved_by_hand_and_its_history_is_told() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    let append = ["session", "append", "s", "--role", "user", "The port is 7411."];
    house.run(&append).await.exits(0);
    let run = async |args: &[&str]| {
        let args = [&["handoff"], args, &["--session", "s"]].concat();
        house.run(&args).await.exits(0)
    };

    let chosen = run(&["execute"]).await;
    assert_eq!(chosen.stdout, "session s belongs to sonnet (agent sonnet, epoch 2)\n");
    assert!(chosen.stderr.contains("nothing is prepared: the broker chooses"), "{chosen:?}");
    let named = run(&["execute", "--to", "gpt4o", "--reason", "a picture"]).await.stdout;
    assert_eq!(named, "session s belongs to gpt-4o (agent gpt-4o, epoch 3)\n");
    run(&["prepare", "--to", "local"]).await;
    let prepared = run(&["execute", "--output", "json"]).await.json();
    let told = [&prepared["state"], &prepared["owner"]["model"], &prepared["trigger"]];
    assert_eq!(told, [&json!("ACTIVE"), &json!("local"), &json!("user_request")]);
    let forced = run(&["force", "--to", "opus"]).await.stdout;
    assert_eq!(forced, "session s belongs to opus (agent opus, epoch 5)\n");

    let history = run(&["history", "--limit", "3", "--output", "json"]).await.json();
    let hops: Vec<String> = history["handoffs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} to {}: {}", it["from"], it["to"], it["reason"]).replace('"', ""))
        .collect();
    let by_hand = "a person asked for it";
    let want = [
        format!("local to opus: {by_hand}"),
        format!("gpt-4o to local: {by_hand}"),
        "sonnet to gpt-4o: a picture".to_owned(),
    ];
    assert_eq!(hops, want);
    let newest = run(&["history", "show", "--limit", "1"]).await.stdout;
    assert_eq!(newest.lines().filter(|line| line.contains(" s ")).count(), 1, "{newest}");
    let all = run(&["history", "show", "--output", "json"]).await.json();
    assert_eq!(all["handoffs"].as_array().map(Vec::len), Some(4));
    house.run(&["handoff", "history", "--limit", "0"]).await.exits(2);
}

#[tokio::test]
async fn an_offer_that_nobody_answers_is_limited_and_says_who_is_away() {
    let settings = "[handoff]\noffer_deadline = \"100ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    begin(&broker, "s").await;
    let nobody = handoff(&broker, &["execute", "--session", "s", "--to", "sonnet"]).await.exits(5);
    assert_eq!(nobody.stdout, "session s still belongs to opus (epoch 1)\n");
    assert!(nobody.stderr.contains("nobody answered in time"), "{nobody:?}");
    assert!(nobody.stderr.contains("no agent of sonnet is connected"), "{nobody:?}");

    let _deaf = deaf(&broker, "sonnet-1", "sonnet").await;
    let silent = handoff(&broker, &["execute", "--session", "s", "--to", "sonnet"]).await.exits(5);
    assert!(!silent.stderr.contains("is connected"), "one is there: {silent:?}");
}
