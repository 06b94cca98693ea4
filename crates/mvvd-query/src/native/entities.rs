//! Entities in and out: insert, get, update, delete over record batches.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Field;
use mvvd_core::{Error, Result, RowId, TableSchema};
use mvvd_storage::{Key, Snapshot, keys_of};

use crate::coerce::{to_field, to_table};
use crate::dml::{FEW_ROWS, now_micros, stamp_updated};
use crate::insert::widen;
use crate::session::Session;
use crate::syntax::parse_expr;
use crate::{Answer, Value};

/// What an insert does with a row whose key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The whole insert fails and changes nothing.
    #[default]
    Fail,
    /// The new row is left out.
    Ignore,
    /// The new row takes the place of the old one.
    Replace,
}

impl Session {
    /// Inserts rows. Columns are found by name and cast to the table's types; missing ones are NULL or their default.
    ///
    /// All or nothing. Returns the number of rows written.
    pub async fn insert(&self, table: &str, rows: RecordBatch, on_conflict: OnConflict) -> Result<usize> {
        // A few rows take less time than the way to another thread; a default takes a planner, and its stack.
        if rows.num_rows() <= FEW_ROWS && !self.has_defaults(table) {
            return self.insert_entities(table, rows, on_conflict).await;
        }
        let (session, name) = (self.clone(), table.to_owned());
        self.engine.bridge.run(async move { session.insert_entities(&name, rows, on_conflict).await }).await
    }

    fn has_defaults(&self, table: &str) -> bool {
        let table = self.engine.database.find(table);
        table.is_some_and(|table| table.snapshot().schema().columns().iter().any(|column| column.default.is_some()))
    }

    /// The rows with these keys, in the same order; keys that do not exist are left out.
    ///
    /// Finds rows by key, without a scan. `columns` empty means all.
    pub fn get(&self, table: &str, keys: &[Value], columns: &[&str]) -> Result<RecordBatch> {
        let snapshot = self.engine.database.table(table)?.snapshot();
        let schema = snapshot.schema();
        let projection = match columns.is_empty() {
            true => (0..schema.columns().len()).collect(),
            false => columns.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>>>()?,
        };
        snapshot.get(&table_keys(keys, schema)?, &projection)
    }

    /// Changes the given columns of rows that exist, found by key. A key that does not exist is an error.
    ///
    /// All or nothing. Returns the number of rows changed.
    pub async fn update(&self, table: &str, rows: RecordBatch) -> Result<usize> {
        let (session, name) = (self.clone(), table.to_owned());
        self.engine.bridge.run(async move { session.update_entities(&name, &rows).await }).await
    }

    /// Deletes rows by key; keys that do not exist are left out. Returns the number of rows deleted.
    pub async fn delete(&self, table: &str, keys: &[Value]) -> Result<usize> {
        let (session, name, keys) = (self.clone(), table.to_owned(), keys.to_vec());
        let run = async move {
            let lock = session.engine.locks.lock(&name).await;
            let handle = session.engine.database.table(&name)?;
            let head = handle.head();
            let mut rows: Vec<RowId> =
                found(&head, &table_keys(&keys, head.schema())?)?.into_iter().flatten().collect();
            rows.sort_unstable();
            rows.dedup();
            let count = rows.len();
            session.write(lock, handle, rows, Vec::new()).await?;
            Ok(count)
        };
        self.engine.bridge.run(run).await
    }

    /// Number of rows of a table.
    pub fn count(&self, table: &str) -> Result<usize> {
        Ok(self.engine.database.table(table)?.snapshot().live())
    }

    /// Runs a cross-vector query.
    pub async fn query(&self, query: crate::CrossVectorQuery) -> Result<Answer> {
        let session = self.clone();
        self.engine.bridge.run(async move { session.cross_vector(query).await }).await
    }

    async fn insert_entities(&self, name: &str, rows: RecordBatch, on_conflict: OnConflict) -> Result<usize> {
        let lock = match on_conflict {
            OnConflict::Fail => self.engine.locks.lock_to_add(name).await,
            OnConflict::Ignore | OnConflict::Replace => self.engine.locks.lock(name).await,
        };
        let handle = self.engine.database.table(name)?;
        let schema = &Arc::clone(handle.head().schema());
        let given = named_columns(&rows, schema)?;
        let rows = self.add_defaults(rows, &given, schema).await?;
        let given = named_columns(&rows, schema)?;
        let rows = widen(&rows, &given, schema, now_micros())?;
        let (old, rows) = match on_conflict {
            OnConflict::Fail => (Vec::new(), rows),
            OnConflict::Replace => {
                let keys = keys_of(rows.column(key_column(schema)?))?;
                (found(&handle.head(), &keys)?.into_iter().flatten().collect(), rows)
            }
            OnConflict::Ignore => {
                let keys = keys_of(rows.column(key_column(schema)?))?;
                let existing = found(&handle.head(), &keys)?;
                let mut seen = HashSet::new();
                let is_free = |i: &usize| existing[*i].is_none() && seen.insert(&keys[*i]);
                let free: UInt32Array = (0..keys.len()).filter(is_free).map(|i| i as u32).collect::<Vec<_>>().into();
                (Vec::new(), take_record_batch(&rows, &free)?)
            }
        };
        let count = rows.num_rows();
        self.write(lock, handle, old, vec![rows]).await?;
        Ok(count)
    }

