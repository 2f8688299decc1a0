//! From the store to a state: the rows opened, the journal claimed, what lives loaded. Damaged rows are folded anew.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::Error;
use crate::{
    core::{Policy, State},
    engine,
    journal::{Journal, Writer},
    projection::{self, Place, Projection},
};

/// What the broker begins with.
pub(super) struct Loaded {
    pub(super) projection: Projection,
    pub(super) folding: JoinHandle<Result<(), projection::Error>>,
    pub(super) writer: Box<dyn Writer>,
    pub(super) state: State,
}

/// Whether only the rows are damaged, which the journal can give again.
pub(super) fn is_damage(error: &Error) -> bool {
    match error {
        Error::Projection(error) | Error::Engine(engine::Fatal::Load { source: error }) => {
            error.is_damage()
        }
        _ => false,
    }
}

/// Opens the rows in `place`, becomes the owner of `journal` and loads the state.
///
/// # Errors
/// [`Error`] when the journal cannot be claimed or read, or the rows not be used even when they are new.
pub(super) async fn load(
    journal: &Arc<dyn Journal>,
    place: &Place,
    policy: &Policy,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Loaded, Error> {
    match attempt(journal, place, policy, tasks, stop).await {
        Err(error) if is_damage(&error) => {
            let why = error.to_string();
            warn!(why, "the projection is damaged: it is put aside and folded anew");
            place.put_aside()?;
            attempt(journal, place, policy, tasks, stop).await
        }
        loaded => loaded,
    }
    .map_err(|error| named(error, place))
}

/// Damage that was found while the journal was read names its file (I-32).
fn named(error: Error, place: &Place) -> Error {
    let Place::Directory(folder) = place else { return error };
    let path = folder.join("journal.db").display().to_string();
    match error {
        Error::Projection(source @ projection::Error::Journal(_))
        | Error::Engine(engine::Fatal::Load { source: source @ projection::Error::Journal(_) }) => {
            Error::Damaged { path, source }
        }
        other => other,
    }
}

async fn attempt(
    journal: &Arc<dyn Journal>,
    place: &Place,
    policy: &Policy,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Loaded, Error> {
    let (projection, fold) = projection::open(Arc::clone(journal), place.clone()).await?;
    let stop_fold = stop.child_token();
    let mut folding = tasks.spawn(fold.run(stop_fold.clone()));
    let recovered = tokio::select! {
        recovered = engine::recover(journal, &projection, policy.clone()) => {
            recovered.map_err(Error::from)
        }
        // A fold that fails says why; the engine could only wait for it.
        folded = &mut folding => {
            let ended = folded.unwrap_or(Err(projection::Error::Stopped));
            Err(ended.err().unwrap_or(projection::Error::Stopped).into())
        }
    };
    match recovered {
        Ok((writer, state)) => Ok(Loaded { projection, folding, writer, state }),
        Err(error) => {
            stop_fold.cancel();
            if !folding.is_finished() {
                let _ = folding.await;
            }
            projection.close().await;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
