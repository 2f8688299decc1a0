//! The running house: who is started in which order, with which environment, and how it is taken down again.
//!
//! Invariant: of all keys an agent sees the one its model needs; the broker and the simulator see none.
//! Invariant: nothing secret is in an argument or in a file.

use std::{
    collections::BTreeSet, ffi::OsString, fs, os::unix::fs::DirBuilderExt as _, path::Path,
    sync::Arc, time::Duration,
};

use broker_client::Client;
use broker_config::{Config, Endpoint, Model, Paths, Provider};
use broker_proto::types::AgentName;
use secrecy::SecretString;
use tokio::{net::UnixStream, sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    Error, Programs,
    child::{Child, Recipe, Status},
    found,
    log::Log,
    restart::Restarts,
};
use crate::{
    file::{self, Access},
    output,
};

/// How long each process may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// On top of a process's own grace, before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// What stands in for a key where the simulator answers.
const SIMULATED_KEY: &str = "simulated";

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) programs: Programs,
    pub(crate) log: Log,
}

/// What runs. Dropping it kills what is left.
#[derive(Debug)]
pub(crate) struct House {
    plan: Plan,
    /// Every variable that holds a key of some model.
    key_variables: BTreeSet<String>,
    /// Variables that are settings: in a child they would count above the file that holds them all.
    settings: Vec<String>,
    tracker: TaskTracker,
    client: Option<Client>,
    simulator: Option<Child>,
    simulator_address: Option<String>,
    broker: Option<Child>,
    agents: Vec<Child>,
}

