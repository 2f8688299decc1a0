//! An answer read to its end, over breaks of the connection and restarts of the broker.

use broker_proto::{AnswerFrame, AskOptions, Message, MessageId, MessageName};
use futures::StreamExt;

use crate::{
    Answer, AnswerStream, Assembly, Client, Error,
    way::{Way, is_passing},
};

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
    way: Way,
}

impl Follow {
    #[must_use]
    pub fn new(client: Client, source: Source) -> Self {
        Self { client, source, assembly: Assembly::default(), stream: None, way: Way::default() }
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
    /// The broker's refusal, or [`Error::Unreachable`] when it did not come back within [`crate::RETURN_WINDOW`].
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
        self.way.broke();
        Step::Broken(error)
    }

    /// Opens the stream; true when it was open before.
    async fn open(&mut self) -> Result<bool, Error> {
        self.way.rest().await;
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
        let Some((stream, is_back)) = self.way.tried(opened)? else { return Ok(false) };
        self.stream = Some(stream);
        Ok(is_back)
    }
}
