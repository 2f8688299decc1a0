use std::{pin::pin, time::Duration};

use futures::poll;

use broker_proto::{
    ContentHash, Message, MessageId, MessageType, Part, PartRef, Payload, Recipient, WallTime,
    convert::Stored as _,
};

use super::{Sweep, Swept};
use crate::{
    app::rehearsal::{Shell, agent, letter, local, send, soon},
    core::{
        Command, Event, Subject,
        queue::{Body, Seq},
    },
    journal::{Content, ContentKey, ReadError},
};

fn sweep(shell: &Shell) -> Sweep {
    Sweep {
        journal: shell.journal.clone(),
        bodies: shell.bodies.clone(),
        engine: shell.engine.clone(),
        clock: shell.clock.clone(),
        parts: shell.intake.parts.clone(),
        grace: Duration::ZERO,
    }
}

async fn swept(shell: &Shell) -> Swept {
    soon(sweep(shell).once()).await.unwrap()
}

/// Uploads a part as `ContentService` does.
async fn upload(shell: &Shell, part: &Part) -> PartRef {
    let bytes = part.clone().encode();
    let (hash, size_bytes) = (ContentHash::of(&bytes), bytes.len() as u64);
    let stored = shell.bodies.store(bytes).await.unwrap();
    let command = Command::StoreContent { hash, body: stored.body };
    soon(shell.engine.with_contents(command, stored.contents)).await.unwrap();
    PartRef { hash, size_bytes }
}

async fn post(shell: &Shell, number: u128, part: Part) {
    let message = Message {
        to: Recipient::Agent(agent("reviewer")),
        kind: MessageType::Status,
        payload: Payload { request: vec![part], ..Payload::default() },
        ..crate::app::rehearsal::question(number, "?")
    };
    soon(shell.intake.send(&local(), message, true)).await.unwrap();
}

async fn is_there(shell: &Shell, part: PartRef) -> bool {
    let found = shell.intake.check_refs([&Part::Ref(part)]).await;
    found.is_ok()
}

