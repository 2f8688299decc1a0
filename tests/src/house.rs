//! Everything that `brokerctl up --simulated` starts, as real processes.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use broker_client::{Client, Endpoint};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    ANY_DISK, Control, Output, Program, Running, brokerctl, descendants, process::end_in_order,
    program, signal, within,
};

/// The whole house on a folder of its own. Dropping it stops it in order.
#[derive(Debug)]
pub struct TestHouse {
    folder: TempDir,
    child: Option<Child>,
    /// Held, so that `up` can always write.
    _stdout: BufReader<tokio::process::ChildStdout>,
    /// The line that says it is ready.
    pub ready: String,
    pub sim: Control,
}

/// The shipped models and chain, answered as fast as the socket takes it.
const FAST: &str = "[simulator]\ntokens_per_second = 1000000\nfirst_token = \"0ms\"\n";

impl TestHouse {
    /// The shipped configuration, with answers that cost no time.
    pub async fn start() -> Self {
        Self::with(FAST).await
    }

    /// With these settings over the shipped ones.
    pub async fn with(settings: &str) -> Self {
        Self::with_env(settings, &[]).await
    }

    /// With these settings, and variables in the environment of `up`.
    pub async fn with_env(settings: &str, env: &[(&str, &str)]) -> Self {
        let settings = if settings.contains("[simulator]") {
            settings.to_owned()
        } else {
            format!("{FAST}{settings}")
        };
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("house.toml");
        fs::write(&config, settings).expect("the settings can be written");
        let log = fs::File::create(folder.path().join("up.log")).expect("the log can be written");
        let mut child = Command::new(program("brokerctl"))
            .env_clear()
            .envs(ANY_DISK)
            .envs(env.iter().copied())
            .args(["up", "--simulated", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("brokerctl starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stdout = tokio::process::ChildStdout::from_std(stdout).expect("stdout is a pipe");
        let mut house = Self {
            folder,
            child: Some(child),
            _stdout: BufReader::new(stdout),
            ready: String::new(),
            sim: Control::new(""),
        };
        let Self { _stdout, ready, .. } = &mut house;
        let read = within("the `ready:` line", _stdout.read_line(ready)).await;
        read.expect("stdout is text");
        assert!(house.ready.starts_with("ready: "), "{:?}\n{}", house.ready, house.log());
        house.sim = Control::new(&house.simulator_address());
        house
    }

    fn simulator_address(&self) -> String {
        let effective = fs::read_to_string(self.data_dir().join("effective.toml"));
        let effective = effective.expect("`up` writes what is in force");
        let address = effective.split("http://127.0.0.1:").nth(1).expect("a simulated model");
        let port: String = address.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}")
    }

    /// Where the house was put; its log is `up.log` there.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What `up` and its children have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.data_dir().join("broker.sock"))
    }

    #[must_use]
    pub fn client(&self) -> Client {
        Client::lazy(&self.endpoint())
    }

    /// The real `brokerctl` for this house, to be run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Program {
        brokerctl(&self.endpoint()).args(args)
    }

    /// Runs the real `brokerctl`.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().await
    }

    /// Starts the real `brokerctl`.
    pub async fn start_command(&self, args: &[&str]) -> Running {
        self.command(args).start().await
    }

    /// Asks `model` for JSON; further arguments follow.
    pub async fn ask(&self, model: &str, more: &[&str]) -> Output {
        let ask = ["consult", "--model", model, "--question", "hi", "--output", "json"];
        self.run(&[&ask, more].concat()).await
    }

    /// The processes of the house below `up`, each with its arguments.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, Vec<String>)> {
        self.child.as_ref().map(|child| descendants(child.id())).unwrap_or_default()
    }

    /// The process that serves as the agent `name`.
    #[must_use]
    pub fn agent_process(&self, name: &str) -> u32 {
        let serves = |args: &[String]| args.windows(2).any(|two| two == ["--name", name]);
        let found = self.processes().into_iter().find(|(_, args)| serves(args));
        found.expect("the agent runs").0
    }

    /// The broker's process.
    #[must_use]
    pub fn broker_process(&self) -> u32 {
        let is_broker = |args: &[String]| args[0].ends_with("/brokerd");
        let found = self.processes().into_iter().find(|(_, args)| is_broker(args));
        found.expect("the broker runs").0
    }

    /// Kills `up` alone, as SIGKILL does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Asks it to stop, and gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        end_in_order(self.child.take()?)
    }
}

impl Drop for TestHouse {
    fn drop(&mut self) {
        self.stop();
    }
}
