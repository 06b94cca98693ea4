use super::*;
use crate::check;
use crate::database::tests::{Step, batch, content, options, run_steps, schema, sealed_options, workload};
use crate::fs::{FaultyFs, MemoryFs};
use mvvd_core::ErrorKind;

/// A database that has seen flushes, compactions, deletions and renames.
fn source(options: &Options) -> Database {
    let fs = Arc::new(FaultyFs::new());
    let mut steps = workload();
    steps.push(Step::Create("empty".into()));
    steps.push(Step::Upsert("a".into(), vec![7, 200], "last".into()));
    assert!(run_steps(&fs, &steps, options).1.is_none());
    Database::open(Arc::new(fs.crash_image(0)), Options { read_only: true, ..options.clone() }).unwrap()
}

fn versions(database: &Database) -> Vec<(String, u64, u32, u64, u64)> {
    let numbers = |(name, table): (String, Arc<Table>)| {
        let (writer, version) = (table.writer(), table.snapshot().version());
        (name, version, writer.next_uid, writer.next_number, table.log().table)
    };
    database.tables().into_iter().map(numbers).collect()
}

#[test]
fn a_copy_has_the_same_rows_versions_and_numbers() {
    for from_options in [options(), sealed_options()] {
        let from = source(&from_options);
        for to_options in [options(), sealed_options()] {
            let to = MemoryFs::new();
            let mut heard = Vec::new();
            let key = CopyOptions { key: to_options.key.clone() };
            let copied = copy(&from, Arc::new(to.clone()), &key, &mut |done, of| heard.push((done, of))).unwrap();
            assert_eq!((heard.first(), heard.last()), (Some(&(0, copied.rows)), Some(&(copied.rows, copied.rows))));
            assert_eq!(to.exists("KEYS").unwrap(), to_options.key.is_some());
            let checked = check(&(Arc::new(to.clone()) as Arc<dyn FileSystem>), &to_options).unwrap();
            assert!(checked.problems.is_empty() && checked.orphans.is_empty(), "{checked:?}");
            assert_eq!(checked.log_records, 0);
            assert!(checked.tables.iter().all(|table| table.deleted == 0));

            let mut copy = Database::open(Arc::new(to.clone()), to_options.clone()).unwrap();
            assert_eq!(content(&copy).unwrap(), content(&from).unwrap());
            for (new, old) in versions(&copy).iter().zip(versions(&from)) {
                assert_eq!((&new.0, new.1, new.3, new.4), (&old.0, old.1, old.3, old.4));
                assert!(new.2 >= old.2);
            }
            // It goes on as any database.
            copy.create("new", schema()).unwrap();
            let rows = batch(&[(1000, "more".into())]);
            copy.table("a").unwrap().append(&[rows]).unwrap().wait().unwrap();
            std::mem::take(&mut copy).close().unwrap();
            let copy = Database::open(Arc::new(to), to_options).unwrap();
            assert_eq!(content(&copy).unwrap()["a"][&1000], "more");
            assert!(copy.find("new").is_some());
        }
    }
}

#[test]
fn a_database_in_memory_can_be_copied() {
    let from = Database::memory();
    for name in ["x", "y"] {
        let table = from.create(name, schema()).unwrap();
        table.append(&[batch(&[(1, name.into())])]).unwrap().wait().unwrap();
    }
    let to = MemoryFs::new();
    copy(&from, Arc::new(to.clone()), &CopyOptions::default(), &mut |_, _| ()).unwrap();
    let copy = Database::open(Arc::new(to), options()).unwrap();
    assert_eq!(content(&copy).unwrap(), content(&from).unwrap());
}

#[test]
fn a_target_with_files_is_refused_and_a_full_one_is_an_error() {
    let from = source(&options());
    let to = MemoryFs::new();
    to.put("notes.txt", Vec::new());
    let e = copy(&from, Arc::new(to), &CopyOptions::default(), &mut |_, _| ()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    for bytes in (0..4000).step_by(333) {
        let to = FaultyFs::new();
        to.disk_full_after(bytes);
        assert!(copy(&from, Arc::new(to), &CopyOptions::default(), &mut |_, _| ()).is_err(), "{bytes}");
    }
}

#[test]
fn a_database_is_copied_while_it_is_written() {
    let fs = MemoryFs::new();
    let writer = Database::open(Arc::new(fs.clone()), options()).unwrap();
    let table = writer.create("t", schema()).unwrap();
    let done = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Each statement adds a pair, so an odd number of rows is half a statement.
            for i in (0..400).step_by(2) {
                table.append(&[batch(&[(i, "x".into()), (i + 1, "x".into())])]).unwrap().wait().unwrap();
                if i % 6 == 0 {
                    writer.compact().unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut last = 0;
        while !done.load(Ordering::Relaxed) {
            let read_only = Options { read_only: true, ..options() };
            let from = Database::open(Arc::new(fs.clone()), read_only).unwrap();
            let to = MemoryFs::new();
            copy(&from, Arc::new(to.clone()), &CopyOptions::default(), &mut |_, _| ()).unwrap();
            let copy = Database::open(Arc::new(to), options()).unwrap();
            let rows = content(&copy).unwrap().get("t").map_or(0, |rows| rows.len());
            assert!(rows.is_multiple_of(2) && rows >= last, "{rows} after {last}");
            last = rows;
        }
    });
}
