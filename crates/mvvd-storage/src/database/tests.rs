//! A database on disk against a plain map: reopened, flushed, compacted, crashed at every step, and damaged.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type};
use mvvd_core::convert::dense_column;
use mvvd_core::{ErrorKind, RowId, VectorKind, VectorType};
use proptest::prelude::*;

use super::*;
use crate::MasterKey;
use crate::disk::{SEGMENTS, StorageMode, segment_path};
use crate::fs::{FaultyFs, MemoryFs};
use crate::key::Key;
use crate::memory::tests::Bounded;
use crate::snapshot::Snapshot;
use crate::storage::Storage;

/// Rows by key: a text, and the first number of the vector.
pub(crate) type Rows = BTreeMap<i64, String>;
/// Tables by name.
pub(crate) type Model = BTreeMap<String, Rows>;
/// Their rows at each version that is kept.
type Past = BTreeMap<String, BTreeMap<u64, Rows>>;

pub(crate) fn schema() -> TableSchema {
    let vector = VectorType::new(VectorKind::Dense, 4).unwrap();
    let fields = vec![
        (Field::new("id", DataType::Int64, false), None),
        (Field::new("name", DataType::Utf8, true), None),
        (vector.field("v", true), None),
    ];
    TableSchema::new(fields, Some("id"), false).unwrap()
}

pub(crate) fn batch(rows: &[(i64, String)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let names = StringArray::from_iter_values(rows.iter().map(|r| &r.1));
    let vector = VectorType::new(VectorKind::Dense, 4).unwrap();
    let values = rows.iter().flat_map(|r| [r.0 as f32, 1.0, r.1.len() as f32, -0.5]).collect();
    RecordBatch::try_new(
        Arc::clone(schema().arrow()),
        vec![Arc::new(ids), Arc::new(names), dense_column(values, vector, None)],
    )
    .unwrap()
}

/// As [`batch`] for a table that may have more columns: numbers, the key of the row.
fn batch_of(schema: &TableSchema, rows: &[(i64, String)]) -> RecordBatch {
    let mut columns = batch(rows).columns().to_vec();
    let ids = Arc::clone(&columns[0]);
    columns.resize(schema.columns().len(), ids);
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap()
}

/// The value of an added column in rows that are older than it.
const INITIAL: i64 = 7;
/// What the model has the names of added columns under, if there are any.
const COLUMNS: i64 = i64::MIN;

fn added_columns(rows: &Rows) -> Vec<String> {
    rows.get(&COLUMNS).map_or(Vec::new(), |names| names.split('|').map(str::to_owned).collect())
}

/// Everything that readers see.
pub(crate) fn content(database: &Database) -> Result<Model> {
    let mut model = Model::new();
    for (name, table) in database.tables() {
        let rows = rows_of(&table.snapshot())?;
        let mut scanned = Vec::new();
        for batch in database.scan(&name, &[0])? {
            scanned.extend_from_slice(batch?.column(0).as_primitive::<Int64Type>().values());
        }
        let keys: Vec<i64> = rows.keys().copied().filter(|key| *key != COLUMNS).collect();
        assert_eq!(scanned, keys, "a scan of table {name}");
        assert_eq!(database.count(&name)?, keys.len());
        model.insert(name, rows);
    }
    Ok(model)
}

/// All versions that readers can ask for.
fn past(database: &Database) -> Result<Past> {
    let mut past = Past::new();
    for (name, table) in database.tables() {
        let mut versions = BTreeMap::new();
        for snapshot in table.versions() {
            assert_eq!(table.at(snapshot.version()).unwrap().version(), snapshot.version());
            versions.insert(snapshot.version(), rows_of(&snapshot)?);
        }
        past.insert(name, versions);
    }
    Ok(past)
}

/// All rows of a snapshot. The text is followed by the values of added columns, as in `text|column=7`.
fn rows_of(snapshot: &Snapshot) -> Result<Rows> {
    let mut rows = Rows::new();
    let columns = snapshot.schema().columns();
    let names: Vec<&str> = columns[3..].iter().map(|column| column.field.name().as_str()).collect();
    if !names.is_empty() {
        rows.insert(COLUMNS, names.join("|"));
    }
    let all_columns: Vec<usize> = (0..columns.len()).collect();
    for chunk in snapshot.chunks() {
        let all = chunk.batch(snapshot.schema(), &all_columns, 0..chunk.len())?;
        for i in (0..chunk.len()).filter(|&i| !chunk.deleted().contains(i as u32)) {
            let id = all.column(0).as_primitive::<Int64Type>().value(i);
            let mut text = all.column(1).as_string::<i32>().value(i).to_owned();
            let vector = all.column(2).as_fixed_size_list().value(i);
            let vector = vector.as_primitive::<Float32Type>().values();
            assert_eq!(&vector[..], [id as f32, 1.0, text.len() as f32, -0.5], "the vector of row {id}");
            for (name, values) in names.iter().zip(&all.columns()[3..]) {
                text += &format!("|{name}={}", values.as_primitive::<Int64Type>().value(i));
            }
            assert!(rows.insert(id, text).is_none(), "key {id} twice");
            assert!(snapshot.find(&Key::Int(id))?.is_some(), "key {id} is not found");
        }
    }
    Ok(rows)
}

/// One statement, or something that happens between statements.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create(String),
    Drop(String),
    Rename(String, String),
    /// Rows whose keys are new.
    Insert(String, Vec<i64>, String),
    /// Rows whose keys exist.
    Update(String, Vec<i64>, String),
    /// Rows that come, in the place of those with the same keys.
    Upsert(String, Vec<i64>, String),
    Delete(String, Vec<i64>),
    Truncate(String),
    TruncateAll(Vec<String>),
    /// Another name, and a column that comes or, if it is there, goes.
    Alter(String, Option<String>, String),
    Checkpoint,
    Compact,
    /// What the background does when it is woken, and then a manifest.
    Maintain,
    Reopen,
}

