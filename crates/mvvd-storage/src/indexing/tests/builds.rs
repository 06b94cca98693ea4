//! Builds against what goes on beside them: drops, panics, full disks, memory, threads.

use super::*;

/// Two segments, of which readers only ever see the present version; and an index `a` that is not built.
fn two_segments(registry: Arc<Registry>) -> (Arc<dyn FileSystem>, Arc<Database>) {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let options = Options { registry, versions_kept: 0, ..options() };
    let database = Database::open(Arc::clone(&fs), options).unwrap();
    let table = database.create("t", schema()).unwrap();
    for keys in [0..10, 10..20] {
        table.append(&[batch(&rows(keys))]).unwrap().wait().unwrap();
        database.checkpoint().unwrap();
    }
    assert_eq!(table.snapshot().chunks().len(), 2);
    add(&database, "a").unwrap();
    (fs, Arc::new(database))
}

/// Files of indexes, and parts of such files.
fn sidecars(fs: &Arc<dyn FileSystem>) -> Vec<String> {
    fs.list(SEGMENTS).unwrap().into_iter().filter(|file| file.contains(".idx")).collect()
}

/// Waits until nobody wants the build any more.
fn wait_for_end(build: &Build<'_>) -> Result<()> {
    for _ in 0..2_000 {
        build.check()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the build goes on");
}

/// What is dropped while it is built was built to its end, and its files stayed until the database was opened again.
#[test]
fn a_build_ends_when_what_it_is_for_is_dropped() {
    type Act = fn(&Database);
    let acts: [Act; 4] = [
        |database| drop_index(database, "a").unwrap(),
        |database| database.drop_all(&["t".to_owned()]).unwrap(),
        |database| {
            database.drop_all(&["t".to_owned()]).unwrap();
            database.checkpoint().unwrap();
        },
        |database| {
            let schema = schema().without_column("v").unwrap();
            database.alter("t", None, Some(schema)).unwrap();
        },
    ];
    for act in acts {
        let (kind, registry) = registry();
        let (fs, database) = two_segments(registry);
        let weak = Arc::downgrade(&database);
        kind.during(move |build| {
            act(&weak.upgrade().unwrap());
            wait_for_end(build)
        });
        let e = build(&database, "a").unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::NotFound, "index \"a\" was dropped while it was built"));
        assert_eq!(sidecars(&fs), Vec::<String>::new());
        assert_eq!(kind.built.load(Ordering::Relaxed), 0);
    }
}

/// The index of a segment that a compaction had removed was written all the same, and stayed.
#[test]
fn an_index_over_a_segment_that_is_removed_meanwhile_leaves_no_file() {
    let (kind, registry) = registry();
    let (fs, database) = two_segments(registry);
    let weak = Arc::downgrade(&database);
    let is_first = AtomicBool::new(true);
    kind.during(move |_| {
        if is_first.swap(false, Ordering::Relaxed) {
            weak.upgrade().unwrap().compact().unwrap();
        }
        Ok(())
    });
    build(&database, "a").unwrap();
    answers(&database, "after a compaction");
    let segments = fs.list(SEGMENTS).unwrap();
    for file in sidecars(&fs) {
        let segment = segment_path(segment_of_sidecar(&file).unwrap());
        assert!(segments.iter().any(|file| segment.ends_with(file)), "{file} in {segments:?}");
    }
    assert_eq!(sidecars(&fs).len(), 1);
}

/// Waits until the index is in this state.
fn wait_for_state(database: &Database, name: &str, expected: &str) {
    for _ in 0..2_000 {
        let states = database.index_states();
        if states.iter().any(|state| state.def.name == name && state.state.starts_with(expected)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("index {name} is never {expected}: {:?}", database.index_states());
}

/// A database in memory with enough rows for indexes in the background, and an index `a` that is not built.
fn in_memory(registry: Arc<Registry>) -> Database {
    in_memory_within(None, registry)
}

fn in_memory_within(pool: Option<Arc<dyn MemoryPool>>, registry: Arc<Registry>) -> Database {
    let database = Database::memory_within(pool, registry);
    let table = database.create("t", schema()).unwrap();
    table.append(&[batch(&rows(0..ROWS_MIN as i64))]).unwrap().wait().unwrap();
    add(&database, "a").unwrap();
    database
}

/// A panic ended the thread that builds indexes, and the index was `building` for ever.
#[test]
fn a_build_that_panics_fails_and_others_go_on() {
    let (kind, registry) = registry();
    let database = in_memory(registry);
    kind.during(|_| panic!("no such {}", "luck"));
    let e = build(&database, "a").unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Internal, "index \"a\": the build panicked: no such luck"));
    assert!(database.index_states()[0].state.starts_with("failed: "));
    drop_index(&database, "a").unwrap();
    add(&database, "a").unwrap();
    database.index_in_background().unwrap();
    wait_for_state(&database, "a", "failed: ");
    kind.during(|_| Ok(()));
    add(&database, "b").unwrap();
    database.index_in_background().unwrap();
    wait_for_state(&database, "b", "ready");
    assert!(database.index_states()[0].state.contains("no such luck"));
    build(&database, "a").unwrap();
}

