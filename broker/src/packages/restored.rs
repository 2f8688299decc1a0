//! Packages that become a session again, or what one goes on with.

use broker_proto::{
    Entry, EntryKind, NewSessionEntry, OnConflict, PackageContents, PackageFilter, PackageId,
    PackageInfo, Part, Role, SessionId, SessionInfo, SessionOutcome,
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
    /// Puts a package into a session, in one commit: what was rendered of the conversation as its first entry, its task,
    /// and what it shared. A session that went on is never mixed with it.
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
            task: contents.task,
            shared: contents.shared,
            model: info.header.recipient,
            title: String::new(),
            on_conflict: restore.on_conflict,
            new_id: restore.new_id,
        };
        let (session, outcome) = self.sessions.import(import).await?;
        Ok((session.info, outcome))
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
}

/// A package holds a rendering: turns that were chosen, shortened and marked for one receiver, with what must be kept in
/// front of them. Turns made of that would say that somebody spoke words which a rendering wrote, so it is one entry, and
/// says whose it is.
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
