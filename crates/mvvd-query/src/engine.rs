//! One database: its tables, threads, memory limit and functions, shared by all sessions.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use mvvd_core::{Error, Result};
use mvvd_index::{IndexKind, Registry};
use mvvd_storage::fs::{DiskFs, FileSystem};
use mvvd_storage::{Database, Durability, KeySource, Options, StorageMode};

use crate::bridge::Bridge;
use crate::error::from_df;
use crate::session::Session;

/// Least memory that queries can run in.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Share of the machine's memory that a database may use if nothing is said.
const MEMORY_SHARE: f64 = 0.6;
/// Part of the limit that is for columns which are kept in memory beside the files, where there are such columns.
const CACHE_SHARE: usize = 4;
/// Part of the limit after which a table is flushed, if that is less than it is set to.
const FLUSH_SHARE: usize = 8;
/// Least bytes after which a table is flushed.
const FLUSH_BYTES_MIN: usize = 4 << 10;
/// Most threads on either side.
const THREADS_MAX: usize = 1_024;
/// How many of the largest consumers a message about memory names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// How to open a database. The default is in memory, with every core and 60 % of the machine's memory.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where tables are kept.
    pub storage: Storage,
    /// Most bytes that running queries, rows that are only in memory, and cached columns may take together. Beyond it
    /// queries spill, tables are flushed, or a statement fails with a clear error.
    pub memory_limit_bytes: Option<u64>,
    /// Versions of each table that are kept beside the present one, for `mvvd_at`.
    pub versions_kept: Option<usize>,
    /// Threads for planning and running, and as many for search.
    pub threads: Option<usize>,
    /// Kinds of index beside the built-in ones, for `CREATE INDEX … USING`.
    pub index_kinds: Vec<Arc<dyn IndexKind>>,
}

impl Config {
    /// A database in memory.
    pub fn memory() -> Self {
        Self::default()
    }

    /// The database in a directory, which is made if it is not there.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { storage: Storage::Directory(Directory::new(path)), ..Self::default() }
    }
}

/// Where tables are kept.
#[derive(Debug, Clone, Default)]
pub enum Storage {
    /// Nothing on disk.
    #[default]
    Memory,
    /// In a directory.
    Directory(Directory),
}

/// A database in a directory.
#[derive(Debug, Clone)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// What is in memory and what is read from files.
    pub mode: StorageMode,
    /// When a change counts as durable.
    pub durability: Durability,
    /// Open for reading only: nothing is written, and another process may have the database open.
    pub read_only: bool,
    /// Bytes of changes in memory after which a table is flushed to a segment.
    pub flush_bytes: Option<usize>,
    /// Where the key of an encrypted database is; a database that is made now is encrypted if there is one.
    pub key: Option<KeySource>,
}

impl Directory {
    /// A directory whose changes are durable when a statement returns.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: StorageMode::Disk,
            durability: Durability::Sync,
            read_only: false,
            flush_bytes: None,
            key: None,
        }
    }

    pub(crate) fn open(&self) -> Result<Database> {
        self.open_with(self.options()?)
    }

    /// The bytes of the limit that its cache has.
    fn cache_bytes(&self, limit: usize) -> usize {
        let has_cache = self.mode == StorageMode::Hybrid || self.key.is_some();
        if has_cache { limit / CACHE_SHARE } else { 0 }
    }

    /// Opens the database within a memory limit, of which `memory` has what the cache leaves; `versions_kept` as in
    /// [`Config`].
    fn open_within(
        &self,
        limit: usize,
        memory: Arc<dyn mvvd_storage::MemoryPool>,
        versions_kept: Option<usize>,
        registry: Arc<Registry>,
    ) -> Result<Database> {
        let options = self.options()?;
        let flush_bytes = options.flush_bytes.min((limit / FLUSH_SHARE).max(FLUSH_BYTES_MIN));
        let cache_bytes = self.cache_bytes(limit);
        let versions_kept = versions_kept.unwrap_or(options.versions_kept);
        self.open_with(Options { cache_bytes, flush_bytes, versions_kept, memory: Some(memory), registry, ..options })
    }

    fn open_with(&self, options: Options) -> Result<Database> {
        // A key that could not be read has left no empty folder behind.
        if !self.read_only {
            DiskFs::new(&self.path).create_folder("")?;
        }
        Database::open(self.files(), options).map_err(|e| self.named(e))
    }

    pub(crate) fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(DiskFs::new(&self.path))
    }

    /// An error with the name of the database before it.
    pub(crate) fn named(&self, e: Error) -> Error {
        e.context(format!("database \"{}\"", self.path.display()))
    }

    pub(crate) fn options(&self) -> Result<Options> {
        let defaults = Options::default();
        Ok(Options {
            key: self.key.as_ref().map(KeySource::read).transpose()?,
            mode: self.mode,
            durability: self.durability,
            read_only: self.read_only,
            flush_bytes: self.flush_bytes.unwrap_or(defaults.flush_bytes),
            ..defaults
        })
    }
}

