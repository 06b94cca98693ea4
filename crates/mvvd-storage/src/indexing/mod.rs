//! Who builds indexes, and when: the statement that makes one, and a thread of its own for chunks that come later.

mod builds;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use mvvd_core::schema::IndexDef;
use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use mvvd_index::Build;
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::builds::{Builds, What};
use crate::chunk::Chunk;
use crate::database::{Database, Shared};
use crate::maintain::Wake;
use crate::sidecar::{Glance, OpenIndex, Room, Slot};
use crate::table::Table;

/// A smaller chunk that is only in memory gets no index in the background: it is scanned in no time, and soon becomes part
/// of a larger one.
const ROWS_MIN: usize = 1_024;
/// How often CREATE INDEX looks for chunks that came meanwhile.
const ROUNDS_MAX: usize = 8;
/// Decides what is random in a build: the same vectors give the same index, on one thread.
const SEED: u64 = 0x6d76_7664;

/// How far an index is, over all rows of its table.
#[derive(Debug, Clone)]
pub struct IndexState {
    /// Name of the table.
    pub table: String,
    /// What it is over.
    pub def: IndexDef,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// Live rows of the table.
    pub rows: usize,
    /// Those that it covers; the others are scanned.
    pub rows_covered: usize,
    /// Bytes of its files, or in memory.
    pub bytes: usize,
    /// `ready`, `building` (with the share that is done), `waiting` (with the reason, if it failed and is tried again) or
    /// `failed` (with the reason).
    pub state: String,
}

/// Builds indexes.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// Of statements, and of the thread: neither waits for a build of the other.
    pools: [Mutex<Option<Arc<ThreadPool>>>; 2],
    /// Threads of each; 0: as many as there are cores.
    threads: AtomicUsize,
    builds: Builds,
    /// Rung when there may be something to build.
    pub(crate) wake: Arc<Wake>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stopped: Arc<AtomicBool>,
}

/// Who builds.
#[derive(Clone, Copy)]
enum By<'a> {
    /// A statement, which waits for it: also for chunks that are small, or failed before.
    Statement { progress: &'a (dyn Fn(f32) + Sync), cancelled: &'a Arc<AtomicBool> },
    /// The thread.
    Background,
}

impl By<'_> {
    fn is_background(self) -> bool {
        matches!(self, Self::Background)
    }

    /// The thread keeps nobody waiting; there is another time.
    fn room(self) -> Room {
        if self.is_background() { Room::Spare } else { Room::Made }
    }
}

impl Builder {
    /// With so many threads for a build; without a number as many as there are cores.
    pub(crate) fn with_threads(threads: Option<usize>) -> Self {
        Self { threads: AtomicUsize::new(threads.unwrap_or(0)), ..Self::default() }
    }

    fn pool(&self, by: By<'_>) -> Result<Arc<ThreadPool>> {
        let (pool, who) = match by {
            By::Statement { .. } => (&self.pools[0], "index"),
            By::Background => (&self.pools[1], "reindex"),
        };
        let threads = self.threads.load(Ordering::Relaxed);
        let mut pool = pool.lock();
        if let Some(pool) = pool.as_ref().filter(|pool| threads == 0 || pool.current_num_threads() == threads) {
            return Ok(Arc::clone(pool));
        }
        let made =
            ThreadPoolBuilder::new().num_threads(threads).thread_name(move |i| format!("mvvd-{who}-{i}")).build();
        let made =
            made.map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start threads for indexes: {e}")))?;
        Ok(Arc::clone(pool.insert(Arc::new(made))))
    }

