//! Random writes against a plain map, and what a failed write must leave alone.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use mvvd_core::ErrorKind;
use proptest::prelude::*;

use super::*;
use crate::chunk::stored_fields;
use crate::key::Key;

fn table() -> Table {
    let fields =
        vec![(Field::new("id", DataType::Int64, false), None), (Field::new("name", DataType::Utf8, true), None)];
    Table::new(TableSchema::new(fields, Some("id"), false).unwrap())
}

fn batch(rows: &[(i64, &str)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let names = StringArray::from_iter_values(rows.iter().map(|r| r.1));
    let schema = Arc::clone(table().snapshot().schema().arrow());
    RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

fn content(snapshot: &Snapshot) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for chunk in snapshot.chunks() {
        let all = chunk.batch(snapshot.schema(), &[0, 1], 0..chunk.len()).unwrap();
        for i in (0..chunk.len()).filter(|&i| !chunk.deleted().contains(i as u32)) {
            let id = all.column(0).as_primitive::<Int64Type>().value(i);
            let text = all.column(1).as_string::<i32>();
            assert!(rows.insert(id, text.value(i).to_owned()).is_none(), "key {id} twice");
            let row = chunk.row_id(i);
            assert_eq!(snapshot.places(&[row]).unwrap()[0].ordinal, i as u32, "every live row is found by its name");
            assert_eq!(snapshot.find(&Key::Int(id)).unwrap().map(|place| snapshot.row_id(place)), Some(row));
        }
    }
    rows
}

fn row_of(table: &Table, id: i64) -> RowId {
    let snapshot = table.snapshot();
    snapshot.row_id(snapshot.find(&Key::Int(id)).unwrap().unwrap())
}

#[test]
fn rows_of_one_chunk_are_written_as_a_copy_of_them_would_be() {
    let names = vec![(Field::new("name", DataType::Utf8, true), None)];
    let table = Table::new(TableSchema::new(names, None, false).unwrap());
    let names = StringArray::from(vec![Some("a"), Some("b"), None, Some("d"), Some("e"), Some("f")]);
    let rows = RecordBatch::try_new(Arc::clone(table.head().schema().arrow()), vec![Arc::new(names)]).unwrap();
    table.append(&[rows]).unwrap().wait().unwrap();
    let gone = [0, 1, 4].map(|ordinal| table.head().chunks()[0].row_id(ordinal));
    table.delete(&gone).unwrap().wait().unwrap();
    let seven: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let column = Field::new("n", DataType::Int64, false);
    table.alter(|schema| schema.with_column(column, Some("7".into()), Some(seven))).unwrap().wait().unwrap();
    let head = table.head();
    let merge = Merge::new(head.schema(), head.chunks()).unwrap();
    // Rows 2, 3 and 5 are left.
    for (range, is_run) in [(0..2, true), (1..2, true), (2..3, true), (1..3, false), (0..3, false), (3..3, false)] {
        assert_eq!(merge.run(range.clone()).is_some(), is_run, "{range:?}");
        let written = merge.batch(&stored_fields(head.schema()), range.clone()).unwrap();
        let copied = merge.chunk(9, range.clone()).unwrap().all_columns().unwrap();
        let copied: Vec<_> = copied.into_iter().map(|(_, array)| array).collect();
        assert_eq!(written.columns(), copied, "{range:?}");
    }
}

#[test]
fn a_duplicate_changes_nothing() {
    let table = table();
    table.append(&[batch(&[(1, "a"), (2, "b")])]).unwrap().wait().unwrap();
    let before = table.snapshot();
    let e = table.append(&[batch(&[(3, "c")]), batch(&[(2, "x")])]).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Conflict, "duplicate key: id = 2 already exists"));
    let e = table.append(&[batch(&[(7, "c"), (7, "d")])]).unwrap_err();
    assert_eq!(e.message(), "duplicate key: id = 7 comes twice in one statement");
    assert_eq!(table.snapshot().version(), before.version());
    let find = |id| table.head().find(&Key::Int(id)).unwrap();
    assert_eq!((find(3), find(7)), (None, None));
}

