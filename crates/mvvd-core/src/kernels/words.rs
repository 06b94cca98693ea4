//! Which word of a small codebook is nearest to part of a vector, and what is its inner product with each?
//!
//! The words of product quantization (Jégou, Douze & Schmid 2011): 16 or 256 of a few dimensions. They lie dimension by
//! dimension, so that sixteen words are one load: `words[d * count + i]` is dimension `d` of word `i`. Every level rounds
//! after each step and gives the same bits.

use super::Kernels;
use super::fastscan::BLOCK_ROWS;

/// Words that are looked at together: the number of words is a multiple of it.
pub const WORDS_TOGETHER: usize = 16;

/// The inner products of `values` with each of `out.len()` words of as many dimensions.
pub fn word_products(values: &[f32], words: &[f32], out: &mut [f32]) {
    Kernels::active().word_products(values, words, out);
}

/// The word nearest to `values`, the first of equal ones; `halves` has half the square of each word's length.
pub fn nearest_word(values: &[f32], words: &[f32], halves: &[f32]) -> usize {
    Kernels::active().nearest_word(values, words, halves)
}

/// For each of the 32 codes of a block, the sum of what its bytes pick from `tables`, 256 numbers for each place. A place
/// of `codes` has the byte of each row.
pub fn scan_bytes(codes: &[u8], tables: &[u16], sums: &mut [u32; BLOCK_ROWS]) {
    let (codes, _) = codes.as_chunks::<BLOCK_ROWS>();
    let (tables, _) = tables.as_chunks::<256>();
    assert_eq!(codes.len(), tables.len(), "a table for each place");
    *sums = [0; BLOCK_ROWS];
    for (codes, table) in codes.iter().zip(tables) {
        for (sum, &code) in sums.iter_mut().zip(codes) {
            *sum += u32::from(table[usize::from(code)]);
        }
    }
}

impl Kernels {
    /// [`word_products`] at this level.
    pub fn word_products(self, values: &[f32], words: &[f32], out: &mut [f32]) {
        check(values, words, out.len());
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.0.words.products)(values, words, out) }
    }

    /// [`nearest_word`] at this level.
    pub fn nearest_word(self, values: &[f32], words: &[f32], halves: &[f32]) -> usize {
        check(values, words, halves.len());
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.0.words.nearest)(values, words, halves) }
    }
}

fn check(values: &[f32], words: &[f32], count: usize) {
    assert!(count.is_multiple_of(WORDS_TOGETHER), "{count} words");
    assert_eq!(words.len(), values.len() * count, "words of as many dimensions as there are values");
}

/// The functions of one level; they may be called only on a CPU that has the level's features.
pub(super) struct WordsTable {
    pub(super) products: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(super) nearest: unsafe fn(&[f32], &[f32], &[f32]) -> usize,
}

/// `sums` and `value` times each of sixteen words.
#[inline(always)]
fn add(mut sums: [f32; WORDS_TOGETHER], value: f32, words: &[f32; WORDS_TOGETHER]) -> [f32; WORDS_TOGETHER] {
    for i in 0..WORDS_TOGETHER {
        sums[i] += value * words[i];
    }
    sums
}

/// The products with four times sixteen words, the first of which is the `at`th sixteen of `stride`: so many sums that
/// none waits for the last.
#[inline(always)]
fn four(values: &[f32], words: &[[f32; WORDS_TOGETHER]], stride: usize, at: usize) -> [[f32; WORDS_TOGETHER]; 4] {
    let zero = [0.0; WORDS_TOGETHER];
    let (mut p, mut q, mut r, mut s) = (zero, zero, zero, zero);
    for (&value, words) in values.iter().zip(words.chunks_exact(stride)) {
        let [a, b, c, d]: &[_; 4] = words[at..].first_chunk().expect("four more");
        (p, q, r, s) = (add(p, value, a), add(q, value, b), add(r, value, c), add(s, value, d));
    }
    [p, q, r, s]
}

/// As [`four`], of sixteen words.
#[inline(always)]
fn one(values: &[f32], words: &[[f32; WORDS_TOGETHER]], stride: usize, at: usize) -> [f32; WORDS_TOGETHER] {
    let mut sums = [0.0; WORDS_TOGETHER];
    for (&value, words) in values.iter().zip(words.chunks_exact(stride)) {
        sums = add(sums, value, &words[at]);
    }
    sums
}

#[inline(always)]
pub(super) fn products(values: &[f32], words: &[f32], out: &mut [f32]) {
    let (words, _) = words.as_chunks();
    let (out, _) = out.as_chunks_mut::<WORDS_TOGETHER>();
    let (stride, fours) = (out.len(), out.len() / 4 * 4);
    for at in (0..fours).step_by(4) {
        out[at..at + 4].copy_from_slice(&four(values, words, stride, at));
    }
    for (at, out) in out.iter_mut().enumerate().skip(fours) {
        *out = one(values, words, stride, at);
    }
}

/// In each of sixteen lanes the least half of the squared distance, less what is the same for all words, and where it is.
#[derive(Clone, Copy)]
struct Least {
    distances: [f32; WORDS_TOGETHER],
    places: [u32; WORDS_TOGETHER],
}

