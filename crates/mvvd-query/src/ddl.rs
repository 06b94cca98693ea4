//! CREATE TABLE, CREATE TABLE AS, ALTER TABLE, DROP TABLE, TRUNCATE: taken from the syntax tree.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    self, AlterTableOperation, ColumnDef, ColumnOption, CreateTableOptions, Expr, ObjectName, SqlOption,
    TableConstraint,
};
use mvvd_core::schema::{CREATED_AT, UPDATED_AT};
use mvvd_core::{Error, Result, TableSchema};
use mvvd_storage::{Table, keys_of};

use crate::Value;
use crate::answer::Answer;
use crate::coerce::{storage_field, to_field, to_table};
use crate::dml::{now_micros, time_column};
use crate::error::from_df;
use crate::locks::WriteLock;
use crate::prepare::{cast_to, normal};
use crate::session::Session;
use crate::syntax::{select_mut, select_template};

/// A column as declared.
pub(crate) struct Declared {
    field: Field,
    default: Option<Expr>,
    primary_key: bool,
}

/// The options of `CREATE TABLE … WITH (…)`.
#[derive(Default)]
struct TableOptions {
    timestamps: bool,
    primary_key: Option<String>,
}

impl Session {
    pub(crate) async fn create_table(&self, create: ast::CreateTable, params: &[Value]) -> Result<Answer> {
        let name = table_name(&create.name)?;
        check_clauses(&create)?;
        // Before the query runs: what it reads of the table that it replaces must still be all of it.
        let lock = self.engine.locks.lock(&name).await;
        if self.engine.database.find(&name).is_some() {
            if create.if_not_exists {
                return Ok(Answer::done("CREATE TABLE"));
            }
            if !create.or_replace {
                return Err(Error::already_exists(format!("table \"{name}\" already exists")));
            }
        }
        let options = table_options(&create.table_options)?;
        let mut declared = Vec::with_capacity(create.columns.len());
        for column in &create.columns {
            declared.push(self.declare(column).await?);
        }
        let mut key = options.primary_key.clone();
        for column in declared.iter().filter(|c| c.primary_key) {
            set_key(&mut key, column.field.name())?;
        }
        for constraint in &create.constraints {
            set_key(&mut key, &key_constraint(constraint)?)?;
        }

        let (tag, table, rows) = match create.query {
            Some(query) => {
                let (schema, batches, _memory) =
                    self.collect_query(ast::Statement::Query(query), params, "CREATE TABLE AS").await?;
                let fill = move || {
                    let table = fill_table(&declared, key, options.timestamps, &schema, batches)?;
                    Ok((table.snapshot().live(), table))
                };
                let (rows, table) = self.engine.bridge.block(fill).await?;
                ("CREATE TABLE AS", table, Some(rows))
            }
            None => {
                if declared.is_empty() {
                    return Err(Error::invalid(format!("table \"{name}\" needs at least one column")));
                }
                let schema = build_schema(&declared, key.as_deref(), options.timestamps)?;
                ("CREATE TABLE", Table::new(schema), None)
            }
        };
        let (database, replace) = (Arc::clone(&self.engine.database), create.or_replace);
        let add = move || match replace {
            true => database.add_or_replace(&name, table),
            false => database.add(&name, table),
        };
        let added = self.block_with(vec![lock], add).await;
        match added {
            Err(e) if create.if_not_exists && e.kind() == mvvd_core::ErrorKind::AlreadyExists => {}
            other => drop(other?),
        }
        Ok(match rows {
            Some(rows) => Answer::changed(tag, rows),
            None => Answer::done(tag),
        })
    }

    pub(crate) async fn drop_tables(&self, if_exists: bool, names: &[ObjectName]) -> Result<Answer> {
        let mut names = names.iter().map(table_name).collect::<Result<Vec<_>>>()?;
        // Writers that are in the middle of a statement end it first.
        let locks = self.lock_all(&mut names).await;
        if if_exists {
            names.retain(|name| self.engine.database.find(name).is_some());
        }
        let database = Arc::clone(&self.engine.database);
        self.block_with(locks, move || database.drop_all(&names)).await?;
        Ok(Answer::done("DROP TABLE"))
    }

    pub(crate) async fn truncate(&self, truncate: &ast::Truncate) -> Result<Answer> {
        let mut names =
            truncate.table_names.iter().map(|target| table_name(&target.name)).collect::<Result<Vec<_>>>()?;
        let locks = self.lock_all(&mut names).await;
        if truncate.if_exists {
            names.retain(|name| self.engine.database.find(name).is_some());
        }
        let database = Arc::clone(&self.engine.database);
        self.block_with(locks, move || database.truncate_all(&names)).await?;
        Ok(Answer::done("TRUNCATE TABLE"))
    }

