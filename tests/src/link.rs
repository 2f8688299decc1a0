//! An agent's wire, frame by frame: for what a well-behaved agent never does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use broker_client::Endpoint;
use broker_proto::{
    AgentName, ContentHash, Delivery, Down, FrameCounter, Hello, ModelName, Part, SettleOutcome,
    Settlement, Stamp, Up, Usage, Welcome, pb,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use crate::within;

/// One stream of an agent. Dropping it breaks the stream.
#[derive(Debug)]
pub struct RawLink {
    up: mpsc::Sender<pb::ConnectRequest>,
    down: Streaming<pb::ConnectResponse>,
    /// Locked, so that a link can be spoken on by whoever holds it.
    counter: Mutex<FrameCounter>,
}

/// A greeting with a good token for `name`.
pub async fn hello(endpoint: &Endpoint, name: &str, models: &[&str]) -> Hello {
    let agent = AgentName::parse(name).expect("the test names an agent");
    // The token is asked of the wire itself: the client's never shows one.
    let token = pb::registry_service_client::RegistryServiceClient::new(channel(endpoint).await)
        .create_token(pb::CreateTokenRequest { name: name.to_owned() })
        .await
        .expect("a token is made")
        .into_inner()
        .token;
    Hello {
        agent,
        token,
        instance: "first".into(),
        is_exclusive: false,
        models: models.iter().map(|m| ModelName::parse(m).expect("a model's name")).collect(),
        capacity: 1,
        resume: Vec::new(),
        resume_token: None,
        resume_seen: 0,
        roles: Vec::new(),
        is_standby: false,
    }
}

/// A channel of its own to the broker.
pub async fn channel(endpoint: &Endpoint) -> tonic::transport::Channel {
    let uri = format!("unix://{}", endpoint.socket().display());
    let uri = tonic::transport::Endpoint::from_shared(uri).expect("a socket's address");
    within("the connection", uri.connect()).await.expect("the broker listens")
}

/// Sends one chunk of a part, whatever it is; true when the part is complete.
///
/// # Errors
/// The broker's refusal.
pub async fn upload_chunk(
    endpoint: &Endpoint,
    hash: ContentHash,
    size_bytes: u64,
    offset: u64,
    chunk: Bytes,
) -> Result<bool, Status> {
    let hash = hash.0.to_vec().into();
    let request = pb::UploadChunkRequest { hash, size_bytes, offset, chunk };
    let mut content =
        pb::content_service_client::ContentServiceClient::new(channel(endpoint).await);
    let reply = within("the upload's answer", content.upload_chunk(request)).await?;
    Ok(reply.into_inner().complete)
}

/// A settlement as done with this text.
#[must_use]
pub fn done(lease: &str, text: &str) -> Settlement {
    let outcome = SettleOutcome::Done { parts: vec![Part::text(text)], stop_reason: None };
    Settlement {
        lease: lease.to_owned(),
        outcome,
        usage: Usage::default(),
        limits: Vec::new(),
        first_token: None,
    }
}

/// The reason of a refusal, as `docs/errors.md` has it.
#[must_use]
pub fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

impl RawLink {
    /// Opens the stream; nothing is said on it yet.
    pub async fn open(endpoint: &Endpoint) -> Self {
        let channel = channel(endpoint).await;
        let (up, frames) = mpsc::channel(64);
        let mut client = pb::agent_link_service_client::AgentLinkServiceClient::new(channel);
        let opening = client.connect(ReceiverStream::new(frames));
        let down = within("the link's stream", opening).await.expect("the stream opens");
        Self { up, down: down.into_inner(), counter: Mutex::default() }
    }

    /// Opens a stream and greets on it for `opus`, under a shared name.
    pub async fn greeted(endpoint: &Endpoint, name: &str) -> Self {
        let mut link = Self::open(endpoint).await;
        link.greet(hello(endpoint, name, &["opus"]).await).await.expect("the broker welcomes it");
        link
    }

    /// Grants credit for so many messages of the usual size.
    pub async fn grant(&self, messages: u32) {
        self.say(Up::Credit { messages, size_bytes: 8 << 20 }).await;
    }

    /// Settles a lease as done with this text.
    pub async fn settle(&self, lease: &str, text: &str) {
        self.say(Up::Settle(vec![done(lease, text)])).await;
    }

    pub async fn say(&self, up: Up) {
        let stamp = self.counter().say();
        self.say_as(stamp, up).await;
    }

    fn counter(&self) -> MutexGuard<'_, FrameCounter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says a frame under any number.
    pub async fn say_as(&self, stamp: Stamp, up: Up) {
        let frame = pb::ConnectRequest::from(up).stamped(stamp);
        within("room on the wire", self.up.send(frame)).await.expect("the stream stands");
    }

    /// The next frame, or why the stream ended.
    ///
    /// # Errors
    /// The broker's status.
    pub async fn hear(&mut self) -> Result<Down, Status> {
        match within("a frame of the link", self.down.message()).await? {
            Some(frame) => {
                self.counter().hear(frame.stamp()).expect("no frame is lost or said twice");
                Ok(Down::try_from(frame).expect("a frame that can be read"))
            }
            None => Err(Status::ok("the stream ended")),
        }
    }

    /// Greets, and returns which leases hold.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn greet(&mut self, hello: Hello) -> Result<Vec<String>, Status> {
        Ok(self.welcome(hello).await?.resumed)
    }

    /// Greets.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn welcome(&mut self, hello: Hello) -> Result<Welcome, Status> {
        self.say(Up::Hello(hello)).await;
        match self.hear().await? {
            Down::Welcome(welcome) => Ok(welcome),
            other => panic!("the welcome comes first, not {other:?}"),
        }
    }

    /// The next delivery; other frames before it are dropped.
    pub async fn delivery(&mut self) -> Delivery {
        loop {
            if let Down::Deliver(delivery) = self.hear().await.expect("the link stands") {
                return *delivery;
            }
        }
    }

    /// The answer to a settlement.
    pub async fn settled(&mut self) -> broker_proto::SettledFrame {
        loop {
            if let Down::Settled(settled) = self.hear().await.expect("the link stands") {
                return settled;
            }
        }
    }

    /// The stream's end.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}
