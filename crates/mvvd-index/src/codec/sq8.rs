//! What is a vector in one byte a dimension, and how is a distance estimated from such bytes?
//!
//! A vector x of a Euclidean space is written as c + s * v: c the centre of all vectors, s a scale of its own, and v whole
//! numbers from -127 to 127, stored with 128 added. A scale for each vector costs 4 bytes and serves long and short ones
//! alike; a dimension in which all vectors agree is 0 after the centre is taken off, whatever its size
//! (Aguerrebere et al. 2023, "locally-adaptive vector quantization", has the same two steps).
//!
//! The inner product of two codes is an integer that kernels find at 64 bytes an instruction, and
//!
//! ```text
//! |q - x|^2 = |q - c|^2 + |x - c|^2 - 2 <q - c, x - c>,   <q - c, x - c> = s_q s_x <v_q, v_x>.
//! ```
//!
//! The error is about 1 % of the lengths |q - c| and |x - c|, not of the distance: codes tell apart what is further
//! apart than that, and the exact distances decide among the rest.

use mvvd_core::kernels::{self, ByteRows};

const ZERO: u8 = 128;

/// The codes of a set of vectors: how vectors become codes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sq8 {
    centre: Vec<f32>,
}

/// What a code has beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Factors {
    /// s: what a unit of its bytes stands for.
    pub(crate) scale: f32,
    /// |x - c|^2 of the coded vector.
    pub(crate) square: f32,
}

/// A vector as the kernels want the side of the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    bytes: Vec<i8>,
    factors: Factors,
    /// 128 times the sum of `bytes`: what the stored rows have too much.
    excess: i32,
}

impl Sq8 {
    /// Codes around `centre`, best the mean of the vectors.
    pub(crate) fn new(centre: Vec<f32>) -> Self {
        Self { centre }
    }

    /// The centre.
    pub(crate) fn centre(&self) -> &[f32] {
        &self.centre
    }

    /// Dimensions, and bytes of a code.
    pub(crate) fn dims(&self) -> usize {
        self.centre.len()
    }

    /// Codes `vector`, of finite values, into as many bytes.
    pub(crate) fn encode(&self, vector: &[f32], code: &mut [u8]) -> Factors {
        let per_unit = self.units(vector);
        let mut square = 0;
        for ((byte, &x), &c) in code.iter_mut().zip(vector).zip(&self.centre) {
            let unit = round((x - c) * per_unit);
            square += unit * unit;
            *byte = (unit + i32::from(ZERO)) as u8;
        }
        factors(per_unit, square)
    }

    /// Makes `query` the code of `vector`, of finite values.
    pub(crate) fn query(&self, vector: &[f32], query: &mut Query) {
        let per_unit = self.units(vector);
        let (mut square, mut sum) = (0, 0);
        query.bytes.resize(vector.len(), 0);
        for ((byte, &x), &c) in query.bytes.iter_mut().zip(vector).zip(&self.centre) {
            let unit = round((x - c) * per_unit);
            square += unit * unit;
            sum += unit;
            *byte = unit as i8;
        }
        query.factors = factors(per_unit, square);
        query.excess = i32::from(ZERO) * sum;
    }

    /// How many units one stands for in the code of `vector`; 0 for the centre itself.
    fn units(&self, vector: &[f32]) -> f32 {
        debug_assert_eq!(vector.len(), self.centre.len());
        let (mut largest, size) = (0.0_f32, |x: f32, c: f32| (x - c).abs());
        for (&x, &c) in vector.iter().zip(&self.centre) {
            let size = size(x, c);
            largest = if size > largest { size } else { largest };
        }
        let per_unit = 127.0 / largest;
        if per_unit.is_finite() { per_unit } else { 0.0 }
    }
}

