//! The tables of a database, by name, in memory or in a directory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mvvd_core::{Error, Result, TableSchema};
use mvvd_index::Registry;
use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, Options, segment_path};
use crate::fs::FileSystem;
use crate::indexing::Builder;
use crate::log::{Change, Commit, Record, TableLog};
use crate::maintain::Maintenance;
use crate::memory::{Memory, MemoryPool};
use crate::segment::check_storable;
use crate::sidecar::Shelf;
use crate::snapshot::now_micros;
use crate::table::Table;
use crate::versions::VERSIONS_KEPT;
use crate::wal::Lsn;

/// Longest table name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// All tables. Names are compared as they are; the SQL layer folds case.
#[derive(Debug)]
pub struct Database {
    // Stopped before the rest goes.
    maintenance: Option<Maintenance>,
    pub(crate) shared: Arc<Shared>,
}

/// What the maintenance thread sees too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tables: RwLock<BTreeMap<String, Arc<Table>>>,
    /// Held while tables are created, dropped or renamed, and while a manifest is put together. The last such record.
    pub(crate) catalog: Mutex<Lsn>,
    /// Held by the one who flushes and compacts.
    pub(crate) maintaining: Mutex<()>,
    pub(crate) disk: Option<Arc<Disk>>,
    /// Opens indexes and keeps their files.
    pub(crate) shelf: Arc<Shelf>,
    /// Builds indexes.
    pub(crate) builder: Builder,
    /// The account of rows that are only in memory.
    pub(crate) memory: Arc<Memory>,
    /// Versions that each table keeps beside the present one.
    pub(crate) versions_kept: AtomicUsize,
}

impl Default for Database {
    fn default() -> Self {
        Self::memory()
    }
}

impl Database {
    /// A database in memory, without tables, as large as it gets.
    pub fn memory() -> Self {
        Self::memory_within(None, Arc::new(Registry::builtin()))
    }

    /// A database in memory, without tables, whose rows take memory from `pool`, with these kinds of index.
    pub fn memory_within(pool: Option<Arc<dyn MemoryPool>>, registry: Arc<Registry>) -> Self {
        let memory = Memory::new(pool);
        let shared = Shared {
            tables: RwLock::default(),
            catalog: Mutex::default(),
            maintaining: Mutex::default(),
            disk: None,
            shelf: Shelf::in_memory(registry, Arc::clone(&memory)),
            builder: Builder::default(),
            memory,
            versions_kept: AtomicUsize::new(VERSIONS_KEPT),
        };
        let shared = Arc::new(shared);
        shared.memory.belongs_to(&shared);
        Self { maintenance: None, shared }
    }

    /// Opens the database in `fs`, or makes one; replays what its log has beyond its segments.
    ///
    /// Errors: another process has it open for writing ([`Conflict`](mvvd_core::ErrorKind::Conflict)), a file is damaged
    /// ([`Corrupt`](mvvd_core::ErrorKind::Corrupt), with its name), another format version, a wrong key.
    pub fn open(fs: Arc<dyn FileSystem>, options: Options) -> Result<Self> {
        let shared = Arc::new(crate::recover::recover(fs, options)?);
        shared.memory.belongs_to(&shared);
        shared.tables().iter().for_each(|(_, table)| table.belongs_to(&shared.memory));
        let maintenance = match &shared.disk {
            Some(disk) if disk.options.background && !disk.options.read_only => Some(Maintenance::start(&shared)?),
            _ => None,
        };
        let database = Self { maintenance, shared };
        if database.tables().iter().any(|(_, table)| !table.head().schema().indexes().is_empty()) {
            database.index_in_background()?;
        }
        Ok(database)
    }

    /// The table named `name`.
    pub fn table(&self, name: &str) -> Result<Arc<Table>> {
        self.find(name).ok_or_else(|| Error::not_found(format!("table \"{name}\" does not exist")))
    }

