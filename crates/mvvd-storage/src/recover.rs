//! Opening a database: the lock, the manifest, the segments, the log, and the files that nobody names.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use arrow::array::ArrayRef;
use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::cache::Cache;
use crate::check::DamagedSegment;
use crate::chunk::{Born, Chunk, NUMBER_ID, key_id};
use crate::database::Shared;
use crate::disk::{Disk, Options, SEGMENTS, segment_path};
use crate::fs::FileSystem;
use crate::indexing::Builder;
use crate::key::keys_of;
use crate::log::{Added, Op, OpKind, TableLog, read_record};
use crate::manifest::{MANIFEST, Manifest, Parts, TableEntry};
use crate::memory::Memory;
use crate::next::Next;
use crate::segment::{Access, Segment, SegmentMeta};
use crate::sidecar::{Shelf, sidecar_path};
use crate::snapshot::{Place, Snapshot};
use crate::table::{Table, Unsettled};
use crate::unlock::{create_seal, open_seal};
use crate::wal::{Lsn, Wal};

/// Name of the lock.
const LOCK: &str = "LOCK";
/// Folder of the log.
pub(crate) const WAL: &str = "wal";

/// How often opening for reading starts over because a writer replaced the files under it.
const ATTEMPTS_MAX: usize = 8;

/// Opens or makes the database in `fs`.
pub(crate) fn recover(fs: Arc<dyn FileSystem>, options: Options) -> Result<Shared> {
    match options.read_only {
        true => steady(&*fs, || recover_once(&fs, &options, None), Result::is_ok),
        false => recover_once(&fs, &options, None),
    }
}

/// Opens the database as far as it can be, and says what is wrong with it.
pub(crate) fn recover_parts(fs: &Arc<dyn FileSystem>, options: &Options) -> Result<(Shared, Findings)> {
    let mut findings = Findings::default();
    let shared = recover_once(fs, options, Some(&mut findings))?;
    Ok((shared, findings))
}

/// What `look` finds, once it is good or no writer has replaced the manifest meanwhile.
///
/// A writer removes files only after it replaced the manifest that names them, so what a reader misses while the manifest
/// stays is really missing.
pub(crate) fn steady<T>(
    fs: &dyn FileSystem,
    mut look: impl FnMut() -> Result<T>,
    is_good: impl Fn(&Result<T>) -> bool,
) -> Result<T> {
    let mut before = fs.read(MANIFEST).ok();
    let mut attempt = 1;
    loop {
        let found = look();
        let after = fs.read(MANIFEST).ok();
        if is_good(&found) || before == after || attempt == ATTEMPTS_MAX {
            return found;
        }
        (before, attempt) = (after, attempt + 1);
    }
}

/// Takes the lock of the one process that writes.
pub(crate) fn lock(fs: &dyn FileSystem) -> Result<Box<dyn Any + Send + Sync>> {
    fs.lock(LOCK)?.ok_or_else(|| {
        Error::conflict("the database is open in another process")
            .with_hint("one process at a time can write; others can open it for reading, or connect to it")
    })
}

/// What is wrong with a database that opens in parts.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Segments that are left out.
    pub(crate) damaged: Vec<DamagedSegment>,
    /// Why the log was not read to its end.
    pub(crate) log: Option<Error>,
    /// Records of the log that were read.
    pub(crate) records: u64,
    /// Files that nobody names; removed if the database was opened for writing.
    pub(crate) orphans: Vec<String>,
}

