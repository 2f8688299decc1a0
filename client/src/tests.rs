//! The client against a broker that says what the test says.

use std::sync::atomic::Ordering;

use broker_proto::{
    AnswerFrame, AnswerSummary, AskOptions, Message, MessageId, ModelName, Part, Payload, Terminal,
    Usage, pb,
};
use bytes::Bytes;
use futures::StreamExt;
use secrecy::SecretString;

use crate::{
    Client, Endpoint, Error,
    fake::{FakeBroker, soon},
};

fn question(parts: Vec<Part>) -> Message {
    let payload = Payload { request: parts, ..Payload::default() };
    Message::consultation(MessageId::from_u128(1), ModelName::parse("opus").unwrap(), payload)
}

fn said(text: &str) -> Vec<AnswerFrame> {
    let data = Bytes::copy_from_slice(text.as_bytes());
    vec![
        AnswerFrame::PartStart { attempt: 1, part: 0, opening: Part::text("") },
        AnswerFrame::PartDelta { attempt: 1, part: 0, offset: 0, data },
    ]
}

fn done() -> AnswerFrame {
    AnswerFrame::Terminal(Box::new(Terminal::Done(AnswerSummary {
        message_id: MessageId::from_u128(1),
        asked: ModelName::parse("opus").unwrap(),
        model: None,
        agent: None,
        is_degraded: false,
        is_simulated: false,
        stop_reason: None,
        attempts: Vec::new(),
        passed_over: Vec::new(),
        usage: Usage::default(),
        cost_usd: None,
        not_appended: None,
        shortened: None,
    })))
}

async fn ask(broker: &FakeBroker, frames: Vec<AnswerFrame>) -> crate::AnswerStream {
    *broker.script().answer.lock().unwrap() = frames;
    let client = Client::connect(&broker.endpoint()).await.unwrap();
    client.ask(question(vec![Part::text("?")]), AskOptions::default()).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_collected_up_to_its_terminal_frame() {
    let broker = FakeBroker::start();
    let frames = [said("hello"), vec![done()], said("never read")].concat();
    assert_eq!(ask(&broker, frames).await.collect().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_stream_that_ends_without_a_terminal_frame_is_an_error() {
    let broker = FakeBroker::start();
    let mut answer = ask(&broker, said("half")).await;
    assert!(answer.next().await.unwrap().is_ok() && answer.next().await.unwrap().is_ok());
    assert!(matches!(answer.next().await, Some(Err(Error::EndedEarly))));
    assert!(answer.next().await.is_none());
}

#[tokio::test]
async fn a_part_named_by_hash_is_fetched_into_the_answer() {
    let broker = FakeBroker::start();
    let closing = Some(broker.keep(Part::text("from the store")));
    let frames = [said(""), vec![AnswerFrame::PartEnd { attempt: 1, part: 0, closing }, done()]];
    let answer = ask(&broker, frames.concat()).await.collect().await.unwrap();
    assert_eq!(answer.text(), "from the store");
}

#[tokio::test]
async fn a_large_part_goes_up_in_chunks_before_the_question() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint()).await.unwrap();
    let large = Part::Text("x".repeat(600 * 1024));

    for _ in 0..2 {
        client.ask(question(vec![large.clone()]), AskOptions::default()).await.unwrap();
    }

    let chunks = broker.script().chunks.lock().unwrap().clone();
    assert_eq!(chunks[..2], [256 * 1024; 2]);
    assert_eq!(chunks.len(), 3, "the second question finds it there");
    let asked = broker.script().asked.lock().unwrap().clone();
    let parts = asked.into_iter().flat_map(|message| message.payload.unwrap().request);
    for part in parts {
        let Some(pb::part::Part::Ref(_)) = &part.part else { panic!("it is named by hash") };
        let part = Part::try_from(part).unwrap();
        assert_eq!(client.inline(vec![part]).await.unwrap()[0], large);
    }
}

#[tokio::test]
async fn content_that_is_not_what_its_hash_says_is_refused() {
    let broker = FakeBroker::start();
    let Part::Ref(part) = broker.keep(Part::text("right")) else { unreachable!() };
    let key = Bytes::copy_from_slice(&part.hash.0);
    let client = Client::connect(&broker.endpoint()).await.unwrap();
    for wrong in [&b"wrong"[..], b"", &[0; 5000]] {
        broker.script().content.lock().unwrap().insert(key.clone(), wrong.to_vec());
        assert!(matches!(client.fetch(part).await, Err(Error::Corrupt { .. })));
    }
}

#[tokio::test]
async fn nothing_listening_is_unreachable() {
    let dir = tempfile::TempDir::new().unwrap();
    let error = Client::connect(&Endpoint::unix(dir.path().join("none.sock"))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_call_after_the_broker_came_back_succeeds() {
    let mut broker = FakeBroker::start();
    *broker.script().answer.lock().unwrap() = vec![done()];
    let [noticed, unaware] = [broker.endpoint(), broker.endpoint()];
    let noticed = Client::connect(&noticed).await.unwrap();
    let unaware = Client::connect(&unaware).await.unwrap();
    for client in [&noticed, &unaware] {
        client.ask(question(vec![]), AskOptions::default()).await.unwrap();
    }

    broker.stop().await;
    let error = noticed.ask(question(vec![]), AskOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");

    broker.listen();
    for client in [noticed, unaware] {
        client.ask(question(vec![]), AskOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_broker_killed_in_the_middle_of_an_answer_is_unreachable() {
    // Its own runtime, so that ending that ends every connection at once, as a kill does.
    let house = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let broker = {
        let _inside = house.enter();
        FakeBroker::start()
    };
    broker.script().stays.store(true, Ordering::Relaxed);
    let mut answer = ask(&broker, said("half")).await;
    assert!(answer.next().await.unwrap().is_ok() && answer.next().await.unwrap().is_ok());

    house.shutdown_background();

    let error = soon(answer.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(answer.next().await.is_none());
}

#[tokio::test]
async fn a_token_never_shows_and_never_breaks_a_header() {
    let broker = FakeBroker::start();
    let client = Client::connect(&broker.endpoint()).await.unwrap();
    let client = client.with_token(SecretString::from("canary\n7"));
    assert!(!format!("{client:?}").contains("canary"));
    let error = client.ask(question(vec![]), AskOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Token) && !format!("{error:?}{error}").contains("canary"));
}
