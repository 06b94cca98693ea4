//! The check at the write: after it, every stored value keeps what its column promises.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use mvvd_core::convert::to_vectors;
use mvvd_core::schema::sql_type;
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{Error, Result, TableSchema, VectorType};
use serde::de::IgnoredAny;

/// The rows of `batch` as `schema` stores them, or an error that names column, row (from 1) and value.
///
/// Types must be those of the schema. Vectors are checked again and brought into canonical form, which shares what is
/// canonical already.
pub(crate) fn validate(schema: &TableSchema, batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.num_columns() != schema.columns().len() {
        return Err(Error::invalid(format!(
            "expected {} columns, got {}",
            schema.columns().len(),
            batch.num_columns()
        )));
    }
    let columns = schema
        .columns()
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| {
            let name = column.field.name();
            if !array.data_type().equals_datatype(column.field.data_type()) {
                return Err(Error::invalid(format!(
                    "column \"{name}\" is of type {}, got {}",
                    sql_type(&column.field),
                    array.data_type()
                )));
            }
            if !column.field.is_nullable() && array.null_count() > 0 {
                let row = (0..array.len()).find(|&row| array.is_null(row)).unwrap_or(0);
                return Err(Error::invalid(format!("column \"{name}\" is NOT NULL, row {} has NULL", row + 1)));
            }
            if let Some(ty) = VectorType::of_field(&column.field) {
                return to_vectors(array, None, ty)
                    .map_err(|e| e.error.context(format!("column \"{name}\", row {}", e.row + 1)));
            }
            check_text(name, column.field.metadata().get(TYPE_KEY).map(String::as_str), array)?;
            Ok(ArrayRef::clone(array))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(std::sync::Arc::clone(schema.arrow()), columns)?)
}

fn check_text(name: &str, ty: Option<&str>, array: &ArrayRef) -> Result<()> {
    let (Some(ty), Some(texts)) = (ty, array.as_string_opt::<i32>()) else { return Ok(()) };
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text else { continue };
        let problem = match ty {
            "JSON" => serde_json::from_str::<IgnoredAny>(text).err().map(|e| e.to_string()),
            "UUID" => match uuid::Uuid::try_parse(text) {
                Ok(uuid) if uuid.hyphenated().to_string() == text => None,
                Ok(_) => Some("it is not in the form 00000000-0000-0000-0000-000000000000, lower case".to_owned()),
                Err(e) => Some(e.to_string()),
            },
            _ => None,
        };
        if let Some(problem) = problem {
            let shown: String = text.chars().take(60).collect();
            return Err(Error::invalid(format!(
                "column \"{name}\", row {}: invalid input syntax for type {}: \"{shown}\": {problem}",
                row + 1,
                ty.to_ascii_lowercase()
            )));
        }
    }
    Ok(())
}
