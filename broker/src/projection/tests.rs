use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use broker_proto::{
    ContentHash, Counters, MessageId, MessageState, Numbered, ProducerName, Recipient, Sender,
    WallTime,
};

use super::{Error, Filter, FoldTask, Place, Projection, Row, Window, open};
use crate::{
    app::rehearsal::{agent, local, model, policy, soon},
    core::{
        Accepted, Copied, Event, FannedOut, Finished, State, Subject, apply,
        queue::{Body, Digest, Keys, Seq},
        usage::ModelTotals,
    },
    journal::{
        Batch, BatchNo, Claim, Journal, Writer,
        memory::{MemoryJournal, Store},
        record,
    },
};

pub(super) const AT: WallTime = WallTime(1_767_225_600_000);

/// A journal, and whoever writes it.
pub(super) struct Log {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) writer: Box<dyn Writer>,
    folder: tempfile::TempDir,
}

impl Log {
    pub(super) async fn new() -> Self {
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::open(&Store::new().unwrap()));
        let writer = journal.claim(Claim::new(1, 1).unwrap()).await.unwrap();
        Self { journal, writer, folder: tempfile::tempdir().unwrap() }
    }

    pub(super) async fn append(&mut self, events: &[Event]) -> BatchNo {
        let events = events.iter().map(record::encode).collect();
        self.writer.append(Batch { events, contents: vec![] }).await.unwrap()
    }

    pub(super) async fn open(&self) -> (Projection, FoldTask) {
        let place = Place::Directory(self.folder.path().to_owned());
        open(Arc::clone(&self.journal), place).await.unwrap()
    }

    /// Rows that have come to the end of the journal. What folds them stops.
    pub(super) async fn folded(&self) -> Projection {
        let (projection, fold) = self.open().await;
        let stop = CancellationToken::new();
        let folding = fold.run(stop.clone());
        let head = self.writer.head();
        let folded = async {
            soon(projection.living(head, |_| ())).await.unwrap();
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(folding, folded);
        ended.unwrap();
        projection
    }

    /// Rows that follow the journal.
    async fn following(&self) -> Projection {
        let (projection, fold) = self.open().await;
        #[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
        tokio::spawn(fold.run(CancellationToken::new()));
        projection
    }
}

pub(super) fn subject(seq: u64) -> Subject {
    Subject { seq: Seq(seq), id: MessageId::from_u128(u128::from(seq)) }
}

pub(super) fn accepted(seq: u64, to: Recipient) -> Event {
    Event::Accepted(Box::new(Accepted {
        subject: subject(seq),
        at: WallTime(AT.0 + seq),
        sender: local(),
        to,
        kind: broker_proto::MessageType::Status,
        priority: broker_proto::Priority::High,
        digest: Digest([9; 32]),
        body: Body { keys: Keys::default(), size_bytes: 5 },
        deadline: AT.after(std::time::Duration::from_secs(60)),
        session: Some("s".into()),
        ordering_key: None,
        correlation: broker_proto::Correlation::default(),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        expires_at: None,
        consultation: None,
        numbered: None,
        branch: None,
        budget: None,
    }))
}

pub(super) fn mailbox() -> Recipient {
    Recipient::Agent(agent("reviewer"))
}

pub(super) fn routed(seq: u64, wait_until: Option<WallTime>) -> Event {
    Event::Routed {
        subject: subject(seq),
        at: AT,
        queue: mailbox(),
        candidate: 0,
        wait_until,
        passed_over: vec![],
        why: "addressed".into(),
    }
}

pub(super) fn leased(seq: u64) -> Event {
    let (agent, instance) = (agent("reviewer"), "i".into());
    Event::Leased { subject: subject(seq), at: AT, epoch: 1, agent, instance, pulled: None }
}

pub(super) fn finished(seq: u64, state: MessageState) -> Event {
    Event::Finished(Box::new(Finished {
        subject: subject(seq),
        at: WallTime(AT.0 + 100),
        state,
        epoch: 1,
        summary: None,
        failure: None,
        reply: None,
        copies: 0,
    }))
}

