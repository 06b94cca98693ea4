//! Opening a large database, its bookkeeping, exact top-k over mapped rows, and gets, also while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mvvd_bench::truth::Result;
use mvvd_query::{Config, Directory, Mvvd, OnConflict, Session, Storage, Value, value};

use super::data::{Generated, batch, extend_with_vector, key};
use super::{Place, Report, median, ms, percentile, us};

/// Rows that are in the log alone when the database is opened again, and how many an insert brings.
const LOG_ROWS: usize = 100_000;
const LOG_BATCH_ROWS: usize = 10;
const QUERIES: u64 = 30;
const GETS: usize = 200_000;
/// How long gets run while others write.
const BUSY_TIME: Duration = Duration::from_secs(6);
/// A small memtable, so that flush and compaction have much to do meanwhile.
const BUSY_FLUSH_BYTES: usize = 8 << 20;
const BUSY_BATCH_ROWS: u64 = 500;

pub(super) async fn measure(report: &mut Report, place: &Place<'_>, generated: &Generated) -> Result<()> {
    let file = generated.unsorted.to_str().ok_or("the folder's name is no text")?;
    let create = format!("CREATE TABLE t (PRIMARY KEY (id)) AS SELECT id, v FROM '{file}'");
    let config = Config::directory(place.file("reads"));
    let mvvd = place.open(config.clone())?;
    mvvd.session().sql(&create, &[]).await?;
    mvvd.checkpoint()?;
    bookkeeping(report, &mvvd.session()).await?;
    drop(mvvd);
    let rows = generated.rows;

    let (mvvd, seconds) = reopen(place, &config)?;
    report.judge(format!("open: {rows} rows, no log"), seconds, "s", "1 s", seconds < 1.0);
    let start = Instant::now();
    get(&mvvd.session(), 0)?;
    report.add("open: the first get, which checks what it reads", ms(start.elapsed()), "ms");
    let memory = Mvvd::open(Config::memory())?;
    memory.session().sql(&create, &[]).await?;
    top_k(report, &mvvd.session(), &memory.session()).await?;
    drop(memory);
    let idle = gets(report, &mvvd.session(), rows)?;

    let session = mvvd.session();
    for start in (0..LOG_ROWS).step_by(LOG_BATCH_ROWS) {
        let keys: Vec<i64> = (0..LOG_BATCH_ROWS).map(|i| key((rows + start + i) as u64)).collect();
        // Their durability is not what is measured.
        session.insert("t", batch(&keys)?, OnConflict::Fail).await?;
    }
    drop((session, mvvd));
    let (mvvd, seconds) = reopen(place, &config)?;
    let name = format!("open: {rows} rows and {LOG_ROWS} in the log, {LOG_BATCH_ROWS} a record");
    report.judge(name, seconds, "s", "1 s", seconds < 1.0);
    mvvd.checkpoint()?;
    drop(mvvd);

    let directory = Directory { flush_bytes: Some(BUSY_FLUSH_BYTES), ..Directory::new(place.file("reads")) };
    let mvvd = place.open(Config { storage: Storage::Directory(directory), ..Config::default() })?;
    busy_gets(report, &mvvd.session(), rows, idle)?;
    Ok(())
}

/// Opens the database again, with the seconds that it took.
fn reopen(place: &Place<'_>, config: &Config) -> Result<(Mvvd, f64)> {
    // The first to get the lock finds the one before gone.
    drop(place.open(config.clone())?);
    let mut seconds = Vec::new();
    loop {
        let start = Instant::now();
        let mvvd = Mvvd::open(config.clone())?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() == 5 {
            return Ok((mvvd, median(&mut seconds)));
        }
        drop(mvvd);
    }
}

async fn bookkeeping(report: &mut Report, session: &Session) -> Result<()> {
    let sql = "SELECT bookkeeping_bytes, rows FROM mvvd.tables WHERE name = 't'";
    let batches = session.sql(sql, &[]).await?.collect().await?;
    let number = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0) as f64;
    let bytes = number(0) / number(1);
    report.judge("bookkeeping: bytes an entity", bytes, "bytes", "100 bytes", bytes < 100.0);
    Ok(())
}

