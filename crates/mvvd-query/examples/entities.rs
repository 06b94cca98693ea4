//! Entities in and out as record batches: insert, get, update, delete, without SQL on the hot path.
//!
//! `cargo run --example entities`

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use mvvd_query::{Config, Mvvd, OnConflict, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Mvvd::open(Config::memory())?.session();
    session
        .sql("CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT, v VECTOR(2)) WITH (timestamps = true)", &[])
        .await?;

    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["one", "two", "three"]));
    // Vectors come as lists or as text.
    let vectors: ArrayRef = Arc::new(StringArray::from(vec!["[1,0]", "[0,1]", "[1,1]"]));
    let rows = RecordBatch::try_from_iter([("id", ids), ("name", names), ("v", vectors)])?;
    session.insert("items", rows, OnConflict::Fail).await?;

    let change: ArrayRef = Arc::new(StringArray::from(vec!["zwei"]));
    let key: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    session.update("items", RecordBatch::try_from_iter([("id", key), ("name", change)])?).await?;
    session.delete("items", &[Value::from(3_i64)]).await?;

    let found = session.get("items", &[Value::from(2_i64), Value::from(3_i64)], &["id", "name", "v"])?;
    assert_eq!((found.num_rows(), session.count("items")?), (1, 2));
    print_rows(&[found])?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn print_rows(batches: &[RecordBatch]) -> Result<(), arrow::error::ArrowError> {
    println!("{}", pretty_format_batches(batches)?);
    Ok(())
}
