//! What was acknowledged holds, whatever kills the broker.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use broker_client::{Assembly, Follow, Source, Step};
use broker_proto::{
    AgentName, AskOptions, Failure, FailureClass, Message, MessageState, MessageType, Part,
    Recipient, Terminal, WallTime,
};
use broker_tests::{
    Place, Plan, Reader, TestBroker, TestDaemon, new_id, question, text_payload, within,
};
use tokio_util::task::TaskTracker;

/// Agents are waited for as long as the test takes to bring them.
const PATIENT: &str = "[routing]\nagent_grace = \"10m\"\n";

fn status(to: &str, text: &str) -> Message {
    let to = Recipient::Agent(AgentName::parse(to).unwrap());
    Message::new(new_id(), to, MessageType::Status, text_payload(text))
}

/// I-1, I-20
#[tokio::test]
async fn questions_that_waited_when_the_broker_was_killed_are_each_answered_once() {
    let mut broker = TestDaemon::start(PATIENT).await;
    let mut asked = Vec::new();
    for number in 0..5 {
        let message = question("opus", &format!("question {number}"));
        asked.push(message.id);
        broker.client().submit(message, AskOptions::default()).await.unwrap();
    }

    broker.restart().await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(8)).await;
    let mut questions = BTreeSet::new();
    for _ in 0..5 {
        let work = agent.next().await;
        assert!(questions.insert(work.question()), "delivered twice: {}", work.question());
        let answer = format!("answer to {}", work.question());
        work.answer(&answer).await;
    }

    for (number, id) in asked.into_iter().enumerate() {
        let poll = broker.client().poll(id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(poll.parts, [Part::text(format!("answer to question {number}"))]);
        assert_eq!(poll.summary.unwrap().attempts.len(), 1);
    }
    assert!(agent.at_hand().is_none());
}

/// I-16, I-37
#[tokio::test]
async fn an_answer_under_way_survives_the_brokers_death_with_one_call_and_every_word() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).exclusive()).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("one ").await;
    reader.until_text("one ").await;

    broker.kill();
    work.stream("two ").await;
    let broken = reader.next().await.unwrap().unwrap_err();
    assert!(broken.is_connection(), "{broken:?}");
    broker.restart().await;
    let mut reader = reader.back(&broker.client(), id, false).await;
    reader.until_text("one two ").await;
    work.answer("three").await;

    let terminal = reader.end().await;
    assert!(matches!(terminal, Terminal::Done(_)), "{terminal:?}");
    assert_eq!(reader.text(), "one two three");
    assert_eq!(terminal.summary().attempts.len(), 1);
    assert!(agent.at_hand().is_none(), "the agent kept its lease");
}

/// I-18
#[tokio::test]
async fn an_acknowledged_settlement_is_never_delivered_again() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"])).await;
    let asked = question("opus", "first");
    let id = asked.id;
    broker.client().submit(asked.clone(), AskOptions::default()).await.unwrap();
    agent.answer("once").await;

    broker.restart().await;
    let next = question("opus", "next");
    broker.client().submit(next, AskOptions::default()).await.unwrap();

    assert_eq!(agent.next().await.question(), "next");
    let poll = broker.client().poll(id, Duration::ZERO).await.unwrap();
    assert_eq!((poll.state, poll.parts), (MessageState::Done, vec![Part::text("once")]));
}

