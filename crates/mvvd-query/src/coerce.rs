//! Values on their way into a table: each column cast to its declared type, or an error that names column and row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use mvvd_core::convert::{to_text, to_vectors};
use mvvd_core::schema::sql_type;
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{Error, Result, TableSchema, VectorType};

/// A batch whose columns become those of `schema`, in order.
pub(crate) fn to_table(batch: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    let source = batch.schema();
    let columns = schema
        .columns()
        .iter()
        .zip(batch.columns().iter().zip(source.fields()))
        .map(|(column, (array, from))| to_field(array, from, &column.field))
        .collect::<Result<Vec<_>>>()?;
    // Nullability is the table's to check, so that its message names the row.
    let fields: Vec<Field> = schema.columns().iter().map(|c| c.field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// One column cast to the type of `to`.
pub(crate) fn to_field(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    let name = to.name();
    if let Some(ty) = VectorType::of_field(to) {
        return to_vectors(array, VectorType::of_field(from), ty)
            .map_err(|e| e.error.context(format!("column \"{name}\", row {}", e.row + 1)));
    }
    if let Some(vector) = VectorType::of_field(from)
        && matches!(to.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    {
        return Ok(Arc::new(to_text(array, vector)?));
    }
    let array = &match to.data_type().is_integer() {
        true => whole_numbers(array)?,
        false => Arc::clone(array),
    };
    let cast = if array.data_type() == to.data_type() {
        Arc::clone(array)
    } else {
        let options = CastOptions { safe: false, ..Default::default() };
        cast_with_options(array, to.data_type(), &options).map_err(|e| {
            let (e, target) = (Error::from(e), sql_type(to));
            Error::new(e.kind(), format!("column \"{name}\" of type {target}: {}", e.message()))
        })?
    };
    match to.metadata().get(TYPE_KEY).map(String::as_str) {
        Some("UUID") => canonical_uuids(&cast, name),
        _ => Ok(cast),
    }
}

/// Fractions rounded to whole numbers, as PostgreSQL assigns them: floats half to even, decimals half away from zero.
fn whole_numbers(array: &ArrayRef) -> Result<ArrayRef> {
    let ty = array.data_type();
    if ty.is_floating() {
        let wide = arrow::compute::cast(array, &DataType::Float64)?;
        return Ok(Arc::new(wide.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)));
    }
    if ty.is_decimal() {
        return Ok(arrow::compute::cast(array, &DataType::Decimal128(38, 0))?);
    }
    Ok(Arc::clone(array))
}

fn canonical_uuids(array: &ArrayRef, name: &str) -> Result<ArrayRef> {
    let texts = array.as_string::<i32>();
    let mut out = StringBuilder::new();
    for (row, text) in texts.iter().enumerate() {
        match text.map(uuid::Uuid::try_parse) {
            None => out.append_null(),
            Some(Ok(uuid)) => out.append_value(uuid.hyphenated().to_string()),
            Some(Err(_)) => {
                return Err(Error::invalid(format!(
                    "column \"{name}\", row {}: invalid input syntax for type uuid: \"{}\"",
                    row + 1,
                    texts.value(row)
                )));
            }
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Types that storage keeps in one form: text as `Utf8`, bytes as `Binary`, dictionaries unpacked.
pub(crate) fn storage_field(field: &Field) -> Field {
    let data_type = storage_type(field.data_type());
    let vector = VectorType::of(&data_type, field.metadata());
    let metadata = match (vector, field.metadata().get(TYPE_KEY)) {
        (Some(vector), _) => vector.metadata(),
        (None, Some(named)) => [(TYPE_KEY.to_owned(), named.clone())].into(),
        (None, None) => std::collections::HashMap::new(),
    };
    let data_type = vector.map_or(data_type, VectorType::data_type);
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

fn storage_type(data_type: &DataType) -> DataType {
    let item =
        |field: &Arc<Field>| Arc::new(Field::new(field.name(), storage_type(field.data_type()), field.is_nullable()));
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => storage_type(value),
        DataType::List(field) | DataType::LargeList(field) => DataType::List(item(field)),
        DataType::FixedSizeList(field, n) => DataType::FixedSizeList(item(field), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(item).collect()),
        other => other.clone(),
    }
}
