//! One database: its tables, threads, memory limit and functions, shared by all sessions.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use mvvd_core::{Error, Result};
use mvvd_storage::Database;

use crate::bridge::Bridge;
use crate::error::from_df;
use crate::session::Session;

/// Least memory that queries can run in.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Share of the machine's memory that queries may use if nothing is said.
const MEMORY_SHARE: f64 = 0.6;
/// Most threads on either side.
const THREADS_MAX: usize = 1_024;
/// How many of the largest consumers a message about memory names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// How to open a database. The default is in memory, with every core and 60 % of the machine's memory for queries.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Most bytes that running queries may use together; beyond it they spill or fail with a clear error.
    pub memory_limit_bytes: Option<u64>,
    /// Threads for planning and running, and as many for search.
    pub threads: Option<usize>,
}

impl Config {
    /// A database in memory.
    pub fn memory() -> Self {
        Self::default()
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
    pub(crate) bridge: Bridge,
    pub(crate) runtime_env: Arc<RuntimeEnv>,
    pub(crate) locks: crate::dml::WriteLocks,
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
        let pool =
            TrackConsumersPool::new(FairSpillPool::new(usize::try_from(limit).unwrap_or(usize::MAX)), CONSUMERS_NAMED);
        let runtime_env = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().map_err(from_df)?;
        let engine = Engine {
            database: Arc::new(Database::new()),
            bridge: Bridge::new(threads)?,
            runtime_env,
            locks: crate::dml::WriteLocks::default(),
            functions: crate::native::UserFunctions::default(),
        };
        Ok(Self { engine: Arc::new(engine) })
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.engine))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

fn default_memory_limit() -> u64 {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
    );
    let total = system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory);
    ((total as f64 * MEMORY_SHARE) as u64).max(MEMORY_BYTES_MIN)
}
