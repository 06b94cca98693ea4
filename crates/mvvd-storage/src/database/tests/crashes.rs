//! Crashed at every step of the file system, failed syncs, a full disk: what was acknowledged is there.

use super::*;

/// Statements of every kind, with flushes and compactions between them.
pub(crate) fn workload() -> Vec<Step> {
    let a = || "a".to_owned();
    let b = || "b".to_owned();
    vec![
        Step::Create(a()),
        Step::Upsert(a(), (0..30).collect(), "first".into()),
        Step::Create(b()),
        Step::Upsert(b(), vec![7, 3, 5], "b".into()),
        Step::Checkpoint,
        Step::Upsert(a(), (20..40).rev().collect(), "second".into()),
        Step::Delete(a(), vec![1, 2, 3, 21]),
        Step::Checkpoint,
        Step::Delete(a(), vec![0, 25]),
        Step::Upsert(a(), vec![0, 1], "third".into()),
        Step::Compact,
        Step::Rename(b(), "c".into()),
        Step::Truncate("c".into()),
        Step::Upsert("c".into(), vec![1], "c".into()),
        Step::Reopen,
        Step::Upsert(a(), vec![100], "fourth".into()),
        Step::Drop("c".into()),
        Step::Checkpoint,
        Step::Delete(a(), vec![100]),
        Step::Upsert(a(), (0..60).collect(), "many".into()),
        Step::Create(b()),
        Step::Upsert(b(), vec![1], "one".into()),
        Step::Maintain,
        Step::Upsert(a(), (10..70).collect(), "more".into()),
        Step::Upsert(b(), (5..60).collect(), "bulk".into()),
        Step::Maintain,
        Step::Upsert(b(), (1..20).collect(), "again".into()),
        Step::Reopen,
        Step::Maintain,
        Step::Delete(b(), (7..20).collect()),
    ]
}

/// Statements that change several tables, or more than one thing of a table.
fn wide_workload() -> Vec<Step> {
    let (a, b, d) = (|| "a".to_owned(), || "b".to_owned(), || "d".to_owned());
    vec![
        Step::Create(a()),
        Step::Create(b()),
        Step::Upsert(a(), (0..5).collect(), "a".into()),
        Step::Upsert(b(), (0..40).collect(), "b".into()),
        Step::TruncateAll(vec![b(), a()]),
        Step::Upsert(b(), vec![1, 2], "again".into()),
        Step::Alter(b(), Some(d()), "m".into()),
        Step::Checkpoint,
        Step::Upsert(d(), vec![2, 3], "wide".into()),
        Step::Upsert(a(), vec![1], "a".into()),
        Step::Alter(d(), Some(b()), "m".into()),
        Step::Maintain,
        Step::Reopen,
        Step::TruncateAll(vec![a(), b()]),
        Step::Maintain,
        Step::Upsert(b(), vec![1], "last".into()),
    ]
}

/// Runs the workload until it fails; what was acknowledged, and what the statement under way would have made.
pub(super) fn run_workload(fs: &Arc<FaultyFs>, options: &Options) -> (Model, Option<Model>) {
    run_steps(fs, &workload(), options)
}

pub(crate) fn run_steps(fs: &Arc<FaultyFs>, steps: &[Step], options: &Options) -> (Model, Option<Model>) {
    let (done, under_way) = run_steps_with_past(fs, steps, options);
    (done.0, under_way.map(|(model, _)| model))
}

/// Tables as they are and as they were: after the steps that succeeded, and after the one that did not.
type Ran = ((Model, Past), Option<(Model, Past)>);

fn run_steps_with_past(fs: &Arc<FaultyFs>, steps: &[Step], options: &Options) -> Ran {
    let (mut model, mut past) = (Model::new(), Past::new());
    let as_dyn: Arc<dyn FileSystem> = Arc::<FaultyFs>::clone(fs);
    let open = || Database::open(Arc::clone(&as_dyn), options.clone());
    let Ok(mut database) = open() else { return ((model, past), None) };
    for step in steps {
        let next = step.apply(&model).expect("the workload has no refused step");
        let next_past = step.apply_past(&past, &next, options.versions_kept);
        match step.run(&mut database, &open) {
            Ok(()) => (model, past) = (next, next_past),
            Err(_) => return ((model, past), Some((next, next_past))),
        }
    }
    ((model, past), None)
}

#[test]
fn a_crash_at_any_step_loses_nothing_acknowledged() {
    crash_everywhere(&workload(), &options());
}

#[test]
fn a_crash_at_any_step_loses_nothing_acknowledged_when_statements_write_segments() {
    crash_everywhere(&workload(), &tiny());
}

