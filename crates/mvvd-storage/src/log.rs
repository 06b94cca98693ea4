//! What the write-ahead log says about tables: one record for each atomic change.
//!
//! A record is a list of operations, all or none of which happened:
//!
//! | bytes | |
//! |---|---|
//! | 1 | kind: 1 create, 2 drop, 3 rename, 4 rows, 5 truncate, 6 schema |
//! | 8 | table id |
//! | 8 | the version of the table that the operation makes (0 for create, drop, rename) |
//! | 8 | when, in microseconds since 1970 |
//! | 8 | length of the body |
//! | n | body |
//!
//! All numbers are little-endian. Bodies: *create* is the length of the schema (8 bytes), the schema and the name;
//! *rename* is the name; *schema* is a schema; *rows* is the keys that go as length (8 bytes) and batch, length 0 where
//! there are none, then for each part that comes a tag (1 byte: 0 rows, 1 segment), its length (8 bytes) and its bytes.
//! Rows that go are named by key, which means the same to the log's reader however the rows are arranged by then.
//! Schemas and batches are as `encode` writes them, segments are their description in JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use mvvd_core::{Error, ErrorKind, Result, TableSchema};

use crate::chunk::Chunk;
use crate::disk::Disk;
use crate::encode::{read_columns, read_schema, write_columns, write_schema};
use crate::next::Next;
use crate::segment::SegmentMeta;
use crate::snapshot::Snapshot;
use crate::versions::Versions;
use crate::wal::Lsn;