    pub(crate) async fn alter_table(&self, alter: ast::AlterTable) -> Result<Answer> {
        let name = table_name(&alter.name)?;
        let mut names = vec![name.clone()];
        for operation in &alter.operations {
            if let AlterTableOperation::RenameTable { table_name: new } = operation {
                let (ast::RenameTableNameKind::As(new) | ast::RenameTableNameKind::To(new)) = new;
                names.push(table_name(new)?);
            }
        }
        let locks = self.lock_all(&mut names).await;
        if alter.if_exists && self.engine.database.find(&name).is_none() {
            return Ok(Answer::done("ALTER TABLE"));
        }
        let table = self.engine.database.table(&name)?;
        let has_rows = table.head().live() > 0;
        let mut schema = TableSchema::clone(table.head().schema());
        let (mut renamed, mut is_changed) = (None, false);
        for operation in alter.operations {
            match operation {
                AlterTableOperation::AddColumn { if_not_exists, column_def, .. } => {
                    let column = self.declare(&column_def).await?;
                    if if_not_exists && schema.index_of(column.field.name()).is_ok() {
                        continue;
                    }
                    if column.primary_key {
                        return Err(Error::unsupported("a primary key cannot be added to a table that exists"));
                    }
                    let initial = match &column.default {
                        Some(default) => Some(self.default_value(default.clone(), &column.field).await?),
                        None => None,
                    };
                    let is_null = initial.as_ref().is_none_or(|value| value.is_null(0));
                    if has_rows && is_null && !column.field.is_nullable() {
                        return Err(Error::invalid(format!(
                            "column \"{}\" is NOT NULL and the table has rows",
                            column.field.name()
                        ))
                        .with_hint("give it a DEFAULT"));
                    }
                    schema = schema.with_column(column.field, column.default.map(|e| e.to_string()), initial)?;
                }
                AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
                    for column in &column_names {
                        let column = normal(column);
                        if !if_exists || schema.index_of(&column).is_ok() {
                            schema = schema.without_column(&column)?;
                        }
                    }
                }
                AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                    schema = schema.with_renamed(&normal(&old_column_name), &normal(&new_column_name))?;
                }
                AlterTableOperation::RenameTable { table_name: new } => {
                    let (ast::RenameTableNameKind::As(new) | ast::RenameTableNameKind::To(new)) = new;
                    renamed = Some(table_name(&new)?);
                    continue;
                }
                other => {
                    return Err(Error::unsupported(format!("ALTER TABLE {other} is not supported"))
                        .with_hint("columns can be added, dropped and renamed, and the table renamed"));
                }
            }
            is_changed = true;
        }
        let database = Arc::clone(&self.engine.database);
        let schema = is_changed.then_some(schema);
        self.block_with(locks, move || database.alter(&name, renamed.as_deref(), schema)).await?;
        Ok(Answer::done("ALTER TABLE"))
    }

    /// Makes a change that holds the locks to its end, even if nobody waits for it any more.
    async fn block_with<T: Send + 'static>(
        &self,
        locks: Vec<WriteLock>,
        change: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let change = move || {
            let _locks = locks;
            change()
        };
        self.engine.bridge.block(change).await
    }

    /// Waits until nobody writes the tables; sorts the names and takes out those that come twice.
    async fn lock_all(&self, names: &mut Vec<String>) -> Vec<WriteLock> {
        names.sort();
        names.dedup();
        let mut locks = Vec::with_capacity(names.len());
        for name in names {
            locks.push(self.engine.locks.lock(name).await);
        }
        locks
    }

    /// Reads a column definition; its default is run once, so that it is known to fit.
    async fn declare(&self, column: &ColumnDef) -> Result<Declared> {
        let name = normal(&column.name);
        let field = self.sql_field(&name, &column.data_type).await?;
        let mut declared = Declared { field, default: None, primary_key: false };
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => declared.field = declared.field.with_nullable(false),
                ColumnOption::Default(expr) => declared.default = Some(expr.clone()),
                ColumnOption::PrimaryKey(_) => declared.primary_key = true,
                other => {
                    return Err(Error::unsupported(format!("column \"{name}\": {other} is not supported"))
                        .with_hint("columns take PRIMARY KEY, NOT NULL and DEFAULT"));
                }
            }
        }
        if let Some(default) = &declared.default {
            let has_subquery = ast::visit_expressions(default, |e| match e {
                Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => std::ops::ControlFlow::Break(()),
                _ => std::ops::ControlFlow::Continue(()),
            });
            if has_subquery.is_break() {
                return Err(Error::unsupported(format!("column \"{name}\": a DEFAULT cannot have a subquery")));
            }
            self.default_value(default.clone(), &declared.field).await?;
        }
        Ok(declared)
    }

    /// One row with the value of a default, as the column stores it.
    pub(crate) async fn default_value(&self, default: Expr, field: &Field) -> Result<ArrayRef> {
        let value = self
            .constant(default, &[])
            .await
            .map_err(|e| e.context(format!("column \"{}\": DEFAULT", field.name())))?;
        let array = value.to_array_of_size(1).map_err(from_df)?;
        let from = Field::new(field.name(), array.data_type().clone(), true);
        to_field(&array, &from, field)
    }

    /// The field that a declared type stands for.
    pub(crate) async fn sql_field(&self, name: &str, ty: &ast::DataType) -> Result<Field> {
        let planned = mvvd_udfs::type_planner().plan_type_field(ty).map_err(from_df)?;
        if let Some(field) = planned {
            return Ok(storage_field(&field.as_ref().clone().with_name(name).with_nullable(true)));
        }
        let mut query = select_template();
        let null = Expr::value(ast::Value::Null);
        select_mut(&mut query).projection = vec![ast::SelectItem::UnnamedExpr(cast_to(null, ty.clone()))];
        let state = self.state();
        let plan = self.plan(&state, ast::Statement::Query(query), &[]).await.map_err(|e| {
            let kind = e.kind();
            Error::new(kind, format!("column \"{name}\": type {ty} is not supported"))
        })?;
        Ok(storage_field(&plan.schema().field(0).as_ref().clone().with_name(name).with_nullable(true)))
    }
}

