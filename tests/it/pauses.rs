//! Sessions that are paused and resumed, as people do it.

use broker_proto::{AnswerFrame, Part, Up};
use broker_tests::{Place, Plan, RawLink, TestBroker, TestDaemon, eventually};
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

const SUBMIT: [&str; 5] = ["submit", "--session", "s", "--question", "What is next?"];

#[tokio::test]
async fn a_paused_session_keeps_its_turn_over_a_restart_and_goes_on_where_it_stopped() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    begin(&broker).await;
    let waiting = broker.run(&SUBMIT).await.exits(0).stdout.trim().to_owned();

    let paused = json_of(&broker, &["session", "pause", "s", "--reason", "lunch"]).await;

    assert_eq!((&paused["state"], &paused["pause"]["reason"]), (&json!("paused"), &json!("lunch")));
    let pause = &paused["pause"];
    assert!(pause["at"].is_string() && pause["by"].is_string() && pause["handoff"].is_null());
    let package = pause["package"].as_str().unwrap();
    let packed = broker.run(&["handoff", "load", package]).await.exits(0).json();
    assert_eq!(packed["reason"], "user-requested", "{packed}");
    assert_eq!(packed["checkpoint"]["status"], "paused", "{packed}");
    let again = broker.run(&["session", "pause", "s"]).await.exits(1);
    assert!(again.stderr.contains("is paused"), "{}", again.stderr);
    let refused = broker.run(&SUBMIT).await.exits(1);
    assert!(refused.stderr.contains("session resume s"), "{}", refused.stderr);
    broker.run(&["session", "append", "s", "--role", "user", "More."]).await.exits(1);

    broker.restart().await;
    let mut opus = broker.agent("opus", &["opus"]).await;
    assert_eq!(show(&broker).await["pause"], *pause);
    let shown = broker.run(&["session", "show", "s"]).await.exits(0).stdout;
    let by = format!("by {}: lunch", pause["by"].as_str().unwrap());
    for words in ["paused since ", &by, package, "brokerctl session resume s"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let resumed = json_of(&broker, &["session", "resume", "s"]).await;

    assert_eq!(resumed["resume_point"], "port the lists");
    assert_eq!((&resumed["state"], &resumed["package"]), (&json!("running"), &json!(package)));
    assert_eq!(resumed["missing"], Value::Null);
    let work = opus.next().await;
    assert_eq!(work.delivery().message.id.to_string(), waiting);
    let running = broker.run(&["session", "resume", "s"]).await.exits(1);
    assert!(running.stderr.contains("is running"), "{}", running.stderr);
    broker.run(&["session", "resume", "none"]).await.exits(3);
    broker.run(&["session", "pause", "none"]).await.exits(3);
}

/// Says the beginning of a result, and no more.
async fn begins(link: &RawLink, delivery: &broker_proto::Delivery, text: &str) {
    let (number, attempt) = (delivery.number, delivery.attempt);
    let opening = Part::text("");
    let start = AnswerFrame::PartStart { attempt, part: 0, opening };
    link.say(Up::Part { delivery: number, frame: start }).await;
    let data = text.to_owned().into();
    let delta = AnswerFrame::PartDelta { attempt, part: 0, offset: 0, data };
    link.say(Up::Part { delivery: number, frame: delta }).await;
}

