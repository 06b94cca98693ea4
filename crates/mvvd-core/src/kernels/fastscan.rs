//! How do 32 short codes get looked up at once? Byte shuffles over blocks of 32 codes, and bounds from their sums.
//!
//! A code is a row of 4-bit digits, and a query gives every digit's place a table of 16 bytes; wanted is, for each of 32
//! codes, the sum of the bytes its digits pick. André, Kermarrec & Le Scouarnec 2015 ("Cache locality is not enough"),
//! as laid out by faiss. The digits of one place take 16 bytes in a block:
//!
//! ```text
//! byte 2 i      row i      in the low half, row i + 16 in the high half     (i from 0 to 7)
//! byte 2 i + 1  row i + 8  in the low half, row i + 24 in the high half
//! ```
//!
//! A byte shuffle looks up 16 digits. Bytes are added in pairs, as numbers of 16 bits: once as they are, where the odd
//! byte disturbs the even one's sum by a multiple of 256 that is subtracted in the end, and once shifted, odd ones alone.
//!
//! Sums are whole numbers and equal at every level; the bounds fuse no multiplication and are equal as well.

use super::{Kernels, Table};

/// Rows of a block.
pub const BLOCK_ROWS: usize = 32;
/// Bytes that one place takes, of a table as of a block.
pub const PLACE_BYTES: usize = 16;
/// Additions of at most 255 after which a sum of 16 bits could pass its end.
const ADDS_MAX: usize = 256;

/// For each of the 32 codes of a block, the sum of what its digits pick from `tables`, a table of 16 bytes for each place.
///
/// `codes` is as long as `tables`, a multiple of 16.
pub fn fastscan(codes: &[u8], tables: &[u8], sums: &mut [u32; BLOCK_ROWS]) {
    Kernels::active().fastscan(codes, tables, sums);
}

/// Rounds tables of 16 numbers to tables of bytes: a sum of picked numbers is near `step` times the sum of picked bytes,
/// plus `base`, and off by at most half a step for each table.
pub fn fastscan_tables(numbers: &[f32], tables: &mut [u8]) -> Rounded {
    Kernels::active().fastscan_tables(numbers, tables)
}

/// As [`fastscan_tables`], for codes of one bit a dimension: the tables of the sums of those of `values` whose bit is set,
/// four values to a place, the first in the lowest bit. `tables` has 4 bytes a value.
pub fn fastscan_bit_tables(values: &[f32], tables: &mut [u8]) -> Rounded {
    Kernels::active().fastscan_bit_tables(values, tables)
}

/// Adds what a column contributes to the bounds of 32 rows. Row `i` has the factors `factors[i]` (a), `factors[32 + i]`
/// (s) and `factors[64 + i]` (e), and its estimate is `weight * (a + s * (step * sum + base))`, give or take
/// `error * e + rounding * |s|`.
pub fn add_bounds(sums: &[u32; BLOCK_ROWS], factors: &[f32; 3 * BLOCK_ROWS], scale: &BoundScale, bounds: &mut Bounds) {
    Kernels::active().add_bounds(sums, factors, scale, bounds);
}

/// Bit `i` is set where `values[i]` is below `limit`; never for NaN.
pub fn below(values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
    Kernels::active().below(values, limit)
}

/// Estimates the 32 rows of a block of 1-bit codes, as [`add_bounds`] without errors: row `i` is estimated to be
/// `scale.centre + factors[i] + factors[32 + i] * (scale.step * sum + scale.base)`. Bit `i` of the result is set where
/// that is below `limit`.
pub fn estimate_block(
    codes: &[u8],
    tables: &[u8],
    factors: &[f32; 2 * BLOCK_ROWS],
    scale: &EstimateScale,
    limit: f32,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    Kernels::active().estimate_block(codes, tables, factors, scale, limit, out)
}

/// Where the digits of `row` are within each place of a block: the byte, and the shift.
#[inline]
pub fn place_of(row: usize) -> (usize, u32) {
    debug_assert!(row < BLOCK_ROWS);
    (2 * (row % 8) + row / 8 % 2, 4 * (row / 16) as u32)
}

/// Writes the digits of `row`, one of each place, into a block that has zeros there.
pub fn put_digits(block: &mut [u8], row: usize, digits: impl IntoIterator<Item = u8>) {
    let (byte, shift) = place_of(row);
    for (place, digit) in block.chunks_exact_mut(PLACE_BYTES).zip(digits) {
        place[byte] |= (digit & 15) << shift;
    }
}

