//! The one gate to vector values: any Arrow array in, checked vectors of a declared type out, and back to text.
//!
//! Every write, cast and bound parameter passes here, so behind it dimensions are right and values finite.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array, GenericListArray,
    ListArray, OffsetSizeTrait, StringArray, StringBuilder, StructArray, UInt32Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, UInt32Type};
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::literal::{
    SparseLiteral, check_finite, parse_bits, parse_dense, parse_sparse, sparse_from_pairs, write_bits, write_dense,
    write_sparse, wrong_dims,
};
use crate::vector_type::{SPARSE_ENTRIES_MAX, VectorKind, VectorType, sparse_data_type, sparse_fields};

/// A value that cannot be taken, and its row in the array.
#[derive(Debug)]
pub struct CellError {
    /// Row within the array, from 0.
    pub row: usize,
    /// What is wrong with it.
    pub error: Error,
}

impl From<CellError> for Error {
    fn from(e: CellError) -> Self {
        e.error
    }
}

/// Whether values of `from` can become vectors of `to` at all; single values may still be refused.
pub fn can_convert(from: &DataType, to: VectorKind) -> bool {
    match from {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            to != VectorKind::Bit && (item.data_type().is_numeric() || item.data_type().is_null())
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            to == VectorKind::Bit
        }
        other => to != VectorKind::Bit && other.equals_datatype(&sparse_data_type()),
    }
}

/// Turns `array` into vectors of type `to`, one for each row, NULL for NULL.
///
/// Takes text in pgvector's syntax, lists of numbers, bytes (for bits), and vectors of the other kinds. `from` is the
/// type that `array` is known to have, which is how the dimensions of a sparse source are known.
/// Lists of f32 and f16 with the right type are checked and shared, not copied.
///
/// Errors name the first row that is wrong: dimensions, NaN, infinity, out of range, malformed text.
pub fn to_vectors(array: &dyn Array, from: Option<VectorType>, to: VectorType) -> Result<ArrayRef, CellError> {
    let whole = |error: Error| CellError { row: 0, error };
    match array.data_type() {
        DataType::Null => Ok(new_null_array(&to.data_type(), array.len())),
        DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(array, &DataType::Utf8).map_err(|e| whole(e.into()))?;
            text_to_vectors(text.as_string::<i32>(), to)
        }
        DataType::Utf8 => text_to_vectors(array.as_string::<i32>(), to),
        other if !can_convert(other, to.kind) => {
            Err(whole(Error::invalid(format!("cannot cast {} to {to}", type_name(other, from)))))
        }
        DataType::FixedSizeBinary(_) | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            bytes_to_bits(array, from, to).map_err(|(row, error)| CellError { row, error })
        }
        DataType::FixedSizeList(_, width) => {
            let list = array.as_fixed_size_list();
            let width = *width as usize;
            if list.null_count() < list.len() && width != to.dims {
                let row = (0..list.len()).find(|&row| list.is_valid(row)).unwrap_or(0);
                return Err(CellError { row, error: wrong_dims(to, width) });
            }
            let offsets = (0..=list.len()).map(|row| row * width).collect();
            lists_to_vectors(&Lists { values: Arc::clone(list.values()), offsets, nulls: list.nulls().cloned() }, to)
        }
        DataType::List(_) => lists_to_vectors(&Lists::of(array.as_list::<i32>()), to),
        DataType::LargeList(_) => lists_to_vectors(&Lists::of(array.as_list::<i64>()), to),
        _ => sparse_to_vectors(array.as_struct(), from, to),
    }
}

/// Writes vectors as text in pgvector's syntax, NULL for NULL.
///
/// `array` must hold vectors of type `ty`; sparse values from a file that break the rules give an error.
pub fn to_text(array: &dyn Array, ty: VectorType) -> Result<StringArray> {
    let mut out = StringBuilder::new();
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        write_cell(array, ty, row, &mut text)?;
        out.append_value(&text);
    }
    Ok(out.finish())
}

