use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::{Bodies, Error};
use crate::{
    core::queue::{Body, BodyKey},
    journal::{
        Batch, Claim, Content, Journal, Record,
        faulty::{Faulty, Script},
        memory::{MemoryJournal, Store},
    },
};

const KIB: usize = 1024;

fn bodies() -> (Bodies, Arc<dyn Journal>, Script) {
    let journal = Faulty::new(Arc::new(MemoryJournal::open(&Store::new().unwrap())));
    let script = journal.script();
    let journal: Arc<dyn Journal> = Arc::new(journal);
    (Bodies::new(Arc::clone(&journal)), journal, script)
}

/// Bytes of which no two pieces are alike.
fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at / 7 + at / 1009) as u8).collect::<Vec<_>>().into()
}

async fn commit(journal: &Arc<dyn Journal>, contents: Vec<Content>) {
    let mut writer = journal.claim(Claim::new(1, 1).unwrap()).await.unwrap();
    let events = vec![Record { kind: 1, version: 1, body: Bytes::new() }];
    writer.append(Batch { events, contents }).await.unwrap();
}

#[tokio::test]
async fn a_body_of_any_size_is_read_back() {
    for (length, in_batch, put) in [
        (0, 1, 0),
        (1, 1, 0),
        (64 * KIB, 1, 0),
        (64 * KIB + 1, 0, 1),
        (256 * KIB, 0, 1),
        (256 * KIB + 1, 0, 2),
        (700 * KIB, 0, 3),
    ] {
        let (bodies, journal, script) = bodies();

        let stored = bodies.store(bytes(length)).await.unwrap();

        assert_eq!((stored.contents.len(), script.puts()), (in_batch, put), "{length}");
        assert_eq!(stored.body.size_bytes, length as u64);
        commit(&journal, stored.contents).await;
        assert_eq!(bodies.load(&stored.body).await.unwrap(), bytes(length), "{length}");
    }
}

#[tokio::test]
async fn a_small_body_is_nowhere_before_its_batch() {
    let (bodies, journal, _) = bodies();
    let stored = bodies.store(bytes(9)).await.unwrap();
    assert_eq!(journal.keys(std::time::Duration::ZERO).count().await, 0);
    let another = Bodies::new(journal);
    assert!(matches!(another.load(&stored.body).await, Err(Error::Corrupt)));
}

/// I-5.
#[tokio::test]
async fn a_body_that_is_not_what_was_stored_is_corrupt() {
    let (bodies, _, _) = bodies();
    let Body { keys, size_bytes } = bodies.store(bytes(600 * KIB)).await.unwrap().body;
    let with = |keys: Vec<BodyKey>| Body { keys: keys.into_iter().collect(), size_bytes };
    let whole = keys.to_vec();
    let mut missing = whole.clone();
    missing[1] = BodyKey([7; 40]);

    for body in [
        with(missing),
        with(whole[..2].to_vec()),
        with([&whole[..], &whole[..1]].concat()),
        with(vec![]),
        Body { keys: keys.clone(), size_bytes: size_bytes - 1 },
    ] {
        let loaded = bodies.load(&body).await;
        assert!(matches!(loaded, Err(Error::Corrupt)), "{loaded:?}");
    }
}

#[tokio::test]
async fn a_full_store_takes_no_large_body() {
    let store = Store::with_capacity(300 * KIB as u64).unwrap();
    let bodies = Bodies::new(Arc::new(MemoryJournal::open(&store)));
    let stored = bodies.store(bytes(700 * KIB)).await;
    assert!(matches!(stored, Err(Error::Put(_))), "{stored:?}");
}
