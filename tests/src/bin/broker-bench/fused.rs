//! What SQLite itself gives: enqueue, lease and settle of a group in one commit, with the journal's own settings.
//!
//! The layout is the least a queue needs: a table of messages, a table of leases, the body in the message's row.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

/// Messages in one commit.
pub(crate) const GROUP: usize = 16;

const TABLES: &str = "
    CREATE TABLE messages (seq INTEGER PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
    CREATE TABLE leases (seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, agent TEXT NOT NULL) STRICT;
    CREATE TABLE ready (place INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;";
/// As the journal's checkpoint thread keeps it, but here by the writer itself.
const PAGES: i64 = 4096;

/// A queue in a file.
#[derive(Debug)]
pub(crate) struct Fused {
    connection: Connection,
    body: Vec<u8>,
    next: i64,
}

impl Fused {
    /// A new file on the disk of `folder`, for bodies of `size` bytes.
    pub(crate) fn create(folder: &Path, size: usize) -> anyhow::Result<Self> {
        let connection = Connection::open(folder.join("bench-fused.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", PAGES)?;
        connection.execute_batch(TABLES)?;
        // What does not compress, as the disk may.
        let body = (0..size).map(|at| (at * 131 + at / 7) as u8).collect();
        Ok(Self { connection, body, next: 1 })
    }

    /// Groups one after the other for `slice`; gives how many messages went through.
    pub(crate) fn work(&mut self, slice: Duration) -> anyhow::Result<u64> {
        let until = Instant::now() + slice;
        let mut done = 0;
        while Instant::now() < until {
            self.group()?;
            done += GROUP as u64;
        }
        Ok(done)
    }

    fn group(&mut self) -> anyhow::Result<()> {
        let seqs = self.next..self.next + GROUP as i64;
        self.next = seqs.end;
        let commit = self.connection.transaction()?;
        {
            let mut enqueue = commit.prepare_cached("INSERT INTO messages VALUES (?1, 0, ?2)")?;
            let mut ready = commit.prepare_cached("INSERT INTO ready VALUES (?1, ?1)")?;
            let mut taken = commit.prepare_cached("DELETE FROM ready WHERE place = ?1")?;
            let mut lease = commit.prepare_cached("INSERT INTO leases VALUES (?1, 1, 'bench')")?;
            let mut end = commit.prepare_cached("DELETE FROM leases WHERE seq = ?1")?;
            let mut settle = commit.prepare_cached("DELETE FROM messages WHERE seq = ?1")?;
            for seq in seqs.clone() {
                enqueue.execute(params![seq, self.body])?;
                ready.execute([seq])?;
            }
            for seq in seqs.clone() {
                taken.execute([seq])?;
                lease.execute([seq])?;
            }
            // A group settles what the one before it leased, as a broker's batches do.
            for seq in seqs.map(|seq| seq - GROUP as i64).filter(|seq| *seq > 0) {
                end.execute([seq])?;
                settle.execute([seq])?;
            }
        }
        commit.commit()?;
        Ok(())
    }
}
