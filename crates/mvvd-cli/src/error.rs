//! What ends a statement early, and how is it told to the user?

use std::io::{self, Write};

use arrow::error::ArrowError;
use mvvd_core::{Error, ErrorKind};
use unicode_width::UnicodeWidthChar;

use crate::output::plain;

/// Why a statement or command did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told to the user.
    Error(Error),
    /// The user knows already.
    Told,
    /// Ctrl-C.
    Cancelled,
    /// Nobody reads the output any more, which is no error: `mvvd … | head`.
    ClosedPipe,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

impl From<ArrowError> for Failure {
    fn from(e: ArrowError) -> Self {
        Self::Error(e.into())
    }
}

/// From writing results: reading has messages of its own.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Error(Error::new(ErrorKind::Unavailable, format!("cannot write the result: {}", plain(&e)))),
        }
    }
}

/// Where a statement stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The script, if it has a name.
    pub(crate) script: Option<&'a str>,
    /// The line of the script, or of the input, that the text starts on (from 1).
    pub(crate) line: u64,
    /// The statement that positions are relative to.
    pub(crate) text: &'a str,
}

/// Characters of a line shown round the place of an error.
const SHOWN_COLUMNS: usize = 76;

/// The whole message, line ends included:
///
/// ```text
/// file.sql:12: error: no field named titel
///  12 | SELECT titel FROM t
///     |        ^
/// hint: did you mean "title"?
/// ```
pub(crate) fn render(error: &Error, place: Option<Place<'_>>, color: bool) -> String {
    let paint = |code: &str, text: &str| match color {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut out = String::new();
    let at = place.zip(error.position()).and_then(|(place, at)| {
        let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
        Some((place.line + at.line - 1, place.text.split('\n').nth(index)?, usize::try_from(at.column).ok()?))
    });
    if let Some(Place { script: Some(script), line, .. }) = place {
        out.push_str(&format!("{script}:{}: ", at.map_or(line, |(line, _, _)| line)));
    }
    out.push_str(&format!("{} {}\n", paint("1;31", "error:"), error.message()));
    if let Some((line, text, column)) = at {
        let number = line.to_string();
        let (shown, before) = excerpt(text.trim_end_matches('\r'), column);
        out.push_str(&format!(" {number} | {shown}\n"));
        let gutter = " ".repeat(number.len());
        out.push_str(&format!(" {gutter} | {}{}\n", " ".repeat(before), paint("1;31", "^")));
    }
    if let Some(hint) = error.hint() {
        out.push_str(&format!("{} {hint}\n", paint("1;36", "hint:")));
    }
    out
}

/// The part of a line round character `column` (from 1), and the terminal columns before that character.
///
/// A tab counts as one space; a place behind the line's end is its end.
fn excerpt(text: &str, column: usize) -> (String, usize) {
    let chars: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let at = column.saturating_sub(1).min(chars.len());
    let columns = |chars: &[char]| chars.iter().map(|c| c.width().unwrap_or(0)).sum::<usize>();
    let (mut from, mut to) = (0, chars.len());
    if columns(&chars) > SHOWN_COLUMNS {
        // A third before the place, two thirds from it on; what is left over at one end goes to the other.
        from = at.saturating_sub(SHOWN_COLUMNS / 3);
        to = (from + SHOWN_COLUMNS).min(chars.len());
        from = to.saturating_sub(SHOWN_COLUMNS);
    }
    let left = if from > 0 { "…" } else { "" };
    let right = if to < chars.len() { "…" } else { "" };
    let shown: String = chars[from..to].iter().collect();
    (format!("{left}{shown}{right}"), left.chars().count() + columns(&chars[from..at]))
}

/// Writes to stderr; if nobody reads that, there is nobody to tell.
pub(crate) fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvvd_core::Position;

    #[track_caller]
    fn check(error: Error, place: Option<Place<'_>>, expected: &str) {
        assert_eq!(render(&error, place, false), expected);
    }

    fn at(line: u64, column: u64) -> Error {
        Error::invalid("no").at(Position { line, column })
    }

    fn prompt(text: &str) -> Option<Place<'_>> {
        Some(Place { script: None, line: 1, text })
    }

    #[test]
    fn message_caret_and_hint() {
        check(Error::invalid("no table \"t\""), None, "error: no table \"t\"\n");
        check(
            at(1, 8).with_hint("try x"),
            prompt("SELECT titel FROM t"),
            "error: no\n 1 | SELECT titel FROM t\n   |        ^\nhint: try x\n",
        );
    }

    #[test]
    fn scripts_have_names_and_lines() {
        let place = Some(Place { script: Some("a.sql"), line: 9, text: "SELECT\n  x\nFROM t" });
        check(at(2, 3), place, "a.sql:10: error: no\n 10 |   x\n    |   ^\n");
        check(Error::invalid("no"), place, "a.sql:9: error: no\n");
    }

    #[test]
    fn tabs_and_wide_characters_keep_the_caret_in_place() {
        check(at(1, 3), prompt("\t\tx\r\n"), "error: no\n 1 |   x\n   |   ^\n");
        check(at(1, 4), prompt("'日'x"), "error: no\n 1 | '日'x\n   |     ^\n");
        check(at(1, 3), prompt("e\u{301}x"), "error: no\n 1 | e\u{301}x\n   |  ^\n");
    }

    #[test]
    fn places_outside_the_text_do_not_break_it() {
        check(at(1, 99), prompt("abc"), "error: no\n 1 | abc\n   |    ^\n");
        check(at(1, 0), prompt("abc"), "error: no\n 1 | abc\n   | ^\n");
        check(at(7, 1), prompt("abc"), "error: no\n");
        check(at(0, 1), prompt("abc"), "error: no\n");
    }

    #[test]
    fn of_long_lines_only_the_part_around_the_place_is_shown() {
        let text = format!("SELECT '[{}]' <-> x", "0.1,".repeat(1000));
        let got = render(&at(1, 4010), prompt(&text), false);
        let lines: Vec<&str> = got.lines().collect();
        assert!(lines[1].starts_with(" 1 | …") && lines[1].ends_with("]' <-> x"), "{got}");
        assert!(lines[1].chars().count() <= SHOWN_COLUMNS + 8);
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().nth(caret), text.chars().nth(4009));
        let start = render(&at(1, 1), prompt(&text), false);
        assert!(start.lines().nth(1).unwrap().ends_with('…'));
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(closed, Failure::ClosedPipe));
        let full = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(full, Failure::Error(e) if e.message() == "cannot write the result: no storage space"));
    }
}