/// Appends one vector as text; the row must not be NULL.
pub fn write_cell(array: &dyn Array, ty: VectorType, row: usize, text: &mut String) -> Result<()> {
    match ty.kind {
        VectorKind::Dense => {
            let values = array.as_fixed_size_list().value(row);
            write_dense(values.as_primitive::<Float32Type>().values().iter().copied(), text);
        }
        VectorKind::Half => {
            let values = array.as_fixed_size_list().value(row);
            write_dense(values.as_primitive::<Float16Type>().values().iter().map(|v| v.to_f32()), text);
        }
        VectorKind::Bit => write_bits(array.as_fixed_size_binary().value(row), ty.dims, text),
        VectorKind::Sparse => {
            let rows = SparseRows::of(array.as_struct())?;
            let (indices, values) = rows.get(row)?;
            write_sparse(indices, values, ty.dims, text);
        }
    }
    Ok(())
}

/// Sparse vectors as slices.
pub struct SparseRows<'a> {
    index_offsets: &'a [i32],
    value_offsets: &'a [i32],
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> SparseRows<'a> {
    /// Borrows the two lists of a `SPARSEVEC` column.
    pub fn of(array: &'a StructArray) -> Result<Self> {
        let list = |name: &str| {
            array
                .column_by_name(name)
                .and_then(|column| column.as_list_opt::<i32>())
                .ok_or_else(|| Error::invalid(format!("sparsevec has no list \"{name}\"")))
        };
        let (indices, values) = (list("indices")?, list("values")?);
        let (Some(index_values), Some(value_values)) =
            (indices.values().as_primitive_opt::<UInt32Type>(), values.values().as_primitive_opt::<Float32Type>())
        else {
            return Err(Error::invalid("sparsevec lists must hold u32 indices and f32 values"));
        };
        Ok(Self {
            index_offsets: indices.value_offsets(),
            value_offsets: values.value_offsets(),
            indices: index_values.values(),
            values: value_values.values(),
        })
    }

    /// Indices (from 0, ascending) and values of one row. Lists of two lengths, in a file from elsewhere, are an error.
    pub fn get(&self, row: usize) -> Result<(&'a [u32], &'a [f32])> {
        let range = |offsets: &[i32]| offsets[row] as usize..offsets[row + 1] as usize;
        let (indices, values) = (&self.indices[range(self.index_offsets)], &self.values[range(self.value_offsets)]);
        if indices.len() != values.len() {
            return Err(Error::invalid(format!(
                "sparsevec has {} indices and {} values in row {row}",
                indices.len(),
                values.len()
            )));
        }
        Ok((indices, values))
    }
}

/// Collects sparse vectors into a column.
#[derive(Default)]
pub struct SparseBuilder {
    indices: Vec<u32>,
    values: Vec<f32>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl SparseBuilder {
    /// Adds one vector.
    pub fn append(&mut self, indices: &[u32], values: &[f32]) -> Result<()> {
        self.indices.extend_from_slice(indices);
        self.values.extend_from_slice(values);
        self.close(true)
    }

    /// Adds a NULL.
    pub fn append_null(&mut self) -> Result<()> {
        self.close(false)
    }

    fn close(&mut self, valid: bool) -> Result<()> {
        let end = i32::try_from(self.indices.len())
            .map_err(|_| Error::exhausted("a batch of sparse vectors cannot hold more than 2147483647 entries"))?;
        self.ends.push(end);
        self.valid.push(valid);
        Ok(())
    }

    /// The column.
    pub fn finish(self) -> StructArray {
        let nulls = NullBuffer::from(self.valid);
        let offsets = OffsetBuffer::new(ScalarBuffer::from_iter(std::iter::once(0).chain(self.ends)));
        let list = |item: DataType, values: ArrayRef| -> ArrayRef {
            Arc::new(ListArray::new(Arc::new(Field::new_list_field(item, true)), offsets.clone(), values, None))
        };
        StructArray::new(
            sparse_fields(),
            vec![
                list(DataType::UInt32, Arc::new(UInt32Array::from(self.indices))),
                list(DataType::Float32, Arc::new(Float32Array::from(self.values))),
            ],
            (nulls.null_count() > 0).then_some(nulls),
        )
    }
}

/// Builds a dense or half column from row-major f32 values that are already checked.
pub fn dense_column(values: Vec<f32>, ty: VectorType, nulls: Option<NullBuffer>) -> ArrayRef {
    let values: ArrayRef = match ty.kind {
        VectorKind::Half => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(&values);
            Arc::new(Float16Array::from(halves))
        }
        _ => Arc::new(Float32Array::from(values)),
    };
    fixed_size_list(values, ty, nulls)
}

