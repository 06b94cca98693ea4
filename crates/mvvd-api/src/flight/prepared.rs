//! Prepared statements: made, given parameters, run, closed.
//!
//! Parameters are the columns of a record batch, `$1` the first. A query with several rows of parameters gives the
//! results one after the other. An update with several rows runs once a row, in order, each run atomic by itself: an
//! error stops at its row and leaves the rows before it written.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::{FlightDescriptor, FlightInfo, IpcMessage, SchemaAsIpc};
use futures::{StreamExt, TryStreamExt, stream};
use mvvd_core::{Error, Result};
use mvvd_query::{Answer, Description, Value, value};
use tonic::Status;
use uuid::Uuid;

use super::queries::{Queries, Rows, count};
use super::received::batches;
use super::registry::Registry;
use super::sessions::Call;
use crate::status::status;

/// Most prepared statements of one server.
const PREPARED_MAX: usize = 1_000;
/// How long one is kept without use.
pub(crate) const IDLE: Duration = Duration::from_secs(1_800);
/// Most bytes of parameters that wait for their query.
const PARAMETER_BYTES_MAX: usize = 64 << 20;

/// The prepared statements of one server.
pub(crate) struct Statements {
    prepared: Registry<Prepared>,
}

/// One statement, with the session of the call that made it.
#[derive(Clone)]
struct Prepared {
    call: Call,
    sql: Arc<str>,
    description: Arc<Description>,
    /// The parameters of the next run.
    bound: Arc<Vec<RecordBatch>>,
}

impl Statements {
    pub(crate) fn new() -> Self {
        Self { prepared: Registry::new("prepared statements", PREPARED_MAX, IDLE) }
    }

    pub(crate) async fn create(&self, call: Call, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let description = call.session.describe(sql).await.map_err(|e| status(&e))?;
        let columns = description.columns.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: Vec::new().into(),
            dataset_schema: ipc(&columns)?.0,
            parameter_schema: ipc(&Schema::new(description.parameters.clone()))?.0,
        };
        let handle = Uuid::new_v4();
        let prepared =
            Prepared { call, sql: sql.into(), description: Arc::new(description), bound: Arc::new(Vec::new()) };
        self.prepared.put(handle, prepared).map_err(|e| status(&e))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.as_bytes().to_vec().into(),
            ..result
        })
    }

    /// The columns that a statement gives.
    pub(crate) fn columns(&self, handle: &[u8]) -> Result<SchemaRef, Status> {
        let prepared = self.find(handle)?;
        Ok(prepared.description.columns.clone().unwrap_or_else(|| Arc::new(Schema::empty())))
    }

    /// Keeps the parameters of the next run.
    pub(crate) async fn bind(&self, handle: &[u8], messages: PeekableFlightDataStream) -> Result<(), Status> {
        self.find(handle)?;
        let bound = collect(messages).await.map_err(|e| status(&e))?;
        let handle = Uuid::from_slice(handle).unwrap_or_default();
        self.prepared.with(&handle, |prepared| prepared.bound = Arc::new(bound)).ok_or_else(unknown)
    }

    /// Runs a statement with the parameters that were bound, and says where its rows are.
    pub(crate) async fn query(
        &self,
        handle: &[u8],
        queries: &Queries,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (schema, rows, records) = self.find(handle)?.run().await.map_err(|e| status(&e))?;
        queries.start(&schema, rows, records, descriptor)
    }

    /// Runs a statement with the parameters that were bound, for a client that fetches its rows at once.
    pub(crate) async fn rows(&self, handle: &[u8]) -> Result<(SchemaRef, Rows), Status> {
        let (schema, rows, _) = self.find(handle)?.run().await.map_err(|e| status(&e))?;
        Ok((schema, rows))
    }

    /// Runs an update once for each row of parameters.
    pub(crate) async fn update(&self, handle: &[u8], messages: PeekableFlightDataStream) -> Result<i64, Status> {
        let prepared = self.find(handle)?;
        let run = async {
            let Some((_, mut rows)) = batches(messages).await? else {
                let (_, _, records) = prepared.run().await?;
                return Ok(records);
            };
            let (mut changed, mut done) = (0, 0);
            while let Some(batch) = rows.try_next().await? {
                for row in 0..batch.num_rows() {
                    let answer = prepared.once(&value::row(&batch, row)?).await.map_err(|e| at_row(e, done))?;
                    changed += count(&answer).max(0);
                    done += 1;
                }
            }
            Ok(changed)
        };
        run.await.map_err(|e: Error| status(&e))
    }

    pub(crate) fn close(&self, handle: &[u8]) -> Result<(), Status> {
        let handle = Uuid::from_slice(handle).map_err(|_| unknown())?;
        self.prepared.take(&handle).map(drop).ok_or_else(unknown)
    }

    pub(crate) fn sweep(&self) {
        self.prepared.sweep(|_| false);
    }

    fn find(&self, handle: &[u8]) -> Result<Prepared, Status> {
        let handle = Uuid::from_slice(handle).map_err(|_| unknown())?;
        self.prepared.with(&handle, |prepared| prepared.clone()).ok_or_else(unknown)
    }
}

