//! `mvvd check`, `stats`, `backup`, `restore`, `rotate-key`, and keys on the command line.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Ran, run_in};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const SHOP: &str = "CREATE TABLE shop (id BIGINT PRIMARY KEY, name TEXT, v VECTOR(2));
INSERT INTO shop VALUES (1, 'lamp-for-the-desk', '[1,2]'), (2, 'chair', '[3,4]');
CREATE TABLE notes (text TEXT);
INSERT INTO notes VALUES ('one'), ('two');
";

/// A home with the files `key` and `other`.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a temporary folder");
    fs::write(home.path().join("key"), format!("{KEY}\n")).expect("a file in it");
    fs::write(home.path().join("other"), OTHER).expect("a file in it");
    home
}

fn args(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[track_caller]
fn ok(home: &Path, line: &str, input: &str) -> String {
    let ran = run_in(home, &args(line), input);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "mvvd {line}: {ran:?}");
    ran.out
}

#[track_caller]
fn refused(home: &Path, line: &str, message: &str) -> Ran {
    let ran = run_in(home, &args(line), "SELECT 1");
    assert_eq!((ran.status, ran.out.as_str()), (1, ""), "mvvd {line}: {ran:?}");
    assert!(ran.err.contains(message), "mvvd {line}: {ran:?}");
    assert!(!ran.err.contains(KEY) && !ran.err.contains(OTHER), "{ran:?}");
    ran
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

const QUERY: &str = "SELECT id, name, v FROM shop ORDER BY id";
const ROWS: &str = "id,name,v\n1,lamp-for-the-desk,\"[1,2]\"\n2,chair,\"[3,4]\"\n";

#[test]
fn a_key_opens_its_database_and_nothing_else() {
    let home = home();
    let home = home.path();
    ok(home, "-q --db d --key-file key", SHOP);
    assert_eq!(ok(home, "--db d --key-file key --format csv", QUERY), ROWS);
    for file in files(&home.join("d")) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(4).any(|part| part == b"lamp"), "{}", file.display());
    }
    let before: Vec<_> = files(&home.join("d")).iter().map(|file| fs::read(file).unwrap()).collect();
    refused(home, "--db d", "the database is encrypted, and no key was given\nhint: name its key with --key-file");
    refused(home, "--db d --key-file other", "the encryption key does not fit this database");
    refused(home, "--db d --key-file missing", "no encryption key: cannot read \"missing\"");
    refused(home, "--db new --key-env MVVD_NO_SUCH_KEY", "no encryption key in environment variable MVVD_NO_SUCH_KEY");
    assert!(!home.join("new").exists());
    let after: Vec<_> = files(&home.join("d")).iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(before, after);
    ok(home, "-q --db p", SHOP);
    refused(home, "--db p --key-file key", "the database is not encrypted, but a key was given");
    let mut with_variable = super::mvvd(home);
    with_variable.env("MY_KEY", KEY).args(["--db", "d", "--key-env", "MY_KEY", "-q", "-c", QUERY]);
    assert!(with_variable.output().unwrap().status.success());
}

#[test]
fn keys_rotate() {
    let home = home();
    let home = home.path();
    ok(home, "-q --db d --key-file key", SHOP);
    let said = ok(home, "rotate-key --db d --key-file key --new-key-file other --data", "");
    assert_eq!(said, "the database opens with the new key only\ndata key 2 encrypts what is written from now on\n");
    refused(home, "--db d --key-file key", "does not fit");
    assert_eq!(ok(home, "--db d --key-file other --format csv", QUERY), ROWS);
    ok(home, "-q --db p", SHOP);
    refused(home, "rotate-key --db p --key-file key --new-key-file other", "the database is not encrypted");
    refused(home, "rotate-key --db d --new-key-file key", "no key was given");
}

