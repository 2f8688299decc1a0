//! Packages between the wire and the store: made, kept, taken in, given out, shown.
//!
//! Rules about the file are `context::package`'s, rules about what is kept are the core's; here they meet bodies, keys,
//! clock and randomness. Nothing that comes out of the store is believed before it was verified again.

mod ahead;
mod error;
mod handed;
mod made;
mod paused;
mod prepared;
mod queued;
mod restored;
mod taken;

pub use ahead::Ahead;
pub use error::Error;
pub(crate) use paused::Stopping;
pub use prepared::{ForReceiver, Prepared};
pub use restored::Restore;

use bytes::Bytes;

use broker_config::Packages as Settings;
use broker_proto::{
    ContentHash, OWN_KEY, PackageContents, PackageFilter, PackageId, PackageInfo, PackageKey,
    TrustedKey, WallTime,
};

use crate::{
    context::package::{self, Guard, Refused, Report, Signer, is_usable},
    core::{
        Command, Query, Reply,
        package::{
            Command as PackageCommand, Query as PackageQuery, Reply as PackageReply, Saved, Seen,
        },
    },
    engine,
    intake::Intake,
    session::Sessions,
};

/// Packages of one page, unless the caller says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Makes, keeps and shows packages.
#[derive(Debug, Clone)]
pub struct Packages {
    pub intake: Intake,
    pub sessions: Sessions,
    pub signer: Signer,
    pub settings: Settings,
}

/// A package that was verified, with its contents.
#[derive(Debug)]
pub struct Loaded {
    pub info: PackageInfo,
    pub contents: PackageContents,
    pub verified_at: WallTime,
}

/// How a package is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    Configured,
    Plain,
    Own(String),
}

/// A package's file as a caller gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    Inline(Bytes),
    Uploaded(ContentHash),
}

impl Packages {
    /// One page, newest first, and where the next one begins.
    ///
    /// # Errors
    /// [`Error::Lookup`] when the rows cannot be read.
    pub async fn list(
        &self,
        filter: PackageFilter,
        before: Option<PackageId>,
        size: u32,
    ) -> Result<(Vec<PackageInfo>, Option<PackageId>), Error> {
        let size = match size as usize {
            0 => PAGE,
            size => size.min(PAGE_MAX),
        };
        let (now, head) = (self.now(), self.intake.engine.head());
        let page = self.intake.projection.packages(filter, before, size, now, head).await?;
        let keys = self.keys().await?;
        let shown = page.0.into_iter().map(|saved| shown(saved.info, &keys, now)).collect();
        Ok((shown, page.1))
    }

