//! A stream of record batches into a table, new or not, as one statement.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem};
use futures::StreamExt;
use futures::stream::BoxStream;
use mvvd_core::{Error, ErrorKind, Result};
use mvvd_storage::{Table, batch_bytes};

use crate::ddl::fill_table;
use crate::dml::now_micros;
use crate::error::from_df;
use crate::insert::widen;
use crate::native::entities::named_columns;
use crate::session::Session;
use crate::syntax::{scratch_relation, select_mut, select_template, unique_name};

/// How the names begin that SQL does not reach.
const RESERVED: &str = "__mvvd";

/// What an ingest does where the table does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// It fails.
    Fail,
    /// It makes the table, with the columns of the stream. A column `id` of distinct integers or texts becomes the key.
    Create,
}

/// What an ingest does where the table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// It fails.
    Fail,
    /// It adds the rows. Columns are found by name and cast to the table's types.
    Append,
    /// It puts a new table, with the columns of the stream, in the place of the old one.
    Replace,
}

/// Where the rows of a stream go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// Name of the table, exactly as it is.
    pub table: String,
    /// Where the table does not exist.
    pub if_missing: IfMissing,
    /// Where the table exists.
    pub if_exists: IfExists,
}

impl Session {
    /// Writes a stream of record batches of one schema into a table. Returns the number of rows.
    ///
    /// All or nothing: the rows are held, within the memory limit, until the stream has ended well, and no other writer
    /// waits meanwhile.
    pub async fn ingest(
        &self,
        target: Ingest,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<usize> {
        let session = self.clone();
        self.engine.bridge.run(async move { Box::pin(session.ingest_rows(&target, &schema, rows)).await }).await
    }

    async fn ingest_rows(
        &self,
        target: &Ingest,
        schema: &SchemaRef,
        mut rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<usize> {
        // What can be known to fail fails before the first row.
        check_name(&target.table)?;
        self.ingest_appends(target)?;
        let state = self.state();
        let memory = self.reserve(&state, "rows to write");
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            memory.try_grow(batch_bytes(&batch)).map_err(from_df)?;
            batches.push(batch);
        }
        if self.ingest_appends(target)? {
            return self.append_batches(&target.table, schema, batches, memory).await;
        }
        let (source, rows) = (Arc::clone(schema), batches.clone());
        let table = self.engine.bridge.block(move || fill_table(&[], None, false, &source, rows)).await?;
        // From here on the rows are on the account of the table.
        let bytes = memory.free();
        match self.add_filled(target, table).await? {
            Some(count) => Ok(count),
            // Somebody else has made the table meanwhile.
            None => {
                memory.try_grow(bytes).map_err(from_df)?;
                self.append_batches(&target.table, schema, batches, memory).await
            }
        }
    }

    /// Puts a table with its rows into the database; `None` if there is one by now that they can be added to.
    async fn add_filled(&self, target: &Ingest, table: Table) -> Result<Option<usize>> {
        let count = table.snapshot().live();
        let lock = self.engine.locks.lock(&target.table).await;
        let (database, name, if_exists) = (Arc::clone(&self.engine.database), target.table.clone(), target.if_exists);
        let add = move || {
            // Held to the end, even if nobody waits for it any more.
            let _lock = lock;
            match if_exists {
                IfExists::Replace => database.add_or_replace(&name, table),
                IfExists::Fail | IfExists::Append => database.add(&name, table),
            }
        };
        match self.engine.bridge.block(add).await {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && if_exists == IfExists::Append => Ok(None),
            added => added.map(|_| Some(count)),
        }
    }

    /// Whether the rows go into the table that exists; otherwise a table is made.
    fn ingest_appends(&self, target: &Ingest) -> Result<bool> {
        let name = &target.table;
        match (self.engine.database.find(name).is_some(), target.if_exists, target.if_missing) {
            (true, IfExists::Fail, _) => Err(Error::already_exists(format!("table \"{name}\" already exists"))),
            (true, IfExists::Append, _) => Ok(true),
            (false, _, IfMissing::Fail) => Err(Error::not_found(format!("table \"{name}\" does not exist"))),
            (true, IfExists::Replace, _) | (false, _, IfMissing::Create) => Ok(false),
        }
    }

    async fn append_batches(
        &self,
        name: &str,
        given: &Schema,
        batches: Vec<RecordBatch>,
        memory: MemoryReservation,
    ) -> Result<usize> {
        let needs_defaults = {
            let table = self.engine.database.table(name)?;
            let snapshot = table.snapshot();
            let columns = named_columns(&RecordBatch::new_empty(Arc::new(given.clone())), snapshot.schema())?;
            snapshot.schema().columns().iter().enumerate().any(|(i, c)| c.default.is_some() && !columns.contains(&i))
        };
        if needs_defaults {
            return self.append_with_defaults(name, given, batches).await;
        }
        let lock = self.engine.locks.lock_to_add(name).await;
        let table = self.engine.database.table(name)?;
        let schema = Arc::clone(table.head().schema());
        let now = now_micros();
        let rows = batches
            .into_iter()
            .map(|batch| widen(&batch, &named_columns(&batch, &schema)?, &schema, now))
            .collect::<Result<Vec<_>>>()?;
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        drop(memory);
        self.write(lock, table, Vec::new(), rows).await?;
        Ok(count)
    }

    /// An INSERT of a SELECT over the batches: each row gets its own value of a default such as `now()`.
    async fn append_with_defaults(&self, name: &str, given: &Schema, batches: Vec<RecordBatch>) -> Result<usize> {
        let columns: Vec<String> = given.fields().iter().map(|field| field.name().clone()).collect();
        let relation = MemTable::try_new(Arc::new(given.clone()), vec![batches]).map_err(from_df)?;
        let scratch = unique_name();
        let _lent = self.inner.catalog.lend(scratch.clone(), Arc::new(relation));
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.projection = columns
            .iter()
            .map(|column| SelectItem::UnnamedExpr(Expr::Identifier(Ident::with_quote('"', column))))
            .collect();
        select.from = vec![scratch_relation(&scratch, &scratch)];
        self.insert_query(name, &columns, query).await
    }
}

/// Refuses names that no statement could read or drop.
fn check_name(name: &str) -> Result<()> {
    match name.starts_with(RESERVED) {
        true => Err(Error::invalid(format!("table \"{name}\" cannot be written"))
            .with_hint(format!("names that start with {RESERVED} are the database's own: choose another one"))),
        false => Ok(()),
    }
}
