//! Prepared statements: made, given parameters, run, closed.
//!
//! Parameters are the columns of a record batch, `$1` the first. A query with several rows of parameters gives the
//! results one after the other. Anything else with several rows runs once a row, in order, before the client hears of
//! it, each run atomic by itself: an error stops at its row and leaves the rows before it written.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::{FlightDescriptor, FlightInfo, IpcMessage, SchemaAsIpc};
use futures::{StreamExt, TryStreamExt, stream};
use mvvd_core::{Error, Result};
use mvvd_query::{Answer, Session, Statement, Value, value};
use tonic::Status;
use uuid::Uuid;

use super::queries::{Outcome, Queries, Rows, count};
use super::received::batches;
use super::registry::{Bounds, Registry};
use super::sessions::Call;
use crate::status::status;

/// How long a prepared statement is kept without use.
pub(crate) const IDLE: Duration = Duration::from_secs(1_800);
/// How many statements one server keeps, and how many bytes of them: texts, columns and parameters.
const BOUNDS: Bounds = Bounds { values_max: 1_000, bytes_max: 256 << 20, idle: IDLE };
/// Most bytes of parameters that wait for their statement.
const PARAMETER_BYTES_MAX: usize = 64 << 20;
/// Longest text that is kept parsed, in bytes; a longer one is parsed anew for every call.
const PARSED_BYTES_MAX: usize = 4 << 10;
/// Bytes that a parsed statement takes for each byte of its text, at most: `(1),` is a row of VALUES, and was measured.
const PARSED_BYTES_PER_BYTE: usize = 500;
/// Most bytes of rows that a statement may give for several rows of parameters; they are held until they are fetched.
const HELD_BYTES_MAX: usize = 64 << 20;

/// The prepared statements of one server.
pub(crate) struct Statements {
    kept: Registry<Kept>,
}

/// A statement between two calls.
struct Kept {
    prepared: Prepared,
    /// Parameters whose call has not ended yet, and a number for that call.
    arriving: (Uuid, Vec<RecordBatch>),
    /// Bytes of the statement without its parameters.
    own_bytes: usize,
    parameter_bytes: usize,
}

/// One statement, with the session of the call that made it.
#[derive(Clone)]
struct Prepared {
    call: Call,
    text: Arc<str>,
    /// The same, parsed, unless it is long.
    parsed: Option<Statement>,
    columns: SchemaRef,
    /// The parameters of the next run.
    bound: Arc<Vec<RecordBatch>>,
}

impl Statements {
    pub(crate) fn new() -> Self {
        Self { kept: Registry::new(BOUNDS, |kept| kept.own_bytes + kept.parameter_bytes) }
    }

