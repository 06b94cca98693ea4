//! Where does each token of SQL text end, and where does a statement? One scanner serves scripts, prompt and colours.

use std::ops::Range;

/// What a token is, as far as a shell needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Space,
    Word,
    Number,
    /// A string: `'…'`, `E'…'` or `$tag$…$tag$`.
    Text,
    /// A quoted name: `"…"`.
    Name,
    Comment,
    Semicolon,
    /// Operators, brackets, commas and whatever else.
    Sign,
}

/// What the scanner is in the middle of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Normal,
    Text {
        escapes: bool,
    },
    Dollar(String),
    Name,
    /// Block comments nest; this is how deep.
    Comment(u32),
}

/// Scans text that may arrive in pieces, each of whole lines: a token that is open at the end goes on in the next piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scanner {
    state: State,
}

impl Scanner {
    /// Goes on from `state`.
    pub(crate) fn resume(state: State) -> Self {
        Self { state }
    }

    /// What is open.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The token of `text` that starts at byte `at`, or `None` at the end.
    pub(crate) fn next(&mut self, text: &str, at: usize) -> Option<(Kind, Range<usize>)> {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let (kind, len) = match &self.state {
            State::Normal => self.start(rest),
            _ => self.go_on(rest, 0),
        };
        Some((kind, at..at + len))
    }

    /// A token from its first character on.
    fn start(&mut self, rest: &str) -> (Kind, usize) {
        let bytes = rest.as_bytes();
        let second = bytes.get(1).copied();
        match bytes[0] {
            b';' => (Kind::Semicolon, 1),
            b'\'' => self.open(State::Text { escapes: false }, rest, 1),
            b'e' | b'E' if second == Some(b'\'') => self.open(State::Text { escapes: true }, rest, 2),
            b'"' => self.open(State::Name, rest, 1),
            b'-' if second == Some(b'-') => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
            b'/' if second == Some(b'*') => self.open(State::Comment(1), rest, 2),
            b'$' => match dollar_tag(rest) {
                Some(tag) => self.open(State::Dollar(tag.to_owned()), rest, tag.len()),
                None => (Kind::Sign, 1),
            },
            b'0'..=b'9' => (Kind::Number, number_len(bytes)),
            b'.' if second.is_some_and(|b| b.is_ascii_digit()) => (Kind::Number, number_len(bytes)),
            _ => {
                let first = rest.chars().next().unwrap_or(' ');
                let span = |wanted: fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
                match first {
                    c if c.is_whitespace() => (Kind::Space, span(char::is_whitespace)),
                    c if c.is_alphabetic() || c == '_' => (Kind::Word, span(is_word)),
                    c => (Kind::Sign, c.len_utf8()),
                }
            }
        }
    }

    fn open(&mut self, state: State, rest: &str, len: usize) -> (Kind, usize) {
        self.state = state;
        self.go_on(rest, len)
    }

    /// The rest of an open token, from byte `from` of `rest`.
    fn go_on(&mut self, rest: &str, from: usize) -> (Kind, usize) {
        let bytes = rest.as_bytes();
        let mut at = from;
        let kind = match &mut self.state {
            State::Text { escapes } => {
                while at < bytes.len() {
                    match bytes[at] {
                        b'\\' if *escapes => at += 2,
                        b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
                        b'\'' => {
                            self.state = State::Normal;
                            return (Kind::Text, at + 1);
                        }
                        _ => at += 1,
                    }
                }
                Kind::Text
            }
            State::Name => {
                while at < bytes.len() {
                    match bytes[at] {
                        b'"' if bytes.get(at + 1) == Some(&b'"') => at += 2,
                        b'"' => {
                            self.state = State::Normal;
                            return (Kind::Name, at + 1);
                        }
                        _ => at += 1,
                    }
                }
                Kind::Name
            }
            State::Dollar(tag) => {
                if let Some(found) = rest[from..].find(tag.as_str()) {
                    let end = from + found + tag.len();
                    self.state = State::Normal;
                    return (Kind::Text, end);
                }
                Kind::Text
            }
            State::Comment(depth) => {
                while at < bytes.len() {
                    match (bytes[at], bytes.get(at + 1)) {
                        (b'/', Some(b'*')) => {
                            *depth = depth.saturating_add(1);
                            at += 2;
                        }
                        (b'*', Some(b'/')) if *depth <= 1 => {
                            self.state = State::Normal;
                            return (Kind::Comment, at + 2);
                        }
                        (b'*', Some(b'/')) => {
                            *depth -= 1;
                            at += 2;
                        }
                        _ => at += 1,
                    }
                }
                Kind::Comment
            }
            State::Normal => Kind::Sign,
        };
        (kind, rest.len())
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// `$$` or `$tag$` at the start of `rest`; `$1` is a parameter.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = 1 + rest[1..].find('$')?;
    let tag = &rest[1..end];
    let starts_well = tag.chars().next().is_none_or(|c| c.is_alphabetic() || c == '_');
    (starts_well && tag.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(&rest[..=end])
}

/// `12`, `1.5`, `.5`, `1e-9`.
fn number_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let signed = matches!(bytes[at], b'+' | b'-') && at > 0 && matches!(bytes[at - 1], b'e' | b'E');
        if !(bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.' || bytes[at] == b'_' || signed) {
            break;
        }
        at += 1;
    }
    at
}

