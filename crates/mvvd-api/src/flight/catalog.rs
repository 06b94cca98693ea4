//! What tables there are, in the shapes of Flight SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::Result as FlightResult;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables,
};
use mvvd_core::{Error, Result};
use mvvd_query::Session;

const TABLE: &str = "TABLE";
const SYSTEM_TABLE: &str = "SYSTEM TABLE";

/// The catalogs.
pub(crate) fn catalogs(session: &Session, command: CommandGetCatalogs) -> FlightResult<RecordBatch> {
    let mut builder = command.into_builder();
    if let Some((catalog, _)) = session.schemas().first() {
        builder.append(*catalog);
    }
    builder.build()
}

/// The schemas.
pub(crate) fn schemas(session: &Session, command: CommandGetDbSchemas) -> FlightResult<RecordBatch> {
    let mut builder = command.into_builder();
    for (catalog, schema) in session.schemas() {
        builder.append(catalog, schema);
    }
    builder.build()
}

/// The tables, with their Arrow schemas if wanted.
pub(crate) fn tables(session: &Session, command: CommandGetTables) -> FlightResult<RecordBatch> {
    let mut builder = command.into_builder();
    for table in session.tables() {
        let kind = if table.is_system { SYSTEM_TABLE } else { TABLE };
        builder.append(table.catalog, table.schema, &table.name, kind, &table.columns)?;
    }
    builder.build()
}

/// The kinds of tables.
pub(crate) fn table_types(command: CommandGetTableTypes) -> FlightResult<RecordBatch> {
    let mut builder = command.into_builder();
    builder.append(TABLE);
    builder.append(SYSTEM_TABLE);
    builder.build()
}

/// The primary key of a table, in at most one row; a table that does not exist has none.
pub(crate) fn primary_keys(session: &Session, command: &CommandGetPrimaryKeys) -> FlightResult<RecordBatch> {
    let fits = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let keys: Vec<_> = (session.tables().into_iter())
        .filter(|t| t.name == command.table && fits(&command.catalog, t.catalog) && fits(&command.db_schema, t.schema))
        .filter_map(|t| Some((t.catalog, t.schema, t.name, t.primary_key?)))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| k.0))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| k.1))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| k.2.as_str()))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|k| k.3.as_str()))),
        Arc::new(StringArray::from(vec![None::<&str>; keys.len()])),
        Arc::new(Int32Array::from(vec![1; keys.len()])),
    ];
    Ok(RecordBatch::try_new(primary_key_schema(), columns)?)
}

/// Columns of [`primary_keys`].
pub(crate) fn primary_key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Columns of the lists of foreign keys, which are empty: there are none.
pub(crate) fn foreign_key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// Whether a catalog and schema that a client names are those of the users' tables.
pub(crate) fn check_place(catalog: Option<&str>, schema: Option<&str>) -> Result<()> {
    if let Some(other) = catalog.filter(|name| !["", "mvvd"].contains(name)) {
        return Err(Error::not_found(format!("catalog \"{other}\" does not exist")).with_hint("the catalog is mvvd"));
    }
    match schema.filter(|name| !["", "public"].contains(name)) {
        Some("mvvd") => Err(Error::invalid("tables in schema mvvd are system tables and cannot be changed")),
        Some(other) => {
            Err(Error::not_found(format!("schema \"{other}\" does not exist")).with_hint("tables are in schema public"))
        }
        None => Ok(()),
    }
}
