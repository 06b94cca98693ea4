//! UPDATE, DELETE, and how every statement changes a table: a query finds the rows and their new values, one call
//! changes the table.
//!
//! DataFusion's own DML is not used: it loses conditions (a DELETE with a subquery becomes a DELETE of everything).
//! Here the condition stays where it was written, in the WHERE of a SELECT over the same table with its row numbers.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef, UInt64Type};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, Expr, Ident, SelectItem, TableFactor, TableWithJoins,
};
use futures::StreamExt;
use mvvd_core::schema::UPDATED_AT;
use mvvd_core::{Error, Result, RowId, TableSchema};
use mvvd_storage::{Table, batch_bytes};
use tokio::sync::oneshot;

use crate::Value;
use crate::answer::Answer;
use crate::coerce::to_table;
use crate::ddl::table_name;
use crate::declared::{declared, is_default, typed};
use crate::error::from_df;
use crate::locks::WriteLock;
use crate::prepare::normal;
use crate::progress::Meter;
use crate::scan_exec::ROW_ID;
use crate::session::Session;
use crate::syntax::{column_of, rows_relation, select_mut, select_template};

/// So many rows are written on the caller's own thread.
pub(crate) const FEW_ROWS: usize = 4;

/// What a statement will do to a table, decided before anything is changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Rows that go.
    pub(crate) remove: Vec<RowId>,
    /// Rows that come, in the table's schema.
    pub(crate) add: Vec<RecordBatch>,
}

impl Session {
    pub(crate) async fn update_statement(&self, update: ast::Update, params: &[Value]) -> Result<Answer> {
        if update.limit.is_some() || !update.order_by.is_empty() {
            return Err(Error::unsupported("UPDATE … LIMIT is not supported")
                .with_hint("use WHERE id IN (SELECT id FROM … LIMIT …)"));
        }
        if update.or.is_some() || update.output.is_some() {
            return Err(Error::unsupported("this form of UPDATE is not supported"));
        }
        let (name, alias) = target(&update.table)?;
        let lock = self.engine.locks.lock(&name).await;
        let table = self.engine.database.table(&name)?;
        let schema = Arc::clone(table.head().schema());
        let mut from = vec![rows_relation(&name, &alias)];
        match update.from {
            Some(ast::UpdateTableFromKind::BeforeSet(more) | ast::UpdateTableFromKind::AfterSet(more)) => {
                from.extend(more)
            }
            None => {}
        }
        let change = self.updated_rows(&schema, &alias, from, &update.assignments, update.selection, params).await?;
        self.commit("UPDATE", &alias, table, change, update.returning, params, lock).await
    }

