//! Agents: one link that is made anew whenever it breaks, and what is done with each delivery.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use broker_client::Endpoint;
use broker_proto::{
    AgentName, AnswerFrame, Delivery, Down, Failure, FailureClass, FrameCounter, Hello, ModelName,
    Part, SettleOutcome, Settlement, Up, Usage, Welcome, pb,
};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use super::{Conduct, Orders, conduct::Deed, digest, lease_name, millis, rank, reply_digest};
use crate::history::{Delivered, History, How, Outcome, Role, What};

/// How long an agent waits before it greets again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a greeting may go unanswered.
const WELCOME: Duration = Duration::from_secs(5);
/// What one link may have in hand.
const BYTE_CREDIT: u64 = 8 << 20;

/// Who the agent is, and what it is like.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    pub endpoint: Endpoint,
    pub history: PathBuf,
    /// This process's name in the history.
    pub name: String,
    pub agent: AgentName,
    pub token: SecretString,
    pub models: Vec<ModelName>,
    pub seed: u64,
    pub conduct: Conduct,
    pub capacity: u32,
    pub is_exclusive: bool,
}

/// A delivery in hand.
#[derive(Debug, Clone)]
struct Work {
    id: String,
    attempt: u32,
    number: u64,
    size_bytes: u64,
    deed: Deed,
    /// The agent says that it goes on with it.
    is_renewed: bool,
    /// It was settled once already, and the answer got lost.
    settled_as: Option<How>,
}

/// What is to be done after a while.
#[derive(Debug)]
enum Due {
    Settle { lease: String, how: How },
}

#[derive(Debug)]
struct Agent {
    options: AgentOptions,
    history: History,
    instance: String,
    calls: AtomicU64,
    tasks: TaskTracker,
    due: mpsc::UnboundedSender<Due>,
    /// By token.
    held: HashMap<String, Work>,
    /// Tokens of leases that ended unsettled, by message: to be tried once more.
    old: HashMap<String, (String, u32)>,
    /// Settlements under way, by token.
    asked: HashMap<String, VecDeque<Asked>>,
    /// What is to be done with a delivery once a stale word of its message is answered, by the stale token.
    behind: HashMap<String, (String, Deed)>,
    is_quiet: bool,
}

/// A settlement under way, and what follows its answer.
#[derive(Debug)]
struct Asked {
    call: u64,
    id: String,
    then: Option<How>,
    /// Its answer ends the work, and its credit comes back.
    size_bytes: Option<u64>,
}

/// The way up: frames are numbered in the order in which they are said.
#[derive(Debug, Clone)]
struct Wire {
    counter: Arc<Mutex<FrameCounter>>,
    /// Unbounded: bounded by the credit that was given, and the heartbeats.
    frames: mpsc::UnboundedSender<pb::ConnectRequest>,
}

impl Wire {
    fn new() -> (Self, mpsc::UnboundedReceiver<pb::ConnectRequest>) {
        let (frames, said) = mpsc::unbounded_channel();
        (Self { counter: Arc::default(), frames }, said)
    }

    fn counter(&self) -> MutexGuard<'_, FrameCounter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, up: Up) {
        let mut counter = self.counter();
        let frame = pb::ConnectRequest::from(up).stamped(counter.say());
        // A link that broke says so where it is read.
        let _ = self.frames.send(frame);
        drop(counter);
    }

    /// What a frame down says, when it is the next one.
    fn hear(&self, frame: pb::ConnectResponse) -> anyhow::Result<Down> {
        self.counter().hear(frame.stamp()).context("a frame is lost or said twice")?;
        Ok(Down::try_from(frame)?)
    }
}

/// One link.
struct Link {
    name: String,
    up: Wire,
    down: Streaming<pb::ConnectResponse>,
    heartbeat: Duration,
    lease: Duration,
}

