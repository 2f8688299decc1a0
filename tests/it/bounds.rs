//! I-36: only the broker counts hops.

use broker_proto::{
    AgentName, Correlation, Delivery, Down, Message, MessageType, Receipt, Recipient, RefusedFrame,
    Up,
};
use broker_tests::{RawLink, TestBroker, new_id, text_payload};

/// To the agent itself, because of `parent`; what it says of hops and root is made up.
fn word(parent: Option<&Delivery>) -> Message {
    let to = Recipient::Agent(AgentName::parse("echo").unwrap());
    let message = Message::new(new_id(), to, MessageType::Status, text_payload("again"));
    let parent = parent.map(|delivery| delivery.message.id);
    Message { correlation: Correlation { root: Some(new_id()), parent, hops: 3 }, ..message }
}

async fn send(link: &mut RawLink, message: Message) -> Result<Receipt, RefusedFrame> {
    let id = message.id;
    link.say(Up::Send(Box::new(message))).await;
    loop {
        match link.hear().await.unwrap() {
            Down::Sent { message, result } if message == id => return result,
            _ => {}
        }
    }
}

/// I-36
#[tokio::test]
async fn an_agent_that_answers_itself_comes_to_an_end() {
    let broker = TestBroker::start().await;
    let mut link = RawLink::greeted(&broker.endpoint(), "echo").await;
    link.grant(20).await;
    let first = word(None);
    let root = first.id;
    broker.client().send(first, false).await.unwrap();
    let mut delivery = link.delivery().await;
    assert_eq!(delivery.message.correlation.hops, 0, "whatever its sender wrote");
    for hop in 1..=8 {
        let parent = delivery.message.id;
        // Settled first: it was delivered all the same.
        link.settle(&delivery.lease, "").await;
        link.settled().await;
        link.say(Up::Send(Box::new(word(Some(&delivery))))).await;
        delivery = link.delivery().await;
        let want = Correlation { root: Some(root), parent: Some(parent), hops: hop };
        assert_eq!(delivery.message.correlation, want);
    }

    let refused = send(&mut link, word(Some(&delivery))).await.unwrap_err();
    assert_eq!(refused.reason, "BUDGET");
    assert!(refused.detail.contains("hops"), "{refused:?}");
    // Who names a message that it was never given begins a request of its own.
    let mut other = RawLink::greeted(&broker.endpoint(), "other").await;
    send(&mut other, word(Some(&delivery))).await.unwrap();
    let fresh = link.delivery().await.message.correlation;
    assert_eq!((fresh.root, fresh.hops), (None, 0));
}
