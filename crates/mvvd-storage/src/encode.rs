//! Batches and schemas as bytes: Arrow IPC streams, in the log and in the manifest.
//!
//! Columns are known by id, so a field is named by its column's id in decimal. A schema is a stream of one row: the
//! initial values of its columns, with the rest in the metadata of the fields.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use mvvd_core::metric::Metric;
use mvvd_core::schema::{Column, IndexDef};
use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use serde::{Deserialize, Serialize};

const NAME: &str = "mvvd.name";
const NOT_NULL: &str = "mvvd.not_null";
const DEFAULT: &str = "mvvd.default";
const INITIAL: &str = "mvvd.initial";
const PRIMARY_KEY: &str = "mvvd.primary_key";
const TIMESTAMPS: &str = "mvvd.timestamps";
const NEXT_COLUMN_ID: &str = "mvvd.next_column_id";
/// JSON: [`StoredIndexes`]. Left out of a table that never had an index.
const INDEXES: &str = "mvvd.indexes";

#[derive(Serialize, Deserialize)]
struct StoredIndexes {
    next_id: u32,
    indexes: Vec<StoredIndex>,
}

#[derive(Serialize, Deserialize)]
struct StoredIndex {
    id: u32,
    name: String,
    kind: String,
    metric: String,
    columns: Vec<u32>,
    options: Vec<(String, String)>,
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("stored rows cannot be read: {what}"))
}

