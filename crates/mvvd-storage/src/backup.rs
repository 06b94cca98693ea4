//! A copy of a database that is a database: what backup and restore write.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mvvd_core::{Error, Result};
use roaring::RoaringBitmap;

use crate::chunk::{Chunk, Merge, key_id};
use crate::database::Database;
use crate::disk::{Options, SEGMENTS};
use crate::encrypt::MasterKey;
use crate::fs::FileSystem;
use crate::log::TableLog;
use crate::next::Next;
use crate::recover::WAL;
use crate::snapshot::Snapshot;
use crate::table::Table;

/// How a copy is made.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// The master key of the copy, which gets a data key of its own; without it the copy is not encrypted.
    pub key: Option<MasterKey>,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Tables.
    pub tables: u64,
    /// Live rows; deleted ones are left behind.
    pub rows: u64,
    /// Segments that were written.
    pub segments: u64,
    /// Bytes of these segments.
    pub bytes: u64,
}

/// Writes a copy of `from`, as it is now, to `to`, where there must be nothing: new segments without deleted rows, a
/// manifest, an empty log. The numbers of versions, ids of columns and the next row numbers are those of `from`; versions
/// before the present one are left behind.
///
/// `progress` hears how many rows are written, and of how many. All tables are copied as they are at one moment of the
/// catalogue, so that no statement that changes several of them is there by half. After an error, what was written is of
/// no use and is left to the caller.
pub fn copy(
    from: &Database,
    to: Arc<dyn FileSystem>,
    options: &CopyOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied> {
    for folder in ["", SEGMENTS, WAL] {
        if let Some(file) = to.list(folder)?.first() {
            return Err(Error::already_exists(format!("the target is not empty: it has a file \"{file}\"")));
        }
    }
    let sources: Vec<Source> = {
        let _catalog = from.shared.catalog.lock();
        from.tables().into_iter().map(|(name, table)| Source::of(name, &table)).collect()
    };
    let total = sources.iter().map(|source| source.snapshot.live() as u64).sum();
    let target = Database::open(to, Options { key: options.key.clone(), background: false, ..Options::default() })?;
    let disk = target.shared.disk.as_ref().ok_or_else(|| Error::internal("the copy has no files"))?;
    let mut copied = Copied { tables: sources.len() as u64, ..Copied::default() };
    progress(0, total);
    // A database in memory has no ids for its tables.
    let mut next_table = 1 + sources.iter().map(|source| source.id).max().unwrap_or(0);
    for mut source in sources {
        if source.id == 0 {
            (source.id, next_table) = (next_table, next_table + 1);
        }
        let snapshot = &source.snapshot;
        let schema = snapshot.schema();
        let merge = Merge::new(schema, snapshot.chunks())?;
        let segments = match merge.sources().len() {
            0 => Vec::new(),
            _ => disk.write_segments_with(schema, &merge, &mut |rows| {
                copied.rows += rows as u64;
                progress(copied.rows, total);
            })?,
        };
        let mut next = Next::new(source.next_uid, source.next_number, 0);
        let mut chunks = Vec::with_capacity(segments.len());
        for segment in segments {
            copied.segments += 1;
            copied.bytes += segment.meta().bytes;
            chunks.push(Arc::new(Chunk::stored_in(next.uid()?, key_id(schema), segment, RoaringBitmap::new())));
        }
        let (next_uid, next_number) = next.numbers();
        let restored = Snapshot { chunks, ..Snapshot::clone(snapshot) };
        let table = Table::restored(restored, next_uid, next_number, TableLog::new(source.id, disk));
        target.shared.tables.write().insert(source.name, Arc::new(table));
    }
    disk.next_table.store(next_table, Ordering::Relaxed);
    target.checkpoint()?;
    target.close()?;
    Ok(copied)
}

/// A table at one moment.
struct Source {
    name: String,
    id: u64,
    snapshot: Arc<Snapshot>,
    next_uid: u32,
    next_number: u64,
}

impl Source {
    fn of(name: String, table: &Table) -> Self {
        // The writer's numbers are those of the snapshot, or further on.
        let writer = table.writer();
        let (next_uid, next_number) = (writer.next_uid, writer.next_number);
        Self { name, id: table.log().table, snapshot: table.snapshot(), next_uid, next_number }
    }
}

#[cfg(test)]
mod tests;
