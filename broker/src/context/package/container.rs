//! The file: `magic | version | length of head | head | key | signature | packed parts`.
//!
//! The head is header and manifest; the signature covers everything in front of it, and the manifest names the SHA-256
//! of what follows it. So each byte is either signed or hashed by something signed.

use std::io::Read;

use broker_proto::{ModelName, PackageHeader, PackageKey, PackagePart, WallTime};
use sha2::{Digest as _, Sha256};

use super::{
    HOPS_MAX, OTHERS_MAX, PACKED_MAX, RATIO_MAX, Refused, UNPACKED_MAX,
    coding::{self, Manifest, Method, Reader},
    key::{self, Signer},
};

/// With line ends of both kinds, so that a copy made as text is seen at once.
const MAGIC: [u8; 8] = *b"BRPKG\x1a\r\n";
const VERSION: u16 = 1;
/// What header and manifest take at most: they are journalled.
const HEAD_MAX: usize = 64 << 10;
/// In front of what is signed, so that a signature made for something else is none here.
const DOMAIN: &[u8] = b"broker.v1 context package\0";
/// The fastest of the ordinary ones: on text the next ones take twice to four times as long and save a tenth.
const COMPRESSION: i32 = 1;
/// 8 MiB: four times what the compression above makes use of.
const WINDOW_LOG_MAX: u32 = 23;

/// A part before it is packed, or after it is unpacked.
#[derive(Clone, PartialEq, Eq)]
pub struct RawPart {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Why no package was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("the contents are larger than a package may be ({} MiB packed, {} MiB unpacked)", PACKED_MAX >> 20, UNPACKED_MAX >> 20)]
    TooLarge,
    #[error("what is packed beside the conversation is larger than {} MiB", OTHERS_MAX >> 20)]
    OthersTooLarge,
    #[error("the contents cannot be compressed")]
    Compress,
}

/// What a package is held against.
pub struct Guard<'a> {
    /// Broker time.
    pub now: WallTime,
    pub is_trusted: &'a dyn Fn(PackageKey) -> bool,
    pub is_here: &'a dyn Fn(&ModelName) -> bool,
    pub is_replayed: &'a dyn Fn(&[u8; 16]) -> bool,
    /// Whether one that has expired is still read: to show or report it, never to go on with it.
    pub takes_expired: bool,
}

/// A package whose head can be believed.
#[derive(Debug)]
pub struct Opened<'a> {
    pub header: PackageHeader,
    pub signer: PackageKey,
    /// SHA-256 over header and manifest.
    pub checksum: [u8; 32],
    manifest: Manifest,
    packed: &'a [u8],
}

/// Packs and signs.
///
/// # Errors
/// [`PackError::TooLarge`] when it would be refused anywhere.
pub fn pack(
    header: &PackageHeader,
    parts: &[RawPart],
    signer: &Signer,
) -> Result<Vec<u8>, PackError> {
    let unpacked: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
    if unpacked > UNPACKED_MAX {
        return Err(PackError::TooLarge);
    }
    let mut whole = Vec::with_capacity(usize::try_from(unpacked).unwrap_or(0));
    parts.iter().for_each(|part| whole.extend_from_slice(&part.bytes));
    let packed =
        zstd::stream::encode_all(&whole[..], COMPRESSION).map_err(|_| PackError::Compress)?;
    // What repeats itself a thousand times is honest here, and a bomb to whoever receives it.
    let (method, packed) = if unpacked <= RATIO_MAX * packed.len() as u64 {
        (Method::Zstd, packed)
    } else {
        (Method::Stored, whole)
    };
    if packed.len() as u64 > PACKED_MAX {
        return Err(PackError::TooLarge);
    }
    let manifest = Manifest {
        parts: parts.iter().map(listed).collect(),
        method,
        packed_bytes: packed.len() as u64,
        packed_sha256: Sha256::digest(&packed).into(),
    };
    let head = coding::encode(header, &manifest);
    if head.len() > HEAD_MAX {
        return Err(PackError::TooLarge);
    }
    Ok(seal(&head, signer, &packed))
}

fn listed(part: &RawPart) -> PackagePart {
    PackagePart {
        name: part.name.clone(),
        sha256: Sha256::digest(&part.bytes).into(),
        size_bytes: part.bytes.len() as u64,
        tokens: super::estimated_tokens(part.bytes.len()),
    }
}

/// The file of a head and what it lists.
pub(super) fn seal(head: &[u8], signer: &Signer, packed: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(head.len() + packed.len() + 128);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    file.extend_from_slice(&(head.len() as u32).to_be_bytes());
    file.extend_from_slice(head);
    file.extend_from_slice(&signer.public().0);
    let signature = signer.sign(&[DOMAIN, &file].concat());
    file.extend_from_slice(&signature);
    file.extend_from_slice(packed);
    file
}

