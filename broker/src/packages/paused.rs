//! Sessions that are paused with a package, and go on with it.

use broker_proto::{
    CheckpointStatus, NewPackage, OnConflict, PackageFilter, PackageId, PreparePackage,
    Preservation, RenderAsk, SessionId, SessionInfo, SessionPause, SessionResumed,
};

use super::{Error, Loaded, Packages, Prepared, Restore};
use crate::{
    core::{
        self, Command, Reply,
        session::{Command as SessionCommand, Refusal, Reply as SessionReply},
    },
    engine, session,
};

/// The reason of such a package.
const REASON: &str = "user-requested";
/// How often a package is made anew because the session went on while it was made.
const TRIES: u32 = 5;

impl Packages {
    /// Pauses a session: its package is of the moment in which it stops.
    ///
    /// # Errors
    /// [`Refusal::Paused`], and whatever keeps a package from being made; the session runs on then.
    pub async fn pause(
        &self,
        caller: &str,
        id: &SessionId,
        reason: String,
    ) -> Result<SessionInfo, Error> {
        let mut tries = 0;
        loop {
            let info = self.sessions.get(id).await?.info;
            if info.pause.is_some() {
                return Err(refused(Refusal::Paused(id.clone())));
            }
            let Prepared { info: package, version, .. } = self.checkpoint(caller, &info).await?;
            let package = package.header.id;
            let pause = SessionPause { at: self.now(), reason: reason.clone(), package };
            let pause = SessionCommand::Pause { id: id.clone(), version, pause };
            let error = match self.of_session(pause).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            // Nobody goes on with it. What is left of it here expires.
            let _ = self.delete(package).await;
            tries += 1;
            let is_moved = matches!(
                &error,
                Error::Engine(engine::Error::Refused(core::Refusal::Session(Refusal::Moved(_))))
            );
            if !is_moved || tries == TRIES {
                return Err(error);
            }
        }
    }

    async fn checkpoint(&self, caller: &str, info: &SessionInfo) -> Result<Prepared, Error> {
        let ask = RenderAsk {
            level: Preservation::Complete,
            reader: Some(info.owner.model.clone()),
            allow_missing: true,
            ..RenderAsk::default()
        };
        let mut package = NewPackage { reason: REASON.to_owned(), ..NewPackage::default() };
        package.contents.checkpoint.status = CheckpointStatus::Paused;
        let session = info.id.clone();
        self.prepare(caller.to_owned(), PreparePackage { session, ask, package }).await
    }

    /// Lets a session go on, once the package that it was paused with is verified and has not expired. Where the session
    /// is here no more, its package becomes one.
    ///
    /// # Errors
    /// [`Refusal::Running`], and as [`Packages::load`] for what is wrong with the package; the session stays paused.
    pub async fn resume(
        &self,
        which: (Option<SessionId>, Option<PackageId>),
        is_forced: bool,
    ) -> Result<SessionResumed, Error> {
        let (id, named) = match which {
            (Some(id), named) => (id, named),
            (None, Some(package)) => match self.get(package).await?.header.session {
                Some(id) => (id, Some(package)),
                None => return Err(Error::field("package_id", "is of no session")),
            },
            (None, None) => return Err(Error::field("session_id", "is missing")),
        };
        let session = match (self.sessions.get(&id).await, named) {
            (Ok(session), _) => session.info,
            (Err(session::Error::Refused(Refusal::Unknown(_))), Some(package)) => {
                return self.begin_again(id, package).await;
            }
            (Err(error), _) => return Err(error.into()),
        };
        let Some(pause) = session.pause else { return Err(refused(Refusal::Running(id))) };
        if named.is_some_and(|named| named != pause.package) {
            let problem = format!("is not the one that session {id} was paused with");
            return Err(Error::field("package_id", &problem));
        }
        let loaded = self.load(Some(pause.package), PackageFilter::default()).await;
        let contents = match loaded {
            Ok(Loaded { contents, .. }) => Some(contents),
            Err(_) if is_forced => None,
            Err(error) => return Err(error),
        };
        let session = self.of_session(SessionCommand::Resume { id }).await?;
        let package = contents.is_some().then_some(pause.package);
        let (resume_point, instructions) = contents
            .map(|it| (it.checkpoint.resume_point, it.resumption_instructions))
            .unwrap_or_default();
        Ok(SessionResumed { session, package, resume_point, instructions })
    }

    /// Its session was deleted: what the package has of it becomes one again.
    async fn begin_again(
        &self,
        id: SessionId,
        package: PackageId,
    ) -> Result<SessionResumed, Error> {
        let Loaded { contents, .. } = self.load(Some(package), PackageFilter::default()).await?;
        let restore =
            Restore { id: package, session: Some(id), on_conflict: OnConflict::Fail, new_id: None };
        let (session, _) = self.restore(restore).await?;
        let (resume_point, instructions) =
            (contents.checkpoint.resume_point, contents.resumption_instructions);
        Ok(SessionResumed { session, package: Some(package), resume_point, instructions })
    }

    async fn of_session(&self, command: SessionCommand) -> Result<SessionInfo, Error> {
        let command = Command::Session(Box::new(command));
        match self.intake.engine.command(command).await? {
            Reply::Session(SessionReply::Session(session)) => Ok(session.info),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::Engine(engine::Error::Refused(refusal.into()))
}
