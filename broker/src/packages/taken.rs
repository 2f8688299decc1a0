//! Packages that come from elsewhere.

use bytes::Bytes;

use broker_proto::{ContentHash, ModelName, PackageInfo, PackageKey, TrustedKey};

use super::{Error, File, Packages, apart, made::CONTEXT_MAX, shown};
use crate::{
    context::package::{Guard, Refused, contents, open, shown_task},
    core::package::Seen,
};

/// Bytes of a request that was uploaded: the free context, and what else is said.
const REQUEST_MAX: u64 = CONTEXT_MAX as u64 + (4 << 20);

impl Packages {
    /// Verifies a package as one that would be taken in, and keeps nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first reason not to take it. One that is here already is no worse for that.
    pub async fn verify(&self, file: File) -> Result<PackageInfo, Error> {
        let file = self.read(file).await?;
        let keys = self.keys().await?;
        let info = self.examine(file, &keys).await?;
        if self.seen(info.header.nonce).await? == Seen::Spent {
            return Err(Refused::Replayed.into());
        }
        Ok(shown(info, &keys, self.now()))
    }

    /// Takes a package in, once.
    ///
    /// # Errors
    /// As [`Packages::verify`], and the core's refusal of one that was taken before.
    pub async fn import(&self, file: File) -> Result<PackageInfo, Error> {
        let file = self.read(file).await?;
        let keys = self.keys().await?;
        let mut info = self.examine(file.clone(), &keys).await?;
        info.is_imported = info.signer != self.signer.public();
        self.keep(file, info.clone(), None).await?;
        Ok(shown(info, &keys, self.now()))
    }

    async fn read(&self, file: File) -> Result<Bytes, Error> {
        let hash = match file {
            File::Inline(bytes) => return Ok(bytes),
            File::Uploaded(hash) => hash,
        };
        let head = self.intake.engine.head();
        let body = self.intake.projection.content(hash, head).await?.ok_or(Error::NotUploaded)?;
        Ok(self.intake.bodies.load(&body).await?)
    }

    /// A request that was uploaded because no frame holds it.
    ///
    /// # Errors
    /// [`Error::NotUploaded`], and [`Error::Invalid`] when it is larger than any that is taken.
    pub async fn uploaded(&self, hash: ContentHash) -> Result<Bytes, Error> {
        let head = self.intake.engine.head();
        let body = self.intake.projection.content(hash, head).await?.ok_or(Error::NotUploaded)?;
        if body.size_bytes > REQUEST_MAX {
            let problem = format!(
                "is larger than {} MiB; `context_json` may have {} MiB",
                REQUEST_MAX >> 20,
                CONTEXT_MAX >> 20
            );
            return Err(Error::field("uploaded", &problem));
        }
        Ok(self.intake.bodies.load(&body).await?)
    }

    /// Everything but whether it was here before: head, then every part.
    async fn examine(&self, file: Bytes, keys: &[TrustedKey]) -> Result<PackageInfo, Error> {
        let (now, models) = (self.now(), std::sync::Arc::clone(&self.intake.models));
        let trusted: Vec<PackageKey> = keys.iter().map(|key| key.key).collect();
        apart(move || {
            let guard = Guard {
                now,
                is_trusted: &|key| trusted.contains(&key),
                is_here: &|name: &ModelName| models.get(name.as_str()).is_some(),
                is_replayed: &|_| false,
                takes_expired: false,
            };
            let opened = open(&file, &guard)?;
            let contents = contents(&opened)?;
            Ok(opened.info(shown_task(&contents.task.goal), file.len() as u64))
        })
        .await
    }
}
