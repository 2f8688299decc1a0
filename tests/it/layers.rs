//! The client's tower layer: what it tells, prepares and moves before a question is asked.

use std::sync::{Arc, Mutex};

use broker_client::{
    NewSession,
    layer::{Advice, Ask, Consultations, HandoffLayer, Notice, Reach},
};
use broker_proto::{
    AcceptHandoff, AskOptions, Down, Entry, EntryKind, HandoffState, ModelName, NewSessionEntry,
    PackageFilter, Part, Role, SessionId, SessionPoint, Usage, UsageRecord,
};
use broker_tests::{Place, RawLink, TestBroker, hello, question};
use tower::{Layer as _, ServiceExt as _};

/// What a layer told, in words.
type Told = Arc<Mutex<Vec<String>>>;

fn layer(broker: &TestBroker, reach: Reach) -> (HandoffLayer, Told) {
    let told = Told::default();
    let said = Arc::clone(&told);
    let layer = HandoffLayer::new(broker.client(), reach).telling(move |notice| {
        let words = match notice {
            Notice::Level { advice: Advice::Move, .. } => "move".to_owned(),
            Notice::Level { advice, .. } => format!("{advice:?}").to_lowercase(),
            Notice::Prepared { to, .. } => format!("prepared for {to}"),
            Notice::Handoff(handoff) if handoff.state == HandoffState::Active => {
                format!("belongs to {}", handoff.to)
            }
            other => format!("{other:?}"),
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
    Ask { message, options: AskOptions::default() }
}

async fn answers(link: &mut RawLink) {
    let delivery = link.delivery().await;
    assert!(!delivery.message.payload.context.is_empty(), "what was said goes along");
    link.settle(&delivery.lease, "7411.").await;
    link.settled().await;
    link.grant(1).await;
}

#[tokio::test]
async fn with_room_it_says_nothing_and_near_the_limit_it_prepares_once() {
    let (broker, id, mut opus, _sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Prepare);
    let service = layer.layer(Consultations::new(broker.client()));

    let (done, ()) = tokio::join!(service.clone().oneshot(ask()), answers(&mut opus));
    assert_eq!(done.unwrap().text(), "7411.");
    assert!(told.lock().unwrap().is_empty());

    fill(&broker, 3_200_000).await;
    for _ in 0..2 {
        let (done, ()) = tokio::join!(service.clone().oneshot(ask()), answers(&mut opus));
        assert_eq!(done.unwrap().text(), "7411.");
    }
    assert_eq!(*told.lock().unwrap(), ["warn", "prepared for sonnet", "warn"]);
    let packages = broker.client().packages(PackageFilter::default(), 10, None).await.unwrap();
    assert_eq!(packages.items.len(), 1);
    let info = broker.client().session(&id, &SessionPoint::Head).await.unwrap().info;
    assert_eq!(info.owner.model.as_str(), "opus", "it only prepares");
}

#[tokio::test]
async fn at_the_limit_it_moves_the_session_and_asks_the_new_owner() {
    let (broker, _, _opus, mut sonnet) = house().await;
    let (layer, told) = layer(&broker, Reach::Move);
    let service = layer.layer(Consultations::new(broker.client()));
    fill(&broker, 3_700_000).await;
    let agent = async {
        let offer = loop {
            if let Down::Offer(offer) = sonnet.hear().await.unwrap() {
                break offer;
            }
        };
        let client = broker.client();
        let manifest = client.received_package(offer.package).await.unwrap().checksum;
        let accept = AcceptHandoff { id: offer.handoff, manifest, confirmed: Vec::new() };
        client.accept_handoff(accept).await.unwrap();
        answers(&mut sonnet).await;
    };

    let (done, ()) = tokio::join!(service.oneshot(ask()), agent);

    let done = done.unwrap();
    assert_eq!(done.routed.unwrap().model.as_str(), "sonnet");
    assert_eq!(*told.lock().unwrap(), ["move", "belongs to sonnet"]);
}