/// A statement or a command of the shell, and the line of the input that it starts on (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// SQL without its semicolon.
    Sql { text: String, line: u64 },
    /// A line such as `\d t` or `.mode csv`, without spaces round it.
    Command { text: String, line: u64 },
}

/// Cuts input, pushed in whole lines, into statements and commands.
///
/// A command stands where a statement could start; a backslash command may also interrupt a statement, at a line's start.
#[derive(Debug)]
pub(crate) struct Splitter {
    text: String,
    /// Everything before is scanned.
    at: usize,
    /// The line that `at` is on.
    line: u64,
    /// Where the statement that is open starts: byte and line.
    start: Option<(usize, u64)>,
    scanner: Scanner,
}

/// Scanned text is dropped when it is longer than this, so that a long script is not moved about for every line.
const SCANNED_BYTES_MAX: usize = 64 << 10;

impl Default for Splitter {
    fn default() -> Self {
        Self { text: String::new(), at: 0, line: 1, start: None, scanner: Scanner::default() }
    }
}

impl Splitter {
    /// Adds lines; every push but the last must end with a line's end.
    pub(crate) fn push(&mut self, text: &str) {
        let done = self.start.map_or(self.at, |(start, _)| start);
        if done > SCANNED_BYTES_MAX {
            self.text.drain(..done);
            self.at -= done;
            if let Some((start, _)) = &mut self.start {
                *start -= done;
            }
        }
        self.text.push_str(text);
    }

    /// Whether nothing waits for its end.
    pub(crate) fn is_empty(&self) -> bool {
        self.start.is_none() && *self.scanner.state() == State::Normal
    }

    /// The text of the statement that is open.
    pub(crate) fn open_text(&self) -> &str {
        self.start.map_or("", |(start, _)| &self.text[start..])
    }

    /// What the scanner is in the middle of.
    pub(crate) fn state(&self) -> &State {
        self.scanner.state()
    }

    /// The next complete piece. At the `end` of the input an open statement counts as complete.
    pub(crate) fn next(&mut self, end: bool) -> Option<Piece> {
        loop {
            if *self.scanner.state() == State::Normal && self.at_command() {
                return self.take_command(end);
            }
            let Some((kind, range)) = self.scanner.next(&self.text, self.at) else {
                return if end { self.take_last() } else { None };
            };
            if self.start.is_none() && !matches!(kind, Kind::Space | Kind::Comment | Kind::Semicolon) {
                self.start = Some((range.start, self.line));
            }
            self.line += newlines(&self.text[range.clone()]);
            self.at = range.end;
            if kind == Kind::Semicolon
                && let Some((start, line)) = self.start.take()
            {
                return Some(Piece::Sql { text: self.text[start..range.start].trim_end().to_owned(), line });
            }
        }
    }

    fn at_command(&self) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        match (rest.first(), rest.get(1)) {
            (Some(b'\\'), _) => {
                let line = self.text[..self.at].rsplit('\n').next().unwrap_or("");
                self.start.is_none() || line.trim().is_empty()
            }
            (Some(b'.'), Some(letter)) => self.start.is_none() && letter.is_ascii_alphabetic(),
            _ => false,
        }
    }

    fn take_command(&mut self, end: bool) -> Option<Piece> {
        let rest = &self.text[self.at..];
        let len = match rest.find('\n') {
            Some(newline) => newline,
            None if end => rest.len(),
            None => return None,
        };
        let text = rest[..len].trim().to_owned();
        match self.start {
            // Cut the command out of the statement that it interrupts, and leave the line's end in its place.
            Some(_) => self.text.replace_range(self.at..self.at + len, ""),
            None => self.at += len,
        }
        Some(Piece::Command { text, line: self.line })
    }

    fn take_last(&mut self) -> Option<Piece> {
        let (start, line) = self.start.take()?;
        self.scanner = Scanner::default();
        Some(Piece::Sql { text: self.text[start..].trim_end().to_owned(), line })
    }
}

