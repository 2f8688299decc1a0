//! Earlier points of a session: shown, forked, restored.

use broker_proto::{SessionDiff, SessionHead, SessionId, SessionInfo, SessionPoint};

use super::{Error, NewSession, Sessions};
use crate::core::session::{Change, NewEntries, Point, Session, task};

impl Sessions {
    /// The session as it was at a point; its owner, title and version are those of then.
    pub(super) async fn at(&self, id: &SessionId, point: &SessionPoint) -> Result<Session, Error> {
        let now = self.get(id).await?;
        let missing = || Error::NoPoint { id: id.clone(), point: point.clone() };
        let (projection, batch) = (&self.intake.projection, self.intake.engine.head());
        match point {
            SessionPoint::Head => Ok(now),
            SessionPoint::Version(version) => {
                let found = projection.session_version(id.clone(), *version, batch).await?;
                Ok(found.ok_or_else(missing)?.session)
            }
            SessionPoint::Entry(_) | SessionPoint::Hash(_) => {
                let entry = self.entry_at(id, now.info.head, point).await?;
                let found = projection.session_at(id.clone(), entry.head(), batch).await?;
                let then = found.map_or(now, |found| found.session);
                let info = SessionInfo {
                    head: entry.head(),
                    tokens: entry.total_tokens,
                    size_bytes: entry.total_bytes,
                    ..then.info
                };
                Ok(Session { info, ..then })
            }
        }
    }

    /// Where a session ended at a point.
    ///
    /// # Errors
    /// [`Error`] when there is no such session or point.
    pub async fn head_at(
        &self,
        id: &SessionId,
        point: &SessionPoint,
    ) -> Result<SessionHead, Error> {
        Ok(self.at(id, point).await?.info.head)
    }

    /// The point as the rules take it. Its task says nothing of what later entries stated.
    pub(super) async fn point(
        &self,
        then: Session,
    ) -> Result<(Point, Vec<crate::journal::Content>), Error> {
        use broker_proto::convert::Stored as _;
        let Session { info, task: stored, shared, .. } = then;
        let read = self.task(stored.as_ref()).await?;
        let until = task::until(read.clone(), info.head.entries);
        let (task, contents) = if until == read {
            (stored, Vec::new())
        } else {
            let stored = self.intake.bodies.store(until.encode()).await?;
            (Some(stored.body), stored.contents)
        };
        let SessionInfo { head, tokens, size_bytes, .. } = info;
        Ok((Point { head, tokens, size_bytes, task, shared }, contents))
    }

    /// Begins a session at a point of another one, whose entries it shares.
    ///
    /// # Errors
    /// [`Error`] when there is no such point, or there is a session of the new id.
    pub async fn fork(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        new: NewSession,
    ) -> Result<Session, Error> {
        let then = self.at(id, at).await?;
        self.fork_at(then, new).await
    }

    pub(super) async fn fork_at(&self, then: Session, new: NewSession) -> Result<Session, Error> {
        let info = then.info.clone();
        let model = new.model.or(Some(info.owner.model));
        let title = if new.title.is_empty() { info.title } else { new.title };
        let (point, contents) = self.point(then).await?;
        let mut start =
            self.new_start(NewSession { id: new.id, model, title }, point, Change::Forked)?;
        start.from = Some((info.id, info.models));
        self.begin(start, NewEntries::default(), contents).await
    }

    /// Where two sessions, or two points, part.
    ///
    /// # Errors
    /// [`Error`] when one of them is not there.
    pub async fn diff(
        &self,
        one: (&SessionId, &SessionPoint),
        other: (&SessionId, &SessionPoint),
    ) -> Result<SessionDiff, Error> {
        let (one, other) = (self.at(one.0, one.1).await?, self.at(other.0, other.1).await?);
        self.parted(&one, &other).await
    }

    pub(super) async fn parted(
        &self,
        one: &Session,
        other: &Session,
    ) -> Result<SessionDiff, Error> {
        let (head, other_head) = (one.info.head, other.info.head);
        let chain = self.chain(head.hash).await?;
        let other_chain = self.chain(other_head.hash).await?;
        let common = chain.iter().zip(&other_chain).take_while(|(one, other)| one == other);
        let common_entries = common.count() as u64;
        let tasks = (self.task(one.task.as_ref()).await?, self.task(other.task.as_ref()).await?);
        let shared =
            (self.shared(one.shared.as_ref()).await?, self.shared(other.shared.as_ref()).await?);
        let keys = task::differing((&tasks.0, &shared.0), (&tasks.1, &shared.1));
        Ok(SessionDiff { common_entries, head, other_head, keys })
    }
}
