//! What every journal must do, whatever is under it. Each case runs on a fresh place, for each backend.

use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::StreamExt;
use tempfile::TempDir;

use super::memory::{MemoryJournal, Store};
use super::sqlite::SqliteJournal;
use super::*;

/// Somewhere a journal is kept; opening it again finds the same one.
trait Place: Sync {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Journal>>;
}

struct Memory(Store);

impl Place for Memory {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Journal>> {
        Box::pin(async { Arc::new(MemoryJournal::open(&self.0)) as Arc<dyn Journal> })
    }
}

struct Sqlite(TempDir, Option<u64>);

impl Place for Sqlite {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Journal>> {
        Box::pin(async {
            let journal = SqliteJournal::open(self.0.path().join("data"), self.1).await.unwrap();
            Arc::new(journal) as Arc<dyn Journal>
        })
    }
}

/// Room for some frames, so that a case can fill it.
const SMALL: u64 = 2 * 1024 * 1024;

macro_rules! cases {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::Memory(super::Store::new().unwrap())).await;
            })*

            #[tokio::test]
            async fn a_full_store_refuses_and_recovers_alone() {
                super::fill(&super::Memory(super::Store::with_capacity(super::SMALL).unwrap())).await;
            }
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::Sqlite(super::TempDir::new().unwrap(), None)).await;
            })*

            #[tokio::test]
            async fn a_full_store_refuses_and_recovers_alone() {
                super::fill(&super::Sqlite(super::TempDir::new().unwrap(), Some(super::SMALL))).await;
            }
        }
    };
}

cases! {
    batches_are_numbered_without_a_gap
    records_come_back_byte_for_byte
    frames_are_chained_by_digest
    a_batch_and_its_contents_are_all_or_nothing
    reading_begins_where_it_is_asked_to
    reading_until_a_batch_waits_for_it
    a_waiting_reader_wakes_at_every_append
    a_reader_beside_a_busy_writer_misses_nothing
    a_reader_below_the_first_kept_batch_is_told_the_gap
    a_cursor_of_another_journal_is_refused
    a_claim_fences_the_writer_before_it_for_ever
    a_claim_through_another_handle_fences_too
    a_fenced_writer_is_fenced_even_if_the_claim_is_truncated
    an_append_given_up_kills_the_writer_and_the_claim_tells
    contents_are_there_before_their_frame_is
    a_content_that_is_not_there_is_missing
    contents_asked_for_together_are_answered_one_by_one
    the_same_content_twice_is_harmless
    puts_and_claims_that_wait_together_are_all_done
    forgetting_late_or_twice_is_harmless
    nothing_is_forgotten_for_a_batch_that_is_not_durable
    keys_younger_than_the_grace_are_left_out
    truncation_stops_at_the_newest_snapshot_but_one
    numbers_go_on_rising_after_a_truncation
    an_older_snapshot_changes_nothing
    a_snapshot_needs_its_parts_and_its_batch
    a_snapshot_in_an_unknown_format_is_passed_over
    a_batch_over_a_limit_is_refused_and_the_writer_stays_good
    a_record_of_the_journals_own_kind_is_refused
    everything_is_there_after_a_reopen
    a_program_too_old_for_the_log_may_not_claim
}

async fn claim(journal: &Arc<dyn Journal>) -> Box<dyn Writer> {
    journal.claim(Claim::new(1, 1).unwrap()).await.unwrap()
}

fn record(body: impl Into<Bytes>) -> Record {
    Record { kind: 7, version: 3, body: body.into() }
}

fn batch(body: impl Into<Bytes>) -> Batch {
    Batch { events: vec![record(body)], contents: Vec::new() }
}

async fn append(writer: &mut Box<dyn Writer>, body: &'static str) -> BatchNo {
    writer.append(batch(body)).await.unwrap()
}

async fn frames(journal: &Arc<dyn Journal>, from: u64) -> Vec<Frame> {
    journal.read(BatchNo(from), Until::Head).map(|frame| frame.unwrap()).collect().await
}