async fn top_k(report: &mut Report, mapped: &Session, memory: &Session) -> Result<()> {
    const SQL: &str = "SELECT id FROM t ORDER BY v <-> $1 LIMIT 10";
    let statements = [&mapped.statements(SQL)?[0], &memory.statements(SQL)?[0]];
    let mut times: [Vec<Duration>; 2] = Default::default();
    for query in 0..QUERIES + 1 {
        let mut vector = Vec::new();
        extend_with_vector(&mut vector, u64::MAX - query);
        let params = [value::vector(&vector)?];
        let mut answers = Vec::new();
        for (i, session) in [mapped, memory].into_iter().enumerate() {
            let start = Instant::now();
            answers.push(session.run(statements[i], &params).await?.collect().await?);
            let time = start.elapsed();
            match query {
                0 if i == 0 => {
                    report.add("top-k: the first query after opening, which checks all rows", ms(time), "ms")
                }
                0 => {}
                _ => times[i].push(time),
            }
        }
        let ids = |i: usize| -> Vec<i64> {
            answers[i]
                .iter()
                .flat_map(|b: &arrow::array::RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect()
        };
        assert_eq!(ids(0), ids(1), "a table on disk answers as one in memory does");
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let [mapped, memory] = times.map(|times| ms(percentile(&times, 0.5)));
    report.add(format!("top-k: exact, k = 10, {QUERIES} queries, in memory, p50"), memory, "ms");
    let bar = format!("1.2x of memory, is {:.2}x", mapped / memory);
    report.judge("top-k: the same, mapped, p50", mapped, "ms", bar, mapped <= 1.2 * memory);
    Ok(())
}

fn get(session: &Session, i: u64) -> Result<Duration> {
    let wanted = [Value::Int64(Some(key(i)))];
    let start = Instant::now();
    let found = session.get("t", &wanted, &[])?;
    let time = start.elapsed();
    assert_eq!(found.num_rows(), 1, "the row is there");
    Ok(time)
}

/// The number of the `i`th row to get.
fn any(i: usize, rows: usize) -> u64 {
    key(i as u64 + (1 << 40)) as u64 % rows as u64
}

/// Returns the p99.
fn gets(report: &mut Report, session: &Session, rows: usize) -> Result<Duration> {
    for i in 0..GETS / 10 {
        get(session, any(i, rows))?;
    }
    let mut times = (0..GETS).map(|i| get(session, any(i, rows))).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
    let bar = "5 us";
    report.judge(format!("get: all columns, {GETS} random keys of {rows}, p50"), us(p50), "us", bar, us(p50) <= 5.0);
    report.judge("get: the same, p99", us(p99), "us", bar, us(p99) <= 5.0);
    Ok(p99)
}

fn busy_gets(report: &mut Report, session: &Session, rows: usize, idle: Duration) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (session, stop) = (session.clone(), Arc::clone(&stop));
        std::thread::spawn(move || -> mvvd_query::core::Result<u64> {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
            let mut next = (rows + LOG_ROWS) as u64;
            let first = next;
            while !stop.load(Ordering::Relaxed) {
                let keys: Vec<i64> = (next..next + BUSY_BATCH_ROWS).map(key).collect();
                next += BUSY_BATCH_ROWS;
                let batch = batch(&keys).expect("a batch");
                runtime.block_on(session.insert("t", batch, OnConflict::Fail))?;
            }
            Ok(next - first)
        })
    };
    let (mut times, start) = (Vec::new(), Instant::now());
    let mut i = 0;
    while start.elapsed() < BUSY_TIME {
        times.push(get(session, any(i, rows))?);
        i += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer does not panic")?;
    report.add(
        "get while others write: rows written meanwhile, with flush and compaction",
        written as f64 / seconds,
        "rows/s",
    );
    times.sort_unstable();
    report.add("get while others write: p50", us(percentile(&times, 0.5)), "us");
    let p99 = percentile(&times, 0.99);
    let ratio = p99.as_secs_f64() / idle.as_secs_f64();
    let bar = format!("10x of idle, is {ratio:.1}x");
    report.judge("get while others write: p99", us(p99), "us", bar, ratio <= 10.0);
    Ok(())
}
