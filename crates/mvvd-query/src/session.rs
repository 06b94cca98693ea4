//! One connection: settings, prepared statements, and the one door through which every statement enters.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Analyzer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use mvvd_core::{Error, Result};
use parking_lot::RwLock;

use crate::answer::Answer;
use crate::catalog::{CATALOG, Catalog, Catalogs, PUBLIC, Reads};
use crate::engine::Engine;
use crate::error::from_df;
use crate::lexer::{Statement, parse};
use crate::plan_rule::OurOperators;
use crate::settings::{SETTINGS, Settings};
use crate::{Progress, Value};

/// Most prepared statements of one session.
pub(crate) const PREPARED_MAX: usize = 1_000;

/// One connection to a database. A clone is the same session.
#[derive(Clone)]
pub struct Session {
    pub(crate) engine: Arc<Engine>,
    pub(crate) inner: Arc<Inner>,
    /// The settings of one statement, where they are not the session's.
    asked: Option<Arc<Settings>>,
}

/// What belongs to one session.
pub(crate) struct Inner {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: Arc<RwLock<Settings>>,
    pub(crate) prepared: RwLock<HashMap<String, crate::prepare::Prepared>>,
    pub(crate) progress: RwLock<Option<Arc<dyn Progress>>>,
    state: RwLock<SessionState>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("settings", &self.inner.settings.read()).finish_non_exhaustive()
    }
}

/// The names that a prompt can complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Tables of schema `public`, and the system tables with their schema.
    pub tables: Vec<String>,
    /// Table and column.
    pub columns: Vec<(String, String)>,
    /// Functions, aggregates and window functions.
    pub functions: Vec<String>,
    /// Settings with their prefix.
    pub settings: Vec<String>,
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let settings = Arc::new(RwLock::new(Settings::default()));
        let catalog = Catalog::new(Arc::clone(&engine.database), Arc::clone(&settings));
        let state = new_state(&engine, &catalog);
        let inner = Inner {
            catalog,
            settings,
            prepared: RwLock::default(),
            progress: RwLock::default(),
            state: RwLock::new(state),
        };
        Self { engine, inner: Arc::new(inner), asked: None }
    }

    /// Splits a script at its semicolons and parses each statement; nothing runs.
    ///
    /// The first syntax error is returned, with its place in `sql`.
    pub fn statements(&self, sql: &str) -> Result<Vec<Statement>> {
        self.engine.bridge.pool().install(|| parse(sql))
    }

    /// Runs one statement. `params` are the values of `$1`, `$2` and so on.
    ///
    /// The statement is atomic: an error changes nothing. Rows are computed while they are read; dropping the answer
    /// cancels the rest.
    pub async fn sql(&self, sql: &str, params: &[Value]) -> Result<Answer> {
        let (session, text, params) = (self.clone(), sql.to_owned(), params.to_vec());
        let run = async move {
            let mut statements = parse(&text)?;
            match statements.len() {
                1 => session.dispatch(Arc::unwrap_or_clone(statements.remove(0).ast), params).await,
                0 => Err(Error::invalid("there is no statement")),
                n => Err(Error::invalid(format!("expected one statement, got {n}"))),
            }
        };
        self.engine.bridge.run(run).await
    }

    /// Runs a statement of [`Session::statements`].
    pub async fn run(&self, statement: &Statement, params: &[Value]) -> Result<Answer> {
        if let Some(answer) = self.insert_few(&statement.ast, params).await? {
            return Ok(answer);
        }
        let (session, ast, params) = (self.clone(), Arc::clone(&statement.ast), params.to_vec());
        self.engine.bridge.run(async move { session.dispatch(Arc::unwrap_or_clone(ast), params).await }).await
    }

    /// The current settings.
    pub fn settings(&self) -> Settings {
        match &self.asked {
            Some(asked) => Settings::clone(asked),
            None => self.inner.settings.read().clone(),
        }
    }

    /// The session for a statement that has settings of its own.
    pub(crate) fn asking(&self, settings: Settings) -> Self {
        Self { asked: Some(Arc::new(settings)), ..self.clone() }
    }

    /// Shows the progress of long statements; one at a time.
    pub fn set_progress(&self, progress: Arc<dyn Progress>) {
        *self.inner.progress.write() = Some(progress);
    }

    /// The names that a prompt can complete.
    pub fn vocabulary(&self) -> Vocabulary {
        let tables = self.engine.database.tables();
        let state = self.inner.state.read();
        let mut functions: Vec<String> = state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .filter(|name| !name.starts_with("mvvd_") && !name.starts_with("__"))
            .cloned()
            .collect();
        functions.sort();
        functions.dedup();
        let system = crate::system_tables::NAMES.iter().map(|name| format!("mvvd.{name}"));
        Vocabulary {
            tables: tables.iter().map(|(name, _)| name.clone()).chain(system).collect(),
            columns: tables
                .iter()
                .flat_map(|(name, table)| {
                    let schema = Arc::clone(table.snapshot().schema());
                    let columns: Vec<_> =
                        schema.columns().iter().map(|c| (name.clone(), c.field.name().clone())).collect();
                    columns
                })
                .collect(),
            functions,
            settings: SETTINGS.iter().map(|s| format!("mvvd.{}", s.name)).collect(),
        }
    }

    /// DataFusion's state for one statement: the session's functions and settings as they are now.
    pub(crate) fn state(&self) -> SessionState {
        self.state_for(Reads::Durable)
    }

    /// The state for a statement that writes: it builds on changes that are about to be durable.
    pub(crate) fn writing_state(&self) -> SessionState {
        let mut state = self.state_for(Reads::Newest);
        self.keep_rows(&mut state);
        state
    }

    /// The state for a query whose rows are kept elsewhere.
    pub(crate) fn keeping_state(&self) -> SessionState {
        let mut state = self.state();
        self.keep_rows(&mut state);
        state
    }

    fn keep_rows(&self, state: &mut SessionState) {
        let settings = Settings { keeps_rows: true, ..self.settings() };
        state.config_mut().options_mut().extensions.insert(settings);
    }

    fn state_for(&self, reads: Reads) -> SessionState {
        let mut state = self.inner.state.read().clone();
        // A table has one version throughout a statement.
        state.register_catalog_list(Arc::new(Catalogs(Arc::new(self.inner.catalog.for_statement(reads)))));
        state.config_mut().options_mut().extensions.insert(self.settings());
        self.engine.functions.register(&mut state);
        state.mark_start_execution();
        state
    }

    /// Changes an option of DataFusion itself.
    pub(crate) fn set_engine_option(&self, name: &str, value: &str) -> Result<()> {
        let mut state = self.inner.state.write();
        state.config_mut().options_mut().set(name, value).map_err(from_df)
    }

    /// Puts an option of DataFusion itself back.
    pub(crate) fn reset_engine_option(&self, name: &str) -> Result<()> {
        let default = new_state(&self.engine, &self.inner.catalog);
        let entries = default.config().options().entries();
        let value = entries.into_iter().find(|entry| entry.key == name).and_then(|entry| entry.value);
        match value {
            Some(value) => return self.set_engine_option(name, &value),
            // The only one that can have no value.
            None => self.inner.state.write().config_mut().options_mut().execution.time_zone = None,
        }
        Ok(())
    }

    /// Puts the options of DataFusion itself back.
    pub(crate) fn reset_engine_options(&self) {
        *self.inner.state.write() = new_state(&self.engine, &self.inner.catalog);
    }

    /// The logical plan of a query, its parameters filled in.
    pub(crate) async fn plan(
        &self,
        state: &SessionState,
        query: ast::Statement,
        params: &[Value],
    ) -> Result<LogicalPlan> {
        let _files = self.lend_files(state, &query).await?;
        let plan = state.statement_to_plan(DfStatement::Statement(Box::new(query))).await.map_err(from_df)?;
        fill(plan, params)
    }

    /// Runs a query and streams its rows.
    pub(crate) async fn run_query(&self, tag: &'static str, query: ast::Statement, params: &[Value]) -> Result<Answer> {
        let state = self.state();
        let plan = self.plan(&state, query, params).await?;
        self.run_plan(tag, &state, &plan).await
    }

    /// Runs a logical plan and streams its rows.
    pub(crate) async fn run_plan(&self, tag: &'static str, state: &SessionState, plan: &LogicalPlan) -> Result<Answer> {
        let physical = state.create_physical_plan(plan).await.map_err(from_df)?;
        let stream = execute_stream(physical, state.task_ctx()).map_err(from_df)?;
        Ok(Answer::streaming(tag, &self.engine.bridge, stream))
    }
}

