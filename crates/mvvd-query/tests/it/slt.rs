//! Runs every file under `tests/sqllogictest` against a fresh database in each engine state.
//!
//! `SLT=topk/order` runs only the files whose path contains that text. In the SQL of a file, `$DATA` stands for the
//! repository's `data` folder and `$TMP` for a folder of its own. Column types are checked: `B` boolean, `I` integer,
//! `R` float, `T` text, `V` vector of any kind, `P` date or time, `?` anything. An error is matched as its message,
//! then `at line:column` where the place is known, then the hint on a line of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mvvd_query::core::{Error, ErrorKind, VectorType, convert};
use mvvd_query::{Config, Directory, Durability, Mvvd, Session, Storage, StorageMode};
use sqllogictest::{AsyncDB, ColumnType, DBOutput, Record, Runner};

/// Files that run at the same time.
const THREADS: usize = 2;
/// A run without a filter has at least so many records: an empty run must not pass.
const RECORDS_MIN: usize = 1_200;
/// Failing records shown of one file; the rest mostly follows from them.
const FAILURES_SHOWN_MAX: usize = 20;

/// How the database is kept while a file runs. Every file must pass in every state.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Everything in memory.
    Memory,
    /// In a directory; all rows go to segments after every statement, and all segments are merged now and then.
    Flushed,
    /// As `Flushed`, with columns that are not vectors copied to memory.
    Hybrid,
    /// As `Flushed`, with exact indexes on every column of vectors, made before every statement.
    Indexed,
    /// In a directory that is closed and opened again before every statement, until one changes the session.
    Reopened,
}

/// In states `Flushed` and `Hybrid`, segments are merged after so many statements.
const STATEMENTS_PER_MERGE: usize = 7;

impl State {
    const ALL: [Self; 5] = [Self::Memory, Self::Flushed, Self::Hybrid, Self::Indexed, Self::Reopened];

    /// Whether a file says the same in this state: plans, versions and lists of indexes tell that there are indexes.
    fn suits(self, file: &Path) -> bool {
        const TELLING: [&str; 6] = ["EXPLAIN", "VERSION", "MVVD_AT", "INDEX", "MVVD.SEGMENTS", "DESCRIBE"];
        let text = std::fs::read_to_string(file).expect("the file can be read").to_uppercase();
        !matches!(self, Self::Indexed) || !TELLING.iter().any(|word| text.contains(word))
    }

    fn open(self, folder: &Path) -> Mvvd {
        let mut config = match self {
            Self::Memory => Config::memory(),
            Self::Flushed | Self::Hybrid | Self::Indexed | Self::Reopened => Config {
                storage: Storage::Directory(Directory {
                    mode: if matches!(self, Self::Hybrid) { StorageMode::Hybrid } else { StorageMode::Disk },
                    // What survives a crash of the machine is tested elsewhere.
                    durability: Durability::Off,
                    ..Directory::new(folder)
                }),
                ..Config::default()
            },
        };
        config.threads = Some(2);
        // The last task of the database before may still be going away.
        for _ in 0..3_000 {
            match Mvvd::open(config.clone()) {
                Err(e) if e.kind() == ErrorKind::Conflict => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened.expect("the database opens"),
            }
        }
        panic!("the database stays locked");
    }
}

#[test]
fn slt() {
    let root = repository();
    let filter = std::env::var("SLT").unwrap_or_default();
    let mut files = Vec::new();
    collect(&root.join("tests/sqllogictest"), &mut files);
    files.retain(|file| file.to_string_lossy().contains(&filter));
    files.sort();
    let jobs: Vec<(State, PathBuf)> =
        State::ALL.into_iter().flat_map(|state| files.iter().map(move |file| (state, file.clone()))).collect();
    let jobs: Vec<_> = jobs.into_iter().filter(|(state, file)| state.suits(file)).collect();

    let next = AtomicUsize::new(0);
    let records = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((state, file)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_file(&root, *state, file);
                    records.fetch_add(outcome.records, Ordering::Relaxed);
                    if !outcome.failures.is_empty() {
                        failures.lock().unwrap().push((*state, file.clone(), outcome.failures));
                    }
                }
            });
        }
    });

    let (records, mut failures) = (records.into_inner(), failures.into_inner().unwrap());
    failures.sort_by(|a, b| a.1.cmp(&b.1));
    let mut report = String::new();
    for (state, file, failed) in &failures {
        let file = file.strip_prefix(&root).unwrap_or(file).display();
        report += &format!("\n=== {file} ({state:?}): {} records failed\n", failed.len());
        for failure in failed.iter().take(FAILURES_SHOWN_MAX) {
            report += &format!("{}\n\n", failure.trim_end());
        }
    }
    let failed: usize = failures.iter().map(|(_, _, failed)| failed.len()).sum();
    assert!(
        failures.is_empty(),
        "{failed} of {records} records failed in {} of {} files\n{report}",
        failures.len(),
        jobs.len()
    );
    assert!(!files.is_empty(), "no file matches \"{filter}\"");
    assert!(!filter.is_empty() || records >= RECORDS_MIN, "only {records} records ran, expected {RECORDS_MIN} or more");
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository exists")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            files.push(path);
        }
    }
}