/// Writes a code of one bit a dimension, lowest bit first, as the digits of `row` into a block that has zeros there.
pub fn put_bits(block: &mut [u8], row: usize, bits: &[u8]) {
    put_digits(block, row, bits.iter().flat_map(|byte| [byte & 15, byte >> 4]));
}

/// How bytes of a table stand for numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rounded {
    /// What one unit of a byte stands for.
    pub step: f32,
    /// The sum of what zero stands for in each table.
    pub base: f32,
}

/// How the sums and factors of a column become estimates; see [`add_bounds`].
#[derive(Clone, Copy, Debug, Default)]
pub struct BoundScale {
    /// What the estimate is multiplied with.
    pub weight: f32,
    /// What a sum is multiplied with.
    pub step: f32,
    /// What is added to a sum then.
    pub base: f32,
    /// What a row's error is multiplied with, the weight included.
    pub error: f32,
    /// What a row's scale is multiplied with to give the error of rounding, the weight included.
    pub rounding: f32,
}

/// How the sums and factors of a block become estimates; see [`estimate_block`].
#[derive(Clone, Copy, Debug, Default)]
pub struct EstimateScale {
    /// What is added to every estimate.
    pub centre: f32,
    /// What a sum is multiplied with.
    pub step: f32,
    /// What is added to a sum then.
    pub base: f32,
}

/// What 32 rows are at least and at most.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Bounds {
    /// The lower bounds.
    pub low: [f32; BLOCK_ROWS],
    /// The upper bounds.
    pub high: [f32; BLOCK_ROWS],
}

impl Bounds {
    /// Both bounds of every row are `value`.
    pub fn of(value: f32) -> Self {
        Self { low: [value; BLOCK_ROWS], high: [value; BLOCK_ROWS] }
    }
}

impl Kernels {
    /// [`fastscan`] at this level.
    pub fn fastscan(self, codes: &[u8], tables: &[u8], sums: &mut [u32; BLOCK_ROWS]) {
        assert_eq!(codes.len(), tables.len(), "a table for each place");
        assert!(codes.len().is_multiple_of(PLACE_BYTES), "whole places");
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.scan)(codes, tables, sums) }
    }

    /// [`fastscan_tables`] at this level.
    pub fn fastscan_tables(self, numbers: &[f32], tables: &mut [u8]) -> Rounded {
        assert_eq!(numbers.len(), tables.len(), "a byte for each number");
        assert!(numbers.len().is_multiple_of(PLACE_BYTES), "whole tables");
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.tables)(numbers, tables) }
    }

    /// [`fastscan_bit_tables`] at this level.
    pub fn fastscan_bit_tables(self, values: &[f32], tables: &mut [u8]) -> Rounded {
        assert_eq!(4 * values.len(), tables.len(), "16 bytes for 4 values");
        assert!(values.len().is_multiple_of(4), "whole tables");
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.bit_tables)(values, tables) }
    }

    /// [`add_bounds`] at this level.
    pub fn add_bounds(
        self,
        sums: &[u32; BLOCK_ROWS],
        factors: &[f32; 3 * BLOCK_ROWS],
        scale: &BoundScale,
        bounds: &mut Bounds,
    ) {
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.bounds)(sums, factors, scale, bounds) }
    }

    /// [`below`] at this level.
    pub fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.below)(values, limit) }
    }

    /// [`estimate_block`] at this level.
    pub fn estimate_block(
        self,
        codes: &[u8],
        tables: &[u8],
        factors: &[f32; 2 * BLOCK_ROWS],
        scale: &EstimateScale,
        limit: f32,
        out: &mut [f32; BLOCK_ROWS],
    ) -> u32 {
        assert_eq!(codes.len(), tables.len(), "a table for each place");
        assert!(codes.len().is_multiple_of(PLACE_BYTES), "whole places");
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.table().fastscan.estimate)(codes, tables, factors, scale, limit, out) }
    }

    fn table(self) -> &'static Table {
        self.0
    }
}

