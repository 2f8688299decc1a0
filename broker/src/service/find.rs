//! Looking a message up by the id a caller gave.

use broker_proto::{MessageId, convert::InvalidField};
use tonic::Status;

use super::{reason, status};
use crate::{intake::Intake, projection::Row};

pub(super) fn message_id(text: &str) -> Result<MessageId, InvalidField> {
    MessageId::parse(text)
        .ok_or_else(|| InvalidField::new("message_id", "is not a ULID (26 characters, upper case)"))
}

/// The rows of a message, as of everything that was answered.
pub(super) async fn row(intake: &Intake, id: MessageId) -> Result<Row, Status> {
    let head = intake.engine.head();
    let row = intake.projection.find(id, head).await;
    let row = row.map_err(|error| status::projection(&error))?;
    row.ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: MessageId) -> Status {
    reason::UNKNOWN_MESSAGE.status(format!("there is no message {id}"))
}
