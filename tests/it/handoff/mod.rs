//! Sessions that change their owner: agents as receivers, over the real wire.

mod homecoming;
mod kills;
mod receivers;
mod road;
mod transactions;
mod triggers;

use broker_client::{Client, Error, NewSession};
use broker_proto::{
    AskHandoff, AskOptions, Delivery, Entry, EntryKind, Handoff, HandoffId, HandoffState, Message,
    ModelName, NewSessionEntry, Part, Role, SessionId, SessionOwner, SessionPoint,
    types::APPEND_LABEL,
};
use broker_tests::{Place, Reader, TestBroker, eventually, question};

/// What the next owner must know.
const FACT: &str = "The release key is kept at harbour 7.";

fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

fn said(role: Role, text: &str) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts: vec![Part::text(text)] };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

/// To this model, or to whom the arbiter chooses.
fn ask(session: &SessionId, to: Option<&str>) -> AskHandoff {
    AskHandoff {
        session: session.clone(),
        to: to.map(model),
        agent: None,
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    }
}

/// The texts of what a delivery says, oldest first.
fn heard(delivery: &Delivery) -> String {
    let payload = &delivery.message.payload;
    let parts = payload.context.iter().flat_map(|entry| &entry.parts).chain(&payload.request);
    let texts = parts.filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn reason(refused: Result<Handoff, Error>) -> String {
    match refused {
        Err(Error::Refused { reason, .. }) => reason,
        other => panic!("it is refused, not {other:?}"),
    }
}

/// A conversation of opus, and the broker that keeps it.
struct Talk<B = TestBroker> {
    broker: B,
    client: Client,
    id: SessionId,
}

impl Talk {
    /// With the fact and two turns more.
    async fn begin(settings: &str) -> Self {
        let talk = Self::empty(settings).await;
        let turns = vec![
            said(Role::User, FACT),
            said(Role::Assistant, "Noted."),
            said(Role::User, "Write the plan."),
        ];
        talk.client.append_entries(&talk.id, turns, None).await.unwrap();
        talk
    }

    /// Without a turn.
    async fn empty(settings: &str) -> Self {
        let broker = TestBroker::with(Place::Memory, settings).await;
        Self::on(broker.client(), broker).await
    }
}

impl<B> Talk<B> {
    /// Without a turn.
    async fn on(client: Client, broker: B) -> Self {
        let id = SessionId::parse("s").unwrap();
        let new =
            NewSession { id: Some(id.clone()), model: Some(model("opus")), ..Default::default() };
        client.start_session(new).await.unwrap();
        Self { broker, client, id }
    }

    async fn hand_to(&self, to: &str) -> Result<Handoff, Error> {
        self.client.begin_handoff(ask(&self.id, Some(to))).await
    }

    /// The handoff once it is in this state.
    async fn once(&self, id: HandoffId, state: HandoffState) -> Handoff {
        let what = format!("handoff {id} in state {}", state.as_str());
        eventually(&what, async || {
            let handoff = self.client.handoff(id).await.unwrap();
            (handoff.state == state).then_some(handoff)
        })
        .await
    }

    /// Handed over to `to`, whose agents take it by themselves.
    async fn handed_to(&self, to: &str) -> Handoff {
        let begun = self.hand_to(to).await.unwrap();
        self.once(begun.id, HandoffState::Active).await
    }

    async fn owner(&self) -> SessionOwner {
        self.client.session(&self.id, &SessionPoint::Head).await.unwrap().info.owner
    }

    /// Each turn's text, oldest first.
    async fn turns(&self) -> Vec<String> {
        let all = self.client.session_entries(&self.id, &SessionPoint::Head, 0, usize::MAX).await;
        let text = |parts: &[Part]| match parts {
            [Part::Text(text)] => text.clone(),
            other => panic!("one text, not {other:?}"),
        };
        all.unwrap().iter().map(|turn| text(&turn.entry.parts)).collect()
    }

    /// Asks the session's owner, as `consult --session` does.
    async fn ask_owner(&self, text: &str) -> Reader {
        let owner = self.owner().await.model;
        let at = SessionPoint::Head;
        let history = self.client.session_history(&self.id, &at, Some(owner.clone()), text).await;
        let mut message: Message = question(owner.as_str(), text);
        message.payload.context = history.unwrap().entries;
        message.session = Some(self.id.to_string());
        message.labels.insert(APPEND_LABEL.to_owned(), "turn".to_owned());
        Reader::ask(&self.client, message, AskOptions::default()).await
    }
}
