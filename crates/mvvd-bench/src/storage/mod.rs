//! What a database in a directory costs: load, open, durable inserts, gets; each beside what the device does there.

mod data;
mod device;
mod inserts;
mod load;
mod reads;

use std::path::Path;
use std::time::Duration;

use mvvd_bench::truth::Result;
use mvvd_query::core::ErrorKind;
use mvvd_query::{Config, Mvvd};
use serde::Serialize;

use crate::machine;

/// Of everything that is generated.
const SEED: u64 = 7;

/// Measures everything in a folder below `dir`, which is removed again, and prints it.
pub(crate) async fn run(data: &Path, dir: Option<&Path>, rows: usize, json: bool) -> Result<()> {
    let folder = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut report =
        Report { machine: machine::describe(), rows, dims: data::DIMS, seed: SEED, lines: Vec::new(), json };
    report.say(&report.machine);
    report.say(&format!(
        "data: wordnet_20k, and {rows} generated rows of {} dimensions (VECTOR, BIGINT key), seed {SEED}",
        data::DIMS
    ));
    let place = Place { folder: folder.path() };
    let generated = data::write(&place, rows)?;
    load::measure(&mut report, &place, data, &generated).await?;
    reads::measure(&mut report, &place, &generated).await?;
    inserts::measure(&mut report, &place).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: String,
    rows: usize,
    dims: usize,
    seed: u64,
    lines: Vec<Line>,
    #[serde(skip)]
    json: bool,
}

/// One figure, and what it was to be.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    value: f64,
    unit: &'static str,
    /// What the figure is to keep to, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl Report {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(Line { name: name.into(), value, unit, bar: None, met: None });
    }

    fn judge(&mut self, name: impl Into<String>, value: f64, unit: &'static str, bar: impl Into<String>, met: bool) {
        self.push(Line { name: name.into(), value, unit, bar: Some(bar.into()), met: Some(met) });
    }

    fn push(&mut self, line: Line) {
        let verdict = match (&line.bar, line.met) {
            (Some(bar), Some(true)) => format!("   (bar {bar}: met)"),
            (Some(bar), _) => format!("   (bar {bar}: MISSED)"),
            _ => String::new(),
        };
        self.say(&format!("{}: {:.*} {}{verdict}", line.name, digits(line.value), line.value, line.unit));
        self.lines.push(line);
    }

    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }
}

/// Digits behind the point that show three places.
fn digits(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 4,
    }
}

/// Where databases are made.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    folder: &'a Path,
}

impl Place<'_> {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join(name)
    }

    /// Opens the database `name` here, waiting for the one before to let go of it.
    fn open(&self, config: Config) -> Result<Mvvd> {
        let mut waits = 0;
        loop {
            match Mvvd::open(config.clone()) {
                Err(e) if e.kind() == ErrorKind::Conflict && waits < 1_000 => {
                    waits += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return Ok(other?),
            }
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.file(name))?)
    }
}

/// The value at a share of a sorted list.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
