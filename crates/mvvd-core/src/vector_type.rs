//! The four vector types, their limits, and how each is stored in Arrow.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

use crate::error::{Error, Result};

/// Most dimensions of a `VECTOR`, `HALFVEC` or `BITVEC`.
pub const DIMS_MAX: usize = 16_000;
/// Most dimensions of a `SPARSEVEC`.
pub const SPARSE_DIMS_MAX: usize = 1_000_000_000;
/// Most non-zero entries of a `SPARSEVEC`.
pub const SPARSE_ENTRIES_MAX: usize = 16_000;

/// Key of the Arrow field metadata that holds the SQL type, such as `VECTOR(384)`.
///
/// Other readers ignore it and see an ordinary list, so a file written by MVVD stays plain Arrow.
pub const TYPE_KEY: &str = "mvvd.type";

/// How the values of a vector are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VectorKind {
    /// `VECTOR(n)`: `FixedSizeList<Float32, n>`.
    Dense,
    /// `HALFVEC(n)`: `FixedSizeList<Float16, n>`.
    Half,
    /// `BITVEC(n)`: `FixedSizeBinary(ceil(n / 8))`, the first dimension in the highest bit of the first byte.
    Bit,
    /// `SPARSEVEC(n)`: `Struct<indices: List<UInt32>, values: List<Float32>>`, indices from 0 and ascending.
    Sparse,
}

impl VectorKind {
    /// The SQL name, lower case as in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "vector",
            Self::Half => "halfvec",
            Self::Bit => "bitvec",
            Self::Sparse => "sparsevec",
        }
    }

    /// Most dimensions that the type can have.
    pub fn dims_max(self) -> usize {
        match self {
            Self::Sparse => SPARSE_DIMS_MAX,
            _ => DIMS_MAX,
        }
    }
}

/// A vector type with its number of dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VectorType {
    /// How values are kept.
    pub kind: VectorKind,
    /// Number of dimensions, 1 to [`VectorKind::dims_max`].
    pub dims: usize,
}

impl VectorType {
    /// A type with `dims` dimensions, checked against the limits of its kind.
    pub fn new(kind: VectorKind, dims: usize) -> Result<Self> {
        if dims == 0 {
            return Err(Error::invalid(format!("dimensions for type {} must be at least 1", kind.name())));
        }
        if dims > kind.dims_max() {
            return Err(Error::invalid(format!(
                "dimensions for type {} cannot exceed {}, got {dims}",
                kind.name(),
                kind.dims_max()
            )));
        }
        Ok(Self { kind, dims })
    }

    /// Bytes of one `BITVEC` value with `dims` bits.
    pub fn bit_bytes(dims: usize) -> usize {
        dims.div_ceil(8)
    }

    /// The Arrow type that stores it.
    pub fn data_type(self) -> DataType {
        match self.kind {
            VectorKind::Dense => fixed_list(DataType::Float32, self.dims),
            VectorKind::Half => fixed_list(DataType::Float16, self.dims),
            VectorKind::Bit => DataType::FixedSizeBinary(Self::bit_bytes(self.dims) as i32),
            VectorKind::Sparse => sparse_data_type(),
        }
    }

    /// An Arrow field of this type, its SQL name in the metadata.
    pub fn field(self, name: impl Into<String>, nullable: bool) -> Field {
        Field::new(name, self.data_type(), nullable).with_metadata(self.metadata())
    }

    /// The field metadata that marks this type.
    pub fn metadata(self) -> HashMap<String, String> {
        HashMap::from([(TYPE_KEY.to_owned(), self.to_string())])
    }

