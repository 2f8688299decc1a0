//! The two ends of a work queue as bare wires, so that what is measured is the broker: senders that keep a window of
//! messages under way, and agents that settle whatever comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use broker_client::Endpoint;
use broker_proto::{
    AgentName, Down, FrameCounter, Hello, Message, MessageId, MessageType, ModelName, Part,
    Payload, Recipient, SettleOutcome, Settlement, Up, Usage, WallTime, pb,
};
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

/// Nothing here waits longer for a frame.
const WITHIN: Duration = Duration::from_secs(60);
/// How often an agent says that it is alive.
const BEAT: Duration = Duration::from_secs(5);
/// Numbers the messages of this run.
static SENT: AtomicU64 = AtomicU64::new(0);

/// What went through, counted by whoever sees it last. Read by the scenario.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Places for messages between their sending and their settlement, so that no backlog builds up.
    room: Semaphore,
    /// Sends that the broker acknowledged.
    pub(crate) accepted: AtomicU64,
    /// Settlements that the broker acknowledged.
    pub(crate) settled: AtomicU64,
}

impl Counts {
    /// For at most so many messages between their sending and their settlement.
    pub(crate) fn with_room(room: usize) -> Arc<Self> {
        let (accepted, settled) = (AtomicU64::default(), AtomicU64::default());
        Arc::new(Self { room: Semaphore::new(room), accepted, settled })
    }
}

/// Connects to the broker.
pub(crate) async fn channel(endpoint: &Endpoint) -> anyhow::Result<Channel> {
    let uri = format!("unix://{}", endpoint.socket().display());
    let uri = tonic::transport::Endpoint::from_shared(uri)?
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    uri.connect().await.context("cannot connect to the broker")
}

/// A message that asks nothing, for the mailbox of `to`.
pub(crate) fn letter(to: &AgentName, size: usize) -> Message {
    let payload = Payload { request: vec![Part::text("x".repeat(size))], ..Payload::default() };
    let to = Recipient::Agent(to.clone());
    Message::new(next_id(), to, MessageType::Status, payload)
}

/// An id above those before it.
pub(crate) fn next_id() -> MessageId {
    let number = SENT.fetch_add(1, Ordering::Relaxed);
    MessageId::from_parts(WallTime::from_system(SystemTime::now()), u128::from(number))
}

/// One stream of an agent that has greeted.
pub(crate) struct Link {
    up: mpsc::Sender<pb::ConnectRequest>,
    down: Streaming<pb::ConnectResponse>,
    counter: FrameCounter,
    beaten: Instant,
}

impl Link {
    /// Makes a token for `name`, and greets with it over `channel`.
    pub(crate) async fn greet(channel: &Channel, name: &AgentName) -> anyhow::Result<Self> {
        Self::greet_for(channel, name, Vec::new()).await
    }

    /// The same as an agent of these models.
    pub(crate) async fn greet_for(
        channel: &Channel,
        name: &AgentName,
        models: Vec<ModelName>,
    ) -> anyhow::Result<Self> {
        let mut registry = pb::registry_service_client::RegistryServiceClient::new(channel.clone());
        let request = pb::CreateTokenRequest { name: name.to_string() };
        let token = registry.create_token(request).await?.into_inner().token;
        let (up, frames) = mpsc::channel(64);
        let hello = Hello {
            agent: name.clone(),
            token,
            instance: "bench".into(),
            is_exclusive: false,
            models,
            capacity: 64,
            roles: Vec::new(),
            is_standby: false,
            resume: Vec::new(),
            resume_token: None,
            resume_seen: 0,
        };
        let mut counter = FrameCounter::default();
        up.send(pb::ConnectRequest::from(Up::Hello(hello)).stamped(counter.say())).await?;
        let mut client =
            pb::agent_link_service_client::AgentLinkServiceClient::new(channel.clone());
        let down = client.connect(ReceiverStream::new(frames)).await?.into_inner();
        let mut link = Self { up, down, counter, beaten: Instant::now() };
        match link.hear().await? {
            Down::Welcome(_) => Ok(link),
            _ => bail!("the welcome comes first"),
        }
    }

    /// Says a frame, and a heartbeat before it when one is due.
    async fn say(&mut self, up: Up) -> anyhow::Result<()> {
        let is_due = self.beaten.elapsed() >= BEAT;
        let beat = is_due.then(|| Up::Heartbeat { leases: Vec::new() });
        for up in beat.into_iter().chain([up]) {
            let frame = pb::ConnectRequest::from(up).stamped(self.counter.say());
            self.up.send(frame).await.context("the link is gone")?;
        }
        if is_due {
            self.beaten = Instant::now();
        }
        Ok(())
    }

    fn read(&mut self, frame: Option<pb::ConnectResponse>) -> anyhow::Result<Down> {
        let frame = frame.context("the broker closed the link")?;
        self.counter.hear(frame.stamp())?;
        Ok(Down::try_from(frame)?)
    }