/// The functions of one level; they may be called only on a CPU that has the level's features.
pub(super) struct FastScanTable {
    pub(super) scan: unsafe fn(&[u8], &[u8], &mut [u32; BLOCK_ROWS]),
    pub(super) tables: unsafe fn(&[f32], &mut [u8]) -> Rounded,
    pub(super) bit_tables: unsafe fn(&[f32], &mut [u8]) -> Rounded,
    pub(super) bounds: unsafe fn(&[u32; BLOCK_ROWS], &[f32; 3 * BLOCK_ROWS], &BoundScale, &mut Bounds),
    pub(super) below: unsafe fn(&[f32; BLOCK_ROWS], f32) -> u32,
    pub(super) estimate: EstimateFn,
}

/// Codes, tables, factors, scale, limit, estimates.
type EstimateFn = unsafe fn(&[u8], &[u8], &[f32; 2 * BLOCK_ROWS], &EstimateScale, f32, &mut [f32; BLOCK_ROWS]) -> u32;

/// What the scan needs from a CPU. A value proves that the CPU has the level's instructions.
pub(super) trait Shuffle: Copy {
    /// Bytes that are looked up at once, a multiple of 16.
    const BYTES: usize;
    /// Sums in the making.
    type Sums: Copy;
    fn zero(self) -> Self::Sums;
    /// Looks up the digits of [`Shuffle::BYTES`] bytes of a block.
    fn add(self, sums: Self::Sums, codes: &[u8], tables: &[u8]) -> Self::Sums;
    /// Adds at most [`ADDS_MAX`] additions to the sums of the rows.
    fn finish(self, sums: Self::Sums, out: &mut [u32; BLOCK_ROWS]);
    fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32;
}

#[inline(always)]
pub(super) fn scan<S: Shuffle>(shuffle: S, codes: &[u8], tables: &[u8], out: &mut [u32; BLOCK_ROWS]) {
    *out = [0; BLOCK_ROWS];
    let whole = codes.len() / S::BYTES * S::BYTES;
    let (codes, codes_rest) = codes.split_at(whole);
    let (tables, tables_rest) = tables.split_at(whole);
    for (codes, tables) in codes.chunks(ADDS_MAX * S::BYTES).zip(tables.chunks(ADDS_MAX * S::BYTES)) {
        let mut sums = shuffle.zero();
        for (codes, tables) in codes.chunks_exact(S::BYTES).zip(tables.chunks_exact(S::BYTES)) {
            sums = shuffle.add(sums, codes, tables);
        }
        shuffle.finish(sums, out);
    }
    for (codes, tables) in codes_rest.chunks_exact(PLACE_BYTES).zip(tables_rest.chunks_exact(PLACE_BYTES)) {
        let sums = Bytewise.add(Bytewise.zero(), codes, tables);
        Bytewise.finish(sums, out);
    }
}

#[inline(always)]
pub(super) fn tables(numbers: &[f32], tables: &mut [u8]) -> Rounded {
    let (numbers, _) = numbers.as_chunks::<PLACE_BYTES>();
    let (tables, _) = tables.as_chunks_mut::<PLACE_BYTES>();
    let (mut base, mut range) = (0.0_f32, 0.0_f32);
    for numbers in numbers {
        let (low, high) = extremes(numbers);
        base += low;
        range = range.max(high - low);
    }
    let step = step_of(range);
    for (numbers, table) in numbers.iter().zip(tables) {
        let (low, _) = extremes(numbers);
        round(numbers, low, 1.0 / step, table);
    }
    Rounded { step, base }
}

/// Whether each bit of a digit is set, for every digit: selecting by products becomes vector code.
const BITS: [[f32; PLACE_BYTES]; 4] = {
    let mut bits = [[0.0; PLACE_BYTES]; 4];
    let mut i = 0;
    while i < 4 * PLACE_BYTES {
        bits[i / PLACE_BYTES][i % PLACE_BYTES] = ((i % PLACE_BYTES) >> (i / PLACE_BYTES) & 1) as f32;
        i += 1;
    }
    bits
};

#[inline(always)]
pub(super) fn bit_tables(values: &[f32], tables: &mut [u8]) -> Rounded {
    let (values, _) = values.as_chunks::<4>();
    let (tables, _) = tables.as_chunks_mut::<PLACE_BYTES>();
    let (mut base, mut range) = (0.0_f32, 0.0_f32);
    for four in values {
        base += least(four);
        range = range.max((four[0].abs() + four[1].abs()) + (four[2].abs() + four[3].abs()));
    }
    let step = step_of(range);
    let per_step = 1.0 / step;
    for (four, table) in values.iter().zip(tables) {
        let low = least(four);
        let mut numbers = [0.0_f32; PLACE_BYTES];
        for i in 0..PLACE_BYTES {
            let (a, b) = (BITS[0][i] * four[0] + BITS[1][i] * four[1], BITS[2][i] * four[2] + BITS[3][i] * four[3]);
            numbers[i] = a + b;
        }
        round(&numbers, low, per_step, table);
    }
    Rounded { step, base }
}

