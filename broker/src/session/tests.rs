use std::time::Duration;

use broker_proto::{
    Entry, EntryHash, EntryKind, OnConflict, Part, Role, SessionEntry, SessionHead, SessionOutcome,
    TaskList,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::*;
use crate::{
    app::rehearsal::{Shell, soon},
    journal::{BatchNo, Until},
    sweep::Sweep,
};

fn sessions(shell: &Shell) -> Sessions {
    Sessions {
        intake: shell.intake.clone(),
        indexes: Default::default(),
        said: Default::default(),
        slots: shell.slots.clone(),
        settings: Default::default(),
    }
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn turn(text: &str) -> NewSessionEntry {
    let entry = Entry { role: Role::User, name: String::new(), parts: vec![Part::text(text)] };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

fn turns(texts: &[&str]) -> Vec<NewSessionEntry> {
    texts.iter().map(|text| turn(text)).collect()
}

async fn start(sessions: &Sessions, name: &str) -> SessionId {
    let new = NewSession { id: Some(id(name)), ..NewSession::default() };
    soon(sessions.start(new)).await.unwrap().info.id
}

async fn append(sessions: &Sessions, id: &SessionId, texts: &[&str]) -> Session {
    soon(sessions.append(id, turns(texts), Expected::default(), None)).await.unwrap().session
}

async fn entries(sessions: &Sessions, id: &SessionId) -> Vec<SessionEntry> {
    let head = soon(sessions.get(id)).await.unwrap().info.head;
    soon(sessions.whole_entries(head)).await.unwrap()
}

async fn texts(sessions: &Sessions, id: &SessionId) -> Vec<String> {
    let said = entries(sessions, id).await;
    said.into_iter()
        .map(|entry| match &entry.entry.parts[..] {
            [Part::Text(text)] => text.clone(),
            parts => panic!("{parts:?}"),
        })
        .collect()
}

/// How many contents there are, and their bytes.
async fn stored(shell: &Shell) -> (usize, usize) {
    let keys: Vec<_> = shell.journal.keys(Duration::ZERO).try_collect().await.unwrap();
    let mut bytes = 0;
    for key in &keys {
        bytes += shell.journal.get(*key).await.unwrap().len();
    }
    (keys.len(), bytes)
}

/// Bytes of the records behind a batch.
async fn recorded(shell: &Shell, behind: BatchNo) -> usize {
    let frames = shell.journal.read(behind.next(), Until::Head);
    let sizes = frames
        .map(|frame| frame.unwrap().records.iter().map(|record| record.body.len()).sum::<usize>());
    sizes.collect::<Vec<usize>>().await.into_iter().sum()
}

#[tokio::test]
async fn a_long_session_that_grows_by_a_turn_writes_that_turn() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "long").await;
    let long: Vec<String> = (0..400).map(|n| format!("{n} {}", "word ".repeat(400))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let tokens = append(&sessions, &id, &long).await.info.tokens;
    assert!(tokens >= 200_000, "{tokens}");
    let (before, head) = (stored(&shell).await, shell.engine.head());

    append(&sessions, &id, &["and now?"]).await;

    let after = stored(&shell).await;
    assert_eq!(after.0 - before.0, 1, "one body");
    assert!(after.1 - before.1 < 64, "{} bytes of content", after.1 - before.1);
    let records = recorded(&shell, head).await;
    assert!(records < 700, "{records} bytes of records");
    shell.end().await;
}

#[tokio::test]
async fn a_part_is_stored_once_for_however_many_say_it() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let (one, other) = (start(&sessions, "one").await, start(&sessions, "other").await);
    let large = "the same file ".repeat(1000);
    append(&sessions, &one, &[&large]).await;
    let before = stored(&shell).await.1;

    append(&sessions, &other, &["look:", &large]).await;
    append(&sessions, &one, &[&large]).await;

    let grown = stored(&shell).await.1 - before;
    assert!(grown < 400, "{grown} bytes for {} said twice", large.len());
    assert_eq!(texts(&sessions, &other).await, ["look:", &large]);
    assert_eq!(texts(&sessions, &one).await, [large.clone(), large]);
    shell.end().await;
}

#[tokio::test]
async fn rows_that_are_folded_anew_tell_the_same() {
    let shell = Shell::start().await;
    let asked = sessions(&shell);
    let id = start(&asked, "s").await;
    append(&asked, &id, &["a", &"long ".repeat(2000), "c"]).await;
    let add = TaskEdit::Add { list: TaskList::Files, text: "src/lib.rs".into(), entry: Some(1) };
    soon(asked.edit(&id, &[TaskEdit::SetGoal("done".into()), add])).await.unwrap();
    let value = SharedValue {
        key: "k".into(),
        value: "[1]".into(),
        source: "me".into(),
        tags: vec!["t".into()],
        set_at: broker_proto::WallTime(0),
    };
    soon(asked.set_shared(&id, value)).await.unwrap();
    let fork = NewSession { id: Some(self::id("f")), ..NewSession::default() };
    soon(asked.fork(&id, &SessionPoint::Entry(1), fork)).await.unwrap();
    append(&asked, &self::id("f"), &["another way"]).await;
    start(&asked, "gone").await;
    soon(asked.delete(&self::id("gone"))).await.unwrap();
    let all = async |sessions: &Sessions| {
        let mut told = Vec::new();
        for name in ["s", "f"] {
            let id = self::id(name);
            let detail = soon(sessions.detail(&id, &SessionPoint::Head)).await.unwrap();
            let versions = soon(sessions.versions(&id, None, 100)).await.unwrap();
            told.push((detail, entries(sessions, &id).await, versions));
        }
        (told, soon(sessions.list(None, None, 10)).await.unwrap())
    };
    let before = all(&asked).await;

    let shell = Shell::on(shell.end().await).await;

    let after = all(&sessions(&shell)).await;
    assert_eq!(after, before);
    assert_eq!(after.1.0.len(), 2);
    append(&sessions(&shell), &id, &["and on"]).await;
    shell.end().await;
}

#[tokio::test]
async fn a_fork_and_a_restored_point_know_only_what_was_said_until_then() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    append(&sessions, &id, &["a", "b", "c"]).await;
    let add = |text: &str, entry| TaskEdit::Add {
        list: TaskList::Decisions,
        text: text.into(),
        entry: Some(entry),
    };
    soon(sessions.edit(&id, &[add("early", 0), add("late", 2)])).await.unwrap();

    let new = NewSession { id: Some(self::id("f")), ..NewSession::default() };
    let fork = soon(sessions.fork(&id, &SessionPoint::Entry(1), new)).await.unwrap();
    let (restored, outcome) = soon(sessions.restore(Restore {
        id: id.clone(),
        to: SessionPoint::Entry(1),
        expected: None,
        on_conflict: OnConflict::Fail,
        new_id: None,
    }))
    .await
    .unwrap();

    assert_eq!(outcome, SessionOutcome::Done);
    for (name, session) in [("f", fork), ("s", restored)] {
        assert_eq!(texts(&sessions, &self::id(name)).await, ["a", "b"]);
        let detail = soon(sessions.detail(&self::id(name), &SessionPoint::Head)).await.unwrap();
        let said: Vec<&str> = detail.task.decisions.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(said, ["early"], "{name}");
        assert_eq!(session.info.tokens, 2);
    }
    // What was there stays reachable.
    let before = soon(sessions.head_at(&id, &SessionPoint::Version(3))).await.unwrap();
    assert_eq!(before.entries, 3);
    let missing = soon(sessions.head_at(&id, &SessionPoint::Entry(2))).await;
    assert!(matches!(missing, Err(Error::NoPoint { .. })), "{missing:?}");
    shell.end().await;
}