fn recover_once(fs: &Arc<dyn FileSystem>, options: &Options, mut findings: Option<&mut Findings>) -> Result<Shared> {
    let (fs, mut options) = (Arc::clone(fs), options.clone());
    // Once before the lock, so that a wrong key changes nothing, and once after it, when nobody else changes the files.
    options.seal = open_seal(&*fs, &options)?;
    let lock = if options.read_only { None } else { Some(lock(&*fs)?) };
    options.seal = open_seal(&*fs, &options)?;
    let manifest = match Manifest::read(&*fs, options.seal.as_deref())? {
        Some(manifest) => manifest,
        None => new_manifest(&*fs, &mut options)?,
    };
    if manifest.encrypted != options.seal.is_some() {
        return Err(match manifest.encrypted {
            true => Error::invalid("the database is encrypted").with_hint("give its key"),
            false => Error::invalid("the database is not encrypted, but a key was given"),
        });
    }
    if !options.read_only {
        fs.create_folder(SEGMENTS)?;
    }
    let is_lenient = findings.is_some();
    let cache = Arc::new(Cache::new(options.cache_bytes));
    let memory = Memory::new(options.memory.clone());
    let access = Access { seal: options.seal.clone(), cache, mode: options.mode };
    let mut segments =
        Segments { fs: &fs, access: &access, versions_kept: options.versions_kept, damaged: is_lenient.then(Vec::new) };
    let mut tables = BTreeMap::new();
    for (id, entry) in &manifest.tables {
        tables.insert(*id, Restored::of(&mut segments, *id, entry, manifest.replay_from)?);
    }
    let mut replay = Replay {
        segments,
        covered: manifest.catalog_lsn,
        catalog_lsn: manifest.catalog_lsn,
        next_table: manifest.next_table,
        named: manifest.files().collect(),
        tables,
    };
    let mut records = 0;
    let mut apply = |lsn: Lsn, bytes: &[u8]| -> Result<()> {
        records += 1;
        let ops = read_record(bytes).map_err(|e| e.context(format!("log record {lsn}")))?;
        ops.into_iter().try_for_each(|op| replay.apply(lsn, op))
    };
    let mut log_trouble = None;
    let wal = if options.read_only {
        match Wal::read(&*fs, options.seal.as_deref(), manifest.replay_from, &mut apply) {
            Err(e) if is_lenient => log_trouble = Some(e),
            read => read?,
        }
        None
    } else {
        let wal = Wal::open(Arc::clone(&fs), options.seal.clone(), manifest.replay_from, &mut apply)?;
        wal.set_durability(options.durability);
        Some(Arc::new(wal))
    };
    let Replay { catalog_lsn, next_table, mut named, tables, segments, .. } = replay;
    named.extend(tables.values().flat_map(Restored::sidecars));
    let damaged = segments.damaged.unwrap_or_default();
    let (next_segment, orphans) = find_orphans(&*fs, &named)?;
    if !options.read_only {
        // One that cannot be removed is no reason not to open.
        orphans.iter().for_each(|path| drop(fs.remove(path)));
    }
    if let Some(findings) = &mut findings {
        let named_by = |(id, found): (u64, DamagedSegment)| {
            let table = tables.get(&id).map(|table| table.name.clone()).unwrap_or(found.table);
            DamagedSegment { table, ..found }
        };
        findings.damaged = damaged.into_iter().map(named_by).collect();
        // A log that was not read to its end may name them.
        findings.orphans = if log_trouble.is_none() { orphans } else { Vec::new() };
        (findings.log, findings.records) = (log_trouble, records);
    }
    let versions_kept = options.versions_kept;
    let shelf =
        Shelf::in_files(Arc::clone(&options.registry), Arc::clone(&memory), Arc::clone(&fs), options.seal.clone());
    let disk = Arc::new(Disk {
        fs,
        wal,
        memory: Arc::clone(&memory),
        options,
        access,
        manifest: Mutex::new(manifest),
        next_table: AtomicU64::new(next_table),
        next_segment: AtomicU64::new(next_segment),
        forgotten: Mutex::default(),
        held: Mutex::default(),
        troubles: Mutex::default(),
        wake: Arc::default(),
        _lock: lock,
    });
    let tables = tables.into_iter().map(|(id, table)| {
        let log = TableLog::new(id, &disk);
        (table.name.clone(), Arc::new(table.finish(log)))
    });
    let tables: BTreeMap<String, Arc<Table>> = tables.collect();
    let builder = Builder::with_threads(disk.options.index_threads);
    Ok(Shared {
        tables: RwLock::new(tables),
        catalog: Mutex::new(catalog_lsn),
        maintaining: Mutex::default(),
        disk: Some(disk),
        shelf,
        builder,
        memory,
        versions_kept: AtomicUsize::new(versions_kept),
    })
}

/// The manifest of a database that is made now. Files without a manifest are somebody else's, or what is left of damage.
fn new_manifest(fs: &dyn FileSystem, options: &mut Options) -> Result<Manifest> {
    let strangers = [WAL, SEGMENTS].into_iter().find(|folder| fs.list(folder).is_ok_and(|files| !files.is_empty()));
    if let Some(folder) = strangers {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("there is no file \"{MANIFEST}\", but the folder \"{folder}\" has files"),
        )
        .with_hint("restore it from a backup"));
    }
    if options.read_only {
        return Err(Error::not_found("there is no database here"));
    }
    // The keys first: a manifest that nobody can open would be the end of the database.
    if options.seal.is_none() {
        options.seal = create_seal(fs, options)?;
    }
    let manifest =
        Manifest { next_table: 1, replay_from: Lsn::FIRST, encrypted: options.seal.is_some(), ..Manifest::default() };
    manifest.write(fs, options.seal.as_deref())?;
    Ok(manifest)
}

