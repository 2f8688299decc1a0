//! The least that a gRPC call costs here: 1 KiB there and back, over a unix socket, with a tonic server in another
//! process on the runtime that the broker has.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::UnixListener, time::Instant};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Service, http, http::uri::PathAndQuery},
    server::{NamedService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

use crate::process::{Process, last_line, sibling};

/// Bytes there, and bytes back.
const SIZE: usize = 1024;
/// What a receipt takes.
const SHORT: usize = 64;
/// All of it comes back, or only as much as a receipt has.
const SAY: &str = "/bench.Echo/Say";
const TAKE: &str = "/bench.Echo/Take";
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Says back what it is told, or so much of it.
#[derive(Debug, Clone)]
struct Echo(usize);

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner().slice(..self.0))))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            let size = if request.uri().path() == TAKE { SHORT } else { SIZE };
            Ok(grpc.unary(Echo(size), request).await)
        })
    }
}

/// Serves the echo until stdin ends.
pub(crate) async fn serve(socket: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket).context("cannot listen for echoes")?;
    let parent = async {
        let mut ignored = [0; 64];
        while tokio::io::stdin().read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    };
    let served = Server::builder()
        .add_service(Echo(SIZE))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), parent);
    served.await.context("cannot serve echoes")
}

/// Starts it in a process of its own, on the runtime that the measured broker has.
pub(crate) async fn start(folder: &Path, layout: Option<&str>) -> anyhow::Result<Process> {
    let socket = socket(folder);
    let mut command = sibling("broker-bench")?;
    command.arg("--serve-echo").arg(&socket);
    if let Some(layout) = layout {
        command.args(["--runtime", layout]);
    }
    let mut echo = Process::start(&mut command, "echo", folder)?;
    let began = Instant::now();
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        if echo.has_ended() || began.elapsed() > READY_WITHIN {
            bail!("the echo does not start: {}", last_line(folder, "echo"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(echo)
}

/// Where [`start`] makes it listen.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("echo.sock")
}

/// One who calls into it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    grpc: Grpc<Channel>,
    said: Bytes,
}

impl Caller {
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
        let channel = endpoint.connect().await.context("cannot connect to the echo")?;
        Ok(Self { grpc: Grpc::new(channel), said: Bytes::from(vec![b'x'; SIZE]) })
    }

    /// Says something and hears all of it.
    pub(crate) async fn say(&self) -> anyhow::Result<()> {
        self.call(SAY, SIZE).await
    }

    /// Says something and hears as much as a receipt has.
    pub(crate) async fn give(&self) -> anyhow::Result<()> {
        self.call(TAKE, SHORT).await
    }

    async fn call(&self, path: &'static str, size: usize) -> anyhow::Result<()> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await?;
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let path = PathAndQuery::from_static(path);
        let heard = grpc.unary(Request::new(self.said.clone()), path, codec).await?;
        anyhow::ensure!(heard.into_inner().len() == size, "the echo is another");
        Ok(())
    }
}
