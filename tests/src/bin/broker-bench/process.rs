//! A child process: started without this one's environment, stopped by its id, and its use of the processors.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// Ticks of `/proc/PID/stat` per second: fixed for every architecture Linux runs on today. Source: proc(5), `USER_HZ`.
const TICKS: f64 = 100.0;

/// What the goals count in.
const MB: f64 = 1e6;

/// What a process takes, besides time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident memory, in MB.
    pub(crate) memory: f64,
    pub(crate) files: f64,
    pub(crate) threads: f64,
}

/// A program that runs; it ends with this process at the latest.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its end tells the child that nobody needs it any more.
    stdin: Option<ChildStdin>,
    id: u32,
}

impl Process {
    /// Starts `command`; what it logs goes to `NAME.log` in `folder`.
    pub(crate) fn start(command: &mut Command, name: &str, folder: &Path) -> anyhow::Result<Self> {
        let log = File::create(folder.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        let id = child.id().with_context(|| format!("{name} ended at once"))?;
        Ok(Self { child, stdin, id })
    }

    /// The first line it writes to stdout.
    pub(crate) async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("its output is read already")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        Ok(line)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Seconds of processor time so far, all threads together. Zero when the system does not say.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&format!("/proc/{}/stat", self.id))
    }

    /// Bytes that it has handed to the kernel to be written so far, to files and sockets. Zero when the system does not say.
    pub(crate) fn written_bytes(&self) -> f64 {
        let said = fs::read_to_string(format!("/proc/{}/io", self.id)).unwrap_or_default();
        let line = said.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0.0)
    }

    /// What it takes of the machine's memory and tables now.
    pub(crate) fn usage(&self) -> Usage {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            number.unwrap_or(0.0)
        };
        let files = fs::read_dir(format!("/proc/{}/fd", self.id)).map_or(0, Iterator::count);
        Usage {
            memory: field("VmRSS:") * 1024.0 / MB,
            files: files as f64,
            threads: field("Threads:"),
        }
    }

    /// Asks it to stop, and waits; kills it when it does not.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = i32::try_from(self.id).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        drop(self.stdin.take());
        if tokio::time::timeout(STOPS_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Seconds of processor time that the process of this `stat` file has used.
pub(crate) fn cpu_seconds(stat: &str) -> f64 {
    let text = fs::read_to_string(stat).unwrap_or_default();
    // The second field is a name in parentheses, which may hold anything; user and system time are 14 and 15.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = after_name.split_whitespace().skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// The program `name` beside this one, with nothing of this process's environment but what its log is to say.
pub(crate) fn sibling(name: &str) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let program: PathBuf = own.with_file_name(name);
    if !program.exists() {
        anyhow::bail!("{} is not there: cargo build --release --workspace", program.display());
    }
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(filter) = std::env::var_os("BROKER_LOG") {
        command.env("BROKER_LOG", filter);
    }
    Ok(command)
}

/// What a child logged last, for errors.
pub(crate) fn last_line(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    log.lines().last().unwrap_or("it said nothing").to_owned()
}
