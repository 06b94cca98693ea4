//! Reading the log back: what is replayed, what is cut off, and what is damage.

use mvvd_core::{Error, ErrorKind, Result};

use super::format::{Entry, FOLDER, HEADER_BYTES, check_header, context, entry, first_of, path_of, says_durable};
use super::{Lsn, damaged};
use crate::fs::{FileSystem, replace_file};
use crate::seal::Seal;

/// A log file that is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogFile {
    pub(super) first: Lsn,
    pub(super) bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// All files, in order; those wholly below the start were not read.
    pub(super) files: Vec<LogFile>,
    /// The record after the last one.
    pub(super) next: Lsn,
}

/// Replays the records from `from` on; with `mend`, all of them are durable afterwards, otherwise nothing is written.
pub(super) fn recover(
    fs: &dyn FileSystem,
    seal: Option<&dyn Seal>,
    from: Lsn,
    mend: bool,
    replay: &mut dyn FnMut(Lsn, &[u8]) -> Result<()>,
) -> Result<Recovered> {
    let mut files = files(fs, mend)?;
    // The record `from` is in the last file that does not start after it.
    let Some(start) = files.partition_point(|file| file.first <= from).checked_sub(1) else {
        return match files.first() {
            Some(file) => Err(missing(from, file.first)),
            None if from > Lsn::FIRST => Err(Error::new(
                ErrorKind::Corrupt,
                format!("folder \"{FOLDER}\" has no log file, but the log from {} on is needed", from.0),
            )),
            None => Ok(Recovered { files, next: Lsn::FIRST }),
        };
    };
    let mut next = files[start].first;
    for i in start..files.len() {
        let first = files[i].first;
        if first != next {
            return Err(missing(next, first));
        }
        let path = path_of(first);
        let bytes = fs.read(&path)?;
        let found = scan(&path, &bytes, first, i + 1 == files.len(), |lsn, at, payload| {
            if lsn < from {
                return Ok(());
            }
            match seal {
                None => replay(lsn, payload),
                Some(seal) => {
                    let plain = seal.open(&context(&path, lsn), payload);
                    replay(lsn, &plain.map_err(|e| damaged(&path, at, "the record cannot be opened").with_source(e))?)
                }
            }
        })?;
        if mend && i + 1 == files.len() && !found.durable {
            // Written anew, not just cut and synced: if a sync failed before, another one may succeed without
            // writing the pages that it dropped.
            replace_file(fs, &path, &bytes[..found.end])?;
            files[i].bytes = found.end as u64;
        }
        next = found.next;
    }
    Ok(Recovered { files, next })
}

/// The log files in order. What a crash left of a file that was being made is removed.
fn files(fs: &dyn FileSystem, mend: bool) -> Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for name in fs.list(FOLDER)? {
        let path = format!("{FOLDER}/{name}");
        if let Some(first) = first_of(&name) {
            match fs.len(&path) {
                Ok(bytes) => files.push(LogFile { first, bytes }),
                // Removed meanwhile by the writer, who does not need it any more. If it is needed, it is missed.
                Err(e) if !mend && e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        } else if mend && name.strip_suffix(".tmp").is_some_and(|name| first_of(name).is_some()) {
            fs.remove(&path)?;
        }
    }
    files.sort_unstable_by_key(|file| file.first);
    Ok(files)
}

/// What one file holds.
struct Scanned {
    /// Where the last whole entry ends.
    end: usize,
    next: Lsn,
    /// Whether the file is known to be durable as it is.
    durable: bool,
}

/// Calls `each` with the records of a file (number, place, payload). Only the end of the last file may be torn.
fn scan(
    path: &str,
    file: &[u8],
    first: Lsn,
    is_last: bool,
    mut each: impl FnMut(Lsn, usize, &[u8]) -> Result<()>,
) -> Result<Scanned> {
    check_header(file, path, first)?;
    let (mut at, mut next) = (HEADER_BYTES, first);
    // The header was durable before the file had its name.
    let mut durable_below = first;
    while at < file.len() {
        let Some((found, end)) = entry(file, at, first) else {
            if !is_last {
                return Err(damaged(path, at, "the record is damaged, and later log files exist"));
            }
            if says_durable(file, at, first, next) {
                return Err(damaged(path, at, "the record is damaged, and was durable"));
            }
            return Ok(Scanned { end: at, next, durable: false });
        };
        match found {
            Entry::Record { lsn, payload } if lsn == next => {
                each(lsn, at, payload)?;
                next = lsn.next();
            }
            Entry::Mark { durable } if durable < next => durable_below = durable.next(),
            Entry::Record { lsn, .. } | Entry::Mark { durable: lsn } => {
                return Err(damaged(path, at, &format!("record {} is missing before {}", next.0, lsn.0)));
            }
        }
        at = end;
    }
    Ok(Scanned { end: at, next, durable: durable_below == next })
}

fn missing(from: Lsn, found: Lsn) -> Error {
    damaged(&path_of(found), 0, &format!("the log file before it is missing: the log from {} on is needed", from.0))
}
