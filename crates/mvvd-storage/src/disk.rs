//! What a database on disk has beside its tables: files, log, manifest.
//!
//! ```text
//! LOCK                       held by the one process that writes
//! MANIFEST                   tables, segments, where replay begins; replaced as a whole
//! KEYS                       only if encrypted: data keys, wrapped by the master key
//! wal/<first record>.log     changes that are not in segments yet
//! segments/<number>.seg      Arrow IPC files, immutable
//! segments/<number>.<n>.idx  index n of the table over such a file; made again if it is missing
//! ```
//!
//! What is durable when: a change once its record is synced (see [`Durability`]); a segment before the record or the
//! manifest that names it; a manifest before the log records and files that it makes superfluous are removed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use mvvd_index::Registry;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::chunk::{Chunk, Merge, key_id, stored_fields};
use crate::encrypt::MasterKey;
use crate::fs::FileSystem;
use crate::log::Record;
use crate::manifest::Manifest;
use crate::memory::{Memory, MemoryPool};
use crate::next::Next;
use crate::seal::Seal;
use crate::segment::{self, Access, Segment};
use crate::sidecar::segment_of_sidecar;
use crate::table::Table;
use crate::versions::VERSIONS_KEPT;
use crate::wal::{Durability, Lsn, Wal};

/// A statement that adds so many bytes, or as many as a flush takes, writes them to segments at once, and only their
/// names to the log.
const BULK_BYTES_MIN: usize = 16 << 20;
/// A segment is cut before it has more bytes than this, or than a share of the memory limit.
const SEGMENT_BYTES_MAX: usize = 256 << 20;
/// A segment has at most so many rows.
pub(crate) const SEGMENT_ROWS_MAX: usize = 16 << 20;

/// Folder of the segments.
pub(crate) const SEGMENTS: &str = "segments";

/// The file of a segment.
pub(crate) fn segment_path(id: u64) -> String {
    format!("{SEGMENTS}/{id:012}.seg")
}

/// What of a database in a directory is read from where.
///
/// The third mode, `memory`, is [`Database::memory`](crate::Database::memory): nothing on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageMode {
    /// Everything is mapped, and read when it is needed.
    #[default]
    Disk,
    /// Columns that are not vectors are copied to memory when they are first read, as far as [`Options::cache_bytes`]
    /// allows; vectors are mapped.
    Hybrid,
}

impl StorageMode {
    /// Its name, as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How a database on disk is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a change counts as durable.
    pub durability: Durability,
    /// Bytes of changes in memory after which a table is flushed to a segment.
    pub flush_bytes: usize,
    /// Nothing is written, and no lock is taken.
    pub read_only: bool,
    /// Flush and compact in the background; without it only when asked to.
    pub background: bool,
    /// What is read from where.
    pub mode: StorageMode,
    /// Most bytes of columns that are kept on the heap to be read again: those of an encrypted database, and those that
    /// [`StorageMode::Hybrid`] copies.
    pub cache_bytes: usize,
    /// The account that rows in memory are on, and rows on their way to segments; without it there is no limit.
    pub memory: Option<Arc<dyn MemoryPool>>,
    /// Versions that each table keeps beside the present one, until [`Database::keep_versions`](crate::Database) says
    /// another number.
    pub versions_kept: usize,
    /// The key of an encrypted database, and of a new one that will be encrypted.
    pub key: Option<MasterKey>,
    /// The kinds of index that there are.
    pub registry: Arc<Registry>,
    /// Threads that build indexes: for statements, and as many for the background; without a number as many as there are
    /// cores. [`Database::index_with_threads`](crate::Database::index_with_threads) can say another one.
    pub index_threads: Option<usize>,
    /// Encrypts and decrypts all files. Made from `key` where that is given; alone, a cipher that keeps no key file.
    pub seal: Option<Arc<dyn Seal>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            flush_bytes: 64 << 20,
            read_only: false,
            background: true,
            mode: StorageMode::Disk,
            cache_bytes: 256 << 20,
            memory: None,
            versions_kept: VERSIONS_KEPT,
            key: None,
            registry: Arc::new(Registry::builtin()),
            index_threads: None,
            seal: None,
        }
    }
}

/// What background work failed at last.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// By table.
    tables: BTreeMap<u64, String>,
    /// Of the last round as a whole.
    pub(crate) last: Option<String>,
}

impl Troubles {
    pub(crate) fn note(&mut self, table: u64, error: Option<&Error>) {
        match error {
            Some(e) => drop(self.tables.insert(table, e.to_string())),
            None => drop(self.tables.remove(&table)),
        }
    }

    /// Why a table is not flushed, if it is not.
    pub(crate) fn of(&self, table: u64) -> Option<String> {
        // Where no table failed, it was the manifest, which all of them need.
        let of_all = || self.last.clone().filter(|_| self.tables.is_empty());
        self.tables.get(&table).cloned().or_else(of_all)
    }
}

/// The files of an open database.
#[derive(Debug)]
pub struct Disk {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) wal: Option<Arc<Wal>>,
    pub(crate) options: Options,
    /// How segments are read.
    pub(crate) access: Access,
    pub(crate) memory: Arc<Memory>,
    /// The manifest as it is on disk.
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) next_table: AtomicU64,
    pub(crate) next_segment: AtomicU64,
    /// Files that no table has any more, to be removed once no manifest names them.
    pub(crate) forgotten: Mutex<Vec<String>>,
    /// Files that no version of a table has any more, but that replay of the log would ask for.
    pub(crate) held: Mutex<Vec<String>>,
    /// Why the last flush failed; writers hear of it when memory runs full.
    pub(crate) troubles: Mutex<Troubles>,
    pub(crate) wake: Arc<crate::maintain::Wake>,
    /// Held as long as the database is open for writing.
    pub(crate) _lock: Option<Box<dyn Any + Send + Sync>>,
}

