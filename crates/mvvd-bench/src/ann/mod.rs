//! Approximate nearest neighbours: what an index costs, and how many of the true neighbours it finds how fast.

mod compare;
mod curve;
mod engine;
mod exact;
mod generate;
mod load;
mod measure;
mod report;
mod sql;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use mvvd_bench::truth::Result;
use mvvd_core::metric::Metric;
use mvvd_index::{Effort, Filter};

pub(crate) use compare::{Compare, run as compare};

use crate::machine;
use engine::Engine;
use load::Matrix;
use report::Line;

/// Measures one kind of index on vectors from files: build time, size, queries a second and recall.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvvd-bench generate --out /tmp/set --rows 100000
  mvvd-bench ann --base /tmp/set/train.npy --query /tmp/set/test.npy --truth /tmp/set/neighbors.npy \\
      --metric l2 --index hnsw --with m=16 --search ef_search=20 --search ef_search=40 --search ef_search=80
  mvvd-bench ann --base vectors.parquet --column v_gloss --query queries.parquet --query-column q_gloss \\
      --metric cosine --index ivf_rabitq --search recall_target=0.95 --filter-selectivity 0.1 --json
  mvvd-bench ann --base sift.hdf5 --query sift.hdf5 --truth sift.hdf5 --metric l2 --index hnsw --search ef_search=40

Files: .npy, .parquet (a column of lists), .hdf5, .fvecs, .bvecs, .fbin, .u8bin, .i8bin; neighbours also .ivecs and .ibin.
A file of ann-benchmarks serves for all three: of HDF5, --base reads the dataset train, --query test, --truth neighbors.
A row counts as found if it is as near as the k-th true neighbour. Rates are the best of three passes after one that
warms up; --threads 1 is the figure that other libraries publish. Sizes leave the vectors themselves out. --via sql loads a
table in memory, makes the index there and asks through a prepared statement.")]
pub(crate) struct Ann {
    /// Vectors to search in.
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// Vectors to search for.
    #[arg(long, value_name = "FILE")]
    query: PathBuf,
    /// The true neighbours of each query, nearest first. Computed if left out, and where there is a filter.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Column of a Parquet base that has several, or dataset of an HDF5 base instead of train.
    #[arg(long)]
    column: Option<String>,
    /// Column of Parquet queries that have several, or dataset of HDF5 queries instead of test.
    #[arg(long)]
    query_column: Option<String>,
    /// l2, cosine, ip or l1.
    #[arg(long, value_parser = metric)]
    metric: Metric,
    /// Kind of index, as in `CREATE INDEX … USING kind`.
    #[arg(long)]
    index: String,
    /// Options of the index, as in `WITH (…)`: name=value,name=value.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    with: Vec<(String, String)>,
    /// A setting to measure: ef_search=N, nprobe=N or recall_target=R, with commas between. May be given several times.
    #[arg(long, value_parser = setting)]
    search: Vec<Search>,
    /// Neighbours a query.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Threads that search.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Threads that build; all cores if left out.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    build_threads: Option<u32>,
    /// Runs the search (not the build) on this core only; needs the command `taskset`.
    #[arg(long, value_name = "CORE")]
    pin: Option<u32>,
    /// Let a random share of the rows be found, such as 0.1. Recall is against the true neighbours among them.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    filter_selectivity: Option<f64>,
    /// Use the first rows of the base only. Needs no --truth.
    #[arg(long, conflicts_with = "truth")]
    rows: Option<usize>,
    /// Ask the first queries only.
    #[arg(long)]
    queries: Option<usize>,
    /// Decides the index and the filter.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Opens the index from this file if it exists, otherwise builds it and writes it there.
    #[arg(long, value_name = "FILE")]
    index_file: Option<PathBuf>,
    /// Asks the index itself, or a database through a prepared statement.
    #[arg(long, default_value = "library", conflicts_with = "index_file")]
    via: Via,
    /// One line of JSON a setting instead of a table.
    #[arg(long)]
    json: bool,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Via {
    Library,
    Sql,
}

/// A setting: its names and values as given, and what they mean.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    given: Vec<(String, String)>,
    effort: Effort,
}

/// Measures one index under each setting and prints each.
pub(crate) fn run(args: &Ann) -> Result<()> {
    let mut report = report::Report::new(args.json);
    args.measure(&mut |line| {
        report.add(line)?;
        Ok(true)
    })
}

