//! The least that a gRPC call costs here: 1 KiB there and back, over a unix socket, with a tonic server in another
//! process on the runtime that the broker has.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::UnixListener};
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

/// Bytes there, and bytes back.
const SIZE: usize = 1024;
const PATH: &str = "/bench.Echo/Say";

/// Says back what it is told.
#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
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
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(Echo, request).await)
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
        .add_service(Echo)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), parent);
    served.await.context("cannot serve echoes")
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

    pub(crate) async fn say(&self) -> anyhow::Result<()> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await?;
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let path = PathAndQuery::from_static(PATH);
        let heard = grpc.unary(Request::new(self.said.clone()), path, codec).await?;
        anyhow::ensure!(heard.into_inner().len() == SIZE, "the echo is another");
        Ok(())
    }
}
