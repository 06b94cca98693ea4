//! The prompt, driven through a pseudo-terminal as a person would.
#![expect(clippy::unwrap_used, reason = "a test stops where something goes wrong, helpers included")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rexpect::process::WaitStatus;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};
use tempfile::TempDir;

use super::{LONG_QUERY, mvvd};

/// Debug builds on a busy machine take their time.
const PATIENCE_MS: u64 = 60_000;
/// At the start of a line: the editor draws the prompt again whenever it changes the line.
const PROMPT: &str = "\n\rmvvd> ";
const PROMPT_OPEN: &str = "\n\r   -> ";
const UP: &str = "\x1b[A";

struct Prompt {
    session: PtySession,
    /// Lives as long as the program.
    home: TempDir,
}

impl Prompt {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = mvvd(home.path());
        command.args(args);
        Self { session: spawn(command), home }
    }

    /// Types a line at the prompt and returns what came before the next prompt.
    #[track_caller]
    fn type_line(&mut self, line: &str) -> String {
        self.session.send_line(line).unwrap();
        self.until(PROMPT)
    }

    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        self.session.exp_string(text).unwrap_or_else(|e| panic!("waiting for {text:?}: {e}"))
    }

    #[track_caller]
    fn send(&mut self, keys: &str) {
        self.session.send(keys).unwrap();
        self.session.flush().unwrap();
    }

    /// Leaves with Ctrl-D; the program must end well.
    #[track_caller]
    fn leave(mut self) -> TempDir {
        self.session.send_control('d').unwrap();
        self.session.exp_eof().unwrap();
        let status = self.session.process().wait().unwrap();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        self.home
    }
}

fn spawn(command: Command) -> PtySession {
    let options = Options::new().timeout_ms(Some(PATIENCE_MS)).strip_ansi_escape_codes(true);
    spawn_with_options(command, options).unwrap()
}

fn prompt() -> Prompt {
    let mut prompt = Prompt::start();
    prompt.until(PROMPT);
    prompt
}

#[test]
fn greeting_statements_and_leaving() {
    let start = Instant::now();
    let mut prompt = Prompt::start();
    let greeting = prompt.until(PROMPT);
    let time = start.elapsed();
    // The goal is 100 ms in a release build; this bound only catches waiting where there should be none.
    eprintln!("first prompt after {time:?} (debug build: {})", cfg!(debug_assertions));
    assert!(time < Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 }), "{time:?}");
    assert!(greeting.contains("in memory: nothing is saved"), "{greeting}");
    let answer = prompt.type_line("SELECT 6 * 7 AS answer, NULL AS nothing;");
    assert!(answer.contains("     42 | NULL"), "{answer}");
    prompt.leave();
}

#[test]
fn statements_span_lines_until_their_semicolon() {
    let mut prompt = prompt();
    prompt.session.send_line("SELECT 'one; two -- three").unwrap();
    prompt.until(PROMPT_OPEN);
    prompt.session.send_line("four' AS x, 40").unwrap();
    prompt.until(PROMPT_OPEN);
    let answer = prompt.type_line("+ 2 AS y; SELECT 'second' AS z;");
    assert!(answer.contains("one; two -- three+") && answer.contains("42") && answer.contains("second"), "{answer}");
    // Ctrl-C forgets the lines so far.
    prompt.session.send_line("SELECT 'forgotten").unwrap();
    prompt.until(PROMPT_OPEN);
    prompt.session.send_control('c').unwrap();
    prompt.until(PROMPT);
    let answer = prompt.type_line("SELECT 'clean' AS x;");
    assert!(answer.contains("clean") && !answer.contains("error"), "{answer}");
    prompt.leave();
}

#[test]
fn history_comes_back_also_in_the_next_session() {
    let mut first = prompt();
    first.session.send_line("SELECT 11 +").unwrap();
    first.until(PROMPT_OPEN);
    assert!(first.type_line("22 AS sum;").contains("33"));
    assert!(first.type_line("SELECT 5 AS other;").contains("5"));
    // Two up, past the last one: the statement of two lines is one entry.
    first.send(UP);
    first.send(UP);
    assert!(first.type_line("").contains("33"));
    let home = first.leave();

    let mut second = Prompt { session: spawn(mvvd(home.path())), home };
    second.until(PROMPT);
    second.send(UP);
    assert!(second.type_line("").contains("33"));
    let home = second.leave();
    assert_eq!(history(home.path()), "#V2\nSELECT 11 +\\n22 AS sum;\nSELECT 5 AS other;\nSELECT 11 +\\n22 AS sum;\n");

    let mut without = Prompt::start_with(&["--no-history"]);
    without.until(PROMPT);
    without.type_line("SELECT 1;");
    let home = without.leave();
    assert!(!home.path().join("mvvd").exists());
}