/// An operation to be written.
pub(crate) enum Change<'a> {
    Create { name: &'a str, schema: &'a TableSchema },
    Drop,
    Rename(&'a str),
    Rows { deleted: Option<ArrayRef>, added: &'a [Arc<Chunk>] },
    Truncate,
    Schema(&'a TableSchema),
}

/// An operation as it was read.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) table: u64,
    pub(crate) version: u64,
    /// In microseconds since 1970.
    pub(crate) created: i64,
    pub(crate) kind: OpKind,
}

#[derive(Debug)]
pub(crate) enum OpKind {
    Create { name: String, schema: TableSchema },
    Drop,
    Rename(String),
    Rows { deleted: Option<ArrayRef>, added: Vec<Added> },
    Truncate,
    Schema(TableSchema),
}

/// Rows that come.
#[derive(Debug)]
pub(crate) enum Added {
    /// Columns by id, and the number of rows.
    Rows(Vec<(u32, ArrayRef)>, usize),
    Segment(SegmentMeta),
}

/// A record that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Record(Vec<u8>);

impl Record {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds an operation that makes `version` of a table, `created` in microseconds since 1970.
    pub(crate) fn push(&mut self, table: u64, version: u64, created: i64, change: &Change) -> Result<()> {
        let kind = match change {
            Change::Create { .. } => 1,
            Change::Drop => 2,
            Change::Rename(_) => 3,
            Change::Rows { .. } => 4,
            Change::Truncate => 5,
            Change::Schema(_) => 6,
        };
        let out = &mut self.0;
        out.push(kind);
        out.extend(table.to_le_bytes());
        out.extend(version.to_le_bytes());
        out.extend(created.to_le_bytes());
        let length_at = out.len();
        out.extend([0; 8]);
        match change {
            Change::Create { name, schema } => {
                push_part(out, &write_schema(schema)?);
                out.extend(name.as_bytes());
            }
            Change::Rename(name) => out.extend(name.as_bytes()),
            Change::Schema(schema) => out.extend(write_schema(schema)?),
            Change::Rows { deleted, added } => {
                match deleted {
                    Some(keys) => push_part(out, &write_columns(&[(0, Arc::clone(keys))])?),
                    None => push_part(out, &[]),
                }
                for chunk in *added {
                    match chunk.segment() {
                        Some(segment) => {
                            out.push(1);
                            let json = serde_json::to_vec(segment.meta())
                                .map_err(|e| Error::internal(format!("a segment has no description: {e}")))?;
                            push_part(out, &json);
                        }
                        None => {
                            out.push(0);
                            push_part(out, &write_columns(&chunk.all_columns()?)?);
                        }
                    }
                }
            }
            Change::Drop | Change::Truncate => {}
        }
        let length = (out.len() - length_at - 8) as u64;
        out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend((part.len() as u64).to_le_bytes());
    out.extend(part);
}

/// The operations of a record.
pub(crate) fn read_record(bytes: &[u8]) -> Result<Vec<Op>> {
    let mut rest = Bytes(bytes);
    let mut ops = Vec::new();
    while !rest.0.is_empty() {
        let kind = rest.take(1)?[0];
        let (table, version, created) = (rest.number()?, rest.number()?, rest.number()?.cast_signed());
        let mut body = Bytes(rest.part()?);
        let kind = match kind {
            1 => {
                let schema = read_schema(body.part()?)?;
                OpKind::Create { name: body.text()?, schema }
            }
            2 => OpKind::Drop,
            3 => OpKind::Rename(body.text()?),
            4 => {
                let deleted = match body.part()? {
                    [] => None,
                    keys => read_columns(keys)?.0.into_iter().next().map(|(_, keys)| keys),
                };
                let mut added = Vec::new();
                while !body.0.is_empty() {
                    added.push(match body.take(1)?[0] {
                        0 => {
                            let (columns, rows) = read_columns(body.part()?)?;
                            Added::Rows(columns, rows)
                        }
                        1 => Added::Segment(serde_json::from_slice(body.part()?).map_err(|e| corrupt(&e.to_string()))?),
                        tag => return Err(corrupt(&format!("{tag} is no kind of rows"))),
                    });
                }
                OpKind::Rows { deleted, added }
            }
            5 => OpKind::Truncate,
            6 => OpKind::Schema(read_schema(body.0)?),
            kind => return Err(corrupt(&format!("{kind} is no kind of operation"))),
        };
        ops.push(Op { table, version, created, kind });
    }
    Ok(ops)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a log record cannot be read: {what}"))
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| corrupt("it is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn part(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| corrupt("a length is too large"))?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        let text = std::str::from_utf8(self.0).map_err(|_| corrupt("a name is no text"))?;
        self.0 = &[];
        Ok(text.to_owned())
    }
}

/// Where the changes of one table are recorded; nowhere for a table in memory.
#[derive(Debug, Clone)]
pub(crate) struct TableLog {
    pub(crate) table: u64,
    disk: Option<Arc<Disk>>,
}

/// A table has this many times the bytes of a flush in memory before writers wait for the flush.
const FLUSHES_WAITING_MAX: usize = 4;
/// A change of more bytes may write to files before it is recorded.
const WITHOUT_WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a writer looks away while it waits.
const LOOK_AWAY: Duration = Duration::from_millis(2);
/// How long it waits in all.
const PATIENCE: Duration = Duration::from_secs(120);

impl TableLog {
    /// For a table in memory.
    pub(crate) fn none() -> Self {
        Self { table: 0, disk: None }
    }

    pub(crate) fn new(table: u64, disk: &Arc<Disk>) -> Self {
        Self { table, disk: Some(Arc::clone(disk)) }
    }

    /// Records the change that makes `next`; the record's number, or none where nothing is recorded.
    pub(crate) fn append(&self, next: &Snapshot, change: &Change) -> Result<Option<Lsn>> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let mut record = Record::default();
        record.push(self.table, next.version, next.created, change)?;
        disk.wal()?.append(&[record.bytes()]).map(Some)
    }

    /// Large additions as segments; see [`Disk::store_bulk`].
    pub(crate) fn store_bulk(
        &self,
        schema: &TableSchema,
        added: Vec<Arc<Chunk>>,
        next: &mut Next,
    ) -> Result<Vec<Arc<Chunk>>> {
        match &self.disk {
            Some(disk) => disk.store_bulk(schema, added, next),
            None => Ok(added),
        }
    }

    /// Whether a change of `bytes` may have to wait: for a file, or for a flush to make room.
    pub(crate) fn may_wait(&self, bytes: usize, unflushed: usize) -> bool {
        let Some(disk) = &self.disk else { return false };
        let room = disk.options.flush_bytes.saturating_mul(FLUSHES_WAITING_MAX);
        let wal_is_busy = disk.wal.as_ref().is_some_and(|wal| wal.is_busy());
        bytes > WITHOUT_WAITING_BYTES_MAX.min(disk.options.flush_bytes) || unflushed >= room || wal_is_busy
    }

    /// Holds a writer back while too much waits for a flush, and says when the table cannot be written at all.
    pub(crate) fn wait_for_room(&self, unflushed: impl Fn() -> usize) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.wal()?;
        let end = Instant::now() + PATIENCE;
        loop {
            let bytes = unflushed();
            if bytes >= disk.options.flush_bytes {
                disk.wake.notify();
            }
            if bytes < disk.options.flush_bytes.saturating_mul(FLUSHES_WAITING_MAX) {
                return Ok(());
            }
            let trouble = disk.troubles.lock().of(self.table);
            if trouble.is_some() || Instant::now() > end {
                let why = trouble.unwrap_or_else(|| "the flush takes too long".to_owned());
                return Err(Error::exhausted(format!("{bytes} bytes of changes wait for a flush to disk: {why}")));
            }
            std::thread::sleep(LOOK_AWAY);
        }
    }
}

