//! Random changes under an index: at every step its answers are measured against those of a scan.

use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use mvvd_query::{Config, Directory, Durability, Mvvd, Session, Storage, Value, value};

const DIMS: usize = 24;
const CLUSTERS: u64 = 40;
const STEPS: usize = 24;
const QUERIES: usize = 8;
const K: usize = 10;
/// Of the rows that a scan finds, on average of the queries of one step.
const RECALL_MIN: f64 = 0.95;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From -1 to 1.
    fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A vector near the centre of one of the clusters.
    fn vector(&mut self) -> Vec<f32> {
        let mut centre = Self(self.below(CLUSTERS));
        (0..DIMS).map(|_| centre.share() + 0.3 * self.share()).collect()
    }
}

fn text(vector: &[f32]) -> String {
    let values: Vec<String> = vector.iter().map(f32::to_string).collect();
    format!("'[{}]'", values.join(","))
}

fn open(folder: Option<&Path>) -> Mvvd {
    let storage = match folder {
        Some(folder) => Storage::Directory(Directory { durability: Durability::Off, ..Directory::new(folder) }),
        None => Storage::Memory,
    };
    // The last task of the database before may still be going away.
    for _ in 0..1_000 {
        if let Ok(database) = Mvvd::open(Config { storage: storage.clone(), threads: Some(2), ..Config::default() }) {
            return database;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the database does not open");
}

async fn run(session: &Session, sql: &str) -> u64 {
    let answer = session.sql(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    answer.rows_affected().unwrap_or(0)
}

/// Ids and distances of the nearest rows.
async fn nearest(session: &Session, query: &[f32], condition: &str) -> Vec<(i64, f64)> {
    let sql = format!("SELECT id, v <-> $1 AS d FROM t {condition} ORDER BY d LIMIT {K}");
    let query: Value = value::vector(query).unwrap();
    let batches = session.sql(&sql, &[query]).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let distances = batch.column(1).as_primitive::<Float64Type>();
        rows.extend(ids.values().iter().copied().zip(distances.values().iter().copied()));
    }
    rows
}

async fn check(session: &Session, random: &mut Random, step: &str) {
    let (mut found, mut wanted) = (0, 0);
    for i in 0..QUERIES {
        let query = random.vector();
        let condition = ["", "WHERE n < 50", "WHERE n = 7", "WHERE id % 3 = 0"][i % 4];
        run(session, "SET mvvd.use_index = true").await;
        let answer = nearest(session, &query, condition).await;
        run(session, "SET mvvd.use_index = false").await;
        let exact = nearest(session, &query, condition).await;
        assert_eq!(answer.len(), exact.len(), "{step}: as many rows as match, {condition}");
        assert!(answer.is_sorted_by(|a, b| (a.1, a.0) < (b.1, b.0)), "{step}: nearest first, each once");
        wanted += exact.len();
        found += answer.iter().filter(|row| exact.contains(row)).count();
    }
    let recall = found as f64 / wanted.max(1) as f64;
    assert!(recall >= RECALL_MIN, "{step}: recall {recall:.3} of {wanted} rows");
}

async fn insert(session: &Session, random: &mut Random, ids: std::ops::Range<i64>) {
    let rows: Vec<String> = ids
        .map(|id| {
            // Now and then a row has no vector.
            let vector = if random.below(50) == 0 { "NULL".to_owned() } else { text(&random.vector()) };
            format!("({id}, {}, {vector})", random.below(100))
        })
        .collect();
    run(session, &format!("INSERT INTO t VALUES {}", rows.join(", "))).await;
}

async fn model(kind: &str, in_folder: bool, seed: u64) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("database");
    let folder = in_folder.then_some(folder.as_path());
    let mut random = Random(seed);
    let mut database = open(folder);
    let mut session = database.session();
    run(&session, &format!("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT, v VECTOR({DIMS}))")).await;
    let mut last = 3_000;
    insert(&session, &mut random, 0..last).await;
    run(&session, &format!("CREATE INDEX ON t USING {kind} (v)")).await;
    check(&session, &mut random, "after CREATE INDEX").await;
    for step in 0..STEPS {
        let what = random.below(7);
        match what {
            0 | 1 => {
                let end = last + 1 + random.below(700) as i64;
                insert(&session, &mut random, last..end).await;
                last = end;
            }
            2 => drop(run(&session, &format!("DELETE FROM t WHERE n = {}", random.below(100))).await),
            3 => {
                let (n, vector) = (random.below(100), text(&random.vector()));
                run(&session, &format!("UPDATE t SET v = {vector} WHERE n = {n} AND id % 2 = 0")).await;
            }
            // A scalar under the index: the filter must see it at once.
            4 => drop(run(&session, &format!("UPDATE t SET n = 7 WHERE n = {}", random.below(100))).await),
            5 if in_folder => match random.below(2) {
                0 => database.checkpoint().unwrap(),
                _ => database.compact().unwrap(),
            },
            _ if in_folder => {
                drop(session);
                drop(database);
                database = open(folder);
                session = database.session();
            }
            _ => {}
        }
        check(&session, &mut random, &format!("{kind}, step {step}, change {what}")).await;
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

#[test]
fn hnsw_follows_all_changes() {
    block_on(model("hnsw", true, 11));
    block_on(model("hnsw", false, 12));
}

#[test]
fn ivf_follows_all_changes() {
    block_on(model("ivf_rabitq", true, 21));
    block_on(model("ivf_rabitq", false, 22));
}

#[test]
fn flat_follows_all_changes() {
    block_on(model("flat", true, 31));
    block_on(model("flat", false, 32));
}
