//! How long a statement with a long vector literal takes to plan: the whole way from text to answer over an empty table.

use std::time::Instant;

use mvvd_bench::truth::Result;
use mvvd_query::{Config, Mvvd, Value, value};

use crate::machine;

const DIMS: usize = 768;
const WARM_UP: usize = 50;

/// Prints p50 and p99 of `runs` runs for each way to write the vector.
pub(crate) async fn run(runs: usize) -> Result<()> {
    println!("{}", machine::describe());
    println!(
        "SELECT id FROM t ORDER BY v <-> VECTOR LIMIT 10 over an empty table, {DIMS} dimensions, {runs} runs; text to answer"
    );
    let session = Mvvd::open(Config::memory())?.session();
    session.sql(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, v VECTOR({DIMS}))"), &[]).await?;
    let numbers: Vec<f32> = (0..DIMS).map(|i| (i as f32 * 0.37).sin()).collect();
    let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let bound = value::vector(&numbers)?;
    let cases: [(&str, String, Vec<Value>); 4] = [
        ("none (a constant query)", "SELECT id FROM t ORDER BY id LIMIT 10".to_owned(), vec![]),
        ("text '[…]'", format!("SELECT id FROM t ORDER BY v <-> '[{list}]' LIMIT 10"), vec![]),
        ("list [...]", format!("SELECT id FROM t ORDER BY v <-> [{list}] LIMIT 10"), vec![]),
        ("parameter $1", "SELECT id FROM t ORDER BY v <-> $1 LIMIT 10".to_owned(), vec![bound]),
    ];
    for (name, sql, params) in cases {
        let mut times = Vec::with_capacity(runs);
        for i in 0..runs + WARM_UP {
            let start = Instant::now();
            session.sql(&sql, &params).await?.collect().await?;
            if i >= WARM_UP {
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        let micros = |i: usize| times[i.min(times.len() - 1)].as_secs_f64() * 1e6;
        println!("{name}: p50 {:.0} us, p99 {:.0} us", micros(times.len() / 2), micros(times.len() * 99 / 100));
    }
    Ok(())
}
