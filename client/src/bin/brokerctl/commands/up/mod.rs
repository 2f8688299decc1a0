//! `up`: the broker, its agents and, with `--simulated`, the providers' simulator, kept running on this machine.

pub(crate) mod child;
pub(crate) mod found;
pub(crate) mod house;
pub(crate) mod log;
mod restart;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use broker_config::{Config, Endpoint, Loader, Models, Paths, Provider};

use self::{
    house::{House, Plan},
    log::Log,
};
use super::Interrupts;
use crate::{
    cli::{Global, UpArgs, user_file},
    exit_code::Exit,
    output,
};

/// Why the house does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{name}` is not in {}, beside brokerctl: build it with `cargo build --workspace`", .folder.display())]
    NoProgram { name: &'static str, folder: PathBuf },
    #[error("a broker already runs at {endpoint}: stop it, or give another --data-dir")]
    Running { endpoint: Endpoint },
    #[error("cannot write `{}`", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot start {name}")]
    Spawn { name: String, source: io::Error },
    #[error("broker-agent --check failed: {how}")]
    Check { how: String },
    #[error("{name} is not ready after {}", output::span(*.within))]
    NotReady { name: String, within: Duration },
    #[error("{name} ended: {why}")]
    Ended { name: String, why: String },
    #[error("no model can be used")]
    NothingFound,
}

/// Where the other binaries are: beside this one.
#[derive(Debug, Clone)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    /// # Errors
    /// When the system does not say where this program is.
    pub(crate) fn beside_this() -> io::Result<Self> {
        let this = std::env::current_exe()?;
        Ok(Self(this.parent().map(Path::to_path_buf).unwrap_or_default()))
    }

    /// # Errors
    /// [`Error::NoProgram`].
    pub(crate) fn find(&self, name: &'static str) -> Result<PathBuf, Error> {
        let path = self.0.join(name);
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::NoProgram { name, folder: self.0.clone() })
        }
    }
}

/// Runs the house until it is told to stop.
pub(crate) async fn run(global: &Global, args: &UpArgs) -> anyhow::Result<Exit> {
    let mut plan = plan(global, args)?;
    plan.log = Log::shown();
    // What nobody typed is said.
    if let Some(file) = user_file().filter(|file| file.is_file()) {
        output::note(&format!("settings of your own: {}", file.display()));
    }
    let mut house = House::new(plan)?;
    let mut interrupts = Interrupts::listen()?;
    let started = tokio::select! {
        started = house.start() => started,
        () = interrupts.next() => {
            house.stop().await;
            return Ok(Exit::Done);
        }
    };
    if let Err(err) = started {
        house.stop().await;
        if matches!(err, Error::NothingFound) {
            explain_nothing_found();
            return Ok(Exit::Failed);
        }
        return Err(err.into());
    }
    let ready = format!("ready: {}  models: {}", house.endpoint(), house.models().join(", "));
    if let Err(err) = output::line(&ready) {
        house.stop().await;
        return Err(err.into());
    }
    if args.simulated {
        output::note(
            "every answer is simulated; ask with: brokerctl consult --model opus --question \"...\"",
        );
    }
    let ended = tokio::select! {
        () = interrupts.next() => {
            output::note("stopping: agents first, then the broker (again to leave at once)");
            None
        }
        err = house.ended() => Some(err),
    };
    tokio::select! {
        () = house.stop() => {}
        // Dropping the house kills what is left of it.
        () = interrupts.next() => return Ok(Exit::Interrupted),
    }
    match ended {
        None => Ok(Exit::Done),
        Some(err) => Err(err.into()),
    }
}

fn explain_nothing_found() {
    output::note(
        "no model can be used: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or start Ollama, and run `brokerctl up` again.\n\
         To see everything at work without any of these: `brokerctl up --simulated` answers for every model with a \
         simulator on this machine, offline and free; its answers are marked [simulated].",
    );
}

