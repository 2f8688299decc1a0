//! I-34: what opening the journal reads, in bytes of its files: the end of it, however long it is.

use std::path::Path;

use bytes::Bytes;

use super::{SqliteJournal, store};
use crate::journal::{Batch, Claim, Journal, Record};

/// Bytes that this thread has read out of files since it began.
fn bytes_read() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = said.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.and_then(|bytes| bytes.parse().ok()).unwrap()
}

/// Frames of some KiB each, in a journal that was closed in order.
async fn fill(folder: &Path, frames: usize) {
    let journal = SqliteJournal::open(folder.to_owned(), None).await.unwrap();
    let mut writer = journal.claim(Claim::new(1, 1).unwrap()).await.unwrap();
    for _ in 0..frames {
        let body = Bytes::from(vec![7; 8 * 1024]);
        let events = vec![Record { kind: 7, version: 1, body }];
        writer.append(Batch { events, contents: Vec::new() }).await.unwrap();
    }
}

async fn open(frames: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), frames).await;
    let before = bytes_read();
    drop(store::open(folder.path(), None).unwrap());
    bytes_read() - before
}

#[tokio::test]
async fn opening_reads_the_end_and_not_all() {
    let (short, long) = (open(100).await, open(600).await);
    assert!(long <= short + 128 * 1024, "{long} bytes against {short}");
}