/// I-2, I-7
#[tokio::test]
async fn the_same_id_is_the_same_question_over_a_restart() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(2)).await;
    let (answered, waiting) = (question("opus", "answered"), question("opus", "waiting"));
    let options = AskOptions::default;
    let first = broker.client().submit(answered.clone(), options()).await.unwrap();
    agent.answer("once").await;
    broker.client().submit(waiting.clone(), options()).await.unwrap();
    let held = agent.next().await;

    broker.restart().await;
    let client = broker.client();

    let again = client.submit(answered.clone(), options()).await.unwrap();
    assert!(again.is_duplicate && !first.is_duplicate);
    assert_eq!(again.accepted_at, first.accepted_at);
    assert!(client.submit(waiting.clone(), options()).await.unwrap().is_duplicate);
    let mut reader = Reader::attach(&client, answered.id).await;
    reader.end().await;
    assert_eq!(reader.text(), "once");
    let other = Message { id: waiting.id, ..question("opus", "another") };
    assert_eq!(client.submit(other, options()).await.unwrap_err().reason(), Some("ID_REUSED"));
    held.answer("and once").await;
    assert!(agent.at_hand().is_none());
}

/// I-9
#[tokio::test]
async fn the_sequence_of_a_queue_rises_over_restarts() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"])).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        broker.client().submit(question("opus", "hi"), AskOptions::default()).await.unwrap();
        let work = agent.next().await;
        numbers.push(work.delivery().number);
        work.answer("done").await;
        broker.restart().await;
        agent.until_linked().await;
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// I-1, I-3
#[tokio::test]
async fn every_acknowledged_send_survives_a_kill_in_the_middle_of_many_and_none_is_half() {
    let mut broker = TestDaemon::start("").await;
    broker.client().create_token(&AgentName::parse("box").unwrap()).await.unwrap();
    let (acked, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let senders = TaskTracker::new();
    for sender in 0..8 {
        let (client, acked) = (broker.client(), acked.clone());
        senders.spawn(async move {
            for number in 0.. {
                // Some large enough to lie apart.
                let text = format!("{sender}/{number} {}", "x".repeat(number % 3 * 40_000));
                let message = status("box", &text);
                let id = message.id;
                if client.send(message, false).await.is_err() {
                    return;
                }
                let _ = acked.send((id, text));
            }
        });
    }
    drop(acked);
    let mut sent = Vec::new();
    while sent.len() < 60 {
        sent.push(broker_tests::within("an acknowledged send", seen.recv()).await.unwrap());
    }

    broker.kill();
    while let Some(last) = broker_tests::within("the last send", seen.recv()).await {
        sent.push(last);
    }
    senders.close();
    senders.wait().await;
    broker.restart().await;

    let client = broker.client();
    for (id, text) in sent {
        let (info, payload) = client.message(id, true).await.unwrap();
        assert_eq!(info.state, MessageState::Queued);
        assert!(payload.unwrap().request == [Part::text(text)], "{id} is whole");
    }
    let mut page = broker_client::ListFilter { page_size: 1000, ..Default::default() };
    loop {
        let listed = client.messages(page.clone()).await.unwrap();
        for info in listed.items {
            client.message(info.id, true).await.unwrap();
        }
        if listed.next_page_token.is_none() {
            break;
        }
        page.page_token = listed.next_page_token;
    }
}

#[tokio::test]
async fn tokens_and_what_providers_said_survive_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let mut reader = Reader::ask(&broker.client(), question("opus", "hi"), alone()).await;
    let now = WallTime::from_system(SystemTime::now());
    let limit = Failure {
        retry_at: Some(now.after(Duration::from_secs(600))),
        ..Failure::new(FailureClass::QuotaExhausted, "anthropic", "used up")
    };
    agent.next().await.fail_with(limit.clone()).await;
    reader.end().await;
    let opus = async |broker: &TestBroker| {
        let models = broker.client().models().await.unwrap();
        models.into_iter().find(|model| model.name.as_str() == "opus").unwrap()
    };
    let before = opus(&broker).await;
    assert_eq!((before.level.as_str(), before.unavailable_until), ("EXHAUSTED", limit.retry_at));

    broker.restart().await;

    agent.until_linked().await;
    assert_eq!(opus(&broker).await, before);
}

fn alone() -> AskOptions {
    AskOptions { no_fallback: true, ..AskOptions::default() }
}

