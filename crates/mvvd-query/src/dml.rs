//! INSERT, UPDATE, DELETE: a query finds the rows and their new values, one call changes the table.
//!
//! DataFusion's own DML is not used: it loses conditions (a DELETE with a subquery becomes a DELETE of everything).
//! Here the condition stays where it was written, in the WHERE of a SELECT over the same table with its row numbers.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, ConflictTarget, Expr, Ident, ObjectName, OnConflictAction, OnInsert, Query,
    SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
};
use futures::StreamExt;
use mvvd_core::convert::to_vectors;
use mvvd_core::schema::{CREATED_AT, UPDATED_AT, sql_type};
use mvvd_core::{Error, Result, RowId, TableSchema, VectorType};
use mvvd_storage::{Key, Place, Snapshot, Table, batch_bytes, keys_of};
use tokio::sync::oneshot;

use crate::Value;
use crate::answer::Answer;
use crate::coerce::to_table;
use crate::constants::{constant_rows, plain_values};
use crate::ddl::table_name;
use crate::error::from_df;
use crate::locks::WriteLock;
use crate::prepare::{cast_to, normal};
use crate::progress::Meter;
use crate::rewrite::values_with_subqueries;
use crate::scan_exec::{ROW_ID, with_row_id};
use crate::session::Session;
use crate::syntax::{
    and, column_of, equals, parse_expr, rows_relation, scratch_relation, select_mut, select_template, unique_name,
};

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
    pub(crate) async fn insert_statement(&self, insert: ast::Insert, params: &[Value]) -> Result<Answer> {
        check_insert(&insert)?;
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT takes a table name"));
        };
        let name = table_name(name)?;
        let lock = match insert.on {
            None => self.engine.locks.lock_to_add(&name).await,
            Some(_) => self.engine.locks.lock(&name).await,
        };
        let table = self.engine.database.table(&name)?;
        let schema = Arc::clone(table.head().schema());
        let columns = insert_columns(&insert.columns, &schema)?;
        let rows = self.insert_rows(insert.source, columns, &schema, params).await?;
        let alias = insert.table_alias.as_ref().map_or_else(|| name.clone(), |a| normal(&a.alias));
        let change = match &insert.on {
            None => Change { remove: Vec::new(), add: rows },
            Some(OnInsert::OnConflict(conflict)) => {
                self.resolve_conflicts(&table.head(), &alias, rows, conflict, params).await?
            }
            Some(_) => {
                return Err(Error::unsupported("ON DUPLICATE KEY is not supported")
                    .with_hint("use ON CONFLICT (key) DO UPDATE SET …"));
            }
        };
        self.commit("INSERT", &alias, table, change, insert.returning, params, lock).await
    }

    /// Runs an INSERT of a few constants on the caller's own thread, which takes less time than the way to another one
    /// and back. `None` for any other statement; nothing has happened then.
    pub(crate) async fn insert_few(&self, statement: &ast::Statement, params: &[Value]) -> Result<Option<Answer>> {
        let ast::Statement::Insert(insert) = statement else { return Ok(None) };
        let is_plain = insert.on.is_none() && insert.returning.is_none() && check_insert(insert).is_ok();
        let ast::TableObject::TableName(name) = &insert.table else { return Ok(None) };
        let Some(source) = insert.source.as_deref() else { return Ok(None) };
        let Some(rows) = plain_values(source).filter(|rows| is_plain && rows.len() <= FEW_ROWS) else {
            return Ok(None);
        };
        let name = table_name(name)?;
        let lock = self.engine.locks.lock_to_add(&name).await;
        let Some(table) = self.engine.database.find(&name) else { return Ok(None) };
        let schema = Arc::clone(table.head().schema());
        let columns = insert_columns(&insert.columns, &schema)?;
        let Some(batch) = constant_rows(source, &columns, &schema, params) else { return Ok(None) };
        self.write(lock, table, Vec::new(), vec![widen(&batch, &columns, &schema, now_micros())?]).await?;
        Ok(Some(answer("INSERT", rows.len(), None)))
    }

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
    async fn commit(
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

    /// The rows that an INSERT brings, in the table's schema, defaults filled in.
    async fn insert_rows(
        &self,
        source: Option<Box<Query>>,
        columns: Vec<usize>,
        schema: &TableSchema,
        params: &[Value],
    ) -> Result<Vec<RecordBatch>> {
        if let Some(source) = source.as_deref()
            && let Some(rows) = constant_rows(source, &columns, schema, params)
        {
            return Ok(vec![widen(&rows, &columns, schema, now_micros())?]);
        }
        let mut source = source.unwrap_or_else(|| {
            // DEFAULT VALUES: one row of nothing.
            let mut query = select_template();
            select_mut(&mut query).projection = Vec::new();
            query
        });
        let columns = if is_empty_select(&source) { Vec::new() } else { columns };
        let declared: Vec<Declared> = schema.columns().iter().map(declared).collect::<Result<_>>()?;
        type_values(&mut source, &columns, &declared)?;
        values_with_subqueries(&mut source.body)?;
        let missing: Vec<usize> = (0..schema.columns().len()).filter(|i| !columns.contains(i)).collect();
        let query = if missing.iter().any(|i| declared[*i].default.is_some()) {
            with_defaults(source, &columns, &declared)
        } else {
            source
        };
        let has_all = missing.iter().any(|i| declared[*i].default.is_some());
        let (read, batches, _memory) = self.collect_query(ast::Statement::Query(query), params, "INSERT").await?;
        let given = if has_all { (0..schema.columns().len()).collect() } else { columns };
        if !is_empty_row(&read, &given) && read.fields().len() != given.len() {
            return Err(Error::invalid(format!(
                "expected {} values in each row, got {}",
                given.len(),
                read.fields().len()
            ))
            .with_hint(format!("the columns are {}", names(schema, &given).join(", "))));
        }
        let (schema, now) = (schema.clone(), now_micros());
        let widen_all = move || batches.iter().map(|batch| widen(batch, &given, &schema, now)).collect();
        self.engine.bridge.block(widen_all).await
    }

    /// INSERT of a query's rows into columns named `columns`: how COPY and the native API write.
    pub(crate) async fn insert_query(&self, name: &str, columns: &[String], query: Box<Query>) -> Result<usize> {
        let lock = self.engine.locks.lock_to_add(name).await;
        let table = self.engine.database.table(name)?;
        let schema = Arc::clone(table.head().schema());
        let columns = columns.iter().map(|column| schema.index_of(column)).collect::<Result<Vec<_>>>()?;
        let rows = self.insert_rows(Some(query), columns, &schema, &[]).await?;
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        self.write(lock, table, Vec::new(), rows).await?;
        Ok(count)
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

    /// Sorts new rows into those that are free and those whose key exists, and applies the conflict action.
    async fn resolve_conflicts(
        &self,
        snapshot: &Arc<Snapshot>,
        alias: &str,
        rows: Vec<RecordBatch>,
        conflict: &ast::OnConflict,
        params: &[Value],
    ) -> Result<Change> {
        let schema = snapshot.schema();
        let key = check_conflict_target(conflict, schema)?;
        let action = match &conflict.action {
            OnConflictAction::DoUpdate(action) => Some(action),
            OnConflictAction::DoNothing => None,
        };
        let (snapshot, is_update) = (Arc::clone(snapshot), action.is_some());
        let split = self.engine.bridge.block(move || Split::of(&snapshot, key, &rows, is_update)).await?;
        let Split { free, excluded, current, ids } = split;
        let Some(action) = action.filter(|_| excluded.num_rows() > 0) else {
            return Ok(Change { remove: Vec::new(), add: vec![free] });
        };

        // Pair each row with the one that was to replace it, and treat it as an UPDATE … FROM.
        let pair = Field::new(PAIR, DataType::UInt32, false);
        let pairs: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..ids.len() as u32));
        let relation = |batch: &RecordBatch, extra: Vec<(Field, ArrayRef)>| -> Result<Arc<MemTable>> {
            let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
            let mut columns = batch.columns().to_vec();
            for (field, array) in extra {
                fields.push(Arc::new(field));
                columns.push(array);
            }
            let schema = Arc::new(Schema::new(fields));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(from_df)?))
        };
        let row_id = with_row_id(schema.arrow()).field(schema.columns().len()).clone();
        let (old_name, new_name) = (unique_name(), unique_name());
        let _old = self
            .inner
            .catalog
            .lend(old_name.clone(), relation(&current, vec![(row_id, ids), (pair.clone(), Arc::clone(&pairs))])?);
        let _new = self.inner.catalog.lend(new_name.clone(), relation(&excluded, vec![(pair, pairs)])?);
        let from = vec![scratch_relation(&old_name, alias), scratch_relation(&new_name, EXCLUDED)];
        let paired = equals(column_of(alias, PAIR), column_of(EXCLUDED, PAIR));
        let selection = match &action.selection {
            Some(condition) => and(paired, Expr::Nested(Box::new(condition.clone()))),
            None => paired,
        };
        let mut change = self.updated_rows(schema, alias, from, &action.assignments, Some(selection), params).await?;
        change.add.insert(0, free);
        Ok(change)
    }

    /// The rows that an UPDATE over `from` (the first relation is the target with its row numbers) replaces.
    ///
    /// A row that a join finds more than once is changed once, by the first match.
    async fn updated_rows(
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

/// Name of the proposed row in ON CONFLICT DO UPDATE.
const EXCLUDED: &str = "excluded";
/// Column that pairs a row with the one proposed for it.
const PAIR: &str = "__mvvd_pair";

fn answer(tag: &'static str, count: usize, returned: Option<(SchemaRef, Vec<RecordBatch>)>) -> Answer {
    match returned {
        Some((schema, batches)) => Answer::batches(tag, schema, batches).with_rows_affected(count),
        None => Answer::changed(tag, count),
    }
}

/// The rows of an INSERT … ON CONFLICT, by whether their key exists.
struct Split {
    free: RecordBatch,
    /// The others, and the rows that they meet, in the same order.
    excluded: RecordBatch,
    current: RecordBatch,
    /// The names of those.
    ids: ArrayRef,
}

impl Split {
    /// Without `is_update`, rows that others meet are left out, and of new ones with the same key all but the first.
    fn of(snapshot: &Snapshot, key: usize, rows: &[RecordBatch], is_update: bool) -> Result<Self> {
        let schema = snapshot.schema();
        let rows = concat_batches(&Arc::new(nullable(schema.arrow())), rows)?;
        let keys = keys_of(rows.column(key))
            .map_err(|e| e.context(format!("column \"{}\"", schema.columns()[key].field.name())))?;
        let existing = keys.iter().map(|key| snapshot.find(key)).collect::<Result<Vec<Option<Place>>>>()?;
        let mut seen: HashSet<&Key> = HashSet::new();
        let first_time: Vec<bool> = keys.iter().map(|key| seen.insert(key)).collect();
        if let Some(i) = first_time.iter().position(|first| !first).filter(|_| is_update) {
            return Err(Error::conflict(format!(
                "ON CONFLICT DO UPDATE cannot change a row twice: key {} comes twice",
                keys[i]
            ))
            .with_hint("make the keys of the inserted rows distinct"));
        }
        let pick = |wanted: &dyn Fn(usize) -> bool| -> Result<RecordBatch> {
            let picked: UInt32Array =
                (0..rows.num_rows()).filter(|&i| wanted(i)).map(|i| i as u32).collect::<Vec<_>>().into();
            Ok(take_record_batch(&rows, &picked)?)
        };
        let found: Vec<Place> = existing.iter().flatten().filter(|_| is_update).copied().collect();
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        Ok(Self {
            free: pick(&|i| existing[i].is_none() && first_time[i])?,
            excluded: pick(&|i| is_update && existing[i].is_some())?,
            current: snapshot.take(&found, &all)?,
            ids: Arc::new(UInt64Array::from_iter_values(found.iter().map(|place| snapshot.row_id(*place).0))),
        })
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

fn check_insert(insert: &ast::Insert) -> Result<()> {
    let refused = [
        (insert.or.is_some() || insert.replace_into, "INSERT OR REPLACE", "use ON CONFLICT (key) DO UPDATE SET …"),
        (insert.ignore, "INSERT IGNORE", "use ON CONFLICT DO NOTHING"),
        (insert.overwrite, "INSERT OVERWRITE", "use TRUNCATE first"),
        (insert.partitioned.is_some(), "PARTITION", "leave it out"),
        (!insert.assignments.is_empty(), "INSERT … SET", "use INSERT INTO t (columns) VALUES (…)"),
        (insert.output.is_some(), "OUTPUT", "use RETURNING"),
    ];
    match refused.into_iter().find(|(used, ..)| *used) {
        Some((_, clause, hint)) => Err(Error::unsupported(format!("{clause} is not supported")).with_hint(hint)),
        None => Ok(()),
    }
}

fn check_conflict_target(conflict: &ast::OnConflict, schema: &TableSchema) -> Result<usize> {
    let Some(key) = schema.primary_key() else {
        return Err(Error::invalid("ON CONFLICT needs a table with a primary key"));
    };
    let name = schema.columns()[key].field.name();
    match &conflict.conflict_target {
        None if matches!(conflict.action, OnConflictAction::DoNothing) => Ok(key),
        None => Err(Error::invalid("ON CONFLICT DO UPDATE needs the conflict column")
            .with_hint(format!("write ON CONFLICT ({name})"))),
        Some(ConflictTarget::Columns(columns)) if columns.len() == 1 && normal(&columns[0]) == *name => Ok(key),
        Some(_) => {
            Err(Error::invalid("ON CONFLICT takes the primary key").with_hint(format!("write ON CONFLICT ({name})")))
        }
    }
}

/// Positions of the columns that an INSERT names, all of them if it names none.
pub(crate) fn insert_columns(names: &[ObjectName], schema: &TableSchema) -> Result<Vec<usize>> {
    if names.is_empty() {
        // The kept timestamps may be left out.
        return Ok((0..schema.columns().len()).filter(|&i| !is_kept(schema, i)).collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let [part] = name.0.as_slice() else { return Err(Error::invalid(format!("{name} is no column of the table"))) };
        let column = schema.index_of(&part.as_ident().map_or_else(|| part.to_string(), normal))?;
        if columns.contains(&column) {
            return Err(Error::invalid(format!("column \"{}\" is named twice", schema.columns()[column].field.name())));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn is_kept(schema: &TableSchema, column: usize) -> bool {
    schema.timestamps() && [CREATED_AT, UPDATED_AT].contains(&schema.columns()[column].field.name().as_str())
}

fn names(schema: &TableSchema, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|&i| schema.columns()[i].field.name().clone()).collect()
}

/// A column's type and default as syntax, for casts inside the statement.
struct Declared {
    name: String,
    ty: Option<ast::DataType>,
    vector: Option<VectorType>,
    default: Option<Expr>,
}

fn declared(column: &mvvd_core::schema::Column) -> Result<Declared> {
    // A type without a name in SQL (a struct, say) is cast after the query instead.
    let ty = match parse_expr(&format!("CAST(NULL AS {})", sql_type(&column.field))) {
        Ok(Expr::Cast { data_type, .. }) => Some(data_type),
        _ => None,
    };
    let default = column.default.as_deref().map(parse_expr).transpose()?;
    Ok(Declared { name: column.field.name().clone(), ty, vector: VectorType::of_field(&column.field), default })
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}

/// A value with a cast where planning needs to know its type: vectors in any notation, and parameters.
fn typed(expr: Expr, column: &Declared) -> Expr {
    let is_parameter = matches!(&expr, Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)));
    match &column.ty {
        Some(ty) if column.vector.is_some() || is_parameter => cast_to(expr, ty.clone()),
        _ => expr,
    }
}

/// Gives the values of a VALUES list their columns' types and defaults.
fn type_values(source: &mut Query, columns: &[usize], declared: &[Declared]) -> Result<()> {
    let SetExpr::Values(values) = source.body.as_mut() else { return Ok(()) };
    for (number, row) in values.rows.iter_mut().enumerate() {
        if row.content.len() != columns.len() {
            return Err(Error::invalid(format!(
                "expected {} values, row {} has {}",
                columns.len(),
                number + 1,
                row.content.len()
            )));
        }
        for (value, &column) in row.content.iter_mut().zip(columns) {
            let column = &declared[column];
            check_literal(value, column, number)?;
            let given = std::mem::replace(value, Expr::value(ast::Value::Null));
            *value = match is_default(&given) {
                true => column.default.clone().unwrap_or_else(|| Expr::value(ast::Value::Null)),
                false => given,
            };
            let given = std::mem::replace(value, Expr::value(ast::Value::Null));
            *value = typed(given, column);
        }
    }
    Ok(())
}

/// Reads a vector literal ahead of planning, so that its error names column and row.
fn check_literal(value: &Expr, column: &Declared, row: usize) -> Result<()> {
    let Some(ty) = column.vector else { return Ok(()) };
    let Expr::Value(literal) = value else { return Ok(()) };
    let ast::Value::SingleQuotedString(text) = &literal.value else { return Ok(()) };
    let text = arrow::array::StringArray::from(vec![text.as_str()]);
    match to_vectors(&text, None, ty) {
        Ok(_) => Ok(()),
        Err(e) => Err(e.error.context(format!("column \"{}\", row {}", column.name, row + 1))),
    }
}

/// `SELECT given or default for every column FROM (source)`: each row gets its own value of a default such as `now()`.
fn with_defaults(source: Box<Query>, columns: &[usize], declared: &[Declared]) -> Box<Query> {
    let ident = |i: usize| Ident::with_quote('"', format!("__mvvd_{i}"));
    let mut query = select_template();
    let select = select_mut(&mut query);
    select.projection = declared
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let expr = match (columns.contains(&i), &column.default) {
                (true, _) => Expr::Identifier(ident(i)),
                (false, Some(default)) => default.clone(),
                (false, None) => Expr::value(ast::Value::Null),
            };
            SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("__mvvd_out_{i}")) }
        })
        .collect();
    if !columns.is_empty() {
        let alias = TableAlias {
            explicit: true,
            name: Ident::with_quote('"', "__mvvd_source"),
            columns: columns.iter().map(|&i| ast::TableAliasColumnDef { name: ident(i), data_type: None }).collect(),
            at: None,
        };
        let derived = TableFactor::Derived { lateral: false, subquery: source, alias: Some(alias), sample: None };
        select.from = vec![TableWithJoins { relation: derived, joins: Vec::new() }];
    }
    query
}