#[tokio::test]
async fn a_point_is_found_by_the_beginning_of_its_hash() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    append(&sessions, &id, &["a", "b", "c"]).await;
    let hash = entries(&sessions, &id).await[1].hash.to_string();
    for digits in [&hash[..8], &hash[..]] {
        let at = SessionPoint::Hash(digits.to_owned());
        assert_eq!(soon(sessions.head_at(&id, &at)).await.unwrap().entries, 2);
    }
    let other = SessionPoint::Hash("00000000".into());
    assert!(matches!(soon(sessions.head_at(&id, &other)).await, Err(Error::NoPoint { .. })));
    shell.end().await;
}

fn import(name: &str, texts: &[&str], on_conflict: OnConflict) -> Import {
    Import { id: Some(id(name)), entries: turns(texts), on_conflict, ..Import::default() }
}

#[tokio::test]
async fn what_a_session_begins_with_is_not_imported_twice() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let fail = OnConflict::Fail;
    let (first, outcome) = soon(sessions.import(import("s", &["a", "b"], fail))).await.unwrap();
    assert_eq!((outcome, first.info.head.entries), (SessionOutcome::Done, 2));

    let (same, outcome) = soon(sessions.import(import("s", &["a", "b"], fail))).await.unwrap();
    assert_eq!((outcome, same), (SessionOutcome::Unchanged, first));

    let longer = import("s", &["a", "b", "c"], fail);
    let (_, outcome) = soon(sessions.import(longer)).await.unwrap();
    assert_eq!(outcome, SessionOutcome::Done);
    assert_eq!(texts(&sessions, &id("s")).await, ["a", "b", "c"]);
    shell.end().await;
}