    /// The table named `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<Arc<Table>> {
        self.shared.tables.read().get(name).cloned()
    }

    /// All tables in order of their names.
    pub fn tables(&self) -> Vec<(String, Arc<Table>)> {
        self.shared.tables()
    }

    /// The files of the database, if it has any.
    pub fn disk(&self) -> Option<&Disk> {
        self.shared.disk.as_deref()
    }

    /// Keeps so many versions of each table beside the present one; see [`Table::keep_versions`].
    pub fn keep_versions(&self, kept: usize) {
        self.shared.versions_kept.store(kept, Ordering::Relaxed);
        self.tables().iter().for_each(|(_, table)| table.keep_versions(kept));
    }

    /// Makes a table empty.
    pub fn create(&self, name: &str, schema: TableSchema) -> Result<Arc<Table>> {
        self.add(name, Table::new(schema))
    }

    /// Adds a table that was filled before anybody could see it. Durable when it returns.
    pub fn add(&self, name: &str, table: Table) -> Result<Arc<Table>> {
        self.put(name, table, false)
    }

    /// Adds a table in the place of the one that has the name, if there is one, in one step.
    pub fn add_or_replace(&self, name: &str, table: Table) -> Result<Arc<Table>> {
        self.put(name, table, true)
    }

    fn put(&self, name: &str, table: Table, replace: bool) -> Result<Arc<Table>> {
        check_name(name)?;
        let head = table.head();
        check_storable(&head.schema)?;
        if let Some(disk) = &self.shared.disk {
            disk.check_writable()?;
        }
        // Before the lock: a manifest may have to be written to make room, and segments take long.
        let taken = self.shared.memory.take(table.unflushed_bytes())?;
        let mut next = table.writer().next();
        let chunks = match &self.shared.disk {
            Some(disk) => disk.store_bulk(&head.schema, head.chunks.clone(), &mut next)?,
            None => Vec::new(),
        };
        let mut catalog = self.shared.catalog.lock();
        let before = self.find(name);
        if before.is_some() && !replace {
            if let Some(disk) = &self.shared.disk {
                let paths = chunks.iter().filter_map(|chunk| Some(segment_path(chunk.segment()?.meta().id)));
                disk.forgotten.lock().extend(paths);
            }
            return Err(Error::already_exists(format!("table \"{name}\" already exists")));
        }
        let table = match &self.shared.disk {
            None => Arc::new(table),
            Some(disk) => {
                let id = disk.new_table_id();
                let log = TableLog::new(id, disk);
                let mut record = Record::default();
                if let Some(before) = &before {
                    record.push(before.log().table, 0, head.created, &Change::Drop)?;
                }
                record.push(id, 0, head.created, &Change::Create { name, schema: &head.schema })?;
                if !chunks.is_empty() || head.version > 0 {
                    let rows = Change::Rows { deleted: None, added: &chunks };
                    record.push(id, head.version.max(1), head.created, &rows)?;
                }
                let lsn = disk.record(&record)?;
                *catalog = lsn;
                Arc::new(table.recorded(log, chunks, lsn))
            }
        };
        table.keep_versions(self.shared.versions_kept.load(Ordering::Relaxed));
        drop(taken);
        table.belongs_to(&self.shared.memory);
        self.shared.tables.write().insert(name.to_owned(), Arc::clone(&table));
        self.forget(before.as_slice());
        Ok(table)
    }

    /// Removes the tables named, all or none; readers that hold a snapshot keep it.
    pub fn drop_all(&self, names: &[String]) -> Result<()> {
        let mut catalog = self.shared.catalog.lock();
        let tables = names.iter().map(|name| self.table(name)).collect::<Result<Vec<_>>>()?;
        if let Some(disk) = self.shared.disk.as_ref().filter(|_| !tables.is_empty()) {
            disk.check_writable()?;
            let mut record = Record::default();
            for table in &tables {
                record.push(table.log().table, 0, now_micros(), &Change::Drop)?;
            }
            *catalog = disk.record(&record)?;
        }
        let mut map = self.shared.tables.write();
        for name in names {
            map.remove(name);
        }
        drop(map);
        self.forget(&tables);
        Ok(())
    }

    /// Deletes every row of the tables named, of all or of none. Durable when it returns.
    pub fn truncate_all(&self, names: &[String]) -> Result<()> {
        // No name changes before its table is locked, and a copy begins before or after the whole. Sorted, as all who
        // lock several tables must lock them in one order.
        let _catalog = self.shared.catalog.lock();
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        names.dedup();
        let tables = names.into_iter().map(|name| self.table(name)).collect::<Result<Vec<_>>>()?;
        let mut writers: Vec<_> = tables.iter().map(|table| table.writer()).collect();
        let truncated: Vec<_> = writers.iter().map(|writer| (writer.next(), writer.truncated())).collect();
        let mut record = Record::default();
        for (table, (_, snapshot)) in tables.iter().zip(&truncated) {
            record.push(table.log().table, snapshot.version, snapshot.created, &Change::Truncate)?;
        }
        let lsn = match self.shared.disk.as_ref().filter(|_| !tables.is_empty()) {
            Some(disk) => Some(disk.wal()?.append(&[record.bytes()])?),
            None => None,
        };
        // Nothing fails from here on but the log, and after that no table is written any more.
        let changed = tables.iter().zip(&mut writers).zip(truncated);
        let commits: Vec<Commit> = changed
            .map(|((table, writer), (next, snapshot))| table.advance(writer, next, snapshot, lsn, &Change::Truncate))
            .collect();
        drop(writers);
        commits.into_iter().try_for_each(Commit::wait)?;
        self.shared.cancel_builds();
        Ok(())
    }

    /// Gives a table another name.
    pub fn rename(&self, old: &str, new: &str) -> Result<()> {
        self.alter(old, Some(new), None)
    }

    /// Gives a table another name, another schema, or both in one step. Rows keep their values: columns are known by
    /// id. Durable when it returns.
    pub fn alter(&self, name: &str, new_name: Option<&str>, schema: Option<TableSchema>) -> Result<()> {
        let mut catalog = self.shared.catalog.lock();
        if let Some(new) = new_name {
            check_name(new)?;
            if self.find(new).is_some() {
                return Err(Error::already_exists(format!("table \"{new}\" already exists")));
            }
        }
        let table = self.table(name)?;
        if new_name.is_none() && schema.is_none() {
            return Ok(());
        }
        schema.as_ref().map_or(Ok(()), check_storable)?;
        let mut writer = table.writer();
        // An index may have been made since the caller looked.
        let schema = schema.map(|schema| Arc::new(schema.with_indexes_of(&writer.head.schema)));
        let kept = schema.as_deref().map_or(writer.head.schema.indexes(), TableSchema::indexes);
        let is_kept = |id: u32| kept.iter().any(|index| index.id == id);
        let dropped: Vec<u32> =
            writer.head.schema.indexes().iter().map(|index| index.id).filter(|&id| !is_kept(id)).collect();
        let mut record = Record::default();
        if let Some(new) = new_name {
            record.push(table.log().table, 0, now_micros(), &Change::Rename(new))?;
        }
        let altered = schema.map(|schema| (writer.altered(&schema), schema));
        if let Some((snapshot, schema)) = &altered {
            record.push(table.log().table, snapshot.version, snapshot.created, &Change::Schema(schema))?;
        }
        let lsn = match &self.shared.disk {
            Some(disk) => Some(disk.wal()?.append(&[record.bytes()])?),
            None => None,
        };
        let commit = altered.map(|(snapshot, schema)| {
            let next = writer.next();
            table.advance(&mut writer, next, snapshot, lsn, &Change::Schema(&schema))
        });
        drop(writer);
        if let (Some(disk), Some(lsn)) = (&self.shared.disk, lsn) {
            disk.wal()?.commit(lsn)?;
        }
        if let Some(new) = new_name {
            if let Some(lsn) = lsn {
                *catalog = lsn;
            }
            let mut map = self.shared.tables.write();
            map.remove(name);
            map.insert(new.to_owned(), Arc::clone(&table));
        }
        commit.map_or(Ok(()), Commit::wait)?;
        self.shared.cancel_builds();
        let versions = table.all_versions();
        for index in dropped {
            self.shared.shelf.forget(versions.iter().flat_map(|version| &version.chunks), index);
        }
        Ok(())
    }

    /// The files of tables that are gone can go with the next manifest, and nobody wants their indexes any more.
    fn forget(&self, tables: &[Arc<Table>]) {
        self.shared.cancel_builds();
        if let Some(disk) = &self.shared.disk {
            for table in tables {
                disk.forget(table);
            }
        }
    }

    /// Writes everything that is in memory to segments, and a manifest that names them. Waits for it.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.checkpoint_all()
    }

    /// Merges the segments of each table into as few as their size allows. Waits for it.
    pub fn compact(&self) -> Result<()> {
        self.shared.compact_all()
    }

    /// Rows, segments and bytes, by table and by kind of file.
    pub fn stats(&self) -> Result<crate::Stats> {
        crate::stats::stats(&self.shared)
    }

    /// Bytes of rows that are only in memory, those included that only readers and older versions have.
    pub fn memory_bytes(&self) -> usize {
        self.shared.memory.bytes()
    }

    /// Stops background work and makes everything durable; what [`Drop`] does, with the error.
    pub fn close(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.builder.stop();
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.stop();
        }
        match &self.shared.disk {
            Some(disk) => disk.close(),
            None => Ok(()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Nobody can be told; what was acknowledged is durable already.
        let _ = self.stop();
    }
}

impl Shared {
    pub(crate) fn tables(&self) -> Vec<(String, Arc<Table>)> {
        self.tables.read().iter().map(|(name, table)| (name.clone(), Arc::clone(table))).collect()
    }

    /// Without files, lets go of versions that hold rows in memory which the present ones may not have any more.
    pub(crate) fn forget_versions(&self) -> Result<()> {
        if self.disk.is_none() {
            self.tables().iter().for_each(|(_, table)| table.forget_versions_in_memory());
        }
        Ok(())
    }

    /// Takes fewer bytes for the rows in memory: writes them to segments or, without files, drops deleted ones.
    pub(crate) fn make_room(&self) -> Result<()> {
        match &self.disk {
            Some(_) if self.tables().iter().all(|(_, table)| !table.has_unflushed()) => Ok(()),
            Some(_) => self.checkpoint_all().map_err(|e| e.context("a flush to make room in memory")),
            None => self.tables().iter().try_for_each(|(_, table)| table.squeeze()),
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!("a table name has 1 to {NAME_BYTES_MAX} bytes, got {}", name.len())));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
