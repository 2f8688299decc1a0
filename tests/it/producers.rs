//! I-8: bulk senders, which number their messages.

use broker_client::Client;
use broker_proto::{
    AgentName, Down, Message, MessageType, Numbered, ProducerName, Receipt, Recipient, Up,
};
use broker_tests::{Place, RawLink, TestBroker, new_id, text_payload};

fn bulk(number: u64, text: &str) -> Message {
    let to = Recipient::Agent(AgentName::parse("scribe").unwrap());
    let producer = ProducerName::parse("loader").unwrap();
    let numbered = Some(Numbered { producer, number });
    Message { numbered, ..Message::new(new_id(), to, MessageType::Status, text_payload(text)) }
}

async fn refused(client: &Client, message: Message) -> String {
    let refused = client.send(message, true).await.unwrap_err();
    refused.reason().unwrap_or_default().to_owned()
}

/// I-8: also when its message was settled long ago, and over a restart.
#[tokio::test]
async fn a_number_is_accepted_once_through_settling_and_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let mut agent = broker.agent("scribe", &[]).await;
    let first: Receipt = client.send(bulk(1, "one"), true).await.unwrap();
    client.send(bulk(4_097, "far ahead"), true).await.unwrap();
    agent.answer("").await;
    agent.answer("").await;
    drop(agent);
    broker.restart().await;
    let client = broker.client();

    assert_eq!(refused(&client, bulk(1, "one")).await, "SEQUENCE_TOO_OLD");
    let again = client.send(bulk(4_097, "far ahead"), true).await.unwrap();
    assert!(again.is_duplicate && again.message_id != first.message_id);
    assert_eq!(refused(&client, bulk(4_097, "something else")).await, "NUMBER_REUSED");
    assert!(!client.send(bulk(2, "late"), true).await.unwrap().is_duplicate);
    assert!(!client.send(bulk(4_098, "next"), true).await.unwrap().is_duplicate);
}

/// I-8
#[tokio::test]
async fn an_agent_numbers_what_it_sends_on_its_link() {
    let broker = TestBroker::start().await;
    let mut link = RawLink::greeted(&broker.endpoint(), "sender").await;
    broker.run(&["token", "create", "scribe"]).await.exits(0);
    let mut receipts = Vec::new();
    for _ in 0..2 {
        link.say(Up::Send(Box::new(bulk(1, "one")))).await;
        receipts.push(loop {
            if let Down::Sent { result, .. } = link.hear().await.unwrap() {
                break result.unwrap();
            }
        });
    }

    assert!(!receipts[0].is_duplicate && receipts[1].is_duplicate);
    assert_eq!(receipts[0].message_id, receipts[1].message_id);
}
