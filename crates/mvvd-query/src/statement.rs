//! Which code runs a statement: ours for everything that changes something, DataFusion's planner for queries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArguments, ObjectName, Query, SelectItem, SetExpr, TableFactor, Visit,
    Visitor, VisitMut, VisitorMut,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use mvvd_core::{Error, Result};

use crate::answer::Answer;
use crate::session::Session;
use crate::Value;

impl Session {
    /// Runs a parsed statement. Boxed, since EXECUTE comes back here.
    pub(crate) fn dispatch(&self, statement: ast::Statement, params: Vec<Value>) -> BoxFuture<'_, Result<Answer>> {
        async move {
            use ast::Statement as S;
            check_supported(&statement)?;
            match statement {
                S::Query(_) => self.run_query("SELECT", nearest_first(statement), &params).await,
                S::Explain { .. } => self.run_query("EXPLAIN", nearest_first(explainable(statement)?), &params).await,
                S::CreateTable(create) => self.create_table(create, &params).await,
                S::AlterTable(alter) => self.alter_table(alter).await,
                S::Drop { object_type: ast::ObjectType::Table, if_exists, names, .. } => self.drop_tables(if_exists, &names).await,
                S::Truncate(truncate) => self.truncate(&truncate).await,
                S::Insert(insert) => self.insert_statement(insert, &params).await,
                S::Update(update) => self.update_statement(update, &params).await,
                S::Delete(delete) => self.delete_statement(delete, &params).await,
                S::Copy { source, to, target, options, legacy_options, .. } => {
                    self.copy(source, to, target, &options, &legacy_options, &params).await
                }
                S::Set(set) => self.set(set),
                S::Reset(reset) => self.reset(&reset),
                S::ShowVariable { variable } => self.show(&variable).await,
                S::ShowTables { .. } => self.show_tables().await,
                S::Prepare { name, data_types, statement } => self.prepare(&name, data_types, *statement).await,
                S::Execute { name, parameters, .. } => self.execute(name, parameters, &params).await,
                S::Deallocate { name, .. } => self.deallocate(&name),
                other => Err(unsupported(&other)),
            }
        }
        .boxed()
    }
}

/// The error for a statement that parses but that we do not run.
fn unsupported(statement: &ast::Statement) -> Error {
    use ast::Statement as S;
    match statement {
        S::CreateIndex(_) | S::Drop { object_type: ast::ObjectType::Index, .. } => {
            Error::unsupported("indexes are not supported in this version")
                .with_hint("every query is answered exactly without one")
        }
        S::StartTransaction { .. } | S::Commit { .. } | S::Rollback { .. } | S::Savepoint { .. } => {
            Error::unsupported("transactions over several statements are not supported")
                .with_hint("each statement is atomic by itself")
        }
        S::CreateView { .. } => Error::unsupported("CREATE VIEW is not supported").with_hint("use WITH name AS (SELECT …)"),
        S::Merge { .. } => Error::unsupported("MERGE is not supported").with_hint("use INSERT … ON CONFLICT DO UPDATE"),
        S::Delete { .. } => Error::unsupported("this form of DELETE is not supported"),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take_while(|w| w.chars().all(|c| c.is_ascii_uppercase())).take(3).collect();
            let name = if words.is_empty() { "this statement".to_owned() } else { words.join(" ") };
            Error::unsupported(format!("{name} is not supported"))
        }
    }
}

/// `EXPLAIN` in the forms that DataFusion runs; its options in parentheses become keywords.
fn explainable(statement: ast::Statement) -> Result<ast::Statement> {
    let ast::Statement::Explain { describe_alias, mut analyze, mut verbose, query_plan, estimate, statement, format, options } = statement
    else {
        return Ok(statement);
    };
    if !matches!(*statement, ast::Statement::Query(_)) {
        return Err(Error::unsupported("EXPLAIN is supported for queries only"));
    }
    for option in options.iter().flatten() {
        let on = match &option.arg {
            None => true,
            Some(arg) => !matches!(arg.to_string().to_ascii_lowercase().as_str(), "false" | "off" | "0"),
        };
        match option.name.value.to_ascii_lowercase().as_str() {
            "analyze" => analyze = on,
            "verbose" => verbose = on,
            "recall" => {
                return Err(Error::unsupported("EXPLAIN (RECALL) is not supported in this version")
                    .with_hint("without indexes every answer is exact"));
            }
            other => {
                return Err(Error::invalid(format!("unknown EXPLAIN option \"{other}\"")).with_hint("the options are ANALYZE and VERBOSE"));
            }
        }
    }
    Ok(ast::Statement::Explain { describe_alias, analyze, verbose, query_plan, estimate, statement, format, options: None })
}

