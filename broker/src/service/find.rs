//! Looking a message up by the name a caller gave.

use broker_proto::{MessageName, Recipient, Sender, convert::InvalidField};
use tonic::Status;

use super::{Caller, reason, status};
use crate::{
    core::{Query, Refusal, Reply, queue::Seq},
    intake::Intake,
    projection::Row,
};

/// The recipient that a list is of.
pub(super) fn recipient(text: &str) -> Result<Option<Recipient>, InvalidField> {
    if text.is_empty() { Ok(None) } else { queue(text, "to").map(Some) }
}

/// A recipient, or its queue. A name alone is a model's.
pub(super) fn queue(text: &str, field: &'static str) -> Result<Recipient, InvalidField> {
    let named = Recipient::parse(text).or_else(|_| Recipient::parse(&format!("model:{text}")));
    named.map_err(|invalid| InvalidField::new(field, invalid.to_string()))
}

/// Refuses a recipient that is nobody and was never sent anything: an empty list of it would look like good news.
pub(super) async fn known(intake: &Intake, to: &Recipient) -> Result<(), Status> {
    let queue = match to {
        // It has no queue of its own: its copies are in those of the agents.
        Recipient::AgentsOf(model) => Recipient::Model(model.clone()),
        to => to.clone(),
    };
    match intake.engine.query(Query::Queue(queue)).await.map_err(status::engine)? {
        Reply::Queues(queues) if queues.is_empty() => {
            Err(status::refusal(&Refusal::UnknownQueue(to.clone())))
        }
        _ => Ok(()),
    }
}

/// Where a page begins.
pub(super) fn page(token: &str) -> Result<Option<Seq>, InvalidField> {
    if token.is_empty() {
        return Ok(None);
    }
    let seq = token.parse();
    seq.map(|seq| Some(Seq(seq)))
        .map_err(|_| InvalidField::new("page_token", "is not one that a list gave"))
}

pub(super) fn message_name(text: &str) -> Result<MessageName, InvalidField> {
    MessageName::parse(text).ok_or_else(|| {
        InvalidField::new("message_id", "is not a ULID (26 characters, upper case), or SENDER/ULID")
    })
}

/// The rows of a message, as of everything that was answered. Agents see what they sent themselves.
///
/// An id is unique for its sender only: without a sender's name it is the caller's own message, else the only one there
/// is, and never a guess.
pub(super) async fn row(
    intake: &Intake,
    caller: &Caller,
    name: MessageName,
) -> Result<Row, Status> {
    let own = caller.sender()?;
    let sender = match &name.sender {
        Some(sender) if *caller == Caller::Local || *sender == own => sender.clone(),
        Some(_) => return Err(unknown(&name)),
        None if *caller == Caller::Local => sender(intake, &name, own).await?,
        None => own,
    };
    let row = intake.projection.find(sender, name.id, intake.engine.head()).await;
    let row = row.map_err(|error| status::projection(&error))?;
    row.ok_or_else(|| unknown(&name))
}

async fn sender(intake: &Intake, name: &MessageName, own: Sender) -> Result<Sender, Status> {
    let senders = intake.projection.senders(name.id, intake.engine.head()).await;
    let mut senders = senders.map_err(|error| status::projection(&error))?;
    match (senders.contains(&own), senders.len()) {
        (true, _) => Ok(own),
        (false, 0) => Err(unknown(name)),
        (false, 1) => Ok(senders.remove(0)),
        (false, _) => {
            let names: Vec<String> = senders.iter().map(|from| format!("{from}/{name}")).collect();
            let text = format!("{name} names several messages: say which, {}", names.join(" or "));
            Err(reason::AMBIGUOUS_MESSAGE.status(text))
        }
    }
}

pub(super) fn unknown(name: &MessageName) -> Status {
    reason::UNKNOWN_MESSAGE.status(format!("there is no message {name}"))
}
