//! An answer's stream: what an asker sees of one consultation, whatever becomes of agents and askers.

use std::time::Duration;

use broker_proto::{
    AnswerFrame, AskOptions, Failure, FailureClass, MessageState, ModelName, Part, SettleOutcome,
    Settlement, Terminal, Up, Usage,
};
use broker_tests::{Place, Plan, Reader, TestBroker, hello, question};
use bytes::Bytes;

fn restart() -> AskOptions {
    AskOptions { allow_restart: true, ..AskOptions::default() }
}

fn class_of(terminal: &Terminal) -> Option<FailureClass> {
    match terminal {
        Terminal::Failed { failure, .. } => Some(failure.class),
        Terminal::Done(_) | Terminal::Expired(_) | Terminal::Cancelled(_) => None,
    }
}

#[tokio::test]
async fn an_answer_streams_as_it_is_said_and_ends_once() {
    let broker = TestBroker::start().await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "who?"), AskOptions::default()).await;

    let mut work = agent.next().await;
    assert_eq!(work.question(), "who?");
    work.stream("one ").await;
    reader.until_text("one ").await;
    work.answer("two").await;
    let terminal = reader.end().await;

    assert_eq!(reader.text(), "one two");
    let Terminal::Done(summary) = terminal else { panic!("{terminal:?}") };
    assert_eq!(summary.model, ModelName::parse("opus").ok());
    assert_eq!(summary.attempts.len(), 1);
    assert!(matches!(reader.frames[0], AnswerFrame::Accepted(_)), "{:?}", reader.frames);
    assert!(matches!(reader.frames[1], AnswerFrame::Routed(_)), "{:?}", reader.frames);
}

/// I-6, I-35
#[tokio::test]
async fn every_end_is_one_terminal_frame() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;

    let mut failed = Reader::ask(&client, question("opus", "f"), AskOptions::default()).await;
    agent.next().await.fail(FailureClass::InvalidRequest).await;
    assert_eq!(class_of(&failed.end().await), Some(FailureClass::InvalidRequest));

    let asked = question("opus", "c");
    let id = asked.id;
    let mut cancelled = Reader::ask(&client, asked, AskOptions::default()).await;
    let work = agent.next().await;
    assert_eq!(client.cancel(id).await.unwrap(), MessageState::Cancelled);
    assert!(matches!(cancelled.end().await, Terminal::Cancelled(_)));
    work.cancelled().await;
    drop(work);

    let soon = AskOptions { deadline: Some(Duration::from_millis(300)), ..AskOptions::default() };
    let mut expired = Reader::ask(&client, question("opus", "e"), soon).await;
    let work = agent.next().await;
    assert!(matches!(expired.end().await, Terminal::Expired(_)));
    work.cancelled().await;
}

/// I-35
#[tokio::test]
async fn what_a_lost_attempt_said_is_never_joined_with_the_next() {
    let broker = TestBroker::start().await;
    let mut first = broker.link().await;
    let mut hello = hello(&broker.endpoint(), "a", &["opus"]).await;
    hello.is_exclusive = true;
    first.greet(hello.clone()).await.unwrap();
    first.say(Up::Credit { messages: 1, size_bytes: 1 << 20 }).await;
    let mut reader = Reader::ask(&broker.client(), question("opus", "hi"), restart()).await;
    let old = first.delivery().await;
    say(&first, old.number, old.attempt, 0, "old").await;
    reader.until_text("old").await;

    // A new process of the agent, which also repeats what its predecessor was about to say.
    hello.instance = "second".into();
    let mut second = broker.link().await;
    second.greet(hello).await.unwrap();
    second.say(Up::Credit { messages: 1, size_bytes: 1 << 20 }).await;
    let new = second.delivery().await;
    assert_eq!((new.number, new.attempt), (old.number, old.attempt + 1));
    let late = delta(old.attempt, 3, " late");
    second.say(Up::Part { delivery: old.number, frame: late }).await;
    say(&second, new.number, new.attempt, 0, "new").await;
    reader.until_text("new").await;

    let restarted = |frame: &AnswerFrame| matches!(frame, AnswerFrame::Restarted { .. });
    assert_eq!(reader.frames.iter().filter(|frame| restarted(frame)).count(), 1);
    let of_late = |frame: &AnswerFrame| matches!(frame, AnswerFrame::PartDelta { data, .. } if data == " late");
    assert!(!reader.frames.iter().any(of_late), "{:?}", reader.frames);
}