impl Disk {
    /// Refuses a write to a database that was opened for reading.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.wal().map(|_| ())
    }

    /// The log, of a database that is open for writing.
    pub(crate) fn wal(&self) -> Result<&Arc<Wal>> {
        self.wal.as_ref().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the database is open for reading only"))
    }

    pub(crate) fn new_table_id(&self) -> u64 {
        self.next_table.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a record and waits until it is durable.
    pub(crate) fn record(&self, record: &Record) -> Result<Lsn> {
        let wal = self.wal()?;
        let lsn = wal.append(&[record.bytes()])?;
        wal.commit(lsn)?;
        Ok(lsn)
    }

    /// Chunks of a new table, or of a large statement, in segments if they are worth it; otherwise as they came.
    pub(crate) fn store_bulk(
        &self,
        schema: &TableSchema,
        chunks: Vec<Arc<Chunk>>,
        next: &mut Next,
    ) -> Result<Vec<Arc<Chunk>>> {
        let bulk_bytes_min = BULK_BYTES_MIN.min(self.options.flush_bytes);
        if chunks.iter().map(|chunk| chunk.data_bytes()).sum::<usize>() < bulk_bytes_min {
            return Ok(chunks);
        }
        let merge = Merge::new(schema, &chunks)?;
        let segments = self.write_segments(schema, &merge)?;
        let key = key_id(schema);
        let stored = |segment| Ok(Arc::new(Chunk::stored_in(next.uid()?, key, segment, RoaringBitmap::new())));
        segments.into_iter().map(stored).collect()
    }

    /// A segment is cut before it has more bytes than this.
    pub(crate) fn segment_bytes_max(&self) -> usize {
        SEGMENT_BYTES_MAX.min(self.memory.step_bytes_max())
    }

    /// Writes rows to as many segments as their size needs, durably; nobody else knows of them yet.
    ///
    /// After an error the files that were written are removed.
    pub(crate) fn write_segments(&self, schema: &TableSchema, merge: &Merge) -> Result<Vec<Arc<Segment>>> {
        self.write_segments_with(schema, merge, &mut |_| ())
    }

    /// As [`Disk::write_segments`], and says after each segment how many rows it has.
    pub(crate) fn write_segments_with(
        &self,
        schema: &TableSchema,
        merge: &Merge,
        written_rows: &mut dyn FnMut(usize),
    ) -> Result<Vec<Arc<Segment>>> {
        let rows = merge.sources().len();
        let row_bytes = merge.row_bytes();
        let per_segment = (self.segment_bytes_max() / row_bytes).clamp(1, SEGMENT_ROWS_MAX);
        let fields = stored_fields(schema);
        let mut written = Vec::new();
        let mut write_all = || -> Result<Vec<Arc<Segment>>> {
            let mut segments = Vec::new();
            for start in (0..rows).step_by(per_segment) {
                let range = start..(start + per_segment).min(rows);
                let id = self.next_segment.fetch_add(1, Ordering::Relaxed);
                let path = segment_path(id);
                written.push(path.clone());
                let count = range.len();
                // The copy, if one is made: small enough whatever else there is, since a flush is what makes room.
                let _copied = merge.run(range.clone()).is_none().then(|| self.memory.note(count * row_bytes));
                let batch = merge.batch(&fields, range)?;
                let seal = self.options.seal.clone();
                let meta = segment::write_segment(&*self.fs, &path, id, &fields, &batch, seal)?;
                drop(batch);
                segments.push(Segment::open(&*self.fs, &path, meta, &self.access)?);
                written_rows(count);
            }
            self.fs.sync_folder(SEGMENTS)?;
            Ok(segments)
        };
        let result = write_all();
        if result.is_err() {
            for path in &written {
                let _ = self.fs.remove(path);
            }
        }
        result
    }

    /// The files of a table that is gone can be removed with the next manifest.
    pub(crate) fn forget(&self, table: &Table) {
        let versions = table.all_versions();
        let segments = versions.iter().flat_map(|snapshot| &snapshot.chunks).filter_map(|chunk| chunk.segment());
        let ids: BTreeSet<u64> = segments.map(|segment| segment.meta().id).chain(table.take_dropped()).collect();
        self.forgotten.lock().extend(ids.into_iter().map(segment_path));
        self.wake.notify();
    }

    /// Removes the files of segments and of their indexes. One that cannot be removed now is removed when the database
    /// is opened.
    pub(crate) fn remove_segments(&self, paths: HashSet<String>) {
        if paths.is_empty() {
            return;
        }
        for name in self.fs.list(SEGMENTS).unwrap_or_default() {
            if segment_of_sidecar(&name).is_some_and(|segment| paths.contains(&segment_path(segment))) {
                let _ = self.fs.remove(&format!("{SEGMENTS}/{name}"));
            }
        }
        for path in paths {
            let _ = self.fs.remove(&path);
        }
    }

    /// Makes everything durable and ends the log.
    pub(crate) fn close(&self) -> Result<()> {
        match &self.wal {
            Some(wal) => wal.close(),
            None => Ok(()),
        }
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Bytes of columns that are kept on the heap at this moment.
    pub fn cached_bytes(&self) -> usize {
        self.access.cache.bytes()
    }

    /// Bytes of the log; 0 for a database that is open for reading only.
    pub fn log_bytes(&self) -> u64 {
        self.wal.as_ref().map_or(0, |wal| wal.bytes())
    }
}
