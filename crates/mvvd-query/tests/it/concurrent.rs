//! Statements side by side: none is lost, and none fails for the other's sake.

use mvvd_query::{Config, Mvvd, Session, Value};
use tokio::task::JoinSet;

async fn number(session: &Session, sql: &str) -> i64 {
    let batches = session.sql(sql, &[]).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    match Value::try_from_array(batch.column(0), 0).unwrap() {
        Value::Int64(Some(number)) => number,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_a_table_by_itself_loses_no_insert() {
    let database = Mvvd::open(Config::memory()).unwrap();
    let session = database.session();
    session.sql("CREATE TABLE t AS SELECT value AS id FROM generate_series(1, 20000) AS s(value)", &[]).await.unwrap();
    let inserts = {
        let session = database.session();
        tokio::spawn(async move {
            for id in 100_000..100_300 {
                session.sql(&format!("INSERT INTO t VALUES ({id})"), &[]).await.unwrap();
            }
        })
    };
    while !inserts.is_finished() {
        session.sql("CREATE OR REPLACE TABLE t AS SELECT * FROM t", &[]).await.unwrap();
    }
    inserts.await.unwrap();
    assert_eq!(number(&session, "SELECT count(*) FROM t").await, 20_300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_exists_holds_when_others_drop_and_create() {
    let database = Mvvd::open(Config::memory()).unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let session = database.session();
        clients.spawn(async move {
            for _ in 0..60 {
                session.sql("CREATE TABLE IF NOT EXISTS t (id INT)", &[]).await.unwrap();
                session.sql("TRUNCATE TABLE IF EXISTS t", &[]).await.unwrap();
                session.sql("ALTER TABLE IF EXISTS t ADD COLUMN IF NOT EXISTS n INT", &[]).await.unwrap();
                session.sql("DROP TABLE IF EXISTS t", &[]).await.unwrap();
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_reads_a_file_twice_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.csv");
    std::fs::write(&file, "id\n1\n2\n").unwrap();
    let session = Mvvd::open(Config::memory()).unwrap().session();
    let mut readers = JoinSet::new();
    for _ in 0..6 {
        let (session, sql) = (session.clone(), format!("SELECT count(*) FROM '{}'", file.display()));
        readers.spawn(async move {
            for _ in 0..40 {
                assert_eq!(number(&session, &sql).await, 2);
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}

#[tokio::test]
async fn no_file_is_written_over_those_of_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let session = Mvvd::open(Config::directory(folder.path().join("db"))).unwrap().session();
    session.sql("CREATE TABLE t (id INT PRIMARY KEY)", &[]).await.unwrap();
    for name in ["db/MANIFEST", "db/wal/x.csv", "db/../db/new.csv"] {
        let sql = format!("COPY t TO '{}' (FORMAT csv)", folder.path().join(name).display());
        let e = session.sql(&sql, &[]).await.map(|_| ()).unwrap_err();
        assert!(e.message().contains("in the directory of the database"), "{e}");
    }
    session.sql(&format!("COPY t TO '{}'", folder.path().join("t.csv").display()), &[]).await.unwrap();
}

#[tokio::test]
async fn reset_reaches_one_setting() {
    let session = Mvvd::open(Config::memory()).unwrap().session();
    session.sql("SET timezone = 'Europe/Berlin'", &[]).await.unwrap();
    session.sql("SET datafusion.execution.batch_size = 100", &[]).await.unwrap();
    session.sql("RESET datafusion.execution.batch_size", &[]).await.unwrap();
    let shown = async |name: &str| {
        let batches = session.sql(&format!("SHOW {name}"), &[]).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
    };
    assert!(shown("timezone").await.contains("Europe/Berlin"));
    assert!(shown("datafusion.execution.batch_size").await.contains("8192"));
    session.sql("RESET timezone", &[]).await.unwrap();
    assert!(!shown("timezone").await.contains("Europe/Berlin"));
}
