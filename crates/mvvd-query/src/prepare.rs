//! PREPARE, EXECUTE, DEALLOCATE, and the session's settings: SET, SHOW, RESET.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName};
use mvvd_core::{Error, Result};

use crate::Value;
use crate::answer::Answer;
use crate::ddl::{is_system_schema, table_name};
use crate::error::from_df;
use crate::session::{PREPARED_MAX, Session};

/// A statement that waits for its values. It is planned anew at each EXECUTE and so always sees the current rows.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    statement: ast::Statement,
    types: Vec<ast::DataType>,
}

impl Session {
    pub(crate) async fn prepare(
        &self,
        name: &Ident,
        types: Vec<ast::DataType>,
        statement: ast::Statement,
    ) -> Result<Answer> {
        let name = normal(name);
        use ast::Statement as S;
        if !matches!(statement, S::Query(_) | S::Insert(_) | S::Update(_) | S::Delete(_)) {
            return Err(Error::invalid("PREPARE takes a SELECT, INSERT, UPDATE or DELETE"));
        }
        if matches!(statement, S::Query(_)) {
            // Unknown names are errors now, not at the first EXECUTE.
            let mut statement = statement.clone();
            self.expand_searches(&mut statement)?;
            let state = self.state();
            let _files = self.lend_files(&state, &statement).await?;
            state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await.map_err(from_df)?;
        }
        let mut prepared = self.inner.prepared.write();
        if prepared.contains_key(&name) {
            return Err(Error::already_exists(format!("prepared statement \"{name}\" already exists")));
        }
        if prepared.len() == PREPARED_MAX {
            return Err(Error::exhausted(format!(
                "a session cannot have more than {PREPARED_MAX} prepared statements"
            ))
            .with_hint("DEALLOCATE the ones that are not needed"));
        }
        prepared.insert(name, Prepared { statement, types });
        Ok(Answer::done("PREPARE"))
    }

    pub(crate) async fn execute(
        &self,
        name: Option<ObjectName>,
        arguments: Vec<Expr>,
        params: &[Value],
    ) -> Result<Answer> {
        let name = name.as_ref().map(dotted);
        let Some(name) = name else { return Err(Error::invalid("EXECUTE needs the name of a prepared statement")) };
        let prepared = self.inner.prepared.read().get(&name).cloned();
        let Some(prepared) = prepared else {
            return Err(Error::not_found(format!("prepared statement \"{name}\" does not exist")));
        };
        if !prepared.types.is_empty() && prepared.types.len() != arguments.len() {
            return Err(Error::invalid(format!(
                "prepared statement \"{name}\" expects {} parameters, got {}",
                prepared.types.len(),
                arguments.len()
            )));
        }
        let needed = parameters_of(&prepared.statement);
        if arguments.len() > needed.max(prepared.types.len()) {
            return Err(Error::invalid(format!(
                "prepared statement \"{name}\" expects {needed} parameters, got {}",
                arguments.len()
            )));
        }
        let mut values = Vec::with_capacity(arguments.len());
        for (i, argument) in arguments.into_iter().enumerate() {
            let argument = match prepared.types.get(i) {
                Some(ty) => cast_to(argument, ty.clone()),
                None => argument,
            };
            values.push(self.constant(argument, params).await?);
        }
        self.dispatch(prepared.statement, values).await
    }

    /// The statement behind a name of PREPARE.
    pub(crate) fn prepared_statement(&self, name: &ObjectName) -> Option<ast::Statement> {
        self.inner.prepared.read().get(&dotted(name)).map(|prepared| prepared.statement.clone())
    }