/// A database. Cheap to clone; the last clone to go releases everything.
#[derive(Debug, Clone)]
pub struct Mvvd {
    engine: Arc<Engine>,
}

/// What all sessions of a database share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) database: Arc<Database>,
    /// Where its files are.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) bridge: Bridge,
    pub(crate) runtime_env: Arc<RuntimeEnv>,
    pub(crate) locks: crate::locks::WriteLocks,
    /// Held while an index gets its name, which is one of its kind in the database.
    pub(crate) index_names: tokio::sync::Mutex<()>,
    pub(crate) functions: crate::native::UserFunctions,
}

impl Mvvd {
    /// Opens a database.
    pub fn open(config: Config) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = config.threads.unwrap_or(cores);
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(Error::invalid(format!("threads must be 1 to {THREADS_MAX}, got {threads}")));
        }
        let limit = config.memory_limit_bytes.unwrap_or_else(default_memory_limit);
        if limit < MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the memory limit must be at least {MEMORY_BYTES_MIN} bytes, got {limit}"
            )));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let pool_bytes = match &config.storage {
            Storage::Memory => limit,
            Storage::Directory(directory) => limit - directory.cache_bytes(limit),
        };
        let pool: Arc<dyn MemoryPool> =
            Arc::new(TrackConsumersPool::new(FairSpillPool::new(pool_bytes), CONSUMERS_NAMED));
        let runtime_env = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool)).build_arc().map_err(from_df)?;
        let memory = Arc::new(TableMemory {
            reservation: MemoryConsumer::new("tables in memory").register(&pool),
            // Something is left for the statements that make room.
            bytes_max: pool_bytes / 4 * 3,
        });
        let mut registry = Registry::builtin();
        config.index_kinds.into_iter().try_for_each(|kind| registry.register(kind))?;
        let registry = Arc::new(registry);
        let database = match &config.storage {
            Storage::Memory => Database::memory_within(Some(memory), registry),
            Storage::Directory(directory) => directory.open_within(limit, memory, config.versions_kept, registry)?,
        };
        let directory = match &config.storage {
            Storage::Memory => None,
            Storage::Directory(directory) => std::fs::canonicalize(&directory.path).ok(),
        };
        if let Some(kept) = config.versions_kept {
            database.keep_versions(kept);
        }
        database.index_with_threads(threads);
        let engine = Engine {
            database: Arc::new(database),
            directory,
            bridge: Bridge::new(threads)?,
            runtime_env,
            locks: crate::locks::WriteLocks::default(),
            index_names: tokio::sync::Mutex::default(),
            functions: crate::native::UserFunctions::default(),
        };
        Ok(Self { engine: Arc::new(engine) })
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.engine))
    }

    /// Writes all changes that are only in memory and in the log to segments. Blocks.
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.database.checkpoint()
    }

    /// Merges segments and drops deleted rows. Blocks.
    pub fn compact(&self) -> Result<()> {
        self.engine.database.compact()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

/// The memory of tables, on one account with that of queries.
#[derive(Debug)]
struct TableMemory {
    reservation: MemoryReservation,
    bytes_max: usize,
}

impl mvvd_storage::MemoryPool for TableMemory {
    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn try_grow(&self, bytes: usize) -> bool {
        let fits = self.reservation.size().checked_add(bytes).is_some_and(|sum| sum <= self.bytes_max);
        fits && self.reservation.try_grow(bytes).is_ok()
    }

    fn grow(&self, bytes: usize) {
        self.reservation.grow(bytes);
    }

    fn shrink(&self, bytes: usize) {
        self.reservation.shrink(bytes);
    }
}

fn default_memory_limit() -> u64 {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
    );
    let total = system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory);
    ((total as f64 * MEMORY_SHARE) as u64).max(MEMORY_BYTES_MIN)
}
