//! The program from outside: what it prints and how it ends, in scripts, at a prompt on a pseudo-terminal,
//! and killed.

mod admin;
#[cfg(unix)]
mod cli_prompt;
mod cli_scripts;
#[cfg(unix)]
mod crash;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program, away from the user's settings; `home` is where it may keep its history.
fn mvvd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvvd"));
    command.env("XDG_STATE_HOME", home).env("TERM", "xterm").env("NO_COLOR", "1").current_dir(home);
    command
}

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// Runs with `args` and `input` on stdin.
fn run_in(home: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = mvvd(home)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A script that fails early does not read the rest.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    Ran {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn run(args: &[&str], input: &str) -> Ran {
    let home = tempfile::tempdir().expect("a temporary folder");
    run_in(home.path(), args, input)
}

impl Ran {
    #[track_caller]
    fn is(&self, status: i32, out: &str, err: &str) {
        assert_eq!((self.status, self.out.as_str(), self.err.as_str()), (status, out, err));
    }
}

/// A query that nobody waits for.
const LONG_QUERY: &str = "SELECT sum(a.value * b.value % 7) AS s \
                          FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b";