pub(super) async fn run(
    options: AgentOptions,
    mut orders: watch::Receiver<Orders>,
) -> anyhow::Result<()> {
    let (history, file) = History::open(&options.history, &options.name).context("the history")?;
    let (seed, pid) = (options.seed, std::process::id());
    history.note(What::Began { seed, role: Role::Agent, pid }).await;
    let (due, mut dues) = mpsc::unbounded_channel();
    let tasks = TaskTracker::new();
    let mut agent = Agent {
        instance: format!("{}-{pid}", options.name),
        options,
        history: history.clone(),
        calls: AtomicU64::new(1),
        tasks: tasks.clone(),
        due,
        held: HashMap::new(),
        old: HashMap::new(),
        asked: HashMap::new(),
        behind: HashMap::new(),
        is_quiet: false,
    };
    let mut links = 0_u64;
    while *orders.borrow() < Orders::Stop {
        links += 1;
        if let Ok(mut link) = agent.greet(&format!("{links}")).await {
            agent.serve(&mut link, &mut dues, &mut orders).await;
            agent.left(&link).await;
        } else {
            // Either it is over, or it is tried again.
            let over = orders.wait_for(|orders| *orders == Orders::Stop);
            let _ = tokio::time::timeout(AGAIN, over).await;
        }
    }
    tasks.close();
    agent.history.note(What::Ended).await;
    drop((agent, history));
    tasks.wait().await;
    file.close().context("the history")
}

impl Agent {
    fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Connects and greets, and gives all the credit there is.
    async fn greet(&mut self, name: &str) -> anyhow::Result<Link> {
        let uri = format!("unix://{}", self.options.endpoint.socket().display());
        let channel = tonic::transport::Endpoint::from_shared(uri)?.connect().await?;
        let mut client = pb::agent_link_service_client::AgentLinkServiceClient::new(channel)
            .max_decoding_message_size(4 << 20);
        let (up, frames) = Wire::new();
        let resume: Vec<String> = self.held.keys().cloned().collect();
        let hello = Up::Hello(Hello {
            agent: self.options.agent.clone(),
            token: self.options.token.expose_secret().to_owned(),
            instance: self.instance.clone(),
            is_exclusive: self.options.is_exclusive,
            models: self.options.models.clone(),
            capacity: self.options.capacity,
            resume,
            resume_token: None,
            resume_seen: 0,
            roles: Vec::new(),
            is_standby: false,
        });
        up.say(hello);
        let opening = client.connect(UnboundedReceiverStream::new(frames));
        let mut down = tokio::time::timeout(WELCOME, opening).await??.into_inner();
        let first = tokio::time::timeout(WELCOME, down.message()).await??.context("no welcome")?;
        let Down::Welcome(welcome) = up.hear(first)? else {
            anyhow::bail!("the welcome comes first");
        };
        let Welcome { heartbeat, lease, resumed, .. } = welcome;
        self.history.remark(What::Linked {
            link: name.to_owned(),
            agent: self.options.agent.to_string(),
            instance: self.instance.clone(),
            lease_ms: millis(lease),
            resumed: resumed.iter().map(|token| lease_name(token)).collect(),
        });
        let resumed: HashSet<String> = resumed.into_iter().collect();
        let kept = self.take_over(&resumed);
        let link = Link { name: name.to_owned(), up, down, heartbeat, lease };
        let free = self.options.capacity.saturating_sub(kept);
        self.credit(&link, free, BYTE_CREDIT).await;
        Ok(link)
    }

    /// Drops what is lost, and says again what it had settled when the link broke. Gives how much it still holds.
    fn take_over(&mut self, resumed: &HashSet<String>) -> u32 {
        let mut kept = 0;
        let held = std::mem::take(&mut self.held);
        for (lease, work) in held {
            if let Some(how) = work.settled_as {
                // Lost or not: its answer says what became of it.
                let _ = self.due.send(Due::Settle { lease: lease.clone(), how });
            } else if !resumed.contains(&lease) {
                self.old.insert(work.id.clone(), (lease, work.attempt));
                continue;
            }
            kept += u32::from(resumed.contains(&lease));
            self.held.insert(lease, work);
        }
        kept
    }

    async fn credit(&self, link: &Link, messages: u32, size_bytes: u64) {
        let granted = u64::from(messages);
        let name = link.name.clone();
        self.history.note(What::Credit { link: name, messages: granted, size_bytes }).await;
        link.up.say(Up::Credit { messages, size_bytes });
    }

