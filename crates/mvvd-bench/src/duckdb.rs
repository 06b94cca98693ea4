//! DuckDB as a peer: its Python package in an environment of its own, the same SQL, the same queries.

use std::path::Path;
use std::process::Command;

use mvvd_bench::truth::Result;
use serde::Deserialize;

use crate::python::with_packages;

/// The script that runs in Python.
const SCRIPT: &str = include_str!("../peers/duckdb_exact.py");

/// What DuckDB did.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) version: String,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) ids: Vec<Vec<u64>>,
}

/// Runs the script; makes the environment first if `python` lacks the package.
pub(crate) fn run(python: &Path, data: &str, threads: usize) -> Result<Outcome> {
    let folder = std::env::temp_dir().join("mvvd-peers");
    let packages = ["duckdb", "pyarrow", "numpy"];
    let python = with_packages(python, "import duckdb, pyarrow", &folder, &packages)?;
    let output = Command::new(&python).args(["-c", SCRIPT, data, &threads.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("duckdb: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
