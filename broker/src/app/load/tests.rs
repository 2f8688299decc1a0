//! Copies of a store that was killed, damaged at random: either all that was acknowledged is there, or it is refused.

use std::{collections::BTreeMap, fs, path::Path};

use broker_proto::{MessageId, MessageState};
use tempfile::TempDir;

use super::*;
use crate::{
    app::rehearsal::{consultation, letter, local, policy, send, soon},
    core::{Command, Effect, Event, NewMessage, queue::Seq},
    engine::{Clock, Outlet, Returned, SystemClock},
    journal::{self, OpenError, Options},
};

const FILES: [&str; 5] =
    ["journal.db", "journal.db-wal", "journal.acked", "projection.db", "projection.db-wal"];

const MESSAGES: u128 = 200;

struct Silent;

impl Outlet for Silent {
    fn carry_out(&mut self, _: Effect) -> Option<Returned> {
        None
    }

    fn reset(&mut self) -> Vec<Command> {
        Vec::new()
    }
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for file in FILES.into_iter().filter(|file| from.join(file).exists()) {
        fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    to
}

/// What a broker that was killed left, how each message stood that it had acknowledged, and what lives.
struct Left {
    store: TempDir,
    acked: BTreeMap<u128, MessageState>,
    living: Vec<Event>,
}

async fn killed() -> Left {
    let place = TempDir::new().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let options = Options::Sqlite { directory: place.path().to_owned(), capacity: None };
    let journal = journal::open(options).await.unwrap();
    let rows = Place::Directory(place.path().to_owned());
    let loaded = load(&journal, &rows, &policy(), &tasks, &stop).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let projection = loaded.projection.clone();
    let (engine, task) =
        engine::engine(loaded.state, loaded.writer, projection.clone(), clock, Box::new(Silent));
    tasks.spawn(task.run(stop.clone()));
    let mut acked = BTreeMap::new();
    for number in 1..=MESSAGES {
        if number == MESSAGES - 20 {
            // What follows is in the WAL only, what was before in the file too.
            projection.living(engine.head(), |_| ()).await.unwrap();
            for file in ["journal.db", "projection.db"] {
                let connection = rusqlite::Connection::open(place.path().join(file)).unwrap();
                connection.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
            }
        }
        let new = if number % 3 == 0 { consultation(number) } else { letter(number) };
        let label = ("about".to_owned(), "some text that somebody wrote ".repeat(8));
        let new = NewMessage { labels: [label].into(), ..new };
        soon(engine.command(send(new))).await.unwrap();
        acked.insert(number, MessageState::Queued);
        if number % 4 == 0 {
            let cancel = Command::Cancel { sender: local(), id: MessageId::from_u128(number) };
            soon(engine.command(cancel)).await.unwrap();
            acked.insert(number, MessageState::Cancelled);
        }
    }
    let mut living = Vec::new();
    let take = |event: &Event| living.push(event.clone());
    projection.living(engine.head(), take).await.unwrap();
    let store = copy(place.path());
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Left { store, acked, living }
}

/// SplitMix64, as in `sim/step.rs`.
fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from(mixed >> 33).unwrap()
}

/// Flips a bit, or cuts the end off; says what and where.
fn harm(store: &Path, seed: u64) -> String {
    let mut state = seed;
    let files: Vec<_> = FILES.into_iter().filter(|file| store.join(file).exists()).collect();
    let file = files[random(&mut state) % files.len()];
    let mut bytes = fs::read(store.join(file)).unwrap();
    if bytes.is_empty() {
        return format!("{file} is empty");
    }
    let at = random(&mut state) % bytes.len();
    let what = if random(&mut state).is_multiple_of(8) {
        bytes.truncate(at);
        format!("seed {seed}: {file} is cut at {at}")
    } else {
        let bit = random(&mut state) % 8;
        bytes[at] ^= 1 << bit;
        format!("seed {seed}: bit {bit} of byte {at} of {file} is flipped")
    };
    fs::write(store.join(file), bytes).unwrap();
    what
}

/// How a damaged store was met.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    Whole,
    /// The rows were put aside and folded anew.
    FoldedAnew,
    Refused,
}

async fn meet(store: &Path, left: &Left, what: &str) -> Met {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let options = Options::Sqlite { directory: store.to_owned(), capacity: None };
    let journal = match journal::open(options).await {
        Ok(journal) => journal,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("journal"), "{what}: {text}");
            assert!(!matches!(error, OpenError::NoRandomness(_)), "{what}");
            return Met::Refused;
        }
    };
    let rows = Place::Directory(store.to_owned());
    let loaded = match load(&journal, &rows, &policy(), &tasks, &stop).await {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!is_damage(&error), "{what}: rows are folded anew: {error}");
            assert!(error.to_string().contains("journal"), "{what}: {error}");
            return Met::Refused;
        }
    };
    let head = loaded.writer.head();
    let mut living = Vec::new();
    loaded.projection.living(head, |event| living.push(event.clone())).await.unwrap();
    assert_eq!(living, left.living, "{what}");
    for (number, state) in &left.acked {
        if state.is_terminal() {
            let id = MessageId::from_u128(*number);
            let row = loaded.projection.find(local(), id, head).await;
            let said = row.map(|row| row.map(|row| row.state));
            match said {
                Ok(said) if said == Some(*state) => {}
                // Rows about what has ended are not read at a start; whoever looks for damage finds it.
                other => {
                    let found = projection::check(store).await;
                    assert!(found.is_err(), "{what}: message {number} is {other:?}, was {state:?}");
                }
            }
        }
    }
    assert!(loaded.state.queue.next_seq() > Seq(MESSAGES as u64), "{what}: I-9");
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    if store.join("projection.db.damaged").exists() { Met::FoldedAnew } else { Met::Whole }
}

/// I-32, I-1, I-6, I-9.
#[tokio::test]
async fn damage_anywhere_is_refused_or_loses_nothing() {
    let left = killed().await;
    let mut met: BTreeMap<Met, u32> = BTreeMap::new();
    let harms = std::env::var("STORE_HARMS").map_or(150, |value| value.parse().unwrap());
    for seed in 0..harms {
        let store = copy(left.store.path());
        let what = harm(store.path(), seed);
        *met.entry(meet(store.path(), &left, &what).await).or_default() += 1;
    }
    assert_eq!(met.len(), 3, "{met:?}");
}
