//! One suite for everything that implements [`Storage`], run for each mode of the engine.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type};
use mvvd_core::convert::dense_column;
use mvvd_core::{ErrorKind, Result, TableSchema, VectorKind, VectorType};
use mvvd_storage::fs::{DiskFs, FileSystem, MemoryFs};
use mvvd_storage::{Database, Key, Options, Storage, StorageMode};
use tempfile::TempDir;

/// Where a storage is, so that it can be closed and opened again.
trait Place {
    fn open(&self) -> Box<dyn Storage>;

    /// Whether what was written is there when it is opened again.
    fn is_kept(&self) -> bool {
        true
    }
}

/// Runs the tests named, each in a new place of each kind.
macro_rules! conformance {
    ($($kind:ident: $place:expr;)* => $tests:tt) => {
        $(mod $kind {
            use super::*;
            conformance!(tests $place, $tests);
        })*
    };
    (tests $place:expr, [$($test:ident),* $(,)?]) => {
        $(#[test]
        fn $test() {
            super::$test(&$place);
        })*
    };
}

conformance! {
    memory: Memory;
    disk_in_segments: InSegments::new(StorageMode::Disk);
    disk_in_a_directory: Directory::new(StorageMode::Disk);
    hybrid_in_segments: InSegments::new(StorageMode::Hybrid);
    hybrid_in_a_directory: Directory::new(StorageMode::Hybrid);
    => [
        tables_are_made_found_and_dropped,
        a_table_that_is_not_there_is_an_error_of_every_call,
        rows_are_found_by_key_and_scanned_in_its_order,
        text_keys_are_ordered_by_their_bytes,
        rows_without_a_key_keep_the_order_they_came_in,
        a_key_that_exists_or_comes_twice_is_refused_with_all_that_came_with_it,
        rows_that_do_not_fit_are_refused_with_all_that_came_with_them,
        an_update_replaces_rows_or_changes_nothing,
        deleted_rows_are_gone_and_their_keys_are_free,
        columns_come_in_the_order_asked_for,
        calls_without_rows_change_nothing,
        a_scan_shows_the_rows_as_they_were_when_it_began,
        readers_see_whole_calls,
        writers_at_once_lose_nothing,
        what_was_written_is_there_after_opening_again,
    ]
}

struct Memory;

impl Place for Memory {
    fn open(&self) -> Box<dyn Storage> {
        Box::new(Database::memory())
    }

    fn is_kept(&self) -> bool {
        false
    }
}

/// Files in memory; every call writes segments, and of their columns only some have room in memory.
struct InSegments {
    fs: Arc<MemoryFs>,
    options: Options,
}

impl InSegments {
    fn new(mode: StorageMode) -> Self {
        let options = Options { mode, flush_bytes: 1, cache_bytes: 4_096, ..Options::default() };
        Self { fs: Arc::default(), options }
    }
}

impl Place for InSegments {
    fn open(&self) -> Box<dyn Storage> {
        open(Arc::<MemoryFs>::clone(&self.fs), &self.options)
    }
}

/// A directory, with everything as users have it.
struct Directory {
    folder: TempDir,
    options: Options,
}

impl Directory {
    fn new(mode: StorageMode) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options: Options { mode, ..Options::default() } }
    }
}

impl Place for Directory {
    fn open(&self) -> Box<dyn Storage> {
        open(Arc::new(DiskFs::new(self.folder.path())), &self.options)
    }
}

fn open(fs: Arc<dyn FileSystem>, options: &Options) -> Box<dyn Storage> {
    Box::new(Database::open(fs, options.clone()).unwrap())
}

fn vector() -> VectorType {
    VectorType::new(VectorKind::Dense, 3).unwrap()
}

/// `id` is the key; `name` is NOT NULL, `note` is not.
fn schema() -> TableSchema {
    let fields = vec![
        (Field::new("id", DataType::Int64, false), None),
        (Field::new("name", DataType::Utf8, false), None),
        (vector().field("v", true), None),
        (Field::new("note", DataType::Utf8, true), None),
    ];
    TableSchema::new(fields, Some("id"), false).unwrap()
}

