//! Record batches from a client.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::{StreamExt, TryStreamExt, stream};
use mvvd_core::Result;

use super::queries::Rows;
use crate::status::received;

/// The schema and the batches of a call; `None` if the client sends only its command.
pub(crate) async fn batches(mut messages: PeekableFlightDataStream) -> Result<Option<(SchemaRef, Rows)>> {
    // The command may come with the schema, or in a message of its own.
    if matches!(messages.peek().await, Some(Ok(first)) if first.data_header.is_empty()) {
        messages.next().await;
    }
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(Into::into));
    let first: Option<RecordBatch> = batches.try_next().await.map_err(received)?;
    let Some(schema) = batches.schema().cloned() else { return Ok(None) };
    let rows = stream::iter(first.map(Ok)).chain(batches.map_err(received));
    Ok(Some((schema, rows.boxed())))
}
