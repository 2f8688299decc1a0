//! The history of one run: what was meant, said, heard and seen outside the broker, as lines of JSON on a disk.
//!
//! Each process of a run writes a file of its own; the checker reads them together, in the order of the machine's
//! boot-time clock, which they share.
//!
//! Invariant: what is about to be done is synced before it is done; what was heard is synced before anything follows
//! from it. A process that is killed leaves at most one torn line, the last.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::SystemTime,
};

use broker_proto::WallTime;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds of the boot-time clock, when it was noted.
    pub at: u64,
    /// Milliseconds since 1970, by this process's clock.
    pub wall: u64,
    /// Who noted it: one process of the run.
    pub by: String,
    #[serde(flatten)]
    pub what: What,
}

/// What is noted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A process of the run began.
    Began {
        seed: u64,
        role: Role,
        pid: u32,
    },
    /// The broker's settings that the contract leaves open. Noted by the harness.
    Settings(Settings),
    /// Something was done to the broker, to an agent or to a clock. Noted by the harness.
    Fault {
        fault: Fault,
    },
    /// No new work from here on; agents do all they get.
    Quiet,
    /// This process came to the end of what it had to do.
    Ended,

    /// About to send, or to send again.
    Send {
        call: u64,
        id: String,
        said: Said,
    },
    Sent {
        call: u64,
        id: String,
        outcome: Outcome<Accepted>,
    },
    /// About to cancel.
    Cancel {
        call: u64,
        id: String,
    },
    Cancelled {
        call: u64,
        id: String,
        outcome: Outcome<String>,
    },
    /// An asker saw a frame of its answer.
    Frame {
        id: String,
        stream: u64,
        frame: Frame,
    },
    /// An asker's stream ended; `None` when it ended in order.
    StreamEnded {
        id: String,
        stream: u64,
        broken: Option<String>,
    },
    /// What the sender was told, after all, about a message of its own. `reply` is the digest of its answer.
    Learned {
        id: String,
        state: String,
        class: Option<String>,
        reply: Option<String>,
    },
    /// How many messages there are by state, as a list shows them when all is quiet.
    Counted {
        states: std::collections::BTreeMap<String, u64>,
    },

    /// A link stands.
    Linked {
        link: String,
        agent: String,
        instance: String,
        lease_ms: u64,
        resumed: Vec<String>,
    },
    Unlinked {
        link: String,
    },
    /// About to grant credit.
    Credit {
        link: String,
        messages: u64,
        size_bytes: u64,
    },
    Delivered(Delivered),
    /// About to say that work on these leases goes on.
    Renew {
        leases: Vec<String>,
    },
    /// About to settle. `reply` is the digest of the answer, for a settlement as done.
    Settle {
        call: u64,
        lease: String,
        id: String,
        attempt: u32,
        how: How,
        reply: Option<String>,
    },
    Settled {
        call: u64,
        lease: String,
        id: String,
        outcome: Outcome<()>,
    },
    /// The broker took a lease back, or cancelled its work.
    Revoked {
        lease: String,
        id: String,
        is_cancel: bool,
    },
    /// About to leave on purpose.
    Bye {
        link: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Harness,
    Sender,
    Agent,
}

/// What the checker must know of the broker's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub lease_ms: u64,
    pub max_lost_leases: u32,
    pub queue_messages: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The broker answers.
    BrokerUp,
    /// About to be killed, or asked to stop.
    BrokerKilled,
    BrokerStopping,
    BrokerGone,
    /// An agent's process was ended, held, or let go on.
    AgentKilled {
        agent: String,
    },
    AgentHeld {
        agent: String,
    },
    AgentFreed {
        agent: String,
    },
    /// The broker's wall clock differs from the machine's by this from now on.
    Clock {
        offset_ms: i64,
    },
    /// Anything else, for whoever reads the history.
    Other {
        about: String,
    },
}

/// A message as it was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub to: String,
    pub kind: String,
    /// 0 (low) to 3 (urgent).
    pub priority: u8,
    pub key: Option<String>,
    pub digest: String,
    pub size_bytes: u64,
    /// Milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    Ok(T),
    /// The broker said no, in one of its words.
    Refused {
        code: String,
        reason: String,
        retry_ms: Option<u64>,
    },
    Unknown {
        why: String,
    },
}

impl<T> Outcome<T> {
    #[must_use]
    pub fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok(value) => Some(value),
            Self::Refused { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether nothing of the call can have been stored (I-2).
    #[must_use]
    pub fn is_sure_refusal(&self) -> bool {
        const SURE: [&str; 7] = [
            "INVALID_ARGUMENT",
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ALREADY_EXISTS",
            "NOT_FOUND",
        ];
        matches!(self, Self::Refused { code, .. } if SURE.contains(&code.as_str()))
    }

    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            Self::Ok(_) | Self::Unknown { .. } => None,
        }
    }
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub is_duplicate: bool,
    pub accepted_at: u64,
    pub deadline: u64,
}

/// A delivery as its agent got it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub link: String,
    pub agent: String,
    /// `model/NAME` or `agent/NAME`.
    pub queue: String,
    pub id: String,
    pub number: u64,
    pub attempt: u32,
    /// A name for the lease; not the token itself.
    pub lease: String,
    pub digest: String,
    pub priority: u8,
    pub key: Option<String>,
    /// What the broker said is left of the deadline.
    pub left_ms: u64,
    pub size_bytes: u64,
}

/// How an agent settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Done,
    Failed,
    Retry,
    Reject,
    Release,
    /// As done, with a token that nobody was given.
    Forged,
}

impl How {
    /// No delivery may follow once it is acknowledged (I-18). What follows a rejection is I-25.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Done)
    }
}

