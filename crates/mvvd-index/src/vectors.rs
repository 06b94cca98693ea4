//! The vectors of one column of a segment, by ordinal.

use arrow::array::{Array, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float16Type, Float32Type, ToByteSlice, UInt32Type};
use half::f16;
use mvvd_core::kernels::{self, Sparse};
use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, VectorKind, VectorType};

use crate::request::Query;

/// The vectors of one column of a segment. What stands in the place of a NULL is arbitrary.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    ty: VectorType,
    rows: usize,
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

/// Values row by row.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// `dims` values a row.
    F32(&'a [f32]),
    /// `dims` values a row.
    F16(&'a [f16]),
    /// `dims / 8` bytes a row, rounded up.
    Bits(&'a [u8]),
    /// The entries of row `i` are those from `offsets[i]` to `offsets[i + 1]`.
    Sparse {
        /// One more than rows.
        offsets: &'a [i32],
        /// From 0, ascending within a row.
        indices: &'a [u32],
        /// As long as `indices`.
        values: &'a [f32],
    },
}

impl<'a> Vectors<'a> {
    /// The vectors in `array`, which holds values of type `ty` as MVVD stores them.
    pub fn new(array: &'a dyn Array, ty: VectorType) -> Self {
        let rows = array.len();
        let list = |width: usize| {
            let list = array.as_fixed_size_list();
            (list.values(), list.value_offset(0) as usize..(list.value_offset(0) as usize + rows * width))
        };
        let values = match ty.kind {
            VectorKind::Dense => {
                let (values, range) = list(ty.dims);
                Values::F32(&values.as_primitive::<Float32Type>().values()[range])
            }
            VectorKind::Half => {
                let (values, range) = list(ty.dims);
                Values::F16(&values.as_primitive::<Float16Type>().values()[range])
            }
            VectorKind::Bit => {
                let (bytes, width) = (array.as_fixed_size_binary(), VectorType::bit_bytes(ty.dims));
                Values::Bits(&bytes.value_data()[..rows * width])
            }
            VectorKind::Sparse => {
                let parts = array.as_struct();
                let (indices, values) = (parts.column(0).as_list::<i32>(), parts.column(1).as_list::<i32>());
                // Both lists have the same lengths, and their values start at the same place.
                let (start, first) = (indices.value_offsets()[0] as usize, values.value_offsets()[0] as usize);
                assert_eq!(start, first, "the two lists of sparse vectors are cut alike");
                Values::Sparse {
                    offsets: indices.value_offsets(),
                    indices: indices.values().as_primitive::<UInt32Type>().values(),
                    values: values.values().as_primitive::<Float32Type>().values(),
                }
            }
        };
        Self { ty, rows, values, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0) }
    }

    /// `rows` vectors of f32, none of them NULL, `dims` values a row.
    pub fn of_f32(values: &'a [f32], dims: usize) -> Self {
        assert!(values.len().is_multiple_of(dims), "{} values in rows of {dims}", values.len());
        let ty = VectorType { kind: VectorKind::Dense, dims };
        Self { ty, rows: values.len() / dims, values: Values::F32(values), nulls: None }
    }

    /// Sparse vectors of up to `dims` dimensions, none of them NULL; the parts are those of [`Values::Sparse`].
    pub fn of_sparse(offsets: &'a [i32], indices: &'a [u32], values: &'a [f32], dims: usize) -> Self {
        let ty = VectorType { kind: VectorKind::Sparse, dims };
        Self { ty, rows: offsets.len() - 1, values: Values::Sparse { offsets, indices, values }, nulls: None }
    }

    /// The type of the column.
    pub fn vector_type(&self) -> VectorType {
        self.ty
    }

    /// Number of dimensions.
    pub fn dims(&self) -> usize {
        self.ty.dims
    }

    /// Number of rows, NULL ones included.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The values.
    pub fn values(&self) -> Values<'a> {
        self.values
    }

    /// Whether the row has a vector.
    #[inline]
    pub fn is_valid(&self, ordinal: Ordinal) -> bool {
        self.nulls.is_none_or(|nulls| nulls.is_valid(ordinal as usize))
    }

    /// Whether every row has a vector.
    pub fn has_no_nulls(&self) -> bool {
        self.nulls.is_none()
    }

    /// Copies a dense row as f32 into `out`, of `dims` values. Bits and sparse vectors have no such form.
    pub fn copy_f32(&self, ordinal: Ordinal, out: &mut [f32]) {
        let dims = self.ty.dims;
        let range = ordinal as usize * dims..(ordinal as usize + 1) * dims;
        match self.values {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => out.iter_mut().zip(&values[range]).for_each(|(out, v)| *out = v.to_f32()),
            Values::Bits(_) | Values::Sparse { .. } => panic!("{} is no dense vector", self.ty),
        }
    }

    /// The bytes of a row's values. Sparse vectors have no such form.
    pub(crate) fn bytes(&self, ordinal: Ordinal) -> &'a [u8] {
        let (row, dims) = (ordinal as usize, self.ty.dims);
        match self.values {
            Values::F32(values) => values[row * dims..][..dims].to_byte_slice(),
            Values::F16(values) => values[row * dims..][..dims].to_byte_slice(),
            Values::Bits(bytes) => &bytes[row * VectorType::bit_bytes(dims)..][..VectorType::bit_bytes(dims)],
            Values::Sparse { .. } => panic!("{} is no dense vector", self.ty),
        }
    }

    /// The exact distances of the rows at `ordinals` to `query`, in that order, by the kernels that SQL uses. Rows must
    /// have a vector, and the query must be of the column's kind.
    pub fn distances(&self, metric: Metric, query: &Query, ordinals: &[Ordinal], out: &mut [f64]) {
        match (self.values, query) {
            (Values::F32(rows), Query::Dense(q)) => kernels::distances_f32_at(metric, q, rows, ordinals, out),
            (Values::F16(rows), Query::Dense(q)) => kernels::distances_f16_at(metric, q, rows, ordinals, out),
            (Values::Bits(rows), Query::Bits(q)) => kernels::distances_bits_at(metric, q, rows, ordinals, out),
            (Values::Sparse { offsets, indices, values }, Query::Sparse(i, v)) => {
                for (out, &ordinal) in out.iter_mut().zip(ordinals) {
                    let range = offsets[ordinal as usize] as usize..offsets[ordinal as usize + 1] as usize;
                    let row = Sparse { indices: &indices[range.clone()], values: &values[range] };
                    *out = kernels::distance_sparse(metric, Sparse { indices: i, values: v }, row);
                }
            }
            _ => panic!("{} is not searched with {query:?}", self.ty),
        }
    }

    /// As [`Vectors::distances`], of `out.len()` rows that follow each other.
    pub fn distances_from(&self, metric: Metric, query: &Query, first: Ordinal, out: &mut [f64]) {
        let rows = first as usize..first as usize + out.len();
        match (self.values, query) {
            (Values::F32(values), Query::Dense(q)) => {
                kernels::distances_f32(metric, q, &values[rows.start * q.len()..rows.end * q.len()], out);
            }
            (Values::F16(values), Query::Dense(q)) => {
                kernels::distances_f16(metric, q, &values[rows.start * q.len()..rows.end * q.len()], out);
            }
            (Values::Bits(values), Query::Bits(q)) => {
                kernels::distances_bits(metric, q, &values[rows.start * q.len()..rows.end * q.len()], out);
            }
            _ => {
                let ordinals: Vec<Ordinal> = rows.map(|row| row as Ordinal).collect();
                self.distances(metric, query, &ordinals, out);
            }
        }
    }
}
