//! Scripts from `-c`, `-f` and stdin.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use super::{mvvd, run, run_in};

/// An ordinary row, an awkward one, and one of NULLs.
const SAMPLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, v VECTOR(5));
INSERT INTO t VALUES (1, 'lamp', '[0.5,-1,0,2,3]'), (2, 'a,\"b\" 日本', '[1,2,3,4,5]'), (3, NULL, NULL);
";

#[test]
fn exit_statuses() {
    run(&["-q", "-c", "SELECT 1 AS one"], "").is(0, " one\n-----\n   1\n(1 row)\n", "");
    let wrong = run(&["-c", "SELEC 1"], "");
    assert_eq!((wrong.status, wrong.out.as_str()), (1, ""));
    assert!(wrong.err.starts_with("error: "), "{wrong:?}");
    let usage = run(&["--format", "xml"], "");
    assert_eq!(usage.status, 2);
    assert!(usage.err.contains("ndjson"), "{usage:?}");
    assert_eq!(run(&["--no-such-option"], "").status, 2);
    assert_eq!(run(&["--memory-limit", "lots", "-c", "SELECT 1"], "").status, 2);
    let missing = run(&["-f", "missing.sql"], "");
    missing.is(1, "", "error: cannot read \"missing.sql\": no such file or directory\n");
}

#[test]
fn help_and_version() {
    let help = run(&["--help"], "");
    assert_eq!((help.status, help.err.as_str()), (0, ""));
    for word in ["Examples:", "--memory-limit", "Exit status:", "ndjson", "in memory"] {
        assert!(help.out.contains(word), "{word}");
    }
    assert!(help.out.lines().all(|line| line.chars().count() <= 120));
    run(&["--version"], "").is(0, &format!("mvvd {}\n", env!("CARGO_PKG_VERSION")), "");
}

#[test]
fn a_script_on_stdin_runs_to_its_first_error() {
    let script = "SELECT 1 AS a;\n\n-- then\nSELECT 2 AS b;\nSELECT\n  missing_column;\nSELECT 3;\n";
    let ran = run(&["--format", "csv"], script);
    assert_eq!((ran.status, ran.out.as_str()), (1, "a\n1\nb\n2\n"), "{ran:?}");
    assert!(ran.err.starts_with("<stdin>:6: error: "), "{ran:?}");
    assert!(ran.err.contains("\n 6 |   missing_column\n   |   ^\n"), "{ran:?}");
    // The last semicolon may be missing, and nothing at all is fine.
    run(&["--format", "csv"], "SELECT 1 AS a").is(0, "a\n1\n", "");
    run(&[], " \n-- nothing\n;;").is(0, "", "");
}

#[test]
fn commands_and_files_run_in_the_order_given() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("two.sql"), "\u{feff}#!/usr/bin/env -S mvvd -f\nSELECT 2 AS x;\n").unwrap();
    let args = ["--format", "tsv", "-c", "SELECT 1 AS x", "-f", "two.sql", "-c", "SELECT 3 AS x; SELECT 4 AS x"];
    run_in(home.path(), &args, "SELECT 5").is(0, "x\n1\nx\n2\nx\n3\nx\n4\n", "");
    run(&["--format", "tsv", "-f", "-"], "SELECT 6 AS x").is(0, "x\n6\n", "");
}

#[test]
fn all_statements_share_a_session() {
    let args =
        ["-c", "CREATE TABLE n (a BIGINT)", "-c", "INSERT INTO n VALUES (7), (8)", "-c", "SELECT sum(a) AS s FROM n"];
    run(&args, "").is(0, "CREATE TABLE\nINSERT 2\n  s\n----\n 15\n(1 row)\n", "");
}

