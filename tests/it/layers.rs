//! The client's tower layer: what it tells, prepares and moves before a question is asked.

use std::sync::{Arc, Mutex};

use broker_client::{
    Error, NewSession,
    layer::{Ask, Consultations, HandoffLayer, IfAway, Notice, Reach, To},
};
use broker_proto::{
    APPEND_LABEL, AcceptHandoff, AskOptions, Delivery, Down, Entry, EntryKind, HISTORY_LABEL,
    HandoffState, ModelName, NewSessionEntry, Part, Role, SessionId, SessionPoint, Usage,
    UsageRecord,
};
use broker_tests::{Output, Place, Program, RawLink, TestBroker, TestHouse, hello, question};
use tower::{Layer as _, Service, ServiceExt as _};

/// What a layer told, in words.
type Told = Arc<Mutex<Vec<String>>>;

fn layer(broker: &TestBroker, reach: Reach) -> (HandoffLayer, Told) {
    let told = Told::default();
    let said = Arc::clone(&told);
    let layer = HandoffLayer::new(broker.client(), reach).telling(move |notice| {
        let words = match notice {
            Notice::Level { due, .. } => format!("{due:?}").to_lowercase(),
            Notice::Prepared { to } => format!("prepared for {to}"),
            Notice::Handoff(handoff) if handoff.state == HandoffState::Active => {
                format!("belongs to {}", handoff.to)
            }
            Notice::Handoff(handoff) => format!("{} to {}", handoff.state.as_str(), handoff.to),
            Notice::Failed(Error::Unreachable { .. }) => "away".to_owned(),
            Notice::Failed(error) => format!("failed: {}", error.reason().unwrap_or_default()),
        };
        said.lock().unwrap().push(words);
    });
    (layer, told)
}

async fn house() -> (TestBroker, SessionId, RawLink, RawLink) {
    let broker = TestBroker::with(Place::Memory, "[handoff]\nauto = false\n").await;
    let client = broker.client();
    let id = SessionId::parse("s").unwrap();
    let model = Some(ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id.clone()), model, ..NewSession::default() };
    client.start_session(new).await.unwrap();
    let parts = vec![Part::text("The port is 7411.")];
    let entry = Entry { role: Role::User, name: String::new(), parts };
    let turn = NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None };
    client.append_entries(&id, vec![turn], None).await.unwrap();
    let mut links = Vec::new();
    for model in ["opus", "sonnet"] {
        let mut link = broker.link().await;
        link.greet(hello(&broker.endpoint(), model, &[model]).await).await.unwrap();
        link.grant(1).await;
        links.push(link);
    }
    let sonnet = links.pop().unwrap();
    (broker, id, links.pop().unwrap(), sonnet)
}

async fn fill(broker: &TestBroker, tokens: u64) {
    let model = ModelName::parse("opus").unwrap();
    let what = UsageRecord::Tokens(Usage { input_tokens: Some(tokens), ..Usage::default() });
    broker.client().record_usage(Some(&model), Some("s"), what).await.unwrap();
}

fn ask() -> Ask {
    let mut message = question("opus", "Which port?");
    message.session = Some("s".to_owned());
    Ask::new(message, AskOptions::default())
}

/// Answers the next question; it brought what was said, and is appended.
async fn answers(link: &mut RawLink) -> Delivery {
    let delivery = link.delivery().await;
    assert!(!delivery.message.payload.context.is_empty(), "what was said goes along");
    link.settle(&delivery.lease, "7411.").await;
    link.settled().await;
    link.grant(1).await;
    delivery
}

/// Takes the session that is offered.
async fn accepts(broker: &TestBroker, link: &mut RawLink) {
    let offer = loop {
        if let Down::Offer(offer) = link.hear().await.unwrap() {
            break offer;
        }
    };
    let client = broker.client();
    let manifest = client.received_package(offer.package).await.unwrap().checksum;
    let accept = AcceptHandoff { id: offer.handoff, manifest, confirmed: Vec::new() };
    client.accept_handoff(accept).await.unwrap();
}

async fn asked<S>(service: &S, link: &mut RawLink) -> Delivery
where
    S: Service<Ask, Response = broker_client::Answer, Error = Error> + Clone,
{
    let (done, delivery) = tokio::join!(service.clone().oneshot(ask()), answers(link));
    assert_eq!(done.unwrap().text(), "7411.");
    delivery
}

fn words(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.lock().unwrap())
}

#[tokio::test]
async fn with_room_it_says_nothing_it_warns_once_and_near_the_limit_it_prepares_once() {
    let (broker, id, mut opus, _sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Prepare);
    let service = layer.layer(Consultations::new(broker.client()));

    asked(&service, &mut opus).await;
    assert_eq!(words(&told), [""; 0]);

    fill(&broker, 3_250_000).await;
    for _ in 0..2 {
        asked(&service, &mut opus).await;
    }
    assert_eq!(words(&told), ["warning"]);
    assert_eq!(broker.client().bridges(Some(&id)).await.unwrap().len(), 0, "not yet");

    fill(&broker, 200_000).await;
    for _ in 0..2 {
        asked(&service, &mut opus).await;
    }
    assert_eq!(words(&told), ["preparation", "prepared for sonnet"]);
    let bridges = broker.client().bridges(Some(&id)).await.unwrap();
    let ends: Vec<_> = bridges.iter().map(|it| it.bridge.to.as_str()).collect();
    assert_eq!(ends, ["sonnet"], "its package is kept current");

    fill(&broker, 400_000).await;
    asked(&service, &mut opus).await;
    assert_eq!(words(&told), ["move"], "it only prepares");
    let info = broker.client().session(&id, &SessionPoint::Head).await.unwrap().info;
    assert_eq!(info.owner.model.as_str(), "opus");
}