    pub(crate) fn deallocate(&self, name: &Ident) -> Result<Answer> {
        let mut prepared = self.inner.prepared.write();
        if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all") {
            prepared.clear();
        } else if prepared.remove(&normal(name)).is_none() {
            return Err(Error::not_found(format!("prepared statement \"{}\" does not exist", normal(name))));
        }
        Ok(Answer::done("DEALLOCATE"))
    }

    /// The value of an expression that reads no table.
    pub(crate) async fn constant(&self, expr: Expr, params: &[Value]) -> Result<Value> {
        let mut query = crate::syntax::select_template();
        crate::syntax::select_mut(&mut query).projection = vec![ast::SelectItem::UnnamedExpr(expr)];
        let state = self.state();
        let plan = self.plan(&state, ast::Statement::Query(query), params).await?;
        let batches = self.run_plan("SELECT", &state, &plan).await?.collect().await?;
        match batches.iter().find(|batch| batch.num_rows() > 0) {
            Some(batch) => Value::try_from_array(batch.column(0), 0).map_err(from_df),
            None => Err(Error::internal("a constant has no value")),
        }
    }

    pub(crate) fn set(&self, set: ast::Set) -> Result<Answer> {
        match set {
            ast::Set::SingleAssignment { variable, values, .. } => {
                let name = dotted(&variable);
                let [value] = values.as_slice() else {
                    return Err(Error::invalid(format!("SET {name} takes one value")));
                };
                if matches!(value, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
                {
                    return self.reset_one(&name);
                }
                let value = match value {
                    Expr::Value(v) => match v.value.clone().into_string() {
                        Some(text) => text,
                        None => v.value.to_string(),
                    },
                    Expr::Identifier(word) => word.value.clone(),
                    other => other.to_string(),
                };
                self.set_one(&name, &value)?;
                Ok(Answer::done("SET"))
            }
            ast::Set::SetTimeZone { value, .. } => {
                self.set_one(TIME_ZONE, value.to_string().trim_matches('\''))?;
                Ok(Answer::done("SET"))
            }
            other => Err(Error::unsupported(format!("this form of SET is not supported: {other}"))),
        }
    }

    fn set_one(&self, name: &str, value: &str) -> Result<()> {
        match name.strip_prefix("mvvd.") {
            Some(own) => self.inner.settings.write().set(own, value),
            None if name.eq_ignore_ascii_case("timezone") => self.set_one(TIME_ZONE, value),
            None if ENGINE_OPTIONS.contains(&name) => {
                check_engine_option(name, value)?;
                self.set_engine_option(name, value)
            }
            None => Err(unknown_setting(name)),
        }
    }

    pub(crate) fn reset(&self, reset: &ast::ResetStatement) -> Result<Answer> {
        match &reset.reset {
            ast::Reset::ALL => {
                *self.inner.settings.write() = crate::Settings::default();
                self.reset_engine_options();
                Ok(Answer::done("RESET"))
            }
            ast::Reset::ConfigurationParameter(name) => self.reset_one(&dotted(name)),
        }
    }

    fn reset_one(&self, name: &str) -> Result<Answer> {
        match name.strip_prefix("mvvd.") {
            Some(own) => self.inner.settings.write().reset(own)?,
            None if name.eq_ignore_ascii_case("timezone") => return self.reset_one(TIME_ZONE),
            None if ENGINE_OPTIONS.contains(&name) => self.reset_engine_option(name)?,
            None => return Err(unknown_setting(name)),
        }
        Ok(Answer::done("RESET"))
    }

    pub(crate) async fn show(&self, variable: &[Ident]) -> Result<Answer> {
        if let [first, rest @ ..] = variable
            && normal(first) == "versions"
        {
            return self.show_versions(rest).await;
        }
        let name = variable.iter().map(normal).collect::<Vec<_>>().join(".");
        if name == "all" {
            return self.sql_ast("SHOW", "SELECT name, value, description FROM mvvd.settings ORDER BY name").await;
        }
        if name == "tables" {
            return self.show_tables().await;
        }
        let value = match name.strip_prefix("mvvd.") {
            Some(own) => self.inner.settings.read().get(own)?,
            None => {
                let options = self.state().config().options().entries();
                let wanted = if name == "timezone" { TIME_ZONE } else { &name };
                let found = options.into_iter().find(|entry| entry.key == wanted);
                found.ok_or_else(|| unknown_setting(&name))?.value.unwrap_or_default()
            }
        };
        let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(vec![value]))])?;
        Ok(Answer::batches("SHOW", schema, vec![batch]))
    }

    pub(crate) async fn show_tables(&self) -> Result<Answer> {
        self.sql_ast("SHOW", "SELECT name, rows, columns, primary_key FROM mvvd.tables ORDER BY name").await
    }

    /// `SHOW VERSIONS FROM table`; the parser gives the words after VERSIONS.
    async fn show_versions(&self, words: &[Ident]) -> Result<Answer> {
        let usage = "write SHOW VERSIONS FROM table";
        let table = match words {
            [from, schema, table] if is_from(from) && is_system_schema(&normal(schema)) => {
                let name = format!("{}.{}", normal(schema), normal(table));
                return Err(Error::unsupported(format!("{name} is a system table and has no versions")));
            }
            [from, name @ ..] if is_from(from) && !name.is_empty() => table_name(&ObjectName::from(name.to_vec()))?,
            _ => return Err(Error::invalid("SHOW VERSIONS needs the name of a table").with_hint(usage)),
        };
        // An empty answer would say that the table has no versions.
        self.engine.database.table(&table)?;
        let query = "SELECT * FROM mvvd.versions WHERE table_name = $1 ORDER BY version";
        self.sql_ast_with("SHOW", query, &[Value::from(table.as_str())]).await
    }

    /// Runs a fixed query of ours over the system tables.
    async fn sql_ast(&self, tag: &'static str, fixed: &str) -> Result<Answer> {
        self.sql_ast_with(tag, fixed, &[]).await
    }

    async fn sql_ast_with(&self, tag: &'static str, fixed: &str, params: &[Value]) -> Result<Answer> {
        let mut statements = crate::lexer::parse(fixed)?;
        self.run_query(tag, Arc::unwrap_or_clone(statements.remove(0).ast), params).await
    }
}

