use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use broker_config::Config;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Error, Store, listen, run};
use crate::app::rehearsal::soon;

fn config() -> Config {
    let mut config = Config::shipped().unwrap();
    config.broker.shutdown_grace = Duration::from_millis(100);
    config
}

/// Somebody watches the health, or reads an answer slowly, and would do so for ever.
#[tokio::test]
async fn a_stop_does_not_wait_for_streams_beyond_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("broker.sock");
    let listener = listen(&socket).await.unwrap();
    let (stop, config) = (CancellationToken::new(), config());
    let served = run(listener, Store::Memory, &config, stop.clone());
    let watch = async {
        let uri = format!("unix:{}", socket.display());
        let channel = soon(Endpoint::from_shared(uri).unwrap().connect()).await.unwrap();
        let request = HealthCheckRequest { service: String::new() };
        let mut health = HealthClient::new(channel);
        let mut watch = soon(health.watch(request)).await.unwrap().into_inner();
        assert!(soon(watch.next()).await.unwrap().is_ok());
        stop.cancel();
        (health, watch)
    };

    let (ended, _open) = soon(Box::pin(async { tokio::join!(served, watch) })).await;

    ended.unwrap();
}

#[tokio::test]
async fn a_stop_without_anybody_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = config();
    for _ in 0..2 {
        let listener = listen(&folder.path().join("broker.sock")).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        soon(run(listener, Store::Folder(&data), &config, stop)).await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_that_answers_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("broker.sock");
    let first = listen(&socket).await.unwrap();
    assert!(matches!(listen(&socket).await, Err(Error::SocketInUse { .. })));
    drop(first);
    listen(&socket).await.unwrap();
}

#[tokio::test]
async fn a_folder_is_used_by_one_broker() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let lock = super::secret::lock(&data).unwrap();
    assert!(matches!(super::secret::lock(&data), Err(Error::InUse { .. })));
    drop(lock);
    super::secret::lock(&data).unwrap();
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn lease_tokens_are_good_beyond_a_restart() {
    use crate::core::queue::Seq;
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let token = super::secret::lease_key(folder.path()).unwrap().token(Seq(7), 3);
    let again = super::secret::lease_key(folder.path()).unwrap();
    assert_eq!(again.read(&token), Some((Seq(7), 3)));
    let file = folder.path().join("lease.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Torn while it was made.
    std::fs::write(&file, b"short").unwrap();
    let anew = super::secret::lease_key(folder.path()).unwrap();
    assert_eq!(anew.read(&token), None);
}
