//! The relations in schema `mvvd`: what the database knows about itself.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use mvvd_core::schema::sql_type;
use mvvd_storage::Database;

use crate::Settings;
use crate::settings::SETTINGS;

/// Names of the system tables.
pub(crate) const NAMES: &[&str] = &["columns", "settings", "tables"];

/// A system table with its content at this moment.
pub(crate) fn find(name: &str, database: &Database, settings: &Settings) -> Option<Arc<dyn TableProvider>> {
    let columns = match name {
        "tables" => tables(database),
        "columns" => columns(database),
        "settings" => settings_table(settings),
        _ => return None,
    };
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).ok()?;
    Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).ok()?))
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

fn numbers(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|v| v as i64)))
}

fn tables(database: &Database) -> Columns {
    let rows: Vec<_> = database
        .tables()
        .into_iter()
        .map(|(name, table)| {
            let schema = Arc::clone(table.snapshot().schema());
            let key = schema.primary_key().map(|i| schema.columns()[i].field.name().clone());
            (name, table.size(), schema, key, table.snapshot().version())
        })
        .collect();
    vec![
        ("name", text(rows.iter().map(|r| Some(r.0.as_str())))),
        ("rows", numbers(rows.iter().map(|r| r.1.rows))),
        ("columns", numbers(rows.iter().map(|r| r.2.columns().len()))),
        ("primary_key", text(rows.iter().map(|r| r.3.as_deref()))),
        ("timestamps", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.2.timestamps()))))),
        ("data_bytes", numbers(rows.iter().map(|r| r.1.data_bytes))),
        ("bookkeeping_bytes", numbers(rows.iter().map(|r| r.1.bookkeeping_bytes))),
        ("version", numbers(rows.iter().map(|r| r.4 as usize))),
    ]
}

fn columns(database: &Database) -> Columns {
    let mut rows = Vec::new();
    for (table, handle) in database.tables() {
        let schema = Arc::clone(handle.snapshot().schema());
        for (i, column) in schema.columns().iter().enumerate() {
            rows.push((table.clone(), i + 1, column.clone(), schema.primary_key() == Some(i)));
        }
    }
    let types: Vec<String> = rows.iter().map(|r| sql_type(&r.2.field)).collect();
    vec![
        ("table_name", text(rows.iter().map(|r| Some(r.0.as_str())))),
        ("column_name", text(rows.iter().map(|r| Some(r.2.field.name().as_str())))),
        ("ordinal", numbers(rows.iter().map(|r| r.1))),
        ("type", text(types.iter().map(|t| Some(t.as_str())))),
        ("nullable", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.2.field.is_nullable()))))),
        ("primary_key", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.3))))),
        ("default_value", text(rows.iter().map(|r| r.2.default.as_deref()))),
    ]
}

fn settings_table(settings: &Settings) -> Columns {
    let defaults = Settings::default();
    let shown = |s: &Settings, name: &str| s.get(name).unwrap_or_default();
    let names: Vec<String> = SETTINGS.iter().map(|s| format!("mvvd.{}", s.name)).collect();
    let values: Vec<String> = SETTINGS.iter().map(|s| shown(settings, s.name)).collect();
    let standard: Vec<String> = SETTINGS.iter().map(|s| shown(&defaults, s.name)).collect();
    vec![
        ("name", text(names.iter().map(|v| Some(v.as_str())))),
        ("value", text(values.iter().map(|v| Some(v.as_str())))),
        ("default_value", text(standard.iter().map(|v| Some(v.as_str())))),
        ("description", text(SETTINGS.iter().map(|s| Some(s.description)))),
    ]
}
