//! Files of a checkpoint: read within bounds, written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use broker_client::orchestrator::{MOST_BYTES, TooSmall, Unreadable};

use crate::exit_code::Exit;

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
    written(path, text.as_ref()).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn written(path: &Path, text: &[u8]) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        // A device or a pipe is written to; nothing could take its place.
        Ok(found) if !found.is_file() => return fs::write(&path, text),
        Ok(_) | Err(_) => {}
    }
    let random = getrandom::u32().map_err(io::Error::other)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{random:08x}"));
    let beside = path.with_file_name(name);
    let done = File::create_new(&beside)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| keep_mode(&path, &beside))
        .and_then(|()| fs::rename(&beside, &path));
    if done.is_err() {
        // What is left of the attempt helps nobody.
        let _ = fs::remove_file(&beside);
    }
    done
}

/// Who could read the file before can read it afterwards, and nobody else.
fn keep_mode(path: &Path, beside: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => fs::set_permissions(beside, found.permissions()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_behind_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();

        replace(&link, "new").unwrap();

        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/file");
        assert!(matches!(replace(&missing, "x"), Err(Error::Write { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