#[tokio::test]
async fn what_an_agent_does_for_a_session_is_suspended_with_what_it_has_and_done_once() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut worker = RawLink::greeted(&broker.endpoint(), "worker").await;
    worker.grant(2).await;
    let give = async |session: &'static [&'static str]| {
        let task = ["delegate", "--to", "agent:worker", "--task", "Port the lists", "--detach"];
        broker.run(&[&task[..], session].concat()).await
    };
    let id = give(&["--session", "s"]).await.exits(0).stdout.trim().to_owned();
    let work = worker.delivery().await;
    begins(&worker, &work, "Half of them").await;
    // What comes behind it on the link is answered when it has arrived.
    give(&[]).await.exits(0);
    let other = worker.delivery().await;
    worker.settle(&other.lease, "done").await;
    worker.settled().await;

    broker.run(&["session", "pause", "s"]).await.exits(0);

    let task = json_of(&broker, &["task", "show", &id]).await;
    assert_eq!(task["state"], "suspended", "{task}");
    assert!(task.to_string().contains("Half of them"), "{task}");
    worker.settle(&work.lease, "too late").await;
    assert!(worker.settled().await.refused.is_some(), "its lease is lost");
    worker.grant(2).await;
    let refused = give(&["--session", "s"]).await.exits(1);
    assert!(refused.stderr.contains("is paused"), "{}", refused.stderr);

    broker.run(&["session", "resume", "s"]).await.exits(0);

    let again = worker.delivery().await;
    assert_eq!((again.message.id.to_string(), again.attempt), (id.clone(), 2));
    worker.settle(&again.lease, "All of them").await;
    assert!(worker.settled().await.refused.is_none());
    let task = json_of(&broker, &["task", "show", &id]).await;
    assert_eq!(task["state"], "completed", "{task}");
    assert!(task.to_string().contains("All of them"), "{task}");
}

#[tokio::test]
async fn what_nobody_listened_to_is_kept_of_a_turn_that_a_pause_stops() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = RawLink::greeted(&broker.endpoint(), "opus").await;
    opus.grant(2).await;
    let task = ["delegate", "--to", "opus", "--task", "Port them", "--detach", "--session", "s"];
    let id = broker.run(&task).await.exits(0).stdout.trim().to_owned();
    let work = opus.delivery().await;
    begins(&opus, &work, "The first list").await;
    broker.run(&["submit", "--model", "opus", "--question", "Hello?"]).await.exits(0);
    let other = opus.delivery().await;
    opus.settle(&other.lease, "Hello.").await;
    opus.settled().await;

    broker.run(&["session", "pause", "s"]).await.exits(0);

    let task = json_of(&broker, &["task", "show", &id]).await;
    assert_eq!(task["state"], "suspended", "{task}");
    assert!(task.to_string().contains("The first list"), "{task}");
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
    assert!(refused.stderr.contains("session resume s --force"), "{}", refused.stderr);
    assert_eq!(show(&broker).await["state"], "paused");
    let forced = json_of(&broker, &["session", "resume", "s", "--force"]).await;
    assert_eq!((&forced["package"], &forced["state"]), (&Value::Null, &json!("running")));
    assert_eq!(forced["missing"], "no agent of opus is connected");
}

/// Changes a byte behind this text, wherever the store has it.
fn change(broker: &TestBroker, text: &[u8]) {
    let store = rusqlite::Connection::open(broker.data_dir().join("journal.db")).unwrap();
    let mut rows = store.prepare("SELECT copy, bytes FROM contents").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut changed = 0;
    for (row, mut bytes) in rows.map(Result::unwrap).collect::<Vec<(i64, Vec<u8>)>>() {
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            let set = "UPDATE contents SET bytes = ?1 WHERE copy = ?2";
            changed += store.execute(set, (bytes, row)).unwrap();
        }
    }
    assert!(changed > 0, "the store has it");
}

#[tokio::test]
async fn a_package_that_was_changed_in_the_store_resumes_nothing() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    begin(&broker).await;
    broker.run(&["session", "pause", "s"]).await.exits(0);
    broker.stop().await;
    change(&broker, b"user-requested");
    broker.restart().await;

    let refused = broker.run(&["session", "resume", "s"]).await.exits(6);

    assert!(refused.stderr.contains("session resume s --force"), "{}", refused.stderr);
    assert_eq!(show(&broker).await["state"], "paused");
    broker.run(&["session", "resume", "s", "--force"]).await.exits(0);
}

#[tokio::test]
async fn a_deleted_session_begins_again_from_the_package_it_was_paused_with() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let package = broker.run(&["session", "pause", "s"]).await.exits(0).stdout.trim().to_owned();
    broker.run(&["session", "delete", "s", "--yes"]).await.exits(0);
    broker.run(&["session", "pause", "s"]).await.exits(3);
    broker.run(&["session", "resume", "s"]).await.exits(3);

    let resumed = json_of(&broker, &["session", "resume", "--package", &package]).await;

    assert_eq!((&resumed["id"], &resumed["state"]), (&json!("s"), &json!("running")));
    assert_eq!(resumed["resume_point"], "port the lists");
}

