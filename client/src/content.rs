//! Parts apart: what is too large for a frame goes up by hash first, and what arrives by hash is fetched.
//!
//! Invariant: a stored part holds no further reference, so that its hash vouches for all of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use broker_proto::{
    ContentHash, Message, Part, PartRef, Payload,
    convert::{InvalidField, decode_part, encode_part},
    pb,
};
use bytes::Bytes;
use prost::Message as _;

use crate::{Client, Error};

/// Encoded bytes above which a part goes up apart. Source: `content.proto`.
const INLINE_PART: usize = 64 * 1024;
/// Encoded bytes of parts that one frame carries; a frame may have 1 MiB in all.
const INLINE_FRAME: usize = 512 * 1024;
/// A reference takes about this much, so smaller parts gain nothing by going apart.
const REFERENCE: usize = 64;
/// Bytes of one chunk. Source: `content.proto`.
const CHUNK: usize = 256 * 1024;
/// Parts nest no deeper; see `MAX_PART_DEPTH` of the conversions.
const MAX_DEPTH: usize = 5;

/// A part on its way up.
struct Upload {
    hash: ContentHash,
    bytes: Bytes,
}

impl Client {
    /// Stores a part by its hash, unless the broker has it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the broker takes no more, [`Error::Stalled`], and what every call may meet.
    pub async fn upload(&self, part: Part) -> Result<PartRef, Error> {
        let bytes = encode_part(part);
        let part = PartRef { hash: ContentHash::of(&bytes), size_bytes: bytes.len() as u64 };
        Box::pin(self.store(vec![Upload { hash: part.hash, bytes }])).await?;
        Ok(part)
    }

    /// Stores bytes by their hash, unless the broker has them.
    pub(crate) async fn upload_bytes(&self, bytes: Bytes) -> Result<ContentHash, Error> {
        let hash = ContentHash::of(&bytes);
        Box::pin(self.store(vec![Upload { hash, bytes }])).await?;
        Ok(hash)
    }

    /// The part stored under this hash.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are others, [`Error::Refused`] when the broker does not have it.
    pub async fn fetch(&self, part: PartRef) -> Result<Part, Error> {
        Ok(decode_part(Box::pin(self.fetch_bytes(part)).await?)?)
    }

