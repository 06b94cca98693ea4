//! The one body of every dense kernel, generic over the CPU's vectors, the element types and the measure.
//!
//! A row's sum is always built the same way: chunks of 16 values go by turns to an even and an odd accumulator, a rest
//! shorter than 16 counts as a chunk padded with zeros, and both are added and folded in half until one value is left.
//! Rows are taken up to four at a time to keep the arithmetic units busy, yet each has its own accumulators. So a distance
//! does not depend on the position of the row or on the entry, and the levels that fuse multiply and add agree bit for bit.
//!
//! Everything here is `inline(always)`: it becomes part of a `target_feature` function of a level and gets its instructions.

use half::f16;

use super::Dense;

/// Values that one chunk holds.
pub(super) const LANES: usize = 16;
/// Rows that are compared with the query at once.
const GROUP: usize = 4;

/// How far ahead of the group in work rows are prefetched: at least one group, and as many as make this size.
///
/// Measured on Zen 4 with rows of 384 f32 in large pages. Rows that follow each other stream at 28 GB/s when the first
/// cache level is asked; rows with gaps at 12 GB/s, and at 19 GB/s when the second level is asked, further ahead.
const PREFETCH_BYTES: usize = 6 << 10;
const PREFETCH_BYTES_GAPS: usize = 24 << 10;
const PREFETCH_GROUPS_MAX: usize = 8;

/// What is asked for while a group is in work.
const NOTHING: u8 = 0;
/// Rows that follow each other.
const STREAM: u8 = 1;
/// Rows with gaps between them.
const GAPS: u8 = 2;

/// What the body needs from a CPU: 16 lanes of f32. A value proves that the CPU has the level's instructions.
pub(super) trait Simd: Copy {
    /// Sixteen f32 values.
    type V: Copy;
    /// How many values [`Simd::V`] the CPU's registers hold beside those in passing.
    const REGISTERS: usize;
    fn zero(self) -> Self::V;
    fn load(self, chunk: &[f32; LANES]) -> Self::V;
    /// Fewer than 16 values, then zeros.
    fn load_rest(self, rest: &[f32]) -> Self::V;
    fn load_half(self, chunk: &[f16; LANES]) -> Self::V;
    /// Fewer than 16 values, then zeros.
    fn load_half_rest(self, rest: &[f16]) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `a * b + c`.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of each vector's lanes, folded in half: lane i + 8 onto i, then 4, 2 and 1.
    fn fold(self, v: [Self::V; GROUP]) -> [f32; GROUP];
    /// As [`Simd::fold`], for one.
    fn fold_one(self, v: Self::V) -> f32;
    /// Asks for the cache line at `place`, which need not be inside any object: into the first level, or the second.
    fn prefetch<T>(self, place: *const T, first_level: bool);
}

/// A type of vector values.
pub(super) trait Element: Copy {
    fn load<S: Simd>(simd: S, chunk: &[Self; LANES]) -> S::V;
    fn load_rest<S: Simd>(simd: S, rest: &[Self]) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &[Self; LANES]) -> S::V {
        simd.load(chunk)
    }

    #[inline(always)]
    fn load_rest<S: Simd>(simd: S, rest: &[Self]) -> S::V {
        simd.load_rest(rest)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, chunk: &[Self; LANES]) -> S::V {
        simd.load_half(chunk)
    }

    #[inline(always)]
    fn load_rest<S: Simd>(simd: S, rest: &[Self]) -> S::V {
        simd.load_half_rest(rest)
    }
}

/// What is summed over the dimensions, and the distance that follows from the sums.
trait Measure: Copy {
    /// How many sums: 1, or 2 with the row's squared norm.
    const WITH_NORM: bool = false;
    fn step<S: Simd>(simd: S, query: S::V, row: S::V, sum: S::V) -> S::V;
    fn distance(self, sum: f32, norm: f32) -> f64;
}

#[derive(Clone, Copy)]
struct SquaredDifferences;

