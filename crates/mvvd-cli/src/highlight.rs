//! Which colours does the input have at the prompt?

use crate::keywords::is_keyword;
use crate::lexer::{Kind, Scanner, State};

const KEYWORD: &str = "1;34";
const TEXT: &str = "32";
const NUMBER: &str = "36";
const COMMENT: &str = "2";
const COMMAND: &str = "35";

/// `line` with escape sequences round its words; `open` is what the lines before left open.
pub(crate) fn highlight(line: &str, open: &State, in_statement: bool) -> String {
    let trimmed = line.trim_start();
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    if *open == State::Normal
        && (trimmed.starts_with('\\') || !in_statement && trimmed.starts_with('.') && letter(trimmed.chars().nth(1)))
    {
        return painted(COMMAND, line);
    }
    let mut scanner = Scanner::resume(open.clone());
    let mut out = String::with_capacity(line.len() + 32);
    let mut at = 0;
    while let Some((kind, range)) = scanner.next(line, at) {
        at = range.end;
        let text = &line[range];
        match kind {
            Kind::Word if is_keyword(text) => out.push_str(&painted(KEYWORD, text)),
            Kind::Text => out.push_str(&painted(TEXT, text)),
            Kind::Number => out.push_str(&painted(NUMBER, text)),
            Kind::Comment => out.push_str(&painted(COMMENT, text)),
            Kind::Space | Kind::Word | Kind::Name | Kind::Semicolon | Kind::Sign => out.push_str(text),
        }
    }
    out
}

fn painted(code: &str, text: &str) -> String {
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_colours() {
        let got = highlight("select a, 'x' -- 1", &State::Normal, false);
        assert_eq!(got, "\x1b[1;34mselect\x1b[0m a, \x1b[32m'x'\x1b[0m \x1b[2m-- 1\x1b[0m");
        assert_eq!(
            highlight("still' ,1", &State::Text { escapes: false }, true),
            "\x1b[32mstill'\x1b[0m ,\x1b[36m1\x1b[0m"
        );
        assert_eq!(highlight("\\d t", &State::Normal, false), "\x1b[35m\\d t\x1b[0m");
        assert_eq!(highlight(".a", &State::Normal, true), ".a");
    }
}