/// I-27, I-33: what a restart needs of dead letters, and what was counted of everything that has ended.
#[tokio::test]
async fn dead_letters_are_kept_with_the_living_and_everything_is_counted() {
    let mut log = Log::new().await;
    for seq in 1..=5 {
        log.append(&[accepted(seq, mailbox()), routed(seq, None)]).await;
    }
    log.append(&[finished(1, MessageState::Done)]).await;
    let dead = (2..=4).map(|seq| finished(seq, MessageState::Dead));
    log.append(&dead.collect::<Vec<_>>()).await;
    log.append(&[Event::Purged { subject: subject(3), at: AT }]).await;
    let deadline = WallTime(AT.0 + 777);
    let redriven = Event::Redriven { subject: subject(4), at: AT, deadline, generation: 2 };
    log.append(&[redriven]).await;

    let projection = log.folded().await;
    let head = log.writer.head();
    let mut kept: Vec<u64> = Vec::new();
    let of = |event: &Event| event.subject().map(|subject| subject.seq.0);
    let living = projection.living(head, |event| kept.extend(of(event))).await.unwrap();

    kept.dedup();
    assert_eq!(kept, [2, 4, 5]);
    let [(recipient, counters)] = living.counters.as_slice() else { panic!("one recipient") };
    assert_eq!(*recipient, mailbox());
    let Counters { accepted, done, dead, purged, .. } = *counters;
    assert_eq!((accepted, done, dead, purged), (5, 1, 1, 1));
    let row = projection.find(local(), subject(4).id, head).await.unwrap().unwrap();
    assert_eq!((row.state, row.generation), (MessageState::Queued, 2));
    assert_eq!((row.accepted.deadline, row.finished), (deadline, None));
    let row = projection.find(local(), subject(3).id, head).await.unwrap().unwrap();
    assert_eq!(row.state, MessageState::Purged);
}

fn usage(calls: u64) -> Event {
    let totals = Box::new(ModelTotals { calls, ..ModelTotals::default() });
    Event::UsageChanged { model: model("opus"), at: AT, totals }
}

fn token(hash: u8) -> Event {
    Event::TokenChanged { agent: agent("reviewer"), at: AT, hash: Some([hash; 32]) }
}

/// One message in each state but two, facts that were replaced, and a content.
async fn history(log: &mut Log) {
    for seq in 1..=5 {
        log.append(&[accepted(seq, mailbox()), routed(seq, None)]).await;
    }
    log.append(&[usage(1), token(1)]).await;
    log.append(&[leased(1), leased(2), leased(3)]).await;
    log.append(&[finished(1, MessageState::Done), finished(4, MessageState::Cancelled)]).await;
    log.append(&[routed(3, Some(WallTime(AT.0 + 500)))]).await;
    let body = Body { keys: Keys::default(), size_bytes: 7 };
    let hash = ContentHash::of(b"part");
    log.append(&[usage(2), token(2), Event::ContentStored { hash, at: AT, body }]).await;
}

/// Every row, in a form that can be compared.
async fn rows(projection: &Projection, head: BatchNo) -> Vec<String> {
    let filter = Filter { limit: 100, ..Filter::default() };
    let page = projection.list(filter, head).await.unwrap();
    let mut living = Vec::new();
    projection.living(head, |event| living.push(event.clone())).await.unwrap();
    let rows = page.rows.iter().map(|row| format!("{row:?}"));
    rows.chain([format!("{living:?}")]).collect()
}

fn states(rows: &[Row]) -> Vec<(u64, MessageState)> {
    rows.iter().map(|row| (row.accepted.subject.seq.0, row.state)).collect()
}

