//! `ContentService`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dashmap::DashMap;
use futures::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};

use broker_proto::{ContentHash, convert::InvalidField, pb};

use super::{reason, status};
use crate::{
    context::package::PACKED_MAX,
    core::{
        Command,
        queue::{Body, BodyKey},
    },
    engine,
    intake::Intake,
    journal::{Content, ContentKey, Journal, MAX_CONTENT_BYTES},
};

/// What a package has beside its parts, generously: the largest is uploaded, too.
const HEAD: u64 = 1 << 20;
/// Uploads under way at once.
const UPLOADS: usize = 256;
/// An upload nobody continues for this long is forgotten.
const IDLE: Duration = Duration::from_secs(600);

/// Uploads under way. Written by their callers, swept by the broker.
#[derive(Debug, Clone, Default)]
pub struct Uploads {
    open: Arc<DashMap<ContentHash, Upload>>,
}

#[derive(Debug)]
struct Upload {
    size: u64,
    received: u64,
    keys: Vec<BodyKey>,
    hasher: blake3::Hasher,
    touched: Instant,
}

impl Uploads {
    /// Forgets uploads that nobody continues. Safe to repeat.
    pub fn sweep(&self) {
        self.open.retain(|_, upload| upload.touched.elapsed() < IDLE);
    }
}

/// Stores and gives parts by hash.
#[derive(Debug)]
pub struct ContentService {
    pub intake: Intake,
    pub journal: Arc<dyn Journal>,
    pub uploads: Uploads,
}

impl ContentService {
    async fn stored(&self, hash: ContentHash) -> Result<Option<Body>, Status> {
        let head = self.intake.engine.head();
        self.intake.projection.content(hash, head).await.map_err(|error| status::projection(&error))
    }

    /// Adds a chunk; gives the whole body once it is all there.
    async fn add(
        &self,
        hash: ContentHash,
        size: u64,
        offset: u64,
        chunk: Bytes,
    ) -> Result<Added, Status> {
        let is_new = !self.uploads.open.contains_key(&hash);
        if is_new && self.uploads.open.len() >= UPLOADS {
            let wait = Duration::from_secs(1);
            return Err(reason::TOO_MANY_UPLOADS.after("too many uploads are under way", wait));
        }
        // Taken out while it is worked on, so that no guard is held while the chunk is stored.
        let upload = self.uploads.open.remove(&hash).map(|(_, upload)| upload);
        let mut upload = upload.filter(|upload| upload.size == size).unwrap_or_else(|| Upload {
            size,
            received: 0,
            keys: Vec::new(),
            hasher: blake3::Hasher::new(),
            touched: Instant::now(),
        });
        let received = upload.received;
        if offset < received {
            self.uploads.open.insert(hash, upload);
            return Ok(Added::Part { received });
        }
        if offset > received {
            self.uploads.open.insert(hash, upload);
            return Err(reason::UPLOAD_OUT_OF_ORDER
                .status(format!("the next chunk begins at byte {received}, not {offset}")));
        }
        let content = Content::new(chunk.clone())
            .map_err(|error| InvalidField::new("chunk", error.to_string()))?;
        upload.hasher.update(&chunk);
        upload.received += chunk.len() as u64;
        upload.keys.push(BodyKey(content.key().to_bytes()));
        upload.touched = Instant::now();
        self.journal.put(content).await.map_err(|error| status::context(&error.into()))?;
        if upload.received < size {
            let received = upload.received;
            self.uploads.open.insert(hash, upload);
            return Ok(Added::Part { received });
        }
        if ContentHash(*upload.hasher.finalize().as_bytes()) != hash {
            return Err(reason::HASH_MISMATCH.status("the bytes that arrived have another hash"));
        }
        Ok(Added::Whole(Body { keys: upload.keys.into_iter().collect(), size_bytes: size }))
    }
}

enum Added {
    Part { received: u64 },
    Whole(Body),
}

fn hash(bytes: &[u8]) -> Result<ContentHash, InvalidField> {
    let hash = bytes.try_into().map_err(|_| InvalidField::new("hash", "is not 32 bytes"))?;
    Ok(ContentHash(hash))
}

