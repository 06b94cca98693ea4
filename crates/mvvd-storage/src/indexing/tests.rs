//! Indexes of a database on disk: crashed at every step, damaged, dropped, and made again.

use std::time::Duration;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_index::{
    Cursor, Effort, Hit, IndexKind, IndexSpec, Knob, OptionSpec, Query, Registry, Request, Term, VectorIndex, Vectors,
};

use super::*;
use crate::database::tests::{Model, batch, content, options, schema, sealed_options};
use crate::disk::{Options, SEGMENTS, segment_path};
use crate::fs::{FaultyFs, FileSystem, MemoryFs};
use crate::memory::MemoryPool;
use crate::memory::tests::Bounded;
use crate::sidecar::segment_of_sidecar;
use crate::{index_columns, index_types};

mod builds;

/// What happens in the midst of a build.
type During = Box<dyn Fn(&Build<'_>) -> Result<()> + Send + Sync>;

/// A kind that only remembers how many rows there were, and scans them; counts how often one was built.
#[derive(Default)]
struct Plain {
    built: AtomicUsize,
    during: Mutex<Option<Arc<During>>>,
    /// Bytes that a build is said to take.
    build_bytes: AtomicUsize,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain")
    }
}

impl Plain {
    fn during(&self, during: impl Fn(&Build<'_>) -> Result<()> + Send + Sync + 'static) {
        *self.during.lock() = Some(Arc::new(Box::new(during)));
    }
}

#[derive(Debug)]
struct PlainIndex(usize);

impl IndexKind for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn knob(&self) -> Knob {
        Knob::None
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn check(&self, _: &IndexSpec) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        build.check()?;
        let during = self.during.lock().clone();
        during.map_or(Ok(()), |during| during(build))?;
        self.built.fetch_add(1, Ordering::Relaxed);
        Ok((columns[0].len() as u64).to_le_bytes().to_vec())
    }

    fn build_bytes(&self, _: &IndexSpec, _: usize, _: usize) -> usize {
        self.build_bytes.load(Ordering::Relaxed)
    }

    fn open(&self, _: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        let bytes = bytes.as_slice().try_into().map_err(|_| Error::new(ErrorKind::Corrupt, "not eight bytes"))?;
        Ok(Arc::new(PlainIndex(u64::from_le_bytes(bytes) as usize)))
    }
}

impl VectorIndex for PlainIndex {
    fn rows(&self) -> usize {
        self.0
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        let ordinals: Vec<u32> =
            (0..self.0 as u32).filter(|&i| request.filter.is_none_or(|filter| filter.has(i))).collect();
        let mut distances = vec![0.0; ordinals.len()];
        columns[0].distances(request.terms[0].metric, &request.terms[0].query, &ordinals, &mut distances);
        let hit = |(ordinal, distance)| Hit { distance, ordinal };
        let mut hits: Vec<Hit> = ordinals.into_iter().zip(distances).map(hit).collect();
        hits.sort();
        hits.truncate(request.k);
        Ok(hits)
    }

    fn cursor<'a>(&'a self, _: &'a [Vectors<'a>], _: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        Err(Error::unsupported("a plain index has no cursor"))
    }
}

fn registry() -> (Arc<Plain>, Arc<Registry>) {
    let (kind, mut registry) = (Arc::new(Plain::default()), Registry::empty());
    registry.register(Arc::<Plain>::clone(&kind)).unwrap();
    (kind, Arc::new(registry))
}

fn def(name: &str) -> IndexDef {
    IndexDef {
        id: 0,
        name: name.into(),
        kind: "plain".into(),
        metric: Metric::L2,
        columns: vec![2],
        options: Vec::new(),
    }
}

fn add(database: &Database, name: &str) -> Result<()> {
    database.add_index(&*database.table("t")?, def(name)).map(drop)
}

/// The id of an index of the table `t`.
fn id_of(database: &Database, name: &str) -> Result<u32> {
    let head = database.table("t")?.head();
    let found = head.schema().indexes().iter().find(|index| index.name == name);
    found.map(|index| index.id).ok_or_else(|| Error::not_found(name))
}

fn drop_index(database: &Database, name: &str) -> Result<()> {
    database.drop_index(&*database.table("t")?, id_of(database, name)?)
}

fn build(database: &Database, name: &str) -> Result<()> {
    build_until(database, name, &Arc::default())
}

fn build_until(database: &Database, name: &str, cancelled: &Arc<AtomicBool>) -> Result<()> {
    database.build_index(&database.table("t")?, id_of(database, name)?, &|_| (), cancelled)
}

fn rows(keys: std::ops::Range<i64>) -> Vec<(i64, String)> {
    keys.map(|key| (key, format!("row {key}"))).collect()
}

/// Names of the indexes that there are.
fn names(database: &Database) -> Vec<String> {
    database.index_states().into_iter().map(|state| state.def.name).collect()
}

type Open<'a> = &'a dyn Fn() -> Result<Database>;

