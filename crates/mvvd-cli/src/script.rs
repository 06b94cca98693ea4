//! How does a script run? Line by line as it is read, up to its first error.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use mvvd_core::{Error, ErrorKind};

use crate::error::Failure;
use crate::lexer::Splitter;
use crate::output::plain;
use crate::shell::{Flow, Shell};

/// Scripts may read scripts, this deep.
const DEPTH_MAX: usize = 16;

/// Runs a file; `-` is stdin.
pub(crate) fn run_file(shell: &mut Shell, path: &Path) -> Result<(), Failure> {
    if path == Path::new("-") {
        return run_stdin(shell);
    }
    let name = path.display().to_string();
    let cannot = |e: io::Error| Error::new(ErrorKind::Unavailable, format!("cannot read \"{name}\": {}", plain(&e)));
    if shell.scripts == DEPTH_MAX {
        return Err(Error::exhausted(format!("cannot read \"{name}\": {DEPTH_MAX} scripts are open already")).into());
    }
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err(Error::invalid(format!("cannot read \"{name}\": it is a directory")).into());
    }
    shell.scripts += 1;
    let result = run(shell, &mut BufReader::new(file), Some(&name));
    shell.scripts -= 1;
    result
}

/// Runs what stdin has.
pub(crate) fn run_stdin(shell: &mut Shell) -> Result<(), Failure> {
    run(shell, &mut io::stdin().lock(), Some("<stdin>"))
}

/// Runs the statements and commands of one `-c`.
pub(crate) fn run_text(shell: &mut Shell, text: &str) -> Result<(), Failure> {
    run(shell, &mut text.as_bytes(), None)
}

fn run(shell: &mut Shell, input: &mut dyn BufRead, name: Option<&str>) -> Result<(), Failure> {
    let mut splitter = Splitter::default();
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        let shown = name.unwrap_or("the command");
        input
            .read_until(b'\n', &mut bytes)
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot read {shown}: {}", plain(&e))))?;
        let end = bytes.is_empty();
        let line = std::str::from_utf8(&bytes)
            .map_err(|_| Error::invalid(format!("line {number} of {shown} is not UTF-8 text")))?;
        splitter.push(if number == 1 { first_line(line) } else { line });
        while let Some(piece) = splitter.next(end) {
            if shell.run(&piece, name)? == Flow::Quit {
                return Ok(());
            }
        }
        if end {
            break;
        }
    }
    Ok(())
}

/// Without a byte order mark, and with nothing in place of a `#!` line.
fn first_line(line: &str) -> &str {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    if line.starts_with("#!") { "\n" } else { line }
}