impl Step {
    /// What the step makes of the tables; none if it is refused.
    fn apply(&self, model: &Model) -> Option<Model> {
        let mut next = model.clone();
        match self {
            Self::Create(name) => {
                if next.insert(name.clone(), Rows::new()).is_some() {
                    return None;
                }
            }
            Self::Drop(name) => {
                next.remove(name)?;
            }
            Self::Rename(old, new) => {
                if next.contains_key(new) {
                    return None;
                }
                let rows = next.remove(old)?;
                next.insert(new.clone(), rows);
            }
            Self::Insert(name, keys, text) | Self::Update(name, keys, text) | Self::Upsert(name, keys, text) => {
                let rows = next.get_mut(name)?;
                let fits = |key| match self {
                    Self::Insert(..) => !rows.contains_key(key),
                    Self::Update(..) => rows.contains_key(key),
                    _ => true,
                };
                if !keys.iter().all(fits) {
                    return None;
                }
                let added = added_columns(rows);
                for key in keys {
                    let more: String = added.iter().map(|column| format!("|{column}={key}")).collect();
                    rows.insert(*key, format!("{text}{key}{more}"));
                }
            }
            Self::Delete(name, keys) => {
                let rows = next.get_mut(name)?;
                keys.iter().for_each(|key| {
                    rows.remove(key);
                });
            }
            Self::Truncate(name) => next.get_mut(name)?.retain(|key, _| *key == COLUMNS),
            Self::TruncateAll(names) => {
                for name in names {
                    next.get_mut(name)?.retain(|key, _| *key == COLUMNS);
                }
            }
            Self::Alter(name, new, column) => {
                if new.as_ref().is_some_and(|new| next.contains_key(new)) {
                    return None;
                }
                let mut rows = next.remove(name)?;
                let mut added = added_columns(&rows);
                rows.remove(&COLUMNS);
                if added.contains(column) {
                    added.retain(|name| name != column);
                    let value = format!("{column}=");
                    let without = |text: &String| {
                        text.split('|').filter(|part| !part.starts_with(&value)).collect::<Vec<_>>().join("|")
                    };
                    rows.values_mut().for_each(|text| *text = without(text));
                } else {
                    added.push(column.clone());
                    rows.values_mut().for_each(|text| *text += &format!("|{column}={INITIAL}"));
                }
                if !added.is_empty() {
                    rows.insert(COLUMNS, added.join("|"));
                }
                next.insert(new.as_ref().unwrap_or(name).clone(), rows);
            }
            Self::Checkpoint | Self::Compact | Self::Maintain | Self::Reopen => {}
        }
        Some(next)
    }

