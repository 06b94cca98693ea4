//! Which rows a filter can reach, before any is read: rows found by their key, and blocks of rows by their bounds.
//!
//! Only ever leaves out rows that the filters would refuse; whoever reads still applies them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column as ColumnName, Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::utils::{conjunction, split_conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use mvvd_storage::{BLOCK_ROWS, Chunk, Key, Snapshot, keys_of};

use crate::error::to_df;

/// Longer lists of keys are looked for by scanning.
const KEYS_MAX: usize = 10_000;

/// What is left to read of a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// Everything.
    All,
    /// The rows with these places: chunk and ordinal, in order.
    Rows(Vec<(u32, u32)>),
    /// Of each chunk the blocks that may have a row: all blocks where it says nothing.
    Blocks {
        /// By chunk, then by block.
        kept: Vec<Option<Vec<bool>>>,
        /// Blocks that are left out, and blocks in all.
        pruned: (usize, usize),
    },
}

impl Reach {
    /// Looks at conditions over all columns of the table, all of which a row must fulfil.
    pub(crate) fn of(snapshot: &Snapshot, filters: &[Arc<dyn PhysicalExpr>]) -> Result<Self> {
        if filters.is_empty() {
            return Ok(Self::All);
        }
        if let Some(keys) = wanted_keys(snapshot, filters) {
            let mut rows = Vec::with_capacity(keys.len());
            for key in keys {
                rows.extend(snapshot.find(&key).map_err(to_df)?.map(|place| (place.chunk, place.ordinal)));
            }
            rows.sort_unstable();
            rows.dedup();
            return Ok(Self::Rows(rows));
        }
        Self::blocks(snapshot, filters)
    }

    fn blocks(snapshot: &Snapshot, filters: &[Arc<dyn PhysicalExpr>]) -> Result<Self> {
        if snapshot.chunks().iter().all(|chunk| chunk.segment().is_none()) {
            return Ok(Self::All);
        }
        let schema = Arc::clone(snapshot.schema().arrow());
        let known = |filter: &&Arc<dyn PhysicalExpr>| {
            datafusion::physical_expr::utils::collect_columns(filter).iter().all(|c| c.index() < schema.fields().len())
        };
        let filters: Vec<Arc<dyn PhysicalExpr>> = filters.iter().filter(known).cloned().collect();
        // A condition that cannot be turned into one over bounds prunes nothing.
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&schema));
        let Some(predicate) = builder.build(conjunction(filters)) else { return Ok(Self::All) };
        let (mut kept, mut pruned, mut blocks) = (Vec::with_capacity(snapshot.chunks().len()), 0, 0);
        for chunk in snapshot.chunks() {
            let verdict = match chunk.segment() {
                None => None,
                Some(_) => predicate.prune(&Bounds { chunk, snapshot, schema: &schema }).ok(),
            };
            if let Some(verdict) = &verdict {
                blocks += verdict.len();
                pruned += verdict.iter().filter(|kept| !**kept).count();
            }
            kept.push(verdict);
        }
        Ok(if pruned == 0 { Self::All } else { Self::Blocks { kept, pruned: (pruned, blocks) } })
    }

    /// Whether the block of `chunk` that holds row `ordinal` may have a row.
    pub(crate) fn has_block(&self, chunk: usize, ordinal: usize) -> bool {
        match self {
            Self::Blocks { kept, .. } => kept[chunk].as_ref().is_none_or(|kept| kept[ordinal / BLOCK_ROWS]),
            Self::All | Self::Rows(_) => true,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Rows(rows) => write!(f, ", by key: {} rows", rows.len()),
            Self::Blocks { pruned: (pruned, blocks), .. } => write!(f, ", pruned blocks: {pruned} of {blocks}"),
        }
    }
}

/// The keys that a row must have one of, if a condition says so.
fn wanted_keys(snapshot: &Snapshot, filters: &[Arc<dyn PhysicalExpr>]) -> Option<Vec<Key>> {
    let key = snapshot.schema().primary_key()?;
    filters.iter().flat_map(split_conjunction).find_map(|condition| keys(values(condition, key)?))
}

/// The values that `column = value`, `column IN (…)`, or several of these with OR between them, allow.
fn values(condition: &Arc<dyn PhysicalExpr>, column: usize) -> Option<Vec<ScalarValue>> {
    let is_key = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == column);
    let literal = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().map(|l| l.value().clone());
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        return match (binary.op(), is_key(binary.left()), is_key(binary.right())) {
            (Operator::Eq, true, false) => Some(vec![literal(binary.right())?]),
            (Operator::Eq, false, true) => Some(vec![literal(binary.left())?]),
            (Operator::Or, ..) => {
                let mut all = values(binary.left(), column)?;
                all.extend(values(binary.right(), column)?);
                Some(all)
            }
            _ => None,
        };
    }
    let list = condition.downcast_ref::<InListExpr>()?;
    if list.negated() || !is_key(list.expr()) || list.list().len() > KEYS_MAX {
        return None;
    }
    list.list().iter().map(literal).collect()
}

/// Literals as keys; NULL is no key, and other types are left to the filter.
fn keys(values: Vec<ScalarValue>) -> Option<Vec<Key>> {
    let values: Vec<ScalarValue> = values.into_iter().filter(|value| !value.is_null()).collect();
    if values.is_empty() {
        return Some(Vec::new());
    }
    keys_of(&ScalarValue::iter_to_array(values).ok()?).ok()
}

/// What is known about the blocks of one segment.
struct Bounds<'a> {
    chunk: &'a Chunk,
    snapshot: &'a Snapshot,
    schema: &'a SchemaRef,
}

impl Bounds<'_> {
    fn of(&self, column: &ColumnName) -> Option<&mvvd_storage::BlockStats> {
        let index = self.schema.index_of(&column.name).ok()?;
        self.chunk.segment()?.stats().blocks(self.snapshot.schema().columns()[index].id)
    }

    /// Bounds in the type of the column: a column may have been read as another one since.
    fn typed(&self, column: &ColumnName, bounds: &ArrayRef) -> Option<ArrayRef> {
        let ty = self.schema.field_with_name(&column.name).ok()?.data_type();
        (bounds.data_type() == ty && bounds.len() == self.num_containers()).then(|| Arc::clone(bounds))
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.typed(column, &self.of(column)?.min)
    }

    fn max_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.typed(column, &self.of(column)?.max)
    }

    fn num_containers(&self) -> usize {
        self.chunk.len().div_ceil(BLOCK_ROWS)
    }

    fn null_counts(&self, column: &ColumnName) -> Option<ArrayRef> {
        let nulls = &self.of(column)?.nulls;
        Some(Arc::new(UInt64Array::from_iter_values(nulls.values().iter().map(|n| u64::from(*n)))))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = |block: usize| (self.chunk.len() - block * BLOCK_ROWS).min(BLOCK_ROWS) as u64;
        Some(Arc::new(UInt64Array::from_iter_values((0..self.num_containers()).map(rows))))
    }

    fn contained(
        &self,
        _: &ColumnName,
        _: &std::collections::HashSet<ScalarValue>,
    ) -> Option<arrow::array::BooleanArray> {
        None
    }
}
