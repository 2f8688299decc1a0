//! Bad questions, as they are typed: refused with the reason, and nothing of them is stored.

use broker_client::Error;
use broker_proto::Part;
use broker_tests::{Output, Place, TestBroker, brokerctl};
use rustix::process::Signal;
use serde_json::json;

async fn consult(broker: &TestBroker, args: &[&str], stdin: &[u8]) -> Output {
    let ask = [&["consult", "--model", "opus"], args].concat();
    brokerctl(&broker.endpoint()).args(&ask).stdin(stdin).output().await
}

async fn assert_nothing_stored(broker: &TestBroker) {
    let listed = broker.run(&["message", "list", "--output", "json"]).await.exits(0);
    assert_eq!(listed.json()["messages"], serde_json::json!([]));
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_the_nearest_are_named() {
    let broker = TestBroker::start().await;
    for command in ["consult", "submit", "explain"] {
        let args = [command, "--model", "opsu", "--question", "hi"];
        let refused = broker.run(&args).await.exits(3);
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.contains("opsu") && refused.stderr.contains("opus"), "{refused:?}");
    }
    let refused = broker.run(&["ping", "sonet"]).await.exits(3);
    assert!(refused.stderr.contains("sonnet"), "{refused:?}");
    assert_nothing_stored(&broker).await;
}

#[tokio::test]
async fn an_unknown_model_is_one_json_object_too() {
    let broker = TestBroker::start().await;
    let args = ["consult", "--model", "opsu", "--question", "hi", "--output", "json"];

    let json = broker.run(&args).await.exits(3).json();

    assert_eq!(json["error"]["class"], "UNKNOWN_MODEL");
    assert!(json["error"]["message"].as_str().unwrap().contains("opus"), "{json}");
    assert_eq!(json["attempts"], serde_json::json!([]));
}

