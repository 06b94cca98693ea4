//! `hnsw_search`, `ivf_rabitq_search`, `ivf_pq_search` and `vector_search`: the nearest rows as a relation.
//!
//! ```text
//! FROM hnsw_search('items', 'v', $1, 10) AS s   =>
//! FROM (SELECT *, cosine_distance(v, $1) AS distance FROM items ORDER BY distance LIMIT 10) AS s
//! ```
//!
//! The distance is that of the index. What the call says beyond that, how hard to try and which kind of index to take,
//! holds for the statement.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause, ObjectName, SelectItem,
    TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use mvvd_core::metric::Metric;
use mvvd_core::schema::IndexDef;
use mvvd_core::{Error, Result, TableSchema, VectorKind, VectorType};
use mvvd_storage::Database;

use crate::Settings;
use crate::catalog::{CATALOG, PUBLIC};
use crate::code_distance;
use crate::lexer::parse;
use crate::session::Session;
use crate::syntax::select_mut;

/// Name of the column with the distance.
const DISTANCE: &str = "distance";

/// A search function: its name, the kind of index it asks for, and the setting that its last argument stands for.
struct Function {
    name: &'static str,
    kind: Option<&'static str>,
    effort: Option<&'static str>,
}

const FUNCTIONS: [Function; 4] = [
    Function { name: "hnsw_search", kind: Some("hnsw"), effort: Some("ef_search") },
    Function { name: "ivf_rabitq_search", kind: Some("ivf_rabitq"), effort: Some("nprobe") },
    Function { name: "ivf_pq_search", kind: Some("ivf_pq"), effort: Some("nprobe") },
    Function { name: "vector_search", kind: None, effort: None },
];

impl Session {
    /// Replaces the search functions in a statement, and those that look into the codes of indexes. Returns the settings that they ask for, if there is any function.
    pub(crate) fn expand_searches(&self, statement: &mut ast::Statement) -> Result<Option<Settings>> {
        let mut expand = Expand { database: &self.engine.database, asked: None, settings: self.settings() };
        match VisitMut::visit(statement, &mut expand) {
            ControlFlow::Break(e) => Err(e),
            ControlFlow::Continue(()) => Ok(expand.asked.map(|_| expand.settings)),
        }
    }
}

struct Expand<'a> {
    database: &'a Database,
    /// What the first call asks for: the others must ask for the same.
    asked: Option<(Option<&'static str>, Option<String>)>,
    settings: Settings,
}

impl VisitorMut for Expand<'_> {
    type Break = Error;

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &*factor else {
            return ControlFlow::Continue(());
        };
        let text = name.to_string();
        let Some(function) = FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(&text)) else {
            return ControlFlow::Continue(());
        };
        match self.expand(function, &args.args, alias.as_ref()) {
            Ok(expanded) => {
                *factor = expanded;
                ControlFlow::Continue(())
            }
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match code_distance::expand(self.database, expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }
}

