//! Messages to a role, and to all agents of a model.

use broker_proto::{Message, MessageState, MessageType, ModelName, Recipient, RoleName};
use broker_tests::{Place, Plan, TestBroker, new_id, text_payload};

fn role(name: &str) -> Recipient {
    Recipient::Role(RoleName::parse(name).unwrap())
}

fn all(name: &str) -> Recipient {
    Recipient::AgentsOf(ModelName::parse(name).unwrap())
}

fn status(to: Recipient, text: &str) -> Message {
    Message::new(new_id(), to, MessageType::Status, text_payload(text))
}

/// I-6: also by an agent that greets after a restart of the broker.
#[tokio::test]
async fn a_roles_queue_is_its_rings_and_outlives_the_broker() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let refused = client.send(status(role("reviewer"), "x"), false).await.unwrap_err();
    assert_eq!(refused.reason(), Some("UNKNOWN_ROLE"));
    let mut first = broker.agent_as(Plan::new("first", &[]).role("reviewer")).await;
    let mut second = broker.agent_as(Plan::new("second", &[]).role("reviewer")).await;
    for text in ["one", "two"] {
        client.send(status(role("reviewer"), text), false).await.unwrap();
    }
    let (one, two) = (first.next().await, second.next().await);
    assert_eq!((one.question(), two.question()), ("one".into(), "two".into()));
    assert_eq!(one.delivery().model, None);
    one.answer("").await;
    two.answer("").await;
    drop((first, second));

    broker.restart().await;
    let sent = status(role("reviewer"), "three");
    let id = sent.id;
    broker.client().send(sent, false).await.unwrap();
    let mut late = broker.agent_as(Plan::new("late", &[]).role("reviewer")).await;
    late.answer("").await;

    let listed =
        broker_client::ListFilter { to: Some("role:reviewer".into()), ..Default::default() };
    let page = broker.client().messages(listed).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id), (3, id));
}

/// I-6, I-7
#[tokio::test]
async fn each_agent_of_a_model_gets_a_copy_of_its_own() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let sent = status(all("opus"), "to you all");
    let id = sent.id;
    let refused = client.send(sent.clone(), false).await.unwrap_err();
    assert_eq!(refused.reason(), Some("NO_RECIPIENT"));
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        agents.push(broker.agent(name, &["opus"]).await);
    }
    agents.push(broker.agent("other", &["sonnet"]).await);

    client.send(sent.clone(), false).await.unwrap();
    assert!(client.send(sent, false).await.unwrap().is_duplicate);

    for (agent, name) in agents.iter_mut().zip(["a", "b", "c"]) {
        let work = agent.next().await;
        let message = work.delivery().message.clone();
        assert_eq!(work.question(), "to you all");
        assert_ne!(message.id, id);
        assert_eq!(message.correlation.parent, Some(id));
        assert_eq!(message.to, Recipient::parse(&format!("agent:{name}")).unwrap());
        work.answer("").await;
        let (copy, _) = client.message(message.id, false).await.unwrap();
        assert_eq!((copy.state, copy.correlation.parent), (MessageState::Done, Some(id)));
    }
    let (original, _) = client.message(id, false).await.unwrap();
    assert_eq!((original.state, original.copies), (MessageState::Done, 3));
    assert!(agents[0].at_hand().is_none() && agents[3].at_hand().is_none());
}
