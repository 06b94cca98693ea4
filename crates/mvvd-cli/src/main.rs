//! `mvvd`: what runs, in which order, and with which exit status?

mod admin;
mod args;
mod command;
mod complete;
mod copy;
mod engine;
mod error;
mod highlight;
mod keywords;
mod lexer;
mod output;
mod progress;
mod repl;
mod script;
mod serve;
mod shell;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use crate::args::{Args, Mode, Work};
use crate::error::{Failure, tell};
use crate::shell::Shell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SQL_ERROR: u8 = 1;
/// 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let (args, work) = args::parse();
    match run(&args, &work) {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(SQL_ERROR),
        Err(Failure::Error(e)) => {
            tell(&error::render(&e, None, shell::Color::detect().stderr));
            ExitCode::from(SQL_ERROR)
        }
        Err(Failure::Cancelled) => {
            tell("cancelled\n");
            ExitCode::from(INTERRUPTED)
        }
    }
}

fn run_mode(args: &Args, mode: &Mode) -> Result<(), Failure> {
    let db = args.db.as_deref().unwrap_or(Path::new(""));
    match mode {
        Mode::Serve(serve) => serve::run(args, serve),
        Mode::Check(check) => admin::check(args, check, db),
        Mode::Stats(stats) => admin::stats(args, stats, db),
        Mode::Backup(backup) => admin::backup(args, backup, db),
        Mode::Restore(restore) => admin::restore(args, restore, db),
        Mode::RotateKey(rotate) => admin::rotate_key(args, rotate, db),
    }
}

fn run(args: &Args, work: &[Work]) -> Result<(), Failure> {
    if let Some(mode) = &args.mode {
        return run_mode(args, mode);
    }
    let mut shell = Shell::new(args)?;
    if !work.is_empty() {
        return work.iter().try_for_each(|work| match work {
            Work::Command(text) => script::run_text(&mut shell, text),
            Work::File(path) => script::run_file(&mut shell, path),
        });
    }
    match io::stdin().is_terminal() {
        true => repl::run(&mut shell, !args.no_history),
        false => script::run_stdin(&mut shell),
    }
}
