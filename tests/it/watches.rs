//! Watches: what they tell, and that a restart of the broker takes nothing from them.

use broker_client::{EventItem, TaskItem, Watch, Watched};
use broker_proto::{
    AskOptions, EventFilter, EventStart, Message, MessageId, MessageState, ModelName, Recipient,
    TaskSpec, TaskState,
};
use broker_tests::{TestDaemon, new_id, question, within};

/// The next item, and the words of the connection before it.
async fn next<I>(watch: &mut Watch<I>) -> (Option<I>, Vec<bool>) {
    let mut news = Vec::new();
    loop {
        match within("an item", watch.next()).await.unwrap() {
            Some(Watched::Item(item)) => return (Some(item), news),
            Some(Watched::Broken(_)) => {}
            Some(Watched::Back { is_whole }) => news.push(is_whole),
            None => return (None, news),
        }
    }
}

async fn asked(broker: &TestDaemon) -> MessageId {
    let asked = question("opus", "hi");
    broker.client().submit(asked.clone(), AskOptions::default()).await.unwrap();
    asked.id
}

/// I-30
#[tokio::test]
async fn events_go_on_behind_the_last_one_seen_when_the_broker_is_back() {
    let mut broker = TestDaemon::start("").await;
    let filter = EventFilter { kinds: vec!["accepted".into()], ..EventFilter::default() };
    let mut events = broker.client().follow_events(EventStart::First, filter);
    let message = |item: Option<EventItem>| match item {
        Some(EventItem::Event { event, .. }) => event.message.map(|(id, _)| id),
        _ => None,
    };
    let first = asked(&broker).await;
    assert_eq!(message(next(&mut events).await.0), Some(first));

    broker.restart().await;
    let second = asked(&broker).await;

    let (item, news) = next(&mut events).await;
    assert_eq!((message(item), news), (Some(second), vec![true]));
}

/// I-30
#[tokio::test]
async fn one_messages_watch_ends_with_it_after_a_restart() {
    let mut broker = TestDaemon::start("").await;
    let id = asked(&broker).await;
    let mut changes = broker.client().follow_messages(None, Some(id.into()));
    assert!(next(&mut changes).await.0.is_some());

    broker.restart().await;
    broker.client().cancel(id).await.unwrap();

    let mut last = None;
    while let (Some(item), _) = next(&mut changes).await {
        last = Some(item);
    }
    let broker_client::WatchItem::Change { change, .. } = last.unwrap() else { panic!("a gap") };
    assert_eq!((change.id, change.state), (id, MessageState::Cancelled));
}

/// I-30
#[tokio::test]
async fn a_tasks_watch_ends_with_it_after_a_restart() {
    let mut broker = TestDaemon::start("").await;
    let spec = TaskSpec { description: "write it".into(), ..TaskSpec::default() };
    let to = Recipient::Model(ModelName::parse("opus").unwrap());
    let task = Message::delegation(new_id(), to, spec);
    let id = task.id;
    broker.client().delegate(task, false).await.unwrap();
    let mut steps = broker.client().follow_task(id, None);
    assert!(next(&mut steps).await.0.is_some());

    broker.restart().await;
    broker.client().cancel_task(id).await.unwrap();

    let mut states = Vec::new();
    while let (Some(TaskItem::Change { change, .. }), _) = next(&mut steps).await {
        states.push(change.state);
    }
    assert_eq!(states.last(), Some(&TaskState::Cancelled));
}