/// Refuses clauses that the planner would drop without a word.
fn check_supported(statement: &ast::Statement) -> Result<()> {
    struct Check;
    impl Visitor for Check {
        type Break = Error;

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
            match query.locks.first() {
                Some(_) => ControlFlow::Break(
                    Error::unsupported("FOR UPDATE and FOR SHARE are not supported").with_hint("each statement is atomic by itself"),
                ),
                None => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
            match factor {
                TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                    ControlFlow::Break(Error::unsupported("TABLESAMPLE is not supported").with_hint("use WHERE random() < 0.1"))
                }
                TableFactor::Table { args: Some(args), .. } if args.args.iter().any(is_named) => ControlFlow::Break(named_args()),
                TableFactor::Function { args, .. } if args.iter().any(is_named) => ControlFlow::Break(named_args()),
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
            match expr {
                Expr::Function(function) => match &function.args {
                    FunctionArguments::List(list) if list.args.iter().any(is_named) => ControlFlow::Break(named_args()),
                    _ => ControlFlow::Continue(()),
                },
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match Visit::visit(statement, &mut Check) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn is_named(arg: &FunctionArg) -> bool {
    !matches!(arg, FunctionArg::Unnamed(_))
}

fn named_args() -> Error {
    Error::unsupported("named function arguments are not supported").with_hint("give the arguments in order")
}

/// Rows without a score never come first: `ORDER BY <similarity> DESC` means NULLS LAST unless the statement says more.
///
/// PostgreSQL puts NULL first in descending order; for a ranking by distances that would fill the first page with the
/// rows that have no vector.
fn nearest_first(mut statement: ast::Statement) -> ast::Statement {
    struct Rewrite;
    impl VisitorMut for Rewrite {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let names = projection_of(&query.body);
            let Some(order_by) = &mut query.order_by else { return ControlFlow::Continue(()) };
            let ast::OrderByKind::Expressions(exprs) = &mut order_by.kind else { return ControlFlow::Continue(()) };
            for order in exprs {
                if order.options.asc == Some(false) && order.options.nulls_first.is_none() && is_score(&order.expr, &names) {
                    order.options.nulls_first = Some(false);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(&mut statement, &mut Rewrite);
    statement
}

/// The output columns of a SELECT with their names, for ORDER BY to refer to.
fn projection_of(body: &SetExpr) -> Vec<(Option<String>, Expr)> {
    let SetExpr::Select(select) = body else { return Vec::new() };
    select
        .projection
        .iter()
        .map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => (Some(alias.value.clone()), expr.clone()),
            SelectItem::UnnamedExpr(expr) => (None, expr.clone()),
            _ => (None, Expr::value(ast::Value::Null)),
        })
        .collect()
}

fn is_score(expr: &Expr, projection: &[(Option<String>, Expr)]) -> bool {
    let meant = match expr {
        Expr::Identifier(name) => projection.iter().find(|(alias, _)| alias.as_ref() == Some(&name.value)).map(|(_, e)| e),
        Expr::Value(value) => match &value.value {
            ast::Value::Number(n, _) => n.parse::<usize>().ok().and_then(|i| projection.get(i.checked_sub(1)?)).map(|(_, e)| e),
            _ => None,
        },
        _ => None,
    };
    has_distance(meant.unwrap_or(expr))
}

fn has_distance(expr: &Expr) -> bool {
    let found = ast::visit_expressions(expr, |e| match e {
        Expr::BinaryOp { op, .. } if is_distance_operator(op) => ControlFlow::Break(()),
        Expr::Function(function) if is_distance_function(&function.name) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn is_distance_operator(op: &BinaryOperator) -> bool {
    matches!(op.to_string().as_str(), "<->" | "<#>" | "<~=>" | "<~+>" | "<~>" | "<%>")
}

fn is_distance_function(name: &ObjectName) -> bool {
    let name = name.to_string().to_ascii_lowercase();
    name.ends_with("_distance") || name.ends_with("inner_product") || name == "cosine_similarity"
}
