//! Which commands does the shell itself know, and what do they do?

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use clap::ValueEnum;
use mvvd_core::{Error, Result};

use crate::copy;
use crate::error::{Failure, tell};
use crate::output::{Format, Target, Vectors};
use crate::script;
use crate::shell::{Flow, Shell};
use mvvd_query::Value;

/// What may be typed after a command, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    None,
    Table,
    Function,
    File,
    Copy,
    Word(&'static [&'static str]),
}

/// A command: known under each of its names after `\` or `.`, shown with the first mark.
pub(crate) struct Command {
    pub(crate) mark: char,
    pub(crate) names: &'static [&'static str],
    pub(crate) argument: Argument,
    usage: &'static str,
    help: &'static str,
    run: fn(&mut Shell, &str) -> Result<Flow, Failure>,
}

const ON_OFF: Argument = Argument::Word(&["on", "off"]);
const FORMATS: Argument = Argument::Word(&["table", "csv", "tsv", "json", "ndjson", "markdown", "line", "arrow"]);

/// All commands, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        mark: '\\',
        names: &["d"],
        argument: Argument::Table,
        usage: "[TABLE]",
        help: "list tables, or the columns of one",
        run: describe,
    },
    Command {
        mark: '\\',
        names: &["df"],
        argument: Argument::Function,
        usage: "[PATTERN]",
        help: "list functions; * stands for anything",
        run: functions,
    },
    Command {
        mark: '\\',
        names: &["i", "read"],
        argument: Argument::File,
        usage: "FILE",
        help: "run a script",
        run: include,
    },
    Command {
        mark: '\\',
        names: &["o", "output"],
        argument: Argument::File,
        usage: "[FILE]",
        help: "write results to a file, or to the screen again",
        run: output,
    },
    Command {
        mark: '\\',
        names: &["copy"],
        argument: Argument::Copy,
        usage: "TABLE|(QUERY) FROM|TO FILE",
        help: "load a file into a table, or write one",
        run: copy_file,
    },
    Command {
        mark: '\\',
        names: &["timing"],
        argument: ON_OFF,
        usage: "[on|off]",
        help: "show the time of each statement",
        run: timing,
    },
    Command {
        mark: '\\',
        names: &["x"],
        argument: ON_OFF,
        usage: "[on|off]",
        help: "one column per line instead of a table",
        run: expand,
    },
    Command {
        mark: '.',
        names: &["mode"],
        argument: FORMATS,
        usage: "[FORMAT]",
        help: "table, csv, tsv, json, ndjson, markdown, line or arrow",
        run: mode,
    },
    Command {
        mark: '.',
        names: &["vectors"],
        argument: Argument::Word(&["full", "short", "off"]),
        usage: "[full|short|off]",
        help: "how much of a vector tables show",
        run: vectors,
    },
    Command {
        mark: '\\',
        names: &["r", "reset"],
        argument: Argument::None,
        usage: "",
        help: "forget the statement that is not finished",
        run: reset,
    },
    Command {
        mark: '\\',
        names: &["?", "help", "h"],
        argument: Argument::None,
        usage: "",
        help: "this list",
        run: help,
    },
    Command {
        mark: '\\',
        names: &["q", "quit", "exit"],
        argument: Argument::None,
        usage: "",
        help: "leave",
        run: quit,
    },
];

/// Runs a line such as `\d t` or `.mode csv`.
pub(crate) fn run(shell: &mut Shell, line: &str) -> Result<Flow, Failure> {
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    // People end commands like statements.
    let (word, arguments) = (line[..end].trim_end_matches(';'), line[end..].trim().trim_end_matches(';').trim_end());
    let command = find(word).ok_or_else(|| unknown(word))?;
    if command.argument == Argument::None && !arguments.is_empty() {
        return Err(Error::invalid(format!("{word} takes no argument, got \"{arguments}\"")).into());
    }
    (command.run)(shell, arguments)
}

/// The command that `word` names.
pub(crate) fn find(word: &str) -> Option<&'static Command> {
    let name = word.strip_prefix(['\\', '.'])?;
    COMMANDS.iter().find(|command| command.names.contains(&name))
}

