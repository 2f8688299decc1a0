//! Making a package of what is given.

use std::time::Duration;

use broker_proto::{
    ModelName, NewPackage, PackageHeader, PackageId, PackageInfo, Preservation, WallTime,
};

use super::{
    Guard, PackError, Refused, Signer, container,
    document::{others_fit, parts},
    open, pack,
    resume::instructions,
};

/// What the shell brings to a package that the rules may not make.
#[derive(Debug)]
pub struct Making<'a> {
    pub id: PackageId,
    pub nonce: [u8; 16],
    /// Broker time.
    pub now: WallTime,
    pub ttl: Duration,
    pub sender: String,
    pub level: Preservation,
    pub hops: u32,
    pub signer: &'a Signer,
}

/// A package, and what lists show of it.
#[derive(Debug)]
pub struct Built {
    pub file: Vec<u8>,
    pub info: PackageInfo,
}

/// Characters of a goal that lists show.
const TASK_SHOWN: usize = 200;

/// Builds a package. Without resumption instructions of its own it gets those that its contents give.
///
/// # Errors
/// [`PackError`] when it would be refused anywhere.
pub fn build(new: NewPackage, making: Making<'_>) -> Result<Built, PackError> {
    let header = PackageHeader {
        id: making.id,
        session: new.session,
        project: new.project,
        sender: making.sender,
        recipient: new.recipient,
        level: making.level,
        created_at: making.now,
        expires_at: making.now.after(new.ttl.unwrap_or(making.ttl)),
        hops: making.hops,
        nonce: making.nonce,
        reason: new.reason,
    };
    let mut contents = new.contents;
    if contents.resumption_instructions.is_empty() {
        contents.resumption_instructions = instructions(&header, &contents);
    }
    let parts = parts(&contents);
    others_fit(&parts)?;
    let file = pack(&header, &parts, making.signer)?;
    let own = making.signer.public();
    let guard = Guard {
        now: header.created_at,
        is_trusted: &|key| key == own,
        is_here: &|_: &ModelName| true,
        is_replayed: &|_| false,
        takes_expired: true,
    };
    // What cannot be taken here would be taken nowhere.
    let opened = open(&file, &guard).map_err(|_| PackError::TooLarge)?;
    let info = opened.info(&contents.task.goal, file.len() as u64);
    Ok(Built { file, info })
}

impl container::Opened<'_> {
    /// What lists show of it. Who it is signed by, and whether it has expired, is said by whoever shows it.
    #[must_use]
    pub fn info(&self, goal: &str, size_bytes: u64) -> PackageInfo {
        PackageInfo {
            header: self.header.clone(),
            task: goal.chars().take(TASK_SHOWN).collect(),
            parts: self.parts().to_vec(),
            size_bytes,
            checksum: self.checksum,
            signer: self.signer,
            signed_by: None,
            is_imported: false,
            is_expired: false,
        }
    }

    /// The contents, unpacked and read.
    ///
    /// # Errors
    /// As [`container::Opened::unpack`] and [`super::read`].
    pub fn contents(&self) -> Result<broker_proto::PackageContents, Refused> {
        super::read(&self.unpack()?)
    }
}
