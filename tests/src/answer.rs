//! Reads an answer as an asker does, and keeps what came.

use broker_client::{Answer, AnswerStream, Assembly, Client, Error, Seen};
use broker_proto::{AnswerFrame, AskOptions, Message, MessageId, Terminal};
use tokio_stream::StreamExt as _;

use crate::within;

/// One asker at its stream.
#[derive(Debug)]
pub struct Reader {
    stream: AnswerStream,
    assembly: Assembly,
    /// Every frame so far.
    pub frames: Vec<AnswerFrame>,
}

impl Reader {
    /// Asks, and is at the beginning of the answer.
    pub async fn ask(client: &Client, message: Message, options: AskOptions) -> Self {
        let asked = within("the answer's stream", client.ask(message, options)).await;
        Self::new(asked.expect("the broker takes the question"))
    }

    /// Comes back to this answer, behind what this reader has.
    pub async fn back(self, client: &Client, id: MessageId, allow_restart: bool) -> Self {
        let seen = self.seen();
        let Self { stream, assembly, frames } = self;
        drop(stream);
        let attached = within("the answer's stream", client.attach(id, seen, allow_restart)).await;
        Self { stream: attached.expect("the broker knows the answer"), assembly, frames }
    }

    /// Reads an answer from its beginning, whoever asked.
    pub async fn attach(client: &Client, id: MessageId) -> Self {
        let attached = client.attach(id, Seen::default(), true);
        let attached = within("the answer's stream", attached).await;
        Self::new(attached.expect("the broker knows the answer"))
    }

    fn new(stream: AnswerStream) -> Self {
        Self { stream, assembly: Assembly::default(), frames: Vec::new() }
    }

    /// The next frame; `None` behind the terminal one.
    pub async fn next(&mut self) -> Option<Result<AnswerFrame, Error>> {
        let frame = within("a frame of the answer", self.stream.next()).await?;
        if let Ok(frame) = &frame {
            self.frames.push(frame.clone());
            self.assembly.push(frame.clone()).expect("the frames of an answer fit together");
        }
        Some(frame)
    }

    /// Reads on until a frame is as wanted.
    pub async fn until(&mut self, wanted: impl Fn(&AnswerFrame) -> bool) -> AnswerFrame {
        loop {
            let frame = self.next().await.expect("the answer goes on").expect("the stream holds");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads on until the current attempt has said `text`.
    pub async fn until_text(&mut self, text: &str) {
        while self.assembly.text() != text {
            let frame = self.next().await.expect("the answer goes on").expect("the stream holds");
            assert!(!matches!(frame, AnswerFrame::Terminal(_)), "ended as {frame:?}");
        }
    }

    /// Reads to the end, which must be one terminal frame.
    pub async fn end(&mut self) -> Terminal {
        while let Some(frame) = self.next().await {
            frame.expect("the stream holds until its terminal frame");
        }
        let terminals = self.frames.iter().filter(|f| matches!(f, AnswerFrame::Terminal(_)));
        assert_eq!(terminals.count(), 1, "exactly one terminal frame: {:?}", self.frames);
        self.assembly.terminal().expect("one was read").clone()
    }

    /// The text of the current attempt so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.assembly.text()
    }

    /// How far it has come, to come back.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.assembly.seen()
    }

    /// Reads to the end and puts the answer together, parts apart included.
    pub async fn whole(self) -> Answer {
        assert!(self.frames.is_empty(), "nothing was read yet");
        within("the whole answer", self.stream.collect()).await.expect("the answer is whole")
    }
}
