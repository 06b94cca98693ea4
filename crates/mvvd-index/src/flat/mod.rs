//! The kind `flat`: every row is looked at, and the answer is that of a scan.
//!
//! Dense vectors are looked at in codes of a byte a dimension, a quarter of the bytes of f32. A code tells its distance
//! from the query up to an error that is known, so that only rows that may be among the nearest are measured. Sums of
//! absolute differences have no such codes, and bits need none: they are counted as fast as they can be read.
//!
//! | file | |
//! |---|---|
//! | `codes` | the codes of all rows, in bytes |
//! | `scan` | bounds of distances out of codes, and what follows from them |

mod codes;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Ordinal, Result, VectorKind, VectorType};

use crate::exact;
use crate::kind::{Build, Cursor, IndexKind, IndexSpec, Knob, VectorIndex, without_codes};
use crate::options::OptionSpec;
use crate::request::{Effort, Hit, Request, Term};
use crate::vectors::Vectors;
use codes::Codes;

/// The kind `flat`.
#[derive(Debug)]
pub(crate) struct FlatKind;

impl IndexKind for FlatKind {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn knob(&self) -> Knob {
        Knob::None
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        match spec.columns[..] {
            [ty] if ty.kind == VectorKind::Sparse => {
                Err(Error::unsupported(format!("an index of type flat is not over {ty}"))
                    .with_hint("the type inverted is for sparse vectors"))
            }
            [ty] if spec.metric.is_binary() != (ty.kind == VectorKind::Bit) => {
                Err(Error::unsupported(format!("metric {} does not measure {ty}", spec.metric)))
            }
            [_] => Ok(()),
            _ => Err(Error::unsupported("an index of type flat is over one column")),
        }
    }

    fn build(&self, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        build_with(spec.metric, &columns[0], None, build)
    }

    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        let codes = Codes::open(bytes, code_dims(spec.metric, spec.columns[0]))?;
        Ok(Arc::new(Flat { metric: spec.metric, codes }))
    }
}

/// The dimensions of codes: 0 where rows have none.
fn code_dims(metric: Metric, ty: VectorType) -> usize {
    match metric {
        Metric::L2 | Metric::L2Squared | Metric::Dot | Metric::Cosine => ty.dims,
        Metric::L1 | Metric::Hamming | Metric::Jaccard => 0,
    }
}

fn build_with(metric: Metric, column: &Vectors<'_>, old: Option<&Codes>, build: &Build<'_>) -> Result<Vec<u8>> {
    build.check()?;
    match code_dims(metric, column.vector_type()) {
        0 => Ok(codes::without(column.len())),
        _ => codes::build(metric, column, old, build),
    }
}

/// An open index of kind `flat`.
#[derive(Debug)]
struct Flat {
    metric: Metric,
    codes: Codes,
}

impl VectorIndex for Flat {
    fn rows(&self) -> usize {
        self.codes.rows
    }

    fn findable(&self, _: usize) -> Option<usize> {
        (self.codes.dims > 0).then_some(self.codes.coded)
    }

    fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes()
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        request.single_term(self.metric)?;
        Ok(match self.codes.dims {
            0 => exact::search(columns, self.codes.rows, request),
            _ => scan::search(&self.codes, columns, request),
        })
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        request.single_term(self.metric)?;
        Ok(match self.codes.dims {
            0 => Box::new(exact::cursor(columns, self.codes.rows, request)),
            _ => scan::cursor(&self.codes, columns, request),
        })
    }

    fn estimates(&self, columns: &[Vectors<'_>], term: &Term, ordinals: &[Ordinal]) -> Result<Vec<f64>> {
        let request = Request { terms: std::slice::from_ref(term), k: 1, filter: None, effort: Effort::default() };
        request.single_term(self.metric)?;
        match self.codes.dims {
            0 => Err(without_codes()),
            _ => Ok(scan::estimates(&self.codes, &columns[0], &request, ordinals)),
        }
    }

    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        build_with(self.metric, &columns[0], Some(&self.codes), build).map(Some)
    }
}
