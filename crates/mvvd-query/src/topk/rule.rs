//! Replaces a sort with a limit over one of our tables by the top-k operator.
//!
//! ```text
//! SortExec(keys, fetch=k)                    TopKExec(keys, k, output)
//!   ProjectionExec(output)*            =>
//!     FilterExec(condition)*
//!       ScanExec(table, filters)
//! ```
//!
//! Projections are written into the keys and the output, conditions join the scan's filters. Runs before DataFusion's
//! own physical rules, while the plan has this simple shape. A key that changes from call to call (`random()`) and a
//! `k` beyond [`K_MAX`] are left to the sort.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use mvvd_storage::Database;
use rayon::ThreadPool;

use super::exec::{Key, TopKExec};
use crate::Settings;
use crate::scan_exec::{Scan, ScanExec};

/// Largest k that is kept in a heap.
const K_MAX: usize = 10_000_000;

/// The operator that `plan` is, if it has the form above.
pub(crate) fn replace(
    plan: &Arc<dyn ExecutionPlan>,
    database: &Arc<Database>,
    pool: &Arc<ThreadPool>,
    settings: &Settings,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(sort) = plan.downcast_ref::<SortExec>() else { return Ok(None) };
    let Some(k) = sort.fetch().filter(|k| (1..=K_MAX).contains(k)) else { return Ok(None) };
    let Some(input) = Input::of(sort.input())? else { return Ok(None) };
    let mut keys = Vec::with_capacity(sort.expr().len());
    for key in sort.expr() {
        let expr = inline(&key.expr, &input.output)?;
        if is_volatile(&expr) {
            return Ok(None);
        }
        keys.push(Key { expr, options: key.options });
    }
    // Ties are in key order anyway, and what comes after a key decides nothing.
    let decided = keys.iter().position(|key| is_primary_key(key, &input.scan)).filter(|at| *at > 0);
    keys.truncate(decided.unwrap_or(keys.len()));
    let exec = TopKExec::new(input.scan, keys, k, input.output, sort.schema(), sort.expr(), Arc::clone(pool))?
        .with_index(database, settings);
    Ok(Some(Arc::new(exec)))
}

/// What lies under the sort: a scan, and the columns above it as expressions over the whole table.
struct Input {
    scan: Scan,
    output: Vec<Arc<dyn PhysicalExpr>>,
}

impl Input {
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        if let Some(exec) = plan.downcast_ref::<ScanExec>() {
            if exec.limit().is_some() {
                return Ok(None);
            }
            let schema = exec.schema();
            let column = |(i, field): (&usize, &Arc<arrow::datatypes::Field>)| -> Arc<dyn PhysicalExpr> {
                Arc::new(Column::new(field.name(), *i))
            };
            let output = exec.scan().projection.iter().zip(schema.fields()).map(column).collect();
            return Ok(Some(Self { scan: exec.scan().clone(), output }));
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let Some(mut input) = Self::of(projection.input())? else { return Ok(None) };
            input.output =
                projection.expr().iter().map(|e| inline(&e.expr, &input.output)).collect::<Result<Vec<_>>>()?;
            return Ok(Some(input));
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            if filter.fetch().is_some() {
                return Ok(None);
            }
            let Some(mut input) = Self::of(filter.input())? else { return Ok(None) };
            let condition = inline(filter.predicate(), &input.output)?;
            if is_volatile(&condition) {
                return Ok(None);
            }
            input.scan.filters.push(condition);
            input.scan.narrow()?;
            if let Some(projection) = filter.projection() {
                input.output = projection.iter().map(|&i| Arc::clone(&input.output[i])).collect();
            }
            return Ok(Some(input));
        }
        Ok(None)
    }
}

/// `expr` with each column replaced by the expression that computes it.
fn inline(expr: &Arc<dyn PhysicalExpr>, below: &[Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn PhysicalExpr>> {
    let inlined = Arc::clone(expr).transform_down(|node| {
        let replacement = node.downcast_ref::<Column>().and_then(|column| below.get(column.index()));
        match replacement {
            // Jump: the replacement speaks of the level below already.
            Some(replacement) => Ok(Transformed::new(
                Arc::clone(replacement),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            )),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(inlined.data)
}

/// Whether a key is the primary key, ascending.
fn is_primary_key(key: &Key, scan: &Scan) -> bool {
    let column = key.expr.downcast_ref::<Column>().map(Column::index);
    !key.options.descending && column.is_some() && column == scan.snapshot.schema().primary_key()
}

fn is_volatile(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.exists(|node| Ok(node.is_volatile_node())).unwrap_or(true)
}