    pub(crate) async fn create(&self, call: Call, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let description = call.session.describe(sql).await.map_err(|e| status(&e))?;
        let text: Arc<str> = sql.into();
        let (parsed, tree_bytes) = match text.len() <= PARSED_BYTES_MAX {
            true => {
                let parsed = parse(&call.session, &text).await.map_err(|e| status(&e))?;
                (Some(parsed), text.len() * PARSED_BYTES_PER_BYTE)
            }
            false => (None, 0),
        };
        let columns = description.columns.unwrap_or_else(|| Arc::new(Schema::empty()));
        let handle = Uuid::new_v4();
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.as_bytes().to_vec().into(),
            dataset_schema: ipc(&columns)?.0,
            parameter_schema: ipc(&Schema::new(description.parameters))?.0,
        };
        let own_bytes = text.len() + tree_bytes + columns.fields().size();
        let prepared = Prepared { call, text, parsed, columns, bound: Arc::new(Vec::new()) };
        self.kept.put(handle, Kept { prepared, arriving: (handle, Vec::new()), own_bytes, parameter_bytes: 0 });
        Ok(result)
    }

    /// The columns that a statement gives.
    pub(crate) fn columns(&self, handle: &[u8]) -> Result<SchemaRef, Status> {
        Ok(self.find(handle)?.columns)
    }

    /// Keeps the parameters of the next run, in the place of those that were there.
    pub(crate) async fn bind(&self, handle: &[u8], messages: PeekableFlightDataStream) -> Result<(), Status> {
        let call = Uuid::new_v4();
        self.with(handle, |kept| {
            kept.begin(call);
            Ok(())
        })?;
        if let Some((_, mut rows)) = batches(messages).await.map_err(|e| status(&e))? {
            while let Some(batch) = rows.try_next().await.map_err(|e| status(&e))? {
                self.with(handle, |kept| kept.add(call, batch))?;
            }
        }
        self.with(handle, |kept| kept.bind(call))
    }

    /// Runs a statement with the parameters that were bound, and says where its rows are.
    pub(crate) async fn query(
        &self,
        handle: &[u8],
        queries: &Queries,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        queries.start(self.find(handle)?.run().await.map_err(|e| status(&e))?, descriptor)
    }

    /// Runs a statement with the parameters that were bound, for a client that fetches its rows at once.
    pub(crate) async fn rows(&self, handle: &[u8]) -> Result<(SchemaRef, Rows), Status> {
        let outcome = self.find(handle)?.run().await.map_err(|e| status(&e))?;
        Ok((outcome.schema, outcome.rows.unwrap_or_else(|| stream::empty().boxed())))
    }

    /// Runs an update once for each row of parameters.
    pub(crate) async fn update(&self, handle: &[u8], messages: PeekableFlightDataStream) -> Result<i64, Status> {
        let prepared = self.find(handle)?;
        let run = async {
            let Some((_, mut rows)) = batches(messages).await? else {
                return Ok(prepared.run().await?.records);
            };
            let statement = prepared.statement().await?;
            let (mut changed, mut done) = (0, 0);
            while let Some(batch) = rows.try_next().await? {
                for row in 0..batch.num_rows() {
                    let answer = prepared.once(&statement, &value::row(&batch, row)?).await;
                    changed += count(&answer.map_err(|e| at_row(e, done))?).max(0);
                    done += 1;
                }
            }
            Ok(changed)
        };
        run.await.map_err(|e: Error| status(&e))
    }

    /// Forgets a statement. One that has made room for newer ones is closed already.
    pub(crate) fn close(&self, handle: &[u8]) -> Result<(), Status> {
        let handle = Uuid::from_slice(handle).map_err(|_| unknown())?;
        drop(self.kept.take(&handle));
        Ok(())
    }

    pub(crate) fn sweep(&self) {
        self.kept.sweep();
    }

    fn find(&self, handle: &[u8]) -> Result<Prepared, Status> {
        self.with(handle, |kept| Ok(kept.prepared.clone()))
    }

    fn with<R>(&self, handle: &[u8], work: impl FnOnce(&mut Kept) -> Result<R>) -> Result<R, Status> {
        let handle = Uuid::from_slice(handle).map_err(|_| unknown())?;
        self.kept.with(&handle, work).ok_or_else(unknown)?.map_err(|e| status(&e))
    }
}

impl Kept {
    /// Forgets the parameters, for those that `call` is about to bring.
    fn begin(&mut self, call: Uuid) {
        self.prepared.bound = Arc::new(Vec::new());
        self.arriving = (call, Vec::new());
        self.parameter_bytes = 0;
    }

    fn add(&mut self, call: Uuid, batch: RecordBatch) -> Result<()> {
        self.check_turn(call)?;
        self.parameter_bytes += bytes_of(&batch)?;
        if self.parameter_bytes > PARAMETER_BYTES_MAX {
            self.begin(call);
            return Err(Error::exhausted(format!(
                "a statement takes {PARAMETER_BYTES_MAX} bytes of parameters at most"
            ))
            .with_hint("use bulk ingest to bring many rows, then join with them"));
        }
        self.arriving.1.push(batch);
        Ok(())
    }

    fn bind(&mut self, call: Uuid) -> Result<()> {
        self.check_turn(call)?;
        self.prepared.bound = Arc::new(std::mem::take(&mut self.arriving.1));
        Ok(())
    }

    fn check_turn(&self, call: Uuid) -> Result<()> {
        match self.arriving.0 == call {
            true => Ok(()),
            false => Err(Error::conflict("another call has brought parameters for this statement meanwhile")),
        }
    }
}

impl Prepared {
    async fn statement(&self) -> Result<Statement> {
        match &self.parsed {
            Some(statement) => Ok(statement.clone()),
            None => parse(&self.call.session, &self.text).await,
        }
    }

    async fn once(&self, statement: &Statement, params: &[Value]) -> Result<Answer> {
        let answer = self.call.session.run(statement, params).await?;
        self.call.keep(answer.tag());
        Ok(answer)
    }

