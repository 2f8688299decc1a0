//! The one task that owns a link: it waits for whatever happens next, and carries out what the rules decide.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use broker_proto::{Delivery, Down, HandoffOffer, Hello, Up, Welcome};
use secrecy::ExposeSecret;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::{
    AgentOptions, Ended, LinkState,
    backoff::{self, Backoff},
    connection::{Connection, Event},
    job::{Ending, Job, Order, Shared},
    offer::Offers,
    outbox::{Item, Outbox},
    ping::Pings,
    work::{Work, release},
};
use crate::{Client, Error, content::Cache};

/// Orders of jobs that wait for the task; more make the jobs wait.
const ORDERS: usize = 64;
/// Bytes of fetched parts kept for the next delivery of the same conversation.
const CACHE: usize = 64 * 1024 * 1024;

type Dial = Pin<Box<dyn Future<Output = Result<(Box<Connection>, Welcome), Error>> + Send>>;

/// Where the link is on its way to the broker.
enum Phase {
    Waiting(Instant),
    Dialing(Dial),
    Linked(Box<Connection>),
}

/// What happens next.
enum Next {
    Dial,
    Dialed(Result<(Box<Connection>, Welcome), Error>),
    Link(Event),
    Order(Order),
    Ending(Ending),
    /// This side wants to leave within that time.
    Leave(Duration),
    GraceOver,
}

/// The owner of a link's state.
pub(super) struct LinkTask {
    options: AgentOptions,
    instance: String,
    /// The token of the last welcome, and the last frame seen on its link.
    resume: Option<(String, u64)>,
    client: Client,
    work: Work,
    outbox: Outbox,
    pings: Pings,
    offers: Offers,
    backoff: Backoff,
    phase: Phase,
    /// When what is not settled is given back, once this side leaves.
    grace: Option<Instant>,
    /// The broker said that it stops.
    is_stopping: bool,
    /// How long the broker wants to be left alone, once the link is lost.
    reconnect_after: Option<Duration>,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    endings: (mpsc::Sender<Ending>, mpsc::Receiver<Ending>),
    jobs: mpsc::Sender<Job>,
    leaving: mpsc::Receiver<Duration>,
    state: watch::Sender<LinkState>,
    ended: Arc<OnceLock<Ended>>,
    shared: Arc<Shared>,
    tracker: TaskTracker,
}

impl LinkTask {
    pub(super) fn new(
        options: AgentOptions,
        leaving: mpsc::Receiver<Duration>,
        ended: Arc<OnceLock<Ended>>,
        tracker: TaskTracker,
    ) -> (Self, mpsc::Receiver<Job>, watch::Receiver<LinkState>) {
        // Who stands by has no room for anything.
        let (capacity, byte_credit) = match options.is_standby {
            true => (0, 0),
            false => (options.capacity.max(1), options.byte_credit),
        };
        let most = usize::try_from(capacity).unwrap_or(usize::MAX).clamp(1, 1 << 16);
        let (jobs, taken) = mpsc::channel(most);
        let (state, seen) = watch::channel(LinkState::Connecting { attempt: 1, error: None });
        let client = Client::lazy(&options.endpoint).with_token(options.token.clone());
        let shared = Arc::new(Shared {
            client: client.clone(),
            cache: Cache::new(CACHE),
            state: seen.clone(),
            retry: options.reconnect_min,
        });
        let task = Self {
            instance: instance(),
            resume: None,
            offers: Offers::new(client.clone(), options.reconnect_min),
            client,
            work: Work::new(capacity, byte_credit),
            outbox: Outbox::default(),
            pings: Pings::new(options.on_ping.clone()),
            backoff: Backoff::new(options.reconnect_min, options.reconnect_max),
            phase: Phase::Waiting(Instant::now()),
            grace: None,
            is_stopping: false,
            reconnect_after: None,
            orders: mpsc::channel(ORDERS),
            endings: mpsc::channel(most),
            jobs,
            leaving,
            state,
            ended,
            shared,
            tracker,
            options,
        };
        (task, taken, seen)
    }

