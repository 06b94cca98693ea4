//! Values that a statement writes out, and the vectors that they stand for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::logical_expr::Expr;
use mvvd_core::convert::{SparseBuilder, dense_column, to_vectors, write_cell};
use mvvd_core::literal::{parse_bits, parse_dense, parse_sparse};
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::array;
use crate::operand::{Operand, text_of};

/// A value that is written out, and can become a vector.
pub(crate) enum Written<'a> {
    /// Text in pgvector's syntax.
    Text(&'a str),
    /// The text of an array literal: numbers in brackets.
    Array(&'a str),
    /// A list of numbers.
    List(ScalarValue),
}

impl Written<'_> {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Array(_) | Self::List(_) => None,
        }
    }
}

pub(crate) fn written(expr: &Expr) -> Option<Written<'_>> {
    match expr {
        Expr::Literal(value, metadata) => match text_of(value) {
            Some(text) if metadata.is_none() => Some(Written::Text(text)),
            Some(_) => None,
            None => match Operand::of(&value.data_type(), &Default::default()) {
                Operand::List(_) if !value.is_null() => Some(Written::List(value.clone())),
                _ => None,
            },
        },
        Expr::ScalarFunction(call) if call.func.name() == array::ARRAY => array::text(expr).map(Written::Array),
        Expr::ScalarFunction(call) if call.func.name() == "make_array" => made_list(&call.args).map(Written::List),
        _ => None,
    }
}

/// Whether [`written`] may find something, without building it.
pub(crate) fn may_be_written(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => text_of(value).is_some() || value.data_type().is_list(),
        Expr::ScalarFunction(call) => matches!(call.func.name(), array::ARRAY | "make_array"),
        _ => false,
    }
}

/// `[1, 2.5]` as DataFusion plans it: a call with a literal for each number.
fn made_list(args: &[Expr]) -> Option<ScalarValue> {
    let numbers = args.iter().map(|arg| match arg {
        Expr::Literal(value, _) if value.data_type().is_numeric() && !value.is_null() => {
            match value.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(number)) => number,
                _ => None,
            }
        }
        _ => None,
    });
    let numbers: ArrayRef = Arc::new(Float64Array::from(numbers.collect::<Option<Vec<f64>>>()?));
    Some(ScalarValue::List(Arc::new(SingleRowListArrayBuilder::new(numbers).build_list_array())))
}

/// A vector of `kind` with the dimensions that the value has.
pub(crate) fn vector_literal(value: &Written, kind: VectorKind) -> Result<(VectorType, Expr)> {
    let (array, ty): (ArrayRef, VectorType) = match (value, kind) {
        (Written::Text(text), VectorKind::Bit) => {
            let mut bytes = Vec::new();
            let ty = VectorType::new(kind, parse_bits(text, &mut bytes)?)?;
            (Arc::new(FixedSizeBinaryArray::try_new(bytes.len() as i32, bytes.into(), None)?), ty)
        }
        (Written::Text(text), VectorKind::Sparse) => {
            let literal = parse_sparse(text)?;
            let mut builder = SparseBuilder::default();
            builder.append(&literal.indices, &literal.values)?;
            (Arc::new(builder.finish()), VectorType::new(kind, literal.dims)?)
        }
        (Written::Text(text) | Written::Array(text), VectorKind::Dense | VectorKind::Half) => {
            let mut values = Vec::new();
            let dims = parse_dense(text, &mut values)?;
            let dense = VectorType::new(VectorKind::Dense, dims)?;
            let array = dense_column(values, dense, None);
            if kind == VectorKind::Dense {
                (array, dense)
            } else {
                let half = VectorType { kind, ..dense };
                (to_vectors(&array, Some(dense), half)?, half)
            }
        }
        (Written::Array(text), kind) => return vector_literal(&Written::List(array::list(text)?), kind),
        (Written::List(value), kind) => {
            let array = value.to_array().map_err(|e| Error::internal(e.to_string()).with_source(e))?;
            let dims = match array.data_type() {
                DataType::FixedSizeList(_, width) => *width as usize,
                DataType::LargeList(_) => array.as_list::<i64>().value_length(0) as usize,
                _ => array.as_list::<i32>().value_length(0) as usize,
            };
            if kind == VectorKind::Bit {
                return Err(Error::invalid("a list of numbers is no bit vector").with_hint("write bits as '1011'"));
            }
            let ty = VectorType::new(kind, dims)?;
            (to_vectors(&array, None, ty)?, ty)
        }
    };
    let value = ScalarValue::try_from_array(&array, 0).map_err(|e| Error::internal(e.to_string()).with_source(e))?;
    Ok((ty, Expr::Literal(value, Some(FieldMetadata::from(&ty.metadata())))))
}

/// The type of a query of `kind`, and its text where it is not text yet.
pub(crate) fn query_literal(value: &Written, kind: VectorKind) -> Result<(VectorType, Option<Expr>)> {
    let dims = match (value, kind) {
        (Written::Text(text), VectorKind::Bit) => parse_bits(text, &mut Vec::new())?,
        (Written::Text(text), VectorKind::Sparse) => parse_sparse(text)?.dims,
        (Written::Text(text), _) => parse_dense(text, &mut Vec::new())?,
        (Written::Array(text), VectorKind::Dense | VectorKind::Half) => {
            let ty = VectorType::new(kind, parse_dense(text, &mut Vec::new())?)?;
            return Ok((ty, Some(Expr::Literal(ScalarValue::from(*text), None))));
        }
        (Written::Array(_) | Written::List(_), _) => {
            let (ty, literal) = vector_literal(value, kind)?;
            return Ok((ty, text_literal(&literal)?));
        }
    };
    Ok((VectorType::new(kind, dims)?, None))
}

/// The text of a vector literal.
pub(crate) fn text_literal(expr: &Expr) -> Result<Option<Expr>> {
    let Expr::Literal(value, metadata) = expr else {
        return Ok(None);
    };
    let Some(ty) = VectorType::of_field(&literal_field(value, metadata.as_ref())).filter(|_| !value.is_null()) else {
        return Ok(None);
    };
    let array = value.to_array().map_err(|e| Error::internal(e.to_string()).with_source(e))?;
    // A bound parameter is not checked yet.
    let array = to_vectors(&array, Some(ty), ty)?;
    let mut text = String::new();
    write_cell(&array, ty, 0, &mut text)?;
    Ok(Some(Expr::Literal(ScalarValue::from(text), None)))
}

/// The field of a literal, without a name.
pub(crate) fn literal_field(value: &ScalarValue, metadata: Option<&FieldMetadata>) -> Field {
    let field = Field::new("", value.data_type(), value.is_null());
    match metadata {
        Some(metadata) => field.with_metadata(metadata.to_hashmap()),
        None => field,
    }
}