/// A session that went on, and a conversation that went on otherwise.
async fn parted(shell: &Shell) -> (Sessions, SessionHead) {
    let sessions = sessions(shell);
    soon(sessions.import(import("s", &["a", "b"], OnConflict::Fail))).await.unwrap();
    let head = append(&sessions, &id("s"), &["went on"]).await.info.head;
    (sessions, head)
}

#[tokio::test]
async fn an_import_that_parts_from_a_session_is_refused_with_both_heads() {
    let shell = Shell::start().await;
    let (sessions, head) = parted(&shell).await;

    let refused = soon(sessions.import(import("s", &["a", "b", "x", "y"], OnConflict::Fail))).await;

    let Err(Error::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!((conflict.head, conflict.other.entries, conflict.common), (head, 4, 2));
    assert_ne!(conflict.other.hash, head.hash);
    assert_eq!(conflict.keys, ["entries.2-3"]);
    assert_eq!(texts(&sessions, &id("s")).await, ["a", "b", "went on"]);
    // So is one that the session has left behind.
    let behind = soon(sessions.import(import("s", &["a", "b"], OnConflict::Fail))).await;
    assert!(matches!(behind, Err(Error::Conflict(_))));
    shell.end().await;
}

#[tokio::test]
async fn an_import_that_parts_from_a_session_can_keep_it() {
    let shell = Shell::start().await;
    let (sessions, head) = parted(&shell).await;

    let done = soon(sessions.import(import("s", &["a", "x"], OnConflict::Keep))).await.unwrap();

    assert_eq!((done.1, done.0.info.head), (SessionOutcome::Kept, head));
    assert_eq!(texts(&sessions, &id("s")).await, ["a", "b", "went on"]);
    shell.end().await;
}

#[tokio::test]
async fn an_import_that_parts_from_a_session_can_replace_what_it_says() {
    let shell = Shell::start().await;
    let (sessions, head) = parted(&shell).await;
    let before = soon(sessions.get(&id("s"))).await.unwrap().info.version;

    let (_, outcome) =
        soon(sessions.import(import("s", &["a", "x"], OnConflict::Replace))).await.unwrap();

    assert_eq!(outcome, SessionOutcome::Replaced);
    assert_eq!(texts(&sessions, &id("s")).await, ["a", "x"]);
    let then = soon(sessions.head_at(&id("s"), &SessionPoint::Version(before))).await.unwrap();
    assert_eq!(then, head, "nothing is destroyed");
    shell.end().await;
}

#[tokio::test]
async fn an_import_that_parts_from_a_session_can_begin_another() {
    let shell = Shell::start().await;
    let (sessions, head) = parted(&shell).await;

    let fork = Import { new_id: Some(id("f")), ..import("s", &["a", "x"], OnConflict::Fork) };
    let (forked, outcome) = soon(sessions.import(fork)).await.unwrap();

    assert_eq!((outcome, forked.info.id), (SessionOutcome::Forked, id("f")));
    assert_eq!(texts(&sessions, &id("f")).await, ["a", "x"]);
    assert_eq!(soon(sessions.get(&id("s"))).await.unwrap().info.head, head);
    shell.end().await;
}

fn value(key: &str, value: &str) -> SharedValue {
    let (source, tags, set_at) = ("opus".into(), vec!["infra".into()], broker_proto::WallTime(0));
    SharedValue { key: key.into(), value: value.into(), source, tags, set_at }
}

/// What a package becomes: a conversation, what it is about, and what it shares.
fn carrying(name: &str, texts: &[&str], on_conflict: OnConflict) -> Import {
    let task = SessionTask { goal: "Move the database".into(), ..SessionTask::default() };
    Import { task, shared: vec![value("host", "1")], ..import(name, texts, on_conflict) }
}

/// Were it two commits, a crash between them would leave a conversation that nobody fills any more: taken in again it is
/// unchanged.
#[tokio::test]
async fn what_comes_with_a_conversation_is_taken_in_with_it_as_one_version() {
    let shell = Shell::start().await;
    let (sessions, _) = parted(&shell).await;
    soon(sessions.set_shared(&id("s"), value("own", "2"))).await.unwrap();
    let before = soon(sessions.get(&id("s"))).await.unwrap().info.version;
    let fork = Import { new_id: Some(id("f")), ..carrying("s", &["a", "x"], OnConflict::Fork) };
    for (import, version, shared) in [
        (carrying("new", &["a"], OnConflict::Fail), 1, &["host"][..]),
        (carrying("new", &["a", "b"], OnConflict::Fail), 2, &["host"]),
        (fork, 1, &["host"]),
        (carrying("s", &["a", "x"], OnConflict::Replace), before + 1, &["host", "own"]),
    ] {
        let taken = soon(sessions.import(import)).await.unwrap().0.info;

        assert_eq!(taken.version, version, "{}", taken.id);
        let detail = soon(sessions.detail(&taken.id, &SessionPoint::Head)).await.unwrap();
        assert_eq!(
            (detail.info.version, detail.task.goal.as_str()),
            (version, "Move the database")
        );
        let keys: Vec<&str> = detail.shared.iter().map(|value| value.key.as_str()).collect();
        assert_eq!(keys, shared, "{}", taken.id);
    }
    shell.end().await;
}

#[tokio::test]
async fn a_conversation_whose_task_or_values_have_no_room_leaves_nothing_behind() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let before = append(&sessions, &start(&sessions, "s").await, &["a"]).await;
    let item = |number: usize| broker_proto::SessionItem {
        id: 1,
        text: format!("step {number}"),
        is_done: false,
        entry: None,
    };
    let next_steps = (0..=task::MOST_ITEMS).map(item).collect();
    let task = SessionTask { next_steps, ..SessionTask::default() };
    let large = SessionTask { goal: "x".repeat(TASK + 1), ..SessionTask::default() };
    let deep = value("deep", &"[".repeat(100_000));
    for (name, texts) in [("s", &["a", "b"][..]), ("new", &["a"])] {
        let plain = import(name, texts, OnConflict::Fail);
        for refused in [
            Import { task: task.clone(), ..plain.clone() },
            Import { task: large.clone(), ..plain.clone() },
            Import { shared: vec![value("k", "1"), deep.clone()], ..plain.clone() },
            Import { shared: vec![value("k", &format!("\"{}\"", "x".repeat(SHARED)))], ..plain },
        ] {
            let refused = soon(sessions.import(refused)).await;
            assert!(
                matches!(refused, Err(Error::Edit(_) | Error::TooLarge { .. })),
                "{name}: {refused:?}"
            );
        }
    }
    assert_eq!(soon(sessions.get(&id("s"))).await.unwrap(), before);
    assert!(soon(sessions.get(&id("new"))).await.is_err());
    shell.end().await;
}