    pub(crate) async fn delete_statement(&self, delete: ast::Delete, params: &[Value]) -> Result<Answer> {
        if delete.limit.is_some() || !delete.order_by.is_empty() {
            return Err(Error::unsupported("DELETE … LIMIT is not supported")
                .with_hint("use WHERE id IN (SELECT id FROM … LIMIT …)"));
        }
        let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) = &delete.from;
        let [only] = tables.as_slice() else { return Err(Error::unsupported("DELETE takes one table")) };
        if !delete.tables.is_empty() || delete.output.is_some() {
            return Err(Error::unsupported("this form of DELETE is not supported"));
        }
        let (name, alias) = target(only)?;
        let lock = self.engine.locks.lock(&name).await;
        let table = self.engine.database.table(&name)?;
        let mut from = vec![rows_relation(&name, &alias)];
        from.extend(delete.using.unwrap_or_default());
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.projection = vec![SelectItem::UnnamedExpr(column_of(&alias, ROW_ID))];
        select.from = from;
        select.selection = delete.selection;
        let (_, batches, _memory) = self.collect_query(ast::Statement::Query(query), params, "").await?;
        let remove = row_ids(&batches);
        let returned = match delete.returning {
            Some(items) => {
                let schema = Arc::clone(table.head().schema().arrow());
                let old = vec![table.take(&remove)?];
                Some(self.returning(items, &alias, &schema, old, params).await?)
            }
            None => None,
        };
        let count = remove.len();
        self.write(lock, table, remove, Vec::new()).await?;
        Ok(answer("DELETE", count, returned))
    }

    /// Makes a change durable and visible. The next writer begins as soon as the change is recorded.
    ///
    /// No thread waits for the log meanwhile, so any number of statements share one sync.
    pub(crate) async fn write(
        &self,
        lock: WriteLock,
        table: Arc<Table>,
        remove: Vec<RowId>,
        add: Vec<RecordBatch>,
    ) -> Result<()> {
        let rows = remove.len() + add.iter().map(RecordBatch::num_rows).sum::<usize>();
        let may_wait = rows > FEW_ROWS || table.may_wait(&add);
        let change = move || {
            let commit = table.replace(&remove, &add);
            drop(lock);
            commit
        };
        let commit = if may_wait { self.engine.bridge.block(change).await? } else { change()? };
        let (send, receive) = oneshot::channel();
        // Nobody listens any more if the statement was cancelled; what is recorded happens all the same.
        commit.then(move |result| drop(send.send(result)));
        receive.await.unwrap_or_else(|_| Err(Error::internal("the log went away")))
    }

    /// Computes RETURNING, then makes the change.
    #[expect(clippy::too_many_arguments, reason = "each is something else, and only statements call it")]
    pub(crate) async fn commit(
        &self,
        tag: &'static str,
        alias: &str,
        table: Arc<Table>,
        change: Change,
        returning: Option<Vec<SelectItem>>,
        params: &[Value],
        lock: WriteLock,
    ) -> Result<Answer> {
        let returned = match returning {
            Some(items) => {
                let schema = Arc::new(nullable(table.head().schema().arrow()));
                Some(self.returning(items, alias, &schema, change.add.clone(), params).await?)
            }
            None => None,
        };
        let count = change.add.iter().map(RecordBatch::num_rows).sum();
        self.write(lock, table, change.remove, change.add).await?;
        Ok(answer(tag, count, returned))
    }

    /// An account of memory that this statement holds.
    pub(crate) fn reserve(&self, state: &SessionState, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&state.runtime_env().memory_pool)
    }

    /// Runs a query to its end, within the memory limit; its rows are accounted for while the reservation lives.
    pub(crate) async fn collect_query(
        &self,
        query: ast::Statement,
        params: &[Value],
        label: &str,
    ) -> Result<(SchemaRef, Vec<RecordBatch>, MemoryReservation)> {
        let state = self.writing_state();
        let plan = self.plan(&state, query, params).await?;
        let physical = state.create_physical_plan(&plan).await.map_err(from_df)?;
        let schema = physical.schema();
        let total = known_rows(&physical);
        let progress = if label.is_empty() { None } else { self.inner.progress.read().clone() };
        let meter = Meter::start(progress, label, total);
        let reservation = self.reserve(&state, "rows to write");
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(from_df)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(from_df)?;
            reservation.try_grow(batch_bytes(&batch)).map_err(from_df)?;
            meter.advance(batch.num_rows());
            batches.push(batch);
        }
        Ok((schema, batches, reservation))
    }

    /// The rows that an UPDATE over `from` (the first relation is the target with its row numbers) replaces.
    ///
    /// A row that a join finds more than once is changed once, by the first match.
    pub(crate) async fn updated_rows(
        &self,
        schema: &TableSchema,
        alias: &str,
        from: Vec<TableWithJoins>,
        assignments: &[Assignment],
        selection: Option<Expr>,
        params: &[Value],
    ) -> Result<Change> {
        let mut values: Vec<Option<Expr>> = vec![None; schema.columns().len()];
        for assignment in assignments {
            let column = assigned_column(assignment, alias, schema)?;
            if values[column].is_some() {
                return Err(Error::invalid(format!(
                    "column \"{}\" is assigned twice",
                    schema.columns()[column].field.name()
                )));
            }
            values[column] = Some(match is_default(&assignment.value) {
                true => declared(&schema.columns()[column])?.default.unwrap_or_else(|| Expr::value(ast::Value::Null)),
                false => typed(assignment.value.clone(), &declared(&schema.columns()[column])?),
            });
        }
        let touched_updated_at =
            schema.columns().iter().zip(&values).any(|(c, v)| c.field.name() == UPDATED_AT && v.is_some());
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.projection = vec![SelectItem::UnnamedExpr(column_of(alias, ROW_ID))];
        for (i, (column, value)) in schema.columns().iter().zip(values).enumerate() {
            let expr = value.unwrap_or_else(|| column_of(alias, column.field.name()));
            select
                .projection
                .push(SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("__mvvd_{i}")) });
        }
        select.from = from;
        select.selection = selection;
        let (_, batches, _memory) = self.collect_query(ast::Statement::Query(query), params, "").await?;
        let schema = schema.clone();
        self.engine.bridge.block(move || changed_rows(&schema, batches, !touched_updated_at)).await
    }
}

