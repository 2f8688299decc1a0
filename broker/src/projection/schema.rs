//! The tables, and the marks that say whose they are.

use rusqlite::{Connection, OptionalExtension};

use super::{Error, sum};
use crate::journal::{BatchNo, JournalId};

/// Rises when the tables change; rows of another version are folded anew.
const VERSION: i64 = 10;

const TABLES: &str = "
    -- One row: whose rows these are, how far they go, the highest broker time and number among them, and what proves
    -- that the rows about what lives are all there and as they were folded (`sum.rs`).
    CREATE TABLE mark (
        journal TEXT NOT NULL,
        applied INTEGER NOT NULL,
        broker_time INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        seal INTEGER NOT NULL
    );
    -- One row for each message. `accepted` and `finished` are records as the journal has them.
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        sender TEXT NOT NULL,
        recipient TEXT NOT NULL,
        state INTEGER NOT NULL,
        queue TEXT NOT NULL,
        accepted_at INTEGER NOT NULL,
        ended_epoch INTEGER,
        deadline INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        accepted BLOB NOT NULL,
        -- Every step: see `fold::steps`. What a restart folds again is that of the living.
        life BLOB NOT NULL,
        finished BLOB,
        -- The state of the task that a delegation carries; NULL for any other message.
        task INTEGER,
        -- The sums of its steps, added.
        sum INTEGER NOT NULL
    );
    CREATE INDEX messages_by_id ON messages (id);
    CREATE INDEX messages_tasks ON messages (seq) WHERE task IS NOT NULL;
    -- Dead letters live again when they are redriven.
    CREATE INDEX messages_alive ON messages (seq) WHERE finished IS NULL OR state = 8;
    CREATE INDEX messages_dead ON messages (recipient, seq) WHERE state = 8;
    -- The highest id that each sender has used.
    CREATE TABLE senders (
        sender TEXT PRIMARY KEY,
        newest BLOB NOT NULL
    ) WITHOUT ROWID;
    -- How many messages were sent to each recipient (state 0), and how many of them have ended in which state.
    CREATE TABLE counters (
        recipient TEXT NOT NULL,
        state INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        PRIMARY KEY (recipient, state)
    ) WITHOUT ROWID;
    -- The last numbers of each bulk sender (I-8), in so many slots: a new one takes the place of the oldest.
    CREATE TABLE numbers (
        sender TEXT NOT NULL,
        producer TEXT NOT NULL,
        slot INTEGER NOT NULL,
        number INTEGER NOT NULL,
        id BLOB NOT NULL,
        digest BLOB NOT NULL,
        accepted_at INTEGER NOT NULL,
        deadline INTEGER NOT NULL,
        PRIMARY KEY (sender, producer, slot)
    ) WITHOUT ROWID;
    -- The newest record about each model, token and content.
    CREATE TABLE facts (
        subject TEXT PRIMARY KEY,
        kind INTEGER NOT NULL,
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        sum INTEGER NOT NULL
    ) WITHOUT ROWID;
    -- One row for each entry that any session has or had, by its hash; `number` is how many come before it. Its bytes
    -- are a stretch of a body, whose keys are 40 bytes each.
    CREATE TABLE entries (
        hash BLOB PRIMARY KEY,
        previous BLOB NOT NULL,
        number INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        total_tokens INTEGER NOT NULL,
        total_bytes INTEGER NOT NULL,
        keys BLOB NOT NULL,
        body_bytes INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL
    ) WITHOUT ROWID;
    -- Every version of each session there is, and the newest of each by when it came.
    CREATE TABLE versions (
        session TEXT NOT NULL,
        version INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        head BLOB NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (session, version)
    ) WITHOUT ROWID;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        changed_at INTEGER NOT NULL,
        owner TEXT NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX sessions_by_change ON sessions (changed_at, id);
    -- One row for each call, by its place in the journal; `record` is as the journal has it.
    CREATE TABLE ledger (
        batch INTEGER NOT NULL,
        place INTEGER NOT NULL,
        at INTEGER NOT NULL,
        model TEXT NOT NULL,
        key TEXT NOT NULL,
        session TEXT,
        agent TEXT,
        message BLOB,
        outcome TEXT NOT NULL,
        kind INTEGER NOT NULL,
        version INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (batch, place)
    ) WITHOUT ROWID;
    -- A restart loads what lives, and the dead, who may live again. What comes is summed by the fold.
    CREATE TRIGGER message_changed AFTER UPDATE ON messages BEGIN
        UPDATE mark SET sum = (sum + 1099511627776
            + iif(NEW.finished IS NULL OR NEW.state = 8, NEW.sum, 0)
            - iif(OLD.finished IS NULL OR OLD.state = 8, OLD.sum, 0)) % 1099511627776;
    END;
    CREATE TRIGGER fact_came BEFORE INSERT ON facts WHEN NEW.subject NOT LIKE 'content/%' BEGIN
        UPDATE mark SET sum = (sum + NEW.sum + 1099511627776
            - coalesce((SELECT sum FROM facts WHERE subject = NEW.subject), 0)) % 1099511627776;
    END;
    -- Not for what a new fact replaces.
    CREATE TRIGGER fact_went AFTER DELETE ON facts WHEN OLD.subject NOT LIKE 'content/%' BEGIN
        UPDATE mark SET sum = (sum + 1099511627776 - OLD.sum) % 1099511627776;
    END;
";

/// Makes the tables, or makes them anew when they are another journal's or another version's.
pub(super) fn prepare(connection: &mut Connection, journal: JournalId) -> Result<(), Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The journal is what is durable; after a power cut these rows are only a little older.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // 32 MiB: a checkpoint syncs, and so holds up the journal's own sync on the same disk.
    connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let owner: Option<String> = if version == VERSION {
        connection.query_row("SELECT journal FROM mark", [], |row| row.get(0)).optional()?
    } else {
        None
    };
    if owner.as_deref() == Some(journal.to_string().as_str()) {
        return if sum::is_sealed(connection)? { Ok(()) } else { Err(Error::Damaged) };
    }
    let transaction = connection.transaction()?;
    let tables = ["mark", "messages", "senders", "counters", "events", "numbers", "facts"];
    for table in tables.into_iter().chain(["entries", "versions", "sessions", "ledger"]) {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
    }
    transaction.execute_batch(TABLES)?;
    let mark = "INSERT INTO mark VALUES (?1, 0, 0, 0, 0, 0)";
    transaction.execute(mark, [journal.to_string()])?;
    sum::seal(&transaction)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn applied(connection: &Connection) -> Result<BatchNo, Error> {
    let applied: i64 = connection.query_row("SELECT applied FROM mark", [], |row| row.get(0))?;
    Ok(BatchNo(u64::try_from(applied).map_err(|_| Error::Damaged)?))
}
