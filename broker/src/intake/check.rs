//! The checks that need nothing but the message.

use broker_proto::{
    AskOptions, Message, MessageType, Part, PartRef, Recipient, ResultType, Role,
    convert::InvalidField,
};

use super::{Error, expected::Expected};

/// What an image is worth in a prompt, in bytes of text: about 1,600 tokens at every provider.
const IMAGE_BYTES: u64 = 6 * 1024;
/// Bytes of a task's description, its inputs' names and its schema together: what is longer is an input.
const TASK_TEXT: u64 = 256 * 1024;

/// A question is there when something is asked, or when the conversation ends with somebody waiting for an answer.
pub(super) fn question(message: &Message) -> Result<(), Error> {
    let payload = &message.payload;
    let asks = |part: &Part| match part {
        Part::Text(text) => !text.trim().is_empty(),
        Part::Image { .. } | Part::Ref(_) | Part::ToolResult { .. } | Part::Opaque { .. } => true,
        Part::Thinking { .. } | Part::ToolCall { .. } => false,
    };
    let is_waiting = payload.request.is_empty()
        && payload.context.last().is_some_and(|last| {
            matches!(last.role, Role::User | Role::Tool) && last.parts.iter().any(asks)
        });
    if payload.request.iter().any(asks) || is_waiting { Ok(()) } else { Err(Error::Empty) }
}

/// Only a consultation is asked.
pub(super) fn is_consultation(message: &Message) -> Result<(), InvalidField> {
    match message.kind {
        MessageType::Consultation => Ok(()),
        MessageType::Handoff | MessageType::Delegation | MessageType::Status => {
            Err(InvalidField::new("type", "is not a consultation"))
        }
    }
}

/// A task is there, whole and nothing but it; gives the conditions under which it is worked on.
pub(super) fn task(message: &Message) -> Result<AskOptions, Error> {
    let payload = &message.payload;
    if message.kind != MessageType::Delegation {
        return Err(InvalidField::new("type", "is not a delegation").into());
    }
    let Some(task) = &payload.task else {
        return Err(InvalidField::new("payload.task", "is missing").into());
    };
    if matches!(message.to, Recipient::AgentsOf(_)) {
        let problem = "is many agents; a task is given to one model, agent or role";
        return Err(InvalidField::new("to", problem).into());
    }
    if !payload.request.is_empty() {
        let problem = "is a question's; a task has a description and inputs";
        return Err(InvalidField::new("payload.request", problem).into());
    }
    let limit = TASK_TEXT;
    let size = task_bytes(message);
    if size > limit {
        return Err(Error::TooLarge { what: "task's text", size, limit });
    }
    Expected::of(&task.result)?;
    Ok(AskOptions {
        no_fallback: task.no_fallback,
        // Nobody has to listen, so nothing that was shown forbids another attempt.
        allow_restart: true,
        keep: true,
        max_cost_usd: task.max_cost_usd,
        max_tokens: task.max_tokens,
        deadline: task.deadline,
        return_window: None,
    })
}

/// Bytes of a task beside its parts.
pub(super) fn task_bytes(message: &Message) -> u64 {
    let Some(task) = &message.payload.task else { return 0 };
    let names = task.inputs.iter().map(|input| input.name.len()).sum::<usize>();
    let schema = match &task.result {
        ResultType::Json { schema: Some(schema) } => schema.len(),
        ResultType::Json { schema: None } | ResultType::Text => 0,
    };
    (task.description.len() + names + schema) as u64
}

/// Only a status message has a status's body: nothing that a model may be asked carries one.
pub(super) fn status(message: &Message) -> Result<(), Error> {
    if message.payload.status.is_some() && message.kind != MessageType::Status {
        return Err(InvalidField::new("payload.status", "belongs to a status message only").into());
    }
    Ok(())
}

/// Bytes a part adds to a prompt.
pub(crate) fn prompt_bytes(part: &Part) -> u64 {
    match part {
        Part::Image { .. } => IMAGE_BYTES,
        Part::ToolResult { parts, .. } => parts.iter().map(prompt_bytes).sum(),
        other => other.size_bytes(),
    }
}

/// A session is an id, and an ordering key is shown to people.
pub(super) fn names(message: &Message) -> Result<(), InvalidField> {
    let is_id = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !text.starts_with('.') && text.len() <= 64 && text.bytes().all(allowed)
    };
    if message.session.as_deref().is_some_and(|session| !is_id(session)) {
        let problem = "is not 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-`";
        return Err(InvalidField::new("session", problem));
    }
    let is_key = |text: &str| text.len() <= 256 && !text.chars().any(char::is_control);
    if message.ordering_key.as_deref().is_some_and(|key| !is_key(key)) {
        let problem = "is over 256 bytes, or has a control character in it";
        return Err(InvalidField::new("ordering_key", problem));
    }
    Ok(())
}

/// Bytes of what is kept beside the payload.
pub(super) fn header_bytes(message: &Message) -> u64 {
    let labels = message.labels.iter().map(|(key, value)| key.len() + value.len());
    let texts = [&message.session, &message.ordering_key, &message.trace];
    let texts = texts.into_iter().flatten().map(String::len);
    labels.chain(texts).sum::<usize>() as u64
}

/// The references in a part, nested ones too.
pub(crate) fn refs(part: &Part, found: &mut Vec<PartRef>) {
    match part {
        Part::Ref(part) => found.push(*part),
        Part::ToolResult { parts, .. } => parts.iter().for_each(|part| refs(part, found)),
        Part::Text(_)
        | Part::Thinking { .. }
        | Part::ToolCall { .. }
        | Part::Image { .. }
        | Part::Opaque { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use broker_proto::{Entry, MessageId, ModelName, Payload};

    use super::*;

    fn asks(context: Vec<Entry>, request: Vec<Part>) -> bool {
        let payload = Payload { context, request, ..Payload::default() };
        let opus = ModelName::parse("opus").unwrap();
        question(&Message::consultation(MessageId::from_u128(1), opus, payload)).is_ok()
    }

    fn entry(role: Role, text: &str) -> Entry {
        Entry { role, name: String::new(), parts: vec![Part::text(text)] }
    }

    #[test]
    fn only_what_waits_for_an_answer_is_a_question() {
        assert!(asks(vec![], vec![Part::text("why?")]));
        assert!(asks(vec![entry(Role::User, "why?")], vec![]));
        assert!(!asks(vec![], vec![]));
        assert!(!asks(vec![], vec![Part::text(" \n")]));
        assert!(!asks(vec![entry(Role::Assistant, "because")], vec![]));
        assert!(!asks(vec![entry(Role::User, "why?")], vec![Part::text("")]));
    }

    #[test]
    fn an_image_counts_as_tokens_and_not_as_its_bytes() {
        let data = Bytes::from(vec![0; 1 << 20]);
        let image = Part::Image { media_type: "image/png".into(), data };
        assert_eq!(prompt_bytes(&image), IMAGE_BYTES);
    }
}
