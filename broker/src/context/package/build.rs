//! Making a package of what is given.

use std::time::Duration;

use broker_proto::{
    NewPackage, PackageContents, PackageHeader, PackageId, PackageInfo, Preservation, WallTime,
    package::Packed,
};

use super::{
    Opened, PackError, Refused, Signer,
    document::{count, others_fit, parts},
    pack,
    resume::instructions,
};
use crate::context::Tokenizer;

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
    /// The receiver's: counts the parts. One with a table blocks when it is first used.
    pub tokenizer: Tokenizer,
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
    let packed = {
        let mut parts = parts(&contents);
        others_fit(&parts).map_err(|_| PackError::OthersTooLarge)?;
        count(&mut parts, &contents.conversation, making.tokenizer);
        pack(&header, &parts, making.tokenizer.to_string(), making.signer)?
    };
    let Packed { file, parts, checksum } = packed;
    let info = PackageInfo {
        header,
        task: shown_task(&contents.task.goal),
        parts,
        tokenizer: making.tokenizer.to_string(),
        size_bytes: file.len() as u64,
        checksum,
        signer: making.signer.public(),
        signed_by: None,
        is_imported: false,
        is_expired: false,
        archived_at: None,
    };
    Ok(Built { file, info })
}

/// A goal as lists show it.
#[must_use]
pub fn shown_task(goal: &str) -> String {
    goal.chars().take(TASK_SHOWN).collect()
}

/// The contents of a package that was opened, unpacked and read.
///
/// # Errors
/// As [`Opened::unpack`] and [`super::read`].
pub fn contents(opened: &Opened<'_>) -> Result<PackageContents, Refused> {
    super::read(&opened.unpack()?)
}