impl Query {
    /// Makes this the code of a row, to compare rows with each other.
    pub(crate) fn set_row(&mut self, code: &[u8], factors: Factors) {
        // Two loops without a state between steps: the compiler makes vectors of both.
        self.bytes.resize(code.len(), 0);
        self.bytes.iter_mut().zip(code).for_each(|(unit, &byte)| *unit = (byte ^ ZERO) as i8);
        let sum: u32 = code.iter().map(|&byte| u32::from(byte)).sum();
        self.factors = factors;
        self.excess = i32::from(ZERO) * (sum as i32 - i32::from(ZERO) * code.len() as i32);
    }

    /// The inner products with the codes at `ordinals`, as [`Query::square_distance`] takes them.
    #[inline]
    pub(crate) fn dots_at(&self, codes: ByteRows<'_>, ordinals: &[u32], dots: &mut [i32]) {
        kernels::byte_dots_at(&self.bytes, codes, ordinals, dots);
    }

    /// The estimate of |q - x|^2 from the inner product of the codes; at least 0.
    #[inline]
    pub(crate) fn square_distance(&self, dot: i32, row: Factors) -> f32 {
        let product = (dot - self.excess) as f32 * (self.factors.scale * row.scale);
        (self.factors.square + row.square - 2.0 * product).max(0.0)
    }
}

fn factors(per_unit: f32, square: i32) -> Factors {
    let scale = if per_unit == 0.0 { 0.0 } else { per_unit.recip() };
    Factors { scale, square: scale * scale * square as f32 }
}

/// To the nearest whole number within -127 to 127, in a way that the compiler makes vectors of.
#[inline(always)]
fn round(x: f32) -> i32 {
    let shifted = x.clamp(-127.0, 127.0) + 127.5;
    // Not negative, so cutting off is rounding.
    shifted as i32 - 127
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        // Sums of three: rather like normal numbers.
        (0..count).map(|_| next() + next() + next()).collect()
    }

    fn square_distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn estimates_are_within_a_share_of_the_lengths() {
        for (dims, offset) in [(1, 0.0), (2, 5.0), (63, 0.0), (64, 100.0), (130, -3.0), (784, 1.0)] {
            let rows: Vec<f32> = noise(40 * dims, dims as u32).iter().map(|x| x + offset).collect();
            let mut centre = vec![offset; dims];
            // A dimension without any spread.
            let rows: Vec<f32> = rows.chunks(dims).flat_map(|row| row.iter().copied().chain([7.0])).collect();
            centre.push(7.0);
            let sq8 = Sq8::new(centre);
            let width = dims + 1;
            let mut codes = vec![0; 40 * width];
            let factors: Vec<Factors> =
                rows.chunks(width).zip(codes.chunks_mut(width)).map(|(row, code)| sq8.encode(row, code)).collect();
            let mut query = Query::default();
            let mut dots = vec![0; 40];
            for i in 0..40 {
                let row = &rows[i * width..][..width];
                for from_code in [false, true] {
                    match from_code {
                        false => sq8.query(row, &mut query),
                        true => query.set_row(&codes[i * width..][..width], factors[i]),
                    }
                    kernels::byte_dots(&query.bytes, ByteRows::dense(&codes, width), &mut dots);
                    for j in 0..40 {
                        let exact = square_distance(row, &rows[j * width..][..width]);
                        let found = query.square_distance(dots[j], factors[j]);
                        let room = 0.03 * (factors[i].square + factors[j].square) + 1e-4;
                        assert!((found - exact).abs() <= room, "{width}: {found} for {exact}, {i} {j}");
                    }
                    assert!(query.square_distance(dots[i], factors[i]) <= 1e-5 * factors[i].square);
                }
            }
        }
    }

    #[test]
    fn vectors_without_spread_and_of_any_size_are_coded() {
        let sq8 = Sq8::new(vec![0.5; 3]);
        let mut code = [0; 3];
        assert_eq!(sq8.encode(&[0.5; 3], &mut code), Factors { scale: 0.0, square: 0.0 });
        assert_eq!(code, [ZERO; 3]);
        for size in [1e-44_f32, 1e-30, 1e17] {
            let Factors { scale, square } = sq8.encode(&[size + 0.5, 0.5, 0.5 - size], &mut code);
            assert!(scale.is_finite() && square.is_finite(), "{size}");
        }
    }
}