pub(crate) fn answer(tag: &'static str, count: usize, returned: Option<(SchemaRef, Vec<RecordBatch>)>) -> Answer {
    match returned {
        Some((schema, batches)) => Answer::batches(tag, schema, batches).with_rows_affected(count),
        None => Answer::changed(tag, count),
    }
}

/// What an UPDATE changes, from the rows of its query: the name of each row, then its columns. A row that comes more
/// than once is changed once, as it comes first.
fn changed_rows(schema: &TableSchema, batches: Vec<RecordBatch>, stamp: bool) -> Result<Change> {
    let mut seen = HashSet::new();
    let mut change = Change::default();
    for batch in batches {
        let ids = batch.column(0).as_primitive::<UInt64Type>();
        let fresh: UInt32Array =
            (0..batch.num_rows()).filter(|&i| seen.insert(ids.value(i))).map(|i| i as u32).collect::<Vec<_>>().into();
        let batch = if fresh.len() == batch.num_rows() { batch } else { take_record_batch(&batch, &fresh)? };
        change.remove.extend(batch.column(0).as_primitive::<UInt64Type>().values().iter().map(|id| RowId(*id)));
        let values = batch.project(&(1..batch.num_columns()).collect::<Vec<_>>())?;
        let mut row = to_table(&values, schema)?;
        if stamp {
            row = stamp_updated(row, schema)?;
        }
        change.add.push(row);
    }
    Ok(change)
}

fn row_ids(batches: &[RecordBatch]) -> Vec<RowId> {
    let mut rows: Vec<RowId> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().values().iter().map(|id| RowId(*id)))
        .collect();
    // USING may find a row more than once.
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The batch with the current time as `updated_at`, if the table keeps it.
pub(crate) fn stamp_updated(batch: RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    if !schema.timestamps() {
        return Ok(batch);
    }
    let mut columns = batch.columns().to_vec();
    columns[schema.index_of(UPDATED_AT)?] = time_column(now_micros(), batch.num_rows());
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The current time in microseconds since 1970, read once for a statement.
pub(crate) fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// The same time for each row, of type [`time_type`](crate::ddl::time_type).
pub(crate) fn time_column(now: i64, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(now, rows).with_timezone("UTC"))
}

fn assigned_column(assignment: &Assignment, alias: &str, schema: &TableSchema) -> Result<usize> {
    let AssignmentTarget::ColumnName(name) = &assignment.target else {
        return Err(Error::unsupported("SET (a, b) = … is not supported").with_hint("write SET a = …, b = …"));
    };
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(normal)).collect();
    match parts.as_deref() {
        Some([column]) => schema.index_of(column),
        Some([table, column]) if table == alias => schema.index_of(column),
        _ => Err(Error::invalid(format!("{name} is no column of \"{alias}\""))),
    }
}

/// Name and alias of the table that an UPDATE or DELETE changes.
pub(crate) fn target(table: &TableWithJoins) -> Result<(String, String)> {
    let TableFactor::Table { name, alias, args: None, .. } = &table.relation else {
        return Err(Error::unsupported(format!("{} cannot be changed", table.relation)));
    };
    if !table.joins.is_empty() {
        return Err(Error::unsupported("joins in the target are not supported")
            .with_hint("use UPDATE … FROM or DELETE … USING"));
    }
    let name = table_name(name)?;
    let alias = alias.as_ref().map_or_else(|| name.clone(), |alias| normal(&alias.name));
    Ok((name, alias))
}

pub(crate) fn nullable(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}

/// How many rows a plan will give, if that is known before it runs.
pub(crate) fn known_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    #[expect(deprecated, reason = "the replacement needs a context that only the optimizer makes")]
    let statistics = plan.partition_statistics(None).ok()?;
    statistics.num_rows.get_value().map(|rows| *rows as u64)
}
