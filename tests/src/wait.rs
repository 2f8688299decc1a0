//! Waiting: for a value, and not for ever.

use std::time::Duration;

/// How long anything may take, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked where nothing tells of a change.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What `future` gives. Panics with `what` was waited for when it gives nothing in time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// The first value that `look` finds, where nothing tells of a change. Panics with `what` was waited for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut every = tokio::time::interval(LOOK_EVERY);
    let looking = async {
        loop {
            every.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    within(what, looking).await
}