#[tokio::test]
async fn at_the_limit_it_moves_the_session_and_asks_the_new_owner_from_then_on() {
    let (broker, _, mut opus, mut sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Move);
    let service = layer.layer(Consultations::new(broker.client()));
    fill(&broker, 3_700_000).await;
    let agent = async {
        accepts(&broker, &mut sonnet).await;
        answers(&mut sonnet).await;
    };

    let (done, ()) = tokio::join!(service.clone().oneshot(ask()), agent);

    assert_eq!(done.unwrap().routed.unwrap().model.as_str(), "sonnet");
    assert_eq!(words(&told), ["move", "belongs to sonnet"]);
    asked(&service, &mut sonnet).await;
    assert_eq!(words(&told), [""; 0], "opus is named, and sonnet is asked");
    let named = Ask { to: To::Named, ..ask() };
    let (done, _) = tokio::join!(service.clone().oneshot(named), answers(&mut opus));
    assert_eq!(done.unwrap().routed.unwrap().model.as_str(), "opus");
}

#[tokio::test]
async fn a_move_that_is_under_way_is_waited_for_and_one_that_nobody_takes_leaves_the_owner() {
    let (broker, id, _opus, mut sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Move);
    let layer = layer.if_away(IfAway::Fail);
    let service = layer.layer(Consultations::new(broker.client()));
    fill(&broker, 3_700_000).await;
    let begun = broker.run(&["handoff", "offer", "--session", "s", "--to", "sonnet"]).await;
    begun.exits(0);
    let agent = async {
        accepts(&broker, &mut sonnet).await;
        answers(&mut sonnet).await;
    };
    let (done, ()) = tokio::join!(service.clone().oneshot(ask()), agent);
    done.unwrap();
    assert_eq!(words(&told), ["move", "belongs to sonnet"]);

    // Nobody may take it back: the owner is asked.
    broker.run(&["handoff", "models", "--remove", "opus", "--remove", "local"]).await.exits(0);
    let sonnets = Usage { input_tokens: Some(900_000), ..Usage::default() };
    let model = ModelName::parse("sonnet").unwrap();
    let what = UsageRecord::Tokens(sonnets);
    broker.client().record_usage(Some(&model), Some(id.as_str()), what).await.unwrap();
    asked(&service, &mut sonnet).await;
    assert_eq!(words(&told), ["move", "failed: HANDOFF_NOBODY"]);
}

/// A service that asks nobody.
async fn echo(ask: Ask) -> Result<String, Error> {
    Ok(ask.message.to.to_string())
}

#[tokio::test]
async fn while_the_broker_is_away_questions_pass_or_fail_as_it_is_set() {
    let (mut broker, _, _opus, _sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Move);
    broker.stop().await;

    let passes = layer.layer(tower::service_fn(echo));
    assert_eq!(passes.oneshot(ask()).await.unwrap(), "model/opus");
    assert_eq!(words(&told), ["away"]);

    let fails = layer.if_away(IfAway::Fail).layer(tower::service_fn(echo));
    let error = fails.clone().oneshot(ask()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let mut free = ask();
    free.message.session = None;
    assert_eq!(fails.oneshot(free).await.unwrap(), "model/opus", "there is nothing to look at");
}

#[tokio::test]
async fn a_question_through_it_is_a_turn_as_one_of_consult_is() {
    let (broker, id, mut opus, _sonnet) = house().await;
    let service = Consultations::new(broker.client());

    let delivery = asked(&service, &mut opus).await;
    let label = |delivery: &Delivery, name: &str| delivery.message.labels.get(name).cloned();
    assert_eq!(label(&delivery, APPEND_LABEL).as_deref(), Some("turn"));
    let consult = ["consult", "--session", "s", "--question", "Which port?"];
    let (done, other) = tokio::join!(broker.run(&consult), answers(&mut opus));
    done.exits(0);
    let range = |delivery| label(delivery, HISTORY_LABEL).unwrap();
    // Both name the whole history, of a version each.
    let counts =
        [range(&delivery), range(&other)].map(|it| it.split_once(':').unwrap().1.to_owned());
    assert_eq!(counts, ["0:1", "0:2"], "two entries of one person are one on the wire");
    let entries = broker.client().session_entries(&id, &SessionPoint::Head, 0, 99).await.unwrap();
    let roles: Vec<Role> = entries.iter().map(|it| it.entry.role).collect();
    let turn = [Role::User, Role::Assistant];
    assert_eq!(roles, [&[Role::User][..], &turn, &turn].concat());
}

#[tokio::test]
async fn the_example_moves_a_session_of_a_simulated_house() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    house.run(&["session", "append", "s", "--role", "user", "The port is 7411."]).await.exits(0);
    house.run(&["handoff", "config", "--auto", "false"]).await.exits(0);
    let run = async || -> Output {
        let endpoint = house.endpoint().to_string();
        Program::new("examples/handoff_layer").args(&[&endpoint, "s", "Which?"]).output().await
    };
    let first = run().await.exits(0);
    assert_eq!(first.stderr, "", "there is room");
    assert!(!first.stdout.trim().is_empty(), "{first:?}");

    let check = ["handoff", "check", "--session", "s", "--output", "json"];
    let limit = house.run(&check).await.json()["switch_threshold"].to_string();
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", "s", "--input"];
    house.run(&[&record[..], &[&limit, "--output", "0"]].concat()).await.exits(0);
    let second = run().await.exits(0);
    assert!(second.stderr.contains("Move: ") && second.stderr.contains("ACTIVE to "), "{second:?}");
    let shown = house.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();
    assert_ne!(shown["owner"]["model"], "opus");
    assert_eq!(shown["entry_count"], 5, "both questions are turns: {shown}");
}