#[tokio::test]
async fn rows_tell_the_state_of_every_message() {
    let mut log = Log::new().await;
    history(&mut log).await;
    let projection = log.folded().await;

    let filter = Filter { limit: 100, ..Filter::default() };
    let page = projection.list(filter, log.writer.head()).await.unwrap();

    assert_eq!(
        states(&page.rows),
        [
            (5, MessageState::Queued),
            (4, MessageState::Cancelled),
            (3, MessageState::Waiting),
            (2, MessageState::Leased),
            (1, MessageState::Done)
        ]
    );
    let mut infos = page.rows.into_iter().map(Row::info);
    let queued = infos.next().unwrap();
    assert_eq!((queued.queue, queued.finished_at), (Some(mailbox()), None));
    assert_eq!((queued.session.as_deref(), queued.size_bytes), (Some("s"), 5));
    let ended = infos.next().unwrap();
    assert_eq!((ended.queue, ended.finished_at), (None, Some(WallTime(AT.0 + 100))));
}

#[tokio::test]
async fn rows_are_the_same_after_a_reopen_and_after_folding_anew() {
    let mut log = Log::new().await;
    history(&mut log).await;
    let before = rows(&log.folded().await, log.writer.head()).await;

    assert_eq!(rows(&log.folded().await, log.writer.head()).await, before);

    // As if its files had been thrown away; those of the folds before may still be closing.
    log.folder = tempfile::tempdir().unwrap();
    assert_eq!(rows(&log.folded().await, log.writer.head()).await, before);
}

#[tokio::test]
async fn a_fold_goes_on_where_it_stopped() {
    let mut log = Log::new().await;
    log.append(&[accepted(1, mailbox()), routed(1, None)]).await;
    log.folded().await;
    log.append(&[leased(1)]).await;
    log.append(&[finished(1, MessageState::Done)]).await;

    let projection = log.folded().await;

    let row = projection.find(local(), subject(1).id, log.writer.head()).await.unwrap().unwrap();
    assert_eq!(row.state, MessageState::Done);
}

#[tokio::test]
async fn the_living_are_the_state() {
    let mut log = Log::new().await;
    history(&mut log).await;
    let projection = log.folded().await;

    let mut state = State::new(policy());
    let head = log.writer.head();
    let rest = projection.living(head, |event| apply(&mut state, event)).await.unwrap();

    assert_eq!(rest.last_seq, Seq(5));
    assert_eq!(state.queue.living(), [Seq(2), Seq(3), Seq(5)]);
    let found = [2, 3, 5].map(|seq| state.queue.get(Seq(seq)).unwrap().state());
    assert_eq!(found, [MessageState::Leased, MessageState::Waiting, MessageState::Queued]);
    assert_eq!(state.usage.get(&model("opus")).calls, 2);
    assert_eq!(state.agent.token(&agent("reviewer")).unwrap().hash, [2; 32]);
}

#[tokio::test]
async fn a_list_is_filtered_and_goes_on_where_a_page_ended() {
    let mut log = Log::new().await;
    history(&mut log).await;
    let other = Recipient::Model(model("opus"));
    log.append(&[accepted(6, other.clone())]).await;
    let projection = log.folded().await;
    let head = log.writer.head();
    let list = async |filter| projection.list(filter, head).await.unwrap();
    let seqs = |rows: &[Row]| rows.iter().map(|r| r.accepted.subject.seq.0).collect::<Vec<_>>();

    let done = vec![MessageState::Done, MessageState::Cancelled];
    let page = list(Filter { states: done, limit: 9, ..Filter::default() }).await;
    assert_eq!((seqs(&page.rows), page.next), (vec![4, 1], None));
    let page = list(Filter { to: Some(other), limit: 9, ..Filter::default() }).await;
    assert_eq!((seqs(&page.rows), page.next), (vec![6], None));

    let page = list(Filter { limit: 2, ..Filter::default() }).await;
    assert_eq!((seqs(&page.rows), page.next), (vec![6, 5], Some(Seq(5))));
    // What comes meanwhile moves no page.
    log.append(&[accepted(7, mailbox())]).await;
    let before = page.next;
    let page = list(Filter { limit: 4, before, ..Filter::default() }).await;
    assert_eq!((seqs(&page.rows), page.next), (vec![4, 3, 2, 1], None));
    let page = list(Filter { limit: 0, ..Filter::default() }).await;
    assert_eq!(seqs(&page.rows), [6]);
}