    async fn update_entities(&self, name: &str, rows: &RecordBatch) -> Result<usize> {
        let lock = self.engine.locks.lock(name).await;
        let handle = self.engine.database.table(name)?;
        let snapshot = handle.head();
        let schema = &Arc::clone(snapshot.schema());
        let key = key_column(schema)?;
        let key_name = schema.columns()[key].field.name();
        let given = named_columns(rows, schema)?;
        let Some(key_position) = given.iter().position(|g| *g == key) else {
            return Err(Error::invalid(format!("the rows have no key column \"{key_name}\"")));
        };
        let column =
            to_field(rows.column(key_position), rows.schema().field(key_position), &schema.columns()[key].field)?;
        let keys = keys_of(&column)?;
        let found = found(&snapshot, &keys)?;
        if let Some(i) = found.iter().position(Option::is_none) {
            return Err(Error::not_found(format!("there is no row with {key_name} = {}", keys[i])));
        }
        let found: Vec<RowId> = found.into_iter().flatten().collect();
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        let current = snapshot.take(&snapshot.places(&found)?, &all)?;
        // Deleted rows that it holds may be what must make room.
        drop(snapshot);
        let mut columns = current.columns().to_vec();
        let mut fields: Vec<Field> =
            current.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        for (position, &index) in given.iter().enumerate() {
            columns[index] = Arc::clone(rows.column(position));
            fields[index] = rows.schema().field(position).clone().with_name(schema.columns()[index].field.name());
        }
        let changed = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?;
        let changed = stamp_updated(to_table(&changed, schema)?, schema)?;
        let count = changed.num_rows();
        self.write(lock, handle, found, vec![changed]).await?;
        Ok(count)
    }

    /// The batch with a column for each default that it does not give.
    async fn add_defaults(&self, rows: RecordBatch, given: &[usize], schema: &TableSchema) -> Result<RecordBatch> {
        let mut rows = rows;
        for (i, column) in schema.columns().iter().enumerate() {
            let Some(default) = column.default.as_deref().filter(|_| !given.contains(&i)) else { continue };
            let default = parse_expr(default)?;
            let mut values = Vec::with_capacity(rows.num_rows());
            for _ in 0..rows.num_rows() {
                values.push(self.default_value(default.clone(), &column.field).await?);
            }
            if values.is_empty() {
                continue;
            }
            let parts: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
            let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
            let mut columns = rows.columns().to_vec();
            fields.push(Arc::clone(&column.field));
            columns.push(arrow::compute::concat(&parts)?);
            rows = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?;
        }
        Ok(rows)
    }
}

/// The rows with these keys, in the same order.
fn found(snapshot: &Snapshot, keys: &[Key]) -> Result<Vec<Option<RowId>>> {
    keys.iter().map(|key| Ok(snapshot.find(key)?.map(|place| snapshot.row_id(place)))).collect()
}

fn key_column(schema: &TableSchema) -> Result<usize> {
    schema.primary_key().ok_or_else(|| Error::invalid("the table has no primary key"))
}

/// Parameter values as keys of a table.
fn table_keys(keys: &[Value], schema: &TableSchema) -> Result<Vec<Key>> {
    let key = key_column(schema)?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let column = Value::iter_to_array(keys.iter().cloned()).map_err(crate::error::from_df)?;
    let from = Field::new("key", column.data_type().clone(), true);
    keys_of(&to_field(&column, &from, &schema.columns()[key].field)?)
}

/// The table's columns that a batch names.
pub(crate) fn named_columns(rows: &RecordBatch, schema: &TableSchema) -> Result<Vec<usize>> {
    let mut columns = Vec::with_capacity(rows.num_columns());
    for field in rows.schema().fields() {
        let index = schema.index_of(field.name())?;
        if columns.contains(&index) {
            return Err(Error::invalid(format!("column \"{}\" comes twice", field.name())));
        }
        columns.push(index);
    }
    Ok(columns)
}
