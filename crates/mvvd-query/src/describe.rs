//! What a statement needs and gives, and which tables there are, without running anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, AssignmentTarget, Expr, SelectItem, SetExpr};
use mvvd_core::{Error, Result, TableSchema};

use crate::Value;
use crate::catalog::{CATALOG, PUBLIC, SYSTEM};
use crate::ddl::table_name;
use crate::dml::{nullable, target};
use crate::error::from_df;
use crate::insert::insert_columns;
use crate::lexer::parse;
use crate::prepare::{normal, parameters_of};
use crate::session::Session;
use crate::statement::{explainable, ready};
use crate::syntax::{rows_relation, select_mut, select_template};
use crate::system_tables;

/// Most parameters of one statement.
const PARAMETERS_MAX: usize = 65_535;

/// What a statement needs and gives.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of the result set; `None` for a statement that gives none.
    pub columns: Option<SchemaRef>,
    /// The parameters `$1`, `$2`, … in order, named so. One whose type the planner does not know is text, which is
    /// cast to what is needed.
    pub parameters: Vec<Field>,
}

/// One table as clients list it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Name of the catalog, the same for all.
    pub catalog: &'static str,
    /// `public`, or `mvvd` for the system tables.
    pub schema: &'static str,
    /// Name of the table.
    pub name: String,
    /// Whether the database makes the rows up itself.
    pub is_system: bool,
    /// The columns.
    pub columns: SchemaRef,
    /// The primary key column.
    pub primary_key: Option<String>,
}

/// Types of parameters by their number.
type Types = BTreeMap<usize, Field>;

impl Session {
    /// What a statement needs and gives. Nothing runs; unknown names are errors, as they would be when it runs.
    pub async fn describe(&self, sql: &str) -> Result<Description> {
        let (session, text) = (self.clone(), sql.to_owned());
        let run = async move {
            let mut statements = parse(&text)?;
            match statements.len() {
                1 => Box::pin(session.describe_statement(Arc::unwrap_or_clone(statements.remove(0).ast))).await,
                0 => Err(Error::invalid("there is no statement")),
                n => Err(Error::invalid(format!("expected one statement, got {n}"))),
            }
        };
        self.engine.bridge.run(run).await
    }

    /// The catalog's schemas.
    pub fn schemas(&self) -> [(&'static str, &'static str); 2] {
        [(CATALOG, SYSTEM), (CATALOG, PUBLIC)]
    }

    /// All tables, in order of schema and name.
    pub fn tables(&self) -> Vec<TableInfo> {
        let settings = self.settings();
        let system = system_tables::NAMES.iter().filter_map(|name| {
            let columns = system_tables::find(name, &self.engine.database, &settings)?.schema();
            let name = (*name).to_owned();
            Some(TableInfo { catalog: CATALOG, schema: SYSTEM, name, is_system: true, columns, primary_key: None })
        });
        let own = self.engine.database.tables().into_iter().map(|(name, table)| {
            let snapshot = table.snapshot();
            let schema = snapshot.schema();
            let primary_key = schema.primary_key().map(|i| schema.columns()[i].field.name().clone());
            let columns = Arc::clone(schema.arrow());
            TableInfo { catalog: CATALOG, schema: PUBLIC, name, is_system: false, columns, primary_key }
        });
        system.chain(own).collect()
    }

