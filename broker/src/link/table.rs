//! The table of open links.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use broker_proto::{AgentName, Down, ModelName, Up};

use crate::{
    core::{Delivered, agent::LinkId},
    service::reason,
};

/// What goes out on a link.
#[derive(Debug)]
pub enum Out {
    /// A lease whose body is still to be read.
    Deliver(Box<Delivered>),
    Frame(Box<Down>),
}

/// One open link, as the rest of the broker sees it.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) agent: AgentName,
    pub(super) instance: String,
    pub(super) models: Vec<ModelName>,
    pub(super) out: mpsc::Sender<Out>,
    pub(super) close: CancellationToken,
    /// Why it is closed; written by whoever closes it, read once by the link.
    pub(super) reason: Arc<Mutex<Option<Status>>>,
    /// What it was asked and has not answered, by the number that its answer repeats.
    pub(super) pings: Arc<Mutex<HashMap<u64, oneshot::Sender<Up>>>>,
}

/// Every open link. Written by links as they come and go; read by the engine's outlet and by pings.
#[derive(Debug, Clone, Default)]
pub struct Links {
    open: Arc<DashMap<LinkId, Open>>,
}

impl Links {
    pub(super) fn insert(&self, link: LinkId, open: Open) {
        self.open.insert(link, open);
    }

    pub(super) fn remove(&self, link: LinkId) {
        if let Some((_, open)) = self.open.remove(&link) {
            // Whoever waits for an answer of this link waits no longer.
            open.pings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Hands something to a link. One whose agent does not read is closed: its leases run out, others go on.
    pub fn send(&self, link: LinkId, out: Out) {
        let Some(open) = self.open.get(&link) else { return };
        if open.out.try_send(out).is_err() {
            open.shut(reason::NOT_READING.status("the agent does not read its deliveries"));
        }
    }

    /// Hands a frame to one process of an agent: leases are a process's, and others of its name know nothing of them.
    pub fn send_to(&self, agent: &AgentName, instance: &str, frame: &Down) {
        let is_its = |open: &Open| open.agent == *agent && open.instance == instance;
        let links: Vec<LinkId> =
            self.open.iter().filter(|open| is_its(open)).map(|open| *open.key()).collect();
        for link in links {
            self.send(link, Out::Frame(Box::new(frame.clone())));
        }
    }

    /// Hands each link, or each of one agent, a frame of its own.
    pub fn send_each(&self, agent: Option<&AgentName>, frame: impl Fn(LinkId) -> Down) {
        let is_its = |open: &Open| agent.is_none_or(|agent| open.agent == *agent);
        let links: Vec<LinkId> =
            self.open.iter().filter(|open| is_its(open)).map(|open| *open.key()).collect();
        for link in links {
            self.send(link, Out::Frame(Box::new(frame(link))));
        }
    }

    /// Hands a frame to every link.
    pub fn send_all(&self, frame: &Down) {
        let links: Vec<LinkId> = self.open.iter().map(|open| *open.key()).collect();
        for link in links {
            self.send(link, Out::Frame(Box::new(frame.clone())));
        }
    }

    /// Closes a link for a reason that its agent is told.
    pub fn close(&self, link: LinkId, reason: Status) {
        if let Some(open) = self.open.get(&link).map(|open| open.clone()) {
            open.shut(reason);
        }
    }

    /// Closes every link of an agent.
    pub fn close_agent(&self, agent: &AgentName, reason: &Status) {
        let links: Vec<LinkId> =
            self.open.iter().filter(|open| open.agent == *agent).map(|open| *open.key()).collect();
        for link in links {
            self.close(link, reason.clone());
        }
    }

    /// Closes every link; their agents greet again.
    pub fn close_each(&self, reason: impl Fn(LinkId) -> Status) {
        let links: Vec<LinkId> = self.open.iter().map(|open| *open.key()).collect();
        for link in links {
            self.close(link, reason(link));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Sends a ping to an agent that serves `model`; the receiver fires with its answer.
    #[must_use]
    pub fn ping(
        &self,
        model: &ModelName,
        nonce: u64,
    ) -> Option<(AgentName, oneshot::Receiver<Up>)> {
        let (agent, answering) = self.answering(model)?;
        Some((agent, answering.ask(nonce, Down::Ping { nonce })))
    }

    /// An agent that serves `model`, to ask something of.
    pub(super) fn answering(&self, model: &ModelName) -> Option<(AgentName, Answering)> {
        let found = self.open.iter().find(|open| open.models.contains(model))?;
        let answering =
            Answering { links: self.clone(), link: *found.key(), pings: Arc::clone(&found.pings) };
        Some((found.agent.clone(), answering))
    }
}

/// One link, to ask something of.
#[derive(Debug)]
pub(super) struct Answering {
    links: Links,
    link: LinkId,
    pings: Arc<Mutex<HashMap<u64, oneshot::Sender<Up>>>>,
}

impl Answering {
    /// Says `down`; the receiver fires with the frame that answers `nonce`, and fails when the link ends before.
    pub(super) fn ask(&self, nonce: u64, down: Down) -> oneshot::Receiver<Up> {
        let (tx, rx) = oneshot::channel();
        let mut pings = self.pings.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more were not answered.
        pings.retain(|_, waiting| !waiting.is_closed());
        pings.insert(nonce, tx);
        drop(pings);
        self.links.send(self.link, Out::Frame(Box::new(down)));
        rx
    }
}

impl Open {
    fn shut(&self, status: Status) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(status);
        self.close.cancel();
    }

    /// Passes an answer on to whoever waits for it.
    pub(super) fn answered(&self, nonce: u64, up: Up) {
        let waiting = self.pings.lock().unwrap_or_else(PoisonError::into_inner).remove(&nonce);
        if let Some(waiting) = waiting {
            // Whoever asked may have left.
            let _ = waiting.send(up);
        }
    }
}
