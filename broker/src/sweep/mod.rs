//! The sweep: stored bytes that nothing refers to any more are removed once they are old enough.
//!
//! Two kinds of them: uploaded parts that no body names, which are forgotten by an event first, so that whoever asks is
//! told to upload them again; and contents that no record names, left behind by what was purged, by sessions that were
//! deleted (`tree`), by forgotten parts and by batches that were never stored.
//!
//! Invariant: what a durable record may still refer to stays. Where it is not certain, it stays.

mod find;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use broker_proto::{ContentHash, WallTime};
use futures::TryStreamExt;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    context::{self, Bodies},
    core::{Command, queue::BodyKey},
    engine::{self, Clock, EngineHandle},
    journal::{BatchNo, ContentKey, Journal, ReadError, record::RecordError},
};
use find::Wanted;
use walk::{Named, Stock, Walk};

/// Parts of one event batch, and contents of one removal.
const AT_ONCE: usize = 200;
/// A start has other things to read; afterwards once a day is often enough for what may stay for days.
const FIRST: Duration = Duration::from_secs(5 * 60);
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a sweep ended early. What it did until then stands; the next one does the rest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the journal")]
    Journal(#[from] ReadError),
    #[error("cannot read a record")]
    Record(#[from] RecordError),
    #[error(transparent)]
    Content(#[from] context::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// What one sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Swept {
    pub(crate) parts: usize,
    pub(crate) contents: usize,
}

/// Removes what nothing refers to.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) bodies: Bodies,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<dyn Clock>,
    /// The intake's: held by those who are about to refer to a part.
    pub(crate) parts: Arc<RwLock<()>>,
    /// How long what nothing refers to is kept.
    pub(crate) grace: Duration,
}

fn old_parts(stock: &Stock, before: WallTime) -> BTreeSet<ContentHash> {
    let old = stock.parts.iter().filter(|(_, (_, at))| *at <= before);
    old.map(|(hash, _)| *hash).collect()
}

impl Sweep {
    /// Sweeps again and again until `stop` fires.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut wait = FIRST;
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            let swept = stop.run_until_cancelled(self.once()).await;
            match swept {
                Some(Ok(Swept { parts: 0, contents: 0 })) | None => {}
                Some(Ok(swept)) => {
                    info!(
                        parts = swept.parts,
                        contents = swept.contents,
                        "removed what nothing refers to"
                    );
                }
                Some(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(error, "cannot sweep; what nothing refers to stays until the next time");
                }
            }
            wait = EVERY;
        }
    }

    /// One sweep. Safe to repeat, and to break off at any place.
    pub(crate) async fn once(&self) -> Result<Swept, Error> {
        let walk = Walk { journal: Arc::clone(&self.journal), bodies: self.bodies.clone() };
        let before = self.before();
        let stock = walk.stock(before).await?;
        let mut wanted = Wanted::new(old_parts(&stock, before));
        let mut named = Named::default();
        walk.uses((BatchNo(1), stock.head), &stock, &mut named, &mut wanted).await?;
        let forgotten = self.forget_parts(&walk, &stock, &mut named, wanted).await?;
        let contents = self.forget_contents(&stock, &named, &forgotten).await?;
        Ok(Swept { parts: forgotten.len(), contents })
    }

    /// What was left then, or earlier, is old enough.
    fn before(&self) -> WallTime {
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        WallTime(self.clock.now().wall.0.saturating_sub(grace))
    }

    /// Forgets the parts that are in no body, those that came meanwhile included: for that moment nobody can begin to
    /// refer to one.
    async fn forget_parts(
        &self,
        walk: &Walk,
        stock: &Stock,
        named: &mut Named,
        mut wanted: Wanted,
    ) -> Result<BTreeSet<ContentHash>, Error> {
        let _alone = self.parts.write().await;
        let since = (BatchNo(stock.head.0 + 1), self.engine.head());
        walk.uses(since, stock, named, &mut wanted).await?;
        let unused = wanted.into_rest();
        let hashes: Vec<ContentHash> = unused.iter().copied().collect();
        for hashes in hashes.chunks(AT_ONCE) {
            self.engine.command(Command::ForgetContents { hashes: hashes.to_vec() }).await?;
        }
        Ok(unused)
    }

    async fn forget_contents(
        &self,
        stock: &Stock,
        named: &Named,
        forgotten: &BTreeSet<ContentHash>,
    ) -> Result<usize, Error> {
        let of_parts = forgotten.iter().filter_map(|hash| stock.parts.get(hash));
        let of_parts: BTreeSet<BodyKey> =
            of_parts.flat_map(|(body, _)| body.keys.iter().copied()).collect();
        let is_named = |key: &ContentKey| {
            let key = BodyKey(key.to_bytes());
            named.has(&key) && !of_parts.contains(&key)
        };
        let mut keys = self.journal.keys(self.grace);
        let mut doomed = Vec::new();
        let mut removed = 0;
        loop {
            let key = keys.try_next().await?;
            let is_last = key.is_none();
            doomed.extend(key.filter(|key| !is_named(key)));
            if doomed.len() >= AT_ONCE || is_last && !doomed.is_empty() {
                removed += doomed.len();
                self.engine.forget(std::mem::take(&mut doomed)).await?;
            }
            if is_last {
                return Ok(removed);
            }
        }
    }
}
