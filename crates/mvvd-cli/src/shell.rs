//! How does a statement run? It can be cancelled, shows that it lives, and prints its answer as it comes.

use std::cell::Cell;
use std::env;
use std::future::{Future, pending};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use mvvd_core::{Error, ErrorKind, Result};
use terminal_size::{Width, terminal_size};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::command;
use crate::engine::Engine;
use crate::error::{Failure, Place, render, tell};
use crate::lexer::Piece;
use crate::output::{Format, Target, Vectors, View, plain, printer};
use crate::progress::{Feedback, LOOK_EVERY};
use mvvd_query::{Answer, Config, Directory, Progress, Session, Storage, Value};

/// Width of a terminal that does not say.
const WIDTH_DEFAULT: usize = 80;

/// What comes after a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// Leave the prompt or the script.
    Quit,
    /// Forget the statement that is open at the prompt.
    Reset,
}

/// The state of one run of the program: the session, and how results are shown.
pub(crate) struct Shell {
    engine: Rc<Engine>,
    runtime: Runtime,
    feedback: Arc<Feedback>,
    color: Color,
    pub(crate) format: Format,
    /// `\x`: line mode for the time being.
    pub(crate) expanded: bool,
    pub(crate) vectors: Vectors,
    pub(crate) timing: bool,
    pub(crate) quiet: bool,
    pub(crate) target: Target,
    /// How many scripts are open, each read by the one before.
    pub(crate) scripts: usize,
}

/// Where escape sequences are welcome.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Color {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Color {
    /// Colours are for terminals, and not against the user's wish (see no-color.org).
    pub(crate) fn detect() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let wanted = !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { stdout: wanted && io::stdout().is_terminal(), stderr: wanted && io::stderr().is_terminal() }
    }
}

/// The database that the command line asks for.
pub(crate) fn config(args: &Args) -> Config {
    let storage = match &args.db {
        None => Storage::Memory,
        Some(path) => Storage::Directory(directory(args, path)),
    };
    Config {
        storage,
        versions_kept: args.versions_kept.map(usize::from),
        memory_limit_bytes: args.memory_limit,
        threads: args.threads.map(usize::from),
        index_kinds: Vec::new(),
    }
}

/// The database in a directory, opened as the command line asks for.
pub(crate) fn directory(args: &Args, path: &Path) -> Directory {
    Directory {
        mode: args.storage.map(Into::into).unwrap_or_default(),
        durability: args.durability.into(),
        read_only: args.read_only,
        flush_bytes: args.flush_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        key: crate::admin::key(args.key_file.as_ref(), args.key_env.as_ref()),
        ..Directory::new(path)
    }
}

