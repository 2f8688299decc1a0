//! Sessions that are transferred to another process, as people do it.

use broker_tests::{Place, Plan, ScriptedAgent, TestBroker, TestDaemon, eventually};
use serde_json::{Value, json};

const TRANSFER: [&str; 5] = ["session", "transfer", "s", "--to", "opus-2"];
const SUBMIT: [&str; 5] = ["submit", "--session", "s", "--question", "What is next?"];

/// A session of opus with a turn and a next step, and the process that works for it.
async fn begin(settings: &str) -> (TestBroker, ScriptedAgent) {
    let broker = TestBroker::with(Place::Memory, settings).await;
    broker.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    let said = ["session", "append", "s", "--role", "user", "We port the parser."];
    broker.run(&said).await.exits(0);
    let step = ["session", "task", "add", "next-step", "port the lists", "--session", "s"];
    broker.run(&step).await.exits(0);
    let first = broker.agent("opus-1", &["opus"]).await;
    (broker, first)
}

async fn submit(broker: &TestBroker) -> String {
    broker.run(&SUBMIT).await.exits(0).stdout.trim().to_owned()
}

async fn show(broker: &TestBroker) -> Value {
    broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json()
}

fn in_json<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--output", "json"]].concat()
}

#[tokio::test]
async fn what_ran_is_paused_packed_and_goes_on_with_the_agent_that_was_named() {
    let (broker, mut first) = begin("").await;
    let asked = submit(&broker).await;
    let stopped = first.next().await;
    let mut second = broker.agent("opus-2", &["opus"]).await;

    let moved = broker.run(&in_json(&TRANSFER)).await.exits(0).json();

    assert_eq!(moved["target"], json!({"agent": "opus-2", "model": "opus"}));
    assert!(moved["handoff_id"].is_string() && moved["at"].is_string(), "{moved}");
    let owner = json!({"model": "opus", "agent": "opus-2", "epoch": 2});
    assert_eq!((&moved["owner"], &moved["session_state"]), (&owner, &json!("running")));
    stopped.cancelled().await;
    assert!(stopped.settle("too late").await.is_err());
    let again = second.next().await;
    assert_eq!(again.delivery().message.id.to_string(), asked);
    again.answer("The lists.").await;
    assert!(first.at_hand().is_none() && second.at_hand().is_none());
    // Its package is of the pause, and says where the work goes on.
    let id = moved["handoff_id"].as_str().unwrap();
    let handoff = broker.run(&in_json(&["handoff", "show", id])).await.exits(0).json();
    let package = handoff["package_id"].as_str().unwrap();
    let packed = broker.run(&["handoff", "load", package]).await.exits(0).json();
    assert_eq!(
        (&packed["reason"], &packed["checkpoint"]["status"]),
        (&json!("user-requested"), &json!("paused"))
    );
    assert_eq!(packed["checkpoint"]["resume_point"], "port the lists", "{packed}");
    let log = broker.run(&["session", "log", "s"]).await.exits(0).stdout;
    assert!(log.contains("paused") && log.contains("owner_changed"), "{log}");
}

#[tokio::test]
async fn it_says_id_target_and_time_and_who_cannot_be_named() {
    let (broker, _first) = begin("").await;
    let to = |agent: &'static str| ["session", "transfer", "s", "--to", agent];
    let said = broker.run(&to("opus-1")).await.exits(1);
    assert!(said.stderr.contains("is with agent opus-1"), "{}", said.stderr);
    broker.run(&to("nobody")).await.exits(3);
    broker.run(&["session", "transfer", "none", "--to", "opus-1"]).await.exits(3);
    let mut gone = broker.agent("opus-2", &["opus"]).await;
    gone.crash();
    eventually("opus-2 is gone", async || {
        let said = broker.run(&to("opus-2")).await;
        said.stderr.contains("opus-2 is not connected").then_some(())
    })
    .await;
    assert_eq!(show(&broker).await["state"], "running");
    let _second = broker.agent("opus-3", &["opus"]).await;

    let said = broker.run(&to("opus-3")).await.exits(0);

    let line = said.stdout.trim();
    assert!(line.starts_with("handoff ") && line.contains(" to agent opus-3 (opus), "), "{line}");
    assert!(line.ends_with("UTC"), "{line}");
    assert!(said.stderr.contains("goes on with opus, agent opus-3"), "{}", said.stderr);
    let empty = ["session", "new", "empty", "--model", "opus"];
    broker.run(&empty).await.exits(0);
    let refused = broker.run(&["session", "transfer", "empty", "--to", "opus-3"]).await.exits(1);
    assert!(refused.stderr.contains("no turns yet"), "{}", refused.stderr);
}

