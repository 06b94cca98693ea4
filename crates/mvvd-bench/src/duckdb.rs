//! DuckDB as a peer: its Python package in an environment of its own, the same SQL, the same queries.

use std::path::{Path, PathBuf};
use std::process::Command;

use mvvd_bench::truth::Result;
use serde::Deserialize;

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
    let python = with_duckdb(python)?;
    let output = Command::new(&python).args(["-c", SCRIPT, data, &threads.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("duckdb: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn with_duckdb(python: &Path) -> Result<PathBuf> {
    let has = |python: &Path| {
        Command::new(python).args(["-c", "import duckdb, pyarrow"]).output().is_ok_and(|o| o.status.success())
    };
    if has(python) {
        return Ok(python.to_owned());
    }
    let folder = std::env::temp_dir().join("mvvd-peers");
    let own = folder.join("bin/python");
    if !has(&own) {
        eprintln!("installing duckdb into {}", folder.display());
        call(Command::new(python).args(["-m", "venv"]).arg(&folder))?;
        call(Command::new(&own).args(["-m", "pip", "install", "--quiet", "duckdb", "pyarrow", "numpy"]))?;
    }
    Ok(own)
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}
