use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::Code;

use crate::{Server, cells, code, failure, fetch, ids, query, rows, update, vectors};

/// A query that nobody waits for.
const ENDLESS: &str = "SELECT a.value * b.value % 7 AS s \
                       FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b";

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_updates() {
    let (_server, mut client) = Server::with_items().await;
    assert_eq!(rows(&mut client, "SELECT id, name FROM items ORDER BY v <-> '[0,1]'").await, ["2 b", "3 c", "1 a"]);
    assert_eq!(rows(&mut client, "SELECT id FROM items WHERE false").await, [""; 0]);
    assert_eq!(update(&mut client, "UPDATE items SET name = 'z' WHERE id > 1").await, 2);
    assert_eq!(update(&mut client, "CREATE TABLE other (id BIGINT)").await, 0);
    assert_eq!(update(&mut client, "SELECT 1").await, -1);
    // Clients run every statement as a query: it has run when the info is there, once.
    let info = client.execute("DELETE FROM items WHERE id = 1".to_owned(), None).await.unwrap();
    assert_eq!(info.total_records, 1);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM items").await, ["2"]);
    assert!(fetch(&mut client, info).await.unwrap().is_empty());
    let returned = "INSERT INTO items VALUES (7, 'n', '[2,2]') RETURNING id, v";
    assert_eq!(rows(&mut client, returned).await, ["7 [2.0, 2.0]"]);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM items").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_used_once() {
    let (_server, mut client) = Server::with_items().await;
    let info = client.execute("SELECT id FROM items".to_owned(), None).await.unwrap();
    assert_eq!(fetch(&mut client, info.clone()).await.unwrap()[0].num_rows(), 3);
    assert_eq!(code(&fetch(&mut client, info).await.unwrap_err()), Some(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_results_come_in_pieces() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let sql = "SELECT value, repeat('x', 1000) AS t FROM generate_series(1, 50000)";
    let batches = query(&mut client, sql).await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_queries_take_vectors_in_any_form() {
    let (_server, mut client) = Server::with_items().await;
    let sql = "SELECT id FROM items WHERE id < $2 ORDER BY v <=> $1 LIMIT 1";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let parameters = prepared.parameter_schema().unwrap();
    assert_eq!(parameters.field(0).name(), "$1");
    assert!(
        matches!(parameters.field(0).data_type(), DataType::FixedSizeList(item, 2) if item.data_type() == &DataType::Float32)
    );
    assert_eq!(parameters.field(1).data_type(), &DataType::Int64);
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "id");
    let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(0.0), Some(1.0)])]);
    for vector in [vectors(&[[0.0, 1.0]]), Arc::new(list), Arc::new(StringArray::from(vec!["[0,1]"]))] {
        let row = RecordBatch::try_from_iter([("a", vector), ("b", ids(&[10]))]).unwrap();
        prepared.set_parameters(row).unwrap();
        let info = prepared.execute().await.unwrap();
        assert_eq!(cells(&fetch(&mut client, info).await.unwrap()), ["2"]);
    }
    // Several rows of parameters give their results one after the other.
    let both = RecordBatch::try_from_iter([("a", vectors(&[[0.0, 1.0], [1.0, 0.0]])), ("b", ids(&[9, 9]))]).unwrap();
    prepared.set_parameters(both).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(cells(&fetch(&mut client, info).await.unwrap()), ["2", "1"]);
    // A wrong dimension is the caller's mistake.
    let wrong = Arc::new(StringArray::from(vec!["[0,1,2]"]));
    prepared.set_parameters(RecordBatch::try_from_iter([("a", wrong as _), ("b", ids(&[9]))]).unwrap()).unwrap();
    let e = match prepared.execute().await {
        Err(e) => code(&e),
        Ok(info) => code(&fetch(&mut client, info).await.unwrap_err()),
    };
    assert_eq!(e, Some(Code::InvalidArgument));
    prepared.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_updates_run_once_a_row() {
    let (_server, mut client) = Server::with_items().await;
    let mut insert = client.prepare("INSERT INTO items VALUES ($1, $2, $3)".to_owned(), None).await.unwrap();
    let types: Vec<_> = insert.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
    assert!(matches!(&types[..], [DataType::Int64, DataType::Utf8, DataType::FixedSizeList(_, 2)]), "{types:?}");
    assert!(insert.dataset_schema().unwrap().fields().is_empty());
    let batch = |keys: &[i64]| {
        let names = Arc::new(StringArray::from(vec!["n"; keys.len()]));
        let values = vectors(&vec![[0.5, 0.5]; keys.len()]);
        RecordBatch::try_from_iter([("a", ids(keys)), ("b", names as _), ("c", values)]).unwrap()
    };
    insert.set_parameters(batch(&[10, 11, 12])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    // Each row is a statement: the one that fails is named, those before it stay.
    insert.set_parameters(batch(&[13, 11, 14])).unwrap();
    let e = insert.execute_update().await.unwrap_err();
    assert_eq!(code(&e), Some(Code::FailedPrecondition));
    assert!(e.to_string().contains("parameter row 2 (the rows before it are written)"), "{e}");
    assert_eq!(rows(&mut client, "SELECT id FROM items WHERE id >= 10 ORDER BY id").await, ["10", "11", "12", "13"]);
    let mut change = client.prepare("UPDATE items SET name = $1 WHERE id = $2".to_owned(), None).await.unwrap();
    let types: Vec<_> = change.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Int64]);
    let names = Arc::new(StringArray::from(vec!["x", "y"]));
    change.set_parameters(RecordBatch::try_from_iter([("a", names as _), ("b", ids(&[10, 99]))]).unwrap()).unwrap();
    assert_eq!(change.execute_update().await.unwrap(), 1);
    change.close().await.unwrap();
}

