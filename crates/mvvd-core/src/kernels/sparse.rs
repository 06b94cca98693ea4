//! Distances between sparse vectors, by walking both lists of indices at once.

use crate::metric::Metric;

/// A sparse vector: the entries that are not zero.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    /// Dimensions counted from 0, ascending, none twice.
    pub indices: &'a [u32],
    /// As many values as indices.
    pub values: &'a [f32],
}

/// The distance of two sparse vectors, summed in f64. O(entries of both).
///
/// NaN for the metrics of bits, which no sparse vector has: a caller must not ask.
pub fn distance_sparse(metric: Metric, a: Sparse, b: Sparse) -> f64 {
    match metric {
        Metric::L2 => squared_differences(a, b).sqrt(),
        Metric::L2Squared => squared_differences(a, b),
        Metric::Dot => 0.0 - dot_sparse(a, b),
        Metric::L1 => merge(a, b, |x, y| (x - y).abs()),
        Metric::Cosine => {
            let cosine = dot_sparse(a, b) / (squares(a.values) * squares(b.values)).sqrt();
            1.0 - cosine.clamp(-1.0, 1.0)
        }
        Metric::Hamming | Metric::Jaccard => {
            debug_assert!(false, "{metric} does not measure sparse vectors");
            f64::NAN
        }
    }
}

/// The inner product of two sparse vectors, summed in f64.
pub fn dot_sparse(a: Sparse, b: Sparse) -> f64 {
    merge(a, b, |x, y| x * y)
}

/// The Euclidean length of a sparse vector, summed in f64.
pub fn norm_sparse(v: Sparse) -> f64 {
    squares(v.values).sqrt()
}

fn squared_differences(a: Sparse, b: Sparse) -> f64 {
    merge(a, b, |x, y| (x - y) * (x - y))
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Sums `term` over the dimensions that either vector has; the other's value is 0 there.
#[inline]
fn merge(a: Sparse, b: Sparse, term: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.indices.len(), a.values.len(), "indices and values of a sparse vector");
    assert_eq!(b.indices.len(), b.values.len(), "indices and values of a sparse vector");
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while i < a.indices.len() && j < b.indices.len() {
        // Both are taken where they are equal. No branch: which comes first is close to random.
        let (from_a, from_b) = (a.indices[i] <= b.indices[j], b.indices[j] <= a.indices[i]);
        let x = if from_a { f64::from(a.values[i]) } else { 0.0 };
        let y = if from_b { f64::from(b.values[j]) } else { 0.0 };
        sum += term(x, y);
        i += usize::from(from_a);
        j += usize::from(from_b);
    }
    let rest_of_a: f64 = a.values[i..].iter().map(|&x| term(f64::from(x), 0.0)).sum();
    let rest_of_b: f64 = b.values[j..].iter().map(|&y| term(0.0, f64::from(y))).sum();
    sum + rest_of_a + rest_of_b
}
