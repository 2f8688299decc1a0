//! The file: `magic | version | length of head | head | key | signature | packed parts`.
//!
//! The head is header and manifest; the signature covers everything in front of it, and the manifest names the SHA-256
//! of what follows it: of each part, and of the packed bytes where they are compressed. So each byte is either signed or
//! hashed by something signed.
//!
//! At rest the parts are stored as they are, and each of their bytes is hashed once: compressing takes five times as long
//! as hashing. What leaves the broker is compressed ([`Opened::for_the_way`]).

use std::{
    borrow::Cow,
    io::{Read, Write as _},
};

use sha2::{Digest as _, Sha256};

use super::{
    HOPS_MAX, OTHERS_MAX, PACKED_MAX, RATIO_MAX, Refused, STORED_MAX, UNPACKED_MAX,
    coding::{self, Decoded, FIRST, Head, Manifest, Packing, Reader, VERSION},
    key::{self, Signer},
};
use crate::{ModelName, PackageHeader, PackageInfo, PackageKey, PackagePart, WallTime};

/// With line ends of both kinds, so that a copy made as text is seen at once.
const MAGIC: [u8; 8] = *b"BRPKG\x1a\r\n";
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
pub struct RawPart<'a> {
    pub name: Cow<'a, str>,
    pub bytes: Cow<'a, [u8]>,
    /// As the manifest's tokenizer counts them.
    pub tokens: u64,
}

/// A package's file, and what its head says of its parts.
pub struct Packed {
    pub file: Vec<u8>,
    pub parts: Vec<PackagePart>,
    /// SHA-256 over header and parts, however they are packed.
    pub checksum: [u8; 32],
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
    #[error("the work went through {0} handoffs; at most {HOPS_MAX} are allowed")]
    Hops(u32),
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
    /// SHA-256 over header and parts, however they are packed.
    pub checksum: [u8; 32],
    manifest: Manifest,
    packed: &'a [u8],
}

/// Packs and signs: stored up to [`STORED_MAX`], compressed above. What it makes can be taken, so nothing reads it again.
///
/// # Errors
/// [`PackError`] when it would be refused anywhere.
pub fn pack(
    header: &PackageHeader,
    parts: &[RawPart<'_>],
    tokenizer: String,
    signer: &Signer,
) -> Result<Packed, PackError> {
    if header.hops > HOPS_MAX {
        return Err(PackError::Hops(header.hops));
    }
    let bytes = || parts.iter().map(|part| part.bytes.as_ref());
    let unpacked: u64 = bytes().map(|bytes| bytes.len() as u64).sum();
    if unpacked > UNPACKED_MAX {
        return Err(PackError::TooLarge);
    }
    let compressed = if unpacked > STORED_MAX { compressed(bytes(), unpacked)? } else { None };
    let packing = compressed.as_deref().map_or(Packing::Stored, zstd);
    let packed_bytes = compressed.as_ref().map_or(unpacked, |packed| packed.len() as u64);
    if packed_bytes > PACKED_MAX {
        return Err(PackError::TooLarge);
    }
    let manifest = Manifest { parts: parts.iter().map(listed).collect(), tokenizer, packing };
    let head = coding::encode(header, &manifest);
    if head.bytes.len() > HEAD_MAX {
        return Err(PackError::TooLarge);
    }
    let file = match &compressed {
        Some(packed) => seal(&head, signer, [&packed[..]]),
        None => seal(&head, signer, bytes()),
    };
    Ok(Packed { file, parts: manifest.parts, checksum: head.checksum })
}

/// The parts compressed; nothing when that would look like a bomb: what repeats itself a thousand times is honest here,
/// and not to whoever receives it.
fn compressed<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    unpacked: u64,
) -> Result<Option<Vec<u8>>, PackError> {
    let compress = || {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), COMPRESSION)?;
        for part in parts {
            encoder.write_all(part)?;
        }
        encoder.finish()
    };
    let packed = compress().map_err(|_: std::io::Error| PackError::Compress)?;
    let is_taken = unpacked <= RATIO_MAX.saturating_mul(packed.len() as u64);
    Ok(Some(packed).filter(|_| is_taken))
}

fn zstd(packed: &[u8]) -> Packing {
    Packing::Zstd { bytes: packed.len() as u64, sha256: Sha256::digest(packed).into() }
}

fn listed(part: &RawPart<'_>) -> PackagePart {
    PackagePart {
        name: part.name.clone().into_owned(),
        sha256: Sha256::digest(&part.bytes).into(),
        size_bytes: part.bytes.len() as u64,
        tokens: part.tokens,
    }
}

