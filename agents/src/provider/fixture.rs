//! What the adapters' tests share: recorded replies, a server that plays them byte by byte, and what was heard.
//!
//! A recorded reply is a file in `fixtures/<provider>/`: status line, headers, an empty line, the body.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_config::{Model, Provider as Name};
use broker_proto::{
    Delivery, Entry, Message, MessageId, ModelName, Part, Payload, RateLimit, Role, StopReason,
    Usage, WallTime,
};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use super::{Chunk, ChunkStream, Clock, Failed, Prompt, Provider, adapter};

/// 2026-11-20T09:00:00Z, when every recorded reply was given.
pub(crate) const NOW: WallTime = WallTime(1_795_165_200_000);
/// What no output may hold.
pub(crate) const CANARY: &str = "sk-canary-0123456789";

pub(crate) fn model(provider: Name) -> Model {
    let id = match provider {
        Name::Anthropic => "claude-sonnet-5-5",
        Name::OpenAi => "gpt-4o",
        Name::Ollama => "llama3.2",
    };
    Model::new("m", provider, id)
}

pub(crate) fn entry<const N: usize>(role: Role, parts: [Part; N]) -> Entry {
    Entry { role, name: String::new(), parts: parts.into() }
}

pub(crate) fn delivery() -> Delivery {
    let name = ModelName::parse("m").unwrap();
    let payload = Payload { request: vec![Part::text("hi")], ..Payload::default() };
    Delivery {
        size_bytes: 0,
        lease: "l".into(),
        number: 1,
        message: Message::consultation(MessageId::from_parts(NOW, 1), name.clone(), payload),
        attempt: 1,
        model: Some(name),
        time_left: Duration::from_secs(600),
        max_output_tokens: None,
        exchanges: Vec::new(),
        lease_left: Duration::from_secs(60),
        generation: 1,
    }
}

pub(crate) fn prompt_of(provider: Name, change: impl FnOnce(&mut Payload)) -> Prompt {
    let mut delivery = delivery();
    change(&mut delivery.message.payload);
    Prompt::of(&delivery, &model(provider)).unwrap()
}

/// A conversation with everything that a wire must carry.
pub(crate) fn conversation(payload: &mut Payload) {
    let call = Part::ToolCall {
        id: "call_1".into(),
        name: "read_file".into(),
        arguments: Bytes::from_static(br#"{"path":"a.txt"}"#),
    };
    let result = Part::ToolResult {
        call_id: "call_1".into(),
        parts: vec![Part::text("contents")],
        is_error: false,
    };
    payload.context = vec![
        entry(Role::System, [Part::text("Be brief.")]),
        entry(Role::User, [Part::text("What is in a.txt?")]),
        entry(Role::Assistant, [Part::text("Let me look."), call]),
        entry(Role::Tool, [result]),
        entry(Role::Assistant, [Part::text("It says: contents.")]),
    ];
    payload.request = vec![Part::text("And now?")];
    payload.generation.max_output_tokens = Some(256);
    payload.generation.temperature = Some(0.2);
    payload.generation.stop_sequences = vec!["END".into()];
    payload.generation.tool_choice = Some(broker_proto::ToolChoice::Auto);
    payload.generation.tools = vec![broker_proto::Tool {
        name: "read_file".into(),
        description: "Reads a file".into(),
        input_schema: Bytes::from_static(
            br#"{"type":"object","properties":{"path":{"type":"string"}}}"#,
        ),
    }];
}

pub(crate) fn image() -> Part {
    Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"\x89PNG") }
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name].iter().collect()
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// A reply as it was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    head: String,
    pub(crate) body: Bytes,
}

pub(crate) fn load(name: &str) -> Recorded {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap();
    let head = head.lines().map(|line| format!("{line}\r\n")).collect();
    Recorded { head, body: Bytes::from(body.to_owned()) }
}

/// How the server leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leave {
    /// As HTTP wants it.
    Cleanly,
    /// Without the end of the body.
    Abruptly,
    /// Not before the client does.
    Never,
}

/// A server on loopback that plays one recorded reply to whoever asks.
#[derive(Debug)]
pub(crate) struct Fake {
    address: String,
    requests: Arc<Mutex<Vec<(String, Bytes)>>>,
    clients_gone: watch::Receiver<u32>,
}

impl Fake {
    pub(crate) async fn start(reply: Recorded) -> Self {
        Self::start_in_pieces(reply, usize::MAX, Leave::Cleanly).await
    }

