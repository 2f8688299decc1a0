//! The same durable work queue on NATS JetStream: publish, deliver, acknowledge, every step answered by the server,
//! with `sync_interval: always`. The client is the protocol itself, written by hand, so that it costs next to nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::process::{Process, last_line};

const READY_WITHIN: Duration = Duration::from_secs(15);
/// Nothing here waits longer for an answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Where `.ci/nats` installs it, beside the folder of this program.
const INSTALLED: &str = "../nats/bin/nats-server";

/// A server, and its address.
#[derive(Debug)]
pub(crate) struct JetStream {
    process: Process,
    address: String,
}

/// Where the server's program is, if it is there.
pub(crate) fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.join(INSTALLED);
    program.exists().then_some(program)
}

impl JetStream {
    /// Starts `program` with its store in `folder`, and makes the stream and its consumer.
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("nats");
        fs::create_dir_all(&folder)?;
        let config = folder.join("nats.conf");
        let place = folder.display();
        fs::write(
            &config,
            format!(
                "listen: \"127.0.0.1:-1\"\nports_file_dir: \"{place}\"\n\
                 jetstream {{ store_dir: \"{place}\", sync_interval: always }}\n"
            ),
        )?;
        let mut command = Command::new(program);
        command.env_clear().arg("--config").arg(&config);
        let mut process = Process::start(&mut command, "nats-server", &folder)?;
        let began = Instant::now();
        let address = loop {
            if let Some(address) = address(&folder) {
                break address;
            }
            if process.has_ended() || began.elapsed() > READY_WITHIN {
                bail!("nats-server does not start: {}", last_line(&folder, "nats-server"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let server = Self { process, address };
        let mut wire = server.connect().await?;
        let stream = json!({
            "name": "WORK", "subjects": ["work"], "retention": "workqueue", "storage": "file",
            "num_replicas": 1, "discard": "new",
        });
        wire.ask("$JS.API.STREAM.CREATE.WORK", &stream).await?;
        let consumer = json!({
            "stream_name": "WORK",
            "config": {"durable_name": "bench", "ack_policy": "explicit", "max_ack_pending": 4096},
        });
        wire.ask("$JS.API.CONSUMER.DURABLE.CREATE.WORK.bench", &consumer).await?;
        Ok(server)
    }

    async fn connect(&self) -> anyhow::Result<Wire> {
        let stream = TcpStream::connect(&self.address).await.context("cannot connect to NATS")?;
        stream.set_nodelay(true)?;
        let mut wire = Wire { stream, read: BytesMut::new(), written: Vec::new() };
        wire.written.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\",\"headers\":true,\"protocol\":1}\r\n\
              SUB inbox 1\r\n",
        );
        wire.flush().await?;
        Ok(wire)
    }

    /// Publishes bodies of `size` bytes, `window` at a time, until `stop` fires.
    pub(crate) async fn publish(
        &self,
        who: usize,
        size: usize,
        window: u64,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut wire = self.connect().await?;
        let inbox = format!("published-{who}");
        wire.subscribe(&inbox).await?;
        let body = vec![b'x'; size];
        let (mut sent, mut answered) = (0, 0);
        loop {
            while sent - answered < window && !stop.is_cancelled() {
                wire.publish("work", &inbox, &body);
                sent += 1;
            }
            wire.flush().await?;
            if sent == answered {
                return Ok(());
            }
            for message in wire.receive().await? {
                let answer: Value = serde_json::from_slice(&message.body)?;
                ensure!(answer.get("error").is_none(), "a publish was refused: {answer}");
                answered += 1;
            }
        }
    }

    /// Takes `batch` at a time and acknowledges each, until `stop` fires. An acknowledged acknowledgement counts.
    pub(crate) async fn consume(
        &self,
        who: usize,
        batch: u64,
        settled: Arc<AtomicU64>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut wire = self.connect().await?;
        let [deliveries, acknowledged] = [format!("deliveries-{who}"), format!("settled-{who}")];
        wire.subscribe(&deliveries).await?;
        wire.subscribe(&acknowledged).await?;
        let pull = json!({"batch": batch, "expires": 60_000_000_000_u64}).to_string();
        let mut open = 0;
        loop {
            // Asked again before the last pull is used up, so that deliveries never wait for it.
            if open < batch / 2 {
                wire.publish("$JS.API.CONSUMER.MSG.NEXT.WORK.bench", &deliveries, pull.as_bytes());
                open += batch;
            }
            wire.flush().await?;
            let messages = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                messages = wire.receive() => messages?,
            };
            for message in messages {
                match message.reply {
                    Some(reply) => {
                        wire.publish(&reply, &acknowledged, b"+ACK");
                        open = open.saturating_sub(1);
                    }
                    None => {
                        settled.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

/// What the ports file says, once it is there.
fn address(folder: &Path) -> Option<String> {
    let mut files = fs::read_dir(folder).ok()?.flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|end| end == "ports"))?;
    let ports: Value = serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.strip_prefix("nats://")?.to_owned())
}

/// One connection to the server.
struct Wire {
    stream: TcpStream,
    read: BytesMut,
    written: Vec<u8>,
}

struct Received {
    reply: Option<String>,
    body: Bytes,
}

impl Wire {
    async fn subscribe(&mut self, inbox: &str) -> anyhow::Result<()> {
        self.written.extend_from_slice(format!("SUB {inbox} {}\r\n", inbox.len()).as_bytes());
        self.flush().await
    }

    fn publish(&mut self, subject: &str, reply: &str, body: &[u8]) {
        self.written
            .extend_from_slice(format!("PUB {subject} {reply} {}\r\n", body.len()).as_bytes());
        self.written.extend_from_slice(body);
        self.written.extend_from_slice(b"\r\n");
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.written).await?;
        self.written.clear();
        Ok(())
    }

    /// Asks the server's own interface, and expects no error.
    async fn ask(&mut self, subject: &str, question: &Value) -> anyhow::Result<()> {
        self.publish(subject, "inbox", question.to_string().as_bytes());
        self.flush().await?;
        let answer = self.receive().await?;
        let answer = &answer.first().context("NATS answers nothing")?.body;
        let answer: Value = serde_json::from_slice(answer)?;
        ensure!(answer.get("error").is_none(), "{subject}: {answer}");
        Ok(())
    }

    /// All that has arrived, at least one.
    async fn receive(&mut self) -> anyhow::Result<Vec<Received>> {
        let mut received = Vec::new();
        loop {
            while let Some(message) = self.parse()? {
                received.push(message);
            }
            if !received.is_empty() {
                return Ok(received);
            }
            self.flush().await?;
            let read = tokio::time::timeout(WITHIN, self.stream.read_buf(&mut self.read)).await;
            ensure!(read.context("NATS says nothing more")?? > 0, "NATS closed the connection");
        }
    }

    /// The next whole message; what is no message is answered or passed over.
    /// Source: docs.nats.io, "Client Protocol".
    fn parse(&mut self) -> anyhow::Result<Option<Received>> {
        loop {
            let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") else {
                return Ok(None);
            };
            let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            // MSG subject sid [reply] bytes; HMSG subject sid [reply] header-bytes all-bytes.
            let (header, has_reply) = match words[0] {
                "MSG" => (0, words.len() == 5),
                "HMSG" => (words[words.len() - 2].parse()?, words.len() == 6),
                "-ERR" => bail!("NATS: {line}"),
                "PING" => {
                    self.written.extend_from_slice(b"PONG\r\n");
                    self.read.advance(end + 2);
                    continue;
                }
                _ => {
                    self.read.advance(end + 2);
                    continue;
                }
            };
            let size: usize = words[words.len() - 1].parse()?;
            if self.read.len() < end + 2 + size + 2 {
                return Ok(None);
            }
            let reply = has_reply.then(|| words[3].to_owned());
            self.read.advance(end + 2);
            let whole = self.read.split_to(size).freeze();
            self.read.advance(2);
            // A message that is all header says that a pull has ended.
            if header > 0 && header == size {
                continue;
            }
            return Ok(Some(Received { reply, body: whole.slice(header..) }));
        }
    }
}