    /// What the step makes of the versions, if it makes `model` of the tables.
    fn apply_past(&self, past: &Past, model: &Model, kept: usize) -> Past {
        let mut next = past.clone();
        let push = |next: &mut Past, name: &String| {
            let versions = next.get_mut(name).expect("the map did not refuse it");
            let (last, _) = versions.last_key_value().expect("a table has a version");
            versions.insert(last + 1, model[name].clone());
            if versions.len() > kept + 1 {
                versions.pop_first();
            }
        };
        let rename = |next: &mut Past, old: &String, new: &String| {
            let versions = next.remove(old).expect("the map did not refuse it");
            next.insert(new.clone(), versions);
        };
        match self {
            Self::Create(name) => drop(next.insert(name.clone(), BTreeMap::from([(0, Rows::new())]))),
            Self::Drop(name) => drop(next.remove(name)),
            Self::Rename(old, new) => rename(&mut next, old, new),
            Self::Insert(name, ..)
            | Self::Update(name, ..)
            | Self::Upsert(name, ..)
            | Self::Delete(name, _)
            | Self::Truncate(name) => push(&mut next, name),
            Self::TruncateAll(names) => {
                let names: BTreeSet<&String> = names.iter().collect();
                names.into_iter().for_each(|name| push(&mut next, name));
            }
            Self::Alter(name, new, _) => {
                let new = new.as_ref().unwrap_or(name);
                rename(&mut next, name, new);
                push(&mut next, new);
            }
            Self::Checkpoint | Self::Compact | Self::Maintain | Self::Reopen => {}
        }
        next
    }