impl Measure for SquaredDifferences {
    #[inline(always)]
    fn step<S: Simd>(simd: S, query: S::V, row: S::V, sum: S::V) -> S::V {
        let difference = simd.sub(query, row);
        simd.mul_add(difference, difference, sum)
    }

    #[inline(always)]
    fn distance(self, sum: f32, _: f32) -> f64 {
        f64::from(sum)
    }
}

#[derive(Clone, Copy)]
struct Differences;

impl Measure for Differences {
    #[inline(always)]
    fn step<S: Simd>(simd: S, query: S::V, row: S::V, sum: S::V) -> S::V {
        simd.add(sum, simd.abs(simd.sub(query, row)))
    }

    #[inline(always)]
    fn distance(self, sum: f32, _: f32) -> f64 {
        f64::from(sum)
    }
}

#[derive(Clone, Copy)]
struct Products;

impl Measure for Products {
    #[inline(always)]
    fn step<S: Simd>(simd: S, query: S::V, row: S::V, sum: S::V) -> S::V {
        simd.mul_add(query, row, sum)
    }

    #[inline(always)]
    fn distance(self, sum: f32, _: f32) -> f64 {
        // Not `-sum`: a product of 0 must not become -0.
        0.0 - f64::from(sum)
    }
}

#[derive(Clone, Copy)]
struct Angle {
    /// The query's squared norm, rounded like a row's.
    query_norm: f64,
}

impl Measure for Angle {
    const WITH_NORM: bool = true;

    #[inline(always)]
    fn step<S: Simd>(simd: S, query: S::V, row: S::V, sum: S::V) -> S::V {
        simd.mul_add(query, row, sum)
    }

    #[inline(always)]
    fn distance(self, sum: f32, norm: f32) -> f64 {
        let norms = self.query_norm * f64::from(norm);
        let cosine = f64::from(sum) / norms.sqrt();
        // The sum may differ from 0 although the squares are too small for f32.
        if norms == 0.0 { f64::NAN } else { 1.0 - cosine.clamp(-1.0, 1.0) }
    }
}

/// The distance from `query` to the rows that `ordinals` names, or to all rows in order.
#[inline(always)]
pub(super) fn distances<S: Simd, Q: Element, E: Element>(
    simd: S,
    metric: Dense,
    query: &[Q],
    rows: &[E],
    ordinals: Option<&[u32]>,
    out: &mut [f64],
) {
    match metric {
        Dense::L2 => {
            pick(simd, SquaredDifferences, query, rows, ordinals, out);
            for distance in out {
                *distance = distance.sqrt();
            }
        }
        Dense::L2Squared => pick(simd, SquaredDifferences, query, rows, ordinals, out),
        Dense::Dot => pick(simd, Products, query, rows, ordinals, out),
        Dense::L1 => pick(simd, Differences, query, rows, ordinals, out),
        Dense::Cosine => {
            let [(norm, _)] = sums::<S, Products, Q, Q, 1, NOTHING>(simd, query, [query], [query]);
            pick(simd, Angle { query_norm: f64::from(norm) }, query, rows, ordinals, out);
        }
    }
}

/// The distance of two vectors, without what a block needs around it.
#[inline(always)]
pub(super) fn distance<S: Simd, Q: Element, E: Element>(simd: S, metric: Dense, a: &[Q], b: &[E]) -> f64 {
    match metric {
        Dense::L2 => pair(simd, SquaredDifferences, a, b).sqrt(),
        Dense::L2Squared => pair(simd, SquaredDifferences, a, b),
        Dense::Dot => pair(simd, Products, a, b),
        Dense::L1 => pair(simd, Differences, a, b),
        Dense::Cosine => {
            let [(norm, _)] = sums::<S, Products, Q, Q, 1, NOTHING>(simd, a, [a], [a]);
            pair(simd, Angle { query_norm: f64::from(norm) }, a, b)
        }
    }
}

