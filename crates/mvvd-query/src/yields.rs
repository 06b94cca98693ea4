//! Physical rule: operators that make many rows from few give way to others, so that a query can be cancelled.
//!
//! DataFusion lets only leaves and exchanges give way, once per batch that they *read*. A join may turn one such batch
//! into billions of rows: without this its thread would not hear of a cancellation for hours.
//!
//! Before: `CrossJoinExec`. After: `CooperativeExec` over `CrossJoinExec`.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// The rule; it has to come last, so that leaves keep giving way too.
#[derive(Debug)]
pub(crate) struct YieldInJoins;

/// Operators whose output can be far larger than their input.
const MULTIPLYING: &[&str] = &[
    "CrossJoinExec",
    "NestedLoopJoinExec",
    "HashJoinExec",
    "SortMergeJoinExec",
    "PiecewiseMergeJoinExec",
    "UnnestExec",
];

impl PhysicalOptimizerRule for YieldInJoins {
    fn name(&self) -> &str {
        "yield_in_joins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            Ok(match MULTIPLYING.contains(&plan.name()) {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _),
                false => Transformed::no(plan),
            })
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}