    /// The body goes out in HTTP chunks of `piece` bytes.
    pub(crate) async fn start_in_pieces(reply: Recorded, piece: usize, leave: Leave) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (gone, clients_gone) = watch::channel(0);
        let seen = Arc::clone(&requests);
        let tracker = TaskTracker::new();
        tracker.clone().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (reply, seen, gone) = (reply.clone(), Arc::clone(&seen), gone.clone());
                tracker
                    .spawn(async move { play(socket, &reply, piece, leave, &seen, &gone).await });
            }
        });
        Self { address, requests, clients_gone }
    }

    /// A model that is asked here.
    pub(crate) fn model(&self, provider: Name) -> Model {
        Model { base_url: self.address.clone(), ..model(provider) }
    }

    pub(crate) fn adapter(&self, provider: Name) -> Arc<dyn Provider> {
        adapter(&self.model(provider), Some(CANARY.into()), Clock::fixed(NOW)).unwrap()
    }

    pub(crate) fn head(&self) -> String {
        self.requests.lock().unwrap()[0].0.clone()
    }

    pub(crate) fn body(&self) -> Value {
        serde_json::from_slice(&self.requests.lock().unwrap()[0].1).unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Returns once a client has closed its connection before the reply was over.
    pub(crate) async fn client_gone(&mut self) {
        let gone = self.clients_gone.wait_for(|gone| *gone > 0);
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap().unwrap();
    }
}

async fn play(
    mut socket: TcpStream,
    reply: &Recorded,
    piece: usize,
    leave: Leave,
    seen: &Mutex<Vec<(String, Bytes)>>,
    gone: &watch::Sender<u32>,
) {
    let Some(request) = read_request(&mut socket).await else { return };
    seen.lock().unwrap().push(request);
    let head = format!("{}transfer-encoding: chunked\r\nconnection: close\r\n\r\n", reply.head);
    let mut sent = socket.write_all(head.as_bytes()).await;
    for piece in reply.body.chunks(piece.min(reply.body.len().max(1))) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        if sent.is_ok() {
            sent = socket.write_all(&chunk).await;
        }
    }
    match leave {
        Leave::Abruptly => {}
        Leave::Cleanly => drop(socket.write_all(b"0\r\n\r\n").await),
        Leave::Never => {
            let mut rest = [0; 64];
            while matches!(socket.read(&mut rest).await, Ok(1..)) {}
            gone.send_modify(|gone| *gone += 1);
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<(String, Bytes)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
                return Some((head, Bytes::copy_from_slice(&bytes[end + 4..])));
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// An address where nobody listens.
pub(crate) fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A part as it was heard: opening, deltas, closing.
pub(crate) type HeardPart = (Part, String, Option<Part>);

/// Everything heard of one call.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) parts: Vec<HeardPart>,
    pub(crate) limits: Vec<RateLimit>,
    pub(crate) done: Option<(Usage, Option<StopReason>)>,
    pub(crate) failed: Option<Box<Failed>>,
}

impl Heard {
    /// The text of all text parts.
    pub(crate) fn text(&self) -> String {
        self.parts
            .iter()
            .filter(|(opening, ..)| matches!(opening, Part::Text(_)))
            .map(|(_, text, _)| text.as_str())
            .collect()
    }

    #[track_caller]
    pub(crate) fn failure(&self) -> &broker_proto::Failure {
        &self.failed.as_ref().unwrap().failure
    }
}

pub(crate) async fn hear(mut chunks: ChunkStream) -> Heard {
    let mut heard = Heard::default();
    while let Some(chunk) = chunks.next().await {
        assert!(heard.done.is_none() && heard.failed.is_none(), "something came behind the end");
        match chunk {
            Ok(Chunk::Started { limits }) => heard.limits = limits,
            Ok(Chunk::Alive | Chunk::Usage(_)) => {}
            Ok(Chunk::PartStart { part, opening }) => {
                assert_eq!(part as usize, heard.parts.len());
                heard.parts.push((opening, String::new(), None));
            }
            Ok(Chunk::Delta { part, text }) => heard.parts[part as usize].1.push_str(&text),
            Ok(Chunk::PartEnd { part, closing }) => heard.parts[part as usize].2 = closing,
            Ok(Chunk::Done { usage, stop_reason }) => heard.done = Some((usage, stop_reason)),
            Err(failed) => heard.failed = Some(failed),
        }
    }
    heard
}

pub(crate) async fn ask(provider: &dyn Provider, prompt: Prompt) -> Heard {
    match provider.complete(prompt).await {
        Ok(chunks) => hear(chunks).await,
        Err(failed) => {
            Heard { limits: failed.limits.clone(), failed: Some(failed), ..Heard::default() }
        }
    }
}

/// Plays the recorded reply `name` to `provider`'s adapter, which asks "hi".
pub(crate) async fn played(provider: Name, name: &str) -> Heard {
    let fake = Fake::start(load(name)).await;
    let heard = ask(&*fake.adapter(provider), prompt_of(provider, |_| {})).await;
    assert_eq!(fake.calls(), 1, "one completion is one call");
    heard
}

/// A body in two pieces.
pub(crate) fn split(body: &Bytes, at: usize) -> super::decode::Bodies {
    let pieces = [Ok(body.slice(..at)), Ok(body.slice(at..))];
    Box::pin(futures::stream::iter(pieces))
}