/// I-16
#[tokio::test]
async fn a_lease_runs_again_at_full_length_after_a_restart_and_then_ends() {
    let settings = "[links]\nlease = \"1s\"\nheartbeat = \"200ms\"\n";
    let mut broker = TestDaemon::start(settings).await;
    let mut lost = broker.agent_as(Plan::new("lost", &["opus"])).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    broker.client().submit(asked, AskOptions::default()).await.unwrap();
    let work = lost.next().await;
    broker.kill();
    lost.crash();
    drop(work);

    broker.restart().await;
    let mut other = broker.agent_as(Plan::new("other", &["opus"])).await;
    assert!(other.at_hand().is_none(), "the lease of the lost one still holds");
    other.answer("done").await;

    let poll = broker.client().poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("done")]);
}

#[tokio::test]
async fn a_broker_that_is_asked_to_stop_ends_in_order_and_forgets_nothing() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"])).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let work = agent.next().await;

    assert_eq!(broker.terminate(), Some(0));
    assert!(!broker.endpoint().socket().exists());
    broker.restart().await;
    let mut reader = reader.back(&broker.client(), id, false).await;
    work.answer("whole").await;

    assert!(matches!(reader.end().await, Terminal::Done(_)));
    assert_eq!(reader.text(), "whole");
}

#[tokio::test]
async fn a_second_broker_on_the_same_folder_is_refused() {
    let broker = TestDaemon::start("").await;

    let second = broker_tests::Program::new("brokerd")
        .args(&["--data-dir", &broker.data_dir().display().to_string()])
        .env("BROKER_BROKER_SOCKET", broker.data_dir().join("other.sock"))
        .output()
        .await;

    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("another broker uses the data folder"), "{}", second.stderr);
    broker.client().ping(None).await.unwrap();
}

/// I-19, I-20
#[tokio::test]
async fn settlements_under_way_when_the_broker_is_killed_end_their_questions_once() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(32)).await;
    let mut asked = Vec::new();
    for number in 0..24 {
        let message = question("opus", &format!("question {number}"));
        asked.push(message.id);
        broker.client().submit(message, AskOptions::default()).await.unwrap();
    }
    let settling = TaskTracker::new();
    for _ in 0..24 {
        let work = agent.next().await;
        let answer = format!("answer to {}", work.question());
        settling.spawn(async move { work.answer(&answer).await });
    }
    // Some were heard, some were not, some were heard and their answer is lost.
    let first = broker.client().poll(asked[0], Duration::from_secs(20)).await.unwrap();
    assert_eq!(first.state, MessageState::Done);

    broker.restart().await;
    settling.close();
    broker_tests::within("every settlement", settling.wait()).await;

    for (number, id) in asked.into_iter().enumerate() {
        let poll = broker.client().poll(id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(poll.parts, [Part::text(format!("answer to question {number}"))]);
        assert_eq!(poll.summary.unwrap().attempts.len(), 1);
    }
    assert!(agent.at_hand().is_none());
}

/// I-5
#[tokio::test]
async fn bytes_that_are_not_what_was_acknowledged_are_never_delivered() {
    let settings = format!("{PATIENT}\n{}", broker_tests::MODELS);
    let mut broker = TestBroker::with(Place::Folder, &settings).await;
    let (damaged, whole) = (question("opus", "flip a bit of me"), question("opus", "leave me"));
    for message in [&damaged, &whole] {
        broker.client().submit(message.clone(), AskOptions::default()).await.unwrap();
    }
    broker.stop().await;
    flip_a_bit(&broker.data_dir().join("journal.db"), b"flip a bit");

    broker.restart().await;
    let mut agent = broker.agent("a", &["opus"]).await;

    assert_eq!(agent.next().await.question(), "leave me");
    let (info, _) = broker.client().message(damaged.id, false).await.unwrap();
    assert_eq!(info.state, MessageState::Dead);
    assert!(info.failure.unwrap().detail.contains("CORRUPT"));
}

