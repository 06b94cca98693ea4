//! `EXPLAIN (ANALYZE, RECALL)`: how many rows of the exact answer a query gives.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use mvvd_core::{Error, Result};

use crate::answer::Answer;
use crate::error::from_df;
use crate::session::Session;
use crate::{Settings, Value};

/// Most rows that are compared.
const ROWS_MAX: usize = 100_000;

impl Session {
    /// Runs `EXPLAIN ANALYZE`, then its query with these settings and once more exactly, over the same rows. What
    /// `EXPLAIN ANALYZE` says gets a line more: the share of the exact answer's rows that the query gives as well. Rows
    /// are compared by all their columns, and their order does not count.
    pub(crate) async fn explain_recall(&self, explain: ast::Statement, params: &[Value]) -> Result<Answer> {
        let ast::Statement::Explain { statement, .. } = &explain else {
            return Err(Error::internal("only EXPLAIN has a recall"));
        };
        let query = statement.as_ref().clone();
        let mut state = self.state();
        let exactly = Settings { exact: true, ..self.settings() };
        let plan = self.plan(&state, explain, params).await?;
        let explained = self.run_plan("EXPLAIN", &state, &plan).await?;
        let schema = Arc::clone(explained.schema());
        let mut batches = explained.collect().await?;
        let given = self.count_rows(&state, query.clone(), params).await?;
        state.config_mut().options_mut().extensions.insert(exactly);
        let exact = self.count_rows(&state, query, params).await?;

        let all: usize = exact.values().sum();
        let found: usize = exact.iter().map(|(row, count)| given.get(row).map_or(0, |given| *given.min(count))).sum();
        let recall = if all == 0 { 1.0 } else { found as f64 / all as f64 };
        let text = format!("recall={recall:.4} ({found} of the {all} rows of the exact answer)");
        let line = [StringArray::from(vec!["Recall"]), StringArray::from(vec![text])];
        let line = RecordBatch::try_new(Arc::clone(&schema), line.map(|column| Arc::new(column) as _).to_vec());
        batches.push(line.map_err(|e| from_df(e.into()))?);
        Ok(Answer::batches("EXPLAIN", schema, batches))
    }

    /// How often the answer has each row.
    async fn count_rows(
        &self,
        state: &SessionState,
        query: ast::Statement,
        params: &[Value],
    ) -> Result<HashMap<OwnedRow, usize>> {
        let plan = self.plan(state, query, params).await?;
        let physical = state.create_physical_plan(&plan).await.map_err(from_df)?;
        let fields = physical.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|e| from_df(e.into()))?;
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(from_df)?;
        let (mut counts, mut all) = (HashMap::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(from_df)?;
            all += batch.num_rows();
            if all > ROWS_MAX {
                let message = format!("EXPLAIN (RECALL) compares at most {ROWS_MAX} rows");
                return Err(Error::exhausted(message).with_hint("give the query a LIMIT"));
            }
            let rows = converter.convert_columns(batch.columns()).map_err(|e| from_df(e.into()))?;
            rows.iter().for_each(|row| *counts.entry(row.owned()).or_insert(0) += 1);
        }
        Ok(counts)
    }
}
