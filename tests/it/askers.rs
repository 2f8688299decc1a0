//! Those who ask: they come back, leave, share an answer, or do not read.

use std::time::Duration;

use broker_proto::{AnswerFrame, AskOptions, MessageState, Part, Terminal};
use broker_tests::{Place, Plan, Reader, TestBroker, new_id, question, within};
use futures::StreamExt as _;

/// I-37
#[tokio::test]
async fn an_asker_that_comes_back_misses_nothing() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut reader = Reader::ask(&client, asked, AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("one ").await;
    reader.until_text("one ").await;

    let mut reader = reader.back(&client, id, false).await;
    work.stream("two ").await;
    reader.until_text("one two ").await;
    let mut reader = reader.back(&client, id, false).await;
    work.answer("three").await;

    assert!(matches!(reader.end().await, Terminal::Done(_)));
    assert_eq!(reader.text(), "one two three");
    let mut again = Reader::attach(&broker.client(), id).await;
    again.end().await;
    assert_eq!(again.text(), "one two three");
}

/// I-7: each asker is told whether its own call was the first, also where another's answer is already running.
#[tokio::test]
async fn the_same_question_asked_again_is_said_to_be_a_duplicate() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let (mut receipts, mut askers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let ask = client.ask(asked.clone(), AskOptions::default());
        let mut frames = within("the stream", ask).await.unwrap();
        match within("the receipt", frames.next()).await {
            Some(Ok(AnswerFrame::Accepted(receipt))) => receipts.push(receipt),
            other => panic!("{other:?}"),
        }
        askers.push(frames);
    }
    agent.answer("hi").await;
    let mut late = within("the stream", client.ask(asked, AskOptions::default())).await.unwrap();
    let Some(Ok(AnswerFrame::Accepted(last))) = within("the receipt", late.next()).await else {
        panic!("no receipt")
    };
    receipts.push(last);

    let duplicates: Vec<bool> = receipts.iter().map(|receipt| receipt.is_duplicate).collect();
    assert_eq!(duplicates, [false, true, true]);
    assert!(receipts.iter().all(|receipt| receipt.accepted_at == receipts[0].accepted_at));
}

/// I-37
#[tokio::test]
async fn an_asker_that_leaves_for_good_cancels_the_work() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    for window in [Duration::ZERO, Duration::from_millis(50)] {
        let options = AskOptions { return_window: Some(window), ..AskOptions::default() };
        let asked = question("opus", "hi");
        let id = asked.id;
        let mut reader = Reader::ask(&client, asked, options).await;
        let mut work = agent.next().await;
        work.stream("half").await;
        reader.until_text("half").await;

        drop(reader);

        work.cancelled().await;
        assert_eq!(client.message(id, false).await.unwrap().0.state, MessageState::Cancelled);
    }
}

/// I-37
#[tokio::test]
async fn the_brokers_own_return_window_holds_where_the_asker_names_none() {
    let settings = "[streams]\nreturn_window = \"50ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("half").await;
    reader.until_text("half").await;

    drop(reader);

    work.cancelled().await;
}

/// I-37
#[tokio::test]
async fn a_kept_question_is_answered_though_nobody_listens() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let options =
        AskOptions { keep: true, return_window: Some(Duration::ZERO), ..AskOptions::default() };
    let reader = Reader::ask(&client, asked, options).await;
    let work = agent.next().await;

    drop(reader);
    // A watcher that comes and goes changes nothing either.
    drop(client.watch(None, Some(id.into())).await.unwrap());
    work.answer("all the same").await;

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!((poll.state, poll.parts), (MessageState::Done, vec![Part::text("all the same")]));
}

/// I-7
#[tokio::test]
async fn two_askers_of_one_id_share_one_answer() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(4)).await;
    let asked = question("opus", "hi");
    let mut one = Reader::ask(&client, asked.clone(), AskOptions::default()).await;
    let mut two = Reader::ask(&broker.client(), asked.clone(), AskOptions::default()).await;

    agent.answer("once").await;

    one.end().await;
    two.end().await;
    assert_eq!((one.text(), two.text()), ("once".into(), "once".into()));
    let mut later = Reader::ask(&client, asked.clone(), AskOptions::default()).await;
    later.end().await;
    assert_eq!(later.text(), "once");
    assert!(agent.at_hand().is_none(), "one question is one delivery");
    let other = broker_proto::Message { id: asked.id, ..question("opus", "another") };
    let refused = client.ask(other, AskOptions::default()).await.unwrap_err();
    assert_eq!(refused.reason(), Some("ID_REUSED"));
}

#[tokio::test]
async fn an_answer_to_nobodys_question_is_not_found() {
    let broker = TestBroker::start().await;
    let client = broker.client();

    let refused = within("a refusal", client.poll(new_id(), Duration::ZERO)).await.unwrap_err();

    assert_eq!(refused.reason(), Some("UNKNOWN_MESSAGE"));
}

/// I-37
#[tokio::test]
async fn an_asker_that_does_not_read_holds_up_neither_agent_nor_other_askers() {
    let broker = TestBroker::start().await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut idle = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let mut eager = Reader::attach(&broker.client(), id).await;
    let mut work = agent.next().await;
    // More than all windows between the broker and an asker hold.
    let piece = "x".repeat(256 * 1024);
    for _ in 0..16 {
        work.stream(&piece).await;
    }
    work.answer("").await;

    let terminal = eager.end().await;
    assert!(matches!(terminal, Terminal::Done(_)), "{terminal:?}");
    assert_eq!(eager.text().len(), 4 << 20);
    assert!(matches!(idle.end().await, Terminal::Done(_)));
    assert_eq!(idle.text().len(), 4 << 20);
}
