//! What only a file can do: be copied at any moment, cut, damaged, foreign, newer, or locked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::journal::{Batch, Damage, Record, Why};

async fn open(directory: &Path) -> Arc<dyn Journal> {
    Arc::new(SqliteJournal::open(directory.to_owned(), None).await.unwrap())
}

async fn claim(journal: &Arc<dyn Journal>) -> Box<dyn Writer> {
    journal.claim(Claim::new(1, 1).unwrap()).await.unwrap()
}

fn batch(body: impl Into<Bytes>) -> Batch {
    Batch { events: vec![Record { kind: 1, version: 1, body: body.into() }], contents: Vec::new() }
}

async fn read(journal: &Arc<dyn Journal>) -> Vec<Result<Frame, ReadError>> {
    journal.read(BatchNo(1), Until::Head).collect().await
}

/// What a crash at this moment would leave.
fn copy(from: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in ["journal.db", "journal.db-wal"] {
        if from.join(file).exists() {
            fs::copy(from.join(file), copy.path().join(file)).unwrap();
        }
    }
    copy
}

/// Flips a bit in the middle of the only place where `file` holds `marker`.
fn damage(file: &Path, marker: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    let places: Vec<_> =
        (0..bytes.len() - marker.len()).filter(|at| bytes[*at..].starts_with(marker)).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0] + marker.len() / 2] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_copy_taken_at_any_moment_holds_every_acknowledged_batch() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    for acked in 2..20 {
        let content = Content::new(vec![acked as u8; 20_000]).unwrap();
        let key = content.key();
        writer.append(Batch { contents: vec![content], ..batch("event") }).await.unwrap();

        let crashed = copy(place.path());
        let found = open(crashed.path()).await;

        assert_eq!(read(&found).await.len(), acked);
        assert!(found.get(key).await.is_ok());
        assert_eq!(claim(&found).await.head(), BatchNo(acked as u64 + 1));
    }
}

#[tokio::test]
async fn a_wal_cut_anywhere_holds_whole_batches_only() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    let mut acked = vec![(0, 0, None)];
    let wal = place.path().join("journal.db-wal");
    for number in 2..8 {
        let content = Content::new(vec![number; 9_000]).unwrap();
        let key = content.key();
        writer.append(Batch { contents: vec![content], ..batch("event") }).await.unwrap();
        acked.push((fs::metadata(&wal).unwrap().len(), usize::from(number), Some(key)));
    }
    let end = acked[acked.len() - 1].0;
    for cut in (acked[1].0..=end).step_by(997).chain([end]) {
        let crashed = copy(place.path());
        let cut_wal =
            fs::OpenOptions::new().write(true).open(crashed.path().join("journal.db-wal")).unwrap();
        cut_wal.set_len(cut).unwrap();

        let found = open(crashed.path()).await;

        let (_, batches, _) = acked.iter().rev().find(|(len, ..)| *len <= cut).unwrap();
        assert_eq!(read(&found).await.len(), *batches, "cut at {cut}");
        for (_, number, key) in &acked[1..] {
            assert_eq!(
                found.get(key.unwrap()).await.is_ok(),
                number <= batches,
                "cut at {cut}, batch {number}"
            );
        }
    }
}

#[tokio::test]
async fn damage_in_the_wal_before_a_later_commit_is_named_and_nothing_is_opened() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    for body in ["first-of-all", "second-batch", "third-batch", "fourth-batch"] {
        writer.append(batch(vec![body.as_bytes(); 100].concat())).await.unwrap();
    }
    let crashed = copy(place.path());
    let wal = crashed.path().join("journal.db-wal");
    let mut bytes = fs::read(&wal).unwrap();
    let at = bytes.windows(12).position(|window| window == b"first-of-all").unwrap();
    bytes[at] ^= 1;
    fs::write(&wal, &bytes).unwrap();

    let refused = SqliteJournal::open(crashed.path().to_owned(), None).await;

    let frame = (at as u64 - 32) / (24 + 4096) * (24 + 4096) + 32;
    assert!(
        matches!(&refused, Err(OpenError::CorruptWal { offset, .. }) if *offset == frame),
        "{refused:?}"
    );
    assert_eq!(fs::read(&wal).unwrap(), bytes);
}

