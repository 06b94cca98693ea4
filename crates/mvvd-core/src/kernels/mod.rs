//! Distances from one query to many rows, in the fastest way that this CPU has.
//!
//! | module | |
//! |---|---|
//! | `body` | the one body of every dense kernel |
//! | `bits` | Hamming and Jaccard |
//! | `bytes` | inner products of 8-bit codes, with levels of their own |
//! | `sparse` | sparse vectors |
//! | `fastscan` | table look-ups over blocks of 32 codes |
//! | `fht` | random rotations |
//! | `words` | words of small codebooks |
//! | `x86`, `aarch64`, `scalar` | the levels: the bodies compiled for the CPU's instructions |
//! | `portable` | sixteen lanes without intrinsics |
//!
//! Numbers are as pgvector's: sums in f32 (of f16 values too), the last step in f64. A sum beyond f32 is infinite, and a
//! squared norm below it is 0. The same query and row give the same bits through every function and in every position,
//! so ties are exact. The levels with fused multiply-add agree bit for bit; `scalar` rounds once more per step.
//!
//! Lengths must fit: rows of as many values as the query has. That is the caller's part, and asserted once per call.
//! So is the metric: the metrics of bits give NaN for numbers, and the metrics of numbers give NaN for bits.
#![expect(unsafe_code, reason = "the functions of a level are unsafe to call unless the CPU has its features")]

use std::sync::LazyLock;

use half::f16;

use crate::metric::Metric;

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod bits;
mod body;
mod bytes;
#[cfg(target_arch = "x86_64")]
mod bytes_x86;
mod fastscan;
mod fht;
mod portable;
mod scalar;
mod sparse;
#[cfg(test)]
mod tests;
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bytes::{ByteKernels, ByteRows, byte_dots, byte_dots_at};
pub use fastscan::{
    BLOCK_ROWS, BoundScale, Bounds, EstimateScale, PLACE_BYTES, Rounded, add_bounds, below, estimate_block, fastscan,
    fastscan_bit_tables, fastscan_tables, place_of, put_bits, put_digits,
};
pub use fht::{rotate_round, unrotate_round};
pub use sparse::{Sparse, distance_sparse, dot_sparse, norm_sparse};
pub use words::{WORDS_TOGETHER, nearest_word, scan_bytes, word_products};

/// Distances from `query` to each row of `rows` (row-major, `out.len()` rows).
pub fn distances_f32(metric: Metric, query: &[f32], rows: &[f32], out: &mut [f64]) {
    Kernels::active().distances_f32(metric, query, rows, out);
}

/// Distances from `query` to the rows at `ordinals`, in that order. Fetches the next rows while it computes.
pub fn distances_f32_at(metric: Metric, query: &[f32], rows: &[f32], ordinals: &[u32], out: &mut [f64]) {
    Kernels::active().distances_f32_at(metric, query, rows, ordinals, out);
}

/// As [`distances_f32`], over rows of f16.
pub fn distances_f16(metric: Metric, query: &[f32], rows: &[f16], out: &mut [f64]) {
    Kernels::active().distances_f16(metric, query, rows, out);
}

/// As [`distances_f32_at`], over rows of f16.
pub fn distances_f16_at(metric: Metric, query: &[f32], rows: &[f16], ordinals: &[u32], out: &mut [f64]) {
    Kernels::active().distances_f16_at(metric, query, rows, ordinals, out);
}

/// Hamming or Jaccard distances from `query` to each row of `rows`, each of `query.len()` bytes.
pub fn distances_bits(metric: Metric, query: &[u8], rows: &[u8], out: &mut [f64]) {
    Kernels::active().distances_bits(metric, query, rows, out);
}

/// Hamming or Jaccard distances from `query` to the rows at `ordinals`, in that order.
pub fn distances_bits_at(metric: Metric, query: &[u8], rows: &[u8], ordinals: &[u32], out: &mut [f64]) {
    Kernels::active().distances_bits_at(metric, query, rows, ordinals, out);
}

/// The distance of two vectors.
pub fn distance_f32(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    Kernels::active().distance_f32(metric, a, b)
}

/// The distance of two vectors of f16, computed in f32.
pub fn distance_f16(metric: Metric, a: &[f16], b: &[f16]) -> f64 {
    Kernels::active().distance_f16(metric, a, b)
}

/// The distance of a vector of f32 and one of f16, computed in f32.
pub fn distance_f32_f16(metric: Metric, a: &[f32], b: &[f16]) -> f64 {
    Kernels::active().distance_f32_f16(metric, a, b)
}

/// The Hamming or Jaccard distance of two bit vectors.
pub fn distance_bits(metric: Metric, a: &[u8], b: &[u8]) -> f64 {
    Kernels::active().distance_bits(metric, a, b)
}

