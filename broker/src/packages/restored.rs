//! Packages that become a session again, or what one goes on with.

use broker_proto::{
    Entry, EntryKind, NewSessionEntry, OnConflict, PackageContents, PackageFilter, PackageId,
    PackageInfo, Part, Role, SessionId, SessionInfo, SessionItem, SessionOutcome, SessionTask,
    TaskEdit, TaskList,
};

use super::{Error, Loaded, Packages};
use crate::{core::session::Refusal, session};

/// Who speaks in the entry that a package becomes.
const SPEAKER: &str = "handoff";

/// A package that is to be a session again.
#[derive(Debug, Clone)]
pub struct Restore {
    pub id: PackageId,
    /// `None`: the package's own, else a new one.
    pub session: Option<SessionId>,
    pub on_conflict: OnConflict,
    /// Of the fork, where there is one.
    pub new_id: Option<SessionId>,
}

impl Packages {
    /// Puts a package into a session: what was rendered of the conversation as its first entry, then its task and what
    /// it shared. A session that went on is never mixed with it.
    ///
    /// # Errors
    /// As [`Packages::load`]; [`Error::Session`] when the session has something else and nobody chose what to do then.
    pub async fn restore(&self, restore: Restore) -> Result<(SessionInfo, SessionOutcome), Error> {
        let Loaded { info, contents, .. } =
            self.load(Some(restore.id), PackageFilter::default()).await?;
        let target = restore.session.or_else(|| info.header.session.clone());
        if let Some(session) = self.unchanged(&info, &contents, target.as_ref()).await? {
            return Ok((session, SessionOutcome::Unchanged));
        }
        let import = session::Import {
            id: target,
            entries: vec![entry(&info, &contents)],
            model: info.header.recipient.clone(),
            title: String::new(),
            on_conflict: restore.on_conflict,
            new_id: restore.new_id,
        };
        let (session, outcome) = self.sessions.import(import).await?;
        let id = session.info.id;
        match outcome {
            SessionOutcome::Done | SessionOutcome::Replaced | SessionOutcome::Forked => {
                self.fill(&id, contents).await?;
            }
            SessionOutcome::Kept | SessionOutcome::Unchanged => {}
        }
        Ok((self.sessions.get(&id).await?.info, outcome))
    }

    /// The session that a package was made of here, when nothing was said in it since.
    async fn unchanged(
        &self,
        info: &PackageInfo,
        contents: &PackageContents,
        target: Option<&SessionId>,
    ) -> Result<Option<SessionInfo>, Error> {
        let Some(target) = target.filter(|id| Some(*id) == info.header.session.as_ref()) else {
            return Ok(None);
        };
        let Some(last) = contents.conversation.through.filter(|_| !info.is_imported) else {
            return Ok(None);
        };
        match self.sessions.get(target).await {
            Ok(session) if session.info.head.entries == last + 1 => Ok(Some(session.info)),
            Ok(_) | Err(session::Error::Refused(Refusal::Unknown(_))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The task and the shared values; what the session has already is not doubled.
    async fn fill(&self, id: &SessionId, contents: PackageContents) -> Result<(), Error> {
        let known = self.sessions.detail(id, &broker_proto::SessionPoint::Head).await?.task;
        let edits = edits(&known, contents.task);
        if !edits.is_empty() {
            self.sessions.edit(id, &edits).await?;
        }
        for value in contents.shared {
            self.sessions.set_shared(id, value).await?;
        }
        Ok(())
    }
}

fn entry(info: &PackageInfo, contents: &PackageContents) -> NewSessionEntry {
    let talk = &contents.conversation.text;
    let text = if talk.is_empty() { &contents.resumption_instructions } else { talk };
    let parts = vec![Part::Text(text.clone())];
    NewSessionEntry {
        kind: EntryKind::Turn,
        entry: Entry { role: Role::System, name: SPEAKER.to_owned(), parts },
        model: None,
        created_at: Some(info.header.created_at),
    }
}

fn edits(known: &SessionTask, task: SessionTask) -> Vec<TaskEdit> {
    let mut edits = Vec::new();
    if !task.goal.is_empty() && task.goal != known.goal {
        edits.push(TaskEdit::SetGoal(task.goal));
    }
    edits.extend(task.progress.map(TaskEdit::SetProgress));
    let lists: [(TaskList, &[SessionItem], Vec<SessionItem>); 8] = [
        (TaskList::SubGoals, &known.sub_goals, task.sub_goals),
        (TaskList::Constraints, &known.constraints, task.constraints),
        (TaskList::Decisions, &known.decisions, task.decisions),
        (TaskList::NextSteps, &known.next_steps, task.next_steps),
        (TaskList::OpenItems, &known.open_items, task.open_items),
        (TaskList::Files, &known.files, task.files),
        (TaskList::CriticalFacts, &known.critical_facts, task.critical_facts),
        (TaskList::Preferences, &known.preferences, task.preferences),
    ];
    for (list, known, items) in lists {
        let is_new = |item: &SessionItem| {
            !item.is_done && !known.iter().any(|other| other.text == item.text)
        };
        // The entry that states it is one of another session.
        let add = |item: SessionItem| TaskEdit::Add { list, text: item.text, entry: None };
        edits.extend(items.into_iter().filter(is_new).map(add));
    }
    edits.extend(task.pending_subagents.into_iter().map(TaskEdit::SetSubagent));
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str, is_done: bool) -> SessionItem {
        SessionItem { id: 1, text: text.into(), is_done, entry: Some(7) }
    }

    #[test]
    fn only_what_is_new_and_open_is_added() {
        let known = SessionTask {
            goal: "Move".into(),
            decisions: vec![item("Stay on 13", false)],
            ..SessionTask::default()
        };
        let task = SessionTask {
            decisions: vec![item("Stay on 13", false), item("Use the proxy", false)],
            next_steps: vec![item("Done before", true)],
            ..known.clone()
        };
        let added = |text: &str| TaskEdit::Add {
            list: TaskList::Decisions,
            text: text.into(),
            entry: None,
        };
        assert_eq!(edits(&known, task), [added("Use the proxy")]);
    }
}
