//! Packages that are made here.

use bytes::Bytes;

use broker_proto::{NewPackage, PackageId, PackageInfo, Preservation, convert::InvalidField};

use super::{Error, Packages, shown};
use crate::{
    context::{
        Tokenizer,
        package::{Built, Making, build},
    },
    core::{
        Command, Reply,
        package::{Command as PackageCommand, MadeOf, Reply as PackageReply},
        session::task::{MOST_LEVELS, too_deep},
    },
    journal::ContentKey,
};

/// Bytes of free context: whoever reads it may need sixteen times as many, and a session's history goes elsewhere.
pub(super) const CONTEXT_MAX: usize = 4 << 20;

/// Of a package that is for nobody in particular.
const BYTES_PER_TOKEN: f64 = 4.0;

impl Packages {
    /// Makes a package of what somebody says, and keeps it.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field that cannot be used.
    pub async fn save(&self, caller: String, mut new: NewPackage) -> Result<PackageInfo, Error> {
        if let Some(recipient) = &new.recipient {
            new.recipient = Some(self.intake.model(recipient)?);
        }
        if new.contents.created_by.is_empty() {
            new.contents.created_by = caller;
        }
        new.contents.context = checked(new.contents.context).await?;
        // Whoever calls is no model.
        self.make(String::new(), new, Preservation::Complete, 0, None).await
    }

    pub(super) async fn make(
        &self,
        sender: String,
        new: NewPackage,
        level: Preservation,
        hops: u32,
        of: Option<Box<MadeOf>>,
    ) -> Result<PackageInfo, Error> {
        let (mut nonce, mut random) = ([0; 16], [0; 16]);
        getrandom::fill(&mut nonce)?;
        getrandom::fill(&mut random)?;
        let now = self.now();
        let (ttl, signer) = (self.settings.ttl, self.signer.clone());
        let id = PackageId::from_parts(now, u128::from_be_bytes(random));
        let receiver = new.recipient.as_ref().and_then(|it| self.intake.models.get(it.as_str()));
        let tokenizer = receiver.map_or(Tokenizer::estimated(BYTES_PER_TOKEN), Tokenizer::of);
        let making = move || {
            let signer = &signer;
            build(new, Making { id, nonce, now, ttl, sender, level, hops, tokenizer, signer })
        };
        let built = tokio::task::spawn_blocking(making).await;
        let Built { file, info } =
            built.map_err(|_| Error::Engine(crate::engine::Error::Stopping))??;
        self.keep(Bytes::from(file), info.clone(), of).await?;
        Ok(shown(info, &self.keys().await?, self.now()))
    }

    /// Durable when this returns.
    pub(super) async fn keep(
        &self,
        file: Bytes,
        info: PackageInfo,
        of: Option<Box<MadeOf>>,
    ) -> Result<(), Error> {
        let stored = self.intake.bodies.store(file).await?;
        let save = PackageCommand::Save { info: Box::new(info), body: stored.body, of };
        let engine = &self.intake.engine;
        let saved = engine.with_contents(Command::Package(save), stored.contents).await?;
        if let Reply::Package(PackageReply::Saved { replaced }) = saved {
            let keys = replaced.iter().filter_map(|key| ContentKey::from_bytes(&key.0)).collect();
            // What is not removed now, the next sweep removes.
            let _ = engine.forget(keys).await;
        }
        Ok(())
    }
}

/// As [`check_context`], where it holds up nobody else.
pub(super) async fn checked(mut context: String) -> Result<String, Error> {
    let check = move || check_context(&mut context).map(|()| context);
    let checked = tokio::task::spawn_blocking(check).await;
    Ok(checked.map_err(|_| Error::Engine(crate::engine::Error::Stopping))??)
}

/// Makes an empty context an empty object; anything else must be one.
fn check_context(context: &mut String) -> Result<(), InvalidField> {
    if context.trim().is_empty() {
        "{}".clone_into(context);
        return Ok(());
    }
    if context.len() > CONTEXT_MAX {
        let problem = format!("is larger than {} MiB", CONTEXT_MAX >> 20);
        return Err(InvalidField::new("context_json", problem));
    }
    // Bounded in depth, so that what was saved can be loaded.
    match serde_json::from_str::<serde_json::Value>(context) {
        Ok(serde_json::Value::Object(_)) => match too_deep(context) {
            None => Ok(()),
            Some(at) => {
                let problem = format!("nests deeper than {MOST_LEVELS} levels, at byte {at}");
                Err(InvalidField::new("context_json", problem))
            }
        },
        Ok(_) => Err(InvalidField::new("context_json", "is JSON, but no object")),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let problem =
                format!("is no JSON, or nested too deeply, at line {line} column {column}");
            Err(InvalidField::new("context_json", problem))
        }
    }
}
