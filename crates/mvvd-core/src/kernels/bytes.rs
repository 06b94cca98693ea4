//! Inner products of rows of unsigned bytes with a query of signed ones: the arithmetic of 8-bit codes.
//!
//! Sums are exact integers, so every level gives the same. `VPDPBUSD` wants one unsigned and one signed factor; codes
//! that are signed are stored with 128 added, and 128 times the sum of the query is taken off afterwards.

use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use super::bytes_x86;

/// Bytes that are multiplied at once.
pub(super) const BLOCK: usize = 64;
/// Rows that are multiplied at once.
const GROUP: usize = 4;
/// Cache lines of later rows that are asked for ahead: about what one core has under way at a time.
const LINES_AHEAD: usize = 24;

/// Rows of bytes at equal distances within a larger piece of memory, as within the records of a graph.
#[derive(Debug, Clone, Copy)]
pub struct ByteRows<'a> {
    /// What holds the rows.
    pub bytes: &'a [u8],
    /// Where the first row starts.
    pub start: usize,
    /// From the start of one row to the start of the next.
    pub stride: usize,
}

impl<'a> ByteRows<'a> {
    /// Rows of `width` bytes, one directly after the other.
    pub fn dense(bytes: &'a [u8], width: usize) -> Self {
        Self { bytes, start: 0, stride: width }
    }

    #[inline(always)]
    fn row(&self, ordinal: usize, width: usize) -> &'a [u8] {
        &self.bytes[self.start + ordinal * self.stride..][..width]
    }
}

/// The inner products of `query` (at most 65,000 values) with the first `out.len()` rows. Rows are as long as the query.
pub fn byte_dots(query: &[i8], rows: ByteRows<'_>, out: &mut [i32]) {
    ByteKernels::active().dots(query, rows, None, out);
}

/// The inner products of `query` with the rows at `ordinals`, in that order. Fetches the next rows while it multiplies.
pub fn byte_dots_at(query: &[i8], rows: ByteRows<'_>, ordinals: &[u32], out: &mut [i32]) {
    ByteKernels::active().dots(query, rows, Some(ordinals), out);
}

/// The kernels over bytes of one level; for tests and benchmarks.
#[derive(Clone, Copy)]
pub struct ByteKernels(&'static Level);

impl ByteKernels {
    /// The fastest level that this CPU has.
    pub fn active() -> Self {
        Self(&LEVELS[0])
    }

    /// Every level that this CPU has, fastest first; `scalar` is the last.
    pub fn available() -> impl Iterator<Item = Self> {
        LEVELS.iter().map(Self)
    }

    /// The level's name.
    pub fn level(self) -> &'static str {
        self.0.name
    }

    /// [`byte_dots`] or [`byte_dots_at`] at this level.
    pub fn dots(self, query: &[i8], rows: ByteRows<'_>, ordinals: Option<&[u32]>, out: &mut [i32]) {
        assert!(query.len() <= 65_000, "{} bytes could overflow a sum", query.len());
        assert!(ordinals.is_none_or(|ordinals| ordinals.len() == out.len()), "one product for each ordinal");
        // SAFETY: the function is from `LEVELS`, which has only what this CPU can run.
        unsafe { (self.0.dots)(query, rows, ordinals, out) }
    }
}

pub(super) struct Level {
    pub(super) name: &'static str,
    pub(super) dots: DotsFn,
}

