//! Lists of rows near a centroid, over any codec: `ivf_rabitq`, `ivf_pq`.
//!
//! Vectors are clustered, over the concatenation of all columns; a row's codes are relative to its list's centroid and lie
//! in blocks of 32 rows, those of all columns side by side. A search takes the lists whose centroids are nearest, gets
//! bounds for 32 rows at once, and measures those that could be among the nearest. Weights come with the query.
//!
//! | module | |
//! |---|---|
//! | `build` | clustering, assignment, codes |
//! | `layout` | the bytes of an index |
//! | `recall` | how many lists to look at |
//! | `probe` | which ones |
//! | `search` | the nearest rows |
//! | `cursor` | one row after the other |

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::buffer::{Buffer, ScalarBuffer};
use mvvd_core::kernels::BLOCK_ROWS;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Ordinal, Result, VectorKind};

use self::recall::Recall;
use crate::codec::Codec;
use crate::kind::{Build, Cursor, IndexKind, IndexSpec, Knob, VectorIndex};
use crate::kmeans::Centroids;
use crate::options::{Choice, OptionSpec};
use crate::request::{Hit, Request, Term};
use crate::space::Space;
use crate::vectors::Vectors;

mod build;
mod cursor;
mod layout;
mod probe;
mod recall;
mod search;
#[cfg(test)]
mod tests;

/// The ordinal of a place in a block that no row has.
const NO_ROW: u32 = u32::MAX;

/// The kind of index whose lists hold codes of `C`.
#[derive(Debug)]
pub(crate) struct IvfKind<C> {
    options: Vec<OptionSpec>,
    codec: PhantomData<C>,
}

impl<C: Codec> IvfKind<C> {
    pub(crate) fn new() -> Self {
        let nlist = OptionSpec {
            name: "nlist",
            choice: Choice::Number { min: 1, max: 65_536, default: None },
            about: "Number of lists; about 4 times the root of the number of rows by default.",
        };
        Self { options: [&[nlist], C::OPTIONS].concat(), codec: PhantomData }
    }
}

impl<C: Codec + 'static> IndexKind for IvfKind<C> {
    fn name(&self) -> &'static str {
        C::KIND
    }

    fn knob(&self) -> Knob {
        Knob::Nprobe
    }

    fn options(&self) -> &[OptionSpec] {
        &self.options
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        let kind = C::KIND;
        if let Some(column) = spec.columns.iter().find(|ty| !matches!(ty.kind, VectorKind::Dense | VectorKind::Half)) {
            let hint = match column.kind {
                VectorKind::Sparse => "an index of type inverted serves sparse vectors",
                _ => "an index of type flat serves bit vectors",
            };
            let message = format!("an index of type {kind} does not serve columns of type {column}");
            return Err(Error::unsupported(message).with_hint(hint));
        }
        if !matches!(spec.metric, Metric::L2 | Metric::L2Squared | Metric::Cosine | Metric::Dot) {
            let message = format!("an index of type {kind} does not serve the metric {}", spec.metric);
            return Err(Error::unsupported(message).with_hint("an index of type hnsw may"));
        }
        C::check(&spec.options, &spec.columns)
    }

    fn build(&self, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        Ok(build.pool.install(|| Ivf::<C>::build(spec, columns, build))?.to_bytes())
    }

    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        Ok(Arc::new(Ivf::<C>::read(spec, bytes)?))
    }
}

/// An index of lists.
#[derive(Debug)]
pub(crate) struct Ivf<C> {
    spec: IndexSpec,
    rows: usize,
    seed: u64,
    /// By column.
    spaces: Vec<Space>,
    /// By column.
    codecs: Vec<C>,
    /// Of the lists.
    centroids: Centroids,
    /// The blocks of list `i` are those from `offsets[i]` to `offsets[i + 1]`.
    offsets: ScalarBuffer<u32>,
    /// 32 for each block, ascending within a list.
    ordinals: ScalarBuffer<u32>,
    /// By block, and in it by column.
    codes: ScalarBuffer<u8>,
    /// By block, and in it by column.
    factors: ScalarBuffer<f32>,
    recall: Recall,
    /// By column, the number of rows that have a code; empty until it is read.
    coded: Vec<usize>,
}

impl<C: Codec> Ivf<C> {
    fn lists(&self) -> usize {
        self.centroids.count
    }

    /// Bytes of a block's codes, of all columns.
    fn code_bytes(&self) -> usize {
        self.codecs.iter().map(Codec::code_bytes).sum()
    }

    /// Numbers beside a block's codes, of all columns.
    fn factor_count(&self) -> usize {
        self.codecs.iter().map(Codec::factor_count).sum()
    }

    /// The blocks of a list.
    fn blocks(&self, list: usize) -> std::ops::Range<usize> {
        self.offsets[list] as usize..self.offsets[list + 1] as usize
    }

    /// The rows of a block, [`NO_ROW`] where there is none.
    fn block_rows(&self, block: usize) -> &[u32; BLOCK_ROWS] {
        self.ordinals[block * BLOCK_ROWS..].first_chunk().expect("32 ordinals of each block")
    }
}

impl<C: Codec> VectorIndex for Ivf<C> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn findable(&self, column: usize) -> Option<usize> {
        self.coded.get(column).copied()
    }

    fn estimates(&self, columns: &[Vectors<'_>], term: &Term, ordinals: &[Ordinal]) -> Result<Vec<f64>> {
        search::estimates(self, columns, term, ordinals)
    }

    fn memory_bytes(&self) -> usize {
        let centroids = 4 * (self.centroids.values.len() + self.centroids.factors.len()) + self.centroids.codes.len();
        let codecs: usize = self.codecs.iter().map(Codec::memory_bytes).sum();
        centroids + codecs + self.codes.len() + 4 * (self.factors.len() + self.ordinals.len() + self.offsets.len())
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        search::search(self, columns, request)
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        cursor::cursor(self, columns, request)
    }

    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        let extended = build.pool.install(|| self.append(columns, build))?;
        Ok(extended.map(|index| index.to_bytes()))
    }
}
