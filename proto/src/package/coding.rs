//! The canonical encoding of what is signed: fields in their order, numbers big-endian, texts behind their length.
//!
//! Every header and manifest has one encoding, and an encoding with anything left over is none.

use sha2::{Digest as _, Sha256};

use super::Refused;
use crate::{ModelName, PackageHeader, PackageId, PackagePart, Preservation, SessionId, WallTime};

/// Parts at most; the format has fewer than twenty.
const PARTS_MAX: u32 = 64;

/// The first version that is read.
pub const FIRST: u16 = 1;
/// The one that is written.
pub const VERSION: u16 = 2;
/// What the first version's tokens are: it names no tokenizer, and counted four bytes each.
const UNNAMED: &str = "estimated";

/// How the parts are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As they are, one behind the other: the hashes of the parts are those of the packed bytes.
    Stored,
    /// Compressed. SHA-256 of the packed bytes, so that they are known before they are unpacked.
    Zstd { bytes: u64, sha256: [u8; 32] },
}

/// What is behind the header: signed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub parts: Vec<PackagePart>,
    /// Who counted their tokens.
    pub tokenizer: String,
    pub packing: Packing,
}

impl Manifest {
    /// Bytes of all parts; `None` when they are more than can be counted.
    pub fn unpacked(&self) -> Option<u64> {
        self.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.size_bytes))
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }
}

/// Header and manifest in one piece.
#[derive(Debug)]
pub struct Head {
    pub bytes: Vec<u8>,
    /// SHA-256 of it without how the parts are packed: the same package has the same one on its way and at rest.
    pub checksum: [u8; 32],
}

/// Header and manifest as they are signed.
pub fn encode(header: &PackageHeader, manifest: &Manifest) -> Head {
    let mut out = Writer::default();
    out.0.extend_from_slice(&header.id.as_u128().to_be_bytes());
    out.text(header.session.as_ref().map_or("", SessionId::as_str));
    out.text(&header.project);
    out.text(&header.sender);
    out.text(header.recipient.as_ref().map_or("", ModelName::as_str));
    out.text(header.level.as_str());
    out.number(header.created_at.0);
    out.number(header.expires_at.0);
    out.number(header.hops.into());
    out.0.extend_from_slice(&header.nonce);
    out.text(&header.reason);
    out.text(&manifest.tokenizer);
    out.number(manifest.parts.len() as u64);
    for part in &manifest.parts {
        out.text(&part.name);
        out.0.extend_from_slice(&part.sha256);
        out.number(part.size_bytes);
        out.number(part.tokens);
    }
    let checksum = Sha256::digest(&out.0).into();
    match manifest.packing {
        Packing::Stored => out.number(0),
        Packing::Zstd { bytes, sha256 } => {
            out.number(1);
            out.number(bytes);
            out.0.extend_from_slice(&sha256);
        }
    }
    Head { bytes: out.0, checksum }
}

/// Takes bytes from the front; every step that finds too few is refused.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Refused::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Refused::Malformed("it ends too early"))
    }

    pub(super) fn length(&mut self) -> Result<usize, Refused> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn number(&mut self) -> Result<u64, Refused> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn small(&mut self) -> Result<u32, Refused> {
        u32::try_from(self.number()?).map_err(|_| Refused::Malformed("a number is too large"))
    }

    fn text(&mut self) -> Result<&'a str, Refused> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| Refused::Malformed("a text is not UTF-8"))
    }

    /// A text that may be missing.
    fn named<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Refused> {
        match self.text()? {
            "" => Ok(None),
            text => read(text).map(Some).ok_or(Refused::Malformed("a name is none")),
        }
    }
}

/// What a head says.
#[derive(Debug)]
pub struct Decoded {
    pub header: PackageHeader,
    pub manifest: Manifest,
    /// As [`Head::checksum`]; in the first version over all of it.
    pub checksum: [u8; 32],
}

/// Reads what [`encode`] wrote, or its first version.
///
/// # Errors
/// [`Refused::Malformed`] when it is not that, to the last byte.
pub fn decode(bytes: &[u8], version: u16) -> Result<Decoded, Refused> {
    let mut from = Reader(bytes);
    let header = header(&mut from)?;
    let is_first = version == FIRST;
    let tokenizer = if is_first { UNNAMED } else { from.text()? }.to_owned();
    let parts = listed(&mut from)?;
    let behind = from.0.len();
    let packing = packing(&mut from, is_first)?;
    if !from.0.is_empty() {
        return Err(Refused::Malformed("something follows its manifest"));
    }
    let summed = if is_first { bytes } else { &bytes[..bytes.len() - behind] };
    let checksum = Sha256::digest(summed).into();
    Ok(Decoded { header, manifest: Manifest { parts, tokenizer, packing }, checksum })
}

fn listed(from: &mut Reader<'_>) -> Result<Vec<PackagePart>, Refused> {
    let count = from.small()?;
    if count > PARTS_MAX {
        return Err(Refused::Malformed("it has too many parts"));
    }
    let mut parts: Vec<PackagePart> = Vec::new();
    for _ in 0..count {
        let name = from.text()?.to_owned();
        // A name is the name of a part of the format, and never a path.
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err(Refused::Malformed("the name of a part is none"));
        }
        if parts.iter().any(|other| other.name == name) {
            return Err(Refused::Malformed("a part is there twice"));
        }
        let sha256 = from.array()?;
        let (size_bytes, tokens) = (from.number()?, from.number()?);
        parts.push(PackagePart { name, sha256, size_bytes, tokens });
    }
    Ok(parts)
}

fn packing(from: &mut Reader<'_>, is_first: bool) -> Result<Packing, Refused> {
    let method = from.number()?;
    match method {
        0 if !is_first => return Ok(Packing::Stored),
        0 | 1 => {}
        _ => return Err(Refused::Malformed("its compression is unknown")),
    }
    let (bytes, sha256) = (from.number()?, from.array()?);
    // The first version hashed what it stored as a whole, too; its parts are hashed all the same.
    Ok(if method == 0 { Packing::Stored } else { Packing::Zstd { bytes, sha256 } })
}

fn header(from: &mut Reader<'_>) -> Result<PackageHeader, Refused> {
    let header = PackageHeader {
        id: PackageId::from_u128(u128::from_be_bytes(from.array()?)),
        session: from.named(|text| SessionId::parse(text).ok())?,
        project: from.text()?.to_owned(),
        sender: from.text()?.to_owned(),
        recipient: from.named(|text| ModelName::parse(text).ok())?,
        level: from.named(Preservation::parse)?.ok_or(Refused::Malformed("it has no level"))?,
        created_at: WallTime(from.number()?),
        expires_at: WallTime(from.number()?),
        hops: from.small()?,
        nonce: from.array()?,
        reason: from.text()?.to_owned(),
    };
    Ok(header)
}