/// A row for each id, with all columns made of the id and `tag`; every third has a NULL.
fn rows_of(ids: impl IntoIterator<Item = i64>, tag: &str) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let names = StringArray::from_iter_values(ids.iter().map(|id| format!("{tag}{id}")));
    let notes: StringArray = ids.iter().map(|id| (id % 3 != 0).then(|| format!("note of {id}"))).collect();
    let vectors = dense_column(ids.iter().flat_map(|id| [*id as f32, 0.5, -1.0]).collect(), vector(), None);
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(names), vectors, Arc::new(notes)];
    RecordBatch::try_new(Arc::clone(schema().arrow()), columns).unwrap()
}

const ALL: &[usize] = &[0, 1, 2, 3];

fn keys(ids: impl IntoIterator<Item = i64>) -> Vec<Key> {
    ids.into_iter().map(Key::Int).collect()
}

/// All rows of table `t`, as one batch.
fn content(storage: &dyn Storage) -> RecordBatch {
    let batches = storage.scan("t", ALL).unwrap().collect::<Result<Vec<_>>>().unwrap();
    assert!(batches.iter().all(|batch| batch.num_rows() > 0));
    let content = concat_batches(storage.schema("t").unwrap().arrow(), &batches).unwrap();
    assert_eq!(storage.count("t").unwrap(), content.num_rows());
    content
}

