use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::{StreamExt, stream};
use mvvd_query::Config;
use tonic::Code;
use tonic::transport::Channel;

use crate::{Server, code, ids, rows, update, vectors};

const CREATE: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Create, TableExistsOption::Fail);
const APPEND: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Fail, TableExistsOption::Append);
const REPLACE: (TableNotExistOption, TableExistsOption) = (TableNotExistOption::Create, TableExistsOption::Replace);
const CREATE_APPEND: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Append);

fn command(table: &str, (missing, exists): (TableNotExistOption, TableExistsOption)) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing as i32,
            if_exists: exists as i32,
        }),
        table: table.to_owned(),
        ..Default::default()
    }
}

fn batch(keys: &[i64]) -> RecordBatch {
    let values: Vec<_> = keys.iter().map(|&key| [key as f32, 1.0]).collect();
    RecordBatch::try_from_iter([("id", ids(keys)), ("v", vectors(&values))]).unwrap()
}

async fn ingest(
    client: &mut FlightSqlServiceClient<Channel>,
    command: CommandStatementIngest,
    batches: Vec<RecordBatch>,
) -> Result<i64, Option<Code>> {
    let batches = stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
    client.execute_ingest(command, batches).await.map_err(|e| code(&e))
}

#[tokio::test(flavor = "multi_thread")]
async fn modes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert_eq!(ingest(&mut client, command("t", APPEND), vec![batch(&[1])]).await, Err(Some(Code::NotFound)));
    assert_eq!(ingest(&mut client, command("t", CREATE), vec![batch(&[1, 2]), batch(&[3])]).await, Ok(3));
    assert_eq!(ingest(&mut client, command("t", CREATE), vec![batch(&[4])]).await, Err(Some(Code::AlreadyExists)));
    assert_eq!(ingest(&mut client, command("t", APPEND), vec![batch(&[4])]).await, Ok(1));
    assert_eq!(ingest(&mut client, command("t", CREATE_APPEND), vec![batch(&[5])]).await, Ok(1));
    assert_eq!(rows(&mut client, "SELECT id FROM t ORDER BY v <-> '[5,1]' LIMIT 2").await, ["5", "4"]);
    assert_eq!(ingest(&mut client, command("t", REPLACE), vec![batch(&[9])]).await, Ok(1));
    assert_eq!(ingest(&mut client, command("u", CREATE_APPEND), vec![batch(&[7])]).await, Ok(1));
    assert_eq!(rows(&mut client, "SELECT id FROM t UNION ALL SELECT id FROM u ORDER BY id DESC").await, ["9", "7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_make_the_same_table_at_once_all_add_their_rows() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(server.client().await);
    }
    for round in 0..10 {
        let table = format!("t{round}");
        let all = clients.iter_mut().zip([1, 2, 3, 4]).map(|(client, key)| {
            let command = command(&table, CREATE_APPEND);
            async move { ingest(client, command, vec![batch(&[key])]).await }
        });
        assert_eq!(futures::future::join_all(all).await, [const { Ok(1) }; 4]);
        let sql = format!("SELECT id FROM {table} ORDER BY id");
        assert_eq!(rows(&mut clients[0], &sql).await, ["1", "2", "3", "4"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_atomic() {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert_eq!(ingest(&mut client, command("t", CREATE), vec![batch(&[1])]).await, Ok(1));
    let twice = vec![batch(&[2, 3]), batch(&[1])];
    assert_eq!(ingest(&mut client, command("t", APPEND), twice).await, Err(Some(Code::FailedPrecondition)));
    // A client that breaks off in the middle of its stream writes nothing, and nobody waits for it.
    let endless = stream::iter([Ok::<_, FlightError>(batch(&[5]))]).chain(stream::pending());
    let call = client.execute_ingest(command("t", APPEND), endless);
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(ingest(&mut client, command("t", APPEND), vec![batch(&[6])]).await, Ok(1));
    assert_eq!(rows(&mut client, "SELECT id FROM t ORDER BY id").await, ["1", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_found_by_name_and_cast() {
    let (_server, mut client) = Server::with_items().await;
    update(&mut client, "CREATE TABLE d (id BIGINT PRIMARY KEY, v VECTOR(2), n INT DEFAULT 7)").await;
    let texts = Arc::new(StringArray::from(vec!["[3,4]"]));
    let row = RecordBatch::try_from_iter([("v", texts as _), ("id", ids(&[1]))]).unwrap();
    assert_eq!(ingest(&mut client, command("d", APPEND), vec![row]).await, Ok(1));
    assert_eq!(rows(&mut client, "SELECT id, v, n FROM d").await, ["1 [3.0, 4.0] 7"]);
    let unknown = RecordBatch::try_from_iter([("id", ids(&[2])), ("w", ids(&[2]))]).unwrap();
    assert_eq!(ingest(&mut client, command("d", APPEND), vec![unknown]).await, Err(Some(Code::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let temporary = CommandStatementIngest { temporary: true, ..command("t", CREATE) };
    assert_eq!(ingest(&mut client, temporary, vec![batch(&[1])]).await, Err(Some(Code::Unimplemented)));
    let elsewhere = CommandStatementIngest { schema: Some("nowhere".into()), ..command("t", CREATE) };
    assert_eq!(ingest(&mut client, elsewhere, vec![batch(&[1])]).await, Err(Some(Code::NotFound)));
    // Names that SQL could neither read nor drop.
    let own = ingest(&mut client, command("__mvvd_t", CREATE), vec![batch(&[1])]).await;
    assert_eq!(own, Err(Some(Code::InvalidArgument)));
    let here = CommandStatementIngest { schema: Some("public".into()), ..command("t", CREATE) };
    assert_eq!(ingest(&mut client, here, vec![batch(&[1])]).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let server = Server::with(Config { memory_limit_bytes: Some(2 << 20), threads: Some(2), ..Config::memory() }).await;
    let mut client = server.client().await;
    let keys: Vec<i64> = (0..10_000).collect();
    let many: Vec<_> = (0..100).map(|_| batch(&keys)).collect();
    assert_eq!(ingest(&mut client, command("t", CREATE), many).await, Err(Some(Code::ResourceExhausted)));
    assert_eq!(ingest(&mut client, command("t", CREATE), vec![batch(&[1])]).await, Ok(1));
}