    /// Runs the link until it ends for good.
    pub(super) async fn run(mut self) {
        let ended = loop {
            if self.work.is_leaving() && self.work.is_idle() {
                break Ended::Drained;
            }
            let next = self.next().await;
            if let Some(ended) = self.handle(next) {
                break ended;
            }
        };
        self.close(&ended).await;
        self.work.end();
        tracing::info!(agent = %self.options.name, ?ended, "the link has ended");
        // In this order: who sees the state `Ended` also finds the reason.
        let _ = self.ended.set(ended);
        self.state.send_replace(LinkState::Ended);
    }

    async fn next(&mut self) -> Next {
        let has_frame = !self.outbox.is_empty();
        let grace = self.grace;
        tokio::select! {
            biased;
            Some(ending) = self.endings.1.recv() => Next::Ending(ending),
            wish = self.leaving.recv(), if grace.is_none() => Next::Leave(wish.unwrap_or_default()),
            () = wait_until(grace) => Next::GraceOver,
            // Before the link, up to the outbox's room: what is said at once goes in one frame.
            Some(order) = self.orders.1.recv(), if self.outbox.has_room() => Next::Order(order),
            next = self.phase.next(has_frame) => next,
        }
    }

    fn handle(&mut self, next: Next) -> Option<Ended> {
        match next {
            Next::Dial => self.dial(),
            Next::Dialed(Ok((connection, welcome))) => self.welcomed(connection, &welcome),
            Next::Dialed(Err(error)) => return self.failed(error),
            Next::Link(event) => return self.linked(event),
            Next::Order(order) => {
                let items = self.work.order(order);
                self.say(items);
            }
            Next::Ending(ending) => self.ending(ending),
            Next::Leave(grace) => {
                self.work.leave();
                self.grace = Some(Instant::now() + grace);
                if matches!(self.phase, Phase::Linked(_)) {
                    self.state.send_replace(LinkState::Draining);
                }
            }
            Next::GraceOver => {
                let items = self.work.give_back();
                self.say(items);
                return Some(Ended::Drained);
            }
        }
        None
    }

    fn dial(&mut self) {
        let hello = Hello {
            agent: self.options.name.clone(),
            token: self.options.token.expose_secret().to_owned(),
            instance: self.instance.clone(),
            is_exclusive: self.options.is_exclusive,
            models: self.options.models.clone(),
            capacity: self.options.capacity.max(1),
            resume: self.work.leases(),
            resume_token: self.resume.as_ref().map(|(token, _)| token.clone()),
            resume_seen: self.resume.as_ref().map_or(0, |(_, seen)| *seen),
            roles: self.options.roles.clone(),
            is_standby: self.options.is_standby,
        };
        self.phase = Phase::Dialing(Box::pin(Connection::dial(self.client.clone(), hello)));
    }

    fn welcomed(&mut self, connection: Box<Connection>, welcome: &Welcome) {
        tracing::info!(
            agent = %self.options.name,
            link = welcome.link,
            resumed = welcome.resumed.len(),
            "linked"
        );
        self.resume = Some((welcome.resume_token.clone(), connection.seen()));
        self.phase = Phase::Linked(connection);
        self.is_stopping = false;
        self.reconnect_after = None;
        let items = self.work.reconnected(&welcome.resumed);
        self.say(items);
        let leaves = self.work.is_leaving();
        self.state.send_replace(if leaves { LinkState::Draining } else { LinkState::Connected });
    }

    fn linked(&mut self, event: Event) -> Option<Ended> {
        match event {
            Event::Down(down) => self.heard(down),
            Event::Unread(invalid) => {
                tracing::warn!(agent = %self.options.name, %invalid, "cannot read a frame");
            }
            Event::Beat => {
                let leases = self.work.beat();
                self.outbox.push(Item::Urgent(Up::Heartbeat { leases }));
            }
            Event::Room => {
                if let Phase::Linked(connection) = &mut self.phase
                    && let Some(up) = self.outbox.next(&self.work)
                {
                    connection.say(up);
                }
            }
            Event::Closed(error) => return self.lost(error),
        }
        None
    }