impl Prepared {
    async fn once(&self, params: &[Value]) -> Result<Answer> {
        let answer = self.call.session.sql(&self.sql, params).await?;
        self.call.keep(answer.tag());
        Ok(answer)
    }

    /// Runs with each row of the parameters: columns, rows, and how many rows changed.
    async fn run(&self) -> Result<(SchemaRef, Rows, i64)> {
        let places: Vec<(usize, usize)> = (self.bound.iter().enumerate())
            .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
            .collect();
        let Some((&(batch, row), rest)) = places.split_first() else {
            return Ok(parts(self.once(&[]).await?));
        };
        let first = self.once(&value::row(&self.bound[batch], row)?).await?;
        if rest.is_empty() {
            return Ok(parts(first));
        }
        if !first.has_rows() {
            let mut changed = count(&first);
            for (done, &(batch, row)) in rest.iter().enumerate() {
                let answer = self.once(&value::row(&self.bound[batch], row)?).await;
                changed += count(&answer.map_err(|e| at_row(e, done + 1))?);
            }
            return Ok((Arc::clone(first.schema()), stream::empty().boxed(), changed));
        }
        let schema = Arc::clone(first.schema());
        let (prepared, rest) = (self.clone(), rest.to_vec());
        let others = stream::iter(rest).then(move |(batch, row)| {
            let prepared = prepared.clone();
            async move {
                let answer = prepared.once(&value::row(&prepared.bound[batch], row)?).await?;
                Ok::<_, Error>(answer.into_stream())
            }
        });
        Ok((schema, first.into_stream().chain(others.try_flatten()).boxed(), -1))
    }
}

fn parts(answer: Answer) -> (SchemaRef, Rows, i64) {
    let (schema, records) = (Arc::clone(answer.schema()), count(&answer));
    (schema, answer.into_stream().boxed(), records)
}

fn at_row(e: Error, done: usize) -> Error {
    match done {
        0 => e,
        _ => e.context(format!("parameter row {} (the rows before it are written)", done + 1)),
    }
}

/// All batches of a call, within a bound.
async fn collect(messages: PeekableFlightDataStream) -> Result<Vec<RecordBatch>> {
    let Some((_, mut rows)) = batches(messages).await? else { return Ok(Vec::new()) };
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        // Columns of one message share its buffer, so the largest says how much is held.
        bytes += batch.columns().iter().map(|column| column.get_buffer_memory_size()).max().unwrap_or(0);
        if bytes > PARAMETER_BYTES_MAX {
            return Err(Error::exhausted(format!("a query takes {PARAMETER_BYTES_MAX} bytes of parameters at most"))
                .with_hint("use bulk ingest to bring many rows, then join with them"));
        }
        all.push(batch);
    }
    Ok(all)
}

fn unknown() -> Status {
    let e = Error::not_found("there is no such prepared statement");
    status(&e.with_hint("it was closed, or not used for 30 minutes: prepare it again"))
}

fn ipc(schema: &Schema) -> Result<IpcMessage, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    SchemaAsIpc::new(schema, &options).try_into().map_err(|e: arrow::error::ArrowError| status(&e.into()))
}
