//! RETURNING: expressions over the rows that a statement writes or removes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast;
use mvvd_core::Result;

use crate::Value;
use crate::error::from_df;
use crate::session::Session;
use crate::syntax::{scratch_relation, select_mut, select_template, unique_name};

impl Session {
    /// The RETURNING list for `rows` of the table known as `alias`. Runs before the write, so that its errors stop it.
    pub(crate) async fn returning(
        &self,
        items: Vec<ast::SelectItem>,
        alias: &str,
        schema: &SchemaRef,
        rows: Vec<RecordBatch>,
        params: &[Value],
    ) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let rows = rows
            .into_iter()
            .map(|b| Ok(RecordBatch::try_new(Arc::clone(schema), b.columns().to_vec())?))
            .collect::<Result<Vec<_>>>()?;
        let name = unique_name();
        let relation = MemTable::try_new(Arc::clone(schema), vec![rows]).map_err(from_df)?;
        let _lent = self.inner.catalog.lend(name.clone(), Arc::new(relation));
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.projection = items;
        select.from = vec![scratch_relation(&name, alias)];
        let mut state = self.state();
        // One partition keeps the order of the rows.
        state.config_mut().options_mut().execution.target_partitions = 1;
        let plan = self.plan(&state, ast::Statement::Query(query), params).await?;
        let answer = self.run_plan("RETURNING", &state, &plan).await?;
        let schema = Arc::clone(answer.schema());
        Ok((schema, answer.collect().await?))
    }
}
