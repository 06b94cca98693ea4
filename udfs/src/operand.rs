//! What an argument of a vector function is: a vector, or something that can become one.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use datafusion::scalar::ScalarValue;
use mvvd_core::vector_type::{TYPE_KEY, sparse_data_type};
use mvvd_core::{VectorKind, VectorType};

/// An argument, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A vector with known dimensions.
    Vector(VectorType),
    /// Bits whose number is not known exactly, such as the result of a CASE: its bytes.
    Bytes(usize),
    /// A sparse vector whose dimensions are not known.
    Sparse,
    /// Text: a vector once it is read.
    Text,
    /// A list of numbers, with its length if the type has it.
    List(Option<usize>),
    /// NULL or a parameter without a type.
    Null,
    /// Anything else.
    Other,
}

impl Operand {
    pub(crate) fn of(data_type: &DataType, metadata: &HashMap<String, String>) -> Self {
        if let Some(ty) = VectorType::of(data_type, metadata) {
            return Self::Vector(ty);
        }
        let numbers = |item: &Field| item.data_type().is_numeric() || item.data_type().is_null();
        match data_type {
            DataType::Null => Self::Null,
            // JSON and UUID are text too, but never vectors.
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if !metadata.contains_key(TYPE_KEY) => Self::Text,
            DataType::FixedSizeBinary(width) => Self::Bytes(usize::try_from(*width).unwrap_or(0)),
            DataType::List(item) | DataType::LargeList(item) if numbers(item) => Self::List(None),
            DataType::FixedSizeList(item, n) if numbers(item) => Self::List(usize::try_from(*n).ok()),
            other if other.equals_datatype(&sparse_data_type()) => Self::Sparse,
            _ => Self::Other,
        }
    }

    pub(crate) fn of_field(field: &Field) -> Self {
        Self::of(field.data_type(), field.metadata())
    }

    /// How its values are kept, where it is a vector already.
    pub(crate) fn kind(self) -> Option<VectorKind> {
        match self {
            Self::Vector(ty) => Some(ty.kind),
            Self::Bytes(_) => Some(VectorKind::Bit),
            Self::Sparse => Some(VectorKind::Sparse),
            Self::Text | Self::List(_) | Self::Null | Self::Other => None,
        }
    }

    /// Its dimensions, where the type tells.
    pub(crate) fn dims(self) -> Option<usize> {
        match self {
            Self::Vector(ty) => Some(ty.dims),
            Self::List(dims) => dims,
            _ => None,
        }
    }

    pub(crate) fn vector_type(self) -> Option<VectorType> {
        match self {
            Self::Vector(ty) => Some(ty),
            _ => None,
        }
    }

    pub(crate) fn is_vector(self) -> bool {
        self.kind().is_some()
    }

    /// Whether it can become a vector.
    pub(crate) fn is_source(self) -> bool {
        matches!(self, Self::Text | Self::List(_) | Self::Null)
    }
}

/// The text of a scalar, if it is one.
pub(crate) fn text_of(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text.as_deref(),
        _ => None,
    }
}

/// The kind of vector that a text without company is: sparse values are the ones in braces.
pub(crate) fn kind_of_text(text: &str) -> VectorKind {
    if text.trim_start().starts_with('{') { VectorKind::Sparse } else { VectorKind::Dense }
}

/// A type as SQL names it, for messages.
pub(crate) fn type_name(data_type: &DataType, metadata: &HashMap<String, String>) -> String {
    if let Some(ty) = VectorType::of(data_type, metadata) {
        return ty.to_string();
    }
    if let Some(name) = metadata.get(TYPE_KEY) {
        return name.clone();
    }
    match data_type {
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::FixedSizeBinary(width) => format!("{width} bytes"),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item.data_type(), item.metadata()))
        }
        other if other.equals_datatype(&sparse_data_type()) => "SPARSEVEC".into(),
        other => other.to_string(),
    }
}

pub(crate) fn field_type_name(field: &Field) -> String {
    type_name(field.data_type(), field.metadata())
}