fn fixed_size_list(values: ArrayRef, ty: VectorType, nulls: Option<NullBuffer>) -> ArrayRef {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(FixedSizeListArray::new(item, ty.dims as i32, values, nulls))
}

fn type_name(data_type: &DataType, ty: Option<VectorType>) -> String {
    ty.map_or_else(|| data_type.to_string(), |ty| ty.to_string())
}

fn text_to_vectors(text: &StringArray, to: VectorType) -> Result<ArrayRef, CellError> {
    let at = |row: usize| move |error: Error| CellError { row, error };
    let check = |row: usize, got: usize| {
        if got == to.dims { Ok(()) } else { Err(CellError { row, error: wrong_dims(to, got) }) }
    };
    match to.kind {
        VectorKind::Dense | VectorKind::Half => {
            let mut values = Vec::with_capacity(text.len().saturating_mul(to.dims).min(1 << 24));
            for (row, cell) in text.iter().enumerate() {
                match cell {
                    None => values.resize(values.len() + to.dims, 0.0),
                    Some(cell) => {
                        let start = values.len();
                        let got = parse_dense(cell, &mut values).map_err(at(row))?;
                        check(row, got)?;
                        if to.kind == VectorKind::Half {
                            check_half(&values[start..]).map_err(at(row))?;
                        }
                    }
                }
            }
            Ok(dense_column(values, to, text.nulls().cloned()))
        }
        VectorKind::Bit => {
            let width = VectorType::bit_bytes(to.dims);
            let mut bytes = Vec::with_capacity((text.len() * width).min(1 << 24));
            for (row, cell) in text.iter().enumerate() {
                match cell {
                    None => bytes.resize(bytes.len() + width, 0),
                    Some(cell) => check(row, parse_bits(cell, &mut bytes).map_err(at(row))?)?,
                }
            }
            Ok(bit_column(bytes, to, text.nulls().cloned()))
        }
        VectorKind::Sparse => {
            let mut out = SparseBuilder::default();
            for (row, cell) in text.iter().enumerate() {
                match cell {
                    None => out.append_null().map_err(at(row))?,
                    Some(cell) => {
                        let SparseLiteral { dims, indices, values } = parse_sparse(cell).map_err(at(row))?;
                        check(row, dims)?;
                        out.append(&indices, &values).map_err(at(row))?;
                    }
                }
            }
            Ok(Arc::new(out.finish()))
        }
    }
}

fn bit_column(bytes: Vec<u8>, ty: VectorType, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::new(VectorType::bit_bytes(ty.dims) as i32, bytes.into(), nulls))
}

fn bytes_to_bits(array: &dyn Array, from: Option<VectorType>, to: VectorType) -> Result<ArrayRef, (usize, Error)> {
    let width = VectorType::bit_bytes(to.dims);
    if let Some(from) = from
        && from.dims != to.dims
    {
        return Err((0, wrong_dims(to, from.dims)));
    }
    let binary = cast(array, &DataType::Binary).map_err(|e| (0, Error::from(e)))?;
    let binary = binary.as_binary::<i32>();
    let padding = (width * 8 - to.dims) as u32;
    let mut bytes = Vec::with_capacity(array.len() * width);
    for (row, cell) in binary.iter().enumerate() {
        match cell {
            None => bytes.resize(bytes.len() + width, 0),
            Some(cell) if cell.len() != width => {
                let message = format!("expected {width} bytes for {to}, not {}", cell.len());
                return Err((row, Error::invalid(message)));
            }
            Some(cell) => {
                if cell[width - 1].trailing_zeros().min(8) < padding {
                    let message = format!("the last {padding} bits of a {to} of {width} bytes must be 0");
                    return Err((row, Error::invalid(message)));
                }
                bytes.extend_from_slice(cell);
            }
        }
    }
    Ok(bit_column(bytes, to, array.nulls().cloned()))
}

