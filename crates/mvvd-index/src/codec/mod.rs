//! Short codes that stand for vectors, and estimates of distances from them.
//!
//! | module | |
//! |---|---|
//! | `pq` | words for a few dimensions at a time, with a measured error |
//! | `rabitq` | one bit a dimension after a random rotation, with an error bound |
//! | `sq8` | a byte a dimension |

use std::fmt::Debug;

use mvvd_core::kernels::Bounds;
use mvvd_core::{Result, VectorType};

use crate::options::{OptionSpec, Options};
use crate::parts::{PartsReader, PartsWriter};
use crate::space::{Point, Space};

pub(crate) mod pq;
pub(crate) mod rabitq;
pub(crate) mod sq8;

pub(crate) use rabitq::{BitQuery, Form};

/// How the vectors of one column become codes, relative to a centre. Rows come in blocks of 32.
pub(crate) trait Codec: Clone + Send + Sync + Debug + Sized {
    /// The name of the kind of index that has lists of these codes.
    const KIND: &'static str;
    /// The options of codes.
    const OPTIONS: &'static [OptionSpec];
    /// What a search knows of a query beside its tables of bits.
    type Query: Debug;

    /// `Invalid` where options do not fit the columns.
    fn check(_options: &Options, _columns: &[VectorType]) -> Result<()> {
        Ok(())
    }

    /// The codec that suits rows like those that `residuals` gives: rotated, one after the other. Runs on the pool it is
    /// called from.
    fn train(options: &Options, space: &Space, residuals: impl FnOnce() -> Vec<f32>, seed: u64) -> Self;

    /// Writes what [`Codec::read`] reads.
    fn write(&self, out: &mut PartsWriter);

    /// The codec that was written.
    fn read(options: &Options, space: &Space, parts: &mut PartsReader) -> Result<Self>;

    /// Bytes that it takes in memory itself.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// Bytes of the codes of a block.
    fn code_bytes(&self) -> usize;

    /// Numbers beside the codes of a block; NaN in the first 32 of them stands for a row without a vector.
    fn factor_count(&self) -> usize;

    /// Writes the code of a row, given as its rotated residual from a rotated centre, into a block that has zeros there.
    fn encode(
        &self,
        space: &Space,
        centre: &[f32],
        residual: &[f32],
        row: usize,
        codes: &mut [u8],
        factors: &mut [f32],
    );

    /// Prepares a query.
    fn query(&self, point: &Point) -> Self::Query;

    /// Adds what the rows of a block are at least and at most: `weight` times their distance less the centre's.
    fn bounds(
        &self,
        query: (&BitQuery, &Self::Query),
        codes: &[u8],
        factors: &[f32],
        reach: Reach,
        bounds: &mut Bounds,
    );
}

/// How far bounds reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// What distances are multiplied with.
    pub(crate) weight: f32,
    /// So many standard deviations to either side of the estimate.
    pub(crate) deviations: f32,
    /// |q - c| for [`Form::Squared`], |q| for [`Form::Dot`].
    pub(crate) length: f32,
}