impl Shell {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        // Statements run on the database's own threads; this thread waits, listens to signals and prints.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start: {}", plain(&e))))?;
        let feedback = Arc::new(Feedback::default());
        let progress = (!args.quiet && io::stderr().is_terminal()).then(|| Arc::clone(&feedback) as Arc<dyn Progress>);
        Ok(Self {
            engine: Rc::new(Engine::open(config(args), progress)),
            runtime,
            feedback,
            color: Color::detect(),
            format: args.format,
            expanded: false,
            vectors: Vectors::default(),
            timing: args.timing,
            quiet: args.quiet,
            target: Target::default(),
            scripts: 0,
        })
    }

    pub(crate) fn engine(&self) -> &Rc<Engine> {
        &self.engine
    }

    pub(crate) fn session(&self) -> Result<&Session> {
        self.engine.session()
    }

    pub(crate) fn color(&self) -> Color {
        self.color
    }

    /// Runs a statement or a command, and tells of errors.
    pub(crate) fn run(&mut self, piece: &Piece, script: Option<&str>) -> Result<Flow, Failure> {
        let (result, text, line) = match piece {
            Piece::Sql { text, line } => (self.run_sql(text).map(|()| Flow::Continue), text, *line),
            Piece::Command { text, line } => (command::run(self, text), text, *line),
        };
        result.map_err(|failure| self.told(failure, Some(Place { script, line, text })))
    }

    /// Tells the user what failed and where, unless it is known already.
    pub(crate) fn told(&self, failure: Failure, place: Option<Place<'_>>) -> Failure {
        match failure {
            Failure::Error(e) if e.kind() == ErrorKind::Cancelled => Failure::Cancelled,
            Failure::Error(e) => {
                self.feedback.clear();
                tell(&render(&e, place, self.color.stderr));
                Failure::Told
            }
            other => other,
        }
    }

    fn run_sql(&self, text: &str) -> Result<(), Failure> {
        let session = self.session()?;
        session.statements(text)?.iter().try_for_each(|statement| self.answer(session.run(statement, &[])))
    }

    /// Runs SQL that a command stands for, and prints the answer like any other.
    pub(crate) fn run_copy(&self, sql: &str) -> Result<(), Failure> {
        self.answer(self.session()?.sql(sql, &[]))
    }

    /// Runs a query of a command's own.
    pub(crate) fn fetch(&self, sql: &str, params: &[Value]) -> Result<Vec<RecordBatch>, Failure> {
        let session = self.session()?;
        self.wait(async { Ok(session.sql(sql, params).await?.collect().await?) })
    }

    /// Prints rows that are here already.
    pub(crate) fn print(&self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), Failure> {
        let mut printer = printer(self.view()?, schema, self.target.writer()?)?;
        batches.iter().try_for_each(|batch| printer.rows(batch))?;
        printer.finish()
    }

    /// Waits for an answer and prints it.
    fn answer(&self, work: impl Future<Output = Result<Answer>>) -> Result<(), Failure> {
        let view = self.view()?;
        let printing = Cell::new(false);
        let time = self.wait_and_show(self.print_answer(work, view, &printing), &printing)?;
        if self.timing {
            let line = format!("Time: {}", shown_time(time));
            match self.format.is_for_people() {
                true => self.target.say(&line)?,
                false => tell(&format!("{line}\n")),
            }
        }
        Ok(())
    }

    /// Prints an answer; the result is the time that the database took for it.
    async fn print_answer(
        &self,
        work: impl Future<Output = Result<Answer>>,
        mut view: View,
        printing: &Cell<bool>,
    ) -> Result<Duration, Failure> {
        let start = Instant::now();
        let answer = work.await?;
        let mut time = start.elapsed();
        let (tag, affected) = (answer.tag().to_owned(), answer.rows_affected());
        let has_rows = answer.has_rows();
        if has_rows {
            if tag.starts_with("EXPLAIN") {
                // A plan with its ends cut off explains little.
                view.width = None;
            }
            let schema = Arc::clone(answer.schema());
            let mut rows = pin!(answer.into_stream());
            let mut result = None;
            loop {
                let start = Instant::now();
                let batch = rows.next().await.transpose()?;
                time += start.elapsed();
                let result = match &mut result {
                    Some(result) => result,
                    None => {
                        printing.set(true);
                        self.feedback.clear();
                        result.insert(printer(view, &schema, self.target.writer()?)?)
                    }
                };
                match batch {
                    Some(batch) => result.rows(&batch)?,
                    None => break result.finish()?,
                }
                // Batches that are ready would keep this thread from hearing Ctrl-C.
                tokio::task::yield_now().await;
            }
        }
        self.feedback.clear();
        if (!has_rows || affected.is_some()) && self.format.is_for_people() && !self.quiet {
            match affected {
                Some(rows) => self.target.say(&format!("{tag} {rows}"))?,
                None => self.target.say(&tag)?,
            }
        }
        Ok(time)
    }

    /// Waits for `work` or Ctrl-C.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.wait_and_show(work, &Cell::new(false))
    }

    /// Waits for `work` or Ctrl-C, and shows that something happens as long as no results are printed.
    fn wait_and_show<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        printing: &Cell<bool>,
    ) -> Result<T, Failure> {
        let result = self.runtime.block_on(async {
            let mut interrupt = pin!(async {
                if tokio::signal::ctrl_c().await.is_err() {
                    pending::<()>().await;
                }
            });
            let start = Instant::now();
            let mut looks = tokio::time::interval(LOOK_EVERY);
            let mut work = pin!(work);
            loop {
                tokio::select! {
                    biased;
                    () = &mut interrupt => break Err(Failure::Cancelled),
                    _ = looks.tick(), if !printing.get() && !self.quiet => self.feedback.look(start.elapsed()),
                    result = &mut work => break result,
                }
            }
        });
        self.feedback.clear();
        result
    }

    /// How results look at this moment.
    fn view(&self) -> Result<View, Failure> {
        let terminal = self.target.is_terminal();
        let format = match self.format {
            Format::Table if self.expanded => Format::Line,
            Format::Arrow if terminal => {
                return Err(Error::invalid("Arrow IPC is binary and not for a terminal")
                    .with_hint("redirect the output to a file or a pipe, or name a file with \\o")
                    .into());
            }
            format => format,
        };
        let width = terminal.then(|| match terminal_size() {
            Some((Width(columns), _)) if columns > 0 => usize::from(columns),
            _ => WIDTH_DEFAULT,
        });
        Ok(View { format, vectors: self.vectors, width, color: terminal && self.color.stdout })
    }
}

/// `1.234 ms`, and for what takes longer `12.3 s`.
fn shown_time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.3} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(shown_time(Duration::from_micros(1234)), "1.234 ms");
        assert_eq!(shown_time(Duration::from_millis(12_345)), "12.3 s");
    }
}
