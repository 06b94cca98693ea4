//! In which format do results leave the shell? One file per family; all of them stream.

mod arrow_ipc;
mod cell;
mod delimited;
mod json;
mod line;
mod table;
pub(crate) mod text;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use mvvd_core::{Error, ErrorKind};

pub(crate) use self::cell::Vectors;
use crate::error::Failure;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns and a row count, for people
    #[default]
    Table,
    /// Comma-separated with a header; vectors as [1,2,3], NULL as nothing
    Csv,
    /// Tab-separated with a header; tabs and line ends as \t and \n
    Tsv,
    /// One array of objects per result; vectors as arrays
    Json,
    /// One JSON object per line
    Ndjson,
    /// A Markdown table
    Markdown,
    /// One column per line, for wide rows
    Line,
    /// An Arrow IPC stream per result, for programs
    Arrow,
}

impl Format {
    /// Whether people read it, so that row counts, tags and times may stand between results.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Line)
    }
}

/// Everything that decides how a result looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) format: Format,
    pub(crate) vectors: Vectors,
    /// Columns of the terminal; values are cut to fit. `None`: nothing is cut.
    pub(crate) width: Option<usize>,
    /// Whether escape sequences may be used.
    pub(crate) color: bool,
}

/// Where results go.
#[derive(Debug, Default)]
pub(crate) struct Target {
    file: Option<File>,
}

impl Target {
    /// Results go to a new file from now on.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("cannot write \"{}\": {}", path.display(), plain(&e)))
        })?;
        Ok(Self { file: Some(file) })
    }

    /// Whether people see the results as they come.
    pub(crate) fn is_terminal(&self) -> bool {
        self.file.is_none() && io::stdout().is_terminal()
    }

    /// Locks stdout, or opens the file once more, to write one result.
    pub(crate) fn writer(&self) -> Result<Box<dyn Write>, Failure> {
        Ok(match &self.file {
            None => Box::new(BufWriter::new(io::stdout().lock())),
            Some(file) => Box::new(BufWriter::new(file.try_clone()?)),
        })
    }

    /// Writes a line between results.
    pub(crate) fn say(&self, line: &str) -> Result<(), Failure> {
        let mut out = self.writer()?;
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }
}

/// An I/O error without "(os error 2)".
pub(crate) fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut text = text[..end].to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

/// Writes one result as its batches come.
pub(crate) trait Printer {
    /// Takes more rows.
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure>;

    /// Writes what is left and flushes.
    fn finish(&mut self) -> Result<(), Failure>;
}

/// A printer of one result.
pub(crate) fn printer(view: View, schema: &SchemaRef, out: Box<dyn Write>) -> Result<Box<dyn Printer>, Failure> {
    Ok(match view.format {
        Format::Table => Box::new(table::Table::aligned(schema, view, out)),
        Format::Markdown => Box::new(table::Table::markdown(schema, out)),
        Format::Csv => Box::new(delimited::Delimited::csv(schema, out)?),
        Format::Tsv => Box::new(delimited::Delimited::tsv(schema, out)?),
        Format::Json => Box::new(json::Json::array(out)),
        Format::Ndjson => Box::new(json::Json::lines(out)),
        Format::Line => Box::new(line::Lines::new(schema, view, out)),
        Format::Arrow => Box::new(arrow_ipc::Ipc::new(schema, out)?),
    })
}

/// `(3 rows)`.
fn row_count(rows: u64) -> String {
    format!("({rows} {})", if rows == 1 { "row" } else { "rows" })
}

/// `NULL`, dim where colours are allowed, so that it is told from the text 'NULL'.
fn null(color: bool) -> &'static str {
    if color { "\x1b[2mNULL\x1b[0m" } else { "NULL" }
}

#[cfg(test)]
mod tests;
