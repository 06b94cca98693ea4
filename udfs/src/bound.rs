//! One query against a column: the part of a distance function that the exact search shares with SQL expressions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use mvvd_core::convert::{SparseRows, to_vectors};
use mvvd_core::kernels::{
    Sparse, distance_sparse, distances_bits, distances_bits_at, distances_f16, distances_f16_at, distances_f32,
    distances_f32_at,
};
use mvvd_core::literal::{check_finite, different_dims, parse_bits, parse_dense, parse_sparse};
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::distance::{Distance, Form, Side};
use crate::operand::{Operand, text_of, type_name};
use crate::rows::{Row, bit_values, f16_values, f32_values};

/// A distance with its query, ready to be computed over any part of a column. Cheap to share between threads.
///
/// The distance functions of SQL use it too, so both give the same bits.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundDistance {
    distance: Distance,
    query: Arc<Query>,
}

impl Distance {
    /// Reads `query` for a column of vectors.
    ///
    /// `vector_type` is the column's type where it is known ([`VectorType::of_field`]); lists of f32 and f16 tell it
    /// themselves. The query is a vector, a list of numbers, a text in pgvector's syntax, or NULL. Errors: another
    /// number of dimensions, another kind of vector, a metric that does not fit the kind, a malformed or infinite value.
    pub fn bind(
        &self,
        column_type: &DataType,
        vector_type: Option<VectorType>,
        query: &ScalarValue,
    ) -> Result<BoundDistance> {
        let none = HashMap::new();
        let column = vector_type.map_or_else(|| Operand::of(column_type, &none), Operand::Vector);
        let query_type = query.data_type();
        let side = |operand: Operand, data_type: &DataType| Side {
            operand,
            type_name: operand.vector_type().map_or_else(|| type_name(data_type, &none), |ty| ty.to_string()),
            text: text_of(query),
        };
        let query_operand = Operand::of(&query_type, &none);
        for (operand, data_type) in [(column, column_type), (query_operand, &query_type)] {
            if operand == Operand::Other {
                let name = type_name(data_type, &none);
                return Err(Error::invalid(format!("{} needs vectors, got {name}", self.name())));
            }
        }
        let kind = self.family(&side(column, column_type), &side(query_operand, &query_type))?;
        if !column.is_vector() {
            return Err(Error::internal(format!("{column_type} holds no vectors")));
        }
        let query = Query::read(query, kind, column.dims())?;
        query.check_width(column_type, column.dims())?;
        Ok(BoundDistance::new(*self, Arc::new(query)))
    }

    /// The least and the greatest value that the function can return, as far as the metric tells; NaN aside.
    ///
    /// Sums in f32 may leave a cosine a little beyond its range, which the range here allows for.
    pub fn range(&self) -> (f64, f64) {
        const ROUNDING: f64 = 1e-3;
        let (least, greatest) = match self.metric {
            Metric::L2 | Metric::L2Squared | Metric::L1 | Metric::Hamming => (0.0, f64::INFINITY),
            Metric::Dot => (f64::NEG_INFINITY, f64::INFINITY),
            Metric::Cosine => (-ROUNDING, 2.0 + ROUNDING),
            Metric::Jaccard => (0.0, 1.0),
        };
        match self.form {
            Form::Distance => (least, greatest),
            Form::Similarity | Form::InnerProduct => (self.finish(greatest), self.finish(least)),
        }
    }
}

impl BoundDistance {
    pub(crate) fn new(distance: Distance, query: Arc<Query>) -> Self {
        Self { distance, query }
    }

    /// The distance that it computes.
    pub fn distance(&self) -> Distance {
        self.distance
    }