/// The bodies of all records but claims.
async fn bodies(journal: &Arc<dyn Journal>) -> Vec<Bytes> {
    let records = frames(journal, 1).await.into_iter().flat_map(|frame| frame.records);
    records.filter(|record| record.kind != CLAIMED).map(|record| record.body).collect()
}

async fn keys(journal: &Arc<dyn Journal>) -> Vec<ContentKey> {
    let mut keys: Vec<_> = journal.keys(Duration::ZERO).map(|key| key.unwrap()).collect().await;
    keys.sort();
    keys
}

/// The next frame of a stream that must have one; a hang fails instead.
async fn next(frames: &mut BoxStream<'static, Result<Frame, ReadError>>) -> Frame {
    tokio::time::timeout(Duration::from_secs(20), frames.next()).await.unwrap().unwrap().unwrap()
}

fn manifest(batch: BatchNo, format: u16, parts: &[ContentKey]) -> Manifest {
    Manifest { batch, format, parts: parts.to_vec(), digest: Digest([1; 32]) }
}

async fn batches_are_numbered_without_a_gap(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    assert_eq!(writer.head(), BatchNo(1));

    for number in 2..300 {
        assert_eq!(append(&mut writer, "event").await, BatchNo(number));
    }

    let numbers: Vec<_> = frames(&journal, 1).await.iter().map(|frame| frame.number.0).collect();
    assert_eq!(numbers, (1..300).collect::<Vec<_>>());
}

async fn records_come_back_byte_for_byte(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let all: Vec<u8> = (0..=255).collect();
    let events = vec![
        Record { kind: 0, version: 0, body: Bytes::new() },
        Record { kind: CLAIMED - 1, version: u16::MAX, body: all.into() },
    ];

    let number =
        writer.append(Batch { events: events.clone(), contents: Vec::new() }).await.unwrap();

    assert_eq!(frames(&journal, number.0).await[0].records, events);
}

async fn frames_are_chained_by_digest(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    append(&mut writer, "one").await;
    append(&mut writer, "two").await;

    let frames = frames(&journal, 1).await;

    assert_eq!(frames[0].before, Digest::default());
    assert_eq!(frames[1].before, frames[0].digest);
    assert_eq!(frames[2].before, frames[1].digest);
    assert!(frames.iter().all(|frame| frame.journal == journal.identity().journal));
}

async fn a_batch_and_its_contents_are_all_or_nothing(place: &dyn Place) {
    let journal = place.open().await;
    let mut old = claim(&journal).await;
    let _new = claim(&journal).await;
    let content = Content::new("part").unwrap();
    let key = content.key();

    old.append(Batch { events: vec![record("lost")], contents: vec![content] }).await.unwrap_err();

    assert_eq!(bodies(&journal).await, Vec::<Bytes>::new());
    assert!(matches!(journal.get(key).await, Err(ReadError::Missing)));
}

async fn reading_begins_where_it_is_asked_to(place: &dyn Place) {
    let journal = place.open().await;
    assert_eq!(frames(&journal, 1).await, []);
    let mut writer = claim(&journal).await;
    append(&mut writer, "two").await;
    append(&mut writer, "three").await;

    assert_eq!(frames(&journal, 0).await.len(), 3);
    assert_eq!(frames(&journal, 2).await[0].records, [record("two")]);
    assert_eq!(frames(&journal, 3).await.len(), 1);
    assert_eq!(frames(&journal, 4).await, []);
    assert_eq!(journal.read(BatchNo(1), Until::Batch(BatchNo(2))).count().await, 2);
    assert_eq!(journal.read(BatchNo(3), Until::Batch(BatchNo(2))).count().await, 0);
}

