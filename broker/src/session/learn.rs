//! What a conversation says about its own task is taken into it with the entries that say it, in one commit.

use tracing::info;

use broker_proto::{EntryKind, NewSessionEntry, SessionTask, TaskEdit, convert::Stored as _};

use super::{Error, Sessions};
use crate::{
    context::extract::{Stated, edits, found},
    core::{
        queue::Body,
        session::{Session, task},
    },
    journal::Content,
};

/// What new entries state, one after the other, and what comes along with them.
pub(super) struct Statements {
    stated: Vec<Vec<Stated>>,
    carried: SessionTask,
}

/// A task that entries have changed.
pub(super) struct Learnt {
    /// What it was and what it is now, as the rules take it.
    pub(super) change: (Option<Body>, Option<Body>),
    pub(super) contents: Vec<Content>,
}

impl Statements {
    /// Advice states nothing: it is not the session's own word.
    pub(super) fn of(entries: &[NewSessionEntry]) -> Self {
        let mut left_out = 0;
        let of = |said: &NewSessionEntry| match said.kind {
            EntryKind::Turn => {
                let found = found(&said.entry);
                left_out += found.left_out;
                found.stated
            }
            EntryKind::Advice => Vec::new(),
        };
        let stated = entries.iter().map(of).collect();
        if left_out > 0 {
            info!(left_out, "too many or too long statements are left in their entries");
        }
        Self { stated, carried: SessionTask::default() }
    }

    /// The same with a task that comes along.
    pub(super) fn with(self, carried: SessionTask) -> Self {
        Self { carried, ..self }
    }

    /// The same without its first entries.
    pub(super) fn behind(self, entries: usize) -> Self {
        Self { stated: self.stated.into_iter().skip(entries).collect(), ..self }
    }

    fn is_empty(&self) -> bool {
        self.stated.iter().all(Vec::is_empty) && !self.is_carrying()
    }

    fn is_carrying(&self) -> bool {
        self.carried != SessionTask::default()
    }

    /// The task after these entries, the first of which has this number; what is stated keeps it within `most` bytes,
    /// unless it had more already.
    ///
    /// What comes along is taken whole or refused; what is stated and has no room still stands in its entry.
    fn learn(
        &self,
        mut known: SessionTask,
        first: u64,
        most: usize,
    ) -> Result<SessionTask, task::EditError> {
        let mut room = most.saturating_sub(known.clone().encode().len());
        for (number, stated) in (first..).zip(&self.stated).filter(|(_, stated)| !stated.is_empty())
        {
            let changes = edits(&known, number, stated);
            let Some(left) = room.checked_sub(changes.iter().map(bytes).sum()) else { continue };
            if let Ok(edited) = task::edit(&known, &changes) {
                (known, room) = (edited, left);
            }
        }
        task::edit(&known, &task::taken_over(&known, self.carried.clone()))
    }
}

impl Sessions {
    /// What a session is about once these entries follow its first `first`; nothing when it stays the same.
    pub(super) async fn learn(
        &self,
        session: &Session,
        first: u64,
        statements: &Statements,
    ) -> Result<Option<Learnt>, Error> {
        let is_at_head = first == session.info.head.entries;
        if is_at_head && statements.is_empty() {
            return Ok(None);
        }
        let known = self.task(session.task.as_ref()).await?;
        // What entries stated that are there no more goes in any case, and a task too large never keeps it.
        let learnt = statements.learn(task::until(known.clone(), first), first, super::TASK)?;
        if learnt == known {
            return Ok(None);
        }
        let stored = learnt.encode();
        if stored.len() > super::TASK && statements.is_carrying() {
            return Err(too_large());
        }
        let stored = self.intake.bodies.store(stored).await?;
        let change = (session.task.clone(), Some(stored.body));
        Ok(Some(Learnt { change, contents: stored.contents }))
    }

    /// The same for a session that begins with these entries.
    pub(super) async fn learn_from_start(
        &self,
        statements: &Statements,
    ) -> Result<(Option<Body>, Vec<Content>), Error> {
        let learnt = statements.learn(SessionTask::default(), 0, super::TASK)?;
        if learnt == SessionTask::default() {
            return Ok((None, Vec::new()));
        }
        let stored = learnt.encode();
        if stored.len() > super::TASK && statements.is_carrying() {
            return Err(too_large());
        }
        let stored = self.intake.bodies.store(stored).await?;
        Ok((Some(stored.body), stored.contents))
    }
}

fn too_large() -> Error {
    Error::TooLarge { what: "task", limit: super::TASK }
}

/// What an edit adds to a stored task at most.
fn bytes(edit: &TaskEdit) -> usize {
    /// Numbers, flags, and the marks around them.
    const AROUND: usize = 64;
    let text = match edit {
        TaskEdit::SetGoal(text) | TaskEdit::Add { text, .. } => text.len(),
        TaskEdit::SetProgress(_)
        | TaskEdit::Done { .. }
        | TaskEdit::Remove { .. }
        | TaskEdit::SetSubagent(_)
        | TaskEdit::RemoveSubagent(_) => 0,
    };
    AROUND + text
}

#[cfg(test)]
mod tests {
    use broker_proto::{Entry, Part, Role, SessionItem};

    use super::*;

    fn statements(texts: &[&str]) -> Statements {
        let said = |text: &&str| NewSessionEntry {
            kind: EntryKind::Turn,
            entry: Entry { role: Role::User, name: String::new(), parts: vec![Part::text(*text)] },
            model: None,
            created_at: None,
        };
        Statements::of(&texts.iter().map(said).collect::<Vec<_>>())
    }

    fn decided(text: &str, entry: u64) -> SessionItem {
        SessionItem { id: 1, text: text.into(), is_done: false, entry: Some(entry) }
    }

    #[test]
    fn what_a_task_has_no_room_for_stays_in_its_entry_and_the_rest_is_learnt() {
        let said = statements(&["We decided to use port 4000.", "We decided to use TLS 1.3."]);
        let all = said.learn(SessionTask::default(), 0, 10_000).unwrap();
        assert_eq!(all.decisions.len(), 2, "{all:?}");
        let most = all.clone().encode().len() - 1;
        let learnt = said.learn(SessionTask::default(), 0, most.max(128)).unwrap();
        assert_eq!(learnt.decisions[..], all.decisions[..1]);
    }

    /// A conversation that takes the place of another brings its own numbers.
    #[test]
    fn a_task_without_room_keeps_no_number_of_entries_that_are_gone() {
        let kept = SessionItem { entry: None, ..decided("by hand", 0) };
        let known = SessionTask {
            decisions: vec![decided("of an entry that is gone", 7), kept.clone()],
            goal: "x".repeat(1_000),
            ..SessionTask::default()
        };
        let said = statements(&["We decided to use port 4000."]);
        let learnt = said.learn(task::until(known.clone(), 0), 0, 100).unwrap();
        assert_eq!(learnt, SessionTask { decisions: vec![kept], ..known });
    }
}
