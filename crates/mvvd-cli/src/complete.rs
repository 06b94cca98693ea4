//! What could the word at the cursor become?

use std::collections::HashMap;

use crate::command::{self, Argument, COMMANDS};
use crate::keywords::{KEYWORDS, is_keyword};
use crate::lexer::{Kind, Scanner, State};
use mvvd_query::Vocabulary;

/// What TAB offers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Words that may stand from this byte of the line on.
    Words(usize, Vec<String>),
    /// A file name.
    File,
}

/// What SHOW shows besides settings.
const SHOWN: &[&str] = &["ALL", "TABLES", "VERSIONS"];

/// Offers for the end of `line`, which follows the `open` lines of a statement.
pub(crate) fn offer(open: &str, line: &str, vocabulary: &Vocabulary) -> Offer {
    let trimmed = line.trim_start();
    if trimmed.starts_with('\\') || open.is_empty() && trimmed.starts_with('.') {
        return offer_command(line, trimmed, vocabulary);
    }
    let statement = Statement::read(&format!("{open}{line}"));
    match statement.open {
        State::Text { .. } if statement.before_file() => return Offer::File,
        State::Normal => {}
        _ => return Offer::Words(line.len(), Vec::new()),
    }
    let word = last_word(line);
    let start = line.len() - word.len();
    let mut names = match statement.previous(word).as_str() {
        "SHOW" if !word.is_empty() => {
            let words = SHOWN.iter().map(|shown| in_case_of(word, shown));
            words.chain(vocabulary.settings.iter().cloned()).collect()
        }
        "SET" | "RESET" | "SHOW" => vocabulary.settings.clone(),
        "FROM" | "JOIN" | "INTO" | "UPDATE" | "TABLE" | "TRUNCATE" | "COPY" => quoted(&vocabulary.tables),
        _ => match word.rsplit_once('.') {
            Some((table, _)) => statement.qualified(table, vocabulary),
            None if word.is_empty() => Vec::new(),
            None => statement.anything(word, vocabulary),
        },
    };
    keep_prefix(&mut names, word);
    Offer::Words(start, names)
}

fn offer_command(line: &str, trimmed: &str, vocabulary: &Vocabulary) -> Offer {
    let Some(space) = trimmed.find(char::is_whitespace) else {
        let mark = trimmed.chars().next().unwrap_or('\\');
        let all = COMMANDS.iter().filter(|c| c.mark == mark || trimmed.len() > 1);
        let mut names: Vec<String> = all.flat_map(|c| c.names).map(|name| format!("{mark}{name}")).collect();
        keep_prefix(&mut names, trimmed);
        return Offer::Words(line.len() - trimmed.len(), names);
    };
    let word = last_word(line);
    let first = trimmed[space..].trim_start().len() == word.len();
    let mut names = match command::find(&trimmed[..space]).map(|c| c.argument) {
        Some(Argument::File) => return Offer::File,
        Some(Argument::Copy) => {
            let arguments = Statement::read(&trimmed[space..]);
            let after_word = matches!(arguments.previous(word).as_str(), "FROM" | "TO");
            if after_word || matches!(arguments.open, State::Text { .. }) && arguments.before_file() {
                return Offer::File;
            }
            if first { quoted(&vocabulary.tables) } else { vec!["from".to_owned(), "to".to_owned()] }
        }
        Some(Argument::Table) if first => quoted(&vocabulary.tables),
        Some(Argument::Function) if first => vocabulary.functions.clone(),
        Some(Argument::Word(words)) if first => words.iter().map(|&word| word.to_owned()).collect(),
        _ => Vec::new(),
    };
    keep_prefix(&mut names, word);
    Offer::Words(line.len() - word.len(), names)
}

/// The tokens of a statement up to the cursor.
struct Statement {
    tokens: Vec<(Kind, String)>,
    open: State,
}

