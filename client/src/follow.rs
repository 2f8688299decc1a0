//! An answer read to its end, over breaks of the connection and restarts of the broker.

use std::time::Duration;

use broker_proto::{AnswerFrame, AskOptions, Message, MessageId, MessageName};
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Code;

use crate::{Answer, AnswerStream, Assembly, Client, Error};

/// How long a broker that went away is waited for: `streams.return_window` as shipped. Later it has cancelled the work.
pub const RETURN_WINDOW: Duration = Duration::from_secs(30);
/// The first and the longest wait between two attempts to come back; each is spread over its second half.
pub(crate) const BACK_OFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));

/// Which answer is read, and how one gets to it.
#[derive(Debug)]
pub enum Source {
    /// Asked here. Until it was accepted, asking again with the same id is the way back.
    Ask(Box<Message>, AskOptions),
    /// Asked earlier.
    Attach { name: MessageName, allow_restart: bool },
}

/// What an asker hears of its answer, and of the way to it.
#[derive(Debug)]
pub enum Step {
    Frame(AnswerFrame),
    /// The stream is lost; it is being come back to.
    Broken(Error),
    /// It goes on where it ended.
    Back,
}

/// Reads one answer, coming back to it when its stream breaks: nothing of it is missed, and nothing is asked twice.
/// After a break the broker may repeat the frames around it; [`Assembly`] takes nothing twice.
#[derive(Debug)]
pub struct Follow {
    client: Client,
    source: Source,
    assembly: Assembly,
    stream: Option<AnswerStream>,
    /// Since when there is no stream, and the next wait.
    broken: Option<(Instant, Duration)>,
}

impl Follow {
    #[must_use]
    pub fn new(client: Client, source: Source) -> Self {
        Self { client, source, assembly: Assembly::default(), stream: None, broken: None }
    }

    /// The message whose answer this is.
    #[must_use]
    pub fn id(&self) -> MessageId {
        match &self.source {
            Source::Ask(message, _) => message.id,
            Source::Attach { name, .. } => name.id,
        }
    }

    /// The next step; `None` behind the terminal frame. Dropping it in the middle loses nothing.
    ///
    /// # Errors
    /// The broker's refusal, or [`Error::Unreachable`] when it did not come back within [`RETURN_WINDOW`].
    pub async fn next(&mut self) -> Result<Option<Step>, Error> {
        loop {
            if self.assembly.terminal().is_some() {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                if self.open().await? {
                    return Ok(Some(Step::Back));
                }
                continue;
            };
            match stream.next().await {
                Some(Ok(frame)) => {
                    self.assembly.push(frame.clone())?;
                    return Ok(Some(Step::Frame(frame)));
                }
                Some(Err(error)) if !is_passing(&error) => return Err(error),
                Some(Err(error)) => return Ok(Some(self.break_off(error))),
                None => return Ok(Some(self.break_off(Error::EndedEarly))),
            }
        }
    }

    /// Reads to the end and puts the answer together; parts named by hash are fetched.
    ///
    /// # Errors
    /// As [`Follow::next`].
    pub async fn collect(mut self) -> Result<Answer, Error> {
        while self.next().await?.is_some() {}
        let mut answer = self.assembly.finish().ok_or(Error::EndedEarly)?;
        answer.parts = self.client.inline(answer.parts).await?;
        Ok(answer)
    }

    fn break_off(&mut self, error: Error) -> Step {
        self.stream = None;
        self.broken = Some((Instant::now(), BACK_OFF.0));
        Step::Broken(error)
    }

    /// Opens the stream; true when it was open before.
    async fn open(&mut self) -> Result<bool, Error> {
        if let Some((_, wait)) = &mut self.broken {
            let now = *wait;
            tokio::time::sleep(spread(now)).await;
            *wait = (now * 2).min(BACK_OFF.1);
        }
        let seen = self.assembly.seen();
        let opened = match &self.source {
            Source::Ask(message, options) if self.assembly.receipt().is_none() => {
                self.client.ask((**message).clone(), options.clone()).await
            }
            Source::Ask(message, options) => {
                self.client.attach(message.id, seen, options.allow_restart).await
            }
            Source::Attach { name, allow_restart } => {
                self.client.attach(name.clone(), seen, *allow_restart).await
            }
        };
        match (opened, self.broken) {
            (Ok(stream), broken) => {
                self.stream = Some(stream);
                self.broken = None;
                Ok(broken.is_some())
            }
            (Err(err), Some((since, _))) if is_passing(&err) && since.elapsed() < RETURN_WINDOW => {
                Ok(false)
            }
            (Err(err), _) => Err(err),
        }
    }
}

/// Whether the broker may be back in a moment.
pub(crate) fn is_passing(error: &Error) -> bool {
    let is_gone = |code: &Code| *code == Code::Unavailable;
    error.is_connection() || matches!(error, Error::Refused { code, .. } if is_gone(code))
}

/// Askers whose streams broke together do not all come back at once.
pub(crate) fn spread(wait: Duration) -> Duration {
    // Without a source of randomness only the spread is missing.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    wait / 2 + (wait / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}