#[test]
fn check_finds_damage_and_repair_takes_it_out() {
    let home = home();
    let home = home.path();
    ok(home, "-q --db d", SHOP);
    // A backup has its rows in segments.
    ok(home, "-q backup --db d --to s", "");
    let clean = ok(home, "check --db s", "");
    assert!(clean.contains(" shop  |    2 |       0 |        1 |"), "{clean}");
    assert!(clean.ends_with("log: 0 records read\nno problems\n"), "{clean}");

    let segment = files(&home.join("s/segments")).pop().unwrap();
    let name = format!("segments/{}", segment.file_name().unwrap().to_str().unwrap());
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    fs::write(home.join("s/segments/000000000077.seg"), "left").unwrap();
    let found = run_in(home, &args("check --db s"), "");
    assert_eq!((found.status, found.err.as_str()), (1, ""), "{found:?}");
    assert!(found.out.contains("note: segments/000000000077.seg belongs to nothing"), "{found:?}");
    assert!(found.out.contains("problem: table \"shop\": 2 rows cannot be read: file \""), "{found:?}");
    assert!(found.out.contains(&name) && found.out.ends_with("\n1 problem\n"), "{found:?}");
    refused(home, "restore --from s --db r", "the backup is damaged");
    assert!(!home.join("r").exists());

    let repaired = ok(home, "check --db s --repair", "");
    assert!(repaired.contains(&format!("table \"shop\": 2 rows are lost with {name}\n")), "{repaired}");
    assert!(repaired.contains(&format!("moved {name} to damaged/")), "{repaired}");
    assert!(repaired.contains("removed segments/000000000077.seg\n"), "{repaired}");
    assert!(repaired.ends_with("no problems\n"), "{repaired}");
    assert_eq!(
        ok(home, "--db s --format csv", "SELECT count(*) AS n FROM shop; SELECT * FROM notes"),
        "n\n0\ntext\none\ntwo\n"
    );
    refused(home, "check --db nothing", "there is no database here");
    assert!(!home.join("nothing").exists());
}

#[test]
fn stats_are_a_table_or_json() {
    let home = home();
    let home = home.path();
    ok(home, "-q --db d", SHOP);
    let shown = ok(home, "stats --db d", "");
    assert!(shown.contains(" files    | bytes\n") && shown.contains(" table | version | rows | in log |"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&ok(home, "stats --db d --json", "")).unwrap();
    assert_eq!(json["tables"][1]["name"], "shop");
    assert_eq!((&json["tables"][1]["rows"], &json["tables"][1]["rows_in_log"]), (&2.into(), &2.into()));
    assert!(json["log_bytes"].as_u64().unwrap() > 100, "{json}");
    assert_eq!(json["key_bytes"], 0);
}

#[test]
fn backups_are_databases() {
    let home = home();
    let home = home.path();
    ok(home, "-q --db d --key-file key", SHOP);
    ok(home, "-q --db d --key-file key", "DELETE FROM notes WHERE text = 'one'; INSERT INTO notes VALUES ('three')");
    let said = ok(home, "backup --db d --key-file key --to copies/b", "");
    assert!(said.starts_with("copied 2 tables, 4 rows, in 2 segments of "), "{said}");
    assert_eq!(ok(home, "--db copies/b --key-file key --format csv", QUERY), ROWS);
    refused(home, "--db copies/b", "the database is encrypted");
    ok(home, "-q backup --db d --key-file key --to other-key --to-key-file other", "");
    assert_eq!(ok(home, "--db other-key --key-file other --format csv", QUERY), ROWS);
    ok(home, "-q backup --db d --key-file key --to plain --plain", "");
    assert_eq!(ok(home, "--db plain --format csv", QUERY), ROWS);

    ok(home, "-q restore --from copies/b --db r --key-file key", "");
    let script = "INSERT INTO notes VALUES ('four'); SELECT text FROM notes; SELECT name, rows FROM mvvd.tables";
    let rows = ok(home, "-q --db r --key-file key --format csv", script);
    assert_eq!(rows, "text\ntwo\nthree\nfour\nname,rows\nnotes,3\nshop,2\n");
    let segments = "SELECT table_name, rows, deleted, columns FROM mvvd.segments ORDER BY table_name;
                    SELECT value FROM mvvd.settings WHERE name = 'storage.encrypted'";
    let rows = ok(home, "-q --db copies/b --read-only --key-file key --format csv", segments);
    assert_eq!(rows, "table_name,rows,deleted,columns\nnotes,2,0,2\nshop,2,0,3\nvalue\ntrue\n");

    refused(home, "backup --db d --key-file key --to r", "folder \"r\" is not empty");
    refused(home, "restore --from copies/b --key-file key --db d", "folder \"d\" is not empty");
    refused(home, "backup --db nothing --to x", "there is no database here");
    refused(home, "backup --db d --to x", "the database is encrypted");
    let left: Vec<_> = fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("part") || name == "x" || name == "nothing"), "{left:?}");
}
