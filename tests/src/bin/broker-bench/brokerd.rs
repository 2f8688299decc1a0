//! A broker that is measured: a process of its own with its store on the disk.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use broker_client::{Client, Endpoint};
use tokio::time::Instant;

use crate::process::{Process, Usage, last_line, sibling};

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// No cap is met, a backlog of a million neither.
const UNBOUNDED: &str = "queue_messages = 100000000\nqueue_bytes = \"1048576 MiB\"\n";

/// A broker, and where it keeps everything.
#[derive(Debug)]
pub(crate) struct Brokerd {
    process: Process,
    folder: PathBuf,
    config: PathBuf,
}

impl Brokerd {
    /// Starts it with the settings in `config`, its data in `folder`; returns once it answers.
    pub(crate) async fn start(folder: &Path, config: &Path) -> anyhow::Result<Self> {
        let process = spawn(folder, config)?;
        let mut broker = Self { process, folder: folder.to_owned(), config: config.to_owned() };
        broker.ready().await?;
        Ok(broker)
    }

    /// Starts one whose queues take everything, on the runtime `layout` where one is named.
    pub(crate) async fn unbounded(folder: &Path, layout: Option<&str>) -> anyhow::Result<Self> {
        let layout = layout.map(|layout| format!("runtime = \"{layout}\"\n")).unwrap_or_default();
        Self::with(folder, &layout).await
    }

    /// The same with more in its configuration.
    pub(crate) async fn with(folder: &Path, more: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let config = folder.join("bench.toml");
        fs::write(&config, format!("[broker]\n{UNBOUNDED}{more}"))?;
        Self::start(folder, &config).await
    }

    /// Stops it and starts it again; gives how long it took until it answered.
    pub(crate) async fn restart(mut self) -> anyhow::Result<(Self, Duration)> {
        self.process.stop().await;
        let began = Instant::now();
        self.process = spawn(&self.folder, &self.config)?;
        self.ready().await?;
        Ok((self, began.elapsed()))
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(client) = Client::connect(&self.endpoint()).await
                && client.ping(None).await.is_ok()
            {
                return Ok(());
            }
            if self.process.has_ended() || began.elapsed() > READY_WITHIN {
                bail!("the broker does not start: {}", last_line(&self.folder, "brokerd"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.data_dir().join("broker.sock"))
    }

    /// The folder on the disk that it writes to.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.endpoint()).await.context("the broker is gone")
    }

    pub(crate) fn usage(&self) -> Usage {
        self.process.usage()
    }

    pub(crate) fn written_bytes(&self) -> f64 {
        self.process.written_bytes()
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

fn spawn(folder: &Path, config: &Path) -> anyhow::Result<Process> {
    let mut command = sibling("brokerd")?;
    command.envs(broker_tests::ANY_DISK).arg("--exit-with-parent").arg("--config").arg(config);
    command.arg("--data-dir").arg(folder.join("data"));
    Process::start(&mut command, "brokerd", folder)
}
