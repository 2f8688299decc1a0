//! What every command takes.

use std::path::PathBuf;

use broker_config::{Config, Endpoint, Loader, Paths};
use clap::Args;

use super::{Written, WrittenParser};
use crate::output::Format;

/// What every command takes, before or after its name.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) output: Format,
    /// A file that `--output` named instead of a format.
    pub(crate) output_file: Option<PathBuf>,
    pub(crate) verbose: bool,
}

/// The same as it is typed.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Where the broker listens, as unix:PATH [env: BROKER_ENDPOINT] [default: the socket that `up` makes]
    #[arg(long, global = true, help_heading = "Every command takes", value_name = "unix:PATH", value_parser = Endpoint::parse)]
    endpoint: Option<Endpoint>,
    /// The folder that holds everything, its socket DIR/broker.sock too
    #[arg(long, global = true, help_heading = "Every command takes", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are written
    #[arg(
        long,
        id = "output",
        global = true,
        help_heading = "Every command takes",
        value_parser = WrittenParser,
        default_value = "text",
        value_name = "FORMAT"
    )]
    output: Written,
    /// Also show a model's thinking and the details of what happens, on stderr
    #[arg(long, short, global = true, help_heading = "Every command takes")]
    verbose: bool,
}

impl GlobalArgs {
    /// How results are written, errors too.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            Written::As(format) => format,
            Written::To(_) => Format::Text,
        }
    }
}

impl From<GlobalArgs> for Global {
    fn from(typed: GlobalArgs) -> Self {
        let output = typed.format();
        let output_file = match typed.output {
            Written::As(_) => None,
            Written::To(path) => Some(path),
        };
        let GlobalArgs { endpoint, data_dir, verbose, .. } = typed;
        Self { endpoint, data_dir, output, output_file, verbose }
    }
}

impl Global {
    /// Where the broker listens: the flag, the data folder's socket, BROKER_ENDPOINT, the default.
    ///
    /// # Errors
    /// What is wrong with the variables that say where.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        if self.data_dir.is_none()
            && let Some(endpoint) = std::env::var_os("BROKER_ENDPOINT").filter(|v| !v.is_empty())
        {
            return Ok(Endpoint::parse(&endpoint.to_string_lossy())?);
        }
        let config = self.loaded(Loader::new())?;
        Ok(Endpoint::Unix(Paths::resolve(&config.broker, |name| std::env::var_os(name))?.socket))
    }

    /// `layers` with the user's own file, then the environment and the flags that are settings.
    ///
    /// # Errors
    /// The first thing that is wrong in the configuration.
    pub(crate) fn loaded(&self, layers: Loader) -> anyhow::Result<Config> {
        self.loaded_without_users(layers.user(user_file()))
    }

    /// The same without that file.
    ///
    /// # Errors
    /// The first thing that is wrong in the configuration.
    pub(crate) fn loaded_without_users(&self, layers: Loader) -> anyhow::Result<Config> {
        let mut loader = layers.env(std::env::vars_os());
        if let Some(folder) = &self.data_dir {
            let folder = std::path::absolute(folder)?;
            loader = loader.set("broker.data_dir", folder.display().to_string());
            // The folder holds everything: a socket named in a file must not lead elsewhere.
            let socket = folder.join("broker.sock");
            loader = loader.set("broker.socket", socket.display().to_string());
        }
        if let Some(endpoint) = &self.endpoint {
            let socket = std::path::absolute(endpoint.socket())?;
            loader = loader.set("broker.socket", socket.display().to_string());
        }
        Ok(loader.load()?)
    }
}

/// Where the user's own settings are, or would be.
pub(crate) fn user_file() -> Option<PathBuf> {
    broker_config::user_file(|name| std::env::var_os(name))
}
