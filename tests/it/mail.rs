//! Messages that are no questions, and what is told of every message.

use broker_proto::{
    AgentName, AskOptions, Down, Message, MessageState, MessageType, Recipient, SettleOutcome,
    Settlement, Terminal, Up, Usage,
};
use broker_tests::{RawLink, Reader, TestBroker, done, eventually, new_id, question, text_payload};
use tokio_stream::StreamExt as _;

/// I-6
#[tokio::test]
async fn a_mailbox_takes_what_is_addressed_to_its_agent() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("reviewer", &[]).await;
    let to = |name| Recipient::Agent(AgentName::parse(name).unwrap());
    let status = |name| {
        let payload = text_payload("for you");
        Message::new(new_id(), to(name), MessageType::Status, payload)
    };
    let sent = status("reviewer");
    let id = sent.id;
    client.send(sent, false).await.unwrap();

    let work = agent.next().await;
    assert_eq!((work.question(), work.delivery().model.clone()), ("for you".into(), None));
    let from = work.delivery().message.from.clone();
    assert_eq!(from.map(|sender| sender.to_string()).as_deref(), Some("local"));
    work.answer("").await;
    assert_eq!(client.message(id, false).await.unwrap().0.state, MessageState::Done);

    let refused = client.send(status("nobody"), false).await.unwrap_err();
    assert_eq!(refused.reason(), Some("UNKNOWN_AGENT"));
    client.send(status("nobody"), true).await.unwrap();
    let mut nobody = broker.agent("nobody", &[]).await;
    assert_eq!(nobody.next().await.question(), "for you");
}

/// I-6, I-25
#[tokio::test]
async fn a_rejected_message_is_a_dead_letter_that_its_sender_can_learn_of() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut reader = Reader::ask(&client, asked, AskOptions::default()).await;

    agent.next().await.settle_as(SettleOutcome::Reject { reason: "not mine".into() }).await;

    let Terminal::Failed { failure, .. } = reader.end().await else { panic!("failed") };
    assert_eq!(failure.detail, "not mine");
    assert_eq!(client.message(id, false).await.unwrap().0.state, MessageState::Dead);
}

#[tokio::test]
async fn a_watch_of_one_message_tells_its_whole_life_and_ends() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    agent.answer("done").await;

    let watch = client.watch(None, Some(id.into())).await.unwrap();
    let changes: Vec<_> = broker_tests::within("the watch's end", watch.collect()).await;

    let words: Vec<String> = changes
        .into_iter()
        .map(|item| match item.unwrap() {
            broker_client::WatchItem::Change { change, .. } => change.change,
            broker_client::WatchItem::Gap { .. } => "gap".into(),
        })
        .collect();
    assert_eq!(words, ["accepted", "routed", "leased", "finished"]);
}

#[tokio::test]
async fn what_agents_report_is_in_the_usage() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut link = RawLink::greeted(&broker.endpoint(), "a").await;
    link.grant(1).await;
    client.submit(question("opus", "hi"), AskOptions::default()).await.unwrap();
    let held = link.delivery().await;
    let usage = Usage { input_tokens: Some(7), output_tokens: Some(3), ..Usage::default() };
    let settlement = Settlement { usage, ..done(&held.lease, "hello") };
    link.say(Up::Settle(vec![settlement])).await;
    link.settled().await;

    let opus = eventually("the usage", async || {
        let models = client.usage().await.ok()?;
        models.into_iter().find(|model| model.calls == 1)
    })
    .await;

    assert_eq!((opus.total.input_tokens, opus.total.output_tokens), (Some(7), Some(3)));
}

#[tokio::test]
async fn a_message_that_an_agent_sends_is_from_it() {
    let broker = TestBroker::start().await;
    let mut link = RawLink::greeted(&broker.endpoint(), "sender").await;
    let mut receiver = broker.agent("receiver", &[]).await;
    let to = Recipient::Agent(AgentName::parse("receiver").unwrap());
    let message = Message::new(new_id(), to, MessageType::Status, text_payload("from me"));

    link.say(Up::Send(Box::new(message))).await;
    loop {
        if let Down::Sent { result, .. } = link.hear().await.unwrap() {
            assert!(!result.unwrap().is_duplicate);
            break;
        }
    }

    let work = receiver.next().await;
    let from = work.delivery().message.from.clone();
    assert_eq!(from.map(|sender| sender.to_string()).as_deref(), Some("sender"));
}
