//! What was measured on.

use std::{fmt, fs, process::Command, thread, time::SystemTime};

use serde::Serialize;

/// A machine, as far as figures depend on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// The compiler on the machine, where there is one.
    pub(crate) rustc: Option<String>,
    pub(crate) build: &'static str,
    pub(crate) date: String,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn look() -> Self {
        let unknown = || "unknown".to_owned();
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self {
            cpu: cpu().unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            rustc: rustc(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            date: now.chars().take("2026-11-20".len()).collect(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, build, date, .. } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}")?;
        if let Some(rustc) = &self.rustc {
            write!(f, ", {rustc}")?;
        }
        write!(f, ", {build} build, {date}")
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn rustc() -> Option<String> {
    let said = Command::new("rustc").arg("--version").output().ok()?;
    let line = String::from_utf8(said.stdout).ok()?;
    // Without the commit and its date: `rustc 1.95.0`.
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    (words.len() == 2).then(|| words.join(" "))
}