async fn say(link: &broker_tests::RawLink, delivery: u64, attempt: u32, offset: u64, text: &str) {
    let start = AnswerFrame::PartStart { attempt, part: 0, opening: Part::text("") };
    link.say(Up::Part { delivery, frame: start }).await;
    link.say(Up::Part { delivery, frame: delta(attempt, offset, text) }).await;
}

fn delta(attempt: u32, offset: u64, text: &str) -> AnswerFrame {
    let data = Bytes::copy_from_slice(text.as_bytes());
    AnswerFrame::PartDelta { attempt, part: 0, offset, data }
}

#[tokio::test]
async fn shown_text_of_a_lost_agent_ends_as_failed_with_it() {
    let broker = TestBroker::start().await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).exclusive()).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("half").await;
    reader.until_text("half").await;

    agent.restart().await;

    let end = reader.end().await;
    assert_eq!(class_of(&end), Some(FailureClass::AgentLost));
    assert_eq!(reader.text(), "half");
    let poll = broker.client().poll(end.summary().message_id, Duration::ZERO).await.unwrap();
    assert_eq!(poll.parts, [Part::text("half")], "who comes later finds it too");
}

/// I-17
#[tokio::test]
async fn a_lost_agent_whose_text_nobody_saw_is_followed_by_its_next_instance() {
    let broker = TestBroker::start().await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).exclusive()).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let lost = agent.next().await;

    agent.restart().await;
    drop(lost);
    agent.answer("whole").await;

    let terminal = reader.end().await;
    assert!(matches!(terminal, Terminal::Done(_)), "{terminal:?}");
    assert_eq!(reader.text(), "whole");
    let classes: Vec<_> =
        terminal.summary().attempts.iter().map(|a| a.failure.as_ref().map(|f| f.class)).collect();
    assert_eq!(classes, [Some(FailureClass::AgentLost), None]);
}

/// I-35
#[tokio::test]
async fn a_failure_after_shown_text_restarts_and_switches_only_where_the_asker_allowed_it() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut opus = broker.agent("opus", &["opus"]).await;
    let mut sonnet = broker.agent("sonnet", &["sonnet"]).await;

    let mut strict = Reader::ask(&client, question("opus", "a"), AskOptions::default()).await;
    let mut work = opus.next().await;
    work.stream("cut").await;
    strict.until_text("cut").await;
    work.fail(FailureClass::Truncated).await;
    assert_eq!(class_of(&strict.end().await), Some(FailureClass::Truncated));
    assert_eq!(strict.text(), "cut");

    let mut relaxed = Reader::ask(&client, question("opus", "b"), restart()).await;
    for text in ["first", "second"] {
        let mut work = opus.next().await;
        work.stream(text).await;
        relaxed.until_text(text).await;
        work.fail(FailureClass::Truncated).await;
    }
    sonnet.answer("third").await;
    assert!(matches!(relaxed.end().await, Terminal::Done(_)));
    assert_eq!(relaxed.text(), "third");
    let marks: Vec<&str> = relaxed
        .frames
        .iter()
        .filter_map(|frame| match frame {
            AnswerFrame::Restarted { .. } => Some("restarted"),
            AnswerFrame::Switched { .. } => Some("switched"),
            _ => None,
        })
        .collect();
    assert_eq!(marks, ["restarted", "switched"]);
}

#[tokio::test]
async fn what_arrived_before_a_failure_can_be_read_again() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut reader = Reader::ask(&client, asked, AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("half").await;
    reader.until_text("half").await;
    work.fail(FailureClass::Truncated).await;
    reader.end().await;

    let poll = client.poll(id, Duration::ZERO).await.unwrap();

    assert_eq!(poll.state, MessageState::Failed);
    assert_eq!(poll.parts, [Part::text("half")]);
}