#[inline(always)]
fn pair<S: Simd, M: Measure, Q: Element, E: Element>(simd: S, measure: M, a: &[Q], b: &[E]) -> f64 {
    let [(sum, norm)] = sums::<S, M, Q, E, 1, NOTHING>(simd, a, [b], [b]);
    measure.distance(sum, norm)
}

#[inline(always)]
fn pick<S: Simd, M: Measure, Q: Element, E: Element>(
    simd: S,
    measure: M,
    query: &[Q],
    rows: &[E],
    ordinals: Option<&[u32]>,
    out: &mut [f64],
) {
    match ordinals {
        None => groups::<S, M, Q, E, STREAM>(simd, measure, query, rows, |i| i, out),
        Some(ordinals) => {
            groups::<S, M, Q, E, GAPS>(simd, measure, query, rows, |i| ordinals[i] as usize, out);
        }
    }
}

/// Takes as many rows at once as have their accumulators in registers.
#[inline(always)]
fn groups<S: Simd, M: Measure, Q: Element, E: Element, const ASK: u8>(
    simd: S,
    measure: M,
    query: &[Q],
    rows: &[E],
    ordinal: impl Fn(usize) -> usize,
    out: &mut [f64],
) {
    match S::REGISTERS / if M::WITH_NORM { 4 } else { 2 } {
        GROUP.. => walk::<S, M, Q, E, GROUP, ASK>(simd, measure, query, rows, ordinal, out),
        2.. => walk::<S, M, Q, E, 2, ASK>(simd, measure, query, rows, ordinal, out),
        _ => walk::<S, M, Q, E, 1, ASK>(simd, measure, query, rows, ordinal, out),
    }
}

/// The distances to the rows `ordinal(0)`, `ordinal(1)`, …, `N` at a time.
#[inline(always)]
fn walk<S: Simd, M: Measure, Q: Element, E: Element, const N: usize, const ASK: u8>(
    simd: S,
    measure: M,
    query: &[Q],
    rows: &[E],
    ordinal: impl Fn(usize) -> usize,
    out: &mut [f64],
) {
    let dim = query.len();
    let count = out.len();
    let bytes = if ASK == GAPS { PREFETCH_BYTES_GAPS } else { PREFETCH_BYTES };
    let ahead = N * bytes.div_ceil(N * (dim * size_of::<E>()).max(1)).clamp(1, PREFETCH_GROUPS_MAX);
    let mut i = 0;
    while i + N <= count {
        let mut group = [&rows[..0]; N];
        let mut next = group;
        for k in 0..N {
            group[k] = &rows[ordinal(i + k) * dim..][..dim];
            // The last groups prefetch the last row: harmless, and no branch in the loop.
            next[k] = &rows[ordinal((i + ahead + k).min(count - 1)) * dim..][..dim];
        }
        let found = sums::<S, M, Q, E, N, ASK>(simd, query, group, next);
        for k in 0..N {
            out[i + k] = measure.distance(found[k].0, found[k].1);
        }
        i += N;
    }
    while i < count {
        let row = &rows[ordinal(i) * dim..][..dim];
        let [(sum, norm)] = sums::<S, M, Q, E, 1, NOTHING>(simd, query, [row], [row]);
        out[i] = measure.distance(sum, norm);
        i += 1;
    }
}

