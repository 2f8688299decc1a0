//! Packages made before somebody asks: when a limit comes near, the work's next model finds one ready.
//!
//! What is owed is the core's word (`usage::Query::Near`, `package::Query::Owed`), so that nothing is lost with this
//! process: a start looks at all of it, and what could not be made is tried again.

use std::time::Duration;

use broker_proto::{BridgeStatus, SessionId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, ForReceiver, Packages};
use crate::{
    core::{
        Command, Query, Reply,
        handoff::{
            Settings,
            bridge::{Command as BridgeCommand, Query as BridgeQuery},
        },
        package::Owed,
        usage::{self, Near, Subject},
    },
    engine,
};

/// Of a model that comes near its limit: so many of its sessions, the ones that changed last.
const SESSIONS: u32 = 16;
/// The first wait before what could not be made is tried again, and the longest; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

/// Makes those packages.
#[derive(Debug)]
pub struct Ahead {
    packages: Packages,
    settings: Settings,
    near: mpsc::Receiver<Near>,
}

/// What became of what was owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing is owed any more.
    Made,
    /// Some of it still is; the log says why.
    Owed,
}

/// When to look at all that is owed.
#[derive(Debug)]
struct Looks {
    next: Option<Instant>,
    /// Until the look after one that leaves something owed.
    wait: Duration,
}

impl Looks {
    /// The first is at the start.
    fn new(now: Instant) -> Self {
        Self { next: Some(now), wait: FIRST_WAIT }
    }

    /// One at this time, unless there is an earlier one.
    fn at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn looked(&mut self, outcome: Outcome, now: Instant) {
        (self.next, self.wait) = match outcome {
            Outcome::Made => (None, FIRST_WAIT),
            Outcome::Owed => (Some(now + self.wait), (self.wait * 2).min(LONGEST_WAIT)),
        };
    }
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        if self == Self::Made { other } else { self }
    }
}

impl Ahead {
    #[must_use]
    pub fn new(packages: Packages, settings: Settings, near: mpsc::Receiver<Near>) -> Self {
        Self { packages, settings, near }
    }

    /// Makes packages until `stop` fires: at once those that an earlier broker owed.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut looks = Looks::new(Instant::now());
        loop {
            let look = looks.next;
            let near = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => None,
                near = self.near.recv() => match near {
                    Some(near) => Some(near),
                    None => return,
                },
            };
            let is_full = self.near.len() + 1 >= self.near.max_capacity();
            let making = async {
                match &near {
                    Some(near) => self.prepare(near).await,
                    None => self.catch_up().await,
                }
            };
            let Some(outcome) = stop.run_until_cancelled(making).await else { return };
            let now = Instant::now();
            match near {
                None => looks.looked(outcome, now),
                // It was full when this one was taken: there may be others that found no room.
                Some(_) if is_full => looks.at(now),
                Some(_) if outcome == Outcome::Owed => looks.at(now + looks.wait),
                Some(_) => {}
            }
        }
    }

    /// Everything that is owed.
    async fn catch_up(&self) -> Outcome {
        let near = match self.near_limits().await {
            Ok(near) => near,
            Err(error) => return failed("", &error),
        };
        let mut outcome = Outcome::Made;
        for near in near {
            outcome = outcome.and(self.prepare(&near).await);
        }
        outcome
    }

    /// The packages that the sessions are owed which this concerns.
    async fn prepare(&self, near: &Near) -> Outcome {
        let owed = match self.owed(&near.subject).await {
            Ok(owed) => owed,
            Err(error) => return failed(near.subject.scope().name(), &error),
        };
        let mut outcome = Outcome::Made;
        for owed in owed {
            // The others' packages are made all the same.
            let made = match self.one(owed.clone()).await {
                Ok(made) => made,
                Err(error) => {
                    self.tell(owed, &error).await;
                    Outcome::Owed
                }
            };
            outcome = outcome.and(made);
        }
        outcome
    }

    /// A bridge that is behind says why.
    async fn tell(&self, owed: Owed, error: &Error) {
        failed(owed.session.as_str(), error);
        let Some(to) = owed.to else { return };
        let (session, problem) = (owed.session, error.to_string());
        let said = BridgeCommand::NotSynced { session, to, problem };
        // It is found out with the next one, at the latest.
        let _ = self.packages.intake.engine.command(Command::Bridge(Box::new(said))).await;
    }

    async fn one(&self, owed: Owed) -> Result<Outcome, Error> {
        let Owed { session, to, level, reason } = owed;
        let Some(to) = to else {
            warn!(%session, "a limit is near, and no model can go on");
            return Ok(Outcome::Owed);
        };
        let room = self.settings.room;
        let wanted =
            ForReceiver { session, to, level, room, reason, is_ahead: true, unverified: None };
        let header = self.packages.for_receiver(wanted).await?.info.header;
        info!(session = ?header.session, package = %header.id, to = ?header.recipient, "a package is ready");
        Ok(Outcome::Made)
    }

    /// Every limit that is near, and every session with a bridge.
    async fn near_limits(&self) -> Result<Vec<Near>, Error> {
        let engine = &self.packages.intake.engine;
        let mut near = match engine.query(Query::OfUsage(usage::Query::Near)).await? {
            Reply::OfUsage(usage::Reply::Near(near)) => near,
            _ => return Err(Error::Engine(engine::Error::Unknown)),
        };
        match engine.query(Query::Bridges(BridgeQuery { session: None })).await? {
            Reply::Bridges(bridges) => {
                let of = |it: BridgeStatus| Subject::Session(it.bridge.session.to_string());
                near.extend(
                    bridges.into_iter().map(|it| Near { subject: of(it), reason: String::new() }),
                );
                Ok(near)
            }
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// What the sessions are owed that this concerns.
    async fn owed(&self, subject: &Subject) -> Result<Vec<Owed>, Error> {
        let ids = self.sessions(subject).await?;
        self.packages.owed(ids).await
    }

    async fn sessions(&self, subject: &Subject) -> Result<Vec<SessionId>, Error> {
        match subject {
            Subject::Model(model) => {
                let sessions = &self.packages.sessions;
                let listed = sessions.list(Some(model.clone()), None, SESSIONS).await?.0;
                Ok(listed.into_iter().map(|session| session.id).collect())
            }
            // Counted under a name that is no session's: there is nothing to pack.
            Subject::Session(name) => Ok(SessionId::parse(name).into_iter().collect()),
        }
    }
}

fn failed(of: &str, error: &Error) -> Outcome {
    let error: &dyn std::error::Error = error;
    warn!(of, error, "no package could be prepared; it is tried again");
    Outcome::Owed
}

#[cfg(test)]
mod tests;
