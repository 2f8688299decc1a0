//! An answer as it is shown: what its stream says, and what becomes of the stream.

use broker_client::{Client, Error, Follow as Frames};
use broker_proto::types::MessageId;

pub(crate) use broker_client::Source;

use super::reading::{Event, Reading};

/// What is said of a connection, for those who watch it.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Event),
    Broken(Error),
    Back,
}

/// Reads one answer for people, coming back to it when its stream breaks.
#[derive(Debug)]
pub(crate) struct Follow {
    frames: Frames,
    pub(crate) reading: Reading,
}

impl Follow {
    pub(crate) fn new(client: Client, source: Source) -> Self {
        Self { frames: Frames::new(client, source), reading: Reading::default() }
    }

    /// The message whose answer this is.
    pub(crate) fn id(&self) -> MessageId {
        self.frames.id()
    }

    /// The next step; `None` behind the terminal frame. Dropping it in the middle loses nothing.
    ///
    /// # Errors
    /// The broker's refusal, or that it did not come back within the return window.
    pub(crate) async fn next(&mut self) -> Result<Option<Step>, Error> {
        while let Some(step) = self.frames.next().await? {
            return Ok(Some(match step {
                broker_client::Step::Broken(err) => Step::Broken(err),
                broker_client::Step::Back => Step::Back,
                broker_client::Step::Frame(frame) => match self.reading.take(frame)? {
                    Some(event) => Step::Frame(event),
                    None => continue,
                },
            }));
        }
        Ok(None)
    }
}