    /// Starts the thread that builds what is missing, unless it runs.
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_some() || self.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (ear, stopped, shared) = (Arc::clone(&self.wake), Arc::clone(&self.stopped), Arc::downgrade(shared));
        let started = std::thread::Builder::new().name("mvvd-indexes".into()).spawn(move || {
            while ear.wait() && !stopped.load(Ordering::Relaxed) {
                let Some(shared) = shared.upgrade() else { return };
                for (_, table) in shared.tables() {
                    let defs = table.snapshot().schema().indexes().to_vec();
                    for def in defs {
                        if stopped.load(Ordering::Relaxed) {
                            return;
                        }
                        // The state of the index says what went wrong. The thread outlives a bug in a kind of index.
                        let build = || shared.build_missing(&table, &def, By::Background);
                        let _ = std::panic::catch_unwind(AssertUnwindSafe(build));
                    }
                }
            }
        });
        *thread = Some(
            started.map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start the index thread: {e}")))?,
        );
        Ok(())
    }

    /// Ends the thread; a build that runs is given up.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake.stop();
        self.builds.stop();
        let thread = self.thread.lock().take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            // A panic there has been printed; indexes are built again.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Builds the index for the chunks of the present version that lack it; whether there were any.
    fn build_missing(&self, table: &Arc<Table>, def: &IndexDef, by: By<'_>) -> Result<bool> {
        self.check_wanted(table, def)?;
        let snapshot = table.snapshot();
        let schema = snapshot.schema();
        let missing: Vec<&Arc<Chunk>> =
            snapshot.chunks().iter().filter(|chunk| self.lacks(chunk, schema, def, by)).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let pool = self.builder.pool(by)?;
        let total: usize = missing.iter().map(|chunk| chunk.len()).sum();
        let mut before = 0;
        for chunk in missing {
            let what = What { table: Arc::clone(table), chunk: Arc::clone(chunk), index: def.id };
            let turn = match by {
                By::Statement { cancelled, .. } => self.builder.builds.wait_for_turn(&what, cancelled)?,
                By::Background => match self.builder.builds.try_turn(&what) {
                    Some(turn) => turn,
                    None => continue,
                },
            };
            let told = |done: f32| {
                let share = (before as f32 + done.clamp(0.0, 1.0) * chunk.len() as f32) / total as f32;
                turn.tell(share);
                if let By::Statement { progress, .. } = by {
                    progress(share);
                }
            };
            told(0.0);
            // After it is this one's turn: who drops something from now on ends the build.
            self.check_wanted(table, def)?;
            // Built by another while this one waited, or in no version any more.
            if is_there(&what) && self.lacks(chunk, schema, def, by) {
                let build = Build { pool: &pool, seed: SEED, progress: &told, cancelled: &turn.cancelled };
                let result = self.shelf.build(chunk, schema, def, &build, by.room());
                // What was dropped meanwhile is forgotten: nobody else would remove its files any more.
                let wanted = self.check_wanted(table, def);
                let is_there = is_there(&what) && self.shelf.has_segment(chunk);
                if wanted.is_err() || !is_there {
                    self.shelf.forget([chunk], def.id);
                }
                wanted?;
                if is_there {
                    result?;
                }
            }
            before += chunk.len();
        }
        Ok(true)
    }

    /// `NotFound` if the index was dropped, or its table.
    fn check_wanted(&self, table: &Arc<Table>, def: &IndexDef) -> Result<()> {
        match self.has_index(table, def.id) {
            true => Ok(()),
            false => Err(Error::not_found(format!("index \"{}\" was dropped while it was built", def.name))),
        }
    }

    fn has_index(&self, table: &Arc<Table>, index: u32) -> bool {
        let is_registered = self.tables.read().values().any(|known| Arc::ptr_eq(known, table));
        is_registered && table.head().schema().indexes().iter().any(|def| def.id == index)
    }

    /// Ends the builds of what is gone. For who drops an index, a table, or segments, once they are gone.
    pub(crate) fn cancel_builds(&self) {
        self.builder.builds.cancel_unwanted(|what| self.has_index(&what.table, what.index), is_there);
    }

    fn lacks(&self, chunk: &Chunk, schema: &TableSchema, def: &IndexDef, by: By<'_>) -> bool {
        self.is_indexable(chunk, schema, def, !by.is_background())
            && match self.shelf.slot(chunk, schema, def) {
                Slot::Missing => true,
                Slot::Failed(failure) => !by.is_background() || failure.is_due(),
                Slot::Ready(_) | Slot::Closed => false,
            }
    }

    /// Whether the index is worth having for the chunk: not for one whose rows go to a segment soon, nor for one that is
    /// older than the column, whose value is the same in all rows.
    fn is_indexable(&self, chunk: &Chunk, schema: &TableSchema, def: &IndexDef, all: bool) -> bool {
        let lives = chunk.is_stored() || !self.shelf.has_files() && (all || chunk.len() >= ROWS_MIN);
        let position = |id: &u32| schema.position(*id);
        lives && def.columns.iter().all(|id| position(id).is_some_and(|i| chunk.constant(schema, i).is_none()))
    }
}

/// Whether some version of the table has the chunk.
fn is_there(what: &What) -> bool {
    let versions = what.table.all_versions();
    let mut chunks = versions.iter().flat_map(|version| &version.chunks);
    chunks.any(|chunk| std::ptr::eq(chunk.sidecars(), what.chunk.sidecars()))
}