    fn run(&self, database: &mut Database, open: &dyn Fn() -> Result<Database>) -> Result<()> {
        let found = |table: &Table, keys: &[i64]| -> Result<Vec<RowId>> {
            let head = table.head();
            let places = keys.iter().map(|key| head.find(&Key::Int(*key))).collect::<Result<Vec<_>>>()?;
            Ok(places.into_iter().flatten().map(|place| head.row_id(place)).collect())
        };
        match self {
            Self::Create(name) => database.create(name, schema()).map(drop),
            Self::Drop(name) => database.drop_all(std::slice::from_ref(name)),
            Self::Rename(old, new) => database.rename(old, new),
            Self::Insert(name, keys, text) | Self::Update(name, keys, text) | Self::Upsert(name, keys, text) => {
                let table = database.table(name)?;
                if database.disk().is_some_and(|disk| table.unflushed_bytes() > disk.options.flush_bytes) {
                    database.shared.maintain()?;
                }
                let rows: Vec<(i64, String)> = keys.iter().map(|key| (*key, format!("{text}{key}"))).collect();
                let rows = [batch_of(table.head().schema(), &rows)];
                match self {
                    Self::Insert(..) => database.insert(name, &rows).map(drop),
                    Self::Update(..) => database.update(name, &rows).map(drop),
                    _ => table.replace(&found(&table, keys)?, &rows)?.wait(),
                }
            }
            Self::Delete(name, keys) => {
                let keys: Vec<Key> = keys.iter().map(|key| Key::Int(*key)).collect();
                database.delete(name, &keys).map(drop)
            }
            Self::Truncate(name) => database.table(name)?.truncate()?.wait(),
            Self::TruncateAll(names) => database.truncate_all(names),
            Self::Alter(name, new, column) => {
                let head = database.table(name)?.head();
                let schema = match head.schema().index_of(column) {
                    Ok(_) => head.schema().without_column(column)?,
                    Err(_) => {
                        let initial = Arc::new(Int64Array::from(vec![INITIAL]));
                        head.schema().with_column(Field::new(column, DataType::Int64, true), None, Some(initial))?
                    }
                };
                database.alter(name, new.as_deref(), Some(schema))
            }
            Self::Checkpoint => database.checkpoint(),
            Self::Compact => database.compact(),
            Self::Maintain => match database.disk() {
                Some(disk) => {
                    // A file that was never there: enough for a manifest.
                    disk.forgotten.lock().push(segment_path(u64::from(u32::MAX)));
                    database.shared.maintain()
                }
                None => Ok(()),
            },
            Self::Reopen => {
                std::mem::take(database).close()?;
                *database = open()?;
                Ok(())
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let table = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let keys = || prop::collection::btree_set(0_i64..60, 1..50).prop_map(|keys| keys.into_iter().rev().collect());
    let few = || prop::collection::btree_set(0_i64..60, 1..4).prop_map(|keys| keys.into_iter().rev().collect());
    prop_oneof![
        2 => table().prop_map(Step::Create),
        1 => table().prop_map(Step::Drop),
        1 => (table(), table()).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => (table(), few(), "[x-z]{0,3}").prop_map(|(t, k, x)| Step::Insert(t, k, x)),
        2 => (table(), few(), "[x-z]{0,3}").prop_map(|(t, k, x)| Step::Update(t, k, x)),
        8 => (table(), keys(), "[x-z]{0,3}").prop_map(|(t, k, x)| Step::Upsert(t, k, x)),
        4 => (table(), keys()).prop_map(|(t, k)| Step::Delete(t, k)),
        1 => table().prop_map(Step::Truncate),
        1 => prop::collection::vec(table(), 1..4).prop_map(Step::TruncateAll),
        2 => (table(), prop::option::of(table()), "[m-n]").prop_map(|(t, new, c)| Step::Alter(t, new, c)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        4 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
    ]
}

/// Without background work, so that a run does the same each time.
pub(crate) fn options() -> Options {
    Options { background: false, ..Options::default() }
}

/// The same for an encrypted database.
pub(crate) fn sealed_options() -> Options {
    Options { key: Some(MasterKey::parse(&"5a".repeat(32), "a test").unwrap()), ..options() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn random_statements_do_what_a_map_does(steps in prop::collection::vec(step(), 1..50)) {
        let pool = Bounded::new(POOL_BYTES);
        let within = || -> Option<Arc<dyn MemoryPool>> { Some(Arc::<Bounded>::clone(&pool)) };
        let pressed = Options { memory: within(), ..options() };
        let modes = [Err(None), Err(within()), Ok(options()), Ok(tiny()), Ok(hybrid()), Ok(pressed)];
        for mode in modes {
            let on_disk = mode.is_ok();
            let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
            let open = || match &mode {
                Ok(options) => Database::open(Arc::clone(&fs), options.clone()),
                Err(pool) => Ok(Database::memory_within(pool.clone(), Arc::default())),
            };
            let mut database = open().unwrap();
            let (mut model, mut versions) = (Model::new(), Past::new());
            let kept = mode.as_ref().map_or(VERSIONS_KEPT, |options| options.versions_kept);
            // Without files, versions may have to go to make room.
            let keeps_all = !matches!(mode, Err(Some(_)));
            for step in &steps {
                if !on_disk && matches!(step, Step::Reopen) {
                    continue;
                }
                match step.apply(&model) {
                    Some(next) => {
                        step.run(&mut database, &open).unwrap_or_else(|e| panic!("{step:?}: {e}"));
                        model = next;
                        versions = step.apply_past(&versions, &model, kept);
                    }
                    None => {
                        step.run(&mut database, &open).expect_err("the map refused it");
                    }
                }
                prop_assert_eq!(&content(&database).unwrap(), &model, "after {:?}", step);
                let found = past(&database).unwrap();
                if keeps_all {
                    prop_assert_eq!(&found, &versions, "after {:?}", step);
                }
                for (name, found) in found {
                    let is_right = found.iter().all(|(version, rows)| versions[&name].get(version) == Some(rows));
                    prop_assert!(is_right, "after {:?}: {:?} instead of {:?}", step, found, versions[&name]);
                }
            }
            if on_disk {
                database.checkpoint().unwrap();
                prop_assert_eq!(&past(&database).unwrap(), &versions);
                let named: BTreeSet<String> = database.disk().unwrap().manifest.lock().files().collect();
                let files = fs.list("segments").unwrap().into_iter().map(|file| format!("segments/{file}"));
                prop_assert_eq!(files.collect::<BTreeSet<String>>(), named);
            }
        }
        prop_assert_eq!(pool.used.load(Ordering::Relaxed), 0, "all memory comes back");
        prop_assert!(pool.peak.load(Ordering::Relaxed) < 2 * POOL_BYTES);
    }
}

/// Enough for all live rows of the model, and for little else.
const POOL_BYTES: usize = 12_000;

#[test]
fn when_memory_is_short_deleted_rows_and_older_versions_go_and_rows_keep_their_names() {
    let pool = Bounded::new(30_000);
    let database = Database::memory_within(Some(Arc::<Bounded>::clone(&pool) as Arc<dyn MemoryPool>), Arc::default());
    let (a, b) = (database.create("a", schema()).unwrap(), database.create("b", schema()).unwrap());
    let mut last = 0;
    let e = loop {
        let rows: Vec<(i64, String)> = (last..last + 50).map(|key| (key, format!("{key}"))).collect();
        match database.insert("a", &[batch(&rows)]) {
            Ok(rows) => last += rows as i64,
            Err(e) => break e,
        }
    };
    assert_eq!((e.kind(), database.count("a").unwrap() as i64), (ErrorKind::Exhausted, last));
    assert!(e.message().contains("30000") && e.hint().unwrap().contains("delete rows"), "{e}");
    // A statement has read this row before room is made, by another table.
    let head = a.head();
    let row = head.row_id(head.find(&Key::Int(7)).unwrap().unwrap());
    drop(head);
    database.delete("a", &(0..last).filter(|key| key % 5 != 2).map(Key::Int).collect::<Vec<_>>()).unwrap();
    append(&database, "b", 0..200);
    assert_eq!((a.snapshot().live() as i64, b.snapshot().live()), (last / 5, 200));
    assert_eq!(a.take(&[row]).unwrap().column(0).as_primitive::<Int64Type>().value(0), 7);
    a.delete(&[row]).unwrap().wait().unwrap();
    assert!(a.snapshot().find(&Key::Int(7)).unwrap().is_none());
    assert_eq!(content(&database).unwrap()["a"].len() as i64, last / 5 - 1);
    // A reader keeps what it has, and so the memory stays taken.
    let held = b.snapshot();
    database.drop_all(&["a".into(), "b".into()]).unwrap();
    drop((a, b));
    assert!(pool.used.load(Ordering::Relaxed) > 0);
    drop(held);
    assert_eq!(pool.used.load(Ordering::Relaxed), 0);
}

#[test]
fn when_memory_is_short_tables_are_flushed() {
    let pool = Bounded::new(30_000);
    let memory: Option<Arc<dyn MemoryPool>> = Some(Arc::<Bounded>::clone(&pool));
    let database = Database::open(Arc::new(MemoryFs::new()), Options { memory, ..options() }).unwrap();
    for name in ["a", "b"] {
        database.create(name, schema()).unwrap();
    }
    for i in 0..100 {
        append(&database, if i % 3 == 0 { "a" } else { "b" }, 50 * i..50 * i + 50);
        assert!(pool.used.load(Ordering::Relaxed) <= 30_000);
    }
    assert!(pool.peak.load(Ordering::Relaxed) <= 60_000, "the rows, and their copy on the way to segments");
    let content = content(&database).unwrap();
    assert_eq!((content["a"].len(), content["b"].len()), (34 * 50, 66 * 50));
    let e = database.insert("a", &[batch(&(10_000..12_000).map(|key| (key, "x".into())).collect::<Vec<_>>())]);
    assert!(e.unwrap_err().hint().unwrap().contains("fewer rows"));
    assert_eq!(database.count("a").unwrap(), 34 * 50);
    drop(database);
    assert_eq!(pool.used.load(Ordering::Relaxed), 0);
}

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
fn run_workload(fs: &Arc<FaultyFs>, options: &Options) -> (Model, Option<Model>) {
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
fn check_crashes(crashes: u64, steps: &[Step], options: &Options) {
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
fn a_second_writer_is_refused() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let first = Database::open(Arc::clone(&fs), options()).unwrap();
    let e = Database::open(Arc::clone(&fs), options()).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Conflict, "the database is open in another process"));
    drop(first);
    Database::open(fs, options()).unwrap();
}

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

/// Flushes small tables too; statements that add more than a few rows write segments.
fn tiny() -> Options {
    Options { flush_bytes: 1_000, versions_kept: 3, ..options() }
}

/// As [`tiny`], and with room for some of the columns in memory.
fn hybrid() -> Options {
    Options { mode: StorageMode::Hybrid, cache_bytes: 2_000, ..tiny() }
}

/// What a manifest says beside the log: opened with `tiny` options, run, opened again, `tables` is what there is.
#[track_caller]
fn survives(run: impl FnOnce(&Database)) {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let database = Database::open(Arc::clone(&fs), tiny()).unwrap();
    run(&database);
    let before = content(&database).unwrap();
    database.close().unwrap();
    for _ in 0..2 {
        let database = Database::open(Arc::clone(&fs), tiny()).unwrap();
        assert_eq!(content(&database).unwrap(), before);
        database.close().unwrap();
    }
}

fn append(database: &Database, table: &str, keys: std::ops::Range<i64>) {
    let rows: Vec<(i64, String)> = keys.map(|key| (key, format!("{key}"))).collect();
    database.table(table).unwrap().append(&[batch(&rows)]).unwrap().wait().unwrap();
}

fn manifest_number(database: &Database) -> u64 {
    database.disk().unwrap().manifest.lock().number
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

#[test]
fn columns_that_no_segment_holds_are_refused() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let fields = vec![(Field::new("x", DataType::ListView(item), true), None)];
    let views = TableSchema::new(fields, None, false).unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    for database in [Database::memory(), Database::open(fs, tiny()).unwrap()] {
        let e = database.create("t", views.clone()).unwrap_err();
        assert!(e.message().contains("column \"x\""), "{e}");
        assert!(database.find("t").is_none());
        database.create("t", schema()).unwrap();
        assert!(database.alter("t", None, Some(views.clone())).is_err());
        append(&database, "t", 0..3);
        database.checkpoint().unwrap();
    }
}

#[test]
fn a_large_table_of_a_read_only_database_leaves_no_file() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    Database::open(Arc::clone(&fs), tiny()).unwrap().close().unwrap();
    let database = Database::open(Arc::clone(&fs), Options { read_only: true, ..tiny() }).unwrap();
    let table = Table::new(schema());
    let rows: Vec<(i64, String)> = (0..60).map(|key| (key, format!("{key}"))).collect();
    table.append(&[batch(&rows)]).unwrap().wait().unwrap();
    assert_eq!(database.add("a", table).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(fs.list(SEGMENTS).unwrap().is_empty());
}
