//! What a session goes on with, in the commit that ends its consultation.

use tonic::Status;
use tracing::warn;

use broker_proto::Part;

use super::is_passing;
use crate::{
    core::{self, Append, Command, Refusal, Reply, SettleCommand, queue::Seq},
    engine,
    journal::Content,
    link::Services,
    service,
    session::{self, Answer, TRIES},
};

/// What becomes of a session that is to go on with an answer.
pub(super) enum Appending {
    Nothing,
    Ready(Answer),
    /// It never can: the answer's summary says why.
    Cannot(String),
}

/// The two sides of a consultation that a session is to go on with. What stands against that is no reason to lose the
/// answer, unless it may be gone a moment later.
pub(super) async fn answer(
    services: &Services,
    seq: Seq,
    parts: &[Part],
) -> Result<Appending, Status> {
    match services.sessions.answer(seq, parts).await {
        Ok(Some(answer)) => Ok(Appending::Ready(answer)),
        Ok(None) => Ok(Appending::Nothing),
        Err(error) => cannot(error).map(Appending::Cannot),
    }
}

/// What will stand against it later, too.
fn cannot(error: session::Error) -> Result<String, Status> {
    let status = service::status::session(error);
    if is_passing(&status) {
        return Err(status);
    }
    Ok(format!("it cannot be appended: {}", status.message()))
}

/// Settles; a session that changes meanwhile is read again, at last without what the answer says of its task.
pub(super) async fn settle(
    services: &Services,
    command: SettleCommand,
    contents: Vec<Content>,
    appending: Appending,
) -> Result<Result<Reply, engine::Error>, Status> {
    let mut tries = TRIES;
    loop {
        tries = tries.saturating_sub(1);
        let (append, more) = match &appending {
            Appending::Nothing => (None, Vec::new()),
            Appending::Cannot(why) => (Some(Append::Cannot(why.clone())), Vec::new()),
            Appending::Ready(answer) => append_of(services, answer, tries > 0).await?,
        };
        let contents = contents.iter().cloned().chain(more).collect();
        let command = SettleCommand { append, ..command.clone() };
        let id = command.id;
        let command = Command::Settle(Box::new(command));
        let settled = services.engine.with_contents(command, contents).await;
        let has_moved = matches!(
            settled,
            Err(engine::Error::Refused(Refusal::Session(core::session::Refusal::Moved(_))))
        );
        if has_moved && tries > 0 {
            continue;
        }
        if matches!(settled, Ok(Reply::NotAppended)) {
            let message = id.map(tracing::field::display);
            warn!(
                message,
                "an answer is kept and not appended to its session; its summary says why"
            );
        }
        return Ok(settled);
    }
}

async fn append_of(
    services: &Services,
    answer: &Answer,
    learns: bool,
) -> Result<(Option<Append>, Vec<Content>), Status> {
    Ok(match services.sessions.append_of(answer, learns).await {
        Ok(Some((write, contents))) => (Some(Append::Write(Box::new(write))), contents),
        Ok(None) => {
            let why = format!("session {} is gone", answer.session);
            (Some(Append::Cannot(why)), Vec::new())
        }
        // What the session is about cannot be read: that is no reason against going on with it.
        Err(error) if learns => {
            let status = service::status::session(error);
            if is_passing(&status) {
                return Err(status);
            }
            return Box::pin(append_of(services, answer, false)).await;
        }
        Err(error) => (Some(Append::Cannot(cannot(error)?)), Vec::new()),
    })
}