#[tokio::test]
async fn damage_in_the_wal_header_is_refused() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    claim(&journal).await;
    for at in 0..32 {
        let crashed = copy(place.path());
        let wal = crashed.path().join("journal.db-wal");
        let mut bytes = fs::read(&wal).unwrap();
        bytes[at] ^= 1;
        fs::write(&wal, &bytes).unwrap();

        let refused = SqliteJournal::open(crashed.path().to_owned(), None).await;

        assert!(
            matches!(&refused, Err(OpenError::CorruptWal { offset: 0, .. })),
            "byte {at}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_frame_near_the_end_keeps_the_store_closed() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    writer.append(batch("damaged here")).await.unwrap();
    writer.append(batch("and well here")).await.unwrap();
    drop((journal, writer));
    damage(&place.path().join("journal.db"), b"damaged here");

    let refused = SqliteJournal::open(place.path().to_owned(), None).await;

    assert!(matches!(&refused, Err(OpenError::Corrupt { at: BatchNo(2), .. })), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_frame_far_back_stops_whoever_reads_it() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    // Large enough to lie on pages of its own, which are never copied when others move.
    writer.append(batch([vec![b' '; 20_000], b"damaged here".to_vec()].concat())).await.unwrap();
    for _ in 0..100 {
        writer.append(batch("and well here")).await.unwrap();
    }
    drop((journal, writer));
    damage(&place.path().join("journal.db"), b"damaged here");

    let frames = read(&open(place.path()).await).await;

    assert_eq!(frames.len(), 2);
    assert!(matches!(frames[1], Err(ReadError::Corrupt { at: BatchNo(2) })), "{:?}", frames[1]);
}

/// A sound frame, but not the successor of the one before it.
#[tokio::test]
async fn a_frame_of_another_history_is_damage() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    writer.append(batch("event")).await.unwrap();
    writer.append(batch("event")).await.unwrap();
    let other = Tail { number: BatchNo(2), epoch: writer.epoch(), ..Tail::default() };
    let other = Sealed::new(journal.identity().journal, other, writer.epoch(), &[]);
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    let row = (other.tail.digest.0, &other.bytes[..]);
    file.execute("UPDATE frames SET digest = ?1, frame = ?2 WHERE number = 3", row).unwrap();

    let frames = read(&journal).await;
    let refused = SqliteJournal::open(place.path().to_owned(), None).await;

    assert!(matches!(frames[2], Err(ReadError::Corrupt { at: BatchNo(3) })), "{:?}", frames[2]);
    assert!(matches!(refused, Err(OpenError::Corrupt { at: BatchNo(3), .. })), "{refused:?}");
}

#[tokio::test]
async fn an_append_is_announced_before_it_is_answered() {
    let place = TempDir::new().unwrap();
    let journal = SqliteJournal::open(place.path().to_owned(), None).await.unwrap();
    let mut writer = journal.claim(Claim::new(1, 1).unwrap()).await.unwrap();
    for number in 2..20 {
        writer.append(batch("event")).await.unwrap();
        assert_eq!(*journal.shared.head.borrow(), BatchNo(number));
    }
}

#[tokio::test]
async fn a_frame_missing_in_the_middle_is_not_skipped() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    for _ in 0..100 {
        writer.append(batch("event")).await.unwrap();
    }
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    file.execute("DELETE FROM frames WHERE number = 5", []).unwrap();

    let frames = read(&journal).await;

    assert!(matches!(frames[frames.len() - 1], Err(ReadError::Corrupt { at: BatchNo(5) })));
    assert!(matches!(
        journal.read(BatchNo(5), Until::Forever).next().await,
        Some(Err(ReadError::Corrupt { at: BatchNo(5) }))
    ));
}

#[tokio::test]
async fn a_damaged_content_is_never_delivered() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let key = journal.put(Content::new("what was said").unwrap()).await.unwrap();
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    file.execute("UPDATE contents SET bytes = x'00'", []).unwrap();

    let read = journal.get(key).await;

    assert!(
        matches!(read, Err(ReadError::CorruptContent { key: damaged }) if damaged == key),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_log_shorter_than_acknowledged_is_broken() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    writer.append(batch("gone")).await.unwrap();
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    file.execute("DELETE FROM frames WHERE number = 2", []).unwrap();

    for _ in 0..2 {
        let broken = writer.append(batch("event")).await;
        let is_shorter = matches!(
            broken,
            Err(AppendError::Broken(Damage::Shorter { acked: BatchNo(2), found: BatchNo(1) }))
        );
        assert!(is_shorter, "{broken:?}");
    }
}

