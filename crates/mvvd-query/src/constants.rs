//! The rows of an INSERT whose values are constants, read without a planner: what most single inserts are.
//!
//! Only constants that mean the same to the planner are taken: a value that has its column's type already, or that has
//! one way only to become it. For everything else, wrong values too, there is no answer here, and the planner has it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
};
use datafusion::sql::sqlparser::ast::{self, Expr, Query, SetExpr, UnaryOperator};
use mvvd_core::convert::to_vectors;
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{TableSchema, VectorType};

use crate::Value;

/// One value of the list.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Null,
    Bool(bool),
    /// Digits, and whether a minus sign is before them.
    Number(&'a str, bool),
    Text(&'a str),
    Param(&'a Value),
}

/// The rows of a VALUES list for these columns of a table, or `None` if that takes a planner.
///
/// The batch has the columns in the order of `columns`.
pub(crate) fn constant_rows(
    source: &Query,
    columns: &[usize],
    schema: &TableSchema,
    params: &[Value],
) -> Option<RecordBatch> {
    let rows = plain_values(source)?;
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    let mut cells = Vec::with_capacity(rows.len());
    if rows.iter().any(|row| row.content.len() != columns.len()) {
        return None;
    }
    for (position, &column) in columns.iter().enumerate() {
        let field = &schema.columns()[column].field;
        cells.clear();
        for row in rows {
            cells.push(cell(&row.content[position], params)?);
        }
        arrays.push(array_of(&cells, field)?);
        fields.push(Arc::clone(field));
    }
    // Columns that are not given have a default, which the planner computes.
    let has_default = |i: usize| schema.columns()[i].default.is_some() && !columns.contains(&i);
    if (0..schema.columns().len()).any(has_default) {
        return None;
    }
    // Whether a NULL is allowed is the table's to say.
    let fields: Vec<Field> = fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).ok()
}

/// The rows of a query that is a VALUES list and nothing else.
pub(crate) fn plain_values(source: &Query) -> Option<&[ast::Parens<Vec<Expr>>]> {
    let Query { with: None, body, order_by: None, limit_clause: None, fetch: None, locks, .. } = source else {
        return None;
    };
    let SetExpr::Values(values) = body.as_ref() else { return None };
    let is_plain = locks.is_empty()
        && source.for_clause.is_none()
        && source.settings.is_none()
        && source.format_clause.is_none()
        && source.pipe_operators.is_empty();
    is_plain.then_some(values.rows.as_slice())
}

fn cell<'a>(expr: &'a Expr, params: &'a [Value]) -> Option<Cell<'a>> {
    match expr {
        Expr::Value(literal) => match &literal.value {
            ast::Value::Null => Some(Cell::Null),
            ast::Value::Boolean(value) => Some(Cell::Bool(*value)),
            ast::Value::Number(digits, false) => Some(Cell::Number(digits, false)),
            ast::Value::SingleQuotedString(text) => Some(Cell::Text(text)),
            ast::Value::Placeholder(name) => {
                let number: usize = name.strip_prefix('$')?.parse().ok()?;
                let value = params.get(number.checked_sub(1)?)?;
                Some(if value.is_null() { Cell::Null } else { Cell::Param(value) })
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match cell(expr, &[])? {
            Cell::Number(digits, false) => Some(Cell::Number(digits, true)),
            _ => None,
        },
        _ => None,
    }
}

fn array_of(cells: &[Cell<'_>], field: &Field) -> Option<ArrayRef> {
    if let Some(vector) = VectorType::of_field(field) {
        return vectors_of(cells, vector);
    }
    if field.metadata().contains_key(TYPE_KEY) {
        return None;
    }
    match field.data_type() {
        DataType::Int8 => integers::<Int8Type>(cells),
        DataType::Int16 => integers::<Int16Type>(cells),
        DataType::Int32 => integers::<Int32Type>(cells),
        DataType::Int64 => integers::<Int64Type>(cells),
        DataType::Float32 => primitives::<Float32Type>(cells, &|text| match text.parse::<i64>() {
            Ok(whole) => Some(whole as f32),
            Err(_) => text.parse::<f64>().ok().map(|value| value as f32).filter(|value| value.is_finite()),
        }),
        DataType::Float64 => primitives::<Float64Type>(cells, &|text| match text.parse::<i64>() {
            Ok(whole) => Some(whole as f64),
            Err(_) => text.parse::<f64>().ok().filter(|value| value.is_finite()),
        }),
        DataType::Utf8 => {
            let texts = cells.iter().map(|cell| match cell {
                Cell::Null => Some(None),
                Cell::Text(text) => Some(Some(*text)),
                Cell::Param(Value::Utf8(Some(text))) => Some(Some(text.as_str())),
                _ => None,
            });
            Some(Arc::new(texts.collect::<Option<StringArray>>()?))
        }
        DataType::Boolean => {
            let values = cells.iter().map(|cell| match cell {
                Cell::Null => Some(None),
                Cell::Bool(value) => Some(Some(*value)),
                Cell::Param(Value::Boolean(value)) => Some(*value),
                _ => None,
            });
            Some(Arc::new(values.collect::<Option<BooleanArray>>()?))
        }
        // Other types: parameters that have the type already.
        data_type => {
            let nothing = Value::try_from(data_type).ok()?;
            let values = cells.iter().map(|cell| match cell {
                Cell::Null => Some(nothing.clone()),
                Cell::Param(value) if value.data_type() == *data_type => Some((*value).clone()),
                _ => None,
            });
            Value::iter_to_array(values.collect::<Option<Vec<_>>>()?).ok()
        }
    }
}

fn integers<T: ArrowPrimitiveType>(cells: &[Cell<'_>]) -> Option<ArrayRef>
where
    T::Native: TryFrom<i64>,
{
    primitives::<T>(cells, &|text| T::Native::try_from(text.parse::<i64>().ok()?).ok())
}

/// Numbers as they are written, and parameters of just this type.
fn primitives<T: ArrowPrimitiveType>(
    cells: &[Cell<'_>],
    parse: &dyn Fn(&str) -> Option<T::Native>,
) -> Option<ArrayRef> {
    let mut values = PrimitiveArray::<T>::builder(cells.len());
    for cell in cells {
        match cell {
            Cell::Null => values.append_null(),
            Cell::Number(digits, false) => values.append_value(parse(digits)?),
            Cell::Number(digits, true) => values.append_value(parse(&format!("-{digits}"))?),
            Cell::Param(value) if value.data_type() == T::DATA_TYPE => {
                let array = value.to_array().ok()?;
                values.append_value(array.as_any().downcast_ref::<PrimitiveArray<T>>()?.value(0));
            }
            _ => return None,
        }
    }
    Some(Arc::new(values.finish()))
}

fn vectors_of(cells: &[Cell<'_>], ty: VectorType) -> Option<ArrayRef> {
    if cells.iter().all(|cell| matches!(cell, Cell::Null | Cell::Text(_))) {
        let texts = cells.iter().map(|cell| if let Cell::Text(text) = cell { Some(*text) } else { None });
        return to_vectors(&texts.collect::<StringArray>(), None, ty).ok();
    }
    let one = |cell: &Cell<'_>| match cell {
        Cell::Null => to_vectors(&StringArray::new_null(1), None, ty).ok(),
        Cell::Text(text) => to_vectors(&StringArray::from(vec![*text]), None, ty).ok(),
        Cell::Param(value @ (Value::Utf8(_) | Value::List(_) | Value::LargeList(_) | Value::FixedSizeList(_))) => {
            to_vectors(&value.to_array().ok()?, None, ty).ok()
        }
        _ => None,
    };
    let vectors = cells.iter().map(one).collect::<Option<Vec<_>>>()?;
    match vectors.as_slice() {
        [vector] => Some(Arc::clone(vector)),
        vectors => concat(&vectors.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()).ok(),
    }
}