/// I-32
#[tokio::test]
async fn a_store_is_looked_at_as_a_whole_without_starting_on_it() {
    let mut broker = TestDaemon::start("").await;
    let message = question("opus", "flip a bit of me");
    broker.client().submit(message, AskOptions::default()).await.unwrap();
    let (used, _) = broker.check().await;
    assert!(!used.success(), "a broker runs on it");
    broker.terminate();

    let (whole, log) = broker.check().await;
    flip_a_bit(&broker.data_dir().join("journal.db"), b"flip a bit");
    let (damaged, said) = broker.check().await;

    assert!(whole.success(), "{log}");
    assert!(!damaged.success());
    assert!(said.contains("journal.db") && said.contains("content"), "{said}");
}

/// As a failing disk would, where `text` is stored.
fn flip_a_bit(store: &Path, text: &[u8]) {
    let store = rusqlite::Connection::open(store).unwrap();
    let mut read = store.prepare("SELECT copy, bytes FROM contents").unwrap();
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut rows = rows.map(|row| row.unwrap());
    let place = |bytes: &Vec<u8>| bytes.windows(text.len()).position(|window| window == text);
    let (copy, mut bytes): (i64, Vec<u8>) = rows.find(|(_, bytes)| place(bytes).is_some()).unwrap();
    let place = place(&bytes).unwrap();
    bytes[place] ^= 1;
    let changed = store.execute("UPDATE contents SET bytes = ?1 WHERE copy = ?2", (bytes, copy));
    assert_eq!(changed.unwrap(), 1);
}

/// I-1, I-35, I-37: an asker whose broker was killed under a running stream comes back to it and misses nothing.
#[tokio::test]
async fn an_asker_comes_back_by_itself_to_the_stream_that_a_killed_broker_broke() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"])).await;
    let source = Source::Ask(Box::new(question("opus", "hi")), AskOptions::default());
    let mut follow = Follow::new(broker.client(), source);
    let mut assembly = Assembly::default();
    let mut breaks = 0;
    let mut work = None;

    while let Some(step) = within("a step of the answer", follow.next()).await.unwrap() {
        match step {
            Step::Frame(frame) => assembly.push(frame).unwrap(),
            Step::Broken(_) => {
                breaks += 1;
                broker.restart().await;
            }
            Step::Back => agent.until_linked().await,
        }
        if work.is_none() && breaks == 0 && assembly.receipt().is_some() {
            let mut taken = agent.next().await;
            taken.stream("the first half, ").await;
            work = Some(taken);
        }
        if assembly.text() == "the first half, " && breaks == 0 {
            broker.kill();
        }
        if breaks == 1
            && let Some(work) = work.take()
        {
            work.answer("and the second").await;
            breaks = 2;
        }
    }

    assert_eq!(assembly.text(), "the first half, and the second");
    assert_eq!(breaks, 2, "it was broken once, and answered behind that");
    let terminal = assembly.terminal().unwrap();
    assert_eq!(terminal.summary().attempts.len(), 1, "{terminal:?}");
}

/// I-16, I-18: a stop in order under load loses nothing, and the work goes on at the next broker.
#[tokio::test]
async fn a_stop_under_load_loses_nothing() {
    let mut broker = TestDaemon::start("").await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(4)).await;
    let client = broker.client();
    let mut ids = Vec::new();
    for _ in 0..20 {
        let asked = question("opus", "hi");
        ids.push(asked.id);
        client.submit(asked, AskOptions { keep: true, ..AskOptions::default() }).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(agent.next().await);
    }

    assert_eq!(broker.terminate(), Some(0));
    broker.restart().await;

    for work in held {
        work.answer("done").await;
    }
    for _ in 4..20 {
        agent.answer("done").await;
    }
    for id in ids {
        let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(poll.state, MessageState::Done);
        assert_eq!(poll.summary.unwrap().attempts.len(), 1, "no lease was lost");
    }
}
