//! When sessions move: the policy, and what is advised to whom.

use broker_proto::{HandoffCheck, HandoffPolicyChange, HandoffStatus, UsageSetting, pb};

use crate::{Client, Error};

impl Client {
    /// When sessions move, and who receives them: every setting as it counts now.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn handoff_policy(&self) -> Result<Vec<UsageSetting>, Error> {
        let request = self.unary_request(pb::GetHandoffPolicyRequest {})?;
        let reply = self.reply(self.handoffs().get_handoff_policy(request).await)?;
        Ok(reply.settings.into_iter().map(Into::into).collect())
    }

    /// Changes it; gives all of it as it counts now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVALID_POLICY` when it would contradict itself, and with `UNKNOWN_MODEL`; then nothing is
    /// changed.
    pub async fn set_handoff_policy(
        &self,
        change: HandoffPolicyChange,
    ) -> Result<Vec<UsageSetting>, Error> {
        let request = self.unary_request(pb::SetHandoffPolicyRequest::from(change))?;
        let reply = self.reply(self.handoffs().set_handoff_policy(request).await)?;
        Ok(reply.settings.into_iter().map(Into::into).collect())
    }

    /// Whether a session is to be handed off now. With `warning_only`, a warning is no reason.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNCOUNTED_SESSION` when nothing is known of it.
    pub async fn check_handoff(
        &self,
        session: &str,
        warning_only: bool,
    ) -> Result<HandoffCheck, Error> {
        let request = pb::CheckHandoffRequest { session_id: session.to_owned(), warning_only };
        let request = self.unary_request(request)?;
        Ok(self.reply(self.handoffs().check_handoff(request).await)?.try_into()?)
    }

    /// Levels and what is recommended: of every model, and of one session or those that are near a limit.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNCOUNTED_SESSION` when nothing is known of the session that is named.
    pub async fn handoff_status(&self, session: Option<&str>) -> Result<HandoffStatus, Error> {
        let session_id = session.unwrap_or_default().to_owned();
        let request = self.unary_request(pb::GetHandoffStatusRequest { session_id })?;
        Ok(self.reply(self.handoffs().get_handoff_status(request).await)?.try_into()?)
    }
}
