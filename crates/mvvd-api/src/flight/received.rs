//! Record batches from a client.

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mvvd_core::{Error, Result};

use super::queries::Rows;
use crate::serve::MESSAGE_BYTES_MAX;
use crate::status::received;

/// Most bytes of one message when its compressed buffers are unpacked.
const UNPACKED_BYTES_MAX: u64 = 4 * MESSAGE_BYTES_MAX as u64;

/// The schema and the batches of a call; `None` if the client sends only its command.
pub(crate) async fn batches(mut messages: PeekableFlightDataStream) -> Result<Option<(SchemaRef, Rows)>> {
    // The command may come with the schema, or in a message of its own.
    if matches!(messages.peek().await, Some(Ok(first)) if first.data_header.is_empty()) {
        messages.next().await;
    }
    let messages = messages.map_err(FlightError::from).and_then(async |message| check_unpacked(message));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    // Damaged messages make the decoder panic. Nothing uses it afterwards.
    let first = AssertUnwindSafe(batches.try_next()).catch_unwind().await;
    let first: Option<RecordBatch> = first.map_err(|_| damaged())?.map_err(received)?;
    let Some(schema) = batches.schema().cloned() else { return Ok(None) };
    let others = AssertUnwindSafe(batches)
        .catch_unwind()
        .map(|batch| batch.map_err(|_| damaged()).and_then(|batch| batch.map_err(received)));
    let rows = stream::iter(first.map(Ok)).chain(others);
    Ok(Some((schema, rows.boxed())))
}

fn damaged() -> Error {
    Error::invalid("the batches cannot be read").with_hint("the messages are damaged: send them again")
}

/// Refuses a message that claims to be large once it is unpacked: the decoder takes the memory before it looks.
fn check_unpacked(message: FlightData) -> Result<FlightData, FlightError> {
    // What cannot be read here cannot be decoded either.
    let bytes = unpacked_bytes(&message).unwrap_or(0);
    match bytes > UNPACKED_BYTES_MAX {
        true => Err(FlightError::Tonic(Box::new(tonic::Status::out_of_range(format!(
            "a message holds {bytes} bytes when it is unpacked, at most {UNPACKED_BYTES_MAX} are read"
        ))))),
        false => Ok(message),
    }
}

fn unpacked_bytes(message: &FlightData) -> Option<u64> {
    let header = root_as_message(&message.data_header).ok()?;
    let batch = match header.header_type() {
        MessageHeader::RecordBatch => header.header_as_record_batch()?,
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch()?.data()?,
        _ => return None,
    };
    batch.compression()?;
    let claimed = batch.buffers()?.iter().filter(|buffer| buffer.length() > 0).filter_map(|buffer| {
        let start = usize::try_from(buffer.offset()).ok()?;
        let length = message.data_body.get(start..start.checked_add(8)?)?;
        // Less than zero stands for a buffer that is not compressed.
        u64::try_from(i64::from_le_bytes(length.try_into().ok()?)).ok()
    });
    Some(claimed.fold(0, u64::saturating_add))
}
