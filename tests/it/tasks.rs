//! Tasks: given out, asked back, suspended, watched; over real sockets, and on the providers' wires.

use std::time::Duration;

use broker_client::{Client, Error, TaskFilter, TaskItem};
use broker_proto::{
    AgentName, Entry, FailureClass, Message, MessageId, ModelName, Part, Recipient, ResultType,
    Role, SettleOutcome, TaskDetail, TaskInput, TaskSpec, TaskState,
};
use broker_tests::{Place, TestBroker, TestHouse, eventually, new_id, within};
use futures::StreamExt as _;
use serde_json::{Value, json};

fn to(model: &str) -> Recipient {
    Recipient::Model(ModelName::parse(model).unwrap())
}

fn spec(description: &str) -> TaskSpec {
    TaskSpec { description: description.into(), ..TaskSpec::default() }
}

fn json_of(schema: &Value) -> ResultType {
    ResultType::Json { schema: Some(schema.to_string().into()) }
}

async fn give(client: &Client, to: Recipient, task: TaskSpec) -> MessageId {
    let id = new_id();
    client.delegate(Message::delegation(id, to, task), false).await.unwrap();
    id
}

async fn comes_to(client: &Client, id: MessageId, state: TaskState) -> TaskDetail {
    eventually(state.as_str(), async || {
        let task = client.task(id).await.unwrap();
        (task.info.state == state).then_some(task)
    })
    .await
}

fn question(text: &str) -> SettleOutcome {
    SettleOutcome::Ask { question: vec![Part::text(text)] }
}

#[track_caller]
fn reason(refused: Result<impl std::fmt::Debug, Error>) -> String {
    refused.unwrap_err().reason().unwrap_or_default().to_owned()
}

/// The words and states of a task's life.
async fn life(client: &Client, id: MessageId, cursor: Option<String>) -> Vec<(String, TaskState)> {
    let watch = client.watch_task(id, cursor).await.unwrap();
    let items = within("the end of the watch", watch.collect::<Vec<_>>()).await;
    let step = |item| match item {
        Ok(TaskItem::Change { change, .. }) => (change.change, change.state),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(step).collect()
}

#[tokio::test]
async fn a_task_asks_back_and_is_worked_on_with_the_answer() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let mut agent = broker.agent("opus", &["opus"]).await;
    let task = TaskSpec {
        inputs: vec![TaskInput {
            name: "draft".into(),
            parts: vec![Part::text("x".repeat(99_000))],
        }],
        ..spec("polish the draft")
    };
    let id = new_id();
    let mut message = Message::delegation(id, to("opus"), task.clone());
    let said = vec![Part::text("I like it short")];
    message.payload.context = vec![Entry { role: Role::User, name: String::new(), parts: said }];
    client.delegate(message.clone(), false).await.unwrap();
    assert!(client.delegate(message, false).await.unwrap().is_duplicate);

    let work = agent.next().await;
    assert_eq!(work.delivery().message.payload.task.as_deref(), Some(&task), "whole, by hash");
    work.settle_as(question("how short?")).await;
    let waits = comes_to(&client, id, TaskState::InputRequired).await;
    assert_eq!(waits.exchanges[0].question, [Part::text("how short?")]);
    assert_eq!(waits.exchanges[0].answered_at, None);

    broker.restart().await;
    let input = new_id();
    let answer = || vec![Part::text("ten words")];
    let provide = async |id, input, parts| client.provide_input(id, input, 1, parts).await;
    provide(id, input, answer()).await.unwrap();
    assert_eq!(reason(provide(id, input, vec![Part::text("other")]).await), "ID_REUSED");
    let work = agent.next().await;
    let exchange = work.delivery().exchanges[0].clone();
    assert_eq!((exchange.number, exchange.answer), (1, answer()));
    provide(id, input, answer()).await.expect("the same again changes nothing");
    work.answer("done in ten words").await;

    let done = comes_to(&client, id, TaskState::Completed).await;
    assert_eq!(done.result, [Part::text("done in ten words")]);
    assert_eq!(done.info.summary.unwrap().attempts.len(), 2);
    assert_eq!(provide(id, input, answer()).await.unwrap(), TaskState::Completed, "still known");
    assert_eq!(reason(provide(id, new_id(), answer()).await), "TASK_STATE");
    use TaskState::{Completed, InputRequired, Submitted, Working};
    let want = [
        ("submitted", Submitted),
        ("queued", Submitted),
        ("started", Working),
        ("asked", InputRequired),
        ("answered", Submitted),
        ("queued", Submitted),
        ("started", Working),
        ("finished", Completed),
    ];
    assert_eq!(life(&client, id, None).await, want.map(|(word, state)| (word.to_owned(), state)));
}