/// To the first entry, as of a version that is past; what came since is one entry, a goal and a value.
async fn stale(shell: &Shell, on_conflict: OnConflict) -> (Sessions, Restore) {
    let sessions = sessions(shell);
    let id = start(&sessions, "s").await;
    let seen = append(&sessions, &id, &["a", "b"]).await.info.version;
    append(&sessions, &id, &["went on"]).await;
    soon(sessions.edit(&id, &[TaskEdit::SetGoal("since".into())])).await.unwrap();
    soon(sessions.set_shared(&id, value("k", "1"))).await.unwrap();
    let (to, new_id) = (SessionPoint::Entry(0), Some(self::id("f")));
    let restore = Restore { id, to, expected: Some(seen), on_conflict, new_id };
    (sessions, restore)
}

#[tokio::test]
async fn restoring_what_went_on_is_refused_with_every_key() {
    let shell = Shell::start().await;
    let (sessions, restore) = stale(&shell, OnConflict::Fail).await;

    let refused = soon(sessions.restore(restore)).await;

    let Err(Error::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!((conflict.head.entries, conflict.other.entries, conflict.common), (3, 2, 2));
    assert_eq!(conflict.keys, ["entries.2", "task.goal", "shared.k"]);
    assert_eq!(texts(&sessions, &id("s")).await.len(), 3);
    shell.end().await;
}

#[tokio::test]
async fn restoring_what_went_on_can_keep_it() {
    let shell = Shell::start().await;
    let (sessions, restore) = stale(&shell, OnConflict::Keep).await;
    let (kept, outcome) = soon(sessions.restore(restore)).await.unwrap();
    assert_eq!((outcome, kept.info.head.entries), (SessionOutcome::Kept, 3));
    assert_eq!(texts(&sessions, &id("s")).await.len(), 3);
    shell.end().await;
}

#[tokio::test]
async fn restoring_what_went_on_can_replace_it() {
    let shell = Shell::start().await;
    let (sessions, restore) = stale(&shell, OnConflict::Replace).await;
    let (_, outcome) = soon(sessions.restore(restore)).await.unwrap();
    assert_eq!(outcome, SessionOutcome::Replaced);
    assert_eq!(texts(&sessions, &id("s")).await, ["a"]);
    shell.end().await;
}

#[tokio::test]
async fn restoring_what_went_on_can_begin_another() {
    let shell = Shell::start().await;
    let (sessions, restore) = stale(&shell, OnConflict::Fork).await;
    let (forked, outcome) = soon(sessions.restore(restore)).await.unwrap();
    assert_eq!((outcome, forked.info.id), (SessionOutcome::Forked, id("f")));
    assert_eq!(texts(&sessions, &id("f")).await, ["a"]);
    assert_eq!(texts(&sessions, &id("s")).await.len(), 3);
    shell.end().await;
}

#[tokio::test]
async fn entries_of_two_appends_are_never_mixed() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let append = |who: usize| {
        let (sessions, id) = (sessions.clone(), id.clone());
        async move {
            for round in 0..5 {
                let said = [0, 1, 2].map(|nr| turn(&format!("{who}.{round}.{nr}")));
                sessions.append(&id, said.into(), Expected::default(), None).await.unwrap();
            }
        }
    };

    soon(futures::future::join_all((0..8).map(append))).await;

    let said = texts(&sessions, &id).await;
    assert_eq!(said.len(), 8 * 5 * 3);
    for three in said.chunks(3) {
        let who = three[0].strip_suffix(".0").unwrap();
        assert_eq!(three, [0, 1, 2].map(|nr| format!("{who}.{nr}")));
    }
    shell.end().await;
}