/// The least sum of some of four values.
#[inline(always)]
fn least(four: &[f32; 4]) -> f32 {
    (four[0].min(0.0) + four[1].min(0.0)) + (four[2].min(0.0) + four[3].min(0.0))
}

/// A step for which no table passes 255; 1 where there is nothing to tell apart, or nothing finite.
#[inline(always)]
fn step_of(range: f32) -> f32 {
    let step = range / 255.0;
    if step.is_normal() && (1.0 / step).is_finite() { step } else { 1.0 }
}

#[inline(always)]
fn extremes(numbers: &[f32; PLACE_BYTES]) -> (f32, f32) {
    let (mut low, mut high) = (numbers[0], numbers[0]);
    for &number in numbers {
        low = if number < low { number } else { low };
        high = if number > high { number } else { high };
    }
    (low, high)
}

#[inline(always)]
fn round(numbers: &[f32; PLACE_BYTES], low: f32, per_step: f32, table: &mut [u8; PLACE_BYTES]) {
    for i in 0..PLACE_BYTES {
        // Within bounds first: then conversions are vector code.
        table[i] = ((numbers[i] - low) * per_step + 0.5).clamp(0.0, 255.0) as i32 as u8;
    }
}

#[inline(always)]
pub(super) fn bounds(
    sums: &[u32; BLOCK_ROWS],
    factors: &[f32; 3 * BLOCK_ROWS],
    scale: &BoundScale,
    bounds: &mut Bounds,
) {
    let (add, rest) = factors.split_at(BLOCK_ROWS);
    let (scales, errors) = rest.split_at(BLOCK_ROWS);
    for i in 0..BLOCK_ROWS {
        // Sums are below 2^31: a signed conversion is one instruction everywhere.
        let sum = sums[i] as i32 as f32;
        let estimate = scale.weight * (add[i] + scales[i] * (scale.step * sum + scale.base));
        let error = scale.error * errors[i] + scale.rounding * scales[i].abs();
        bounds.low[i] += estimate - error;
        bounds.high[i] += estimate + error;
    }
}

#[inline(always)]
pub(super) fn estimate<S: Shuffle>(
    shuffle: S,
    codes: &[u8],
    tables: &[u8],
    factors: &[f32; 2 * BLOCK_ROWS],
    scale: &EstimateScale,
    limit: f32,
    out: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut sums = [0; BLOCK_ROWS];
    scan(shuffle, codes, tables, &mut sums);
    let (add, scales) = factors.split_at(BLOCK_ROWS);
    for i in 0..BLOCK_ROWS {
        // Sums are below 2^31: a signed conversion is one instruction everywhere.
        let sum = sums[i] as i32 as f32;
        out[i] = scale.centre + add[i] + scales[i] * (scale.step * sum + scale.base);
    }
    shuffle.below(out, limit)
}

#[inline(always)]
pub(super) fn below_portable(values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
    let mut mask = 0;
    for (i, &value) in values.iter().enumerate() {
        mask |= u32::from(value < limit) << i;
    }
    mask
}

/// One place at a time, without intrinsics.
#[derive(Clone, Copy)]
pub(super) struct Bytewise;

impl Shuffle for Bytewise {
    const BYTES: usize = PLACE_BYTES;
    type Sums = [u32; BLOCK_ROWS];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; BLOCK_ROWS]
    }

    #[inline(always)]
    fn add(self, mut sums: Self::Sums, codes: &[u8], tables: &[u8]) -> Self::Sums {
        for i in 0..8 {
            let (even, odd) = (codes[2 * i], codes[2 * i + 1]);
            sums[i] += u32::from(tables[usize::from(even & 15)]);
            sums[i + 8] += u32::from(tables[usize::from(odd & 15)]);
            sums[i + 16] += u32::from(tables[usize::from(even >> 4)]);
            sums[i + 24] += u32::from(tables[usize::from(odd >> 4)]);
        }
        sums
    }

    #[inline(always)]
    fn finish(self, sums: Self::Sums, out: &mut [u32; BLOCK_ROWS]) {
        for i in 0..BLOCK_ROWS {
            out[i] += sums[i];
        }
    }

    #[inline(always)]
    fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
        below_portable(values, limit)
    }
}

