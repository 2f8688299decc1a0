//! What a task asked back, with its contents.

use broker_proto::{Part, Payload, TaskExchange, convert::Stored as _};

use crate::{
    context::{Bodies, Error},
    core::{queue::Body, task::Exchange},
};

/// Bytes of what was asked and answered.
#[must_use]
pub fn size_bytes(exchanges: &[Exchange]) -> u64 {
    exchanges.iter().map(Exchange::size_bytes).sum()
}

/// A question and its answer with their contents.
///
/// # Errors
/// [`Error`] when they cannot be read.
pub async fn load(bodies: &Bodies, exchange: &Exchange) -> Result<TaskExchange, Error> {
    let answer = match &exchange.answer {
        Some(answer) => parts(bodies, &answer.body).await?,
        None => Vec::new(),
    };
    Ok(TaskExchange {
        number: exchange.number,
        question: parts(bodies, &exchange.question).await?,
        asked_at: exchange.asked_at,
        answer,
        answered_at: exchange.answer.as_ref().map(|answer| answer.at),
    })
}

/// The parts that are kept in a body of their own.
///
/// # Errors
/// [`Error`] when they cannot be read.
pub async fn parts(bodies: &Bodies, body: &Body) -> Result<Vec<Part>, Error> {
    let payload = Payload::decode(bodies.load(body).await?).map_err(|_| Error::Corrupt)?;
    Ok(payload.response)
}
