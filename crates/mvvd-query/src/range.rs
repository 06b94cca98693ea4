//! `WHERE distance < bound`: an index proposes the rows, the scan's conditions decide.
//!
//! ```text
//! ScanExec(table, filter=[v <-> q < r AND …])   =>   RangeScanExec(table, index, filter=[v <-> q < r AND …])
//! ```
//!
//! The index is asked for the nearest rows, for more and more of them until the farthest lies beyond the bound. Rows that it
//! does not cover, and chunks with many rows within the bound, are scanned. Statements that change the rows they find, or
//! keep them, are left to scans and to indexes that miss nothing: what they miss would be missing for good.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::ExecutionPlan;
use mvvd_storage::Database;
use mvvd_udfs::Form;
use rayon::ThreadPool;

use crate::Settings;
use crate::bridge::compute;
use crate::error::{from_df, to_df};
use crate::reach::Reach;
use crate::row_filter::live;
use crate::scan_exec::{BATCH_ROWS, Piece, Scan, ScanExec};
use crate::topk::{Choice, IndexUse, Score};

/// Rows that the index is asked for at first, by how much more each time, and at most.
const K_FIRST: usize = 16;
const K_FACTOR: usize = 4;
const K_MAX: usize = 4_096;
/// Distances of a function and of an index may differ by so much of their size.
const ROUNDING: f64 = 1e-9;

/// The rows of a table within a distance.
#[derive(Debug, Clone)]
pub(crate) struct Near {
    /// The distance.
    score: Score,
    index: IndexUse,
    /// Rows within this distance, by the metric, are wanted.
    bound: f64,
    pool: Arc<ThreadPool>,
}

/// The scan that `plan` is with an index, if it is one of ours that has the form above and there is an index for it.
pub(crate) fn replace(
    plan: &Arc<dyn ExecutionPlan>,
    database: &Arc<Database>,
    pool: &Arc<ThreadPool>,
    settings: &Settings,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(exec) = plan.downcast_ref::<ScanExec>().filter(|exec| exec.limit().is_none()) else { return Ok(None) };
    let scan = exec.scan();
    let changes_rows = scan.projection.contains(&scan.snapshot.schema().columns().len());
    if changes_rows || matches!(scan.reach, Reach::Rows(_)) {
        return Ok(None);
    }
    for condition in scan.filters.iter().flat_map(split_conjunction) {
        let Some((distance, bound)) = bounded(condition) else { continue };
        let schema = scan.snapshot.schema();
        let score = Score::new(std::slice::from_ref(distance), schema.arrow())?;
        let Some(single) = score.single_distance().filter(|single| single.plain) else { continue };
        let bound = match bound {
            Bound::Most(value) if single.distance.form == Form::Distance => value,
            Bound::Least(value) if single.distance.form != Form::Distance => single.distance.finish(value),
            _ => continue,
        };
        // The order of the nearest first.
        let order = SortOptions { descending: single.distance.form != Form::Distance, nulls_first: false };
        let Choice::Use(index) = Choice::of(database, schema, &score, order, settings) else { continue };
        if settings.keeps_rows && !index.is_exact() {
            continue;
        }
        let bound = bound + ROUNDING * (1.0 + bound.abs());
        let near = Near { score, index: index.of_range(), bound, pool: Arc::clone(pool) };
        return Ok(Some(Arc::new(ScanExec::near(scan.clone(), near)?)));
    }
    Ok(None)
}

impl Near {
    /// What is to be read of the scan.
    pub(crate) async fn pieces(self, scan: Scan) -> Result<Vec<Piece>> {
        let pool = Arc::clone(&self.pool);
        compute(&pool, move || self.find(&scan).map_err(from_df)).await.map_err(to_df)
    }

    fn find(&self, scan: &Scan) -> Result<Vec<Piece>> {
        let mut pieces = scan.pieces(BATCH_ROWS);
        let score = self.score.bind(scan)?;
        let Some(search) =
            score.first_distance().and_then(|distance| self.index.search(scan.snapshot.schema(), distance))
        else {
            return Ok(pieces);
        };
        for (i, chunk) in scan.snapshot.chunks().iter().enumerate() {
            let Some(of_chunk) = search.over(chunk, K_FIRST)? else { continue };
            let live = live(chunk);
            let mut k = K_FIRST;
            let rows = loop {
                let Some(hits) = search.nearest(&of_chunk, k, live.as_ref())? else { break None };
                // Those that have no distance do not fulfil the condition.
                if hits.len() < k || hits.last().is_some_and(|last| last.distance > self.bound) {
                    let within = hits.into_iter().filter(|hit| hit.distance <= self.bound);
                    break Some(within.map(|hit| hit.ordinal as usize).collect::<Vec<_>>());
                }
                k *= K_FACTOR;
                if k > K_MAX || search.is_too_many(chunk, k) {
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
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "within={}{}", self.bound, Choice::Use(self.index.clone()))
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
