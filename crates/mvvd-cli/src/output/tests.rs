//! Every format over the same small tables, the expected text written by hand.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use mvvd_core::VectorType;
use mvvd_core::convert::to_vectors;

use super::*;

/// Lets a test read what a printer wrote.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn view(format: Format) -> View {
    View { format, vectors: Vectors::Short, width: None, color: false }
}

fn bytes(view: View, batches: &[RecordBatch]) -> Vec<u8> {
    let out = Shared::default();
    let mut printer = printer(view, batches[0].schema_ref(), Box::new(out.clone())).unwrap();
    for batch in batches {
        printer.rows(batch).unwrap();
    }
    printer.finish().unwrap();
    out.0.borrow().clone()
}

fn print(view: View, batches: &[RecordBatch]) -> String {
    String::from_utf8(bytes(view, batches)).unwrap()
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Three rows: an ordinary one, one with all that is awkward, and one of NULLs.
fn sample() -> RecordBatch {
    let ty = VectorType::parse("VECTOR(5)").unwrap();
    let vectors = StringArray::from(vec![Some("[0.5,-1,0,2,3]"), Some("[1,2,3,4,5]"), None]);
    batch(vec![
        (Field::new("id", DataType::UInt64, false), Arc::new(UInt64Array::from(vec![1, u64::MAX, 3]))),
        (
            Field::new("name", DataType::Utf8, true),
            Arc::new(StringArray::from(vec![Some("lamp"), Some("a,\"b\"|\t日本\nz"), None])),
        ),
        (
            Field::new("d", DataType::Float64, true),
            Arc::new(Float64Array::from(vec![Some(0.25), Some(f64::NAN), None])),
        ),
        (ty.field("v", true), to_vectors(&vectors, None, ty).unwrap()),
    ])
}

#[track_caller]
fn check(format: Format, expected: &str) {
    let rows = sample();
    assert_eq!(print(view(format), std::slice::from_ref(&rows)), expected);
    // The same in two batches, one of them empty.
    let parts = [rows.slice(0, 1), rows.slice(1, 0), rows.slice(1, 2)];
    assert_eq!(print(view(format), &parts), expected);
}

#[test]
fn table() {
    check(
        Format::Table,
        concat!(
            "                   id | name         |    d | v\n",
            "----------------------+--------------+------+-------------------\n",
            "                    1 | lamp         | 0.25 | [0.5, -1, 0, … 5]\n",
            " 18446744073709551615 | a,\"b\"|\\t日本+|  NaN | [1, 2, 3, … 5]\n",
            "                      | z            |      |\n",
            "                    3 | NULL         | NULL | NULL\n",
            "(3 rows)\n",
        ),
    );
}

#[test]
fn csv() {
    check(
        Format::Csv,
        concat!(
            "id,name,d,v\n",
            "1,lamp,0.25,\"[0.5,-1,0,2,3]\"\n",
            "18446744073709551615,\"a,\"\"b\"\"|\t日本\nz\",NaN,\"[1,2,3,4,5]\"\n",
            "3,,,\n",
        ),
    );
}

#[test]
fn tsv() {
    check(
        Format::Tsv,
        concat!(
            "id\tname\td\tv\n",
            "1\tlamp\t0.25\t[0.5,-1,0,2,3]\n",
            "18446744073709551615\ta,\"b\"|\\t日本\\nz\tNaN\t[1,2,3,4,5]\n",
            "3\t\t\t\n",
        ),
    );
}

#[test]
fn json() {
    check(
        Format::Json,
        concat!(
            r#"[{"id":1,"name":"lamp","d":0.25,"v":[0.5,-1.0,0.0,2.0,3.0]},"#,
            "\n ",
            r#"{"id":18446744073709551615,"name":"a,\"b\"|\t日本\nz","d":null,"v":[1.0,2.0,3.0,4.0,5.0]},"#,
            "\n ",
            r#"{"id":3,"name":null,"d":null,"v":null}]"#,
            "\n",
        ),
    );
}

#[test]
fn ndjson() {
    check(
        Format::Ndjson,
        concat!(
            r#"{"id":1,"name":"lamp","d":0.25,"v":[0.5,-1.0,0.0,2.0,3.0]}"#,
            "\n",
            r#"{"id":18446744073709551615,"name":"a,\"b\"|\t日本\nz","d":null,"v":[1.0,2.0,3.0,4.0,5.0]}"#,
            "\n",
            r#"{"id":3,"name":null,"d":null,"v":null}"#,
            "\n",
        ),
    );
}

#[test]
fn markdown() {
    check(
        Format::Markdown,
        concat!(
            "|                   id | name               |    d | v              |\n",
            "| -------------------: | ------------------ | ---: | -------------- |\n",
            "|                    1 | lamp               | 0.25 | [0.5,-1,0,2,3] |\n",
            "| 18446744073709551615 | a,\"b\"\\|\\t日本<br>z |  NaN | [1,2,3,4,5]    |\n",
            "|                    3 | NULL               | NULL | NULL           |\n",
        ),
    );
}

#[test]
fn line() {
    check(
        Format::Line,
        concat!(
            "-[ row 1 ]-\n",
            "id   | 1\n",
            "name | lamp\n",
            "d    | 0.25\n",
            "v    | [0.5, -1, 0, … 5]\n",
            "-[ row 2 ]-\n",
            "id   | 18446744073709551615\n",
            "name | a,\"b\"|\\t日本\n",
            "     | z\n",
            "d    | NaN\n",
            "v    | [1, 2, 3, … 5]\n",
            "-[ row 3 ]-\n",
            "id   | 3\n",
            "name | NULL\n",
            "d    | NULL\n",
            "v    | NULL\n",
            "(3 rows)\n",
        ),
    );
}

#[test]
fn arrow_reads_back_with_its_metadata() {
    let rows = sample();
    let bytes = bytes(view(Format::Arrow), &[rows.slice(0, 1), rows.slice(1, 2)]);
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    assert_eq!(VectorType::of_field(reader.schema().field(3)).unwrap().to_string(), "VECTOR(5)");
    let back: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    assert_eq!(arrow::compute::concat_batches(rows.schema_ref(), &back).unwrap(), rows);
}

#[test]
fn no_rows_and_no_columns() {
    let empty = || [sample().slice(0, 0)];
    assert_eq!(print(view(Format::Table), &empty()), " id | name | d | v\n----+------+---+---\n(0 rows)\n");
    assert_eq!(print(view(Format::Csv), &empty()), "id,name,d,v\n");
    assert_eq!(print(view(Format::Json), &empty()), "[]\n");
    assert_eq!(print(view(Format::Ndjson), &empty()), "");
    assert_eq!(print(view(Format::Line), &empty()), "(0 rows)\n");
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(2));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    assert_eq!(print(view(Format::Table), std::slice::from_ref(&none)), "(2 rows)\n");
    assert_eq!(print(view(Format::Ndjson), &[none]), "{}\n{}\n");
}

