//! Bulk load from Parquet into a durable directory, beside a copy of the same bytes.

use std::path::Path;
use std::time::Instant;

use mvvd_bench::truth::Result;
use mvvd_query::{Config, Session};

use super::data::{DIMS, Generated};
use super::{Place, Report, device, median};

/// Each load and its copy are repeated so often; the median counts.
const RUNS: usize = 3;
/// Least rate of a load; or twice the time of the copy.
const MB_PER_SECOND_MIN: f64 = 200.0;

pub(super) async fn measure(report: &mut Report, place: &Place<'_>, data: &Path, generated: &Generated) -> Result<()> {
    let wordnet = data.join("wordnet_20k.parquet");
    // Three fields of 384 half floats; NULLs take their room too.
    let wordnet_columns = "id BIGINT PRIMARY KEY, v_lemma HALFVEC(384), v_gloss HALFVEC(384), v_example HALFVEC(384)";
    let generated_columns = format!("id BIGINT PRIMARY KEY, v VECTOR({DIMS})");
    let cases = [
        ("wordnet_20k", &wordnet, "id, v_lemma, v_gloss, v_example", wordnet_columns, 20_000 * 3 * 384 * 2),
        ("generated, sorted", &generated.sorted, "id, v", &*generated_columns, generated.vector_bytes()),
        ("generated, unsorted", &generated.unsorted, "id, v", &*generated_columns, generated.vector_bytes()),
    ];
    for (name, file, columns, declared, bytes) in cases {
        let file = file.to_str().ok_or("the folder's name is no text")?;
        let create = format!("CREATE TABLE t (PRIMARY KEY (id)) AS SELECT {columns} FROM '{file}'");
        let names: Vec<&str> = columns.split(", ").collect();
        let copy = format!("COPY t ({}) FROM '{file}'", names.join(", "));
        let mut seconds: [Vec<f64>; 4] = Default::default();
        for _ in 0..RUNS {
            seconds[0].push(device::copy(place, bytes)?.as_secs_f64());
            seconds[1].push(read(file, columns).await?);
            seconds[2].push(load(place, None, &create).await?);
            seconds[3].push(load(place, Some(&format!("CREATE TABLE t ({declared})")), &copy).await?);
        }
        let [copied, read, created, inserted] = seconds.each_mut().map(|seconds| median(seconds));
        let mb = bytes as f64 / 1e6;
        report.add(format!("load {name}: {mb:.0} MB copied to a file with fsync"), mb / copied, "MB/s");
        report.add(format!("load {name}: reading the Parquet file alone"), mb / read, "MB/s");
        for (how, time) in [("CREATE TABLE AS", created), ("COPY FROM", inserted)] {
            let met = mb / time >= MB_PER_SECOND_MIN || time <= 2.0 * copied;
            let bar = format!("{MB_PER_SECOND_MIN} MB/s or 2x the copy, is {:.2}x", time / copied);
            report.judge(format!("load {name}: {how}"), mb / time, "MB/s", bar, met);
        }
    }
    Ok(())
}

/// Seconds to run `sql` in a new directory, until it is durable.
async fn load(place: &Place<'_>, before: Option<&str>, sql: &str) -> Result<f64> {
    let seconds = {
        let session = place.open(Config::directory(place.file("load")))?.session();
        if let Some(before) = before {
            session.sql(before, &[]).await?;
        }
        let start = Instant::now();
        session.sql(sql, &[]).await?;
        start.elapsed().as_secs_f64()
    };
    // The lock is free once the database is gone.
    drop(place.open(Config::directory(place.file("load")))?);
    place.remove("load")?;
    Ok(seconds)
}

/// Seconds to read the same columns into memory, without a table.
async fn read(file: &str, columns: &str) -> Result<f64> {
    let session: Session = mvvd_query::Mvvd::open(Config::memory())?.session();
    let start = Instant::now();
    let batches = session.sql(&format!("SELECT {columns} FROM '{file}'"), &[]).await?.collect().await?;
    drop(std::hint::black_box(batches));
    Ok(start.elapsed().as_secs_f64())
}
