//! What clients leave behind is bounded, and locks nobody out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use tonic::Code;

use crate::{Client, Server, cells, code, fetch, ids, rows, update};

/// More than a server keeps of anything.
const MANY: usize = 1_100;

/// A client whose calls share a session: a new one for each call takes time.
async fn client(server: &Server) -> Client {
    let mut client = server.client().await;
    client.set_header("cookie", "arrow_flight_session_id=6d16be8e-4c0c-4a1e-9a5e-0b8f6d6a3a01");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_without_rows_leave_no_tickets() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let waiting = client.execute("SELECT 7".to_owned(), None).await.unwrap();
    let first = client.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)".to_owned(), None).await.unwrap();
    for i in 0..MANY {
        client.execute(format!("INSERT INTO t VALUES ({i})"), None).await.unwrap();
    }
    assert_eq!(rows(&mut client, "SELECT count(*) FROM t").await, [MANY.to_string()]);
    assert_eq!(cells(&fetch(&mut client, waiting).await.unwrap()), ["7"]);
    // Their tickets are good whenever they are used.
    for _ in 0..2 {
        assert!(fetch(&mut client, first.clone()).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_result_that_nobody_fetched_makes_room() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let oldest = client.execute("SHOW mvvd.ef_search".to_owned(), None).await.unwrap();
    let mut newest = oldest.clone();
    for _ in 0..MANY {
        newest = client.execute("SHOW mvvd.ef_search".to_owned(), None).await.unwrap();
    }
    assert_eq!(rows(&mut server.client().await, "SELECT 1").await, ["1"]);
    assert_eq!(cells(&fetch(&mut client, newest).await.unwrap()), ["auto"]);
    let e = fetch(&mut client, oldest).await.unwrap_err();
    assert_eq!(code(&e), Some(Code::NotFound));
    assert!(e.to_string().contains("while fewer than 1000 later ones wait"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_nothing_locks_nobody_out() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let mut oldest = client.prepare("SHOW mvvd.ef_search".to_owned(), None).await.unwrap();
    let mut used = client.prepare("SHOW mvvd.ef_search".to_owned(), None).await.unwrap();
    for _ in 0..MANY {
        client.prepare("SHOW mvvd.ef_search".to_owned(), None).await.unwrap();
        used.execute().await.unwrap();
    }
    let mut other = server.client().await.prepare("SELECT 1".to_owned(), None).await.unwrap();
    let info = other.execute().await.unwrap();
    assert_eq!(cells(&fetch(&mut client, info).await.unwrap()), ["1"]);
    let e = oldest.execute().await.unwrap_err();
    assert_eq!(code(&e), Some(Code::NotFound));
    assert!(e.to_string().contains("made room for newer ones: prepare it again"), "{e}");
    oldest.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_wait_are_bounded_in_bytes() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    let large: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 60]));
    let large = RecordBatch::try_from_iter([("a", large)]).unwrap();
    let mut prepared = Vec::new();
    for _ in 0..5 {
        let mut statement = client.prepare("SELECT length($1)".to_owned(), None).await.unwrap();
        statement.set_parameters(large.clone()).unwrap();
        // Binds, and runs with the first row only: the others are computed when they are fetched.
        statement.execute().await.unwrap();
        prepared.push(statement);
    }
    let small: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    for (i, statement) in prepared.iter_mut().enumerate() {
        statement.set_parameters(RecordBatch::try_from_iter([("a", Arc::clone(&small))]).unwrap()).unwrap();
        let gone = statement.execute().await.err().map(|e| code(&e));
        assert_eq!(gone, (i == 0).then_some(Some(Code::NotFound)), "statement {i}");
    }
    // A single statement has a bound, too, and what went over it is not bound.
    let more: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 70]));
    let mut statement = client.prepare("SELECT length($1)".to_owned(), None).await.unwrap();
    statement.set_parameters(RecordBatch::try_from_iter([("a", more)]).unwrap()).unwrap();
    assert_eq!(code(&statement.execute().await.unwrap_err()), Some(Code::ResourceExhausted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_can_be_prepared() {
    let server = Server::start().await;
    let mut client = client(&server).await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT)").await;
    let sql = format!("INSERT INTO t VALUES ($1, '{}')", "x".repeat(100_000));
    let mut statement = client.prepare(sql, None).await.unwrap();
    statement.set_parameters(RecordBatch::try_from_iter([("a", ids(&[1, 2]))]).unwrap()).unwrap();
    assert_eq!(statement.execute_update().await.unwrap(), 2);
    assert_eq!(rows(&mut client, "SELECT sum(length(s)) FROM t").await, ["200000"]);
}