#[tokio::test]
async fn a_watch_goes_on_behind_its_cursor_while_the_task_lives() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("opus", &["opus"]).await;
    let id = give(&client, to("opus"), spec("wait for me")).await;
    let work = agent.next().await;
    let mut watch = client.watch_task(id, None).await.unwrap();
    let mut cursors = Vec::new();
    for want in ["submitted", "queued", "started"] {
        match within("a step", watch.next()).await {
            Some(Ok(TaskItem::Change { cursor, change })) if change.change == want => {
                cursors.push(cursor);
            }
            other => panic!("{want}: {other:?}"),
        }
    }
    work.answer("here").await;

    let last = ("finished".to_owned(), TaskState::Completed);
    match within("the end", watch.next()).await {
        Some(Ok(TaskItem::Change { change, .. })) => {
            assert_eq!((change.change, change.state), last);
        }
        other => panic!("{other:?}"),
    }
    assert!(within("the end", watch.next()).await.is_none());
    assert_eq!(life(&client, id, cursors.pop()).await, [last]);
    assert_eq!(reason(client.watch_task(id, Some("x".into())).await.map(drop)), "INVALID_FIELD");
}

/// I-37: suspending ends the work down to whoever does it, and keeps what was shown.
#[tokio::test]
async fn a_suspended_task_gives_its_agent_up_and_goes_on_later() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut agent = broker.agent("opus", &["opus"]).await;
    let id = give(&client, to("opus"), spec("count to a million")).await;
    let mut work = agent.next().await;
    work.stream("one, two").await;
    let mut asker = client.attach(id, broker_client::Seen::default(), true).await.unwrap();
    let shown = async { while !format!("{:?}", asker.next().await).contains("PartDelta") {} };
    within("the first words", shown).await;

    assert_eq!(client.suspend_task(id).await.unwrap(), TaskState::Suspended);
    work.cancelled().await;
    drop(work);
    let stopped = client.task(id).await.unwrap();
    assert_eq!(stopped.result, [Part::text("one, two")]);
    assert_eq!(reason(client.suspend_task(id).await), "TASK_STATE");
    assert_eq!(reason(client.provide_input(id, new_id(), 0, stopped.result).await), "TASK_STATE");

    client.resume_task(id).await.unwrap();
    agent.answer("a million").await;
    let done = comes_to(&client, id, TaskState::Completed).await;
    assert_eq!(done.result, [Part::text("a million")]);
    assert_eq!(reason(client.cancel_task(id).await), "TASK_STATE");
}

#[tokio::test]
async fn a_json_result_is_json_that_matches_or_the_next_attempt() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut opus = broker.agent("opus", &["opus"]).await;
    let schema = json!({"type": "object", "required": ["sum"]});
    let task = TaskSpec { result: json_of(&schema), ..spec("add") };
    let id = give(&client, to("opus"), task).await;
    opus.answer("the sum is 3").await;
    opus.answer("{\"sum\": 3}").await;

    let done = comes_to(&client, id, TaskState::Completed).await;
    assert_eq!(done.result_json.as_deref(), Some(&b"{\"sum\": 3}"[..]));
    let attempts = done.info.summary.unwrap().attempts;
    let class = attempts[0].failure.as_ref().map(|failure| failure.class);
    assert_eq!((attempts.len(), class), (2, Some(FailureClass::MalformedReply)));

    let task = TaskSpec { result: json_of(&json!({"$ref": "#/x"})), ..spec("add") };
    let refused = client.delegate(Message::delegation(new_id(), to("opus"), task), false).await;
    assert_eq!(reason(refused), "INVALID_FIELD");
}

