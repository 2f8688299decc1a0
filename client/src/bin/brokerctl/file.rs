//! Files that are replaced whole: whoever reads one meanwhile sees the old one or the new one.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Who may read a file once it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Who could read it before; of a new one whoever the user lets read files.
    AsBefore,
    /// Nobody but the user, whoever could before.
    Private,
}

/// Puts `text` in the place of what is there, in one step. A link stays one: what it points to is replaced.
///
/// # Errors
/// The system's; then the old file is there as it was, and nothing else.
pub(crate) fn replace(path: &Path, text: impl AsRef<[u8]>, access: Access) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = match fs::metadata(&path) {
        // A device or a pipe is written to; nothing could take its place.
        Ok(found) if !found.is_file() => return fs::write(&path, text),
        Ok(found) => Some(found.permissions()),
        Err(_) => None,
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let mode = match access {
        Access::AsBefore => mode,
        Access::Private => {
            options.mode(0o600);
            None
        }
    };
    let random = getrandom::u32().map_err(io::Error::other)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{random:08x}"));
    let beside = path.with_file_name(name);
    let done = options
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_ref()).and_then(|()| file.sync_all()))
        .and_then(|()| mode.map_or(Ok(()), |mode| fs::set_permissions(&beside, mode)))
        .and_then(|()| fs::rename(&beside, &path));
    if done.is_err() {
        // What is left of the attempt helps nobody.
        let _ = fs::remove_file(&beside);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_behind_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();

        replace(&link, "new", Access::AsBefore).unwrap();

        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new", 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_private_file_is_the_users_alone_whoever_could_read_it_before() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "old").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        for file in [&new, &old] {
            replace(file, "x = 1\n", Access::Private).unwrap();
            assert_eq!(
                (fs::read_to_string(file).unwrap().as_str(), mode(file)),
                ("x = 1\n", 0o600)
            );
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(replace(&folder.path().join("none/file"), "x", Access::AsBefore).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