impl Statement {
    fn read(text: &str) -> Self {
        let (mut scanner, mut at, mut tokens) = (Scanner::default(), 0, Vec::new());
        let mut in_comment = false;
        while let Some((kind, range)) = scanner.next(text, at) {
            at = range.end;
            let token = &text[range];
            in_comment = token.starts_with("--");
            if !matches!(kind, Kind::Space | Kind::Comment) {
                tokens.push((kind, token.to_owned()));
            }
        }
        // To the scanner a comment that ends with its line is not open, but to who types on it is.
        let open = if in_comment { State::Comment(1) } else { scanner.state().clone() };
        Self { tokens, open }
    }

    /// The last token before `word`, in capitals.
    fn previous(&self, word: &str) -> String {
        let mut rest = word.len();
        for (_, text) in self.tokens.iter().rev() {
            if rest == 0 {
                return text.to_uppercase();
            }
            rest = rest.saturating_sub(text.len());
        }
        String::new()
    }

    /// Whether the text that is open at the end stands where a file may.
    fn before_file(&self) -> bool {
        let before = self.tokens.len().checked_sub(2).and_then(|i| self.tokens.get(i));
        before.is_some_and(|(_, word)| ["FROM", "JOIN", "TO"].iter().any(|w| w.eq_ignore_ascii_case(word)))
    }

    /// The tables of the statement by the names that it gives them.
    fn tables<'a>(&self, vocabulary: &'a Vocabulary) -> HashMap<String, &'a str> {
        let mut names = HashMap::new();
        for (i, (kind, text)) in self.tokens.iter().enumerate() {
            let name = unquoted(*kind, text);
            let Some(table) = name.and_then(|name| vocabulary.tables.iter().find(|table| **table == name)) else {
                continue;
            };
            names.insert(table.clone(), table.as_str());
            let mut next = self.tokens[i + 1..].iter();
            let mut alias = next.next();
            if alias.is_some_and(|(_, word)| word.eq_ignore_ascii_case("as")) {
                alias = next.next();
            }
            if let Some((kind, word)) = alias
                && !is_keyword(word)
                && let Some(alias) = unquoted(*kind, word)
            {
                names.insert(alias, table.as_str());
            }
        }
        names
    }

    /// Tables of the schema `table`, settings of the group `table`, or columns of the table or alias `table`.
    fn qualified(&self, table: &str, vocabulary: &Vocabulary) -> Vec<String> {
        let tables = self.tables(vocabulary);
        let meant = tables.get(&table.to_lowercase()).copied().unwrap_or(table);
        let columns = vocabulary.columns.iter().filter(|(t, _)| t == meant);
        let columns = columns.map(|(_, column)| format!("{table}.{}", quote(column)));
        columns.chain(quoted(&vocabulary.tables)).chain(vocabulary.settings.iter().cloned()).collect()
    }

    /// Columns (of the statement's tables, if it names any yet), tables, functions and keywords.
    fn anything(&self, word: &str, vocabulary: &Vocabulary) -> Vec<String> {
        let tables = self.tables(vocabulary);
        let near = |table: &String| tables.is_empty() || tables.values().any(|t| t == table);
        let columns = vocabulary.columns.iter().filter(|(table, _)| near(table)).map(|(_, column)| quote(column));
        let functions = vocabulary.functions.iter().map(|name| format!("{name}("));
        let keywords = KEYWORDS.iter().map(|keyword| in_case_of(word, keyword));
        columns
            .chain(quoted(&vocabulary.tables))
            .chain(tables.keys().cloned())
            .chain(functions)
            .chain(keywords)
            .collect()
    }
}

/// A keyword in the case in which `word` is written.
fn in_case_of(word: &str, keyword: &str) -> String {
    if word.ends_with(|c: char| c.is_lowercase()) { keyword.to_lowercase() } else { keyword.to_owned() }
}

/// The name or dotted name that the line ends with.
fn last_word(line: &str) -> &str {
    let start = line.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
    &line[start.map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8))..]
}

fn unquoted(kind: Kind, text: &str) -> Option<String> {
    match kind {
        Kind::Word => Some(text.to_lowercase()),
        Kind::Name => Some(text.trim_matches('"').replace("\"\"", "\"")),
        _ => None,
    }
}

