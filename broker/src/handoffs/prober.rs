//! Asks a model something small, once its limit should be over and sessions wait to go back to it.

use broker_proto::{AskOptions, InvalidName, Message, MessageId, ModelName, Part, Payload, Sender};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::intake::{self, Intake};

/// Who asks; the ledger shows it.
const SENDER: &str = "broker.probe";
const QUESTION: &str = "Answer with one word: ready";
/// Tokens of the answer at most, and how long it is waited for.
const ANSWER: u32 = 16;
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks them. What comes of it the rules learn as of any other call.
#[derive(Debug)]
pub struct Prober {
    pub intake: Intake,
    pub wanted: mpsc::Receiver<ModelName>,
}

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("no randomness for an id")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Intake(#[from] intake::Error),
}

impl Prober {
    /// Asks until `stop` fires.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(model)) = stop.run_until_cancelled(self.wanted.recv()).await {
            match self.probe(&model).await {
                Ok(()) => info!(%model, "asked whether its limit is over"),
                Err(error) => warn!(%model, %error, "cannot ask whether its limit is over"),
            }
        }
    }

    async fn probe(&self, model: &ModelName) -> Result<(), Error> {
        let mut payload =
            Payload { request: vec![Part::Text(QUESTION.to_owned())], ..Payload::default() };
        payload.generation.max_output_tokens = Some(ANSWER);
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let now = self.intake.clock.now().wall;
        let id = MessageId::from_parts(now, u128::from_le_bytes(random));
        let message = Message::consultation(id, model.clone(), payload);
        let deadline = Some(DEADLINE);
        // Another model says nothing of this one.
        let options = AskOptions { no_fallback: true, deadline, ..AskOptions::default() };
        self.intake.consult(&Sender::parse(SENDER)?, message, options).await?;
        Ok(())
    }
}
