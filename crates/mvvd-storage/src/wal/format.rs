//! The bytes of a log file: see the top of `wal.rs`.

use crc_fast::{CrcAlgorithm, Digest};
use mvvd_core::{Error, Result};

use super::Lsn;

const MAGIC: &[u8; 8] = b"MVVDWAL\0";
const VERSION: u32 = 1;

/// The folder of all log files.
pub(super) const FOLDER: &str = "wal";
/// Length of a file's header.
pub(super) const HEADER_BYTES: usize = 28;
/// Length of a record without its payload, and of a mark.
pub(super) const RECORD_BYTES: usize = 20;
/// In the place of the payload's length: a mark.
const MARK: u32 = u32::MAX;
/// Longest payload before it is sealed.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What stands at one place of a file.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    Record { lsn: Lsn, payload: &'a [u8] },
    Mark { durable: Lsn },
}

/// The path of the file whose first record is `first`.
pub(super) fn path_of(first: Lsn) -> String {
    format!("{FOLDER}/{:020}.log", first.0)
}

/// The first record of the file of that name; `None` if it is no log file.
pub(super) fn first_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".log")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok().map(Lsn) } else { None }
}

/// What a payload is sealed with beside the key: it opens in its own place only.
pub(super) fn context(path: &str, lsn: Lsn) -> Vec<u8> {
    [path.as_bytes(), &lsn.0.to_le_bytes()].concat()
}

pub(super) fn header(first: Lsn) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&first.0.to_le_bytes());
    let crc = crc_fast::crc64_nvme(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that `file` starts as the file of `first` must.
pub(super) fn check_header(file: &[u8], path: &str, first: Lsn) -> Result<()> {
    if file.get(..HEADER_BYTES) == Some(&header(first)[..]) {
        return Ok(());
    }
    let sound = file.len() >= HEADER_BYTES && crc_fast::crc64_nvme(&file[..20]) == u64_at(file, 20);
    if sound && file.starts_with(MAGIC) && u32_at(file, 8) != VERSION {
        let version = u32_at(file, 8);
        return Err(Error::unsupported(format!(
            "\"{path}\" has version {version} of the log, this MVVD reads {VERSION}"
        )));
    }
    Err(super::damaged(path, 0, "the header is not that of this log file"))
}

/// Fills in the header of the record in `record`, whose payload is there; `at` is its place in the file.
pub(super) fn finish_record(record: &mut [u8], first: Lsn, at: u64, lsn: Lsn) {
    let (header, payload) = record.split_at_mut(RECORD_BYTES);
    let length = u32::try_from(payload.len()).expect("payloads are bounded");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..12].copy_from_slice(&lsn.0.to_le_bytes());
    header[12..].copy_from_slice(&crc(first, at, length, lsn, payload).to_le_bytes());
}

/// The mark at place `at` that says that all up to `durable` is durable.
pub(super) fn mark(first: Lsn, at: u64, durable: Lsn) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..4].copy_from_slice(&MARK.to_le_bytes());
    bytes[4..12].copy_from_slice(&durable.0.to_le_bytes());
    bytes[12..].copy_from_slice(&crc(first, at, MARK, durable, &[]).to_le_bytes());
    bytes
}

/// What stands at `at` of the file of `first`, and where it ends; `None` if there is nothing whole.
pub(super) fn entry(file: &[u8], at: usize, first: Lsn) -> Option<(Entry<'_>, usize)> {
    let header = file.get(at..)?.get(..RECORD_BYTES)?;
    let (length, lsn) = (u32_at(header, 0), Lsn(u64_at(header, 4)));
    let payload_bytes = if length == MARK { 0 } else { length as usize };
    let end = (at + RECORD_BYTES).checked_add(payload_bytes)?;
    let payload = file.get(at + RECORD_BYTES..end)?;
    if crc(first, at as u64, length, lsn, payload) != u64_at(header, 12) {
        return None;
    }
    Some((if length == MARK { Entry::Mark { durable: lsn } } else { Entry::Record { lsn, payload } }, end))
}

/// Whether a mark after `at`, at any place, says that `lsn` is durable. One pass over the bytes.
pub(super) fn says_durable(file: &[u8], at: usize, first: Lsn, lsn: Lsn) -> bool {
    // A file cannot hold more records than it has room for; this leaves nearly nothing to compute a checksum of.
    let last = lsn.0.saturating_add((file.len() / RECORD_BYTES) as u64);
    (at + 1..(file.len() + 1).saturating_sub(RECORD_BYTES)).any(|at| {
        u32_at(file, at) == MARK
            && (lsn.0..=last).contains(&u64_at(file, at + 4))
            && matches!(entry(file, at, first), Some((Entry::Mark { .. }, _)))
    })
}

/// The checksum covers the place as well: bytes of a log that are a record's payload, or that an older file left on the
/// device, are no entries.
fn crc(first: Lsn, at: u64, length: u32, lsn: Lsn, payload: &[u8]) -> u64 {
    let mut head = [0; 28];
    head[..8].copy_from_slice(&first.0.to_le_bytes());
    head[8..16].copy_from_slice(&at.to_le_bytes());
    head[16..20].copy_from_slice(&length.to_le_bytes());
    head[20..].copy_from_slice(&lsn.0.to_le_bytes());
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&head);
    digest.update(payload);
    digest.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
