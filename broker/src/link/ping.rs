//! A ping from model to model, through the agents themselves and not only their streams.
//!
//! The broker asks an agent of one model to ping the other; what that agent then says is passed on to an agent of the
//! other model, whose answer goes the same way back. No provider is called, and the text is never logged.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use broker_proto::{AgentName, Down, ModelName, PeerPing, PingHop, PingText, PingTrip, Up};

use super::{Links, table::Answering};

/// Which of the two did not do its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    From,
    To,
}

impl Side {
    /// The side's word in errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }
}

/// Why a ping did not come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    #[error("no agent serves {model}, the `{}` side of the ping: start one", side.as_str())]
    Nobody { side: Side, model: ModelName },
    #[error("agent {agent} of {model}, the `{}` side of the ping, {}", side.as_str(), if *.has_left { "left before it answered" } else { "does not answer" })]
    Silent { side: Side, model: ModelName, agent: AgentName, has_left: bool },
}

/// One end of a ping.
struct End<'a> {
    side: Side,
    model: &'a ModelName,
    agent: AgentName,
    answering: Answering,
}

impl End<'_> {
    /// Says `down` to this end's agent, and waits for the frame that answers it.
    async fn asked(&self, nonce: u64, down: Down, until: Instant) -> Result<Up, PingError> {
        let (side, model, agent) = (self.side, self.model.clone(), self.agent.clone());
        let answer = self.answering.ask(nonce, down);
        match timeout_at(until, answer).await {
            Ok(Ok(up)) => Ok(up),
            Ok(Err(_)) => Err(PingError::Silent { side, model, agent, has_left: true }),
            Err(_) => Err(PingError::Silent { side, model, agent, has_left: false }),
        }
    }
}

impl Links {
    /// Sends a ping from an agent of one model to an agent of another and back, within `patience` in all.
    ///
    /// # Errors
    /// [`PingError`] names the side that is missing or silent.
    pub async fn ping_between(
        &self,
        ping: PeerPing,
        nonces: &AtomicU64,
        patience: Duration,
    ) -> Result<PingTrip, PingError> {
        let began = Instant::now();
        let until = began + patience;
        let from = self.end(Side::From, &ping.from)?;
        let to = self.end(Side::To, &ping.to)?;
        let nonce = nonces.fetch_add(1, Ordering::Relaxed);

        let ask = Down::AskPing { nonce, to: ping.to.clone(), text: ping.text };
        let text = match from.asked(nonce, ask, until).await? {
            Up::SendPing { text, .. } => text,
            _ => PingText(String::new()),
        };
        let sent = Instant::now();
        let passed = Down::PeerPing { nonce, from: ping.from.clone(), text };
        to.asked(nonce, passed, until).await?;
        let answered = Instant::now();
        let told = from.asked(nonce, Down::PeerPong { nonce }, until).await?;
        let over = Instant::now();

        let hop = |end: &End<'_>, took| PingHop { agent: end.agent.clone(), took };
        Ok(PingTrip {
            hops: vec![
                hop(&from, sent - began),
                hop(&to, answered - sent),
                hop(&from, over - answered),
            ],
            round_trip: match told {
                Up::PingDone { round_trip, .. } => round_trip,
                _ => Duration::ZERO,
            },
            total: over - began,
        })
    }

    fn end<'a>(&self, side: Side, model: &'a ModelName) -> Result<End<'a>, PingError> {
        match self.answering(model) {
            Some((agent, answering)) => Ok(End { side, model, agent, answering }),
            None => Err(PingError::Nobody { side, model: model.clone() }),
        }
    }
}