async fn reading_until_a_batch_waits_for_it(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let mut reading = journal.read(BatchNo(1), Until::Batch(BatchNo(2)));
    next(&mut reading).await;
    assert!(reading.next().now_or_never().is_none());

    append(&mut writer, "two").await;
    append(&mut writer, "three").await;

    assert_eq!(next(&mut reading).await.number, BatchNo(2));
    assert!(reading.next().await.is_none());
}

async fn a_waiting_reader_wakes_at_every_append(place: &dyn Place) {
    let journal = place.open().await;
    let mut reading = journal.read(BatchNo(1), Until::Forever);
    assert!(reading.next().now_or_never().is_none());
    let mut writer = claim(&journal).await;
    assert_eq!(next(&mut reading).await.number, BatchNo(1));

    for number in 2..20 {
        let (seen, written) = tokio::join!(next(&mut reading), append(&mut writer, "event"));
        assert_eq!((seen.number, written), (BatchNo(number), BatchNo(number)));
    }
}

async fn a_reader_beside_a_busy_writer_misses_nothing(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let reading =
        journal.read(BatchNo(2), Until::Batch(BatchNo(1000))).map(|frame| frame.unwrap().number.0);

    let writing = async {
        for _ in 2..=1000 {
            append(&mut writer, "event").await;
        }
    };
    let (read, ()) = tokio::join!(reading.collect::<Vec<_>>(), writing);

    assert_eq!(read, (2..=1000).collect::<Vec<_>>());
}

/// A log of five batches, the first two of them truncated away.
async fn truncated(place: &dyn Place) -> (Arc<dyn Journal>, Box<dyn Writer>) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    for _ in 2..=5 {
        append(&mut writer, "event").await;
    }
    journal.publish(manifest(BatchNo(3), 1, &[])).await.unwrap();
    journal.publish(manifest(BatchNo(4), 1, &[])).await.unwrap();
    writer.truncate(BatchNo(3)).await.unwrap();
    (journal, writer)
}

async fn a_reader_below_the_first_kept_batch_is_told_the_gap(place: &dyn Place) {
    let (journal, _writer) = truncated(place).await;

    for until in [Until::Head, Until::Batch(BatchNo(2)), Until::Forever] {
        let mut reading = journal.read(BatchNo(2), until);
        let first = reading.next().await;
        assert!(
            matches!(first, Some(Err(ReadError::Gap { first: BatchNo(3) }))),
            "{until:?}: {first:?}"
        );
        assert!(reading.next().await.is_none(), "{until:?}");
    }
    assert_eq!(frames(&journal, 3).await.len(), 3);
}

async fn a_cursor_of_another_journal_is_refused(place: &dyn Place) {
    let journal = place.open().await;
    let ours = Cursor { journal: journal.identity().journal, batch: BatchNo(3), index: 1 };
    let other = Cursor { journal: JournalId([0; 16]), ..ours };

    assert!(matches!(journal.locate(ours), Ok(BatchNo(3))));
    assert!(matches!(journal.locate(other), Err(ReadError::Broken(Damage::OtherJournal { .. }))));
}

#[track_caller]
fn check_fenced(answer: &Result<BatchNo, AppendError>, by: u64, at: u64) {
    let is_fenced =
        matches!(answer, Err(AppendError::Fenced { by: b, at: a }) if (b.0, a.0) == (by, at));
    assert!(is_fenced, "{answer:?}");
}

async fn a_claim_fences_the_writer_before_it_for_ever(place: &dyn Place) {
    let journal = place.open().await;
    let mut old = claim(&journal).await;
    append(&mut old, "kept").await;
    let mut new = claim(&journal).await;
    assert_eq!((old.epoch(), new.epoch()), (Epoch(1), Epoch(2)));

    check_fenced(&old.append(batch("lost")).await, 2, 3);
    append(&mut new, "kept too").await;
    check_fenced(&old.append(batch("lost")).await, 2, 3);

    assert_eq!(bodies(&journal).await, ["kept", "kept too"]);
}

