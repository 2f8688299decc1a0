//! Where the broker listens, and the one channel to it.

use std::{ffi::OsString, fmt, io, path::Path, path::PathBuf, time::Duration};

use broker_config::{Broker, Paths};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use crate::Error;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// A unix socket says at once when its other end is gone; these find an end that hangs.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes in flight that one stream, and all streams together, may have.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Where the broker listens: `unix:PATH`, the only form so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(broker_config::Endpoint);

impl Endpoint {
    /// The endpoint written as `text`.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when it is not `unix:PATH`, or longer than the system can bind.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self(broker_config::Endpoint::parse(text)?))
    }

    /// The endpoint of this socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(broker_config::Endpoint::Unix(path.into()))
    }

    /// What `BROKER_ENDPOINT` says, else where a broker without settings listens. `env` looks variables up.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when the variable is not an endpoint, or nothing says where a broker would be.
    pub fn discover(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        match env("BROKER_ENDPOINT").filter(|text| !text.is_empty()) {
            Some(text) => Self::parse(&text.to_string_lossy()),
            None => Ok(Self::unix(Paths::resolve(&Broker::default(), env)?.socket)),
        }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.0.socket()
    }

    /// A channel that stands when this returns, and connects again for the first call after it was lost.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        let connected = template().connect_with_connector(connector(self.socket())).await;
        connected.map_err(|source| Error::unreachable(self, source))
    }

    /// A channel that connects for its first call.
    pub(crate) fn lazy_channel(&self) -> Channel {
        template().connect_with_connector_lazy(connector(self.socket()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn template() -> tonic::transport::Endpoint {
    // HTTP/2 wants an authority; a unix socket has none, so this name is never looked up.
    tonic::transport::Endpoint::from_static("http://broker.invalid")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

type Connecting = std::pin::Pin<Box<dyn Future<Output = io::Result<TokioIo<UnixStream>>> + Send>>;

fn connector(
    socket: &Path,
) -> impl tower::Service<Uri, Response = TokioIo<UnixStream>, Error = io::Error, Future = Connecting>
+ Send
+ 'static {
    let socket = socket.to_path_buf();
    service_fn(move |_: Uri| -> Connecting {
        let socket = socket.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_default_socket() {
        let env = |name: &str| match name {
            "BROKER_ENDPOINT" => Some("unix:/a/b.sock".into()),
            _ => Some("/home/u".into()),
        };
        assert_eq!(Endpoint::discover(env).unwrap(), Endpoint::unix("/a/b.sock"));
    }

    #[test]
    fn without_the_variable_the_default_socket_is_used() {
        let env = |name: &str| (name == "XDG_RUNTIME_DIR" || name == "HOME").then(|| "/r".into());
        let found = Endpoint::discover(env).unwrap();
        assert_eq!(found.to_string(), "unix:/r/model-broker/broker.sock");
    }

    #[test]
    fn what_is_not_a_socket_is_refused() {
        assert!(matches!(Endpoint::parse("http://localhost:1"), Err(Error::Endpoint(_))));
    }
}
