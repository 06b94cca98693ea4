//! SQ8 codes of all rows, and how far each is from its row: the bytes of a flat index over dense vectors.
//!
//! ```text
//!  0   8  rows
//!  8   8  dimensions, d; 0 where there are no codes, and then nothing follows
//!         arrays, each from a multiple of 64 on:
//!         f32[d]     the centre
//!         u8[rows d] the codes: 128 and the whole number that a step is multiplied with
//!         f32[rows]  the step of each row
//!         f32[rows]  the length of each code: from the centre to where it stands for
//!         f32[rows]  the error: from there to the row, at most; infinite for a row that has no code
//! ```

use arrow::buffer::{Buffer, ScalarBuffer};
use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use crate::codec::sq8::Sq8;
use crate::kind::Build;
use crate::parts::{PartsReader, PartsWriter, corrupt};
use crate::vectors::Vectors;

/// Rows that a thread codes at once.
const CHUNK: usize = 256;

/// The codes of an open index.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) rows: usize,
    pub(super) dims: usize,
    pub(super) centre: ScalarBuffer<f32>,
    pub(super) codes: ScalarBuffer<u8>,
    pub(super) steps: ScalarBuffer<f32>,
    pub(super) lengths: ScalarBuffer<f32>,
    pub(super) errors: ScalarBuffer<f32>,
    /// Number of rows that have a code.
    pub(super) coded: usize,
}

