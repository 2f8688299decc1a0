//! One link: its hello, its frames up, and its frames down.

mod history;
pub(super) mod settle;

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{Instrument, debug_span, info, info_span, warn};

use broker_proto::{
    APPEND_LABEL, AgentName, AnswerFrame, Delivery, Down, Hello, Message, MessageId, Part,
    Recipient, SettleOutcome, Settlement, Up, Welcome,
    convert::{InvalidField, Stored as _},
};

use super::{AgentToken, LeaseKey, Links, Out, table::Open};
use crate::{
    context::{self, Bodies},
    core::{
        Command, Delivered, Query, Reply,
        agent::{Link, LinkId},
        queue::Seq,
    },
    engine::{Clock, EngineHandle},
    intake::{Intake, bound, exchange, expected::Expected},
    planted,
    projection::Projection,
    reply::Slots,
    service::{self, reason},
    session::Sessions,
};

/// Frames to an agent waiting at most. Deliveries are bounded by its credit, the rest answers what it sent.
const OUT: usize = 8192;
/// What is written to an agent without looking for more, and the bytes of bodies read for it at once.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: u64 = 1024 * 1024;
/// The longest name a process may give itself.
const INSTANCE: usize = 64;
/// Roles that one agent takes at most.
const ROLES: usize = 16;
/// Settlements and sends of one link waiting for the engine at most, and their bytes; beyond that its frames wait on the
/// wire, so that a store that stalls costs no more memory than this for each link.
const SETTLING: usize = 4096;
const SETTLING_BYTES: u64 = 8 * 1024 * 1024;

/// What an agent says, already in domain types.
pub type Frames = std::pin::Pin<Box<dyn Stream<Item = Result<Up, Status>> + Send>>;
/// Where the broker's side of a link goes.
pub type Wire = mpsc::Sender<Result<Down, Status>>;

/// Settings of links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub heartbeat: Duration,
    pub lease: Duration,
    /// Of a pull that names none.
    pub pull_lease: Duration,
    pub hello_deadline: Duration,
    /// A link without a heartbeat for so long is closed.
    pub heartbeat_deadline: Duration,
}

/// What a link needs of the broker.
#[derive(Debug, Clone)]
pub struct Services {
    pub engine: EngineHandle,
    pub projection: Projection,
    pub bodies: Bodies,
    pub slots: Slots,
    pub links: Links,
    pub leases: LeaseKey,
    pub intake: Intake,
    pub sessions: Sessions,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub next_link: Arc<AtomicU64>,
    pub stop: CancellationToken,
}

/// A delivery that is out with this link's agent.
#[derive(Debug, Clone)]
struct Held {
    epoch: u32,
    id: MessageId,
    /// What its result must be; `None` after a reconnect, until its message is looked at again.
    expected: Option<Arc<Expected>>,
    /// A session may go on with its result; said of every delivery after a reconnect.
    may_append: bool,
    /// What its model was not sent of its session's history; `None` after a reconnect.
    shortened: Option<String>,
}

/// What is out, by number. Written by the writer (deliveries) and the reader (settlements).
type HeldTable = Arc<Mutex<HashMap<Seq, Held>>>;
/// `None` when the link is closed instead of an answer.
type Answering = BoxFuture<'static, Option<Down>>;

/// What waits for the engine, and its size.
#[derive(Default)]
struct Settling {
    waiting: FuturesUnordered<Weighed>,
    bytes: u64,
}

/// An answer that is still to come, and the bytes it holds until then.
struct Weighed {
    size_bytes: u64,
    answering: Answering,
}

impl Future for Weighed {
    type Output = (u64, Option<Down>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let size_bytes = self.size_bytes;
        self.answering.as_mut().poll(context).map(|down| (size_bytes, down))
    }
}

impl Settling {
    fn push(&mut self, size_bytes: u64, answering: Answering) {
        self.bytes += size_bytes;
        self.waiting.push(Weighed { size_bytes, answering });
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < SETTLING && self.bytes < SETTLING_BYTES
    }

    /// The next answer; `None` when nothing waits.
    async fn next(&mut self) -> Option<Option<Down>> {
        let (size_bytes, down) = self.waiting.next().await?;
        self.bytes -= size_bytes;
        Some(down)
    }
}

/// One link while it is open.
#[derive(Debug)]
struct LinkTask {
    /// Shared with what waits for the engine: each settlement and each send.
    services: Arc<Services>,
    agent: AgentName,
    link: LinkId,
    open: Open,
    held: HeldTable,
}

