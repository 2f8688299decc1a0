//! Sessions that come home: by themselves, after a clean probe of the model they left; and what they are told there of the
//! others' turns.

use broker_client::Page;
use broker_proto::{Handoff, HandoffFilter, HandoffState};
use broker_tests::{Plan, TestHouse, eventually};
use serde_json::{Value, json};

use super::{Talk, heard};

/// What the broker's own probe asks.
const PROBE: &str = "Answer with one word: ready";
/// Two models that have no limit in common.
const SETTINGS: &str = r#"
[handoff]
cooldown = "1ms"

[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
context_window = 200_000
fallback = ["local"]

[[models]]
name = "local"
provider = "ollama"
id = "llama3.2"
context_window = 16_384
"#;

#[tokio::test]
async fn turns_of_the_substitute_come_home_unverified_and_checking_them_comes_first() {
    let talk = Talk::begin("").await;
    let shown = async || -> Value {
        talk.broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json()
    };
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    let mut opus = talk.broker.agent_as(Plan::new("opus", &["opus"]).leaves_offers()).await;
    let away = talk.handed_to("sonnet").await;
    let reader = talk.ask_owner("Where is the key?").await;
    sonnet.answer("At harbour 7.").await;
    reader.whole().await;

    // A way back that fails leaves no step behind.
    let back = talk.client.give_back_handoff(away.id, String::new()).await.unwrap();
    talk.once(back.id, HandoffState::Offered).await;
    opus.client().decline_handoff(back.id, "not yet".into()).await.unwrap();
    talk.once(back.id, HandoffState::Declined).await;
    let there = shown().await;
    assert_eq!((&there["unverified"], &there["task"]["next_steps"]), (&json!(null), &json!([])));

    opus.crash();
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let back = talk.client.give_back_handoff(away.id, String::new()).await.unwrap();
    let back = talk.once(back.id, HandoffState::Active).await;
    let reader = talk.ask_owner("And now?").await;
    let work = opus.next().await;
    let told = heard(work.delivery());
    let step = "Check what sonnet did in entries 3-4: it is unverified";
    for needed in ["assistant: Noted.", "assistant (sonnet, unverified): At harbour 7.", step] {
        assert!(told.contains(needed), "{needed} in {told}");
    }
    work.answer("It is there.").await;
    reader.whole().await;

    let home = shown().await;
    let marked = |entry: &&Value| entry["unverified"] == true;
    let marked: Vec<&Value> = home["entries"].as_array().unwrap().iter().filter(marked).collect();
    assert_eq!(marked.len(), 1, "{home}");
    assert_eq!((&marked[0]["number"], &marked[0]["model"]), (&json!(4), &json!("sonnet")));
    let unverified = json!({"home": "opus", "first": 3, "last": 4, "by": ["sonnet"]});
    assert_eq!(home["unverified"], unverified);
    let package = back.package.unwrap().to_string();
    let package =
        talk.broker.run(&["handoff", "load", &package, "--output", "json"]).await.exits(0).json();
    let of = &package["conversation_history"]["unverified"];
    assert_eq!(*of, json!([{"entry": 4, "model": "sonnet"}]), "{package}");
    assert_eq!(package["next_steps"][0], step);
    let text = talk.broker.run(&["session", "show", "s"]).await.exits(0).stdout;
    assert!(text.contains("[4] assistant (sonnet), unverified"), "{text}");

    let verified = talk.broker.run(&["session", "verify", "s"]).await.exits(0).stdout;
    assert_eq!(verified, "entries 3-4 of session s are verified\n");
    let checked = shown().await;
    assert_eq!(checked["unverified"], json!(null));
    assert!(checked["entries"].as_array().unwrap().iter().all(|it| it["unverified"] == false));
    let _reader = talk.ask_owner("Go on.").await;
    let told = heard(opus.next().await.delivery());
    assert!(told.contains("What is marked as unverified above has been checked since."), "{told}");
}

async fn owner(house: &TestHouse) -> String {
    let shown = house.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();
    shown["owner"]["model"].as_str().unwrap().to_owned()
}

async fn handoffs(house: &TestHouse) -> Vec<Handoff> {
    let Page { items, .. } =
        house.client().list_handoffs(HandoffFilter::default(), 10, None).await.unwrap();
    items
}

async fn ask(house: &TestHouse) -> String {
    let ask = ["consult", "--session", "s", "--question", "What is next?", "--output", "json"];
    let answer = house.run(&ask).await.exits(0).json();
    answer["model"].as_str().unwrap().to_owned()
}

/// A house in which opus has a limit of its own, and its session is with the local model.
async fn lent() -> TestHouse {
    let house = TestHouse::with(SETTINGS).await;
    house.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    assert_eq!(ask(&house).await, "opus");
    // Each refusal names a time, and the next call after it is refused again until somebody heals it.
    let limit = json!({
        "model": "claude-opus-*", "times": "forever", "retry_after": "2s",
        "do": {"preset": "anthropic.unified_429"},
    });
    house.sim.fault(limit).await;
    eventually("the session at the local model", async || {
        assert_eq!(ask(&house).await, "local");
        (owner(&house).await == "local").then_some(())
    })
    .await;
    house
}

/// The broker's own probes of opus that ended so, as `message list` has them.
async fn probes(house: &TestHouse, state: &str) -> Vec<Value> {
    let list = ["message", "list", "--to", "opus", "--state", state, "--output", "json"];
    let mut list = house.run(&list).await.exits(0).json();
    let all = list["messages"].as_array_mut().unwrap();
    all.drain(..).filter(|it| it["from"] == "broker.probe").collect()
}

#[tokio::test]
async fn a_session_goes_home_by_itself_once_the_brokers_probe_is_answered() {
    let house = lent().await;
    house.sim.heal().await;

    eventually("the session at opus", async || (owner(&house).await == "opus").then_some(())).await;

    let all = handoffs(&house).await;
    let (back, away) = (&all[0], &all[1]);
    assert_eq!((back.returns, away.state), (Some(away.id), HandoffState::Returned));
    assert_eq!(back.trigger.reasoning, "opus can go on");
    assert_eq!(probes(&house, "done").await.len(), 1, "one clean probe was enough");
    let calls = house.sim.calls().await;
    let probe = calls.iter().find(|call| call["body"].to_string().contains(PROBE)).unwrap();
    assert_eq!(probe["body"]["max_tokens"], 16);
    assert_eq!(ask(&house).await, "opus");
}

#[tokio::test]
async fn a_session_stays_where_it_is_while_the_brokers_probe_is_refused() {
    let house = lent().await;

    let refused = eventually("two probes that are refused", async || {
        let refused = probes(&house, "failed").await;
        (refused.len() >= 2).then_some(refused)
    })
    .await;

    assert_eq!(owner(&house).await, "local", "{refused:?}");
    let all = handoffs(&house).await;
    assert!(all.iter().all(|handoff| handoff.returns.is_none()), "{all:?}");
    let events = ["events", "tail", "--from", "start", "--output", "json"];
    let filters = ["--filter", "model=opus", "--filter", "kind=attempt_failed"];
    let mut events = house.start_command(&[&events[..], &filters[..]].concat()).await;
    let id = &refused[0]["message_id"];
    let told = eventually("the event of the probe", async || {
        let line: Value = serde_json::from_str(&events.line().await).unwrap();
        (line["message_id"] == *id).then_some(line)
    })
    .await;
    assert!(told["detail"].as_str().unwrap().contains("QUOTA_EXHAUSTED"), "{told}");
    assert_eq!(ask(&house).await, "local");
}
