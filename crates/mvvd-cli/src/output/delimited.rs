//! CSV and TSV: how are values kept apart?

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::Printer;
use super::cell::{Rows, Style, Vectors};
use crate::error::Failure;

/// Writes a header and then one line per row.
pub(super) struct Delimited {
    out: Box<dyn Write>,
    separator: char,
    escape: fn(&str, &mut String),
}

impl Delimited {
    /// RFC 4180, with `\n` as the line's end. NULL is nothing, an empty text is `""`.
    pub(super) fn csv(schema: &SchemaRef, out: Box<dyn Write>) -> Result<Self, Failure> {
        Self { out, separator: ',', escape: push_csv }.with_header(schema)
    }

    /// Tabs, line ends and backslashes are escaped as `\t`, `\n`, `\r` and `\\`; NULL is nothing.
    pub(super) fn tsv(schema: &SchemaRef, out: Box<dyn Write>) -> Result<Self, Failure> {
        Self { out, separator: '\t', escape: push_tsv }.with_header(schema)
    }

    fn with_header(mut self, schema: &SchemaRef) -> Result<Self, Failure> {
        let mut line = String::new();
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                line.push(self.separator);
            }
            (self.escape)(field.name(), &mut line);
        }
        writeln!(self.out, "{line}")?;
        Ok(self)
    }
}

impl Printer for Delimited {
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let rows = Rows::of(batch)?;
        let columns = rows.columns(Style::Text(Vectors::Full))?;
        let (mut line, mut cell) = (String::new(), String::new());
        for row in 0..rows.len() {
            line.clear();
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    line.push(self.separator);
                }
                if !column.is_null(row) {
                    cell.clear();
                    column.write(row, &mut cell)?;
                    (self.escape)(&cell, &mut line);
                }
            }
            line.push('\n');
            self.out.write_all(line.as_bytes())?;
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

fn push_csv(value: &str, out: &mut String) {
    if !value.is_empty() && !value.contains([',', '"', '\n', '\r']) {
        out.push_str(value);
        return;
    }
    out.push('"');
    out.push_str(&value.replace('"', "\"\""));
    out.push('"');
}

fn push_tsv(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
}
