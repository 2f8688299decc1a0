//! A broker in this process.

use std::path::PathBuf;

use broker::Store;
use broker_client::{Client, Endpoint};
use broker_config::{Config, Loader};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{MODELS, Output, Plan, RawLink, ScriptedAgent, brokerctl, within};

/// Where a broker's store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Memory,
    /// In a folder, which a restart finds again.
    Folder,
}

/// A broker on a socket in a folder of its own.
#[derive(Debug)]
pub struct TestBroker {
    folder: TempDir,
    place: Place,
    config: Config,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), broker::Error>>,
}

impl TestBroker {
    /// In memory, with three models of one chain.
    pub async fn start() -> Self {
        Self::with(Place::Memory, "").await
    }

    /// With these settings over the shipped ones. Without `[[models]]` in them there are three of one chain.
    pub async fn with(place: Place, settings: &str) -> Self {
        let models = if settings.contains("[[models]]") { "" } else { MODELS };
        let text = format!("{settings}\n{models}");
        // A test needs little, and runs on small and full disks too.
        let small = "[broker]\nstore_reserve = \"16 MiB\"\nstore_reserve_percent = 0\n";
        let config = Loader::new()
            .text("small.toml", small)
            .text("test.toml", text)
            .load()
            .expect("the test's settings");
        let folder = tempfile::tempdir().expect("a folder");
        let mut broker = Self { folder, place, config, running: None };
        broker.run_again().await;
        broker
    }

    async fn run_again(&mut self) {
        let socket = self.socket();
        let listener = broker::listen(&socket).await.expect("the socket is free");
        let stop = CancellationToken::new();
        let (config, place, folder) = (self.config.clone(), self.place, self.data_dir());
        let stopped = stop.clone();
        let running = async move {
            let store = match place {
                Place::Memory => Store::Memory,
                Place::Folder => Store::Folder(&folder),
            };
            broker::run(listener, store, &config, stopped).await
        };
        let task = TaskTracker::new().spawn(running);
        self.running = Some(Running { stop, task });
        let client = self.client();
        crate::eventually("the broker's answer", async || client.ping(None).await.ok()).await;
    }

    /// Stops it in order; what is connected is told.
    pub async fn stop(&mut self) {
        let Some(Running { stop, task }) = self.running.take() else { return };
        stop.cancel();
        let stopped = within("the broker's stop", task).await;
        stopped.expect("it does not panic").expect("it stops without an error");
    }

    /// Stops it in order and starts it again on the same store.
    pub async fn restart(&mut self) {
        assert_eq!(self.place, Place::Folder, "memory forgets");
        self.stop().await;
        self.run_again().await;
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("broker.sock")
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.socket())
    }

    /// A client with a connection of its own.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::lazy(&self.endpoint())
    }

    /// An agent under a shared name that takes one delivery at a time.
    pub async fn agent(&self, name: &str, models: &[&str]) -> ScriptedAgent {
        self.agent_as(Plan::new(name, models)).await
    }

    pub async fn agent_as(&self, plan: Plan) -> ScriptedAgent {
        ScriptedAgent::join(&self.endpoint(), plan).await
    }

    /// An agent's stream that has not greeted.
    pub async fn link(&self) -> RawLink {
        RawLink::open(&self.endpoint()).await
    }

    /// Runs the real `brokerctl` against this broker.
    pub async fn run(&self, args: &[&str]) -> Output {
        brokerctl(&self.endpoint()).args(args).output().await
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.cancel();
        }
    }
}
