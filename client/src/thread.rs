//! A question that belongs to a session: what was said before goes along, and the broker appends both sides once it is
//! answered.
//!
//! The session, how the answer is appended and which entries are history are written into the message: whoever reads the
//! answer has nothing to append.

use broker_proto::{
    APPEND_LABEL, Entry, HISTORY_LABEL, HistoryRange, Message, Part, Recipient, Rendering, Role,
    SessionDetail, SessionPoint, SharedValue,
};

use crate::{Client, Error};

/// What a question takes along of its session where that is not all, as it was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Shortened {
    /// It does not fit the asked model's window.
    ForWindow(Rendering),
    /// The asked model took the session over: what was said before that is as its package has it.
    TakenOver(Rendering),
}

/// How the answer to a question is appended to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Behind the question, as what the owner said.
    Turn,
    /// Alone, as what another model advised; the values that the session shares go along with the question.
    Advice,
}

impl Append {
    fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Advice => "advice",
        }
    }
}

impl Client {
    /// Makes `message` a question of the session: what was said before goes in behind its system prompt, all of it where
    /// that fits the asked model's window, else what the question needs of it and the newest turns; to whom the session was
    /// handed over, what it took over. The message is for a model, else the owner's window counts.
    ///
    /// # Errors
    /// [`Error::Refused`] when the session cannot be read.
    pub async fn ask_in(
        &self,
        session: &SessionDetail,
        message: &mut Message,
        append: Append,
    ) -> Result<Option<Shortened>, Error> {
        let info = &session.info;
        let model = match &message.to {
            Recipient::Model(model) => model.clone(),
            _ => info.owner.model.clone(),
        };
        let (mut before, mut made, mut shortened) = (Vec::new(), None, None);
        if append == Append::Advice && !session.shared.is_empty() {
            before.push(shared(&session.shared));
        }
        if info.head.entries > 0 {
            // What comes since belongs to the next question.
            let at = SessionPoint::Version(info.version);
            let next: String = message.payload.request.iter().filter_map(text).collect();
            let history = self.session_history(&info.id, &at, Some(model), &next).await?;
            shortened = history.rendering.map(|rendering| match history.is_taken_over {
                true => Shortened::TakenOver(rendering),
                false => Shortened::ForWindow(rendering),
            });
            made = Some((before.len(), history.entries.len()));
            before.extend(history.entries);
        }
        let context = &mut message.payload.context;
        let at = context.iter().take_while(|entry| entry.role == Role::System).count();
        if let Some((first, count)) = made.filter(|(_, count)| *count > 0) {
            // Another model of the chain may have a smaller window.
            let range = HistoryRange { version: info.version, first: at + first, count };
            message.labels.insert(HISTORY_LABEL.to_owned(), range.to_string());
        }
        context.splice(at..at, before);
        message.session = Some(info.id.to_string());
        message.labels.insert(APPEND_LABEL.to_owned(), append.as_str().to_owned());
        Ok(shortened)
    }
}

fn text(part: &Part) -> Option<&str> {
    match part {
        Part::Text(text) => Some(text),
        _ => None,
    }
}

fn shared(values: &[SharedValue]) -> Entry {
    let line = |value: &SharedValue| {
        let source = if value.source.is_empty() {
            String::new()
        } else {
            format!(" (from {})", value.source)
        };
        format!("\n- {}: {}{source}", value.key, value.value)
    };
    let text = format!("Shared context:{}", values.iter().map(line).collect::<String>());
    Entry { role: Role::System, name: String::new(), parts: vec![Part::Text(text)] }
}