/// Any of Arrow's list layouts, seen as one.
struct Lists {
    values: ArrayRef,
    offsets: Vec<usize>,
    nulls: Option<NullBuffer>,
}

impl Lists {
    fn of<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Self {
        Self {
            values: Arc::clone(array.values()),
            offsets: array.value_offsets().iter().map(|offset| offset.as_usize()).collect(),
            nulls: array.nulls().cloned(),
        }
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Whether row `r` starts at value `r * dims`, so that the values can be shared.
    fn is_packed(&self, dims: usize) -> bool {
        self.offsets.iter().enumerate().all(|(row, &offset)| offset == row * dims)
    }
}

fn lists_to_vectors(lists: &Lists, to: VectorType) -> Result<ArrayRef, CellError> {
    for row in (0..lists.len()).filter(|&row| !lists.is_null(row)) {
        let got = lists.offsets[row + 1] - lists.offsets[row];
        let error = match got {
            0 => Error::invalid(format!("{} must have at least 1 dimension", to.kind.name())),
            _ if got != to.dims => wrong_dims(to, got),
            _ => continue,
        };
        return Err(CellError { row, error });
    }
    if lists.values.null_count() > 0 {
        for row in (0..lists.len()).filter(|&row| !lists.is_null(row)) {
            if (lists.offsets[row]..lists.offsets[row + 1]).any(|i| lists.values.is_null(i)) {
                return Err(CellError {
                    row,
                    error: Error::invalid(format!("{} must not contain NULL", to.kind.name())),
                });
            }
        }
    }
    // A column of the right type is shared as it is.
    if to.kind == VectorKind::Half && lists.values.data_type() == &DataType::Float16 && lists.is_packed(to.dims) {
        let values = lists.values.as_primitive::<Float16Type>();
        check_cells(lists, |start, end| {
            let row = &values.values()[start..end];
            let bad = if all(row, |v| v.is_finite()) { None } else { row.iter().find(|v| !v.is_finite()) };
            bad.map_or(Ok(()), |bad| check_finite("halfvec", bad.to_f32()))
        })?;
        return Ok(fixed_size_list(without_nulls(&lists.values, lists.len() * to.dims), to, lists.nulls.clone()));
    }
    let options = CastOptions { safe: false, ..Default::default() };
    let floats = cast_with_options(&lists.values, &DataType::Float32, &options)
        .map_err(|e| CellError { row: 0, error: e.into() })?;
    let values = floats.as_primitive::<Float32Type>().values().clone();
    check_cells(lists, |start, end| {
        let row = &values[start..end];
        if all(row, |v| v.is_finite() && (to.kind != VectorKind::Half || v.abs() < HALF_BEYOND)) {
            return Ok(());
        }
        match row.iter().position(|v| !v.is_finite()) {
            Some(i) if row[i].is_infinite() && !source_is_infinite(&lists.values, start + i) => {
                Err(Error::invalid(format!("a value is out of range for type {}", to.kind.name())))
            }
            Some(i) => check_finite(to.kind.name(), row[i]),
            None if to.kind == VectorKind::Half => check_half(row),
            None => Ok(()),
        }
    })?;
    match to.kind {
        VectorKind::Dense if lists.is_packed(to.dims) => {
            Ok(fixed_size_list(without_nulls(&floats, lists.len() * to.dims), to, lists.nulls.clone()))
        }
        VectorKind::Dense | VectorKind::Half => {
            let mut packed = Vec::with_capacity(lists.len() * to.dims);
            for row in 0..lists.len() {
                match lists.is_null(row) {
                    true => packed.resize(packed.len() + to.dims, 0.0),
                    false => packed.extend_from_slice(&values[lists.offsets[row]..lists.offsets[row + 1]]),
                }
            }
            Ok(dense_column(packed, to, lists.nulls.clone()))
        }
        VectorKind::Sparse => {
            let mut out = SparseBuilder::default();
            for row in 0..lists.len() {
                let at = |error| CellError { row, error };
                if lists.is_null(row) {
                    out.append_null().map_err(at)?;
                } else {
                    append_dense(&mut out, &values[lists.offsets[row]..lists.offsets[row + 1]]).map_err(at)?;
                }
            }
            Ok(Arc::new(out.finish()))
        }
        VectorKind::Bit => unreachable!("can_convert refuses lists as bits"),
    }
}

/// Drops the validity of the items (checked before) and what lies behind the last row.
fn without_nulls(values: &ArrayRef, len: usize) -> ArrayRef {
    let data = values.slice(0, len).to_data().into_builder().nulls(None);
    // The layout is the one it had; only the validity goes.
    arrow::array::make_array(data.build().expect("a primitive array stays valid without its null buffer"))
}

fn check_cells(lists: &Lists, check: impl Fn(usize, usize) -> Result<()>) -> Result<(), CellError> {
    for row in (0..lists.len()).filter(|&row| !lists.is_null(row)) {
        check(lists.offsets[row], lists.offsets[row + 1]).map_err(|error| CellError { row, error })?;
    }
    Ok(())
}

fn source_is_infinite(values: &ArrayRef, i: usize) -> bool {
    cast(&values.slice(i, 1), &DataType::Float64)
        .is_ok_and(|one| one.as_primitive::<arrow::datatypes::Float64Type>().value(0).is_infinite())
}

/// Whether all values are good, looked at without a branch for each: several times as fast as finding the first bad one.
fn all<T: Copy>(values: &[T], is_good: impl Fn(T) -> bool) -> bool {
    values.iter().fold(true, |all, &value| all & is_good(value))
}

/// From here on numbers round to the infinity of f16.
const HALF_BEYOND: f32 = 65_520.0;

fn check_half(values: &[f32]) -> Result<()> {
    match values.iter().find(|v| v.abs() >= HALF_BEYOND) {
        Some(bad) => Err(Error::invalid(format!("\"{bad}\" is out of range for type halfvec"))),
        None => Ok(()),
    }
}

fn append_dense(out: &mut SparseBuilder, row: &[f32]) -> Result<()> {
    let entries = || row.iter().enumerate().filter(|&(_, &v)| v != 0.0);
    let indices: Vec<u32> = entries().map(|(i, _)| i as u32).collect();
    let values: Vec<f32> = entries().map(|(_, &v)| v).collect();
    out.append(&indices, &values)
}

fn sparse_to_vectors(array: &StructArray, from: Option<VectorType>, to: VectorType) -> Result<ArrayRef, CellError> {
    let whole = |error: Error| CellError { row: 0, error };
    if let Some(from) = from
        && from.dims != to.dims
        && array.null_count() < array.len()
    {
        return Err(whole(wrong_dims(to, from.dims)));
    }
    let rows = SparseRows::of(array).map_err(whole)?;
    let mut sparse = SparseBuilder::default();
    let mut dense = Vec::new();
    for row in 0..array.len() {
        let at = |error: Error| CellError { row, error };
        let cell = if array.is_null(row) { None } else { Some(rows.get(row).map_err(at)?) };
        if let Some((indices, values)) = cell {
            check_sparse(indices, values, to).map_err(at)?;
        }
        match (to.kind, cell) {
            (VectorKind::Sparse, None) => sparse.append_null().map_err(at)?,
            (VectorKind::Sparse, Some((indices, values))) if is_canonical(indices, values) => {
                sparse.append(indices, values).map_err(at)?;
            }
            (VectorKind::Sparse, Some((indices, values))) => {
                let pairs = indices.iter().zip(values).map(|(&i, &v)| (i64::from(i), v)).collect();
                let literal = sparse_from_pairs(pairs, to.dims, 0).map_err(at)?;
                sparse.append(&literal.indices, &literal.values).map_err(at)?;
            }
            (_, None) => dense.resize(dense.len() + to.dims, 0.0),
            (_, Some((indices, values))) => {
                let start = dense.len();
                dense.resize(start + to.dims, 0.0);
                for (&i, &v) in indices.iter().zip(values) {
                    dense[start + i as usize] = v;
                }
                if to.kind == VectorKind::Half {
                    check_half(&dense[start..]).map_err(at)?;
                }
            }
        }
    }
    match to.kind {
        VectorKind::Sparse => Ok(Arc::new(sparse.finish())),
        _ => Ok(dense_column(dense, to, array.nulls().cloned())),
    }
}

fn check_sparse(indices: &[u32], values: &[f32], to: VectorType) -> Result<()> {
    if indices.len() > SPARSE_ENTRIES_MAX {
        return Err(Error::invalid(format!("sparsevec cannot have more than {SPARSE_ENTRIES_MAX} non-zero elements")));
    }
    if let Some(bad) = indices.iter().find(|&&i| i as usize >= to.dims) {
        return Err(Error::invalid(format!("sparsevec index {bad} is out of bounds, expected 0 to {}", to.dims - 1)));
    }
    values.iter().try_for_each(|&value| check_finite("sparsevec", value))
}

fn is_canonical(indices: &[u32], values: &[f32]) -> bool {
    indices.windows(2).all(|pair| pair[0] < pair[1]) && values.iter().all(|&v| v != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, Int64Builder, ListBuilder};
    use arrow::datatypes::Int32Type;

    fn ty(text: &str) -> VectorType {
        VectorType::parse(text).unwrap()
    }

    #[track_caller]
    fn check(array: &dyn Array, from: Option<&str>, to: &str, expected: Result<&[Option<&str>], (usize, &str)>) {
        let got = to_vectors(array, from.map(ty), ty(to));
        match (got, expected) {
            (Ok(got), Ok(expected)) => {
                assert!(got.data_type().equals_datatype(&ty(to).data_type()), "{}", got.data_type());
                let text = to_text(&got, ty(to)).unwrap();
                assert_eq!(text.iter().collect::<Vec<_>>(), expected);
            }
            (Err(e), Err((row, message))) => assert_eq!((e.row, e.error.message()), (row, message)),
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn text_becomes_every_kind() {
        let text = StringArray::from(vec![Some("[1,2.5]"), None, Some("[0,-1]")]);
        check(&text, None, "VECTOR(2)", Ok(&[Some("[1,2.5]"), None, Some("[0,-1]")]));
        check(&text, None, "HALFVEC(2)", Ok(&[Some("[1,2.5]"), None, Some("[0,-1]")]));
        check(&text, None, "VECTOR(3)", Err((0, "expected 3 dimensions, not 2")));
        check(&StringArray::from(vec![None, Some("101")]), None, "BITVEC(3)", Ok(&[None, Some("101")]));
        check(&StringArray::from(vec!["1", "10"]), None, "BITVEC(1)", Err((1, "expected 1 dimensions, not 2")));
        check(&StringArray::from(vec!["{3:1,1:2}/9"]), None, "SPARSEVEC(9)", Ok(&[Some("{1:2,3:1}/9")]));
        check(
            &StringArray::from(vec!["[70000]"]),
            None,
            "HALFVEC(1)",
            Err((0, "\"70000\" is out of range for type halfvec")),
        );
    }

    #[test]
    fn lists_of_numbers_become_vectors() {
        let mut lists = ListBuilder::new(Int64Builder::new());
        lists.append_value([Some(1), Some(2)]);
        lists.append_null();
        lists.append_value([Some(3), Some(4)]);
        let lists = lists.finish();
        check(&lists, None, "VECTOR(2)", Ok(&[Some("[1,2]"), None, Some("[3,4]")]));
        check(&lists, None, "SPARSEVEC(2)", Ok(&[Some("{1:1,2:2}/2"), None, Some("{1:3,2:4}/2")]));
        check(&lists, None, "VECTOR(3)", Err((0, "expected 3 dimensions, not 2")));
        let ragged = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)]), Some(vec![None])]);
        check(&ragged, None, "VECTOR(1)", Err((1, "vector must not contain NULL")));
        let empty = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![])]);
        check(&empty, None, "VECTOR(1)", Err((0, "vector must have at least 1 dimension")));
        check(&Int32Array::from(vec![1]), None, "VECTOR(1)", Err((0, "cannot cast Int32 to VECTOR(1)")));
    }

    #[test]
    fn values_must_be_finite_and_in_range() {
        let list = |values: Vec<f64>| {
            let item = Arc::new(Field::new_list_field(DataType::Float64, true));
            FixedSizeListArray::new(item, 1, Arc::new(Float64Array::from(values)), None)
        };
        check(&list(vec![1.0, f64::NAN]), None, "VECTOR(1)", Err((1, "NaN not allowed in vector")));
        check(&list(vec![f64::INFINITY]), None, "VECTOR(1)", Err((0, "infinite value not allowed in vector")));
        check(&list(vec![1e300]), None, "VECTOR(1)", Err((0, "a value is out of range for type vector")));
        check(&list(vec![1e5]), None, "HALFVEC(1)", Err((0, "\"100000\" is out of range for type halfvec")));
        // The last number that rounds to the largest of f16, and the first that does not.
        check(&list(vec![65_519.0]), None, "HALFVEC(1)", Ok(&[Some("[65504]")]));
        check(
            &list(vec![-1.0, -65_520.0]),
            None,
            "HALFVEC(1)",
            Err((1, "\"-65520\" is out of range for type halfvec")),
        );
    }

    #[test]
    fn nulls_hide_whatever_lies_under_them() {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let values = Arc::new(Float32Array::from(vec![1.0, f32::NAN]));
        let list = FixedSizeListArray::new(item, 1, values, Some(NullBuffer::from(vec![true, false])));
        check(&list, None, "VECTOR(1)", Ok(&[Some("[1]"), None]));
        check(&list.slice(1, 1), None, "VECTOR(1)", Ok(&[None]));
        check(&arrow::array::NullArray::new(2), None, "SPARSEVEC(5)", Ok(&[None, None]));
    }

    #[test]
    fn right_columns_are_shared() {
        let source = to_vectors(&StringArray::from(vec!["[1,2]", "[3,4]"]), None, ty("VECTOR(2)")).unwrap();
        let same = to_vectors(&source, None, ty("VECTOR(2)")).unwrap();
        let address = |a: &ArrayRef| a.as_fixed_size_list().values().as_primitive::<Float32Type>().values().as_ptr();
        assert_eq!(address(&source), address(&same));
        // A slice starts elsewhere in the same buffer.
        let tail = source.slice(1, 1);
        check(&tail, None, "VECTOR(2)", Ok(&[Some("[3,4]")]));
        check(&tail, None, "HALFVEC(2)", Ok(&[Some("[3,4]")]));
    }

    #[test]
    fn sparse_and_dense_convert_both_ways() {
        let sparse = to_vectors(&StringArray::from(vec![Some("{2:5}/3"), None]), None, ty("SPARSEVEC(3)")).unwrap();
        check(&sparse, Some("SPARSEVEC(3)"), "VECTOR(3)", Ok(&[Some("[0,5,0]"), None]));
        check(&sparse, Some("SPARSEVEC(3)"), "VECTOR(2)", Err((0, "expected 2 dimensions, not 3")));
        check(&sparse, None, "VECTOR(1)", Err((0, "sparsevec index 1 is out of bounds, expected 0 to 0")));
        check(&sparse.slice(1, 1), None, "SPARSEVEC(3)", Ok(&[None]));
    }

    #[test]
    fn bytes_become_bits_if_the_padding_is_zero() {
        let bytes = FixedSizeBinaryArray::try_from_iter([vec![0b1010_0000u8]].into_iter()).unwrap();
        check(&bytes, None, "BITVEC(3)", Ok(&[Some("101")]));
        check(&bytes, None, "BITVEC(2)", Err((0, "the last 6 bits of a BITVEC(2) of 1 bytes must be 0")));
        check(&bytes, None, "BITVEC(9)", Err((0, "expected 2 bytes for BITVEC(9), not 1")));
    }
}
