//! The native API against the same rankings in SQL, and its errors.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use mvvd_core::ErrorKind;
use mvvd_core::metric::Metric;
use mvvd_query::{Combine, Config, CrossVectorQuery, Field, Missing, Mvvd, OnConflict, Query, Session, Value};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Two fields; the rows' distances to a = [0,0] and b = [0,0] are (3, 4), (5, 0), (1, 13), (0, NULL).
async fn open() -> (Mvvd, Session) {
    let db = Mvvd::open(Config { threads: Some(2), ..Config::memory() }).unwrap();
    let session = db.session();
    session.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, a VECTOR(2), b HALFVEC(2))", &[]).await.unwrap();
    let rows = batch(vec![
        ("id", ints(&[1, 2, 3, 4])),
        ("a", texts(&[Some("[3,0]"), Some("[3,4]"), Some("[0,1]"), Some("[0,0]")])),
        ("b", texts(&[Some("[0,4]"), Some("[0,0]"), Some("[5,12]"), None])),
        ("name", texts(&[Some("x"), Some("y"), Some("x"), None])),
    ]);
    assert_eq!(session.insert("t", rows, OnConflict::Fail).await.unwrap(), 4);
    (db, session)
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("a", Query::Vector(vec![0.0, 0.0]), Metric::L2),
        Field::new("b", Query::Value(Value::from("[0,0]")), Metric::L2),
    ]
}

async fn ranking(session: &Session, query: CrossVectorQuery) -> Vec<(i64, Option<f64>)> {
    let batches = session.query(query).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in batches {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
        let scores = batch.column_by_name("score").unwrap().as_primitive::<Float64Type>().clone();
        rows.extend((0..batch.num_rows()).map(|i| (ids.value(i), scores.is_valid(i).then(|| scores.value(i)))));
    }
    rows
}

async fn combined(session: &Session, combine: Combine) -> Vec<(i64, Option<f64>)> {
    ranking(session, CrossVectorQuery { combine, ..CrossVectorQuery::new("t", fields()) }).await
}

#[tokio::test]
async fn combinations_by_hand() {
    let (db, session) = open().await;
    let all = [(2, Some(2.5)), (1, Some(3.5)), (3, Some(7.0)), (4, None)];
    assert_eq!(combined(&session, Combine::WeightedAverage).await, all);
    let weighted = vec![fields()[0].clone().weight(3.0), fields()[1].clone().weight(1.0)];
    let expected = [(1, Some(3.25)), (2, Some(3.75)), (3, Some(4.0)), (4, None)];
    assert_eq!(ranking(&session, CrossVectorQuery::new("t", weighted)).await, expected);
    // LEAST and GREATEST skip NULL, as in SQL.
    assert_eq!(
        combined(&session, Combine::Min).await,
        [(2, Some(0.0)), (4, Some(0.0)), (3, Some(1.0)), (1, Some(3.0))]
    );
    assert_eq!(
        combined(&session, Combine::Max).await,
        [(4, Some(0.0)), (1, Some(4.0)), (2, Some(5.0)), (3, Some(13.0))]
    );
    let expr = Combine::Expr("2 * a + sqrt(b)".into());
    assert_eq!(combined(&session, expr).await[..2], [(3, Some(2.0 + 13f64.sqrt())), (1, Some(8.0))]);
    db.register_function("product", 2, true, |d| d[0] * d[1]).unwrap();
    let product = [(2, Some(0.0)), (1, Some(12.0)), (3, Some(13.0)), (4, None)];
    assert_eq!(combined(&session, Combine::Function("product".into())).await, product);
    // Ranks by a: 4, 3, 1, 2; by b: 2, 1, 3, 4 (NULL last).
    let rrf = combined(&session, Combine::Rrf).await;
    let score = |a: f64, b: f64| Some(1.0 / (60.0 + a) + 1.0 / (60.0 + b));
    assert_eq!(rrf, [(2, score(4.0, 1.0)), (4, score(1.0, 4.0)), (1, score(3.0, 2.0)), (3, score(2.0, 3.0))]);
}

#[tokio::test]
async fn missing_vectors() {
    let (_db, session) = open().await;
    let with = |missing| vec![fields()[0].clone(), fields()[1].clone().missing(missing)];
    let average = |missing| CrossVectorQuery::new("t", with(missing));
    assert_eq!(ranking(&session, average(Missing::Null)).await[3], (4, None));
    assert_eq!(ranking(&session, average(Missing::Exclude)).await.len(), 3);
    assert_eq!(ranking(&session, average(Missing::Distance(1.0))).await[0], (4, Some(0.5)));
    // The worst distance of b among all rows is 13.
    assert!(ranking(&session, average(Missing::Worst)).await.contains(&(4, Some(6.5))));
}