#[test]
fn errors_name_file_line_and_column() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a.sql"), "CREATE TABLE t (title TEXT);\n\nSELECT\n\t'日本', titel\nFROM t;\n").unwrap();
    let ran = run_in(home.path(), &["-q", "-f", "a.sql"], "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("a.sql:4: error: "), "{ran:?}");
    // A tab is one column here, and each of the two wide characters takes two.
    assert!(ran.err.contains("\n 4 |  '日本', titel\n   |          ^\n"), "{ran:?}");
    assert!(ran.err.contains("\nhint: "), "{ran:?}");
    let inline = run(&["-c", "SELECT 1 +* 2"], "");
    assert!(
        inline.err.starts_with("error: syntax error")
            && inline.err.contains("\n 1 | SELECT 1 +* 2\n   |           ^\n"),
        "{inline:?}"
    );
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    for format in ["table", "csv", "json", "ndjson", "line", "arrow", "markdown"] {
        let mut child = mvvd(home.path())
            .args(["--format", format, "-c", "SELECT * FROM generate_series(1, 300000)", "-c", "SELECT 1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::with_capacity(16, child.stdout.take().unwrap());
        reader.read_until(b'\n', &mut Vec::new()).unwrap();
        drop(reader);
        let status = child.wait().unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{format}");
    }
}

#[track_caller]
fn check_format(format: &str, expected: &str) {
    let script = format!("{SAMPLE}SELECT *, 18446744073709551615 AS big FROM t ORDER BY id;");
    run(&["--quiet", "--format", format], &script).is(0, expected, "");
}

#[test]
fn every_format() {
    check_format(
        "table",
        concat!(
            " id | name       | v                 |                  big\n",
            "----+------------+-------------------+----------------------\n",
            "  1 | lamp       | [0.5, -1, 0, … 5] | 18446744073709551615\n",
            "  2 | a,\"b\" 日本 | [1, 2, 3, … 5]    | 18446744073709551615\n",
            "  3 | NULL       | NULL              | 18446744073709551615\n",
            "(3 rows)\n",
        ),
    );
    check_format(
        "csv",
        concat!(
            "id,name,v,big\n",
            "1,lamp,\"[0.5,-1,0,2,3]\",18446744073709551615\n",
            "2,\"a,\"\"b\"\" 日本\",\"[1,2,3,4,5]\",18446744073709551615\n",
            "3,,,18446744073709551615\n",
        ),
    );
    check_format(
        "tsv",
        concat!(
            "id\tname\tv\tbig\n",
            "1\tlamp\t[0.5,-1,0,2,3]\t18446744073709551615\n",
            "2\ta,\"b\" 日本\t[1,2,3,4,5]\t18446744073709551615\n",
            "3\t\t\t18446744073709551615\n",
        ),
    );
    let objects = [
        r#"{"id":1,"name":"lamp","v":[0.5,-1.0,0.0,2.0,3.0],"big":18446744073709551615}"#,
        r#"{"id":2,"name":"a,\"b\" 日本","v":[1.0,2.0,3.0,4.0,5.0],"big":18446744073709551615}"#,
        r#"{"id":3,"name":null,"v":null,"big":18446744073709551615}"#,
    ];
    check_format("json", &format!("[{}]\n", objects.join(",\n ")));
    check_format("ndjson", &format!("{}\n", objects.join("\n")));
    check_format(
        "markdown",
        concat!(
            "|  id | name       | v              |                  big |\n",
            "| --: | ---------- | -------------- | -------------------: |\n",
            "|   1 | lamp       | [0.5,-1,0,2,3] | 18446744073709551615 |\n",
            "|   2 | a,\"b\" 日本 | [1,2,3,4,5]    | 18446744073709551615 |\n",
            "|   3 | NULL       | NULL           | 18446744073709551615 |\n",
        ),
    );
    check_format(
        "line",
        concat!(
            "-[ row 1 ]-\n",
            "id   | 1\n",
            "name | lamp\n",
            "v    | [0.5, -1, 0, … 5]\n",
            "big  | 18446744073709551615\n",
            "-[ row 2 ]-\n",
            "id   | 2\n",
            "name | a,\"b\" 日本\n",
            "v    | [1, 2, 3, … 5]\n",
            "big  | 18446744073709551615\n",
            "-[ row 3 ]-\n",
            "id   | 3\n",
            "name | NULL\n",
            "v    | NULL\n",
            "big  | 18446744073709551615\n",
            "(3 rows)\n",
        ),
    );
}

#[test]
fn arrow_streams_carry_types() {
    let home = tempfile::tempdir().unwrap();
    let output = mvvd(home.path())
        .args(["--format", "arrow", "-c", SAMPLE, "-c", "SELECT * FROM t ORDER BY id"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    let reader = arrow::ipc::reader::StreamReader::try_new(output.stdout.as_slice(), None).unwrap();
    let field = reader.schema().field(2).clone();
    assert_eq!(field.metadata().get("mvvd.type").map(String::as_str), Some("VECTOR(5)"));
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
}

#[test]
fn sparse_and_bit_vectors() {
    let script = "CREATE TABLE s (b BITVEC(4), s SPARSEVEC(9), h HALFVEC(2));
        INSERT INTO s VALUES ('0101', '{2:1.5}/9', '[0.5,2]');
        SELECT * FROM s;";
    run(&["--format", "ndjson"], script).is(0, "{\"b\":\"0101\",\"s\":\"{2:1.5}/9\",\"h\":[0.5,2.0]}\n", "");
    run(&["--format", "csv"], script).is(0, "b,s,h\n0101,{2:1.5}/9,\"[0.5,2]\"\n", "");
}

#[test]
fn tags_stay_out_of_data() {
    let script = "CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2); UPDATE t SET a = 3 WHERE a = 1; DELETE FROM t; DROP TABLE t;";
    run(&[], script).is(0, "CREATE TABLE\nINSERT 2\nUPDATE 1\nDELETE 2\nDROP TABLE\n", "");
    for format in ["csv", "tsv", "json", "ndjson", "markdown", "arrow"] {
        run(&["--format", format], script).is(0, "", "");
    }
    run(&["--quiet"], script).is(0, "", "");
}

#[test]
fn a_database_folder_keeps_its_tables() {
    let home = tempfile::tempdir().unwrap();
    let create = "CREATE TABLE t (id BIGINT PRIMARY KEY, v VECTOR(2)); INSERT INTO t VALUES (2, '[3,4]'), (1, '[1,2]')";
    run_in(home.path(), &["-q", "--db", "shop", "-c", create], "").is(0, "", "");
    let query = ["--db", "shop", "--format", "csv", "-c", "SELECT id, v FROM t ORDER BY v <-> '[1,2]' LIMIT 2"];
    run_in(home.path(), &query, "").is(0, "id,v\n1,\"[1,2]\"\n2,\"[3,4]\"\n", "");
    let read_only = ["--db", "shop", "--read-only", "-c", "DELETE FROM t"];
    let ran = run_in(home.path(), &read_only, "");
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.err.contains("the database is open for reading only"), "{ran:?}");
    let missing = run_in(home.path(), &["--db", "nowhere", "--read-only", "-c", "SELECT 1"], "");
    assert!(missing.err.contains("there is no database here"), "{missing:?}");
}

#[test]
fn timing_is_beside_data() {
    let table = run(&["--timing", "-c", "SELECT 1 AS a"], "");
    assert!(table.out.contains("(1 row)\nTime: ") && table.out.ends_with(" ms\n"), "{table:?}");
    let csv = run(&["--timing", "--format", "csv", "-c", "SELECT 1 AS a"], "");
    assert_eq!(csv.out, "a\n1\n");
    assert!(csv.err.starts_with("Time: "), "{csv:?}");
}

#[test]
fn commands_work_in_scripts() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("in.sql"), "SELECT 'inner' AS x;\n\\q\nSELECT 'never' AS x;\n").unwrap();
    let script = format!(
        "{SAMPLE}.mode csv\n\\i in.sql\nSELECT id FROM t -- one\n;\n\\o out.csv\nSELECT name FROM t WHERE id = 1;\n\\o\n\
         \\copy (SELECT id, name FROM t WHERE id < 3) to 'copy.csv'\n\\copy u from copy.csv\n"
    );
    let script = script.replace("\\copy u", "CREATE TABLE u (id BIGINT, name TEXT);\n\\copy u");
    let script = format!(
        "{script}SELECT count(*) AS n FROM u;\n.vectors full\n\\x on\n.mode table\nSELECT v FROM t WHERE id = 1;\n"
    );
    let ran = run_in(home.path(), &["-q"], &script);
    ran.is(0, "x\ninner\nid\n1\n2\n3\nn\n2\n-[ row 1 ]-\nv | [0.5,-1,0,2,3]\n(1 row)\n", "");
    assert_eq!(fs::read_to_string(home.path().join("out.csv")).unwrap(), "name\nlamp\n");
}

#[test]
fn wrong_commands_stop_a_script() {
    run(&["-c", "\\timng"], "").is(
        1,
        "",
        "error: unknown command \\timng\nhint: did you mean \\timing? \\? lists all commands\n",
    );
    run(&[], "SELECT 1 AS number_one;\n\\x maybe\n").is(
        1,
        " number_one\n------------\n          1\n(1 row)\n",
        "<stdin>:2: error: \\x expects on or off, got \"maybe\"\n",
    );
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("loop.sql"), "\\i loop.sql\n").unwrap();
    let ran = run_in(home.path(), &["-f", "loop.sql"], "");
    ran.is(1, "", "loop.sql:1: error: cannot read \"loop.sql\": 16 scripts are open already\n");
}

