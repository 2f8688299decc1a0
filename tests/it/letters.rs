//! Dead letters and paused queues, as their operator sees them.

use broker_proto::{AgentName, Message, MessageState, MessageType, Recipient, SettleOutcome};
use broker_tests::{Place, Plan, ScriptedAgent, TestBroker, new_id, text_payload};
use serde_json::{Value, json};

fn letter(text: &str) -> Message {
    let to = Recipient::Agent(AgentName::parse("reviewer").unwrap());
    Message::new(new_id(), to, MessageType::Status, text_payload(text))
}

async fn reject(agent: &mut ScriptedAgent) {
    let reason = "cannot read this".to_owned();
    agent.next().await.settle_as(SettleOutcome::Reject { reason }).await;
}

async fn run(broker: &TestBroker, args: &[&str]) -> Value {
    broker.run(&[args, &["--output", "json"]].concat()).await.exits(0).json()
}

/// I-33: accepted is the sum of everything else.
fn check(counters: &Value) {
    let all = counters.as_object().unwrap().iter();
    let rest: u64 =
        all.filter(|(word, _)| *word != "accepted").map(|(_, n)| n.as_u64().unwrap()).sum();
    assert_eq!(counters["accepted"].as_u64(), Some(rest), "{counters}");
}

/// I-25, I-27, I-33
#[tokio::test]
async fn a_dead_letter_is_shown_with_its_chain_redriven_and_counted_over_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "[links]\nmax_lost_leases = 3\n").await;
    let mut agent = broker.agent_as(Plan::new("reviewer", &[]).exclusive()).await;
    let sent = letter("poison");
    let id = sent.id.to_string();
    broker.client().send(sent, false).await.unwrap();
    let work = agent.next().await;
    agent.restart().await;
    drop(work);
    reject(&mut agent).await;

    let list = run(&broker, &["dead-letter", "list", "--to", "agent:reviewer"]).await;
    let brief = &list["dead_letters"][0];
    assert_eq!((&brief["message_id"], &brief["deliveries"]), (&json!(id), &json!(2)));
    assert_eq!(brief.get("trials"), None, "a list knows none");
    let some = ["dead-letter", "redrive", &id, "01JD3Q8ZK5T0V9Y2X4W6R8P1NB"];
    let some = broker.run(&some).await.exits(3);
    assert!(some.stderr.contains("nothing was redriven"), "{some:?}");
    let shown = run(&broker, &["dead-letter", "show", &id]).await;
    assert_eq!(shown["failure"]["message"], "cannot read this");
    let trials = shown["trials"].as_array().unwrap();
    let chain: Vec<_> = trials.iter().map(|t| (t["agent"].clone(), t["class"].clone())).collect();
    let by = |class: &str| (json!("reviewer"), json!(class));
    assert_eq!(chain, [by("AGENT_LOST"), by("INVALID_REQUEST")]);
    let table = broker.run(&["dead-letter", "show", &id]).await.exits(0).stdout;
    assert!(table.contains("cannot read this") && table.contains("AGENT_LOST"), "{table}");

    broker.restart().await;
    agent.until_linked().await;
    let dry = run(&broker, &["dead-letter", "redrive", &id, "--dry-run"]).await;
    assert_eq!((&dry["redriven"], &dry["dry_run"]), (&json!(1), &json!(true)));
    let done = run(&broker, &["dead-letter", "redrive", &id]).await;
    assert_eq!(done["redriven"], json!(1));
    let work = agent.next().await;
    let delivered = &work.delivery().message;
    assert_eq!((delivered.id.to_string(), delivered.correlation.hops), (id.clone(), 1));
    assert_eq!(work.delivery().attempt, 3);
    work.answer("").await;

    let got = run(&broker, &["message", "get", &id]).await;
    assert_eq!((&got["state"], &got["generation"]), (&json!("done"), &json!(2)));
    for _ in 0..2 {
        let totals = run(&broker, &["queue", "list"]).await["totals"].clone();
        check(&totals);
        assert_eq!((&totals["accepted"], &totals["done"]), (&json!(1), &json!(1)));
        broker.restart().await;
    }
    let gone = broker.run(&["dead-letter", "show", &id]).await.exits(1);
    assert!(gone.stderr.contains("not a dead letter"), "{gone:?}");
}

/// I-26, I-7
#[tokio::test]
async fn a_full_shelf_degrades_the_queue_until_it_is_purged() {
    let broker = TestBroker::with(Place::Memory, "[broker]\ndead_letters = 1\n").await;
    let client = broker.client();
    let mut agent = broker.agent("reviewer", &[]).await;
    let [first, second] = [letter("one"), letter("two")];
    for sent in [&first, &second] {
        client.send(sent.clone(), false).await.unwrap();
        reject(&mut agent).await;
    }

    let queue = run(&broker, &["queue", "show", "agent:reviewer"]).await;
    assert_eq!((&queue["degraded"], &queue["parked"]), (&json!(true), &json!(1)));
    let table = broker.run(&["queue", "list"]).await.exits(0).stdout;
    assert!(table.contains("DEGRADED"), "{table}");
    let unasked = broker.run(&["dead-letter", "purge", "--all"]).await.exits(2);
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
    let purged = run(&broker, &["dead-letter", "purge", "--all", "--yes"]).await;
    assert_eq!(purged["purged"], json!(1));

    let queue = run(&broker, &["queue", "show", "agent:reviewer"]).await;
    assert_eq!((&queue["degraded"], &queue["counters"]["dead"]), (&json!(false), &json!(1)));
    check(&queue["counters"]);
    assert_eq!(client.message(first.id, false).await.unwrap().0.state, MessageState::Purged);
    assert_eq!(client.message(second.id, false).await.unwrap().0.state, MessageState::Dead);
    assert!(client.send(first, false).await.unwrap().is_duplicate);
}

#[tokio::test]
async fn a_paused_queue_stays_paused_over_a_restart_and_is_peeked_page_by_page() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let agent = broker.agent("reviewer", &[]).await;
    drop(agent);
    run(&broker, &["queue", "pause", "agent:reviewer"]).await;
    let client = broker.client();
    let sent = [letter("one"), letter("two"), letter("three")];
    for sent in &sent {
        client.send(sent.clone(), false).await.unwrap();
    }
    broker.restart().await;
    let mut agent = broker.agent("reviewer", &[]).await;

    let queue = run(&broker, &["queue", "show", "agent/reviewer"]).await;
    assert_eq!((&queue["paused"], &queue["ready"]), (&json!(true), &json!(3)));
    let peek = ["queue", "peek", "agent:reviewer", "--limit", "2"];
    let page = run(&broker, &peek).await;
    let next = page["next_page_token"].as_str().unwrap();
    let rest = run(&broker, &[&peek[..], &["--page", next]].concat()).await;
    let ids = [&page, &rest].into_iter().flat_map(|page| page["messages"].as_array().unwrap());
    let ids: Vec<_> = ids.map(|message| message["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids, sent.each_ref().map(|sent| sent.id.to_string()));
    assert!(agent.at_hand().is_none());

    run(&broker, &["queue", "resume", "agent:reviewer"]).await;
    assert_eq!(agent.next().await.question(), "one");
    let unknown = broker.run(&["queue", "pause", "agent:nobody"]).await.exits(3);
    assert!(unknown.stderr.contains("no queue"), "{unknown:?}");
}
