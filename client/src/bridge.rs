//! Bridges: receivers whose package of a session is kept current.

use broker_proto::{BridgeStatus, ModelName, SessionId, pb};

use crate::{Client, Error, each, required};

impl Client {
    /// Keeps the package of a session for `to` current, turn by turn. `from` must own the session.
    ///
    /// # Errors
    /// [`Error::Refused`] when it does not, or `to` may not receive sessions.
    pub async fn open_bridge(
        &self,
        session: &SessionId,
        from: &ModelName,
        to: &ModelName,
    ) -> Result<BridgeStatus, Error> {
        let request = pb::OpenBridgeRequest {
            session_id: session.to_string(),
            from: from.to_string(),
            to: to.to_string(),
        };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.handoffs().open_bridge(request).await)?;
        Ok(required(reply.bridge, "bridge")?.try_into()?)
    }

    /// Makes the package of this bridge, or of all of a session's, now; returns when it is there.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such bridge, or no package can be made.
    pub async fn sync_bridge(
        &self,
        session: &SessionId,
        to: Option<&ModelName>,
    ) -> Result<Vec<BridgeStatus>, Error> {
        let (session_id, to) = (session.to_string(), text(to));
        let request = self.unary_request(pb::SyncBridgeRequest { session_id, to })?;
        let reply = self.reply(self.handoffs().sync_bridge(request).await)?;
        each(reply.bridges)
    }

    /// The bridges of a session, or of all.
    ///
    /// # Errors
    /// [`Error`] when the broker cannot be reached, or does not know the session.
    pub async fn bridges(&self, session: Option<&SessionId>) -> Result<Vec<BridgeStatus>, Error> {
        let session_id = session.map(ToString::to_string).unwrap_or_default();
        let request = self.unary_request(pb::ListBridgesRequest { session_id })?;
        let reply = self.reply(self.handoffs().list_bridges(request).await)?;
        each(reply.bridges)
    }

    /// Closes this bridge, or all of a session's; gives them as they were.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn close_bridge(
        &self,
        session: &SessionId,
        to: Option<&ModelName>,
    ) -> Result<Vec<BridgeStatus>, Error> {
        let (session_id, to) = (session.to_string(), text(to));
        let request = self.unary_request(pb::CloseBridgeRequest { session_id, to })?;
        let reply = self.reply(self.handoffs().close_bridge(request).await)?;
        each(reply.bridges)
    }
}

fn text(model: Option<&ModelName>) -> String {
    model.map(ToString::to_string).unwrap_or_default()
}