fn plan(global: &Global, args: &UpArgs) -> anyhow::Result<Plan> {
    let mut layers = Loader::new().local();
    if args.simulated {
        layers = layers.simulated();
    }
    if let Some(file) = &args.config {
        layers = layers.file(file);
    }
    let mut config = global.loaded(layers)?;
    let paths = Paths::resolve(&config.broker, |name| std::env::var_os(name))?;
    if let Ok(host) = std::env::var("OLLAMA_HOST")
        && !config.simulator.enabled
    {
        config.models = with_ollama_at(&config.models, &host)?;
    }
    Ok(Plan { config, paths, programs: Programs::beside_this()?, log: Log::kept() })
}

/// Sends the Ollama models that name no address of their own to `host`, written as Ollama's own variable is.
///
/// # Errors
/// When the address makes no list of models.
pub(crate) fn with_ollama_at(models: &Models, host: &str) -> Result<Models, broker_config::Error> {
    let Some(address) = ollama_address(host) else { return Ok(models.clone()) };
    let moved = models.iter().cloned().map(|mut model| {
        let is_default = model.base_url == Provider::Ollama.default_base_url();
        if model.provider == Provider::Ollama && is_default {
            model.base_url.clone_from(&address);
        }
        model
    });
    Models::new(moved.collect())
}

/// Ollama's variable may lack the scheme and the port, and may say where a server listens: everywhere is here.
fn ollama_address(host: &str) -> Option<String> {
    let host = host.trim().trim_end_matches('/');
    if host.is_empty() {
        return None;
    }
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, path)| (a, path));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = match (has_port, scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":11434",
    };
    let authority = authority.replacen("0.0.0.0", "127.0.0.1", 1);
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Some(format!("{scheme}://{authority}{port}{path}"))
}

/// Sends every model that names no address of its own to the simulator at `address`.
///
/// # Errors
/// When the address makes no list of models.
pub(crate) fn simulate(config: &mut Config, address: &str) -> Result<(), broker_config::Error> {
    let moved = config.models.iter().cloned().map(|mut model| {
        if model.base_url == model.provider.default_base_url() {
            model.base_url = match model.provider {
                Provider::OpenAi => format!("http://{address}/v1"),
                Provider::Anthropic | Provider::Ollama => format!("http://{address}"),
            };
        }
        model.simulated = true;
        model
    });
    config.models = Models::new(moved.collect())?;
    config.simulator.enabled = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollamas_variable_is_read_as_ollama_reads_it() {
        for (host, want) in [
            ("127.0.0.1:11500", Some("http://127.0.0.1:11500")),
            ("gpu", Some("http://gpu:11434")),
            ("0.0.0.0", Some("http://127.0.0.1:11434")),
            ("https://gpu.example/", Some("https://gpu.example:443")),
            ("http://gpu:1/ollama", Some("http://gpu:1/ollama")),
            ("", None),
        ] {
            assert_eq!(ollama_address(host).as_deref(), want, "{host:?}");
        }
    }

    #[test]
    fn a_model_with_an_address_of_its_own_keeps_it() {
        let own = "[[models]]\nname = \"a\"\nprovider = \"openai\"\nid = \"x\"\nbase_url = \"http://h:1/v1\"\n\
                   [[models]]\nname = \"b\"\nprovider = \"openai\"\nid = \"x\"\n\
                   [[models]]\nname = \"c\"\nprovider = \"ollama\"\nid = \"x\"\n";
        let mut config = Loader::new().text("own.toml", own).load().unwrap();

        simulate(&mut config, "127.0.0.1:7").unwrap();

        let addresses: Vec<&str> = config.models.iter().map(|m| m.base_url.as_str()).collect();
        assert_eq!(addresses, ["http://h:1/v1", "http://127.0.0.1:7/v1", "http://127.0.0.1:7"]);
        assert!(config.models.iter().all(|model| model.simulated));
    }

    #[test]
    fn only_ollama_moves_with_ollamas_variable() {
        let config = Config::shipped().unwrap();

        let models = with_ollama_at(&config.models, "gpu:1").unwrap();

        let moved: Vec<&str> =
            models.iter().filter(|m| m.base_url.contains("gpu")).map(|m| m.name.as_str()).collect();
        assert_eq!(moved, ["local"]);
    }
}
