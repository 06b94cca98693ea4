//! What is RaBitQ's code of a vector, and how is a distance estimated from it?
//!
//! Gao & Long 2024 (arXiv:2405.12497). A vector x is rotated at random and coded by the signs of its residual r = x - c
//! from some centre c: a list's centroid, or a node of a graph. With s_i the signs as 1 and -1, and D dimensions,
//!
//! ```text
//! <r, v>  is estimated by  f * sum s_i v_i,   f = |r|^2 / sum |r_i|,
//! ```
//!
//! without bias for any v; the error has about the standard deviation |v| * root((D f^2 - |r|^2) / (D - 1)).
//!
//! - Squared Euclidean distance: |q - x|^2 = |q - c|^2 + |r|^2 - 2 <r, q - c>. With v = q - c the sum over c's part is
//!   known when the code is made, so one set of tables for q serves every centre.
//! - Inner product as a distance: -<q, x> = -<q, c> - <q, r>, with v = q.
//! - Cosine distance: half the squared Euclidean distance of vectors of length 1.
//!
//! Either way a distance is g + a + s * sum(s_i q_i) with g of query and centre, and a and s (and e for the error) of the
//! row: [`Factors`].

use mvvd_core::Result;
use mvvd_core::kernels::{self, BLOCK_ROWS, BoundScale, Bounds};

use crate::codec::{Codec, Reach};
use crate::options::{OptionSpec, Options};
use crate::parts::{PartsReader, PartsWriter};
use crate::space::{Point, Space};

/// Which distance codes estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The squared Euclidean distance.
    Squared,
    /// The negated inner product.
    Dot,
}

/// What a row has beside its code; see [`kernels::add_bounds`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factors {
    /// Added to the estimate.
    pub(crate) add: f32,
    /// What the sum of signed query values is multiplied with.
    pub(crate) scale: f32,
    /// The standard deviation of the error for a v of length 1.
    pub(crate) error: f32,
}

/// Inner products of a residual r, its centre c, and the vector y that a code stands for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Products {
    /// |r|^2
    pub(crate) residual: f32,
    /// |y|^2
    pub(crate) code: f32,
    /// <y, r>
    pub(crate) both: f32,
    /// <y, c>
    pub(crate) centre: f32,
}

impl Factors {
    /// Of a vector too long for numbers: anything is possible.
    const ANY: Self = Self { add: 0.0, scale: 0.0, error: f32::INFINITY };

    /// Of a code, where the cosine between its error and a v has the standard deviation `spread`.
    pub(crate) fn of(form: Form, products: &Products, spread: f32) -> Self {
        let &Products { residual, code, both, centre } = products;
        let (f, deviation) = if residual == 0.0 {
            // A residual of nothing has no direction: the centre is the vector.
            (0.0, 0.0)
        } else if both <= 0.0 {
            // A code that points away tells nothing: <r, v> is anything up to |r| |v|.
            (0.0, residual.sqrt())
        } else {
            let f = residual / both;
            // Times |r - f y|, which is at right angles to r.
            (f, spread * (residual - 2.0 * f * both + f * f * code).max(0.0).sqrt())
        };
        let factors = match form {
            Form::Squared => Self { add: residual + 2.0 * f * centre, scale: -2.0 * f, error: 2.0 * deviation },
            Form::Dot => Self { add: 0.0, scale: -f, error: deviation },
        };
        let finite = factors.add.is_finite() && factors.scale.is_finite() && factors.error.is_finite();
        if finite { factors } else { Self::ANY }
    }

    /// Writes them where [`kernels::add_bounds`] expects those of `row`.
    pub(crate) fn put(self, row: usize, factors: &mut [f32]) {
        factors[row] = self.add;
        factors[BLOCK_ROWS + row] = self.scale;
        factors[2 * BLOCK_ROWS + row] = self.error;
    }
}

