//! What is measured: the simulator, the broker and one agent as processes of their own, and the echo beside them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use broker_client::Client;
use broker_config::{Loader, Model};
use broker_proto::AgentName;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    ask::{Brokered, Direct},
    brokerd::Brokerd,
    echo,
    process::{Process, last_line, sibling},
};

const READY_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Calls at once in the scenarios with many.
pub(crate) const CROWD: usize = 64;
/// Connections the askers share: one carries at most 64 streams, and programs that ask much pool a few.
const CONNECTIONS: usize = 4;

/// How the simulator answers as one of its models.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// At once.
    Fast,
    /// At once, after 50 ms of silence.
    Slow,
    /// The first token at once, then one every 2 ms.
    Paced,
}

impl Pace {
    const ALL: [Self; 3] = [Self::Fast, Self::Slow, Self::Paced];

    fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Paced => "paced",
        }
    }

    fn effects(self) -> Value {
        // 64 bytes are 16 of the simulator's tokens.
        let answer = json!({"answer": {"text": "a lease is a loan with an end: whoever holds it must say so, or ", "tokens": 16}});
        match self {
            Self::Fast => json!([answer]),
            Self::Slow => json!([answer, {"stall_first": {"for": "50ms"}}]),
            Self::Paced => json!([answer, {"pace": 500}]),
        }
    }
}

/// Everything that runs.
pub(crate) struct House {
    simulator: Process,
    broker: Brokerd,
    agent: Process,
    echo: Process,
    models: Vec<Model>,
    clients: Vec<Client>,
    folder: TempDir,
}

/// Processor seconds so far, by process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) broker: f64,
    pub(crate) agent: f64,
    pub(crate) simulator: f64,
    pub(crate) asker: f64,
}

impl House {
    /// Starts everything and returns once the agent is linked.
    pub(crate) async fn start(folder: TempDir) -> anyhow::Result<Self> {
        let (simulator, address) = start_simulator(folder.path()).await?;
        let config = folder.path().join("config.toml");
        fs::write(&config, configuration(&address))?;
        let models = Loader::new().file(&config).load()?.models.iter().cloned().collect();
        let broker = Brokerd::start(folder.path(), &config).await?;
        let client = broker.client().await?;
        let agent = start_agent(folder.path(), &config, &client).await?;
        let mut clients = vec![client];
        while clients.len() < CONNECTIONS {
            clients.push(broker.client().await?);
        }
        let echo = echo::start(folder.path(), None).await?;
        Ok(Self { simulator, broker, agent, echo, models, clients, folder })
    }

    /// The call without a broker.
    pub(crate) fn direct(&self, pace: Pace) -> anyhow::Result<Direct> {
        let model = self.models.iter().find(|model| model.name == pace.name());
        Direct::new(model.context("a model is missing")?)
    }

    /// The same call through the broker.
    pub(crate) fn brokered(&self, pace: Pace) -> anyhow::Result<Brokered> {
        Brokered::new(self.clients.clone(), pace.name())
    }

    pub(crate) fn echo_socket(&self) -> PathBuf {
        self.folder.path().join("echo.sock")
    }

    /// The folder on the disk that the broker writes to.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.broker.data_dir()
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu {
            broker: self.broker.cpu_seconds(),
            agent: self.agent.cpu_seconds(),
            simulator: self.simulator.cpu_seconds(),
            asker: crate::process::cpu_seconds("/proc/self/stat"),
        }
    }

    /// Stops everything, the agent first.
    pub(crate) async fn stop(self) {
        drop(self.clients);
        self.agent.stop().await;
        self.broker.stop().await;
        self.echo.stop().await;
        self.simulator.stop().await;
    }
}

fn configuration(simulator: &str) -> String {
    let model = |pace: Pace| {
        let name = pace.name();
        format!(
            "[[models]]\nname = \"{name}\"\nprovider = \"anthropic\"\nid = \"claude-{name}\"\n\
             base_url = \"http://{simulator}\"\nconcurrency = {CROWD}\nsimulated = true\n"
        )
    };
    Pace::ALL.map(model).concat()
}

async fn start_simulator(folder: &Path) -> anyhow::Result<(Process, String)> {
    let script = folder.join("script.json");
    let faults = Pace::ALL.map(|pace| {
        json!({
            "name": pace.name(),
            "wire": "anthropic",
            "model": format!("claude-{}", pace.name()),
            "times": "forever",
            "do": pace.effects(),
        })
    });
    let text = json!({"tokens_per_second": 0, "first_token": 0, "faults": faults});
    fs::write(&script, text.to_string())?;
    let mut command = sibling("provider-sim")?;
    command.arg("--exit-with-parent").arg("--script").arg(&script);
    let mut simulator = Process::start(&mut command, "simulator", folder)?;
    let line = tokio::time::timeout(READY_WITHIN, simulator.first_line())
        .await
        .context("the simulator does not start")??;
    let said: Value = serde_json::from_str(&line).context("the simulator says something else")?;
    let address = said["listening"].as_str().context("the simulator does not listen")?;
    Ok((simulator, address.to_owned()))
}

async fn start_agent(folder: &Path, config: &Path, client: &Client) -> anyhow::Result<Process> {
    let name = AgentName::parse("bench")?;
    let token = client.create_token(&name).await?;
    let mut command = sibling("broker-agent")?;
    command.arg("--exit-with-parent").arg("--config").arg(config).args(["--name", "bench"]);
    for pace in Pace::ALL {
        command.args(["--model", pace.name()]);
    }
    command.args(["--endpoint", &client.endpoint().to_string()]);
    command.env("BROKER_AGENT_TOKEN", token.expose_secret());
    let mut agent = Process::start(&mut command, "broker-agent", folder)?;
    let began = Instant::now();
    loop {
        if client.agents().await?.iter().any(|agent| agent.is_connected) {
            return Ok(agent);
        }
        if agent.has_ended() || began.elapsed() > READY_WITHIN {
            bail!("the agent does not link: {}", last_line(folder, "broker-agent"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
