//! From text to statements: tokens, the few that must be changed before parsing, limits, and the parse itself.
//!
//! Works on tokens, never on text, so every position in an error is a position in what the user wrote:
//! - `<+>` and `<=>` become custom operators with PostgreSQL's precedence (sqlparser 0.62 cannot read the first and
//!   takes the second for IS NOT DISTINCT FROM);
//! - a long list of numbers, `[0.1, …]` or `ARRAY[0.1, …]`, becomes one call with one text, so that a vector of 768
//!   numbers does not become 768 expressions;
//! - statements that would make an expression tree too deep for the stack are refused here.

use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Word};
use mvvd_core::{Error, Position, Result};

use crate::dialect::MvvdDialect;
use crate::error::{from_parser, from_tokenizer, position};

/// Longest text of one call, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 20;
/// Most operators in a row in one condition: each one makes the expression tree one level deeper.
const OPERATORS_MAX: usize = 250;
/// Most conditions in a row with AND and OR.
const CONDITIONS_MAX: usize = 500;
/// Most relations in a row with JOIN, UNION, INTERSECT or EXCEPT.
const RELATIONS_MAX: usize = 150;
/// Deepest nesting of parentheses, subqueries and CASE.
const NESTING_MAX: usize = 100;
/// Most queries inside each other: planning takes longer with each level.
const SUBQUERIES_MAX: usize = 12;
/// Lists of at least so many numbers are read as one text.
const LIST_NUMBERS_MIN: usize = 16;

/// One parsed statement of a script.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Shared, since a deep tree is copied on the database's own threads only, whose stacks are large.
    pub(crate) ast: Arc<ast::Statement>,
    text: String,
    line: u64,
}

impl Statement {
    /// The statement as written, without the semicolon.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of the script on which it starts, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }
}

/// Splits a script at its semicolons and parses each statement. Empty statements are left out.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>> {
    if sql.len() > TEXT_BYTES_MAX {
        return Err(Error::exhausted(format!("the text has {} bytes, at most {TEXT_BYTES_MAX} are read", sql.len())));
    }
    let dialect = MvvdDialect;
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|e| from_tokenizer(&e))?;
    let lines = LineStarts::of(sql);
    let mut statements = Vec::new();
    for range in split(&tokens) {
        let tokens = &tokens[range];
        let Some((first, last)) = solid_ends(tokens) else { continue };
        check_depth(tokens)?;
        let mut parser =
            Parser::new(&dialect).with_recursion_limit(NESTING_MAX).with_tokens_with_locations(rewrite(tokens));
        let ast = parse_one(&mut parser)?;
        let text = &sql[lines.offset(sql, first.start)..lines.offset(sql, last.end).min(sql.len())];
        statements.push(Statement { ast: Arc::new(ast), text: text.to_owned(), line: first.start.line });
    }
    Ok(statements)
}

fn parse_one(parser: &mut Parser) -> Result<ast::Statement> {
    let statement = parser.parse_statement().map_err(from_parser)?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(statement),
        other => Err(Error::invalid(format!("syntax error: expected end of statement, found: {other}"))
            .at(position(next.span.start))),
    }
}

/// The ranges of tokens between semicolons.
fn split(tokens: &[TokenWithSpan]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for (i, token) in tokens.iter().enumerate() {
        if token.token == Token::SemiColon {
            ranges.push(start..i);
            start = i + 1;
        }
    }
    ranges.push(start..tokens.len());
    ranges
}

/// Spans of the first and last token that is neither space nor comment.
fn solid_ends(tokens: &[TokenWithSpan]) -> Option<(Span, Span)> {
    let solid = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
    Some((tokens.iter().find(solid)?.span, tokens.iter().rev().find(solid)?.span))
}

/// What has come in a row at one level of parentheses.
#[derive(Debug, Default, Clone, Copy)]
struct Row {
    /// Operators since the last comma, clause or AND and OR.
    operators: usize,
    /// AND and OR since the last comma or clause.
    conditions: usize,
    /// JOIN, UNION, INTERSECT, EXCEPT.
    relations: usize,
    /// Whether there is a SELECT.
    is_query: bool,
}

