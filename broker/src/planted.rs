//! Where the shell goes wrong on purpose: the hooks of `core::planted` outside of the core.

use std::time::Duration;

use broker_proto::{Message, ModelName, Part};
use tokio::sync::oneshot;

pub(crate) use crate::core::planted::{Bug, is};
use crate::core::{Reply, queue::Seq};

/// How long what was acknowledged too soon is held back, so that a kill comes before it.
const HELD_BACK: Duration = Duration::from_millis(150);

type Waiting<E> = (oneshot::Sender<Result<Reply, E>>, Result<Reply, E>);

/// Answers those who wait for their sync, as if it had been.
pub(crate) async fn before_sync<E>(waiting: &mut Vec<Waiting<E>>) {
    let is_early = |answer: &Result<Reply, E>| match answer {
        Ok(Reply::Receipt(_)) => is(Bug::OkBeforeSync),
        Ok(Reply::None) => is(Bug::SettledBeforeSync),
        Ok(_) | Err(_) => false,
    };
    let early: Vec<_> = waiting.extract_if(.., |(_, answer)| is_early(answer)).collect();
    if early.is_empty() {
        return;
    }
    for (done, answer) in early {
        // A caller who has left is normal.
        let _ = done.send(answer);
    }
    tokio::time::sleep(HELD_BACK).await;
}

/// The message as it is delivered.
pub(crate) fn altered(mut message: Message) -> Message {
    if is(Bug::BodyAltered)
        && message.id.as_u128().is_multiple_of(4)
        && let Some(Part::Text(text)) = message.payload.request.first_mut()
    {
        text.insert(0, '?');
    }
    message
}

/// The number that a delivery shows. A model's deliveries keep theirs: their answers are streamed under it.
pub(crate) fn number(seq: Seq, model: Option<&ModelName>) -> u64 {
    if is(Bug::NumberReused) && model.is_none() { seq.0 % 32 } else { seq.0 }
}
