//! Bad questions, as they are typed: refused with the reason, and nothing of them is stored.

use broker_tests::{Output, Place, TestBroker, brokerctl};

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
