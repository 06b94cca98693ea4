//! Kinds of index: what each can do, how it is built and opened, and the list of those that are known.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, ErrorKind, Ordinal, Result, VectorKind, VectorType};
use rayon::ThreadPool;

use crate::codec::pq::Pq;
use crate::codec::rabitq::Rabitq;
use crate::flat::FlatKind;
use crate::hnsw::HnswKind;
use crate::inverted::InvertedKind;
use crate::ivf::IvfKind;
use crate::options::{OptionSpec, Options};
use crate::request::{Hit, Request, Term};
use crate::vectors::Vectors;

/// Bytes of the links, factors and the like of a row, about.
const BUILD_ROW_BYTES: usize = 192;
/// How often they and the codes are there at the same time.
const BUILD_COPIES: usize = 4;

/// What an index is over, as `CREATE INDEX` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSpec {
    /// Name of the kind.
    pub kind: String,
    /// By which distance rows are found, for all columns.
    pub metric: Metric,
    /// The types of its columns, at least one.
    pub columns: Vec<VectorType>,
    /// Options, checked.
    pub options: Options,
}

/// What a build is given beside the vectors.
pub struct Build<'a> {
    /// The threads to use. With one thread a build is deterministic for a seed.
    pub pool: &'a ThreadPool,
    /// Decides everything random.
    pub seed: u64,
    /// Told now and then how much is done, 0 to 1.
    pub progress: &'a (dyn Fn(f32) + Sync),
    /// Set by who does not want the index any more.
    pub cancelled: &'a AtomicBool,
}

impl Build<'_> {
    /// Ends the build with an error if nobody wants it any more. To be called every few milliseconds of work.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the build of the index was cancelled"));
        }
        Ok(())
    }
}

/// What decides how hard a search tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// Nothing: the answer is exact.
    None,
    /// `ef_search`, or the recall target where that is not set.
    EfSearch,
    /// `nprobe`, or the recall target where that is not set.
    Nprobe,
}

/// A kind of index, such as `hnsw`.
pub trait IndexKind: Send + Sync + Debug {
    /// The name in `USING`, lower case.
    fn name(&self) -> &'static str;

    /// The options it has.
    fn options(&self) -> &[OptionSpec];

    /// What of an [`Effort`](crate::Effort) its searches heed.
    fn knob(&self) -> Knob;

    /// `Invalid` or `Unsupported` where it cannot serve these columns with this metric, or options contradict each other.
    fn check(&self, spec: &IndexSpec) -> Result<()>;

    /// The index over `columns` (of the types in `spec`, with equally many rows) as bytes that [`IndexKind::open`] takes.
    ///
    /// `Cancelled` if it was. Runs on the pool of `build`.
    fn build(&self, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>>;

    /// Bytes that [`IndexKind::build`] takes at most, about, over `rows` rows of `column_bytes` bytes in all, beside
    /// them: what it works with, what it returns, and the copy of that which becomes the file.
    ///
    /// By default those of a kind that has a byte for each dimension and some links for each row, four times: while it
    /// works, as an index, as bytes, and in the file. A kind that takes more says so.
    fn build_bytes(&self, spec: &IndexSpec, rows: usize, column_bytes: usize) -> usize {
        let codes = |ty: &VectorType| match ty.kind {
            VectorKind::Dense | VectorKind::Half => ty.dims.saturating_mul(rows),
            VectorKind::Bit => ty.dims.div_ceil(8).saturating_mul(rows),
            VectorKind::Sparse => column_bytes,
        };
        let codes = spec.columns.iter().map(codes).fold(0, usize::saturating_add);
        codes.saturating_add(rows.saturating_mul(BUILD_ROW_BYTES)).saturating_mul(BUILD_COPIES)
    }

    /// The index in `bytes`, which are aligned to 64 bytes and whose checksum was compared. `Corrupt` where they are not
    /// what this program writes; never a panic, then or later.
    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>>;
}

/// An index over the rows 0 to [`VectorIndex::rows`] of a segment. `columns` are those it was built from.
///
/// Rows without a vector, and rows whose distance is NaN (zero length under cosine), are not found.
pub trait VectorIndex: Send + Sync + Debug {
    /// Number of rows it covers.
    fn rows(&self) -> usize;