#[tokio::test]
async fn an_agents_own_mailbox_takes_tasks_and_ends_them_by_its_word() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut scribe = broker.agent("scribe", &[]).await;
    let to = || Recipient::Agent(AgentName::parse("scribe").unwrap());
    let rejected = give(&client, to(), spec("paint")).await;
    scribe.next().await.settle_as(SettleOutcome::Reject { reason: "I write".into() }).await;
    let task = comes_to(&client, rejected, TaskState::Rejected).await;
    assert_eq!(task.info.failure.unwrap().detail, "I write");

    let failed = give(&client, to(), spec("write")).await;
    scribe.next().await.fail(FailureClass::Internal).await;
    comes_to(&client, failed, TaskState::Failed).await;

    let asked = give(&client, to(), spec("write more")).await;
    scribe.next().await.settle_as(question("what?")).await;
    comes_to(&client, asked, TaskState::InputRequired).await;
    client.cancel_task(asked).await.unwrap();

    let late = TaskSpec { deadline: Some(Duration::from_secs(1)), ..spec("now") };
    let late = give(&client, to(), late).await;
    let task = comes_to(&client, late, TaskState::Failed).await;
    assert_eq!(task.info.failure.unwrap().class, FailureClass::Timeout);

    let list = async |states: &[TaskState], page_token| {
        let filter = TaskFilter {
            states: states.to_vec(),
            to: Some("agent/scribe".into()),
            page_size: 2,
            page_token,
        };
        client.tasks(filter).await.unwrap()
    };
    let ids = |page: &broker_client::Page<broker_proto::TaskInfo>| -> Vec<MessageId> {
        page.items.iter().map(|task| task.id).collect()
    };
    let first = list(&[], None).await;
    assert_eq!(ids(&first), [late, asked]);
    assert_eq!(ids(&list(&[], first.next_page_token).await), [failed, rejected]);
    assert_eq!(ids(&list(&[TaskState::Failed], None).await), [late, failed]);
}

/// A message of another kind is no task, and an agent sees what it gave out itself and nothing else.
#[tokio::test]
async fn what_is_no_task_or_somebody_elses_is_not_shown() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let asked = broker_tests::question("opus", "why?");
    let id = asked.id;
    client.submit(asked, broker_proto::AskOptions::default()).await.unwrap();
    assert_eq!(reason(client.task(id).await), "NOT_A_TASK");
    assert_eq!(reason(client.task(new_id()).await), "UNKNOWN_MESSAGE");

    let task = give(&client, to("opus"), spec("secret")).await;
    let token = client.create_token(&AgentName::parse("scribe").unwrap()).await.unwrap();
    let scribe = broker.client().with_token(token);
    assert_eq!(reason(scribe.task(task).await), "UNKNOWN_MESSAGE");
    assert_eq!(reason(scribe.cancel_task(task).await), "UNKNOWN_MESSAGE");
    assert_eq!(scribe.tasks(TaskFilter::default()).await.unwrap().items, []);
    let own = give(&scribe, to("opus"), spec("mine")).await;
    assert_eq!(scribe.tasks(TaskFilter::default()).await.unwrap().items[0].id, own);
}