fn history(home: &Path) -> String {
    fs::read_to_string(home.join("mvvd/history")).unwrap()
}

#[test]
fn tab_completes_names_and_files() {
    let mut prompt = prompt();
    prompt.type_line("CREATE TABLE zebra_crossing (quagga_count BIGINT, zoo_name TEXT);");
    prompt.type_line("INSERT INTO zebra_crossing VALUES (12, 'x');");
    prompt.send("SELECT quag\t FROM zeb\t;\n");
    let answer = prompt.until(PROMPT);
    assert!(answer.contains("SELECT quagga_count FROM zebra_crossing") && answer.contains("12"), "{answer}");
    prompt.send("SELECT z.zoo_\t FROM zebra_crossing z;\n");
    assert!(prompt.until(PROMPT).contains("zoo_name"));
    fs::write(prompt.home.path().join("script_one.sql"), "SELECT 'from the script' AS x;").unwrap();
    prompt.send("\\i scri\t\n");
    assert!(prompt.until(PROMPT).contains("from the script"));
    prompt.leave();
}

#[test]
fn ctrl_c_cancels_the_query_and_not_the_shell() {
    let mut prompt = prompt();
    prompt.session.send_line(&format!("{LONG_QUERY};")).unwrap();
    // The spinner says that the statement has been running for a second.
    prompt.until("running");
    let start = Instant::now();
    prompt.session.send_control('c').unwrap();
    prompt.until("cancelled");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    prompt.until(PROMPT);
    assert!(prompt.type_line("SELECT 'alive' AS x;").contains("alive"));
    // The same again: the first time must not have used anything up.
    prompt.session.send_line(&format!("{LONG_QUERY};")).unwrap();
    prompt.until("running");
    prompt.session.send_control('c').unwrap();
    prompt.until("cancelled");
    prompt.until(PROMPT);
    // And at the prompt it only clears the line.
    prompt.send("SELECT half a li");
    prompt.session.send_control('c').unwrap();
    prompt.until(PROMPT);
    assert!(prompt.type_line("SELECT 'still alive' AS x;").contains("still alive"));
    prompt.leave();
}

#[test]
fn errors_leave_the_prompt_usable() {
    let mut prompt = prompt();
    let answer = prompt.type_line("SELECT 1 +* 2; SELECT 'skipped' AS x;");
    assert!(answer.contains("error: syntax error"), "{answer}");
    assert!(answer.contains(" 1 | SELECT 1 +* 2") && answer.contains("   |           ^"), "{answer}");
    assert!(!answer.contains(" x\r\n"), "{answer}");
    let answer = prompt.type_line("\\nosuch");
    assert!(answer.contains("error: unknown command \\nosuch"), "{answer}");
    fs::write(prompt.home.path().join("bad.sql"), "SELECT 1 AS fine;\nSELECT nope;\nSELECT 'after' AS x;\n").unwrap();
    let answer = prompt.type_line("\\i bad.sql");
    assert!(answer.contains("fine") && answer.contains("bad.sql:2: error:") && !answer.contains("after"), "{answer}");
    assert!(prompt.type_line("SELECT 'alive' AS x;").contains("alive"));
    prompt.leave();
}