/// For each of `N` rows the sum and, if the measure wants it, the squared norm. Asks for the rows of `next` meanwhile.
#[inline(always)]
fn sums<S: Simd, M: Measure, Q: Element, E: Element, const N: usize, const ASK: u8>(
    simd: S,
    query: &[Q],
    rows: [&[E]; N],
    next: [&[E]; N],
) -> [(f32, f32); N] {
    let (query_chunks, query_rest) = query.as_chunks::<LANES>();
    let chunks = query_chunks.len();
    let mut row_chunks: [&[[E; LANES]]; N] = [&[]; N];
    let mut row_rests: [&[E]; N] = [&[]; N];
    for k in 0..N {
        let (whole, rest) = rows[k].as_chunks::<LANES>();
        row_chunks[k] = &whole[..chunks];
        row_rests[k] = rest;
    }

    let mut even = [(simd.zero(), simd.zero()); N];
    let mut odd = even;
    let mut at = 0;
    let mut ahead = Ahead { next, chunks, row: 0, at: 0 };
    while at + 2 <= chunks {
        if ASK != NOTHING {
            ahead.ask(simd, ASK == STREAM);
            ahead.ask(simd, ASK == STREAM);
        }
        step::<S, M, Q, E, N>(simd, &query_chunks[at], row_chunks, at, &mut even);
        step::<S, M, Q, E, N>(simd, &query_chunks[at + 1], row_chunks, at + 1, &mut odd);
        at += 2;
    }
    if at < chunks {
        step::<S, M, Q, E, N>(simd, &query_chunks[at], row_chunks, at, &mut even);
    }
    if !query_rest.is_empty() {
        let q = Q::load_rest(simd, query_rest);
        for k in 0..N {
            let r = E::load_rest(simd, row_rests[k]);
            odd[k] = accumulate::<S, M>(simd, q, r, odd[k]);
        }
    }

    let mut sums = [simd.zero(); N];
    let mut norms = [simd.zero(); N];
    for k in 0..N {
        sums[k] = simd.add(even[k].0, odd[k].0);
        norms[k] = simd.add(even[k].1, odd[k].1);
    }
    let sums = fold(simd, sums);
    let norms = if M::WITH_NORM { fold(simd, norms) } else { [0.0; N] };
    let mut found = [(0.0, 0.0); N];
    for k in 0..N {
        found[k] = (sums[k], norms[k]);
    }
    found
}

/// Walks the rows of a later group one after the other while the rows of this one are walked side by side.
///
/// In the order of their addresses: the processor then streams on by itself. Asking for the same place of each row in
/// turn, as the work goes, reads memory at less than half the speed (measured on Zen 4: 11 GB/s instead of 28).
struct Ahead<'a, E, const N: usize> {
    next: [&'a [E]; N],
    chunks: usize,
    row: usize,
    at: usize,
}

impl<E: Element, const N: usize> Ahead<'_, E, N> {
    /// Asks for as many chunks as a step of the work takes.
    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S, first_level: bool) {
        let start = self.next[self.row.min(N - 1)].as_ptr().wrapping_add(self.at * LANES);
        for k in 0..N {
            simd.prefetch(start.wrapping_add(k * LANES), first_level);
        }
        self.at += N;
        if self.at >= self.chunks {
            self.at -= self.chunks;
            self.row += 1;
        }
    }
}

/// Adds one chunk of each row to its accumulators. A function, since a closure does not get the level's instructions.
#[inline(always)]
fn step<S: Simd, M: Measure, Q: Element, E: Element, const N: usize>(
    simd: S,
    query: &[Q; LANES],
    rows: [&[[E; LANES]]; N],
    at: usize,
    sums: &mut [(S::V, S::V); N],
) {
    let q = Q::load(simd, query);
    for k in 0..N {
        let r = E::load(simd, &rows[k][at]);
        sums[k] = accumulate::<S, M>(simd, q, r, sums[k]);
    }
}

#[inline(always)]
fn accumulate<S: Simd, M: Measure>(simd: S, q: S::V, r: S::V, (sum, norm): (S::V, S::V)) -> (S::V, S::V) {
    let norm = if M::WITH_NORM { simd.mul_add(r, r, norm) } else { norm };
    (M::step(simd, q, r, sum), norm)
}

/// The sum of each vector's lanes.
#[inline(always)]
fn fold<S: Simd, const N: usize>(simd: S, v: [S::V; N]) -> [f32; N] {
    let mut folded = [0.0; N];
    if N == GROUP {
        folded.copy_from_slice(&simd.fold([v[0], v[1 % N], v[2 % N], v[3 % N]]));
    } else {
        for k in 0..N {
            folded[k] = simd.fold_one(v[k]);
        }
    }
    folded
}