#[tokio::test]
async fn edits_at_the_same_time_are_all_made() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let edit = |nr: usize| {
        let (sessions, id) = (sessions.clone(), id.clone());
        let add = TaskEdit::Add { list: TaskList::Files, text: format!("{nr}"), entry: None };
        async move { sessions.edit(&id, &[add]).await.map(|_| ()) }
    };

    let done = soon(futures::future::join_all((0..6).map(edit))).await;

    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let task = soon(sessions.detail(&id, &SessionPoint::Head)).await.unwrap().task;
    let ids: std::collections::BTreeSet<u32> = task.files.iter().map(|item| item.id).collect();
    assert_eq!(ids.len(), 6);
    shell.end().await;
}

#[tokio::test]
async fn what_is_decided_in_a_conversation_is_in_its_task_with_the_entry_that_says_it() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let first = import("s", &["Goal: Move the invoice service", "ok"], OnConflict::Fail);
    soon(sessions.import(first)).await.unwrap();
    append(&sessions, &id("s"), &["hello", "We agreed on 15 MB/s."]).await;
    let task = async || soon(sessions.detail(&id("s"), &SessionPoint::Head)).await.unwrap().task;
    let said = task().await;
    assert_eq!(said.goal, "Move the invoice service");
    let decided: Vec<_> = said.decisions.iter().map(|it| (it.text.as_str(), it.entry)).collect();
    assert_eq!(decided, [("We agreed on 15 MB/s.", Some(3))]);

    let mut advice = turns(&["We agreed on nothing less than 20 MB/s."]);
    advice[0].kind = EntryKind::Advice;
    soon(sessions.append(&id("s"), advice, Expected::default(), None)).await.unwrap();
    assert_eq!(task().await, said, "advice decides nothing");

    let other = import("s", &["Goal: Something else"], OnConflict::Replace);
    soon(sessions.import(other)).await.unwrap();
    let said = task().await;
    assert_eq!((said.goal.as_str(), said.decisions.len()), ("Something else", 0));

    append(&sessions, &id("s"), &["We agreed on 30 MB/s."]).await;
    let silent = import("s", &["hm", "hello", "ok"], OnConflict::Replace);
    soon(sessions.import(silent)).await.unwrap();
    assert_eq!(task().await.decisions, [], "no entry of this conversation says so");
    shell.end().await;
}

