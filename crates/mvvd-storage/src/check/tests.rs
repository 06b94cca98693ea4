use super::*;
use crate::Database;
use crate::database::tests::{Step, batch, content, options, run_steps, schema, sealed_options, workload};
use crate::fs::{FaultyFs, MemoryFs};

fn as_dyn(fs: &MemoryFs) -> Arc<dyn FileSystem> {
    Arc::new(fs.clone())
}

/// Two tables: one in two segments of 20 rows with 5 of the first deleted, one in one; and a row in the log.
fn sample(options: &Options) -> MemoryFs {
    let fs = Arc::new(FaultyFs::new());
    let a = || "a".to_owned();
    let steps = [
        Step::Create(a()),
        Step::Upsert(a(), (0..20).collect(), "x".into()),
        Step::Checkpoint,
        Step::Upsert(a(), (20..40).collect(), "y".into()),
        Step::Delete(a(), (0..5).collect()),
        Step::Create("b".into()),
        Step::Upsert("b".into(), vec![1, 2], "z".into()),
        Step::Checkpoint,
        Step::Upsert(a(), vec![50], "in the log".into()),
    ];
    assert!(run_steps(&fs, &steps, options).1.is_none());
    fs.crash_image(1)
}

fn damage(fs: &MemoryFs, path: &str, at: impl Fn(usize) -> usize) {
    let mut bytes = fs.read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs.put(path, bytes);
}

#[test]
fn a_sound_database_has_no_problems() {
    for options in [options(), sealed_options()] {
        let fs = sample(&options);
        let before = fs.files();
        let checked = check(&as_dyn(&fs), &options).unwrap();
        assert_eq!((checked.problems.as_slice(), checked.orphans.as_slice()), (&[][..], &[][..]));
        let rows: Vec<_> = checked.tables.iter().map(|t| (t.name.as_str(), t.rows, t.deleted, t.segments)).collect();
        assert_eq!(rows, [("a", 36, 5, 2), ("b", 2, 0, 1)]);
        assert!(checked.log_records > 0);
        assert_eq!(fs.files(), before, "a check writes nothing");
        let whole = Arc::new(FaultyFs::new());
        run_steps(&whole, &workload(), &options);
        assert!(check(&as_dyn(&whole.crash_image(3)), &options).unwrap().problems.is_empty());
    }
}

#[test]
fn any_flipped_byte_of_a_segment_or_the_manifest_is_a_problem_of_that_file() {
    for options in [options(), sealed_options()] {
        let image = sample(&options);
        for path in ["segments/000000000001.seg", "MANIFEST"] {
            let bytes = image.read(path).unwrap();
            for at in (0..bytes.len()).step_by(7) {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x01;
                image.put(path, bytes);
                let checked = check(&as_dyn(&image), &options).unwrap();
                let [problem] = checked.problems.as_slice() else { panic!("byte {at} of {path}: {checked:?}") };
                assert_eq!(problem.file.as_deref(), Some(path), "byte {at}: {problem:?}");
            }
            image.put(path, bytes);
        }
    }
}

#[test]
fn a_damaged_log_is_a_problem() {
    let fs = sample(&options());
    let log = fs.list("wal").unwrap().pop().unwrap();
    damage(&fs, &format!("wal/{log}"), |len| len / 2);
    let checked = check(&as_dyn(&fs), &options()).unwrap();
    assert_eq!(checked.problems.len(), 1, "{checked:?}");
    assert!(checked.problems[0].message.contains(&log), "{checked:?}");
    assert_eq!(repair(&as_dyn(&fs), &options(), &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn repair_takes_out_what_is_damaged_and_keeps_the_rest() {
    for options in [options(), sealed_options()] {
        let fs = sample(&options);
        let whole = content(&Database::open(as_dyn(&sample(&options)), options.clone()).unwrap()).unwrap();
        damage(&fs, "segments/000000000001.seg", |len| len / 2);
        fs.put("segments/000000000099.seg", b"left by a crash".to_vec());
        fs.put("MANIFEST.tmp", Vec::new());
        let mut told = Vec::new();
        let repaired = repair(&as_dyn(&fs), &options, &mut |lost| {
            told.extend_from_slice(lost);
            Ok(())
        })
        .unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].table.as_str(), told[0].rows), ("a", 15));
        let moved = ("segments/000000000001.seg".to_owned(), Some("damaged/000000000001.seg".to_owned()));
        assert_eq!(repaired.moved, [moved]);
        assert_eq!(repaired.removed, ["segments/000000000099.seg", "MANIFEST.tmp"]);
        assert!(fs.exists("damaged/000000000001.seg").unwrap());

        let checked = check(&as_dyn(&fs), &options).unwrap();
        assert!(checked.problems.is_empty() && checked.orphans.is_empty(), "{checked:?}");
        let left = content(&Database::open(as_dyn(&fs), options.clone()).unwrap()).unwrap();
        let mut expected = whole;
        expected.get_mut("a").unwrap().retain(|key, _| *key >= 20);
        assert_eq!(left, expected);
        // Nothing is left to do.
        let again = repair(&as_dyn(&fs), &options, &mut |lost| panic!("{lost:?}")).unwrap();
        assert_eq!(again, Repaired::default());
    }
}

#[test]
fn a_missing_segment_can_be_taken_out_and_a_refusal_changes_nothing() {
    let fs = sample(&options());
    fs.remove("segments/000000000001.seg").unwrap();
    let refused = repair(&as_dyn(&fs), &options(), &mut |_| Err(mvvd_core::Error::invalid("no")));
    assert_eq!(refused.unwrap_err().message(), "no");
    assert_eq!(check(&as_dyn(&fs), &options()).unwrap().damaged.len(), 1);
    let repaired = repair(&as_dyn(&fs), &options(), &mut |_| Ok(())).unwrap();
    assert_eq!(repaired.moved, [("segments/000000000001.seg".to_owned(), None)]);
    assert!(check(&as_dyn(&fs), &options()).unwrap().problems.is_empty());
}

#[test]
fn a_key_in_two_segments_is_a_problem_of_the_table() {
    let fs = MemoryFs::new();
    let database = Database::open(as_dyn(&fs), options()).unwrap();
    let table = database.create("t", schema()).unwrap();
    for key in [1, 2] {
        table.append(&[batch(&[(key, "x".into())])]).unwrap().wait().unwrap();
        database.checkpoint().unwrap();
    }
    database.close().unwrap();
    // Both entries of the manifest name the same segment: every byte is sound, the rows are not.
    let mut manifest = crate::manifest::Manifest::read(&fs, None).unwrap().unwrap();
    let segments = &mut manifest.tables.values_mut().next().unwrap().segments;
    segments[1].meta = segments[0].meta.clone();
    manifest.write(&fs, None).unwrap();
    let checked = check(&as_dyn(&fs), &options()).unwrap();
    let path = "segments/000000000001.seg";
    let message = format!("key 1 comes twice: in {path} and in {path}");
    assert_eq!(checked.problems, [Problem { table: Some("t".into()), file: None, message }]);
}

#[test]
fn no_database_and_a_wrong_key_are_errors() {
    let empty = as_dyn(&MemoryFs::new());
    assert_eq!(check(&empty, &options()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(repair(&empty, &options(), &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    let sealed = as_dyn(&sample(&sealed_options()));
    assert_eq!(check(&sealed, &options()).unwrap_err().kind(), ErrorKind::Invalid);
}