/// A `FastScanTable` of one level: the bodies, compiled with the features in the attribute.
macro_rules! fastscan_table {
    ($(#[$features:meta])? with $shuffle:expr => $table:ident) => {
        const $table: super::fastscan::FastScanTable = {
            use super::fastscan::{BLOCK_ROWS, BoundScale, Bounds, EstimateScale, Rounded, Shuffle};
            $(#[$features])?
            fn scan(codes: &[u8], tables: &[u8], sums: &mut [u32; BLOCK_ROWS]) {
                super::fastscan::scan($shuffle, codes, tables, sums);
            }
            $(#[$features])?
            fn tables(numbers: &[f32], tables: &mut [u8]) -> Rounded {
                super::fastscan::tables(numbers, tables)
            }
            $(#[$features])?
            fn bit_tables(values: &[f32], tables: &mut [u8]) -> Rounded {
                super::fastscan::bit_tables(values, tables)
            }
            $(#[$features])?
            fn bounds(
                sums: &[u32; BLOCK_ROWS],
                factors: &[f32; 3 * BLOCK_ROWS],
                scale: &BoundScale,
                bounds: &mut Bounds,
            ) {
                super::fastscan::bounds(sums, factors, scale, bounds);
            }
            $(#[$features])?
            fn below(values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
                $shuffle.below(values, limit)
            }
            $(#[$features])?
            fn estimate(
                codes: &[u8],
                tables: &[u8],
                factors: &[f32; 2 * BLOCK_ROWS],
                scale: &EstimateScale,
                limit: f32,
                out: &mut [f32; BLOCK_ROWS],
            ) -> u32 {
                super::fastscan::estimate($shuffle, codes, tables, factors, scale, limit, out)
            }
            super::fastscan::FastScanTable { scan, tables, bit_tables, bounds, below, estimate }
        };
    };
}
pub(super) use fastscan_table;

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            self.0 >> 33
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.next() as u8).collect()
        }

        fn floats(&mut self, count: usize) -> Vec<f32> {
            (0..count).map(|_| self.next() as f32 / (1 << 30) as f32 - 1.0).collect()
        }
    }

    /// Sums by the definition, at every level, up to where sums of 16 bits end several times over.
    #[test]
    fn every_level_adds_what_the_digits_pick() {
        let mut numbers = Numbers(1);
        for places in (0..=70).chain([256, 1023, 1024, 1025, 1030, 2048, 4001]) {
            for full in [false, true] {
                let tables = if full { vec![255; 16 * places] } else { numbers.bytes(16 * places) };
                let digits: Vec<Vec<u8>> = (0..BLOCK_ROWS).map(|_| numbers.bytes(places)).collect();
                let mut block = vec![0; 16 * places];
                let mut expected = [0; BLOCK_ROWS];
                for (row, digits) in digits.iter().enumerate() {
                    put_digits(&mut block, row, digits.iter().copied());
                    let pick = |(place, &digit): (usize, &u8)| u32::from(tables[16 * place + usize::from(digit & 15)]);
                    expected[row] = digits.iter().enumerate().map(pick).sum();
                }
                for kernels in Kernels::available() {
                    let mut sums = [7; BLOCK_ROWS];
                    kernels.fastscan(&block, &tables, &mut sums);
                    assert_eq!(sums, expected, "{} {places}", kernels.level());
                }
            }
        }
    }

    #[test]
    fn rounded_tables_are_near_and_equal_at_every_level() {
        let mut numbers = Numbers(2);
        for places in [1, 2, 3, 16, 31, 64, 208] {
            let values = numbers.floats(4 * places);
            let full: Vec<f32> = values
                .chunks_exact(4)
                .flat_map(|four| {
                    (0..16).map(move |digit| (0..4).filter(|i| digit >> i & 1 == 1).map(|i| four[i]).sum())
                })
                .collect();
            let mut first = vec![0; full.len()];
            let rounded = Kernels::active().fastscan_bit_tables(&values, &mut first);
            for kernels in Kernels::available() {
                for bits in [true, false] {
                    let mut tables = vec![1; full.len()];
                    let found = match bits {
                        true => kernels.fastscan_bit_tables(&values, &mut tables),
                        false => kernels.fastscan_tables(&full, &mut tables),
                    };
                    let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
                    assert!(near(found.step, rounded.step) && near(found.base, rounded.base), "{}", kernels.level());
                    assert!(!bits || (found == rounded && tables == first), "{}", kernels.level());
                    for _ in 0..20 {
                        let digits: Vec<usize> = (0..places).map(|_| numbers.next() as usize % 16).collect();
                        let sum = |pick: &dyn Fn(usize) -> f32| -> f32 {
                            digits.iter().enumerate().map(|(place, digit)| pick(16 * place + digit)).sum()
                        };
                        let (exact, coarse) = (sum(&|i| full[i]), sum(&|i| f32::from(tables[i])));
                        let off = (found.step * coarse + found.base - exact).abs();
                        assert!(off <= found.step * places as f32 * 0.51, "{} {places}: {off}", kernels.level());
                    }
                }
            }
        }
    }

    #[test]
    fn estimates_are_those_of_the_bounds_without_errors() {
        let mut numbers = Numbers(9);
        for places in [1, 2, 7, 32, 208] {
            let (codes, tables) = (numbers.bytes(16 * places), numbers.bytes(16 * places));
            let mut factors = [0.0; 2 * BLOCK_ROWS];
            factors.copy_from_slice(&numbers.floats(2 * BLOCK_ROWS));
            let scale = EstimateScale { centre: 2.5, step: 0.25, base: -3.0 };
            let mut sums = [0; BLOCK_ROWS];
            fastscan(&codes, &tables, &mut sums);
            for kernels in Kernels::available() {
                let mut out = [0.0; BLOCK_ROWS];
                let mask = kernels.estimate_block(&codes, &tables, &factors, &scale, 2.0, &mut out);
                for i in 0..BLOCK_ROWS {
                    let expected = 2.5 + factors[i] + factors[BLOCK_ROWS + i] * (0.25 * sums[i] as f32 - 3.0);
                    assert!((out[i] - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{} {i}", kernels.level());
                    assert_eq!(mask >> i & 1 == 1, out[i] < 2.0, "{} {i}", kernels.level());
                }
            }
        }
    }

    #[test]
    fn tables_of_odd_numbers_are_tables() {
        for numbers in [[0.0; 16], [f32::MAX; 16], [f32::NAN; 16], [f32::INFINITY; 16], [1e-42; 16]] {
            for kernels in Kernels::available() {
                let mut tables = [0; 16];
                assert!(kernels.fastscan_tables(&numbers, &mut tables).step > 0.0);
                let mut tables = [0; 64];
                assert!(kernels.fastscan_bit_tables(&numbers, &mut tables).step > 0.0);
            }
        }
    }

    #[test]
    fn bounds_follow_their_definition_at_every_level() {
        let mut numbers = Numbers(3);
        let sums: [u32; BLOCK_ROWS] = std::array::from_fn(|_| numbers.next() as u32 % 100_000);
        let factors: [f32; 3 * BLOCK_ROWS] = numbers.floats(3 * BLOCK_ROWS).try_into().unwrap();
        let scale = BoundScale { weight: -0.7, step: 0.01, base: -3.0, error: 0.5, rounding: 0.25 };
        let mut first = Bounds::of(2.0);
        Kernels::active().add_bounds(&sums, &factors, &scale, &mut first);
        for i in 0..BLOCK_ROWS {
            let (a, s, e) = (factors[i], factors[32 + i], factors[64 + i]);
            let estimate = -0.7 * (a + s * (0.01 * sums[i] as f32 - 3.0));
            let error = 0.5 * e + 0.25 * s.abs();
            assert!((first.low[i] - (2.0 + estimate - error)).abs() < 1e-2);
            assert!((first.high[i] - (2.0 + estimate + error)).abs() < 1e-2);
        }
        for kernels in Kernels::available() {
            let mut bounds = Bounds::of(2.0);
            kernels.add_bounds(&sums, &factors, &scale, &mut bounds);
            assert_eq!((bounds.low, bounds.high), (first.low, first.high), "{}", kernels.level());
            bounds.low[5] = f32::NAN;
            bounds.low[31] = f32::NEG_INFINITY;
            for limit in [0.0, 2.0, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(
                    kernels.below(&bounds.low, limit),
                    below_portable(&bounds.low, limit),
                    "{}",
                    kernels.level()
                );
            }
        }
    }
}
