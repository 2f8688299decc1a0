//! What is told of everything that happens, of one message's life, and by status messages.

use broker_tests::{TestBroker, TestHouse};
use serde_json::{Value, json};

/// I-30
#[tokio::test]
async fn a_tail_tells_what_happened_and_goes_on_behind_a_cursor() {
    let house = TestHouse::start().await;
    house.ask("opus", &[]).await.exits(0);
    let tail = |from: &str| {
        let mut args = vec!["events", "tail", "--output", "json", "--from", from];
        args.extend(["--filter", "model=opus", "--filter", "kind=accepted"]);
        args.extend(["--filter", "kind=finished"]);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let start = async |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        house.start_command(&args).await
    };
    let mut first = start(&tail("start")).await;
    let mut cursor = String::new();
    for kind in ["accepted", "finished"] {
        let line: Value = serde_json::from_str(&first.line().await).unwrap();
        assert_eq!((&line["kind"], &line["model"]), (&json!(kind), &json!("opus")), "{line}");
        assert!(line["at"].is_string() && line["message_id"].is_string(), "{line}");
        cursor = line["cursor"].as_str().unwrap().to_owned();
    }
    let mut second = start(&tail(&cursor)).await;
    house.ask("local", &[]).await.exits(0);
    house.ask("opus", &[]).await.exits(0);
    for kind in ["accepted", "finished"] {
        assert!(second.line().await.contains(kind));
    }
    let refused = house.run(&["events", "tail", "--from", "yesterday"]).await.exits(2);
    assert!(refused.stderr.contains("cursor"), "{refused:?}");
    let refused = house.run(&["events", "tail", "--filter", "kind=sneezed"]).await.exits(2);
    assert!(refused.stderr.contains("accepted, routed"), "it lists the kinds: {refused:?}");
}

#[tokio::test]
async fn a_trace_tells_the_life_of_a_message_with_its_times() {
    let house = TestHouse::start().await;
    house.sim.refuse("anthropic.overloaded_529", "claude-opus-*", json!(1)).await;
    let asked = house.ask("opus", &[]).await.exits(0).json();
    let id = asked["message_id"].as_str().unwrap();

    let traced = house.run(&["message", "trace", id, "--output", "json"]).await.exits(0).json();
    let steps = traced["steps"].as_array().unwrap();
    let words: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let begin = ["accepted", "routed", "leased", "attempt_failed"];
    assert_eq!(words[..4], begin, "{words:?}");
    assert_eq!(words[words.len() - 1], "finished");
    assert_eq!((&steps[2]["agent"], &steps[3]["model"]), (&json!("opus"), &json!("opus")));
    assert!(steps[3]["detail"].as_str().unwrap().contains("OVERLOADED"), "{}", steps[3]);
    assert!(steps.iter().all(|step| step["since_previous_ms"].as_f64().unwrap() >= 0.0));
    assert_eq!(traced["message"]["state"], "done");
    let shown = house.run(&["message", "trace", id]).await.exits(0).stdout;
    assert!(shown.contains("AFTER") && shown.contains("attempt_failed"), "{shown}");
    let missing = house.run(&["message", "trace", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]).await;
    missing.exits(3);
}

/// A status is for people and programs: the provider of the agent that takes it is not called.
#[tokio::test]
async fn a_status_reaches_an_agent_and_never_a_model() {
    let house = TestHouse::start().await;
    let status = ["message", "send", "--type", "status", "--severity", "warning", "half done"];
    let to = |to| [&status[..], &["--percent", "50", "--to", to]].concat();
    let refused = house.run(&to("model:opus")).await.exits(2);
    assert!(refused.stderr.contains("never reaches a model"), "{refused:?}");

    let id = house.run(&to("agent:opus")).await.exits(0).stdout;
    let id = id.trim();
    let watched = house.run(&["message", "watch", id]).await.exits(0);
    assert!(watched.stdout.contains("[done]"), "{watched:?}");
    let got = house.run(&["message", "get", id, "--payload", "--output", "json"]).await.exits(0);
    let got = got.json();
    let want = json!({
        "severity": "warning", "kind": "progress", "percent": 50, "step": null,
        "text": "half done", "about": null,
    });
    assert_eq!((&got["type"], &got["status"]), (&json!("status"), &want));
    let all = house.run(&to("agents:opus")).await.exits(0).stdout;
    let all = house.run(&["message", "get", all.trim(), "--output", "json"]).await.exits(0).json();
    assert_eq!((&all["state"], &all["copies"]), (&json!("done"), &json!(1)));
    assert_eq!(house.sim.calls().await.len(), 0);
}

#[tokio::test]
async fn what_is_sent_goes_to_whom_it_names() {
    let broker = TestBroker::start().await;
    let mut reviewer = broker.agent("reviewer", &[]).await;
    let send = ["message", "send", "--type", "consultation", "--priority", "high", "look at this"];
    let sent = [&send[..], &["--to", "agent:reviewer", "--session", "s"]].concat();
    broker.run(&sent).await.exits(0);
    let work = reviewer.next().await;
    let message = work.delivery().message.clone();
    assert_eq!((work.question().as_str(), message.session.as_deref()), ("look at this", Some("s")));
    work.answer("").await;

    let refused = broker.run(&[&send[..], &["--to", "agent:nobody"]].concat()).await.exits(3);
    assert!(refused.stderr.contains("nobody"), "{refused:?}");
    let to_ring = ["message", "send", "--to", "role:none", "look at this"];
    let refused = broker.run(&to_ring).await.exits(3);
    assert!(refused.stderr.contains("role"), "{refused:?}");
    for wrong in [&["--to", "topic:news"][..], &["--to", "agent:reviewer", "--percent", "101"]] {
        broker.run(&[&send[..], wrong].concat()).await.exits(2);
    }
}
