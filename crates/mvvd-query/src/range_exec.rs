//! `WHERE distance < bound`: an index proposes the rows, the scan's conditions decide.
//!
//! ```text
//! ScanExec(table, filter=[v <-> q < r AND …])   =>   RangeScanExec(table, index, filter=[v <-> q < r AND …])
//! ```
//!
//! The index is asked for the nearest rows, for more and more of them until the farthest lies beyond the bound. Rows that it
//! does not cover, and chunks most of whose rows are within the bound, are scanned. Statements that change the rows they
//! find are left alone: what they miss would be changed never.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use mvvd_index::Filter;
use mvvd_storage::{Chunk, Database};
use mvvd_udfs::Form;
use rayon::ThreadPool;

use crate::Settings;
use crate::bridge::compute;
use crate::error::{from_df, to_df};
use crate::reach::Reach;
use crate::scan_exec::{BATCH_ROWS, Piece, Scan, ScanExec, write_scan};
use crate::topk::{Choice, IndexUse, Score};

/// Rows that the index is asked for at first, and by how much more each time.
const K_FIRST: usize = 64;
const K_FACTOR: usize = 4;
/// Distances of a function and of an index may differ by so much of their size.
const ROUNDING: f64 = 1e-9;

/// The rule. Comes after that of the top-k, which has an order to go by.
#[derive(Debug)]
pub(crate) struct RangeByIndex {
    pool: Arc<ThreadPool>,
    database: Arc<Database>,
}

impl RangeByIndex {
    pub(crate) fn new(pool: Arc<ThreadPool>, database: Arc<Database>) -> Self {
        Self { pool, database }
    }

    fn replace(&self, plan: &Arc<dyn ExecutionPlan>, settings: &Settings) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(exec) = plan.downcast_ref::<ScanExec>() else { return Ok(None) };
        let scan = exec.scan();
        let changes_rows = scan.projection.contains(&scan.snapshot.schema().columns().len());
        if exec.limit().is_some() || changes_rows || matches!(scan.reach, Reach::Rows(_)) {
            return Ok(None);
        }
        for condition in scan.filters.iter().flat_map(split_conjunction) {
            let Some((distance, bound)) = bounded(condition) else { continue };
            let schema = scan.snapshot.schema();
            let score = Score::new(std::slice::from_ref(distance), schema.arrow())?;
            let Some(single) = score.single_distance() else { continue };
            let bound = match bound {
                Bound::Most(value) if single.distance.form == Form::Distance => value,
                Bound::Least(value) if single.distance.form != Form::Distance => single.distance.finish(value),
                _ => continue,
            };
            // The order of the nearest first.
            let order = SortOptions { descending: single.distance.form != Form::Distance, nulls_first: false };
            let Choice::Use(index) = Choice::of(&self.database, schema, &score, order, settings) else { continue };
            let properties = PlanProperties::new(
                EquivalenceProperties::new(scan.schema()?),
                Partitioning::UnknownPartitioning(1),
                EmissionType::Incremental,
                Boundedness::Bounded,
            );
            return Ok(Some(Arc::new(RangeScanExec {
                scan: scan.clone(),
                score,
                index: index.of_range(),
                bound: bound + ROUNDING * (1.0 + bound.abs()),
                pool: Arc::clone(&self.pool),
                properties: Arc::new(properties),
            })));
        }
        Ok(None)
    }
}

