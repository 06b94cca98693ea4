//! What do names and files mean when typed without SQL's quotes, as in `\copy t from file.csv`?

use std::env;
use std::path::PathBuf;

use mvvd_core::{Error, Result};

use crate::lexer::{Kind, Scanner};

/// The COPY statement that the arguments of `\copy` stand for.
///
/// They are passed on as they are, but for the file: its quotes may be left out, and `~/` is the home directory.
pub(crate) fn statement(arguments: &str) -> Result<String> {
    let usage = || {
        Error::invalid("\\copy expects a table or a query in brackets, FROM or TO, and a file")
            .with_hint("for example: \\copy t FROM 'file.csv', \\copy (SELECT * FROM t) TO 'file.parquet'")
    };
    let (mut scanner, mut at, mut depth) = (Scanner::default(), 0, 0_usize);
    while let Some((kind, range)) = scanner.next(arguments, at) {
        let text = &arguments[range.clone()];
        at = range.end;
        match (kind, text) {
            (Kind::Sign, "(") => depth += 1,
            (Kind::Sign, ")") => depth = depth.saturating_sub(1),
            (Kind::Word, _) if depth == 0 && ["from", "to"].iter().any(|w| w.eq_ignore_ascii_case(text)) => {
                let (head, rest) = (&arguments[..range.start], arguments[at..].trim_start());
                if head.trim().is_empty() || rest.is_empty() {
                    return Err(usage());
                }
                let (file, options) = first_word(rest).ok_or_else(usage)?;
                let file = path(file).display().to_string().replace('\'', "''");
                return Ok(format!("COPY {head}{text} '{file}'{options}"));
            }
            _ => {}
        }
    }
    Err(usage())
}

/// A quoted text or everything up to a space, and the rest.
fn first_word(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('\'') {
        let (_, range) = Scanner::default().next(text, 0)?;
        (range.end > 1 && text[..range.end].ends_with('\'')).then(|| text.split_at(range.end))
    } else {
        Some(text.split_at(text.find(char::is_whitespace).unwrap_or(text.len())))
    }
}

/// A file named on a command line: quotes and `~/` as people expect.
pub(crate) fn path(text: &str) -> PathBuf {
    let text = match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => text.to_owned(),
    };
    match (text.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

/// The name that SQL would look up: quotes off, or lower case; a schema of `public` is left out.
pub(crate) fn plain_name(text: &str) -> String {
    let text = text.strip_prefix("public.").unwrap_or(text);
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &str, expected: &str) {
        assert_eq!(statement(arguments).unwrap(), expected);
    }

    #[test]
    fn copy_statements() {
        check("t from 'a b.csv'", "COPY t from 'a b.csv'");
        check("t (id, v) FROM a.csv (format csv)", "COPY t (id, v) FROM 'a.csv' (format csv)");
        check("(select 'x to y', a from t) to 'it''s.parquet'", "COPY (select 'x to y', a from t) to 'it''s.parquet'");
        check("\"from\" from it's.csv", "COPY \"from\" from 'it''s.csv'");
        let home = env::home_dir().unwrap();
        check("t to ~/x.csv", &format!("COPY t to '{}/x.csv'", home.display()));
    }

    #[test]
    fn incomplete_ones_are_told() {
        for wrong in ["", "t", "t from", "from 'x'", "(select 1 from t", "t from 'open", "t from '"] {
            assert!(statement(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_as_sql_reads_them() {
        let names = ["Items", "\"Items\"", "public.t", "\"a\"\"b\""].map(plain_name);
        assert_eq!(names, ["items", "Items", "t", "a\"b"]);
    }
}