/// Names as SQL has to spell them; a schema stays outside the quotes.
fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| if name.starts_with("mvvd.") { name.clone() } else { quote(name) }).collect()
}

fn quote(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !is_keyword(name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn keep_prefix(names: &mut Vec<String>, prefix: &str) {
    let prefix = prefix.to_lowercase();
    names.retain(|name| name.to_lowercase().starts_with(&prefix));
    names.sort_unstable();
    names.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Vocabulary {
            tables: words(&["packages", "pictures", "Odd One", "mvvd.tables"]),
            columns: [("packages", "name"), ("packages", "v_name"), ("pictures", "width")]
                .map(|(table, column)| (table.to_owned(), column.to_owned()))
                .to_vec(),
            functions: words(&["l2_distance", "l2_norm", "now"]),
            settings: words(&["mvvd.ef_search", "mvvd.exact"]),
        }
    }

    #[track_caller]
    fn check(open: &str, line: &str, expected: &[&str]) {
        match offer(open, line, &vocabulary()) {
            Offer::Words(_, words) => assert_eq!(words, expected),
            Offer::File => assert_eq!(&["(file)"][..], expected),
        }
    }

    #[test]
    fn tables_stand_behind_from_and_the_like() {
        check("", "select * from pa", &["packages"]);
        check("select *\nfrom ", "", &["\"Odd One\"", "mvvd.tables", "packages", "pictures"]);
        check("", "select * from PI", &["pictures"]);
        check("", "select * from mvvd.t", &["mvvd.tables"]);
        assert_eq!(offer("", "update pi", &vocabulary()), Offer::Words(7, vec!["pictures".to_owned()]));
    }

    #[test]
    fn columns_of_the_tables_in_sight() {
        check("select * from packages p\n", "where p.v", &["p.v_name"]);
        check("select * from packages AS p ", "where P.", &["P.name", "P.v_name"]);
        check("", "select * from pictures where wi", &["width", "window", "with"]);
        check("", "select * from pictures where n", &["natural", "not", "nothing", "now(", "null", "nulls", "numeric"]);
        check("", "select v_", &["v_name"]);
    }

    #[test]
    fn functions_settings_and_keywords() {
        check("", "select l2", &["l2_distance(", "l2_norm("]);
        check("", "SEL", &["SELECT"]);
        check("", "sel", &["select"]);
        check("", "set mvvd.ef", &["mvvd.ef_search"]);
        check("", "show ", &["mvvd.ef_search", "mvvd.exact"]);
        check("", "show ve", &["versions"]);
        check("", "SHOW V", &["VERSIONS"]);
        check("", "show versions from pa", &["packages"]);
        check("", "", &[]);
        check("", "select 1 + ", &[]);
    }

    #[test]
    fn nothing_inside_texts_and_comments_but_files_where_they_may_stand() {
        check("", "select 'sel", &[]);
        check("", "select 1 -- sel", &[]);
        check("/* ", "sel", &[]);
        check("", "select \"sel", &[]);
        check("", "select * from 'da", &["(file)"]);
        check("copy packages to\n", "'da", &["(file)"]);
    }

    #[test]
    fn commands_and_their_arguments() {
        check("", "\\ti", &["\\timing"]);
        check("", ".", &[".mode", ".vectors"]);
        check("", ".ti", &[".timing"]);
        check("", "\\d pa", &["packages"]);
        check("", "\\df l2_n", &["l2_norm"]);
        check("", ".mode m", &["markdown"]);
        check("", "\\x o", &["off", "on"]);
        check("", "\\x on o", &[]);
        check("", "\\i da", &["(file)"]);
        check("", "\\copy pa", &["packages"]);
        check("", "\\copy packages f", &["from"]);
        check("", "\\copy packages from ", &["(file)"]);
        check("", "\\copy packages from 'da", &["(file)"]);
        check("", "\\q x", &[]);
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(
            ["plain_1", "Odd One", "a\"b", "select", "1a", "żółw"].map(quote),
            ["plain_1", "\"Odd One\"", "\"a\"\"b\"", "\"select\"", "\"1a\"", "żółw"]
        );
    }
}