fn unknown(word: &str) -> Error {
    let all = COMMANDS.iter().flat_map(|c| c.names.iter().map(|name| format!("{}{name}", c.mark)));
    let hint = match nearest(word, all) {
        Some(name) => format!("did you mean {name}? \\? lists all commands"),
        None => "\\? lists all commands".to_owned(),
    };
    Error::invalid(format!("unknown command {word}")).with_hint(hint)
}

/// The candidate that is at most two edits away from `word`, fewer for short words.
pub(crate) fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let most = if word.chars().count() <= 4 { 1 } else { 2 };
    let ranked = candidates.map(|candidate| (edits(word, &candidate), candidate));
    ranked.filter(|(edits, _)| *edits <= most).min().map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) between two words, whatever their case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Reads `on` and `off`; nothing turns the switch over.
fn switch(name: &str, argument: &str, now: bool) -> Result<bool> {
    match argument.to_ascii_lowercase().as_str() {
        "" => Ok(!now),
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("{name} expects on or off, got \"{argument}\""))),
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Says something about the shell itself: not in the way of data.
fn note(shell: &Shell, text: &str) {
    if !shell.quiet {
        tell(&format!("{text}\n"));
    }
}

fn describe(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    if argument.is_empty() {
        let tables = shell.fetch("SELECT name, rows, columns, primary_key FROM mvvd.tables ORDER BY name", &[])?;
        if tables.iter().all(|batch| batch.num_rows() == 0) {
            note(shell, "no tables");
            return Ok(Flow::Continue);
        }
        shell.print(tables[0].schema_ref(), &tables)?;
        return Ok(Flow::Continue);
    }
    let table = copy::plain_name(argument);
    let columns = "SELECT column_name AS \"column\", type, nullable, default_value AS \"default\", primary_key \
                   FROM mvvd.columns WHERE table_name = $1 ORDER BY ordinal";
    let found = shell.fetch(columns, &[Value::Utf8(Some(table.clone()))])?;
    match found.iter().find(|batch| batch.num_rows() > 0) {
        Some(batch) => shell.print(batch.schema_ref(), &found)?,
        None => {
            let error = Error::not_found(format!("there is no table \"{table}\""));
            return Err(match nearest(&table, shell.session()?.vocabulary().tables.into_iter()) {
                Some(name) => error.with_hint(format!("did you mean \"{name}\"?")).into(),
                None => error.with_hint("\\d lists the tables").into(),
            });
        }
    }
    Ok(Flow::Continue)
}

fn functions(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    let pattern = argument.to_lowercase();
    let mut names = shell.session()?.vocabulary().functions;
    names.retain(|name| matches(&pattern, &name.to_lowercase()));
    names.sort();
    names.dedup();
    let names: ArrayRef = Arc::new(StringArray::from(names));
    let batch = RecordBatch::try_from_iter([("function", names)])?;
    shell.print(batch.schema_ref(), std::slice::from_ref(&batch))?;
    Ok(Flow::Continue)
}

/// Whether `pattern` stands for `name`: `*` for anything; without one it is a part of the name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name.contains(pattern) };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or("");
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

fn include(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    if argument.is_empty() {
        return Err(Error::invalid("\\i expects a file").into());
    }
    script::run_file(shell, &copy::path(argument))?;
    Ok(Flow::Continue)
}

fn output(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    shell.target = if argument.is_empty() { Target::default() } else { Target::open(&copy::path(argument))? };
    Ok(Flow::Continue)
}

fn copy_file(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    shell.run_copy(&copy::statement(argument)?)?;
    Ok(Flow::Continue)
}

fn timing(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    shell.timing = switch("\\timing", argument, shell.timing)?;
    note(shell, &format!("timing is {}", on_off(shell.timing)));
    Ok(Flow::Continue)
}

fn expand(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    shell.expanded = switch("\\x", argument, shell.expanded)?;
    note(shell, &format!("one column per line is {}", on_off(shell.expanded)));
    Ok(Flow::Continue)
}