#[tokio::test]
async fn an_empty_or_binary_question_is_refused_and_nothing_is_stored() {
    let broker = TestBroker::start().await;
    let empty = "the question is empty";
    for (args, stdin, reason) in [
        (&["--question", ""][..], &b""[..], empty),
        (&["--question", " \n"], b"", empty),
        (&["-"], b"", empty),
        (&["-"], b"\n\n", empty),
        (&["-"], b"\x7fELF\x02\x01\x01\x00\xff", "stdin is binary"),
        (&["-"], b"text\0text", "stdin is binary"),
    ] {
        let refused = consult(&broker, args, stdin).await.exits(2);
        assert!(refused.stderr.contains(reason), "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
    assert_nothing_stored(&broker).await;
}

#[tokio::test]
async fn a_question_over_the_limit_is_refused_with_the_limit_and_nothing_is_stored() {
    let broker = TestBroker::start().await;
    let refused = consult(&broker, &["-"], &vec![b'a'; (32 << 20) + 1]).await.exits(2);
    assert!(refused.stderr.contains("over the limit of 32 MiB"), "{refused:?}");
    assert_nothing_stored(&broker).await;

    let small = TestBroker::with(Place::Memory, "[broker]\nmax_message = \"1 MiB\"\n").await;
    let refused = consult(&small, &["-"], &vec![b'a'; 2 << 20]).await.exits(2);
    assert!(refused.stderr.contains("1048576"), "{refused:?}");
    assert_nothing_stored(&small).await;
}

#[tokio::test]
async fn a_message_that_nobody_sent_is_not_found() {
    let broker = TestBroker::start().await;
    let nobodys = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for args in [
        &["poll", nobodys][..],
        &["attach", nobodys],
        &["message", "get", nobodys],
        &["message", "cancel", nobodys],
    ] {
        let refused = broker.run(args).await.exits(3);
        assert!(refused.stderr.contains(nobodys), "{refused:?}");
    }
    broker.run(&["token", "revoke", "nobody"]).await.exits(3);
}

#[tokio::test]
async fn a_broker_that_does_not_run_is_said_in_one_line_with_the_way_out() {
    let mut broker = TestBroker::start().await;
    broker.stop().await;
    for args in [&["consult", "-m", "opus", "-q", "hi"][..], &["models"], &["message", "list"]] {
        let refused = broker.run(args).await.exits(4);
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert!(refused.stderr.contains("brokerctl up"), "{refused:?}");
    }
}

/// Programs match on the reason, so every error tells it: to people on stderr, and as an object on stdout.
#[tokio::test]
async fn an_error_tells_its_reason() {
    let broker = TestBroker::start().await;
    let send = ["message", "send", "--to", "opsu", "hi"];

    let refused = broker.run(&send).await.exits(3);
    assert!(refused.stderr.starts_with("error: UNKNOWN_MODEL: "), "{refused:?}");
    let json = broker.run(&[&send[..], &["--output", "json"]].concat()).await.exits(3).json();

    assert_eq!(
        (&json["error"]["code"], &json["error"]["reason"]),
        (&json!("NOT_FOUND"), &json!("UNKNOWN_MODEL"))
    );
    assert!(json["error"]["metadata"]["nearest"].as_str().unwrap().contains("opus"), "{json}");
    let misused = ["message", "send", "--to", "opus", "--severity", "info", "hi"];
    let json = broker.run(&[&misused[..], &["--output", "json"]].concat()).await.exits(2).json();
    assert_eq!(
        (&json["error"]["code"], &json["error"]["reason"]),
        (&json!(null), &json!("INVALID_REQUEST"))
    );
    broker.run(&["message", "send", "--to", "opus", ""]).await.exits(2);
    broker.run(&["events", "tail", "--filter", "message=x"]).await.exits(2);
    broker.run(&["agent", "pull"]).await.exits(2);
    let nobody = broker.run(&["ping", "opus"]).await.exits(8);
    assert!(nobody.stderr.contains("NO_AGENT"), "{nobody:?}");
}

/// An empty table of a name that was mistyped would look like good news.
#[tokio::test]
async fn a_list_of_nobody_is_refused() {
    let broker = TestBroker::start().await;
    broker.run(&["token", "create", "scribe"]).await.exits(0);
    for args in [
        "task list --to nope",
        "message list --to nope",
        "message list --to agents:nope",
        "dead-letter list --to agent:nope",
        "dead-letter redrive --to rz",
        "events tail --from start --filter model=nope",
        "events tail --from start --filter agent=nope",
    ] {
        let refused = broker.run(&args.split(' ').collect::<Vec<_>>()).await.exits(3);
        assert!(refused.stderr.contains(": UNKNOWN_"), "{args}: {refused:?}");
    }
    for args in [
        "task list --to opus",
        "message list --to agent:scribe",
        "dead-letter list --to agents:opus",
    ] {
        broker.run(&args.split(' ').collect::<Vec<_>>()).await.exits(0);
    }
    let meant = broker.run(&["message", "send", "--to", "scribe", "hi"]).await.exits(3);
    assert!(meant.stderr.contains("--to agent:scribe"), "{meant:?}");
}

#[tokio::test]
async fn what_was_asked_for_and_is_not_granted_is_said() {
    let broker = TestBroker::start().await;
    let long = ["submit", "-m", "opus", "-q", "hi", "--deadline", "8000y"];
    let cut = broker.run(&long).await.exits(0);
    assert!(cut.stderr.contains("the broker keeps it for 7d 0h only"), "{cut:?}");
    let send = ["message", "send", "--to", "opus", "hi", "--expires"];
    let expires = async |at| broker.run(&[&send[..], &[at]].concat()).await;
    let cut = expires("9999-12-31T00:00:00Z").await.exits(0);
    assert!(cut.stderr.contains("the broker keeps it for 7d 0h only"), "{cut:?}");
    assert_eq!(expires("10m").await.exits(0).stderr, "");
    let past = expires("2020-01-01T00:00:00Z").await.exits(2);
    assert!(past.stderr.contains("ALREADY_EXPIRED"), "{past:?}");
}

#[tokio::test]
async fn a_part_over_the_limit_is_refused_with_the_limit() {
    let broker = TestBroker::start().await;
    // The largest that is uploaded is a package; what a message may hold is less.
    let large = Part::Text("a".repeat(66 << 20));
    let refused = broker.client().upload(large).await.unwrap_err();
    assert_eq!(refused.reason(), Some("TOO_LARGE"));
    let Error::Refused { metadata, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(metadata["limit_bytes"], (65 << 20).to_string());
    let stranger = broker.client().with_token("bat_0".to_owned().into());
    let refused = stranger.models().await.unwrap_err();
    assert!(refused.to_string().contains("brokerctl token create NAME"), "{refused}");
}

#[tokio::test]
async fn whoever_waits_ends_with_130_by_either_signal() {
    let broker = TestBroker::start().await;
    broker.run(&["token", "create", "scribe"]).await.exits(0);
    for signal in [Signal::INT, Signal::TERM] {
        let tail = ["events", "tail", "--from", "start"];
        let mut tail = brokerctl(&broker.endpoint()).args(&tail).start().await;
        tail.line().await;
        tail.signal(signal);
        tail.finish().await.exits(130);
    }
}