/// Columns by id as an Arrow IPC stream.
pub(crate) fn write_columns(columns: &[(u32, ArrayRef)]) -> Result<Vec<u8>> {
    let fields: Vec<Field> =
        columns.iter().map(|(id, array)| Field::new(id.to_string(), array.data_type().clone(), true)).collect();
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    write_batch(&RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// What [`write_columns`] wrote, and how many rows.
pub(crate) fn read_columns(bytes: &[u8]) -> Result<(Vec<(u32, ArrayRef)>, usize)> {
    let batch = read_batch(bytes)?;
    let columns = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            let id = field.name().parse().map_err(|_| corrupt(format!("\"{}\" is no column id", field.name())))?;
            Ok((id, Arc::clone(array)))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((columns, batch.num_rows()))
}

fn write_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn read_batch(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(corrupt)?;
    reader.next().ok_or_else(|| corrupt("there is no batch"))?.map_err(corrupt)
}

/// A schema as an Arrow IPC stream of one row.
pub(crate) fn write_schema(schema: &TableSchema) -> Result<Vec<u8>> {
    let mut fields = Vec::with_capacity(schema.columns().len());
    let mut arrays = Vec::with_capacity(schema.columns().len());
    for column in schema.columns() {
        let mut metadata = column.field.metadata().clone();
        metadata.insert(NAME.into(), column.field.name().clone());
        if !column.field.is_nullable() {
            metadata.insert(NOT_NULL.into(), "true".into());
        }
        if let Some(default) = &column.default {
            metadata.insert(DEFAULT.into(), default.clone());
        }
        if column.initial.is_some() {
            metadata.insert(INITIAL.into(), "true".into());
        }
        let data_type = column.field.data_type();
        arrays.push(column.initial.clone().unwrap_or_else(|| new_null_array(data_type, 1)));
        fields.push(Field::new(column.id.to_string(), data_type.clone(), true).with_metadata(metadata));
    }
    let mut metadata = HashMap::from([(NEXT_COLUMN_ID.to_owned(), schema.next_column_id().to_string())]);
    if let Some(key) = schema.primary_key() {
        metadata.insert(PRIMARY_KEY.into(), schema.columns()[key].id.to_string());
    }
    if schema.timestamps() {
        metadata.insert(TIMESTAMPS.into(), "true".into());
    }
    if schema.next_index_id() > 0 {
        metadata.insert(INDEXES.into(), write_indexes(schema)?);
    }
    write_batch(&RecordBatch::try_new(Arc::new(Schema::new(fields).with_metadata(metadata)), arrays)?)
}

fn write_indexes(schema: &TableSchema) -> Result<String> {
    let stored = |index: &IndexDef| StoredIndex {
        id: index.id,
        name: index.name.clone(),
        kind: index.kind.clone(),
        metric: index.metric.name().to_owned(),
        columns: index.columns.clone(),
        options: index.options.clone(),
    };
    let indexes = schema.indexes().iter().map(stored).collect();
    let stored = StoredIndexes { next_id: schema.next_index_id(), indexes };
    serde_json::to_string(&stored).map_err(|e| Error::internal(format!("the indexes of a table: {e}")))
}

fn read_indexes(text: &str) -> Result<(Vec<IndexDef>, u32)> {
    let stored: StoredIndexes = serde_json::from_str(text).map_err(corrupt)?;
    let read = |index: StoredIndex| {
        let metric = Metric::parse(&index.metric).ok_or_else(|| corrupt(format!("no metric {}", index.metric)))?;
        let StoredIndex { id, name, kind, columns, options, .. } = index;
        Ok(IndexDef { id, name, kind, metric, columns, options })
    };
    Ok((stored.indexes.into_iter().map(read).collect::<Result<_>>()?, stored.next_id))
}

/// What [`write_schema`] wrote.
pub(crate) fn read_schema(bytes: &[u8]) -> Result<TableSchema> {
    let batch = read_batch(bytes)?;
    let schema = batch.schema();
    let number = |text: &str| text.parse::<u32>().map_err(|_| corrupt(format!("\"{text}\" is no number")));
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let mut metadata = field.metadata().clone();
        let name = metadata.remove(NAME).ok_or_else(|| corrupt("a column without a name"))?;
        let nullable = metadata.remove(NOT_NULL).is_none();
        let default = metadata.remove(DEFAULT);
        let initial = metadata.remove(INITIAL).map(|_| Arc::clone(array));
        columns.push(Column {
            id: number(field.name())?,
            field: Arc::new(Field::new(name, field.data_type().clone(), nullable).with_metadata(metadata)),
            default,
            initial,
        });
    }
    let metadata = schema.metadata();
    let next = metadata.get(NEXT_COLUMN_ID).ok_or_else(|| corrupt("a schema without its next column id"))?;
    let key = metadata.get(PRIMARY_KEY).map(|key| number(key)).transpose()?;
    let restored = TableSchema::restored(columns, key, metadata.contains_key(TIMESTAMPS), number(next)?)?;
    match metadata.get(INDEXES) {
        Some(indexes) => {
            let (indexes, next) = read_indexes(indexes)?;
            restored.with_restored_indexes(indexes, next)
        }
        None => Ok(restored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, Int64Array};
    use arrow::datatypes::DataType;
    use mvvd_core::VectorType;

    #[test]
    fn a_schema_comes_back_whole() {
        let fields = vec![
            (Field::new("id", DataType::Int64, true), None),
            (VectorType::parse("HALFVEC(3)").unwrap().field("v", true), None),
            (VectorType::parse("SPARSEVEC(9)").unwrap().field("s", true), Some("'{}/9'".to_owned())),
            (Field::new("created_at", DataType::Utf8, false), None),
            (Field::new("updated_at", DataType::Utf8, false), None),
        ];
        let schema = TableSchema::new(fields, Some("id"), true)
            .and_then(|s| {
                let seven: ArrayRef = Arc::new(Int64Array::from(vec![7]));
                s.with_column(Field::new("n", DataType::Int64, false), Some("7".into()), Some(seven))
            })
            .and_then(|s| s.without_column("v"))
            .unwrap();
        let index = |name: &str| IndexDef {
            id: 0,
            name: name.to_owned(),
            kind: "inverted".into(),
            metric: Metric::Dot,
            columns: vec![2],
            options: vec![("a".into(), "1".into())],
        };
        let schema = schema.with_index(index("gone")).and_then(|s| s.without_index("gone")).unwrap();
        let schema = schema.with_index(index("kept")).unwrap();
        let back = read_schema(&write_schema(&schema).unwrap()).unwrap();
        assert_eq!(back.arrow(), schema.arrow());
        assert_eq!(back.primary_key(), schema.primary_key());
        assert_eq!((back.indexes(), back.next_index_id()), (schema.indexes(), 2));
        assert_eq!((back.timestamps(), back.next_column_id()), (true, 6));
        assert_eq!(back.columns().iter().map(|c| c.id).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(back.columns()[1].default.as_deref(), Some("'{}/9'"));
        assert_eq!(back.columns()[4].initial.as_ref().map(|a| a.len()), Some(1));
        assert!(back.columns()[1].initial.is_none());
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let schema = TableSchema::new(vec![(Field::new("id", DataType::Int64, true), None)], None, false).unwrap();
        let bytes = write_schema(&schema).unwrap();
        for end in 0..bytes.len() {
            // The stream may lack its end mark; anything else is missed.
            if let Ok(back) = read_schema(&bytes[..end]) {
                assert_eq!(back.arrow(), schema.arrow());
            }
        }
    }
}
