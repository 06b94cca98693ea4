//! The same queries through prepared SQL: what the way from a statement to an index and back costs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use mvvd_bench::truth::Result;
use mvvd_core::convert::dense_column;
use mvvd_core::metric::Metric;
use mvvd_core::{VectorKind, VectorType};
use mvvd_index::{Effort, Filter};
use mvvd_query::{Config, Mvvd, OnConflict, Session, Statement, Value, value};
use tokio::runtime::Runtime;

use super::engine::{Cost, Engine, Plan};
use super::load::Matrix;

/// A table in memory with an index, and the prepared statement that searches it.
pub(crate) struct Sql {
    /// For callers to wait on; the database has threads of its own.
    runtime: Runtime,
    session: Session,
    statement: Statement,
    /// The session's settings stand for this effort.
    effort: Mutex<Effort>,
    cost: Cost,
}

impl Sql {
    /// Loads `base` and makes the index of the plan, whose file and seed do not count here.
    pub(crate) fn new(plan: &Plan<'_>, base: &Matrix, filter: Option<&Filter>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
        let session = Mvvd::open(Config { threads: Some(plan.threads), ..Config::memory() })?.session();
        let (statement, cost) = runtime.block_on(load(&session, plan, base, filter))?;
        Ok(Self { runtime, session, statement, effort: Mutex::default(), cost })
    }
}

async fn load(session: &Session, plan: &Plan<'_>, base: &Matrix, filter: Option<&Filter>) -> Result<(Statement, Cost)> {
    let dims = base.dims();
    session.sql(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, keep BOOLEAN, v VECTOR({dims}))"), &[]).await?;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..base.len() as i64));
    let keeps = (0..base.len() as u32).map(|row| Some(filter.is_none_or(|filter| filter.has(row))));
    let keeps: ArrayRef = Arc::new(BooleanArray::from_iter(keeps));
    let vectors = dense_column(base.values().to_vec(), VectorType { kind: VectorKind::Dense, dims }, None);
    let rows = RecordBatch::try_from_iter([("id", ids), ("keep", keeps), ("v", vectors)])?;
    session.insert("t", rows, OnConflict::Fail).await?;
    let options: Vec<String> = plan.options.iter().map(|(name, value)| format!(", {name} = '{value}'")).collect();
    let create =
        format!("CREATE INDEX ON t USING {} (v) WITH (metric = '{}'{})", plan.kind, plan.metric, options.concat());
    let start = Instant::now();
    session.sql(&create, &[]).await?;
    let build_seconds = Some(start.elapsed().as_secs_f64());
    let found = session.sql("SELECT bytes FROM mvvd.indexes", &[]).await?.collect().await?;
    let bytes = found.first().map_or(0, |batch| batch.column(0).as_primitive::<Int64Type>().value(0) as usize);
    let operator = match plan.metric {
        Metric::Cosine => "<=>",
        Metric::Dot => "<#>",
        Metric::L1 => "<+>",
        _ => "<->",
    };
    let condition = if filter.is_some() { "WHERE keep" } else { "" };
    let search = format!("SELECT id FROM t {condition} ORDER BY v {operator} $1 LIMIT $2");
    let statement = session.statements(&search)?.remove(0);
    Ok((statement, Cost { build_seconds, index_bytes: bytes, memory_bytes: bytes }))
}

impl Engine for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn search(&self, query: &[f32], k: usize, effort: Effort) -> Result<Vec<u32>> {
        let params = [value::vector(query)?, Value::Int64(Some(k as i64))];
        self.runtime.block_on(async {
            if std::mem::replace(&mut *self.effort.lock().unwrap_or_else(PoisonError::into_inner), effort) != effort {
                let text = |value: Option<usize>| value.map_or_else(|| "auto".to_owned(), |value| value.to_string());
                let target = effort.recall_target.map_or_else(|| "DEFAULT".to_owned(), |target| target.to_string());
                for (name, value) in
                    [("ef_search", text(effort.ef_search)), ("nprobe", text(effort.nprobe)), ("recall_target", target)]
                {
                    self.session.sql(&format!("SET mvvd.{name} = {value}"), &[]).await?;
                }
            }
            let batches = self.session.run(&self.statement, &params).await?.collect().await?;
            let ids = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
            Ok(ids.map(|&id| id as u32).collect())
        })
    }

    fn cost(&self) -> Cost {
        self.cost
    }
}