#[test]
fn describing_tables() {
    let script = format!("{SAMPLE}\\d\n\\d T\n\\df l2_dist*\n\\d tt\n");
    let ran = run(&["-q"], &script);
    assert_eq!(ran.status, 1, "{ran:?}");
    for line in [" t    |    3 |       3 | id\n", " id     | BIGINT    |", " v      | VECTOR(5) |", " l2_distance\n"] {
        assert!(ran.out.contains(line), "{line}{ran:?}");
    }
    assert_eq!(ran.err, "<stdin>:6: error: there is no table \"tt\"\nhint: did you mean \"t\"?\n");
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("latin1.sql"), b"SELECT 1 AS a;\nSELECT '\xe9';\n").unwrap();
    run_in(home.path(), &["-q", "--format", "csv", "-f", "latin1.sql"], "").is(
        1,
        "a\n1\n",
        "error: line 2 of latin1.sql is not UTF-8 text\n",
    );
}

/// A pipe that stays open: each statement is answered as soon as it is complete.
#[test]
fn a_pipe_is_answered_as_it_comes() {
    use std::io::Write;
    let home = tempfile::tempdir().unwrap();
    let mut child =
        mvvd(home.path()).args(["--format", "csv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for i in 0..3 {
        writeln!(stdin, "SELECT {i} AS x;").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "x");
        assert_eq!(lines.next().unwrap().unwrap(), i.to_string());
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_script_with_status_130() {
    use std::process::Command;
    use std::time::Duration;
    let home = tempfile::tempdir().unwrap();
    let child = mvvd(home.path())
        .args(["-c", super::LONG_QUERY, "-c", "SELECT 1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
        (Some(130), &b""[..], &b"cancelled\n"[..])
    );
}