#[tokio::test]
async fn another_batch_at_the_head_is_broken() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    file.execute("UPDATE frames SET digest = zeroblob(32)", []).unwrap();

    let broken = writer.append(batch("event")).await;

    assert!(
        matches!(broken, Err(AppendError::Broken(Damage::OtherBatch { at: BatchNo(1) }))),
        "{broken:?}"
    );
}

/// SQLite fails a statement here as it would fail a write: in any way that says nothing about the disk.
#[tokio::test]
async fn after_a_failure_of_the_store_nothing_is_answered_but_broken() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    file.execute_batch("ALTER TABLE frames RENAME TO hidden").unwrap();

    let first = writer.append(batch("event")).await;
    file.execute_batch("ALTER TABLE hidden RENAME TO frames").unwrap();

    assert!(matches!(first, Err(AppendError::Broken(Damage::Store { .. }))), "{first:?}");
    let put = journal.put(Content::new("part").unwrap()).await;
    assert!(matches!(put, Err(PutError::Broken(_))), "{put:?}");
    let claimed = journal.claim(Claim::new(1, 1).unwrap()).await;
    assert!(matches!(claimed, Err(ClaimError::Broken(_))), "{claimed:?}");
    assert_eq!(read(&journal).await.len(), 1, "what was acknowledged can still be read");
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_untouched() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("journal.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(other);
    for foreign in [fs::read(&path).unwrap(), vec![b'x'; 5000]] {
        fs::write(&path, &foreign).unwrap();

        let refused = SqliteJournal::open(place.path().to_owned(), None).await;

        assert!(matches!(refused, Err(OpenError::NotOurs { .. })), "{refused:?}");
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_untouched() {
    let place = TempDir::new().unwrap();
    drop(open(place.path()).await);
    let path = place.path().join("journal.db");
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 3).unwrap();
    drop(newer);
    let before = fs::read(&path).unwrap();

    let refused = SqliteJournal::open(place.path().to_owned(), None).await;

    assert!(matches!(refused, Err(OpenError::TooNew { version: 3, .. })), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_store_from_before_the_first_release_is_refused_untouched() {
    let place = TempDir::new().unwrap();
    drop(open(place.path()).await);
    let path = place.path().join("journal.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    let before = fs::read(&path).unwrap();

    let refused = SqliteJournal::open(place.path().to_owned(), None).await;

    assert!(matches!(refused, Err(OpenError::TooOld { version: 1, .. })), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// Two processes that draw the same number for other bytes: the second is refused, not taken for the first.
#[tokio::test]
async fn two_contents_of_one_copy_number_are_not_both_stored() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let first = Content::new("first").unwrap();
    journal.put(first.clone()).await.unwrap();
    let file = Connection::open(place.path().join("journal.db")).unwrap();
    let second = Content::new("second").unwrap();
    let copies = [second.key().copy().cast_signed(), first.key().copy().cast_signed()];
    file.execute("UPDATE contents SET copy = ?1 WHERE copy = ?2", copies).unwrap();

    let put = journal.put(second).await;

    assert!(matches!(put, Err(PutError::NotStored(Why::Unavailable))), "{put:?}");
    journal.put(Content::new("third").unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_open_that_was_killed_half_way_is_finished() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("journal.db"), []).unwrap();

    let journal = open(place.path()).await;

    assert_eq!(claim(&journal).await.head(), BatchNo(1));
}

#[tokio::test]
async fn only_its_owner_may_read_the_store() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("made/for/it");
    let journal = open(&directory).await;
    claim(&journal).await;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_store_that_stays_locked_is_unavailable_and_the_writer_stays_good() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    let other = Connection::open(place.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let refused = writer.append(batch("event")).await;
    other.execute_batch("ROLLBACK").unwrap();

    assert!(matches!(refused, Err(AppendError::NotStored(Why::Unavailable))), "{refused:?}");
    assert_eq!(writer.append(batch("event")).await.unwrap(), BatchNo(2));
}

#[tokio::test]
async fn the_wal_does_not_grow_without_bound() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    let (mut written, mut largest) = (0, 0);
    while written < 3 * store::WAL_LIMIT {
        writer.append(batch(vec![1; 700_000])).await.unwrap();
        written += 700_000;
        largest = largest.max(fs::metadata(place.path().join("journal.db-wal")).unwrap().len());
    }

    assert!(largest < store::WAL_LIMIT + store::WAL_LIMIT / 2, "{largest} of {written}");
    let batches = usize::try_from(written / 700_000).unwrap();
    drop((journal, writer));
    assert_eq!(read(&open(place.path()).await).await.len(), batches + 1);
}

#[tokio::test]
async fn puts_that_wait_together_are_all_stored() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let contents: Vec<_> =
        (0..200_u8).map(|byte| Content::new(vec![byte; 1000]).unwrap()).collect();

    let puts = contents.iter().map(|content| journal.put(content.clone()));
    let keys: Vec<_> = futures::future::try_join_all(puts).await.unwrap();

    for (key, content) in keys.into_iter().zip(&contents) {
        assert_eq!(journal.get(key).await.unwrap(), content.bytes());
    }
}

/// I-32: what was acknowledged is missed, even where the end that is left looks whole.
#[tokio::test]
async fn a_store_that_ends_before_what_was_acknowledged_is_refused() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    for body in ["second-batch", "third-batch"] {
        writer.append(batch(vec![body.as_bytes(); 100].concat())).await.unwrap();
    }
    let cut = |len: u64| {
        move |file: &Path| {
            fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len).unwrap();
        }
    };
    let last_flipped = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(file, bytes).unwrap();
    };
    let wal_len = fs::metadata(place.path().join("journal.db-wal")).unwrap().len();
    let harms: [&dyn Fn(&Path); 4] =
        [&last_flipped, &cut(wal_len - 1), &cut(0), &|file| fs::remove_file(file).unwrap()];
    for (harm, number) in harms.iter().zip(1..) {
        let crashed = copy(place.path());
        let note = "journal.acked";
        fs::copy(place.path().join(note), crashed.path().join(note)).unwrap();
        harm(&crashed.path().join("journal.db-wal"));

        let refused = SqliteJournal::open(crashed.path().to_owned(), None).await;

        assert!(
            matches!(refused, Err(OpenError::Shorter { acked: BatchNo(3), .. })),
            "harm {number}: {refused:?}"
        );
        // A person who knows may go on with what there is.
        fs::remove_file(crashed.path().join(note)).unwrap();
        assert!(SqliteJournal::open(crashed.path().to_owned(), None).await.is_ok());
    }
    let gone = TempDir::new().unwrap();
    fs::copy(place.path().join("journal.acked"), gone.path().join("journal.acked")).unwrap();
    let refused = SqliteJournal::open(gone.path().to_owned(), None).await;
    assert!(matches!(refused, Err(OpenError::Shorter { .. })), "{refused:?}");
    assert!(!gone.path().join("journal.db").exists());
}

