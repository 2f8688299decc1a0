use std::time::Duration;

use futures::StreamExt;

use broker_proto::{
    AskOptions, ContentHash, Entry, Message, MessageId, MessageType, Part, PartRef, Payload,
    Receipt, Recipient, Role, convert::Stored as _,
};

use super::{Error, HEADER};
use crate::{
    app::rehearsal::{Shell, agent, local, model, question, soon},
    core::{Command, Refusal},
    engine,
    journal::{Why, faulty::Fault},
};

fn options() -> AskOptions {
    AskOptions { keep: true, ..AskOptions::default() }
}

async fn consult(shell: &Shell, message: Message) -> Result<Receipt, Error> {
    soon(shell.intake.consult(&local(), message, options())).await
}

/// What makes up the store: batches and contents.
async fn stored(shell: &Shell) -> (u64, usize) {
    shell.settled().await;
    let contents = shell.journal.keys(Duration::ZERO).count().await;
    (shell.engine.head().0, contents)
}

async fn upload(shell: &Shell, part: Part) -> PartRef {
    let bytes = part.encode();
    let hash = ContentHash::of(&bytes);
    let size_bytes = bytes.len() as u64;
    let stored = shell.bodies.store(bytes).await.unwrap();
    let command = Command::StoreContent { hash, body: stored.body };
    soon(shell.engine.with_contents(command, stored.contents)).await.unwrap();
    PartRef { hash, size_bytes }
}

fn asking(parts: Vec<Part>) -> Message {
    let mut message = question(1, "");
    message.payload.request = parts;
    message
}

/// I-7.
#[tokio::test]
async fn the_same_question_again_gets_the_first_receipt() {
    let shell = Shell::start().await;
    let first = consult(&shell, question(1, "why?")).await.unwrap();
    shell.clock.advance(Duration::from_secs(9));

    // Who sends and when are the broker's words, not the sender's.
    let again = Message {
        from: Some(broker_proto::Sender::parse("somebody").unwrap()),
        timestamp: Some(broker_proto::WallTime(1)),
        ..question(1, "why?")
    };

    let again = consult(&shell, again).await.unwrap();
    assert_eq!(again, Receipt { is_duplicate: true, ..first });
}

#[tokio::test]
async fn metadata_is_the_same_in_any_order() {
    let shell = Shell::start().await;
    let with = |pairs: [(&str, &str); 2]| {
        let mut message = question(1, "why?");
        message.payload.metadata = pairs.map(|(k, v)| (k.into(), v.into())).into();
        message.labels = pairs.map(|(k, v)| (k.into(), v.into())).into();
        message
    };
    consult(&shell, with([("a", "1"), ("b", "2")])).await.unwrap();
    assert!(consult(&shell, with([("b", "2"), ("a", "1")])).await.unwrap().is_duplicate);
}

#[tokio::test]
async fn another_question_under_the_same_id_is_refused() {
    let shell = Shell::start().await;
    consult(&shell, question(1, "why?")).await.unwrap();
    let before = stored(&shell).await;
    let mut labelled = question(1, "why?");
    labelled.labels.insert("k".into(), "v".into());
    let changed = AskOptions { no_fallback: true, ..options() };

    for (message, options) in [
        (question(1, "why not?"), options()),
        (labelled, options()),
        (Message { session: Some("s".into()), ..question(1, "why?") }, options()),
        (Message { to: Recipient::Model(model("sonnet")), ..question(1, "why?") }, options()),
        (question(1, "why?"), changed),
    ] {
        let refused = soon(shell.intake.consult(&local(), message, options)).await;
        let is_reused = |error: &Error| {
            matches!(error, Error::Engine(engine::Error::Refused(Refusal::IdReused(_))))
        };
        assert!(refused.as_ref().is_err_and(is_reused), "{refused:?}");
    }
    assert_eq!(stored(&shell).await, before);
    // How somebody listens is not what they asked.
    let listening = AskOptions {
        allow_restart: true,
        keep: false,
        return_window: Some(Duration::ZERO),
        ..options()
    };
    let again = soon(shell.intake.consult(&local(), question(1, "why?"), listening)).await;
    assert!(again.unwrap().is_duplicate);
    // Another sender's id is another key.
    let other = broker_proto::Sender::parse("other").unwrap();
    let sent = shell.intake.consult(&other, question(1, "how?"), options());
    assert!(!soon(sent).await.unwrap().is_duplicate);
}