fn ids_of(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[track_caller]
fn refused<T: Debug>(result: Result<T>, kind: ErrorKind, message: &str) {
    let e = result.expect_err("it is refused");
    assert_eq!(e.kind(), kind, "{e}");
    assert!(e.message().contains(message), "{e}");
}

/// A new storage with the table `t` and these rows.
fn with_rows(place: &impl Place, rows: &[RecordBatch]) -> Box<dyn Storage> {
    let storage = place.open();
    storage.create_table("t", schema()).unwrap();
    storage.insert("t", rows).unwrap();
    storage
}

fn tables_are_made_found_and_dropped(place: &impl Place) {
    let storage = place.open();
    assert!(storage.table_names().is_empty());
    for table in ["b", "a", "B"] {
        storage.create_table(table, schema()).unwrap();
    }
    assert_eq!(storage.table_names(), ["B", "a", "b"]);
    refused(storage.create_table("a", schema()), ErrorKind::AlreadyExists, "\"a\"");
    assert_eq!(storage.schema("a").unwrap().arrow(), schema().arrow());
    storage.insert("a", &[rows_of(0..3, "x")]).unwrap();
    storage.drop_table("a").unwrap();
    assert_eq!(storage.table_names(), ["B", "b"]);
    refused(storage.drop_table("a"), ErrorKind::NotFound, "\"a\"");
    let other = TableSchema::new(vec![(Field::new("k", DataType::Utf8, false), None)], Some("k"), false).unwrap();
    storage.create_table("a", other.clone()).unwrap();
    assert_eq!(storage.count("a").unwrap(), 0);
    assert_eq!(storage.schema("a").unwrap().arrow(), other.arrow());
}

fn a_table_that_is_not_there_is_an_error_of_every_call(place: &impl Place) {
    let storage = place.open();
    refused(storage.schema("t"), ErrorKind::NotFound, "\"t\"");
    refused(storage.insert("t", &[rows_of([1], "x")]), ErrorKind::NotFound, "\"t\"");
    refused(storage.update("t", &[rows_of([1], "x")]), ErrorKind::NotFound, "\"t\"");
    refused(storage.get("t", &keys([1]), ALL), ErrorKind::NotFound, "\"t\"");
    refused(storage.delete("t", &keys([1])), ErrorKind::NotFound, "\"t\"");
    refused(storage.scan("t", ALL).map(drop), ErrorKind::NotFound, "\"t\"");
    refused(storage.count("t"), ErrorKind::NotFound, "\"t\"");
}

fn rows_are_found_by_key_and_scanned_in_its_order(place: &impl Place) {
    // More than one batch, in several calls, their keys not in order and interleaved.
    let storage = with_rows(place, &[rows_of((0..9_000).rev().map(|id| 2 * id), "x"), rows_of([-5, -7], "x")]);
    assert_eq!(storage.insert("t", &[rows_of([5, -1, 3, 1], "x")]).unwrap(), 4);
    assert_eq!(storage.insert("t", &[rows_of([i64::MAX, i64::MIN], "x")]).unwrap(), 2);
    let expected: BTreeSet<i64> =
        (0..9_000).map(|id| 2 * id).chain([-7, -5, -1, 1, 3, 5, i64::MIN, i64::MAX]).collect();
    assert_eq!(content(&*storage), rows_of(expected.iter().copied(), "x"));
    let some = [4, i64::MIN, 17_998, 7, 5, 4];
    let found = storage.get("t", &keys(some), ALL).unwrap();
    assert_eq!(found, rows_of(some.into_iter().filter(|id| expected.contains(id)), "x"));
    assert_eq!(storage.get("t", &[Key::UInt(4), Key::Text("4".into())], ALL).unwrap(), rows_of([4], "x"));
}

fn text_keys_are_ordered_by_their_bytes(place: &impl Place) {
    let storage = place.open();
    let table = TableSchema::new(vec![(Field::new("k", DataType::Utf8, false), None)], Some("k"), false).unwrap();
    let batch = |keys: &[&str]| {
        RecordBatch::try_new(Arc::clone(table.arrow()), vec![Arc::new(StringArray::from(keys.to_vec()))]).unwrap()
    };
    storage.create_table("t", table.clone()).unwrap();
    storage.insert("t", &[batch(&["b", "é", ""])]).unwrap();
    storage.insert("t", &[batch(&["B", "a", "aa"])]).unwrap();
    let found: Vec<RecordBatch> = storage.scan("t", &[0]).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!(concat_batches(table.arrow(), &found).unwrap(), batch(&["", "B", "a", "aa", "b", "é"]));
    assert_eq!(storage.get("t", &[Key::Text("é".into()), Key::Int(1)], &[0]).unwrap(), batch(&["é"]));
    refused(storage.insert("t", &[batch(&["aa"])]), ErrorKind::Conflict, "'aa'");
}

fn rows_without_a_key_keep_the_order_they_came_in(place: &impl Place) {
    let storage = place.open();
    let table = TableSchema::new(vec![(Field::new("x", DataType::Int64, true), None)], None, false).unwrap();
    let batch = |values: &[Option<i64>]| {
        RecordBatch::try_new(Arc::clone(table.arrow()), vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
    };
    storage.create_table("t", table.clone()).unwrap();
    storage.insert("t", &[batch(&[Some(3), None]), batch(&[Some(3)])]).unwrap();
    storage.insert("t", &[batch(&[Some(1), Some(2)])]).unwrap();
    let found: Vec<RecordBatch> = storage.scan("t", &[0]).unwrap().collect::<Result<_>>().unwrap();
    let expected = batch(&[Some(3), None, Some(3), Some(1), Some(2)]);
    assert_eq!(concat_batches(table.arrow(), &found).unwrap(), expected);
    refused(storage.get("t", &keys([1]), &[0]), ErrorKind::Invalid, "no primary key");
    refused(storage.delete("t", &keys([1])), ErrorKind::Invalid, "no primary key");
    refused(storage.update("t", &[batch(&[Some(1)])]), ErrorKind::Invalid, "no primary key");
    assert_eq!(storage.count("t").unwrap(), 5);
}

fn a_key_that_exists_or_comes_twice_is_refused_with_all_that_came_with_it(place: &impl Place) {
    let before = rows_of(0..10, "x");
    let storage = with_rows(place, std::slice::from_ref(&before));
    let twice = storage.insert("t", &[rows_of([10, 11], "y"), rows_of([12, 9], "y")]);
    refused(twice, ErrorKind::Conflict, "id = 9 already exists");
    refused(storage.insert("t", &[rows_of([20, 21, 20], "y")]), ErrorKind::Conflict, "20");
    refused(storage.insert("t", &[rows_of([20], "y"), rows_of([20], "y")]), ErrorKind::Conflict, "20");
    refused(storage.update("t", &[rows_of([3, 3], "y")]), ErrorKind::Conflict, "3");
    assert_eq!(content(&*storage), before);
}

fn rows_that_do_not_fit_are_refused_with_all_that_came_with_them(place: &impl Place) {
    let before = rows_of(0..10, "x");
    let storage = with_rows(place, std::slice::from_ref(&before));
    let with = |column: usize, array: ArrayRef| {
        let whole = rows_of([3, 4], "y");
        let fields: Vec<(String, ArrayRef)> = (0..4)
            .map(|i| {
                (
                    schema().arrow().field(i).name().clone(),
                    if i == column { Arc::clone(&array) } else { Arc::clone(whole.column(i)) },
                )
            })
            .collect();
        RecordBatch::try_from_iter_with_nullable(fields.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    };
    let null_name: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let null_id: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
    let text_id: ArrayRef = Arc::new(StringArray::from(vec!["3", "4"]));
    let wide = VectorType::new(VectorKind::Dense, 2).unwrap();
    let short = dense_column(vec![1.0; 4], wide, None);
    let not_finite = dense_column(vec![f32::NAN; 6], vector(), None);
    let misfits = [
        (with(1, null_name), "\"name\" is NOT NULL"),
        (with(0, null_id), "\"id\" is NOT NULL"),
        (with(0, text_id), "\"id\""),
        (with(2, short), "\"v\""),
        (with(2, not_finite), "\"v\""),
        (rows_of([3, 4], "y").project(&[0, 1, 2]).unwrap(), "expected 4 columns, got 3"),
        (rows_of([3, 4], "y").project(&[1, 0, 2, 3]).unwrap(), "\"id\""),
    ];
    for (misfit, message) in misfits {
        refused(storage.insert("t", &[rows_of([20], "y"), misfit.clone()]), ErrorKind::Invalid, message);
        refused(storage.update("t", &[rows_of([1], "y"), misfit]), ErrorKind::Invalid, message);
        assert_eq!(content(&*storage), before);
    }
}

fn an_update_replaces_rows_or_changes_nothing(place: &impl Place) {
    let storage = with_rows(place, &[rows_of(0..10, "x")]);
    assert_eq!(storage.update("t", &[rows_of([7, 2], "y"), rows_of([5], "z")]).unwrap(), 3);
    let expected = [rows_of(0..2, "x"), rows_of([2], "y"), rows_of(3..5, "x"), rows_of([5], "z"), rows_of([6], "x")];
    let expected = [&expected[..], &[rows_of([7], "y"), rows_of(8..10, "x")]].concat();
    let expected = concat_batches(schema().arrow(), &expected).unwrap();
    assert_eq!(content(&*storage), expected);
    refused(storage.update("t", &[rows_of([1], "w"), rows_of([10], "w")]), ErrorKind::NotFound, "id = 10");
    assert_eq!(content(&*storage), expected);
    assert_eq!(storage.get("t", &keys([5, 7]), &[1]).unwrap().column(0).as_string::<i32>().value(1), "y7");
}

fn deleted_rows_are_gone_and_their_keys_are_free(place: &impl Place) {
    let storage = with_rows(place, &[rows_of(0..10, "x")]);
    assert_eq!(storage.delete("t", &keys([3, 12, 5, 3])).unwrap(), 2);
    assert_eq!(storage.delete("t", &keys([3, 5])).unwrap(), 0);
    assert_eq!(ids_of(&content(&*storage)), [0, 1, 2, 4, 6, 7, 8, 9]);
    assert_eq!(storage.get("t", &keys([3, 4, 5]), ALL).unwrap(), rows_of([4], "x"));
    refused(storage.update("t", &[rows_of([3], "y")]), ErrorKind::NotFound, "id = 3");
    assert_eq!(storage.insert("t", &[rows_of([3], "new")]).unwrap(), 1);
    assert_eq!(storage.get("t", &keys([3]), ALL).unwrap(), rows_of([3], "new"));
    assert_eq!(storage.delete("t", &keys(0..10)).unwrap(), 9);
    assert_eq!(content(&*storage).num_rows(), 0);
}

fn columns_come_in_the_order_asked_for(place: &impl Place) {
    let rows = rows_of(0..10, "x");
    let storage = with_rows(place, std::slice::from_ref(&rows));
    for columns in [&[2][..], &[3, 0], &[1, 1], &[]] {
        let expected = rows.project(columns).unwrap();
        let scanned: Vec<RecordBatch> = storage.scan("t", columns).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(scanned, std::slice::from_ref(&expected), "{columns:?}");
        assert_eq!(storage.get("t", &keys(0..10), columns).unwrap(), expected, "{columns:?}");
    }
    assert!(storage.scan("t", &[4]).is_err());
    assert!(storage.get("t", &keys([1]), &[4]).is_err());
}

fn calls_without_rows_change_nothing(place: &impl Place) {
    let storage = place.open();
    storage.create_table("t", schema()).unwrap();
    assert_eq!(storage.scan("t", ALL).unwrap().count(), 0);
    assert!(storage.scan("t", &[4]).is_err());
    let none = RecordBatch::new_empty(Arc::clone(schema().arrow()));
    for rows in [&[][..], std::slice::from_ref(&none)] {
        assert_eq!(storage.insert("t", rows).unwrap(), 0);
        assert_eq!(storage.update("t", rows).unwrap(), 0);
    }
    assert_eq!(storage.delete("t", &[]).unwrap(), 0);
    assert_eq!(storage.get("t", &[], ALL).unwrap(), none);
    let nothing = RecordBatchOptions::new().with_row_count(Some(0));
    let nothing = RecordBatch::try_new_with_options(Arc::new(arrow::datatypes::Schema::empty()), vec![], &nothing);
    assert_eq!(storage.get("t", &[], &[]).unwrap(), nothing.unwrap());
    assert_eq!(storage.count("t").unwrap(), 0);
}

fn a_scan_shows_the_rows_as_they_were_when_it_began(place: &impl Place) {
    let before = rows_of(0..20_000, "x");
    let storage = with_rows(place, std::slice::from_ref(&before));
    let mut scan = storage.scan("t", ALL).unwrap();
    let first = scan.next().unwrap().unwrap();
    assert!(first.num_rows() < before.num_rows(), "a batch is not the whole table");
    storage.delete("t", &keys(5_000..20_000)).unwrap();
    storage.update("t", &[rows_of(0..5_000, "y")]).unwrap();
    storage.insert("t", &[rows_of(30_000..30_100, "y")]).unwrap();
    assert_eq!(storage.count("t").unwrap(), 5_100);
    storage.drop_table("t").unwrap();
    let rest = std::iter::once(Ok(first)).chain(scan).collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(concat_batches(schema().arrow(), &rest).unwrap(), before);
}

fn readers_see_whole_calls(place: &impl Place) {
    let storage = with_rows(place, &[rows_of(0..50, "a")]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..30 {
                storage
                    .update("t", &[rows_of(0..25, &format!("{round}:")), rows_of(25..50, &format!("{round}:"))])
                    .unwrap();
                storage.delete("t", &keys(0..50)).unwrap();
                storage.insert("t", &[rows_of(25..50, "b"), rows_of(0..25, "b")]).unwrap();
            }
        });
        for _ in 0..200 {
            let rows: Vec<RecordBatch> = storage.scan("t", &[1]).unwrap().collect::<Result<_>>().unwrap();
            let of = |name: &str, id: usize| name[..name.len() - id.to_string().len()].to_owned();
            let names: Vec<&str> =
                rows.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).collect();
            let tags: BTreeSet<String> = names.iter().enumerate().map(|(id, name)| of(name, id)).collect();
            assert!([0, 50].contains(&names.len()) && tags.len() <= 1, "{names:?}");
        }
    });
}

