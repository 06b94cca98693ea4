//! MVVD's indexes beside those of other libraries: the same files, the same core, one run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use mvvd_bench::truth::Result;
use mvvd_core::metric::Metric;

use super::curve::{Point, rate_at};
use super::report::Line;
use super::{Ann, Search, Via, metric, pair, setting};
use crate::python::with_packages;

/// The script that measures one peer, and the packages it needs.
const SCRIPT: &str = include_str!("../../peers/ann/peer.py");
const REQUIREMENTS: &str = include_str!("../../peers/ann/requirements.txt");
const PEERS: [&str; 9] = [
    "hnswlib",
    "hnswlib-m32",
    "faiss-hnsw",
    "faiss-ivfpq",
    "usearch-f32",
    "usearch-i8",
    "rabitq-symqg",
    "rabitq-symqg64",
    "rabitq-ivf",
];

const RECALLS: [f64; 3] = [0.90, 0.95, 0.99];
/// A sweep ends after a setting that finds this much.
const ENOUGH: f64 = 0.998;
/// Settings of a graph.
const EF_SEARCH: [usize; 15] = [10, 12, 16, 20, 28, 40, 56, 80, 112, 160, 240, 320, 480, 640, 960];
/// Settings of an index of lists.
const NPROBE: [usize; 15] = [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

/// Measures indexes beside hnswlib, faiss, usearch and rabitqlib on the same files and core.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  mvvd-bench compare --base set/train.npy --query set/test.npy --truth set/neighbors.npy --metric l2 --work /tmp/peers \\
      --index hnsw --index ivf_rabitq --peer hnswlib --peer rabitq-symqg --core 1

The peers' packages are installed into an environment of their own below --work on first use; their indexes are kept
there with their build times. Every line of JSON is appended to --lines, and a table is printed at the end; without
--base only the table is printed, of lines that are there already. A peer is asked query by query and as one batch on
one thread, and its faster rate counts. Rates between settings are interpolated in the logarithm.")]
pub(crate) struct Compare {
    /// Vectors to search in, as .npy.
    #[arg(long, value_name = "FILE", requires_all = ["query", "truth"])]
    base: Option<PathBuf>,
    /// Vectors to search for, as .npy.
    #[arg(long, value_name = "FILE")]
    query: Option<PathBuf>,
    /// The true neighbours of each query, as .npy.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// l2, cosine or ip.
    #[arg(long, value_parser = metric, default_value = "l2")]
    metric: Metric,
    /// An index of MVVD, with options after a colon: hnsw:m=16,codes=sq8. May be given several times.
    #[arg(long)]
    index: Vec<String>,
    /// A peer. May be given several times.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(PEERS))]
    peer: Vec<String>,
    /// Core that searches; builds use all.
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// Neighbours a query.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Queries to ask, the first ones.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    queries: u32,
    /// Decides the indexes.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Folder for the peers' packages and indexes.
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir().join("mvvd-peers"))]
    work: PathBuf,
    /// Python that has the packages, or can install them.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// File of JSON lines to append to and to report from. May hold several sets.
    #[arg(long, value_name = "FILE", default_value = "compare.jsonl")]
    lines: PathBuf,
}

/// Measures what is asked for and prints the tables of all lines.
pub(crate) fn run(args: &Compare) -> Result<()> {
    if let (Some(base), Some(query), Some(truth)) = (&args.base, &args.query, &args.truth) {
        let mut lines = fs::OpenOptions::new().create(true).append(true).open(&args.lines)?;
        for index in &args.index {
            ours(args, [base, query, truth], index, &mut |line| Ok(writeln!(lines, "{line}")?))?;
        }
        let python = match args.peer.is_empty() {
            true => PathBuf::new(),
            false => {
                let imports = "import numpy, hnswlib, faiss, usearch, rabitqlib";
                let packages: Vec<&str> = REQUIREMENTS.lines().collect();
                with_packages(&args.python, imports, &args.work.join("venv"), &packages)?
            }
        };
        for peer in &args.peer {
            theirs(args, [base, query, truth], &python, peer, &mut |line| Ok(writeln!(lines, "{line}")?))?;
        }
    }
    let file = fs::File::open(&args.lines).map_err(|e| format!("{}: {e}", args.lines.display()))?;
    let mut all = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line: Line =
            serde_json::from_str(&line?).map_err(|e| format!("{} line {}: {e}", args.lines.display(), number + 1))?;
        all.push(line);
    }
    print!("{}", tables(&all));
    Ok(())
}

