//! A question whose session's history is too long for the model that it goes to: that model is sent a smaller one.

use tracing::warn;

use broker_proto::{
    HistoryRange, Message, ModelName, Part, Rendering, SessionHistory, SessionId, SessionPoint,
};

use super::Services;
use crate::{service, session};

/// Puts the history as `model` reads it within `room` tokens in place of the one that was sent. Says what it leaves out;
/// nothing where all of it fits after all.
///
/// Of a session that cannot be read any more the question goes as it is: the model says whether that is too long.
pub(super) async fn shorten(
    services: &Services,
    message: &mut Message,
    model: &ModelName,
    room: u64,
) -> String {
    let Some(range) = HistoryRange::of(message) else { return String::new() };
    match made(services, message, range, model, room).await {
        Ok(Some(SessionHistory { entries, rendering, .. })) => {
            message.payload.context.splice(range.places(), entries);
            rendering.map(|rendering| in_words(model, &rendering)).unwrap_or_default()
        }
        Ok(None) => String::new(),
        Err(error) => {
            let status = service::status::session(error);
            warn!(message = %message.id, %model, %status, "a history cannot be made for a smaller window");
            String::new()
        }
    }
}

async fn made(
    services: &Services,
    message: &Message,
    range: HistoryRange,
    model: &ModelName,
    room: u64,
) -> Result<Option<SessionHistory>, session::Error> {
    let id = message.session.as_deref().and_then(|name| SessionId::parse(name).ok());
    let Some(id) = id else { return Ok(None) };
    let text = |part: &Part| match part {
        Part::Text(text) => Some(text.clone()),
        _ => None,
    };
    let next: Vec<String> = message.payload.request.iter().filter_map(text).collect();
    let (at, reader) = (SessionPoint::Version(range.version), Some(model.clone()));
    let sessions = &services.sessions;
    sessions.history_within(&id, &at, reader, next.join("\n"), Some(room)).await.map(Some)
}

fn in_words(model: &ModelName, rendering: &Rendering) -> String {
    let (kept, partly, dropped) =
        (rendering.kept.len(), rendering.partly.len(), rendering.dropped.len());
    let all = kept + partly + dropped;
    let missing = match rendering.must_keep_missing.len() {
        0 => String::new(),
        missing => format!(", and {missing} items of its task"),
    };
    format!(
        "the session's history was made shorter for {model}: of {all} entries {kept} are in it, {partly} in part, \
         {dropped} are left out{missing}"
    )
}
