//! Sort keys for a block of rows: distances straight from the column buffers, everything else by DataFusion.
//!
//! An expression such as `0.6 * (a <=> $1) + 0.4 * (b <-> $2) + price` is split into its distances, each of which is
//! computed by a kernel for the selected rows without copying a vector, and the rest, which sees each distance as an
//! ordinary column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::NullBuffer;
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
use mvvd_udfs::{BoundDistance, Distance, bound_distance_of, distance_of};

use super::sum::{WeightedSum, weights_of};
use crate::error::to_df;
use crate::scan_exec::{Scan, with_row_id};

/// A distance between a column and a vector that is the same for every row.
#[derive(Debug, Clone)]
struct Term {
    column: usize,
    query: TermQuery,
}

/// The vector that a distance compares with.
#[derive(Debug, Clone)]
enum TermQuery {
    /// Known when the statement was planned.
    Known(BoundDistance),
    /// Computed by a subquery or a function.
    Computed(Distance, Arc<dyn PhysicalExpr>),
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.column == other.column
            && match (&self.query, &other.query) {
                (TermQuery::Known(a), TermQuery::Known(b)) => a == b,
                (TermQuery::Computed(a, x), TermQuery::Computed(b, y)) => a == b && x.as_ref() == y.as_ref(),
                _ => false,
            }
    }
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
                    let known = terms.iter().position(|t| *t == term);
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

    /// The columns that distances are computed of.
    pub(crate) fn columns_of_distances(&self) -> impl Iterator<Item = usize> {
        self.terms.iter().map(|term| term.column)
    }

    /// The only key as the distance of one column, up to a factor and a summand; none if it is anything else.
    pub(crate) fn single_distance(&self) -> Option<SingleDistance> {
        let ([key], [term]) = (self.keys.as_slice(), self.terms.as_slice()) else { return None };
        let [slope] = weights_of(key, self.columns.len(), 1)?[..] else { return None };
        let distance = match &term.query {
            TermQuery::Known(bound) => bound.distance(),
            TermQuery::Computed(distance, _) => *distance,
        };
        let plain = key.downcast_ref::<Column>().is_some();
        (slope != 0.0 && slope.is_finite()).then_some(SingleDistance { column: term.column, distance, slope, plain })
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
                let bound = match &term.query {
                    TermQuery::Known(distance) => Some(distance.clone()),
                    TermQuery::Computed(distance, query) => {
                        let query = match query.evaluate(&empty)? {
                            ColumnarValue::Scalar(scalar) => scalar,
                            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
                        };
                        let field = table.field(term.column);
                        match query.is_null() {
                            true => None,
                            false => Some(
                                distance.bind(field.data_type(), VectorType::of_field(field), &query).map_err(to_df)?,
                            ),
                        }
                    }
                };
                Ok((term.column, bound))
            })
            .collect::<Result<Vec<_>>>()?;
        let sum = WeightedSum::of(&self.keys[0], self.columns.len(), &terms);
        Ok(BoundScore {
            terms,
            sum,
            columns: self.columns.clone(),
            keys: self.keys.clone(),
            input: Arc::clone(&self.input),
        })
    }
}

fn as_term(node: &Arc<dyn PhysicalExpr>) -> Option<Term> {
    let call = node.downcast_ref::<ScalarFunctionExpr>()?;
    let distance = distance_of(call.fun())?;
    let [left, right] = call.args() else { return None };
    if let Some(known) = bound_distance_of(call.fun()) {
        let column = left.downcast_ref::<Column>()?.index();
        return Some(Term { column, query: TermQuery::Known(known) });
    }
    let constant = |e: &Arc<dyn PhysicalExpr>| collect_columns(e).is_empty();
    let (column, query) = match (left.downcast_ref::<Column>(), right.downcast_ref::<Column>()) {
        (Some(column), None) if constant(right) => (column, right),
        (None, Some(column)) if constant(left) => (column, left),
        _ => return None,
    };
    Some(Term { column: column.index(), query: TermQuery::Computed(distance, Arc::clone(query)) })
}

/// A sort key that is `slope` times the distance of one column, and a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SingleDistance {
    pub(crate) column: usize,
    pub(crate) distance: Distance,
    pub(crate) slope: f64,
    /// It is the distance itself.
    pub(crate) plain: bool,
}

/// Sort keys with their query vectors.
pub(crate) struct BoundScore {
    terms: Vec<BoundTerm>,
    /// The first key as a weighted sum of the terms, if it is one.
    sum: Option<WeightedSum>,
    columns: Vec<usize>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    input: SchemaRef,
}

/// A column and the distance to it; no distance where the query is NULL.
pub(super) type BoundTerm = (usize, Option<BoundDistance>);

/// The rows of a block that may still win, and their sort keys.
pub(crate) struct Scored {
    /// Positions within the block; `None` means all of them.
    pub(crate) rows: Option<UInt32Array>,
    /// One array for each key, over `rows`.
    pub(crate) keys: Vec<ArrayRef>,
    /// How many distances were computed.
    pub(crate) distances: usize,
}