type Take<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

fn ours(args: &Compare, [base, query, truth]: [&PathBuf; 3], index: &str, take: Take<'_>) -> Result<()> {
    let (kind, options) = index.split_once(':').unwrap_or((index, ""));
    let with = options.split(',').filter(|part| !part.is_empty()).map(pair).collect::<std::result::Result<_, _>>()?;
    let sweep: Vec<Search> = match kind.starts_with("ivf") {
        true => NPROBE.iter().map(|n| setting(&format!("nprobe={n}"))).collect::<std::result::Result<_, _>>()?,
        false => EF_SEARCH.iter().map(|n| setting(&format!("ef_search={n}"))).collect::<std::result::Result<_, _>>()?,
    };
    let ann = Ann {
        base: base.clone(),
        query: query.clone(),
        truth: Some(truth.clone()),
        column: None,
        query_column: None,
        metric: args.metric,
        index: kind.to_owned(),
        with,
        search: sweep,
        k: args.k,
        threads: 1,
        build_threads: None,
        pin: Some(args.core),
        filter_selectivity: None,
        rows: None,
        queries: Some(args.queries as usize),
        seed: args.seed,
        index_file: None,
        via: Via::Library,
        json: true,
    };
    ann.measure(&mut |line| {
        take(&serde_json::to_string(line)?)?;
        Ok(line.recall < ENOUGH)
    })
}

fn theirs(args: &Compare, files: [&PathBuf; 3], python: &Path, peer: &str, take: Take<'_>) -> Result<()> {
    let [base, query, truth] = files;
    let metric = match args.metric {
        Metric::Dot => "ip",
        metric => metric.name(),
    };
    // One folder of indexes for each set as it is now, metric and seed: another one's index would answer wrongly.
    let file = std::fs::metadata(base).map_err(|e| format!("{}: {e}", base.display()))?;
    let changed = file.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let set = format!("{} {metric} {} {} {changed}", base.display(), args.seed, file.len());
    let set: String = set.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    let mut child = Command::new(python)
        .env_remove("OPENBLAS_CORETYPE")
        .env_remove("OPENBLAS_L2_SIZE")
        .args(["-c", SCRIPT, peer, "--metric", metric, "--k", &args.k.to_string(), "--core", &args.core.to_string()])
        .args(["--queries-max", &args.queries.to_string(), "--seed", &args.seed.to_string()])
        .args(["--recall-enough", &ENOUGH.to_string()])
        .arg("--base")
        .arg(base)
        .arg("--query")
        .arg(query)
        .arg("--truth")
        .arg(truth)
        .arg("--index-dir")
        .arg(args.work.join(set))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let output = child.stdout.take().ok_or("the peer has no output")?;
    for line in BufReader::new(output).lines() {
        take(&line?)?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(format!("{peer} failed; its message is above").into()),
    }
}

/// One index of one library with all settings that were measured.
#[derive(Debug)]
struct Curve<'a> {
    first: &'a Line,
    points: Vec<Point>,
}

impl Curve<'_> {
    fn name(&self) -> String {
        let options: Vec<String> = self.first.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let who = if self.first.engine == PEER { "" } else { "mvvd " };
        match options.is_empty() {
            true => format!("{who}{}", self.first.index),
            false => format!("{who}{} ({})", self.first.index, options.join(", ")),
        }
    }
}

/// What the lines of peers say instead of how MVVD was asked.
const PEER: &str = "peer";

/// Base, metric and k.
type SetKey<'a> = (&'a str, &'a str, usize);
/// Whether it is a peer's, the index, its options.
type CurveKey<'a> = (bool, &'a str, &'a str);