/// The table of a CREATE TABLE AS with its rows, before anybody can see it.
pub(crate) fn fill_table(
    declared: &[Declared],
    key: Option<String>,
    timestamps: bool,
    source: &Schema,
    batches: Vec<RecordBatch>,
) -> Result<Table> {
    let inferred: Vec<Declared>;
    let declared = if declared.is_empty() {
        inferred = source
            .fields()
            .iter()
            .map(|field| Declared {
                field: storage_field(field).with_nullable(true),
                default: None,
                primary_key: false,
            })
            .collect();
        &inferred
    } else if declared.len() == source.fields().len() {
        declared
    } else {
        return Err(Error::invalid(format!(
            "{} columns are declared, the query has {}",
            declared.len(),
            source.fields().len()
        )));
    };
    let key = match key {
        Some(key) => Some(key),
        None => natural_key(declared, &batches)?,
    };
    let schema = build_schema(declared, key.as_deref(), timestamps)?;
    let now = now_micros();
    let batches = batches.into_iter().map(|batch| with_times(batch, &schema, now)).collect::<Result<Vec<_>>>()?;
    let batches = batches.iter().map(|batch| to_table(batch, &schema)).collect::<Result<Vec<_>>>()?;
    let table = Table::new(schema);
    table.append(&batches)?.wait()?;
    Ok(table)
}