/// One lock held all builds apart: a statement waited for a build of the background, and could not be cancelled.
#[test]
fn a_statement_waits_only_for_a_build_of_the_same_and_not_when_it_is_cancelled() {
    let (kind, registry) = registry();
    let database = in_memory(registry);
    let goes_on = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&goes_on);
    kind.during(move |_| {
        while !gate.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    database.index_in_background().unwrap();
    wait_for_state(&database, "a", "building");
    kind.during(|_| Ok(()));
    add(&database, "b").unwrap();
    build(&database, "b").unwrap();
    let cancelled = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| build_until(&database, "a", &cancelled));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished(), "it is being built");
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert!(database.index_states()[0].state.starts_with("building"));
    goes_on.store(true, Ordering::Relaxed);
    build(&database, "a").unwrap();
    assert_eq!(kind.built.load(Ordering::Relaxed), 2, "each was built once");
}

/// A full disk left half a file, and the index was not tried again before the database was opened again.
#[test]
fn a_build_on_a_full_disk_leaves_nothing_and_is_made_up_for() {
    for options in [options(), sealed_options()] {
        let (_, registry) = registry();
        let fs = Arc::new(FaultyFs::new());
        let as_dyn: Arc<dyn FileSystem> = Arc::<FaultyFs>::clone(&fs);
        let options = Options { registry, background: true, ..options };
        let database = Database::open(Arc::clone(&as_dyn), options).unwrap();
        let table = database.create("t", schema()).unwrap();
        table.append(&[batch(&rows(0..10))]).unwrap().wait().unwrap();
        database.checkpoint().unwrap();
        add(&database, "a").unwrap();
        fs.disk_full_after(20);
        let e = build(&database, "a").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.message().starts_with("index \"a\": cannot write \"segments/"), "{e}");
        assert_eq!(sidecars(&as_dyn), Vec::<String>::new());
        assert!(database.index_states()[0].state.starts_with("waiting: cannot write"));
        fs.disk_full_after(u64::MAX);
        database.index_in_background().unwrap();
        wait_for_state(&database, "a", "ready");
        answers(&database, "after a full disk");
    }
}

#[test]
fn a_failure_tells_what_happened_and_not_where_the_database_is() {
    let cause = std::io::Error::other("the device is gone");
    let e = Error::new(ErrorKind::Unavailable, "cannot write \"/secret/place\": the device is gone").with_source(cause);
    let e = crate::sidecar::without_place(e);
    let expected = "its file cannot be written or read: the device is gone";
    assert_eq!((e.kind(), e.message()), (ErrorKind::Unavailable, expected));
}

/// A build took memory whether it was there or not, and the statements beside it failed.
#[test]
fn a_build_takes_its_memory_or_does_not_begin() {
    const LIMIT: usize = 1_000_000;
    let (kind, registry) = registry();
    let pool = Bounded::new(LIMIT);
    let database = in_memory_within(Some(Arc::<Bounded>::clone(&pool) as _), registry);
    let before = pool.used.load(Ordering::Relaxed);
    kind.build_bytes.store(LIMIT, Ordering::Relaxed);
    let e = build(&database, "a").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Exhausted);
    let expected = "index \"a\": out of memory: the build over 1024 rows takes 1000000 bytes, ";
    assert!(e.message().starts_with(expected), "{e}");
    assert_eq!(e.hint(), Some("raise the memory limit"));
    assert_eq!(pool.used.load(Ordering::Relaxed), before);
    // What is left by so much is enough for a statement, and not for the background.
    let needed = LIMIT - before - 1;
    kind.build_bytes.store(needed, Ordering::Relaxed);
    database.index_in_background().unwrap();
    wait_for_state(&database, "a", "waiting: out of memory");
    assert_eq!(kind.built.load(Ordering::Relaxed), 0);
    let of_build = Arc::clone(&pool);
    kind.during(move |_| {
        assert_eq!(of_build.used.load(Ordering::Relaxed), before + needed);
        Ok(())
    });
    build(&database, "a").unwrap();
    let bytes = database.index_states()[0].bytes;
    assert_eq!(pool.used.load(Ordering::Relaxed), before + bytes, "what the index has stays taken");
    kind.build_bytes.store(1, Ordering::Relaxed);
    kind.during(|_| Ok(()));
    add(&database, "b").unwrap();
    database.index_in_background().unwrap();
    wait_for_state(&database, "b", "ready");
    assert!(pool.peak.load(Ordering::Relaxed) <= LIMIT);
}