/// The number that the next segment can have, and the segments and parts of files that nobody names.
fn find_orphans(fs: &dyn FileSystem, named: &HashSet<String>) -> Result<(u64, Vec<String>)> {
    let (mut next, mut orphans) = (1, Vec::new());
    for path in named {
        let id = path.rsplit_once('/').and_then(|(_, file)| file.strip_suffix(".seg")?.parse::<u64>().ok());
        next = next.max(id.map_or(0, |id| id + 1));
    }
    for file in fs.list(SEGMENTS)? {
        let path = format!("{SEGMENTS}/{file}");
        if !named.contains(&path) {
            orphans.push(path);
        }
    }
    Ok((next, orphans))
}

/// Opens segments, for tables with so many versions. Either all of them must be sound, or those that are not are left
/// out and noted.
struct Segments<'a> {
    fs: &'a Arc<dyn FileSystem>,
    access: &'a Access,
    versions_kept: usize,
    /// With the ids of their tables; none where all must be sound.
    damaged: Option<Vec<(u64, DamagedSegment)>>,
}

impl Segments<'_> {
    /// The segment of a table; none if it is left out. `deleted` of its rows are deleted.
    fn open(&mut self, table: u64, name: &str, meta: SegmentMeta, deleted: u64) -> Result<Option<Arc<Segment>>> {
        let (path, rows) = (segment_path(meta.id), meta.rows - deleted.min(meta.rows));
        let opened = Segment::open(&**self.fs, &path, meta, self.access);
        let Some(damaged) = &mut self.damaged else { return opened.map(Some) };
        match opened.and_then(|segment| segment.verify().map(|()| segment)) {
            Ok(segment) => Ok(Some(segment)),
            Err(e) => {
                let message = e.message().to_owned();
                damaged.push((table, DamagedSegment { table: name.to_owned(), file: path, rows, message }));
                Ok(None)
            }
        }
    }
}

/// A table while its records are replayed.
///
/// The log is read from where the rows are not in segments, which may be before the manifest was written. Versions that
/// the manifest knows have their segments from it, as those of the present version have lost rows since; their rows in
/// the log are what replay has made of them when it comes by.
struct Restored {
    name: String,
    schema: Arc<TableSchema>,
    version: u64,
    created: i64,
    chunks: Vec<Arc<Chunk>>,
    /// Oldest first.
    older: Vec<Past>,
    versions_kept: usize,
    next: Next,
    flushed_lsn: Lsn,
    last_lsn: Lsn,
    unsettled: Vec<Unsettled>,
    /// The version in the manifest, and the first chunk that is not in it.
    manifest: (u64, u32),
    /// The record that makes the table, if it is in the log: what it has from then on is its first version.
    created_lsn: Option<Lsn>,
    /// Whether a segment is left out.
    is_damaged: bool,
}

/// A version before the present one.
struct Past {
    snapshot: Snapshot,
    /// Whether rows that are in the log are missing.
    replays: bool,
}

