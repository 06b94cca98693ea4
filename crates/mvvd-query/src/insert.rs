//! INSERT: the rows that it brings, with the table's types and defaults.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, OnInsert, Query, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
};
use mvvd_core::convert::to_vectors;
use mvvd_core::schema::{CREATED_AT, UPDATED_AT};
use mvvd_core::{Error, Result, TableSchema};

use crate::Value;
use crate::answer::Answer;
use crate::coerce::to_table;
use crate::constants::{constant_rows, plain_values};
use crate::ddl::table_name;
use crate::declared::{Declared, declared, is_default, typed};
use crate::dml::{Change, FEW_ROWS, answer, now_micros, time_column};
use crate::prepare::normal;
use crate::rewrite::values_with_subqueries;
use crate::session::Session;
use crate::syntax::{select_mut, select_template};
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