/// The rows of a query with the kept timestamps behind them, if the table has them.
fn with_times(batch: RecordBatch, schema: &TableSchema, now: i64) -> Result<RecordBatch> {
    if !schema.timestamps() {
        return Ok(batch);
    }
    let now = time_column(now, batch.num_rows());
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for name in [CREATED_AT, UPDATED_AT] {
        if batch.schema().index_of(name).is_err() {
            fields.push(Arc::new(Field::new(name, now.data_type().clone(), false)));
            columns.push(Arc::clone(&now));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The key of a CREATE TABLE AS that names none: a column `id` of a key type whose values are all there and distinct.
fn natural_key(declared: &[Declared], batches: &[RecordBatch]) -> Result<Option<String>> {
    let Some(index) = declared.iter().position(|c| c.field.name() == "id") else { return Ok(None) };
    let ty = declared[index].field.data_type();
    if !(ty.is_integer() || ty == &DataType::Utf8) {
        return Ok(None);
    }
    let mut seen = HashSet::new();
    for batch in batches {
        let column = to_field(batch.column(index), batch.schema().field(index), &declared[index].field)?;
        if column.null_count() > 0 || keys_of(&column)?.into_iter().any(|key| !seen.insert(key)) {
            return Ok(None);
        }
    }
    Ok(Some("id".to_owned()))
}

fn build_schema(declared: &[Declared], key: Option<&str>, timestamps: bool) -> Result<TableSchema> {
    let mut fields: Vec<(Field, Option<String>)> =
        declared.iter().map(|c| (c.field.clone(), c.default.as_ref().map(ToString::to_string))).collect();
    if timestamps {
        for name in [CREATED_AT, UPDATED_AT] {
            if let Some((field, _)) = fields.iter().find(|(field, _)| field.name() == name) {
                if field.data_type() != &time_type() {
                    let e = Error::invalid(format!(
                        "column \"{name}\" is kept by the database and must be of type TIMESTAMPTZ"
                    ));
                    return Err(e.with_hint("leave the column out, or make the table without timestamps"));
                }
            } else {
                fields.push((Field::new(name, time_type(), false), None));
            }
        }
    }
    if let Some(key) = key
        && !fields.iter().any(|(field, _)| field.name() == key)
    {
        return Err(Error::not_found(format!("primary key column \"{key}\" does not exist")));
    }
    TableSchema::new(fields, key, timestamps)
}

/// UTC, microseconds.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn set_key(key: &mut Option<String>, name: &str) -> Result<()> {
    match key {
        Some(other) if other != name => {
            Err(Error::invalid(format!("a table has one primary key, got \"{other}\" and \"{name}\"")))
        }
        _ => {
            *key = Some(name.to_owned());
            Ok(())
        }
    }
}

fn key_constraint(constraint: &TableConstraint) -> Result<String> {
    let TableConstraint::PrimaryKey(key) = constraint else {
        return Err(Error::unsupported(format!("the constraint {constraint} is not supported"))
            .with_hint("tables take PRIMARY KEY (column)"));
    };
    let [column] = key.columns.as_slice() else {
        return Err(Error::unsupported("a primary key of several columns is not supported"));
    };
    match &column.column.expr {
        Expr::Identifier(name) => Ok(normal(name)),
        other => Err(Error::invalid(format!("a primary key is a column, got {other}"))),
    }
}

fn check_clauses(create: &ast::CreateTable) -> Result<()> {
    let refused = [
        (create.external, "CREATE EXTERNAL TABLE", "query the file in place: SELECT … FROM 'file.parquet'"),
        (create.temporary, "CREATE TEMPORARY TABLE", "create a table and drop it"),
        (create.like.is_some(), "CREATE TABLE … LIKE", "use CREATE TABLE … AS SELECT … LIMIT 0"),
        (create.partition_by.is_some(), "PARTITION BY", "leave it out"),
        (create.inherits.is_some(), "INHERITS", "leave it out"),
        (create.on_commit.is_some(), "ON COMMIT", "leave it out"),
        (create.without_rowid, "WITHOUT ROWID", "leave it out"),
        (create.strict, "STRICT", "leave it out: types are always checked"),
    ];
    match refused.into_iter().find(|(used, ..)| *used) {
        Some((_, clause, hint)) => Err(Error::unsupported(format!("{clause} is not supported")).with_hint(hint)),
        None => Ok(()),
    }
}

fn table_options(options: &CreateTableOptions) -> Result<TableOptions> {
    let mut read = TableOptions::default();
    let list = match options {
        CreateTableOptions::None => return Ok(read),
        CreateTableOptions::With(list)
        | CreateTableOptions::Options(list)
        | CreateTableOptions::Plain(list)
        | CreateTableOptions::TableProperties(list) => list,
    };
    for option in list {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(Error::invalid(format!("table option {option} must be written name = value")));
        };
        let text = match value {
            Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.value.to_string()),
            other => other.to_string(),
        };
        match key.value.to_ascii_lowercase().as_str() {
            "timestamps" => {
                read.timestamps = match text.to_ascii_lowercase().as_str() {
                    "true" | "on" => true,
                    "false" | "off" => false,
                    _ => {
                        return Err(Error::invalid(format!(
                            "table option timestamps must be true or false, got \"{text}\""
                        )));
                    }
                }
            }
            "primary_key" => read.primary_key = Some(text),
            other => {
                return Err(Error::invalid(format!("unknown table option \"{other}\""))
                    .with_hint("the options are primary_key and timestamps"));
            }
        }
    }
    Ok(read)
}

/// Whether a schema has tables of the system only.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    schema == crate::catalog::SYSTEM || schema == "information_schema"
}

/// The name of one of the users' tables.
pub(crate) fn table_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> =
        name.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), normal)).collect();
    match parts.as_slice() {
        [table] => Ok(table.clone()),
        [schema, table] if schema == crate::catalog::PUBLIC => Ok(table.clone()),
        [catalog, schema, table] if catalog == crate::catalog::CATALOG && schema == crate::catalog::PUBLIC => {
            Ok(table.clone())
        }
        [schema, _] if is_system_schema(schema) => {
            Err(Error::invalid(format!("{name} is a system table and cannot be changed")))
        }
        _ => Err(Error::not_found(format!("schema of \"{}\" does not exist", parts.join(".")))
            .with_hint("tables are in schema public")),
    }
}