    /// The values of the query; none if it is NULL.
    pub fn values(&self) -> Option<QueryValues<'_>> {
        match &*self.query {
            Query::Null => None,
            Query::Dense(values) => Some(QueryValues::Dense(values)),
            Query::Bits { bytes, .. } => Some(QueryValues::Bits(bytes)),
            Query::Sparse { indices, values, .. } => Some(QueryValues::Sparse(indices, values)),
        }
    }

    /// Whether the query is NULL, so that every value is.
    pub fn is_null(&self) -> bool {
        matches!(*self.query, Query::Null)
    }

    /// Replaces the content of `out` with one value for each of `ordinals`, in that order, or for each row of `column`.
    ///
    /// The values are what the SQL function returns, NaN for a cosine without a length. Rows that the result marks as
    /// NULL have a meaningless value in `out`. Nothing of the column is copied; a slice is a column of its own.
    pub fn evaluate(
        &self,
        column: &dyn Array,
        ordinals: Option<&[u32]>,
        out: &mut Vec<f64>,
    ) -> Result<Option<NullBuffer>> {
        let count = ordinals.map_or(column.len(), <[u32]>::len);
        out.clear();
        out.resize(count, 0.0);
        if self.is_null() {
            return Ok(Some(NullBuffer::new_null(count)));
        }
        if let Some(&beyond) = ordinals.unwrap_or_default().iter().find(|&&i| i as usize >= column.len()) {
            return Err(Error::internal(format!("row {beyond} of a column of {} rows", column.len())));
        }
        self.measure(column, ordinals, out)?;
        if self.distance.form != Form::Distance {
            out.iter_mut().for_each(|value| *value = self.distance.finish(*value));
        }
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(nulls.map(|nulls| match ordinals {
            None => nulls.clone(),
            Some(ordinals) => ordinals.iter().map(|&i| nulls.is_valid(i as usize)).collect(),
        }))
    }

    fn measure(&self, column: &dyn Array, ordinals: Option<&[u32]>, out: &mut [f64]) -> Result<()> {
        let metric = self.distance.metric;
        let other_type = || Error::internal(format!("a query for another type of column than {}", column.data_type()));
        match (&*self.query, column.data_type()) {
            (Query::Dense(query), DataType::FixedSizeList(item, width)) => {
                if query.len() != *width as usize {
                    return Err(different_dims(*width as usize, query.len()));
                }
                let list = column.as_fixed_size_list();
                match (item.data_type(), ordinals) {
                    (DataType::Float32, None) => distances_f32(metric, query, f32_values(list), out),
                    (DataType::Float32, Some(at)) => distances_f32_at(metric, query, f32_values(list), at, out),
                    (DataType::Float16, None) => distances_f16(metric, query, f16_values(list), out),
                    (DataType::Float16, Some(at)) => distances_f16_at(metric, query, f16_values(list), at, out),
                    _ => return Err(other_type()),
                }
            }
            (Query::Bits { bytes, .. }, DataType::FixedSizeBinary(width)) => {
                if bytes.len() != *width as usize {
                    return Err(different_dims(*width as usize * 8, bytes.len() * 8));
                }
                match ordinals {
                    None => distances_bits(metric, bytes, bit_values(column), out),
                    Some(at) => distances_bits_at(metric, bytes, bit_values(column), at, out),
                }
            }
            (Query::Sparse { indices, values, .. }, DataType::Struct(_)) => {
                let rows = SparseRows::of(column.as_struct())?;
                let query = Sparse { indices, values };
                for (i, value) in out.iter_mut().enumerate() {
                    let row = ordinals.map_or(i, |ordinals| ordinals[i] as usize);
                    if column.is_valid(row) {
                        let (indices, values) = rows.get(row)?;
                        *value = distance_sparse(metric, Sparse { indices, values }, query);
                    }
                }
            }
            _ => return Err(other_type()),
        }
        Ok(())
    }
}

