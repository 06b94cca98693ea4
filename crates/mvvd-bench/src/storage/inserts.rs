//! Durable inserts of single rows, beside the rate at which the device makes an append durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mvvd_bench::truth::Result;
use mvvd_query::{Config, Directory, Durability, OnConflict, Session, Storage, Value, value};
use tokio::task::JoinSet;

use super::data::{DIMS, batch, extend_with_vector, key};
use super::{Place, Report, device, percentile, us};

/// How long each measurement runs.
const TIME: Duration = Duration::from_secs(3);
const WRITERS: usize = 16;
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
enum Door {
    Native,
    Sql,
}

pub(super) async fn measure(report: &mut Report, place: &Place<'_>) -> Result<()> {
    let bytes = record_bytes(place).await?;
    report.add("insert: one row in the log", bytes as f64, "bytes");
    for (door, name) in [(Door::Native, "native"), (Door::Sql, "SQL")] {
        let mut times = device::appends(place, bytes, TIME)?;
        let one = rate(place, Durability::Sync, door, 1).await?;
        let many = rate(place, Durability::Sync, door, WRITERS).await?;
        times.extend(device::appends(place, bytes, TIME)?);
        times.sort_unstable();
        let (fast, middle) = (us(percentile(&times, 0.1)), us(percentile(&times, 0.5)));
        report.add(format!("insert {name}: a durable append of {bytes} bytes by the device, p10"), fast, "us");
        report.add(format!("insert {name}: the same, p50"), middle, "us");
        let device = 1e6 / middle;
        report.add(format!("insert {name}: so many appends a second by the device"), device, "/s");
        let (one_name, many_name) = (
            format!("insert {name}: one writer, durability sync"),
            format!("insert {name}: {WRITERS} writers, durability sync"),
        );
        // Every row of one writer waits for a sync of its own, so it cannot be faster than the device.
        if one > device {
            report.say("the device's appends were held up by something else: nothing is judged by them");
            report.add(one_name, one, "rows/s");
            report.add(many_name, many, "rows/s");
            continue;
        }
        let bar = format!("within 1.5x of the device, is {:.2}x", device / one);
        report.judge(one_name, one, "rows/s", bar, device <= 1.5 * one);
        let bar = format!("10x the device, is {:.1}x", many / device);
        report.judge(many_name, many, "rows/s", bar, many >= 10.0 * device);
    }
    for (door, name) in [(Door::Native, "native"), (Door::Sql, "SQL")] {
        for (durability, said) in [(Durability::Interval(SYNC_INTERVAL), "interval 50 ms"), (Durability::Off, "off")] {
            for writers in [1, WRITERS] {
                let rate = rate(place, durability, door, writers).await?;
                report.add(format!("insert {name}: {writers} writer(s), durability {said}"), rate, "rows/s");
            }
        }
    }
    Ok(())
}

fn config(place: &Place<'_>, durability: Durability) -> Config {
    let directory = Directory { durability, ..Directory::new(place.file("inserts")) };
    Config { storage: Storage::Directory(directory), ..Config::default() }
}

async fn create(place: &Place<'_>, durability: Durability) -> Result<Session> {
    let session = place.open(config(place, durability))?.session();
    session.sql(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, v VECTOR({DIMS}))"), &[]).await?;
    Ok(session)
}

fn remove(place: &Place<'_>, session: Session) -> Result<()> {
    drop(session);
    drop(place.open(config(place, Durability::Sync))?);
    place.remove("inserts")
}

/// Bytes by which the log grows with one row.
async fn record_bytes(place: &Place<'_>) -> Result<usize> {
    const ROWS: u64 = 20;
    let session = create(place, Durability::Sync).await?;
    let log = || -> Result<u64> {
        let mut bytes = 0;
        for file in std::fs::read_dir(place.file("inserts/wal"))? {
            // The file is longer than what is written of it, by zeros.
            let file = std::fs::read(file?.path())?;
            bytes += file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        }
        Ok(bytes)
    };
    let before = log()?;
    for i in 0..ROWS {
        session.insert("t", batch(&[key(i)])?, OnConflict::Fail).await?;
    }
    let bytes = (log()? - before) / ROWS;
    remove(place, session)?;
    Ok(bytes as usize)
}

/// Rows a second that so many writers insert, one row a statement.
async fn rate(place: &Place<'_>, durability: Durability, door: Door, writers: usize) -> Result<f64> {
    let session = create(place, durability).await?;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (session, next) = (session.clone(), Arc::clone(&next));
        tasks.spawn(async move { insert(&session, &next, door, start).await });
    }
    let mut rows = 0;
    while let Some(count) = tasks.join_next().await {
        rows += count??;
    }
    let rate = f64::from(rows) / start.elapsed().as_secs_f64();
    assert_eq!(session.count("t")?, rows as usize, "every row is there");
    remove(place, session)?;
    Ok(rate)
}

async fn insert(session: &Session, next: &AtomicU64, door: Door, start: Instant) -> mvvd_query::core::Result<u32> {
    const SQL: &str = "INSERT INTO t VALUES ($1, $2)";
    let statement = &session.statements(SQL)?[0];
    let mut rows = 0;
    while start.elapsed() < TIME {
        let key = key(next.fetch_add(1, Ordering::Relaxed));
        match door {
            Door::Native => {
                let rows = batch(&[key]).expect("a batch of one row");
                session.insert("t", rows, OnConflict::Fail).await?;
            }
            Door::Sql => {
                let mut vector = Vec::with_capacity(DIMS);
                extend_with_vector(&mut vector, key as u64);
                let params = [Value::Int64(Some(key)), value::vector(&vector)?];
                session.run(statement, &params).await?;
            }
        }
        rows += 1;
    }
    Ok(rows)
}
