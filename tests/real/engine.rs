//! The engine as a process, and what it says when it is asked without an adapter.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

/// The id of the one model it has.
pub(crate) const MODEL: &str = "tiny-random";
/// Tokens; small, so that a few hundred words overflow it.
pub(crate) const WINDOW: u64 = 1024;
/// The first start installs the packages.
const READY_WITHIN: Duration = Duration::from_secs(300);
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// The exit code of `start.py` where the packages cannot be had.
const UNAVAILABLE: i32 = 77;

/// A running engine. Dropping it ends that process and no other.
pub(crate) struct Engine {
    child: Child,
    /// Its end tells the engine that this test is gone, even one that was killed.
    _stdin: Option<ChildStdin>,
    address: String,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engine {
    /// The engine, once it answers; `None`, said on stderr, where there can be none.
    pub(crate) fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("real-model/start.py");
        let command = Command::new("python3")
            .arg(script)
            .arg(folder())
            .args(["--window", &WINDOW.to_string(), "--exit-with-parent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match command {
            Ok(child) => child,
            Err(error) => return skip(&format!("python3 cannot be started: {error}")),
        };
        let log = read_aside(child.stderr.take().unwrap(), |from| {
            let mut text = String::new();
            let _ = BufReader::new(from).read_to_string(&mut text);
            text
        });
        let first = read_aside(child.stdout.take().unwrap(), |from| {
            let mut line = String::new();
            let _ = BufReader::new(from).read_line(&mut line);
            line
        });
        let stdin = child.stdin.take();
        let mut engine = Self { child, _stdin: stdin, address: String::new() };
        let line = first.recv_timeout(READY_WITHIN).expect("the engine says where it listens");
        if line.is_empty() {
            let code = engine.child.wait().unwrap().code();
            let log = log.recv_timeout(ANSWERS_WITHIN).unwrap_or_default();
            assert_eq!(code, Some(UNAVAILABLE), "the engine did not start: {log}");
            return skip(log.trim());
        }
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((said["model"].as_str(), said["window"].as_u64()), (Some(MODEL), Some(WINDOW)));
        engine.address = said["listening"].as_str().unwrap().to_owned();
        Some(engine)
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The reply to one POST, as the engine gives it.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
        let body = body.to_string();
        let (host, length) = (&self.address, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut reply = Vec::new();
        socket.read_to_end(&mut reply).unwrap();
        let text = String::from_utf8_lossy(&reply);
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

/// Where the packages and the model are kept: beside what cargo builds.
fn folder() -> PathBuf {
    let built = env::current_exe().unwrap();
    // The test is in `target/debug/deps`.
    built.ancestors().nth(3).unwrap().join("real-model")
}

fn read_aside<R: Send + 'static>(
    from: R,
    read: impl FnOnce(R) -> String + Send + 'static,
) -> mpsc::Receiver<String> {
    let (said, text) = mpsc::channel();
    thread::spawn(move || said.send(read(from)));
    text
}

fn skip<T>(why: &str) -> Option<T> {
    assert_ne!(env::var("REAL_ENGINE").as_deref(), Ok("require"), "{why}");
    // Not through the macro, whose words a passing test keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIP: no real engine to ask: {why}");
    None
}
