//! Does every query see whole statements, while others write, flush and compact?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mvvd_query::{Config, Directory, Durability, Mvvd, Session, Storage};

const ACCOUNTS: i64 = 40;
const AMOUNT: i64 = 100;
/// Statements of each writer.
const STATEMENTS: i64 = 80;
/// Rows of a batch: mostly few, sometimes so many that the statement writes a segment itself.
const BATCH_ROWS: [i64; 4] = [3, 5, 90, 7];

/// Small, so that flushes and compactions run all the time; without syncs, so that they run often.
fn open(path: &std::path::Path) -> Mvvd {
    let directory = Directory { flush_bytes: Some(4_096), durability: Durability::Off, ..Directory::new(path) };
    Mvvd::open(Config { storage: Storage::Directory(directory), threads: Some(2), ..Config::default() }).unwrap()
}

/// The integers in the only row of a result.
async fn numbers(session: &Session, sql: &str) -> Vec<i64> {
    let batches = session.sql(sql, &[]).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

/// What holds in every snapshot.
async fn check(session: &Session) {
    let sums = "SELECT count(*), sum(amount), count(DISTINCT id), min(id), max(id) FROM accounts";
    assert_eq!(numbers(session, sums).await, [ACCOUNTS, ACCOUNTS * AMOUNT, ACCOUNTS, 0, ACCOUNTS - 1]);
    let torn = "SELECT count(*) FROM (SELECT batch, count(*) AS found, max(of) AS wanted, count(DISTINCT id) AS ids \
                FROM batches GROUP BY batch) WHERE found <> wanted OR ids <> wanted";
    assert_eq!(numbers(session, torn).await, [0]);
    let mixed =
        "SELECT count(*) FROM batches WHERE v::TEXT <> '[' || batch::TEXT || ',' || id::TEXT || ',0,0,0,0,0,0]'";
    assert_eq!(numbers(session, mixed).await, [0]);
}

/// Moves amounts between two accounts, one statement each.
async fn transfer(session: Session, writer: i64) {
    for i in 0..STATEMENTS {
        let (from, to) = ((i * 7 + writer * 3) % ACCOUNTS, (i * 7 + writer * 3 + 1 + i % 9) % ACCOUNTS);
        let sql = format!(
            "UPDATE accounts SET amount = CASE WHEN id = {from} THEN amount - {i} ELSE amount + {i} END, \
             v = '[{i},{writer},0,0,0,0,0,0]' WHERE id IN ({from}, {to})"
        );
        assert_eq!(session.sql(&sql, &[]).await.unwrap().rows_affected(), Some(2));
    }
}

/// Adds batches, and deletes most of them later.
async fn load(session: Session, writer: i64) {
    let of = |batch: i64| BATCH_ROWS[(batch % BATCH_ROWS.len() as i64) as usize];
    for i in 0..STATEMENTS {
        let batch = writer * STATEMENTS + i;
        let row = |k: i64| {
            format!("({id}, {batch}, {of}, '[{batch},{id},0,0,0,0,0,0]')", id = batch * 100 + k, of = of(batch))
        };
        let rows: Vec<String> = (0..of(batch)).map(row).collect();
        session.sql(&format!("INSERT INTO batches VALUES {}", rows.join(", ")), &[]).await.unwrap();
        if i >= 10 && i % 5 != 0 {
            let old = batch - 10;
            let deleted = session.sql(&format!("DELETE FROM batches WHERE batch = {old}"), &[]).await.unwrap();
            assert_eq!(deleted.rows_affected(), Some(of(old) as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_snapshot_has_whole_statements() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let session = db.session();
    session.sql("CREATE TABLE accounts (id BIGINT PRIMARY KEY, amount BIGINT, v VECTOR(8))", &[]).await.unwrap();
    session
        .sql("CREATE TABLE batches (id BIGINT PRIMARY KEY, batch BIGINT, of BIGINT, v VECTOR(8))", &[])
        .await
        .unwrap();
    let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {AMOUNT}, NULL)")).collect();
    session.sql(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")), &[]).await.unwrap();

    let (done, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (session, done, reads) = (db.session(), Arc::clone(&done), Arc::clone(&reads));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    check(&session).await;
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let writers = [
        tokio::spawn(transfer(db.session(), 0)),
        tokio::spawn(transfer(db.session(), 1)),
        tokio::spawn(load(db.session(), 0)),
        tokio::spawn(load(db.session(), 1)),
    ];
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    check(&session).await;
    let left = numbers(&session, "SELECT count(*), sum(id) FROM batches").await;
    assert!(reads.load(Ordering::Relaxed) > 5, "{reads:?} reads");
    let segments: Vec<_> = std::fs::read_dir(dir.path().join("segments")).unwrap().collect();
    assert!(!segments.is_empty());

    drop((session, db));
    let session = open(dir.path()).session();
    check(&session).await;
    assert_eq!(numbers(&session, "SELECT count(*), sum(id) FROM batches").await, left);
}
