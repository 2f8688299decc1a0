//! The three providers' wires on loopback: the real adapters run against it without keys.
//!
//! It answers as the vendors' servers do (shapes, headers, order of events, refusals), counts tokens, keeps scripted
//! quotas, commits every fault on command, writes down what it was sent, and notices a client that went away. It
//! knows nothing of the broker. What it answers is not marked as simulated: that is the broker's business.
//!
//! `docs/simulator.md` is the manual of script and control endpoint.

mod answer;
mod anthropic;
mod control;
mod damage;
mod decide;
mod exchange;
mod faults;
mod journal;
mod listen;
mod models;
mod ollama;
mod openai;
pub mod presets;
mod prompt;
mod quota;
mod read;
mod reply;
mod route;
pub mod script;
mod shared;
mod stream;
mod text;
mod tokens;
mod track;
#[cfg(test)]
mod wire_tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::task::TaskTracker;

pub use journal::{Entry, Tokens};
pub use quota::{Kind, QuotaSpec, Refill};
pub use script::{Effect, Fault, RetryForm, Script, ScriptedAnswer, Times, Wire};
pub use tokens::count;

use shared::Shared;

/// How long a stop waits for connections that do not end by themselves.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the simulator listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    #[error("cannot read the script {}", path.display())]
    ReadScript { path: PathBuf, source: std::io::Error },
    #[error("the script {} is not understood", path.display())]
    Script { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Request(serde_json::Error),
    #[error("unknown preset `{0}`")]
    UnknownPreset(String),
    #[error("unknown quota `{0}`")]
    UnknownQuota(String),
    #[error("what was waited for did not come within {0:?}")]
    TimedOut(Duration),
    #[error("the simulator has stopped")]
    Stopped,
}

/// Where to listen and what to do.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub script: Script,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script: Script::default() }
    }
}

impl Script {
    /// Reads a script file.
    ///
    /// # Errors
    /// [`Error::ReadScript`], or [`Error::Script`] with line and column.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path)
            .map_err(|source| Error::ReadScript { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| Error::Script { path: path.to_owned(), source })
    }

    /// As fast as the socket takes it: no pace and no silence before the first byte. For tests.
    #[must_use]
    pub fn fast() -> Self {
        Self {
            tokens_per_second: Some(0.0),
            first_token: Some(script::Span(Duration::ZERO)),
            ..Self::default()
        }
    }
}

/// A running simulator. Dropped, it stops by itself; [`Simulator::stop`] waits for that.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Simulator {
    /// Listens; requests are answered when this returns.
    ///
    /// # Errors
    /// [`Error::NotLoopback`], [`Error::Listen`], [`Error::UnknownPreset`].
    pub async fn start(options: Options) -> Result<Self, Error> {
        let address = options.listen;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let (refuse, refusals) = mpsc::channel(16);
        let shared = Arc::new(Shared::new(options.script, refuse)?);
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tasks = TaskTracker::new();
        let app = control::router(Arc::clone(&shared));
        tasks.spawn(listen::run(
            listener,
            address,
            app,
            Arc::clone(&shared),
            refusals,
            tasks.clone(),
        ));
        let simulator = Self { address, shared, tasks };
        simulator.shared.reset().await?;
        Ok(simulator)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the vendor's SDK takes as its base: `OpenAI`'s with `/v1`, the others without.
    #[must_use]
    pub fn base_url(&self, wire: Wire) -> String {
        match wire {
            Wire::OpenAi => format!("http://{}/v1", self.address),
            Wire::Anthropic | Wire::Ollama => format!("http://{}", self.address),
        }
    }

    /// Adds a fault after those already there; returns its id (0 for a refusal of connections, which has begun).
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], [`Error::Stopped`].
    pub async fn fault(&self, fault: Fault) -> Result<u64, Error> {
        self.shared.install(fault).await
    }

    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Sets a quota, full; one with the same name is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`] when its refusal is none.
    pub fn quota(&self, spec: QuotaSpec) -> Result<(), Error> {
        self.shared.set_quota(spec)
    }

    /// Leaves nothing of the quotas of this name (or beginning and `*`).
    ///
    /// # Errors
    /// [`Error::UnknownQuota`].
    pub fn use_up(&self, name: &str) -> Result<(), Error> {
        control::fill(&self.shared, name.to_owned(), 0.0)
    }

    /// Makes the quotas of this name (or beginning and `*`) full again.
    ///
    /// # Errors
    /// [`Error::UnknownQuota`].
    pub fn refill(&self, name: &str) -> Result<(), Error> {
        control::fill(&self.shared, name.to_owned(), 1.0)
    }

    /// Everything it was sent, oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.shared.journal.since(0)
    }

    /// Waits until the journal is as wanted, and returns it.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn wait_for(
        &self,
        within: Duration,
        mut is_wanted: impl FnMut(&[Entry]) -> bool,
    ) -> Result<Vec<Entry>, Error> {
        let mut changes = self.shared.journal.watch();
        let wanted = async {
            loop {
                changes.mark_unchanged();
                let entries = self.journal();
                if is_wanted(&entries) {
                    return entries;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(within, wanted).await.map_err(|_| Error::TimedOut(within))
    }

    /// Back to its script, with an empty journal.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn reset(&self) -> Result<(), Error> {
        self.shared.reset().await
    }

    /// Closes the port, breaks what is still being answered, and waits for it.
    pub async fn stop(self) {
        self.shared.stopping.cancel();
        self.tasks.close();
        // A connection in the middle of sending its request may outlast this; the port is closed regardless.
        let _ = tokio::time::timeout(GRACE, self.tasks.wait()).await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = include_str!("../../../docs/simulator.md");

    #[test]
    fn the_manual_names_every_preset() {
        for preset in presets::PRESETS {
            let (wire, name) = preset.name.split_once('.').unwrap();
            let row =
                MANUAL.lines().find(|line| line.starts_with(&format!("| `{wire}.` |"))).unwrap();
            assert!(row.contains(&format!("`{name}`")), "{}", preset.name);
        }
    }

    #[test]
    fn the_manuals_script_and_effects_are_understood() {
        let script =
            MANUAL.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        serde_json::from_str::<Script>(script).unwrap();

        let rows =
            MANUAL.split("| effect | |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
        let effects: Vec<&str> = rows
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split("` |").next())
            .flat_map(|cell| cell.split("`, `"))
            .collect();
        assert!(effects.len() > 15, "{effects:?}");
        for effect in effects {
            serde_json::from_str::<Effect>(effect).unwrap_or_else(|err| panic!("{effect}: {err}"));
        }
    }
}
