//! How does a metric become the Euclidean distance? By a map of rows and one of queries that keep the order of distances.
//!
//! - `l2`, `l2_squared`: as they are.
//! - `cosine`: divided by their length. |q - x|^2 = 2 cos(q, x) distances.
//! - `dot`: rows get one more dimension, root(M^2 - |x|^2) with M the greatest length of a row; queries get 0 there. Then
//!   |q - x|^2 = |q|^2 + M^2 - 2 <q, x>, so the order is that of inner products exactly (Bachrach et al. 2014).
//!
//! The other metrics have no such form.

use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, VectorKind, VectorType};
use rayon::prelude::*;

use crate::vectors::Vectors;

/// A square of a length that leaves room for sums of squares within f32; longer rows have no image.
const SQUARE_MAX: f64 = 1e36;

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
            Metric::Dot => (0..rows.len() as Ordinal)
                .into_par_iter()
                .map_init(
                    || vec![0.0; rows.dims()],
                    |row, ordinal| {
                        rows.copy_f32(ordinal, row);
                        let square = square_of(row);
                        if rows.is_valid(ordinal) && square <= SQUARE_MAX { square } else { 0.0 }
                    },
                )
                .reduce(|| 0.0, f64::max),
            _ => 0.0,
        };
        Self::with_square_max(metric, rows.dims(), square_max)
    }

    /// The map that [`Euclid::square_max`] was read from.
    pub(crate) fn with_square_max(metric: Metric, dims: usize, square_max: f64) -> Self {
        Self { metric, dims, square_max }
    }

    /// The square of the greatest length, which `dot` needs again when the map is read.
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
        // Written so that NaN has no image.
        let usable = square <= SQUARE_MAX;
        match self.metric {
            Metric::Cosine => usable && normalize(vector, square),
            Metric::Dot => {
                // A row that came later may be longer than M: then only its order is lost, not the row.
                rest[0] = (self.square_max - square).max(0.0).sqrt() as f32;
                usable
            }
            _ => usable,
        }
    }

    /// The image of a query in `out`, of [`Euclid::dims`] values. False if it has none, as for rows.
    pub(crate) fn query(&self, query: &[f32], out: &mut [f32]) -> bool {
        let (vector, rest) = out.split_at_mut(self.dims);
        vector.copy_from_slice(query);
        rest.fill(0.0);
        let square = square_of(vector);
        square <= SQUARE_MAX && (self.metric != Metric::Cosine || normalize(vector, square))
    }
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

/// Whether there is a length: the kernels call a square below f32 none.
fn normalize(vector: &mut [f32], square: f64) -> bool {
    let scale = square.sqrt().recip();
    if (square as f32) == 0.0 {
        return false;
    }
    for x in vector {
        *x = (f64::from(*x) * scale) as f32;
    }
    true
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