/// The background tries again once there is room.
#[test]
fn a_build_in_the_background_waits_for_memory() {
    let (kind, registry) = registry();
    let pool = Bounded::new(1_000_000);
    let database = in_memory_within(Some(Arc::<Bounded>::clone(&pool) as _), registry);
    kind.build_bytes.store(500_000, Ordering::Relaxed);
    pool.grow(600_000);
    database.index_in_background().unwrap();
    wait_for_state(&database, "a", "waiting: out of memory");
    pool.shrink(600_000);
    wait_for_state(&database, "a", "ready");
}

/// Decrypted indexes stayed on the heap for ever, beyond every limit.
#[test]
fn decrypted_indexes_go_when_there_is_no_room_for_more() {
    let (kind, registry) = registry();
    let pool = Bounded::new(1_000_000);
    let memory: Arc<dyn MemoryPool> = Arc::<Bounded>::clone(&pool);
    let options = Options { registry, memory: Some(memory), versions_kept: 0, ..sealed_options() };
    let database = Database::open(Arc::new(MemoryFs::new()), options).unwrap();
    let table = database.create("t", schema()).unwrap();
    for keys in [0..10, 10..20] {
        table.append(&[batch(&rows(keys))]).unwrap().wait().unwrap();
        database.checkpoint().unwrap();
    }
    add(&database, "a").unwrap();
    build(&database, "a").unwrap();
    let used = || pool.used.load(Ordering::Relaxed);
    let both = database.index_states()[0].bytes;
    assert_eq!(used(), both, "both are open");
    let snapshot = table.snapshot();
    let def = snapshot.schema().indexes()[0].clone();
    let open = |chunk: usize| database.index_of(&snapshot.chunks()[chunk], snapshot.schema(), &def);
    drop(open(1));
    let one = both / 2;
    pool.grow(1_000_000 - used() - 5);
    drop(database.shared.memory.take(one).expect("a write closes the one that was not used for longer"));
    assert_eq!(database.index_states()[0].state, "ready", "it has its file still");
    pool.grow(one);
    assert_eq!(used(), 1_000_000 - 5);
    let first = open(0).expect("the other one is closed for it");
    assert!(open(1).is_none(), "the first one is in use");
    drop(first);
    assert!(open(1).is_some());
    assert!(open(0).is_some());
    build(&database, "a").unwrap();
    assert_eq!(kind.built.load(Ordering::Relaxed), 2, "what has no room is not built again");
    assert!(pool.peak.load(Ordering::Relaxed) <= 1_000_000);
}

/// The index of a segment that was gone was taken for that of another one with its number and as many rows.
#[test]
fn the_index_of_another_segment_is_not_used() {
    let (kind, registry) = registry();
    let (fs, database) = two_segments(Arc::clone(&registry));
    build(&database, "a").unwrap();
    drop(database);
    let [one, other] = &sidecars(&fs)[..] else { panic!("two segments have an index each") };
    let [one, other] = [one, other].map(|file| format!("{SEGMENTS}/{file}"));
    crate::fs::replace_file(&*fs, &one, &fs.read(&other).unwrap()).unwrap();
    let database = Database::open(fs, Options { registry, versions_kept: 0, ..options() }).unwrap();
    build(&database, "a").unwrap();
    assert_eq!(kind.built.load(Ordering::Relaxed), 3, "the one is built again");
    answers(&database, "after another file was put there");
}

/// Builds took all cores, however many threads the database was to have.
#[test]
fn a_build_has_as_many_threads_as_it_is_given() {
    let (kind, registry) = registry();
    let (_, database) = two_segments(Arc::clone(&registry));
    database.index_with_threads(3);
    kind.during(|build| {
        assert_eq!(build.pool.current_num_threads(), 3);
        Ok(())
    });
    build(&database, "a").unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let options = Options { registry, index_threads: Some(1), background: true, ..options() };
    let database = Database::open(fs, options).unwrap();
    let table = database.create("t", schema()).unwrap();
    table.append(&[batch(&rows(0..10))]).unwrap().wait().unwrap();
    database.checkpoint().unwrap();
    kind.during(|build| {
        assert_eq!(build.pool.current_num_threads(), 1);
        Ok(())
    });
    add(&database, "a").unwrap();
    database.index_in_background().unwrap();
    wait_for_state(&database, "a", "ready");
}
