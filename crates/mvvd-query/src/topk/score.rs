//! Sort keys for a block of rows: distances straight from the column buffers, everything else by DataFusion.
//!
//! An expression such as `0.6 * (a <=> $1) + 0.4 * (b <-> $2) + price` is split into its distances, each of which is
//! computed by a kernel for the selected rows without copying a vector, and the rest, which sees each distance as an
//! ordinary column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use mvvd_core::VectorType;
use mvvd_storage::Chunk;
use mvvd_udfs::{BoundDistance, Distance, distance_of};

use crate::error::to_df;
use crate::scan_exec::{Scan, with_row_id};

/// A distance between a column and a vector that is the same for every row.
#[derive(Debug, Clone)]
struct Term {
    distance: Distance,
    column: usize,
    query: Arc<dyn PhysicalExpr>,
}

/// Sort keys split into distances and the rest.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    terms: Vec<Term>,
    /// Positions in the table of the columns that the rest reads.
    columns: Vec<usize>,
    /// The keys over `columns` followed by the distances.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    input: SchemaRef,
}

impl Score {
    /// Splits `keys`, which are expressions over all columns of the table with the row number behind them.
    pub(crate) fn new(keys: &[Arc<dyn PhysicalExpr>], table: &SchemaRef) -> Result<Self> {
        let full = with_row_id(table);
        let width = full.fields().len();
        let mut terms: Vec<Term> = Vec::new();
        // Distances become columns behind the table's own.
        let split = keys
            .iter()
            .map(|key| {
                let split = Arc::clone(key).transform_down(|node| {
                    let Some(term) = as_term(&node) else { return Ok(Transformed::no(node)) };
                    let known = terms.iter().position(|t| {
                        t.column == term.column
                            && t.distance == term.distance
                            && t.query.as_ref() == term.query.as_ref()
                    });
                    let index = known.unwrap_or_else(|| {
                        terms.push(term);
                        terms.len() - 1
                    });
                    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("distance", width + index));
                    Ok(Transformed::yes(column))
                })?;
                Ok(split.data)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut columns: Vec<usize> =
            split.iter().flat_map(collect_columns).map(|c| c.index()).filter(|i| *i < width).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut fields: Vec<Arc<Field>> = columns.iter().map(|&i| Arc::clone(&full.fields()[i])).collect();
        fields.extend((0..terms.len()).map(|i| Arc::new(Field::new(format!("distance_{i}"), DataType::Float64, true))));
        let keys = split
            .into_iter()
            .map(|key| {
                let moved = key.transform_up(|node| {
                    let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
                    let index = match column.index().checked_sub(width) {
                        Some(term) => columns.len() + term,
                        None => columns.iter().position(|c| *c == column.index()).unwrap_or(usize::MAX),
                    };
                    let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), index));
                    Ok(Transformed::yes(moved))
                })?;
                Ok(moved.data)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { terms, columns, keys, input: Arc::new(Schema::new(fields)) })
    }

    /// Number of distances that kernels compute.
    pub(crate) fn distances(&self) -> usize {
        self.terms.len()
    }

    /// The types of the keys.
    pub(crate) fn key_types(&self) -> Result<Vec<DataType>> {
        self.keys.iter().map(|key| key.data_type(&self.input)).collect()
    }

    /// Reads the query vectors, which subqueries may just have computed.
    pub(crate) fn bind(&self, scan: &Scan) -> Result<BoundScore> {
        let empty = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        let table = scan.snapshot.schema().arrow();
        let terms = self
            .terms
            .iter()
            .map(|term| {
                let query = match term.query.evaluate(&empty)? {
                    ColumnarValue::Scalar(scalar) => scalar,
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
                };
                let field = table.field(term.column);
                let bound = match query.is_null() {
                    true => None,
                    false => Some(
                        term.distance.bind(field.data_type(), VectorType::of_field(field), &query).map_err(to_df)?,
                    ),
                };
                Ok((term.column, bound))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(BoundScore { terms, columns: self.columns.clone(), keys: self.keys.clone(), input: Arc::clone(&self.input) })
    }
}

fn as_term(node: &Arc<dyn PhysicalExpr>) -> Option<Term> {
    let call = node.downcast_ref::<ScalarFunctionExpr>()?;
    let distance = distance_of(call.fun())?;
    let [left, right] = call.args() else { return None };
    let constant = |e: &Arc<dyn PhysicalExpr>| collect_columns(e).is_empty();
    let (column, query) = match (left.downcast_ref::<Column>(), right.downcast_ref::<Column>()) {
        (Some(column), None) if constant(right) => (column, right),
        (None, Some(column)) if constant(left) => (column, left),
        _ => return None,
    };
    Some(Term { distance, column: column.index(), query: Arc::clone(query) })
}

/// Sort keys with their query vectors.
pub(crate) struct BoundScore {
    terms: Vec<(usize, Option<BoundDistance>)>,
    columns: Vec<usize>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    input: SchemaRef,
}

impl BoundScore {
    /// The sort keys of the rows at `ordinals` (within `range`; `None` for all of them).
    pub(crate) fn evaluate(
        &self,
        scan: &Scan,
        chunk: &Chunk,
        range: Range<usize>,
        ordinals: Option<&UInt32Array>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = ordinals.map_or(range.len(), Array::len);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + self.terms.len());
        for &column in &self.columns {
            let array = scan.column(chunk, column, range.clone())?;
            arrays.push(match ordinals {
                Some(ordinals) => take(&array, ordinals, None)?,
                None => array,
            });
        }
        for (column, distance) in &self.terms {
            let Some(distance) = distance else {
                arrays.push(Arc::new(Float64Array::new_null(rows)));
                continue;
            };
            let array = scan.column(chunk, *column, range.clone())?;
            let mut values = Vec::with_capacity(rows);
            let nulls = distance.evaluate(&array, ordinals.map(|o| &o.values()[..]), &mut values).map_err(to_df)?;
            arrays.push(Arc::new(Float64Array::new(values.into(), nulls)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.input), arrays, &options)?;
        self.keys.iter().map(|key| key.evaluate(&batch)?.into_array(rows)).collect()
    }
}