/// The Euclidean length of a vector, summed in f64.
pub fn norm_f32(v: &[f32]) -> f64 {
    norm(v, f64::from)
}

/// The Euclidean length of a vector of f16, summed in f64.
pub fn norm_f16(v: &[f16]) -> f64 {
    norm(v, |x| f64::from(portable::widen(x)))
}

/// Asks for `bytes` to be brought near, all of their cache lines, and does not wait.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch_bytes(bytes);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The level in use: `avx512`, `avx2`, `neon` or `scalar`. Chosen once, for the CPU the process runs on.
pub fn level() -> &'static str {
    Kernels::active().level()
}

/// The kernels of one level. The functions of this module use [`Kernels::active`]; tests and benchmarks compare levels.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

impl Kernels {
    /// The fastest level that this CPU has.
    pub fn active() -> Self {
        Self(&TABLES[0])
    }

    /// Every level that this CPU has, fastest first; `scalar` is the last.
    pub fn available() -> impl Iterator<Item = Self> {
        TABLES.iter().map(Self)
    }

    /// The level's name.
    pub fn level(self) -> &'static str {
        self.0.level
    }

    /// [`distances_f32`] at this level.
    pub fn distances_f32(self, metric: Metric, query: &[f32], rows: &[f32], out: &mut [f64]) {
        dense(&self.0.dense.f32_f32, metric, query, rows, None, out);
    }

    /// [`distances_f32_at`] at this level.
    pub fn distances_f32_at(self, metric: Metric, query: &[f32], rows: &[f32], ordinals: &[u32], out: &mut [f64]) {
        dense(&self.0.dense.f32_f32, metric, query, rows, Some(ordinals), out);
    }

    /// [`distances_f16`] at this level.
    pub fn distances_f16(self, metric: Metric, query: &[f32], rows: &[f16], out: &mut [f64]) {
        dense(&self.0.dense.f32_f16, metric, query, rows, None, out);
    }

    /// [`distances_f16_at`] at this level.
    pub fn distances_f16_at(self, metric: Metric, query: &[f32], rows: &[f16], ordinals: &[u32], out: &mut [f64]) {
        dense(&self.0.dense.f32_f16, metric, query, rows, Some(ordinals), out);
    }

    /// [`distances_bits`] at this level.
    pub fn distances_bits(self, metric: Metric, query: &[u8], rows: &[u8], out: &mut [f64]) {
        binary(self.0.bits, metric, query, rows, None, out);
    }

    /// [`distances_bits_at`] at this level.
    pub fn distances_bits_at(self, metric: Metric, query: &[u8], rows: &[u8], ordinals: &[u32], out: &mut [f64]) {
        binary(self.0.bits, metric, query, rows, Some(ordinals), out);
    }

    /// [`distance_f32`] at this level.
    pub fn distance_f32(self, metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        pair(&self.0.dense.f32_f32, metric, a, b)
    }

    /// [`distance_f16`] at this level.
    pub fn distance_f16(self, metric: Metric, a: &[f16], b: &[f16]) -> f64 {
        pair(&self.0.dense.f16_f16, metric, a, b)
    }

    /// [`distance_f32_f16`] at this level.
    pub fn distance_f32_f16(self, metric: Metric, a: &[f32], b: &[f16]) -> f64 {
        pair(&self.0.dense.f32_f16, metric, a, b)
    }

    /// [`distance_bits`] at this level.
    pub fn distance_bits(self, metric: Metric, a: &[u8], b: &[u8]) -> f64 {
        let mut out = [0.0];
        binary(self.0.bits, metric, a, b, None, &mut out);
        out[0]
    }
}

/// The functions of one level; they may be called only on a CPU that has the level's features.
struct Table {
    level: &'static str,
    dense: DenseTable,
    bits: BitsFn,
    fastscan: fastscan::FastScanTable,
    rotation: fht::RotationTable,
    words: words::WordsTable,
}

/// By type of query and rows.
struct DenseTable {
    f32_f32: DenseFns<f32, f32>,
    f32_f16: DenseFns<f32, f16>,
    f16_f16: DenseFns<f16, f16>,
}

struct DenseFns<Q, E> {
    block: BlockFn<Q, E>,
    pair: unsafe fn(Dense, &[Q], &[E]) -> f64,
}

/// Metric, query, rows, which rows (all if none), distances.
type BlockFn<Q, E> = unsafe fn(Dense, &[Q], &[E], Option<&[u32]>, &mut [f64]);

/// As [`BlockFn`], over bits.
type BitsFn = unsafe fn(Binary, &[u8], &[u8], Option<&[u32]>, &mut [f64]);

