//! One column per line: for rows that are too wide for a table.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::cell::{Rows, Style};
use super::text::{visible, width};
use super::{Printer, View, null, row_count};
use crate::error::Failure;

/// Writes `name | value` lines under a heading for each row; nothing is cut.
pub(super) struct Lines {
    out: Box<dyn Write>,
    view: View,
    names: Vec<String>,
    count: u64,
}

impl Lines {
    pub(super) fn new(schema: &SchemaRef, view: View, out: Box<dyn Write>) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| visible(field.name().replace('\n', " "))).collect();
        let widest = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let padded = |name: String| format!("{name}{}", " ".repeat(widest - width(&name)));
        Self { out, view, names: names.into_iter().map(padded).collect(), count: 0 }
    }
}

impl Printer for Lines {
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let rows = Rows::of(batch)?;
        let columns = rows.columns(Style::Text(self.view.vectors))?;
        let indent = " ".repeat(self.names.first().map_or(0, |name| width(name)));
        for row in 0..rows.len() {
            self.count += 1;
            writeln!(self.out, "-[ row {} ]-", self.count)?;
            for (name, column) in self.names.iter().zip(&columns) {
                if column.is_null(row) {
                    writeln!(self.out, "{name} | {}", null(self.view.color))?;
                    continue;
                }
                let mut value = String::new();
                column.write(row, &mut value)?;
                for (i, line) in visible(value).split('\n').enumerate() {
                    let label = if i == 0 { name } else { &indent };
                    writeln!(self.out, "{}", format!("{label} | {line}").trim_end())?;
                }
            }
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        writeln!(self.out, "{}", row_count(self.count))?;
        Ok(self.out.flush()?)
    }
}
