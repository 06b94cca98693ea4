//! What did the user ask for on the command line?

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  mvvd                                      a prompt; \\? there lists its commands
  mvvd -c \"SELECT 1 + 1\"                    one statement, then exit
  mvvd -f quickstart.sql -c \"\\d\"            a script, then the tables it made
  mvvd < quickstart.sql                     the same script from stdin
  mvvd --format csv -c \"SELECT * FROM 'file.parquet' LIMIT 5\" > five.csv

  Load a file that has vectors, and rank by two of them at once:
  mvvd -c \"CREATE TABLE t AS SELECT * FROM 'data/debian_4k.parquet'\" \\
       -c \"\\d t\" \\
       -c \"SELECT a.package, 0.7 * (a.v_name <=> b.v_name) + 0.3 * (a.v_description <=> b.v_description) AS d
           FROM t a, t b WHERE b.package = 'vim' ORDER BY d LIMIT 5\"

Results go to stdout, errors and warnings to stderr. Tables are drawn the same on a terminal and in a pipe, except
that only a terminal has values cut to its width. Command tags such as INSERT 3 appear in the formats table and line.

Exit status: 0 if all went well, 1 after an SQL error (a script stops at the first one), 2 for wrong usage,
130 after Ctrl-C. A reader that closes the pipe early, such as head, is no error.";

/// MVVD: a SQL database for entities with several vectors.
///
/// Without -c and -f it runs the script on stdin, or shows a prompt if stdin is a terminal.
#[derive(Debug, Parser)]
#[command(name = "mvvd", version, after_long_help = EXAMPLES, after_help = "--help shows more, with examples.", max_term_width = 120)]
pub(crate) struct Args {
    /// Run SQL or a command such as '\d'; may be repeated, and mixed with -f
    ///
    /// Several statements are separated by semicolons. -c and -f run in the order given.
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,

    /// Run the statements in a file, - for stdin; may be repeated, and mixed with -c
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The directory of the database
    ///
    /// This version keeps all data in memory: nothing is read from the directory or saved to it.
    #[arg(long, value_name = "DIR")]
    pub(crate) db: Option<PathBuf>,

    /// How results are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Memory that queries may use, such as 4GB or 512MiB; without it, a share of what the machine has
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub(crate) memory_limit: Option<u64>,

    /// Threads that compute; without it, as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Show the time that each statement took
    #[arg(long)]
    pub(crate) timing: bool,

    /// No greeting, command tags or progress bars
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Neither read nor write the history of the prompt
    #[arg(long)]
    pub(crate) no_history: bool,
}

/// One -c or -f.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Command(String),
    File(PathBuf),
}

/// Reads the command line; wrong usage ends the process with status 2, `--help` and `--version` with 0.
pub(crate) fn parse() -> (Args, Vec<Work>) {
    let matches = Args::command().get_matches();
    match arrange(&matches) {
        Ok(parsed) => parsed,
        Err(e) => e.exit(),
    }
}

/// The options, and what to run in the order given.
fn arrange(matches: &clap::ArgMatches) -> Result<(Args, Vec<Work>), clap::Error> {
    let args = Args::from_arg_matches(matches)?;
    let indices = |id| matches.indices_of(id).into_iter().flatten();
    let commands = indices("commands").zip(args.commands.iter().cloned().map(Work::Command));
    let files = indices("files").zip(args.files.iter().cloned().map(Work::File));
    let mut work: Vec<(usize, Work)> = commands.chain(files).collect();
    work.sort_by_key(|(index, _)| *index);
    Ok((args, work.into_iter().map(|(_, work)| work).collect()))
}

/// Reads `4GB` (powers of 1000), `4GiB` (powers of 1024), `1.5g` or plain bytes.
fn memory_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| "expected a size such as 4GB or 512MiB".to_owned())?;
    let unit: f64 = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        unit => return Err(format!("unknown unit \"{unit}\": use B, KB, MB, GB, TB, or KiB, MiB, GiB, TiB")),
    };
    // Far below 2^63, so that the conversion is exact enough and never saturates.
    match number * unit {
        bytes if bytes < f64::from(1 << 20) => Err("at least 1MiB is needed".to_owned()),
        bytes if bytes > 1e18 => Err("more than any machine has".to_owned()),
        bytes => Ok(bytes as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<(Args, Vec<Work>), clap::Error> {
        let args = std::iter::once("mvvd").chain(args.iter().copied());
        arrange(&Args::command().try_get_matches_from(args)?)
    }

    #[test]
    fn the_declaration_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn commands_and_files_keep_their_order() {
        let (args, work) = parse(&["-c", "a", "--format", "csv", "-f", "b", "--command=c", "-fd"]).unwrap();
        let expected =
            [Work::Command("a".into()), Work::File("b".into()), Work::Command("c".into()), Work::File("d".into())];
        assert_eq!(work, expected);
        assert_eq!(args.format, Format::Csv);
        assert!(parse(&[]).unwrap().1.is_empty());
    }

    #[test]
    fn wrong_usage_is_told() {
        for wrong in [&["--format", "xml"][..], &["--threads", "0"], &["--memory-limit", "4 cups"], &["what"], &["-c"]]
        {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn memory_sizes() {
        let sizes = ["1048576", "2MB", "4GB", "4gib", "1.5 g"].map(|text| memory_size(text).unwrap());
        assert_eq!(sizes, [1 << 20, 2_000_000, 4_000_000_000, 4 << 30, 1_500_000_000]);
        for wrong in ["", "GB", "-1GB", "1..5GB", "4XB", "1MB", "9e99", "99999999TB", "NaN"] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }
}
