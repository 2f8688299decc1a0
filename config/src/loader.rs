//! The order of the layers, whatever order they are named in.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::layer::Draft;
use crate::{AGENTS_TOML, BROKER_TOML, Config, LOCAL_TOML, SIMULATED_TOML};

/// Variables that begin like settings and are none: addresses, tokens, which file, how much to log.
const NO_SETTINGS: [&str; 6] = ["ENDPOINT", "SESSION", "TOKEN", "AGENT_TOKEN", "CONFIG", "LOG"];
/// What a woken program learns begins like this: it may start an agent, which would take it for settings.
const OF_A_WAKE: &str = "WAKE_";
/// No configuration is this long; a device or a wrong file is.
const LONGEST_FILE: u64 = 1 << 20;

/// Collects the layers of a configuration: shipped, what `up` adds, the user's own file, given files, variables, flags.
#[derive(Default)]
pub struct Loader {
    up: Vec<(&'static str, &'static str)>,
    user: Option<PathBuf>,
    given: Vec<GivenFile>,
    variables: Vec<(String, Option<String>)>,
    flags: Vec<(String, String)>,
}

enum GivenFile {
    Path(PathBuf),
    Text { name: String, text: String },
}

impl Loader {
    /// The shipped `broker.toml` and `agents.toml`, which every configuration begins with.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `local.toml`, as `brokerctl up` does.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.up.push(("local.toml", LOCAL_TOML));
        self
    }

    /// Adds `simulated.toml`, as `brokerctl up --simulated` does.
    #[must_use]
    pub fn simulated(mut self) -> Self {
        self.up.push(("simulated.toml", SIMULATED_TOML));
        self
    }

    /// Adds the user's own file ([`crate::user_file`] says where), if it is there: `brokerctl handoff init` writes it.
    #[must_use]
    pub fn user(mut self, path: Option<PathBuf>) -> Self {
        self.user = path;
        self
    }

    /// Adds a given file (`--config F`), read when everything is loaded.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.given.push(GivenFile::Path(path.into()));
        self
    }

    /// Adds the text of a given file; `name` is for errors.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.given.push(GivenFile::Text { name: name.into(), text: text.into() });
        self
    }

    /// Adds the environment: `std::env::vars_os()`, or pairs of a test. `BROKER_ROUTING_PATIENCE=3s` is
    /// `patience` of `[routing]`. Variables without `BROKER_`, and the few that are no settings, are let go at once.
    #[must_use]
    pub fn env<K, V>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        for (name, value) in pairs {
            let name = name.into();
            let name = name.to_string_lossy();
            let Some(setting) = name.strip_prefix("BROKER_") else { continue };
            if !NO_SETTINGS.contains(&setting) && !setting.starts_with(OF_A_WAKE) {
                self.variables.push((setting.to_owned(), value.into().into_string().ok()));
            }
        }
        self
    }

    /// Adds a flag: `key` is `section.key`, such as `broker.data_dir`; `value` is written as in a variable.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Lays every layer and checks the whole.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::TooLarge`] for a file, [`Error::Unsafe`] for one with programs that others may write,
    /// [`Error::Invalid`] for the first thing that is wrong in the first layer that has one.
    pub fn load(mut self) -> Result<Config, Error> {
        let mut draft = Draft::new();
        draft.lay_file("broker.toml", BROKER_TOML)?;
        draft.lay_file("agents.toml", AGENTS_TOML)?;
        for (name, text) in self.up {
            draft.lay_file(name, text)?;
        }
        if let Some(path) = self.user
            && let Some(text) = read_if_there(&path)?
        {
            lay_given(&mut draft, &path, &text)?;
        }
        for file in self.given {
            match file {
                GivenFile::Path(path) => {
                    lay_given(&mut draft, &path, &read(&path)?)?;
                }
                GivenFile::Text { name, text } => draft.lay_file(&name, &text)?,
            }
        }
        // The order of an environment is chance; errors must not be.
        self.variables.sort();
        for (name, value) in &self.variables {
            draft.lay_variable(name, value.as_deref())?;
        }
        for (key, value) in &self.flags {
            draft.lay_flag(key, value)?;
        }
        draft.finish()
    }
}

/// Names only: what a layer holds may be a key put in the wrong place.
impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.given.iter().map(|file| match file {
            GivenFile::Path(path) => path.display().to_string(),
            GivenFile::Text { name, .. } => name.clone(),
        });
        f.debug_struct("Loader")
            .field("up", &self.up.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("user", &self.user)
            .field("given", &given.collect::<Vec<_>>())
            .field("variables", &self.variables.len())
            .field("flags", &self.flags.len())
            .finish()
    }
}

/// Whether the variable `name` is a setting. Who starts a child with the whole configuration in a file removes
/// these from the child's environment: there they would count above the file, and above the flags it holds.
#[must_use]
pub fn is_setting(name: &str) -> bool {
    name.strip_prefix("BROKER_")
        .is_some_and(|name| Draft::new().setting_of_variable(name).is_some())
}

/// The same of a file that need not be there.
fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match read(path) {
        // Below a file there is no other.
        Err(Error::Read { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        read => read.map(Some),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(Error::TooLarge { path: path.to_owned(), limit: LONGEST_FILE });
    }
    Ok(text)
}

fn lay_given(draft: &mut Draft, path: &Path, text: &str) -> Result<(), Error> {
    draft.lay_file(&path.display().to_string(), text)?;
    if text.contains("wakes") && draft.names_programs() {
        only_the_users(path)?;
    }
    Ok(())
}

/// What is run in a user's name is named in a file that nobody else can write.
fn only_the_users(path: &Path) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::metadata(path).map_err(read)?;
    let own = std::fs::metadata("/proc/self").ok().map(|this| this.uid());
    let is_whose = |uid: u32| uid == 0 || own.is_none_or(|own| own == uid);
    let why = if !is_whose(file.uid()) {
        "is somebody else's"
    } else if file.mode() & 0o022 != 0 {
        "can be written by others"
    } else {
        return Ok(());
    };
    Err(Error::Unsafe { path: path.to_owned(), why })
}