#[tokio::test]
async fn a_session_without_turns_is_paused_and_resumed_as_any_other() {
    let broker = TestBroker::start().await;
    broker.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    broker.run(&["session", "pause", "s"]).await.exits(0);
    broker.run(&["session", "append", "s", "--role", "user", "More."]).await.exits(1);
    let resumed = broker.run(&["session", "resume", "s"]).await.exits(0);
    assert!(resumed.stdout.contains("nobody said what comes next"), "{}", resumed.stdout);
    broker.run(&["session", "append", "s", "--role", "user", "More."]).await.exits(0);
}

#[tokio::test]
async fn a_session_on_its_way_is_paused_by_nobody_and_a_paused_one_is_handed_off_by_name_only() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let _opus = broker.agent("opus", &["opus"]).await;
    let sonnet = broker.agent_as(Plan::new("sonnet", &["sonnet"]).leaves_offers()).await;
    let offer = ["handoff", "offer", "--session", "s", "--to", "sonnet"];
    let handoff = broker.run(&offer).await.exits(0).stdout.trim().to_owned();
    let refused = broker.run(&["session", "pause", "s"]).await.exits(1);
    assert!(refused.stderr.contains("is under way"), "{}", refused.stderr);
    broker.run(&["handoff", "decline", &handoff]).await.exits(0);
    broker.run(&["session", "pause", "s"]).await.exits(0);

    drop(sonnet);
    let _sonnet = broker.agent("sonnet", &["sonnet"]).await;
    let moved = ["handoff", "execute", "--session", "s", "--to", "sonnet"];
    broker.run(&moved).await.exits(0);

    let shown = show(&broker).await;
    assert_eq!((&shown["owner"]["model"], &shown["state"]), (&json!("sonnet"), &json!("running")));
}

/// `s` in a broker that is killed and comes back.
async fn daemon() -> TestDaemon {
    let daemon = TestDaemon::start("[routing]\nagent_grace = \"10m\"\n").await;
    daemon.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    daemon.run(&["session", "append", "s", "--role", "user", "We port it."]).await.exits(0);
    daemon
}

#[tokio::test]
async fn killed_while_paused_and_again_before_it_is_resumed_nothing_is_lost_or_done_twice() {
    let mut daemon = daemon().await;
    let mut opus = daemon.agent_as(Plan::new("opus", &["opus"])).await;
    let mut worker = daemon.agent_as(Plan::new("worker", &[])).await;
    let asked = daemon.run(&SUBMIT).await.exits(0).stdout.trim().to_owned();
    let task = ["delegate", "--to", "agent:worker", "--task", "Port", "--detach", "--session", "s"];
    let given = daemon.run(&task).await.exits(0).stdout.trim().to_owned();
    let (turn, work) = (opus.next().await, worker.next().await);
    let package = daemon.run(&["session", "pause", "s"]).await.exits(0).stdout.trim().to_owned();
    turn.cancelled().await;
    work.cancelled().await;

    for _ in 0..2 {
        daemon.kill();
        daemon.restart().await;
        let shown = daemon.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();
        assert_eq!(
            (&shown["state"], &shown["pause"]["package"]),
            (&json!("paused"), &json!(package))
        );
    }
    opus.until_linked().await;
    worker.until_linked().await;
    assert!(turn.settle("too late").await.is_err() && work.settle("too late").await.is_err());
    assert!(opus.at_hand().is_none() && worker.at_hand().is_none());
    daemon.run(&["session", "resume", "s"]).await.exits(0);
    daemon.kill();
    daemon.restart().await;

    let (turn, work) = (opus.next().await, worker.next().await);
    assert_eq!(turn.delivery().message.id.to_string(), asked);
    assert_eq!(work.delivery().message.id.to_string(), given);
    turn.answer("The lists.").await;
    work.answer("Ported.").await;
    for id in [&asked, &given] {
        eventually("it is done", async || {
            let poll =
                daemon.run(&["message", "get", id, "--output", "json"]).await.exits(0).json();
            (poll["state"] == "done").then_some(())
        })
        .await;
    }
    assert!(opus.at_hand().is_none() && worker.at_hand().is_none());
}
