//! Bodies: bytes in, keys out, and back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::recent::Recent;
use crate::{
    core::queue::{Body, BodyKey},
    journal::{Content, ContentError, ContentKey, Journal, MAX_CONTENT_BYTES, PutError, ReadError},
};

/// Bodies up to this size ride in the batch of the command that names them; larger ones are put before it.
const IN_BATCH: usize = 64 * 1024;

/// Why a body cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot store the content")]
    Put(#[from] PutError),
    #[error("cannot prepare the content")]
    Prepare(#[from] ContentError),
    #[error("cannot read the content")]
    Read(#[from] ReadError),
    /// The stored bytes are not those that were acknowledged (I-5).
    #[error("CORRUPT: the stored content is not what was acknowledged")]
    Corrupt,
}

/// A body, and the pieces of it that must go into the batch which names it.
#[derive(Debug)]
pub struct Stored {
    pub body: Body,
    pub contents: Vec<Content>,
}

/// Stores and loads bodies.
#[derive(Debug, Clone)]
pub struct Bodies {
    journal: Arc<dyn Journal>,
    recent: Arc<Recent>,
}

impl Bodies {
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, recent: Arc::default() }
    }

    /// Prepares bytes for a batch; large ones are durable when this returns.
    ///
    /// # Errors
    /// [`Error::Put`] when the journal does not take them.
    pub async fn store(&self, bytes: Bytes) -> Result<Stored, Error> {
        let is_small = bytes.len() <= IN_BATCH;
        self.take(bytes, is_small).await
    }

    /// Stores bytes of any size at once, for a batch that would become too large with them.
    ///
    /// # Errors
    /// [`Error::Put`] when the journal does not take them.
    pub async fn store_before(&self, bytes: Bytes) -> Result<Stored, Error> {
        self.take(bytes, false).await
    }

    async fn take(&self, bytes: Bytes, is_small: bool) -> Result<Stored, Error> {
        let size_bytes = bytes.len() as u64;
        let mut keys = Vec::new();
        let mut contents = Vec::new();
        let mut rest = bytes;
        loop {
            let piece = rest.split_to(rest.len().min(MAX_CONTENT_BYTES));
            let content = Content::new(piece)?;
            let key = BodyKey(content.key().to_bytes());
            keys.push(key);
            if is_small {
                self.recent.keep(key, content.bytes().clone());
                contents.push(content);
            } else {
                self.journal.put(content).await?;
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok(Stored { body: Body { keys: keys.into_iter().collect(), size_bytes }, contents })
    }

    /// The bytes of a body, compared with their hashes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not those that were stored.
    pub async fn load(&self, body: &Body) -> Result<Bytes, Error> {
        self.load_all(&[body]).await.pop().unwrap_or(Err(Error::Corrupt))
    }

    /// Several bodies, each answered as by [`Bodies::load`]; the store is asked once for all it must give.
    pub async fn load_all(&self, bodies: &[&Body]) -> Vec<Result<Bytes, Error>> {
        let keys = || bodies.iter().flat_map(|body| &*body.keys);
        let kept: Vec<Option<Bytes>> = keys().map(|key| self.recent.get(key)).collect();
        let missing = keys().zip(&kept).filter(|(_, kept)| kept.is_none());
        // A key that is none names nothing that was stored.
        let missing = missing.filter_map(|(key, _)| ContentKey::from_bytes(&key.0)).collect();
        let mut read = self.read(missing).await.into_iter();
        let mut pieces = kept.into_iter().map(|kept| match kept {
            Some(piece) => Ok(piece),
            None => read.next().unwrap_or(Err(Error::Corrupt)),
        });
        bodies.iter().map(|body| assemble(body, pieces.by_ref().take(body.keys.len()))).collect()
    }

    async fn read(&self, keys: Vec<ContentKey>) -> Vec<Result<Bytes, Error>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let pieces = self.journal.get_all(keys).await.into_iter();
        pieces
            .map(|piece| {
                piece.map_err(|error| match error {
                    ReadError::CorruptContent { .. } | ReadError::Missing => Error::Corrupt,
                    other => Error::Read(other),
                })
            })
            .collect()
    }
}

/// A body of its pieces, all of which are taken even when one is not there.
fn assemble(
    body: &Body,
    pieces: impl Iterator<Item = Result<Bytes, Error>>,
) -> Result<Bytes, Error> {
    let pieces: Vec<Result<Bytes, Error>> = pieces.collect();
    let mut pieces = pieces.into_iter().collect::<Result<Vec<Bytes>, Error>>()?;
    let bytes = match pieces.len() {
        1 => pieces.pop().unwrap_or_default(),
        _ => pieces
            .iter()
            .fold(BytesMut::new(), |mut all, piece| {
                all.extend_from_slice(piece);
                all
            })
            .freeze(),
    };
    if bytes.len() as u64 == body.size_bytes { Ok(bytes) } else { Err(Error::Corrupt) }
}
