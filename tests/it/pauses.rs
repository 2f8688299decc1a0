//! Sessions that are paused, resumed and transferred, as people do it.

use broker_tests::{Place, TestBroker, eventually};
use serde_json::{Value, json};

/// A session of opus with two turns and a next step.
async fn begin(broker: &TestBroker) {
    broker.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    for (role, text) in [("user", "We port the parser."), ("assistant", "Lists come first.")] {
        broker.run(&["session", "append", "s", "--role", role, text]).await.exits(0);
    }
    let step = ["session", "task", "add", "next-step", "port the lists", "--session", "s"];
    broker.run(&step).await.exits(0);
}

async fn show(broker: &TestBroker) -> Value {
    broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json()
}

async fn json_of(broker: &TestBroker, args: &[&str]) -> Value {
    broker.run(&[args, &["--output", "json"]].concat()).await.exits(0).json()
}

#[tokio::test]
async fn a_paused_session_keeps_its_turn_over_a_restart_and_goes_on_where_it_stopped() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    begin(&broker).await;
    let submit = ["submit", "--session", "s", "--question", "What is next?"];
    let waiting = broker.run(&submit).await.exits(0).stdout.trim().to_owned();

    let paused = json_of(&broker, &["session", "pause", "s", "--reason", "lunch"]).await;

    assert_eq!((&paused["state"], &paused["pause"]["reason"]), (&json!("paused"), &json!("lunch")));
    let package = paused["pause"]["package"].as_str().unwrap();
    let packed = broker.run(&["handoff", "load", package]).await.exits(0).json();
    assert_eq!(packed["reason"], "user-requested", "{packed}");
    assert_eq!(packed["checkpoint"]["status"], "paused", "{packed}");
    let again = broker.run(&["session", "pause", "s"]).await.exits(1);
    assert!(again.stderr.contains("is paused"), "{}", again.stderr);
    let refused = broker.run(&submit).await.exits(1);
    assert!(refused.stderr.contains("session resume s"), "{}", refused.stderr);
    broker.run(&["session", "append", "s", "--role", "user", "More."]).await.exits(1);

    broker.restart().await;
    let mut opus = broker.agent("opus", &["opus"]).await;
    assert_eq!(show(&broker).await["state"], "paused");
    let resumed = json_of(&broker, &["session", "resume", "s"]).await;

    assert_eq!(resumed["resume_point"], "port the lists");
    assert_eq!((&resumed["state"], &resumed["package"]), (&json!("running"), &json!(package)));
    let work = opus.next().await;
    assert_eq!(work.delivery().message.id.to_string(), waiting);
    let running = broker.run(&["session", "resume", "s"]).await.exits(1);
    assert!(running.stderr.contains("is running"), "{}", running.stderr);
    broker.run(&["session", "resume", "none"]).await.exits(3);
}

#[tokio::test]
async fn a_session_whose_package_has_expired_stays_paused_unless_it_is_forced() {
    let broker = TestBroker::with(Place::Memory, "[packages]\nttl = \"1ms\"\n").await;
    begin(&broker).await;
    broker.run(&["session", "pause", "s"]).await.exits(0);
    eventually("the package has expired", async || {
        let listed = json_of(&broker, &["handoff", "list"]).await;
        (listed["packages"][0]["expired"] == json!(true)).then_some(())
    })
    .await;

    let refused = broker.run(&["session", "resume", "s"]).await.exits(6);

    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
    assert_eq!(show(&broker).await["state"], "paused");
    broker.run(&["session", "resume", "s", "--force"]).await.exits(0);
    assert_eq!(show(&broker).await["state"], "running");
}

#[tokio::test]
async fn a_deleted_session_begins_again_from_the_package_it_was_paused_with() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let package = broker.run(&["session", "pause", "s"]).await.exits(0).stdout.trim().to_owned();
    broker.run(&["session", "delete", "s", "--yes"]).await.exits(0);

    let resumed = json_of(&broker, &["session", "resume", "--package", &package]).await;

    assert_eq!((&resumed["id"], &resumed["state"]), (&json!("s"), &json!("running")));
    assert_eq!(resumed["resume_point"], "port the lists");
}

#[tokio::test]
async fn a_transfer_is_offered_to_one_agent_and_to_no_other() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut first = broker.agent("opus-1", &["opus"]).await;
    let transfer = |to: &'static str| ["session", "transfer", "s", "--to", to, "--output", "json"];
    let said = broker.run(&transfer("opus-1")).await.exits(1);
    assert!(said.stdout.contains("is with agent opus-1"), "{}", said.stdout);
    broker.run(&transfer("nobody")).await.exits(3);

    let mut second = broker.agent("opus-2", &["opus"]).await;
    let begun = broker.run(&transfer("opus-2")).await.exits(0).json();

    assert_eq!(begun["target"], json!({"agent": "opus-2", "model": "opus"}));
    assert!(begun["handoff_id"].is_string() && begun["at"].is_string(), "{begun}");
    eventually("opus-2 has the session", async || {
        (show(&broker).await["owner"]["agent"] == "opus-2").then_some(())
    })
    .await;
    broker.run(&transfer("opus-2")).await.exits(1);
    // Whoever has more credit: a turn goes where its session is.
    broker.run(&["submit", "--session", "s", "--question", "What is next?"]).await.exits(0);
    second.answer("The lists.").await;
    assert!(first.at_hand().is_none());
}

#[tokio::test]
async fn what_ran_when_a_session_was_paused_goes_on_with_the_agent_it_is_transferred_to() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut first = broker.agent("opus-1", &["opus"]).await;
    let submit = ["submit", "--session", "s", "--question", "What is next?"];
    let asked = broker.run(&submit).await.exits(0).stdout.trim().to_owned();
    let stopped = first.next().await;
    assert_eq!(stopped.delivery().message.id.to_string(), asked);
    let mut second = broker.agent("opus-2", &["opus"]).await;
    broker.run(&["session", "pause", "s"]).await.exits(0);

    broker.run(&["session", "transfer", "s", "--to", "opus-2"]).await.exits(0);

    let again = second.next().await;
    assert_eq!(again.delivery().message.id.to_string(), asked);
    assert_eq!(show(&broker).await["state"], "running");
}
