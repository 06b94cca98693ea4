//! Constants of an INSERT are read without a planner. Do they become what the planner makes of them?

use mvvd_query::{Mvvd, Session, Value, value};

const TYPES: [&str; 13] = [
    "SMALLINT",
    "INT",
    "BIGINT",
    "REAL",
    "DOUBLE PRECISION",
    "TEXT",
    "BOOLEAN",
    "DATE",
    "JSON",
    "UUID",
    "VECTOR(2)",
    "HALFVEC(2)",
    "BIT(3)",
];

const LITERALS: [&str; 30] = [
    "NULL",
    "TRUE",
    "false",
    "0",
    "-0",
    "7",
    "-7",
    "- 7",
    "40000",
    "-32768",
    "32768",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1.5",
    "-2.5",
    "0.1",
    "1e3",
    "1e39",
    "1e400",
    "''",
    "'seven'",
    "'7'",
    "'it''s'",
    "'2024-02-29'",
    "'{\"a\": 1}'",
    "'6BA7B810-9DAD-11D1-80B4-00C04FD430C8'",
    "'[1,2.5]'",
    "'[1,2,3]'",
    "'101'",
];

/// The value as it is stored, or that it was refused.
async fn stored(session: &Session, ty: &str, value: &str) -> Option<String> {
    session.sql("DROP TABLE IF EXISTS t", &[]).await.unwrap();
    session.sql(&format!("CREATE TABLE t (v {ty})"), &[]).await.unwrap();
    session.sql(&format!("INSERT INTO t VALUES ({value})"), &[]).await.ok()?;
    let batches = session.sql("SELECT v::TEXT FROM t", &[]).await.unwrap().collect().await.unwrap();
    Some(arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
}

#[tokio::test]
async fn constants_mean_what_the_planner_says() {
    let session = Mvvd::open(mvvd_query::Config::memory()).unwrap().session();
    for ty in TYPES {
        for literal in LITERALS {
            let quick = stored(&session, ty, literal).await;
            // A value in parentheses goes the long way.
            let planned = stored(&session, ty, &format!("({literal})")).await;
            assert_eq!(quick, planned, "{literal} as {ty}");
        }
    }
}

#[tokio::test]
async fn parameters_are_stored_as_they_are() {
    let session = Mvvd::open(mvvd_query::Config::memory()).unwrap().session();
    let create =
        "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, score REAL, seen TIMESTAMP, v VECTOR(2), n INT DEFAULT 3)";
    session.sql(create, &[]).await.unwrap();
    let insert = &session.statements("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)").unwrap()[0];
    let seen = Value::TimestampMicrosecond(Some(1_000_000), None);
    let vector = value::vector(&[1.0, 2.0]).unwrap();
    let row = |id: i64, name: &str| {
        let name = Value::Utf8(Some(name.to_owned()));
        vec![
            Value::Int64(Some(id)),
            name,
            Value::Float32(Some(0.5)),
            seen.clone(),
            vector.clone(),
            Value::Int32(Some(4)),
        ]
    };
    assert_eq!(session.run(insert, &row(1, "a")).await.unwrap().rows_affected(), Some(1));
    // Types that must be cast, and NULLs, come out the same.
    let other = [
        Value::Int32(Some(2)),
        Value::LargeUtf8(Some("b".into())),
        Value::Float64(Some(0.5)),
        Value::Null,
        Value::Utf8(Some("[3, 4]".into())),
        Value::Int64(None),
    ];
    session.run(insert, &other).await.unwrap();
    let some = &session.statements("INSERT INTO t (v, id) VALUES ('[5,6]', $1), (NULL, 4)").unwrap()[0];
    assert_eq!(session.run(some, &[Value::Int64(Some(3))]).await.unwrap().rows_affected(), Some(2));

    let wrong = session.run(some, &[]).await.unwrap_err();
    assert!(wrong.message().contains("$1"), "{wrong}");
    let twice = session.run(insert, &row(1, "again")).await.unwrap_err();
    assert!(twice.message().contains("id = 1 already exists"), "{twice}");
    let short = value::vector(&[1.0]).unwrap();
    let dims = session.run(some, &[short]).await.unwrap_err();
    assert!(!dims.message().is_empty());

    let batches = session.sql("SELECT * FROM t ORDER BY id", &[]).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    let rows: Vec<String> = shown
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("name"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(
        rows,
        ["|1|a|0.5|1970-01-01T00:00:01|[1.0, 2.0]|4|", "|2|b|0.5||[3.0, 4.0]||", "|3||||[5.0, 6.0]|3|", "|4|||||3|",]
    );
}
