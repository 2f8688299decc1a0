//! The WAL before SQLite sees it: a torn end is cut, damage before a later commit is not.
//!
//! SQLite takes the frames up to the first one that does not verify, drops the rest and calls itself healthy. That is
//! right for what was being written when the power went, and loses acknowledged batches otherwise. A frame's checksum
//! continues the one stored in the frame before it, so frames behind a damaged one still verify against their
//! neighbour. A commit with another verified frame right behind it was synced before that frame was written; so
//! whatever is damaged before it was whole once.
//! Limit: damage in the last transaction looks like a torn one. Who has applied that batch finds the log too short.
//! Source: "Database File Format" of SQLite, section 4.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use crate::journal::error::OpenError;

/// With the last bit set, checksums read the words of the data as big endian.
const MAGIC: u32 = 0x377f_0682;
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Refuses a WAL in which a commit follows damage.
pub(super) fn check(database: &Path) -> Result<(), OpenError> {
    let path = side_file(database);
    match find_damage(&path) {
        Ok(None) => Ok(()),
        Ok(Some(offset)) => Err(OpenError::CorruptWal { path, offset }),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Makes durable what is in the WAL.
pub(super) fn sync(database: &Path) -> std::io::Result<()> {
    match File::open(side_file(database)) {
        Ok(wal) => wal.sync_all(),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

fn side_file(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

fn find_damage(path: &Path) -> std::io::Result<Option<u64>> {
    let mut wal = match File::open(path) {
        Ok(wal) => wal,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    loop {
        let header = read_header(&mut wal)?;
        let damage = match &header {
            Some(header) => scan(header, &mut BufReader::with_capacity(256 * 1024, &wal))?,
            None => None,
        };
        // Another process may have begun the file anew in between; then what was read belongs to two logs.
        if damage.is_none() || read_header(&mut wal)? == header {
            return Ok(damage);
        }
    }
}

fn read_header(wal: &mut File) -> std::io::Result<Option<[u8; HEADER]>> {
    let mut header = [0; HEADER];
    wal.rewind()?;
    Ok(fill(wal, &mut header)?.then_some(header))
}

/// Where the first damage before a later commit begins.
fn scan(header: &[u8; HEADER], frames: &mut impl Read) -> std::io::Result<Option<u64>> {
    let is_big_endian = word(header, 0) & 1 == 1;
    let page = word(header, 8);
    let mut seed = checksum(is_big_endian, (0, 0), &header[..24]);
    let is_page = page.is_power_of_two() && (512..=65_536).contains(&page);
    if word(header, 0) & !1 != MAGIC || !is_page || seed != (word(header, 24), word(header, 28)) {
        // The header is within one sector and synced before any frame follows it, so it is never torn.
        let mut frame = [0; FRAME_HEADER];
        return Ok(fill(frames, &mut frame)?.then_some(0));
    }
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    let (mut offset, mut damaged, mut is_behind_commit) = (HEADER as u64, None, false);
    while fill(frames, &mut frame)? {
        let stored = (word(&frame, 16), word(&frame, 20));
        let sum = checksum(is_big_endian, seed, &frame[..8]);
        // Frames of an earlier round through the file carry another salt.
        let is_valid = frame[8..16] == header[16..24]
            && checksum(is_big_endian, sum, &frame[FRAME_HEADER..]) == stored;
        if !is_valid {
            damaged = damaged.or(Some(offset));
        } else if damaged.is_some() && is_behind_commit {
            return Ok(damaged);
        }
        is_behind_commit = is_valid && word(&frame, 4) != 0 && damaged.is_some();
        seed = stored;
        offset += frame.len() as u64;
    }
    Ok(None)
}

/// The WAL's own checksum, continued from `seed` over a multiple of eight bytes.
fn checksum(is_big_endian: bool, seed: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read = |at: &[u8]| {
        let word = [at[0], at[1], at[2], at[3]];
        if is_big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    bytes.chunks_exact(8).fold(seed, |(first, second), pair| {
        let first = first.wrapping_add(read(&pair[..4])).wrapping_add(second);
        (first, second.wrapping_add(read(&pair[4..])).wrapping_add(first))
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Whether there was enough to fill `bytes`.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(err) => Err(err),
    }
}