#[tokio::test]
async fn filters_pages_and_rows_as_queries() {
    let (_db, session) = open().await;
    let mut query =
        CrossVectorQuery::new("t", vec![Field::new("a", Query::Row(Value::from(3_i64)), Metric::L2Squared)]);
    query.filter = Some("name = $1 OR id = $2".into());
    query.params = vec![Value::from("x"), Value::from(4_i64)];
    assert_eq!(ranking(&session, query.clone()).await, [(3, Some(0.0)), (4, Some(1.0)), (1, Some(10.0))]);
    query.offset = 1;
    query.limit = 1;
    assert_eq!(ranking(&session, query).await, [(4, Some(1.0))]);
}

#[tokio::test]
async fn entities_by_key() {
    let (_db, session) = open().await;
    let keys = [Value::from(3_i64), Value::from(9_i64), Value::from(1_i64)];
    let found = session.get("t", &keys, &["id", "name"]).unwrap();
    assert_eq!(found.column(0).as_primitive::<Int64Type>().values(), &[3, 1]);
    let change = batch(vec![("id", ints(&[1])), ("b", texts(&[Some("[7,7]")]))]);
    assert_eq!(session.update("t", change).await.unwrap(), 1);
    let e = session.update("t", batch(vec![("id", ints(&[1, 77])), ("name", texts(&[None, None]))])).await.unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::NotFound, "there is no row with id = 77"));
    let again = batch(vec![("id", ints(&[4, 5])), ("name", texts(&[Some("new"), Some("new")]))]);
    assert_eq!(session.insert("t", again.clone(), OnConflict::Fail).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(session.count("t").unwrap(), 4);
    assert_eq!(session.insert("t", again.clone(), OnConflict::Ignore).await.unwrap(), 1);
    assert_eq!(session.insert("t", again, OnConflict::Replace).await.unwrap(), 2);
    assert_eq!(session.delete("t", &[Value::from(5_i64), Value::from(6_i64)]).await.unwrap(), 1);
    assert_eq!(session.count("t").unwrap(), 4);
}

#[tokio::test]
async fn errors_name_the_thing() {
    let (db, session) = open().await;
    let message = |query: CrossVectorQuery| {
        let session = session.clone();
        async move {
            match session.query(query).await {
                Err(e) => e.to_string(),
                Ok(answer) => answer.collect().await.expect_err("must fail").to_string(),
            }
        }
    };
    let with = |field: Field| CrossVectorQuery::new("t", vec![field]);
    let zeros = || Query::Vector(vec![0.0, 0.0]);
    assert_eq!(message(CrossVectorQuery::new("gone", fields())).await, "table \"gone\" does not exist");
    assert_eq!(message(CrossVectorQuery::new("t", vec![])).await, "a cross-vector query needs at least one field");
    assert_eq!(message(with(Field::new("c", zeros(), Metric::L2))).await, "column \"c\" does not exist");
    assert_eq!(
        message(with(Field::new("a", Query::Vector(vec![1.0]), Metric::L2))).await,
        "different vector dimensions 2 and 1"
    );
    assert_eq!(
        message(with(Field::new("a", Query::Vector(vec![f32::NAN]), Metric::L2))).await,
        "NaN not allowed in vector"
    );
    assert_eq!(
        message(with(Field::new("a", zeros(), Metric::L2).weight(0.0))).await,
        "the weights of a weighted average must not sum to 0"
    );
    assert!(
        message(with(Field::new("a", zeros(), Metric::Hamming))).await.contains("hamming_distance needs bit vectors")
    );
    assert!(db.register_function("l2_distance", 2, true, |_| 0.0).is_err());
    assert!(db.register_function("Bad Name", 2, true, |_| 0.0).is_err());
}

#[tokio::test]
async fn vectors_bind_in_every_form() {
    let (_db, session) = open().await;
    let list = Value::List(Value::new_list_nullable(
        &[Value::from(3.0_f64), Value::from(0.0_f64)],
        &arrow::datatypes::DataType::Float64,
    ));
    for param in [Value::from("[3,0]"), mvvd_query::value::vector(&[3.0, 0.0]).unwrap(), list] {
        for sql in [
            "SELECT id FROM t ORDER BY a <-> $1 LIMIT 1",
            "SELECT id FROM t WHERE a <-> $1 < 0.5",
            "SELECT id FROM t WHERE a = $1::VECTOR(2)",
        ] {
            let batches = session.sql(sql, std::slice::from_ref(&param)).await.unwrap().collect().await.unwrap();
            assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().values(), &[1], "{sql} {param:?}");
        }
        let sql = "INSERT INTO t (id, a) VALUES (99, $1) RETURNING a::TEXT AS a";
        let batches = session.sql(sql, &[param]).await.unwrap().collect().await.unwrap();
        assert_eq!(batches[0].column(0).as_string::<i32>().value(0), "[3,0]");
        session.delete("t", &[Value::from(99_i64)]).await.unwrap();
    }
    let e = session.sql("SELECT a <-> $2 FROM t", &[Value::from("[1,2]")]).await.unwrap_err();
    assert_eq!(e.message(), "there is no value for $2: 1 given");
}
