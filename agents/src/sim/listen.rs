//! The port: served, closed for a while when a fault asks for it, and ended with the simulator.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::shared::{Refusal, Shared};

/// Serves until the simulator stops. While a refusal lasts the port is closed: idle connections end, those with a
/// request in flight go on.
pub(super) async fn run(
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
    shared: Arc<Shared>,
    mut refusals: mpsc::Receiver<Refusal>,
    tasks: TaskTracker,
) {
    let mut listener = Some(listener);
    while let Some(open) = listener.take() {
        let pause = CancellationToken::new();
        let closed = CancellationToken::new();
        let watched = Watched { inner: open, _closed: closed.clone().drop_guard() };
        let serving = axum::serve(watched, app.clone())
            .with_graceful_shutdown(pause.clone().cancelled_owned());
        tasks.spawn(async move { serving.await });
        let refusal = tokio::select! {
            () = shared.stopping.cancelled() => None,
            refusal = refusals.recv() => refusal,
        };
        pause.cancel();
        let Some(Refusal { lasts, begun }) = refusal else { return };
        closed.cancelled().await;
        // The one who asked may have left; the refusal holds all the same.
        let _ = begun.send(());
        tokio::select! {
            () = tokio::time::sleep(lasts) => {}
            () = shared.stopping.cancelled() => return,
        }
        listener = bind_again(address, &shared).await;
    }
}

/// The same port again; somebody else may have it for a moment.
async fn bind_again(address: SocketAddr, shared: &Shared) -> Option<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(err) => tracing::warn!(%address, %err, "cannot listen again yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            () = shared.stopping.cancelled() => return None,
        }
    }
}

/// Tells when the port is closed: the guard drops after the listener.
struct Watched {
    inner: TcpListener,
    _closed: DropGuard,
}

impl Listener for Watched {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        // Events must leave as they are made. Failing to say so only makes them later.
        let _ = stream.set_nodelay(true);
        (stream, peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}
