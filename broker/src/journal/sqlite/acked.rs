//! The last acknowledged batch, noted beside the file: a store that ends before it has lost something (I-32).
//!
//! The note is written after the commit's sync and before its answer, and is not synced itself. So it never runs ahead
//! of what is durable, survives the death of the process, and after a power cut is only older. Without it a last
//! transaction that was damaged later could not be told from one that was being written when the power went.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::journal::error::OpenError;
use crate::journal::frame::Tail;
use crate::journal::id::{BatchNo, Digest, JournalId};

const FILE: &str = "journal.acked";
const BODY: usize = 16 + 8 + 32;
const LEN: usize = BODY + 32;

/// What the note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) journal: JournalId,
    pub(super) number: BatchNo,
    pub(super) digest: Digest,
}

pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Reads the note; nothing if there is none, or none that is whole.
pub(super) fn read(directory: &Path) -> Result<Option<Acked>, OpenError> {
    let path = path(directory);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let acked = decode(&bytes);
    if acked.is_none() {
        tracing::warn!(path = %path.display(), "the note of the last acknowledged batch is damaged; it is written anew");
    }
    Ok(acked)
}

fn decode(bytes: &[u8]) -> Option<Acked> {
    let (body, digest) = bytes.split_at_checked(BODY)?;
    if bytes.len() != LEN || Digest::of(body).0 != *digest {
        return None;
    }
    let (journal, rest) = body.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    Some(Acked {
        journal: JournalId(*journal),
        number: BatchNo(u64::from_le_bytes(*number)),
        digest: Digest(rest.try_into().ok()?),
    })
}

/// The writing thread's pen.
#[derive(Debug)]
pub(super) struct Note {
    journal: JournalId,
    /// Without a file nothing is noted: a store that cannot be watched over can still be written.
    file: Option<File>,
}

impl Note {
    pub(super) fn open(directory: &Path, journal: JournalId) -> Self {
        let path = path(directory);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "cannot note what is acknowledged");
        }
        Self { journal, file: file.ok() }
    }

    /// Notes that the journal is durable up to `tail`.
    pub(super) fn write(&mut self, tail: Tail) {
        let Some(file) = &self.file else { return };
        let mut bytes = [0; LEN];
        bytes[..16].copy_from_slice(&self.journal.0);
        bytes[16..24].copy_from_slice(&tail.number.0.to_le_bytes());
        bytes[24..BODY].copy_from_slice(&tail.digest.0);
        let digest = Digest::of(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&digest.0);
        // An older note stays true; on a full disk there is nothing else to do.
        let _ = file.write_all_at(&bytes, 0);
    }
}
