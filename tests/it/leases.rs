//! Leases: who works on what, until when, and what ends it.

use std::time::{Duration, Instant};

use broker_proto::{
    AgentName, AskOptions, Delivery, Down, FailureClass, MessageState, Part, Terminal,
};
use broker_tests::{Place, Plan, RawLink, Reader, TestBroker, hello, question};

/// I-29
#[tokio::test]
async fn an_agent_that_never_reads_holds_nobody_up() {
    let settings = "[links]\nlease = \"1s\"\nheartbeat = \"200ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let client = broker.client();
    let deaf = RawLink::greeted(&broker.endpoint(), "deaf").await;
    deaf.grant(4).await;
    let mut agent = broker.agent_as(Plan::new("well", &["opus"]).capacity(4)).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let asked = question("opus", "hi");
        ids.push(asked.id);
        client.submit(asked, AskOptions::default()).await.unwrap();
    }

    for _ in 0..20 {
        agent.answer("done").await;
    }

    for id in ids {
        let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(poll.state, MessageState::Done);
    }
    drop(deaf);
}

/// I-13, I-14
#[tokio::test]
async fn a_silent_agents_lease_ends_and_its_late_settlement_is_fenced() {
    let settings = "[links]\nlease = \"1s\"\nheartbeat = \"200ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let client = broker.client();
    let mut silent = RawLink::greeted(&broker.endpoint(), "silent").await;
    silent.grant(1).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let lost = silent.delivery().await;
    let mut other = broker.agent("other", &["opus"]).await;

    let work = other.next().await;
    assert_eq!(work.delivery().attempt, lost.attempt + 1);
    assert_ne!(work.delivery().lease, lost.lease);
    silent.settle(&lost.lease, "too late").await;
    let settled = silent.settled().await;
    assert_eq!(settled.refused.unwrap().reason, "LEASE_LOST");
    work.answer("in time").await;

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("in time")]);
}

/// I-14, I-20
#[tokio::test]
async fn a_stale_token_takes_nothing_from_the_answer_of_the_new_lease() {
    let settings = "[links]\nlease = \"1s\"\nheartbeat = \"200ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut link = RawLink::greeted(&broker.endpoint(), "forgetful").await;
    link.grant(2).await;
    let asked = question("opus", "hi");
    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    let lost = link.delivery().await;
    let held = link.delivery().await;
    assert_eq!(held.attempt, lost.attempt + 1);

    link.settle(&lost.lease, "stale").await;
    assert_eq!(link.settled().await.refused.unwrap().reason, "LEASE_LOST");
    link.settle(&held.lease, "fresh").await;

    assert!(matches!(reader.end().await, Terminal::Done(_)));
    assert_eq!(reader.text(), "fresh");
}

/// I-15
#[tokio::test]
async fn a_heartbeat_keeps_a_lease_over_its_first_length() {
    let settings = "[links]\nlease = \"2s\"\nheartbeat = \"100ms\"\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let client = broker.client();
    let mut agent = broker.agent("a", &["opus"]).await;
    let asked = question("opus", "slow");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let work = agent.next().await;
    // Another agent's lease, which nobody renews, ends: by then the first would have ended long ago.
    let mut silent = RawLink::greeted(&broker.endpoint(), "silent").await;
    silent.grant(1).await;
    client.submit(question("opus", "lost"), AskOptions::default()).await.unwrap();
    silent.delivery().await;
    loop {
        if let Down::Revoke { .. } = silent.hear().await.unwrap() {
            break;
        }
    }

    work.answer("done").await;

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!((poll.state, poll.summary.unwrap().attempts.len()), (MessageState::Done, 1));
}

/// I-25
#[tokio::test]
async fn too_many_lost_leases_make_a_dead_letter() {
    let settings = "[links]\nmax_lost_leases = 2\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let client = broker.client();
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).exclusive()).await;
    let asked = question("opus", "poison");
    let id = asked.id;
    let mut reader = Reader::ask(&client, asked, AskOptions::default()).await;

    for _ in 0..2 {
        let work = agent.next().await;
        agent.restart().await;
        drop(work);
    }

    let terminal = reader.end().await;
    let Terminal::Failed { failure, summary } = terminal else { panic!("{terminal:?}") };
    assert_eq!((failure.class, summary.attempts.len()), (FailureClass::AgentLost, 2));
    assert_eq!(client.message(id, false).await.unwrap().0.state, MessageState::Dead);
}