fn newlines(text: &str) -> u64 {
    text.bytes().filter(|&b| b == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str, line: u64) -> Piece {
        Piece::Sql { text: text.to_owned(), line }
    }

    fn command(text: &str, line: u64) -> Piece {
        Piece::Command { text: text.to_owned(), line }
    }

    /// Both ways of feeding must agree: at once, and line by line.
    #[track_caller]
    fn check(input: &str, expected: &[Piece]) {
        let mut whole = Splitter::default();
        whole.push(input);
        let got: Vec<Piece> = std::iter::from_fn(|| whole.next(true)).collect();
        assert_eq!(got, expected, "at once");

        let mut lines = Splitter::default();
        let mut got = Vec::new();
        for line in input.split_inclusive('\n') {
            lines.push(line);
            got.extend(std::iter::from_fn(|| lines.next(false)));
        }
        got.extend(std::iter::from_fn(|| lines.next(true)));
        assert_eq!(got, expected, "line by line");
    }

    #[test]
    fn statements_end_at_semicolons() {
        check("select 1; select 2 ;\n\nselect\n 3", &[sql("select 1", 1), sql("select 2", 1), sql("select\n 3", 3)]);
        check(" ;; \n ; ", &[]);
        check("", &[]);
    }

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_count() {
        check("select ';''; ' as \"a;\"\"b\"; x", &[sql("select ';''; ' as \"a;\"\"b\"", 1), sql("x", 1)]);
        check("select $$ a; ' $$, $t$ $$ ; $t$;", &[sql("select $$ a; ' $$, $t$ $$ ; $t$", 1)]);
        check("select $1, a$b; 2", &[sql("select $1, a$b", 1), sql("2", 1)]);
        check("select E'it\\'s; ' ; 'a\\';", &[sql("select E'it\\'s; '", 1), sql("'a\\'", 1)]);
        check("-- one; two\nselect 1 -- ; '\n, 2;", &[sql("select 1 -- ; '\n, 2", 2)]);
        check("/* a; /* b; */ c; */ select /* ; */ 1;", &[sql("select /* ; */ 1", 1)]);
    }

    #[test]
    fn tokens_may_span_lines() {
        check("select 'a;\nb;\n\\d c', 1;\nselect 2;", &[sql("select 'a;\nb;\n\\d c', 1", 1), sql("select 2", 4)]);
        check("select $x$\n;\n$x$;/*\n;\n*/select 2", &[sql("select $x$\n;\n$x$", 1), sql("select 2", 5)]);
    }

    #[test]
    fn commands_stand_between_statements() {
        check("\\d\nselect 1;\n  .mode csv  \n", &[command("\\d", 1), sql("select 1", 2), command(".mode csv", 3)]);
        check("select 1; \\x on\nselect 2", &[sql("select 1", 1), command("\\x on", 1), sql("select 2", 2)]);
        check("-- note\n\\timing", &[command("\\timing", 2)]);
        check("select .5;\n.5;", &[sql("select .5", 1), sql(".5", 2)]);
    }

    #[test]
    fn a_backslash_command_may_interrupt_a_statement() {
        check("select 1,\n\\? \n 2;", &[command("\\?", 2), sql("select 1,\n\n 2", 1)]);
        check("select 1 \\g\n;", &[sql("select 1 \\g", 1)]);
        check("select t\n.a from t;", &[sql("select t\n.a from t", 1)]);
    }

    #[test]
    fn open_tokens_end_with_the_input() {
        check("select 'open;\n", &[sql("select 'open;", 1)]);
        check("select 1;\n/* open", &[sql("select 1", 1)]);
    }

    #[test]
    fn what_is_open_is_known() {
        let mut splitter = Splitter::default();
        assert!(splitter.is_empty());
        splitter.push("select 'a\n");
        assert_eq!(splitter.next(false), None);
        assert!(!splitter.is_empty());
        assert_eq!(splitter.state(), &State::Text { escapes: false });
        assert_eq!(splitter.open_text(), "select 'a\n");
        splitter.push("b';\n");
        assert_eq!(splitter.next(false), Some(sql("select 'a\nb'", 1)));
        assert!(splitter.is_empty());
        splitter.push("/* still\n");
        assert_eq!(splitter.next(false), None);
        assert!(!splitter.is_empty());
    }

    #[test]
    fn a_long_script_is_forgotten_as_it_goes() {
        let mut splitter = Splitter::default();
        for i in 0..20_000 {
            splitter.push("select 12345;\n");
            assert_eq!(splitter.next(false), Some(sql("select 12345", i + 1)));
        }
        assert!(splitter.text.len() < 2 * SCANNED_BYTES_MAX);
    }

    #[test]
    fn any_text_scans_to_its_end() {
        for text in ["'é", "E'\\", "E'\\é'", "$é$ü", "$", "\"", "é;ü", "\u{a0};", "1e", "/*/", "\\", "."] {
            let mut scanner = Scanner::default();
            let mut at = 0;
            while let Some((_, range)) = scanner.next(text, at) {
                assert!(range.start == at && range.end > at, "{text}");
                at = range.end;
            }
            assert_eq!(at, text.len(), "{text}");
        }
    }
}
