//! Budgets from the street: what is reserved before a call holds whoever asks at once, and whatever kills the broker.

use std::time::Duration;

use broker_proto::{AskOptions, FailureClass, MessageState};
use broker_tests::{Place, Plan, TestBroker, TestDaemon, question};
use futures::future::join_all;

fn requests(limit: u32) -> String {
    format!(
        "[[budgets]]\nscope = \"namespace\"\nwindow = \"month\"\nunit = \"requests\"\nlimit = {limit}\n"
    )
}

fn alone() -> AskOptions {
    AskOptions { no_fallback: true, ..AskOptions::default() }
}

/// The broker dies between the reservation and the settlement.
#[tokio::test]
async fn the_last_call_of_a_budget_is_given_out_once_though_the_broker_is_killed() {
    let mut broker = TestDaemon::start(&requests(1)).await;
    let mut agent = broker.agent_as(Plan::new("a", &["opus"]).capacity(2).exclusive()).await;
    let first = question("opus", "first");
    let asked = first.id;
    broker.client().submit(first, alone()).await.unwrap();
    let work = agent.next().await;

    broker.kill();
    broker.restart().await;
    agent.until_linked().await;

    let refused = |failure: Option<broker_proto::Failure>| {
        let failure = failure.unwrap();
        assert_eq!(failure.class, FailureClass::Budget);
        assert!(failure.detail.contains("namespace month requests has 0 left of 1"), "{failure:?}");
    };
    let ask = async |text: &str| {
        let message = question("opus", text);
        let id = message.id;
        broker.client().submit(message, alone()).await.unwrap();
        broker.client().poll(id, Duration::from_secs(20)).await.unwrap()
    };
    refused(ask("while it is reserved").await.failure);
    work.answer("done").await;
    let poll = broker.client().poll(asked, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.state, MessageState::Done);
    refused(ask("when it is used").await.failure);
    let status = broker.client().usage_status(None).await.unwrap();
    assert_eq!(status.scopes[0].calls, 1);
    assert!(agent.at_hand().is_none());
}

#[tokio::test]
async fn of_many_that_ask_at_once_as_many_are_called_as_a_budget_has_room_for() {
    let broker = TestBroker::with(Place::Memory, &requests(5)).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        agents.push(broker.agent_as(Plan::new(name, &["opus"]).capacity(8)).await);
    }
    let asked: Vec<_> = (0..16).map(|nr| question("opus", &nr.to_string())).collect();
    let ask = |message: &broker_proto::Message| {
        let (client, message) = (broker.client(), message.clone());
        async move { client.submit(message, alone()).await.unwrap() }
    };
    join_all(asked.iter().map(ask)).await;

    let mut refused = 0;
    for message in &asked {
        let poll = broker.client().poll(message.id, Duration::ZERO).await.unwrap();
        if let Some(failure) = poll.failure {
            assert_eq!(failure.class, FailureClass::Budget);
            refused += 1;
        }
    }
    assert_eq!(refused, 11);
    let mut called = 0;
    for agent in &mut agents {
        while let Some(work) = agent.at_hand() {
            work.answer("done").await;
            called += 1;
        }
    }
    assert!(called <= 5, "{called}");
    // What was not on hand yet comes; a sixth never does.
    while called < 5 {
        let next = agents.iter_mut().map(|agent| Box::pin(agent.next()));
        let (work, ..) = futures::future::select_all(next).await;
        work.answer("done").await;
        called += 1;
    }
    let after = question("opus", "after");
    broker.client().submit(after.clone(), alone()).await.unwrap();
    let poll = broker.client().poll(after.id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.failure.map(|failure| failure.class), Some(FailureClass::Budget));
    assert!(agents.iter_mut().all(|agent| agent.at_hand().is_none()));
}