#[tokio::test]
async fn a_model_may_be_spelt_in_its_usual_ways() {
    let shell = Shell::start().await;
    let ask = |name| Message { to: Recipient::Model(model(name)), ..question(1, "why?") };
    consult(&shell, ask("gpt4o")).await.unwrap();
    assert!(consult(&shell, ask("gpt-4o")).await.unwrap().is_duplicate);
    let id = MessageId::from_u128(1);
    let row = shell.projection.find(local(), id, shell.engine.head()).await.unwrap().unwrap();
    assert_eq!(row.accepted.to, Recipient::Model(model("gpt-4o")));

    let refused = consult(&shell, ask("opsu")).await.unwrap_err();
    let Error::Engine(engine::Error::Refused(Refusal::UnknownModel { nearest, .. })) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(nearest.first().map(String::as_str), Some("opus"));
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_stored() {
    let shell = Shell::start().await;
    let before = stored(&shell).await;
    let inline = shell.intake.limits.inline_part;
    let text = |length| Part::text("x".repeat(usize::try_from(length).unwrap()));
    let header = |length: u64| {
        let mut message = question(1, "why?");
        message.labels.insert("k".into(), "v".repeat(usize::try_from(length).unwrap() - 1));
        message
    };

    for (message, refused, bound) in [
        (asking(vec![text(inline + 1)]), "part", inline),
        (asking((0..17).map(|_| text(inline)).collect()), "message", 1024 * 1024),
        (header(HEADER + 1), "message's header", HEADER),
    ] {
        match consult(&shell, message).await {
            Err(Error::TooLarge { what, limit, .. }) => assert_eq!((what, limit), (refused, bound)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stored(&shell).await, before);
    consult(&shell, asking(vec![text(inline)])).await.unwrap();
    consult(&shell, Message { id: MessageId::from_u128(2), ..header(HEADER) }).await.unwrap();
}

#[tokio::test]
async fn a_reference_must_lead_to_what_was_uploaded() {
    let shell = Shell::start().await;
    let real = upload(&shell, Part::text("a long text")).await;
    let wrapped = |part| Part::ToolResult {
        call_id: "c".into(),
        parts: vec![Part::Ref(part)],
        is_error: false,
    };
    let unknown = PartRef { hash: ContentHash::of(b"never"), size_bytes: 5 };
    let shrunk = PartRef { size_bytes: 1, ..real };
    let before = stored(&shell).await;

    for part in [Part::Ref(unknown), wrapped(unknown)] {
        let refused = consult(&shell, asking(vec![part])).await;
        assert!(matches!(refused, Err(Error::UnknownContent(_))), "{refused:?}");
    }
    let refused = consult(&shell, asking(vec![Part::Ref(shrunk)])).await;
    assert!(matches!(&refused, Err(Error::Invalid(bad)) if bad.field == "ref.size_bytes"));
    assert_eq!(stored(&shell).await, before);

    consult(&shell, asking(vec![wrapped(real)])).await.unwrap();
}

#[tokio::test]
async fn what_asks_nothing_is_refused() {
    let shell = Shell::start().await;
    let before = stored(&shell).await;
    let spoken = |role| {
        let parts = vec![Part::text("because")];
        let entry = Entry { role, name: String::new(), parts };
        let mut message = question(1, "");
        message.payload = Payload { context: vec![entry], ..Payload::default() };
        message
    };
    for message in [question(1, ""), question(1, " \n"), asking(vec![]), spoken(Role::Assistant)] {
        let refused = consult(&shell, message).await;
        assert!(matches!(refused, Err(Error::Empty)), "{refused:?}");
    }
    assert_eq!(stored(&shell).await, before);
    consult(&shell, spoken(Role::User)).await.unwrap();
}

#[tokio::test]
async fn only_a_consultation_with_a_model_is_asked() {
    let shell = Shell::start().await;
    let to = Recipient::Agent(agent("opus-1"));
    let to_agent = Message { to, ..question(1, "why?") };
    let status = Message { kind: MessageType::Status, ..question(1, "why?") };
    for (message, field) in [(to_agent, "to"), (status.clone(), "type")] {
        let refused = consult(&shell, message).await;
        assert!(matches!(&refused, Err(Error::Invalid(bad)) if bad.field == field), "{refused:?}");
    }
    let refused = shell.intake.send(&local(), status, false).await;
    assert!(matches!(
        refused,
        Err(Error::Engine(engine::Error::Refused(Refusal::WrongType {
            kind: MessageType::Status,
            ..
        })))
    ));
}

/// I-4
#[tokio::test]
async fn nothing_but_a_status_carries_a_statuss_body() {
    let shell = Shell::start().await;
    let mut asked = question(1, "why?");
    asked.payload.status = Some(broker_proto::StatusNotice::default());
    let before = stored(&shell).await;

    let refused = shell.intake.send(&local(), asked, false).await;

    assert!(matches!(&refused, Err(Error::Invalid(bad)) if bad.field == "payload.status"));
    assert_eq!(stored(&shell).await, before);
}

/// I-28: what is kept for settling is not eaten by bodies of messages that are refused anyway.
#[tokio::test]
async fn a_full_store_is_asked_before_large_bodies_are_put() {
    let shell = Shell::start().await;
    shell.script.then(Fault::NotStored(Why::Full));
    consult(&shell, question(1, "why?")).await.unwrap_err();
    shell.settled().await;

    let large = asking((0..4).map(|_| Part::text("x".repeat(60 * 1024))).collect());
    let refused = consult(&shell, large).await;

    assert!(matches!(refused, Err(Error::Engine(engine::Error::StoreFull))), "{refused:?}");
    assert_eq!(shell.script.puts(), 0);
}

#[tokio::test]
async fn explaining_a_route_stores_nothing() {
    let shell = Shell::start().await;
    let before = stored(&shell).await;
    let shown = soon(shell.intake.explain(question(1, "why?"), options())).await.unwrap();
    assert_eq!(shown.asked, model("opus"));
    assert!(shown.candidates.len() > 1);
    assert_eq!(stored(&shell).await, before);
}
