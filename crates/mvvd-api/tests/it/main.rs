//! The Flight SQL door from outside: a server on a free port, and the client of arrow-flight.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod bounds;
mod catalog;
mod damaged;
mod ingest;
mod queries;

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch};
use arrow::datatypes::{Float32Type, Schema};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use mvvd_query::{Config, Mvvd};
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

type Client = FlightSqlServiceClient<Channel>;

/// A server for one test; it stops when this goes.
struct Server {
    address: String,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start() -> Self {
        Self::with(Config { threads: Some(2), ..Config::memory() }).await
    }

    async fn with(config: Config) -> Self {
        let db = Mvvd::open(config).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(mvvd_api::serve(db, listener, async {
            let _ = stopped.await;
        }));
        Self { address, _stop: stop }
    }

    async fn client(&self) -> Client {
        Client::new(Endpoint::new(self.address.clone()).unwrap().connect().await.unwrap())
    }

    /// A server, a client, and a table of three rows with vectors.
    async fn with_items() -> (Self, Client) {
        let server = Self::start().await;
        let mut client = server.client().await;
        update(&mut client, "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT NOT NULL, v VECTOR(2))").await;
        let rows = "INSERT INTO items VALUES (1, 'a', '[1,0]'), (2, 'b', '[0,1]'), (3, 'c', '[1,1]')";
        assert_eq!(update(&mut client, rows).await, 3);
        (server, client)
    }
}

async fn update(client: &mut Client, sql: &str) -> i64 {
    client.execute_update(sql.to_owned(), None).await.unwrap()
}

/// The rows behind an info; its schema has to be that of the stream, metadata included.
async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    let told: Schema = info.clone().try_decode_schema()?;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.do_get(ticket).await.map_err(|e| FlightError::ExternalError(Box::new(e)))?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        batches.push(batch);
    }
    assert_eq!(&told, stream.schema().unwrap().as_ref());
    Ok(batches)
}

async fn query(client: &mut Client, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    fetch(client, info).await.unwrap()
}

/// The cells of a result, row by row, each row joined by blanks.
fn cells(batches: &[RecordBatch]) -> Vec<String> {
    let text = |batch: &RecordBatch, row: usize| {
        let cell = |column: &ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap();
        batch.columns().iter().map(cell).collect::<Vec<_>>().join(" ")
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| text(batch, row))).collect()
}

async fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    cells(&query(client, sql).await)
}

/// The gRPC code behind an error of the client.
fn code(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(status) = e.downcast_ref::<tonic::Status>() {
            return Some(status.code());
        }
        if let Some(FlightError::Tonic(status)) = e.downcast_ref::<FlightError>() {
            return Some(status.code());
        }
        next = e.source();
    }
    None
}

/// Code and text of a statement that fails.
async fn failure(client: &mut Client, sql: &str) -> (Code, String) {
    let e = client.execute(sql.to_owned(), None).await.unwrap_err();
    (code(&e).unwrap_or(Code::Unknown), e.to_string())
}

fn vectors(values: &[[f32; 2]]) -> ArrayRef {
    let rows = values.iter().map(|v| Some(v.map(Some).to_vec()));
    Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2))
}

fn ids(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}