/// Codes a vector by its residual from a centre, both rotated: one bit a dimension into `bits`, lowest first.
pub(crate) fn encode(form: Form, residual: &[f32], centre: &[f32], bits: &mut [u8]) -> Factors {
    let (mut squares, mut absolutes, mut of_centre) = ([0.0_f32; 8], [0.0_f32; 8], [0.0_f32; 8]);
    let (residuals, _) = residual.as_chunks::<8>();
    let (centres, _) = centre.as_chunks::<8>();
    for ((r, c), byte) in residuals.iter().zip(centres).zip(&mut *bits) {
        let mut code = 0;
        for i in 0..8 {
            let positive = r[i] > 0.0;
            squares[i] += r[i] * r[i];
            absolutes[i] += r[i].abs();
            of_centre[i] += if positive { c[i] } else { -c[i] };
            code |= u8::from(positive) << i;
        }
        *byte = code;
    }
    let sum = |sums: [f32; 8]| sums.iter().sum::<f32>();
    let dims = residual.len() as f32;
    let products = Products { residual: sum(squares), code: dims, both: sum(absolutes), centre: sum(of_centre) };
    Factors::of(form, &products, (dims - 1.0).sqrt().recip())
}

/// A rotated query as tables for [`kernels::fastscan`] over codes of one bit.
#[derive(Debug, Clone, Default)]
pub(crate) struct BitQuery {
    /// 16 bytes for 4 dimensions.
    pub(crate) tables: Vec<u8>,
    /// What makes the sum of signed values of a sum of bytes.
    step: f32,
    base: f32,
    /// The standard deviation of the sum's error, from rounding.
    rounding: f32,
}

impl BitQuery {
    pub(crate) fn new(rotated: &[f32]) -> Self {
        let mut query = Self::default();
        query.set(rotated);
        query
    }

    /// Becomes another query, in the same memory.
    pub(crate) fn set(&mut self, rotated: &[f32]) {
        self.tables.resize(4 * rotated.len(), 0);
        let rounded = kernels::fastscan_bit_tables(rotated, &mut self.tables);
        // The sum with signs is twice the sum of those whose bit is set, less that of all.
        self.step = 2.0 * rounded.step;
        self.base = 2.0 * rounded.base - rotated.iter().sum::<f32>();
        // A table's error is anywhere within half a step.
        self.rounding = self.step * (self.tables.len() as f32 / 16.0 / 12.0).sqrt();
    }

    /// How sums become bounds: distances times `weight`, `deviations` standard deviations to either side, where `length`
    /// is that of v: |q - c| for [`Form::Squared`], |q| for [`Form::Dot`].
    pub(crate) fn scale(&self, weight: f32, deviations: f32, length: f32) -> BoundScale {
        let deviations = deviations * weight.abs();
        BoundScale {
            weight,
            step: self.step,
            base: self.base,
            // Not 0, for an infinite error.
            error: (deviations * length).max(f32::MIN_POSITIVE),
            rounding: deviations * self.rounding,
        }
    }
}

/// Codes of one bit a dimension, for the lists of one column.
#[derive(Debug, Clone)]
pub(crate) struct Rabitq {
    form: Form,
    width: usize,
}

impl Codec for Rabitq {
    const KIND: &'static str = "ivf_rabitq";
    const OPTIONS: &'static [OptionSpec] = &[];
    type Query = ();

    fn train(_: &Options, space: &Space, _: impl FnOnce() -> Vec<f32>, _: u64) -> Self {
        Self { form: space.form(), width: space.width() }
    }

    fn write(&self, _: &mut PartsWriter) {}

    fn read(options: &Options, space: &Space, _: &mut PartsReader) -> Result<Self> {
        Ok(Self::train(options, space, Vec::new, 0))
    }

    fn code_bytes(&self) -> usize {
        4 * self.width
    }

    fn factor_count(&self) -> usize {
        3 * BLOCK_ROWS
    }

    fn encode(&self, _: &Space, centre: &[f32], residual: &[f32], row: usize, codes: &mut [u8], factors: &mut [f32]) {
        let mut bits = vec![0; self.width / 8];
        encode(self.form, residual, centre, &mut bits).put(row, factors);
        kernels::put_bits(codes, row, &bits);
    }

    fn query(&self, _: &Point) {}