/// Refuses statements whose tree would be too deep, before any tree exists.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut rows = vec![Row::default()];
    for token in tokens {
        let row = rows.last_mut().expect("the outermost level is never left");
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // Subscripts and calls chain as operators do: a[1][1], f(1)(1).
                row.operators += 1;
                if rows.len() > NESTING_MAX * 2 {
                    return Err(Error::exhausted("the statement is nested too deeply").at(position(token.span.start)));
                }
                rows.push(Row::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if rows.len() > 1 {
                    rows.pop();
                }
            }
            Token::Comma => (row.operators, row.conditions) = (0, 0),
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::EOF => {}
            Token::Word(word) if word.quote_style.is_some() => {}
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword | Keyword::NULL | Keyword::TRUE | Keyword::FALSE => {}
                Keyword::SELECT => {
                    (row.operators, row.conditions) = (0, 0);
                    row.is_query = true;
                    if rows.iter().filter(|row| row.is_query).count() > SUBQUERIES_MAX {
                        let message = format!("more than {SUBQUERIES_MAX} queries are nested in each other");
                        return Err(Error::exhausted(message).at(position(token.span.start)));
                    }
                }
                Keyword::AND | Keyword::OR => {
                    row.operators = 0;
                    row.conditions += 1;
                }
                Keyword::JOIN | Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => row.relations += 1,
                keyword if starts_clause(keyword) => (row.operators, row.conditions) = (0, 0),
                _ => row.operators += 1,
            },
            _ => row.operators += 1,
        }
        let row = rows.last().expect("the outermost level is never left");
        let (what, most) = match row {
            row if row.operators > OPERATORS_MAX => ("operators", OPERATORS_MAX),
            row if row.conditions > CONDITIONS_MAX => ("conditions", CONDITIONS_MAX),
            row if row.relations > RELATIONS_MAX => ("relations", RELATIONS_MAX),
            _ => continue,
        };
        return Err(Error::exhausted(format!("the expression is too long: more than {most} {what} in a row"))
            .with_hint("for many values write column IN (value, value, …), or load them into a table and join")
            .at(position(token.span.start)));
    }
    Ok(())
}

fn starts_clause(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::ON
            | Keyword::VALUES
            | Keyword::SET
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
    )
}

/// The tokens with vector operators and long number lists made readable for the parser. Spaces and comments go.
fn rewrite(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let here = &tokens[i];
        let (token, used) = match &here.token {
            Token::Whitespace(_) => {
                i += 1;
                continue;
            }
            Token::Spaceship => (Token::CustomBinaryOperator("<~=>".to_owned()), 1),
            Token::Lt if is_l1(tokens, i) => (Token::CustomBinaryOperator("<~+>".to_owned()), 3),
            Token::LBracket if !follows_value(&out) => match number_list(&tokens[i..]) {
                Some((text, used)) => {
                    if matches!(out.last().map(|t| &t.token), Some(Token::Word(w)) if w.keyword == Keyword::ARRAY) {
                        out.pop();
                    }
                    let span = here.span;
                    out.push(TokenWithSpan::new(word("mvvd_array"), span));
                    out.push(TokenWithSpan::new(Token::LParen, span));
                    out.push(TokenWithSpan::new(Token::SingleQuotedString(text), span));
                    (Token::RParen, used)
                }
                None => (Token::LBracket, 1),
            },
            other => (other.clone(), 1),
        };
        out.push(TokenWithSpan::new(token, here.span));
        i += used;
    }
    out
}

fn word(name: &str) -> Token {
    Token::Word(Word { value: name.to_owned(), quote_style: None, keyword: Keyword::NoKeyword })
}

/// Whether the three tokens from `i` touch and spell `<+>`.
fn is_l1(tokens: &[TokenWithSpan], i: usize) -> bool {
    let [less, plus, greater] = &tokens[i..(i + 3).min(tokens.len())] else { return false };
    plus.token == Token::Plus
        && greater.token == Token::Gt
        && less.span.start.line == greater.span.start.line
        && less.span.start.column + 2 == greater.span.start.column
}

/// Whether a bracket after these tokens is a subscript.
fn follows_value(out: &[TokenWithSpan]) -> bool {
    match out.last().map(|t| &t.token) {
        Some(Token::Word(w)) => w.keyword == Keyword::NoKeyword || w.quote_style.is_some(),
        Some(Token::RParen | Token::RBracket | Token::SingleQuotedString(_) | Token::Placeholder(_)) => true,
        _ => false,
    }
}

/// The text of a list of plain numbers that starts with a bracket at the first token, and how many tokens it took.
fn number_list(tokens: &[TokenWithSpan]) -> Option<(String, usize)> {
    let mut text = String::from("[");
    let mut numbers = 0;
    let mut expect_number = true;
    for (i, token) in tokens.iter().enumerate().skip(1) {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Minus if expect_number && !text.ends_with('-') => text.push('-'),
            Token::Number(digits, false) if expect_number => {
                text.push_str(digits);
                numbers += 1;
                expect_number = false;
            }
            Token::Comma if !expect_number => {
                text.push(',');
                expect_number = true;
            }
            Token::RBracket if !expect_number && numbers >= LIST_NUMBERS_MIN => {
                text.push(']');
                return Some((text, i + 1));
            }
            _ => return None,
        }
    }
    None
}