fn mode(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    if argument.is_empty() {
        let name = shell.format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        note(shell, &format!("mode is {name}"));
        return Ok(Flow::Continue);
    }
    shell.format = Format::from_str(argument, true).map_err(|_| {
        Error::invalid(format!("unknown mode \"{argument}\""))
            .with_hint("the modes are table, csv, tsv, json, ndjson, markdown, line and arrow")
    })?;
    Ok(Flow::Continue)
}

fn vectors(shell: &mut Shell, argument: &str) -> Result<Flow, Failure> {
    shell.vectors = match argument.to_ascii_lowercase().as_str() {
        "full" => Vectors::Full,
        "short" => Vectors::Short,
        "off" => Vectors::Off,
        "" => {
            note(shell, &format!("vectors are {}", format!("{:?}", shell.vectors).to_lowercase()));
            return Ok(Flow::Continue);
        }
        _ => return Err(Error::invalid(format!(".vectors expects full, short or off, got \"{argument}\"")).into()),
    };
    Ok(Flow::Continue)
}

fn reset(_: &mut Shell, _: &str) -> Result<Flow, Failure> {
    Ok(Flow::Reset)
}

fn quit(_: &mut Shell, _: &str) -> Result<Flow, Failure> {
    Ok(Flow::Quit)
}

fn help(shell: &mut Shell, _: &str) -> Result<Flow, Failure> {
    shell.target.say(&help_text())?;
    Ok(Flow::Continue)
}

fn help_text() -> String {
    let usage = |c: &Command| format!("{}{} {}", c.mark, c.names[0], c.usage);
    let widest = COMMANDS.iter().map(|c| usage(c).len()).max().unwrap_or(0);
    let mut text =
        String::from("Statements end with a semicolon and may span lines. Commands end with their line:\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:widest$}  {}\n", usage(command), command.help));
    }
    text.push_str(
        "\nTAB completes names, files and keywords. Ctrl-C clears the line or cancels the statement that runs, Ctrl-D leaves.\n\
         Try:  SELECT * FROM 'file.parquet' LIMIT 3;",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_under_both_marks() {
        assert!(find("\\timing").is_some() && find(".timing").is_some() && find("\\mode").is_some());
        assert!(find("timing").is_none() && find("\\").is_none() && find("\\D").is_none());
    }

    #[test]
    fn formats_complete_as_clap_knows_them() {
        let names: Vec<String> = Format::value_variants()
            .iter()
            .filter_map(|f| Some(f.to_possible_value()?.get_name().to_owned()))
            .collect();
        let Argument::Word(words) = FORMATS else { panic!("words") };
        assert_eq!(names, words);
    }

    #[test]
    fn unknown_commands_name_the_nearest() {
        assert_eq!(unknown("\\timng").hint(), Some("did you mean \\timing? \\? lists all commands"));
        assert_eq!(unknown(".vector").hint(), Some("did you mean .vectors? \\? lists all commands"));
        assert_eq!(unknown("\\watch").hint(), Some("\\? lists all commands"));
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("Kitten", "sitting"), 3);
        assert_eq!(edits("żółw", "żołw"), 1);
    }

    #[test]
    fn switches() {
        assert!(switch("\\x", "", false).unwrap() && switch("\\x", "ON", true).unwrap());
        assert!(!switch("\\x", "off", true).unwrap());
        assert_eq!(switch("\\x", "maybe", true).unwrap_err().message(), "\\x expects on or off, got \"maybe\"");
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, yes) in
            [("", true), ("dist", true), ("l2_*", true), ("*_distance", true), ("*dist*", true), ("l*i*e", true)]
        {
            assert_eq!(matches(pattern, "l2_distance"), yes, "{pattern}");
        }
        for pattern in ["x", "*_norm", "distance*", "l2*l2", "l*x*e"] {
            assert!(!matches(pattern, "l2_distance"), "{pattern}");
        }
    }

    #[test]
    fn help_has_a_line_for_each_command() {
        let text = help_text();
        assert!(text.contains("  \\copy TABLE|(QUERY) FROM|TO FILE  load a file into a table, or write one\n"));
        assert_eq!(text.lines().filter(|line| line.starts_with("  ")).count(), COMMANDS.len());
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }
}
