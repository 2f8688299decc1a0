//! The least that durability costs here: 1 KiB behind the end of a file, and its sync.

use std::{fs::File, io::Write, path::Path};

/// The size of one record.
const SIZE: usize = 1024;

/// A file that grows.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
}

impl Log {
    /// A new file on the disk of `folder`.
    pub(crate) fn create(folder: &Path) -> std::io::Result<Self> {
        Ok(Self { file: File::create(folder.join("bench-sync.log"))? })
    }

    /// Appends one record and waits until it is on the disk.
    pub(crate) fn append(&mut self) -> std::io::Result<()> {
        self.file.write_all(&[b'x'; SIZE])?;
        self.file.sync_data()
    }
}