/// The file of a head and what it lists.
#[must_use]
pub fn seal<'a>(
    head: &Head,
    signer: &Signer,
    packed: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
) -> Vec<u8> {
    let (head, packed) = (&head.bytes, packed.into_iter());
    let size: usize = packed.clone().map(<[u8]>::len).sum();
    let mut file = Vec::with_capacity(head.len() + size + 128);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    file.extend_from_slice(&(head.len() as u32).to_be_bytes());
    file.extend_from_slice(head);
    file.extend_from_slice(&signer.public().0);
    let signature = signer.sign(&[DOMAIN, &file].concat());
    file.extend_from_slice(&signature);
    packed.for_each(|bytes| file.extend_from_slice(bytes));
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
    opened.check_packed()?;
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
    if !(FIRST..=VERSION).contains(&version) {
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
    let Decoded { header, manifest, checksum } = coding::decode(head, version)?;
    if !(guard.is_trusted)(signer) {
        return Err(Refused::UnknownKey(signer));
    }
    if !key::is_signed(signer, &[DOMAIN, signed].concat(), &signature) {
        return Err(Refused::Signature);
    }
    let most = match manifest.packing {
        Packing::Zstd { bytes, .. } if bytes > PACKED_MAX => return Err(Refused::TooLarge),
        Packing::Zstd { bytes, .. } => UNPACKED_MAX.min(bytes.saturating_mul(RATIO_MAX)),
        Packing::Stored => PACKED_MAX,
    };
    if manifest.unpacked().is_none_or(|bytes| bytes > most) {
        return Err(Refused::Bomb);
    }
    Ok(Opened { header, signer, checksum, manifest, packed })
}

impl Opened<'_> {
    /// The parts as the manifest lists them.
    #[must_use]
    pub fn parts(&self) -> &[PackagePart] {
        &self.manifest.parts
    }

    /// Who counted their tokens: a tokenizer's name, or how they were estimated.
    #[must_use]
    pub fn tokenizer(&self) -> &str {
        &self.manifest.tokenizer
    }

    /// Compares the packed bytes with what was signed. Stored parts are hashed here and never again.
    fn check_packed(&self) -> Result<(), Refused> {
        let damaged = || Refused::Damaged("packed parts".to_owned());
        match self.manifest.packing {
            Packing::Zstd { .. } if zstd(self.packed) == self.manifest.packing => Ok(()),
            Packing::Zstd { .. } => Err(damaged()),
            Packing::Stored if self.manifest.unpacked() != Some(self.packed.len() as u64) => {
                Err(damaged())
            }
            Packing::Stored => {
                self.stored().try_for_each(|(listed, bytes)| is_listed(listed, bytes))
            }
        }
    }

    /// The parts that lie one behind the other, as the manifest divides them.
    fn stored(&self) -> impl Iterator<Item = (&PackagePart, &[u8])> {
        let mut rest = self.packed;
        self.manifest.parts.iter().map(move |listed| {
            let size = usize::try_from(listed.size_bytes).unwrap_or(usize::MAX);
            let (bytes, behind) = rest.split_at(size.min(rest.len()));
            rest = behind;
            (listed, bytes)
        })
    }

    /// Unpacks the parts; compressed ones are compared with their hashes. Never takes more memory than the manifest says,
    /// and that is bounded; stored ones take none.
    ///
    /// # Errors
    /// [`Refused::Bomb`] when there is more than the manifest says, [`Refused::Damaged`] when it is something else.
    pub fn unpack(&self) -> Result<Vec<RawPart<'_>>, Refused> {
        match self.manifest.packing {
            Packing::Stored => {
                Ok(self.stored().map(|(listed, bytes)| raw(listed, bytes.into())).collect())
            }
            Packing::Zstd { .. } => {
                let damaged = |_| Refused::Damaged("compression".to_owned());
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(self.packed).map_err(damaged)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
                self.read_parts(decoder)
            }
        }
    }

    fn read_parts(&self, mut from: impl Read) -> Result<Vec<RawPart<'_>>, Refused> {
        let mut parts = Vec::new();
        for listed in &self.manifest.parts {
            let mut bytes = Vec::new();
            let read = from.by_ref().take(listed.size_bytes).read_to_end(&mut bytes);
            if read.is_err() || bytes.len() as u64 != listed.size_bytes {
                return Err(damaged(listed));
            }
            is_listed(listed, &bytes)?;
            parts.push(raw(listed, bytes.into()));
        }
        match from.read(&mut [0; 1]) {
            Ok(0) => Ok(parts),
            Ok(_) => Err(Refused::Bomb),
            Err(_) => Err(Refused::Damaged("compression".to_owned())),
        }
    }

    /// What lists show of it, with its task in a few words. Who it is signed by, and whether it has expired, is said by
    /// whoever shows it.
    #[must_use]
    pub fn info(&self, task: String, size_bytes: u64) -> PackageInfo {
        PackageInfo {
            header: self.header.clone(),
            task,
            parts: self.parts().to_vec(),
            tokenizer: self.tokenizer().to_owned(),
            size_bytes,
            checksum: self.checksum,
            signer: self.signer,
            signed_by: None,
            is_imported: false,
            is_expired: false,
            archived_at: None,
        }
    }

    /// The same package as it leaves the broker that made it: compressed, and signed anew. Nothing when it is to leave as
    /// it is: another's, compressed already, or nothing that compresses.
    #[must_use]
    pub fn for_the_way(&self, signer: &Signer) -> Option<Vec<u8>> {
        let is_own = self.signer == signer.public();
        let unpacked = self.packed.len() as u64;
        if !is_own || self.manifest.packing != Packing::Stored {
            return None;
        }
        let packed = compressed([self.packed].into_iter(), unpacked).ok().flatten()?;
        if packed.len() as u64 >= unpacked {
            return None;
        }
        let manifest = Manifest { packing: zstd(&packed), ..self.manifest.clone() };
        let head = coding::encode(&self.header, &manifest);
        (head.bytes.len() <= HEAD_MAX).then(|| seal(&head, signer, [&packed[..]]))
    }
}

fn raw<'a>(listed: &'a PackagePart, bytes: Cow<'a, [u8]>) -> RawPart<'a> {
    RawPart { name: Cow::Borrowed(&listed.name), bytes, tokens: listed.tokens }
}

fn is_listed(listed: &PackagePart, bytes: &[u8]) -> Result<(), Refused> {
    let is_same = <[u8; 32]>::from(Sha256::digest(bytes)) == listed.sha256;
    if is_same { Ok(()) } else { Err(damaged(listed)) }
}

fn damaged(listed: &PackagePart) -> Refused {
    Refused::Damaged(format!("part `{}`", listed.name))
}

/// Contents never reach a log.
impl std::fmt::Debug for RawPart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawPart({}, {} bytes)", self.name, self.bytes.len())
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} bytes)", self.file.len())
    }
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("now", &self.now).finish_non_exhaustive()
    }
}
