//! The two ways to ask: straight through an adapter, and through the broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, anyhow, bail, ensure};
use broker_agents::provider::{Chunk, Clock, Prompt, Provider, adapter};
use broker_client::Client;
use broker_config::Model;
use broker_proto::{
    AnswerFrame, AskOptions, Delivery, Message, MessageId, ModelName, Part, Payload, Terminal,
    WallTime,
};
use tokio_stream::StreamExt;

/// Nothing here takes as long.
const WITHIN: Duration = Duration::from_secs(20);

/// Numbers the questions of this run.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// When the pieces of one answer came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Heard {
    /// From the question to the end of the answer.
    pub(crate) whole: Duration,
    /// From the question to its first text.
    pub(crate) first: Duration,
    /// The longest time between two texts.
    pub(crate) largest_gap: Duration,
    pub(crate) bytes: usize,
}

/// Times an answer.
struct Watch {
    began: Instant,
    last: Option<Instant>,
    heard: Heard,
}

impl Watch {
    fn start() -> Self {
        Self { began: Instant::now(), last: None, heard: Heard::default() }
    }

    fn text(&mut self, bytes: usize) {
        let now = Instant::now();
        match self.last.replace(now) {
            Some(last) => self.heard.largest_gap = self.heard.largest_gap.max(now - last),
            None => self.heard.first = now - self.began,
        }
        self.heard.bytes += bytes;
    }

    fn end(mut self) -> anyhow::Result<Heard> {
        self.heard.whole = self.began.elapsed();
        ensure!(self.heard.bytes > 0, "an answer without text");
        Ok(self.heard)
    }
}

/// Who can be asked. Askers that ask at once have numbers of their own.
pub(crate) trait Ask: Send + Sync + 'static {
    fn ask(&self, asker: usize) -> impl Future<Output = anyhow::Result<Heard>> + Send;
}

/// A question of 1 KiB, as the echo says and the disk keeps.
fn question() -> Payload {
    let text = "What is a lease, who holds it, and when does it end? Say it again. ".repeat(16);
    Payload {
        request: vec![Part::text(text.chars().take(1024).collect::<String>())],
        ..Payload::default()
    }
}

fn message(model: &ModelName) -> Message {
    let now = WallTime::from_system(SystemTime::now());
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let id = MessageId::from_parts(now, u128::from(number));
    Message::consultation(id, model.clone(), question())
}

/// The adapter of a model, called as an agent calls it, without one.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    model: Model,
    name: ModelName,
    adapter: Arc<dyn Provider>,
}

impl Direct {
    pub(crate) fn new(model: &Model) -> anyhow::Result<Self> {
        let adapter = adapter(model, Some("simulated".into()), Clock::system())?;
        Ok(Self { model: model.clone(), name: ModelName::parse(&model.name)?, adapter })
    }
}

impl Ask for Direct {
    async fn ask(&self, _: usize) -> anyhow::Result<Heard> {
        let mut watch = Watch::start();
        let delivery = Delivery {
            lease: String::new(),
            size_bytes: 0,
            number: 1,
            message: message(&self.name),
            attempt: 1,
            model: Some(self.name.clone()),
            time_left: WITHIN,
            max_output_tokens: None,
            exchanges: Vec::new(),
            lease_left: Duration::from_secs(60),
            generation: 1,
        };
        let failed = |what: &broker_proto::Failure| anyhow!("the direct call: {}", what.detail);
        let prompt = Prompt::of(&delivery, &self.model).map_err(|failure| failed(&failure))?;
        let call = async {
            let opened = self.adapter.complete(prompt).await;
            let mut chunks = opened.map_err(|error| failed(&error.failure))?;
            while let Some(chunk) = chunks.next().await {
                match chunk.map_err(|error| failed(&error.failure))? {
                    Chunk::Delta { text, .. } => watch.text(text.len()),
                    Chunk::Done { .. } => return watch.end(),
                    _ => {}
                }
            }
            bail!("the direct call ended without its end")
        };
        tokio::time::timeout(WITHIN, call).await.context("the direct call hangs")?
    }
}

/// A consultation, over a few connections.
#[derive(Debug, Clone)]
pub(crate) struct Brokered {
    clients: Vec<Client>,
    model: ModelName,
}

impl Brokered {
    pub(crate) fn new(clients: Vec<Client>, model: &str) -> anyhow::Result<Self> {
        ensure!(!clients.is_empty(), "nobody asks");
        Ok(Self { clients, model: ModelName::parse(model)? })
    }
}

impl Ask for Brokered {
    async fn ask(&self, asker: usize) -> anyhow::Result<Heard> {
        let mut watch = Watch::start();
        let client = &self.clients[asker % self.clients.len()];
        let call = async {
            let mut answer = client.ask(message(&self.model), AskOptions::default()).await?;
            while let Some(frame) = answer.next().await {
                match frame? {
                    AnswerFrame::PartDelta { data, .. } => watch.text(data.len()),
                    AnswerFrame::Terminal(terminal) => {
                        let Terminal::Done(summary) = *terminal else {
                            bail!("a consultation failed")
                        };
                        ensure!(summary.attempts.len() == 1, "a consultation took two attempts");
                        return watch.end();
                    }
                    _ => {}
                }
            }
            bail!("a consultation ended without its end")
        };
        tokio::time::timeout(WITHIN, call).await.context("a consultation hangs")?
    }
}