impl Least {
    #[inline(always)]
    fn with(mut self, at: usize, products: &[f32; WORDS_TOGETHER], halves: &[f32; WORDS_TOGETHER]) -> Self {
        for i in 0..WORDS_TOGETHER {
            let distance = halves[i] - products[i];
            let is_less = distance < self.distances[i];
            self.distances[i] = if is_less { distance } else { self.distances[i] };
            self.places[i] = if is_less { at as u32 } else { self.places[i] };
        }
        self
    }
}

#[inline(always)]
pub(super) fn nearest(values: &[f32], words: &[f32], halves: &[f32]) -> usize {
    let (words, _) = words.as_chunks();
    let (halves, _) = halves.as_chunks::<WORDS_TOGETHER>();
    let (stride, fours) = (halves.len(), halves.len() / 4 * 4);
    let mut least = Least { distances: [f32::INFINITY; WORDS_TOGETHER], places: [0; WORDS_TOGETHER] };
    for at in (0..fours).step_by(4) {
        let products = four(values, words, stride, at);
        for n in 0..4 {
            least = least.with(at + n, &products[n], &halves[at + n]);
        }
    }
    for (at, halves) in halves.iter().enumerate().skip(fours) {
        least = least.with(at, &one(values, words, stride, at), halves);
    }
    let Least { distances: least, places } = least;
    let word = |lane: usize| places[lane] as usize * WORDS_TOGETHER + lane;
    let mut best = 0;
    for lane in 1..WORDS_TOGETHER {
        if least[lane] < least[best] || (least[lane] == least[best] && word(lane) < word(best)) {
            best = lane;
        }
    }
    word(best)
}

/// A `WordsTable` of one level: the bodies, compiled with the features in the attribute.
macro_rules! words_table {
    ($(#[$features:meta])? => $table:ident) => {
        const $table: super::words::WordsTable = {
            $(#[$features])?
            fn products(values: &[f32], words: &[f32], out: &mut [f32]) {
                super::words::products(values, words, out);
            }
            $(#[$features])?
            fn nearest(values: &[f32], words: &[f32], halves: &[f32]) -> usize {
                super::words::nearest(values, words, halves)
            }
            super::words::WordsTable { products, nearest }
        };
    };
}
pub(super) use words_table;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn every_level_follows_the_definition_and_gives_the_same_bits() {
        for (dims, count) in (1..=20).flat_map(|dims| [(dims, 16), (dims, 80), (dims, 256)]) {
            let (values, words) = (noise(dims, 3), noise(dims * count, dims as u32));
            let word = |i: usize| (0..dims).map(|d| words[d * count + i]).collect::<Vec<f32>>();
            let halves: Vec<f32> = (0..count).map(|i| word(i).iter().map(|x| x * x).sum::<f32>() / 2.0).collect();
            let squares: Vec<f32> =
                (0..count).map(|i| word(i).iter().zip(&values).map(|(w, v)| (w - v) * (w - v)).sum()).collect();
            let mut first = vec![0.0; count];
            word_products(&values, &words, &mut first);
            for kernels in Kernels::available() {
                let mut out = vec![7.0; count];
                kernels.word_products(&values, &words, &mut out);
                for (i, found) in out.iter().enumerate() {
                    let expected: f32 = word(i).iter().zip(&values).map(|(w, v)| w * v).sum();
                    assert!((found - expected).abs() < 1e-4, "{} {dims} {count}", kernels.level());
                    assert_eq!(found.to_bits(), first[i].to_bits(), "{} {dims} {count}", kernels.level());
                }
                let found = kernels.nearest_word(&values, &words, &halves);
                assert_eq!(found, nearest_word(&values, &words, &halves), "{} {dims} {count}", kernels.level());
                let least = squares.iter().copied().fold(f32::INFINITY, f32::min);
                assert!(squares[found] <= least + 1e-5, "{} {dims} {count}", kernels.level());
            }
        }
    }

    #[test]
    fn of_equal_words_the_first_and_never_one_beyond() {
        for kernels in Kernels::available() {
            assert_eq!(kernels.nearest_word(&[1.0], &[0.0; 32], &[0.0; 32]), 0);
            let mut halves = [1.0; 32];
            (halves[9], halves[20]) = (0.5, 0.5);
            assert_eq!(kernels.nearest_word(&[1.0], &[0.0; 32], &halves), 9);
            assert_eq!(kernels.nearest_word(&[f32::NAN], &[0.0; 32], &halves), 0);
        }
    }

    #[test]
    fn bytes_pick_their_numbers() {
        let tables: Vec<u16> = (0..3 * 256).map(|i| (i * 7919 % 65_536) as u16).collect();
        let codes: Vec<u8> = (0..3 * BLOCK_ROWS).map(|i| (i * 31 % 256) as u8).collect();
        let mut sums = [1; BLOCK_ROWS];
        scan_bytes(&codes, &tables, &mut sums);
        for (row, &sum) in sums.iter().enumerate() {
            let picked = |place: usize| u32::from(tables[256 * place + usize::from(codes[BLOCK_ROWS * place + row])]);
            assert_eq!(sum, (0..3).map(picked).sum::<u32>());
        }
    }
}