/// A frame of an answer, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    Accepted,
    Routed {
        attempt: u32,
    },
    /// Content of this attempt.
    Said {
        attempt: u32,
        size_bytes: u64,
    },
    /// What was said before belongs to another attempt.
    Anew {
        attempt: u32,
    },
    Other,
    /// The end, and the digest of all that this asker has of the last attempt.
    Terminal {
        state: String,
        reply: String,
    },
}

/// One line on its way to the disk.
struct Line {
    entry: Entry,
    synced: Option<oneshot::Sender<()>>,
}

/// Writes a history. Cheap to clone; all clones write one file.
#[derive(Debug, Clone)]
pub struct History {
    by: String,
    lines: mpsc::Sender<Line>,
}

/// The thread that writes; [`HistoryFile::close`] returns once everything is on the disk.
#[derive(Debug)]
pub struct HistoryFile {
    writing: JoinHandle<io::Result<()>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.fmt(f)
    }
}

impl History {
    /// Appends to the file at `path`, in the name of `by`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, by: &str) -> io::Result<(Self, HistoryFile)> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        // Unbounded: bounded by what its callers have under way, each of which waits for its own line.
        let (lines, taken) = mpsc::channel();
        let writing =
            thread::Builder::new().name("history".into()).spawn(move || write(file, &taken))?;
        Ok((Self { by: by.to_owned(), lines }, HistoryFile { writing }))
    }

    /// Notes this and returns once it is on the disk.
    pub async fn note(&self, what: What) {
        let (done, synced) = oneshot::channel();
        self.send(what, Some(done));
        // A history that cannot be written is worth nothing: what follows must not happen.
        synced.await.expect("the history can be written");
    }

    /// Notes this, to be on the disk before anything noted later is.
    pub fn remark(&self, what: What) {
        self.send(what, None);
    }

    fn send(&self, what: What, synced: Option<oneshot::Sender<()>>) {
        let entry = Entry { at: boot_ns(), wall: wall_ms(), by: self.by.clone(), what };
        self.lines.send(Line { entry, synced }).expect("the history can be written");
    }
}

impl HistoryFile {
    /// Waits until every clone of the history is gone and all of it is on the disk.
    ///
    /// # Errors
    /// What the disk said.
    pub fn close(self) -> io::Result<()> {
        self.writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

/// Writes what has arrived in one piece, with one sync.
fn write(mut file: File, lines: &mpsc::Receiver<Line>) -> io::Result<()> {
    while let Ok(first) = lines.recv() {
        let mut text = Vec::new();
        let mut waiting = Vec::new();
        for line in std::iter::once(first).chain(lines.try_iter()) {
            serde_json::to_writer(&mut text, &line.entry)?;
            text.push(b'\n');
            waiting.extend(line.synced);
        }
        file.write_all(&text)?;
        file.sync_data()?;
        for synced in waiting {
            // Whoever noted it may have been dropped meanwhile.
            let _ = synced.send(());
        }
    }
    Ok(())
}

/// Reads the histories of a run, in the order in which things were noted.
///
/// # Errors
/// When a file cannot be read, or a line other than the last one of its file is torn.
pub fn read(paths: &[PathBuf]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for path in paths {
        let mut torn: Option<(usize, serde_json::Error)> = None;
        for (number, line) in BufReader::new(File::open(path)?).split(b'\n').enumerate() {
            if let Some((line, error)) = torn {
                let text = format!("{}, line {}: {error}", path.display(), line + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            match serde_json::from_slice(&line?) {
                Ok(entry) => entries.push(entry),
                Err(error) => torn = Some((number, error)),
            }
        }
    }
    entries.sort_by_key(|entry: &Entry| entry.at);
    Ok(entries)
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// This process's wall clock, in milliseconds.
#[must_use]
pub fn wall_ms() -> u64 {
    WallTime::from_system(SystemTime::now()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_is_read_in_its_order_and_a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a.jsonl"), folder.path().join("b.jsonl")];
        let (a, a_file) = History::open(&paths[0], "a").unwrap();
        let (b, b_file) = History::open(&paths[1], "b").unwrap();
        a.note(What::Quiet).await;
        b.note(What::Fault { fault: Fault::BrokerUp }).await;
        a.remark(What::Ended);
        drop((a, b));
        a_file.close().unwrap();
        b_file.close().unwrap();
        let torn = OpenOptions::new().append(true).open(&paths[1]).unwrap().write_all(b"{\"at\":1");
        torn.unwrap();

        let read = read(&paths).unwrap();

        let whats: Vec<_> = read.into_iter().map(|entry| entry.what).collect();
        assert_eq!(whats, [What::Quiet, What::Fault { fault: Fault::BrokerUp }, What::Ended]);
    }

    #[test]
    fn every_kind_of_line_is_read_as_it_was_written() {
        let delivered = Delivered {
            link: "l".into(),
            agent: "a".into(),
            queue: "agent/a".into(),
            id: "m".into(),
            number: 1,
            attempt: 1,
            lease: "t".into(),
            digest: "d".into(),
            priority: 1,
            key: None,
            left_ms: 5,
            size_bytes: 3,
        };
        let refused = Outcome::Refused {
            code: "NOT_FOUND".into(),
            reason: "UNKNOWN_MESSAGE".into(),
            retry_ms: None,
        };
        for what in [
            What::Delivered(delivered),
            What::Cancelled { call: 1, id: "m".into(), outcome: refused },
            What::Settled { call: 2, lease: "t".into(), id: "m".into(), outcome: Outcome::Ok(()) },
            What::Fault { fault: Fault::Clock { offset_ms: -5 } },
        ] {
            let entry = Entry { at: 1, wall: 2, by: "x".into(), what };
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry, "{text}");
        }
    }
}
