//! The rule that puts our operators into a physical plan: a top-k, or a scan of the rows within a distance.
//!
//! Runs before DataFusion's own physical rules, while plans have simple shapes, from the top down: an order with a limit
//! says more than a condition below it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use mvvd_storage::Database;
use rayon::ThreadPool;

use crate::{Settings, range, topk};

/// The rule.
#[derive(Debug)]
pub(crate) struct OurOperators {
    pool: Arc<ThreadPool>,
    database: Arc<Database>,
}

impl OurOperators {
    pub(crate) fn new(pool: &Arc<ThreadPool>, database: &Arc<Database>) -> Self {
        Self { pool: Arc::clone(pool), database: Arc::clone(database) }
    }
}

impl PhysicalOptimizerRule for OurOperators {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let default = Settings::default();
        let settings = config.extensions.get::<Settings>().unwrap_or(&default);
        let replaced = plan.transform_down(|node| {
            let top_k = match settings.use_topk {
                true => topk::replace(&node, &self.database, &self.pool, settings)?,
                false => None,
            };
            let ours = match top_k {
                None => range::replace(&node, &self.database, &self.pool, settings)?,
                found => found,
            };
            Ok(ours.map_or_else(|| Transformed::no(node), Transformed::yes))
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &'static str {
        "mvvd_operators"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
