//! What nobody should send: no text, value or depth takes the process down, and nothing is half-done.

use std::time::Instant;

use mvvd_core::ErrorKind;
use mvvd_query::{Config, Mvvd, Session, Value};
use proptest::prelude::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a statement to its end; only the kind of a failure counts.
async fn run(session: &Session, sql: &str, params: &[Value]) -> Result<usize, ErrorKind> {
    let answer = session.sql(sql, params).await.map_err(|e| e.kind())?;
    let batches = answer.collect().await.map_err(|e| e.kind())?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

#[test]
fn deep_and_long_expressions_are_refused_or_run() {
    runtime().block_on(async {
        let session = Mvvd::open(Config::memory()).unwrap().session();
        run(&session, "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, s TEXT, v VECTOR(2))", &[]).await.unwrap();
        run(&session, "INSERT INTO t VALUES (1, 1, 'x', '[1,2]')", &[]).await.unwrap();
        let chains = [" OR a = 1", " AND a = 1", " + a", " - a", " || s", " IS NOT NULL", "::BIGINT", " AND NOT a = 2"];
        for unit in chains {
            for n in [20_000, 2_000, 120] {
                let sql = format!("SELECT * FROM t WHERE (a{} ) IS NOT NULL", unit.repeat(n));
                // Too deep is said so; what is accepted must run or be an error of its types.
                match run(&session, &sql, &[]).await {
                    Ok(_) | Err(ErrorKind::Invalid | ErrorKind::Unsupported) => assert!(n < 2_000, "{unit} {n}"),
                    Err(kind) => assert_eq!(kind, ErrorKind::Exhausted, "{unit} {n}"),
                }
            }
        }
        for (open, close) in [
            ("(", ")"),
            ("abs(", ")"),
            ("-(", ")"),
            ("NOT (", ")"),
            ("CASE WHEN true THEN ", " END"),
            ("(SELECT ", ")"),
        ] {
            for n in [10_000, 25] {
                let sql = format!("SELECT {}1{} AS x", open.repeat(n), close.repeat(n));
                if let Err(kind) = run(&session, &sql, &[]).await {
                    assert_ne!(kind, ErrorKind::Internal, "{open} {n}");
                }
            }
        }
        let union = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(100));
        assert!(matches!(run(&session, &union, &[]).await, Ok(101) | Err(ErrorKind::Exhausted)));
        let list = (0..50_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(run(&session, &format!("SELECT * FROM t WHERE a IN ({list})"), &[]).await, Ok(1));
    });
}

#[test]
fn a_query_over_the_memory_limit_gets_a_clear_error() {
    runtime().block_on(async {
        let config = Config { memory_limit_bytes: Some(16 << 20), threads: Some(2), ..Config::memory() };
        let session = Mvvd::open(config).unwrap().session();
        for sql in [
            "SELECT count(*) FROM generate_series(1, 2000000) a(x) JOIN generate_series(1, 2000000) b(y) ON a.x % 7 = b.y % 7 AND a.x < b.y AND a.x + b.y < 3",
            "SELECT array_agg(x) FROM generate_series(1, 20000000) t(x)",
            "CREATE TABLE big AS SELECT x AS id, x + 1 AS y FROM generate_series(1, 20000000) t(x)",
        ] {
            let answer = match session.sql(sql, &[]).await {
                Ok(answer) => answer.collect().await.map(|_| ()),
                Err(e) => Err(e),
            };
            let e = answer.expect_err(sql);
            assert_eq!(e.kind(), ErrorKind::Exhausted, "{sql}: {e}");
            assert!(e.message().starts_with("out of memory"), "{e}");
        }
        // Nothing of the failed statement is left, and the session goes on.
        assert_eq!(run(&session, "SELECT 1 FROM big", &[]).await, Err(ErrorKind::NotFound));
        assert_eq!(run(&session, "SELECT 1", &[]).await, Ok(1));
    });
}

#[test]
fn dropping_an_answer_cancels_the_query() {
    runtime().block_on(async {
        let session = Mvvd::open(Config { threads: Some(2), ..Config::memory() }).unwrap().session();
        let endless = "SELECT count(*) FROM generate_series(1, 1000000000000) t(x)";
        let start = Instant::now();
        let query = async { session.sql(endless, &[]).await.unwrap().collect().await };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(200), query).await.is_err());
        // The threads are free again: a short query is answered soon.
        assert_eq!(run(&session, "SELECT 1", &[]).await, Ok(1));
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn no_literal_cast_or_statement_text_panics(
        text in "[\\[\\]{}:,/0-9eE.+\\-naif '\"é]{0,30}",
        words in prop::collection::vec(prop::sample::select(vec![
            "SELECT", "v", "id", "FROM", "t", "WHERE", "ORDER BY", "LIMIT", "1", "-1", "'[1,2]'", "<->", "<=>", "<+>", "<#>", "<~>", "<%>",
            "(", ")", ",", "*", "+", "::VECTOR(2)", "::BITVEC(2)", "::TEXT", "NULL", "avg(v)", "sum(v)", "AND", "OFFSET", "GROUP BY", "$1",
            "subvector(v, 1, 1)", "l2_normalize(v)", "binary_quantize(v)", "vector_dims(v)", "[1,2]", "AS x", "DESC", "INSERT INTO t VALUES",
            "UPDATE t SET v =", "DELETE FROM t", "RETURNING", "IN", "CASE WHEN", "THEN", "END", "count(*)", "JOIN", "ON", "UNION", "DISTINCT",
        ]), 1..14),
    ) {
        runtime().block_on(async {
            let session = Mvvd::open(Config { threads: Some(1), ..Config::memory() }).unwrap().session();
            run(&session, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VECTOR(2), b BITVEC(2), s SPARSEVEC(3))", &[]).await.unwrap();
            run(&session, "INSERT INTO t VALUES (1, '[1,2]', '10', '{1:1}/3'), (2, NULL, NULL, NULL)", &[]).await.unwrap();
            let quoted = text.replace('\'', "''");
            let mut statements = vec![words.join(" ")];
            for ty in ["VECTOR(2)", "HALFVEC(2)", "BITVEC(2)", "SPARSEVEC(3)", "UUID", "JSON"] {
                statements.push(format!("SELECT '{quoted}'::{ty}"));
                statements.push(format!("SELECT CAST(x AS {ty}) FROM (VALUES ('{quoted}')) AS q(x)"));
            }
            statements.push(format!("SELECT id FROM t ORDER BY v <-> '{quoted}' LIMIT 1"));
            statements.push(format!("SELECT id FROM t ORDER BY s <#> '{quoted}' LIMIT 1"));
            statements.push(format!("INSERT INTO t (id, v) VALUES (7, '{quoted}')"));
            for sql in statements {
                let outcome = run(&session, &sql, &[Value::from(text.as_str())]).await;
                // A bug of ours that was caught is still a bug.
                assert_ne!(outcome, Err(ErrorKind::Internal), "{sql}");
            }
            let rows = run(&session, "SELECT * FROM t", &[]).await;
            assert!(rows.is_ok());
        });
    }
}