#[tokio::test]
async fn the_newest_message_of_an_id_is_found() {
    let mut log = Log::new().await;
    let again = |seq| match accepted(seq, mailbox()) {
        Event::Accepted(accepted) => {
            let subject = Subject { seq: Seq(seq), id: subject(1).id };
            Event::Accepted(Box::new(Accepted { subject, ..*accepted }))
        }
        other => other,
    };
    log.append(&[again(1)]).await;
    log.append(&[again(2)]).await;
    let projection = log.folded().await;
    let head = log.writer.head();

    let row = projection.find(local(), subject(1).id, head).await.unwrap().unwrap();

    assert_eq!(row.accepted.subject.seq, Seq(2));
    assert!(projection.find(local(), subject(9).id, head).await.unwrap().is_none());
}

/// In whatever order its ids come, in one fold or in several.
#[tokio::test]
async fn the_highest_id_of_each_sender_is_known() {
    let mut log = Log::new().await;
    let sent = |seq, id, from: &str| match accepted(seq, mailbox()) {
        Event::Accepted(accepted) => {
            let subject = Subject { seq: Seq(seq), id: MessageId::from_u128(id) };
            let sender = Sender::parse(from).unwrap();
            Event::Accepted(Box::new(Accepted { subject, sender, ..*accepted }))
        }
        other => other,
    };
    log.append(&[sent(1, 7, "ann"), sent(2, 300, "ann"), sent(3, 8, "ann")]).await;
    log.folded().await;
    log.append(&[sent(4, 299, "ann"), sent(5, 1 << 90, "bea")]).await;
    let projection = log.folded().await;

    for (sender, newest) in [("ann", Some(300)), ("bea", Some(1 << 90)), ("cleo", None)] {
        let found = projection.newest(Sender::parse(sender).unwrap()).await.unwrap();
        assert_eq!(found, newest.map(MessageId::from_u128), "{sender}");
    }
}

/// Each step of an event over a set is folded as if it had been written alone.
#[tokio::test]
async fn copies_of_a_message_to_all_have_rows_and_lives_of_their_own() {
    let mut log = Log::new().await;
    let Event::Accepted(original) = accepted(1, Recipient::AgentsOf(model("opus"))) else {
        panic!("accepted")
    };
    let copy = |seq, name| Copied { subject: subject(seq), agent: agent(name) };
    let copies = vec![copy(2, "opus-1"), copy(3, "opus-2")];
    let fanned = FannedOut { original: *original, copies };
    log.append(&[Event::FannedOut(Box::new(fanned)), leased(2)]).await;
    let projection = log.folded().await;
    let head = log.writer.head();

    let page = projection.list(Filter { limit: 9, ..Filter::default() }, head).await.unwrap();
    let want = [(3, MessageState::Queued), (2, MessageState::Leased), (1, MessageState::Done)];
    assert_eq!(states(&page.rows), want);
    let infos: Vec<_> = page.rows.into_iter().map(Row::info).collect();
    assert_eq!(infos[0].to, Recipient::Agent(agent("opus-2")));
    assert_eq!(infos[0].correlation.parent, Some(subject(1).id));
    assert_eq!(infos[2].copies, 2);

    let mut state = State::new(policy());
    projection.living(head, |event| apply(&mut state, event)).await.unwrap();
    assert_eq!(state.queue.living(), [Seq(2), Seq(3)]);
    assert_eq!(state.queue.get(Seq(2)).unwrap().state(), MessageState::Leased);
}

