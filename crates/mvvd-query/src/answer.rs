//! What a statement gives back: a stream of record batches, or a count.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, TryStreamExt};
use mvvd_core::Result;
use tokio::sync::mpsc;

use crate::bridge::{AbortOnDrop, Bridge};
use crate::error::from_df;

/// Batches that may wait for a slow reader.
const BATCHES_WAITING_MAX: usize = 2;

/// The outcome of one statement.
pub struct Answer {
    tag: &'static str,
    rows_affected: Option<u64>,
    rows: Option<RowStream>,
    schema: SchemaRef,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("tag", &self.tag)
            .field("rows_affected", &self.rows_affected)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// A statement without rows or count.
    pub(crate) fn done(tag: &'static str) -> Self {
        Self { tag, rows_affected: None, rows: None, schema: Arc::new(Schema::empty()) }
    }

    /// A statement that changed `rows` rows.
    pub(crate) fn changed(tag: &'static str, rows: usize) -> Self {
        Self { rows_affected: Some(rows as u64), ..Self::done(tag) }
    }

    /// A finished result set.
    pub(crate) fn batches(tag: &'static str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let stream = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
        Self { rows: Some(RowStream { schema: Arc::clone(&schema), stream, _task: None }), schema, ..Self::done(tag) }
    }

    /// A result set that is computed on the database's threads while it is read.
    pub(crate) fn streaming(tag: &'static str, bridge: &Bridge, mut source: SendableRecordBatchStream) -> Self {
        let schema = source.schema();
        let (send, receive) = mpsc::channel(BATCHES_WAITING_MAX);
        let task = bridge.spawn(async move {
            while let Some(batch) = source.next().await {
                let failed = batch.is_err();
                // Nobody reads any more: stop.
                if send.send(batch.map_err(from_df)).await.is_err() || failed {
                    break;
                }
            }
        });
        let stream =
            futures::stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) })
                .boxed();
        let rows = RowStream { schema: Arc::clone(&schema), stream, _task: Some(AbortOnDrop(task)) };
        Self { rows: Some(rows), schema, ..Self::done(tag) }
    }

    pub(crate) fn with_rows_affected(mut self, rows: usize) -> Self {
        self.rows_affected = Some(rows as u64);
        self
    }

    /// The columns of the result set; empty if there is none.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What was done, such as `SELECT` or `CREATE TABLE`.
    pub fn tag(&self) -> &str {
        self.tag
    }

    /// How many rows were inserted, updated, deleted or copied; `None` for other statements.
    pub fn rows_affected(&self) -> Option<u64> {
        self.rows_affected
    }

    /// Whether there is a result set, even one without rows.
    pub fn has_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// The result set, batch by batch. Dropping the stream cancels the query.
    pub fn into_stream(self) -> RowStream {
        self.rows.unwrap_or_else(|| RowStream {
            schema: self.schema,
            stream: futures::stream::empty().boxed(),
            _task: None,
        })
    }

    /// The whole result set.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.into_stream().try_collect().await
    }
}

/// A stream of record batches of one schema.
pub struct RowStream {
    schema: SchemaRef,
    stream: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
    _task: Option<AbortOnDrop<()>>,
}

impl std::fmt::Debug for RowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl RowStream {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Stream for RowStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(cx)
    }
}