    /// The vector type of an Arrow field: from its metadata, or for lists of f32 and f16 from the Arrow type alone.
    ///
    /// `None` for anything else: bytes and structs are vectors only if they say so.
    pub fn of(data_type: &DataType, metadata: &HashMap<String, String>) -> Option<Self> {
        if let Some(named) = metadata.get(TYPE_KEY).and_then(|text| Self::parse(text))
            && named.data_type().equals_datatype(data_type)
        {
            return Some(named);
        }
        match data_type {
            DataType::FixedSizeList(item, n) if *n > 0 && *n as usize <= DIMS_MAX => match item.data_type() {
                DataType::Float32 => Some(Self { kind: VectorKind::Dense, dims: *n as usize }),
                DataType::Float16 => Some(Self { kind: VectorKind::Half, dims: *n as usize }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The vector type of an Arrow field, as [`VectorType::of`].
    pub fn of_field(field: &Field) -> Option<Self> {
        Self::of(field.data_type(), field.metadata())
    }

    /// Reads `VECTOR(384)` and the like, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.trim().split_once('(')?;
        let dims = rest.strip_suffix(')')?.trim().parse().ok()?;
        Self::new(Self::kind_named(name.trim())?, dims).ok()
    }

    /// The kind with this SQL name, in any case.
    pub fn kind_named(name: &str) -> Option<VectorKind> {
        [VectorKind::Dense, VectorKind::Half, VectorKind::Bit, VectorKind::Sparse]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for VectorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.kind.name().to_ascii_uppercase(), self.dims)
    }
}

/// `FixedSizeList<item, dims>` with the item field that Arrow and DataFusion make by default.
pub fn fixed_list(item: DataType, dims: usize) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(item, true)), dims as i32)
}

/// The Arrow type of every `SPARSEVEC`; the number of dimensions stands in the field metadata.
pub fn sparse_data_type() -> DataType {
    DataType::Struct(sparse_fields())
}

/// The two children of a `SPARSEVEC`.
pub fn sparse_fields() -> Fields {
    Fields::from(vec![
        Field::new("indices", DataType::new_list(DataType::UInt32, true), true),
        Field::new("values", DataType::new_list(DataType::Float32, true), true),
    ])
}

/// Whether an Arrow type can hold a vector of any kind (bytes and structs need the field metadata to be sure).
pub fn may_be_vector(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(item, _) => matches!(item.data_type(), DataType::Float32 | DataType::Float16),
        DataType::FixedSizeBinary(_) => true,
        other => other.equals_datatype(&sparse_data_type()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (kind, dims) in [
            (VectorKind::Dense, 3),
            (VectorKind::Half, 16_000),
            (VectorKind::Bit, 9),
            (VectorKind::Sparse, 1_000_000_000),
        ] {
            let ty = VectorType::new(kind, dims).unwrap();
            assert_eq!(VectorType::parse(&ty.to_string()), Some(ty));
            assert_eq!(VectorType::of_field(&ty.field("v", true)), Some(ty));
        }
        assert_eq!(VectorType::parse("vector(0)"), None);
        assert_eq!(VectorType::parse("vector(-1)"), None);
        assert_eq!(VectorType::parse("text"), None);
    }

    #[test]
    fn limits_name_the_value() {
        let message = |kind, dims| VectorType::new(kind, dims).unwrap_err().to_string();
        assert_eq!(message(VectorKind::Dense, 0), "dimensions for type vector must be at least 1");
        assert_eq!(message(VectorKind::Half, 16_001), "dimensions for type halfvec cannot exceed 16000, got 16001");
        assert!(VectorType::new(VectorKind::Sparse, 1_000_000_001).is_err());
    }

    #[test]
    fn plain_lists_of_floats_are_vectors_and_bytes_are_not() {
        let none = HashMap::new();
        assert_eq!(
            VectorType::of(&fixed_list(DataType::Float16, 4), &none),
            Some(VectorType { kind: VectorKind::Half, dims: 4 })
        );
        assert_eq!(VectorType::of(&fixed_list(DataType::Float64, 4), &none), None);
        assert_eq!(VectorType::of(&DataType::FixedSizeBinary(4), &none), None);
    }
}