struct Outcome {
    records: usize,
    failures: Vec<String>,
}

/// Runs all records of a file, those after a failed one too, so that one run shows everything.
fn run_file(root: &Path, state: State, file: &Path) -> Outcome {
    let mut outcome = Outcome { records: 0, failures: Vec::new() };
    let parsed = match sqllogictest::parse_file::<Kind>(file) {
        Ok(parsed) => parsed,
        Err(e) => {
            outcome.failures.push(e.to_string());
            return outcome;
        }
    };
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = temporary.path().join("database");
    let database = Arc::new(Mutex::new(Some(state.open(&folder))));
    let has_connections = parsed.iter().any(|record| matches!(record, Record::Connection(_)));
    let names = [("$DATA", root.join("data").display().to_string()), ("$TMP", temporary.path().display().to_string())];
    let mut runner = Runner::new(|| {
        let connection = Connection {
            state,
            folder: folder.clone(),
            session: Some(database.lock().unwrap().as_ref().expect("the database is open").session()),
            database: Arc::clone(&database),
            statements: 0,
            is_changed: has_connections,
            names: names.clone(),
        };
        async move { Ok(connection) }
    });
    runner.with_column_validator(|actual, expected| {
        actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| *e == Kind::Any || a == e)
    });
    for record in parsed {
        match record {
            Record::Statement { .. } | Record::Query { .. } => outcome.records += 1,
            Record::Halt { .. } => outcome.failures.push("halt would leave records out".to_owned()),
            _ => {}
        }
        if let Err(e) = runner.run(record) {
            outcome.failures.push(e.display(false).to_string());
        }
    }
    outcome
}

/// A session as the runner wants it.
struct Connection {
    state: State,
    folder: PathBuf,
    /// Shared by the connections of a file.
    database: Arc<Mutex<Option<Mvvd>>>,
    session: Option<Session>,
    statements: usize,
    /// Whether the session has settings or prepared statements of its own, or is not the only one.
    is_changed: bool,
    names: [(&'static str, String); 2],
}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = Shown;
    type ColumnType = Kind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Kind>, Shown> {
        let sql = self.names.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value));
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        self.is_changed |= matches!(word.as_str(), "set" | "reset" | "prepare" | "deallocate" | "execute");
        if matches!(self.state, State::Reopened) && !self.is_changed {
            self.session = None;
            let mut database = self.database.lock().unwrap();
            *database = None;
            let opened = self.state.open(&self.folder);
            self.session = Some(opened.session());
            *database = Some(opened);
        }
        if matches!(self.state, State::Indexed) {
            self.index_all().await?;
        }
        let answer = self.session.as_ref().expect("the session is open").sql(&sql, &[]).await;
        if matches!(self.state, State::Flushed | State::Hybrid | State::Indexed) && !sql.is_empty() {
            self.statements += 1;
            let database = self.database.lock().unwrap();
            let database = database.as_ref().expect("the database is open");
            match self.statements % STATEMENTS_PER_MERGE {
                0 => database.compact()?,
                _ => database.checkpoint()?,
            }
        }
        let answer = answer?;
        if !answer.has_rows() {
            return Ok(DBOutput::StatementComplete(answer.rows_affected().unwrap_or(0)));
        }
        let schema = Arc::clone(answer.schema());
        let types = schema.fields().iter().map(|field| Kind::of(field)).collect();
        let mut rows = Vec::new();
        for batch in answer.collect().await? {
            let columns: Vec<Vec<String>> =
                schema.fields().iter().zip(batch.columns()).map(|(field, column)| texts(field, column)).collect();
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "mvvd"
    }
}

