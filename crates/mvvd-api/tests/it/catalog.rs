use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Schema;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{FlightInfo, IpcMessage};
use tonic::transport::Channel;

use crate::{Server, cells, fetch, query};

async fn get(client: &mut FlightSqlServiceClient<Channel>, info: Result<FlightInfo, FlightError>) -> Vec<RecordBatch> {
    fetch(client, info.unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names() {
    let (_server, mut client) = Server::with_items().await;
    let info = client.get_catalogs().await;
    assert_eq!(cells(&get(&mut client, info).await), ["mvvd"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await;
    assert_eq!(cells(&get(&mut client, info).await), ["mvvd mvvd", "mvvd public"]);
    let info = client.get_table_types().await;
    assert_eq!(cells(&get(&mut client, info).await), ["SYSTEM TABLE", "TABLE"]);
    let info = client.get_tables(CommandGetTables::default()).await;
    let tables = cells(&get(&mut client, info).await);
    assert!(tables.contains(&"mvvd public items TABLE".to_owned()), "{tables:?}");
    assert!(tables.contains(&"mvvd mvvd tables SYSTEM TABLE".to_owned()), "{tables:?}");
    let some = CommandGetTables { table_name_filter_pattern: Some("it%".into()), ..Default::default() };
    let info = client.get_tables(some).await;
    assert_eq!(cells(&get(&mut client, info).await), ["mvvd public items TABLE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_a_table_is_that_of_its_rows() {
    let (_server, mut client) = Server::with_items().await;
    let command = CommandGetTables {
        table_name_filter_pattern: Some("items".into()),
        include_schema: true,
        ..Default::default()
    };
    let info = client.get_tables(command).await;
    let batches = get(&mut client, info).await;
    let bytes = batches[0].column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(bytes.into())).unwrap();
    assert_eq!(&schema, query(&mut client, "SELECT * FROM items").await[0].schema().as_ref());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys() {
    let (_server, mut client) = Server::with_items().await;
    let of = |table: &str| CommandGetPrimaryKeys { table: table.to_owned(), ..Default::default() };
    let info = client.get_primary_keys(of("items")).await;
    assert_eq!(cells(&get(&mut client, info).await), ["mvvd public items id  1"]);
    let info = client.get_primary_keys(of("nowhere")).await;
    assert!(cells(&get(&mut client, info).await).is_empty());
    let info = client.get_exported_keys(CommandGetExportedKeys::default()).await;
    assert!(get(&mut client, info).await.is_empty());
    let info = client.get_imported_keys(CommandGetImportedKeys::default()).await;
    assert!(get(&mut client, info).await.is_empty());
    let info = client.get_cross_reference(CommandGetCrossReference::default()).await;
    assert!(get(&mut client, info).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn abilities_and_types() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let wanted = vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerTransaction];
    let info = client.get_sql_info(wanted).await;
    let batches = get(&mut client, info).await;
    assert_eq!(cells(&batches), ["0 {string_value=MVVD}", "8 {int32_bitmask=0}"]);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo::default()).await;
    let types = cells(&get(&mut client, info).await);
    assert!(types.iter().any(|row| row.starts_with("BIGINT ")), "{types:?}");
}