#[test]
fn a_crash_at_any_step_shows_all_or_nothing_of_a_statement() {
    crash_everywhere(&wide_workload(), &options());
    crash_everywhere(&wide_workload(), &tiny());
}

fn crash_everywhere(workload: &[Step], options: &Options) {
    let whole = Arc::new(FaultyFs::new());
    let (expected, unfinished) = run_steps(&whole, workload, options);
    assert!(unfinished.is_none());
    let steps = whole.steps();
    assert!(steps > 50, "the workload has {steps} steps");
    assert_eq!(content(&Database::open(Arc::new(whole.crash_image(1)), options.clone()).unwrap()).unwrap(), expected);
    check_crashes(steps, workload, options);
}

/// Crashes the steps at every step of the file system, and opens what is left.
pub(super) fn check_crashes(crashes: u64, steps: &[Step], options: &Options) {
    for step in 1..=crashes {
        let fs = Arc::new(FaultyFs::new());
        fs.crash_at(step);
        let (acknowledged, under_way) = run_steps_with_past(&fs, steps, options);
        for seed in 0..4 {
            let image: Arc<dyn FileSystem> = Arc::new(fs.crash_image(seed));
            let database = Database::open(Arc::clone(&image), options.clone())
                .unwrap_or_else(|e| panic!("crash at step {step}, seed {seed}: does not open: {e}"));
            let found = (content(&database).unwrap(), past(&database).unwrap());
            assert!(
                found == acknowledged || under_way.as_ref() == Some(&found),
                "crash at step {step}, seed {seed}:\n acknowledged {acknowledged:?}\n under way {under_way:?}\n found {found:?}"
            );
            if seed > 1 {
                continue;
            }
            database.shared.maintain().unwrap();
            drop(database);
            let again = Database::open(image, options.clone())
                .unwrap_or_else(|e| panic!("crash at step {step}, seed {seed}: does not open twice: {e}"));
            let found_again = (content(&again).unwrap(), past(&again).unwrap());
            assert_eq!(found_again, found, "crash at step {step}, seed {seed}: opened twice");
        }
    }
}

