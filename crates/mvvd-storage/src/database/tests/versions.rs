//! Rows and versions that move to segments: names of rows, and tables as they were.

use super::*;

#[test]
fn rows_keep_their_names_through_a_flush() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(fs, options()).unwrap();
    let table = database.create("t", schema()).unwrap();
    let rows: Vec<(i64, String)> = (0..10).rev().map(|i| (i, format!("{i}"))).collect();
    table.append(&[batch(&rows)]).unwrap().wait().unwrap();
    let head = table.head();
    let row = head.row_id(head.find(&Key::Int(4)).unwrap().unwrap());
    // A statement has read the row; a flush and a compaction come between.
    database.checkpoint().unwrap();
    table.append(&[batch(&[(20, "x".into())])]).unwrap().wait().unwrap();
    database.compact().unwrap();
    assert_eq!(table.take(&[row]).unwrap().column(0).as_primitive::<Int64Type>().value(0), 4);
    table.delete(&[row]).unwrap().wait().unwrap();
    assert!(table.snapshot().find(&Key::Int(4)).unwrap().is_none());
    assert_eq!(table.delete(&[row]).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(table.snapshot().live(), 10);
}

/// The numbers and times of all versions.
fn times(database: &Database) -> Vec<(String, u64, i64)> {
    let of = |(name, table): (String, Arc<Table>)| {
        table.versions().into_iter().map(move |snapshot| (name.clone(), snapshot.version(), snapshot.created()))
    };
    database.tables().into_iter().flat_map(of).collect()
}

#[test]
fn versions_are_what_they_were_after_a_reopening() {
    // A version came back only if all its rows were in segments when the manifest was written.
    let upsert = |keys: std::ops::Range<i64>, text: &str| Step::Upsert("t".into(), keys.collect(), text.into());
    let steps = [
        upsert(0..9, "a"),
        upsert(3..5, "b"),
        upsert(3..5, "c"),
        Step::Alter("t".into(), None, "m".into()),
        upsert(3..8, "d"),
        Step::Delete("t".into(), vec![0, 1]),
        Step::Alter("t".into(), None, "m".into()),
        Step::Truncate("t".into()),
    ];
    // After how many of the steps rows go to segments: never, early, late, and both.
    for moved in [vec![], vec![2], vec![8], vec![1, 5], vec![3, 7], (0..=8).collect::<Vec<usize>>()] {
        for then in [Step::Checkpoint, Step::Compact, Step::Maintain] {
            let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
            let open = || Database::open(Arc::clone(&fs), options());
            let mut database = open().unwrap();
            database.create("t", schema()).unwrap();
            let model = Model::from([("t".to_owned(), Rows::new())]);
            let (mut model, mut versions) =
                (model.clone(), Past::from([("t".to_owned(), BTreeMap::from([(0, Rows::new())]))]));
            for (i, step) in steps.iter().enumerate() {
                if moved.contains(&i) {
                    then.run(&mut database, &open).unwrap();
                }
                model = step.apply(&model).unwrap();
                versions = step.apply_past(&versions, &model, VERSIONS_KEPT);
                step.run(&mut database, &open).unwrap();
            }
            if moved.contains(&steps.len()) {
                then.run(&mut database, &open).unwrap();
            }
            assert_eq!(past(&database).unwrap(), versions, "{then:?} at {moved:?}");
            let before = times(&database);
            for _ in 0..2 {
                Step::Reopen.run(&mut database, &open).unwrap();
                assert_eq!(past(&database).unwrap(), versions, "{then:?} at {moved:?}, reopened");
                assert_eq!(times(&database), before);
            }
        }
    }
}

#[test]
fn versions_of_a_table_without_a_key_are_kept() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(Arc::clone(&fs), options()).unwrap();
    let fields = vec![(Field::new("n", DataType::Int64, true), None)];
    let table = database.create("t", TableSchema::new(fields, None, false).unwrap()).unwrap();
    for n in 0..4 {
        let rows = Int64Array::from_iter_values([n, n]);
        let batch = RecordBatch::try_new(Arc::clone(table.head().schema().arrow()), vec![Arc::new(rows)]).unwrap();
        table.append(&[batch]).unwrap().wait().unwrap();
        let head = table.head();
        let first = head.row_id(crate::Place { chunk: 0, ordinal: 0 });
        if let Ok(commit) = table.delete(&[first]) {
            commit.wait().unwrap();
        }
        if n == 2 {
            database.checkpoint().unwrap();
        }
    }
    let rows = |database: &Database| -> Vec<(u64, usize)> {
        let versions = database.table("t").unwrap().versions();
        versions.iter().map(|snapshot| (snapshot.version(), snapshot.live())).collect()
    };
    let before = rows(&database);
    assert_eq!(before[..6], [(0, 0), (1, 2), (2, 1), (3, 3), (4, 2), (5, 4)]);
    database.checkpoint().unwrap();
    assert_eq!(rows(&database), before);
    drop(table);
    database.close().unwrap();
    assert_eq!(rows(&Database::open(fs, options()).unwrap()), before);
}

#[test]
fn versions_are_right_while_rows_move() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(Arc::clone(&fs), options()).unwrap();
    let table = database.create("t", schema()).unwrap();
    // Version v sets key v % 7 to v.
    let expected = |version: u64| -> Rows {
        let last = |key: u64| (0..7).map(|back| version.saturating_sub(back)).find(|v| *v > 0 && v % 7 == key);
        (0..7).filter_map(|key| Some((key as i64, format!("{}", last(key)?)))).collect()
    };
    let check = |table: &Table| {
        let versions = table.versions();
        for snapshot in &versions {
            assert_eq!(rows_of(snapshot).unwrap(), expected(snapshot.version()), "version {}", snapshot.version());
        }
        versions.len()
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                database.checkpoint().unwrap();
                database.compact().unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                check(&table);
            }
        });
        for version in 1..=400_u64 {
            let key = (version % 7) as i64;
            let head = table.head();
            let old = head.find(&Key::Int(key)).unwrap().map(|place| head.row_id(place));
            table.replace(old.as_slice(), &[batch(&[(key, format!("{version}"))])]).unwrap().wait().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(check(&table), VERSIONS_KEPT + 1);
    drop(table);
    database.close().unwrap();
    assert_eq!(check(&Database::open(fs, options()).unwrap().table("t").unwrap()), VERSIONS_KEPT + 1);
}