    /// Works on one link until it breaks or the harness says stop.
    async fn serve(
        &mut self,
        link: &mut Link,
        dues: &mut mpsc::UnboundedReceiver<Due>,
        orders: &mut watch::Receiver<Orders>,
    ) {
        // Whose stale word is not answered on this link any more.
        for (lease, deed) in std::mem::take(&mut self.behind).into_values() {
            if self.held.contains_key(&lease) {
                self.begin(link, &lease, deed).await;
            }
        }
        let is_deaf = self.options.conduct == Conduct::Deaf;
        let mut beat = tokio::time::interval(link.heartbeat.max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                changed = orders.changed() => {
                    self.is_quiet = true;
                    if changed.is_err() || *orders.borrow_and_update() == Orders::Stop {
                        self.history.note(What::Bye { link: link.name.clone() }).await;
                        let reason = "done".to_owned();
                        link.up.say(Up::Bye { reason });
                        return;
                    }
                    if is_deaf {
                        return;
                    }
                }
                Some(due) = dues.recv() => {
                    let Due::Settle { lease, how } = due;
                    self.settle(link, &lease, how, None).await;
                }
                _ = beat.tick() => self.heartbeat(link).await,
                frame = link.down.message(), if !is_deaf || self.is_quiet => {
                    let Ok(Some(frame)) = frame else { return };
                    let Ok(frame) = link.up.hear(frame) else { return };
                    self.hear(link, frame).await;
                }
            }
        }
    }

    async fn heartbeat(&self, link: &Link) {
        let renewed: Vec<String> = self
            .held
            .iter()
            .filter(|(_, work)| work.is_renewed)
            .map(|(lease, _)| lease.clone())
            .collect();
        if !renewed.is_empty() {
            let leases = renewed.iter().map(|token| lease_name(token)).collect();
            self.history.note(What::Renew { leases }).await;
        }
        link.up.say(Up::Heartbeat { leases: renewed });
    }

    async fn hear(&mut self, link: &Link, frame: Down) {
        match frame {
            Down::Deliver(delivery) => self.deliver(link, *delivery).await,
            Down::Settled(settled) => {
                let Some(asked) = self.asked.get_mut(&settled.lease).and_then(VecDeque::pop_front)
                else {
                    return;
                };
                let outcome = match settled.refused {
                    None => Outcome::Ok(()),
                    Some(refused) => Outcome::Refused {
                        code: refused_code(&refused.reason).to_owned(),
                        reason: refused.reason,
                        retry_ms: None,
                    },
                };
                let lease = lease_name(&settled.lease);
                let (call, id) = (asked.call, asked.id);
                self.history.note(What::Settled { call, lease, id, outcome }).await;
                if let Some((lease, deed)) = self.behind.remove(&settled.lease) {
                    self.begin(link, &lease, deed).await;
                }
                match asked.then {
                    Some(how) => self.settle(link, &settled.lease, how, None).await,
                    None => {
                        self.held.remove(&settled.lease);
                    }
                }
                if let Some(size_bytes) = asked.size_bytes {
                    self.credit(link, 1, size_bytes).await;
                }
            }
            Down::Revoke { lease, .. } => self.revoked(link, lease, false).await,
            Down::Cancel { lease, .. } => self.revoked(link, lease, true).await,
            Down::Ping { nonce } => {
                link.up.say(Up::Pong { nonce });
            }
            _ => {}
        }
    }

    async fn revoked(&mut self, link: &Link, lease: String, is_cancel: bool) {
        let Some(work) = self.held.get(&lease).cloned() else { return };
        let name = lease_name(&lease);
        self.history.remark(What::Revoked { lease: name, id: work.id.clone(), is_cancel });
        if work.settled_as.is_some() {
            // Its answer is still to come.
            return;
        }
        if work.deed != Deed::Late {
            self.held.remove(&lease);
        }
        if !is_cancel {
            self.old.insert(work.id, (lease, work.attempt));
        }
        self.credit(link, 1, work.size_bytes).await;
    }

    async fn deliver(&mut self, link: &Link, delivery: Delivery) {
        let Delivery { lease, number, size_bytes, message, attempt, model, time_left, .. } =
            delivery;
        let id = message.id.to_string();
        let queue = match &model {
            Some(model) => format!("model/{model}"),
            None => format!("agent/{}", self.options.agent),
        };
        let delivered = Delivered {
            link: link.name.clone(),
            agent: self.options.agent.to_string(),
            queue,
            id: id.clone(),
            number,
            attempt,
            lease: lease_name(&lease),
            digest: digest(&message),
            priority: rank(message.priority),
            key: message.ordering_key.clone(),
            left_ms: millis(time_left),
            size_bytes,
        };
        self.history.remark(What::Delivered(delivered));
        let conduct = if self.is_quiet { Conduct::Good } else { self.options.conduct };
        let deed = conduct.deed(self.options.seed, &id, attempt, model.is_some());
        let is_renewed = !matches!(deed, Deed::Abandon | Deed::Late);
        let work = Work {
            id: id.clone(),
            attempt,
            number,
            size_bytes,
            deed,
            is_renewed,
            settled_as: None,
        };
        self.held.insert(lease.clone(), work);
        // An old lease of the same message is tried first: it must settle nothing.
        if let Some((stale, _)) = self.old.remove(&id).filter(|(_, of)| *of < attempt) {
            self.settle_stale(link, &stale, &id, attempt).await;
            // While the new lease is held for sure: both words at once would be a race.
            self.behind.insert(stale, (lease, deed));
            return;
        }
        self.begin(link, &lease, deed).await;
    }

    /// Begins what is to be done with a delivery.
    async fn begin(&mut self, link: &Link, lease: &str, deed: Deed) {
        match deed {
            Deed::Done { after } if after.is_zero() => {
                self.settle(link, lease, How::Done, None).await
            }
            Deed::Done { after } => self.later(lease, How::Done, after),
            Deed::Streamed { pieces } => self.stream(link, lease, pieces).await,
            Deed::Broken => self.stream_half(link, lease).await,
            Deed::Failed => self.settle(link, lease, How::Failed, None).await,
            Deed::Retry { .. } => self.settle(link, lease, How::Retry, None).await,
            Deed::Release => self.settle(link, lease, How::Release, None).await,
            Deed::Reject => self.settle(link, lease, How::Reject, None).await,
            Deed::Abandon => {}
            Deed::Late => self.later(lease, How::Done, link.lease.mul_f64(1.6)),
            Deed::Twice => self.settle(link, lease, How::Done, Some(How::Done)).await,
            Deed::Otherwise { is_first_done: true } => {
                self.settle(link, lease, How::Done, Some(How::Release)).await;
            }
            Deed::Otherwise { is_first_done: false } => {
                self.settle(link, lease, How::Retry, Some(How::Done)).await;
            }
            Deed::Forged => {
                self.settle_forged(link, lease).await;
                self.settle(link, lease, How::Done, None).await;
            }
        }
    }

    fn later(&self, lease: &str, how: How, after: Duration) {
        let (due, lease) = (self.due.clone(), lease.to_owned());
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            // The agent may have ended.
            let _ = due.send(Due::Settle { lease, how });
        });
    }

    /// Settles, and once that is answered, settles once more as `then`.
    async fn settle(&mut self, link: &Link, lease: &str, how: How, then: Option<How>) {
        let Some(work) = self.held.get_mut(lease) else { return };
        // Only the last word ends the work; one that was said before the link broke may be the same.
        let is_first = work.settled_as.is_none();
        work.settled_as = Some(how);
        let retry = match work.deed {
            Deed::Retry { after } => after,
            _ => Duration::from_millis(150),
        };
        let work = work.clone();
        let text = reply(&work);
        let outcome = match how {
            How::Done | How::Forged => {
                SettleOutcome::Done { parts: vec![Part::text(&text)], stop_reason: None }
            }
            How::Failed => SettleOutcome::Failed {
                failure: Failure::new(FailureClass::Internal, "agent", "as its conduct wants"),
                partial: Vec::new(),
            },
            How::Retry => SettleOutcome::Retry { after: retry },
            How::Reject => SettleOutcome::Reject { reason: "as its conduct wants".to_owned() },
            How::Release => SettleOutcome::Release,
        };
        let size_bytes = is_first.then_some(work.size_bytes);
        let reply = (how == How::Done).then(|| reply_digest(&[Part::text(&text)]));
        self.say_settled(
            link,
            lease,
            &work.id,
            work.attempt,
            (how, reply),
            outcome,
            (then, size_bytes),
        )
        .await;
    }

    /// Tries the token of a lease that was lost before.
    async fn settle_stale(&mut self, link: &Link, lease: &str, id: &str, attempt: u32) {
        let text = format!("stale words on {id} before attempt {attempt}");
        let reply = Some(reply_digest(&[Part::text(&text)]));
        let outcome = SettleOutcome::Done { parts: vec![Part::text(text)], stop_reason: None };
        let of = attempt - 1;
        self.say_settled(link, lease, id, of, (How::Done, reply), outcome, (None, None)).await;
    }

    /// Tries a token that nobody was given.
    async fn settle_forged(&mut self, link: &Link, lease: &str) {
        let Some(work) = self.held.get(lease).cloned() else { return };
        let mut forged = lease.to_owned();
        let last = if forged.ends_with('0') { '1' } else { '0' };
        forged.pop();
        forged.push(last);
        let parts = vec![Part::text("forged words")];
        let outcome = SettleOutcome::Done { parts, stop_reason: None };
        let how = (How::Forged, None);
        self.say_settled(link, &forged, &work.id, work.attempt, how, outcome, (None, None)).await;
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one settlement, as it is noted and as it is sent"
    )]
    async fn say_settled(
        &mut self,
        link: &Link,
        lease: &str,
        id: &str,
        attempt: u32,
        (how, reply): (How, Option<String>),
        outcome: SettleOutcome,
        (then, size_bytes): (Option<How>, Option<u64>),
    ) {
        let call = self.call();
        let asked = Asked { call, id: id.to_owned(), then, size_bytes };
        self.asked.entry(lease.to_owned()).or_default().push_back(asked);
        let what =
            What::Settle { call, lease: lease_name(lease), id: id.to_owned(), attempt, how, reply };
        let settlement = Settlement {
            lease: lease.to_owned(),
            outcome,
            usage: Usage::default(),
            limits: Vec::new(),
            first_token: None,
        };
        let (history, up) = (self.history.clone(), link.up.clone());
        // The next delivery need not wait for this note's sync; this settlement does.
        self.tasks.spawn(async move {
            history.note(what).await;
            up.say(Up::Settle(vec![settlement]));
        });
    }

    /// Streams the answer piece by piece, and settles with the whole.
    async fn stream(&mut self, link: &Link, lease: &str, pieces: u32) {
        let Some(work) = self.held.get(lease) else { return };
        let text = reply(work);
        let size = text.len().div_ceil(pieces.max(1) as usize).max(1);
        stream_pieces(link, work, text.as_bytes().chunks(size));
        self.settle(link, lease, How::Done, None).await;
    }

    /// Streams half of an answer, and fails a moment later, when an asker has seen it.
    async fn stream_half(&mut self, link: &Link, lease: &str) {
        let Some(work) = self.held.get(lease) else { return };
        let text = reply(work);
        stream_pieces(link, work, [&text.as_bytes()[..text.len() / 2]].into_iter());
        self.later(lease, How::Failed, Duration::from_millis(60));
    }

    /// The link is gone: what was asked on it has no answer.
    async fn left(&mut self, link: &Link) {
        self.history.remark(What::Unlinked { link: link.name.clone() });
        for (lease, asked) in std::mem::take(&mut self.asked) {
            for Asked { call, id, .. } in asked {
                let outcome = Outcome::Unknown { why: "the link broke".to_owned() };
                let lease = lease_name(&lease);
                self.history.remark(What::Settled { call, lease, id, outcome });
            }
        }
    }
}