impl Expand<'_> {
    fn expand(&mut self, function: &Function, args: &[FunctionArg], alias: Option<&TableAlias>) -> Result<TableFactor> {
        let wrong = |what: &str| {
            let effort = function.effort.map_or_else(String::new, |name| format!(" [, {name}]"));
            Error::invalid(format!("{}: {what}", function.name))
                .with_hint(format!("write {}('table', 'column', query, k{effort})", function.name))
        };
        let exprs = args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
                _ => Err(wrong("arguments are values in order")),
            })
            .collect::<Result<Vec<&Expr>>>()?;
        let (table, column, query, k, effort) = match exprs[..] {
            [table, column, query, k] => (table, column, query, k, None),
            [table, column, query, k, effort] if function.effort.is_some() => (table, column, query, k, Some(effort)),
            _ => return Err(wrong(&format!("got {} arguments", exprs.len()))),
        };
        let (Some(table), Some(column)) = (text_of(table), text_of(column)) else {
            return Err(wrong("the names of table and column are texts"));
        };
        let head = self.database.table(&table)?.snapshot();
        let schema = head.schema();
        let metric = metric_for(schema, &column, function)?;
        if schema.index_of(DISTANCE).is_ok() {
            return Err(Error::unsupported(format!(
                "{}: table \"{table}\" has a column \"{DISTANCE}\" of its own",
                function.name
            ))
            .with_hint("use ORDER BY with a distance and LIMIT"));
        }
        if names_a_column(query) || names_a_column(k) {
            return Err(wrong("the query and k are values or subqueries, no columns"));
        }
        if is_no_count(k) {
            return Err(wrong("k is a number of rows"));
        }
        self.ask(function, effort)?;

        let template = format!("SELECT *, {}(c, q) AS {DISTANCE} FROM t ORDER BY {DISTANCE} LIMIT 1", name_of(metric));
        let ast::Statement::Query(mut subquery) = Arc::unwrap_or_clone(parse(&template)?.remove(0).ast) else {
            return Err(Error::internal("a SELECT is a query"));
        };
        let select = select_mut(&mut subquery);
        if let Some(SelectItem::ExprWithAlias { expr: Expr::Function(call), .. }) = select.projection.last_mut()
            && let FunctionArguments::List(list) = &mut call.args
        {
            let values = [Expr::Identifier(Ident::with_quote('"', column)), query.clone()];
            list.args = values.map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))).to_vec();
        }
        if let Some(from) = select.from.first_mut()
            && let TableFactor::Table { name, .. } = &mut from.relation
        {
            // In full: a WITH of the same name is not meant.
            *name = ObjectName::from([CATALOG, PUBLIC, &table].map(|part| Ident::with_quote('"', part)).to_vec());
        }
        if let Some(LimitClause::LimitOffset { limit, .. }) = &mut subquery.limit_clause {
            *limit = Some(k.clone());
        }
        let named = || TableAlias { explicit: true, name: Ident::new(function.name), columns: Vec::new(), at: None };
        let alias = Some(alias.cloned().unwrap_or_else(named));
        Ok(TableFactor::Derived { lateral: false, subquery, alias, sample: None })
    }

    /// Notes what the call asks for.
    fn ask(&mut self, function: &Function, effort: Option<&Expr>) -> Result<()> {
        let effort = effort.map(ToString::to_string);
        let asks = (function.kind, effort.clone());
        if self.asked.as_ref().is_some_and(|before| *before != asks) {
            return Err(Error::unsupported("search functions of one statement must be the same and try equally hard"));
        }
        if let (Some(name), Some(effort)) = (function.effort, effort) {
            self.settings.set(name, &effort)?;
        }
        self.settings.index_kind = function.kind;
        self.asked = Some(asks);
        Ok(())
    }
}

/// The metric of the index that the function asks for or, of `vector_search` without an index, of the column's type.
fn metric_for(schema: &TableSchema, column: &str, function: &Function) -> Result<Metric> {
    let found = &schema.columns()[schema.index_of(column)?];
    let Some(ty) = VectorType::of_field(&found.field) else {
        let ty = mvvd_core::schema::sql_type(&found.field);
        return Err(Error::invalid(format!("{}: column \"{column}\" of type {ty} has no vectors", function.name)));
    };
    let serves =
        |index: &&IndexDef| index.columns.contains(&found.id) && function.kind.is_none_or(|kind| kind == index.kind);
    match (schema.indexes().iter().find(serves), function.kind) {
        (Some(index), _) => Ok(index.metric),
        (None, None) if ty.kind == VectorKind::Bit => Ok(Metric::Hamming),
        (None, None) => Ok(Metric::L2),
        (None, Some(kind)) => {
            Err(Error::not_found(format!("{}: column \"{column}\" has no index of type {kind}", function.name))
                .with_hint("make one with CREATE INDEX, or use vector_search"))
        }
    }
}

/// The function that computes the metric.
fn name_of(metric: Metric) -> &'static str {
    match metric {
        Metric::L2 => "l2_distance",
        Metric::L2Squared => "l2_squared_distance",
        Metric::Dot => "negative_inner_product",
        Metric::Cosine => "cosine_distance",
        Metric::L1 => "l1_distance",
        Metric::Hamming => "hamming_distance",
        Metric::Jaccard => "jaccard_distance",
    }
}

/// Whether an expression names a column outside its subqueries.
fn names_a_column(expr: &Expr) -> bool {
    #[derive(Default)]
    struct Names {
        depth: usize,
    }
    impl Visitor for Names {
        type Break = ();

        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.depth == 0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Names::default()).is_break()
}

/// Whether a literal is no number of rows, such as NULL or -1.
fn is_no_count(k: &Expr) -> bool {
    match k {
        Expr::UnaryOp { .. } => true,
        Expr::Value(value) => match &value.value {
            ast::Value::Number(number, _) => number.parse::<u64>().is_err(),
            ast::Value::Placeholder(_) => false,
            _ => true,
        },
        _ => false,
    }
}

pub(crate) fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        _ => None,
    }
}
