//! An entry of a session as a turn that can be found and shown.

use broker_proto::{EntryKind, Role, SessionEntry};

use super::super::{choose::Turn, plain::plain_all};

/// The entry in plain words. Parts stored apart have been fetched before, or are shown by their size.
#[must_use]
pub fn turn(entry: &SessionEntry) -> Turn {
    let said = &entry.entry;
    let role = match said.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let adviser = || match &entry.model {
        Some(model) => format!("advice of {model}"),
        None => "advice".to_owned(),
    };
    let name = match entry.kind {
        EntryKind::Advice => Some(adviser()),
        EntryKind::Turn => Some(said.name.clone()).filter(|name| !name.is_empty()),
    };
    let is_own = entry.kind == EntryKind::Turn && said.role == Role::Assistant;
    Turn {
        role: role.to_owned(),
        name,
        author: is_own.then(|| entry.model.as_ref().map(ToString::to_string).unwrap_or_default()),
        at: entry.created_at,
        sitting: None,
        text: plain_all(&said.parts),
    }
}
