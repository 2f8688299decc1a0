//! File systems of a case's own, to be filled or to lose their power.
//!
//! They need the right to mount; whoever has not got it is told why, and the case is skipped.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing more reaches the disk, not even the file system's
/// own log (Linux, `fs/ext4/ext4.h`).
const CUT: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

#[derive(Debug)]
pub(crate) struct Mounted {
    folder: TempDir,
    /// A file with an ext4 in it; otherwise it is in memory.
    image: Option<PathBuf>,
}

impl Mounted {
    /// In memory, so large.
    ///
    /// # Errors
    /// Why this machine cannot do it.
    pub(crate) fn memory(mebibytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={mebibytes}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(ToOwned::to_owned);
        run("mount", &[&arguments[..], &[text(folder.path())]].concat())?;
        Ok(Self { folder, image: None })
    }

    /// An ext4 in a file, on a loop device.
    ///
    /// # Errors
    /// Why this machine cannot do it.
    pub(crate) fn image(mebibytes: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().with_extension("ext4");
        fs::File::create(&image)?.set_len(mebibytes * MIB)?;
        let mounted = Self { folder, image: Some(image.clone()) };
        run("mkfs.ext4", &["-q".to_owned(), text(&image)])?;
        mounted.mount()?;
        Ok(mounted)
    }

    /// Where a broker may keep its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn mount(&self) -> anyhow::Result<()> {
        let image = self.image.as_deref().map(text).unwrap_or_default();
        run("mount", &["-o".to_owned(), "loop".to_owned(), image, text(self.folder.path())])
    }

    /// The power goes; what was synced before is all there is afterwards.
    pub(crate) fn cut_power(&self) -> anyhow::Result<()> {
        run("python3", &["-c".to_owned(), CUT.to_owned(), text(self.folder.path())])
    }

    /// The power is back. Nobody may have a file of it open.
    pub(crate) fn power_on(&self) -> anyhow::Result<()> {
        run("umount", &[text(self.folder.path())])?;
        self.mount()
    }

    /// Fills it until so many MiB are left.
    pub(crate) fn fill(&self, leave: u64) -> anyhow::Result<()> {
        let ballast = self.folder.path().join("ballast");
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(ballast)?;
        let piece = vec![1; 64 * 1024];
        while self.free()? > leave * MIB {
            match ballast.write_all(&piece) {
                Err(err) if err.kind() == ErrorKind::StorageFull => break,
                written => written?,
            }
        }
        Ok(())
    }

    /// Takes away what filled it.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.folder.path().join("ballast"))?)
    }

    fn free(&self) -> anyhow::Result<u64> {
        let found = rustix::fs::statvfs(self.folder.path())?;
        Ok(found.f_bavail * found.f_frsize)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A broker that still runs keeps it until it ends.
        let _ = run("umount", &["-l".to_owned(), text(self.folder.path())]);
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[String]) -> anyhow::Result<()> {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "{program}: {}", said.trim());
    Ok(())
}