impl Restored {
    fn of(segments: &mut Segments<'_>, id: u64, entry: &TableEntry, replay_from: Lsn) -> Result<Self> {
        let schema = Arc::new(entry.read_schema(&entry.schema)?);
        let key = key_id(&schema);
        let mut is_damaged = false;
        // By the number of the chunk: what several versions have is opened once.
        let mut open: HashMap<u32, Arc<Segment>> = HashMap::new();
        let mut open_one = |uid: u32, meta: &SegmentMeta, deleted: &RoaringBitmap| -> Result<()> {
            match segments.open(id, &entry.name, meta.clone(), deleted.len())? {
                Some(segment) => drop(open.insert(uid, segment)),
                None => is_damaged = true,
            }
            Ok(())
        };
        let mut present = Vec::with_capacity(entry.segments.len());
        for part in &entry.segments {
            let deleted = part.deleted()?;
            open_one(part.uid, &part.meta, &deleted)?;
            present.push((part.uid, deleted));
        }
        let past = entry.read_older(open_one)?;
        let chunks_of = |parts: Parts| -> Vec<Arc<Chunk>> {
            let chunk =
                |(uid, deleted)| Some(Arc::new(Chunk::stored_in(uid, key, Arc::clone(open.get(&uid)?), deleted)));
            parts.into_iter().filter_map(chunk).collect()
        };
        let mut older = Vec::with_capacity(past.len());
        let mut schema_then = Arc::clone(&schema);
        for (version, parts) in past {
            if let Some(bytes) = &version.schema {
                schema_then = Arc::new(entry.read_schema(&bytes.0)?);
            }
            let (schema, chunks) = (Arc::clone(&schema_then), chunks_of(parts));
            let snapshot = Snapshot { version: version.version, created: version.created, schema, chunks };
            older.push(Past { snapshot, replays: version.replays });
        }
        older.reverse();
        // The last record of the table may be long ago, and the log after it gone.
        let flushed_lsn = entry.flushed_lsn.max(Lsn(replay_from.0.saturating_sub(1)));
        Ok(Self {
            name: entry.name.clone(),
            schema,
            version: entry.version,
            created: entry.created,
            chunks: chunks_of(present),
            older,
            versions_kept: segments.versions_kept,
            next: Next::new(entry.next_uid, entry.next_number, 0),
            flushed_lsn,
            last_lsn: flushed_lsn,
            unsettled: Vec::new(),
            manifest: (entry.version, entry.next_uid),
            created_lsn: None,
            is_damaged,
        })
    }

    /// A table without rows that record `lsn` makes.
    fn created(name: String, schema: TableSchema, created: i64, lsn: Lsn, versions_kept: usize) -> Self {
        Self {
            name,
            schema: Arc::new(schema),
            version: 0,
            created,
            chunks: Vec::new(),
            older: Vec::new(),
            versions_kept,
            next: Next::new(0, 0, 0),
            // Operations of the same record follow.
            flushed_lsn: Lsn(lsn.0 - 1),
            last_lsn: lsn,
            unsettled: Vec::new(),
            manifest: (0, 0),
            created_lsn: Some(lsn),
            is_damaged: false,
        }
    }

    fn finish(mut self, log: TableLog) -> Table {
        // A version that is not whole is none.
        self.older.retain(|past| !past.replays && !self.is_damaged);
        self.trim();
        let present = self.present();
        let (uid, number) = self.next.numbers();
        let older = self.older.into_iter().map(|past| Arc::new(past.snapshot)).collect();
        let table = Table::restored_with(present, older, self.versions_kept, uid, number, log);
        let mut writer = table.writer();
        writer.flushed_lsn = self.flushed_lsn;
        writer.last_lsn = self.last_lsn;
        writer.unsettled = self.unsettled;
        drop(writer);
        table
    }

    /// The files that indexes of the table may have.
    fn sidecars(&self) -> Vec<String> {
        let older = self.older.iter().flat_map(|past| &past.snapshot.chunks);
        let segments: HashSet<u64> =
            self.chunks.iter().chain(older).filter_map(|chunk| Some(chunk.segment()?.meta().id)).collect();
        let of = |segment: u64| self.schema.indexes().iter().map(move |index| sidecar_path(segment, index.id));
        segments.into_iter().flat_map(of).collect()
    }

