//! `brokerctl chat`, with its lines from a pipe: what is asked, what is told, and who owns the session then.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use broker_client::{Endpoint, NewSession};
use broker_proto::{
    AcceptHandoff, Delivery, Down, HandoffOffer, ModelName, Part, Role, SessionId, SessionPoint,
};
use broker_tests::{Output, Place, RawLink, TestBroker, brokerctl, hello};
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
};

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

/// An agent whose test says when it accepts and what it answers.
async fn wire(broker: &TestBroker, name: &str, model: &str) -> RawLink {
    let mut link = broker.link().await;
    link.greet(hello(&broker.endpoint(), name, &[model]).await).await.unwrap();
    link.grant(1).await;
    link
}

async fn offer(link: &mut RawLink) -> HandoffOffer {
    loop {
        if let Down::Offer(offer) = link.hear().await.unwrap() {
            return offer;
        }
    }
}

/// Takes what is offered to it, as a person would.
async fn accept(broker: &TestBroker, link: &mut RawLink) {
    let offer = offer(link).await;
    let client = broker.client();
    let received = client.received_package(offer.package).await.unwrap();
    let (id, manifest) = (offer.handoff, received.checksum);
    client.accept_handoff(AcceptHandoff { id, manifest, confirmed: Vec::new() }).await.unwrap();
}

async fn answer(link: &mut RawLink, text: &str) -> Delivery {
    let delivery = link.delivery().await;
    link.settle(&delivery.lease, text).await;
    link.settled().await;
    link.grant(1).await;
    delivery
}

async fn chat(broker: &TestBroker, args: &[&str], lines: &str) -> Output {
    let chat = brokerctl(&broker.endpoint()).args(&["chat"]).args(args);
    chat.stdin(lines).output().await
}

async fn begin(broker: &TestBroker) -> SessionId {
    let model = Some(ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id("s")), model, ..NewSession::default() };
    broker.client().start_session(new).await.unwrap().id
}

/// What was said in a session.
async fn said(broker: &TestBroker, session: &str) -> Vec<(Role, Option<String>, String)> {
    let entries =
        broker.client().session_entries(&id(session), &SessionPoint::Head, 0, usize::MAX).await;
    let text = |parts: &[Part]| match parts {
        [Part::Text(text)] => text.clone(),
        other => panic!("{other:?}"),
    };
    let entries = entries.unwrap().into_iter();
    entries
        .map(|it| (it.entry.role, it.model.map(|name| name.to_string()), text(&it.entry.parts)))
        .collect()
}

#[tokio::test]
async fn a_conversation_goes_on_with_the_model_it_is_handed_to() {
    let broker = TestBroker::start().await;
    let (mut opus, mut sonnet) =
        (wire(&broker, "opus-1", "opus").await, wire(&broker, "sonnet-1", "sonnet").await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.jsonl");
    let lines = format!(
        "Which port?\n\n/handoff sonnet\nAnd now?\n/nonsense\n/status\n/save {}\n/undo\n/fork t\n/help\n/quit\nnever\n",
        file.display()
    );
    let args = ["--session", "s", "--model", "opus"];

    let agents = async {
        answer(&mut opus, "7411.").await;
        accept(&broker, &mut sonnet).await;
        answer(&mut sonnet, "Still 7411.").await
    };
    let (talked, asked) = tokio::join!(chat(&broker, &args, &lines), agents);

    let talked = talked.exits(0);
    let answers: Vec<&str> = talked.stdout.lines().take(3).collect();
    assert_eq!(answers[0], "7411.", "no prompt: {talked:?}");
    assert!(talked.stdout.contains("\nStill 7411.\n"), "{talked:?}");
    let told = |what: &str| assert!(talked.stderr.contains(what), "{what}: {talked:?}");
    told("session s (new)");
    told("opus → sonnet: user_request: a person asked for it");
    told("there is no `/nonsense`");
    told("2 entries taken back");
    told("session t, a copy of s");
    assert!(talked.stdout.contains("owner sonnet (epoch 2)"), "{talked:?}");
    assert!(talked.stdout.contains("/consult MODEL TEXT"), "{talked:?}");
    let context = format!("{:?}", asked.message.payload.context);
    assert!(!context.is_empty(), "what was said goes along");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(saved.contains("Still 7411.") && saved.lines().count() == 4, "{saved}");
    let user = |text: &str| (Role::User, None, text.to_owned());
    let want =
        [user("Which port?"), (Role::Assistant, Some("opus".to_owned()), "7411.".to_owned())];
    assert_eq!(said(&broker, "s").await, want, "as it was before the last question");
    assert_eq!(said(&broker, "t").await, want);
}

#[tokio::test]
async fn another_model_is_asked_for_advice_or_from_now_on() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let (mut opus, mut sonnet) =
        (wire(&broker, "opus-1", "opus").await, wire(&broker, "sonnet-1", "sonnet").await);
    let lines =
        "/consult sonnet Is it 7411?\n/model nobody\n/model sonnet\nWhich?\n/model owner\nSure?\n";
    let agents = async {
        answer(&mut sonnet, "Yes.").await;
        answer(&mut sonnet, "7411.").await;
        answer(&mut opus, "Sure.").await;
    };
    let (talked, ()) = tokio::join!(chat(&broker, &["--session", "s"], lines), agents);

    let talked = talked.exits(0);
    assert_eq!(talked.stdout, "Yes.\n7411.\nSure.\n");
    assert!(talked.stderr.contains("no model is called `nobody`; nearest: opus"), "{talked:?}");
    let who: Vec<_> = said(&broker, "s").await.into_iter().filter_map(|(_, who, _)| who).collect();
    assert_eq!(who, ["sonnet", "sonnet", "opus"]);
}