fn is_empty_select(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select.projection.is_empty() && select.from.is_empty())
}

fn is_empty_row(read: &SchemaRef, given: &[usize]) -> bool {
    read.fields().is_empty() && given.is_empty()
}

/// The rows of an INSERT with every column of the table: NULL for what is missing, the time for what the database keeps.
pub(crate) fn widen(batch: &RecordBatch, given: &[usize], schema: &TableSchema, now: i64) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut fields = Vec::with_capacity(schema.columns().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.columns().len());
    for (i, column) in schema.columns().iter().enumerate() {
        match given.iter().position(|g| *g == i) {
            Some(position) => {
                fields.push(batch.schema().field(position).clone());
                columns.push(Arc::clone(batch.column(position)));
            }
            None => {
                fields.push(Field::new(column.field.name(), DataType::Null, true));
                columns.push(Arc::new(arrow::array::NullArray::new(rows)));
            }
        }
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let wide = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    let mut wide = to_table(&wide, schema)?;
    if schema.timestamps() {
        for name in [CREATED_AT, UPDATED_AT] {
            let index = schema.index_of(name)?;
            if wide.column(index).null_count() > 0 {
                wide = fill_time(wide, schema, name, now)?;
            }
        }
    }
    Ok(wide)
}

/// The batch with the current time where column `name` has no value.
fn fill_time(batch: RecordBatch, schema: &TableSchema, name: &str, now: i64) -> Result<RecordBatch> {
    let index = schema.index_of(name)?;
    let now = time_column(now, batch.num_rows());
    let mut columns = batch.columns().to_vec();
    let given = &columns[index];
    columns[index] = arrow::compute::kernels::zip::zip(&arrow::compute::is_not_null(given)?, given, &now)?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
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