/// The same question back over each provider's own wire: a tool's call, and its result with the next one.
#[tokio::test]
async fn models_ask_back_over_every_wire() {
    let house = TestHouse::start().await;
    let client = house.client();
    for model in ["opus", "gpt-4o", "local"] {
        let id = give(&client, to(model), spec("Write a greeting. Ask me first: for whom?")).await;
        let waits = comes_to(&client, id, TaskState::InputRequired).await;
        assert_eq!(waits.exchanges[0].question, [Part::text("for whom?")], "{model}");
        client.provide_input(id, new_id(), 0, vec![Part::text("for the ferryman")]).await.unwrap();
        let done = comes_to(&client, id, TaskState::Completed).await;
        assert_eq!(done.info.summary.unwrap().model.unwrap().as_str(), model);
        let calls = house.sim.calls().await;
        let last = calls.last().unwrap()["body"].to_string();
        assert!(last.contains("for the ferryman") && last.contains("ask_requester"), "{last}");

        let schema = json!({"type": "object", "properties": {"words": {"type": "integer"}}});
        let task = TaskSpec { result: json_of(&schema), ..spec("Count the words.") };
        let id = give(&client, to(model), task).await;
        let done = comes_to(&client, id, TaskState::Completed).await;
        let result: Value = serde_json::from_slice(&done.result_json.unwrap()).unwrap();
        assert_eq!(result, json!({"words": 1}), "{model}");
    }
}

/// What `brokerctl` prints of tasks, for people and for programs, and the codes it ends with.
#[tokio::test]
async fn brokerctl_gives_out_tasks_and_steers_them() {
    let house = TestHouse::start().await;
    let schema = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&schema, r#"{"type": "object", "properties": {"ok": {"type": "boolean"}}}"#)
        .unwrap();
    let schema = schema.path().to_str().unwrap();

    let delegate = ["delegate", "--to", "opus", "--task", "Sum it up", "--input", "tone=dry"];
    let done = house.run(&delegate).await.exits(0);
    assert!(!done.stdout.is_empty() && done.stderr.contains("done by opus"), "{done:?}");
    let json = [&delegate[..], &["--json-schema", schema, "--output", "json"]].concat();
    let json = house.run(&json).await.exits(0).json();
    assert_eq!((&json["state"], &json["result_json"]), (&json!("completed"), &json!({"ok": true})));
    assert_eq!(json["summary"]["model"], "opus");

    let asks = ["delegate", "--to", "opus", "--task", "Greet. Ask me first: whom?"];
    let waits = house.run(&asks).await.exits(9);
    assert!(waits.stderr.contains("it asks: whom?"), "{waits:?}");
    let id = waits.stderr.split("task provide ").nth(1).unwrap().split(' ').next().unwrap();
    let listed = house.run(&["task", "list", "--state", "input_required"]).await.exits(0);
    assert!(listed.stdout.contains(id), "{listed:?}");
    assert!(house.run(&["task", "suspend", id]).await.exits(0).stdout.contains("suspended"));
    let refused = house.run(&["task", "provide", id, "Ann"]).await.exits(1);
    assert!(refused.stderr.contains("is suspended"), "{refused:?}");
    let resumed = house.run(&["task", "resume", id]).await.exits(0);
    assert!(resumed.stdout.contains("input_required"), "{resumed:?}");
    house.run(&["task", "provide", id, "Ann"]).await.exits(0);
    let watched = house.run(&["task", "watch", id]).await.exits(0).stdout;
    assert!(watched.contains("asked [input_required]: whom?"), "{watched}");
    assert!(watched.trim_end().lines().last().unwrap().contains("finished [completed]"));
    let shown = house.run(&["task", "show", id]).await.exits(0).stdout;
    assert!(shown.contains("whom?") && shown.contains("Ann") && shown.contains("[result]"));
    let shown = house.run(&["task", "show", id, "--output", "json"]).await.exits(0).json();
    assert_eq!(shown["exchanges"][0]["answer"], "Ann");
    house.run(&["task", "cancel", id]).await.exits(1);

    let left = [&asks[..], &["--detach"]].concat();
    let id = house.run(&left).await.exits(0).stdout;
    let cancelled = house.run(&["task", "cancel", id.trim()]).await.exits(0);
    assert!(cancelled.stdout.contains("cancelled"), "{cancelled:?}");
    house.run(&["task", "show", "01JD3Q8ZK5T0V9Y2X4W6R8P1NB"]).await.exits(3);
    house.run(&["delegate", "--to", "opsu", "--task", "x"]).await.exits(3);
    house.run(&["delegate", "--to", "opus", "--task", " "]).await.exits(2);
}
