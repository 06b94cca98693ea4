//! Hamming and Jaccard distance over packed bits: integer counts, so every level gives the same.

use super::Binary;

/// Bytes that are counted at once.
const BLOCK: usize = 64;
const WORDS: usize = BLOCK / 8;

/// The distance from `query` to the rows that `ordinals` names, or to all rows in order.
#[inline(always)]
pub(super) fn distances(metric: Binary, query: &[u8], rows: &[u8], ordinals: Option<&[u32]>, out: &mut [f64]) {
    match (metric, ordinals) {
        (Binary::Hamming, None) => walk(hamming, query, rows, |i| i, out),
        (Binary::Hamming, Some(ordinals)) => walk(hamming, query, rows, |i| ordinals[i] as usize, out),
        (Binary::Jaccard, None) => walk(jaccard, query, rows, |i| i, out),
        (Binary::Jaccard, Some(ordinals)) => walk(jaccard, query, rows, |i| ordinals[i] as usize, out),
    }
}

#[inline(always)]
fn walk(
    distance: impl Fn(&[u8], &[u8]) -> f64,
    query: &[u8],
    rows: &[u8],
    ordinal: impl Fn(usize) -> usize,
    out: &mut [f64],
) {
    let bytes = query.len();
    for (i, found) in out.iter_mut().enumerate() {
        *found = distance(query, &rows[ordinal(i) * bytes..][..bytes]);
    }
}

#[inline(always)]
fn hamming(a: &[u8], b: &[u8]) -> f64 {
    count(a, b, |a, b| a ^ b) as f64
}

#[inline(always)]
fn jaccard(a: &[u8], b: &[u8]) -> f64 {
    let shared = count(a, b, |a, b| a & b);
    if shared == 0 {
        return 1.0;
    }
    1.0 - shared as f64 / count(a, b, |a, b| a | b) as f64
}

/// How many bits are set in `join` of the two.
#[inline(always)]
fn count(a: &[u8], b: &[u8], join: impl Fn(u64, u64) -> u64) -> u64 {
    let (a_blocks, a_rest) = a.as_chunks::<BLOCK>();
    let (b_blocks, b_rest) = b.as_chunks::<BLOCK>();
    let mut counts = [0; WORDS];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        let (a, b) = (words(a), words(b));
        for i in 0..WORDS {
            counts[i] += u64::from(join(a[i], b[i]).count_ones());
        }
    }
    let mut total = counts.iter().sum();
    let (a_words, a_rest) = a_rest.as_chunks::<8>();
    let (b_words, b_rest) = b_rest.as_chunks::<8>();
    for (a, b) in a_words.iter().zip(b_words) {
        total += u64::from(join(u64::from_le_bytes(*a), u64::from_le_bytes(*b)).count_ones());
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        total += u64::from(join(u64::from(*a), u64::from(*b)).count_ones());
    }
    total
}

#[inline(always)]
fn words(block: &[u8; BLOCK]) -> [u64; WORDS] {
    let (eights, _) = block.as_chunks::<8>();
    let mut words = [0; WORDS];
    for i in 0..WORDS {
        words[i] = u64::from_le_bytes(eights[i]);
    }
    words
}