impl Connection {
    /// Makes an exact index for every column of vectors and every metric that lacks one.
    async fn index_all(&self) -> Result<(), Shown> {
        let database = self.database.lock().unwrap().as_ref().expect("the database is open").clone();
        let session = database.session();
        let columns = "SELECT c.table_name, c.column_name, c.type FROM mvvd.columns c
            WHERE c.type LIKE '%VEC%' AND NOT EXISTS (
                SELECT 1 FROM mvvd.indexes i WHERE i.table_name = c.table_name AND i.columns = c.column_name)";
        for batch in session.sql(columns, &[]).await?.collect().await? {
            let cell = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
            for row in 0..batch.num_rows() {
                let (table, column, ty) = (cell(0, row), cell(1, row), cell(2, row));
                let (kind, metrics): (_, &[&str]) = match ty.split('(').next() {
                    Some("BITVEC") => ("flat", &["hamming", "jaccard"]),
                    Some("SPARSEVEC") => ("inverted", &["l2", "dot", "cosine"]),
                    _ => ("flat", &["l2", "dot", "cosine", "l1"]),
                };
                for metric in metrics {
                    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                    let create = format!(
                        "CREATE INDEX ON {} USING {kind} ({}) WITH (metric = '{metric}')",
                        quoted(&table),
                        quoted(&column)
                    );
                    session.sql(&create, &[]).await?;
                }
            }
        }
        Ok(())
    }
}

/// The cells of a column as the files write them.
fn texts(field: &Field, column: &dyn Array) -> Vec<String> {
    let vector = VectorType::of_field(field);
    let options = FormatOptions::default().with_null("NULL");
    let other = ArrayFormatter::try_new(column, &options).expect("every type can be shown");
    let text = |row: usize| match (vector, column.data_type()) {
        _ if column.is_null(row) => "NULL".to_owned(),
        (Some(ty), _) => {
            let mut text = String::new();
            convert::write_cell(column, ty, row, &mut text).expect("a stored vector is sound");
            text
        }
        (_, DataType::Float64) => column.as_primitive::<Float64Type>().value(row).to_string(),
        (_, DataType::Float32) => column.as_primitive::<Float32Type>().value(row).to_string(),
        (_, DataType::Float16) => column.as_primitive::<Float16Type>().value(row).to_string(),
        _ => match other.value(row).to_string() {
            text if text.is_empty() => "(empty)".to_owned(),
            text => text,
        },
    };
    (0..column.len()).map(text).collect()
}

/// What a column holds, as one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Integer,
    Float,
    Text,
    Vector,
    Time,
    Any,
}

impl Kind {
    const LETTERS: [(Self, char); 7] = [
        (Self::Boolean, 'B'),
        (Self::Integer, 'I'),
        (Self::Float, 'R'),
        (Self::Text, 'T'),
        (Self::Vector, 'V'),
        (Self::Time, 'P'),
        (Self::Any, '?'),
    ];

    fn of(field: &Field) -> Self {
        match field.data_type() {
            _ if VectorType::of_field(field).is_some() => Self::Vector,
            DataType::Boolean => Self::Boolean,
            ty if ty.is_integer() => Self::Integer,
            ty if ty.is_floating() => Self::Float,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            ty if ty.is_temporal() => Self::Time,
            _ => Self::Any,
        }
    }
}

impl ColumnType for Kind {
    fn from_char(letter: char) -> Option<Self> {
        Self::LETTERS.iter().find(|(_, l)| *l == letter).map(|(kind, _)| *kind)
    }

    fn to_char(&self) -> char {
        Self::LETTERS.iter().find(|(kind, _)| kind == self).map_or('?', |(_, letter)| *letter)
    }
}

/// An error with all that a user would see of it.
#[derive(Debug)]
struct Shown(Error);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())?;
        if let Some(position) = self.0.position() {
            write!(f, " at {}:{}", position.line, position.column)?;
        }
        match self.0.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Shown {}

impl From<Error> for Shown {
    fn from(e: Error) -> Self {
        Self(e)
    }
}
