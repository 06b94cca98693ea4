//! Arguments as rows of numbers, whatever they come as, without copying the ones that are vectors already.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type};
use half::f16;
use mvvd_core::convert::{SparseRows, to_vectors};
use mvvd_core::kernels::Sparse;
use mvvd_core::literal::parse_dense;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::operand::{Operand, type_name};

/// One vector.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bits(&'a [u8]),
    Sparse(Sparse<'a>),
}

/// A column of vectors, borrowed, or read from text and lists.
pub(crate) enum Rows<'a> {
    F32(&'a [f32], usize),
    F16(&'a [f16], usize),
    Bits(&'a [u8], usize),
    Sparse(SparseRows<'a>),
    /// Rows of any lengths.
    Read(&'a [f32], &'a [usize]),
}

impl<'a> Rows<'a> {
    /// Borrows a column that holds vectors.
    pub(crate) fn of(array: &'a dyn Array) -> Result<Self> {
        let wrong = || Error::internal(format!("{} holds no vectors", array.data_type()));
        match array.data_type() {
            DataType::FixedSizeList(item, width) => {
                let (list, dims) = (array.as_fixed_size_list(), *width as usize);
                match item.data_type() {
                    DataType::Float32 => Ok(Self::F32(f32_values(list), dims)),
                    DataType::Float16 => Ok(Self::F16(f16_values(list), dims)),
                    _ => Err(wrong()),
                }
            }
            DataType::FixedSizeBinary(width) => Ok(Self::Bits(bit_values(array), *width as usize)),
            DataType::Struct(_) => Ok(Self::Sparse(SparseRows::of(array.as_struct())?)),
            _ => Err(wrong()),
        }
    }

    /// Row `i`, which must not be NULL.
    pub(crate) fn get(&self, i: usize) -> Result<Row<'_>> {
        Ok(match self {
            Self::F32(values, dims) => Row::F32(&values[i * dims..(i + 1) * dims]),
            Self::F16(values, dims) => Row::F16(&values[i * dims..(i + 1) * dims]),
            Self::Bits(bytes, width) => Row::Bits(&bytes[i * width..(i + 1) * width]),
            Self::Sparse(rows) => {
                let (indices, values) = rows.get(i)?;
                Row::Sparse(Sparse { indices, values })
            }
            Self::Read(values, ends) => {
                let start = if i == 0 { 0 } else { ends[i - 1] };
                Row::F32(&values[start..ends[i]])
            }
        })
    }
}

/// The numbers of a `VECTOR` column, row-major.
pub(crate) fn f32_values(list: &FixedSizeListArray) -> &[f32] {
    list.values().as_primitive::<Float32Type>().values()
}

/// The numbers of a `HALFVEC` column, row-major.
pub(crate) fn f16_values(list: &FixedSizeListArray) -> &[f16] {
    list.values().as_primitive::<Float16Type>().values()
}

/// The bytes of a `BITVEC` column, row by row.
pub(crate) fn bit_values(array: &dyn Array) -> &[u8] {
    let bits = array.as_fixed_size_binary();
    &bits.value_data()[..bits.len() * bits.value_length() as usize]
}

/// Text and lists next to a vector: as [`Rows`], or converted to an array that [`Rows::of`] borrows.
pub(crate) enum Source {
    Array(ArrayRef),
    Read { values: Vec<f32>, ends: Vec<usize>, nulls: Option<NullBuffer> },
}

impl Source {
    /// Reads a column as vectors of `kind`; `dims` are those of the vector beside it.
    pub(crate) fn read(array: ArrayRef, operand: Operand, kind: VectorKind, dims: Option<usize>) -> Result<Self> {
        if operand.is_vector() {
            return Ok(Self::Array(array));
        }
        if matches!(kind, VectorKind::Dense | VectorKind::Half) {
            return read_dense(&array);
        }
        let dims = match dims {
            Some(dims) => dims,
            None if array.null_count() == array.len() || operand == Operand::Null => 1,
            None => {
                let name = type_name(array.data_type(), &Default::default());
                return Err(Error::invalid(format!("the dimensions of {name} as {} are not known", kind.name()))
                    .with_hint(format!("cast it, as in value::{}(8)", kind.name().to_uppercase())));
            }
        };
        Ok(Self::Array(to_vectors(&array, None, VectorType { kind, dims })?))
    }

    pub(crate) fn rows(&self) -> Result<Rows<'_>> {
        Ok(match self {
            Self::Array(array) => Rows::of(array)?,
            Self::Read { values, ends, .. } => Rows::Read(values, ends),
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Array(array) => array.len(),
            Self::Read { ends, .. } => ends.len(),
        }
    }

    pub(crate) fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Self::Array(array) => array.nulls(),
            Self::Read { nulls, .. } => nulls.as_ref(),
        }
    }
}

/// Text and lists as f32, rows of any lengths.
fn read_dense(array: &ArrayRef) -> Result<Source> {
    let mut values = Vec::new();
    let mut ends = Vec::with_capacity(array.len());
    match array.data_type() {
        DataType::Null => ends.resize(array.len(), 0),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8)?;
            for cell in text.as_string::<i32>() {
                if let Some(cell) = cell {
                    parse_dense(cell, &mut values)?;
                }
                ends.push(values.len());
            }
        }
        _ => {
            for row in 0..array.len() {
                if array.is_valid(row) {
                    append_list(array, row, &mut values)?;
                }
                ends.push(values.len());
            }
        }
    }
    Ok(Source::Read { values, ends, nulls: array.logical_nulls() })
}

/// Appends one list of numbers, checked as a vector is.
fn append_list(array: &ArrayRef, row: usize, out: &mut Vec<f32>) -> Result<()> {
    let item = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value_length(row) as usize,
        DataType::LargeList(_) => array.as_list::<i64>().value_length(row) as usize,
        DataType::FixedSizeList(_, width) => *width as usize,
        other => return Err(Error::internal(format!("{other} is no list"))),
    };
    let ty = VectorType::new(VectorKind::Dense, item)?;
    let vector = to_vectors(&array.slice(row, 1), None, ty)?;
    out.extend_from_slice(f32_values(vector.as_fixed_size_list()));
    Ok(())
}