    fn present(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            created: self.created,
            schema: Arc::clone(&self.schema),
            chunks: self.chunks.clone(),
        }
    }

    fn trim(&mut self) {
        let surplus = self.older.len().saturating_sub(self.versions_kept);
        self.older.drain(..surplus);
    }

    /// Whether the manifest knows the version.
    fn is_known(&self, version: u64) -> bool {
        version <= self.manifest.0
    }

    /// The schema that rows of `version` are replayed with: it has all columns that a version which is kept asks for.
    fn schema_at(&self, version: u64) -> Arc<TableSchema> {
        let known = self.older.iter().take_while(|past| self.is_known(past.snapshot.version));
        let mut known = known.map(|past| &past.snapshot).skip_while(|snapshot| snapshot.version < version);
        match known.next() {
            Some(snapshot) if self.is_known(version) => Arc::clone(&snapshot.schema),
            _ => Arc::clone(&self.schema),
        }
    }

    /// Before record `lsn` makes another version: what is there becomes an older one.
    fn begin(&mut self, version: u64, lsn: Lsn) {
        self.last_lsn = lsn;
        if !self.is_known(version) && self.created_lsn != Some(lsn) {
            self.older.push(Past { snapshot: self.present(), replays: false });
            self.trim();
        }
    }

    /// After a record has made `version`.
    fn end(&mut self, version: u64, created: i64) {
        if !self.is_known(version) {
            (self.version, self.created) = (version, created);
        } else if let Some(past) = self.older.iter_mut().find(|past| past.snapshot.version == version && past.replays) {
            let replayed = self.chunks.iter().filter(|chunk| chunk.uid() >= self.manifest.1);
            past.snapshot.chunks.extend(replayed.cloned());
            past.replays = false;
        }
    }

    /// Marks the rows with these keys as deleted. Those that are gone already are in a manifest that is newer.
    fn delete(&mut self, keys: &ArrayRef) -> Result<()> {
        let snapshot = self.present();
        self.chunks.clear();
        let mut places: Vec<Place> = Vec::with_capacity(keys.len());
        for key in keys_of(keys)? {
            places.extend(snapshot.find(&key)?);
        }
        self.chunks = crate::table::delete_places(&snapshot.chunks, &places, 0);
        Ok(())
    }

    fn add(&mut self, version: u64, columns: Vec<(u32, ArrayRef)>, rows: usize) -> Result<()> {
        let key = key_id(&self.schema);
        if let Some((_, numbers)) = columns.iter().find(|(id, _)| *id == NUMBER_ID) {
            let numbers = keys_of(numbers)?;
            if let Some(crate::key::Key::UInt(last)) = numbers.last() {
                self.next.number_after(*last);
            }
        }
        let chunk = Chunk::new(self.next.uid()?, key, rows, columns, Born::All(version));
        self.chunks.push(Arc::new(chunk));
        let schema = self.schema_at(version);
        self.next.merge_small(&schema, &mut self.chunks, None)
    }

    fn add_segment(&mut self, segment: Arc<Segment>, lsn: Lsn) -> Result<()> {
        let (uid, key) = (self.next.uid()?, key_id(&self.schema));
        self.next.number_in(&segment)?;
        self.unsettled.push(Unsettled { uid, segment: segment.meta().id, lsn });
        self.chunks.push(Arc::new(Chunk::stored_in(uid, key, segment, RoaringBitmap::new())));
        Ok(())
    }
}

/// The state that records are applied to.
struct Replay<'a> {
    segments: Segments<'a>,
    /// Creates, drops and renames up to this record are in the manifest.
    covered: Lsn,
    catalog_lsn: Lsn,
    next_table: u64,
    /// Files that a manifest or a record names.
    named: HashSet<String>,
    tables: BTreeMap<u64, Restored>,
}

impl Replay<'_> {
    fn apply(&mut self, lsn: Lsn, op: Op) -> Result<()> {
        let is_catalog = matches!(op.kind, OpKind::Create { .. } | OpKind::Drop | OpKind::Rename(_));
        if is_catalog {
            if lsn <= self.covered {
                return Ok(());
            }
            self.catalog_lsn = self.catalog_lsn.max(lsn);
        }
        match op.kind {
            OpKind::Create { name, schema } => {
                self.next_table = self.next_table.max(op.table + 1);
                let kept = self.segments.versions_kept;
                self.tables.insert(op.table, Restored::created(name, schema, op.created, lsn, kept));
            }
            OpKind::Drop => {
                self.tables.remove(&op.table);
            }
            OpKind::Rename(name) => {
                if let Some(table) = self.tables.get_mut(&op.table) {
                    table.name = name;
                }
            }
            kind => {
                // A table that is not there was dropped later.
                let Some(table) = self.tables.get_mut(&op.table).filter(|table| lsn > table.flushed_lsn) else {
                    return Ok(());
                };
                table.begin(op.version, lsn);
                match kind {
                    OpKind::Truncate => table.chunks.clear(),
                    OpKind::Schema(schema) if !table.is_known(op.version) => table.schema = Arc::new(schema),
                    OpKind::Rows { deleted, added } => {
                        if let Some(keys) = deleted {
                            table.delete(&keys)?;
                        }
                        for part in added {
                            match part {
                                Added::Rows(columns, rows) => table.add(op.version, columns, rows)?,
                                Added::Segment(meta) => {
                                    self.named.insert(segment_path(meta.id));
                                    match self.segments.open(op.table, &table.name, meta, 0)? {
                                        Some(segment) => table.add_segment(segment, lsn)?,
                                        None => table.is_damaged = true,
                                    }
                                }
                            }
                        }
                    }
                    OpKind::Schema(_) | OpKind::Create { .. } | OpKind::Drop | OpKind::Rename(_) => {}
                }
                table.end(op.version, op.created);
            }
        }
        Ok(())
    }
}
