//! `mvvd`: what runs, in which order, and with which exit status?

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
mod shell;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use crate::args::{Args, Work};
use crate::error::{Failure, tell};
use crate::shell::Shell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SQL_ERROR: u8 = 1;
/// 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let (args, work) = args::parse();
    if let Some(dir) = &args.db {
        tell(&format!(
            "warning: this version keeps all data in memory: nothing will be saved to \"{}\"\n",
            dir.display()
        ));
    }
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

fn run(args: &Args, work: &[Work]) -> Result<(), Failure> {
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