impl Database {
    /// Builds an index of a table until all rows that were there when it was called are covered, those in memory too.
    /// Waits for it; tells `progress` the share that is done, and ends with `Cancelled` soon after `cancelled` is set.
    ///
    /// The table is known by its handle and the index by its id: either may get another name meanwhile, and its old name
    /// may go to another.
    pub fn build_index(
        &self,
        table: &Arc<Table>,
        index: u32,
        progress: &(dyn Fn(f32) + Sync),
        cancelled: &Arc<AtomicBool>,
    ) -> Result<()> {
        let def = table.head().schema().indexes().iter().find(|def| def.id == index).cloned();
        let def = def.ok_or_else(|| Error::not_found(format!("index {index} does not exist")))?;
        if self.shared.disk.is_some() && table.has_unflushed() {
            self.checkpoint()?;
        }
        for _ in 0..ROUNDS_MAX {
            if !self.shared.build_missing(table, &def, By::Statement { progress, cancelled })? {
                break;
            }
        }
        self.shared.check_wanted(table, &def)?;
        self.index_in_background()
    }

    /// Adds an index to a table; nothing is built yet. Durable when it returns, with the id of the index.
    pub fn add_index(&self, table: &Table, def: IndexDef) -> Result<u32> {
        let mut added = None;
        let commit = table.alter(|schema| {
            let schema = schema.with_index(def)?;
            added = schema.indexes().last().map(|index| index.id);
            Ok(schema)
        })?;
        commit.wait()?;
        added.ok_or_else(|| Error::internal("an index was added, and is not there"))
    }

    /// Removes an index of a table, known by its id, and its files. Durable when it returns.
    pub fn drop_index(&self, table: &Table, index: u32) -> Result<()> {
        let gone = || Error::not_found(format!("index {index} does not exist"));
        table
            .alter(|schema| {
                let def = schema.indexes().iter().find(|def| def.id == index).ok_or_else(gone)?;
                schema.without_index(&def.name)
            })?
            .wait()?;
        self.shared.cancel_builds();
        let versions = table.all_versions();
        self.shared.shelf.forget(versions.iter().flat_map(|version| &version.chunks), index);
        Ok(())
    }

    /// Builds that begin from now on have so many threads: those of all statements together, and that of the background
    /// beside them.
    pub fn index_with_threads(&self, threads: usize) {
        self.shared.builder.threads.store(threads, Ordering::Relaxed);
    }

    /// Builds what is missing on a thread of its own, from now on.
    pub fn index_in_background(&self) -> Result<()> {
        let allowed = self.shared.disk.as_ref().is_none_or(|disk| disk.options.background && !disk.options.read_only);
        if allowed {
            self.shared.builder.start(&self.shared)?;
            self.shared.builder.wake.notify();
        }
        Ok(())
    }

    /// The kinds of index that there are.
    pub fn registry(&self) -> &mvvd_index::Registry {
        &self.shared.shelf.registry
    }

    /// The index over the rows of a chunk, if it is built; `schema` is that of the chunk's snapshot.
    pub fn index_of(&self, chunk: &Chunk, schema: &TableSchema, def: &IndexDef) -> Option<Arc<OpenIndex>> {
        match self.shared.shelf.slot(chunk, schema, def) {
            Slot::Ready(open) => Some(open),
            Slot::Missing | Slot::Failed(_) | Slot::Closed => None,
        }
    }

    /// The indexes of all tables, and how far they are. Reads no file.
    pub fn index_states(&self) -> Vec<IndexState> {
        let mut states = Vec::new();
        for (name, table) in self.tables() {
            let snapshot = table.snapshot();
            let schema = snapshot.schema();
            for def in schema.indexes() {
                let (mut covered, mut bytes, mut is_waiting, mut failed) = (0, 0, false, None);
                for chunk in snapshot.chunks() {
                    match self.shared.shelf.glance(chunk, def) {
                        Glance::There(of_chunk) => (covered, bytes) = (covered + chunk.live(), bytes + of_chunk),
                        Glance::Failed(failure) => failed = Some(failure),
                        Glance::Missing => is_waiting |= self.shared.is_indexable(chunk, schema, def, false),
                    }
                }
                let state = match (self.shared.builder.builds.done(&table, def.id), failed) {
                    (Some(done), _) => format!("building {:.0} %", done * 100.0),
                    (None, Some(failure)) if failure.may_pass() => format!("waiting: {}", failure.message),
                    (None, Some(failure)) => format!("failed: {}", failure.message),
                    (None, None) if is_waiting => "waiting".to_owned(),
                    (None, None) => "ready".to_owned(),
                };
                let columns = def.columns.iter().filter_map(|&id| schema.position(id));
                states.push(IndexState {
                    table: name.clone(),
                    def: def.clone(),
                    columns: columns.map(|i| schema.columns()[i].field.name().clone()).collect(),
                    rows: snapshot.live(),
                    rows_covered: covered,
                    bytes,
                    state,
                });
            }
        }
        states
    }
}

#[cfg(test)]
mod tests;