/// Runs one link from its hello to its end. Ends when the agent leaves, is superseded, or the broker stops.
pub async fn run(services: Services, mut frames: Frames, wire: Wire) {
    // A stop does not wait for a hello.
    let greeted = services.stop.run_until_cancelled(greet(&services, &mut frames, &wire)).await;
    match greeted.unwrap_or_else(|| Err(services.stopping(services.number()))) {
        Ok((task, out)) => {
            let span = info_span!("link", agent = %task.agent, link = task.link.0);
            task.serve(frames, out, wire).instrument(span).await;
        }
        Err(status) => {
            info!(reason = status.message(), "an agent was refused");
            // An agent that has gone needs no reason.
            let _ = wire.send(Err(status)).await;
        }
    }
}

/// Reads the hello, checks the token, tells the engine, and says welcome.
async fn greet(
    services: &Services,
    frames: &mut Frames,
    wire: &Wire,
) -> Result<(LinkTask, mpsc::Receiver<Out>), Status> {
    let deadline = services.settings.hello_deadline;
    let first = tokio::time::timeout(deadline, frames.next()).await;
    let hello = match first.map_err(|_| reason::no_hello())? {
        Some(Ok(Up::Hello(hello))) => hello,
        Some(Err(status)) => return Err(status),
        Some(Ok(_)) | None => return Err(reason::no_hello()),
    };
    if hello.instance.len() > INSTANCE {
        let problem = format!("is longer than {INSTANCE} bytes");
        return Err(InvalidField::new("hello.instance", problem).into());
    }
    if hello.roles.len() > ROLES {
        let problem = format!("are more than {ROLES}");
        return Err(InvalidField::new("hello.roles", problem).into());
    }
    if hello.is_standby && hello.roles.is_empty() {
        let problem = "are needed by who stands by: name the ring's role";
        return Err(InvalidField::new("hello.roles", problem).into());
    }
    authenticate(services, &hello).await?;
    let resumes = resumes(services, &hello)?;
    // Who stands by serves nothing.
    let models = hello
        .models
        .iter()
        .filter(|_| !hello.is_standby)
        .map(|name| services.intake.model(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(service::status::intake)?;

    let link = services.number();
    let (tx, out) = mpsc::channel(OUT);
    let open = Open {
        agent: hello.agent.clone(),
        instance: hello.instance.clone(),
        models: models.clone(),
        out: tx,
        close: CancellationToken::new(),
        reason: Arc::default(),
        pings: Arc::default(),
    };
    services.links.insert(link, open.clone());
    let held = HeldTable::default();
    let task = LinkTask {
        services: Arc::new(services.clone()),
        agent: hello.agent.clone(),
        link,
        open,
        held,
    };
    let resumed = match task.link_up(&hello, resumes, models).await {
        Ok(resumed) => resumed,
        Err(status) => {
            services.links.remove(link);
            return Err(status);
        }
    };
    let welcome = Down::Welcome(Welcome {
        link: link.0.to_string(),
        epoch: link.0,
        heartbeat: services.settings.heartbeat,
        lease: services.settings.lease,
        resumed,
        resume_token: services.leases.resume_token(&hello.agent, &hello.instance, link),
    });
    info!(agent = %hello.agent, link = link.0, models = ?hello.models, "agent linked");
    if wire.send(Ok(welcome)).await.is_err() {
        // Gone between its hello and its welcome; it must not stay as one that serves.
        task.down().await;
        return Err(reason::no_hello());
    }
    Ok((task, out))
}

async fn authenticate(services: &Services, hello: &Hello) -> Result<(), Status> {
    let hash = AgentToken::sent(&hello.token).hash();
    let owner = services.engine.query(Query::Token(hash)).await.map_err(service::status::engine)?;
    match owner {
        Reply::Agent(Some(owner)) if owner == hello.agent => Ok(()),
        _ => {
            warn!(agent = %hello.agent, "a token does not prove this name");
            Err(reason::token_rejected(&hello.agent))
        }
    }
}

/// The link that a greeting goes on from. A token that proves nothing is refused, and never mistaken for none.
fn resumes(services: &Services, hello: &Hello) -> Result<Option<LinkId>, Status> {
    let Some(token) = &hello.resume_token else { return Ok(None) };
    let before = services.leases.read_resume(token, &hello.agent, &hello.instance);
    let before = before.ok_or_else(|| {
        warn!(agent = %hello.agent, "a resume token does not prove this process");
        reason::resume_rejected()
    })?;
    info!(agent = %hello.agent, link = before.0, seen = hello.resume_seen, "goes on after a link");
    Ok(Some(before))
}

/// A copy has its original's body, which names the original.
fn as_delivered(agent: &AgentName, id: MessageId, mut message: Message) -> Message {
    if message.id != id {
        let original = std::mem::replace(&mut message.id, id);
        message.to = Recipient::Agent(agent.clone());
        message.correlation.root.get_or_insert(original);
        message.correlation.parent = Some(original);
    }
    message
}

impl Services {
    /// A lease with its message, or nothing when its bytes are not what was acknowledged (I-5); and what its model is not
    /// sent of its session's history.
    pub(super) async fn delivery(
        &self,
        agent: &AgentName,
        delivered: Delivered,
        bytes: Result<Bytes, context::Error>,
    ) -> Option<(Delivery, String)> {
        let Delivered {
            seq,
            id,
            epoch,
            generation,
            body,
            model,
            deadline,
            max_output_tokens,
            history_room,
            lease_left,
            ..
        } = delivered;
        let loaded = async {
            let message = Message::decode(bytes?).map_err(|_| context::Error::Corrupt)?;
            let mut exchanges = Vec::new();
            for exchange in &delivered.exchanges {
                exchanges.push(exchange::load(&self.bodies, exchange).await?);
            }
            Ok((message, exchanges))
        };
        let (message, exchanges) = match loaded.await {
            Ok(loaded) => loaded,
            Err(context::Error::Corrupt) => {
                warn!(message = %id, "the stored message is not what was acknowledged; it is quarantined");
                self.engine.tell(Command::Corrupt { seq, epoch }).await;
                return None;
            }
            Err(error) => {
                // The lease runs out and the message is delivered again.
                warn!(message = %id, %error, "cannot read a message");
                return None;
            }
        };
        let mut message = planted::altered(as_delivered(agent, id, message));
        // Each life after the first is a hop more (I-27).
        message.correlation.hops += generation.saturating_sub(1);
        let shortened = match (history_room, &model) {
            (Some(room), Some(model)) => history::shorten(self, &mut message, model, room).await,
            _ => String::new(),
        };
        let delivery = Delivery {
            lease: self.leases.token(seq, epoch),
            number: planted::number(seq, model.as_ref()),
            size_bytes: body.size_bytes + exchange::size_bytes(&delivered.exchanges),
            message,
            attempt: epoch,
            model,
            time_left: deadline.since(self.clock.now().wall),
            max_output_tokens,
            exchanges,
            lease_left,
            generation,
        };
        Some((delivery, shortened))
    }

    /// The number of a new link.
    pub(super) fn number(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn stopping(&self, link: LinkId) -> Status {
        reason::stopping_link(self.leases.reconnect_after(link, self.links.len()))
    }
}

impl LinkTask {
    /// Tells the engine of this link; gives the tokens of the leases that still hold.
    async fn link_up(
        &self,
        hello: &Hello,
        resumes: Option<LinkId>,
        models: Vec<broker_proto::ModelName>,
    ) -> Result<Vec<String>, Status> {
        let (roles, stands_by) = match hello.is_standby {
            true => (Vec::new(), hello.roles.clone()),
            false => (hello.roles.clone(), Vec::new()),
        };
        let up = Box::new(Link {
            agent: hello.agent.clone(),
            instance: hello.instance.clone(),
            resumes,
            pull: None,
            is_exclusive: hello.is_exclusive,
            models,
            roles,
            stands_by,
            capacity: hello.capacity,
            since: self.services.clock.now().wall,
            credit_messages: 0,
            credit_bytes: 0,
        });
        let resume = hello.resume.iter().filter_map(|token| self.services.leases.read(token));
        let command = Command::LinkUp { link: self.link, up, resume: resume.collect() };
        let reply = self.services.engine.command(command).await.map_err(service::status::engine)?;
        let Reply::Resumed(resumed) = reply else { return Ok(Vec::new()) };
        let mut held = self.held();
        for lease in &resumed {
            held.insert(
                lease.seq,
                Held {
                    epoch: lease.epoch,
                    id: lease.id,
                    expected: None,
                    may_append: true,
                    shortened: None,
                },
            );
        }
        drop(held);
        let token =
            |lease: crate::core::Resumed| self.services.leases.token(lease.seq, lease.epoch);
        Ok(resumed.into_iter().map(token).collect())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Seq, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, frames: Frames, out: mpsc::Receiver<Out>, wire: Wire) {
        let stop = self.services.stop.clone();
        let ended = tokio::select! {
            () = self.write(out, &wire) => None,
            left = self.read(frames) => left,
            () = self.open.close.cancelled() => {
                self.open.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
            }
            () = stop.cancelled() => Some(self.services.stopping(self.link)),
        };
        self.down().await;
        match &ended {
            Some(status) => info!(reason = status.message(), "link closed"),
            None => info!("link ended"),
        }
        if let Some(status) = ended {
            // An agent that has gone needs no reason, and one that does not read gets none: its stream just ends.
            let patience = self.services.settings.heartbeat;
            let _ = tokio::time::timeout(patience, wire.send(Err(status))).await;
        }
    }

    /// Nothing is given to this link any more.
    async fn down(&self) {
        self.services.links.remove(self.link);
        self.services.engine.tell(Command::LinkDown { link: self.link }).await;
    }

    /// Sends what goes down, reading the bodies of deliveries as they go.
    async fn write(&self, mut out: mpsc::Receiver<Out>, wire: &Wire) {
        let (mut taken, mut bodies) = (Vec::new(), VecDeque::new());
        while out.recv_many(&mut taken, TOGETHER).await > 0 {
            let mut waiting = VecDeque::from(std::mem::take(&mut taken));
            while let Some(next) = waiting.pop_front() {
                let frame = match next {
                    Out::Frame(frame) => {
                        self.let_go(&frame);
                        Some(*frame)
                    }
                    Out::Deliver(delivered) => {
                        if bodies.is_empty() {
                            bodies = self.bodies(&delivered, &waiting).await;
                        }
                        let body = bodies.pop_front().unwrap_or(Err(context::Error::Corrupt));
                        let (id, attempt) = (delivered.id, delivered.epoch);
                        let span = debug_span!("message", %id, attempt);
                        self.delivery(*delivered, body).instrument(span).await
                    }
                };
                let Some(frame) = frame else { continue };
                if wire.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The body of the first delivery and of those right behind it, read together: a backlog is delivered from the store,
    /// and one read each would cost more than all the rest.
    async fn bodies(
        &self,
        first: &Delivered,
        behind: &VecDeque<Out>,
    ) -> VecDeque<Result<Bytes, context::Error>> {
        let mut size_bytes = 0;
        let behind = behind.iter().filter_map(|out| match out {
            Out::Deliver(delivered) => Some(&delivered.body),
            Out::Frame(_) => None,
        });
        let together = std::iter::once(&first.body).chain(behind).take_while(|body| {
            let is_first = size_bytes == 0;
            size_bytes += body.size_bytes.max(1);
            is_first || size_bytes <= TOGETHER_BYTES
        });
        self.services.bodies.load_all(&together.collect::<Vec<_>>()).await.into()
    }

    /// Forgets a lease that its agent is told to have lost.
    fn let_go(&self, frame: &Down) {
        let Down::Revoke { lease, .. } = frame else { return };
        let Some((seq, epoch)) = self.services.leases.read(lease) else { return };
        let mut held = self.held();
        if held.get(&seq).is_some_and(|held| held.epoch == epoch) {
            held.remove(&seq);
        }
    }

    /// What goes out for a lease; from then on this link speaks for it.
    async fn delivery(
        &self,
        delivered: Delivered,
        body: Result<Bytes, context::Error>,
    ) -> Option<Down> {
        let Delivered { seq, id, epoch, .. } = delivered;
        let (delivery, shortened) = self.services.delivery(&self.agent, delivered, body).await?;
        let expected = Some(Arc::new(Expected::of_message(&delivery.message)));
        let may_append = delivery.message.labels.contains_key(APPEND_LABEL);
        if delivery.model.is_none() && delivery.message.payload.task.is_some() {
            self.services.slots.begin_work(seq, id, epoch);
        }
        self.held()
            .insert(seq, Held { epoch, id, expected, may_append, shortened: Some(shortened) });
        Some(Down::Deliver(Box::new(delivery)))
    }

    /// Takes what comes up, until the agent leaves. Gives the reason when it is the agent's fault.
    async fn read(&self, mut frames: Frames) -> Option<Status> {
        let mut settling = Settling::default();
        let deadline = self.services.settings.heartbeat_deadline;
        let mut silence = std::pin::pin!(sleep(deadline));
        loop {
            let reads = settling.has_room();
            tokio::select! {
                biased;
                Some(down) = settling.next() => {
                    if let Some(down) = down {
                        // A writer that has ended ends this reader too.
                        let _ = self.open.out.send(Out::Frame(Box::new(down))).await;
                    }
                    if !reads {
                        // Heartbeats may have waited on the wire all the while.
                        silence.as_mut().reset(Instant::now() + deadline);
                    }
                }
                frame = frames.next(), if reads => match frame {
                    None => break,
                    Some(Err(status)) => {
                        info!(reason = status.message(), "the stream broke");
                        return is_the_agents(&status).then_some(status);
                    }
                    Some(Ok(Up::Heartbeat { leases })) => {
                        silence.as_mut().reset(Instant::now() + deadline);
                        self.renew(&leases).await;
                    }
                    Some(Ok(Up::Bye { reason })) => {
                        info!(%reason, "agent says goodbye");
                        self.release_all(&mut settling);
                        while settling.next().await.is_some() {}
                        break;
                    }
                    Some(Ok(frame)) => self.take(frame, &mut settling).await,
                },
                () = &mut silence, if reads => return Some(reason::no_heartbeat(deadline)),
            }
        }
        None
    }

    async fn take(&self, frame: Up, settling: &mut Settling) {
        let engine = &self.services.engine;
        match frame {
            Up::Hello(_) => {}
            Up::Credit { messages, size_bytes } => {
                engine.tell(Command::Credit { link: self.link, messages, size_bytes }).await;
            }
            Up::Settle(settlements) => {
                for settlement in settlements {
                    settling.push(settlement.outcome.inline_bytes(), self.settle(settlement));
                }
            }
            Up::Part { delivery, frame } => {
                if let Some(over) = self.part(Seq(delivery), frame) {
                    settling.push(0, over);
                }
            }
            Up::Progress { lease, .. } => self.renew(&[lease]).await,
            Up::Usage { model, usage, limits, .. } => {
                let (limits, usage) = (bound::limits(limits), usage.believable());
                engine.tell(Command::Report { model, usage, limits, failure: None }).await;
            }
            Up::Send(message) => {
                let (services, agent) = (Arc::clone(&self.services), self.agent.clone());
                let id = message.id;
                let size_bytes = message.payload.parts().map(Part::size_bytes).sum();
                let sending = async move {
                    let result = services.intake.send_as_agent(&agent, *message).await;
                    let result =
                        result.map_err(|error| reason::frame(&service::status::intake(error)));
                    Some(Down::Sent { message: id, result })
                };
                settling.push(size_bytes, sending.boxed());
            }
            // Read where the link waits for them.
            Up::Heartbeat { .. } | Up::Bye { .. } => {}
            Up::Pong { nonce }
            | Up::SendPing { nonce, .. }
            | Up::PeerPong { nonce }
            | Up::PingDone { nonce, .. } => self.open.answered(nonce, frame),
        }
    }

    async fn renew(&self, tokens: &[String]) {
        let leases: Vec<_> =
            tokens.iter().filter_map(|token| self.services.leases.read(token)).collect();
        if !leases.is_empty() {
            let agent = self.agent.clone();
            self.services.engine.tell(Command::Renew { agent, leases }).await;
        }
    }

    /// Passes a part frame to its reply slot, without the engine. An answer that is too large ends its attempt.
    fn part(&self, seq: Seq, frame: AnswerFrame) -> Option<Answering> {
        let (AnswerFrame::PartStart { attempt, .. }
        | AnswerFrame::PartDelta { attempt, .. }
        | AnswerFrame::PartEnd { attempt, .. }) = &frame
        else {
            return None;
        };
        // An agent speaks for its own attempt only, whatever number it gives.
        let held = self.held().get(&seq).cloned().filter(|held| held.epoch == *attempt)?;
        let Some(slot) = self.services.slots.get(seq) else {
            // Beyond what is kept of it the rest is of no use.
            self.services.slots.work(seq).map(|work| work.part(frame));
            return None;
        };
        let too_large = slot.part(frame).err()?;
        Some(self.give_up(seq, &held, too_large.to_string()))
    }

    fn release_all(&self, settling: &mut Settling) {
        let tokens: Vec<String> = self
            .held()
            .iter()
            .map(|(seq, held)| self.services.leases.token(*seq, held.epoch))
            .collect();
        for lease in tokens {
            let given_back = self.settle(Settlement {
                lease,
                outcome: SettleOutcome::Release,
                usage: broker_proto::Usage::default(),
                limits: Vec::new(),
                first_token: None,
            });
            settling.push(0, given_back);
        }
    }
}

/// Whether a stream broke by what its agent said, so that it is told.
fn is_the_agents(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::DataLoss)
}
