//! Measures MVVD beside its peers, and checks it against exact answers.

#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

mod ann;
mod duckdb;
mod exact;
mod machine;
mod plan;
mod python;
mod storage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mvvd_bench::truth;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures MVVD beside its peers, and checks it against exact answers.
///
/// Every figure is printed with the machine, the data, the number of queries and k. Build with --release.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  mvvd-bench truth --data ../shared/data\n  mvvd-bench exact --data ../shared/data --duckdb\n  \
                  mvvd-bench ann --help"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every ground-truth query through SQL and compares ids and scores.
    Truth {
        /// Folder with wordnet_20k.parquet, debian_4k.parquet, their queries and ground truth.
        #[arg(long)]
        data: PathBuf,
        /// Check every n-th row of the ground truth only.
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// `wordnet`, `debian`, or both if left out.
        #[arg(long)]
        set: Option<truth::Set>,
    },
    /// Times planning with a vector of 768 numbers, written in each way.
    Plan {
        /// Runs that count.
        #[arg(long, default_value_t = 1000)]
        runs: usize,
    },
    /// Times the exact weighted three-field top-10 over wordnet_20k.
    Exact {
        /// Folder with wordnet_20k.parquet and wordnet_queries.parquet.
        #[arg(long)]
        data: PathBuf,
        /// Threads of MVVD, and of DuckDB beside it.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Runs the same SQL in DuckDB (Python package `duckdb`) in the same run.
        #[arg(long)]
        duckdb: bool,
        /// Python that has, or can install, the package `duckdb`.
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// Times bulk load, open, durable inserts and gets in a directory, beside what the device does there.
    Storage {
        /// Folder with wordnet_20k.parquet.
        #[arg(long)]
        data: PathBuf,
        /// Folder on the device to measure; a temporary one if left out. What is written there is removed again.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Generated rows of 128 dimensions.
        #[arg(long, default_value_t = 1_000_000)]
        rows: usize,
        /// One JSON object instead of lines of text.
        #[arg(long)]
        json: bool,
    },
    /// Measures one kind of index on vectors from files: build time, size, queries a second and recall.
    Ann(ann::Ann),
    /// Measures indexes beside hnswlib, faiss, usearch and rabitqlib on the same files and core.
    Compare(ann::Compare),
    /// Writes generated vectors, queries and their exact neighbours, to measure with where no real data is at hand.
    Generate(ann::Generate),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Command::Truth { data, every, set } => wait(report_truth(&data, set, every)),
        Command::Plan { runs } => wait(plan::run(runs.max(1))),
        Command::Exact { data, threads, duckdb, python } => {
            wait(exact::run(&data, threads, duckdb.then_some(&*python)))
        }
        Command::Storage { data, dir, rows, json } => wait(storage::run(&data, dir.as_deref(), rows.max(1), json)),
        Command::Ann(args) => ann::run(&args),
        Command::Compare(args) => ann::compare(&args),
        Command::Generate(args) => ann::generate(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what asks a database in this process.
fn wait(work: impl Future<Output = truth::Result<()>>) -> truth::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn report_truth(
    data: &std::path::Path,
    set: Option<truth::Set>,
    every: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", machine::describe());
    let sets = set.map_or_else(|| vec![truth::Set::Debian, truth::Set::Wordnet], |set| vec![set]);
    let mut failed = 0;
    for set in sets {
        let start = std::time::Instant::now();
        let report = truth::check(data, set, every.max(1)).await?;
        println!(
            "{set:?}: {} rows of ground truth checked, {} differ, {:.1} s",
            report.checked,
            report.failures.len(),
            start.elapsed().as_secs_f64()
        );
        report.failures.iter().take(20).for_each(|failure| println!("  {failure}"));
        failed += report.failures.len();
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} answers differ from the ground truth").into()) }
}
