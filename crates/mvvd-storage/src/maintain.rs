//! Background work: flush, compaction, manifests. One thread a database; readers and writers hardly notice it.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvvd_core::{Error, ErrorKind, Result};

use crate::chunk::Chunk;
use crate::database::Shared;
use crate::disk::{Disk, SEGMENT_ROWS_MAX, segment_path};
use crate::manifest::{Manifest, Older, TableEntry};
use crate::moves::Moves;
use crate::table::Table;

/// How long the thread rests at most when nobody wakes it.
const REST: Duration = Duration::from_secs(1);
/// A log of so many bytes is cut by flushing every table.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// Segments of one size are merged once there are so many.
const TIER_SEGMENTS: usize = 4;
/// A segment belongs to the next tier when it is so many times larger.
const TIER_FACTOR: u64 = 4;
/// Segments smaller than this are all one tier.
const TIER_BYTES_MIN: u64 = 4 << 20;
/// A segment is rewritten once this share of its rows is deleted.
const DELETED_SHARE_MAX: f64 = 0.3;

/// A bell: rung by writers, heard by the thread.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    stop: bool,
}

impl Wake {
    pub(crate) fn notify(&self) {
        self.lock().rung = true;
        self.bell.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.bell.notify_all();
    }

    /// Waits for the bell, or a while; whether to go on.
    pub(crate) fn wait(&self) -> bool {
        let end = Instant::now() + REST;
        let mut state = self.lock();
        while !state.rung && !state.stop {
            let Some(left) = end.checked_duration_since(Instant::now()) else { break };
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.rung = false;
        !state.stop
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Maintenance {
    wake: Arc<Wake>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let disk = shared.disk.as_ref().ok_or_else(|| Error::internal("a database in memory needs no maintenance"))?;
        let (wake, ear) = (Arc::clone(&disk.wake), Arc::clone(&disk.wake));
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("mvvd-maintenance".into())
            .spawn(move || {
                while ear.wait() {
                    // Writers hear of it when memory runs full.
                    let result = shared.maintain();
                    if let Some(disk) = &shared.disk {
                        disk.troubles.lock().last = result.err().map(|e| e.to_string());
                    }
                }
            })
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start the maintenance thread: {e}")))?;
        Ok(Self { wake, thread })
    }

    /// Waits for the work that is under way.
    pub(crate) fn stop(self) {
        self.wake.stop();
        // A panic there has been printed; the log has everything that was not flushed.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn disk(&self) -> Result<&Disk> {
        self.disk.as_deref().ok_or_else(|| Error::internal("a database in memory has no files"))
    }

    /// One round: whatever is due.
    pub(crate) fn maintain(&self) -> Result<()> {
        let disk = self.disk()?;
        let _one = self.maintaining.lock();
        // A long log is cut by the manifest, even where there is nothing to flush.
        let long_log = disk.log_bytes() > LOG_BYTES_MAX;
        let (mut changed, result) = self.each_table(|table| {
            let is_full = table.unflushed_bytes() >= disk.options.flush_bytes;
            let mut changed = table.has_dropped();
            if long_log || is_full || table.unsettled() >= TIER_SEGMENTS {
                changed |= flush(disk, table)?;
            }
            while let Some(picked) = due(table, disk.segment_bytes_max()) {
                rewrite(disk, table, &picked)?;
                changed = true;
            }
            Ok(changed)
        });
        changed |= long_log || !disk.forgotten.lock().is_empty();
        if changed {
            self.builder.wake.notify();
            result.and(self.write_manifest())
        } else {
            result
        }
    }

    pub(crate) fn checkpoint_all(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.check_writable()?;
        let _one = self.maintaining.lock();
        let (_, result) = self.each_table(|table| flush(disk, table));
        self.write_manifest().and(result)
    }

    pub(crate) fn compact_all(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.check_writable()?;
        let _one = self.maintaining.lock();
        let (_, result) = self.each_table(|table| {
            flush(disk, table)?;
            let mut picked: Vec<Arc<Chunk>> = Vec::new();
            for chunk in table.settled_chunks() {
                let bytes: usize = picked.iter().map(|chunk| chunk.data_bytes()).sum();
                if !picked.is_empty() && bytes + chunk.data_bytes() > disk.segment_bytes_max() {
                    rewrite_if_better(disk, table, &picked)?;
                    picked.clear();
                }
                picked.push(chunk);
            }
            rewrite_if_better(disk, table, &picked)?;
            Ok(true)
        });
        self.write_manifest().and(result)
    }

    /// Does the work for each table, also after it failed for one. Whether something changed, and the first error.
    fn each_table(&self, mut work: impl FnMut(&Table) -> Result<bool>) -> (bool, Result<()>) {
        let (mut changed, mut result) = (false, Ok(()));
        for (name, table) in self.tables() {
            let done = work(&table).map_err(|e| e.context(format!("table \"{name}\"")));
            if let Some(disk) = &self.disk {
                disk.troubles.lock().note(table.log().table, done.as_ref().err());
            }
            match done {
                Ok(done) => changed |= done,
                // What was done before the error counts.
                Err(e) => (changed, result) = (true, result.and(Err(e))),
            }
        }
        (changed, result)
    }

    /// Puts a manifest of the present state in place, then removes what it makes superfluous.
    fn write_manifest(&self) -> Result<()> {
        let disk = self.disk()?;
        let wal = disk.wal.as_ref().ok_or_else(|| Error::internal("a manifest is written by the writer"))?;
        let catalog = self.catalog.lock();
        let mut manifest = disk.manifest.lock();
        let mut candidates = std::mem::take(&mut *disk.forgotten.lock());
        candidates.append(&mut disk.held.lock());
        // Everything up to here is in the manifest or replayed; the log goes on in a new file.
        let end = wal.rotate()?;
        let mut next = Manifest {
            number: manifest.number + 1,
            next_table: disk.next_table.load(std::sync::atomic::Ordering::Relaxed),
            catalog_lsn: *catalog,
            replay_from: end,
            encrypted: manifest.encrypted,
            tables: std::collections::BTreeMap::new(),
        };
        let mut replayed: HashSet<String> = HashSet::new();
        for (name, table) in self.tables() {
            let entry = entry_of(&name, &table)?;
            if entry.replays {
                next.replay_from = next.replay_from.min(entry.entry.flushed_lsn.next());
            }
            next.tables.insert(table.log().table, entry.entry);
            replayed.extend(entry.replayed.into_iter().map(segment_path));
            candidates.extend(table.take_dropped().into_iter().map(segment_path));
        }
        // A set of deleted rows must not be ahead of the log: the other half of an update would be lost.
        wal.sync_all()?;
        next.write(&*disk.fs, disk.options.seal.as_deref())?;
        let kept: HashSet<String> = next.files().collect();
        let gone = manifest.files().chain(candidates).filter(|path| !kept.contains(path));
        let (held, obsolete): (HashSet<String>, HashSet<String>) = gone.partition(|path| replayed.contains(path));
        disk.held.lock().extend(held);
        let replay_from = next.replay_from;
        *manifest = next;
        drop((manifest, catalog));
        self.cancel_builds();
        disk.remove_segments(obsolete);
        wal.remove_below(replay_from)
    }
}

struct Entry {
    entry: TableEntry,
    /// Whether changes after the entry's `flushed_lsn` must be replayed.
    replays: bool,
    /// The segments that this would ask for.
    replayed: Vec<u64>,
}

fn entry_of(name: &str, table: &Table) -> Result<Entry> {
    let writer = table.writer();
    let head = &writer.head;
    let mut older = table.all_versions();
    let replays = older.iter().any(|snapshot| snapshot.has_unflushed());
    let flushed_lsn = if replays { writer.flushed_lsn } else { writer.last_lsn.max(writer.flushed_lsn) };
    let is_settled = |chunk: &Chunk| !replays || writer.is_settled(chunk);
    older.retain(|snapshot| snapshot.version < head.version);
    let surplus = older.len().saturating_sub(table.versions_kept());
    older.drain(..surplus);
    let replayed = writer.unsettled.iter().filter(|_| replays).map(|unsettled| unsettled.segment).collect();
    let entry = TableEntry {
        name: name.to_owned(),
        schema: TableEntry::write_schema(&head.schema)?,
        version: head.version,
        flushed_lsn,
        next_uid: writer.next_uid,
        next_number: writer.next_number,
        created: head.created,
        segments: TableEntry::segments_of(head, is_settled),
        older: Older::of(head, &older, is_settled)?,
    };
    Ok(Entry { entry, replays, replayed })
}

/// Writes the rows of a table that are only in memory to segments, those of older versions too; whether there were any.
fn flush(disk: &Disk, table: &Table) -> Result<bool> {
    let frozen = table.freeze();
    let result = (|| {
        if frozen.chunks.is_empty() && frozen.older.is_empty() {
            return Ok(false);
        }
        table.install(Moves::flushed(disk, &frozen)?, Some(frozen.lsn))?;
        Ok(true)
    })();
    table.thaw();
    result
}

/// Writes the live rows of some segments to new ones and puts those in their place. Older versions keep the old ones.
fn rewrite(disk: &Disk, table: &Table, picked: &[Arc<Chunk>]) -> Result<()> {
    let schema = Arc::clone(&table.head().schema);
    table.install(Moves::compacted(disk, &schema, picked)?, None)?;
    // Segments that no manifest has named yet are named by the log, and stay until the next manifest.
    let paths = picked.iter().filter_map(|chunk| Some(segment_path(chunk.segment()?.meta().id)));
    disk.forgotten.lock().extend(paths);
    Ok(())
}

fn rewrite_if_better(disk: &Disk, table: &Table, picked: &[Arc<Chunk>]) -> Result<()> {
    let has_deleted = picked.iter().any(|chunk| !chunk.deleted().is_empty());
    if picked.len() > 1 || has_deleted { rewrite(disk, table, picked) } else { Ok(()) }
}

/// The segments of a table that should be merged now, `bytes_max` of them: size-tiered, or many of the rows deleted.
fn due(table: &Table, bytes_max: usize) -> Option<Vec<Arc<Chunk>>> {
    let stored = table.settled_chunks();
    let worn = stored.iter().find(|chunk| chunk.deleted().len() as f64 > chunk.len() as f64 * DELETED_SHARE_MAX);
    if let Some(chunk) = worn {
        return Some(vec![Arc::clone(chunk)]);
    }
    let tier = |chunk: &Chunk| {
        let (mut bytes, mut tier) = (chunk.data_bytes() as u64, 0_u32);
        while bytes > TIER_BYTES_MIN {
            bytes /= TIER_FACTOR;
            tier += 1;
        }
        tier
    };
    let mut tiers: std::collections::BTreeMap<u32, Vec<&Arc<Chunk>>> = std::collections::BTreeMap::new();
    // Of segments that are half full already, merging makes hardly fewer, or as many for ever.
    let is_small = |chunk: &&Arc<Chunk>| chunk.len() < SEGMENT_ROWS_MAX / 2 && chunk.data_bytes() < bytes_max / 2;
    for chunk in stored.iter().filter(is_small) {
        tiers.entry(tier(chunk)).or_default().push(chunk);
    }
    for chunks in tiers.into_values().filter(|chunks| chunks.len() >= TIER_SEGMENTS) {
        let mut picked = Vec::new();
        let mut bytes = 0;
        for chunk in chunks {
            bytes += chunk.data_bytes();
            if bytes > bytes_max {
                break;
            }
            picked.push(Arc::clone(chunk));
        }
        if picked.len() >= TIER_SEGMENTS {
            return Some(picked);
        }
    }
    None
}