    async fn hear(&mut self) -> anyhow::Result<Down> {
        let frame = tokio::time::timeout(WITHIN, self.down.message()).await;
        let frame = frame.context("the broker says nothing more")??;
        self.read(frame)
    }

    /// What came meanwhile, without waiting.
    fn heard(&mut self) -> anyhow::Result<Option<Down>> {
        match self.down.message().now_or_never() {
            None => Ok(None),
            Some(frame) => Ok(Some(self.read(frame?)?)),
        }
    }

    /// Keeps `window` messages like `letter` under way until `stop` fires or `many` were sent, then waits for the rest.
    pub(crate) async fn send_all(
        mut self,
        letter: impl Fn(u64) -> Message,
        window: u64,
        many: u64,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut sent, mut answered) = (0, 0);
        loop {
            let is_over = sent == many || stop.is_cancelled();
            if is_over && sent == answered {
                return Ok(());
            }
            let mut next = tokio::select! {
                biased;
                // A place that was waited for is used: given back, it would go through the hands of all who wait.
                place = counts.room.acquire(), if !is_over && sent - answered < window => {
                    place?.forget();
                    let message = Message { id: next_id(), ..letter(sent) };
                    self.say(Up::Send(Box::new(message))).await?;
                    sent += 1;
                    None
                }
                down = self.hear(), if sent > answered => Some(down?),
                () = stop.cancelled(), if !is_over => None,
            };
            while let Some(down) = next {
                if let Down::Sent { result, .. } = down {
                    result.map_err(|refused| anyhow::anyhow!("{}", refused.reason))?;
                    answered += 1;
                    counts.accepted.fetch_add(1, Ordering::Relaxed);
                }
                next = self.heard()?;
            }
        }
    }

    /// Settles what comes, with credit for `capacity` at once, until `stop` fires.
    pub(crate) async fn settle_all(
        mut self,
        capacity: u32,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        self.say(Up::Credit { messages: capacity, size_bytes: 64 << 20 }).await?;
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                frame = self.down.message() => frame?,
                () = tokio::time::sleep(BEAT) => {
                    self.say(Up::Heartbeat { leases: Vec::new() }).await?;
                    continue;
                }
            };
            let mut next = Some(self.read(first)?);
            let (mut done, mut messages, mut size_bytes) = (Vec::new(), 0, 0);
            while let Some(down) = next {
                match down {
                    Down::Deliver(delivery) => {
                        size_bytes += delivery.size_bytes;
                        done.push(settlement(delivery.lease));
                    }
                    Down::Settled(settled) => {
                        if let Some(refused) = settled.refused {
                            bail!("a settlement was refused: {}", refused.reason);
                        }
                        counts.settled.fetch_add(1, Ordering::Relaxed);
                        counts.room.add_permits(1);
                        messages += 1;
                    }
                    _ => {}
                }
                next = self.heard()?;
            }
            if !done.is_empty() {
                self.say(Up::Settle(done)).await?;
            }
            if messages > 0 || size_bytes > 0 {
                self.say(Up::Credit { messages, size_bytes }).await?;
            }
        }
    }

    /// Says what is ordered and tells what comes, each with its moment, until nobody orders any more.
    pub(crate) async fn carry(
        mut self,
        mut orders: mpsc::Receiver<Up>,
        news: mpsc::UnboundedSender<(Instant, Down)>,
    ) -> anyhow::Result<()> {
        self.say(Up::Credit { messages: 64, size_bytes: 256 << 20 }).await?;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(up) => self.say(up).await?,
                    None => return Ok(()),
                },
                frame = self.down.message() => {
                    let frame = frame?;
                    let (at, down) = (Instant::now(), self.read(frame)?);
                    if let Down::Deliver(delivery) = &down {
                        let size_bytes = delivery.size_bytes;
                        self.say(Up::Credit { messages: 1, size_bytes }).await?;
                    }
                    // Nobody listens at the end.
                    let _ = news.send((at, down));
                }
                () = tokio::time::sleep(BEAT) => {
                    self.say(Up::Heartbeat { leases: Vec::new() }).await?;
                }
            }
        }
    }

    /// Stays, and keeps its lease of life, until `stop` fires.
    pub(crate) async fn idle(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        self.say(Up::Credit { messages: 1, size_bytes: 8 << 20 }).await?;
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                frame = self.down.message() => { let frame = frame?; self.read(frame)?; }
                _ = beat.tick() => self.say(Up::Heartbeat { leases: Vec::new() }).await?,
            }
        }
    }
}

fn settlement(lease: String) -> Settlement {
    answer(lease, Vec::new())
}

/// Settles as done with these parts.
pub(crate) fn answer(lease: String, parts: Vec<Part>) -> Settlement {
    Settlement {
        lease,
        outcome: SettleOutcome::Done { parts, stop_reason: None },
        usage: Usage::default(),
        limits: Vec::new(),
        first_token: None,
    }
}
