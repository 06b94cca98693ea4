//! What did the user ask for on the command line?

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use mvvd_query::{Durability, StorageMode};

use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  mvvd                                      a prompt; \\? there lists its commands
  mvvd -c \"SELECT 1 + 1\"                    one statement, then exit
  mvvd -f quickstart.sql -c \"\\d\"            a script, then the tables it made
  mvvd < quickstart.sql                     the same script from stdin
  mvvd serve --flight 127.0.0.1:31337       a server for Flight SQL clients
  mvvd --db shop                            a database in a directory
  mvvd backup --db shop --to shop-copy      a copy of it; check and stats look after it
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
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,

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
    /// It is made if it is not there. Without it, tables live in memory and are gone when the program ends.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) db: Option<PathBuf>,

    /// What of --db is kept in memory; without it, disk
    ///
    /// Without --db everything is in memory.
    #[arg(long, value_name = "MODE", value_enum, global = true)]
    pub(crate) storage: Option<Kept>,

    /// When a statement that writes to --db returns
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, global = true)]
    pub(crate) durability: When,

    /// Versions of each table that are kept beside the present one, for mvvd_at('table', version)
    #[arg(long, value_name = "N", global = true)]
    pub(crate) versions_kept: Option<u16>,

    /// Bytes of changes to a table in memory, such as 64MiB, after which they are written to a segment
    #[arg(long, value_name = "SIZE", global = true, value_parser = flush_size)]
    pub(crate) flush_bytes: Option<u64>,

    /// Open --db for reading; another process may be writing it
    #[arg(long, global = true)]
    pub(crate) read_only: bool,

    /// A file with the key of --db, which is encrypted; a new database will be
    ///
    /// The key is 64 hexadecimal digits or the base64 of 32 bytes, such as `openssl rand -hex 32` prints.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "key_env")]
    pub(crate) key_file: Option<PathBuf>,

    /// An environment variable with the key of --db
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) key_env: Option<String>,

    /// How results are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,

    /// Memory for statements, tables in memory and caches, such as 4GB or 512MiB; without it, 60 % of what the machine has
    #[arg(long, value_name = "SIZE", global = true, value_parser = memory_size)]
    pub(crate) memory_limit: Option<u64>,

    /// Threads that compute; without it, as many as the machine has cores
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Show the time that each statement took
    #[arg(long)]
    pub(crate) timing: bool,

    /// No greeting, command tags or progress bars
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Neither read nor write the history of the prompt
    #[arg(long)]
    pub(crate) no_history: bool,
}

/// What of a directory is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kept {
    /// What the operating system caches: files are mapped, and read when they are needed
    Disk,
    /// All columns but vectors, once they were read, up to a share of the memory limit; vectors are mapped
    Hybrid,
}

impl From<Kept> for StorageMode {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Disk => Self::Disk,
            Kept::Hybrid => Self::Hybrid,
        }
    }
}

/// When a change counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum When {
    /// Once the device has it: it survives a power cut
    #[default]
    Sync,
    /// Once the operating system has it: a power cut loses at most the last second
    Interval,
    /// Once the operating system has it: a power cut loses what was not written to a segment
    Off,
}

/// How often the log is synced with `--durability interval`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl From<When> for Durability {
    fn from(when: When) -> Self {
        match when {
            When::Sync => Self::Sync,
            When::Interval => Self::Interval(SYNC_INTERVAL),
            When::Off => Self::Off,
        }
    }
}

/// What `mvvd` does instead of running statements.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Mode {
    /// Serve the database to other programs, over Arrow Flight SQL
    ///
    /// Prints one line, "listening on grpc://ADDRESS", when it is ready. Ctrl-C or SIGTERM ends it: running calls have
    /// ten seconds to finish.
    Serve(Serve),

    /// Read every byte of --db and say what is wrong with it
    ///
    /// Another process may have the database open. The exit status is 1 if there is any problem.
    Check(Check),

    /// Show how large --db is, by kind of file and by table
    ///
    /// Another process may have the database open.
    Stats(StatsArgs),

    /// Copy --db, as it is now, to another directory
    ///
    /// Another process may have the database open and write to it. The copy is a database itself, without deleted rows,
    /// and appears when it is complete.
    Backup(Backup),

    /// Check a backup and make the database --db of it
    ///
    /// --key-file and --key-env name the key of the backup.
    Restore(Restore),

    /// Change the key of --db; nobody may have it open
    ///
    /// A new master key opens what the old one opened, and nothing is encrypted anew.
    RotateKey(RotateKey),
}

/// The options of `mvvd check`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Check {
    /// Move damaged segments to the folder "damaged", and remove what a crash left
    ///
    /// The rows of these segments are lost, all their columns; it says which before it does. Restore a backup instead
    /// if there is one.
    #[arg(long)]
    pub(crate) repair: bool,
}

/// The options of `mvvd stats`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct StatsArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `mvvd backup`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Backup {
    /// The directory of the copy; there is nothing, or it is empty
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,

    #[command(flatten)]
    pub(crate) target: CopyKey,
}

/// The options of `mvvd restore`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Restore {
    /// The directory of the backup
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,

    #[command(flatten)]
    pub(crate) target: CopyKey,
}

/// The key of a copy.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct CopyKey {
    /// A file with the key of the copy; without it, the copy has the key of the original
    #[arg(long, value_name = "FILE", conflicts_with = "to_key_env")]
    pub(crate) to_key_file: Option<PathBuf>,

    /// An environment variable with the key of the copy
    #[arg(long, value_name = "NAME")]
    pub(crate) to_key_env: Option<String>,

    /// The copy is not encrypted, although the original is
    #[arg(long, conflicts_with_all = ["to_key_file", "to_key_env"])]
    pub(crate) plain: bool,
}