/// Query, rows, which rows (the first ones if none), products.
type DotsFn = unsafe fn(&[i8], ByteRows<'_>, Option<&[u32]>, &mut [i32]);

/// Built by looking at the CPU, so every level's features are there.
static LEVELS: LazyLock<Vec<Level>> = LazyLock::new(|| {
    let mut levels = Vec::new();
    #[cfg(target_arch = "x86_64")]
    levels.extend(bytes_x86::levels());
    #[cfg(target_arch = "aarch64")]
    levels.push(Level { name: "neon", dots: neon_dots });
    levels.push(Level { name: "scalar", dots: scalar_dots });
    levels
});

/// What the body needs from a CPU: partial sums of products. A value proves that the CPU has the level's instructions.
pub(super) trait Multiply: Copy {
    /// Partial sums.
    type V: Copy;
    fn zero(self) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `sum` and the products of a block.
    fn multiply(self, sum: Self::V, row: &[u8; BLOCK], query: &[i8; BLOCK]) -> Self::V;
    /// As [`Multiply::multiply`], for fewer than 64 bytes.
    fn multiply_rest(self, sum: Self::V, row: &[u8], query: &[i8]) -> Self::V;
    fn fold(self, sums: [Self::V; GROUP]) -> [i32; GROUP];
    fn fold_one(self, sum: Self::V) -> i32;
    /// Asks for the cache line at `place`, which need not be inside any object.
    fn prefetch(self, place: *const u8);
}

/// The inner products of `query` with the rows that `ordinals` names, or with the first ones.
#[inline(always)]
pub(super) fn dots<M: Multiply>(simd: M, query: &[i8], rows: ByteRows<'_>, ordinals: Option<&[u32]>, out: &mut [i32]) {
    match ordinals {
        // The processor streams on by itself.
        None => walk::<M, false>(simd, query, rows, |i| i, out),
        Some(ordinals) => walk::<M, true>(simd, query, rows, |i| ordinals[i] as usize, out),
    }
}

#[inline(always)]
fn walk<M: Multiply, const ASK: bool>(
    simd: M,
    query: &[i8],
    rows: ByteRows<'_>,
    ordinal: impl Fn(usize) -> usize,
    out: &mut [i32],
) {
    let (width, count) = (query.len(), out.len());
    let lines = width.div_ceil(BLOCK).max(1);
    let ahead = (LINES_AHEAD / lines).clamp(GROUP, 4 * GROUP);
    if ASK {
        for i in 0..ahead.min(count) {
            ask(simd, rows, ordinal(i), lines);
        }
    }
    let mut i = 0;
    while i + GROUP <= count {
        let mut group = [&rows.bytes[..0]; GROUP];
        for (k, row) in group.iter_mut().enumerate() {
            *row = rows.row(ordinal(i + k), width);
            if ASK && i + k + ahead < count {
                ask(simd, rows, ordinal(i + k + ahead), lines);
            }
        }
        let sums = simd.fold(sums(simd, query, group));
        out[i..i + GROUP].copy_from_slice(&sums);
        i += GROUP;
    }
    while i < count {
        let [sum] = sums(simd, query, [rows.row(ordinal(i), width)]);
        out[i] = simd.fold_one(sum);
        i += 1;
    }
}

#[inline(always)]
fn ask<M: Multiply>(simd: M, rows: ByteRows<'_>, ordinal: usize, lines: usize) {
    let start = rows.bytes.as_ptr().wrapping_add(rows.start + ordinal * rows.stride);
    for line in 0..lines {
        simd.prefetch(start.wrapping_add(line * BLOCK));
    }
}

#[inline(always)]
fn sums<M: Multiply, const N: usize>(simd: M, query: &[i8], rows: [&[u8]; N]) -> [M::V; N] {
    let (query_blocks, query_rest) = query.as_chunks::<BLOCK>();
    let blocks = query_blocks.len();
    let mut row_blocks: [&[[u8; BLOCK]]; N] = [&[]; N];
    let mut row_rests: [&[u8]; N] = [&[]; N];
    for k in 0..N {
        let (whole, rest) = rows[k].as_chunks::<BLOCK>();
        row_blocks[k] = &whole[..blocks];
        row_rests[k] = rest;
    }
    let mut even = [simd.zero(); N];
    let mut odd = even;
    let mut at = 0;
    while at + 2 <= blocks {
        for k in 0..N {
            even[k] = simd.multiply(even[k], &row_blocks[k][at], &query_blocks[at]);
            odd[k] = simd.multiply(odd[k], &row_blocks[k][at + 1], &query_blocks[at + 1]);
        }
        at += 2;
    }
    if at < blocks {
        for k in 0..N {
            even[k] = simd.multiply(even[k], &row_blocks[k][at], &query_blocks[at]);
        }
    }
    if !query_rest.is_empty() {
        for k in 0..N {
            odd[k] = simd.multiply_rest(odd[k], row_rests[k], query_rest);
        }
    }
    for k in 0..N {
        even[k] = simd.add(even[k], odd[k]);
    }
    even
}

/// A `dots` function of one level: the body, compiled with the features in the attribute.
macro_rules! dots_entry {
    ($(#[$features:meta])? with $simd:expr => $name:ident) => {
        $(#[$features])?
        fn $name(
            query: &[i8],
            rows: $crate::kernels::bytes::ByteRows<'_>,
            ordinals: Option<&[u32]>,
            out: &mut [i32],
        ) {
            $crate::kernels::bytes::dots($simd, query, rows, ordinals, out);
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use dots_entry;

dots_entry! {
    with Plain => scalar_dots
}
#[cfg(target_arch = "aarch64")]
dots_entry! {
    #[target_feature(enable = "neon")]
    with Plain => neon_dots
}

/// Sixteen sums as a plain array: the compiler makes vectors of it where the level allows.
#[derive(Clone, Copy)]
struct Plain;

impl Multiply for Plain {
    type V = [i32; 16];

    #[inline(always)]
    fn zero(self) -> Self::V {
        [0; 16]
    }

    #[inline(always)]
    fn add(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn multiply(self, mut sum: Self::V, row: &[u8; BLOCK], query: &[i8; BLOCK]) -> Self::V {
        for part in 0..BLOCK / 16 {
            for i in 0..16 {
                sum[i] += i32::from(row[part * 16 + i]) * i32::from(query[part * 16 + i]);
            }
        }
        sum
    }

    #[inline(always)]
    fn multiply_rest(self, mut sum: Self::V, row: &[u8], query: &[i8]) -> Self::V {
        for (i, (&r, &q)) in row.iter().zip(query).enumerate() {
            sum[i % 16] += i32::from(r) * i32::from(q);
        }
        sum
    }

    #[inline(always)]
    fn fold(self, sums: [Self::V; GROUP]) -> [i32; GROUP] {
        sums.map(|sum| self.fold_one(sum))
    }

    #[inline(always)]
    fn fold_one(self, sum: Self::V) -> i32 {
        sum.iter().sum()
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same in every run.
    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn products_are_exact_at_every_level_and_length() {
        for kernels in ByteKernels::available() {
            for width in (0..=200).chain([784, 4097, 16_000]) {
                let (start, stride, count) = (3, width + 5, 11);
                let memory = bytes(start + stride * count, 7);
                let query: Vec<i8> = bytes(width, 8).into_iter().map(|byte| byte as i8).collect();
                let rows = ByteRows { bytes: &memory, start, stride };
                let expected: Vec<i32> = (0..count)
                    .map(|i| query.iter().zip(rows.row(i, width)).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum())
                    .collect();
                let mut found = vec![0; count];
                kernels.dots(query.as_slice(), rows, None, &mut found);
                assert_eq!(found, expected, "{} width {width}", kernels.level());
                let backwards: Vec<u32> = (0..count as u32).rev().collect();
                kernels.dots(query.as_slice(), rows, Some(&backwards), &mut found);
                found.reverse();
                assert_eq!(found, expected, "{} width {width}", kernels.level());
            }
        }
    }

    #[test]
    fn the_largest_products_do_not_saturate() {
        for kernels in ByteKernels::available() {
            let rows = vec![255_u8; 16_000];
            for (value, expected) in [(-128_i8, -255 * 128 * 16_000), (127, 255 * 127 * 16_000)] {
                let mut out = [0];
                kernels.dots(&vec![value; 16_000], ByteRows::dense(&rows, 16_000), None, &mut out);
                assert_eq!(out, [expected], "{}", kernels.level());
            }
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn an_ordinal_beyond_the_rows_is_a_bug() {
        byte_dots_at(&[1; 4], ByteRows::dense(&[0; 12], 4), &[3], &mut [0]);
    }
}