impl BoundScore {
    /// The first distance, with its query; none if the query is NULL.
    pub(crate) fn first_distance(&self) -> Option<&BoundDistance> {
        self.terms.first()?.1.as_ref()
    }

    /// The sort keys of the rows at `rows` (within `range`; `None` for all of them), but for rows that cannot win.
    ///
    /// `bound` is the first key that k other rows are known to reach, where there are k and the order is ascending
    /// with NULL last: a row whose first key is NULL or certainly beyond it may be left out.
    pub(crate) fn evaluate(
        &self,
        scan: &Scan,
        chunk: &Chunk,
        range: Range<usize>,
        mut rows: Option<UInt32Array>,
        bound: Option<f64>,
    ) -> Result<Scored> {
        let mut distances: Vec<Option<Distances>> = self.terms.iter().map(|_| None).collect();
        let mut computed = 0;
        if let (Some(sum), Some(bound)) = (&self.sum, bound) {
            let columns = self
                .terms
                .iter()
                .map(|(column, _)| scan.column(chunk, *column, range.clone()))
                .collect::<Result<Vec<_>>>()?;
            rows = present(&columns, range.len(), rows);
            let mut partial = vec![sum.constant(); rows.as_ref().map_or(range.len(), Array::len)];
            for (step, &(term, weight)) in sum.terms().iter().enumerate() {
                if partial.is_empty() {
                    break;
                }
                let found = self.distances(term, &columns[term], rows.as_ref())?;
                computed += found.values.len();
                partial.iter_mut().zip(&found.values).for_each(|(sum, d)| *sum += weight * d);
                distances[term] = Some(found);
                let Some(limit) = sum.limit(step, bound) else { continue };
                // NaN is kept: it is not beyond anything.
                let beyond = |sum: &f64| *sum > limit;
                let lost = partial.iter().filter(|sum| beyond(sum)).count();
                if lost * LOST_SHARE_MIN >= partial.len() {
                    let kept: Vec<u32> = (0..partial.len() as u32).filter(|&i| !beyond(&partial[i as usize])).collect();
                    distances.iter_mut().flatten().for_each(|found| found.keep(&kept));
                    partial = kept.iter().map(|&i| partial[i as usize]).collect();
                    rows = Some(match &rows {
                        Some(rows) => kept.iter().map(|&i| rows.value(i as usize)).collect::<Vec<_>>().into(),
                        None => kept.into(),
                    });
                }
            }
        }
        let count = rows.as_ref().map_or(range.len(), Array::len);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + self.terms.len());
        for &column in &self.columns {
            let array = scan.column(chunk, column, range.clone())?;
            arrays.push(match &rows {
                Some(rows) => take(&array, rows, None)?,
                None => array,
            });
        }
        for (term, found) in distances.into_iter().enumerate() {
            let found = match found {
                Some(found) => found,
                None => {
                    let column = scan.column(chunk, self.terms[term].0, range.clone())?;
                    computed += count;
                    self.distances(term, &column, rows.as_ref())?
                }
            };
            arrays.push(Arc::new(Float64Array::new(found.values.into(), found.nulls)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.input), arrays, &options)?;
        let keys = self.keys.iter().map(|key| key.evaluate(&batch)?.into_array(count)).collect::<Result<_>>()?;
        Ok(Scored { rows, keys, distances: computed })
    }

    fn distances(&self, term: usize, column: &ArrayRef, rows: Option<&UInt32Array>) -> Result<Distances> {
        let count = rows.map_or(column.len(), Array::len);
        let Some(distance) = &self.terms[term].1 else {
            return Ok(Distances { values: vec![0.0; count], nulls: Some(NullBuffer::new_null(count)) });
        };
        let mut values = Vec::with_capacity(count);
        let nulls = distance.evaluate(column, rows.map(|rows| &rows.values()[..]), &mut values).map_err(to_df)?;
        Ok(Distances { values, nulls })
    }
}

/// Rows are taken out between two distances once one in so many is lost.
const LOST_SHARE_MIN: usize = 8;

/// One distance for each of some rows.
struct Distances {
    values: Vec<f64>,
    nulls: Option<NullBuffer>,
}

impl Distances {
    fn keep(&mut self, kept: &[u32]) {
        self.values = kept.iter().map(|&i| self.values[i as usize]).collect();
        self.nulls = self.nulls.as_ref().map(|nulls| kept.iter().map(|&i| nulls.is_valid(i as usize)).collect());
    }
}

/// The rows of `rows` (all of `count` if none) that have a value in every column.
fn present(columns: &[ArrayRef], count: usize, rows: Option<UInt32Array>) -> Option<UInt32Array> {
    let nulls = columns.iter().fold(None, |all, column| NullBuffer::union(all.as_ref(), column.nulls()));
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else { return rows };
    Some(match rows {
        Some(rows) => rows.values().iter().copied().filter(|&i| nulls.is_valid(i as usize)).collect::<Vec<_>>().into(),
        None => (0..count as u32).filter(|&i| nulls.is_valid(i as usize)).collect::<Vec<_>>().into(),
    })
}