fn writers_at_once_lose_nothing(place: &impl Place) {
    let storage = with_rows(place, &[]);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let storage = &storage;
            scope.spawn(move || {
                for i in 0..15 {
                    let id = 1_000 * writer + 10 * i;
                    storage.insert("t", &[rows_of(id..id + 10, "x")]).unwrap();
                    storage.update("t", &[rows_of([id], "y")]).unwrap();
                    assert_eq!(storage.delete("t", &keys([id + 9])).unwrap(), 1);
                }
            });
        }
    });
    let expected = (0..4).flat_map(|writer| (0..150).map(move |i| 1_000 * writer + i)).filter(|id| id % 10 != 9);
    let content = content(&*storage);
    assert_eq!(ids_of(&content), expected.collect::<Vec<_>>());
    let names = content.column(1).as_string::<i32>();
    assert!((0..content.num_rows()).all(|i| names.value(i).starts_with('y') == (i % 9 == 0)));
}

fn what_was_written_is_there_after_opening_again(place: &impl Place) {
    let storage = with_rows(place, &[rows_of(0..100, "x")]);
    storage.create_table("gone", schema()).unwrap();
    storage.create_table("empty", schema()).unwrap();
    storage.delete("t", &keys(10..20)).unwrap();
    storage.update("t", &[rows_of(50..60, "y")]).unwrap();
    storage.drop_table("gone").unwrap();
    let before = content(&*storage);
    drop(storage);
    for _ in 0..2 {
        let storage = place.open();
        if !place.is_kept() {
            assert!(storage.table_names().is_empty());
            return;
        }
        assert_eq!(storage.table_names(), ["empty", "t"]);
        assert_eq!(storage.schema("t").unwrap().arrow(), schema().arrow());
        assert_eq!(content(&*storage), before);
        refused(storage.insert("t", &[rows_of([5], "z")]), ErrorKind::Conflict, "id = 5");
    }
}
