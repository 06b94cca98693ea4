//! `SHOW VERSIONS` against the system table.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use mvvd_query::{Config, Mvvd, Session};

async fn rows(session: &Session, sql: &str) -> RecordBatch {
    let batches = session.sql(sql, &[]).await.unwrap().collect().await.unwrap();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[tokio::test]
async fn versions_are_shown_as_the_system_table_has_them() {
    let db = Mvvd::open(Config { threads: Some(2), versions_kept: Some(2), ..Config::memory() }).unwrap();
    let session = db.session();
    for sql in ["CREATE TABLE t (id BIGINT PRIMARY KEY)", "CREATE TABLE \"T\" (id BIGINT PRIMARY KEY)"] {
        session.sql(sql, &[]).await.unwrap();
    }
    for id in 0..4 {
        session.sql(&format!("INSERT INTO t VALUES ({id})"), &[]).await.unwrap();
    }
    let shown = rows(&session, "SHOW VERSIONS FROM t").await;
    let listed = "SELECT * FROM mvvd.versions WHERE table_name = 't' ORDER BY version";
    assert_eq!(shown, rows(&session, listed).await);
    let versions = shown.column_by_name("version").unwrap().as_primitive::<Int64Type>();
    assert_eq!(versions.values(), &[2, 3, 4]);
    assert_eq!(rows(&session, "SHOW VERSIONS FROM \"T\"").await.num_rows(), 1);
}