#[tokio::test]
async fn statements_of_appends_at_once_name_their_own_entries() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let append = |who: usize| {
        let (sessions, id) = (sessions.clone(), id.clone());
        let said = turns(&["hm", &format!("We decided to use port {who}000 for service {who}.")]);
        async move { sessions.append(&id, said, Expected::default(), None).await.map(|_| ()) }
    };

    let done = soon(futures::future::join_all((1..6).map(append))).await;

    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let said = texts(&sessions, &id).await;
    let task = soon(sessions.detail(&id, &SessionPoint::Head)).await.unwrap().task;
    assert_eq!(task.decisions.len(), 5);
    for item in &task.decisions {
        let at = usize::try_from(item.entry.unwrap()).unwrap();
        assert_eq!(said[at], item.text);
    }
    shell.end().await;
}

#[tokio::test]
async fn a_sweep_leaves_what_a_session_says() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let large = "kept ".repeat(4000);
    append(&sessions, &id, &["small", &large]).await;
    soon(sessions.edit(&id, &[TaskEdit::SetGoal("stay".into())])).await.unwrap();
    let sweep = Sweep {
        journal: shell.journal.clone(),
        bodies: shell.bodies.clone(),
        engine: shell.engine.clone(),
        clock: shell.clock.clone(),
        parts: shell.intake.parts.clone(),
        grace: Duration::ZERO,
    };

    soon(sweep.once()).await.unwrap();

    let shell = Shell::on(shell.end().await).await;
    let sessions = self::sessions(&shell);
    assert_eq!(texts(&sessions, &id).await, ["small", &large]);
    let detail = soon(sessions.detail(&id, &SessionPoint::Head)).await.unwrap();
    assert_eq!(detail.task.goal, "stay");
    shell.end().await;
}

#[tokio::test]
async fn entries_come_in_pages_that_join() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let said: Vec<String> = (0..25).map(|nr| nr.to_string()).collect();
    append(&sessions, &id, &said.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let head = soon(sessions.get(&id)).await.unwrap().info.head;
    let (mut from, mut numbers) = (0, Vec::new());
    loop {
        let page = soon(sessions.page(head, from, 10)).await.unwrap();
        numbers.extend(page.entries.iter().map(|entry| entry.number));
        let Some(next) = page.next else { break };
        from = next;
    }
    assert_eq!(numbers, (0..25).collect::<Vec<u64>>());
    let chain = entries(&sessions, &id).await;
    assert_eq!(chain[0].previous, EntryHash::NONE);
    assert!(chain.windows(2).all(|two| two[1].previous == two[0].hash));
    shell.end().await;
}

/// What was read before is not read again, and another head is no part of it.
#[tokio::test]
async fn a_history_reads_only_what_is_new() {
    let shell = Shell::start().await;
    let sessions = sessions(&shell);
    let id = start(&sessions, "s").await;
    let large = "large ".repeat(2_000);
    append(&sessions, &id, &["a", &large]).await;
    let history = async |sessions: &Sessions| {
        let made = sessions.history(&id, &SessionPoint::Head, None, "next".into());
        soon(made).await.unwrap().entries
    };
    let first = history(&sessions).await;
    let kept = sessions.said.get(&id).unwrap();
    assert_eq!(kept.head().entries, 2);

    append(&sessions, &id, &["c"]).await;
    let grown = history(&sessions).await;
    let all = sessions.said.get(&id).unwrap();
    assert_eq!((all.head().entries, &all.whole()[..2]), (3, kept.whole()));
    assert_ne!(grown, first);
    // Made from the store alone it is the same.
    assert_eq!(grown, history(&self::sessions(&shell)).await);

    let back = Restore {
        id: id.clone(),
        to: SessionPoint::Entry(0),
        expected: None,
        on_conflict: OnConflict::Fail,
        new_id: None,
    };
    soon(sessions.restore(back)).await.unwrap();
    append(&sessions, &id, &["another b", "another c", "and d"]).await;
    let other = history(&sessions).await;
    assert_eq!(other, history(&self::sessions(&shell)).await);
    assert_eq!(sessions.said.get(&id).unwrap().head().entries, 4);
    shell.end().await;
}
