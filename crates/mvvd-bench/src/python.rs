//! A Python with the packages of a peer: the one given, or one in an environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use mvvd_bench::truth::Result;

/// `python` itself if it can run `imports`; otherwise the Python of an environment in `folder`, which is made with
/// `packages`, as pip takes them, if it is not there.
pub(crate) fn with_packages(python: &Path, imports: &str, folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let has =
        |python: &Path| Command::new(python).args(["-c", imports]).output().is_ok_and(|output| output.status.success());
    if has(python) {
        return Ok(python.to_owned());
    }
    let own = folder.join("bin/python");
    if !has(&own) {
        eprintln!("installing {} into {}", packages.join(" "), folder.display());
        call(Command::new(python).args(["-m", "venv"]).arg(folder))?;
        call(Command::new(&own).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
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