#[tokio::test]
async fn an_answer_larger_than_its_slot_is_never_a_clean_end() {
    let settings = "[streams]\nslot_bytes = \"64 KiB\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;

    let mut work = agent.next().await;
    work.stream("shown").await;
    reader.until_text("shown").await;
    work.stream(&"x".repeat(65 * 1024)).await;
    work.cancelled().await;

    assert_eq!(class_of(&reader.end().await), Some(FailureClass::MalformedReply));
}

#[tokio::test]
async fn the_reply_names_every_candidate_that_was_not_called() {
    let models = r#"
[routing]
agent_grace = "0ms"
[[models]]
name = "blind"
provider = "anthropic"
id = "x"
vision = false
fallback = ["absent", "seeing"]
[[models]]
name = "absent"
provider = "anthropic"
id = "y"
[[models]]
name = "seeing"
provider = "anthropic"
id = "z"
"#;
    let broker = TestBroker::with(Place::Memory, models).await;
    let mut agent = broker.agent("a", &["blind", "seeing"]).await;
    let mut asked = question("blind", "what is this?");
    let image =
        Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"\x89PNG") };
    asked.payload.request.push(image);

    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    agent.answer("a picture").await;

    let terminal = reader.end().await;
    let passed = &terminal.summary().passed_over;
    let passed: Vec<_> = passed.iter().map(|p| (p.model.as_str(), p.reason.as_str())).collect();
    assert_eq!(passed, [("blind", "cannot see images"), ("absent", "no agent serves it")]);
}

/// I-22
#[tokio::test]
async fn a_question_is_not_delivered_at_or_after_its_deadline() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let busy = Reader::ask(&client, question("opus", "busy"), AskOptions::default()).await;
    let work = agent.next().await;
    let soon = AskOptions { deadline: Some(Duration::from_millis(100)), ..AskOptions::default() };
    let mut late = Reader::ask(&client, question("opus", "late"), soon).await;

    assert!(matches!(late.end().await, Terminal::Expired(_)));
    work.answer("").await;
    drop(busy);

    let mut next = Reader::ask(&client, question("opus", "next"), AskOptions::default()).await;
    let work = agent.next().await;
    assert_eq!(work.question(), "next");
    work.answer("in time").await;
    next.end().await;
}

/// I-35, I-37
#[tokio::test]
async fn a_stopping_broker_says_so_and_never_ends_a_stream_cleanly() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let mut work = agent.next().await;
    work.stream("half ").await;
    reader.until_text("half ").await;

    broker.stop().await;
    let broken = reader.next().await.unwrap().unwrap_err();
    assert_eq!(broken.reason(), Some("STOPPING"));
    broker.restart().await;
    let mut reader = reader.back(&broker.client(), id, false).await;
    work.answer("whole").await;

    assert!(matches!(reader.end().await, Terminal::Done(_)));
    assert_eq!(reader.text(), "half whole");
}

#[tokio::test]
async fn a_part_that_only_began_was_never_shown() {
    let broker = TestBroker::start().await;
    let mut link = broker.link().await;
    link.greet(hello(&broker.endpoint(), "a", &["opus"]).await).await.unwrap();
    link.say(Up::Credit { messages: 2, size_bytes: 1 << 20 }).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let first = link.delivery().await;
    let start = AnswerFrame::PartStart { attempt: 1, part: 0, opening: Part::text("") };
    link.say(Up::Part { delivery: first.number, frame: start }).await;
    let failure = Failure::new(FailureClass::Truncated, "anthropic", "cut");
    let outcome = SettleOutcome::Failed { failure, partial: Vec::new() };
    link.say(Up::Settle(vec![Settlement {
        lease: first.lease,
        outcome,
        usage: Usage::default(),
        limits: Vec::new(),
        first_token: None,
    }]))
    .await;

    let second = link.delivery().await;
    say(&link, second.number, second.attempt, 0, "after all").await;

    reader.until_text("after all").await;
}
