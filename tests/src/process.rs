//! Real processes: found beside this one, run with nothing of this one's environment, never left behind.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    thread,
};

use broker_client::Endpoint;
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdout},
};

use crate::{PATIENCE, within};

/// Variables for a broker that a test runs: how full its disk is decides nothing, except where I-28 is tested.
pub const ANY_DISK: [(&str, &str); 1] = [("BROKER_BROKER_STORE_RESERVE_PERCENT", "0")];

/// A program of the workspace. It is built before the tests: `cargo build --workspace --bins --examples`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program's path");
    let folder = this.parent().expect("it is in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --workspace --bins --examples`",
        path.display()
    );
    path
}

/// The repository's folder.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the workspace")
}

/// Sends a signal to a process that may have ended.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone by itself is as good.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Asks a process to stop, waits for that, and gives its exit code. One that does not stop is killed.
pub(crate) fn end_in_order(mut child: std::process::Child) -> Option<i32> {
    let pid = child.id();
    signal(pid, Signal::TERM);
    let (done, ended) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let status = child.wait();
        // Whoever waited may have given up.
        let _ = done.send(());
        status
    });
    if ended.recv_timeout(PATIENCE).is_err() {
        signal(pid, Signal::KILL);
    }
    waiting.join().ok()?.ok()?.code()
}

/// How a program ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The one JSON object on stdout.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(err) => panic!("{err} in {self:?}"),
        }
    }

    /// Panics unless it ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A program to be run.
#[derive(Debug)]
pub struct Program {
    command: tokio::process::Command,
    stdin: Vec<u8>,
}

/// The real `brokerctl`, for the broker at `endpoint`.
#[must_use]
pub fn brokerctl(endpoint: &Endpoint) -> Program {
    Program::new("brokerctl").args(&["--endpoint", &endpoint.to_string()])
}

impl Program {
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut command = tokio::process::Command::new(program(name));
        command
            .env_clear()
            .envs(ANY_DISK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        Self { command, stdin: Vec::new() }
    }

    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: &[S]) -> Self {
        self.command.args(args);
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end.
    pub async fn output(self) -> Output {
        self.start().await.finish().await
    }

    /// Starts it and gives it its stdin.
    pub async fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A refusal may come before everything was read.
        let _ = within("room on stdin", stdin.write_all(&self.stdin)).await;
        drop(stdin);
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Running { child, stdout, read: Vec::new() }
    }
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    read: Vec<u8>,
}

impl Running {
    /// The next line of stdout, without its end.
    pub async fn line(&mut self) -> String {
        let from = self.read.len();
        let read = within("a line of stdout", self.stdout.read_until(b'\n', &mut self.read)).await;
        assert!(read.expect("stdout can be read") > 0, "stdout ended");
        String::from_utf8_lossy(&self.read[from..]).trim_end().to_owned()
    }

    /// The first bytes of stdout, as soon as there are any.
    pub async fn first_bytes(&mut self) -> Vec<u8> {
        let mut bytes = [0; 1024];
        let read = within("some bytes of stdout", self.stdout.read(&mut bytes)).await;
        let read = read.expect("stdout can be read");
        self.read.extend_from_slice(&bytes[..read]);
        bytes[..read].to_vec()
    }

    pub fn signal(&self, kind: Signal) {
        if let Some(pid) = self.child.id() {
            signal(pid, kind);
        }
    }

    /// Closes stdout as `head` does, and waits for the end; what it still says is on stderr.
    pub async fn without_reader(mut self) -> Output {
        drop(self.stdout);
        let mut stderr = String::new();
        let mut from = self.child.stderr.take().expect("stderr is piped");
        within("its stderr", from.read_to_string(&mut stderr)).await.expect("it is text");
        let status = within("its end", self.child.wait()).await.expect("it can be waited for");
        let stdout = String::from_utf8_lossy(&self.read).into_owned();
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    }

    /// Waits for its end.
    pub async fn finish(mut self) -> Output {
        let (mut stdout, mut stderr) = (self.read, Vec::new());
        let mut from = self.child.stderr.take().expect("stderr is piped");
        let reading = async {
            tokio::join!(self.stdout.read_to_end(&mut stdout), from.read_to_end(&mut stderr))
        };
        let (out, err) = within("its output", reading).await;
        out.and(err).expect("its output can be read");
        let status = within("its end", self.child.wait()).await.expect("it can be waited for");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// The processes below `pid`, each with its arguments.
#[must_use]
pub fn descendants(pid: u32) -> Vec<(u32, Vec<String>)> {
    let mut parents = Vec::new();
    let processes = fs::read_dir("/proc").expect("the system lists its processes");
    for name in processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Ok(child) = name.parse::<u32>() else { continue };
        // `pid (name) state ppid ...`; the name may hold anything but ends with the last bracket.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.push((child, parent));
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found.into_iter().map(|pid| (pid, arguments(pid))).collect()
}

fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}
