//! The kind `inverted`: for each dimension of a `SPARSEVEC` the rows that have it, searched exactly.
//!
//! After SINDI (Li et al. 2025): rows lie in windows so small that one number for each fits the first cache. A posting is
//! the row's place in its window and its weight in eight bits; a search adds up the postings of the query's dimensions
//! window by window. What rounding took is bounded, windows and rows that cannot reach the best `k` are left out, and
//! the few that can are measured exactly, so the answer is that of a scan. Filters are looked at only for those few.
//!
//! | file | |
//! |---|---|
//! | `measure` | how each metric is a sum over the dimensions that query and row share |
//! | `build` | postings from rows |
//! | `form` | the index in its bytes |
//! | `search` | adding up, and which rows may be among the nearest |

mod build;
mod form;
mod measure;
mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result, VectorKind};

use crate::kind::{Build, Cursor, IndexKind, IndexSpec, Knob, VectorIndex};
use crate::options::OptionSpec;
use crate::request::{Hit, Request};
use crate::vectors::Vectors;
use form::Postings;
use measure::Measure;

/// The kind `inverted`.
#[derive(Debug)]
pub(crate) struct InvertedKind;

impl IndexKind for InvertedKind {
    fn name(&self) -> &'static str {
        "inverted"
    }

    fn knob(&self) -> Knob {
        Knob::None
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        match spec.columns[..] {
            [ty] if ty.kind != VectorKind::Sparse => {
                Err(Error::unsupported(format!("an index of type inverted is over SPARSEVEC, not {ty}"))
                    .with_hint("the types hnsw, ivf_rabitq and flat are for dense vectors"))
            }
            [_] if spec.metric.is_binary() => {
                Err(Error::unsupported(format!("metric {} does not measure SPARSEVEC", spec.metric)))
            }
            [_] => Ok(()),
            _ => Err(Error::unsupported("an index of type inverted is over one column")),
        }
    }

    fn build(&self, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        build::build(spec.metric, &columns[0], None, build)
    }

    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        let measure = Measure::of(spec.metric)?;
        Ok(Arc::new(Inverted { metric: spec.metric, postings: Postings::open(bytes, measure)? }))
    }
}

/// An open index of kind `inverted`.
#[derive(Debug)]
struct Inverted {
    metric: Metric,
    postings: Postings,
}

impl VectorIndex for Inverted {
    fn rows(&self) -> usize {
        self.postings.rows
    }

    fn memory_bytes(&self) -> usize {
        self.postings.memory_bytes()
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        request.single_term(self.metric)?;
        search::search(&self.postings, columns, request)
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        request.single_term(self.metric)?;
        search::cursor(&self.postings, columns, request)
    }

    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        build::build(self.metric, &columns[0], Some(&self.postings), build).map(Some)
    }
}