    /// These parts with every reference replaced by what it names.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub async fn inline(&self, mut parts: Vec<Part>) -> Result<Vec<Part>, Error> {
        self.fetch_into(parts.iter_mut().collect(), None).await?;
        Ok(parts)
    }

    /// This payload with every reference replaced by what it names.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub async fn inline_payload(&self, mut payload: Payload) -> Result<Payload, Error> {
        self.fetch_into(payload_parts(&mut payload), None).await?;
        Ok(payload)
    }

    /// The message's wire form, what is too large for a frame stored before.
    pub(crate) async fn offload(&self, message: Message) -> Result<pb::ModelMessage, Error> {
        let mut wire = pb::ModelMessage::from(message);
        if let Some(payload) = &mut wire.payload {
            let context = payload.context.iter_mut().flat_map(|entry| &mut entry.parts);
            let inputs = payload.task.iter_mut().flat_map(|task| &mut task.inputs);
            let inputs = inputs.flat_map(|input| &mut input.parts);
            let parts =
                context.chain(inputs).chain(&mut payload.request).chain(&mut payload.response);
            let uploads = set_apart(parts.collect());
            Box::pin(self.store(uploads)).await?;
        }
        Ok(wire)
    }

    /// Sends up each part over the limit; with `fits_frame` also the largest of the rest, until all fit one frame.
    pub(crate) async fn offload_wire_parts(
        &self,
        mut parts: Vec<&mut pb::Part>,
        fits_frame: bool,
    ) -> Result<(), Error> {
        let uploads = if fits_frame {
            set_apart(parts)
        } else {
            let mut uploads = Vec::new();
            parts.iter_mut().for_each(|part| shrink(part, &mut uploads));
            uploads
        };
        Box::pin(self.store(uploads)).await
    }

    /// These parts, what is too large for a frame stored and named by hash.
    pub(crate) async fn offload_parts(&self, parts: Vec<Part>) -> Result<Vec<Part>, Error> {
        let mut wire: Vec<pb::Part> = parts.into_iter().map(Into::into).collect();
        let uploads = set_apart(wire.iter_mut().collect());
        Box::pin(self.store(uploads)).await?;
        Ok(wire.into_iter().map(Part::try_from).collect::<Result<_, InvalidField>>()?)
    }

    /// Replaces every reference in `parts`, asking `cache` before the broker.
    pub(crate) async fn fetch_into(
        &self,
        mut parts: Vec<&mut Part>,
        cache: Option<&Cache>,
    ) -> Result<(), Error> {
        for _ in 0..=MAX_DEPTH {
            let mut wanted = BTreeMap::new();
            parts.iter().for_each(|part| references(part, &mut wanted));
            if wanted.is_empty() {
                return Ok(());
            }
            let mut found = HashMap::new();
            for (hash, part) in wanted {
                let bytes = match cache.and_then(|cache| cache.get(hash)) {
                    Some(bytes) => bytes,
                    None => Box::pin(self.fetch_bytes(part)).await?,
                };
                if let Some(cache) = cache {
                    cache.put(hash, bytes.clone());
                }
                found.insert(hash, decode_part(bytes)?);
            }
            parts.iter_mut().for_each(|part| fill_in(part, &found));
        }
        Err(InvalidField::new("part", "nests references too deep").into())
    }

    async fn fetch_bytes(&self, part: PartRef) -> Result<Bytes, Error> {
        let request = pb::FetchContentRequest { hash: part.hash.0.to_vec().into(), offset: 0 };
        let mut chunks = self
            .content()
            .fetch_content(self.request(request, None)?)
            .await
            .map_err(|status| self.error(status))?
            .into_inner();
        // Grows with what arrives: the size is the broker's word, not yet a fact.
        let mut bytes = Vec::new();
        while let Some(next) = chunks.message().await.map_err(|status| self.error(status))? {
            bytes.extend_from_slice(&next.chunk);
            if bytes.len() as u64 > part.size_bytes {
                return Err(Error::Corrupt { hash: part.hash });
            }
        }
        match ContentHash::of(&bytes) == part.hash {
            true => Ok(bytes.into()),
            false => Err(Error::Corrupt { hash: part.hash }),
        }
    }

    /// Large, so whoever calls it boxes it: most messages have nothing to store.
    async fn store(&self, uploads: Vec<Upload>) -> Result<(), Error> {
        if uploads.is_empty() {
            return Ok(());
        }
        let hashes = uploads.iter().map(|upload| upload.hash.0.to_vec().into()).collect();
        let request = self.unary_request(pb::FindMissingRequest { hashes })?;
        let missing = self.reply(self.content().find_missing(request).await)?.missing;
        let mut missing: BTreeSet<Bytes> = missing.into_iter().collect();
        for upload in uploads {
            if missing.remove(upload.hash.0.as_slice()) {
                self.store_one(&upload).await?;
            }
        }
        Ok(())
    }

    /// Sends the chunks from where the broker is; another upload of the same part may have brought it further.
    async fn store_one(&self, upload: &Upload) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let end = upload.bytes.len().min(offset + CHUNK);
            let request = self.unary_request(pb::UploadChunkRequest {
                hash: upload.hash.0.to_vec().into(),
                size_bytes: upload.bytes.len() as u64,
                offset: offset as u64,
                chunk: upload.bytes.slice(offset..end),
            })?;
            let reply = self.reply(self.content().upload_chunk(request).await)?;
            if reply.complete {
                return Ok(());
            }
            let received = usize::try_from(reply.received_bytes).unwrap_or(usize::MAX);
            if received <= offset || received >= upload.bytes.len() {
                return Err(Error::Stalled { hash: upload.hash });
            }
            offset = received;
        }
    }
}

/// Every part of a payload, to be changed in place.
pub(crate) fn payload_parts(payload: &mut Payload) -> Vec<&mut Part> {
    payload.parts_mut().collect()
}

/// Whether any part is named by hash, at any depth.
pub(crate) fn has_reference<'a>(parts: impl IntoIterator<Item = &'a Part>) -> bool {
    let mut found = BTreeMap::new();
    parts.into_iter().for_each(|part| references(part, &mut found));
    !found.is_empty()
}

