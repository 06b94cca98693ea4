//! The relations in schema `mvvd`: what the database knows about itself.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use mvvd_core::schema::sql_type;
use mvvd_storage::{Database, Durability};

use crate::Settings;
use crate::settings::SETTINGS;

/// Names of the system tables.
pub(crate) const NAMES: &[&str] = &["columns", "indexes", "segments", "settings", "tables", "versions"];

/// A system table with its content at this moment.
pub(crate) fn find(name: &str, database: &Database, settings: &Settings) -> Option<Arc<dyn TableProvider>> {
    let columns = match name {
        "tables" => tables(database),
        "columns" => columns(database),
        "indexes" => indexes(database),
        "segments" => segments(database),
        "settings" => settings_table(settings, database),
        "versions" => versions(database),
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

fn indexes(database: &Database) -> Columns {
    let rows = database.index_states();
    let columns: Vec<String> = rows.iter().map(|r| r.columns.join(", ")).collect();
    let options: Vec<String> = rows
        .iter()
        .map(|r| {
            let options: Vec<String> = r.def.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            options.join(", ")
        })
        .collect();
    vec![
        ("table_name", text(rows.iter().map(|r| Some(r.table.as_str())))),
        ("name", text(rows.iter().map(|r| Some(r.def.name.as_str())))),
        ("kind", text(rows.iter().map(|r| Some(r.def.kind.as_str())))),
        ("columns", text(columns.iter().map(|c| Some(c.as_str())))),
        ("metric", text(rows.iter().map(|r| Some(r.def.metric.name())))),
        ("options", text(options.iter().map(|o| Some(o.as_str())))),
        ("rows", numbers(rows.iter().map(|r| r.rows))),
        ("rows_covered", numbers(rows.iter().map(|r| r.rows_covered))),
        ("bytes", numbers(rows.iter().map(|r| r.bytes))),
        ("state", text(rows.iter().map(|r| Some(r.state.as_str())))),
    ]
}

fn versions(database: &Database) -> Columns {
    let mut rows = Vec::new();
    for (table, handle) in database.tables() {
        let versions = handle.versions();
        let last = versions.len() - 1;
        rows.extend(versions.into_iter().enumerate().map(|(i, snapshot)| (table.clone(), snapshot, i == last)));
    }
    let created = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1.created())).with_timezone("UTC");
    vec![
        ("table_name", text(rows.iter().map(|r| Some(r.0.as_str())))),
        ("version", numbers(rows.iter().map(|r| r.1.version() as usize))),
        ("created_at", Arc::new(created)),
        ("rows", numbers(rows.iter().map(|r| r.1.live()))),
        ("is_current", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.2))))),
    ]
}

fn segments(database: &Database) -> Columns {
    let mut rows = Vec::new();
    for (table, handle) in database.tables() {
        for chunk in handle.snapshot().chunks() {
            if let Some(meta) = chunk.segment_meta() {
                rows.push((table.clone(), meta.clone(), chunk.deleted().len()));
            }
        }
    }
    vec![
        ("table_name", text(rows.iter().map(|r| Some(r.0.as_str())))),
        ("segment", numbers(rows.iter().map(|r| r.1.id as usize))),
        ("rows", numbers(rows.iter().map(|r| (r.1.rows - r.2) as usize))),
        ("deleted", numbers(rows.iter().map(|r| r.2 as usize))),
        ("bytes", numbers(rows.iter().map(|r| r.1.bytes as usize))),
        ("columns", numbers(rows.iter().map(|r| r.1.columns.len()))),
    ]
}

/// How the database was opened: shown beside the settings, and not to be changed by `SET`.
fn storage_settings(database: &Database) -> Vec<(&'static str, String, &'static str)> {
    let mode = database.disk().map_or("memory", |disk| disk.options().mode.name());
    let mut rows =
        vec![("storage.mode", mode.to_owned(), "where tables are kept: memory, disk or hybrid; --db, --storage")];
    rows.push((
        "storage.memory_bytes",
        database.memory_bytes().to_string(),
        "bytes of rows that are only in memory at this moment; part of the memory limit",
    ));
    if let Some(disk) = database.disk() {
        let options = disk.options();
        let durability = match options.durability {
            Durability::Sync => "sync".to_owned(),
            Durability::Interval(time) => format!("interval, {} ms", time.as_millis()),
            Durability::Off => "off".to_owned(),
        };
        rows.extend([
            (
                "storage.cache_bytes",
                options.cache_bytes.to_string(),
                "most bytes of columns that are kept in memory after they were copied or decrypted",
            ),
            ("storage.cached_bytes", disk.cached_bytes().to_string(), "bytes of such columns at this moment"),
            ("storage.durability", durability, "when a change counts as durable; --durability"),
            ("storage.encrypted", options.seal.is_some().to_string(), "whether all files are encrypted; --key-file"),
            (
                "storage.flush_bytes",
                options.flush_bytes.to_string(),
                "bytes of changes after which a table is flushed; at most an eighth of the memory limit",
            ),
            ("storage.read_only", options.read_only.to_string(), "whether nothing can be written; --read-only"),
        ]);
    }
    rows
}

fn settings_table(settings: &Settings, database: &Database) -> Columns {
    let storage = storage_settings(database);
    let defaults = Settings::default();
    let shown = |s: &Settings, name: &str| s.get(name).unwrap_or_default();
    let names: Vec<String> = SETTINGS.iter().map(|s| format!("mvvd.{}", s.name)).collect();
    let values: Vec<String> = SETTINGS.iter().map(|s| shown(settings, s.name)).collect();
    let standard: Vec<String> = SETTINGS.iter().map(|s| shown(&defaults, s.name)).collect();
    vec![
        ("name", text(names.iter().map(|v| Some(v.as_str())).chain(storage.iter().map(|s| Some(s.0))))),
        ("value", text(values.iter().map(|v| Some(v.as_str())).chain(storage.iter().map(|s| Some(s.1.as_str()))))),
        ("default_value", text(standard.iter().map(|v| Some(v.as_str())).chain(storage.iter().map(|_| None)))),
        ("description", text(SETTINGS.iter().map(|s| Some(s.description)).chain(storage.iter().map(|s| Some(s.2))))),
    ]
}