/// Streams these pieces as the first part of an answer.
fn stream_pieces<'a>(link: &Link, work: &Work, pieces: impl Iterator<Item = &'a [u8]>) {
    let (delivery, attempt, part) = (work.number, work.attempt, 0);
    let opening = Part::text("");
    link.up.say(Up::Part { delivery, frame: AnswerFrame::PartStart { attempt, part, opening } });
    let mut offset = 0;
    for piece in pieces {
        let data = Bytes::copy_from_slice(piece);
        let size = data.len() as u64;
        let frame = AnswerFrame::PartDelta { attempt, part, offset, data };
        link.up.say(Up::Part { delivery, frame });
        offset += size;
    }
}

/// What this agent answers: other words for every attempt of every message.
fn reply(work: &Work) -> String {
    format!("the answer to {} from attempt {}, in so many words", work.id, work.attempt)
}

/// The status of a reason that a settlement is refused with.
fn refused_code(reason: &str) -> &'static str {
    match reason {
        "LEASE_LOST" | "LINK_CLOSED" => "FAILED_PRECONDITION",
        "UNKNOWN_CONTENT" => "NOT_FOUND",
        "INVALID_FIELD" | "TOO_LARGE" => "INVALID_ARGUMENT",
        _ => "UNKNOWN",
    }
}