async fn a_claim_through_another_handle_fences_too(place: &dyn Place) {
    let (here, there) = (place.open().await, place.open().await);
    let mut old = claim(&here).await;
    let mut reading = here.read(BatchNo(2), Until::Forever);

    let mut new = claim(&there).await;
    append(&mut new, "kept").await;
    append(&mut new, "kept too").await;

    check_fenced(&old.append(batch("lost")).await, 2, 2);
    for number in 2..=4 {
        assert_eq!(next(&mut reading).await.number, BatchNo(number));
    }
}

async fn a_fenced_writer_is_fenced_even_if_the_claim_is_truncated(place: &dyn Place) {
    let journal = place.open().await;
    let mut old = claim(&journal).await;
    let mut new = claim(&journal).await;
    for _ in 3..=6 {
        append(&mut new, "kept").await;
    }
    journal.publish(manifest(BatchNo(4), 1, &[])).await.unwrap();
    journal.publish(manifest(BatchNo(5), 1, &[])).await.unwrap();
    new.truncate(BatchNo(4)).await.unwrap();

    check_fenced(&old.append(batch("lost")).await, 2, 2);
}

async fn an_append_given_up_kills_the_writer_and_the_claim_tells(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;

    assert!(writer.append(batch("maybe")).now_or_never().is_none());
    let after = writer.append(batch("never")).await;

    assert!(matches!(after, Err(AppendError::Unknown(Cause::Abandoned))), "{after:?}");
    let mut next = claim(&journal).await;
    let settled = bodies(&journal).await;
    assert!(settled == ["maybe"] || settled.is_empty(), "{settled:?}");
    append(&mut next, "after").await;
    assert_eq!(bodies(&journal).await, [settled, vec![Bytes::from("after")]].concat());
}

async fn contents_are_there_before_their_frame_is(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let mut reading = journal.read(BatchNo(2), Until::Forever);

    let contents: Vec<_> = (0..3_u8).map(|byte| Content::new(vec![byte; 1000]).unwrap()).collect();
    let wanted = contents.clone();
    let store = writer.append(Batch { events: vec![record("event")], contents });
    let read = async {
        next(&mut reading).await;
        for content in wanted {
            assert_eq!(journal.get(content.key()).await.unwrap(), content.bytes());
        }
    };
    let (stored, ()) = tokio::join!(store, read);

    stored.unwrap();
}

async fn a_content_that_is_not_there_is_missing(place: &dyn Place) {
    let journal = place.open().await;
    let known = Content::new("bytes").unwrap();
    let other_copy = Content::new("bytes").unwrap();

    journal.put(known).await.unwrap();

    assert!(matches!(journal.get(other_copy.key()).await, Err(ReadError::Missing)));
}

