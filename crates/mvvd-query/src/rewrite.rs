//! Changes to a statement's syntax before it is planned: where PostgreSQL and the planner differ in meaning.
//!
//! - a ranking by a similarity puts rows without a score last;
//! - `x = ANY (query)` becomes `x IN (query)`: the planner's own form mixes up columns of the same name;
//! - columns of one SELECT get different names, which the planner needs and PostgreSQL does not;
//! - a VALUES list with a subquery becomes SELECTs, since the planner computes VALUES before any subquery has run.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut,
};
use mvvd_core::{Error, Result};

use crate::prepare::normal;
use crate::statement::{is_distance_function, is_distance_operator};
use crate::syntax::{select_mut, select_template};

/// Most rows of a VALUES list that has subqueries.
const SUBQUERY_ROWS_MAX: usize = 200;

/// The statement in the form that the planner takes.
pub(crate) fn rewrite(statement: &mut ast::Statement) -> Result<()> {
    let is_insert = matches!(statement, ast::Statement::Insert(_));
    // The columns of a new table are named by its author.
    let names_apart = !matches!(statement, ast::Statement::CreateTable(_));
    match VisitMut::visit(statement, &mut Rewrite { is_insert, names_apart, depth: 0 }) {
        ControlFlow::Break(e) => Err(e),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewrite {
    is_insert: bool,
    names_apart: bool,
    /// Queries around the current one.
    depth: usize,
}

impl VisitorMut for Rewrite {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        // The rows of an INSERT are typed by its columns first.
        if !(self.is_insert && self.depth == 1)
            && let Err(e) = values_with_subqueries(&mut query.body)
        {
            return ControlFlow::Break(e);
        }
        nearest_first(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        // A name that comes twice inside a subquery is ambiguous outside, and stays so.
        if self.names_apart && self.depth <= 1 {
            name_apart(select);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match set_comparison(expr) {
            Ok(Some(replacement)) => *expr = replacement,
            Ok(None) => {}
            Err(e) => return ControlFlow::Break(e),
        }
        ControlFlow::Continue(())
    }
}

/// `= ANY (query)` as IN, `<> ALL (query)` as NOT IN; other comparisons with a whole query are refused.
fn set_comparison(expr: &Expr) -> Result<Option<Expr>> {
    let (left, op, right, any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
        _ => return Ok(None),
    };
    let mut inner = right.as_ref();
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let Expr::Subquery(query) = inner else { return Ok(None) };
    let negated = match (any, op) {
        (true, BinaryOperator::Eq) => false,
        (false, BinaryOperator::NotEq) => true,
        _ => {
            let word = if any { "ANY" } else { "ALL" };
            return Err(Error::unsupported(format!("{op} {word} (query) is not supported"))
                .with_hint("compare with (SELECT min(…) …) or (SELECT max(…) …)"));
        }
    };
    Ok(Some(Expr::InSubquery { expr: left.clone(), subquery: query.clone(), negated }))
}

/// Gives a column its own name where another one has it already; casts do not count, as in the planner.
fn name_apart(select: &mut Select) {
    let mut seen = HashSet::new();
    for item in &mut select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => {
                seen.insert(alias.value.clone());
            }
            SelectItem::UnnamedExpr(expr) => {
                let name = without_casts(expr).to_string();
                if seen.insert(name.clone()) {
                    continue;
                }
                let fresh = (2..).map(|n| format!("{name}_{n}")).find(|name| !seen.contains(name));
                let fresh = fresh.expect("there are more numbers than columns");
                seen.insert(fresh.clone());
                let expr = expr.clone();
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', fresh) };
            }
            _ => {}
        }
    }
}

fn without_casts(expr: &Expr) -> Expr {
    struct Strip;
    impl VisitorMut for Strip {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
                *expr = inner.as_ref().clone();
            }
            ControlFlow::Continue(())
        }
    }
    let mut stripped = expr.clone();
    let _ = VisitMut::visit(&mut stripped, &mut Strip);
    stripped
}

/// A VALUES list with a subquery as SELECTs.
pub(crate) fn values_with_subqueries(body: &mut SetExpr) -> Result<()> {
    let SetExpr::Values(values) = body else { return Ok(()) };
    let has_subquery = values.rows.iter().flat_map(|row| &row.content).any(|value| {
        ast::visit_expressions(value, |e| match e {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    });
    if !has_subquery {
        return Ok(());
    }
    if values.rows.len() > SUBQUERY_ROWS_MAX {
        return Err(Error::exhausted(format!(
            "a VALUES list with subqueries can have {SUBQUERY_ROWS_MAX} rows, got {}",
            values.rows.len()
        ))
        .with_hint("use INSERT … SELECT"));
    }
    let mut all: Option<SetExpr> = None;
    for row in std::mem::take(&mut values.rows) {
        let mut query = select_template();
        select_mut(&mut query).projection = row
            .content
            .into_iter()
            .enumerate()
            .map(|(i, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("column{}", i + 1)) })
            .collect();
        let select = *query.body;
        all = Some(match all {
            None => select,
            Some(before) => SetExpr::SetOperation {
                op: ast::SetOperator::Union,
                set_quantifier: ast::SetQuantifier::All,
                left: Box::new(before),
                right: Box::new(select),
            },
        });
    }
    if let Some(all) = all {
        *body = all;
    }
    Ok(())
}

/// Rows without a score never come first: `ORDER BY <similarity> DESC` means NULLS LAST unless the statement says more.
///
/// PostgreSQL puts NULL first in descending order; for a ranking by distances that would fill the first page with the
/// rows that have no vector.
fn nearest_first(query: &mut Query) {
    let names = projection_of(&query.body);
    let Some(order_by) = &mut query.order_by else { return };
    let ast::OrderByKind::Expressions(exprs) = &mut order_by.kind else { return };
    for order in exprs {
        if order.options.asc == Some(false) && order.options.nulls_first.is_none() && is_score(&order.expr, &names) {
            order.options.nulls_first = Some(false);
        }
    }
}

/// The output columns of a SELECT with their names, for ORDER BY to refer to.
fn projection_of(body: &SetExpr) -> Vec<(Option<String>, Expr)> {
    let SetExpr::Select(select) = body else { return Vec::new() };
    select
        .projection
        .iter()
        .map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => (Some(normal(alias)), expr.clone()),
            SelectItem::UnnamedExpr(expr) => (None, expr.clone()),
            _ => (None, Expr::value(ast::Value::Null)),
        })
        .collect()
}

fn is_score(expr: &Expr, projection: &[(Option<String>, Expr)]) -> bool {
    let meant = match expr {
        Expr::Identifier(name) => projection.iter().find(|(alias, _)| *alias == Some(normal(name))).map(|(_, e)| e),
        Expr::Value(value) => match &value.value {
            ast::Value::Number(n, _) => {
                n.parse::<usize>().ok().and_then(|i| projection.get(i.checked_sub(1)?)).map(|(_, e)| e)
            }
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