fn references(part: &Part, found: &mut BTreeMap<ContentHash, PartRef>) {
    match part {
        Part::Ref(part) => {
            found.insert(part.hash, *part);
        }
        Part::ToolResult { parts, .. } => parts.iter().for_each(|part| references(part, found)),
        Part::Text(_)
        | Part::Thinking { .. }
        | Part::ToolCall { .. }
        | Part::Image { .. }
        | Part::Opaque { .. } => {}
    }
}

fn fill_in(part: &mut Part, found: &HashMap<ContentHash, Part>) {
    match part {
        Part::Ref(named) => {
            if let Some(whole) = found.get(&named.hash) {
                *part = whole.clone();
            }
        }
        Part::ToolResult { parts, .. } => parts.iter_mut().for_each(|part| fill_in(part, found)),
        Part::Text(_)
        | Part::Thinking { .. }
        | Part::ToolCall { .. }
        | Part::Image { .. }
        | Part::Opaque { .. } => {}
    }
}

/// Replaces what one frame cannot carry by references: each part over the limit, then the largest of the
/// rest until the frame holds what is left.
fn set_apart(mut parts: Vec<&mut pb::Part>) -> Vec<Upload> {
    let mut uploads = Vec::new();
    for part in &mut parts {
        shrink(part, &mut uploads);
    }
    let mut total: usize = parts.iter().map(|part| part.encoded_len()).sum();
    if total > INLINE_FRAME {
        parts.sort_by_cached_key(|part| std::cmp::Reverse(part.encoded_len()));
        for part in parts {
            let len = part.encoded_len();
            if total <= INLINE_FRAME || len <= REFERENCE {
                break;
            }
            // What holds references already is stored as it is nowhere; see the invariant above.
            if !holds_reference(part) {
                uploads.push(replace(part));
                total = total - len + part.encoded_len();
            }
        }
    }
    uploads
}

/// A tool result goes up whole only when its own text is what makes it large.
fn shrink(part: &mut pb::Part, uploads: &mut Vec<Upload>) {
    if part.encoded_len() <= INLINE_PART {
        return;
    }
    if let Some(pb::part::Part::ToolResult(result)) = &mut part.part {
        let small = |part: &pb::Part| match part.encoded_len() {
            len if len > INLINE_PART => REFERENCE,
            len => len,
        };
        if result.parts.iter().map(small).sum::<usize>() < INLINE_PART - 4 * REFERENCE {
            result.parts.iter_mut().for_each(|part| shrink(part, uploads));
            return;
        }
    }
    if !holds_reference(part) {
        uploads.push(replace(part));
    }
}

fn holds_reference(part: &pb::Part) -> bool {
    match &part.part {
        Some(pb::part::Part::Ref(_)) => true,
        Some(pb::part::Part::ToolResult(result)) => result.parts.iter().any(holds_reference),
        _ => false,
    }
}

fn replace(part: &mut pb::Part) -> Upload {
    let bytes = Bytes::from(part.encode_to_vec());
    let hash = ContentHash::of(&bytes);
    let named = pb::PartRef { hash: hash.0.to_vec().into(), size_bytes: bytes.len() as u64 };
    part.part = Some(pb::part::Part::Ref(named));
    Upload { hash, bytes }
}

/// Encoded parts that were used last, up to a number of bytes. Shared by the deliveries of one link.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Locked only for a look-up or an insertion, never across an await.
    inner: Mutex<Kept>,
    most: usize,
}

#[derive(Default)]
struct Kept {
    parts: HashMap<ContentHash, (u64, Bytes)>,
    /// The same parts by when they were last used.
    by_use: BTreeMap<u64, ContentHash>,
    clock: u64,
    size: usize,
}

/// Counts; content never reaches a log.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} parts, {} bytes)", self.parts.len(), self.size)
    }
}

