//! What a measurement prints: one line of JSON a setting, or a table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One setting of one index. Sizes leave the vectors themselves out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// How the index was asked: `library`, `sql`, or `peer` for an index of another library.
    pub(crate) engine: String,
    pub(crate) index: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) search: BTreeMap<String, String>,
    pub(crate) base: String,
    pub(crate) rows: usize,
    pub(crate) dims: usize,
    pub(crate) metric: String,
    pub(crate) k: usize,
    pub(crate) queries: usize,
    pub(crate) seed: u64,
    pub(crate) filter_selectivity: Option<f64>,
    pub(crate) build_threads: usize,
    pub(crate) build_seconds: Option<f64>,
    pub(crate) index_bytes: i64,
    #[serde(default)]
    pub(crate) memory_bytes: Option<usize>,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) threads: usize,
    pub(crate) recall: f64,
    pub(crate) queries_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Fewest rows that any query found.
    #[serde(default)]
    pub(crate) fewest_rows: Option<usize>,
    #[serde(default)]
    pub(crate) kernels: String,
    #[serde(default)]
    pub(crate) machine: String,
}

/// Writes each setting as it is measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) json: bool,
    lines: usize,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, lines: 0 }
    }

    pub(crate) fn add(&mut self, line: &Line) -> Result<(), serde_json::Error> {
        if self.json {
            println!("{}", serde_json::to_string(line)?);
            return Ok(());
        }
        if self.lines == 0 {
            let filter = line.filter_selectivity.map_or_else(String::new, |share| format!(", filter {share}"));
            let build = line.build_seconds.map_or_else(
                || "from a file".to_owned(),
                |seconds| format!("built in {seconds:.2} s with {} thread(s)", line.build_threads),
            );
            println!("{}", line.machine);
            println!(
                "data: {}, {} x {}, {}, {} queries, k = {}, seed {}{filter}",
                line.base, line.rows, line.dims, line.metric, line.queries, line.k, line.seed
            );
            println!(
                "index: {} {}, {build}, {:.1} MB ({:.1} bytes a row), {:.1} MB in memory, peak of the process {}",
                line.index,
                named(&line.options),
                line.index_bytes as f64 / 1e6,
                line.index_bytes as f64 / line.rows as f64,
                line.memory_bytes.unwrap_or(0) as f64 / 1e6,
                line.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MB", bytes / 1_000_000)),
            );
            println!(
                "{:<32} {:>7} {:>8} {:>10} {:>8} {:>8} {:>6}",
                "search", "threads", "recall", "queries/s", "p50 ms", "p99 ms", "fewest"
            );
        }
        self.lines += 1;
        println!(
            "{:<32} {:>7} {:>8.4} {:>10.0} {:>8.3} {:>8.3} {:>6}",
            named(&line.search),
            line.threads,
            line.recall,
            line.queries_per_second,
            line.p50_ms,
            line.p99_ms,
            line.fewest_rows.unwrap_or(0)
        );
        Ok(())
    }
}

fn named(values: &BTreeMap<String, String>) -> String {
    match values.is_empty() {
        true => "defaults".to_owned(),
        false => values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","),
    }
}
