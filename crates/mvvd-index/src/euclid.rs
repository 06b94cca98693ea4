//! How does a metric become the Euclidean distance? By a map of rows and one of queries that keep the order of distances.
//!
//! - `l2`, `l2_squared`: as they are.
//! - `cosine`: divided by their length. |q - x|^2 = 2 cos(q, x) distances.
//! - `dot`: rows get one more dimension, root(M^2 - |x|^2) with M the greatest length of a row; queries get 0 there. Then
//!   |q - x|^2 = |q|^2 + M^2 - 2 <q, x>, so the order is that of inner products exactly (Bachrach et al. 2014).
//!   Outliers in length are shortened: one very long row would leave all others only the new dimension to differ in from
//!   the query.
//!
//! The other metrics have no such form.

use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, VectorKind, VectorType};
use rayon::prelude::*;

use crate::space::set_length_one;
use crate::vectors::Vectors;

/// A square of a length that leaves room for sums of squares within f32; longer rows have no image.
const SQUARE_MAX: f64 = 1e36;
/// Rows are outliers in length if they have so many times the squared length that this share of rows stays below.
const OUTLIER: f64 = 4.0;
const USUAL: f64 = 0.99;

/// The map of a column's rows, and of queries, into a Euclidean space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Euclid {
    metric: Metric,
    dims: usize,
    /// For `dot`, the square of M; else 0.
    square_max: f64,
}

impl Euclid {
    /// Whether the metric has such a form over columns of this type.
    pub(crate) fn serves(metric: Metric, ty: VectorType) -> bool {
        matches!(ty.kind, VectorKind::Dense | VectorKind::Half)
            && matches!(metric, Metric::L2 | Metric::L2Squared | Metric::Cosine | Metric::Dot)
    }

    /// The map for `rows`, a dense column. Runs on the pool it is called from.
    pub(crate) fn of(metric: Metric, rows: &Vectors<'_>) -> Self {
        let square_max = match metric {
            Metric::Dot => {
                let square = |row: &mut Vec<f32>, ordinal| {
                    rows.copy_f32(ordinal, row);
                    let square = square_of(row);
                    (rows.is_valid(ordinal) && square.is_finite()).then_some(square)
                };
                let ordinals = (0..rows.len() as Ordinal).into_par_iter();
                longest(ordinals.map_init(|| vec![0.0; rows.dims()], square).flatten_iter().collect())
            }
            _ => 0.0,
        };
        Self::with_square_max(metric, rows.dims(), square_max)
    }

    /// The map that [`Euclid::square_max`] was read from.
    pub(crate) fn with_square_max(metric: Metric, dims: usize, square_max: f64) -> Self {
        Self { metric, dims, square_max }
    }

    /// The square of M, which `dot` needs again when the map is read.
    pub(crate) fn square_max(&self) -> f64 {
        self.square_max
    }

    /// Dimensions of the space.
    pub(crate) fn dims(&self) -> usize {
        self.dims + usize::from(self.metric == Metric::Dot)
    }

    /// The image of a row in `out`, of [`Euclid::dims`] values. False if it has none: NULL, no length under `cosine`, or
    /// too long to square.
    pub(crate) fn row(&self, rows: &Vectors<'_>, ordinal: Ordinal, out: &mut [f32]) -> bool {
        if !rows.is_valid(ordinal) {
            return false;
        }
        let (vector, rest) = out.split_at_mut(self.dims);
        rows.copy_f32(ordinal, vector);
        let square = square_of(vector);
        match self.metric {
            Metric::Cosine => square <= SQUARE_MAX && set_length_one(vector),
            Metric::Dot => {
                if square > self.square_max {
                    let scale = (self.square_max / square).sqrt();
                    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
                }
                rest[0] = (self.square_max - square).max(0.0).sqrt() as f32;
                square.is_finite()
            }
            // Written so that NaN has no image.
            _ => square <= SQUARE_MAX,
        }
    }

    /// The image of a query in `out`, of [`Euclid::dims`] values. False if it has none, as for rows.
    pub(crate) fn query(&self, query: &[f32], out: &mut [f32]) -> bool {
        let (vector, rest) = out.split_at_mut(self.dims);
        vector.copy_from_slice(query);
        rest.fill(0.0);
        let square = square_of(vector);
        square <= SQUARE_MAX && (self.metric != Metric::Cosine || set_length_one(vector))
    }

    /// The distance of two vectors from the squared one of their images; `query` is the one that is no row.
    pub(crate) fn distance(&self, square: f32, query: &[f32]) -> f64 {
        let square = f64::from(square);
        match self.metric {
            Metric::L2 => square.sqrt(),
            Metric::Cosine => square / 2.0,
            Metric::Dot => (square - self.square_max - square_of(query)) / 2.0,
            _ => square,
        }
    }
}

/// The squared length that rows are shortened to: the greatest one, outliers left out.
fn longest(mut squares: Vec<f64>) -> f64 {
    let Some(last) = squares.len().checked_sub(1) else { return 0.0 };
    let (_, &mut usual, _) = squares.select_nth_unstable_by((last as f64 * USUAL).ceil() as usize, f64::total_cmp);
    let most = if usual > 0.0 { (OUTLIER * usual).min(SQUARE_MAX) } else { SQUARE_MAX };
    squares.into_iter().filter(|square| *square <= most).fold(0.0, f64::max)
}

fn square_of(vector: &[f32]) -> f64 {
    let (chunks, rest) = vector.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for chunk in chunks {
        for i in 0..8 {
            sums[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvvd_core::kernels::distance_f32;

    #[test]
    fn the_order_is_that_of_the_metric() {
        let dims = 7;
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let rows: Vec<f32> = (0..40 * dims).map(value).collect();
        let query: Vec<f32> = (0..dims).map(|i| value(i * 3 + 5)).collect();
        for metric in [Metric::L2, Metric::L2Squared, Metric::Cosine, Metric::Dot] {
            let vectors = Vectors::of_f32(&rows, dims);
            let euclid = Euclid::of(metric, &vectors);
            let mut q = vec![0.0; euclid.dims()];
            assert!(euclid.query(&query, &mut q));
            let mut pairs: Vec<(f64, f64)> = (0..40)
                .map(|i| {
                    let mut x = vec![0.0; euclid.dims()];
                    assert!(euclid.row(&vectors, i, &mut x));
                    let row = &rows[i as usize * dims..][..dims];
                    (distance_f32(Metric::L2Squared, &q, &x), distance_f32(metric, &query, row))
                })
                .collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(pairs.windows(2).all(|two| two[0].1 <= two[1].1 + 1e-5), "{metric}: {pairs:?}");
        }
    }

    #[test]
    fn what_has_no_image() {
        let rows = [0.0, 0.0, f32::INFINITY, 1.0, f32::NAN, 1.0, 3.0, 4.0, 1e-30, 0.0];
        let vectors = Vectors::of_f32(&rows, 2);
        let mut out = [0.0; 3];
        let images = |metric| {
            let euclid = Euclid::of(metric, &vectors);
            [0, 1, 2, 3, 4].map(|i| euclid.row(&vectors, i, &mut [0.0; 3][..euclid.dims()]))
        };
        assert_eq!(images(Metric::L2), [true, false, false, true, true]);
        assert_eq!(images(Metric::Cosine), [false, false, false, true, false]);
        assert!(Euclid::of(Metric::Dot, &vectors).row(&vectors, 0, &mut out));
        assert_eq!(out, [0.0, 0.0, 5.0]);
    }
}