#[test]
fn after_a_failed_sync_reads_go_on_and_writes_are_refused() {
    for n in 1.. {
        let fs = Arc::new(FaultyFs::new());
        fs.fail_sync_at(n);
        let as_dyn: Arc<dyn FileSystem> = Arc::<FaultyFs>::clone(&fs);
        let open = || Database::open(Arc::clone(&as_dyn), options());
        let Ok(mut database) = open() else { continue };
        let mut model = Model::new();
        let mut failed = false;
        for step in workload().into_iter().filter(|step| !matches!(step, Step::Reopen)) {
            let next = step.apply(&model).unwrap();
            match step.run(&mut database, &open) {
                Ok(()) => model = next,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        if !failed {
            assert!(n > 10, "a sync failed unnoticed");
            return;
        }
        assert_eq!(content(&database).unwrap(), model, "sync {n}: acknowledged rows stay readable");
        drop(database);
        let found = content(&Database::open(Arc::new(fs.crash_image(n)), options()).unwrap()).unwrap();
        for (name, rows) in &model {
            if let Some(found) = found.get(name) {
                assert!(rows.iter().all(|(key, _)| found.contains_key(key)) || found != rows, "sync {n}");
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_reads_go_on() {
    let whole = Arc::new(FaultyFs::new());
    run_workload(&whole, &options());
    for bytes in (0..20_000).step_by(509) {
        let fs = Arc::new(FaultyFs::new());
        fs.disk_full_after(bytes);
        let (acknowledged, under_way) = run_workload(&fs, &options());
        let found = content(&Database::open(Arc::new(fs.crash_image(bytes)), options()).unwrap()).unwrap();
        assert!(found == acknowledged || under_way.as_ref() == Some(&found), "full after {bytes} bytes");
    }
}

#[test]
fn what_changes_several_tables_changes_all_or_none() {
    let database = Database::open(Arc::new(MemoryFs::new()), options()).unwrap();
    for name in ["a", "b"] {
        database.create(name, schema()).unwrap();
        append(&database, name, 0..10);
    }
    let before = content(&database).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(database.truncate_all(&names(&["b", "missing", "a"])).unwrap_err().kind(), ErrorKind::NotFound);
    let wide = schema().with_column(Field::new("m", DataType::Int64, true), None, None).unwrap();
    assert_eq!(database.alter("a", Some("b"), Some(wide)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(content(&database).unwrap(), before);
    assert_eq!(database.table("a").unwrap().head().version(), 1);
    // The order of the names is that of the statement; the same two tables are locked in one order.
    std::thread::scope(|scope| {
        for order in [["a", "b"], ["b", "a"]] {
            let (database, order) = (&database, names(&order));
            scope.spawn(move || (0..50).for_each(|_| database.truncate_all(&order).unwrap()));
        }
    });
    assert!(content(&database).unwrap().values().all(Rows::is_empty));
    assert_eq!(database.table("b").unwrap().head().version(), 101);
}

#[test]
fn a_table_that_is_younger_than_the_log_needs_no_older_log() {
    // Lost was the whole database: the manifest asked for the log from its first record on.
    survives(|database| {
        database.create("a", schema()).unwrap();
        append(database, "a", 0..10);
        database.checkpoint().unwrap();
        database.create("b", schema()).unwrap();
        append(database, "b", 0..1);
        append(database, "a", 10..30);
        append(database, "a", 30..60);
        let before = manifest_number(database);
        database.shared.maintain().unwrap();
        assert!(manifest_number(database) > before);
    });
}

#[test]
fn rows_after_a_truncation_need_no_older_log() {
    survives(|database| {
        database.create("a", schema()).unwrap();
        append(database, "a", 0..10);
        database.checkpoint().unwrap();
        database.table("a").unwrap().truncate().unwrap().wait().unwrap();
        database.checkpoint().unwrap();
        append(database, "a", 5..6);
        database.create("b", schema()).unwrap();
        database.disk().unwrap().forgotten.lock().push(segment_path(77));
        database.shared.maintain().unwrap();
    });
}

#[test]
fn a_large_statement_is_not_replayed_beside_its_segments() {
    // Its rows came twice: the manifest had its segment, and the log was replayed from the small statement on.
    survives(|database| {
        database.create("a", schema()).unwrap();
        append(database, "a", 0..1);
        append(database, "a", 1..60);
        assert!(database.table("a").unwrap().head().chunks.iter().any(|chunk| chunk.is_stored()));
        database.disk().unwrap().forgotten.lock().push(segment_path(77));
        database.shared.maintain().unwrap();
    });
}

#[test]
fn segments_that_the_log_names_stay_until_it_need_not_be_replayed() {
    // The database could not be opened: a compaction removed the segments.
    survives(|database| {
        database.create("a", schema()).unwrap();
        append(database, "a", 0..1);
        for part in 0..6 {
            append(database, "a", 100 * part + 10..100 * part + 80);
        }
        let rows: Vec<RowId> = {
            let head = database.table("a").unwrap().head();
            (110..170).map(|key| head.row_id(head.find(&Key::Int(key)).unwrap().unwrap())).collect()
        };
        database.table("a").unwrap().delete(&rows).unwrap().wait().unwrap();
        database.disk().unwrap().forgotten.lock().push(segment_path(77));
        database.shared.maintain().unwrap();
        append(database, "a", 115..118);
        database.disk().unwrap().forgotten.lock().push(segment_path(77));
        database.shared.maintain().unwrap();
    });
}

#[test]
fn a_crash_while_flushes_run_at_once_loses_nothing_acknowledged() {
    // Two flushes of one table froze the same rows; the first one let go of rows that the second one counted as flushed.
    for crash in 1..60 {
        let fs = Arc::new(FaultyFs::new());
        let as_dyn: Arc<dyn FileSystem> = Arc::<FaultyFs>::clone(&fs);
        let database = Database::open(as_dyn, Options { background: true, ..tiny() }).unwrap();
        let table = database.create("a", schema()).unwrap();
        fs.crash_at(fs.steps() + 13 * crash);
        let mut acknowledged = Rows::new();
        std::thread::scope(|scope| {
            scope.spawn(|| while database.checkpoint().is_ok() {});
            scope.spawn(|| while database.checkpoint().is_ok() {});
            scope.spawn(|| while database.compact().is_ok() {});
            for key in 0.. {
                let row = (key, format!("{key}"));
                match table.append(&[batch(std::slice::from_ref(&row))]).and_then(Commit::wait) {
                    Ok(()) => acknowledged.extend([row]),
                    Err(_) => break,
                }
            }
        });
        let image = Arc::new(fs.crash_image(crash));
        let found = content(&Database::open(image, tiny()).unwrap()).unwrap().remove("a").unwrap();
        let lost: Vec<_> = acknowledged.keys().filter(|key| !found.contains_key(key)).collect();
        assert!(lost.is_empty(), "crash {crash}: of {} rows, {lost:?} are lost", acknowledged.len());
        assert!(found.len() <= acknowledged.len() + 1);
    }
}