/// I-7: the window, and the sender.
#[tokio::test]
async fn a_message_sent_before_is_known_within_the_window() {
    let mut log = Log::new().await;
    log.append(&[accepted(1, mailbox())]).await;
    let projection = log.folded().await;
    let earlier = async |sender: Sender, since: u64| {
        let window = Window { since: WallTime(since), surely: WallTime(since), keys: 0 };
        projection.earlier(sender, subject(1).id, window).await.unwrap()
    };

    let found = earlier(local(), AT.0 + 1).await.unwrap();
    assert_eq!(found.digest, Digest([9; 32]));
    assert_eq!((found.receipt.accepted_at, found.receipt.is_duplicate), (WallTime(AT.0 + 1), true));
    assert!(earlier(local(), AT.0 + 2).await.is_none());
    assert!(earlier(Sender::parse("other").unwrap(), 0).await.is_none());
}

/// I-7: past so many keys the oldest are forgotten, and none of the last ten minutes.
#[tokio::test]
async fn past_the_bound_the_oldest_keys_go_first() {
    let mut log = Log::new().await;
    let all: Vec<Event> = (1..=10).map(|seq| accepted(seq, mailbox())).collect();
    log.append(&all).await;
    let projection = log.folded().await;
    let known = async |surely: u64| {
        let mut known = Vec::new();
        for seq in 1..=10 {
            let surely = WallTime(AT.0 + surely);
            let window = Window { since: WallTime(0), surely, keys: 3 };
            let found = projection.earlier(local(), subject(seq).id, window).await.unwrap();
            known.extend(found.map(|_| seq));
        }
        known
    };

    assert_eq!(known(1_000).await, [8, 9, 10]);
    assert_eq!(known(5).await, [5, 6, 7, 8, 9, 10]);
}

/// I-8: a producer's last 4,096 numbers, each with its receipt; and how far it has counted.
#[tokio::test]
async fn the_last_numbers_of_a_producer_are_kept_and_no_more() {
    let mut log = Log::new().await;
    let bulk = |number| Numbered { producer: ProducerName::parse("bulk").unwrap(), number };
    for number in [1, 2, 4_096, 4_098] {
        let Event::Accepted(mut new) = accepted(number, mailbox()) else { return };
        new.numbered = Some(bulk(number));
        log.append(&[Event::Accepted(new)]).await;
    }
    let projection = log.folded().await;
    let counted = async |sender: Sender, number| {
        let found = projection.counted(sender, bulk(number)).await.unwrap();
        found.map(|earlier| earlier.receipt.message_id)
    };

    assert_eq!(counted(local(), 1).await, Some(subject(1).id));
    assert_eq!(counted(local(), 2).await, None, "4,098 has taken its place");
    assert_eq!(counted(local(), 4_098).await, Some(subject(4_098).id));
    assert_eq!(counted(local(), 3).await, None);
    assert_eq!(counted(Sender::parse("other").unwrap(), 1).await, None);
    let producer = bulk(1).producer;
    assert_eq!(projection.highest_number(local(), producer.clone()).await.unwrap(), 4_098);
    let living = projection.living(log.writer.head(), |_| ()).await.unwrap();
    assert_eq!(living.producers, [(local(), producer, 4_098)]);
}

#[tokio::test]
async fn the_lease_that_ended_a_message_and_the_place_of_a_content_are_found() {
    let mut log = Log::new().await;
    history(&mut log).await;
    let projection = log.folded().await;
    let head = log.writer.head();
    assert_eq!(projection.ended(Seq(1), head).await.unwrap(), Some(1));
    assert_eq!(projection.ended(Seq(2), head).await.unwrap(), None);
    assert_eq!(projection.ended(Seq(99), head).await.unwrap(), None);
    let body = projection.content(ContentHash::of(b"part"), head).await.unwrap();
    assert_eq!(body.unwrap().size_bytes, 7);
    assert!(projection.content(ContentHash::of(b"other"), head).await.unwrap().is_none());
}

