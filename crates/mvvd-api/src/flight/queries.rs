//! Statements that were started and whose rows wait to be fetched, are being fetched, or are cancelled.
//!
//! A statement runs once, when the client asks for its FlightInfo; the ticket in it is a handle to the rows, which are
//! computed ahead only as far as a bounded buffer. So the schemas of info and stream are the same by construction, and
//! a statement that changes something has done so when the info arrives, whether or not its ticket is ever used. Nothing
//! that has run fails for lack of a place for its rows: older ones that nobody has fetched make room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{Command, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream};
use mvvd_core::{Error, Result};
use mvvd_query::Answer;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tonic::Status;
use uuid::Uuid;

use super::registry::{Bounds, Registry};
use crate::status::{from_flight, status};

/// How many results wait for their clients, and how long. Those that are being fetched belong to calls.
const BOUNDS: Bounds = Bounds { values_max: 1_000, bytes_max: usize::MAX, idle: Duration::from_secs(300) };
/// The handle in the tickets of all statements without rows.
const NO_ROWS: &[u8] = b"";

/// Encoded rows.
pub(crate) type Encoded = BoxStream<'static, Result<FlightData, Status>>;
/// Rows of one schema.
pub(crate) type Rows = BoxStream<'static, Result<RecordBatch>>;

/// The statements of one server that have rows to fetch.
pub(crate) struct Queries {
    waiting: Registry<Encoded>,
    /// What stops those whose rows are being fetched.
    fetching: Mutex<HashMap<Uuid, watch::Sender<bool>>>,
}

/// What a statement gave.
pub(crate) struct Outcome {
    pub(crate) schema: SchemaRef,
    /// `None` if it is of a kind that gives none.
    pub(crate) rows: Option<Rows>,
    /// The number of rows that it changed, or -1 if only fetching will tell.
    pub(crate) records: i64,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        let (schema, records) = (Arc::clone(answer.schema()), count(&answer));
        let rows = answer.has_rows().then(|| answer.into_stream().boxed());
        Self { schema, rows, records }
    }
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// Nothing of it runs any more.
    Done,
    /// Its stream ends with an error in a moment.
    Soon,
}

/// Forgets a statement when its stream ends or is dropped.
struct Fetching {
    queries: Arc<Queries>,
    handle: Uuid,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.queries.fetching.lock().remove(&self.handle);
    }
}

impl Queries {
    pub(crate) fn new() -> Self {
        Self { waiting: Registry::new(BOUNDS, |_| 0), fetching: Mutex::default() }
    }

    /// Keeps rows for the client to fetch, and says where.
    pub(crate) fn start(&self, outcome: Outcome, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let Outcome { mut schema, rows, records } = outcome;
        let mut statement_handle = NO_ROWS.to_vec();
        if let Some(rows) = rows {
            let (encoded_schema, rows) = encode(&schema, rows);
            schema = encoded_schema;
            let handle = Uuid::new_v4();
            self.waiting.put(handle, rows);
            statement_handle = handle.as_bytes().to_vec();
        }
        let ticket = TicketStatementQuery { statement_handle: statement_handle.into() };
        Ok(info(&schema, ticket.as_any().encode_to_vec(), descriptor)?.with_total_records(records))
    }

    /// The rows behind a handle, once.
    pub(crate) fn fetch(self: &Arc<Self>, handle: &[u8]) -> Result<Encoded, Status> {
        if handle == NO_ROWS {
            return Ok(encode(&Arc::new(Schema::empty()), stream::empty().boxed()).1);
        }
        let unknown = || {
            let e = Error::not_found("there are no rows for this ticket");
            let most = BOUNDS.values_max;
            status(&e.with_hint(format!(
                "a ticket can be used once, within 5 minutes, and while fewer than {most} later ones wait; run the \
                 statement again"
            )))
        };
        let handle = Uuid::from_slice(handle).map_err(|_| unknown())?;
        let (rows, cancel) = {
            let mut fetching = self.fetching.lock();
            let rows = self.waiting.take(&handle).ok_or_else(unknown)?;
            let (send, receive) = watch::channel(false);
            fetching.insert(handle, send);
            (rows, receive)
        };
        let fetching = Fetching { queries: Arc::clone(self), handle };
        let rows = stream::unfold(Some((rows, cancel, fetching)), |state| async move {
            let (mut rows, mut cancel, fetching) = state?;
            tokio::select! {
                biased;
                true = async { cancel.wait_for(|cancel| *cancel).await.is_ok() } => {
                    Some((Err(Status::cancelled("cancelled")), None))
                }
                row = rows.next() => row.map(|row| (row, Some((rows, cancel, fetching)))),
            }
        });
        Ok(rows.boxed())
    }

    /// Stops the statement that an info is about.
    pub(crate) fn cancel(&self, info: &FlightInfo) -> Result<Cancelled, Status> {
        let unknown = || status(&Error::not_found("there is no such statement, or it has ended"));
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.as_ref()).ok_or_else(unknown)?;
        let Ok(Command::TicketStatementQuery(ticket)) = super::command(&ticket.ticket) else { return Err(unknown()) };
        let handle = Uuid::from_slice(&ticket.statement_handle).map_err(|_| unknown())?;
        let fetching = self.fetching.lock();
        if let Some(cancel) = fetching.get(&handle) {
            cancel.send_replace(true);
            return Ok(Cancelled::Soon);
        }
        let rows = self.waiting.take(&handle);
        drop(fetching);
        rows.map(|_| Cancelled::Done).ok_or_else(unknown)
    }

    pub(crate) fn sweep(&self) {
        self.waiting.sweep();
    }
}

/// The rows as messages, and the schema that those carry.
pub(crate) fn encode(schema: &SchemaRef, rows: Rows) -> (SchemaRef, Encoded) {
    let rows = rows.map_err(|e| status(&e).into());
    let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::clone(schema)).build(rows);
    let schema = encoder.known_schema().unwrap_or_else(|| Arc::clone(schema));
    (schema, encoder.map_err(from_flight).boxed())
}

/// Where to fetch a result of this schema.
pub(crate) fn info(schema: &Schema, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(schema).map_err(|e| status(&e.into()))?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1))
}

/// How many rows a statement changed: 0 for one that changes none, -1 for a query, whose rows nobody has counted.
pub(crate) fn count(answer: &Answer) -> i64 {
    match answer.rows_affected() {
        Some(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
        None if answer.has_rows() => -1,
        None => 0,
    }
}
