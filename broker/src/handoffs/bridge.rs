//! Bridges between the wire and the rules, and their packages on demand.

use broker_proto::{BridgeStatus, ModelName, SessionId};

use crate::{
    core::{
        Command, Query, Reply,
        handoff::{
            Settings,
            bridge::{Command as BridgeCommand, Query as BridgeQuery, Refusal},
        },
        package::Owed,
    },
    engine,
    packages::{Error, ForReceiver, Packages},
};

/// What is asked of bridges.
#[derive(Debug, Clone)]
pub struct Bridges {
    pub packages: Packages,
    pub settings: Settings,
}

impl Bridges {
    /// Keeps the package for `to` current from now on.
    ///
    /// # Errors
    /// The core's refusal: `from` is not the owner, `to` may not receive it or is too small, or the bridge is open already.
    pub async fn open(
        &self,
        session: SessionId,
        from: ModelName,
        to: ModelName,
    ) -> Result<BridgeStatus, Error> {
        let (from, to) = (self.known(&from)?, self.known(&to)?);
        let opened = self.command(BridgeCommand::Open { session, from, to }).await?;
        opened.into_iter().next().ok_or(Error::Engine(engine::Error::Unknown))
    }

    /// Makes what is missing now.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], and why a package cannot be made.
    pub async fn sync(
        &self,
        session: SessionId,
        to: Option<ModelName>,
    ) -> Result<Vec<BridgeStatus>, Error> {
        let to = to.map(|to| self.known(&to)).transpose()?;
        let is_meant = |it: &BridgeStatus| to.as_ref().is_none_or(|to| it.bridge.to == *to);
        let meant = async || -> Result<Vec<BridgeStatus>, Error> {
            let all = self.list(Some(session.clone())).await?;
            Ok(all.into_iter().filter(is_meant).collect())
        };
        let open = meant().await?;
        if open.is_empty() {
            return Err(unknown(session, to));
        }
        let owed = match self.packages.owed(vec![session.clone()]).await? {
            owed if to.is_none() => owed,
            owed => owed.into_iter().filter(|it| it.to == to).collect(),
        };
        let is_open = |it: &Owed| open.iter().any(|open| Some(&open.bridge.to) == it.to.as_ref());
        for owed in owed.into_iter().filter(is_open) {
            self.make(owed).await?;
        }
        meant().await
    }

    async fn make(&self, owed: Owed) -> Result<(), Error> {
        let Owed { session, to: Some(to), level, reason } = owed else { return Ok(()) };
        let (room, is_ahead) = (self.settings.room, true);
        let (of, receiver) = (session.clone(), to.clone());
        let wanted = ForReceiver {
            session: of,
            to: receiver,
            level,
            room,
            reason,
            is_ahead,
            unverified: None,
        };
        if let Err(error) = self.packages.for_receiver(wanted).await {
            let problem = error.to_string();
            self.command(BridgeCommand::NotSynced { session, to, problem }).await?;
            return Err(error);
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Engine`].
    pub async fn list(&self, session: Option<SessionId>) -> Result<Vec<BridgeStatus>, Error> {
        let query = Query::Bridges(BridgeQuery { session });
        match self.packages.intake.engine.query(query).await? {
            Reply::Bridges(bridges) => Ok(bridges),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// # Errors
    /// [`Refusal::Unknown`].
    pub async fn close(
        &self,
        session: SessionId,
        to: Option<ModelName>,
    ) -> Result<Vec<BridgeStatus>, Error> {
        let to = to.map(|to| self.known(&to)).transpose()?;
        self.command(BridgeCommand::Close { session, to }).await
    }

    /// A model as the configuration calls it.
    fn known(&self, model: &ModelName) -> Result<ModelName, Error> {
        Ok(self.packages.intake.model(model)?)
    }

    async fn command(&self, command: BridgeCommand) -> Result<Vec<BridgeStatus>, Error> {
        let command = Command::Bridge(Box::new(command));
        match self.packages.intake.engine.command(command).await? {
            Reply::Bridges(bridges) => Ok(bridges),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }
}

fn unknown(session: SessionId, to: Option<ModelName>) -> Error {
    Error::Engine(engine::Error::Refused(Refusal::Unknown { session, to }.into()))
}