impl PhysicalOptimizerRule for RangeByIndex {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let default = Settings::default();
        let settings = config.extensions.get::<Settings>().unwrap_or(&default);
        let replaced = plan.transform_down(|node| match self.replace(&node, settings)? {
            Some(exec) => Ok(Transformed::yes(exec)),
            None => Ok(Transformed::no(node)),
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &'static str {
        "range_by_index"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What a condition says of an expression.
enum Bound {
    Most(f64),
    Least(f64),
}

/// An expression, and the number that the condition compares it with.
fn bounded(condition: &Arc<dyn PhysicalExpr>) -> Option<(&Arc<dyn PhysicalExpr>, Bound)> {
    let binary = condition.downcast_ref::<BinaryExpr>()?;
    let number = |expr: &Arc<dyn PhysicalExpr>| match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Float64(Some(value)) if value.is_finite() => Some(*value),
        _ => None,
    };
    match (binary.op(), number(binary.left()), number(binary.right())) {
        (Operator::Lt | Operator::LtEq, None, Some(value)) => Some((binary.left(), Bound::Most(value))),
        (Operator::Gt | Operator::GtEq, None, Some(value)) => Some((binary.left(), Bound::Least(value))),
        (Operator::Gt | Operator::GtEq, Some(value), None) => Some((binary.right(), Bound::Most(value))),
        (Operator::Lt | Operator::LtEq, Some(value), None) => Some((binary.right(), Bound::Least(value))),
        _ => None,
    }
}

/// A scan of the rows that an index proposes.
#[derive(Debug)]
struct RangeScanExec {
    scan: Scan,
    /// The distance.
    score: Score,
    index: IndexUse,
    /// Rows within this distance, by the metric, are wanted.
    bound: f64,
    pool: Arc<ThreadPool>,
    properties: Arc<PlanProperties>,
}

/// The rows to be read.
fn pieces(scan: &Scan, score: &Score, index: &IndexUse, bound: f64) -> Result<Vec<Piece>> {
    let mut pieces = scan.pieces(BATCH_ROWS);
    let score = score.bind(scan)?;
    let Some(term) = score.first_distance().and_then(|distance| index.term(distance)) else { return Ok(pieces) };
    let schema = scan.snapshot.schema();
    for (i, chunk) in scan.snapshot.chunks().iter().enumerate() {
        let Some(of_chunk) = index.over(chunk, schema, K_FIRST)? else { continue };
        let live = (!chunk.deleted().is_empty()).then(|| live(chunk));
        let mut k = K_FIRST;
        let rows = loop {
            let hits = index.nearest(&of_chunk, schema, &term, k, live.as_ref())?;
            // Those that have no distance do not fulfil the condition.
            if hits.len() < k || hits.last().is_some_and(|last| last.distance > bound) {
                let within = hits.into_iter().filter(|hit| hit.distance <= bound);
                break Some(within.map(|hit| hit.ordinal as usize).collect::<Vec<_>>());
            }
            k *= K_FACTOR;
            if index.is_too_many(chunk, k) {
                break None;
            }
        };
        let Some(mut rows) = rows else { continue };
        rows.sort_unstable();
        pieces.retain(|piece| piece.chunk as usize != i);
        let near = |a: &usize, b: &usize| a / BATCH_ROWS == b / BATCH_ROWS;
        pieces.extend(rows.chunk_by(near).map(|rows| Piece::of_rows(i as u32, rows)));
    }
    Ok(pieces)
}

fn live(chunk: &Chunk) -> Filter {
    let rows = chunk.len();
    Filter::of_ordinals(rows, (0..rows as u32).filter(|&row| !chunk.deleted().contains(row)))
}

impl DisplayAs for RangeScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeScanExec: within={}{}", self.bound, Choice::Use(self.index.clone()))?;
        write!(f, ", table={}", self.scan.table)?;
        write_scan(&self.scan, f)
    }
}

impl ExecutionPlan for RangeScanExec {
    fn name(&self) -> &'static str {
        "RangeScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for filter in &self.scan.filters {
            recursion = recursion.visit_sibling(|| f(filter))?;
        }
        Ok(recursion)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (scan, score, index, bound) = (self.scan.clone(), self.score.clone(), self.index.clone(), self.bound);
        let (pool, schema) = (Arc::clone(&self.pool), self.schema());
        let (reader, output) = (scan.clone(), Arc::clone(&schema));
        let found = async move {
            let found = compute(&pool, move || pieces(&scan, &score, &index, bound).map_err(from_df)).await;
            let read = found.map_err(to_df)?.into_iter().map(move |piece| reader.read(&piece, &output));
            Ok::<_, DataFusionError>(futures::stream::iter(read).then(|batch| async move {
                tokio::task::consume_budget().await;
                batch
            }))
        };
        let batches = futures::stream::once(found).try_flatten().try_filter_map(|batch| async move { Ok(batch) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