/// Puts values in the place of `$1`, `$2`, …
fn fill(plan: LogicalPlan, params: &[Value]) -> Result<LogicalPlan> {
    let needed = plan.get_parameter_names().map_err(from_df)?;
    for name in &needed {
        let number: usize = name
            .trim_start_matches('$')
            .parse()
            .map_err(|_| Error::invalid(format!("parameter \"{name}\" must be a number such as $1")))?;
        if number == 0 || number > params.len() {
            return Err(Error::invalid(format!("there is no value for {name}: {} given", params.len())));
        }
    }
    if needed.is_empty() {
        return Ok(plan);
    }
    let values: Vec<ScalarValue> = params.to_vec();
    plan.with_param_values(ParamValues::from(values)).map_err(from_df)
}

fn new_state(engine: &Engine, catalog: &Arc<Catalog>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(engine.bridge.threads())
        .with_option_extension(Settings::default());
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.skip_metadata = false;
    let defaults = SessionStateBuilder::new_with_default_features();
    let mut builder = defaults
        .with_config(config)
        .with_runtime_env(Arc::clone(&engine.runtime_env))
        .with_catalog_list(Arc::new(Catalogs(Arc::clone(catalog))))
        .with_type_planner(mvvd_udfs::type_planner());
    let mut planners = mvvd_udfs::expr_planners();
    planners.extend(builder.expr_planners().take().unwrap_or_default());
    let mut analyzers = vec![mvvd_udfs::analyzer_rule()];
    analyzers.extend(Analyzer::new().rules);
    let mut physical: Vec<_> = vec![Arc::new(OurOperators::new(engine.bridge.pool(), &engine.database)) as _];
    physical.extend(PhysicalOptimizer::new().rules);
    physical.push(Arc::new(crate::yields::YieldInJoins));
    let mut state = builder
        .with_expr_planners(planners)
        .with_analyzer_rules(analyzers)
        .with_physical_optimizer_rules(physical)
        .build();
    register_functions(&mut state).expect("built-in functions register");
    state.register_udf(Arc::new(crate::code_distance::udf(&engine.database))).expect("a built-in function registers");
    state.register_udtf(crate::versions::AT, crate::versions::At::new(Arc::clone(&engine.database)));
    state
}

fn register_functions(state: &mut SessionState) -> datafusion::common::Result<()> {
    datafusion_functions_json::register_all(state)?;
    for function in mvvd_udfs::scalar_functions() {
        state.register_udf(function)?;
    }
    Ok(())
}
