//! Files of a checkpoint: read within bounds, written whole or not at all.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use broker_client::orchestrator::{MOST_BYTES, TooSmall, Unreadable};

use crate::{exit_code::Exit, file::Access};

/// Why there is no payload, or no check.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no file {}", .0.display())]
    NotFound(PathBuf),
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is refused: {source}", .path.display())]
    Refused { path: PathBuf, source: Unreadable },
    #[error("{} would be overwritten: the state, the payload and the report are three files", .0.display())]
    Same(PathBuf),
    #[error("PACKAGE_TOO_LARGE: {} is larger than a package may be (64 MiB)", .0.display())]
    PackageTooLarge(PathBuf),
    #[error("{source}; {}", remedy(.source))]
    TooSmall { source: TooSmall },
}

impl Error {
    /// A damaged file is told apart from one that only has mistakes.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NotFound(_) => Exit::NotFound,
            Self::Refused { .. } | Self::PackageTooLarge(_) => Exit::Integrity,
            Self::Same(_) => Exit::Usage,
            Self::Read { .. } | Self::Write { .. } | Self::TooSmall { .. } => Exit::Failed,
        }
    }
}

fn remedy(small: &TooSmall) -> String {
    let larger = small.fitting.map(|level| format!("--level {} holds it; ", level.as_str()));
    format!("{}--allow-missing shortens it and counts what is left out", larger.unwrap_or_default())
}

/// The file's bytes, `-` is stdin; of a file that is too large one byte too many, so that it is refused as such.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_at_most(path, MOST_BYTES)
}

/// As [`read`], of files that may be larger or smaller.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(path.to_owned())),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Puts `text` in the place of what is there, in one step: whoever reads sees the old file or the new one.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<(), Error> {
    crate::file::replace(path, text, Access::AsBefore)
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}
