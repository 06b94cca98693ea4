//! Ranks packages by two vectors, in SQL and through the native API, and shows that both agree.
//!
//! `cargo run --example cross_vector` from the root of the repository.

use arrow::util::pretty::pretty_format_batches;
use mvvd_query::core::metric::Metric;
use mvvd_query::{Combine, Config, CrossVectorQuery, Field, Mvvd, Query, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Mvvd::open(Config::memory())?;
    let session = db.session();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/debian_4k.parquet");
    session.sql(&format!("CREATE TABLE packages AS SELECT * FROM '{data}'"), &[]).await?;

    // Find packages like vim: its own vectors are the query.
    let id = session.sql("SELECT id FROM packages WHERE package = 'vim'", &[]).await?.collect().await?;
    let vim = Value::try_from_array(id[0].column(0), 0)?;
    let mut query = CrossVectorQuery::new(
        "packages",
        vec![
            Field::new("v_summary", Query::Row(vim.clone()), Metric::Cosine).weight(0.6),
            Field::new("v_description", Query::Row(vim.clone()), Metric::Cosine).weight(0.4),
        ],
    );
    query.select = vec!["id".into(), "package".into(), "summary".into()];
    query.filter = Some("section = $1".into());
    query.params = vec![Value::from("editors")];
    query.limit = 5;
    let native = session.query(query.clone()).await?.collect().await?;
    print_rows(&native)?;

    let sql = "SELECT id, package, summary,
                      0.6 * (v_summary <=> (SELECT v_summary FROM packages WHERE id = $1))
                    + 0.4 * (v_description <=> (SELECT v_description FROM packages WHERE id = $1)) AS score
               FROM packages WHERE section = 'editors' ORDER BY score LIMIT 5";
    let same = session.sql(sql, &[vim]).await?.collect().await?;
    assert_eq!(native[0].column(0), same[0].column(0), "two doors, one answer");

    // A combination of our own: the harmonic mean of both distances.
    db.register_function("harmonic", 2, true, |d| 2.0 * d[0] * d[1] / (d[0] + d[1]).max(f64::MIN_POSITIVE))?;
    query.combine = Combine::Function("harmonic".into());
    print_rows(&session.query(query).await?.collect().await?)?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn print_rows(batches: &[arrow::array::RecordBatch]) -> Result<(), arrow::error::ArrowError> {
    println!("{}", pretty_format_batches(batches)?);
    Ok(())
}