fn check(request: &pb::UploadChunkRequest, most: u64) -> Result<(), Status> {
    let size = request.size_bytes;
    if size > most {
        return Err(reason::too_large(
            format!("a part of {size} bytes is over the limit of {most}"),
            most,
        ));
    }
    if size == 0 {
        return Err(InvalidField::new("size_bytes", "is 0").into());
    }
    let end = request.offset.checked_add(request.chunk.len() as u64);
    if request.chunk.is_empty() || request.chunk.len() > MAX_CONTENT_BYTES {
        let problem = format!("has not between 1 and {MAX_CONTENT_BYTES} bytes");
        return Err(InvalidField::new("chunk", problem).into());
    }
    if end.is_none_or(|end| end > size) {
        return Err(InvalidField::new("offset", "leads beyond size_bytes").into());
    }
    Ok(())
}

#[tonic::async_trait]
impl pb::content_service_server::ContentService for ContentService {
    type FetchContentStream = BoxStream<'static, Result<pb::FetchContentResponse, Status>>;

    async fn upload_chunk(
        &self,
        request: Request<pb::UploadChunkRequest>,
    ) -> Result<Response<pb::UploadChunkResponse>, Status> {
        let request = request.into_inner();
        let hash = hash(&request.hash)?;
        check(&request, self.intake.limits.message.max(PACKED_MAX + HEAD))?;
        let size = request.size_bytes;
        let whole = pb::UploadChunkResponse { received_bytes: size, complete: true };
        if self.stored(hash).await?.is_some() {
            return Ok(Response::new(whole));
        }
        if self.intake.engine.is_full() {
            return Err(status::engine(engine::Error::StoreFull));
        }
        match self.add(hash, size, request.offset, request.chunk).await? {
            Added::Part { received } => Ok(Response::new(pb::UploadChunkResponse {
                received_bytes: received,
                complete: false,
            })),
            Added::Whole(body) => {
                // A sweep that is forgetting this very part comes first.
                let _stay = Arc::clone(&self.intake.parts).read_owned().await;
                let command = Command::StoreContent { hash, body };
                self.intake.engine.command(command).await.map_err(status::engine)?;
                Ok(Response::new(whole))
            }
        }
    }

    async fn fetch_content(
        &self,
        request: Request<pb::FetchContentRequest>,
    ) -> Result<Response<Self::FetchContentStream>, Status> {
        let request = request.into_inner();
        let hash = hash(&request.hash)?;
        let body = self.stored(hash).await?;
        let body = body.ok_or_else(|| {
            reason::UNKNOWN_CONTENT.status(format!("part {hash} was never uploaded"))
        })?;
        let journal = Arc::clone(&self.journal);
        let keys = futures::stream::iter(body.keys.to_vec());
        let pieces = keys.then(move |key| {
            let journal = Arc::clone(&journal);
            async move {
                let key = ContentKey::from_bytes(&key.0)
                    .ok_or_else(|| status::context(&crate::context::Error::Corrupt))?;
                journal.get(key).await.map_err(|error| status::context(&error.into()))
            }
        });
        let mut skip = request.offset;
        let chunks = pieces.map(move |piece: Result<Bytes, Status>| {
            let mut chunk = piece?;
            let cut = skip.min(chunk.len() as u64);
            skip -= cut;
            Ok(chunk.split_off(usize::try_from(cut).unwrap_or(usize::MAX)))
        });
        let chunks = chunks
            .filter(|chunk| {
                futures::future::ready(chunk.as_ref().map_or(true, |chunk| !chunk.is_empty()))
            })
            .map(|chunk: Result<Bytes, Status>| Ok(pb::FetchContentResponse { chunk: chunk? }));
        Ok(Response::new(chunks.boxed()))
    }

    async fn find_missing(
        &self,
        request: Request<pb::FindMissingRequest>,
    ) -> Result<Response<pb::FindMissingResponse>, Status> {
        let mut missing = Vec::new();
        for bytes in request.into_inner().hashes {
            if self.stored(hash(&bytes)?).await?.is_none() {
                missing.push(bytes);
            }
        }
        Ok(Response::new(pb::FindMissingResponse { missing }))
    }
}