#[tokio::test]
async fn one_that_is_declined_goes_on_with_its_owner_and_a_paused_one_stays_so() {
    let (broker, mut first) = begin("").await;
    let asked = submit(&broker).await;
    let stopped = first.next().await;
    let _second = broker.agent_as(Plan::new("opus-2", &["opus"]).leaves_offers()).await;
    let begun = broker.run(&[&in_json(&TRANSFER)[..], &["--no-wait"]].concat()).await.exits(0);
    let begun = begun.json();
    assert_eq!(begun["session_state"], "paused", "{begun}");
    stopped.cancelled().await;
    drop(stopped);
    let id = begun["handoff_id"].as_str().unwrap();
    let paused = show(&broker).await;
    assert_eq!(paused["pause"]["handoff"], id, "{paused}");
    let refused = broker.run(&["session", "resume", "s"]).await.exits(1);
    assert!(refused.stderr.contains("is under way"), "{}", refused.stderr);

    broker.run(&["handoff", "decline", id, "--reason", "busy"]).await.exits(0);

    let again = first.next().await;
    assert_eq!(again.delivery().message.id.to_string(), asked);
    again.answer("The lists.").await;
    let shown = show(&broker).await;
    assert_eq!((&shown["state"], &shown["owner"]["epoch"]), (&json!("running"), &json!(1)));

    broker.run(&["session", "pause", "s"]).await.exits(0);
    let begun = broker.run(&[&in_json(&TRANSFER)[..], &["--no-wait"]].concat()).await.exits(0);
    broker
        .run(&["handoff", "decline", begun.json()["handoff_id"].as_str().unwrap()])
        .await
        .exits(0);
    assert_eq!(show(&broker).await["state"], "paused", "somebody paused it, and resumes it");
    broker.run(&["session", "resume", "s"]).await.exits(0);
}

#[tokio::test]
async fn one_that_nobody_answers_in_time_fails_with_its_reason_and_its_session_runs() {
    let (broker, _first) = begin("[handoff]\noffer_deadline = \"300ms\"\n").await;
    let _second = broker.agent_as(Plan::new("opus-2", &["opus"]).leaves_offers()).await;

    let said = broker.run(&TRANSFER).await.exits(1);

    assert!(said.stdout.starts_with("handoff "), "{}", said.stdout);
    assert!(said.stderr.contains("no answer in time"), "{}", said.stderr);
    assert!(said.stderr.contains("session s goes on with opus"), "{}", said.stderr);
    assert_eq!(show(&broker).await["state"], "running");
}

#[tokio::test]
async fn its_turns_wait_for_an_agent_that_is_away_and_then_go_to_another_with_the_reason() {
    let (broker, mut first) = begin("[routing]\nagent_grace = \"1s\"\n").await;
    let mut second = broker.agent("opus-2", &["opus"]).await;
    broker.run(&TRANSFER).await.exits(0);
    submit(&broker).await;
    second.answer("The lists.").await;
    second.restart().await;
    submit(&broker).await;
    second.answer("The tables.").await;
    second.crash();

    let ask = ["consult", "--session", "s", "--question", "And now?", "--output", "json"];
    let (asked, ()) = tokio::join!(broker.run(&ask), first.answer("The tests."));

    let asked = asked.exits(0).json();
    let trace = ["message", "trace", asked["message_id"].as_str().unwrap()];
    let trace = broker.run(&trace).await.exits(0).stdout.replace("\n", " ");
    let words: Vec<&str> = trace.split_whitespace().collect();
    let trace = words.join(" ");
    assert!(trace.contains("agent opus-2, which has its session, is away"), "{trace}");
    assert_eq!(show(&broker).await["owner"]["agent"], "opus-2", "it is still its own");
    second.restart().await;
    submit(&broker).await;
    second.answer("The docs.").await;
}

#[tokio::test]
async fn killed_while_it_is_offered_it_is_still_paused_and_goes_on_where_it_is_taken() {
    let patient = "[routing]\nagent_grace = \"10m\"\n[handoff]\noffer_deadline = \"10m\"\n";
    let mut daemon = TestDaemon::start(patient).await;
    daemon.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    daemon.run(&["session", "append", "s", "--role", "user", "We port it."]).await.exits(0);
    let mut first = daemon.agent_as(Plan::new("opus-1", &["opus"])).await;
    let asked = daemon.run(&SUBMIT).await.exits(0).stdout.trim().to_owned();
    let stopped = first.next().await;
    let silent = daemon.agent_as(Plan::new("opus-2", &["opus"]).leaves_offers()).await;
    daemon.run(&[&TRANSFER[..], &["--no-wait"]].concat()).await.exits(0);

    daemon.kill();
    daemon.restart().await;

    let shown = daemon.run(&in_json(&["session", "show", "s"])).await.exits(0).json();
    assert_eq!((&shown["state"], &shown["owner"]["epoch"]), (&json!("paused"), &json!(1)));
    drop((silent, stopped));
    let mut second = daemon.agent_as(Plan::new("opus-2", &["opus"])).await;
    let again = second.next().await;
    assert_eq!(again.delivery().message.id.to_string(), asked);
    again.answer("The lists.").await;
    let shown = daemon.run(&in_json(&["session", "show", "s"])).await.exits(0).json();
    assert_eq!((&shown["state"], &shown["owner"]["agent"]), (&json!("running"), &json!("opus-2")));
    assert!(first.at_hand().is_none());
}