    /// Number of rows that searches by a column can find, if it is known: rows whose distance may be NaN, and those that
    /// are too long for codes, are not among them.
    fn findable(&self, column: usize) -> Option<usize> {
        let _ = column;
        None
    }

    /// Bytes that it takes in memory, mapped ones included.
    fn memory_bytes(&self) -> usize;

    /// At most `k` rows near the query that `filter` lets through, nearest first, with exact distances.
    ///
    /// Finds `k` rows whenever that many can be found at all. Runs on the caller's thread. `Unsupported` for terms that
    /// the index does not serve.
    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>>;

    /// The rows that `filter` lets through, nearer ones tendentially first, each once, until there is none left.
    /// `k` of the request is the number of rows that are likely to be asked for.
    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>>;

    /// What the codes say of the distances by `term` of the rows at `ordinals`, which ascend: their vectors are not read.
    /// NaN for rows that have no code. `Unsupported` for terms that the index does not serve, and without codes.
    fn estimates(&self, columns: &[Vectors<'_>], term: &Term, ordinals: &[Ordinal]) -> Result<Vec<f64>> {
        let _ = (columns, term, ordinals);
        Err(without_codes())
    }

    /// The bytes of an index that also covers the rows of `columns` from [`VectorIndex::rows`] on, for less than a new
    /// build costs; none where only a new build will do.
    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        let _ = (columns, build);
        Ok(None)
    }
}

/// The error of [`VectorIndex::estimates`] where there are no codes.
pub(crate) fn without_codes() -> Error {
    Error::unsupported("the index has no codes to estimate distances from")
}

/// A search that goes on for as long as somebody wants more rows.
pub trait Cursor {
    /// The next rows, at most `count` of them, with exact distances; empty once there is none left.
    ///
    /// Rows come roughly in order of distance, exactly so within one call.
    fn next(&mut self, count: usize) -> Result<Vec<Hit>>;
}

/// The kinds of index that there are, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Arc<dyn IndexKind>>,
}

impl Registry {
    /// Without any kind.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The kinds of this crate.
    pub fn builtin() -> Self {
        let kinds: [Arc<dyn IndexKind>; 5] = [
            Arc::new(HnswKind),
            Arc::new(FlatKind),
            Arc::new(InvertedKind),
            Arc::new(IvfKind::<Pq>::new()),
            Arc::new(IvfKind::<Rabitq>::new()),
        ];
        Self { kinds: kinds.into_iter().map(|kind| (kind.name(), kind)).collect() }
    }

    /// Adds a kind; `AlreadyExists` if its name is taken.
    pub fn register(&mut self, kind: Arc<dyn IndexKind>) -> Result<()> {
        let name = kind.name();
        if self.kinds.contains_key(name) {
            return Err(Error::already_exists(format!("index type \"{name}\" already exists")));
        }
        self.kinds.insert(name, kind);
        Ok(())
    }

    /// The kind of this name, in any case.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn IndexKind>> {
        self.kinds.get(name.to_ascii_lowercase().as_str()).ok_or_else(|| {
            let names: Vec<&str> = self.kinds.keys().copied().collect();
            Error::not_found(format!("index type \"{name}\" does not exist"))
                .with_hint(format!("the types are {}", names.join(", ")))
        })
    }

    /// All kinds, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<dyn IndexKind>> {
        self.kinds.values()
    }

    /// Checks what `CREATE INDEX` says: kind, options and whether the kind serves the columns.
    pub fn spec<'a>(
        &self,
        kind: &str,
        metric: Metric,
        columns: Vec<VectorType>,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<IndexSpec> {
        let kind = self.get(kind)?;
        let options = Options::parse(kind.name(), kind.options(), options)?;
        let spec = IndexSpec { kind: kind.name().to_owned(), metric, columns, options };
        kind.check(&spec)?;
        Ok(spec)
    }
}