async fn contents_asked_for_together_are_answered_one_by_one(place: &dyn Place) {
    let journal = place.open().await;
    let [first, second, absent] = ["one", "two", "three"].map(|bytes| Content::new(bytes).unwrap());
    for content in [&first, &second] {
        journal.put(content.clone()).await.unwrap();
    }

    let keys = [&second, &absent, &first, &second].map(Content::key);
    let all = journal.get_all(keys.to_vec()).await;

    let all: Vec<Option<&[u8]>> = all
        .iter()
        .map(|one| match one {
            Ok(bytes) => Some(bytes.as_ref()),
            Err(ReadError::Missing) => None,
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(all, [Some(&b"two"[..]), None, Some(b"one"), Some(b"two")]);
    assert!(journal.get_all(Vec::new()).await.is_empty());
}

async fn the_same_content_twice_is_harmless(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let content = Content::new("bytes").unwrap();

    assert_eq!(journal.put(content.clone()).await.unwrap(), content.key());
    assert_eq!(journal.put(content.clone()).await.unwrap(), content.key());
    writer.append(Batch { events: Vec::new(), contents: vec![content.clone()] }).await.unwrap();

    assert_eq!(keys(&journal).await, [content.key()]);
    assert_eq!(journal.get(content.key()).await.unwrap(), "bytes");
}

async fn puts_and_claims_that_wait_together_are_all_done(place: &dyn Place) {
    let journal = place.open().await;
    let contents: Vec<_> = (0..20_u8).map(|byte| Content::new(vec![byte; 1000]).unwrap()).collect();

    let mut waiting = Vec::new();
    for content in &contents {
        waiting.push(journal.put(content.clone()).map(|put| put.map(drop).unwrap()).boxed());
        waiting.push(
            journal
                .claim(Claim::new(1, 1).unwrap())
                .map(|writer| writer.map(drop).unwrap())
                .boxed(),
        );
        waiting.push(journal.put(content.clone()).map(|put| put.map(drop).unwrap()).boxed());
    }
    futures::future::join_all(waiting).await;

    assert_eq!(frames(&journal, 1).await.len(), contents.len());
    for content in contents {
        assert_eq!(journal.get(content.key()).await.unwrap(), content.bytes());
    }
}

async fn forgetting_late_or_twice_is_harmless(place: &dyn Place) {
    let journal = place.open().await;
    let mut old = claim(&journal).await;
    let given_up = journal.put(Content::new("bytes").unwrap()).await.unwrap();
    let decided = append(&mut old, "given up").await;
    let mut new = claim(&journal).await;
    let again = journal.put(Content::new("bytes").unwrap()).await.unwrap();

    new.forget(decided, vec![given_up]).await.unwrap();
    new.forget(decided, vec![given_up]).await.unwrap();
    old.forget(decided, vec![given_up]).await.unwrap();

    assert!(matches!(journal.get(given_up).await, Err(ReadError::Missing)));
    assert_eq!(journal.get(again).await.unwrap(), "bytes");
}

async fn nothing_is_forgotten_for_a_batch_that_is_not_durable(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let key = journal.put(Content::new("bytes").unwrap()).await.unwrap();

    let refused = writer.forget(BatchNo(2), vec![key]).await;

    assert!(
        matches!(refused, Err(PutError::Undecided { batch: BatchNo(2), head: BatchNo(1) })),
        "{refused:?}"
    );
    assert!(journal.get(key).await.is_ok());
}

async fn keys_younger_than_the_grace_are_left_out(place: &dyn Place) {
    let journal = place.open().await;
    let mut put = Vec::new();
    for byte in 0..5_u8 {
        put.push(journal.put(Content::new(vec![byte]).unwrap()).await.unwrap());
    }
    put.sort();

    assert_eq!(keys(&journal).await, put);
    assert_eq!(journal.keys(Duration::from_secs(3600)).count().await, 0);
}

async fn truncation_stops_at_the_newest_snapshot_but_one(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    for _ in 2..=5 {
        append(&mut writer, "event").await;
    }
    let first_kept = |answer| match answer {
        Err(PutError::StillNeeded { first }) => first.0,
        other => panic!("{other:?}"),
    };

    assert_eq!(first_kept(writer.truncate(BatchNo(2)).await), 1);
    journal.publish(manifest(BatchNo(2), 1, &[])).await.unwrap();
    assert_eq!(first_kept(writer.truncate(BatchNo(2)).await), 1);
    journal.publish(manifest(BatchNo(4), 1, &[])).await.unwrap();
    assert_eq!(first_kept(writer.truncate(BatchNo(3)).await), 2);
    assert_eq!(frames(&journal, 1).await.len(), 5);

    writer.truncate(BatchNo(2)).await.unwrap();
    writer.truncate(BatchNo(2)).await.unwrap();
    writer.truncate(BatchNo(1)).await.unwrap();
    assert_eq!(frames(&journal, 2).await.len(), 4);
}

async fn numbers_go_on_rising_after_a_truncation(place: &dyn Place) {
    let (journal, mut writer) = truncated(place).await;
    assert_eq!(append(&mut writer, "six").await, BatchNo(6));
    drop((journal, writer));

    let journal = place.open().await;
    let writer = claim(&journal).await;

    assert_eq!((writer.epoch(), writer.head()), (Epoch(2), BatchNo(7)));
}

async fn an_older_snapshot_changes_nothing(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    append(&mut writer, "two").await;
    let newest = manifest(BatchNo(2), 1, &[]);

    assert_eq!(journal.snapshot(&[1]).await.unwrap(), None);
    journal.publish(newest.clone()).await.unwrap();
    journal.publish(manifest(BatchNo(1), 1, &[])).await.unwrap();
    journal.publish(Manifest { digest: Digest([2; 32]), ..newest.clone() }).await.unwrap();

    assert_eq!(journal.snapshot(&[1]).await.unwrap(), Some(newest));
    // The older one does not count as "the newest but one" either.
    assert!(writer.truncate(BatchNo(2)).await.is_err());
}

async fn a_snapshot_needs_its_parts_and_its_batch(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let decided = append(&mut writer, "two").await;
    let there = journal.put(Content::new("part").unwrap()).await.unwrap();
    let absent = Content::new("absent").unwrap().key();

    let missing = journal.publish(manifest(BatchNo(2), 1, &[there, absent])).await;
    assert!(matches!(missing, Err(PutError::Missing { key }) if key == absent), "{missing:?}");
    let early = journal.publish(manifest(BatchNo(3), 1, &[there])).await;
    assert!(matches!(early, Err(PutError::Undecided { batch: BatchNo(3), .. })), "{early:?}");

    journal.publish(manifest(BatchNo(1), 1, &[])).await.unwrap();
    journal.publish(manifest(BatchNo(2), 1, &[there])).await.unwrap();
    assert_eq!(journal.snapshot(&[1]).await.unwrap().unwrap().parts, [there]);
    writer.forget(decided, vec![there]).await.unwrap();
    assert_eq!(
        journal.snapshot(&[1]).await.unwrap().unwrap().batch,
        BatchNo(1),
        "an incomplete one is passed over"
    );
}

async fn a_snapshot_in_an_unknown_format_is_passed_over(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    append(&mut writer, "two").await;
    journal.publish(manifest(BatchNo(1), 1, &[])).await.unwrap();
    journal.publish(manifest(BatchNo(2), 9, &[])).await.unwrap();

    assert_eq!(journal.snapshot(&[1]).await.unwrap().unwrap().batch, BatchNo(1));
    assert_eq!(journal.snapshot(&[1, 9]).await.unwrap().unwrap().batch, BatchNo(2));
    assert_eq!(journal.snapshot(&[]).await.unwrap(), None);
}

async fn a_batch_over_a_limit_is_refused_and_the_writer_stays_good(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let part = |bytes: usize| Content::new(vec![1; bytes]).unwrap();
    let room = MAX_BATCH_BYTES - Batch::OVERHEAD - record("").framed_len();
    let with_contents = |body: usize| Batch {
        events: vec![record(vec![2; body])],
        contents: vec![part(MAX_CONTENT_BYTES), part(MAX_CONTENT_BYTES)],
    };

    for too_large in [
        Batch { events: vec![record("e"); MAX_EVENTS + 1], contents: Vec::new() },
        batch(vec![0; room + 1]),
        with_contents(room - 2 * MAX_CONTENT_BYTES + 1),
    ] {
        let refused = writer.append(too_large).await;
        assert!(matches!(refused, Err(AppendError::NotStored(Why::TooLarge))), "{refused:?}");
    }
    for largest in [
        Batch { events: vec![record("e"); MAX_EVENTS], contents: Vec::new() },
        batch(vec![0; room]),
        with_contents(room - 2 * MAX_CONTENT_BYTES),
    ] {
        writer.append(largest).await.unwrap();
    }
    assert_eq!(frames(&journal, 1).await.len(), 4);
}

async fn a_record_of_the_journals_own_kind_is_refused(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let forged = frames(&journal, 1).await[0].records.clone();
    assert_eq!(Claimed::parse(&forged[0]).unwrap().epoch, writer.epoch());

    let refused = writer.append(Batch { events: forged, contents: Vec::new() }).await;

    assert!(matches!(refused, Err(AppendError::NotStored(Why::Reserved))), "{refused:?}");
    append(&mut writer, "two").await;
}

async fn everything_is_there_after_a_reopen(place: &dyn Place) {
    let journal = place.open().await;
    let identity = journal.identity();
    let mut writer = claim(&journal).await;
    let content = Content::new("part").unwrap();
    let key = content.key();
    writer.append(Batch { events: vec![record("one")], contents: vec![content] }).await.unwrap();
    journal.publish(manifest(BatchNo(2), 1, &[key])).await.unwrap();
    let before = frames(&journal, 1).await;
    drop((journal, writer));

    let journal = place.open().await;

    assert_eq!(journal.identity(), identity);
    assert_eq!(frames(&journal, 1).await, before);
    assert_eq!(journal.get(key).await.unwrap(), "part");
    assert_eq!(journal.snapshot(&[1]).await.unwrap(), Some(manifest(BatchNo(2), 1, &[key])));
    let mut writer = claim(&journal).await;
    assert_eq!((writer.epoch(), writer.head()), (Epoch(2), BatchNo(3)));
    assert_eq!(append(&mut writer, "two").await, BatchNo(4));
}

async fn a_program_too_old_for_the_log_may_not_claim(place: &dyn Place) {
    let journal = place.open().await;
    let mut newer = journal.claim(Claim::new(2, 2).unwrap()).await.unwrap();

    let older = journal.claim(Claim::new(1, 1).unwrap()).await;

    assert!(matches!(older, Err(ClaimError::TooNew { version: 2 })), "{older:?}");
    append(&mut newer, "not fenced").await;
    drop((journal, newer));
    let journal = place.open().await;
    assert!(journal.claim(Claim::new(1, 1).unwrap()).await.is_err(), "remembered over a reopen");
    journal.claim(Claim::new(2, 1).unwrap()).await.unwrap();
    assert!(
        journal.claim(Claim::new(1, 1).unwrap()).await.is_err(),
        "an owner that writes less does not lower it"
    );
}

/// On a place of [`SMALL`] bytes.
async fn fill(place: &dyn Place) {
    let journal = place.open().await;
    let mut writer = claim(&journal).await;
    let mut stored = Vec::new();
    let full = loop {
        let contents: Vec<_> =
            (0..5_u8).map(|byte| Content::new(vec![byte; 20_000]).unwrap()).collect();
        let keys: Vec<_> = contents.iter().map(Content::key).collect();
        let room = writer.room();
        match writer.append(Batch { events: vec![record("event")], contents }).await {
            Ok(number) => stored.push((number, keys)),
            Err(err) => break err,
        }
        assert!(room.bytes >= 100_000, "{room:?} before batch {}", stored.len());
        assert!(writer.room().bytes < room.bytes);
    };

    assert!(matches!(full, AppendError::NotStored(Why::Full)), "{full:?}");
    let refused = journal.put(Content::new(vec![1; 100_000]).unwrap()).await;
    assert!(matches!(refused, Err(PutError::NotStored(Why::Full))), "{refused:?}");
    assert!(writer.room().bytes < 200_000, "{:?}", writer.room());
    assert_eq!(frames(&journal, 2).await.len(), stored.len());
    let mut keys_stored: Vec<_> = stored.iter().flat_map(|(_, keys)| keys).copied().collect();
    keys_stored.sort();
    assert_eq!(keys(&journal).await, keys_stored, "no content without its frame");

    let (decided, _) = stored[stored.len() - 1];
    let given_up = stored.drain(..5).flat_map(|(_, keys)| keys).collect();
    writer.forget(decided, given_up).await.unwrap();
    assert!(writer.room().bytes >= 400_000, "{:?}", writer.room());
    assert_eq!(append(&mut writer, "after").await, decided.next());
}
