//! A connection on a thread of its own, fed with closures.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{Error, Place, schema};
use crate::journal::JournalId;

/// Counts the stores opened in memory.
static OPENED: AtomicU64 = AtomicU64::new(0);

pub(super) const FILE: &str = "projection.db";

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Runs closures on one connection, one after the other; ends with its last handle.
#[derive(Debug, Clone)]
pub(super) enum Worker {
    Thread {
        jobs: mpsc::SyncSender<Job>,
    },
    /// At once, where it is called: a simulation knows no threads.
    #[cfg(test)]
    Here(super::Rows),
}

/// Jobs waiting at most; callers beyond that wait for a place.
const JOBS: usize = 256;

impl Worker {
    fn start(name: &str, mut connection: Connection) -> Result<Self, Error> {
        let (tx, jobs) = mpsc::sync_channel::<Job>(JOBS);
        thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                while let Ok(job) = jobs.recv() {
                    job(&mut connection);
                }
            })
            .map_err(|source| Error::Create { path: name.into(), source })?;
        Ok(Self::Thread { jobs: tx })
    }

    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let jobs = match self {
            Self::Thread { jobs } => jobs,
            #[cfg(test)]
            Self::Here(rows) => return job(&mut rows.connection()),
        };
        let (done, answer) = oneshot::channel();
        let mut job: Job = Box::new(move |connection| {
            // A caller who has left is normal.
            let _ = done.send(job(connection));
        });
        loop {
            match jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::task::yield_now().await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Stopped),
            }
        }
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Closes the file; what is asked from now on is asked of nothing.
    pub(super) async fn close(&self) {
        let closed = self.call(|connection| {
            *connection = Connection::open_in_memory()?;
            Ok(())
        });
        // A worker that has ended has closed it.
        let _ = closed.await;
    }
}

/// Two workers on one store: the fold's and the readers'.
pub(super) fn open(place: Place, journal: JournalId) -> Result<(Worker, Worker), Error> {
    let (mut writer, reader) = match place {
        Place::Directory(directory) => {
            let create = |source| Error::Create { path: directory.clone(), source };
            fs::create_dir_all(&directory).map_err(create)?;
            let path = directory.join(FILE);
            let writer = Connection::open(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(create)?;
            (writer, Connection::open(&path)?)
        }
        Place::Memory => {
            // A name of its own: two that are open at once in one process must not fold into the same rows.
            let own = OPENED.fetch_add(1, Ordering::Relaxed);
            let name = format!("file:projection-{journal}-{own}?mode=memory&cache=shared");
            let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
            let writer = Connection::open_with_flags(&name, flags)?;
            let reader = Connection::open_with_flags(&name, flags)?;
            // A shared cache locks tables; a reader may look at what is being folded instead of failing.
            reader.pragma_update(None, "read_uncommitted", true)?;
            (writer, reader)
        }
        #[cfg(test)]
        Place::Rows(rows) => {
            schema::prepare(&mut rows.connection(), journal)?;
            return Ok((Worker::Here(rows.clone()), Worker::Here(rows)));
        }
    };
    schema::prepare(&mut writer, journal)?;
    reader.busy_timeout(std::time::Duration::from_secs(10))?;
    let writer = Worker::start("projection-fold", writer)?;
    let reader = Worker::start("projection-read", reader)?;
    Ok((writer, reader))
}
