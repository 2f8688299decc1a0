//! A wall clock of a process's own: a library that is loaded before the others and adds an offset to the time.
//!
//! Only the wall clock is moved. The boot-time clock, on which leases run, stays the machine's.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Reads the offset, in nanoseconds, from a file that this process writes.
const SOURCE: &str = include_str!("clock.c");

#[derive(Debug)]
pub(crate) struct Clock {
    offset: File,
    variables: Vec<(String, String)>,
}

impl Clock {
    /// Compiles the library into `folder`. `None` when there is no C compiler here.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Option<Self>> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .output();
        match compiled {
            Err(_) => return Ok(None),
            Ok(output) if !output.status.success() => {
                bail!("cc: {}", String::from_utf8_lossy(&output.stderr))
            }
            Ok(_) => {}
        }
        let path: PathBuf = folder.join("clock.offset");
        fs::write(&path, 0_i64.to_ne_bytes())?;
        let offset = OpenOptions::new().write(true).open(&path).context("the clock's offset")?;
        let text = |path: &Path| path.display().to_string();
        let variables = vec![
            ("LD_PRELOAD".to_owned(), text(&library)),
            ("CLOCK_OFFSET_FILE".to_owned(), text(&path)),
        ];
        Ok(Some(Self { offset, variables }))
    }

    /// What a process that is to live by this clock needs in its environment.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        self.variables.clone()
    }

    /// Moves the clock to this far from the machine's.
    pub(crate) fn set(&self, offset_ms: i64) -> anyhow::Result<()> {
        let nanos = offset_ms.saturating_mul(1_000_000);
        self.offset.write_all_at(&nanos.to_ne_bytes(), 0).context("the clock's offset")
    }
}
