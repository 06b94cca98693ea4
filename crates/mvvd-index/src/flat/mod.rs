//! The kind `flat`: every row is looked at, and the answer is exact.
//!
//! Bit vectors need nothing beside themselves: their distances are counted as fast as they can be read.

use std::sync::Arc;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Ordinal, Result, VectorKind};

use crate::exact;
use crate::kind::{Build, Cursor, IndexKind, IndexSpec, VectorIndex};
use crate::options::OptionSpec;
use crate::parts::{PartsReader, PartsWriter, corrupt};
use crate::request::{Hit, Request};
use crate::vectors::Vectors;

/// The kind `flat`.
#[derive(Debug)]
pub(crate) struct FlatKind;

impl IndexKind for FlatKind {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        match spec.columns[..] {
            [ty] if ty.kind != VectorKind::Bit => {
                Err(Error::unsupported(format!("an index of type flat is not over {ty}")))
            }
            [ty] if !spec.metric.is_binary() => {
                Err(Error::unsupported(format!("metric {} does not measure {ty}", spec.metric)))
            }
            [_] => Ok(()),
            _ => Err(Error::unsupported("an index of type flat is over one column")),
        }
    }

    fn build(&self, _: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        build.check()?;
        let mut parts = PartsWriter::default();
        parts.number(columns[0].len() as u64);
        Ok(parts.finish())
    }

    fn open(&self, spec: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        let mut parts = PartsReader::new(bytes)?;
        let rows = parts.count()?;
        parts.finish()?;
        match rows <= Ordinal::MAX as usize {
            true => Ok(Arc::new(FlatBits { metric: spec.metric, rows })),
            false => Err(corrupt("it has too many rows")),
        }
    }
}

/// An open index of kind `flat` over bit vectors.
#[derive(Debug)]
struct FlatBits {
    metric: Metric,
    rows: usize,
}

impl VectorIndex for FlatBits {
    fn rows(&self) -> usize {
        self.rows
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        request.single_term(self.metric)?;
        Ok(exact::search(columns, self.rows, request))
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        request.single_term(self.metric)?;
        Ok(Box::new(exact::cursor(columns, self.rows, request)))
    }

    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        build.check()?;
        let mut parts = PartsWriter::default();
        parts.number(columns[0].len() as u64);
        Ok(Some(parts.finish()))
    }
}
