//! Tables: how wide is each column, when not all rows are known yet?
//!
//! The first rows are kept to find the widths; from then on rows go out as they come, wider values simply sticking out.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::cell::{Rows, Style, Vectors, is_number};
use super::text::{cut, visible, width};
use super::{Printer, View, null, row_count};
use crate::error::Failure;

/// Rows that are kept to find the widths,
const KEPT_ROWS_MAX: usize = 10_000;
/// and bytes of their text.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Columns of text are not cut to less than this.
const CUT_WIDTH_MIN: usize = 8;

/// Text of one value; `None` is NULL.
type Cell = Option<String>;

/// Writes aligned columns, in one of two looks.
pub(super) struct Table {
    out: Box<dyn Write>,
    look: Look,
    vectors: Vectors,
    color: bool,
    fit: Option<usize>,
    header: Vec<String>,
    numbers: Vec<bool>,
    /// Rows that wait for the widths, until those are fixed.
    kept: Vec<Vec<Cell>>,
    kept_bytes: usize,
    widths: Option<Vec<usize>>,
    count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// As psql draws them.
    Aligned,
    Markdown,
}

impl Table {
    pub(super) fn aligned(schema: &SchemaRef, view: View, out: Box<dyn Write>) -> Self {
        Self { fit: view.width, color: view.color, ..Self::new(Look::Aligned, view.vectors, schema, out) }
    }

    pub(super) fn markdown(schema: &SchemaRef, out: Box<dyn Write>) -> Self {
        Self::new(Look::Markdown, Vectors::Full, schema, out)
    }

    fn new(look: Look, vectors: Vectors, schema: &SchemaRef, out: Box<dyn Write>) -> Self {
        let fields = schema.fields();
        Self {
            out,
            look,
            vectors,
            color: false,
            fit: None,
            header: fields.iter().map(|f| look.cell(f.name().replace('\n', " "))).collect(),
            numbers: fields.iter().map(|f| is_number(f.data_type())).collect(),
            kept: Vec::new(),
            kept_bytes: 0,
            widths: None,
            count: 0,
        }
    }

    /// Fixes the widths, and writes the header and the rows that waited.
    fn settle(&mut self) -> Result<(), Failure> {
        let null_width = self.look.null(false).len();
        let mut widths: Vec<usize> = self.header.iter().map(|name| width(name)).collect();
        for row in &self.kept {
            for (most, cell) in widths.iter_mut().zip(row) {
                let cell = cell.as_ref().map_or(null_width, |text| text.split('\n').map(width).max().unwrap_or(0));
                *most = cell.max(*most);
            }
        }
        if let Some(columns) = self.fit {
            fit(&mut widths, &self.numbers, columns);
        }
        if self.look == Look::Markdown {
            // `---` is the shortest rule that every reader takes.
            widths.iter_mut().for_each(|w| *w = (*w).max(3));
        }
        let header: Vec<Cell> = self.header.iter().cloned().map(Some).collect();
        let rule = self.look.rule(&widths, &self.numbers);
        self.widths = Some(widths);
        if !self.header.is_empty() {
            self.write_row(&header)?;
            writeln!(self.out, "{rule}")?;
        }
        for row in std::mem::take(&mut self.kept) {
            self.write_row(&row)?;
        }
        Ok(())
    }

    /// Writes one row: as many lines as its longest cell has.
    fn write_row(&mut self, row: &[Cell]) -> Result<(), Failure> {
        if row.is_empty() {
            return Ok(());
        }
        let widths = self.widths.as_deref().unwrap_or_default();
        let mut lines: Vec<_> =
            row.iter().map(|cell| cell.as_deref().map(|text| text.split('\n').peekable())).collect();
        let mut text = String::new();
        let mut first = true;
        loop {
            text.clear();
            text.push_str(if self.look == Look::Markdown { "|" } else { "" });
            let mut more = false;
            for (i, cell) in lines.iter_mut().enumerate() {
                let (shown, used) = match cell {
                    None if first => (self.look.null(self.color).to_owned(), self.look.null(false).len()),
                    None => (String::new(), 0),
                    Some(rest) => {
                        let line = rest.next().unwrap_or("");
                        let line = if self.fit.is_some() { cut(line, widths[i]) } else { line.to_owned() };
                        let used = width(&line);
                        (line, used)
                    }
                };
                let continues = cell.as_mut().is_some_and(|rest| rest.peek().is_some());
                more |= continues;
                let padding = " ".repeat(widths[i].saturating_sub(used));
                let (left, right) = if self.numbers[i] { (padding.as_str(), "") } else { ("", padding.as_str()) };
                let mark = if continues { '+' } else { ' ' };
                text.extend([" ", left, &shown, right]);
                text.push(mark);
                text.push_str(if i + 1 < row.len() || self.look == Look::Markdown { "|" } else { "" });
            }
            writeln!(self.out, "{}", text.trim_end())?;
            first = false;
            if !more {
                return Ok(());
            }
        }
    }
}