#[test]
fn commands_of_the_shell() {
    let mut prompt = prompt();
    assert!(prompt.type_line("\\d").contains("no tables"));
    prompt.type_line("CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'none', v VECTOR(300));");
    prompt.type_line("INSERT INTO items SELECT 1, 'lamp', array_repeat(0.5, 300);");
    let tables = prompt.type_line("\\d");
    assert!(tables.contains("items") && tables.contains("(1 row)"), "{tables}");
    let columns = prompt.type_line("\\d items");
    for text in ["VECTOR(300)", "BIGINT", "'none'", "primary_key", "(3 rows)"] {
        assert!(columns.contains(text), "{text}: {columns}");
    }
    let functions = prompt.type_line("\\df *distance");
    assert!(functions.contains("l2_distance") && functions.contains("hamming_distance"), "{functions}");
    let help = prompt.type_line("help");
    assert!(help.contains("\\timing") && help.contains(".vectors"), "{help}");

    // The terminal is read byte by byte, so the ellipsis in between is not compared.
    let short = prompt.type_line("SELECT v FROM items;");
    assert!(short.contains("[0.5, 0.5, 0.5, ") && short.contains(" 300]"), "{short}");
    prompt.type_line(".vectors off");
    assert!(prompt.type_line("SELECT v FROM items;").contains("vector(300)"));
    prompt.type_line(".vectors short");

    assert!(prompt.type_line("\\timing").contains("timing is on"));
    assert!(prompt.type_line("SELECT 1;").contains("Time: "));
    assert!(prompt.type_line("\\timing off").contains("timing is off"));

    assert!(prompt.type_line("\\x").contains("one column per line is on"));
    assert!(prompt.type_line("SELECT name FROM items;").contains("name | lamp"));
    prompt.type_line("\\x");

    prompt.type_line(".mode csv");
    assert!(prompt.type_line("SELECT id, name FROM items;").contains("id,name\r\n1,lamp\r"));
    assert!(prompt.type_line(".mode").contains("mode is csv"));
    prompt.type_line("\\o out.csv");
    assert!(!prompt.type_line("SELECT name FROM items;").contains("lamp"));
    prompt.type_line("\\o");
    assert_eq!(fs::read_to_string(prompt.home.path().join("out.csv")).unwrap(), "name\nlamp\n");
    prompt.type_line(".mode arrow");
    assert!(prompt.type_line("SELECT 1;").contains("error: Arrow IPC is binary"));
    prompt.type_line(".mode table");

    let copied = prompt.type_line("\\copy items to 'items.parquet'");
    assert!(copied.contains("COPY 1"), "{copied}");
    prompt.type_line("CREATE TABLE again AS SELECT * FROM 'items.parquet';");
    assert!(prompt.type_line("DELETE FROM again;").contains("DELETE 1"));
    let copied = prompt.type_line("\\copy again from items.parquet");
    assert!(copied.contains("COPY 1"), "{copied}");
    assert!(prompt.type_line("SELECT name FROM again;").contains(" lamp"));

    // A command may interrupt a statement, and \r forgets it.
    prompt.session.send_line("SELECT 'half").unwrap();
    prompt.until(PROMPT_OPEN);
    prompt.session.send_line("way' ,").unwrap();
    prompt.until(PROMPT_OPEN);
    prompt.session.send_line("\\?").unwrap();
    prompt.until(PROMPT_OPEN);
    prompt.type_line("\\r");
    assert!(prompt.type_line("SELECT 'clean' AS x;").contains("clean"));

    prompt.session.send_line("exit").unwrap();
    prompt.session.exp_eof().unwrap();
    assert!(matches!(prompt.session.process().wait().unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn colours_and_hints_where_they_are_wanted() {
    let home = tempfile::tempdir().unwrap();
    let mut command = mvvd(home.path());
    command.env_remove("NO_COLOR");
    let options = Options::new().timeout_ms(Some(PATIENCE_MS)).strip_ansi_escape_codes(false);
    let mut session = spawn_with_options(command, options).unwrap();
    session.exp_string("mvvd> ").unwrap();
    session.send_line("SELECT NULL AS x, 'abc' AS y;").unwrap();
    session.exp_string("\x1b[1;34mSELECT\x1b[0m").unwrap();
    session.exp_string("\x1b[32m'abc'\x1b[0m").unwrap();
    session.exp_string("\x1b[2mNULL\x1b[0m").unwrap();
    // The last statement that began like this is offered dimly, and the right arrow takes it.
    session.send("SELECT N").unwrap();
    session.flush().unwrap();
    session.exp_string("\x1b[2mULL AS x, 'abc' AS y;\x1b[0m").unwrap();
    session.send_line("\x1b[C").unwrap();
    session.exp_string("\x1b[2mNULL\x1b[0m").unwrap();
    session.send_line("SELECT nope;").unwrap();
    session.exp_string("\x1b[1;31merror:\x1b[0m").unwrap();
    session.send_control('d').unwrap();
    session.exp_eof().unwrap();
}
