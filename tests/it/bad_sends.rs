//! Bad input of sends, over the socket: the exact status and reason, and nothing stored.

use broker_proto::{
    AgentName, Message, MessageType, Recipient,
    pb::{self, message_service_client::MessageServiceClient},
};
use broker_tests::{TestBroker, channel, new_id, reason_of, text_payload};
use tonic::{Code, Status, transport::Channel};

/// A client that says what it is told, and one bad thing after the other.
struct Sender {
    broker: TestBroker,
    client: MessageServiceClient<Channel>,
}

impl Sender {
    async fn new() -> Self {
        let broker = TestBroker::start().await;
        let client = MessageServiceClient::new(channel(&broker.endpoint()).await);
        Self { broker, client }
    }

    async fn send(
        &mut self,
        change: impl FnOnce(&mut pb::SendMessageRequest, &mut pb::ModelMessage),
    ) -> Result<pb::Receipt, Status> {
        let to = Recipient::Agent(AgentName::parse("scribe").unwrap());
        let mut message =
            Message::new(new_id(), to, MessageType::Status, text_payload("hi")).into();
        let mut request =
            pb::SendMessageRequest { allow_future_recipient: true, ..Default::default() };
        change(&mut request, &mut message);
        request.message = Some(message);
        let sent = self.client.send_message(request).await?;
        Ok(sent.into_inner().receipt.unwrap())
    }

    #[track_caller]
    fn check(sent: Result<pb::Receipt, Status>, reason: &str) {
        let status = sent.unwrap_err();
        assert_eq!((status.code(), reason_of(&status).as_str()), (Code::InvalidArgument, reason));
    }

    async fn assert_nothing_stored(&self) {
        let listed = self.broker.run(&["message", "list", "--output", "json"]).await.exits(0);
        assert_eq!(listed.json()["messages"], serde_json::json!([]));
    }
}

/// What no id may be: a path, a NUL, 4 KiB, twins of ASCII letters.
fn bad_ids() -> [String; 6] {
    ["..", "../../etc/passwd", "a\0b", "ｏpus", "оpus", &"a".repeat(4096)].map(str::to_owned)
}

/// I-4
#[tokio::test]
async fn ids_that_are_none_are_refused() {
    let mut sender = Sender::new().await;
    for bad in bad_ids() {
        let id = bad.clone();
        Sender::check(sender.send(|_, m| m.id = id).await, "INVALID_FIELD");
        for recipient in [
            pb::recipient::Recipient::Agent(bad.clone()),
            pb::recipient::Recipient::Model(bad.clone()),
            pb::recipient::Recipient::Role(bad.clone()),
        ] {
            let to = Some(pb::Recipient { recipient: Some(recipient) });
            Sender::check(sender.send(|_, m| m.to = to).await, "INVALID_FIELD");
        }
        let parent = pb::Correlation { parent: bad.clone(), ..pb::Correlation::default() };
        Sender::check(sender.send(|_, m| m.correlation = Some(parent)).await, "INVALID_FIELD");
        let session = bad.clone();
        Sender::check(sender.send(|_, m| m.session = session).await, "INVALID_FIELD");
        Sender::check(
            sender
                .send(|request, _| {
                    request.producer = bad;
                    request.number = 1;
                })
                .await,
            "INVALID_FIELD",
        );
    }
    for key in ["a\0b".to_owned(), "k".repeat(257)] {
        Sender::check(sender.send(|_, m| m.ordering_key = key).await, "INVALID_FIELD");
    }
    sender.assert_nothing_stored().await;
}

/// I-4
#[tokio::test]
async fn priorities_types_and_numbers_out_of_range_are_refused() {
    let mut sender = Sender::new().await;
    for number in [5, 99, -1, i32::MAX] {
        Sender::check(sender.send(|_, m| m.priority = number).await, "INVALID_FIELD");
        Sender::check(sender.send(|_, m| m.r#type = number).await, "INVALID_FIELD");
    }
    Sender::check(sender.send(|_, m| m.r#type = 0).await, "INVALID_FIELD");
    for (producer, number) in [("bulk", 0), ("", 1), ("bulk", u64::MAX), ("b.c", 1)] {
        let sent = sender
            .send(|request, _| {
                request.producer = producer.into();
                request.number = number;
            })
            .await;
        Sender::check(sent, "INVALID_FIELD");
    }
    sender.assert_nothing_stored().await;
}

/// I-22: an unreadable expiry is a refusal, not "no expiry".
#[tokio::test]
async fn expiries_that_have_passed_or_cannot_be_read_are_refused() {
    let mut sender = Sender::new().await;
    let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    for (expires_at, reason) in [
        (at(1, 0), "ALREADY_EXPIRED"),
        (at(1_767_225_600, 0), "ALREADY_EXPIRED"),
        (at(2_000_000_000, 1_000_000_000), "INVALID_FIELD"),
        (at(2_000_000_000, -1), "INVALID_FIELD"),
        (at(-1, 0), "INVALID_FIELD"),
        (at(i64::MAX, 0), "INVALID_FIELD"),
        (at(253_402_300_800, 0), "INVALID_FIELD"),
    ] {
        Sender::check(sender.send(|_, m| m.expires_at = expires_at).await, reason);
    }
    sender.assert_nothing_stored().await;
}

/// I-22: the queue's own maximum holds, whatever the sender hopes.
#[tokio::test]
async fn the_year_9999_is_a_time_and_no_promise() {
    let mut sender = Sender::new().await;
    let end = Some(prost_types::Timestamp { seconds: 253_402_300_799, nanos: 0 });

    let receipt = sender.send(|_, m| m.expires_at = end).await.unwrap();

    let (accepted, deadline) = (receipt.accepted_at.unwrap(), receipt.deadline.unwrap());
    assert_eq!(deadline.seconds - accepted.seconds, 7 * 24 * 3600);
}
