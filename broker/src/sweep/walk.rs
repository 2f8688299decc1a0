//! The journal, read for what its records still refer to.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use futures::TryStreamExt;

use broker_proto::{ContentHash, PackageId, WallTime};

use super::{Error, find::Wanted};
use crate::{
    context::{self, Bodies},
    core::{
        Event, package,
        queue::{Body, BodyKey, Seq},
    },
    journal::{BatchNo, Journal, Until, record},
};

/// Keys in eight bytes each: two that fall together keep each other, and nothing worse.
#[derive(Debug, Default)]
pub(super) struct Named {
    keys: HashSet<u64>,
    hasher: RandomState,
}

impl Named {
    fn add(&mut self, body: &Body) {
        self.keys.extend(body.keys.iter().map(|key| self.hasher.hash_one(key.0)));
    }

    pub(super) fn has(&self, key: &BodyKey) -> bool {
        self.keys.contains(&self.hasher.hash_one(key.0))
    }
}

/// What there is, as of one batch.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) head: BatchNo,
    pub(super) parts: BTreeMap<ContentHash, (Body, WallTime)>,
    /// Messages that were purged: what they refer to, nobody reads again.
    gone: BTreeSet<Seq>,
    /// Packages that were deleted and did not come back.
    deleted: BTreeSet<PackageId>,
}

impl Stock {
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::ContentStored { hash, at, body } => {
                self.parts.insert(*hash, (body.clone(), *at));
            }
            Event::ContentForgotten { hash, .. } => {
                self.parts.remove(hash);
            }
            Event::Purged { subject, .. } => {
                self.gone.insert(subject.seq);
            }
            Event::Package(event) => match event.as_ref() {
                package::Event::Saved(saved) => {
                    self.deleted.remove(&saved.info.header.id);
                }
                package::Event::Deleted { id, .. } => {
                    self.deleted.insert(*id);
                }
                package::Event::Forgotten { .. } | package::Event::Trusted { .. } => {}
            },
            _ => {}
        }
    }

    /// Whether nobody reads any more what this event of `batch` refers to.
    fn is_gone(&self, batch: BatchNo, event: &Event) -> bool {
        match event {
            Event::ContentStored { hash, body, .. } => {
                let is_kept = self.parts.get(hash).is_some_and(|(kept, _)| kept == body);
                batch <= self.head && !is_kept
            }
            // One that came back behind the head is another event, and kept.
            Event::Package(event) => match event.as_ref() {
                package::Event::Saved(saved) => {
                    batch <= self.head && self.deleted.contains(&saved.info.header.id)
                }
                _ => false,
            },
            _ => event.subject().is_some_and(|subject| self.gone.contains(&subject.seq)),
        }
    }
}

/// Reads the journal's records.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) bodies: Bodies,
}

impl Walk {
    /// What there is up to the journal's head.
    pub(super) async fn stock(&self) -> Result<Stock, Error> {
        let mut stock = Stock::default();
        let mut frames = self.journal.read(BatchNo(1), Until::Head);
        while let Some(frame) = frames.try_next().await? {
            stock.head = frame.number;
            for record in &frame.records {
                if let Some(event) = record::decode(record)? {
                    stock.note(&event);
                }
            }
        }
        Ok(stock)
    }

    /// Notes the bodies that the records of these batches name, and strikes the parts that stand in them.
    pub(super) async fn uses(
        &self,
        (first, last): (BatchNo, BatchNo),
        stock: &Stock,
        named: &mut Named,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        let mut frames = self.journal.read(first, Until::Head);
        while let Some(frame) = frames.try_next().await? {
            if frame.number > last {
                break;
            }
            for record in &frame.records {
                let Some(event) = record::decode(record)? else { continue };
                if stock.is_gone(frame.number, &event) {
                    continue;
                }
                for body in event.bodies() {
                    named.add(body);
                    self.strike(body, wanted).await?;
                }
            }
        }
        Ok(())
    }

    async fn strike(&self, body: &Body, wanted: &mut Wanted) -> Result<(), Error> {
        if wanted.is_empty() || body.size_bytes == 0 {
            return Ok(());
        }
        match self.bodies.load(body).await {
            Ok(bytes) => wanted.strike(&bytes),
            // Forgotten before, or damaged: nobody can read what it refers to.
            Err(context::Error::Corrupt) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
