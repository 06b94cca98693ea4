//! What answers the queries of a measurement: an index by itself, as a library gives it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::buffer::{Buffer, MutableBuffer};
use mvvd_bench::truth::Result;
use mvvd_core::metric::Metric;
use mvvd_core::{VectorKind, VectorType};
use mvvd_index::{Build, Effort, Filter, Query, Registry, Request, Term, VectorIndex, Vectors};

use super::load::Matrix;

/// Something that answers queries, from any number of threads.
pub(crate) trait Engine: Sync {
    /// What reports call it.
    fn name(&self) -> &'static str;

    /// The rows it finds, nearest first.
    fn search(&self, query: &[f32], k: usize, effort: Effort) -> Result<Vec<u32>>;

    /// What making it cost.
    fn cost(&self) -> Cost;
}

/// What an index cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// None if the index came from a file.
    pub(crate) build_seconds: Option<f64>,
    /// Bytes on disk, the vectors themselves not included.
    pub(crate) index_bytes: usize,
    /// Bytes in memory while it is searched, the vectors themselves not included.
    pub(crate) memory_bytes: usize,
}

/// What an index is made of, and how.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) kind: &'a str,
    pub(crate) metric: Metric,
    pub(crate) options: &'a [(String, String)],
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    /// Holds the index from an earlier run, or will.
    pub(crate) file: Option<&'a Path>,
}

/// An index, searched without SQL around it.
#[derive(Debug)]
pub(crate) struct Library<'a> {
    columns: [Vectors<'a>; 1],
    metric: Metric,
    filter: Option<&'a Filter>,
    index: Arc<dyn VectorIndex>,
    cost: Cost,
}

impl<'a> Library<'a> {
    /// Builds the index over `base`, or opens the one that the plan's file holds.
    pub(crate) fn new(plan: &Plan<'_>, base: &'a Matrix, filter: Option<&'a Filter>) -> Result<Self> {
        let registry = Registry::builtin();
        let columns = [Vectors::of_f32(base.values(), base.dims())];
        let ty = VectorType { kind: VectorKind::Dense, dims: base.dims() };
        let options = plan.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let spec = registry.spec(plan.kind, plan.metric, vec![ty], options).map_err(with_hint)?;
        let (bytes, build_seconds) = match plan.file.filter(|file| file.exists()) {
            Some(file) => (aligned(&fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?), None),
            None => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build()?;
                let cancelled = AtomicBool::new(false);
                let build = Build { pool: &pool, seed: plan.seed, progress: &|_| (), cancelled: &cancelled };
                let start = Instant::now();
                let bytes = mvvd_index::build(&registry, &spec, &columns, &build).map_err(with_hint)?;
                let seconds = start.elapsed().as_secs_f64();
                if let Some(file) = plan.file {
                    fs::write(file, &bytes).map_err(|e| format!("{}: {e}", file.display()))?;
                }
                (aligned(&bytes), Some(seconds))
            }
        };
        let index = mvvd_index::open(&registry, &spec, base.len(), &bytes).map_err(with_hint)?;
        let cost = Cost { build_seconds, index_bytes: bytes.len(), memory_bytes: index.memory_bytes() };
        Ok(Self { columns, metric: plan.metric, filter, index, cost })
    }
}

impl Engine for Library<'_> {
    fn name(&self) -> &'static str {
        "library"
    }

    fn search(&self, query: &[f32], k: usize, effort: Effort) -> Result<Vec<u32>> {
        let terms = [Term { column: 0, metric: self.metric, query: Query::Dense(query.into()), weight: 1.0 }];
        let request = Request { terms: &terms, k, filter: self.filter, effort };
        let hits = self.index.search(&self.columns, &request).map_err(with_hint)?;
        Ok(hits.into_iter().map(|hit| hit.ordinal).collect())
    }

    fn cost(&self) -> Cost {
        self.cost
    }
}

/// The bytes at an address that an index can be opened at.
fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = MutableBuffer::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.into()
}

/// The message of an error, and what to do about it.
fn with_hint(error: mvvd_core::Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}