fn is_from(word: &Ident) -> bool {
    word.quote_style.is_none() && normal(word) == "from"
}

/// The largest `n` of a `$n` in the statement.
pub(crate) fn parameters_of(statement: &ast::Statement) -> usize {
    let mut largest = 0;
    let _ = ast::visit_expressions(statement, |expr| {
        if let Expr::Value(value) = expr
            && let ast::Value::Placeholder(name) = &value.value
        {
            largest = largest.max(name.trim_start_matches('$').parse().unwrap_or(0));
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    largest
}

const TIME_ZONE: &str = "datafusion.execution.time_zone";
const BATCH_SIZE: &str = "datafusion.execution.batch_size";
const PARTITIONS: &str = "datafusion.execution.target_partitions";

/// DataFusion's options that a session may change; RESET of one resets them all.
const ENGINE_OPTIONS: &[&str] = &[TIME_ZONE, BATCH_SIZE, PARTITIONS, "datafusion.explain.format"];

fn check_engine_option(name: &str, value: &str) -> Result<()> {
    let number = |most: usize| match value.parse::<usize>() {
        Ok(n) if (1..=most).contains(&n) => Ok(()),
        _ => Err(Error::invalid(format!("{name} must be a whole number from 1 to {most}, got \"{value}\""))),
    };
    match name {
        BATCH_SIZE => number(65_536),
        PARTITIONS => number(1_024),
        TIME_ZONE => match value.parse::<arrow::array::timezone::Tz>() {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::invalid(format!("\"{value}\" is no time zone"))
                .with_hint("write a name such as Europe/Berlin, or +02:00")),
        },
        _ => Ok(()),
    }
}

fn unknown_setting(name: &str) -> Error {
    Error::not_found(format!("setting \"{name}\" does not exist"))
        .with_hint("SELECT * FROM mvvd.settings lists the settings")
}

fn dotted(name: &ObjectName) -> String {
    name.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), normal)).collect::<Vec<_>>().join(".")
}

/// `CAST(expr AS ty)`.
pub(crate) fn cast_to(expr: Expr, ty: ast::DataType) -> Expr {
    Expr::Cast { kind: ast::CastKind::Cast, expr: Box::new(expr), data_type: ty, array: false, format: None }
}

/// A name as PostgreSQL reads it: lower case unless quoted.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}