    /// Runs with each row of the parameters.
    async fn run(&self) -> Result<Outcome> {
        let statement = self.statement().await?;
        // Counted as they are needed: a batch without buffers has as many rows as its sender likes.
        let bound = Arc::clone(&self.bound);
        let mut places = (0..bound.len()).flat_map(move |batch| {
            let rows = bound[batch].num_rows();
            (0..rows).map(move |row| (batch, row))
        });
        let Some(first) = places.next() else { return Ok(self.once(&statement, &[]).await?.into()) };
        let first = self.once(&statement, &self.params(first)?).await?;
        let mut places = places.peekable();
        if places.peek().is_none() {
            return Ok(first.into());
        }
        let schema = Arc::clone(first.schema());
        if first.has_rows() && first.rows_affected().is_none() {
            let prepared = self.clone();
            let others = stream::iter(places).then(move |place| {
                let (prepared, statement) = (prepared.clone(), statement.clone());
                async move {
                    let answer = prepared.once(&statement, &prepared.params(place)?).await?;
                    Ok::<_, Error>(answer.into_stream())
                }
            });
            let rows = first.into_stream().chain(others.try_flatten()).boxed();
            return Ok(Outcome { schema, rows: Some(rows), records: -1 });
        }
        let (mut records, has_rows) = (count(&first), first.has_rows());
        let (mut held, mut bytes) = (Vec::new(), 0);
        keep(first, &mut held, &mut bytes).await?;
        for (done, place) in (1..).zip(places) {
            let next = async {
                if bytes > HELD_BYTES_MAX {
                    return Err(Error::exhausted(format!(
                        "the rows that are returned take over {HELD_BYTES_MAX} bytes"
                    ))
                    .with_hint("bind fewer rows of parameters at once"));
                }
                let answer = self.once(&statement, &self.params(place)?).await?;
                records += count(&answer);
                keep(answer, &mut held, &mut bytes).await
            };
            next.await.map_err(|e| at_row(e, done))?;
        }
        let rows = has_rows.then(|| stream::iter(held.into_iter().map(Ok)).boxed());
        Ok(Outcome { schema, rows, records })
    }

    fn params(&self, (batch, row): (usize, usize)) -> Result<Vec<Value>> {
        value::row(&self.bound[batch], row)
    }
}

/// Adds the rows of an answer to those that are held.
async fn keep(answer: Answer, held: &mut Vec<RecordBatch>, bytes: &mut usize) -> Result<()> {
    for batch in answer.collect().await? {
        *bytes += bytes_of(&batch)?;
        held.push(batch);
    }
    Ok(())
}

fn at_row(e: Error, done: usize) -> Error {
    match done {
        0 => e,
        _ => e.context(format!("parameter row {} (the rows before it are written)", done + 1)),
    }
}

/// Bytes that a batch holds: its columns, or the one buffer that those of a received batch share, if that is larger.
fn bytes_of(batch: &RecordBatch) -> Result<usize> {
    let (mut bytes, mut shared) = (0, 0);
    for column in batch.columns() {
        let column = column.to_data();
        bytes += column.get_slice_memory_size()?;
        shared = shared.max(largest_buffer(&column));
    }
    Ok(bytes.max(shared))
}

fn largest_buffer(column: &ArrayData) -> usize {
    let own = column.buffers().iter().map(|buffer| buffer.capacity());
    own.chain(column.child_data().iter().map(largest_buffer)).max().unwrap_or(0)
}

/// Parses a text that was described, and so holds one statement.
async fn parse(session: &Session, text: &Arc<str>) -> Result<Statement> {
    let (session, text) = (session.clone(), Arc::clone(text));
    let parsed = tokio::task::spawn_blocking(move || session.statements(&text)).await;
    let mut statements = parsed.map_err(|e| Error::internal(format!("a statement cannot be parsed: {e}")))??;
    statements.pop().ok_or_else(|| Error::internal("a prepared statement is empty"))
}

fn unknown() -> Status {
    let e = Error::not_found("there is no such prepared statement");
    status(&e.with_hint("it was closed, not used for 30 minutes, or made room for newer ones: prepare it again"))
}

fn ipc(schema: &Schema) -> Result<IpcMessage, Status> {
    let options = arrow::ipc::writer::IpcWriteOptions::default();
    SchemaAsIpc::new(schema, &options).try_into().map_err(|e: arrow::error::ArrowError| status(&e.into()))
}