/// The values of a query vector.
#[derive(Debug, Clone, Copy)]
pub enum QueryValues<'a> {
    /// One a dimension.
    Dense(&'a [f32]),
    /// The first dimension in the highest bit of the first byte.
    Bits(&'a [u8]),
    /// Ascending indices from 0, and the values there.
    Sparse(&'a [u32], &'a [f32]),
}

/// The value on one side of a distance, read once.
#[derive(Debug, PartialEq)]
pub(crate) enum Query {
    Null,
    Dense(Vec<f32>),
    /// Dimensions are known of text only; otherwise the bytes tell them up to a byte.
    Bits {
        bytes: Vec<u8>,
        dims: Option<usize>,
    },
    Sparse {
        indices: Vec<u32>,
        values: Vec<f32>,
        dims: Option<usize>,
    },
}

impl Query {
    /// Reads a scalar as a vector of `kind` (`Dense`, `Sparse` or `Bit`), to be compared with vectors of `beside`
    /// dimensions.
    pub(crate) fn read(value: &ScalarValue, kind: VectorKind, beside: Option<usize>) -> Result<Self> {
        if value.is_null() {
            return Ok(Self::Null);
        }
        let query = match (text_of(value), kind) {
            (Some(text), VectorKind::Dense | VectorKind::Half) => {
                let mut values = Vec::new();
                parse_dense(text, &mut values)?;
                Self::Dense(values)
            }
            (Some(text), VectorKind::Bit) => {
                let mut bytes = Vec::new();
                let dims = parse_bits(text, &mut bytes)?;
                Self::Bits { bytes, dims: Some(dims) }
            }
            (Some(text), VectorKind::Sparse) => {
                let literal = parse_sparse(text)?;
                Self::Sparse { indices: literal.indices, values: literal.values, dims: Some(literal.dims) }
            }
            (None, kind) => Self::of_array(value, kind, beside)?,
        };
        match (query.dims(), beside) {
            (Some(got), Some(beside)) if got != beside => Err(different_dims(beside, got)),
            _ => Ok(query),
        }
    }

    fn of_array(value: &ScalarValue, kind: VectorKind, beside: Option<usize>) -> Result<Self> {
        let array = value.to_array().map_err(|e| Error::internal(e.to_string()).with_source(e))?;
        let wrong = || {
            Error::invalid(format!("cannot use {} as {}", type_name(array.data_type(), &HashMap::new()), kind.name()))
        };
        match (array.data_type(), kind) {
            (DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_), kind) => {
                let dims = match array.data_type() {
                    DataType::FixedSizeList(_, width) => *width as usize,
                    DataType::List(_) => array.as_list::<i32>().value_length(0) as usize,
                    _ => array.as_list::<i64>().value_length(0) as usize,
                };
                if kind == VectorKind::Bit {
                    return Err(wrong());
                }
                let ty = VectorType::new(VectorKind::Dense, dims)?;
                let vector = to_vectors(&array, None, ty)?;
                let values = f32_values(vector.as_fixed_size_list());
                if kind != VectorKind::Sparse {
                    return Ok(Self::Dense(values.to_vec()));
                }
                let entries = || values.iter().enumerate().filter(|&(_, &v)| v != 0.0);
                Ok(Self::Sparse {
                    indices: entries().map(|(i, _)| i as u32).collect(),
                    values: entries().map(|(_, &v)| v).collect(),
                    dims: Some(dims),
                })
            }
            (DataType::FixedSizeBinary(_), VectorKind::Bit) => {
                Ok(Self::Bits { bytes: bit_values(&array).to_vec(), dims: None })
            }
            (DataType::Struct(_), VectorKind::Sparse) => {
                let rows = SparseRows::of(array.as_struct())?;
                let (indices, values) = rows.get(0)?;
                values.iter().try_for_each(|&value| check_finite("sparsevec", value))?;
                let ascending = indices.windows(2).all(|pair| pair[0] < pair[1]);
                let last = indices.last().map_or(0, |&last| last as usize + 1);
                if !ascending || beside.is_some_and(|dims| last > dims) {
                    return Err(Error::invalid("the indices of a sparsevec must ascend and lie within its dimensions"));
                }
                Ok(Self::Sparse { indices: indices.to_vec(), values: values.to_vec(), dims: None })
            }
            _ => Err(wrong()),
        }
    }

    /// Checks what [`Query::read`] cannot: bits know their number only up to a byte.
    pub(crate) fn check_width(&self, column_type: &DataType, dims: Option<usize>) -> Result<()> {
        if let (Self::Bits { bytes, dims: own }, DataType::FixedSizeBinary(width)) = (self, column_type)
            && bytes.len() != *width as usize
        {
            return Err(different_dims(dims.unwrap_or(*width as usize * 8), own.unwrap_or(bytes.len() * 8)));
        }
        Ok(())
    }

    /// `Dense`, `Sparse` or `Bit`; none for NULL.
    pub(crate) fn kind(&self) -> Option<VectorKind> {
        match self {
            Self::Null => None,
            Self::Dense(_) => Some(VectorKind::Dense),
            Self::Bits { .. } => Some(VectorKind::Bit),
            Self::Sparse { .. } => Some(VectorKind::Sparse),
        }
    }

    /// Its dimensions, where it tells them.
    pub(crate) fn dims(&self) -> Option<usize> {
        match self {
            Self::Null => None,
            Self::Dense(values) => Some(values.len()),
            Self::Bits { dims, .. } | Self::Sparse { dims, .. } => *dims,
        }
    }

    /// The vector; none for NULL.
    pub(crate) fn row(&self) -> Option<Row<'_>> {
        match self {
            Self::Null => None,
            Self::Dense(values) => Some(Row::F32(values)),
            Self::Bits { bytes, .. } => Some(Row::Bits(bytes)),
            Self::Sparse { indices, values, .. } => Some(Row::Sparse(Sparse { indices, values })),
        }
    }
}