    fn heard(&mut self, down: Down) {
        match down {
            Down::Deliver(delivery) => self.deliver(*delivery),
            Down::Settled(settled) => {
                let items = self.work.settled(settled);
                self.say(items);
            }
            Down::Cancel { lease, .. } | Down::Revoke { lease, .. } => self.work.lose(&lease),
            Down::Ping { nonce } => self.outbox.push(Item::Urgent(Up::Pong { nonce })),
            Down::AskPing { nonce, to, text } => {
                let ping = self.pings.send(nonce, to, text);
                self.outbox.push(Item::Urgent(ping));
            }
            Down::PeerPing { nonce, from, text } => {
                let pong = self.pings.answer(nonce, &from, &text);
                self.outbox.push(Item::Urgent(pong));
            }
            Down::PeerPong { nonce } => {
                if let Some(done) = self.pings.answered(nonce) {
                    self.outbox.push(Item::Urgent(done));
                }
            }
            Down::Offer(offer) => {
                let takes = self.options.takes_sessions && !self.work.is_leaving();
                let is_its = self.options.models.contains(&offer.model);
                let HandoffOffer { session, handoff, model, .. } = &offer;
                tracing::info!(%session, %handoff, to = %model, takes, "a session is offered");
                if takes && is_its {
                    self.offers.take(offer, &self.tracker);
                } else if is_its && self.work.is_leaving() {
                    self.offers.decline(&offer, &self.tracker);
                }
            }
            Down::Warm { model, tokens } => {
                if let Some(hook) = &self.options.on_warm {
                    hook.call(&model, tokens);
                }
            }
            Down::Wake(wake) => {
                tracing::info!(agent = %self.options.name, role = %wake.role, "its turn has come");
                if let Some(hook) = &self.options.on_wake {
                    hook.call(&wake);
                }
            }
            Down::Drain { reason, reconnect_after, is_over, .. } => {
                tracing::info!(agent = %self.options.name, reason, is_over, "the broker drains");
                self.is_stopping = !is_over;
                self.reconnect_after = reconnect_after;
                let drains = self.is_stopping || self.work.is_leaving();
                let state = if drains { LinkState::Draining } else { LinkState::Connected };
                self.state.send_replace(state);
            }
            Down::Level { model, level, reason } => {
                tracing::debug!(%model, level, reason, "a model's level changed");
            }
            // Nothing is sent over this link, and a second welcome says nothing new.
            Down::Sent { .. } | Down::Welcome(_) => {}
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let place = self.endings.0.clone().try_reserve_owned();
        // Without credit there is no place; whoever delivers all the same gets it back.
        let (Ok(place), false) = (place, self.work.is_leaving()) else {
            self.outbox.push(Item::Say(Up::Settle(vec![release(delivery.lease)])));
            return;
        };
        let Some(grip) = self.work.take(&delivery) else { return };
        let mut job = Job::new(delivery, grip, self.orders.0.clone(), place, self.shared.clone());
        if !job.has_reference() {
            // There are as many places as jobs. A receiver that closed drops the job, which gives it back.
            let _ = self.jobs.try_send(job);
            return;
        }
        let jobs = self.jobs.downgrade();
        self.tracker.spawn(async move {
            match job.fetch().await {
                Ok(()) => {
                    if let Some(jobs) = jobs.upgrade() {
                        let _ = jobs.try_send(job);
                    }
                }
                Err(error) => {
                    tracing::warn!(message_id = %job.delivery().message.id, %error, "cannot fetch");
                    job.fail("the content of the message could not be fetched");
                }
            }
        });
    }

    fn ending(&mut self, ending: Ending) {
        // What the job said before comes before its end.
        while let Ok(order) = self.orders.1.try_recv() {
            let items = self.work.order(order);
            self.say(items);
        }
        let items = match ending {
            Ending::Settle { settlement, done } => self.work.settle(settlement, done),
            Ending::Abandon { lease, report } => self.work.abandon(lease, report),
        };
        self.say(items);
    }

    /// Keeps what is to be said; without a connection the next one begins with what is in hand then.
    fn say(&mut self, items: Vec<Item>) {
        items.into_iter().for_each(|item| self.outbox.push(item));
        if !matches!(self.phase, Phase::Linked(_)) {
            self.outbox.unlinked();
        }
    }

    fn lost(&mut self, error: Option<Error>) -> Option<Ended> {
        if let Phase::Linked(connection) = &self.phase {
            if connection.age() >= self.options.reconnect_max {
                self.backoff.reset();
            }
            if let Some((_, seen)) = &mut self.resume {
                *seen = connection.seen();
            }
        }
        if self.is_stopping {
            self.backoff.skip_first();
        }
        self.failed(error.unwrap_or(Error::EndedEarly))
    }

    fn failed(&mut self, error: Error) -> Option<Ended> {
        let error = match for_good(error) {
            Ok(ended) => return Some(ended),
            Err(error) => Arc::new(error),
        };
        if error.reason() == Some("RESUME_REJECTED") {
            self.resume = None;
        }
        let said = match &*error {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        let asked = said.or(self.reconnect_after.take()).unwrap_or_default();
        let wait = self.backoff.next(random()).max(backoff::spread(asked, random()));
        tracing::info!(agent = %self.options.name, %error, ?wait, "not linked, trying again");
        self.phase = Phase::Waiting(Instant::now() + wait);
        self.outbox.unlinked();
        let attempt = self.backoff.attempts();
        self.state.send_replace(LinkState::Connecting { attempt, error: Some(error) });
        None
    }

    /// Says goodbye on a connection that stands.
    async fn close(&mut self, ended: &Ended) {
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting(Instant::now()));
        if let (Phase::Linked(connection), Ended::Drained) = (phase, ended) {
            let mut frames: Vec<Up> = std::iter::from_fn(|| self.outbox.next(&self.work)).collect();
            frames.push(Up::Bye { reason: "drained".into() });
            for down in connection.close(frames).await {
                if let Down::Settled(settled) = down {
                    self.work.settled(settled);
                }
            }
        }
    }
}

impl Phase {
    async fn next(&mut self, has_frame: bool) -> Next {
        match self {
            Self::Waiting(until) => {
                sleep_until(*until).await;
                Next::Dial
            }
            Self::Dialing(dial) => Next::Dialed(dial.await),
            Self::Linked(connection) => Next::Link(connection.event(has_frame).await),
        }
    }
}

/// How the link ends for good when coming back is useless, else the error. Source of the reasons: `docs/errors.md`.
fn for_good(error: Error) -> Result<Ended, Error> {
    let is_last = match &error {
        Error::Refused { reason, .. } if reason == "SUPERSEDED" => return Ok(Ended::Superseded),
        Error::Refused { code, reason, .. } => {
            matches!(reason.as_str(), "TOKEN_REJECTED" | "NAME_TAKEN")
                || matches!(code, Code::Unauthenticated | Code::PermissionDenied)
        }
        Error::Token => true,
        _ => false,
    };
    if is_last { Ok(Ended::Refused(Arc::new(error))) } else { Err(error) }
}

async fn wait_until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => pending().await,
    }
}

/// Without a source of randomness the wait is half its ceiling: nothing but the spread depends on it.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

/// Names this link's process: 128 random bits, or what tells processes of one machine apart.
fn instance() -> String {
    match (getrandom::u64(), getrandom::u64()) {
        (Ok(high), Ok(low)) => format!("{high:016x}{low:016x}"),
        _ => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            format!("{}-{}", std::process::id(), now.unwrap_or_default().as_nanos())
        }
    }
}