/// Built by looking at the CPU, so every table's features are there.
static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables = Vec::new();
    #[cfg(target_arch = "x86_64")]
    tables.extend(x86::tables());
    #[cfg(target_arch = "aarch64")]
    tables.extend(aarch64::tables());
    tables.push(scalar::table());
    tables
});

/// The metrics of numbers.
#[derive(Clone, Copy, Debug)]
enum Dense {
    L2,
    L2Squared,
    Dot,
    Cosine,
    L1,
}

/// The metrics of bits.
#[derive(Clone, Copy, Debug)]
enum Binary {
    Hamming,
    Jaccard,
}

impl Dense {
    fn of(metric: Metric) -> Option<Self> {
        match metric {
            Metric::L2 => Some(Self::L2),
            Metric::L2Squared => Some(Self::L2Squared),
            Metric::Dot => Some(Self::Dot),
            Metric::Cosine => Some(Self::Cosine),
            Metric::L1 => Some(Self::L1),
            Metric::Hamming | Metric::Jaccard => None,
        }
    }
}

fn dense<Q, E>(
    kernels: &DenseFns<Q, E>,
    metric: Metric,
    query: &[Q],
    rows: &[E],
    ordinals: Option<&[u32]>,
    out: &mut [f64],
) {
    check(query.len(), rows.len(), ordinals, out.len());
    let Some(dense) = Dense::of(metric) else {
        return out.fill(refuse(metric));
    };
    // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
    unsafe { (kernels.block)(dense, query, rows, ordinals, out) }
}

fn pair<Q, E>(kernels: &DenseFns<Q, E>, metric: Metric, a: &[Q], b: &[E]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let Some(dense) = Dense::of(metric) else {
        return refuse(metric);
    };
    // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
    unsafe { (kernels.pair)(dense, a, b) }
}

fn binary(kernel: BitsFn, metric: Metric, query: &[u8], rows: &[u8], ordinals: Option<&[u32]>, out: &mut [f64]) {
    check(query.len(), rows.len(), ordinals, out.len());
    let metric = match metric {
        Metric::Hamming => Binary::Hamming,
        Metric::Jaccard => Binary::Jaccard,
        _ => return out.fill(refuse(metric)),
    };
    // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
    unsafe { kernel(metric, query, rows, ordinals, out) }
}

fn check(dim: usize, values: usize, ordinals: Option<&[u32]>, count: usize) {
    let Some(ordinals) = ordinals else {
        assert_eq!(dim * count, values, "{count} rows of {dim} values");
        return;
    };
    assert_eq!(ordinals.len(), count, "one distance for each ordinal");
    if let Some(&last) = ordinals.iter().max() {
        assert!((last as usize + 1) * dim <= values, "row {last} of {dim} values, got {values} values");
    }
}

#[cold]
fn refuse(metric: Metric) -> f64 {
    debug_assert!(false, "{metric} does not measure this type of vector");
    f64::NAN
}

fn norm<T: Copy>(v: &[T], widen: impl Fn(T) -> f64) -> f64 {
    let (chunks, rest) = v.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for i in 0..8 {
            let x = widen(chunk[i]);
            sums[i] += x * x;
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += widen(x) * widen(x);
    }
    sums.iter().sum::<f64>().sqrt()
}

/// A `Dense` table of one level: the body, compiled with the features in the attribute.
macro_rules! dense_table {
    ($(#[$features:meta])? with $simd:expr => $table:ident) => {
        const $table: super::DenseTable = super::DenseTable {
            f32_f32: dense_table!(@ $(#[$features])? with $simd, f32, f32),
            f32_f16: dense_table!(@ $(#[$features])? with $simd, f32, half::f16),
            f16_f16: dense_table!(@ $(#[$features])? with $simd, half::f16, half::f16),
        };
    };
    (@ $(#[$features:meta])? with $simd:expr, $query:ty, $row:ty) => {{
        $(#[$features])?
        fn block(metric: super::Dense, query: &[$query], rows: &[$row], ordinals: Option<&[u32]>, out: &mut [f64]) {
            super::body::distances($simd, metric, query, rows, ordinals, out);
        }
        $(#[$features])?
        fn pair(metric: super::Dense, a: &[$query], b: &[$row]) -> f64 {
            super::body::distance($simd, metric, a, b)
        }
        super::DenseFns { block, pair }
    }};
}
use dense_table;

/// The function over bits of one level.
macro_rules! bits_entry {
    ($(#[$features:meta])? with $simd:expr => $name:ident) => {
        $(#[$features])?
        fn $name(metric: super::Binary, query: &[u8], rows: &[u8], ordinals: Option<&[u32]>, out: &mut [f64]) {
            super::bits::distances($simd, metric, query, rows, ordinals, out);
        }
    };
}
use bits_entry;
