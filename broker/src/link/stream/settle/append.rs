//! What a session goes on with, in the commit that ends its consultation.

use tonic::Status;
use tracing::warn;

use broker_proto::Part;

use super::is_passing;
use crate::{
    core::{Command, Refusal, Reply, SettleCommand, queue::Seq, session},
    engine,
    journal::Content,
    link::Services,
    service,
    session::{Answer, TRIES},
};

/// The two sides of a consultation that a session is to go on with. What stands against that is no reason to lose the
/// answer, unless it may be gone a moment later.
pub(super) async fn answer(
    services: &Services,
    seq: Seq,
    parts: &[Part],
) -> Result<Option<Answer>, Status> {
    match services.sessions.answer(seq, parts).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let status = service::status::session(error);
            if is_passing(&status) {
                return Err(status);
            }
            warn!(%status, "an answer is kept and cannot be appended to its session");
            Ok(None)
        }
    }
}

/// Settles; a session that changes meanwhile is read again, at last without what the answer says of its task.
pub(super) async fn settle(
    services: &Services,
    command: SettleCommand,
    contents: Vec<Content>,
    answer: Option<Answer>,
) -> Result<Result<Reply, engine::Error>, Status> {
    let Some(answer) = answer else {
        let command = Command::Settle(Box::new(command));
        return Ok(services.engine.with_contents(command, contents).await);
    };
    let mut tries = TRIES;
    loop {
        tries = tries.saturating_sub(1);
        let append = services.sessions.append_of(&answer, tries > 0).await;
        let append = append.map_err(service::status::session)?;
        let is_gone = append.is_none();
        let (append, more) = append.unzip();
        let contents = contents.iter().cloned().chain(more.into_iter().flatten()).collect();
        let command = SettleCommand { append: append.map(Box::new), ..command.clone() };
        let command = Command::Settle(Box::new(command));
        let settled = services.engine.with_contents(command, contents).await;
        let has_moved = matches!(
            settled,
            Err(engine::Error::Refused(Refusal::Session(session::Refusal::Moved(_))))
        );
        if has_moved && tries > 0 {
            continue;
        }
        if matches!(settled, Ok(Reply::NotAppended)) || is_gone && settled.is_ok() {
            let (message, session) = (&answer.of, &answer.session);
            warn!(%message, %session, "its session is gone: the answer is kept and not appended");
        }
        return Ok(settled);
    }
}
