//! How large is a database, and what of it is bookkeeping?

use mvvd_core::Result;

use crate::database::Shared;
use crate::disk::SEGMENTS;
use crate::fs::FileSystem;
use crate::manifest::MANIFEST;
use crate::recover::WAL;
use crate::sidecar::segment_of_sidecar;
use crate::unlock::KEYS;

/// Sizes of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the files of segments.
    pub segment_bytes: u64,
    /// Bytes of the files of indexes.
    pub index_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of the manifest.
    pub manifest_bytes: u64,
    /// Bytes of the key file.
    pub key_bytes: u64,
    /// The tables, by name.
    pub tables: Vec<TableStats>,
}

/// Sizes of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Its name.
    pub name: String,
    /// Its version: how many changes it has seen.
    pub version: u64,
    /// Live rows.
    pub rows: u64,
    /// Deleted rows that still take room.
    pub deleted: u64,
    /// Rows that are only in memory and in the log.
    pub rows_in_log: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Bytes of the columns, wherever they are.
    pub data_bytes: u64,
    /// Bytes beside the columns: metadata and statistics, row numbers, deletions, encryption.
    pub bookkeeping_bytes: u64,
}

impl TableStats {
    /// Bytes of bookkeeping that a live row takes; none for a table without rows.
    pub fn bookkeeping_per_row(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.bookkeeping_bytes as f64 / self.rows as f64)
    }
}

impl Stats {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.segment_bytes + self.index_bytes + self.log_bytes + self.manifest_bytes + self.key_bytes
    }
}

pub(crate) fn stats(shared: &Shared) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(disk) = &shared.disk {
        let fs = &*disk.fs;
        for file in fs.list(SEGMENTS)? {
            let bytes = bytes_of(fs, &format!("{SEGMENTS}/{file}"))?;
            match segment_of_sidecar(&file) {
                Some(_) => stats.index_bytes += bytes,
                None => stats.segment_bytes += bytes,
            }
        }
        stats.log_bytes = bytes_in(fs, WAL)?;
        stats.manifest_bytes = bytes_of(fs, MANIFEST)?;
        stats.key_bytes = bytes_of(fs, KEYS)?;
    }
    for (name, table) in shared.tables() {
        let snapshot = table.snapshot();
        let mut of_table = TableStats { name, version: snapshot.version(), ..TableStats::default() };
        for chunk in snapshot.chunks() {
            of_table.rows += chunk.live() as u64;
            of_table.deleted += chunk.deleted().len();
            of_table.data_bytes += chunk.data_bytes() as u64;
            of_table.bookkeeping_bytes += chunk.bookkeeping_bytes() as u64;
            match chunk.segment_meta() {
                Some(meta) => {
                    of_table.segments += 1;
                    of_table.segment_bytes += meta.bytes;
                }
                None => of_table.rows_in_log += chunk.live() as u64,
            }
        }
        stats.tables.push(of_table);
    }
    Ok(stats)
}

fn bytes_in(fs: &dyn FileSystem, folder: &str) -> Result<u64> {
    let files = fs.list(folder)?;
    files.iter().map(|file| bytes_of(fs, &format!("{folder}/{file}"))).sum()
}

/// Length of a file; 0 if it is not there, or not any more.
fn bytes_of(fs: &dyn FileSystem, path: &str) -> Result<u64> {
    match fs.len(path) {
        Err(e) if e.kind() == mvvd_core::ErrorKind::NotFound => Ok(0),
        bytes => bytes,
    }
}
