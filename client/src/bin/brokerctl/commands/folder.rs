//! A folder for one run of one command.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A folder of this process alone; it is gone when this is.
#[derive(Debug)]
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Makes one among the temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or there is one already: a stranger's folder is never used.
    pub(crate) fn make(purpose: &str) -> io::Result<Self> {
        let random = getrandom::u32().map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("brokerctl-{purpose}-{random:08x}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What cannot be removed now the system removes with its other temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_its_owner() {
        let folder = PrivateFolder::make("test").unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();

        drop(folder);

        assert!(!path.exists());
    }
}
