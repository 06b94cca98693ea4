//! Hamming and Jaccard distance over packed bits: integer counts, so every level gives the same.

use super::Binary;

/// Bytes that are counted at once.
pub(super) const BLOCK: usize = 64;

/// What the body needs from a CPU: 512 bits at once. A value proves that the CPU has the level's instructions.
pub(super) trait Bits: Copy {
    /// 512 bits, or eight counts.
    type V: Copy;
    fn zero(self) -> Self::V;
    fn load(self, block: &[u8; BLOCK]) -> Self::V;
    /// Fewer than 64 bytes, then zeros.
    fn load_rest(self, rest: &[u8]) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// `counts` and the number of bits set in each eighth of `bits`.
    fn add_ones(self, counts: Self::V, bits: Self::V) -> Self::V;
    /// The sum of eight counts.
    fn fold(self, counts: Self::V) -> u64;
}

/// The distance from `query` to the rows that `ordinals` names, or to all rows in order.
#[inline(always)]
pub(super) fn distances<B: Bits>(
    simd: B,
    metric: Binary,
    query: &[u8],
    rows: &[u8],
    ordinals: Option<&[u32]>,
    out: &mut [f64],
) {
    let bytes = query.len();
    for i in 0..out.len() {
        let ordinal = match ordinals {
            None => i,
            Some(ordinals) => ordinals[i] as usize,
        };
        let row = &rows[ordinal * bytes..][..bytes];
        out[i] = match metric {
            Binary::Hamming => hamming(simd, query, row),
            Binary::Jaccard => jaccard(simd, query, row),
        };
    }
}

#[inline(always)]
fn hamming<B: Bits>(simd: B, a: &[u8], b: &[u8]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_rest) = b.as_chunks::<BLOCK>();
    let mut differing = simd.zero();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        differing = simd.add_ones(differing, simd.xor(simd.load(a), simd.load(b)));
    }
    if !a_rest.is_empty() {
        differing = simd.add_ones(differing, simd.xor(simd.load_rest(a_rest), simd.load_rest(b_rest)));
    }
    simd.fold(differing) as f64
}

#[inline(always)]
fn jaccard<B: Bits>(simd: B, a: &[u8], b: &[u8]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_rest) = b.as_chunks::<BLOCK>();
    let (mut shared, mut all) = (simd.zero(), simd.zero());
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        let (a, b) = (simd.load(a), simd.load(b));
        shared = simd.add_ones(shared, simd.and(a, b));
        all = simd.add_ones(all, simd.or(a, b));
    }
    if !a_rest.is_empty() {
        let (a, b) = (simd.load_rest(a_rest), simd.load_rest(b_rest));
        shared = simd.add_ones(shared, simd.and(a, b));
        all = simd.add_ones(all, simd.or(a, b));
    }
    let shared = simd.fold(shared);
    // As pgvector, also where both are empty.
    if shared == 0 { 1.0 } else { 1.0 - shared as f64 / simd.fold(all) as f64 }
}
