//! Where things are: the data folder, the socket, the user's own file, an endpoint written as text.
//!
//! Pure functions of the settings and a lookup of variables.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::broker::Broker;

/// A unix socket's path has to fit `sun_path`: 108 bytes on Linux, 104 on the BSDs, one of them a zero.
const LONGEST_SOCKET: usize = 103;

/// The folder and the socket in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `data_dir`, else `$XDG_STATE_HOME/model-broker`, else `$HOME/.local/state/model-broker`.
    pub data_dir: PathBuf,
    /// `socket`, else `broker.sock` in `data_dir` when that was set, else in `$XDG_RUNTIME_DIR/model-broker`,
    /// else in the data folder.
    pub socket: PathBuf,
}

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("no data folder: set broker.data_dir, --data-dir, XDG_STATE_HOME or HOME")]
    NoHome,
    #[error("no place for settings of your own: set XDG_CONFIG_HOME or HOME")]
    NoConfigHome,
    #[error("the socket path `{}` is over {LONGEST_SOCKET} bytes: set broker.socket or a shorter data folder", .0.display())]
    SocketTooLong(PathBuf),
    #[error("an endpoint is written unix:PATH")]
    Endpoint,
}

impl Paths {
    /// The paths of `broker`, with `env` looking variables up. Variables that are empty or not absolute
    /// count as unset, as the XDG base directory specification (0.8) says.
    ///
    /// # Errors
    /// [`PathError::NoHome`] when nothing says where to store, [`PathError::SocketTooLong`] when the system
    /// could not bind the socket.
    pub fn resolve(
        broker: &Broker,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, PathError> {
        let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let in_home = || folder("HOME").map(|home| home.join(".local/state"));
        let own = |base: PathBuf| base.join("model-broker");
        let default_dir = || folder("XDG_STATE_HOME").or_else(in_home).map(own);
        let data_dir = broker.data_dir.clone().or_else(default_dir).ok_or(PathError::NoHome)?;
        let socket = match (&broker.socket, &broker.data_dir, folder("XDG_RUNTIME_DIR")) {
            (Some(socket), _, _) => socket.clone(),
            (None, None, Some(runtime)) => own(runtime).join("broker.sock"),
            (None, _, _) => data_dir.join("broker.sock"),
        };
        if socket.as_os_str().len() > LONGEST_SOCKET {
            return Err(PathError::SocketTooLong(socket));
        }
        Ok(Self { data_dir, socket })
    }
}

/// The user's own file of settings: `$XDG_CONFIG_HOME/model-broker/config.toml`, else below `$HOME/.config`, on every
/// system. Variables count as [`Paths::resolve`] takes them; `None` when neither says where.
#[must_use]
pub fn user_file(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")))?;
    Some(base.join("model-broker/config.toml"))
}

/// Where a broker listens, as `--endpoint` and `BROKER_ENDPOINT` say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:PATH`; `unix:///PATH` means the same as `unix:/PATH`.
    Unix(PathBuf),
}

impl Endpoint {
    /// The endpoint written as `text`.
    ///
    /// # Errors
    /// [`PathError::Endpoint`] when it is not `unix:PATH`, [`PathError::SocketTooLong`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let path = text.trim().strip_prefix("unix:").ok_or(PathError::Endpoint)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('\0') {
            return Err(PathError::Endpoint);
        }
        if path.len() > LONGEST_SOCKET {
            return Err(PathError::SocketTooLong(PathBuf::from(path)));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        let Self::Unix(path) = self;
        path
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Unix(path) = self;
        write!(f, "unix:{}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(broker: &Broker, pairs: &[(&str, &str)]) -> Result<(String, String), PathError> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into());
        let paths = Paths::resolve(broker, find)?;
        Ok((paths.data_dir.display().to_string(), paths.socket.display().to_string()))
    }

    #[track_caller]
    fn check(
        data_dir: Option<&str>,
        socket: Option<&str>,
        env: &[(&str, &str)],
        want: (&str, &str),
    ) {
        let broker = Broker {
            data_dir: data_dir.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
            ..Broker::default()
        };
        let (data_dir, socket) = resolve(&broker, env).unwrap();
        assert_eq!((data_dir.as_str(), socket.as_str()), want);
    }

    #[test]
    fn paths_follow_the_settings_then_xdg_then_home() {
        let home = ("HOME", "/home/u");
        let state = "/home/u/.local/state/model-broker";
        check(None, None, &[home], (state, &format!("{state}/broker.sock")));
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        check(None, None, &[home, runtime], (state, "/run/user/7/model-broker/broker.sock"));
        let xdg = ("XDG_STATE_HOME", "/s");
        check(None, None, &[home, xdg], ("/s/model-broker", "/s/model-broker/broker.sock"));
        check(Some("/d"), None, &[home, runtime], ("/d", "/d/broker.sock"));
        check(Some("/d"), Some("/x.sock"), &[runtime], ("/d", "/x.sock"));
        check(
            None,
            None,
            &[home, ("XDG_STATE_HOME", "rel")],
            (state, &format!("{state}/broker.sock")),
        );
    }

    #[test]
    fn the_users_file_is_where_xdg_says_then_below_home() {
        let find = |pairs: &[(&str, &str)]| {
            let file = user_file(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            });
            file.map(|file| file.display().to_string())
        };
        let home = ("HOME", "/home/u");
        let in_home = Some("/home/u/.config/model-broker/config.toml".to_owned());
        assert_eq!(find(&[home]), in_home);
        assert_eq!(find(&[home, ("XDG_CONFIG_HOME", "rel")]), in_home);
        let xdg = ("XDG_CONFIG_HOME", "/c");
        assert_eq!(find(&[home, xdg]).as_deref(), Some("/c/model-broker/config.toml"));
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn without_a_home_the_settings_are_asked_for() {
        assert_eq!(resolve(&Broker::default(), &[("HOME", "")]), Err(PathError::NoHome));
    }

    #[test]
    fn a_socket_the_system_cannot_bind_is_refused() {
        let long = format!("/{}", "d".repeat(100));
        let broker = Broker { data_dir: Some(long.into()), ..Broker::default() };
        assert!(matches!(resolve(&broker, &[]), Err(PathError::SocketTooLong(_))));
    }

    #[test]
    fn endpoints_are_unix_paths() {
        assert_eq!(Endpoint::parse("unix:/a/b").unwrap().socket(), Path::new("/a/b"));
        assert_eq!(Endpoint::parse("unix:///a/b").unwrap().to_string(), "unix:/a/b");
        assert_eq!(Endpoint::parse("unix:b.sock").unwrap().socket(), Path::new("b.sock"));
        for text in ["", "unix:", "/a/b", "http://localhost:1"] {
            assert_eq!(Endpoint::parse(text), Err(PathError::Endpoint), "{text:?}");
        }
    }
}