impl House {
    /// A house of which nothing runs yet.
    ///
    /// # Errors
    /// [`Error::NoProgram`] before anything is started.
    pub(crate) fn new(plan: Plan) -> Result<Self, Error> {
        for name in ["brokerd", "broker-agent"] {
            plan.programs.find(name)?;
        }
        let providers = [Provider::Anthropic, Provider::OpenAi];
        let usual = providers.iter().filter_map(|provider| provider.default_api_key_env());
        let named = plan.config.models.iter().filter_map(|model| model.api_key_env.as_deref());
        let key_variables = usual.chain(named).map(str::to_owned).collect();
        let settings = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| broker_config::is_setting(name) || name == "BROKER_ENDPOINT")
            .collect();
        Ok(Self {
            plan,
            key_variables,
            settings,
            tracker: TaskTracker::new(),
            client: None,
            simulator: None,
            simulator_address: None,
            broker: None,
            agents: Vec::new(),
        })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.plan.paths.socket.clone())
    }

    /// The models that have an agent, in the order of the configuration.
    pub(crate) fn models(&self) -> Vec<String> {
        self.agents.iter().map(|agent| agent.name().to_owned()).collect()
    }

    /// The simulator's address, once it runs.
    pub(crate) fn simulator_address(&self) -> Option<&str> {
        self.simulator_address.as_deref()
    }

    /// The broker, once it answers.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// What is to be seen of a process, by its name.
    pub(crate) fn status(&self, name: &str) -> Option<watch::Receiver<Status>> {
        let others = self.broker.iter().chain(&self.simulator);
        let mut all = self.agents.iter().chain(others);
        all.find(|child| child.name() == name).map(Child::status)
    }

    /// Starts everything, in order, and returns once every agent is connected.
    ///
    /// # Errors
    /// The first thing that does not come up. [`House::stop`] is to be called either way.
    pub(crate) async fn start(&mut self) -> Result<(), Error> {
        let endpoint = self.endpoint();
        if UnixStream::connect(endpoint.socket()).await.is_ok() {
            return Err(Error::Running { endpoint });
        }
        let data_dir = self.plan.paths.data_dir.clone();
        make_folder(&data_dir)?;
        if let Some(folder) = endpoint.socket().parent() {
            make_folder(folder)?;
        }
        if self.plan.config.simulator.enabled {
            self.start_simulator().await?;
        }
        self.plan.config.broker.data_dir = Some(data_dir.clone());
        self.plan.config.broker.socket = Some(endpoint.socket().to_owned());
        let file = data_dir.join("effective.toml");
        write_private(&file, &self.plan.config.to_toml())?;
        let models = self.usable(&file).await?;
        let client = self.start_broker(&file).await?;
        for name in &models {
            if let Some(model) = self.plan.config.models.get(name).cloned() {
                let agent = self.start_agent(&client, &model, &file).await?;
                self.agents.push(agent);
            }
        }
        self.agents_connected(&client).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn usable(&self, file: &Path) -> Result<Vec<String>, Error> {
        if self.plan.config.simulator.enabled {
            return Ok(self.plan.config.models.iter().map(|model| model.name.clone()).collect());
        }
        let found = found::look(&self.plan.programs, file, &[]).await?;
        output::note(&found.table());
        let usable = found.usable();
        if usable.is_empty() { Err(Error::NothingFound) } else { Ok(usable) }
    }

    async fn start_simulator(&mut self) -> Result<(), Error> {
        let settings = &self.plan.config.simulator;
        let pace = settings.tokens_per_second.to_string();
        let first_token = humantime::format_duration(settings.first_token).to_string();
        let args = |listen: &str| -> Vec<OsString> {
            let args = [
                "--listen",
                listen,
                "--exit-with-parent",
                "--tokens-per-second",
                &pace,
                "--first-token",
                &first_token,
            ];
            args.map(OsString::from).into()
        };
        let recipe = self.recipe("provider-sim", "provider-sim", args("127.0.0.1:0"))?;
        let again = Arc::clone(&recipe.args_again);
        let child = self.keep(recipe);
        let mut status = child.status();
        self.simulator = Some(child);
        let status =
            wait(&mut status, "provider-sim", |status| status.first_line.is_some()).await?;
        let address =
            status.first_line.as_deref().and_then(listening).ok_or_else(|| Error::Ended {
                name: "provider-sim".to_owned(),
                why: "it does not say where it listens".to_owned(),
            })?;
        let _ = again.set(args(&address));
        super::simulate(&mut self.plan.config, &address).map_err(|err| Error::Ended {
            name: "provider-sim".to_owned(),
            why: err.to_string(),
        })?;
        self.simulator_address = Some(address);
        Ok(())
    }

    async fn start_broker(&mut self, file: &Path) -> Result<Client, Error> {
        let data_dir = self.plan.paths.data_dir.clone().into_os_string();
        let args = vec![
            "--config".into(),
            file.into(),
            "--data-dir".into(),
            data_dir,
            "--exit-with-parent".into(),
        ];
        let recipe = self.recipe("brokerd", "brokerd", args)?;
        let child = self.keep(recipe);
        let status = child.status();
        self.broker = Some(child);
        let endpoint = broker_client::Endpoint::unix(self.plan.paths.socket.clone());
        let began = Instant::now();
        loop {
            if let Ok(client) = Client::connect(&endpoint).await
                && client.ping(None).await.is_ok()
            {
                return Ok(client);
            }
            // A broker that falls over before it ever answered would do so again.
            if status.borrow().ends > 0 {
                return Err(Error::Ended {
                    name: "brokerd".to_owned(),
                    why: self.last_line("brokerd"),
                });
            }
            not_for_ever(began, "brokerd")?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn last_line(&self, name: &str) -> String {
        let tail = self.plan.log.tail();
        let line = tail.iter().rev().find_map(|line| line.strip_prefix(name));
        line.map_or_else(|| "it said nothing".to_owned(), |line| line.trim().to_owned())
    }

    async fn start_agent(
        &self,
        client: &Client,
        model: &Model,
        file: &Path,
    ) -> Result<Child, Error> {
        let name = model.name.clone();
        let refused = |why: String| Error::Ended { name: format!("the agent for {name}"), why };
        let agent = AgentName::parse(&model.name).map_err(|err| refused(err.to_string()))?;
        let token = client.create_token(&agent).await.map_err(|err| refused(err.to_string()))?;
        let args = vec![
            "--config".into(),
            file.into(),
            "--model".into(),
            (&model.name).into(),
            "--name".into(),
            (&model.name).into(),
            "--exclusive".into(),
            "--endpoint".into(),
            self.endpoint().to_string().into(),
            "--exit-with-parent".into(),
        ];
        let mut recipe = self.recipe(&model.name, "broker-agent", args)?;
        recipe.last_words = AGENT_LAST_WORDS;
        recipe.set.push(("BROKER_AGENT_TOKEN".to_owned(), token));
        if let Some(variable) = &model.api_key_env {
            recipe.unset.retain(|name| name != variable);
            let is_unset = std::env::var_os(variable).is_none_or(|key| key.is_empty());
            if is_unset && model.simulated {
                recipe.set.push((variable.clone(), SecretString::from(SIMULATED_KEY)));
            }
        }
        Ok(self.keep(recipe))
    }

    async fn agents_connected(&self, client: &Client) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let there = client.agents().await.unwrap_or_default();
            let is_there =
                |name: &str| there.iter().any(|a| a.is_connected && a.name.as_str() == name);
            let missing = self.agents.iter().find(|agent| !is_there(agent.name()));
            let Some(missing) = missing else { return Ok(()) };
            let given_up = missing.status().borrow().given_up.clone();
            if let Some(why) = given_up {
                return Err(Error::Ended {
                    name: format!("the agent for {}", missing.name()),
                    why,
                });
            }
            not_for_ever(began, &format!("the agent for {}", missing.name()))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A process without any key, setting or token in its environment.
    fn recipe(
        &self,
        name: &str,
        program: &'static str,
        args: Vec<OsString>,
    ) -> Result<Recipe, Error> {
        let unset = self.key_variables.iter().chain(&self.settings).cloned();
        Ok(Recipe {
            name: name.to_owned(),
            program: self.plan.programs.find(program)?,
            args,
            args_again: Arc::default(),
            set: Vec::new(),
            unset: unset.chain(["BROKER_AGENT_TOKEN".to_owned()]).collect(),
            last_words: &[],
        })
    }

    fn keep(&self, recipe: Recipe) -> Child {
        let grace = self.plan.config.broker.shutdown_grace + KILL_AFTER;
        let restarts = Restarts::new(&self.plan.config.up);
        Child::keep(recipe, restarts, grace, self.plan.log.clone(), &self.tracker)
    }

    /// Returns when there is nothing left to keep running: the broker was given up, or every agent was.
    pub(crate) async fn ended(&self) -> Error {
        let mut statuses: Vec<_> = self.agents.iter().map(|a| (a.name(), a.status())).collect();
        for (name, status) in &mut statuses {
            let gone = status.wait_for(|status| status.given_up.is_some()).await;
            let why = gone.ok().and_then(|status| status.given_up.clone()).unwrap_or_default();
            self.plan.log.line("up", &format!("the agent for {name} is not coming back: {why}"));
        }
        Error::Ended { name: "every agent".to_owned(), why: "nobody is left to answer".to_owned() }
    }

    /// Stops everything: agents drain first, then the broker, then the simulator.
    pub(crate) async fn stop(&mut self) {
        self.client = None;
        for agent in &self.agents {
            agent.stop();
        }
        for agent in self.agents.drain(..) {
            agent.stopped().await;
        }
        for child in self.broker.take().into_iter().chain(self.simulator.take()) {
            child.stopped().await;
        }
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Exit codes of `broker-agent` after which a new start would end the same way.
const AGENT_LAST_WORDS: &[(i32, &str)] = &[
    (2, "its arguments are wrong"),
    (10, "superseded: a newer process serves under its name"),
    (11, "the broker refused its token"),
];

fn not_for_ever(began: Instant, name: &str) -> Result<(), Error> {
    if began.elapsed() < READY_WITHIN {
        return Ok(());
    }
    Err(Error::NotReady { name: name.to_owned(), within: READY_WITHIN })
}

async fn wait(
    status: &mut watch::Receiver<Status>,
    name: &str,
    mut is_so: impl FnMut(&Status) -> bool,
) -> Result<Status, Error> {
    let seen =
        status.wait_for(|status| is_so(status) || status.ends > 0 || status.given_up.is_some());
    let not_ready = Error::NotReady { name: name.to_owned(), within: READY_WITHIN };
    match tokio::time::timeout(READY_WITHIN, seen).await {
        Ok(Ok(status)) if is_so(&status) => Ok(status.clone()),
        Ok(_) => Err(Error::Ended { name: name.to_owned(), why: "see its lines above".to_owned() }),
        Err(_) => Err(not_ready),
    }
}

/// The address in the first line of `provider-sim`.
fn listening(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = line.get("listening")?.as_str()?;
    Some(address.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn make_folder(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// It holds what only its user may read.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    file::replace(path, text, Access::Private)
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulator_says_where_it_listens() {
        let line = r#"{"listening":"127.0.0.1:4711"}"#;
        assert_eq!(listening(line).as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(listening("hello"), None);
    }
}