impl Cache {
    /// A cache of at most this many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { inner: Mutex::default(), most }
    }

    fn get(&self, hash: ContentHash) -> Option<Bytes> {
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bytes) = kept.parts.get(&hash)?;
        let bytes = bytes.clone();
        kept.touch(hash, bytes.clone());
        Some(bytes)
    }

    fn put(&self, hash: ContentHash, bytes: Bytes) {
        if bytes.len() > self.most {
            return;
        }
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        kept.touch(hash, bytes);
        while kept.size > self.most {
            kept.drop_oldest();
        }
    }
}

impl Kept {
    fn touch(&mut self, hash: ContentHash, bytes: Bytes) {
        self.clock += 1;
        self.size += bytes.len();
        if let Some((used, old)) = self.parts.insert(hash, (self.clock, bytes)) {
            self.by_use.remove(&used);
            self.size -= old.len();
        }
        self.by_use.insert(self.clock, hash);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, hash)) = self.by_use.pop_first()
            && let Some((_, bytes)) = self.parts.remove(&hash)
        {
            self.size -= bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(parts: Vec<Part>) -> Vec<pb::Part> {
        parts.into_iter().map(Into::into).collect()
    }

    fn text(len: usize) -> Part {
        Part::Text("x".repeat(len))
    }

    fn is_apart(part: &pb::Part) -> bool {
        matches!(part.part, Some(pb::part::Part::Ref(_)))
    }

    #[test]
    fn only_a_part_over_the_limit_goes_apart() {
        let mut parts = wire(vec![text(100), text(INLINE_PART + 1)]);

        let uploads = set_apart(parts.iter_mut().collect());

        assert_eq!(parts.iter().map(is_apart).collect::<Vec<_>>(), [false, true]);
        assert_eq!(uploads[0].hash, ContentHash::of(&uploads[0].bytes));
        assert_eq!(decode_part(uploads[0].bytes.clone()), Ok(text(INLINE_PART + 1)));
    }

    #[test]
    fn many_small_parts_leave_a_frame_that_fits() {
        let mut parts = wire((0..60).map(|_| text(40_000)).collect());

        let uploads = set_apart(parts.iter_mut().collect());

        assert!(parts.iter().map(prost::Message::encoded_len).sum::<usize>() <= INLINE_FRAME);
        assert!(uploads.len() < 60, "what fits stays in the frame");
    }

    #[test]
    fn a_large_part_inside_a_tool_result_goes_apart_alone() {
        let data = Bytes::from(vec![7; INLINE_PART * 2]);
        let image = Part::Image { media_type: "image/png".into(), data };
        let result = |parts| Part::ToolResult { call_id: "c".into(), parts, is_error: false };
        let mut parts = wire(vec![result(vec![text(10), image.clone()])]);

        let uploads = set_apart(parts.iter_mut().collect());

        assert!(!is_apart(&parts[0]) && holds_reference(&parts[0]));
        assert_eq!(decode_part(uploads[0].bytes.clone()), Ok(image));
    }

    #[test]
    fn a_tool_result_of_many_small_parts_goes_apart_whole() {
        let parts: Vec<Part> = (0..10).map(|_| text(10_000)).collect();
        let mut parts =
            wire(vec![Part::ToolResult { call_id: "c".into(), parts, is_error: false }]);

        let uploads = set_apart(parts.iter_mut().collect());

        assert!(is_apart(&parts[0]));
        assert!(!holds_reference(&pb::Part::decode(uploads[0].bytes.clone()).unwrap()));
    }

    #[test]
    fn the_cache_drops_what_was_not_used_for_longest() {
        let cache = Cache::new(10);
        let hash = |n: u8| ContentHash([n; 32]);
        cache.put(hash(1), Bytes::from_static(b"11111"));
        cache.put(hash(2), Bytes::from_static(b"22222"));
        cache.get(hash(1));

        cache.put(hash(3), Bytes::from_static(b"33333"));

        let kept = [1, 2, 3].map(|n| cache.get(hash(n)).is_some());
        assert_eq!(kept, [true, false, true]);
    }

    #[test]
    fn the_cache_never_takes_what_is_larger_than_itself() {
        let cache = Cache::new(4);
        cache.put(ContentHash([1; 32]), Bytes::from_static(b"11111"));
        assert_eq!(cache.get(ContentHash([1; 32])), None);
    }
}
