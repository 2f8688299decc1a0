//! Becoming the owner, and loading the state from the projection.

use std::sync::Arc;

use super::Fatal;
use crate::{
    core::{Policy, State, apply},
    journal::{Claim, ClaimError, Journal, Writer},
    projection::Projection,
};

/// The formats of records this program reads, and the oldest program that reads what it writes.
const FORMAT: u16 = 1;

/// Claims the journal, lets the projection catch up with the claim, and loads what is alive.
///
/// # Errors
/// [`Fatal`] when the journal cannot be claimed or the projection not be read.
pub async fn recover(
    journal: &Arc<dyn Journal>,
    projection: &Projection,
    policy: Policy,
) -> Result<(Box<dyn Writer>, State), Fatal> {
    let claim = Claim::new(FORMAT, FORMAT).map_err(|source| Fatal::Claim {
        source: ClaimError::Broken(crate::journal::Damage::Store { source: Arc::new(source) }),
    })?;
    let writer = journal.claim(claim).await.map_err(|source| Fatal::Claim { source })?;
    let state = load(projection, writer.head(), policy).await?;
    Ok((writer, state))
}

/// The state as of `head`, without anything volatile.
pub(super) async fn load(
    projection: &Projection,
    head: crate::journal::BatchNo,
    policy: Policy,
) -> Result<State, Fatal> {
    let mut state = State::new(policy);
    let living = projection.living(head, |event| apply(&mut state, event)).await;
    let living = living.map_err(|source| Fatal::Load { source })?;
    state.queue.skip_to(living.last_seq);
    for (sender, producer, highest) in &living.producers {
        state.queue.skip_numbers(sender, producer, *highest);
    }
    state.queue.restore(living.counters);
    Ok(state)
}