/// A change that is recorded, and not yet known to be durable.
///
/// [`Commit::wait`] makes it durable and visible. Dropped without, it still happens, and an error is lost.
#[derive(Debug)]
#[must_use = "a change is durable and visible once `wait` returns"]
pub struct Commit {
    done: bool,
    lsn: Option<Lsn>,
    disk: Option<Arc<Disk>>,
    versions: Arc<Versions>,
    version: u64,
}

impl Commit {
    pub(crate) fn new(log: &TableLog, lsn: Option<Lsn>, versions: &Arc<Versions>, version: u64) -> Self {
        Self { done: false, lsn, disk: log.disk.clone(), versions: Arc::clone(versions), version }
    }

    /// Waits until the change is as durable as the database promises, then shows it to readers. Blocks.
    pub fn wait(mut self) -> Result<()> {
        self.finish()
    }

    /// As [`Commit::wait`] without blocking: `done` is called once the change is durable and visible, or with why it is
    /// not. It must not block.
    pub fn then(mut self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.done = true;
        let (versions, version) = (Arc::clone(&self.versions), self.version);
        // Holds nothing of the database, which may go before it is called.
        let published = move |result: Result<()>| {
            done(result.map(|()| versions.publish(version)));
        };
        match (&self.disk, self.lsn) {
            (Some(disk), Some(lsn)) => match disk.wal() {
                Ok(wal) => wal.commit_then(lsn, published),
                Err(e) => published(Err(e)),
            },
            _ => published(Ok(())),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.done = true;
        if let (Some(disk), Some(lsn)) = (&self.disk, self.lsn) {
            disk.wal()?.commit(lsn)?;
        }
        self.versions.publish(self.version);
        Ok(())
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.done {
            // What is in the log cannot be taken back: the next writer builds on it.
            let _ = self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_records_are_an_error() {
        let mut record = Record::default();
        record.push(7, 0, 0, &Change::Rename("shop")).unwrap();
        record.push(7, 3, -5, &Change::Truncate).unwrap();
        let ops = read_record(&record.0).unwrap();
        assert!(
            matches!(&ops[0], Op { table: 7, version: 0, created: 0, kind: OpKind::Rename(name) } if name == "shop")
        );
        assert!(matches!(&ops[1], Op { table: 7, version: 3, created: -5, kind: OpKind::Truncate }));
        let first = 33 + 4;
        for end in (1..record.0.len()).filter(|end| *end != first) {
            assert_eq!(read_record(&record.0[..end]).unwrap_err().kind(), ErrorKind::Corrupt, "{end}");
        }
    }
}