/// I-17
#[tokio::test]
async fn losing_the_stream_does_not_end_the_lease() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let hello = hello(&broker.endpoint(), "a", &["opus"]).await;
    let mut link = broker.link().await;
    link.greet(hello.clone()).await.unwrap();
    link.grant(1).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let held = link.delivery().await;

    drop(link);
    let mut link = broker.link().await;
    let resume = vec![held.lease.clone()];
    let resumed = link.greet(broker_proto::Hello { resume, ..hello }).await.unwrap();
    assert_eq!(resumed, std::slice::from_ref(&held.lease));
    link.settle(&held.lease, "after all").await;
    assert_eq!(link.settled().await.refused, None);

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("after all")]);
    assert_eq!(poll.summary.unwrap().attempts.len(), 1);
}

/// I-19
#[tokio::test]
async fn settling_again_with_the_same_token_is_fine_and_changes_nothing() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut link = RawLink::greeted(&broker.endpoint(), "a").await;
    link.grant(1).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let Delivery { lease, .. } = link.delivery().await;

    for text in ["first", "second"] {
        link.settle(&lease, text).await;
        assert_eq!(link.settled().await.refused, None);
    }
    link.settle("forged", "third").await;
    assert_eq!(link.settled().await.refused.unwrap().reason, "LEASE_LOST");

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("first")]);
}

/// I-14
#[tokio::test]
async fn a_lease_is_of_its_agent_alone() {
    let broker = TestBroker::start().await;
    let mut holder = RawLink::greeted(&broker.endpoint(), "holder").await;
    holder.grant(1).await;
    broker.client().submit(question("opus", "hi"), AskOptions::default()).await.unwrap();
    let held = holder.delivery().await;
    let mut thief = RawLink::greeted(&broker.endpoint(), "thief").await;

    thief.settle(&held.lease, "mine").await;
    assert_eq!(thief.settled().await.refused.unwrap().reason, "LEASE_LOST");
    holder.settle(&held.lease, "ours").await;
    assert_eq!(holder.settled().await.refused, None);
}

/// I-17
#[tokio::test]
async fn work_given_back_goes_to_another_at_once_and_counts_no_attempt() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut one = broker.agent("one", &["opus"]).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let work = one.next().await;
    let mut two = broker.agent("two", &["opus"]).await;

    drop(work);
    one.drain(Duration::ZERO).await;
    two.answer("done").await;

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    let summary = poll.summary.unwrap();
    assert_eq!((summary.attempts.len(), summary.agent), (1, AgentName::parse("two").ok()));
}

#[tokio::test]
async fn a_draining_agent_settles_what_it_has_and_takes_nothing_new() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(2)).await;
    let asked = question("opus", "hi");
    let id = asked.id;
    client.submit(asked, AskOptions::default()).await.unwrap();
    let work = agent.next().await;

    let late = question("opus", "late");
    let late_id = late.id;
    let draining = agent.drain(Duration::from_secs(20));
    tokio::join!(draining, async {
        client.submit(late, AskOptions::default()).await.unwrap();
        work.answer("settled").await;
    });

    let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("settled")]);
    assert!(!client.message(late_id, false).await.unwrap().0.state.is_terminal());
    assert!(client.agents().await.unwrap().is_empty(), "it has left");
}

/// I-21
#[tokio::test]
async fn a_providers_failures_do_not_wear_a_message_out() {
    let settings = "[links]\nmax_lost_leases = 1\n[routing]\nbreaker_failures = 9\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    let mut agent = broker.agent("a", &["opus", "sonnet"]).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;

    for _ in 0..3 {
        agent.next().await.fail(FailureClass::Overloaded).await;
    }
    agent.answer("at last").await;

    let terminal = reader.end().await;
    assert!(matches!(terminal, Terminal::Done(_)), "{terminal:?}");
    assert_eq!(terminal.summary().attempts.len(), 4);
}

/// I-16
#[tokio::test]
async fn a_killed_agents_work_is_anothers_within_17_seconds() {
    let broker = TestBroker::start().await;
    let mut lost = broker.agent("lost", &["opus"]).await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;
    let work = lost.next().await;
    let mut other = broker.agent("other", &["opus"]).await;
    let killed = Instant::now();

    lost.crash();
    drop(work);
    let work = other.next().await;

    let took = killed.elapsed();
    assert!(took <= Duration::from_secs(17), "{took:?}");
    assert_eq!(work.delivery().attempt, 2);
    work.answer("done").await;
    assert!(matches!(reader.end().await, Terminal::Done(_)));
}