/// I-32: what a start does not look at is refused when it is read, and found by who looks at everything.
#[tokio::test]
async fn damage_in_an_old_batch_is_never_read_as_whole() {
    let place = TempDir::new().unwrap();
    let journal = open(place.path()).await;
    let mut writer = claim(&journal).await;
    for number in 2..100 {
        writer.append(batch(format!("batch number {number}.").into_bytes())).await.unwrap();
    }
    drop((journal, writer));
    assert_eq!(check(place.path()).unwrap(), Some(Checked { batches: 99, contents: 0 }));
    let other = Connection::open(place.path().join("journal.db")).unwrap();
    let frame = "SELECT frame FROM frames WHERE number = 5";
    let mut frame: Vec<u8> = other.query_row(frame, [], |row| row.get(0)).unwrap();
    frame[90] ^= 1;
    other.execute("UPDATE frames SET frame = ?1 WHERE number = 5", [frame]).unwrap();
    drop(other);

    let journal = open(place.path()).await;
    let frames = read(&journal).await;
    drop(journal);

    assert!(matches!(frames.last(), Some(Err(ReadError::Corrupt { at: BatchNo(5) }))));
    assert_eq!(frames.len(), 5);
    let refused = check(place.path());
    assert!(matches!(refused, Err(OpenError::Corrupt { at: BatchNo(5), .. })), "{refused:?}");
}