#[tokio::test]
async fn broker_time_is_the_highest_ever_stored() {
    let mut log = Log::new().await;
    log.append(&[accepted(7, mailbox())]).await;
    log.append(&[accepted(3, mailbox())]).await;
    assert_eq!(log.folded().await.broker_time().await.unwrap(), WallTime(AT.0 + 7));
    log.append(&[usage(1)]).await;
    assert_eq!(log.folded().await.broker_time().await.unwrap(), WallTime(AT.0 + 7));
}

#[tokio::test]
async fn an_answer_waits_for_the_batch_it_is_asked_for() {
    let mut log = Log::new().await;
    let projection = log.following().await;
    let next = log.writer.head().next();
    let events = [accepted(1, mailbox())];
    let find = soon(projection.find(local(), subject(1).id, next));
    let (found, _) = tokio::join!(find, log.append(&events));
    assert!(found.unwrap().is_some());
}

/// I-34: nobody waits for it here, and it does not rest before it is at the end.
#[tokio::test(start_paused = true)]
async fn a_fold_that_is_behind_rests_only_at_the_end() {
    let mut log = Log::new().await;
    let events = vec![token(1); 40];
    for _ in 0..1_200 {
        log.append(&events).await;
    }
    let head = log.writer.head();
    let begun = tokio::time::Instant::now();
    let projection = log.following().await;
    let mut applied = projection.applied.clone();
    applied.wait_for(|applied| *applied >= head).await.unwrap();
    assert!(begun.elapsed() <= super::GATHER, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_journal_that_lost_batches_is_noticed() {
    let mut log = Log::new().await;
    let head = log.append(&[accepted(1, mailbox())]).await;
    let projection = log.folded().await;
    let loaded = projection.living(BatchNo(head.0 - 1), |_| ()).await;
    assert!(matches!(loaded, Err(Error::Ahead { .. })), "{loaded:?}");
}

#[tokio::test]
async fn rows_of_another_journal_are_folded_anew() {
    let mut first = Log::new().await;
    history(&mut first).await;
    first.folded().await;
    let mut second = Log::new().await;
    second.append(&[accepted(1, mailbox())]).await;
    second.folder = first.folder;

    let projection = second.folded().await;

    let filter = Filter { limit: 9, ..Filter::default() };
    let page = projection.list(filter, second.writer.head()).await.unwrap();
    assert_eq!(states(&page.rows), [(1, MessageState::Queued)]);
}

#[tokio::test]
async fn a_damaged_row_says_what_to_do() {
    let mut log = Log::new().await;
    history(&mut log).await;
    log.folded().await;
    let rows = rusqlite::Connection::open(log.folder.path().join("projection.db")).unwrap();
    rows.execute("UPDATE messages SET accepted = x'ff' WHERE seq = 2", []).unwrap();
    rows.execute("UPDATE messages SET state = 99 WHERE seq = 3", []).unwrap();
    rows.execute("UPDATE messages SET life = x'ff' WHERE seq = 5", []).unwrap();
    let (projection, _fold) = log.open().await;
    let head = log.writer.head();

    for seq in [2, 3] {
        let error = projection.find(local(), subject(seq).id, head).await.unwrap_err();
        assert!(error.to_string().contains("delete `projection.db`"), "{error}");
    }
    let error = projection.living(head, |_| ()).await.unwrap_err();
    assert!(matches!(error, Error::Damaged), "{error}");
}

#[tokio::test]
async fn a_record_from_a_newer_program_stops_the_fold() {
    let mut log = Log::new().await;
    let mut record = record::encode(&usage(1));
    record.version = 99;
    log.writer.append(Batch { events: vec![record], contents: vec![] }).await.unwrap();
    let (projection, fold) = log.open().await;

    let folded = soon(fold.run(CancellationToken::new())).await;

    assert!(matches!(folded, Err(Error::Record { .. })), "{folded:?}");
    // Whoever waits for those rows is told, instead of waiting for ever.
    let found = soon(projection.find(local(), subject(1).id, log.writer.head())).await;
    assert!(matches!(found, Err(Error::Stopped)), "{found:?}");
}
