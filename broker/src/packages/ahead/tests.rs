use std::sync::Arc;

use broker_proto::{
    Entry, EntryKind, NewPackage, NewSessionEntry, PackageFilter, PackageInfo, Part,
    PreparePackage, Preservation, RenderAsk, Role, UsageRecord,
};

use super::*;
use crate::{
    app::rehearsal::{Shell, model, soon},
    context::package::Signer,
    core::session::Expected,
    journal::{Why, faulty::Fault},
    session::{NewSession, Sessions},
};

fn ahead(shell: &Shell) -> Ahead {
    let sessions = Sessions {
        intake: shell.intake.clone(),
        indexes: Arc::default(),
        said: Arc::default(),
        slots: shell.slots.clone(),
        settings: Default::default(),
    };
    let packages = Packages {
        intake: shell.intake.clone(),
        sessions,
        signer: Signer::new(&[5; 32]),
        settings: Default::default(),
    };
    Ahead::new(packages, Settings::default(), mpsc::channel(1).1)
}

async fn say(ahead: &Ahead, id: &SessionId, text: &str) {
    let entry = Entry { role: Role::User, name: String::new(), parts: vec![Part::text(text)] };
    let turn = NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None };
    let sessions = &ahead.packages.sessions;
    soon(sessions.append(id, vec![turn], Expected::default(), None)).await.unwrap();
}

/// A session of `opus` that holds so many percent of its window, for whose limit nobody has made a package.
async fn near_its_limit(shell: &Shell, name: &str, percent: u64) -> SessionId {
    let ahead = ahead(shell);
    let id = SessionId::parse(name).unwrap();
    let new =
        NewSession { id: Some(id.clone()), model: Some(model("opus")), ..NewSession::default() };
    Box::pin(soon(ahead.packages.sessions.start(new))).await.unwrap();
    Box::pin(say(&ahead, &id, "We port the parser.")).await;
    let window = shell.intake.models.get("opus").unwrap().context_window;
    let usage = broker_proto::Usage {
        input_tokens: Some(window * percent / 100),
        ..broker_proto::Usage::default()
    };
    let what = UsageRecord::Tokens(usage);
    let record = usage::Record { model: Some(model("opus")), session: Some(name.into()), what };
    let command = Command::Usage(Box::new(usage::Command::Record(record)));
    Box::pin(soon(shell.engine.command(command))).await.unwrap();
    // Made later than what it is of.
    shell.clock.advance(Duration::from_secs(1));
    id
}

/// The next broker, so many minutes after the first began: its clock begins anew, and broker time never steps back.
async fn later(shell: Shell, minutes: u64) -> Shell {
    let shell = Shell::on(shell.end().await).await;
    shell.clock.advance(Duration::from_secs(60 * minutes));
    shell
}

async fn packages(shell: &Shell) -> Vec<PackageInfo> {
    soon(ahead(shell).packages.list(PackageFilter::default(), None, 0)).await.unwrap().0
}

#[tokio::test]
async fn what_a_stopped_broker_owed_is_made_at_the_next_start_and_only_once() {
    let shell = Shell::start().await;
    let near = near_its_limit(&shell, "near", 86).await;
    near_its_limit(&shell, "far", 80).await;
    assert_eq!(packages(&shell).await, []);

    let shell = later(shell, 1).await;
    let (stop, (_near, asked)) = (CancellationToken::new(), mpsc::channel(1));
    let running = Ahead::new(ahead(&shell).packages, Settings::default(), asked).run(stop.clone());
    let made = async {
        while packages(&shell).await.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(running, soon(made));
    let made = packages(&shell).await;
    assert_eq!(made.len(), 1, "{made:?}");
    let header = &made[0].header;
    assert_eq!((&header.session, &header.recipient), (&Some(near), &Some(model("sonnet"))));
    assert!(header.reason.starts_with("usage_limit: "), "{}", header.reason);

    let shell = later(shell, 2).await;
    assert_eq!(soon(ahead(&shell).catch_up()).await, Outcome::Made);
    assert_eq!(packages(&shell).await.len(), 1, "the one that is there is as good");
    shell.end().await;
}

#[tokio::test]
async fn a_package_that_the_session_went_on_from_is_made_anew() {
    let shell = Shell::start().await;
    let id = near_its_limit(&shell, "near", 86).await;
    let ahead = ahead(&shell);
    soon(ahead.catch_up()).await;
    shell.clock.advance(Duration::from_secs(1));
    say(&ahead, &id, "And then the printer.").await;
    shell.clock.advance(Duration::from_secs(1));

    let before = packages(&shell).await[0].header.id;

    assert_eq!(soon(ahead.catch_up()).await, Outcome::Made);

    let now = packages(&shell).await;
    assert_eq!(now.len(), 1, "the newer one is there in place of the other: {now:?}");
    assert_ne!(now[0].header.id, before);
    assert!(
        soon(ahead.packages.load(Some(now[0].header.id), PackageFilter::default())).await.is_ok()
    );
    shell.end().await;
}

/// A short one, or one for nobody, is no package that a model goes on with.
#[tokio::test]
async fn what_somebody_packed_for_less_does_not_count() {
    let shell = Shell::start().await;
    let session = near_its_limit(&shell, "near", 86).await;
    let ahead = ahead(&shell);
    let ask = RenderAsk {
        level: Preservation::Minimal,
        reader: Some(model("sonnet")),
        ..RenderAsk::default()
    };
    let prepare = PreparePackage { session, ask, package: NewPackage::default() };
    soon(ahead.packages.prepare("local".into(), prepare)).await.unwrap();

    soon(ahead.catch_up()).await;

    assert_eq!(packages(&shell).await.len(), 2);
    shell.end().await;
}

#[tokio::test]
async fn what_could_not_be_stored_stays_owed() {
    let shell = Shell::start().await;
    near_its_limit(&shell, "near", 86).await;
    let ahead = ahead(&shell);
    shell.script.then(Fault::NotStored(Why::Unavailable));
    assert_eq!(soon(ahead.catch_up()).await, Outcome::Owed);
    assert_eq!(packages(&shell).await, []);

    assert_eq!(soon(ahead.catch_up()).await, Outcome::Made);

    assert_eq!(packages(&shell).await.len(), 1);
    shell.end().await;
}

#[test]
fn what_stays_owed_is_looked_at_again_and_ever_less_often() {
    let now = Instant::now();
    let mut looks = Looks::new(now);
    assert_eq!(looks.next, Some(now));
    looks.looked(Outcome::Owed, now);
    assert_eq!(looks.next, Some(now + FIRST_WAIT));
    looks.looked(Outcome::Owed, now);
    assert_eq!(looks.next, Some(now + 2 * FIRST_WAIT));
    for _ in 0..20 {
        looks.looked(Outcome::Owed, now);
    }
    assert_eq!(looks.next, Some(now + LONGEST_WAIT));
    // Another one that fails meanwhile does not put it off.
    looks.at(now + 2 * LONGEST_WAIT);
    assert_eq!(looks.next, Some(now + LONGEST_WAIT));
    looks.at(now);
    assert_eq!(looks.next, Some(now));
    looks.looked(Outcome::Made, now);
    assert_eq!((looks.next, looks.wait), (None, FIRST_WAIT));
}