    async fn describe_statement(&self, mut statement: ast::Statement) -> Result<Description> {
        use ast::Statement as S;
        ready(&mut statement)?;
        self.expand_searches(&mut statement)?;
        let count = parameters_of(&statement);
        if count > PARAMETERS_MAX {
            return Err(Error::exhausted(format!("a statement can have {PARAMETERS_MAX} parameters, got ${count}")));
        }
        let mut types = Types::new();
        let columns = match statement {
            S::Query(_) => Some(Box::pin(self.describe_query(statement, count, &mut types)).await?),
            S::Explain { .. } => {
                Some(Box::pin(self.describe_query(explainable(statement)?.0, count, &mut types)).await?)
            }
            S::Insert(insert) => Box::pin(self.describe_insert(insert, count, &mut types)).await?,
            S::Update(update) => Box::pin(self.describe_update(update, count, &mut types)).await?,
            S::Delete(delete) => Box::pin(self.describe_delete(delete, count, &mut types)).await?,
            S::Execute { name: Some(name), .. } => Box::pin(self.describe_execute(&name)).await?,
            // These read settings and names only.
            S::ShowVariable { variable } => Some(Arc::clone(self.show(&variable).await?.schema())),
            S::ShowTables { .. } => Some(Arc::clone(self.show_tables().await?.schema())),
            _ => None,
        };
        Ok(Description { columns, parameters: fields(count, &types) })
    }

    /// The columns of a query; what it says of its parameters is added to `types`.
    async fn describe_query(&self, query: ast::Statement, count: usize, types: &mut Types) -> Result<SchemaRef> {
        let state = self.state();
        let _files = self.lend_files(&state, &query).await?;
        let plan = match plan_of(&state, query.clone()).await {
            // A column that is nothing but a parameter cannot be planned without its type.
            Err(_) if count > 0 => plan_of(&state, with_types(query, count, types)).await?,
            planned => planned?,
        };
        // The analyzer finds the types of some parameters that the planner left open.
        let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {}).ok();
        for plan in [Some(&plan), analyzed.as_ref()].into_iter().flatten() {
            for (name, field) in plan.get_parameter_fields().map_err(from_df)? {
                if let (Ok(number), Some(field)) = (name.trim_start_matches('$').parse(), field) {
                    types.entry(number).or_insert_with(|| field.as_ref().clone());
                }
            }
        }
        let declared = Arc::clone(plan.schema().inner());
        // What runs is the physical plan, whose columns can differ in nullability.
        let planned = async {
            let plan = match count {
                0 => plan,
                _ => plan.with_param_values(nulls(count, types)?).map_err(from_df)?,
            };
            state.create_physical_plan(&plan).await.map_err(from_df)
        };
        match planned.await {
            Ok(physical) => Ok(physical.schema()),
            Err(_) if count > 0 => Ok(declared),
            Err(e) => Err(e),
        }
    }

    async fn describe_insert(&self, insert: ast::Insert, count: usize, types: &mut Types) -> Result<Option<SchemaRef>> {
        let ast::TableObject::TableName(name) = &insert.table else { return Ok(None) };
        let name = table_name(name)?;
        let schema = self.table_schema(&name)?;
        let columns = insert_columns(&insert.columns, &schema)?;
        if let Some(source) = insert.source {
            match source.body.as_ref() {
                SetExpr::Values(values) => {
                    for row in &values.rows {
                        for (value, &column) in row.content.iter().zip(&columns) {
                            note(value, &schema.columns()[column].field, types);
                        }
                    }
                }
                _ => drop(self.describe_query(ast::Statement::Query(source), count, types).await?),
            }
        }
        let alias = insert.table_alias.as_ref().map_or_else(|| name.clone(), |a| normal(&a.alias));
        self.describe_returning(insert.returning, &alias, Arc::new(nullable(schema.arrow())), count, types).await
    }

    async fn describe_update(&self, update: ast::Update, count: usize, types: &mut Types) -> Result<Option<SchemaRef>> {
        let (name, alias) = target(&update.table)?;
        let schema = self.table_schema(&name)?;
        for assignment in &update.assignments {
            if let AssignmentTarget::ColumnName(column) = &assignment.target
                && let Some(column) = column.0.last().and_then(|part| part.as_ident())
            {
                let column = &schema.columns()[schema.index_of(&normal(column))?];
                note(&assignment.value, &column.field, types);
            }
        }
        let more = match update.from {
            Some(ast::UpdateTableFromKind::BeforeSet(more) | ast::UpdateTableFromKind::AfterSet(more)) => more,
            None => Vec::new(),
        };
        self.describe_condition(&name, &alias, more, update.selection, count, types).await?;
        self.describe_returning(update.returning, &alias, Arc::new(nullable(schema.arrow())), count, types).await
    }

    async fn describe_delete(&self, delete: ast::Delete, count: usize, types: &mut Types) -> Result<Option<SchemaRef>> {
        let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) = &delete.from;
        let [only] = tables.as_slice() else { return Ok(None) };
        let (name, alias) = target(only)?;
        let schema = self.table_schema(&name)?;
        let more = delete.using.unwrap_or_default();
        self.describe_condition(&name, &alias, more, delete.selection, count, types).await?;
        self.describe_returning(delete.returning, &alias, Arc::clone(schema.arrow()), count, types).await
    }

    /// The parameters of the WHERE of an UPDATE or DELETE.
    async fn describe_condition(
        &self,
        table: &str,
        alias: &str,
        more: Vec<ast::TableWithJoins>,
        condition: Option<Expr>,
        count: usize,
        types: &mut Types,
    ) -> Result<()> {
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.from = vec![rows_relation(table, alias)];
        select.from.extend(more);
        select.selection = condition;
        self.describe_query(ast::Statement::Query(query), count, types).await.map(drop)
    }

    async fn describe_returning(
        &self,
        items: Option<Vec<SelectItem>>,
        alias: &str,
        schema: SchemaRef,
        count: usize,
        types: &Types,
    ) -> Result<Option<SchemaRef>> {
        let Some(items) = items else { return Ok(None) };
        let (schema, _) = self.returning(items, alias, &schema, Vec::new(), &nulls(count, types)?).await?;
        Ok(Some(schema))
    }

    async fn describe_execute(&self, name: &ast::ObjectName) -> Result<Option<SchemaRef>> {
        let Some(mut statement) = self.prepared_statement(name) else { return Ok(None) };
        if !matches!(statement, ast::Statement::Query(_)) {
            return Ok(None);
        }
        ready(&mut statement)?;
        self.expand_searches(&mut statement)?;
        let count = parameters_of(&statement).min(PARAMETERS_MAX);
        Box::pin(self.describe_query(statement, count, &mut Types::new())).await.map(Some)
    }

    fn table_schema(&self, name: &str) -> Result<Arc<TableSchema>> {
        Ok(Arc::clone(self.engine.database.table(name)?.snapshot().schema()))
    }
}

