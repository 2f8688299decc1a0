//! A `brokerd` of its own, to be killed.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use broker_client::{Client, Endpoint};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    ANY_DISK, MODELS, Output, Plan, ScriptedAgent, brokerctl, eventually, process::end_in_order,
    program, signal,
};

/// A broker as a process, with a folder that outlives it.
#[derive(Debug)]
pub struct TestDaemon {
    folder: TempDir,
    child: Option<Child>,
}

impl TestDaemon {
    /// Starts it with these settings over the shipped ones. Without `[[models]]` there are three of one chain.
    pub async fn start(settings: &str) -> Self {
        let models = if settings.contains("[[models]]") { "" } else { MODELS };
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("test.toml"), format!("{settings}\n{models}"))
            .expect("the settings can be written");
        let mut daemon = Self { folder, child: None };
        daemon.restart().await;
        daemon
    }

    /// Starts it again on the same folder, and returns once it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let child = Command::new(program("brokerd"))
            .env_clear()
            .envs(ANY_DISK)
            .arg("--config")
            .arg(self.folder.path().join("test.toml"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be written"))
            .spawn();
        self.child = Some(child.expect("brokerd starts"));
        let client = self.client();
        eventually("brokerd's answer", async || client.ping(None).await.ok()).await;
    }

    /// Lets `brokerd --check` look at the folder; gives how it ended and what it said.
    pub async fn check(&self) -> (std::process::ExitStatus, String) {
        let mut check = tokio::process::Command::new(program("brokerd"));
        check.env_clear().arg("--check").arg("--config").arg(self.folder.path().join("test.toml"));
        let said = check.arg("--data-dir").arg(self.data_dir()).output().await;
        let said = said.expect("brokerd starts");
        (said.status, String::from_utf8_lossy(&said.stderr).into_owned())
    }

    /// Kills it with SIGKILL, and returns once it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Asks it to stop, and gives its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let child = self.child.take()?;
        end_in_order(child)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("brokerd.log")
    }

    /// What it has logged so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.data_dir().join("broker.sock"))
    }

    #[must_use]
    pub fn client(&self) -> Client {
        Client::lazy(&self.endpoint())
    }

    pub async fn agent_as(&self, plan: Plan) -> ScriptedAgent {
        ScriptedAgent::join(&self.endpoint(), plan).await
    }

    /// Runs the real `brokerctl` against it.
    pub async fn run(&self, args: &[&str]) -> Output {
        brokerctl(&self.endpoint()).args(args).output().await
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.kill();
    }
}
