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
        let size_bytes = bytes.len() as u64;
        let mut keys = Vec::new();
        let mut contents = Vec::new();
        let is_small = bytes.len() <= IN_BATCH;
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
        Ok(Stored { body: Body { keys: keys.into(), size_bytes }, contents })
    }

    /// The bytes of a body, compared with their hashes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not those that were stored.
    pub async fn load(&self, body: &Body) -> Result<Bytes, Error> {
        let mut pieces = Vec::with_capacity(body.keys.len());
        for key in &body.keys {
            if let Some(piece) = self.recent.get(key) {
                pieces.push(piece);
                continue;
            }
            let key = ContentKey::from_bytes(&key.0).ok_or(Error::Corrupt)?;
            let piece = self.journal.get(key).await.map_err(|error| match error {
                ReadError::CorruptContent { .. } | ReadError::Missing => Error::Corrupt,
                other => Error::Read(other),
            })?;
            pieces.push(piece);
        }
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
}