/// Byte offsets of the lines of a text.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(sql: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(sql.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1))
                .collect(),
        )
    }

    /// Byte offset of a place, whose column counts characters from 1.
    fn offset(&self, sql: &str, at: datafusion::sql::sqlparser::tokenizer::Location) -> usize {
        let Position { line, column } = position(at);
        let start = self.0.get(line as usize - 1).copied().unwrap_or(sql.len());
        sql[start..].char_indices().nth(column as usize - 1).map_or(sql.len(), |(i, _)| start + i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        assert_eq!(parse(sql).unwrap()[0].ast.to_string(), expected);
    }

    #[track_caller]
    fn fails(sql: &str, message: &str, at: (u64, u64)) {
        let e = parse(sql).expect_err("must fail");
        assert_eq!((e.message(), e.position().map(|p| (p.line, p.column))), (message, Some(at)));
    }

    #[test]
    fn operators_bind_as_in_postgres() {
        check("SELECT a <=> b", "SELECT a <~=> b");
        check("SELECT a <+> b", "SELECT a <~+> b");
        check("SELECT '<+>', \"<=>\" /* <=> */", "SELECT '<+>', \"<=>\"");
        for op in ["<->", "<~=>", "<#>", "<~+>", "<~>", "<%>"] {
            let written = op.replace("<~=>", "<=>").replace("<~+>", "<+>");
            let parsed = parse(&format!("SELECT 1 + a {written} b < 0.5 AND c")).unwrap();
            let ast::Statement::Query(query) = parsed[0].ast.as_ref() else { panic!() };
            let ast::SetExpr::Select(select) = query.body.as_ref() else { panic!() };
            let ast::SelectItem::UnnamedExpr(ast::Expr::BinaryOp { left, op: and, .. }) = &select.projection[0] else {
                panic!()
            };
            assert_eq!(and.to_string(), "AND", "{op}");
            let ast::Expr::BinaryOp { left, op: less, .. } = left.as_ref() else { panic!() };
            assert_eq!(less.to_string(), "<", "{op}");
            let ast::Expr::BinaryOp { left, op: distance, .. } = left.as_ref() else { panic!() };
            assert_eq!(distance.to_string(), op);
            assert_eq!(left.to_string(), "1 + a", "{op}");
        }
    }

    #[test]
    fn long_lists_become_one_text() {
        let list = (0..16).map(|i| format!("-{i}.5")).collect::<Vec<_>>().join(", ");
        let text = list.replace(' ', "");
        check(&format!("SELECT [{list}]"), &format!("SELECT mvvd_array('[{text}]')"));
        check(&format!("SELECT ARRAY[{list}]"), &format!("SELECT mvvd_array('[{text}]')"));
        check("SELECT [1, 2]", "SELECT [1, 2]");
        check("SELECT a[1]", "SELECT a[1]");
    }

    #[test]
    fn scripts_split_outside_strings_and_comments() {
        let statements = parse("SELECT ';' -- ;\n;\n\n /* ; */ ;SELECT $$;$$\n").unwrap();
        assert_eq!(
            statements.iter().map(|s| (s.text(), s.line())).collect::<Vec<_>>(),
            [("SELECT ';'", 1), ("SELECT $$;$$", 4)]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn errors_have_places() {
        fails("SELECT 1;\nSELEC 2", "syntax error: expected an SQL statement, found: SELEC", (2, 1));
        fails("SELECT 'a", "syntax error: unterminated string literal", (1, 8));
        fails("SELECT 1 2", "syntax error: expected end of statement, found: 2", (1, 10));
    }

    #[test]
    fn deep_statements_are_refused_before_they_are_trees() {
        let message = |sql: &str| parse(sql).expect_err("must fail").message().to_owned();
        for unit in [
            " OR a = 1",
            " + 1",
            "::int",
            "[1]",
            " IS NULL",
            " AND NOT a",
            " UNION SELECT 1",
            " || 'x'",
            " JOIN t ON a = b",
        ] {
            let sql = format!("SELECT a FROM t WHERE a{}", unit.repeat(20_000));
            assert!(message(&sql).starts_with("the expression is too long: more than "), "{unit}");
        }
        for (open, close) in [
            ("(", ")"),
            ("f(", ")"),
            ("-(", ")"),
            ("NOT (", ")"),
            ("CASE WHEN a THEN ", " END"),
            ("(SELECT ", ")"),
            ("[", "]"),
        ] {
            let sql = format!("SELECT {}1{}", open.repeat(5_000), close.repeat(5_000));
            let message = message(&sql);
            assert!(message.contains("nested") || message.contains("too long"), "{open}: {message}");
        }
        // What people do write passes.
        let ors = " OR a = 1".repeat(400);
        assert!(parse(&format!("SELECT * FROM t WHERE b{ors}")).is_ok());
        assert!(parse(&format!("SELECT * FROM t WHERE a IN (1{})", ",2".repeat(100_000))).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_near_sql_panics(words in prop::collection::vec(prop::sample::select(vec![
            "SELECT", "FROM", "t", "WHERE", "<+>", "<=>", "<->", "[", "]", "(", ")", "1", "-", ",", "'x'", "$1", "ORDER", "BY", "::",
            "VECTOR(3)", "INSERT", "INTO", "VALUES", "\"q\"", "/*", "*/", "--", "\n", ";", "E'\\", "$$", "CASE", "END", "é", "<", "+>",
        ]), 0..30)) {
            let _ = parse(&words.join(" "));
            let _ = parse(&words.concat());
        }
    }
}
