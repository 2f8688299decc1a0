//! Follows an answer's stream to its end, over breaks of the connection and restarts of the broker.

use std::time::Duration;

use broker_client::{AnswerStream, Client, Code, Error};
use broker_proto::types::{AskOptions, Message, MessageId, MessageName};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::reading::{Event, Reading};

/// How long a broker that went away is waited for: `streams.return_window` as shipped. Later it has cancelled the work.
pub(crate) const RETURN_WINDOW: Duration = Duration::from_secs(30);
/// The first and the longest wait between two attempts to come back.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Which answer is read, and how one gets to it.
#[derive(Debug)]
pub(crate) enum Source {
    /// Asked here. Until it was accepted, asking again with the same id is the way back.
    Ask(Box<Message>, AskOptions),
    /// Asked earlier.
    Attach { name: MessageName, allow_restart: bool },
}

/// What is said of a connection, for those who watch it.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Event),
    Broken(Error),
    Back,
}

/// Reads one answer, coming back to it when its stream breaks.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    source: Source,
    pub(crate) reading: Reading,
    stream: Option<AnswerStream>,
    /// Since when there is no stream, and the next wait.
    broken: Option<(Instant, Duration)>,
}

impl Follow {
    pub(crate) fn new(client: Client, source: Source) -> Self {
        Self { client, source, reading: Reading::default(), stream: None, broken: None }
    }

    /// The message whose answer this is.
    pub(crate) fn id(&self) -> MessageId {
        match &self.source {
            Source::Ask(message, _) => message.id,
            Source::Attach { name, .. } => name.id,
        }
    }

    /// The next step; `None` behind the terminal frame. Dropping it in the middle loses nothing.
    ///
    /// # Errors
    /// The broker's refusal, or [`Error::Unreachable`] when it did not come back within [`RETURN_WINDOW`].
    pub(crate) async fn next(&mut self) -> Result<Option<Step>, Error> {
        loop {
            if self.reading.terminal().is_some() {
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
                    if let Some(event) = self.reading.take(frame)? {
                        return Ok(Some(Step::Frame(event)));
                    }
                }
                Some(Err(err)) if !is_passing(&err) => return Err(err),
                Some(Err(err)) => return Ok(Some(self.break_off(err))),
                None => return Ok(Some(self.break_off(Error::EndedEarly))),
            }
        }
    }

    fn break_off(&mut self, err: Error) -> Step {
        self.stream = None;
        self.broken = Some((Instant::now(), BACK_OFF.0));
        Step::Broken(err)
    }

    /// Opens the stream; true when it was open before.
    async fn open(&mut self) -> Result<bool, Error> {
        if let Some((_, wait)) = &mut self.broken {
            let now = *wait;
            tokio::time::sleep(now).await;
            *wait = (now * 2).min(BACK_OFF.1);
        }
        let opened = match &self.source {
            Source::Ask(message, options) if !self.reading.is_accepted() => {
                self.client.ask((**message).clone(), options.clone()).await
            }
            Source::Ask(message, options) => {
                self.client.attach(message.id, self.reading.seen(), options.allow_restart).await
            }
            Source::Attach { name, allow_restart } => {
                self.client.attach(name.clone(), self.reading.seen(), *allow_restart).await
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
fn is_passing(err: &Error) -> bool {
    err.is_connection() || matches!(err, Error::Refused { code, .. } if *code == Code::Unavailable)
}
