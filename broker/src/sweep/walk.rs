//! The journal, read for what its records still refer to.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use futures::TryStreamExt;

use broker_proto::{ContentHash, PackageId, WallTime};

use super::{
    Error,
    find::Wanted,
    tree::{Heads, Living, Tree},
};
use crate::{
    context::{self, Bodies},
    core::{
        Event, package,
        queue::{Body, BodyKey, Seq},
        session,
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
    heads: Heads,
    /// Of the sessions up to the head, once it is decided which of them are gone.
    living: Living,
    /// Of each run of entries up to the head, in order, whether somebody can read it; empty where all can be read.
    reached: Vec<bool>,
}

impl Stock {
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Session(event) => self.heads.note(self.head, event),
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
                package::Event::Archived { .. }
                | package::Event::Forgotten { .. }
                | package::Event::Trusted { .. } => {}
            },
            _ => {}
        }
    }

    /// Whether nobody reads any more what this event of `batch` refers to. `run` counts the runs of entries before it.
    fn is_gone(&self, batch: BatchNo, event: &Event, run: &mut usize) -> bool {
        match event {
            Event::Session(event) => match event.as_ref() {
                session::Event::Entries(_) => {
                    let place = std::mem::replace(run, *run + 1);
                    batch <= self.head && !self.reached.get(place).is_none_or(|reached| *reached)
                }
                session::Event::Changed { id, .. } => {
                    batch <= self.head && self.living.is_gone(batch, id)
                }
            },
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
    /// What there is up to the journal's head. What sessions said that were deleted by `before` is there no more, unless
    /// others lead through it.
    pub(super) async fn stock(&self, before: WallTime) -> Result<Stock, Error> {
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
        stock.living = std::mem::take(&mut stock.heads).at(before);
        if !stock.living.is_all() {
            stock.reached = self.tree(stock.head).await?.reached(&stock.living);
        }
        Ok(stock)
    }

    /// Every entry up to this batch.
    async fn tree(&self, head: BatchNo) -> Result<Tree, Error> {
        let mut tree = Tree::default();
        let mut frames = self.journal.read(BatchNo(1), Until::Head);
        while let Some(frame) = frames.try_next().await? {
            if frame.number > head {
                break;
            }
            for record in &frame.records {
                let Some(Event::Session(event)) = record::decode(record)? else { continue };
                if let session::Event::Entries(entries) = event.as_ref() {
                    tree.add(entries);
                }
            }
        }
        Ok(tree)
    }

    /// Notes the bodies that the records of these batches name, and strikes the parts that stand in them.
    pub(super) async fn uses(
        &self,
        (first, last): (BatchNo, BatchNo),
        stock: &Stock,
        named: &mut Named,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        let mut run = 0;
        let mut frames = self.journal.read(first, Until::Head);
        while let Some(frame) = frames.try_next().await? {
            if frame.number > last {
                break;
            }
            for record in &frame.records {
                let Some(event) = record::decode(record)? else { continue };
                if stock.is_gone(frame.number, &event, &mut run) {
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