async fn plan_of(state: &SessionState, query: ast::Statement) -> Result<LogicalPlan> {
    state.statement_to_plan(DfStatement::Statement(Box::new(query))).await.map_err(from_df)
}

/// The query with every parameter of unknown type cast to text, which makes the others' types known as well.
fn with_types(mut query: ast::Statement, count: usize, types: &mut Types) -> ast::Statement {
    for number in 1..=count {
        types.entry(number).or_insert_with(|| text(number));
    }
    let _ = ast::visit_expressions_mut(&mut query, |expr| {
        if is_parameter(expr).is_some() {
            let parameter = std::mem::replace(expr, Expr::value(ast::Value::Null));
            *expr = crate::prepare::cast_to(parameter, ast::DataType::Text);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    query
}

fn is_parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => name.trim_start_matches('$').parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// A parameter that stands for a value of a column has its type.
fn note(value: &Expr, column: &Field, types: &mut Types) {
    if let Some(number) = is_parameter(value) {
        types.entry(number).or_insert_with(|| column.clone());
    }
}

fn text(number: usize) -> Field {
    Field::new(format!("${number}"), DataType::Utf8, true)
}

fn fields(count: usize, types: &Types) -> Vec<Field> {
    (1..=count)
        .map(|number| match types.get(&number) {
            Some(field) if !field.data_type().is_null() => {
                field.clone().with_name(format!("${number}")).with_nullable(true)
            }
            _ => text(number),
        })
        .collect()
}

/// NULL for every parameter.
fn nulls(count: usize, types: &Types) -> Result<Vec<Value>> {
    fields(count, types).iter().map(|field| Value::try_from(field.data_type()).map_err(from_df)).collect()
}