/// As if the session had so much in its window.
async fn fill(broker: &TestBroker, tokens: &str) {
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", "s", "--input"];
    broker.run(&[&record[..], &[tokens, "--output", "0"]].concat()).await.exits(0);
}

#[tokio::test]
async fn a_full_window_is_told_of_and_moves_where_that_is_switched_on() {
    let settings = "[handoff]\nauto = false\n";
    let broker = TestBroker::with(Place::Memory, settings).await;
    begin(&broker).await;
    let (mut opus, mut sonnet) =
        (wire(&broker, "opus-1", "opus").await, wire(&broker, "sonnet-1", "sonnet").await);
    let args = ["--session", "s"];
    let (first, _) = tokio::join!(chat(&broker, &args, "Hello?\n"), answer(&mut opus, "Hello."));
    assert!(!first.exits(0).stderr.contains("hands the session over"), "there is room");

    fill(&broker, "3700000").await;
    let (told, _) = tokio::join!(chat(&broker, &args, "And?\n"), answer(&mut opus, "Yes."));
    let told = told.exits(0);
    assert!(told.stderr.contains("`chat --handoff-enabled` does so by itself"), "{told:?}");

    let args = ["--session", "s", "--handoff-enabled"];
    let agents = async {
        accept(&broker, &mut sonnet).await;
        answer(&mut sonnet, "Here I am.").await
    };
    let (moved, _) = tokio::join!(chat(&broker, &args, "Who?\n"), agents);
    let moved = moved.exits(0);
    assert!(moved.stderr.contains("opus → sonnet: user_request: opus 92 %"), "{moved:?}");
    assert!(moved.stdout.ends_with("Here I am.\n"), "{moved:?}");

    // Nobody may take it from sonnet.
    broker.run(&["handoff", "models", "--remove", "opus", "--remove", "local"]).await.exits(0);
    let record = ["usage", "record", "tokens", "--model", "sonnet", "--session", "s"];
    broker.run(&[&record[..], &["--input", "990000", "--output", "0"]].concat()).await.exits(0);
    let (stays, _) =
        tokio::join!(chat(&broker, &args, "Still?\n"), answer(&mut sonnet, "Still here."));
    let stays = stays.exits(0);
    assert_eq!(stays.stdout, "Still here.\n", "what cannot be done costs no question");
    let told = |what: &str| assert!(stays.stderr.contains(what), "{what}: {stays:?}");
    told("session s: owned by sonnet since a handoff from opus at");
    told("HANDOFF_NOBODY");
    told("sonnet is asked all the same");
}

#[tokio::test]
async fn a_model_that_nobody_knows_is_refused_before_the_first_question() {
    let broker = TestBroker::start().await;
    let refused = chat(&broker, &["--session", "new", "--model", "opsu"], "A long one.\n").await;
    let refused = refused.exits(3);
    assert!(refused.stderr.contains("no model is called `opsu`; nearest: opus"), "{refused:?}");
    let none = broker.client().session(&id("new"), &SessionPoint::Head).await.unwrap_err();
    assert_eq!(none.reason(), Some("UNKNOWN_SESSION"), "nothing was begun");

    begin(&broker).await;
    let refused = chat(&broker, &["--session", "s", "--model", "sonet"], "A long one.\n").await;
    let refused = refused.exits(3);
    assert!(refused.stderr.contains("nearest: sonnet"), "{refused:?}");
}

/// A socket in front of the broker's, and how many connections went through it.
async fn doorway(broker: &TestBroker, folder: &Path) -> (Endpoint, Arc<AtomicUsize>) {
    let path = folder.join("door.sock");
    let (door, house) = (UnixListener::bind(&path).unwrap(), broker.endpoint());
    let count = Arc::<AtomicUsize>::default();
    let passed = Arc::clone(&count);
    tokio_util::task::TaskTracker::new().spawn(async move {
        let tasks = tokio_util::task::TaskTracker::new();
        while let Ok((mut outside, _)) = door.accept().await {
            passed.fetch_add(1, Ordering::Relaxed);
            let mut inside = UnixStream::connect(house.socket()).await.unwrap();
            // Either end may close first.
            tasks.spawn(async move { copy_bidirectional(&mut outside, &mut inside).await.ok() });
        }
    });
    (Endpoint::unix(path), count)
}

#[tokio::test]
async fn a_chat_has_one_connection_whatever_is_asked() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let (mut opus, mut sonnet) =
        (wire(&broker, "opus-1", "opus").await, wire(&broker, "sonnet-1", "sonnet").await);
    let folder = tempfile::tempdir().unwrap();
    let (door, count) = doorway(&broker, folder.path()).await;
    let lines = "Which port?\n/status\n/handoff sonnet\nAnd now?\n/undo\n";

    let agents = async {
        answer(&mut opus, "7411.").await;
        accept(&broker, &mut sonnet).await;
        answer(&mut sonnet, "Still 7411.").await;
    };
    let talk = brokerctl(&door).args(&["chat", "--session", "s"]).stdin(lines).output();
    let (talked, ()) = tokio::join!(talk, agents);

    let talked = talked.exits(0);
    assert!(talked.stderr.contains("2 entries taken back"), "{talked:?}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_goes_wrong_with_one_line_ends_no_chat() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let lines = "/handoff opus\n/undo\n/fork s\n/model\n";

    let talked = chat(&broker, &["--session", "s"], lines).await.exits(0);

    let told = |what: &str| assert!(talked.stderr.contains(what), "{what}: {talked:?}");
    told("has no turns yet");
    told("there is no question to take back");
    told("SESSION_EXISTS");
    told("opus is asked, the session's owner");
    chat(&broker, &["--output", "json"], "").await.exits(2);
    chat(&broker, &["--session", "s", "--model", "!!"], "").await.exits(2);
}