#[test]
fn keys_may_swap_in_one_step() {
    let table = table();
    table.append(&[batch(&[(1, "a"), (2, "b")])]).unwrap().wait().unwrap();
    let rows = [row_of(&table, 1), row_of(&table, 2)];
    table.replace(&rows, &[batch(&[(2, "a"), (1, "b")])]).unwrap().wait().unwrap();
    assert_eq!(content(&table.snapshot()), BTreeMap::from([(1, "b".to_owned()), (2, "a".to_owned())]));
    // The old rows are gone: whoever still wants to change them was too late.
    assert_eq!(table.delete(&rows).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_snapshot_does_not_change() {
    let table = table();
    table.append(&[batch(&[(1, "a")])]).unwrap().wait().unwrap();
    let held = table.snapshot();
    table.append(&[batch(&[(2, "b")])]).unwrap().wait().unwrap();
    table.truncate().unwrap().wait().unwrap();
    assert_eq!(content(&held).len(), 1);
    assert_eq!(content(&table.snapshot()).len(), 0);
}

#[test]
fn new_columns_show_their_initial_value_in_old_rows() {
    let table = table();
    table.append(&[batch(&[(1, "a")])]).unwrap().wait().unwrap();
    let seven: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![7]));
    table.alter(|s| s.with_column(Field::new("n", DataType::Int64, true), None, Some(seven))).unwrap().wait().unwrap();
    table.alter(|s| s.with_column(Field::new("m", DataType::Utf8, true), None, None)).unwrap().wait().unwrap();
    let snapshot = table.snapshot();
    let row = snapshot.take(&snapshot.places(&[row_of(&table, 1)]).unwrap(), &[2, 3]).unwrap();
    assert_eq!(row.column(0).as_primitive::<Int64Type>().value(0), 7);
    assert!(row.column(1).is_null(0));
}

#[test]
fn many_small_writes_make_few_chunks() {
    let table = table();
    for id in 0..3_000 {
        table.append(&[batch(&[(id, "x")])]).unwrap().wait().unwrap();
    }
    assert!(table.snapshot().chunks().len() <= 16, "{}", table.snapshot().chunks().len());
    assert_eq!(content(&table.snapshot()).len(), 3_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_writes_match_a_map(ops in prop::collection::vec((0u8..4, prop::collection::vec((0i64..30, "[a-c]{1,2}"), 0..12)), 1..40)) {
        let table = table();
        let mut model: BTreeMap<i64, String> = BTreeMap::new();
        for (op, rows) in ops {
            let rows: Vec<(i64, &str)> = rows.iter().map(|(id, name)| (*id, name.as_str())).collect();
            let distinct: BTreeMap<i64, String> = rows.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
            let clean = distinct.len() == rows.len();
            match op {
                // Insert: all or nothing.
                0 | 1 => {
                    let ok = clean && distinct.keys().all(|id| !model.contains_key(id));
                    prop_assert_eq!(table.append(&[batch(&rows)]).and_then(Commit::wait).is_ok(), ok);
                    if ok {
                        model.extend(distinct);
                    }
                }
                // Delete what exists.
                2 => {
                    let ids: Vec<i64> = distinct.keys().copied().filter(|id| model.contains_key(id)).collect();
                    let found: Vec<RowId> = ids.iter().map(|&id| row_of(&table, id)).collect();
                    table.delete(&found).unwrap().wait().unwrap();
                    ids.iter().for_each(|id| { model.remove(id); });
                }
                // Update what exists.
                _ => {
                    let ids: Vec<i64> = distinct.keys().copied().filter(|id| model.contains_key(id)).collect();
                    let found: Vec<RowId> = ids.iter().map(|&id| row_of(&table, id)).collect();
                    let new: Vec<(i64, &str)> = ids.iter().map(|id| (*id, distinct[id].as_str())).collect();
                    table.replace(&found, &[batch(&new)]).unwrap().wait().unwrap();
                    ids.iter().for_each(|id| { model.insert(*id, distinct[id].clone()); });
                }
            }
            prop_assert_eq!(&content(&table.snapshot()), &model);
        }
    }
}
