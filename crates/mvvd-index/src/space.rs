//! How are the vectors of a column made ready for codes? Set to length 1 for cosine, less the mean, rotated at random.
//!
//! The mean goes because what all vectors share tells none of them apart, and costs precision where tables are rounded.

use arrow::buffer::ScalarBuffer;
use mvvd_core::kernels;
use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, Result};

use crate::codec::Form;
use crate::parts::{PartsReader, PartsWriter};
use crate::rotate::Rotation;
use crate::vectors::Vectors;

/// The space in which a column's vectors are coded.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    form: Form,
    /// Whether vectors are set to length 1.
    unit: bool,
    mean: ScalarBuffer<f32>,
    rotation: Rotation,
}

/// A query in a [`Space`].
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) rotated: Vec<f32>,
    /// The part of the distance that comes from the mean.
    pub(crate) offset: f32,
}

impl Space {
    /// For rows measured by `metric`, which is one of `l2`, `l2_squared`, `dot` and `cosine`; the mean is of `sample`.
    pub(crate) fn new(metric: Metric, vectors: &Vectors<'_>, sample: &[Ordinal], seed: u64) -> Self {
        let mut space = Self::with_mean(metric, vec![0.0; vectors.dims()].into(), seed);
        let mut sums = vec![0.0_f64; vectors.dims()];
        let mut row = vec![0.0; vectors.dims()];
        let mut count = 0;
        for &ordinal in sample {
            if space.plain(vectors, ordinal, &mut row) {
                sums.iter_mut().zip(&row).for_each(|(sum, &value)| *sum += f64::from(value));
                count += 1;
            }
        }
        let mean = sums.iter().map(|sum| (sum / f64::from(count.max(1))) as f32);
        // A mean that f32 cannot hold is none.
        space.mean = mean.map(|value| if value.is_finite() { value } else { 0.0 }).collect();
        space
    }

    fn with_mean(metric: Metric, mean: ScalarBuffer<f32>, seed: u64) -> Self {
        let form = if metric == Metric::Dot { Form::Dot } else { Form::Squared };
        let rotation = Rotation::new(mean.len(), seed);
        Self { form, unit: metric == Metric::Cosine, mean, rotation }
    }

    pub(crate) fn write(&self, seed: u64, out: &mut PartsWriter) {
        out.number(seed);
        out.array(&self.mean);
    }

    /// The space that was written, and its seed.
    pub(crate) fn read(metric: Metric, dims: usize, parts: &mut PartsReader) -> Result<(u64, Self)> {
        let seed = parts.number()?;
        Ok((seed, Self::with_mean(metric, parts.array(dims)?, seed)))
    }

    /// The form in which distances of this metric are estimated.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// What an estimate is multiplied with to be a distance of the metric.
    pub(crate) fn factor(&self) -> f32 {
        // Half the squared distance of vectors of length 1 is the cosine distance.
        if self.unit { 0.5 } else { 1.0 }
    }

    /// Values of a rotated vector.
    pub(crate) fn width(&self) -> usize {
        self.rotation.padded()
    }

    /// Rotates a row into `out`, of [`Space::width`] values; false where it has no place in this space.
    pub(crate) fn row(&self, vectors: &Vectors<'_>, ordinal: Ordinal, scratch: &mut Vec<f32>, out: &mut [f32]) -> bool {
        scratch.resize(vectors.dims(), 0.0);
        if !self.plain(vectors, ordinal, scratch) {
            return false;
        }
        self.rotation.rotate(scratch, out);
        true
    }

    fn plain(&self, vectors: &Vectors<'_>, ordinal: Ordinal, out: &mut [f32]) -> bool {
        if !vectors.is_valid(ordinal) {
            return false;
        }
        vectors.copy_f32(ordinal, out);
        if self.unit && !set_length_one(out) {
            return false;
        }
        out.iter_mut().zip(self.mean.iter()).for_each(|(value, mean)| *value -= mean);
        true
    }

    /// A query; none where every distance to it is NaN.
    pub(crate) fn query(&self, query: &[f32]) -> Option<Point> {
        let mut plain = query.to_vec();
        if self.unit && !set_length_one(&mut plain) {
            return None;
        }
        let mut offset = 0.0;
        match self.form {
            Form::Squared => plain.iter_mut().zip(self.mean.iter()).for_each(|(value, mean)| *value -= mean),
            Form::Dot => offset = kernels::distance_f32(Metric::Dot, &plain, &self.mean) as f32,
        }
        let mut rotated = vec![0.0; self.width()];
        self.rotation.rotate(&plain, &mut rotated);
        Some(Point { rotated, offset })
    }
}

/// Divides by the length; false where the kernels see none.
pub(crate) fn set_length_one(vector: &mut [f32]) -> bool {
    if kernels::distance_f32(Metric::Dot, vector, vector) == 0.0 {
        return false;
    }
    let length = kernels::norm_f32(vector);
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    true
}