/// Markdown: for each set a table of the indexes, and one of the ratios.
fn tables(lines: &[Line]) -> String {
    let mut sets: BTreeMap<SetKey<'_>, BTreeMap<CurveKey<'_>, Curve<'_>>> = BTreeMap::new();
    let keys: Vec<String> = lines.iter().map(|line| format!("{:?}", line.options)).collect();
    for (line, options) in lines.iter().zip(&keys) {
        let set = sets.entry((&line.base, &line.metric, line.k)).or_default();
        let key = (line.engine == PEER, line.index.as_str(), options.as_str());
        let curve = set.entry(key).or_insert_with(|| Curve { first: line, points: Vec::new() });
        curve.points.push((line.recall, line.queries_per_second));
    }
    let mut text = String::new();
    for ((base, metric, k), curves) in sets {
        let Some(first) = curves.values().next().map(|curve| curve.first) else { continue };
        let about = (first.rows, first.dims, first.queries, first.seed);
        text += &format!(
            "\n**{base}**: {} x {}, {metric}, {} queries, k = {k}, seed {}, one thread. Queries a second at recall:\n\n\
             | index | build s | bytes a row | 0.90 | 0.95 | 0.99 | most found |\n|---|---:|---:|---:|---:|---:|---:|\n",
            about.0, about.1, about.2, about.3
        );
        for curve in curves.values() {
            let rates = RECALLS.map(|recall| number(rate_at(&curve.points, recall), 0));
            let most = curve.points.iter().map(|point| point.0).fold(0.0, f64::max);
            text += &format!(
                "| {} | {} | {:.0} | {} | {most:.4} |\n",
                curve.name(),
                number(curve.first.build_seconds, 1),
                curve.first.index_bytes as f64 / curve.first.rows as f64,
                rates.join(" | "),
            );
        }
        let (theirs, ours): (Vec<_>, Vec<_>) = curves.values().partition(|curve| curve.first.engine == PEER);
        if ours.is_empty() || theirs.is_empty() {
            continue;
        }
        text += "\n| MVVD / peer | rate at 0.90 | 0.95 | 0.99 | build time peer / MVVD |\n|---|---:|---:|---:|---:|\n";
        for our in &ours {
            for their in &theirs {
                let rates = RECALLS.map(|recall| {
                    let ratio = rate_at(&our.points, recall).zip(rate_at(&their.points, recall)).map(|(a, b)| a / b);
                    number(ratio, 2)
                });
                let build = our.first.build_seconds.zip(their.first.build_seconds).map(|(our, their)| their / our);
                text +=
                    &format!("| {} / {} | {} | {} |\n", our.name(), their.name(), rates.join(" | "), number(build, 2));
            }
        }
    }
    text
}

fn number(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(engine: &str, index: &str, recall: f64, rate: f64, build: f64) -> Line {
        let json = serde_json::json!({
            "engine": engine, "index": index, "options": {"m": "16"}, "search": {}, "base": "b.npy", "rows": 100, "dims": 8,
            "metric": "l2", "k": 10, "queries": 5, "seed": 1, "filter_selectivity": null, "build_threads": 2,
            "build_seconds": build, "index_bytes": 6400, "peak_rss_bytes": 1, "threads": 1, "recall": recall,
            "queries_per_second": rate, "p50_ms": 1.0, "p99_ms": 2.0,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_line_of_a_peer_is_read_and_ratios_are_printed() {
        let lines = [
            line("library", "hnsw", 0.9, 3000.0, 2.0),
            line("library", "hnsw", 0.97, 1500.0, 2.0),
            line(PEER, "hnswlib", 0.95, 1000.0, 5.0),
            line(PEER, "hnswlib", 0.995, 500.0, 5.0),
        ];
        let text = tables(&lines);
        assert!(text.contains("| mvvd hnsw (m=16) | 2.0 | 64 | 3000 | 1829 | – | 0.9700 |"), "{text}");
        assert!(text.contains("| mvvd hnsw (m=16) / hnswlib (m=16) | 3.00 | 1.83 | – | 2.50 |"), "{text}");
        assert!(!tables(&lines[..2]).contains("MVVD / peer"));
    }

    #[test]
    fn every_peer_has_its_class_in_the_script() {
        for peer in PEERS {
            assert!(SCRIPT.contains(&format!("    \"{peer}\": ")), "{peer}");
        }
    }
}