    fn bounds(&self, (query, ()): (&BitQuery, &()), codes: &[u8], factors: &[f32], reach: Reach, bounds: &mut Bounds) {
        let mut sums = [0; BLOCK_ROWS];
        kernels::fastscan(codes, &query.tables, &mut sums);
        let factors = factors.try_into().expect("three factors a row");
        kernels::add_bounds(&sums, factors, &query.scale(reach.weight, reach.deviations, reach.length), bounds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotate::{Random, Rotation};

    /// Bounds of 32 rows around a centre, beside the exact distances.
    fn check(form: Form, dims: usize, spread: f32) {
        let mut random = Random::new(dims as u64);
        let mut vector = |scale: f32| -> Vec<f32> {
            // Sums of three: rather like normal numbers.
            (0..dims).map(|_| (random.float() + random.float() + random.float()) * scale).collect()
        };
        let rotation = Rotation::new(dims, 5);
        let rotate = |v: &[f32]| {
            let mut out = vec![0.0; rotation.padded()];
            rotation.rotate(v, &mut out);
            out
        };
        let padded = rotation.padded();
        let (mut inside, mut all, mut bias, mut width) = (0, 0, 0.0, 0.0);
        for _ in 0..40 {
            let centre = vector(1.0);
            let query: Vec<f32> = vector(spread).iter().zip(&centre).map(|(v, c)| v + c).collect();
            let rows: Vec<Vec<f32>> =
                (0..BLOCK_ROWS).map(|_| vector(spread).iter().zip(&centre).map(|(v, c)| v + c).collect()).collect();
            let (rc, rq) = (rotate(&centre), rotate(&query));
            let mut block = vec![0; 4 * padded];
            let mut factors = [0.0; 3 * BLOCK_ROWS];
            for (i, row) in rows.iter().enumerate() {
                let residual: Vec<f32> = rotate(row).iter().zip(&rc).map(|(x, c)| x - c).collect();
                let mut bits = vec![0; padded / 8];
                let found = encode(form, &residual, &rc, &mut bits);
                kernels::put_bits(&mut block, i, &bits);
                found.put(i, &mut factors);
            }
            let exact = |x: &[f32]| -> f32 {
                match form {
                    Form::Squared => query.iter().zip(x).map(|(q, x)| (q - x) * (q - x)).sum(),
                    Form::Dot => -query.iter().zip(x).map(|(q, x)| q * x).sum::<f32>(),
                }
            };
            let length = match form {
                Form::Squared => exact(&centre).sqrt(),
                Form::Dot => query.iter().map(|q| q * q).sum::<f32>().sqrt(),
            };
            let coded = BitQuery::new(&rq);
            let mut sums = [0; BLOCK_ROWS];
            kernels::fastscan(&block, &coded.tables, &mut sums);
            for weight in [1.0_f32, -0.5] {
                let mut bounds = Bounds::of(weight * exact(&centre));
                kernels::add_bounds(&sums, &factors, &coded.scale(weight, 1.9, length), &mut bounds);
                for (i, row) in rows.iter().enumerate() {
                    let (exact, low, high) = (weight * exact(row), bounds.low[i], bounds.high[i]);
                    inside += i32::from((low..=high).contains(&exact));
                    all += 1;
                    bias += weight.signum() * ((low + high) / 2.0 - exact) / (high - low);
                    width += (high - low) / exact.abs();
                }
            }
        }
        let (inside, bias) = (f64::from(inside) / f64::from(all), bias / all as f32);
        assert!(inside > 0.92, "{form:?} {dims}: {inside} within bounds");
        assert!(bias.abs() < 0.02, "{form:?} {dims}: bias {bias}");
        assert!(form == Form::Dot || width / (all as f32) < 8.0 / (padded as f32).sqrt(), "{form:?} {dims}: {width}");
    }

    #[test]
    fn estimates_are_unbiased_and_bounds_hold() {
        for form in [Form::Squared, Form::Dot] {
            for dims in [40, 64, 100, 128, 384] {
                check(form, dims, 1.0);
                check(form, dims, 0.2);
            }
        }
    }

    #[test]
    fn odd_vectors_have_usable_factors() {
        let mut bits = [0; 8];
        let zero = encode(Form::Squared, &[0.0; 64], &[1.0; 64], &mut bits);
        assert_eq!(zero, Factors { add: 0.0, scale: 0.0, error: 0.0 });
        assert_eq!(encode(Form::Squared, &[1e30; 64], &[1.0; 64], &mut bits), Factors::ANY);
        assert_eq!(bits, [255; 8]);
    }
}
