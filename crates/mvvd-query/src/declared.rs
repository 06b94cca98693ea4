//! A column's type and default as syntax, for values of statements that are not planned yet.

use datafusion::sql::sqlparser::ast::{self, Expr};
use mvvd_core::schema::{Column, sql_type};
use mvvd_core::{Result, VectorType};

use crate::prepare::cast_to;
use crate::syntax::parse_expr;
/// A column's type and default as syntax, for casts inside the statement.
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) ty: Option<ast::DataType>,
    pub(crate) vector: Option<VectorType>,
    pub(crate) default: Option<Expr>,
}

pub(crate) fn declared(column: &Column) -> Result<Declared> {
    // A type without a name in SQL (a struct, say) is cast after the query instead.
    let ty = match parse_expr(&format!("CAST(NULL AS {})", sql_type(&column.field))) {
        Ok(Expr::Cast { data_type, .. }) => Some(data_type),
        _ => None,
    };
    let default = column.default.as_deref().map(parse_expr).transpose()?;
    Ok(Declared { name: column.field.name().clone(), ty, vector: VectorType::of_field(&column.field), default })
}

pub(crate) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}

/// A value with a cast where planning needs to know its type: vectors in any notation, and parameters.
pub(crate) fn typed(expr: Expr, column: &Declared) -> Expr {
    let is_parameter = matches!(&expr, Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)));
    match &column.ty {
        Some(ty) if column.vector.is_some() || is_parameter => cast_to(expr, ty.clone()),
        _ => expr,
    }
}
