//! A database on disk against a plain map: reopened, flushed, compacted, and short of memory. Crashes, damage and versions
//! have files of their own.

mod crashes;
mod damage;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type};
use mvvd_core::convert::dense_column;
use mvvd_core::{ErrorKind, RowId, VectorKind, VectorType};
use proptest::prelude::*;

pub(crate) use crashes::{run_steps, workload};

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

#[test]
fn a_second_writer_is_refused() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemoryFs::new());
    let first = Database::open(Arc::clone(&fs), options()).unwrap();
    let e = Database::open(Arc::clone(&fs), options()).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Conflict, "the database is open in another process"));
    drop(first);
    Database::open(fs, options()).unwrap();
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