/// A client that never fetches the rows must not leave the statement half done.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_has_run_for_every_row_when_the_info_is_there() {
    let (_server, mut client) = Server::with_items().await;
    let sql = "INSERT INTO items VALUES ($1, 'n', '[2,2]') RETURNING id, name";
    let mut insert = client.prepare(sql.to_owned(), None).await.unwrap();
    insert.set_parameters(RecordBatch::try_from_iter([("a", ids(&[10, 11, 12]))]).unwrap()).unwrap();
    let info = insert.execute().await.unwrap();
    assert_eq!(info.total_records, 3);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM items").await, ["6"]);
    assert_eq!(cells(&fetch(&mut client, info).await.unwrap()), ["10 n", "11 n", "12 n"]);
    insert.set_parameters(RecordBatch::try_from_iter([("a", ids(&[13, 11, 14]))]).unwrap()).unwrap();
    let e = insert.execute().await.unwrap_err();
    assert_eq!(code(&e), Some(Code::FailedPrecondition));
    assert!(e.to_string().contains("parameter row 2 (the rows before it are written)"), "{e}");
    assert_eq!(rows(&mut client, "SELECT id FROM items WHERE id > 12").await, ["13"]);
    // The same without rows to return.
    let mut delete = client.prepare("DELETE FROM items WHERE id = $1".to_owned(), None).await.unwrap();
    delete.set_parameters(RecordBatch::try_from_iter([("a", ids(&[10, 11, 99]))]).unwrap()).unwrap();
    let info = delete.execute().await.unwrap();
    assert_eq!(info.total_records, 2);
    assert!(fetch(&mut client, info).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_codes() {
    let (_server, mut client) = Server::with_items().await;
    for (sql, expected) in [
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT * FROM nowhere", Code::NotFound),
        ("SELECT nothing FROM items", Code::NotFound),
        ("CREATE TABLE items (id BIGINT)", Code::AlreadyExists),
        ("INSERT INTO items VALUES (1, 'a', '[1,0]')", Code::FailedPrecondition),
        ("INSERT INTO items VALUES (9, 'a', '[1,0,0]')", Code::InvalidArgument),
        ("CREATE VIEW w AS SELECT 1", Code::Unimplemented),
        ("BEGIN", Code::Unimplemented),
        ("", Code::InvalidArgument),
    ] {
        let (code, text) = failure(&mut client, sql).await;
        assert_eq!(code, expected, "{sql}: {text}");
        assert!(!text.contains(".rs"), "{text}");
    }
    let (_, text) = failure(&mut client, "SELECT nothing FROM items").await;
    assert!(text.contains("hint: the columns are id, name, v"), "{text}");
    let e = client.begin_transaction().await.unwrap_err();
    assert_eq!(code(&e), Some(Code::Unimplemented));
    let e = client.prepare("SELECT * FROM nowhere".to_owned(), None).await.unwrap_err();
    assert_eq!(code(&e), Some(Code::NotFound));
    let raw = client.inner_mut().get_flight_info(FlightDescriptor::new_cmd("nonsense")).await.unwrap_err();
    assert_eq!(raw.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_running_query_arrives() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let sql = "SELECT 1 / (value - 40000) AS x FROM generate_series(1, 100000)";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    assert_eq!(code(&fetch(&mut client, info).await.unwrap_err()), Some(Code::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_can_be_cancelled() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let info = client.execute(ENDLESS.to_owned(), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.try_next().await.unwrap().is_some());
    let cancel = Action::new("CancelFlightInfo", CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec());
    assert!(client.do_action(tonic::Request::new(cancel)).await.unwrap().next().await.unwrap().is_ok());
    let started = Instant::now();
    let e = loop {
        match stream.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cancelled query must not look complete"),
            Err(e) => break e,
        }
    };
    assert_eq!(code(&e), Some(Code::Cancelled));
    assert!(started.elapsed() < Duration::from_secs(10));
    // Before its rows are fetched, and twice.
    let info = client.execute(ENDLESS.to_owned(), None).await.unwrap();
    let cancel =
        || Action::new("CancelFlightInfo", CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec());
    client.do_action(tonic::Request::new(cancel())).await.unwrap();
    let e = client.do_action(tonic::Request::new(cancel())).await.err().unwrap();
    assert_eq!(code(&e), Some(Code::NotFound));
    // A stream that is dropped leaves the database free for others.
    let info = client.execute(ENDLESS.to_owned(), None).await.unwrap();
    drop(client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap());
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once() {
    let (server, mut client) = Server::with_items().await;
    let mut tasks = Vec::new();
    for n in 0..16_i64 {
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            for i in 0..5 {
                let id = 100 + n * 10 + i;
                update(&mut client, &format!("INSERT INTO items VALUES ({id}, 'n', '[1,{id}]')")).await;
                let found = rows(&mut client, &format!("SELECT id FROM items WHERE id = {id}")).await;
                assert_eq!(found, [id.to_string()]);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rows(&mut client, "SELECT count(*) FROM items").await, ["83"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_live_as_long_as_the_cookie() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let set = CommandStatementQuery { query: "SET mvvd.ef_search = 99".to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(set.as_any().encode_to_vec());
    let response = client.inner_mut().get_flight_info(descriptor).await.unwrap();
    let cookie = response.metadata().get("set-cookie").unwrap().to_str().unwrap().to_owned();
    assert!(cookie.starts_with("arrow_flight_session_id="), "{cookie}");
    assert_eq!(rows(&mut client, "SHOW mvvd.ef_search").await, ["auto"]);
    client.set_header("cookie", cookie);
    assert_eq!(rows(&mut client, "SHOW mvvd.ef_search").await, ["99"]);
    client.do_action(tonic::Request::new(Action::new("CloseSession", ""))).await.unwrap();
    assert_eq!(rows(&mut client, "SHOW mvvd.ef_search").await, ["auto"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_without_running() {
    let (_server, mut client) = Server::with_items().await;
    let command = CommandStatementQuery { query: "DELETE FROM items RETURNING id".to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let result = client.inner_mut().get_schema(descriptor).await.unwrap().into_inner();
    let schema = arrow::datatypes::Schema::try_from(result).unwrap();
    assert_eq!(schema.field(0).name(), "id");
    assert_eq!(rows(&mut client, "SELECT count(*) FROM items").await, ["3"]);
}
