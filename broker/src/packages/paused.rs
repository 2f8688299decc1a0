//! Sessions that are paused with a package, and go on with it.

use broker_proto::{
    CheckpointStatus, ModelName, NewPackage, OnConflict, PackageFilter, PackageId, PreparePackage,
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

/// A session that is to stop.
#[derive(Debug)]
pub(crate) struct Stopping {
    /// That its package was made of.
    pub(crate) version: u64,
    pub(crate) pause: SessionPause,
}

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
        let stop = |Stopping { version, pause }| {
            let pause = SessionCommand::Pause { id: id.clone(), version, pause };
            Command::Session(Box::new(pause))
        };
        session_of(self.stop((caller, &reason), id, (None, None), stop).await?)
    }

    /// Stops a session with a package of the moment in which it does: made for `reader`, else for its owner, within so many
    /// tokens. Made anew where the session went on meanwhile.
    ///
    /// # Errors
    /// As [`Packages::pause`], and the refusal of what `stop` asks for.
    pub(crate) async fn stop(
        &self,
        (caller, reason): (&str, &str),
        id: &SessionId,
        (reader, budget): (Option<ModelName>, Option<u64>),
        stop: impl Fn(Stopping) -> Command + Send,
    ) -> Result<Reply, Error> {
        let mut tries = 0;
        loop {
            let info = self.sessions.get(id).await?.info;
            if info.pause.is_some() {
                return Err(refused(Refusal::Paused(id.clone())));
            }
            let for_owner = reader.is_none();
            let ask = RenderAsk {
                level: Preservation::Complete,
                budget,
                reader: Some(reader.clone().unwrap_or(info.owner.model)),
                // Its owner has the session itself.
                allow_missing: for_owner,
                ..RenderAsk::default()
            };
            let Prepared { info: package, version, .. } = self.checkpoint(caller, id, ask).await?;
            let package = package.header.id;
            let (at, reason, by) = (self.now(), reason.to_owned(), caller.to_owned());
            let pause = SessionPause { at, reason, package, by, handoff: None };
            let command = stop(Stopping { version, pause });
            let error = match self.intake.engine.command(command).await {
                Ok(stopped) => return Ok(stopped),
                Err(error) => error,
            };
            // Nobody goes on with it. What is left of it here expires.
            let _ = self.delete(package).await;
            tries += 1;
            let is_moved =
                matches!(&error, engine::Error::Refused(core::Refusal::Session(Refusal::Moved(_))));
            if !is_moved || tries == TRIES {
                return Err(error.into());
            }
        }
    }

    async fn checkpoint(
        &self,
        caller: &str,
        id: &SessionId,
        ask: RenderAsk,
    ) -> Result<Prepared, Error> {
        let mut package = NewPackage { reason: REASON.to_owned(), ..NewPackage::default() };
        package.contents.checkpoint.status = CheckpointStatus::Paused;
        let session = id.clone();
        self.prepare(caller.to_owned(), PreparePackage { session, ask, package }).await
    }

    /// Lets a session go on, once the package that it was paused with is verified and has not expired. Where the session
    /// is here no more, its package becomes one.
    ///
    /// # Errors
    /// [`Refusal::Running`], and [`Error::NotResumed`] when its package cannot be used; the session stays paused.
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
            Err(source @ (Error::Refused(_) | Error::Unknown(_) | Error::Content(_))) => {
                return Err(Error::NotResumed { session: id, source: Box::new(source) });
            }
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
        session_of(self.intake.engine.command(Command::Session(Box::new(command))).await?)
    }
}

fn session_of(reply: Reply) -> Result<SessionInfo, Error> {
    match reply {
        Reply::Session(SessionReply::Session(session)) => Ok(session.info),
        _ => Err(Error::Engine(engine::Error::Unknown)),
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::Engine(engine::Error::Refused(refusal.into()))
}