impl Ann {
    /// Builds the index and gives each setting's figures to `take`, until it says that this is enough.
    fn measure(&self, take: &mut dyn FnMut(&Line) -> Result<bool>) -> Result<()> {
        let (k, threads) = (self.k as usize, self.threads as usize);
        let mut base = load::vectors(&self.base, self.column.as_deref(), load::TRAIN)?;
        let mut queries = load::vectors(&self.query, self.query_column.as_deref(), load::TEST)?;
        base.truncate(self.rows.unwrap_or(usize::MAX));
        queries.truncate(self.queries.unwrap_or(usize::MAX));
        if base.dims() != queries.dims() {
            let (file, dims) = (self.base.display(), base.dims());
            return Err(format!("{file} has {dims} dimensions, {} has {}", self.query.display(), queries.dims()).into());
        }
        let filter = self.filter_selectivity.map(|share| {
            let mut random = generate::Random::new(self.seed, FILTER, 0);
            Filter::of_ordinals(base.len(), (0..base.len() as u32).filter(|_| random.uniform() < share))
        });
        let truth = match (&self.truth, &filter) {
            (Some(file), None) => read_truth(file, &base, &queries, k)?,
            _ => exact::nearest(&base, &queries, self.metric, k, filter.as_ref()),
        };
        let build_threads = self.build_threads.map_or_else(cores, |threads| threads as usize);
        let plan = engine::Plan {
            kind: &self.index,
            metric: self.metric,
            options: &self.with,
            threads: build_threads,
            seed: self.seed,
            file: self.index_file.as_deref(),
        };
        let engine: Box<dyn Engine + '_> = match self.via {
            Via::Library => Box::new(engine::Library::new(&plan, &base, filter.as_ref())?),
            Via::Sql => Box::new(sql::Sql::new(&plan, &base, filter.as_ref())?),
        };
        let cost = engine.cost();
        let machine = machine::describe();
        if let Some(core) = self.pin {
            machine::pin(core)?;
        }
        let questions = measure::Questions { base: &base, queries: &queries, truth: &truth, metric: self.metric, k };
        let default = [Search::default()];
        for search in if self.search.is_empty() { &default[..] } else { &self.search } {
            let measured = measure::run(&*engine, questions, threads, search.effort)?;
            let more = take(&Line {
                engine: engine.name().to_owned(),
                index: self.index.clone(),
                options: self.with.iter().cloned().collect(),
                search: search.given.iter().cloned().collect(),
                base: self.base.display().to_string(),
                rows: base.len(),
                dims: base.dims(),
                metric: self.metric.name().to_owned(),
                k,
                queries: queries.len(),
                seed: self.seed,
                filter_selectivity: self.filter_selectivity,
                build_threads,
                build_seconds: cost.build_seconds,
                index_bytes: cost.index_bytes as i64,
                memory_bytes: Some(cost.memory_bytes),
                peak_rss_bytes: machine::peak_memory_bytes(),
                threads,
                recall: measured.recall,
                queries_per_second: measured.queries_per_second,
                p50_ms: measured.p50.as_secs_f64() * 1e3,
                p99_ms: measured.p99.as_secs_f64() * 1e3,
                fewest_rows: Some(measured.fewest),
                kernels: mvvd_core::kernels::level().to_owned(),
                machine: machine.clone(),
            })?;
            if !more {
                break;
            }
        }
        if self.pin.is_some() {
            machine::unpin()?;
        }
        Ok(())
    }
}

/// The stream of random numbers that a filter is drawn from.
const FILTER: u64 = 4;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The true neighbours in a file, which must have as many as are asked for.
fn read_truth(file: &Path, base: &Matrix, queries: &Matrix, k: usize) -> Result<Vec<Vec<u32>>> {
    let mut truth = load::neighbours(file, base.len())?;
    if truth.len() < queries.len() {
        return Err(
            format!("{}: {} lists of neighbours for {} queries", file.display(), truth.len(), queries.len()).into()
        );
    }
    truth.truncate(queries.len());
    match truth.iter().map(Vec::len).min() {
        Some(least) if least < k.min(base.len()) => Err(format!(
            "{}: {least} neighbours a query, k is {k}; leave --truth out to have them computed",
            file.display()
        )
        .into()),
        _ => Ok(truth),
    }
}

