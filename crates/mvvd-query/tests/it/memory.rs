//! Does one memory limit hold for queries, tables and caches?

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mvvd_query::core::{Error, ErrorKind};
use mvvd_query::{Config, Directory, Durability, Mvvd, Session, Storage, StorageMode};

const LIMIT: u64 = 16 << 20;
/// What rows may take of it.
const TABLES_MAX: i64 = 12 << 20;
/// Bytes of the text of a row.
const TEXT_BYTES: i64 = 1_000;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn in_memory() -> Config {
    Config { memory_limit_bytes: Some(LIMIT), threads: Some(2), ..Config::memory() }
}

fn in_directory(path: &std::path::Path, mode: StorageMode) -> Config {
    let directory = Directory { mode, durability: Durability::Off, ..Directory::new(path) };
    Config { storage: Storage::Directory(directory), ..in_memory() }
}

async fn change(session: &Session, sql: &str) -> Result<u64, Error> {
    Ok(session.sql(sql, &[]).await?.rows_affected().unwrap_or(0) as u64)
}

/// The integers in the only row of a result.
async fn numbers(session: &Session, sql: &str) -> Vec<i64> {
    let batches = session.sql(sql, &[]).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

async fn setting(session: &Session, name: &str) -> i64 {
    numbers(session, &format!("SELECT value::BIGINT FROM mvvd.settings WHERE name = '{name}'")).await[0]
}

async fn create(session: &Session, table: &str) {
    change(session, &format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, text TEXT, v VECTOR(2))")).await.unwrap();
}

/// Adds `rows` rows with ids from `first` on.
async fn insert(session: &Session, table: &str, first: i64, rows: i64) -> Result<u64, Error> {
    let last = first + rows - 1;
    change(
        session,
        &format!(
            "INSERT INTO {table} SELECT x, repeat(chr(97 + x % 26), {TEXT_BYTES}), '[1,2]' \
             FROM generate_series({first}, {last}) s(x)"
        ),
    )
    .await
}

/// Adds statements of 1,000 rows from `first` on until there is no room; the first id that is free.
async fn fill(session: &Session, table: &str, first: i64) -> i64 {
    let before = numbers(session, &format!("SELECT count(*) FROM {table}")).await[0];
    for next in (first..).step_by(1_000) {
        let Err(e) = insert(session, table, next, 1_000).await else { continue };
        assert_eq!(e.kind(), ErrorKind::Exhausted, "{e}");
        assert!(e.message().starts_with("out of memory: "), "{e}");
        assert!(e.message().contains("tables have") && e.message().contains(&TABLES_MAX.to_string()), "{e}");
        assert!(e.hint().unwrap().contains("directory"), "{e}");
        // Nothing of the statement is there, and reading goes on.
        let sql = format!("SELECT count(*), sum(length(text)), max(id) FROM {table}");
        let rows = before + next - first;
        assert_eq!(numbers(session, &sql).await, [rows, rows * TEXT_BYTES, next - 1]);
        return next;
    }
    unreachable!("a limit is reached")
}

#[test]
fn tables_in_memory_stop_at_the_limit_and_go_on_when_there_is_room() {
    run(async {
        let session = Mvvd::open(in_memory()).unwrap().session();
        create(&session, "t").await;
        let full = fill(&session, "t", 0).await;
        assert!((9_000..=12_000).contains(&full), "{full}");
        assert!(setting(&session, "storage.memory_bytes").await <= TABLES_MAX);
        // Deleted rows make room, although older versions and the chunks of other rows have them.
        change(&session, "DELETE FROM t WHERE id % 2 = 0").await.unwrap();
        let again = fill(&session, "t", full).await;
        assert!(again >= full + 3_000, "{full} to {again}");
        change(&session, &format!("DELETE FROM t WHERE id < {again}")).await.unwrap();
        let all = fill(&session, "t", again).await;
        assert!(all >= again + 8_000, "{again} to {all}");
        change(&session, "TRUNCATE t").await.unwrap();
        create(&session, "u").await;
        assert!(fill(&session, "u", 0).await >= 8_000);
        change(&session, "DROP TABLE u").await.unwrap();
        assert!(fill(&session, "t", 0).await >= 8_000);
        change(&session, "DROP TABLE t").await.unwrap();
        assert_eq!(setting(&session, "storage.memory_bytes").await, 0);
    });
}

#[test]
fn rows_keep_their_names_while_room_is_made() {
    run(async {
        let session = Mvvd::open(in_memory()).unwrap().session();
        create(&session, "t").await;
        let full = fill(&session, "t", 0).await;
        change(&session, "DELETE FROM t WHERE id % 3 <> 0").await.unwrap();
        let rows = numbers(&session, "SELECT count(*) FROM t").await[0];
        // Each of these adds rows beside those that they replace, and has read them before room was made.
        for round in 0..6 {
            let sql = format!("UPDATE t SET text = text || 'y' WHERE id % 6 = {}", round % 2 * 3);
            assert!(change(&session, &sql).await.unwrap() > 0);
        }
        let sums = numbers(&session, "SELECT count(*), sum(length(text)), min(id), max(id) FROM t").await;
        assert_eq!(sums, [rows, rows * (TEXT_BYTES + 3), 0, (full - 1) / 3 * 3]);
    });
}

#[test]
fn a_directory_takes_ten_times_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let session = Mvvd::open(in_directory(folder.path(), StorageMode::Disk)).unwrap().session();
        create(&session, "t").await;
        let (mut rows, mut statement) = (0, 0);
        while rows * TEXT_BYTES < 10 * LIMIT as i64 {
            // Some of them are large enough to write a segment themselves.
            let more = [1_200, 300, 3_000, 1_100][statement % 4];
            assert_eq!(insert(&session, "t", rows, more).await.unwrap(), more as u64);
            (rows, statement) = (rows + more, statement + 1);
            if statement % 8 == 0 {
                assert!(setting(&session, "storage.memory_bytes").await <= TABLES_MAX);
            }
        }
        // As many again in the place of some of them.
        let deleted = change(&session, &format!("DELETE FROM t WHERE id >= {}", rows - 2_000)).await.unwrap();
        assert_eq!(deleted, 2_000);
        rows -= 2_000;
        let sums = "SELECT count(*), sum(length(text)), count(DISTINCT id), min(id), max(id) FROM t";
        let expected = [rows, rows * TEXT_BYTES, rows, 0, rows - 1];
        assert_eq!(numbers(&session, sums).await, expected);
        drop(session);
        let database = Mvvd::open(in_directory(folder.path(), StorageMode::Hybrid)).unwrap();
        let session = database.session();
        assert_eq!(numbers(&session, sums).await, expected);
        database.compact().unwrap();
        assert_eq!(numbers(&session, sums).await, expected);
        // What hybrid mode keeps is within its part of the limit.
        let cached = setting(&session, "storage.cached_bytes").await;
        let cache = setting(&session, "storage.cache_bytes").await;
        assert!(cached > 0 && cached <= cache && cache == LIMIT as i64 / 4, "{cached} of {cache}");
        let one = format!("SELECT length(text)::BIGINT, id FROM t WHERE id = {}", rows / 2);
        assert_eq!(numbers(&session, &one).await, [TEXT_BYTES, rows / 2]);
    });
}