#[test]
fn on_a_terminal_text_is_cut_and_numbers_are_not() {
    let rows = batch(vec![
        (Field::new("n", DataType::Int64, false), Arc::new(Int64Array::from(vec![1_234_567_890_123]))),
        (Field::new("words", DataType::Utf8, true), Arc::new(StringArray::from(vec!["one two three four five six"]))),
    ]);
    let narrow = View { width: Some(30), ..view(Format::Table) };
    assert_eq!(
        print(narrow, &[rows]),
        concat!(
            "             n | words\n",
            "---------------+--------------\n",
            " 1234567890123 | one two thr…\n",
            "(1 row)\n",
        ),
    );
}

#[test]
fn null_is_dim_where_colours_are_allowed() {
    let rows = batch(vec![(Field::new("t", DataType::Utf8, true), Arc::new(StringArray::from(vec![None::<&str>])))]);
    let colored = View { color: true, ..view(Format::Table) };
    assert_eq!(print(colored, &[rows]), " t\n------\n \x1b[2mNULL\x1b[0m\n(1 row)\n");
}

#[test]
fn widths_come_from_the_first_rows_and_the_rest_streams() {
    let column = |values: Vec<String>| {
        batch(vec![(Field::new("t", DataType::Utf8, true), Arc::new(StringArray::from(values)) as ArrayRef)])
    };
    let out = Shared::default();
    let first = column(vec!["ab".to_owned(); 10_000]);
    let mut printer = printer(view(Format::Table), first.schema_ref(), Box::new(out.clone())).unwrap();
    printer.rows(&first.slice(0, 9_999)).unwrap();
    assert!(out.0.borrow().is_empty());
    printer.rows(&first.slice(9_999, 1)).unwrap();
    assert!(out.0.borrow().starts_with(b" t\n----\n ab\n"));
    printer.rows(&column(vec!["much wider".to_owned()])).unwrap();
    assert!(out.0.borrow().ends_with(b" ab\n much wider\n"));
    printer.finish().unwrap();
    assert!(out.0.borrow().ends_with(b"(10001 rows)\n"));
}