    /// What lists show of one.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub async fn get(&self, id: PackageId) -> Result<PackageInfo, Error> {
        let saved = self.find(id).await?;
        Ok(shown(saved.info, &self.keys().await?, self.now()))
    }

    /// A package and all that is in it: this one, or the newest that has not expired.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::None`], and [`Error::Refused`] when it is not (any more) as it was signed.
    pub async fn load(
        &self,
        id: Option<PackageId>,
        filter: PackageFilter,
    ) -> Result<Loaded, Error> {
        let saved = match id {
            Some(id) => self.find(id).await?,
            None => {
                let filter = PackageFilter { is_expired: Some(false), ..filter };
                let (now, head) = (self.now(), self.intake.engine.head());
                let newest = self.intake.projection.packages(filter, None, 1, now, head).await?;
                newest.0.into_iter().next().ok_or(Error::None)?
            }
        };
        self.verified(saved, false).await
    }

    /// The report of a package, expired or not: by this template, else, unless it shall be `Plain`, by the configured
    /// one.
    ///
    /// # Errors
    /// As [`Packages::load`].
    pub async fn report(&self, id: PackageId, template: Template) -> Result<Report, Error> {
        let Loaded { info, contents, .. } = self.verified(self.find(id).await?, true).await?;
        let (template, problem) = match (template, &self.settings.report_template) {
            (Template::Own(template), _) => (Some(template), None),
            (Template::Plain, _) | (Template::Configured, None) => (None, None),
            (Template::Configured, Some(path)) => match tokio::fs::read_to_string(path).await {
                Ok(template) => (Some(template), None),
                Err(error) => {
                    let problem = format!("cannot read the template `{}`: {error}", path.display());
                    (None, Some(problem))
                }
            },
        };
        let report = package::report(&info, &contents, template.as_deref());
        Ok(Report { problem: problem.or(report.problem), ..report })
    }

    /// The file of a package for another broker: this broker's own is compressed and signed anew, another's is as it came.
    ///
    /// # Errors
    /// [`Error::Unknown`], and [`Error::Refused`] when what is kept is not what was signed here.
    pub async fn file(&self, id: PackageId) -> Result<Bytes, Error> {
        let saved = self.find(id).await?;
        let file = self.intake.bodies.load(&saved.body).await?;
        let (signer, now) = (self.signer.clone(), self.now());
        if saved.info.signer != signer.public() {
            return Ok(file);
        }
        apart(move || {
            let own = signer.public();
            let guard = Guard {
                now,
                // Nothing is signed that was not verified.
                is_trusted: &|key| key == own,
                is_here: &|_| true,
                is_replayed: &|_| false,
                takes_expired: true,
            };
            let packed = package::open(&file, &guard)?.for_the_way(&signer);
            Ok(packed.map_or(file, Bytes::from))
        })
        .await
    }

    /// # Errors
    /// [`crate::core::package::Refusal::Unknown`].
    pub async fn delete(&self, id: PackageId) -> Result<(), Error> {
        self.command(PackageCommand::Delete(id)).await
    }

    /// Trusts a key from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that signs nothing, and the core's refusals.
    pub async fn trust(&self, key: TrustedKey) -> Result<(), Error> {
        if !is_usable(key.key) {
            return Err(Error::key("is no Ed25519 public key"));
        }
        if key.key == self.signer.public() {
            return Err(Error::key("is this broker's own, which is trusted anyway"));
        }
        self.command(PackageCommand::Trust { name: key.name, key: key.key }).await
    }

    /// # Errors
    /// [`crate::core::package::Refusal::UnknownName`].
    pub async fn distrust(&self, name: String) -> Result<(), Error> {
        self.command(PackageCommand::Distrust { name }).await
    }

    /// Every key whose packages are taken, this broker's own first.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub async fn keys(&self) -> Result<Vec<TrustedKey>, Error> {
        let own = TrustedKey {
            name: OWN_KEY.to_owned(),
            key: self.signer.public(),
            trusted_at: None,
            is_own: true,
        };
        match self.ask(PackageQuery::Keys).await? {
            PackageReply::Keys(keys) => Ok([own].into_iter().chain(keys).collect()),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    fn now(&self) -> WallTime {
        self.intake.clock.now().wall
    }

    async fn seen(&self, nonce: [u8; 16]) -> Result<Seen, Error> {
        match self.ask(PackageQuery::Nonce(nonce)).await? {
            PackageReply::Nonce(seen) => Ok(seen),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    async fn ask(&self, query: PackageQuery) -> Result<PackageReply, Error> {
        match self.intake.engine.query(Query::Package(query)).await? {
            Reply::Package(reply) => Ok(reply),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    async fn command(&self, command: PackageCommand) -> Result<(), Error> {
        self.intake.engine.command(Command::Package(command)).await?;
        Ok(())
    }

    async fn find(&self, id: PackageId) -> Result<Saved, Error> {
        let head = self.intake.engine.head();
        self.intake.projection.package(id, head).await?.ok_or(Error::Unknown(id))
    }

    /// What is kept, verified as what comes in is: the store may have been changed, a key may be trusted no more.
    async fn verified(&self, saved: Saved, takes_expired: bool) -> Result<Loaded, Error> {
        let (keys, now) = (self.keys().await?, self.now());
        let file = self.intake.bodies.load(&saved.body).await?;
        let trusted: Vec<PackageKey> = keys.iter().map(|key| key.key).collect();
        let check = move || {
            let guard = Guard {
                now,
                is_trusted: &|key| trusted.contains(&key),
                is_here: &|_| true,
                is_replayed: &|_| false,
                takes_expired,
            };
            package::contents(&package::open(&file, &guard)?)
        };
        let contents = apart(check).await?;
        Ok(Loaded { info: shown(saved.info, &keys, now), contents, verified_at: now })
    }
}

/// Hashing and unpacking up to 256 MiB would hold up everything else on this thread.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Error> {
    let worked = tokio::task::spawn_blocking(work).await;
    Ok(worked.map_err(|_| Error::Engine(engine::Error::Stopping))??)
}

/// With what depends on the moment.
fn shown(info: PackageInfo, keys: &[TrustedKey], now: WallTime) -> PackageInfo {
    let signed_by = keys.iter().find(|key| key.key == info.signer).map(|key| key.name.clone());
    let is_expired = now >= info.header.expires_at;
    PackageInfo { signed_by, is_expired, ..info }
}
