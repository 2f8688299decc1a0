//! Handoffs: asked for, answered by their receivers, shown.

use std::time::Duration;

use broker_proto::{
    AcceptHandoff, AskHandoff, Handoff, HandoffFilter, HandoffId, HandoffReport, PackageId,
    PackageInfo, pb,
};

use crate::{Client, Error, Page, each, required};

/// The first and the longest wait between two looks at a handoff that goes on.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

fn handoff(wire: Option<pb::Handoff>) -> Result<Handoff, Error> {
    Ok(required(wire, "handoff")?.try_into()?)
}

impl Client {
    /// Begins a handoff: the session moves once a receiver has taken it.
    ///
    /// # Errors
    /// [`Error::Refused`] says why the session stays where it is.
    pub async fn begin_handoff(&self, ask: AskHandoff) -> Result<Handoff, Error> {
        let request = self.unary_request(pb::BeginHandoffRequest::from(ask))?;
        handoff(self.reply(self.handoffs().begin_handoff(request).await)?.handoff)
    }

    /// Begins a handoff and waits until it is active or over, as [`Client::settled_handoff`] does. Where the session is on
    /// its way already, that handoff is waited for.
    ///
    /// # Errors
    /// As [`Client::begin_handoff`]. What was begun goes on without the caller.
    pub async fn hand_over(
        &self,
        ask: AskHandoff,
        changed: impl FnMut(&Handoff),
    ) -> Result<Handoff, Error> {
        let session = ask.session.clone();
        let id = match self.begin_handoff(ask).await {
            Ok(begun) => begun.id,
            Err(error) if error.reason() == Some("HANDOFF_UNDER_WAY") => {
                let filter = HandoffFilter { session: Some(session), ..HandoffFilter::default() };
                let newest = self.list_handoffs(filter, 1, None).await?.items.pop();
                newest.ok_or(error)?.id
            }
            Err(error) => return Err(error),
        };
        self.settled_handoff(id, changed).await
    }

    /// Takes a session over that is offered. The same word again is answered the same.
    ///
    /// # Errors
    /// [`Error::Refused`] to whoever was not asked, comes late, or computed another hash.
    pub async fn accept_handoff(&self, accept: AcceptHandoff) -> Result<Handoff, Error> {
        let request = self.unary_request(pb::AcceptHandoffRequest::from(accept))?;
        handoff(self.reply(self.handoffs().accept_handoff(request).await)?.handoff)
    }

    /// Does not take a session over, with the reason in one line. An agent says so for itself: other processes of its model
    /// are still asked.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not offered (any more).
    pub async fn decline_handoff(&self, id: HandoffId, reason: String) -> Result<Handoff, Error> {
        self.decline(id, reason, false).await
    }

    /// The same for every process of its model, as nobody can take what cannot be verified.
    ///
    /// # Errors
    /// As [`Client::decline_handoff`].
    pub async fn decline_for_model(&self, id: HandoffId, reason: String) -> Result<Handoff, Error> {
        self.decline(id, reason, true).await
    }

    async fn decline(
        &self,
        id: HandoffId,
        reason: String,
        for_model: bool,
    ) -> Result<Handoff, Error> {
        let request = pb::DeclineHandoffRequest { handoff_id: id.to_string(), reason, for_model };
        let request = self.unary_request(request)?;
        handoff(self.reply(self.handoffs().decline_handoff(request).await)?.handoff)
    }

    /// Says that the new owner works on, before its first answer does.
    ///
    /// # Errors
    /// [`Error::Refused`] when the session has not changed its owner.
    pub async fn complete_handoff(&self, id: HandoffId, outcome: String) -> Result<Handoff, Error> {
        let request = pb::CompleteHandoffRequest { handoff_id: id.to_string(), outcome };
        let request = self.unary_request(request)?;
        handoff(self.reply(self.handoffs().complete_handoff(request).await)?.handoff)
    }

    /// Begins the handoff that gives a session back to where it came from.
    ///
    /// # Errors
    /// [`Error::Refused`] when the session has no other origin, or has moved on.
    pub async fn give_back_handoff(&self, id: HandoffId, reason: String) -> Result<Handoff, Error> {
        let request = pb::GiveBackHandoffRequest { handoff_id: id.to_string(), reason };
        let request = self.unary_request(request)?;
        handoff(self.reply(self.handoffs().give_back_handoff(request).await)?.handoff)
    }

    /// # Errors
    /// [`Error::Refused`] when there is none of this id.
    pub async fn handoff(&self, id: HandoffId) -> Result<Handoff, Error> {
        let request = self.unary_request(pb::GetHandoffRequest { handoff_id: id.to_string() })?;
        handoff(self.reply(self.handoffs().get_handoff(request).await)?.handoff)
    }

    /// How a handoff went: what the receiver confirmed, and what its first reply shows of what must be kept.
    ///
    /// # Errors
    /// As [`Client::handoff`].
    pub async fn report_handoff(&self, id: HandoffId) -> Result<HandoffReport, Error> {
        let request =
            self.unary_request(pb::ReportHandoffRequest { handoff_id: id.to_string() })?;
        Ok(self.reply(self.handoffs().report_handoff(request).await)?.try_into()?)
    }

    /// One page of handoffs, newest first. A page has at most 1,000; 0 means 100.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn list_handoffs(
        &self,
        filter: HandoffFilter,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<Handoff>, Error> {
        let text = |word: Option<String>| word.unwrap_or_default();
        let request = self.unary_request(pb::ListHandoffsRequest {
            session_id: text(filter.session.map(|session| session.to_string())),
            model: text(filter.model.map(|model| model.to_string())),
            state: text(filter.state.map(|state| state.as_str().to_owned())),
            page_size,
            page_token: text(page_token),
        })?;
        let reply = self.reply(self.handoffs().list_handoffs(request).await)?;
        let next_page_token = Some(reply.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: each(reply.handoffs)?, next_page_token })
    }

    /// Waits until a handoff is active or over; `changed` is told of each state it is seen in, the first one too. A
    /// handoff that goes through states faster than it is looked at is told of in its later ones only.
    ///
    /// # Errors
    /// As [`Client::handoff`]. The handoff goes on without the caller.
    pub async fn settled_handoff(
        &self,
        id: HandoffId,
        mut changed: impl FnMut(&Handoff),
    ) -> Result<Handoff, Error> {
        let (mut wait, longest) = LOOK;
        let mut told = None;
        loop {
            let handoff = self.handoff(id).await?;
            let now = (handoff.state, handoff.to.clone());
            if told.as_ref() != Some(&now) {
                changed(&handoff);
                told = Some(now);
            }
            if !handoff.state.is_pending() {
                return Ok(handoff);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// Fetches a package's file and has the bytes that arrived verified: signature, expiry, recipient, every part. The
    /// checksum of what comes back is what an acceptance repeats.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason why it is not what was signed.
    pub async fn received_package(&self, id: PackageId) -> Result<PackageInfo, Error> {
        let file = self.export_package(id).await?;
        self.verify_package(file.into()).await
    }
}
