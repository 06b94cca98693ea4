//! The exact weighted three-field top-10: MVVD's SQL, and DuckDB's beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use mvvd_bench::truth::Result;
use mvvd_query::{Config, Mvvd, Session, Value};

use crate::{duckdb, machine};

/// Runs over the queries before the timed one.
const WARM_UP: usize = 1;

/// The ranking, in SQL that both systems run.
const SQL: &str = "SELECT id, 0.5 * (v_lemma <=> $1) + 0.3 * (v_gloss <=> $2) + 0.2 * (v_example <=> $3) AS score \
                   FROM t ORDER BY score LIMIT 10";

/// Prints the time of one query, p50 and p99 over all queries, for HALFVEC and VECTOR columns.
pub(crate) async fn run(data: &Path, threads: usize, duckdb: Option<&Path>) -> Result<()> {
    let folder = data.to_str().ok_or("the folder's name is no text")?;
    println!("{}", machine::describe());
    println!("data: wordnet_20k, 20,000 rows, 3 x 384 dimensions, 200 queries, k = 10, exact, {threads} thread(s)");
    println!("sql: {SQL}");
    let mut ours: Vec<(String, f64, Vec<Vec<u64>>)> = Vec::new();
    for (name, ty) in [("VECTOR (f32)", "VECTOR(384)"), ("HALFVEC (f16, as in the file)", "HALFVEC(384)")] {
        let session = Mvvd::open(Config { threads: Some(threads), ..Config::memory() })?.session();
        let load = format!(
            "CREATE TABLE t (PRIMARY KEY (id)) AS SELECT id, v_lemma::{ty} AS v_lemma, v_gloss::{ty} AS v_gloss, \
             v_example::{ty} AS v_example FROM '{folder}/wordnet_20k.parquet'"
        );
        session.sql(&load, &[]).await?;
        let queries = queries(&session, folder).await?;
        let (mut times, answers) = time(&session, &queries).await?;
        times.sort_unstable();
        let p50 = ms(times[times.len() / 2]);
        println!("mvvd {name}: p50 {p50:.2} ms, p99 {:.2} ms", ms(times[times.len() * 99 / 100]));
        ours.push((name.to_owned(), p50, answers));
    }
    let Some(python) = duckdb else { return Ok(()) };
    let peer = duckdb::run(python, folder, threads)?;
    println!("duckdb {} FLOAT[384]: p50 {:.2} ms, p99 {:.2} ms", peer.version, peer.p50_ms, peer.p99_ms);
    for (name, p50, answers) in &ours {
        let same = answers.iter().zip(&peer.ids).filter(|(a, b)| a == b).count();
        println!(
            "ratio, mvvd {name}: {:.1}x, same ids in the same order for {same} of {} queries",
            peer.p50_ms / p50,
            answers.len()
        );
    }
    Ok(())
}

async fn queries(session: &Session, folder: &str) -> Result<Vec<Vec<Value>>> {
    let sql = format!("SELECT q_lemma, q_gloss, q_example FROM '{folder}/wordnet_queries.parquet' ORDER BY query_id");
    let mut queries = Vec::new();
    for batch in session.sql(&sql, &[]).await?.collect().await? {
        for row in 0..batch.num_rows() {
            queries.push(
                batch
                    .columns()
                    .iter()
                    .map(|c| Value::try_from_array(c, row))
                    .collect::<std::result::Result<Vec<_>, _>>()?,
            );
        }
    }
    Ok(queries)
}

async fn time(session: &Session, queries: &[Vec<Value>]) -> Result<(Vec<Duration>, Vec<Vec<u64>>)> {
    let statement = &session.statements(SQL)?[0];
    let (mut times, mut answers) = (Vec::new(), Vec::new());
    for round in 0..=WARM_UP {
        for query in queries {
            let start = Instant::now();
            let batches = session.run(statement, query).await?.collect().await?;
            let elapsed = start.elapsed();
            if round == WARM_UP {
                times.push(elapsed);
                answers.push(
                    batches.iter().flat_map(|b| b.column(0).as_primitive::<UInt64Type>().values().to_vec()).collect(),
                );
            }
        }
    }
    Ok((times, answers))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