impl Codes {
    /// The codes in `bytes` of vectors of `dims` dimensions, or of no dimensions where there are to be none.
    pub(super) fn open(bytes: Buffer, dims: usize) -> Result<Self> {
        let mut parts = PartsReader::new(bytes)?;
        let rows = parts.count()?;
        if rows > Ordinal::MAX as usize || parts.count()? != dims {
            return Err(corrupt("it has other rows or dimensions"));
        }
        // Without codes there is nothing to tell of a row.
        let told = if dims == 0 { 0 } else { rows };
        let bytes = rows.checked_mul(dims).ok_or_else(|| corrupt("a length is too large"))?;
        let mut codes = Self {
            rows,
            dims,
            centre: parts.array(dims)?,
            codes: parts.array(bytes)?,
            steps: parts.array(told)?,
            lengths: parts.array(told)?,
            errors: parts.array(told)?,
            coded: 0,
        };
        codes.coded = codes.errors.iter().filter(|error| error.is_finite()).count();
        parts.finish()?;
        let positive = |values: &[f32]| values.iter().all(|value| value.is_finite() && *value >= 0.0);
        let numbers =
            codes.centre.iter().all(|value| value.is_finite()) && codes.errors.iter().all(|error| *error >= 0.0);
        match numbers && positive(&codes.steps) && positive(&codes.lengths) {
            true => Ok(codes),
            false => Err(corrupt("a number of its codes is none")),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let floats = [&self.centre, &self.steps, &self.lengths, &self.errors];
        size_of::<Self>() + self.codes.len() + floats.iter().map(|floats| 4 * floats.len()).sum::<usize>()
    }
}

/// Squares of lengths within which the exact kernels, which sum in f32, are off by no more than rounding.
const SQUARES: std::ops::RangeInclusive<f64> = 1e-30..=1e36;

/// Makes a row or query what is coded: of length 1 under `cosine`, as it is otherwise. False if it is too long or short
/// for bounds to hold.
pub(super) fn make_image(metric: Metric, vector: &mut [f32]) -> bool {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if metric == Metric::Cosine {
        let scale = square.sqrt().recip();
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        return SQUARES.contains(&square);
    }
    square <= *SQUARES.end()
}

fn row(metric: Metric, column: &Vectors<'_>, ordinal: usize, out: &mut [f32]) -> bool {
    column.is_valid(ordinal as Ordinal) && {
        column.copy_f32(ordinal as Ordinal, out);
        make_image(metric, out)
    }
}

/// The bytes of an index without codes.
pub(super) fn without(rows: usize) -> Vec<u8> {
    let mut parts = PartsWriter::default();
    parts.number(rows as u64);
    parts.number(0u64);
    parts.finish()
}

/// The bytes of an index over `column`. What `old` has, which covers its first rows, is taken over.
pub(super) fn build(metric: Metric, column: &Vectors<'_>, old: Option<&Codes>, build: &Build<'_>) -> Result<Vec<u8>> {
    let (rows, dims) = (column.len(), column.dims());
    build.pool.install(|| {
        build.check()?;
        // A centre of few rows may not be one of many.
        let old = old.filter(|old| old.rows >= rows / 4);
        let sq8 = Sq8::new(match old {
            Some(old) => old.centre.to_vec(),
            None => centre(metric, column),
        });
        build.check()?;
        (build.progress)(0.3);
        let first = old.map_or(0, |old| old.rows);
        let mut codes = vec![0; (rows - first) * dims];
        // Step, length and error of each row.
        let told: Vec<Vec<[f32; 3]>> = codes
            .par_chunks_mut(CHUNK * dims)
            .enumerate()
            .map(|(i, codes)| {
                build.check()?;
                let mut values = vec![0.0; dims];
                let start = first + i * CHUNK;
                let told = codes.chunks_exact_mut(dims).zip(start..).map(|(code, ordinal)| {
                    match row(metric, column, ordinal, &mut values) {
                        true => {
                            let step = sq8.encode(&values, code).scale;
                            let (length, error) = length_and_error(&sq8, &values, code, step);
                            [step, length, error]
                        }
                        false => [0.0, 0.0, f32::INFINITY],
                    }
                });
                Ok(told.collect())
            })
            .collect::<Result<_>>()?;
        (build.progress)(0.9);
        let of_old = |floats: fn(&Codes) -> &ScalarBuffer<f32>| old.map_or(&[][..], |old| &floats(old)[..]);
        let joined = |old: &[f32], new: usize| -> Vec<f32> {
            old.iter().copied().chain(told.iter().flatten().map(|told| told[new])).collect()
        };
        let mut parts = PartsWriter::default();
        parts.number(rows as u64);
        parts.number(dims as u64);
        parts.array(sq8.centre());
        parts.array(old.map_or(&[][..], |old| &old.codes));
        parts.append(&codes);
        parts.array(&joined(of_old(|old| &old.steps), 0));
        parts.array(&joined(of_old(|old| &old.lengths), 1));
        parts.array(&joined(of_old(|old| &old.errors), 2));
        (build.progress)(1.0);
        Ok(parts.finish())
    })
}

/// The mean of the rows.
fn centre(metric: Metric, column: &Vectors<'_>) -> Vec<f32> {
    let (rows, dims) = (column.len(), column.dims());
    // Sums of chunks in their order: the same for any number of threads.
    let sums: Vec<(Vec<f64>, usize)> = (0..rows.div_ceil(CHUNK * 16))
        .into_par_iter()
        .map(|chunk| {
            let (mut sum, mut count, mut values) = (vec![0.0; dims], 0, vec![0.0; dims]);
            for ordinal in chunk * CHUNK * 16..((chunk + 1) * CHUNK * 16).min(rows) {
                if row(metric, column, ordinal, &mut values) {
                    sum.iter_mut().zip(&values).for_each(|(sum, &x)| *sum += f64::from(x));
                    count += 1;
                }
            }
            (sum, count)
        })
        .collect();
    let count = sums.iter().map(|sum| sum.1).sum::<usize>().max(1) as f64;
    (0..dims).map(|i| (sums.iter().map(|sum| sum.0[i]).sum::<f64>() / count) as f32).collect()
}

/// How long a code is, and how far it is from its row, rounded up. In f64: squares of small numbers are none in f32.
fn length_and_error(sq8: &Sq8, row: &[f32], code: &[u8], step: f32) -> (f32, f32) {
    let (mut units, mut square) = (0_i64, 0.0_f64);
    for ((&x, &c), &byte) in row.iter().zip(sq8.centre()).zip(code) {
        let unit = i64::from(byte) - 128;
        units += unit * unit;
        let error = f64::from(x) - f64::from(c) - f64::from(step) * unit as f64;
        square += error * error;
    }
    ((f64::from(step) * (units as f64).sqrt()) as f32, (square.sqrt() * (1.0 + 1e-6)) as f32)
}