/// The options of `mvvd rotate-key`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct RotateKey {
    /// A file with the new master key
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_env", required_unless_present_any = ["new_key_env", "data"])]
    pub(crate) new_key_file: Option<PathBuf>,

    /// An environment variable with the new master key
    #[arg(long, value_name = "NAME")]
    pub(crate) new_key_env: Option<String>,

    /// Encrypt what is written from now on with a new data key
    ///
    /// What is there keeps its data key until it is written anew; `mvvd backup` writes all of it anew.
    #[arg(long)]
    pub(crate) data: bool,
}

/// The options of `mvvd serve`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Serve {
    /// Where to listen for Flight SQL clients; port 0 picks a free one
    ///
    /// Only this machine can connect: there is no authentication and no encryption yet.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub(crate) flight: SocketAddr,
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
    if args.mode.is_some() && !(args.commands.is_empty() && args.files.is_empty()) {
        return Err(Args::command().error(ErrorKind::ArgumentConflict, "-c and -f do not go with a subcommand"));
    }
    let needs_db =
        |what: &str| Args::command().error(ErrorKind::MissingRequiredArgument, format!("{what} needs --db DIR"));
    if args.db.is_none() {
        let is_given = |id| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        let of_directory = [
            (is_given("storage"), "--storage"),
            (is_given("durability"), "--durability"),
            (is_given("flush_bytes"), "--flush-bytes"),
            (is_given("read_only"), "--read-only"),
        ];
        if let Some((_, option)) = of_directory.into_iter().find(|(is_given, _)| *is_given) {
            return Err(needs_db(option));
        }
        match &args.mode {
            None | Some(Mode::Serve(_)) if args.key_file.is_none() && args.key_env.is_none() => {}
            None | Some(Mode::Serve(_)) => return Err(needs_db("a key")),
            Some(_) => return Err(needs_db("this command")),
        }
    }
    let indices = |id| matches.indices_of(id).into_iter().flatten();
    let commands = indices("commands").zip(args.commands.iter().cloned().map(Work::Command));
    let files = indices("files").zip(args.files.iter().cloned().map(Work::File));
    let mut work: Vec<(usize, Work)> = commands.chain(files).collect();
    work.sort_by_key(|(index, _)| *index);
    Ok((args, work.into_iter().map(|(_, work)| work).collect()))
}

/// Reads an address of this machine that nobody else can reach, such as `127.0.0.1:31337`.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = (local.as_deref().unwrap_or(text).parse())
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:31337".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("other machines could connect, and there is no authentication or encryption yet: \
                      use 127.0.0.1 or [::1]"
            .to_owned()),
    }
}

fn memory_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < 1 << 20 => Err("at least 1MiB is needed".to_owned()),
        bytes => Ok(bytes),
    }
}

fn flush_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < 1 << 12 => Err("at least 4KiB is needed".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Reads `4GB` (powers of 1000), `4GiB` (powers of 1024), `1.5g` or plain bytes.
fn size(text: &str) -> Result<u64, String> {
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
        for wrong in ["0.0.0.0:1", "192.168.0.1:1", "[::]:1", "127.0.0.1", "example.org:80", "127.0.0.1:70000"] {
            assert_eq!(parse(&["serve", "--flight", wrong]).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(parse(&["serve"]).unwrap_err().exit_code(), 2);
        for wrong in [
            &["check"][..],
            &["stats"],
            &["backup", "--to", "x"],
            &["backup", "--db", "x"],
            &["restore", "--from", "x"],
            &["rotate-key", "--db", "x", "--key-file", "k"],
            &["--key-file", "k", "-c", "SELECT 1"],
            &["--storage", "hybrid", "-c", "SELECT 1"],
            &["--read-only", "-c", "SELECT 1"],
            &["--durability", "off", "-c", "SELECT 1"],
            &["--db", "x", "--storage", "memory"],
            &["--db", "x", "--key-file", "k", "--key-env", "K"],
            &["backup", "--db", "x", "--to", "y", "--plain", "--to-key-file", "k"],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(parse(&["--db", "x", "--storage", "hybrid"]).unwrap().0.storage, Some(Kept::Hybrid));
        assert!(parse(&["rotate-key", "--db", "x", "--key-file", "k", "--data"]).is_ok());
        assert_eq!(parse(&["-c", "x", "serve", "--flight", "127.0.0.1:0"]).unwrap_err().exit_code(), 2);
        assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn serving() {
        for (text, address) in
            [("127.0.0.1:0", "127.0.0.1:0"), ("localhost:80", "127.0.0.1:80"), ("[::1]:9", "[::1]:9")]
        {
            let (args, work) = parse(&["serve", "--db", "d", "--flight", text, "--threads", "3"]).unwrap();
            assert_eq!(args.mode, Some(Mode::Serve(Serve { flight: address.parse().unwrap() })));
            assert_eq!((args.db, args.threads, work.is_empty()), (Some("d".into()), Some(3), true));
        }
        let (args, _) = parse(&["--memory-limit", "4GB", "serve", "--flight", "127.0.0.1:0"]).unwrap();
        assert_eq!(args.memory_limit, Some(4_000_000_000));
    }

    #[test]
    fn memory_sizes() {
        let sizes = ["1048576", "2MB", "4GB", "4gib", "1.5 g"].map(|text| memory_size(text).unwrap());
        assert_eq!(sizes, [1 << 20, 2_000_000, 4_000_000_000, 4 << 30, 1_500_000_000]);
        for wrong in ["", "GB", "-1GB", "1..5GB", "4XB", "1MB", "9e99", "99999999TB", "NaN"] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(flush_size("4KiB"), Ok(4096));
        assert!(flush_size("4KB").is_err());
    }
}
