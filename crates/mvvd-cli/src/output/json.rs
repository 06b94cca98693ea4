//! JSON and NDJSON: one object per row.

use std::io::Write;

use arrow::array::RecordBatch;

use super::Printer;
use super::cell::{Rows, Style, push_json_string};
use crate::error::Failure;

/// Writes objects, as one array or one per line.
///
/// An array is closed only at the end: after an error it stays open, so that no reader takes a part for the whole.
pub(super) struct Json {
    out: Box<dyn Write>,
    array: bool,
    written: bool,
}

impl Json {
    pub(super) fn array(out: Box<dyn Write>) -> Self {
        Self { out, array: true, written: false }
    }

    pub(super) fn lines(out: Box<dyn Write>) -> Self {
        Self { out, array: false, written: false }
    }
}

impl Printer for Json {
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let rows = Rows::of(batch)?;
        let columns = rows.columns(Style::Json)?;
        let keys: Vec<String> = batch.schema_ref().fields().iter().enumerate().map(|(i, f)| key(i, f.name())).collect();
        let mut line = String::new();
        for row in 0..rows.len() {
            line.clear();
            line.push_str(match (self.array, self.written) {
                (false, _) => "",
                (true, false) => "[",
                (true, true) => ",\n ",
            });
            line.push('{');
            for (key, column) in keys.iter().zip(&columns) {
                line.push_str(key);
                column.write_json(row, &mut line)?;
            }
            line.push('}');
            line.push_str(if self.array { "" } else { "\n" });
            self.out.write_all(line.as_bytes())?;
            self.written = true;
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match (self.array, self.written) {
            (true, true) => self.out.write_all(b"]\n")?,
            (true, false) => self.out.write_all(b"[]\n")?,
            (false, _) => {}
        }
        Ok(self.out.flush()?)
    }
}

/// What stands before a value: a comma (but for the first), the name and a colon.
fn key(i: usize, name: &str) -> String {
    let mut key = String::from(if i > 0 { "," } else { "" });
    push_json_string(name, &mut key);
    key.push(':');
    key
}