/// Checks everything that can be checked before a byte is unpacked.
///
/// # Errors
/// The first reason to refuse it, in this order: size, form, signer, signature, bounds, expiry, recipient, hops, replay,
/// packed bytes. What the head says counts only behind its signature.
pub fn open<'a>(file: &'a [u8], guard: &Guard<'_>) -> Result<Opened<'a>, Refused> {
    if file.len() as u64 > PACKED_MAX + (1 << 20) {
        return Err(Refused::TooLarge);
    }
    let opened = read(file, guard)?;
    let header = &opened.header;
    if !guard.takes_expired && guard.now >= header.expires_at {
        return Err(Refused::Expired(header.expires_at));
    }
    if let Some(recipient) = header.recipient.as_ref().filter(|name| !(guard.is_here)(name)) {
        return Err(Refused::Recipient(recipient.clone()));
    }
    if header.hops > HOPS_MAX {
        return Err(Refused::Hops(header.hops));
    }
    if (guard.is_replayed)(&header.nonce) {
        return Err(Refused::Replayed);
    }
    let packed = opened.packed;
    if opened.manifest.packed_bytes != packed.len() as u64
        || opened.manifest.packed_sha256 != <[u8; 32]>::from(Sha256::digest(packed))
    {
        return Err(Refused::Damaged("packed parts".to_owned()));
    }
    Ok(opened)
}

/// Form, signer, signature, bounds.
fn read<'a>(file: &'a [u8], guard: &Guard<'_>) -> Result<Opened<'a>, Refused> {
    let mut from = Reader(file);
    let start = file.get(..MAGIC.len()).ok_or(Refused::Malformed("it is too short"))?;
    if start != MAGIC {
        return Err(Refused::Malformed("it does not begin as one"));
    }
    from.take(MAGIC.len())?;
    let version = u16::from_be_bytes(from.array()?);
    if version != VERSION {
        return Err(Refused::Version(version));
    }
    let length = from.length()?;
    if length > HEAD_MAX {
        return Err(Refused::Malformed("its head is too large"));
    }
    let head = from.take(length)?;
    let signer = PackageKey(from.array()?);
    let signed = &file[..file.len() - from.0.len()];
    let signature: [u8; 64] = from.array()?;
    let packed = from.0;
    // Its form is looked at first only so that what is no package is called that.
    let (header, manifest) = coding::decode(head)?;
    if !(guard.is_trusted)(signer) {
        return Err(Refused::UnknownKey(signer));
    }
    if !key::is_signed(signer, &[DOMAIN, signed].concat(), &signature) {
        return Err(Refused::Signature);
    }
    if manifest.packed_bytes > PACKED_MAX {
        return Err(Refused::TooLarge);
    }
    let most = UNPACKED_MAX.min(manifest.packed_bytes.saturating_mul(RATIO_MAX));
    if manifest.unpacked().is_none_or(|bytes| bytes > most) {
        return Err(Refused::Bomb);
    }
    let checksum = Sha256::digest(head).into();
    Ok(Opened { header, signer, checksum, manifest, packed })
}

impl Opened<'_> {
    /// The parts as the manifest lists them.
    #[must_use]
    pub fn parts(&self) -> &[PackagePart] {
        &self.manifest.parts
    }

    /// Unpacks the parts, each compared with its hash. Never takes more memory than the manifest says, and that is
    /// bounded.
    ///
    /// # Errors
    /// [`Refused::Bomb`] when there is more than the manifest says, [`Refused::Damaged`] when it is something else.
    pub fn unpack(&self) -> Result<Vec<RawPart>, Refused> {
        match self.manifest.method {
            Method::Stored => self.read_parts(self.packed),
            Method::Zstd => {
                let damaged = |_| Refused::Damaged("compression".to_owned());
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(self.packed).map_err(damaged)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
                self.read_parts(decoder)
            }
        }
    }

    fn read_parts(&self, mut from: impl Read) -> Result<Vec<RawPart>, Refused> {
        let mut parts = Vec::new();
        for listed in &self.manifest.parts {
            let damaged = || Refused::Damaged(format!("part `{}`", listed.name));
            let mut bytes = Vec::new();
            let read = from.by_ref().take(listed.size_bytes).read_to_end(&mut bytes);
            if read.is_err() || bytes.len() as u64 != listed.size_bytes {
                return Err(damaged());
            }
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != listed.sha256 {
                return Err(damaged());
            }
            parts.push(RawPart { name: listed.name.clone(), bytes });
        }
        match from.read(&mut [0; 1]) {
            Ok(0) => Ok(parts),
            Ok(_) => Err(Refused::Bomb),
            Err(_) => Err(Refused::Damaged("compression".to_owned())),
        }
    }
}

/// Contents never reach a log.
impl std::fmt::Debug for RawPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawPart({}, {} bytes)", self.name, self.bytes.len())
    }
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("now", &self.now).finish_non_exhaustive()
    }
}