/// One step of the workload: what it does, and the indexes that there are afterwards.
type Act = (fn(&mut Database, Open<'_>) -> Result<()>, &'static [&'static str]);

fn workload() -> Vec<Act> {
    vec![
        (|database, _| database.create("t", schema()).map(drop), &[]),
        (|database, _| database.table("t")?.append(&[batch(&rows(0..20))])?.wait(), &[]),
        (|database, _| add(database, "a"), &["a"]),
        (|database, _| build(database, "a"), &["a"]),
        (|database, _| database.table("t")?.append(&[batch(&rows(20..30))])?.wait(), &["a"]),
        (|database, _| add(database, "b"), &["a", "b"]),
        (|database, _| build(database, "b"), &["a", "b"]),
        (|database, _| build(database, "a"), &["a", "b"]),
        (|database, _| drop_index(database, "a"), &["b"]),
        (|database, _| database.compact(), &["b"]),
        (|database, _| build(database, "b"), &["b"]),
        (
            |database, open| {
                *database = Database::memory();
                *database = open()?;
                Ok(())
            },
            &["b"],
        ),
        (|database, _| add(database, "c"), &["b", "c"]),
        (|database, _| build(database, "c"), &["b", "c"]),
    ]
}

/// Runs the workload until it fails: rows and indexes before the step under way, and indexes after it.
fn run(fs: &Arc<FaultyFs>, options: &Options) -> (Option<Model>, &'static [&'static str], &'static [&'static str]) {
    let as_dyn: Arc<dyn FileSystem> = Arc::<FaultyFs>::clone(fs);
    let open = || Database::open(Arc::clone(&as_dyn), options.clone());
    let Ok(mut database) = open() else { return (None, &[], &[]) };
    let mut before: &'static [&'static str] = &[];
    let mut model = None;
    for (act, after) in workload() {
        if act(&mut database, &open).is_err() {
            return (model, before, after);
        }
        before = after;
        model = content(&database).ok();
    }
    (model, before, before)
}

