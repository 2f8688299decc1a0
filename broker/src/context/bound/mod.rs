//! A conversation as one receiver's wire takes it: nothing bound to another provider, calls and results in pairs, two
//! speakers in turn with a person first, nothing empty.
//!
//! Pure. What cannot go as it is goes in plain words in its place; nothing is left out but what says nothing.

mod calls;
mod part;

use broker_proto::{Entry, EntryKind, Part, Role, SessionEntry};

use super::Receiver;

/// In front of a conversation that a model began; wires want a person first.
const BEGINNING: &str = "(The conversation begins with the answer below.)";

/// Who speaks, to a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    System,
    User,
    Assistant,
}

/// All that one speaker says before another does.
#[derive(Debug, PartialEq)]
struct Turn {
    speaker: Speaker,
    parts: Vec<Part>,
}

/// The entries as `receiver` takes them, followed by whatever a person asks next. Parts stored apart stay so.
#[must_use]
pub fn for_receiver(entries: &[SessionEntry], receiver: &Receiver) -> Vec<Entry> {
    let mut turns: Vec<Turn> = Vec::new();
    for entry in entries {
        let has_begun = turns.iter().any(|turn| turn.speaker != Speaker::System);
        let turn = said(entry, has_begun, receiver);
        match turns.last_mut() {
            _ if turn.parts.is_empty() => {}
            Some(last) if last.speaker == turn.speaker => last.parts.extend(turn.parts),
            _ => turns.push(turn),
        }
    }
    calls::pair(&mut turns);
    begin_with_a_person(&mut turns);
    turns.into_iter().flat_map(entries_of).collect()
}

/// The entries for [`for_receiver`], from the same with their large parts in place: those that the receiver takes as they
/// are stay apart, by their hash.
#[must_use]
pub fn apart_for(
    entries: &[SessionEntry],
    whole: &[SessionEntry],
    receiver: &Receiver,
) -> Vec<SessionEntry> {
    let pairs = entries.iter().zip(whole);
    let lighter = pairs.map(|(entry, whole)| {
        let mut lighter = whole.clone();
        lighten(&mut lighter.entry.parts, &entry.entry.parts, receiver);
        lighter
    });
    lighter.collect()
}

/// Puts the names of parts back in their place, where the part itself is not needed.
fn lighten(whole: &mut [Part], named: &[Part], receiver: &Receiver) {
    for (whole, named) in whole.iter_mut().zip(named) {
        match (&mut *whole, named) {
            (Part::ToolResult { parts, .. }, Part::ToolResult { parts: named, .. })
                if receiver.tools =>
            {
                lighten(parts, named, receiver);
            }
            (part, Part::Ref(_)) if part::stays_apart(part, receiver) => *whole = named.clone(),
            _ => {}
        }
    }
}

/// What an entry says, in the words that its speaker may use on the wire.
fn said(entry: &SessionEntry, has_begun: bool, receiver: &Receiver) -> Turn {
    let SessionEntry { entry: said, kind, model, .. } = entry;
    let (speaker, prefix) = match (kind, said.role) {
        (EntryKind::Advice, _) => {
            let adviser = model.as_ref().map_or("another model", |model| model.as_str());
            (Speaker::User, format!("Advice of {adviser}: "))
        }
        (EntryKind::Turn, Role::System) if has_begun => (Speaker::User, "System: ".to_owned()),
        (EntryKind::Turn, Role::System) => (Speaker::System, String::new()),
        (EntryKind::Turn, Role::Assistant) => {
            let writer = receiver.unverified.as_ref().and_then(|of| of.writer(entry));
            let mark = writer.map(|writer| format!("({writer}, unverified) ")).unwrap_or_default();
            (Speaker::Assistant, mark)
        }
        (EntryKind::Turn, Role::User) if !said.name.is_empty() => {
            (Speaker::User, format!("{}: ", said.name))
        }
        (EntryKind::Turn, Role::User | Role::Tool) => (Speaker::User, String::new()),
    };
    let is_own = model.as_ref().is_none_or(|model| model.as_str() == receiver.model);
    let taker = part::Taker { speaker, is_own, receiver };
    let mut parts: Vec<Part> = said.parts.iter().filter_map(|part| taker.taken(part)).collect();
    name_first(&prefix, &mut parts);
    Turn { speaker, parts }
}

/// Puts who speaks in front of what is said. A result stands for itself.
fn name_first(prefix: &str, parts: &mut Vec<Part>) {
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    if prefix.is_empty() || parts.iter().all(is_result) {
        return;
    }
    for part in parts.iter_mut() {
        if let Part::Text(text) = part {
            text.insert_str(0, prefix);
            return;
        }
    }
    parts.insert(0, Part::Text(prefix.trim_end().to_owned()));
}

fn begin_with_a_person(turns: &mut Vec<Turn>) {
    let first = turns.iter().position(|turn| turn.speaker != Speaker::System);
    if let Some(first) = first.filter(|first| turns[*first].speaker == Speaker::Assistant) {
        turns.insert(first, Turn { speaker: Speaker::User, parts: vec![Part::text(BEGINNING)] });
    }
}

/// Results are entries of their own, before what the person says.
fn entries_of(turn: Turn) -> impl Iterator<Item = Entry> {
    let entry = |role, parts: Vec<Part>| {
        (!parts.is_empty()).then(|| Entry { role, name: String::new(), parts })
    };
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    let entries = match turn.speaker {
        Speaker::System => [entry(Role::System, turn.parts), None],
        Speaker::Assistant => [entry(Role::Assistant, turn.parts), None],
        Speaker::User => {
            let (results, others) = turn.parts.into_iter().partition(is_result);
            [entry(Role::Tool, results), entry(Role::User, others)]
        }
    };
    entries.into_iter().flatten()
}

#[cfg(test)]
mod tests;
