//! I-34: what a start reads, counted: it grows with what lives and with what is not folded yet, and with nothing else.

use std::sync::Arc;

use broker_proto::{ContentHash, MessageState, Sender};

use super::{
    Projection,
    tests::{AT, Log, accepted, finished, leased, mailbox, routed, subject},
};
use crate::{
    app::rehearsal::{local, soon},
    core::{
        Event,
        queue::{Body, Seq},
    },
    journal::{BatchNo, Journal, MAX_EVENTS, faulty::Faulty},
};

/// What one start read.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    events: u64,
    /// Out of the rows' file, by the thread that loads them.
    bytes: u64,
}

/// Bytes that this thread has read out of files since it began.
fn bytes_read() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = said.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.and_then(|bytes| bytes.parse().ok()).unwrap()
}

async fn load(projection: &Projection, head: BatchNo) -> Read {
    let before = projection.reader.call(|_| Ok(bytes_read())).await.unwrap();
    let mut events = 0;
    soon(projection.living(head, |_| events += 1)).await.unwrap();
    let after = projection.reader.call(|_| Ok(bytes_read())).await.unwrap();
    Read { events, bytes: after - before }
}

/// A log with so many messages that have ended, each with a content that was stored for it, and so many that live.
async fn log(ended: u64, living: u64) -> Log {
    let mut log = Log::new().await;
    let end = |seq: u64| {
        let body = Body { size_bytes: 7, ..Body::default() };
        let content =
            Event::ContentStored { hash: ContentHash::of(&seq.to_le_bytes()), at: AT, body };
        let done = finished(seq, MessageState::Done);
        [content, accepted(seq, mailbox()), routed(seq, None), leased(seq), done]
    };
    let live = |seq: u64| [accepted(seq, mailbox()), routed(seq, None)];
    let history: Vec<Event> =
        (1..=ended).flat_map(end).chain((ended + 1..=ended + living).flat_map(live)).collect();
    for events in history.chunks(MAX_EVENTS) {
        log.append(events).await;
    }
    log
}

async fn start(ended: u64, living: u64) -> Read {
    let log = log(ended, living).await;
    let head = log.writer.head();
    log.folded().await.close().await;
    let (projection, _) = log.open().await;
    assert_eq!(projection.applied(), head);
    load(&projection, head).await
}

#[tokio::test]
async fn a_start_reads_what_lives_and_not_what_has_ended() {
    let (short, long) = (start(50, 100).await, start(4_000, 100).await);
    assert_eq!((short.events, long.events), (200, 200));
    // Pages on the way down trees that are higher, and nothing for each message.
    assert!(long.bytes <= short.bytes + 64 * 1024, "{long:?} against {short:?}");
}

/// The first send of each sender asks which of its ids is the newest.
#[tokio::test]
async fn a_sender_is_looked_up_without_a_walk() {
    let log = log(4_000, 0).await;
    let projection = log.folded().await;
    assert_eq!(projection.newest(local()).await.unwrap(), Some(subject(4_000).id));
    projection.close().await;
    let (projection, _) = log.open().await;
    let bytes = async || projection.reader.call(|_| Ok(bytes_read())).await.unwrap();
    let before = bytes().await;
    let stranger = Sender::parse("stranger").unwrap();
    assert_eq!(projection.newest(stranger).await.unwrap(), None);
    let read = bytes().await - before;
    assert!(read <= 64 * 1024, "{read}");
}

#[tokio::test]
async fn a_start_reads_in_proportion_to_what_lives() {
    let (few, many) = (start(0, 1_000).await, start(0, 4_000).await);
    assert_eq!((few.events, many.events), (2_000, 8_000));
    assert!(many.bytes <= 5 * few.bytes, "{many:?} against {few:?}");
}

#[tokio::test]
async fn a_start_reads_the_frames_that_are_not_folded_yet() {
    let mut log = log(200, 10).await;
    log.folded().await.close().await;
    for seq in 1_000..1_003 {
        log.append(&[accepted(seq, mailbox()), routed(seq, None)]).await;
    }
    let journal = Faulty::new(Arc::clone(&log.journal));
    let script = journal.script();
    log.journal = Arc::new(journal) as Arc<dyn Journal>;
    let head = log.writer.head();

    let projection = log.folded().await;

    assert_eq!((projection.applied(), script.frames()), (head, 3));
    let row = projection.find(local(), subject(1_002).id, head);
    assert_eq!(soon(row).await.unwrap().unwrap().accepted.subject.seq, Seq(1_002));
}
