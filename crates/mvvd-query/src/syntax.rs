//! Pieces of syntax tree, for statements that are made here and not by users.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins,
};
use mvvd_core::{Error, Result};

use crate::catalog::{ROWS, SCRATCH};

/// Reads an expression that stands alone, such as a stored default.
pub(crate) fn parse_expr(text: &str) -> Result<Expr> {
    let mut statements = crate::lexer::parse(&format!("SELECT {text}"))?;
    let ast::Statement::Query(mut query) = Arc::unwrap_or_clone(statements.remove(0).ast) else {
        unreachable!("SELECT is a query")
    };
    match select_mut(&mut query).projection.swap_remove(0) {
        SelectItem::UnnamedExpr(expr) => Ok(expr),
        other => Err(Error::internal(format!("{other} is no expression"))),
    }
}

/// `SELECT 1`, to be filled.
pub(crate) fn select_template() -> Box<Query> {
    let mut statements = crate::lexer::parse("SELECT 1").expect("a constant statement parses");
    match Arc::unwrap_or_clone(statements.remove(0).ast) {
        ast::Statement::Query(query) => query,
        _ => unreachable!("SELECT is a query"),
    }
}

/// The SELECT of [`select_template`].
pub(crate) fn select_mut(query: &mut Query) -> &mut Select {
    match query.body.as_mut() {
        SetExpr::Select(select) => select,
        _ => unreachable!("the template is a SELECT"),
    }
}

/// `schema.table AS alias`.
pub(crate) fn relation(schema: &str, table: &str, alias: &str) -> TableWithJoins {
    let quoted = |name: &str| Ident::with_quote('"', name);
    TableWithJoins {
        relation: TableFactor::Table {
            name: ObjectName::from(vec![quoted(schema), quoted(table)]),
            alias: Some(TableAlias { explicit: true, name: quoted(alias), columns: Vec::new(), at: None }),
            args: None,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        },
        joins: Vec::new(),
    }
}

/// A table with its row numbers.
pub(crate) fn rows_relation(table: &str, alias: &str) -> TableWithJoins {
    relation(ROWS, table, alias)
}

/// A relation lent to this statement.
pub(crate) fn scratch_relation(name: &str, alias: &str) -> TableWithJoins {
    relation(SCRATCH, name, alias)
}

pub(crate) fn column_of(alias: &str, column: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', alias), Ident::with_quote('"', column)])
}

pub(crate) fn equals(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: ast::BinaryOperator::Eq, right: Box::new(right) }
}

pub(crate) fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: ast::BinaryOperator::And, right: Box::new(right) }
}

/// A name that no other statement uses.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("__mvvd_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
