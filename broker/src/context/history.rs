//! How much of a conversation one model is sent: all of it where that fits, else a rendering and the newest turns.

use broker_proto::{EntryKind, Part, Preservation, Rendering, Role, SessionEntry};

use super::{
    Receiver, Tokenizer,
    plain::plain,
    render::{Ask, Error, Missing, View, render},
};

/// What an image costs at most where nobody counts it.
const IMAGE: u64 = 1_600;
/// Roles, separators and marks around a turn.
const AROUND: u64 = 8;
/// Of the room, the part that the newest turns take, and that of the rendering. The rest is for what the wire adds, and
/// for estimates that are wrong.
const NEWEST: u64 = 4;
const RENDERED: u64 = 2;
/// The part that the system's turns at the beginning may take.
const SYSTEM: u64 = 8;
/// Above a rendering.
const OPENING: &str = "What was said before, as far as there is room for it:\n\n";

/// What goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    All,
    /// A text in place of what does not fit; so many of the system's turns at the beginning, and the entries from this
    /// number on.
    Part {
        rendering: Rendering,
        system: usize,
        from: usize,
    },
}

/// Decides what of `entries` goes to `receiver` before it is asked `next`. What is stored apart is in its place.
///
/// # Errors
/// [`Error::BudgetTooSmall`] when the window holds nothing beside the question.
pub fn plan(
    view: &View<'_>,
    entries: &[SessionEntry],
    receiver: &Receiver,
    next: &str,
) -> Result<Plan, Error> {
    let asked = receiver.tokenizer.count(next) + AROUND;
    let room = receiver.room.saturating_sub(asked);
    let sizes: Vec<u64> = entries.iter().map(|entry| size(entry, receiver.tokenizer)).collect();
    if sizes.iter().sum::<u64>() <= room {
        return Ok(Plan::All);
    }
    let ask = Ask {
        receiver,
        level: Preservation::Complete,
        budget: Some(room / RENDERED),
        next: Some(next),
        missing: Missing::Listed,
    };
    let mut rendering = render(view, &ask)?;
    rendering.text.insert_str(0, OPENING);
    let system = entries.iter().take_while(|entry| entry.entry.role == Role::System).count();
    let fits = sizes[..system].iter().sum::<u64>() <= room / SYSTEM;
    let system = if fits { system } else { 0 };
    let from = newest(entries, &sizes, room / NEWEST).max(system);
    Ok(Plan::Part { rendering, system, from })
}

/// Where the newest turns begin: with a person's, so that no answer stands without its question.
fn newest(entries: &[SessionEntry], sizes: &[u64], mut room: u64) -> usize {
    let mut from = entries.len();
    for (place, size) in sizes.iter().enumerate().rev() {
        let Some(left) = room.checked_sub(*size) else { break };
        room = left;
        let SessionEntry { entry, kind, .. } = &entries[place];
        if entry.role == Role::User && *kind == EntryKind::Turn {
            from = place;
        }
    }
    from
}

fn size(entry: &SessionEntry, tokenizer: Tokenizer) -> u64 {
    AROUND + entry.entry.parts.iter().map(|part| tokens(part, tokenizer)).sum::<u64>()
}

fn tokens(part: &Part, tokenizer: Tokenizer) -> u64 {
    match part {
        Part::Text(text) => tokenizer.count(text),
        Part::Image { .. } => IMAGE,
        Part::ToolResult { parts, .. } => {
            AROUND + parts.iter().map(|part| tokens(part, tokenizer)).sum::<u64>()
        }
        // As large as it is, whatever it is.
        Part::Ref(part) => part.size_bytes / 2,
        Part::Opaque { data, .. } => data.len() as u64 / 2,
        Part::Thinking { signature, .. } => {
            tokenizer.count(&plain(part)) + signature.len() as u64 / 2
        }
        Part::ToolCall { .. } => AROUND + tokenizer.count(&plain(part)),
    }
}

#[cfg(test)]
mod tests {
    use broker_config::{Model, Provider};
    use broker_proto::{Entry, EntryHash, SessionTask};

    use super::{
        super::{choose::Index, render::turn},
        *,
    };

    fn talk(many: u64) -> Vec<SessionEntry> {
        let entry = |number: u64| SessionEntry {
            number,
            kind: EntryKind::Turn,
            entry: Entry {
                role: [Role::User, Role::Assistant][(number % 2) as usize],
                name: String::new(),
                parts: vec![Part::Text(format!("turn {number} about topic {}", number % 17))],
            },
            model: None,
            created_at: None,
            tokens: 0,
            previous: EntryHash::NONE,
            hash: EntryHash::NONE,
        };
        (0..many).map(entry).collect()
    }

    fn planned(entries: &[SessionEntry], room: u64) -> Result<Plan, Error> {
        let model = Model::new("m", Provider::Anthropic, "claude");
        let receiver = Receiver { room, ..Receiver::of(&model) };
        let mut turns = Index::new();
        entries.iter().for_each(|entry| turns.push(turn(entry)));
        let task = SessionTask::default();
        plan(&View { task: &task, shared: &[], turns: &turns }, entries, &receiver, "topic 5?")
    }

    #[test]
    fn what_fits_goes_whole() {
        assert_eq!(planned(&talk(20), 2_000), Ok(Plan::All));
        assert_eq!(planned(&[], 2_000), Ok(Plan::All));
    }

    #[test]
    fn what_does_not_fit_goes_as_a_rendering_and_the_newest_turns() {
        let entries = talk(400);
        let planned_part = planned(&entries, 1_000);
        let Ok(Plan::Part { rendering, system: 0, from }) = planned_part else { panic!() };
        assert!(rendering.text.starts_with(OPENING) && rendering.text.contains("topic 5"));
        assert!(rendering.tokens <= 500, "{}", rendering.tokens);
        assert!((375..400).contains(&from) && from % 2 == 0, "{from}");
    }

    #[test]
    fn the_systems_turns_at_the_beginning_go_along_if_they_are_short() {
        let mut entries = talk(400);
        entries[0].entry.role = Role::System;
        let system = |entries: &[SessionEntry]| match planned(entries, 1_000) {
            Ok(Plan::Part { system, .. }) => system,
            other => panic!("{other:?}"),
        };
        assert_eq!(system(&entries), 1);
        entries[0].entry.parts = vec![Part::Text("rule ".repeat(200))];
        assert_eq!(system(&entries), 0);
    }

    #[test]
    fn a_turn_larger_than_the_window_is_no_obstacle() {
        let mut entries = talk(9);
        entries[8].entry.parts = vec![Part::Text("word ".repeat(10_000))];
        let Ok(Plan::Part { rendering, from, .. }) = planned(&entries, 1_000) else { panic!() };
        assert_eq!((from, rendering.dropped), (9, vec![8]));
        assert!(matches!(planned(&entries, 40), Err(Error::BudgetTooSmall { .. })));
    }
}