/// Opens the image, builds what is missing, and looks whether every index answers and no file is left over.
fn check(image: MemoryFs, options: &Options, what: &str) -> (Model, Vec<String>) {
    let image: Arc<dyn FileSystem> = Arc::new(image);
    let database = Database::open(Arc::clone(&image), options.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (found, names) = (content(&database).unwrap(), names(&database));
    for name in &names {
        build(&database, name).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    for state in database.index_states() {
        assert_eq!((state.rows_covered, state.state.as_str()), (state.rows, "ready"), "{what}");
    }
    answers(&database, what);
    let live: Vec<u64> = database
        .tables()
        .iter()
        .flat_map(|(_, table)| table.all_versions())
        .flat_map(|version| version.chunks.iter().filter_map(|c| Some(c.segment()?.meta().id)).collect::<Vec<_>>())
        .collect();
    drop(database);
    let again = Database::open(Arc::clone(&image), options.clone()).unwrap();
    let ids: Vec<u32> = again.index_states().iter().map(|state| state.def.id).collect();
    for file in image.list(SEGMENTS).unwrap() {
        let Some(segment) = segment_of_sidecar(&file) else { continue };
        let index: u32 = file.split('.').nth(1).unwrap().parse().unwrap();
        assert!(live.contains(&segment) && ids.contains(&index), "{what}: {file} is left over");
    }
    (found, names)
}

/// Every row is found by every index.
fn answers(database: &Database, what: &str) {
    for state in database.index_states() {
        let snapshot = database.table("t").unwrap().snapshot();
        let mut found = 0;
        for chunk in snapshot.chunks() {
            let open = database.index_of(chunk, snapshot.schema(), &state.def).expect("it was built");
            let arrays = index_columns(chunk, snapshot.schema(), &state.def).unwrap();
            let types = index_types(snapshot.schema(), &state.def).unwrap();
            let columns = [Vectors::new(&*arrays[0], types[0])];
            let query = Query::Dense(vec![3.0, 1.0, 5.0, -0.5].into());
            let term = Term { column: 0, metric: Metric::L2, query, weight: 1.0 };
            let request = Request { terms: &[term], k: 1_000, filter: None, effort: Effort::default() };
            found += open.index.search(&columns, &request).unwrap().len();
        }
        assert_eq!(found, state.rows, "{what}: index {}", state.def.name);
    }
}

fn crash_everywhere(options: &Options) {
    let (_, registry) = registry();
    let options = Options { registry, ..options.clone() };
    let whole = Arc::new(FaultyFs::new());
    let (expected, ..) = run(&whole, &options);
    let steps = whole.steps();
    assert!(steps > 60, "the workload has {steps} steps");
    assert_eq!(check(whole.crash_image(1), &options, "the whole workload").0, expected.unwrap());
    for step in 1..=steps {
        let fs = Arc::new(FaultyFs::new());
        fs.crash_at(step);
        let (model, before, after) = run(&fs, &options);
        for seed in 0..2 {
            let what = format!("crash at step {step}, seed {seed}");
            let (found, names) = check(fs.crash_image(seed), &options, &what);
            assert!(names == before || names == after, "{what}: indexes {names:?}, expected {before:?} or {after:?}");
            // Only the first two steps change rows, and the fifth: what was acknowledged is there.
            for (table, rows) in model.iter().flatten() {
                let found = found.get(table).unwrap_or_else(|| panic!("{what}: table {table} is gone"));
                assert!(rows.iter().all(|row| found.get(row.0) == Some(row.1)), "{what}: rows are gone");
            }
        }
    }
}

#[test]
fn a_crash_at_any_step_leaves_indexes_that_are_whole_or_made_again() {
    crash_everywhere(&options());
}

#[test]
fn a_crash_of_an_encrypted_database_does_too() {
    crash_everywhere(&sealed_options());
}

#[test]
fn a_damaged_file_is_made_again_and_a_sound_one_is_not() {
    for options in [options(), sealed_options()] {
        let (kind, registry) = registry();
        let options = Options { registry, ..options };
        let fs = Arc::new(FaultyFs::new());
        run(&fs, &options);
        let whole = fs.crash_image(1);
        let built = kind.built.load(Ordering::Relaxed);
        check(fs.crash_image(1), &options, "nothing damaged");
        assert_eq!(kind.built.load(Ordering::Relaxed), built, "what is sound is not built again");
        let files = whole.list(SEGMENTS).unwrap();
        // Those of the present version; segments of older ones keep theirs.
        let last = files.iter().filter_map(|file| segment_of_sidecar(file)).max();
        let sidecars: Vec<&String> = files.iter().filter(|file| segment_of_sidecar(file) == last).collect();
        assert_eq!(sidecars.len(), 2, "{files:?}");
        for file in sidecars {
            let path = format!("{SEGMENTS}/{file}");
            let bytes = whole.read(&path).unwrap();
            for at in 0..bytes.len() {
                let image = fs.crash_image(1);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                image.put(&path, flipped);
                let before = kind.built.load(Ordering::Relaxed);
                check(image, &options, &format!("byte {at} of {file}"));
                // Bytes between head and index mean nothing.
                let padding = kind.built.load(Ordering::Relaxed) == before;
                assert!(!padding || options.seal.is_none() && bytes[at] == 0, "byte {at} of {file} was not missed");
            }
            let image = fs.crash_image(1);
            image.put(&path, bytes[..bytes.len() / 2].to_vec());
            check(image, &options, "half a file");
        }
    }
}

#[test]
fn a_build_ends_when_it_is_cancelled_and_an_index_that_is_dropped_leaves_no_file() {
    let (_, registry) = registry();
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(Arc::clone(&fs), Options { registry, ..options() }).unwrap();
    database.create("t", schema()).unwrap().append(&[batch(&rows(0..10))]).unwrap().wait().unwrap();
    add(&database, "a").unwrap();
    let e = build_until(&database, "a", &Arc::new(true.into())).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    assert_eq!(database.index_states()[0].state, "waiting");
    build(&database, "a").unwrap();
    assert!(fs.list(SEGMENTS).unwrap().iter().any(|file| segment_of_sidecar(file).is_some()));
    drop_index(&database, "a").unwrap();
    assert!(!fs.list(SEGMENTS).unwrap().iter().any(|file| segment_of_sidecar(file).is_some()));
    assert_eq!(drop_index(&database, "a").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_unknown_kind_is_no_reason_not_to_open() {
    let (_, registry) = registry();
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(Arc::clone(&fs), Options { registry, ..options() }).unwrap();
    database.create("t", schema()).unwrap().append(&[batch(&rows(0..10))]).unwrap().wait().unwrap();
    add(&database, "a").unwrap();
    build(&database, "a").unwrap();
    drop(database);
    let registry = Arc::new(Registry::empty());
    let database = Database::open(fs, Options { registry, ..options() }).unwrap();
    assert_eq!(content(&database).unwrap()["t"].len(), 10);
    assert!(build(&database, "a").unwrap_err().message().contains("index type \"plain\" does not exist"));
    assert!(database.index_states()[0].state.starts_with("failed: "));
}

/// A statement that failed dropped the index of that name: by then it was somebody else's, or in another table.
#[test]
fn an_index_is_dropped_by_its_id_whatever_the_names_are() {
    let (_, registry) = registry();
    let database = Database::memory_within(None, registry);
    let table = database.create("t", schema()).unwrap();
    let first = database.add_index(&table, def("a")).unwrap();
    database.drop_index(&table, first).unwrap();
    let second = database.add_index(&table, def("a")).unwrap();
    assert_ne!(first, second);
    assert_eq!(database.drop_index(&table, first).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&database), ["a"], "the index that got the name is still there");
    database.rename("t", "u").unwrap();
    database.create("t", schema()).unwrap();
    add(&database, "a").unwrap();
    database.drop_index(&table, second).unwrap();
    let left: Vec<String> = database.index_states().into_iter().map(|state| state.table).collect();
    assert_eq!(left, ["t"], "the index of the table that got the name is still there");
}