/// `name=value`.
fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected name=value, got {text}"))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// A setting such as `ef_search=40`.
fn setting(text: &str) -> std::result::Result<Search, String> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let given = parts.map(pair).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut effort = Effort::default();
    for (name, value) in &given {
        let count =
            || value.parse().ok().filter(|&n: &usize| n > 0).ok_or_else(|| format!("expected a number, got {value}"));
        match name.as_str() {
            "ef_search" => effort.ef_search = Some(count()?),
            "nprobe" => effort.nprobe = Some(count()?),
            "recall_target" => effort.recall_target = Some(share(value)? as f32),
            _ => return Err(format!("{name} is no setting; they are ef_search, nprobe and recall_target")),
        }
    }
    Ok(Search { given, effort })
}

/// A number from 0 to 1.
fn share(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| format!("expected 0 to 1, got {text}"))
}

/// Writes generated vectors, queries and their exact neighbours, to measure with where no real data is at hand.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Folder to write train.npy, test.npy and neighbors.npy into.
    #[arg(long)]
    out: PathBuf,
    /// Vectors to search in.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Vectors to search for, drawn from the same mixture.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Dimensions of a vector.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    dims: u32,
    /// Centres of the mixture. Cluster sizes fall off as 1/√rank.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    clusters: u32,
    /// Directions in which a cluster is spread out: about its intrinsic dimension.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    rank: u32,
    /// Decides every vector.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Neighbours a query in neighbors.npy.
    #[arg(long, default_value_t = 100)]
    k: usize,
    /// By which distance neighbours are near: l2, cosine or ip.
    #[arg(long, default_value = "l2", value_parser = metric)]
    metric: Metric,
}

/// Writes a generated set and its exact neighbours.
pub(crate) fn generate(args: &Generate) -> Result<()> {
    let mixture = generate::Mixture {
        dims: args.dims as usize,
        clusters: args.clusters as usize,
        rank: args.rank as usize,
        seed: args.seed,
    };
    let start = Instant::now();
    let (rows, queries) = mixture.generate(args.rows, args.queries);
    let (rows, queries) = (Matrix::new(rows, mixture.dims), Matrix::new(queries, mixture.dims));
    std::fs::create_dir_all(&args.out)?;
    load::save_vectors(&args.out.join("train.npy"), &rows)?;
    load::save_vectors(&args.out.join("test.npy"), &queries)?;
    println!(
        "{} vectors and {} queries of {} dimensions, {:.1} s",
        rows.len(),
        queries.len(),
        rows.dims(),
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    let truth = exact::nearest(&rows, &queries, args.metric, args.k, None);
    load::save_neighbours(&args.out.join("neighbors.npy"), &truth)?;
    println!("{} exact neighbours each by {}, {:.1} s", args.k, args.metric, start.elapsed().as_secs_f64());
    Ok(())
}

/// A metric by its name here or in other benchmarks.
fn metric(text: &str) -> std::result::Result<Metric, String> {
    match text.to_ascii_lowercase().as_str() {
        "ip" | "inner_product" => Ok(Metric::Dot),
        "angular" => Ok(Metric::Cosine),
        name => Metric::parse(name)
            .filter(|metric| !metric.is_binary())
            .ok_or_else(|| "the metrics are l2, cosine, ip and l1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_wrong_ones_named() {
        let found = setting("EF_search=40, nprobe=8").unwrap();
        assert_eq!((found.effort.ef_search, found.effort.nprobe), (Some(40), Some(8)));
        assert_eq!(setting("recall_target=0.95").unwrap().effort.recall_target, Some(0.95));
        assert_eq!(setting("").unwrap().effort, Effort::default());
        for (text, message) in [
            ("ef=40", "ef is no setting; they are ef_search, nprobe and recall_target"),
            ("nprobe", "expected name=value, got nprobe"),
            ("nprobe=0", "expected a number, got 0"),
            ("recall_target=95", "expected 0 to 1, got 95"),
        ] {
            assert_eq!(setting(text).unwrap_err(), message);
        }
        assert_eq!(metric("ip"), Ok(Metric::Dot));
        assert_eq!(metric("angular"), Ok(Metric::Cosine));
        assert!(metric("hamming").is_err());
    }
}