impl Printer for Table {
    fn rows(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let rows = Rows::of(batch)?;
        let columns = rows.columns(Style::Text(self.vectors))?;
        for row in 0..rows.len() {
            let mut cells = Vec::with_capacity(columns.len());
            for column in &columns {
                cells.push(if column.is_null(row) {
                    None
                } else {
                    let mut text = String::new();
                    column.write(row, &mut text)?;
                    self.kept_bytes += text.len();
                    Some(self.look.cell(text))
                });
            }
            self.count += 1;
            if self.widths.is_some() {
                self.write_row(&cells)?;
                continue;
            }
            self.kept.push(cells);
            if self.kept.len() >= KEPT_ROWS_MAX || self.kept_bytes >= KEPT_BYTES_MAX {
                self.settle()?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.widths.is_none() {
            self.settle()?;
        }
        if self.look == Look::Aligned {
            writeln!(self.out, "{}", row_count(self.count))?;
        }
        Ok(self.out.flush()?)
    }
}

impl Look {
    /// A value as this look can hold it.
    fn cell(self, text: String) -> String {
        let text = visible(text);
        match self {
            Self::Aligned => text,
            Self::Markdown => text.replace('|', "\\|").replace('\n', "<br>"),
        }
    }

    fn null(self, color: bool) -> &'static str {
        null(color && self == Self::Aligned)
    }

    /// The line under the header.
    fn rule(self, widths: &[usize], numbers: &[bool]) -> String {
        let dashes = |&w: &usize| "-".repeat(w + 2);
        match self {
            Self::Aligned => widths.iter().map(dashes).collect::<Vec<_>>().join("+"),
            Self::Markdown => {
                let cell = |(w, &number): (&usize, &bool)| match number {
                    true => format!(" {}: |", "-".repeat(w - 1)),
                    false => format!(" {} |", "-".repeat(*w)),
                };
                format!("|{}", widths.iter().zip(numbers).map(cell).collect::<String>())
            }
        }
    }
}

/// Narrows the widest columns of text until the table has at most `columns`, if it can. Numbers are never cut.
fn fit(widths: &mut [usize], numbers: &[bool], columns: usize) {
    // A space on both sides of each value, and a bar between two.
    let frame = 3 * widths.len().max(1) - 1;
    let total = |widths: &[usize], cap: usize| -> usize {
        frame + widths.iter().zip(numbers).map(|(&w, &number)| if number { w } else { w.min(cap) }).sum::<usize>()
    };
    if total(widths, usize::MAX) <= columns {
        return;
    }
    let cap = (CUT_WIDTH_MIN..=columns).rev().find(|&cap| total(widths, cap) <= columns).unwrap_or(CUT_WIDTH_MIN);
    for (w, number) in widths.iter_mut().zip(numbers) {
        if !number {
            *w = (*w).min(cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_text_columns_give_way() {
        let check = |widths: &[usize], numbers: &[bool], columns, expected: &[usize]| {
            let mut got = widths.to_vec();
            fit(&mut got, numbers, columns);
            assert_eq!(got, expected);
        };
        check(&[5, 30], &[true, false], 40, &[5, 30]);
        check(&[5, 30], &[true, false], 30, &[5, 20]);
        check(&[10, 30, 30], &[false; 3], 60, &[10, 21, 21]);
        check(&[20, 30], &[true, false], 10, &[20, CUT_WIDTH_MIN]);
        check(&[], &[], 10, &[]);
    }
}
