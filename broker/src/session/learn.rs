//! What a conversation says about its own task is taken into it with the entries that say it, in one commit.

use tracing::info;

use broker_proto::{EntryKind, NewSessionEntry, SessionTask, convert::Stored as _};

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

    /// The task after these entries, the first of which has this number.
    ///
    /// What comes along is taken whole or refused; what is stated still stands in its entry.
    fn learn(&self, mut known: SessionTask, first: u64) -> Result<SessionTask, task::EditError> {
        for (number, stated) in (first..).zip(&self.stated).filter(|(_, stated)| !stated.is_empty())
        {
            let changes = edits(&known, number, stated);
            // What has no room in the task still stands in its entry.
            if let Ok(edited) = task::edit(&known, &changes) {
                known = edited;
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
        let learnt = statements.learn(task::until(known.clone(), first), first)?;
        if learnt == known {
            return Ok(None);
        }
        let stored = learnt.encode();
        match stored.len() > super::TASK {
            true if statements.is_carrying() => return Err(too_large()),
            true => return Ok(None),
            false => {}
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
        let learnt = statements.learn(SessionTask::default(), 0)?;
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
