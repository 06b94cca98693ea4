//! Flipped bytes, encrypted files, and a damaged table beside sound ones.

use super::crashes::{check_crashes, run_workload};
use super::*;

#[test]
fn any_flipped_byte_is_found_or_harmless() {
    let fs = Arc::new(FaultyFs::new());
    let (expected, _) = run_workload(&fs, &options());
    check_flips(&fs.crash_image(0), &expected, &options());
}

/// Changes every byte of every file: the change is found, or the content is the same.
fn check_flips(image: &MemoryFs, expected: &Model, options: &Options) {
    let mut files = Vec::new();
    for folder in ["", "wal", "segments"] {
        for file in image.list(folder).unwrap() {
            let path = if folder.is_empty() { file } else { format!("{folder}/{file}") };
            if path != "LOCK" && image.len(&path).is_ok() {
                files.push(path);
            }
        }
    }
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        for offset in 0..image.len(&path).unwrap() {
            let damaged = FaultyFs::from_image(image);
            damaged.flip_byte(&path, offset);
            let damaged = Arc::new(damaged.crash_image(0));
            match Database::open(damaged, options.clone()).and_then(|database| content(&database)) {
                Ok(found) => assert_eq!(&found, expected, "byte {offset} of {path}"),
                Err(e) => {
                    let file = path.rsplit('/').next().unwrap();
                    assert!(e.to_string().contains(file), "byte {offset} of {path}: {e}");
                    assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{e}");
                }
            }
        }
    }
}

/// A workload that leaves rows in a segment, in the manifest and in the log.
fn small_workload() -> Vec<Step> {
    let t = || "secretive".to_owned();
    vec![
        Step::Create(t()),
        Step::Upsert(t(), (0..8).collect(), "plaintext".into()),
        Step::Checkpoint,
        Step::Delete(t(), vec![2]),
        Step::Checkpoint,
        Step::Upsert(t(), vec![20, 21], "plaintext".into()),
    ]
}

#[test]
fn nothing_of_an_encrypted_database_is_readable() {
    for (options, is_sealed) in [(sealed_options(), true), (options(), false)] {
        let fs = Arc::new(FaultyFs::new());
        let (expected, unfinished) = run_steps(&fs, &small_workload(), &options);
        assert!(unfinished.is_none());
        let files = fs.crash_image(0).files();
        for kind in ["MANIFEST", "segments/", "wal/"] {
            let of_kind = || files.iter().filter(|(path, _)| path.starts_with(kind));
            let has = |word: &[u8]| of_kind().any(|(_, bytes)| bytes.windows(word.len()).any(|part| part == word));
            assert!(of_kind().count() > 0, "no file {kind}");
            let words: &[&[u8]] = if kind == "MANIFEST" { &[b"secretive"] } else { &[b"plaintext"] };
            assert!(words.iter().all(|word| has(word) != is_sealed), "{kind}, sealed: {is_sealed}");
            assert!(!is_sealed || !has(b"secretive"), "{kind}");
        }
        assert_eq!(files.contains_key("KEYS"), is_sealed);
        let database = Database::open(Arc::new(fs.crash_image(0)), options).unwrap();
        assert_eq!(content(&database).unwrap(), expected);
    }
}

#[test]
fn any_flipped_byte_of_an_encrypted_database_is_found() {
    let fs = Arc::new(FaultyFs::new());
    let (expected, _) = run_steps(&fs, &small_workload(), &sealed_options());
    check_flips(&fs.crash_image(0), &expected, &sealed_options());
}

#[test]
fn an_encrypted_database_survives_a_crash_at_any_step() {
    let whole = Arc::new(FaultyFs::new());
    run_steps(&whole, &small_workload(), &sealed_options());
    check_crashes(whole.steps(), &small_workload(), &sealed_options());
}

#[test]
fn a_damaged_table_does_not_hold_up_the_others() {
    let memory = MemoryFs::new();
    let fs: Arc<dyn FileSystem> = Arc::new(memory.clone());
    let database = Database::open(Arc::clone(&fs), Options { versions_kept: 0, ..tiny() }).unwrap();
    for name in ["a", "b"] {
        database.create(name, schema()).unwrap();
    }
    append(&database, "a", 0..60);
    let table = database.table("a").unwrap();
    let rows: Vec<RowId> = {
        let head = table.head();
        (0..40).map(|key| head.row_id(head.find(&Key::Int(key)).unwrap().unwrap())).collect()
    };
    table.delete(&rows).unwrap().wait().unwrap();
    let file = segment_path(table.head().chunks[0].segment().unwrap().meta().id);
    drop(table);
    database.close().unwrap();
    let mut bytes = fs.read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.put(&file, bytes);

    let database = Database::open(fs, Options { versions_kept: 0, ..tiny() }).unwrap();
    // Small statements, which stay in memory until there are so many.
    for part in 0..12 {
        append(&database, "b", 10 * part..10 * part + 5);
    }
    assert!(database.table("b").unwrap().unflushed_bytes() > 1_000);
    let before = manifest_number(&database);
    let e = database.shared.maintain().unwrap_err();
    assert!(e.to_string().contains("table \"a\""), "{e}");
    assert_eq!(database.table("b").unwrap().unflushed_bytes(), 0);
    assert!(manifest_number(&database) > before);
    append(&database, "b", 1_000..1_001);
    assert_eq!(database.table("b").unwrap().snapshot().live(), 61);
}