/// Whether the store still has the bytes, whatever memory remembers.
async fn has_bytes(shell: &Shell, body: &Body) -> bool {
    let key = ContentKey::from_bytes(&body.keys[0].0).unwrap();
    match shell.journal.get(key).await {
        Ok(_) => true,
        Err(ReadError::Missing) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_part_that_nothing_refers_to_is_forgotten_and_others_stay() {
    let shell = Shell::start().await;
    let unused = upload(&shell, &Part::text("nobody wants it")).await;
    let used = upload(&shell, &Part::text("a message refers to it")).await;
    let inner = upload(&shell, &Part::text("a part that is used refers to it")).await;
    let result =
        Part::ToolResult { call_id: "c1".into(), parts: vec![Part::Ref(inner)], is_error: false };
    let outer = upload(&shell, &result).await;
    post(&shell, 1, Part::Ref(used)).await;
    post(&shell, 2, Part::Ref(outer)).await;
    let head = shell.engine.head();
    let body = shell.projection.content(unused.hash, head).await.unwrap().unwrap();

    assert_eq!(swept(&shell).await, Swept { parts: 1, contents: 1 });

    assert!(!is_there(&shell, unused).await);
    assert!(!has_bytes(&shell, &body).await);
    for part in [used, inner, outer] {
        assert!(is_there(&shell, part).await);
    }
    assert_eq!(swept(&shell).await, Swept::default(), "nothing is left for a second sweep");
    // Whoever needs it uploads it again.
    let again = upload(&shell, &Part::text("nobody wants it")).await;
    assert_eq!(again, unused);
    post(&shell, 3, Part::Ref(again)).await;
    assert_eq!(swept(&shell).await, Swept::default());
    assert!(is_there(&shell, again).await);
    shell.end().await;
}

#[tokio::test]
async fn what_is_young_enough_stays() {
    let shell = Shell::start().await;
    let part = upload(&shell, &Part::text("not yet")).await;
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let sweep = Sweep { grace: week, ..sweep(&shell) };
    assert_eq!(soon(sweep.once()).await.unwrap(), Swept::default());
    assert!(is_there(&shell, part).await);

    shell.clock.advance(week);
    let swept = soon(sweep.once()).await.unwrap();
    assert_eq!(swept.parts, 1);
    assert!(!is_there(&shell, part).await);
    shell.end().await;
}

#[tokio::test]
async fn contents_that_no_record_names_are_removed() {
    let shell = Shell::start().await;
    post(&shell, 1, Part::text("named")).await;
    let left_behind = Content::new(&b"its batch was never stored"[..]).unwrap();
    let key = soon(shell.journal.put(left_behind)).await.unwrap();

    assert_eq!(swept(&shell).await, Swept { parts: 0, contents: 1 });

    assert!(matches!(shell.journal.get(key).await, Err(ReadError::Missing)));
    shell.end().await;
}

#[tokio::test]
async fn what_a_purged_message_said_is_removed() {
    let shell = Shell::start().await;
    let stored = shell.bodies.store("gone with its message".into()).await.unwrap();
    let (body, other) = (stored.body, shell.bodies.store("kept".into()).await.unwrap());
    let command = send(crate::core::NewMessage { body: body.clone(), ..letter(1) });
    soon(shell.engine.with_contents(command, stored.contents)).await.unwrap();
    let command = send(crate::core::NewMessage { body: other.body.clone(), ..letter(2) });
    soon(shell.engine.with_contents(command, other.contents)).await.unwrap();
    assert_eq!(swept(&shell).await, Swept::default());

    let mut stock = super::walk::Stock::default();
    let subject = Subject { seq: Seq(1), id: MessageId::from_u128(1) };
    stock.note(&Event::Purged { subject, at: WallTime(1) });
    let walk = super::walk::Walk { journal: shell.journal.clone(), bodies: shell.bodies.clone() };
    let mut named = super::walk::Named::default();
    let mut wanted = super::find::Wanted::new([].into());
    let all = (crate::journal::BatchNo(1), shell.engine.head());
    walk.uses(all, &stock, &mut named, &mut wanted).await.unwrap();
    assert!(!named.has(&body.keys[0]) && named.has(&other.body.keys[0]));
    shell.end().await;
}

#[tokio::test]
async fn whoever_is_about_to_refer_to_a_part_comes_before_the_sweep() {
    let shell = Shell::start().await;
    let part = upload(&shell, &Part::text("about to be used")).await;
    let about = shell.intake.stay(&[Part::Ref(part)]).await.unwrap();
    let sweep = sweep(&shell);
    let mut sweeping = pin!(sweep.once());
    // It reads the journal, finds the part unused, and then waits for whoever holds it.
    while shell.intake.parts.try_read().is_ok() {
        assert!(poll!(sweeping.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }

    let payload = Payload { request: vec![Part::Ref(part)], ..Payload::default() };
    let stored = shell.bodies.store(payload.encode()).await.unwrap();
    let command = send(crate::core::NewMessage { body: stored.body, ..letter(1) });
    soon(shell.engine.with_contents(command, stored.contents)).await.unwrap();
    drop(about);

    assert_eq!(soon(sweeping).await.unwrap(), Swept::default());
    assert!(is_there(&shell, part).await);
    shell.end().await;
}

#[tokio::test]
async fn a_restart_after_a_sweep_reads_everything_that_is_left() {
    let shell = Shell::start().await;
    let unused = upload(&shell, &Part::text("unused")).await;
    let used = upload(&shell, &Part::text("used")).await;
    post(&shell, 1, Part::Ref(used)).await;
    assert_eq!(swept(&shell).await.parts, 1);

    let shell = Shell::on(shell.end().await).await;

    assert!(is_there(&shell, used).await);
    assert!(!is_there(&shell, unused).await);
    assert_eq!(swept(&shell).await, Swept::default());
    shell.end().await;
}

#[tokio::test]
async fn a_package_goes_with_its_bytes_when_it_is_deleted() {
    use crate::core::package::{Command as Package, sample::info};
    let shell = Shell::start().await;
    let stored = shell.bodies.store("a package".into()).await.unwrap();
    let save = || Package::Save { info: Box::new(info(3)), body: stored.body.clone(), of: None };
    let contents = stored.contents;
    soon(shell.engine.with_contents(Command::Package(save()), contents.clone())).await.unwrap();
    assert_eq!(swept(&shell).await, Swept::default());

    let delete = || Command::Package(Package::Delete(info(3).header.id));
    soon(shell.engine.command(delete())).await.unwrap();
    assert_eq!(swept(&shell).await, Swept { parts: 0, contents: 1 });
    assert!(!has_bytes(&shell, &stored.body).await);

    // What came back from its file stays.
    soon(shell.engine.with_contents(Command::Package(save()), contents)).await.unwrap();
    assert_eq!(swept(&shell).await, Swept::default());
    assert!(has_bytes(&shell, &stored.body).await);
    shell.end().await;
}

mod of_sessions {
    use std::sync::Arc;

    use broker_proto::{
        Entry, EntryKind, NewSessionEntry, OnConflict, Role, SessionEntry, SessionId, SessionPoint,
    };

    use super::*;
    use crate::{
        core::session::Expected,
        session::{Import, NewSession, Restore, Sessions},
    };

    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    fn sessions(shell: &Shell) -> Sessions {
        Sessions {
            intake: shell.intake.clone(),
            indexes: Arc::default(),
            said: Arc::default(),
            slots: shell.slots.clone(),
            settings: Default::default(),
        }
    }

    fn id(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    fn turn(text: &str) -> NewSessionEntry {
        let entry = Entry { role: Role::User, name: String::new(), parts: vec![Part::text(text)] };
        NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
    }

    /// So large that it is stored apart.
    fn large(text: &str) -> String {
        text.repeat(5_000)
    }

    async fn begin(shell: &Shell, name: &str) {
        let new = NewSession { id: Some(id(name)), ..NewSession::default() };
        soon(sessions(shell).start(new)).await.unwrap();
    }

    async fn say(shell: &Shell, name: &str, texts: &[&str]) {
        let turns = texts.iter().map(|text| turn(text)).collect();
        let (sessions, id) = (sessions(shell), id(name));
        soon(sessions.append(&id, turns, Expected::default(), None)).await.unwrap();
    }

    async fn fork(shell: &Shell, from: &str, entry: u64, name: &str) {
        let new = NewSession { id: Some(id(name)), ..NewSession::default() };
        let (sessions, from) = (sessions(shell), id(from));
        soon(sessions.fork(&from, &SessionPoint::Entry(entry), new)).await.unwrap();
    }

    async fn delete(shell: &Shell, name: &str) {
        soon(sessions(shell).delete(&id(name))).await.unwrap();
    }

    fn text(entry: &SessionEntry) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        entry.entry.parts.iter().map(text).collect()
    }

    async fn texts(shell: &Shell, name: &str, at: SessionPoint) -> Vec<String> {
        let sessions = sessions(shell);
        let head = soon(sessions.detail(&id(name), &at)).await.unwrap().info.head;
        soon(sessions.whole_entries(head)).await.unwrap().iter().map(text).collect()
    }

    async fn part_is_there(shell: &Shell, part: &str) -> bool {
        let bytes = Part::text(part).encode();
        is_there(shell, PartRef { hash: ContentHash::of(&bytes), size_bytes: bytes.len() as u64 })
            .await
    }

    #[tokio::test]
    async fn what_a_deleted_session_said_stays_as_long_as_a_fork_leads_through_it() {
        let shell = Shell::start().await;
        let (kept, lost, own) = (large("kept "), large("lost "), large("own "));
        begin(&shell, "origin").await;
        say(&shell, "origin", &["small", &kept]).await;
        say(&shell, "origin", &["and on", &lost]).await;
        fork(&shell, "origin", 1, "fork").await;
        say(&shell, "fork", &[&own]).await;
        assert_eq!(swept(&shell).await, Swept::default());

        delete(&shell, "origin").await;
        // What stood behind the fork's beginning: its part, and the body of that append.
        assert_eq!(swept(&shell).await, Swept { parts: 1, contents: 2 });
        assert!(!part_is_there(&shell, &lost).await);
        let said = ["small", &kept, &own].map(str::to_owned);
        assert_eq!(texts(&shell, "fork", SessionPoint::Head).await, said);

        let shell = Shell::on(shell.end().await).await;
        // The clock of the next one begins anew.
        shell.clock.advance(Duration::from_secs(60));
        assert_eq!(texts(&shell, "fork", SessionPoint::Head).await, said);
        delete(&shell, "fork").await;
        assert_eq!(swept(&shell).await, Swept { parts: 2, contents: 4 });
        assert_eq!(swept(&shell).await, Swept::default());
        shell.end().await;
    }

    #[tokio::test]
    async fn a_deleted_session_goes_a_week_later() {
        let shell = Shell::start().await;
        let part = large("for a while ");
        begin(&shell, "s").await;
        say(&shell, "s", &[&part]).await;
        shell.clock.advance(WEEK);
        delete(&shell, "s").await;
        let sweep = Sweep { grace: WEEK, ..sweep(&shell) };
        shell.clock.advance(WEEK - Duration::from_secs(1));
        assert_eq!(soon(sweep.once()).await.unwrap().parts, 0);
        assert!(part_is_there(&shell, &part).await);

        shell.clock.advance(Duration::from_secs(1));

        assert_eq!(soon(sweep.once()).await.unwrap().parts, 1);
        assert!(!part_is_there(&shell, &part).await);
        shell.end().await;
    }

    #[tokio::test]
    async fn every_version_of_a_living_session_stays() {
        let shell = Shell::start().await;
        let part = large("before the restore ");
        begin(&shell, "s").await;
        say(&shell, "s", &["first"]).await;
        say(&shell, "s", &[&part]).await;
        say(&shell, "s", &["last"]).await;
        let restore = Restore {
            id: id("s"),
            to: SessionPoint::Entry(0),
            expected: None,
            on_conflict: OnConflict::Fail,
            new_id: None,
        };
        soon(sessions(&shell).restore(restore)).await.unwrap();
        say(&shell, "s", &["another way"]).await;
        // One that is gone, so that the sweep has to look.
        begin(&shell, "other").await;
        say(&shell, "other", &["gone"]).await;
        delete(&shell, "other").await;

        assert_eq!(swept(&shell).await, Swept { parts: 0, contents: 1 });

        let then = texts(&shell, "s", SessionPoint::Version(4)).await;
        assert_eq!(then, ["first", &part, "last"]);
        assert_eq!(texts(&shell, "s", SessionPoint::Head).await, ["first", "another way"]);
        shell.end().await;
    }

    #[tokio::test]
    async fn the_same_conversation_comes_back_after_it_was_swept() {
        let shell = Shell::start().await;
        let part = large("once more ");
        begin(&shell, "s").await;
        // In two appends, and so in other bodies than an import's.
        say(&shell, "s", &["one"]).await;
        say(&shell, "s", &[&part]).await;
        delete(&shell, "s").await;
        assert_eq!(swept(&shell).await.parts, 1);

        let entries = vec![turn("one"), turn(&part)];
        let import = Import { id: Some(id("s")), entries, ..Import::default() };
        soon(sessions(&shell).import(import)).await.unwrap();

        // Read from the store, and not from what this one still remembers.
        let shell = Shell::on(shell.end().await).await;
        assert_eq!(texts(&shell, "s", SessionPoint::Head).await, ["one", &part]);
        assert_eq!(swept(&shell).await, Swept::default());
        assert_eq!(texts(&shell, "s", SessionPoint::Head).await, ["one", &part]);
        shell.end().await;
    }
}
