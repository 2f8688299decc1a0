//! `event.proto`.

use super::{
    InvalidField,
    common::{message_id, none_if_empty, optional_agent, optional_model, text_of, time},
    required,
};
use crate::{EventFilter, EventInfo, EventStart, MessageName, MessageState, pb};

impl TryFrom<pb::EventFilter> for EventFilter {
    type Error = InvalidField;

    fn try_from(wire: pb::EventFilter) -> Result<Self, InvalidField> {
        let message = match wire.message_id.as_str() {
            "" => None,
            text => Some(MessageName::parse(text).ok_or_else(|| {
                InvalidField::new("filter.message_id", "is neither a ULID nor SENDER/ULID")
            })?),
        };
        Ok(Self {
            kinds: wire.kinds,
            message,
            model: optional_model(&wire.model, "filter.model")?,
            agent: optional_agent(&wire.agent, "filter.agent")?,
            session: none_if_empty(wire.session),
        })
    }
}

impl From<EventFilter> for pb::EventFilter {
    fn from(filter: EventFilter) -> Self {
        Self {
            kinds: filter.kinds,
            message_id: text_of(filter.message),
            model: text_of(filter.model),
            agent: text_of(filter.agent),
            session: filter.session.unwrap_or_default(),
        }
    }
}

impl From<Option<pb::subscribe_request::From>> for EventStart {
    fn from(wire: Option<pb::subscribe_request::From>) -> Self {
        use pb::subscribe_request::From as Wire;
        match wire {
            None | Some(Wire::Start(false)) => Self::Now,
            Some(Wire::Start(true)) => Self::First,
            Some(Wire::Cursor(cursor)) => Self::Behind(cursor),
        }
    }
}

impl From<EventStart> for Option<pb::subscribe_request::From> {
    fn from(start: EventStart) -> Self {
        use pb::subscribe_request::From as Wire;
        match start {
            EventStart::Now => None,
            EventStart::First => Some(Wire::Start(true)),
            EventStart::Behind(cursor) => Some(Wire::Cursor(cursor)),
        }
    }
}

impl TryFrom<pb::Event> for EventInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::Event) -> Result<Self, InvalidField> {
        let message = match wire.message_id.as_str() {
            "" => None,
            text => {
                let state = required(MessageState::from_wire(wire.state), "event.state")?;
                Some((message_id(text, "event.message_id")?, state))
            }
        };
        Ok(Self {
            kind: wire.kind,
            at: required(time(wire.at, "event.at")?, "event.at")?,
            message,
            model: optional_model(&wire.model, "event.model")?,
            agent: optional_agent(&wire.agent, "event.agent")?,
            session: none_if_empty(wire.session),
            detail: wire.detail,
        })
    }
}

impl From<EventInfo> for pb::Event {
    fn from(event: EventInfo) -> Self {
        let (id, state) = event.message.unzip();
        Self {
            kind: event.kind,
            at: Some(event.at.into()),
            message_id: text_of(id),
            state: state.map(MessageState::to_wire).unwrap_or_default(),
            model: text_of(event.model),
            agent: text_of(event.agent),
            session: event.session.unwrap_or_default(),
            detail: event.detail,
        }
    }
}
