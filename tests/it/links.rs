//! Agents' links: credit, and who may speak under which name.

use broker_client::link::{Ended, SettleError};
use broker_proto::{AgentName, AskOptions, Down, Stamp, Up};
use broker_tests::{Place, Plan, RawLink, Reader, TestBroker, hello, question, reason_of};
use tonic::Code;

/// The link's next frame is the ping of a caller: nothing was delivered before it.
async fn nothing_came(broker: &TestBroker, link: &mut RawLink) {
    let client = broker.client();
    let (pong, ()) = tokio::join!(client.ping(Some("opus")), async {
        match link.hear().await.unwrap() {
            Down::Ping { nonce } => link.say(Up::Pong { nonce }).await,
            other => panic!("a ping and nothing before it, not {other:?}"),
        }
    });
    pong.unwrap();
}

/// I-29
#[tokio::test]
async fn nothing_is_leased_without_credit_of_messages_and_bytes() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut link = RawLink::greeted(&broker.endpoint(), "a").await;
    for _ in 0..3 {
        client.submit(question("opus", "hi"), AskOptions::default()).await.unwrap();
    }

    nothing_came(&broker, &mut link).await;
    link.say(Up::Credit { messages: 1, size_bytes: 1 }).await;
    nothing_came(&broker, &mut link).await;
    link.grant(0).await;
    link.delivery().await;
    nothing_came(&broker, &mut link).await;
}

#[tokio::test]
async fn two_agents_share_a_models_queue_by_free_credit() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut one = broker.agent("one", &["opus"]).await;
    let mut two = broker.agent("two", &["opus"]).await;
    for text in ["a", "b", "c"] {
        client.submit(question("opus", text), AskOptions::default()).await.unwrap();
    }

    let (first, second) = (one.next().await, two.next().await);
    assert_ne!(first.question(), second.question());
    assert!(one.at_hand().is_none() && two.at_hand().is_none(), "no more than their credit");
    second.answer("done").await;

    assert_eq!(two.next().await.question(), "c");
}

/// I-17
#[tokio::test]
async fn the_newest_process_of_an_exclusive_name_takes_over() {
    let broker = TestBroker::start().await;
    let mut old = broker.agent_as(Plan::new("a", &["opus"]).exclusive()).await;
    let asked = question("opus", "hi");
    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let held = old.next().await;

    let mut new = old.sibling().await;
    new.answer("by the new one").await;

    assert!(matches!(old.ended().await, Ended::Superseded), "{:?}", old.ended().await);
    let settled = held.settle("by the old one").await;
    assert!(matches!(settled, Err(SettleError::LeaseLost | SettleError::Ended)), "{settled:?}");
    reader.end().await;
    assert_eq!(reader.text(), "by the new one");
    assert_eq!(broker.client().agents().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_token_or_none_proves_no_name() {
    let broker = TestBroker::start().await;
    let good = hello(&broker.endpoint(), "a", &["opus"]).await;
    let others = hello(&broker.endpoint(), "b", &["opus"]).await;
    for token in [String::new(), "wrong".into(), others.token] {
        let mut link = broker.link().await;
        let refused = link.greet(broker_proto::Hello { token, ..good.clone() }).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains("brokerctl token create a"), "{refused}");
    }
    assert!(broker.client().agents().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_link_that_does_not_greet_first_is_closed() {
    let settings = "[links]\nhello_deadline = \"100ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut early = broker.link().await;
    early.grant(1).await;
    assert_eq!(early.end().await.code(), Code::DeadlineExceeded);
    let mut mute = broker.link().await;
    assert_eq!(mute.end().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_agent_for_an_unknown_model_is_refused_with_the_nearest() {
    let broker = TestBroker::start().await;
    let mut link = broker.link().await;
    let refused = link.greet(hello(&broker.endpoint(), "a", &["opsu"]).await).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("opus"), "{refused}");
}

#[tokio::test]
async fn a_revoked_token_ends_the_link_and_opens_none() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;

    client.revoke_token(&AgentName::parse("a").unwrap()).await.unwrap();

    assert!(matches!(agent.ended().await, Ended::Refused(_)));
    assert!(client.tokens().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_agents_token_opens_its_own_doors_only() {
    let broker = TestBroker::start().await;
    let name = AgentName::parse("a").unwrap();
    let token = broker.client().create_token(&name).await.unwrap();
    let agent = broker.client().with_token(token);

    let refused = agent.create_token(&name).await.unwrap_err();
    assert_eq!(refused.reason(), Some("NOT_ALLOWED"));
    let stranger = broker.client().with_token("nobody's".into());
    assert_eq!(stranger.models().await.unwrap_err().reason(), Some("TOKEN_REJECTED"));
}

/// Numbers on both sides: what is lost or said twice on a stream ends it, and nothing of it is taken.
#[tokio::test]
async fn a_frame_out_of_turn_ends_the_link_with_its_reason() {
    let broker = TestBroker::start().await;
    // The hello was number 1.
    for stamp in [
        Stamp { number: 1, seen: 1 },
        Stamp { number: 3, seen: 1 },
        Stamp { number: 0, seen: 0 },
        Stamp { number: 2, seen: 99 },
    ] {
        let mut link = RawLink::greeted(&broker.endpoint(), "a").await;
        link.say_as(stamp, Up::Credit { messages: 1, size_bytes: 1 << 20 }).await;
        let status = link.end().await;
        assert_eq!((status.code(), reason_of(&status)), (Code::DataLoss, "FRAME_GAP".to_owned()));
    }
    assert!(broker.client().agents().await.unwrap().is_empty());
}
