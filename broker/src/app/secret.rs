//! The data folder: private, used by one broker at a time, with the keys that sign lease tokens and packages.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::Error;
use crate::{context::package::Signer, link::LeaseKey};

fn folder(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Folder { path: path.clone(), source }
}

/// Makes a folder that only this user may enter, and its parents.
pub(super) fn private_folder(path: &Path) -> Result<(), Error> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(folder(path))
}

/// Takes the folder for this process; freed when the file is dropped, also by a kill.
///
/// Safety does not rest on it (the journal fences by epoch); it makes the usual mistake a clear message.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    private_folder(path)?;
    let failed = folder(path);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("broker.lock"))
        .map_err(&failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The key of this store's lease tokens, made at its first start. Agents keep their tokens over a broker's restart.
pub(super) fn lease_key(path: &Path) -> Result<LeaseKey, Error> {
    key(path, "lease.key").map(LeaseKey::new)
}

/// The key that this broker signs packages with, made at its first start. Whoever trusts it knows it over a restart.
pub(super) fn signer(path: &Path) -> Result<Signer, Error> {
    key(path, "package.key").map(|key| Signer::new(&key))
}

/// 32 random bytes in a file that only this user may read, made when they are missing.
fn key(path: &Path, name: &str) -> Result<[u8; 32], Error> {
    let failed = folder(path);
    let file = path.join(name);
    let mut key = [0; 32];
    match File::open(&file).and_then(|mut stored| stored.read_exact(&mut key)) {
        Ok(()) => return Ok(key),
        // Missing, or torn by a crash while it was made: then nothing was signed with it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(failed(error)),
    }
    getrandom::fill(&mut key)?;
    let mut made = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .map_err(&failed)?;
    made.write_all(&key).and_then(|()| made.sync_all()).map_err(&failed)?;
    File::open(path).and_then(|folder| folder.sync_all()).map_err(&failed)?;
    Ok(key)
}

/// A key for a store that is gone with the process.
pub(super) fn random_key() -> Result<[u8; 32], Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(key)
}
