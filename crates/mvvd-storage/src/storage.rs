//! What a place for tables must be able to do: the smallest interface by which another one could be put in.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use mvvd_core::{Error, ErrorKind, Result, RowId, TableSchema};

use crate::database::Database;
use crate::key::{Key, keys_of};
use crate::log::Commit;
use crate::scan::Scan;
use crate::snapshot::Snapshot;
use crate::table::Table;
use crate::validate::validate;

/// The rows of a table, batch by batch; what is read stays as it was when the scan began.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Tables of rows that are found by their primary keys. Every call may block on files.
///
/// `tests/it/conformance.rs` says the same as this text in tests that every implementation passes.
///
/// **Shapes.** Rows come and go as record batches. Rows that come have all columns of the table, in its order and of its
/// Arrow types. `columns` of rows that go are positions in the schema, in the order asked for, and may be none at all:
/// such batches have only a number of rows.
///
/// **Atomicity.** Each call happens as a whole or not at all, however many batches it has, and whoever reads at the same
/// time sees all of it or nothing. What a call that returned has written is as durable as the storage promises.
///
/// **Errors.** [`NotFound`](mvvd_core::ErrorKind::NotFound): there is no such table, or no row to update.
/// [`AlreadyExists`](mvvd_core::ErrorKind::AlreadyExists): a table of that name. [`Conflict`](mvvd_core::ErrorKind::Conflict):
/// a key that exists or comes twice.
/// [`Invalid`](mvvd_core::ErrorKind::Invalid): another number of columns, other types, a NULL where there must be none, a
/// value that its column cannot hold, a key asked for in a table that has none.
/// [`Exhausted`](mvvd_core::ErrorKind::Exhausted): no room. After any of them nothing is changed.
pub trait Storage: Send + Sync + Debug {
    /// Makes an empty table.
    fn create_table(&self, table: &str, schema: TableSchema) -> Result<()>;

    /// Removes a table and its rows. Scans that are under way go on.
    fn drop_table(&self, table: &str) -> Result<()>;

    /// The names of all tables, sorted.
    fn table_names(&self) -> Vec<String>;

    /// The schema of a table.
    fn schema(&self, table: &str) -> Result<Arc<TableSchema>>;

    /// Adds rows whose keys are new. Returns how many.
    fn insert(&self, table: &str, rows: &[RecordBatch]) -> Result<usize>;

    /// The rows with these keys, in the order and as often as they are named; keys that do not exist are left out.
    fn get(&self, table: &str, keys: &[Key], columns: &[usize]) -> Result<RecordBatch>;

    /// Puts rows in the place of those with the same keys, which must exist. Returns how many.
    fn update(&self, table: &str, rows: &[RecordBatch]) -> Result<usize>;

    /// Deletes the rows with these keys; keys that do not exist are left out. Returns how many went.
    fn delete(&self, table: &str, keys: &[Key]) -> Result<usize>;

    /// All rows in ascending order of their keys; of a table without a key, in the order in which they were inserted.
    fn scan(&self, table: &str, columns: &[usize]) -> Result<Rows>;

    /// Number of rows.
    fn count(&self, table: &str) -> Result<usize>;
}

/// In memory and in a directory, in either [`StorageMode`](crate::StorageMode): one engine.
impl Storage for Database {
    fn create_table(&self, table: &str, schema: TableSchema) -> Result<()> {
        self.create(table, schema).map(drop)
    }

    fn drop_table(&self, table: &str) -> Result<()> {
        self.drop_all(&[table.to_owned()])
    }

    fn table_names(&self) -> Vec<String> {
        self.tables().into_iter().map(|(name, _)| name).collect()
    }

    fn schema(&self, table: &str) -> Result<Arc<TableSchema>> {
        Ok(Arc::clone(self.table(table)?.snapshot().schema()))
    }

    fn insert(&self, table: &str, rows: &[RecordBatch]) -> Result<usize> {
        self.table(table)?.append(rows)?.wait()?;
        Ok(rows.iter().map(RecordBatch::num_rows).sum())
    }

    fn get(&self, table: &str, keys: &[Key], columns: &[usize]) -> Result<RecordBatch> {
        let snapshot = self.table(table)?.snapshot();
        key_column(table, snapshot.schema())?;
        snapshot.get(keys, columns)
    }

    fn update(&self, table: &str, rows: &[RecordBatch]) -> Result<usize> {
        let handle = self.table(table)?;
        change(&handle, |head| {
            let schema = head.schema();
            let column = key_column(table, schema)?;
            let name = schema.columns()[column].field.name();
            let mut old = Vec::new();
            for batch in rows {
                let keys = keys_of(validate(schema, batch)?.column(column))?;
                for (key, row) in keys.iter().zip(found(head, &keys)?) {
                    old.push(row.ok_or_else(|| Error::not_found(format!("there is no row with {name} = {key}")))?);
                }
            }
            Ok((handle.replace(&old, rows)?, old.len()))
        })
    }

    fn delete(&self, table: &str, keys: &[Key]) -> Result<usize> {
        let handle = self.table(table)?;
        change(&handle, |head| {
            key_column(table, head.schema())?;
            let mut rows: Vec<RowId> = found(head, keys)?.into_iter().flatten().collect();
            rows.sort_unstable();
            rows.dedup();
            Ok((handle.delete(&rows)?, rows.len()))
        })
    }

    fn scan(&self, table: &str, columns: &[usize]) -> Result<Rows> {
        Ok(Box::new(Scan::new(self.table(table)?.snapshot(), columns)?))
    }

    fn count(&self, table: &str) -> Result<usize> {
        Ok(self.table(table)?.snapshot().live())
    }
}

/// Makes a change to rows that were found in the head. Where another writer was faster, it starts over.
fn change(table: &Table, make: impl Fn(&Arc<Snapshot>) -> Result<(Commit, usize)>) -> Result<usize> {
    loop {
        let head = table.head();
        match make(&head) {
            Err(e) if e.kind() == ErrorKind::Conflict && !Arc::ptr_eq(&head, &table.head()) => {}
            made => {
                let (commit, rows) = made?;
                commit.wait()?;
                return Ok(rows);
            }
        }
    }
}

fn key_column(table: &str, schema: &TableSchema) -> Result<usize> {
    schema.primary_key().ok_or_else(|| Error::invalid(format!("table \"{table}\" has no primary key")))
}

fn found(snapshot: &Snapshot, keys: &[Key]) -> Result<Vec<Option<RowId>>> {
    keys.iter().map(|key| Ok(snapshot.find(key)?.map(|place| snapshot.row_id(place)))).collect()
}
