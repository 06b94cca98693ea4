//! SQL through a plain DataFusion session with our pieces in it. Expected values are worked out by hand.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ParamValues;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use mvvd_core::convert::{to_vectors, write_cell};
use mvvd_core::metric::Metric;
use mvvd_core::{ErrorKind, VectorType};
use proptest::prelude::*;

use crate::{Distance, Form, distance_of, error, register};

fn ty(text: &str) -> VectorType {
    VectorType::parse(text).unwrap()
}

fn vectors(name: &str, rows: &[Option<&str>]) -> ArrayRef {
    to_vectors(&StringArray::from(rows.to_vec()), None, ty(name)).unwrap()
}

/// A session with `t`: four rows in two partitions, the last of them NULL throughout.
fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(2);
    config.options_mut().sql_parser.dialect = "postgresql".parse().unwrap();
    let context = SessionContext::new_with_config(config);
    register(&context);
    let columns: Vec<(Field, ArrayRef)> = vec![
        (Field::new("id", DataType::Int64, false), Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        (Field::new("g", DataType::Utf8, false), Arc::new(StringArray::from(vec!["a", "b", "a", "b"]))),
        (
            ty("VECTOR(3)").field("v", true),
            vectors("VECTOR(3)", &[Some("[1,2,3]"), Some("[0,0,0]"), Some("[4,-5,6]"), None]),
        ),
        (
            ty("HALFVEC(3)").field("h", true),
            vectors("HALFVEC(3)", &[Some("[1,2,3]"), Some("[0,0,0]"), Some("[4,-5,6]"), None]),
        ),
        (
            ty("BITVEC(9)").field("b", true),
            vectors("BITVEC(9)", &[Some("111000001"), Some("000000000"), Some("101010101"), None]),
        ),
        (
            ty("SPARSEVEC(5)").field("s", true),
            vectors("SPARSEVEC(5)", &[Some("{1:1,3:2}/5"), Some("{}/5"), Some("{3:-1,5:4}/5"), None]),
        ),
        (
            Field::new("x", DataType::Utf8, true),
            Arc::new(StringArray::from(vec![Some("[1,1,1]"), None, Some("[0,0,1]"), Some("[2,2,2]")])),
        ),
        (
            Field::new("l", DataType::new_list(DataType::Float64, true), true),
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(vec![
                Some(vec![Some(1.0), Some(0.0), Some(0.0)]),
                Some(vec![Some(0.0), Some(0.0), Some(0.0)]),
                None,
                Some(vec![Some(0.0), Some(1.0), Some(0.0)]),
            ])),
        ),
        (
            Field::new("n", DataType::Float64, true),
            Arc::new(Float64Array::from(vec![Some(1.5), Some(2.5), None, Some(4.0)])),
        ),
    ];
    let schema = Arc::new(Schema::new(columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    // Slices: nothing may assume that a column starts at the start of its buffers.
    let partitions = vec![vec![batch.slice(0, 1), batch.slice(1, 1)], vec![batch.slice(2, 2)]];
    context.register_table("t", Arc::new(MemTable::try_new(schema, partitions).unwrap())).unwrap();
    context
}

/// Rows as text, columns separated by `|`.
fn try_rows_with(sql: &str, params: Option<ParamValues>) -> Result<Vec<String>, DataFusionError> {
    let run = async {
        let mut frame = session().sql(sql).await?;
        if let Some(params) = params {
            frame = frame.with_param_values(params)?;
        }
        frame.collect().await
    };
    let batches = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run)?;
    let mut rows = Vec::new();
    for batch in &batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
                if column.is_null(row) || column.data_type() == &DataType::Null {
                    return "NULL".to_owned();
                }
                if let Some(ty) = VectorType::of_field(field) {
                    let mut text = String::new();
                    write_cell(column, ty, row, &mut text).unwrap();
                    return text;
                }
                ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap().value(row).to_string()
            });
            rows.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(rows)
}

#[track_caller]
fn check(sql: &str, expected: &[&str]) {
    match try_rows_with(sql, None) {
        Ok(rows) => assert_eq!(rows, expected, "{sql}"),
        Err(e) => panic!("{sql}: {e}"),
    }
}

/// One value.
#[track_caller]
fn value(expr: &str, expected: &str) {
    check(&format!("SELECT {expr}"), &[expected]);
}

/// The value of an expression in each row of `t`.
#[track_caller]
fn each(expr: &str, expected: &[&str]) {
    check(&format!("SELECT {expr} FROM t ORDER BY id"), expected);
}

#[track_caller]
fn fails_with(sql: &str, kind: ErrorKind, message: &str, hint: Option<&str>) {
    let e = try_rows_with(sql, None).expect_err(sql);
    let Some(found) = error::find(&e) else { panic!("{sql}: not ours: {e}") };
    assert_eq!((found.message(), found.kind()), (message, kind), "{sql}");
    if hint.is_some() {
        assert_eq!(found.hint(), hint, "{sql}");
    }
}

#[track_caller]
fn fails(sql: &str, message: &str) {
    fails_with(sql, ErrorKind::Invalid, message, None);
}

/// The error comes while the statement is planned and analyzed, before anything runs.
#[track_caller]
fn fails_in_plan(sql: &str, message: &str) {
    let run = async { session().sql(sql).await?.into_optimized_plan() };
    let e = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run).expect_err(sql);
    assert_eq!(error::find(&e).map(|e| e.message().to_owned()).as_deref(), Some(message), "{sql}: {e}");
}

#[test]
fn distances_of_literals() {
    value("l2_distance('[0,0]', '[3,4]')", "5.0");
    value("'[0,0]' <-> '[3,4]'", "5.0");
    value("l2_distance([0,0], [3,4])", "5.0");
    value("l2_squared_distance('[0,0]', '[3,4]')", "25.0");
    value("inner_product('[1,2]', '[3,4]')", "11.0");
    value("negative_inner_product('[1,2]', '[3,4]')", "-11.0");
    value("'[1,2]' <#> '[3,4]'", "-11.0");
    value("inner_product('[1,0]'::VECTOR(2), '[0,1]')", "0.0");
    value("cosine_distance('[1,0]', '[0,2]')", "1.0");
    value("'[1,1]' <~=> '[-1,-1]'", "2.0");
    value("'[1,1]' <=> '[2,2]'", "0.0");
    value("cosine_similarity('[1,0]', '[2,0]')", "1.0");
    value("cosine_distance('[0,0]', '[1,0]')", "NaN");
    value("cosine_similarity('[0,0]', '[1,0]')", "NaN");
    value("l1_distance('[0,0]', '[3,-4]')", "7.0");
    value("'[1,2]' <~+> '[3,4]'", "4.0");
    value("hamming_distance('1110', '1011')", "2.0");
    value("'1110' <~> '1011'", "2.0");
    value("jaccard_distance('1100', '1010')", "0.6666666666666667");
    value("'1100' <%> '0011'", "1.0");
    value("'{1:1,3:2}/5' <-> '{3:5}/5'", "3.1622776601683795");
    value("'{1:1,3:2}/5' <#> '{3:5}/5'", "-10.0");
    value("l2_distance('[1,2]', NULL)", "NULL");
    value("NULL <-> NULL", "NULL");
    value("'[1,2]'::VECTOR(2) <-> NULL", "NULL");
}

#[test]
fn distances_of_columns_in_both_orders() {
    // (1,2,3) to (0,0,0) is sqrt(14); to (4,-5,6) it is sqrt(9 + 49 + 9).
    let to_first = ["0.0", "3.7416573867739413", "8.18535277187245", "NULL"];
    for expr in [
        "v <-> '[1,2,3]'",
        "'[1,2,3]' <-> v",
        "l2_distance(v, [1,2,3])",
        "l2_distance([1.0,2.0,3.0], v)",
        "h <-> '[1,2,3]'",
        "'[1,2,3]' <-> h",
        "v <-> '[1,2,3]'::HALFVEC(3)",
        "l2_distance(h, [1,2,3])",
        "v <-> mvvd_array('[1, 2, 3]')",
        "h <-> mvvd_array('[1.0, 2, 3]')",
        "v <-> (SELECT v FROM t WHERE id = 1)",
        "v <-> arrow_cast([1,2,3], 'FixedSizeList(3, Float64)')",
        "v OPERATOR(public.<->) '[1,2,3]'",
    ] {
        each(expr, &to_first);
    }
    each("v <#> '[1,0,-1]'", &["2.0", "0.0", "2.0", "NULL"]);
    each("inner_product(h, '[1,0,-1]')", &["-2.0", "0.0", "-2.0", "NULL"]);
    // (4,-5,6) and (0,-5,0): 25 / (sqrt(77) * 5).
    each("round((v <~=> '[0,-5,0]') * 1000)", &["1535.0", "NaN", "430.0", "NULL"]);
    each("v <~+> '[1,2,3]'", &["0.0", "6.0", "13.0", "NULL"]);
    each("v <-> v", &["0.0", "0.0", "0.0", "NULL"]);
    each("v <-> h", &["0.0", "0.0", "0.0", "NULL"]);
    each("h <~+> h", &["0.0", "0.0", "0.0", "NULL"]);
    each("b <~> '111000000'", &["1.0", "3.0", "4.0", "NULL"]);
    each("'111000000' <~> b", &["1.0", "3.0", "4.0", "NULL"]);
    each("b <%> b", &["0.0", "1.0", "0.0", "NULL"]);
    each("s <-> '{1:1,3:2}/5'", &["0.0", "2.23606797749979", "5.0990195135927845", "NULL"]);
    each("s <#> [1,0,2,0,0]", &["-5.0", "0.0", "2.0", "NULL"]);
    each("s <~+> s", &["0.0", "0.0", "0.0", "NULL"]);
    each("s <~=> '{3:2}/5'", &["0.10557280900008414", "NaN", "1.242535625036333", "NULL"]);
    each("x <-> v", &["2.23606797749979", "NULL", "8.12403840463596", "NULL"]);
    each("v <~+> x", &["3.0", "NULL", "14.0", "NULL"]);
    each("x <~+> '[1,1,1]'", &["0.0", "NULL", "2.0", "3.0"]);
    each("l <-> v", &["3.605551275463989", "0.0", "NULL", "NULL"]);
    each("l2_distance(l, l)", &["0.0", "0.0", "NULL", "0.0"]);
    each("l2_distance(l, x)", &["1.4142135623730951", "NULL", "NULL", "3.0"]);
}

#[test]
fn operators_leave_everything_else_alone() {
    value("1 <=> 1", "true");
    value("1 <~=> NULL", "false");
    value("'a' <~=> 'a'", "true");
    value("NULL::INT <=> NULL::INT", "true");
    value("NULL <=> NULL", "true");
    value("'[1,2]' <=> NULL", "NULL");
    each("x <~=> '[1,1,1]'", &["true", "false", "false", "false"]);
    each("n <=> 1.5", &["true", "false", "false", "false"]);
    value("1 + 2 * 3", "7");
    value("[1,2] || [3]", "[1, 2, 3]");
    value("date '2024-01-01' + interval '1 day' = date '2024-01-02'", "true");
}

#[test]
fn plain_lists_still_reach_datafusion() {
    let context = session();
    for name in ["cosine_distance", "inner_product", "dot_product"] {
        let udf = context.udf(name).unwrap();
        assert!(distance_of(&udf).is_some(), "{name} is ours");
    }
    assert!(distance_of(&context.udf("array_distance").unwrap()).is_none());
    let stock = SessionContext::new();
    assert!(distance_of(&stock.udf("cosine_distance").unwrap()).is_none());
    // NULL for no length, f64 digits: DataFusion's own results.
    value("cosine_distance([0.0, 0.0], [1.0, 0.0])", "NULL");
    value("cosine_distance([1, 0], [0, 1])", "1.0");
    value("inner_product([0.1, 0.2], [3, 4])", "1.1");
    value("dot_product([1, 2], [3, 4])", "11.0");
    value("cosine_distance(NULL, [1.0])", "NULL");
    value("[1.0, 0.0] <=> [0.0, 0.0]", "NULL");
    each("cosine_distance(l, [1.0, 0.0, 0.0])", &["0.0", "NULL", "NULL", "1.0"]);
    each("inner_product(l, l)", &["1.0", "0.0", "NULL", "1.0"]);
    value("array_distance([1, 2], [4, 6])", "5.0");
    value("list_distance([1, 2], [4, 6])", "5.0");
    // With a vector in it, it is the function of vectors.
    each("cosine_distance(l, v)", &["0.7327387580875756", "NaN", "NULL", "NULL"]);
    each("inner_product([1, 0, 0], v)", &["1.0", "0.0", "4.0", "NULL"]);
    for sql in [
        "SELECT cosine_distance([1], ['a'])",
        "SELECT inner_product([1, 2], [1])",
        "SELECT cosine_distance([1, 2], [1])",
    ] {
        let ours = try_rows_with(sql, None).expect_err(sql).to_string();
        let theirs = async { stock.sql(sql).await?.collect().await };
        let theirs = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(theirs);
        assert_eq!(ours, theirs.expect_err(sql).to_string());
    }
}

#[test]
fn what_cannot_be_compared_is_said_while_planning() {
    fails_in_plan("SELECT v <-> '[1,2]' FROM t", "different vector dimensions 3 and 2");
    fails_in_plan("SELECT id FROM t ORDER BY '[1,2]' <-> v LIMIT 1", "different vector dimensions 2 and 3");
    fails_in_plan("SELECT id FROM t WHERE l2_distance(v, [1,2]) < 1", "different vector dimensions 3 and 2");
    fails_in_plan("SELECT '[1,2]' <-> '[1]'", "different vector dimensions 2 and 1");
    fails_in_plan("SELECT b <~> '101' FROM t", "different vector dimensions 9 and 3");
    fails_in_plan("SELECT s <-> '{1:1}/4' FROM t", "different vector dimensions 5 and 4");
    fails_in_plan("SELECT v <-> subvector(v, 1, 2) FROM t", "different vector dimensions 3 and 2");
    fails_in_plan("SELECT v <-> s FROM t", "l2_distance needs vectors of one kind, got VECTOR(3) and SPARSEVEC(5)");
    fails_in_plan("SELECT v <~> v FROM t", "hamming_distance needs bit vectors, got VECTOR(3)");
    fails_in_plan("SELECT jaccard_distance(h, '101') FROM t", "jaccard_distance needs bit vectors, got HALFVEC(3)");
    fails_in_plan("SELECT b <-> b FROM t", "l2_distance needs vectors of numbers, got BITVEC(9)");
    fails_in_plan("SELECT v <-> id FROM t", "l2_distance needs vectors, got BIGINT");
    fails_in_plan("SELECT v <-> '{\"a\":1}'::JSON FROM t", "l2_distance needs vectors, got JSON");
    fails_in_plan("SELECT l2_distance(v) FROM t", "l2_distance takes 2 arguments, got 1");
    fails_in_plan("SELECT vector_norm(v, v) FROM t", "vector_norm takes 1 argument, got 2");
    fails_in_plan(
        "SELECT v <-> '[1,x,3]' FROM t",
        "invalid input syntax for type vector: \"[1,x,3]\": \"x\" is not a number",
    );
    fails_in_plan("SELECT v <-> '[1,2,NaN]' FROM t", "NaN not allowed in vector");
    fails_in_plan("SELECT v <-> [1,2,1e300] FROM t", "a value is out of range for type vector");
    fails("SELECT x <-> '[1,2]' FROM t", "different vector dimensions 3 and 2");
    fails("SELECT v <-> array_append(l, 1.0) FROM t", "different vector dimensions 3 and 4");
    let hint = Some("binary_quantize(v) makes bits of numbers");
    fails_with(
        "SELECT v <~> '101' FROM t",
        ErrorKind::Invalid,
        "hamming_distance needs bit vectors, got VECTOR(3)",
        hint,
    );
}

#[test]
fn weights_without_parentheses() {
    let weaker = |verb: &str, op: &str| {
        format!("cannot {verb} a number and a vector: the distance operators bind weaker than {op}")
    };
    let check = |sql: &str, verb: &str, op: &str, hint: &str| {
        fails_with(&format!("SELECT {sql} FROM t"), ErrorKind::Invalid, &weaker(verb, op), Some(hint));
    };
    check("0.7 * v <-> '[1,2,3]'", "multiply", "*", "write 0.7 * (v <-> ...)");
    check("v <-> '[1,2,3]' + 1", "add", "+", "write (... <-> '[1,2,3]') + 1");
    check("v <-> h * 0.5", "multiply", "*", "write (... <-> h) * 0.5");
    check("1 - v <~=> '[1,2,3]'", "subtract", "-", "write 1 - (v <-> ...)");
    check("v <-> [1,2,3] / 2", "divide", "/", "write (... <-> ...) / 2");
    check("n * v <-> '[1,2,3]'", "multiply", "*", "write n * (v <-> ...)");
    each("0.5 * (v <-> '[1,2,3]') + 1", &["1.0", "2.8708286933869704", "5.092676385936225", "NULL"]);
    check_filter();
    fails_with("SELECT v / v FROM t", ErrorKind::Unsupported, "vectors have no operator /", None);
}

fn check_filter() {
    check("SELECT id FROM t WHERE v <-> '[1,2,3]' < 4 AND v <-> '[0,0,0]' > 1 ORDER BY 1", &["1"]);
    check("SELECT id FROM t ORDER BY v <-> '[1,2,3]' DESC NULLS LAST, id LIMIT 2", &["3", "2"]);
    check("SELECT id FROM t ORDER BY v <-> '[1,2,3]'", &["1", "2", "3", "4"]);
    check("SELECT g, min(v <-> '[0,0,0]') FROM t GROUP BY g ORDER BY g", &["a|3.7416573867739413", "b|0.0"]);
}

#[test]
fn functions_of_one_vector() {
    value("vector_dims('[1,2,3]')", "3");
    value("vector_dims([1,2])", "2");
    value("vector_dims('{1:1}/7'::SPARSEVEC(7))", "7");
    each("vector_dims(b)", &["9", "9", "9", "NULL"]);
    each("vector_dims(x)", &["3", "NULL", "3", "3"]);
    value("vector_norm('[3,4]')", "5.0");
    value("l2_norm('[3,4]'::HALFVEC(2))", "5.0");
    value("vector_norm([0,0])", "0.0");
    each("round(vector_norm(s) * 1000)", &["2236.0", "0.0", "4123.0", "NULL"]);
    each("round(vector_norm(h) * 1000)", &["3742.0", "0.0", "8775.0", "NULL"]);
    each("vector_norm(l)", &["1.0", "0.0", "NULL", "1.0"]);
    value("l2_normalize('[3,4]')", "[0.6,0.8]");
    value("l2_normalize('[3,0,4]'::HALFVEC(3))", "[0.60009766,0,0.7998047]");
    value("l2_normalize('{1:3,5:4}/9')", "{1:0.6,5:0.8}/9");
    value("l2_normalize(NULL)", "NULL");
    each(
        "l2_normalize(v)",
        &["[0.26726124,0.5345225,0.80178374]", "[0,0,0]", "[0.45584232,-0.5698029,0.68376344]", "NULL"],
    );
    each("l2_normalize(s)", &["{1:0.4472136,3:0.8944272}/5", "{}/5", "{3:-0.24253562,5:0.9701425}/5", "NULL"]);
    each("binary_quantize(v)", &["111", "000", "101", "NULL"]);
    each("binary_quantize(h)", &["111", "000", "101", "NULL"]);
    value("binary_quantize('[1,0,-1,2,3,4,5,6,7]')", "100111111");
    each("binary_quantize(v) <~> binary_quantize(h)", &["0.0", "0.0", "0.0", "NULL"]);
    fails("SELECT vector_norm(b) FROM t", "vector_norm needs a vector of numbers, got BITVEC(9)");
    fails("SELECT l2_normalize(x) FROM t", "l2_normalize needs a vector with known dimensions, got TEXT");
    fails_with(
        "SELECT binary_quantize(b) FROM t",
        ErrorKind::Unsupported,
        "binary_quantize needs VECTOR or HALFVEC, got BITVEC(9)",
        None,
    );
}

#[test]
fn subvectors_clamp_as_pgvector_does() {
    let v = "'[1,2,3,4,5]'::VECTOR(5)";
    value(&format!("subvector({v}, 1, 3)"), "[1,2,3]");
    value(&format!("subvector({v}, 3, 2)"), "[3,4]");
    value(&format!("subvector({v}, -1, 3)"), "[1]");
    value(&format!("subvector({v}, 3, 9)"), "[3,4,5]");
    value(&format!("subvector({v}, 3, 9223372036854775807)"), "[3,4,5]");
    value("subvector('[1,2,3,4,5]', 2, 2)", "[2,3]");
    value("subvector('[1,2,3,4,5]'::HALFVEC(5), 4, 2)", "[4,5]");
    each("subvector(v, 2, 2)", &["[2,3]", "[0,0]", "[-5,6]", "NULL"]);
    each("vector_dims(subvector(h, 2, 5))", &["2", "2", "2", "NULL"]);
    for bounds in ["-1, 2", "6, 1", "1, 0", "1, -1", "-9223372036854775808, 1"] {
        fails(&format!("SELECT subvector({v}, {bounds})"), "vector must have at least 1 dimension");
    }
    fails("SELECT subvector(v, id, 1) FROM t", "the start of subvector must be a whole number written out");
    fails("SELECT subvector(v, 1, 1.5) FROM t", "the count of subvector must be a whole number written out");
}

#[test]
fn element_by_element() {
    each("v + v", &["[2,4,6]", "[0,0,0]", "[8,-10,12]", "NULL"]);
    each("v - '[1,1,1]'", &["[0,1,2]", "[-1,-1,-1]", "[3,-6,5]", "NULL"]);
    each("h * h", &["[1,4,9]", "[0,0,0]", "[16,25,36]", "NULL"]);
    each("'[1,1,1]' + v + [1,0,0]", &["[3,3,4]", "[2,1,1]", "[6,-4,7]", "NULL"]);
    each("(v + h) <-> '[2,4,6]'", &["0.0", "7.483314773547883", "16.3707055437449", "NULL"]);
    each("v + x", &["[2,3,4]", "NULL", "[4,-5,7]", "NULL"]);
    each("v + NULL", &["NULL", "NULL", "NULL", "NULL"]);
    value("vector_add('[1,2]', '[3,4]')", "[4,6]");
    value("'[1,2]'::HALFVEC(2) + '[1,1]'", "[2,3]");
    fails("SELECT '[3e38]'::VECTOR(1) + '[3e38]'", "value out of range: overflow");
    fails("SELECT '[1e-30]'::VECTOR(1) * '[1e-30]'", "value out of range: underflow");
    fails("SELECT '[65000]'::HALFVEC(1) + '[65000]'", "value out of range: overflow");
    fails_in_plan("SELECT v + '[1,2]' FROM t", "different vector dimensions 3 and 2");
    fails_in_plan("SELECT v + subvector(v, 1, 2) FROM t", "different vector dimensions 3 and 2");
    fails_with(
        "SELECT s + s FROM t",
        ErrorKind::Unsupported,
        "vector_add needs VECTOR or HALFVEC, got SPARSEVEC(5)",
        None,
    );
}

#[test]
fn sparse_vectors_from_lists() {
    value("sparsevec([1,4], [0.5,2], 5)", "{1:0.5,4:2}/5");
    value("sparsevec([3,0], [0.5,2], 5, 0)", "{1:2,4:0.5}/5");
    value("sparsevec([], [], 5)", "{}/5");
    value("sparsevec([1], NULL, 5)", "NULL");
    value("sparsevec([2], [0], 5)", "{}/5");
    each("sparsevec([id], [coalesce(n, 0)], 5)", &["{1:1.5}/5", "{2:2.5}/5", "{}/5", "{4:4}/5"]);
    fails("SELECT sparsevec([id], [n], 5) FROM t", "sparsevec must not contain NULL");
    fails("SELECT sparsevec([0], [1], 5)", "sparsevec position 0 is out of bounds, expected 1 to 5");
    fails("SELECT sparsevec([5], [1], 5, 0)", "sparsevec position 5 is out of bounds, expected 0 to 4");
    fails("SELECT sparsevec([1,1], [1,2], 5)", "sparsevec positions must not repeat, got 1 twice");
    fails("SELECT sparsevec([1,2], [1], 5)", "sparsevec has 2 indices and 1 values");
    fails("SELECT sparsevec([1], [1], 0)", "dimensions for type sparsevec must be at least 1");
    fails("SELECT sparsevec([1], [1], 5, 2)", "the base of sparsevec must be 0 or 1, got 2");
    fails(
        "SELECT sparsevec([1], [1], id) FROM t",
        "the number of dimensions of sparsevec must be a whole number written out",
    );
    fails("SELECT sparsevec('a', 'b', 5)", "sparsevec needs two lists of numbers, got TEXT");
}

#[test]
fn casts() {
    value("'[1,2,3]'::VECTOR(3)", "[1,2,3]");
    value("CAST('[1,2,3]' AS halfvec(3))", "[1,2,3]");
    value("'101'::BITVEC(3)", "101");
    value("'101'::BIT(3)", "101");
    value("'{1:0.5}/3'::SparseVec(3)", "{1:0.5}/3");
    value("[1,2.5]::VECTOR(2)", "[1,2.5]");
    value("ARRAY[1,2]::HALFVEC(2)", "[1,2]");
    value("[0,2,0]::SPARSEVEC(3)", "{2:2}/3");
    value("mvvd_array('[1,2]')::VECTOR(2)", "[1,2]");
    value("mvvd_array('[0,2]')::SPARSEVEC(2)", "{2:2}/2");
    value("NULL::VECTOR(3)", "NULL");
    value("'[1,2]'::VECTOR(2)::TEXT", "[1,2]");
    value("'[1,2]'::VECTOR(2)::HALFVEC(2)::SPARSEVEC(2)::TEXT", "{1:1,2:2}/2");
    each("v::TEXT", &["[1,2,3]", "[0,0,0]", "[4,-5,6]", "NULL"]);
    each("s::VARCHAR", &["{1:1,3:2}/5", "{}/5", "{3:-1,5:4}/5", "NULL"]);
    each("b::TEXT || '!'", &["111000001!", "000000000!", "101010101!", "NULL"]);
    each("x::VECTOR(3)", &["[1,1,1]", "NULL", "[0,0,1]", "[2,2,2]"]);
    each("l::VECTOR(3) + v", &["[2,2,3]", "[0,0,0]", "NULL", "NULL"]);
    each("v::SPARSEVEC(3)", &["{1:1,2:2,3:3}/3", "{}/3", "{1:4,2:-5,3:6}/3", "NULL"]);
    each("s::VECTOR(5)", &["[1,0,2,0,0]", "[0,0,0,0,0]", "[0,0,-1,0,4]", "NULL"]);
    each("h::VECTOR(3)::HALFVEC(3)", &["[1,2,3]", "[0,0,0]", "[4,-5,6]", "NULL"]);
    each("v::REAL[]", &["[1.0, 2.0, 3.0]", "[0.0, 0.0, 0.0]", "[4.0, -5.0, 6.0]", "NULL"]);
    each("h::DOUBLE PRECISION[]", &["[1.0, 2.0, 3.0]", "[0.0, 0.0, 0.0]", "[4.0, -5.0, 6.0]", "NULL"]);
    each(
        "s::FLOAT[]",
        &["[1.0, 0.0, 2.0, 0.0, 0.0]", "[0.0, 0.0, 0.0, 0.0, 0.0]", "[0.0, 0.0, -1.0, 0.0, 4.0]", "NULL"],
    );
    each("TRY_CAST(x || '' AS VECTOR(3))", &["[1,1,1]", "NULL", "[0,0,1]", "[2,2,2]"]);
    each("TRY_CAST(replace(x, '0,0', 'a,b') AS VECTOR(3))", &["[1,1,1]", "NULL", "NULL", "[2,2,2]"]);
    value("TRY_CAST('[1]' AS VECTOR(3))", "NULL");
    fails_in_plan("SELECT '[1,2]'::VECTOR(3)", "expected 3 dimensions, not 2");
    fails_in_plan("SELECT v::VECTOR(2) FROM t", "expected 2 dimensions, not 3");
    fails_in_plan("SELECT id::VECTOR(2) FROM t", "cannot cast BIGINT to VECTOR(2)");
    fails_in_plan("SELECT '[70000]'::HALFVEC(1)", "\"70000\" is out of range for type halfvec");
    fails_in_plan("SELECT '[inf]'::VECTOR(1)", "infinite value not allowed in vector");
    fails("SELECT [1,NULL]::VECTOR(2)", "vector must not contain NULL");
    fails(
        "SELECT (x || '1')::VECTOR(3) FROM t",
        "invalid input syntax for type vector: \"[1,1,1]1\": it must end with \"]\"",
    );
    fails("SELECT l::VECTOR(2) FROM t", "expected 2 dimensions, not 3");
    fails_in_plan("SELECT v::BITVEC(3) FROM t", "cannot cast VECTOR(3) to BITVEC(3)");
}

#[test]
fn uuid_and_json() {
    value("'0F8FAD5B-D9CB-469F-A165-70867728950E'::UUID", "0f8fad5b-d9cb-469f-a165-70867728950e");
    value("'{\"a\": [1]}'::JSON", "{\"a\": [1]}");
    value("'null'::JSONB", "null");
    value("NULL::UUID", "NULL");
    value("5::JSON", "5");
    each("('\"' || g || '\"')::JSON", &["\"a\"", "\"b\"", "\"a\"", "\"b\""]);
    value("TRY_CAST('x' AS UUID)", "NULL");
    fails_in_plan("SELECT 'x'::UUID", "invalid input syntax for type uuid: \"x\"");
    fails("SELECT g::UUID FROM t", "invalid input syntax for type uuid: \"a\"");
    fails_in_plan(
        "SELECT '{'::JSON",
        "invalid input syntax for type json: EOF while parsing an object at line 1 column 1",
    );
}

#[test]
fn type_names() {
    fails_with(
        "SELECT NULL::VECTOR",
        ErrorKind::Invalid,
        "type VECTOR needs a number of dimensions",
        Some("write VECTOR(3)"),
    );
    fails("SELECT NULL::VECTOR(0)", "dimensions for type vector must be at least 1");
    fails("SELECT NULL::HALFVEC(16001)", "dimensions for type halfvec cannot exceed 16000, got 16001");
    fails(
        "SELECT NULL::SPARSEVEC(1000000001)",
        "dimensions for type sparsevec cannot exceed 1000000000, got 1000000001",
    );
    fails("SELECT NULL::VECTOR(a)", "the dimensions of type VECTOR must be a whole number, got a");
    for (name, expected) in [
        ("TEXT", "Utf8"),
        ("VARCHAR(10)", "Utf8"),
        ("CHARACTER VARYING(10)", "Utf8"),
        ("CHAR(3)", "Utf8"),
        ("BYTEA", "Binary"),
        ("BLOB", "Binary"),
        ("DOUBLE PRECISION", "Float64"),
        ("REAL", "Float32"),
        ("FLOAT8", "Float64"),
        ("FLOAT4", "Float32"),
        ("FLOAT(53)", "Float64"),
        ("SMALLINT", "Int16"),
        ("BIGINT", "Int64"),
        ("BIGINT UNSIGNED", "UInt64"),
        ("INT8", "Int64"),
        ("DEC(10,2)", "Decimal128(10, 2)"),
        ("BOOLEAN", "Boolean"),
        ("NUMERIC(10,2)", "Decimal128(10, 2)"),
        ("DATE", "Date32"),
    ] {
        value(&format!("arrow_typeof(NULL::{name})"), expected);
    }
    value("arrow_typeof('[1,2]'::VECTOR(2))", "FixedSizeList(2 x Float32)");
}

#[test]
fn comparisons_with_texts() {
    each("v = '[1,2,3]'", &["true", "false", "false", "NULL"]);
    each("'[1,2,3]' <> v", &["false", "true", "true", "NULL"]);
    each("v = [0,0,0]", &["false", "true", "false", "NULL"]);
    each("v = h", &["true", "true", "true", "NULL"]);
    each("b = '000000000'", &["false", "true", "false", "NULL"]);
    each("s = '{}/5'", &["false", "true", "false", "NULL"]);
    each("v IN ('[1,2,3]', '[0,0,0]')", &["true", "true", "false", "NULL"]);
    each("v NOT IN ('[1,2,3]')", &["false", "true", "true", "NULL"]);
    each("coalesce(v, '[9,9,9]')", &["[1,2,3]", "[0,0,0]", "[4,-5,6]", "[9,9,9]"]);
    each("coalesce('[9,9,9]', v)", &["[9,9,9]", "[9,9,9]", "[9,9,9]", "[9,9,9]"]);
    each("coalesce(b, '111111111') <~> '111111111'", &["5.0", "9.0", "4.0", "0.0"]);
    each("coalesce(x, 'none')", &["[1,1,1]", "none", "[0,0,1]", "[2,2,2]"]);
    each("coalesce(n, 0)", &["1.5", "2.5", "0.0", "4.0"]);
    each("CASE WHEN id = 1 THEN '[7,7,7]' ELSE v END", &["[7,7,7]", "[0,0,0]", "[4,-5,6]", "NULL"]);
    each("CASE id WHEN 1 THEN s ELSE '{2:1}/5' END", &["{1:1,3:2}/5", "{2:1}/5", "{2:1}/5", "{2:1}/5"]);
    each("(CASE WHEN id = 1 THEN v ELSE '[1,1,1]' END) <~+> '[1,1,1]'", &["3.0", "0.0", "0.0", "0.0"]);
    each("v IS DISTINCT FROM '[1,2,3]'::VECTOR(3)", &["false", "true", "true", "true"]);
    each("v < '[1,2,4]'", &["true", "true", "false", "NULL"]);
    check("SELECT DISTINCT v IS NULL FROM t WHERE v = v OR v IS NULL ORDER BY 1", &["false", "true"]);
    check("SELECT count(*) FROM t GROUP BY v ORDER BY 1 LIMIT 1", &["1"]);
    check("SELECT count(DISTINCT v) FROM t", &["3"]);
    fails("SELECT v = '[1,2]' FROM t", "expected 3 dimensions, not 2");
}

#[test]
fn aggregates_over_vectors() {
    check("SELECT avg(v), sum(v), avg(h), sum(h) FROM t", &["[1.6666666,-1,3]|[5,-3,9]|[1.6669922,-1,3]|[5,-3,9]"]);
    check(
        "SELECT g, avg(v), sum(v), count(v), avg(n) FROM t GROUP BY g ORDER BY g",
        &["a|[2.5,-1.5,4.5]|[5,-3,9]|2|1.5", "b|[0,0,0]|[0,0,0]|1|3.25"],
    );
    check("SELECT avg(v), sum(v) FROM t WHERE v IS NULL", &["NULL|NULL"]);
    check("SELECT avg(v) FROM t WHERE false", &["NULL"]);
    check("SELECT g, avg(v) FILTER (WHERE id <> 3) FROM t GROUP BY g ORDER BY g", &["a|[1,2,3]", "b|[0,0,0]"]);
    check(
        "SELECT id, sum(v) OVER (ORDER BY id) FROM t ORDER BY id",
        &["1|[1,2,3]", "2|[1,2,3]", "3|[5,-3,9]", "4|[5,-3,9]"],
    );
    check(
        "SELECT id, avg(v) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t ORDER BY id",
        &["1|[1,2,3]", "2|[0.5,1,1.5]", "3|[2,-2.5,3]", "4|[4,-5,6]"],
    );
    check("SELECT round((avg(v) <-> '[0,0,0]') * 1000) FROM t", &["3575.0"]);
    check(
        "SELECT mean(n), avg(DISTINCT n), sum(id), sum(DISTINCT id) FROM t",
        &["2.6666666666666665|2.6666666666666665|10|10"],
    );
    check("SELECT sum(id) OVER () FROM t LIMIT 1", &["10"]);
    check(
        "SELECT g FROM t GROUP BY g HAVING sum(n) > 1 AND avg(v) <-> '[0,0,0]' < 1 ORDER BY avg(n), sum(v) <-> '[1,1,1]'",
        &["b"],
    );
    check(
        "SELECT g, avg(v) FROM t GROUP BY ROLLUP (g) ORDER BY g",
        &["a|[2.5,-1.5,4.5]", "b|[0,0,0]", "NULL|[1.6666666,-1,3]"],
    );
    fails_with(
        "SELECT avg(DISTINCT v) FROM t",
        ErrorKind::Unsupported,
        "avg(DISTINCT ...) over vectors is not supported",
        Some("write SELECT avg(v) FROM (SELECT DISTINCT v FROM t)"),
    );
    fails_with("SELECT sum(s) FROM t", ErrorKind::Unsupported, "sum needs VECTOR or HALFVEC, got SPARSEVEC(5)", None);
    fails(
        "SELECT sum(v) FROM (VALUES ('[3e38]'::VECTOR(1)), ('[3e38]'::VECTOR(1))) AS q(v)",
        "value out of range: overflow",
    );
}

/// A statement through the analyzer and optimizer, and the names of its columns.
fn plan_of(sql: &str) -> (String, Vec<String>) {
    let run = async {
        let frame = session().sql(sql).await?;
        let names = frame.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let plan = frame.into_optimized_plan()?;
        let after: Vec<_> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, after, "{sql}");
        Ok::<_, DataFusionError>((plan.display_indent().to_string(), names))
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run).unwrap()
}

#[test]
fn names_stay_and_are_short() {
    let name = |sql: &str| plan_of(&format!("SELECT {sql} FROM t")).1.remove(0);
    assert_eq!(name("v <-> '[1, 2, 3]'"), "l2_distance(t.v,[1, 2, 3])");
    assert_eq!(name("v <~=> v"), "cosine_distance(t.v,t.v)");
    assert_eq!(name("1 - (v <~=> [1,2,3])"), "Int64(1) - cosine_distance(t.v,make_array(Int64(1),Int64(2),Int64(3)))");
    assert_eq!(name("v <-> '[1,2,3]'::VECTOR(3)"), "l2_distance(t.v,[1,2,3]::VECTOR(3))");
    assert_eq!(name("v::TEXT"), "t.v");
    assert_eq!(name("avg(v)"), "avg(t.v)");
    assert_eq!(name("coalesce(v, '[1,2,3]')"), "coalesce(t.v,Utf8(\"[1,2,3]\"))");
    let long = format!("'[{}1]'", "0.125,".repeat(767));
    for query in [long.clone(), format!("{long}::VECTOR(768)"), format!("mvvd_array({long})")] {
        let name = name(&format!("1 - ({query} <-> '[{}2]')", "0.5,".repeat(767)));
        assert!(name.starts_with("Int64(1) - l2_distance(") && name.len() < 130, "{name}");
    }
    // Two queries of the same beginning stay two columns.
    let (_, names) = plan_of(&format!("SELECT {long} <-> {long}, '[{}9]' <-> {long}", "0.125,".repeat(767)));
    assert_ne!(names[0], names[1]);
}

#[test]
fn literals_are_typed_in_the_plan() {
    let (plan, _) = plan_of("SELECT id FROM t ORDER BY h <-> '[1,2,3]' LIMIT 2");
    assert!(plan.contains("l2_distance(t.h, Utf8(\"[1,2,3]\"))"), "{plan}");
    for query in ["mvvd_array('[1,2,3]')", "[1,2,3]", "[1.0,2,3]::VECTOR(3)", "'[1,2,3]'::HALFVEC(3)"] {
        let (same, _) = plan_of(&format!("SELECT id FROM t ORDER BY h <-> {query} LIMIT 2"));
        assert_eq!(same, plan);
    }
    let (plan, _) = plan_of("SELECT v + '[1,2,3]' FROM t");
    assert!(plan.contains("FixedSizeList([1.0, 2.0, 3.0])"), "{plan}");
    let (plan, _) = plan_of("SELECT sum(id), avg(n) FROM t");
    assert!(!plan.contains("AnySum"), "{plan}");
    let (plan, _) = plan_of("SELECT v FROM t WHERE v = '[1,2,3]'");
    assert!(plan.contains("t.v = FixedSizeList([1.0, 2.0, 3.0])"), "{plan}");
}

#[test]
fn parameters_are_typed_by_the_vector_beside_them() {
    let parameter = |sql: &str| {
        let run = async { session().sql(sql).await?.logical_plan().get_parameter_fields() };
        let fields = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run).unwrap();
        fields["$1"].as_ref().and_then(|field| VectorType::of_field(field)).map(|ty| ty.to_string())
    };
    assert_eq!(parameter("SELECT id FROM t ORDER BY v <-> $1").as_deref(), Some("VECTOR(3)"));
    assert_eq!(parameter("SELECT id FROM t ORDER BY $1 <-> h").as_deref(), Some("VECTOR(3)"));
    assert_eq!(parameter("SELECT b <~> $1 FROM t").as_deref(), Some("BITVEC(9)"));
    assert_eq!(parameter("SELECT s <#> $1 FROM t").as_deref(), Some("SPARSEVEC(5)"));
    assert_eq!(parameter("SELECT h + $1 FROM t").as_deref(), Some("HALFVEC(3)"));
    assert_eq!(parameter("SELECT id FROM t WHERE v = $1").as_deref(), Some("VECTOR(3)"));
    assert_eq!(parameter("SELECT $1 <-> $1"), None);

    let with = |sql: &str, values: Vec<ScalarValue>| try_rows_with(sql, Some(ParamValues::from(values))).unwrap();
    let list = |values: &[f64]| {
        let row = vec![Some(values.iter().copied().map(Some).collect::<Vec<_>>())];
        ScalarValue::List(Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(row)))
    };
    let near = "SELECT id FROM t ORDER BY v <-> $1 LIMIT 1";
    assert_eq!(with(near, vec![ScalarValue::from("[4,-5,5]")]), ["3"]);
    assert_eq!(with(near, vec![list(&[4.0, -5.0, 5.0])]), ["3"]);
    let typed = ScalarValue::try_from_array(&vectors("VECTOR(3)", &[Some("[4,-5,5]")]), 0).unwrap();
    assert_eq!(with(near, vec![typed]), ["3"]);
    assert_eq!(with("SELECT l2_distance($1, v) FROM t WHERE id = 1", vec![list(&[1.0, 2.0, 3.0])]), ["0.0"]);
    assert_eq!(with("SELECT $1 <-> $2", vec![ScalarValue::from("[0,0]"), list(&[3.0, 4.0])]), ["5.0"]);
    assert_eq!(with("SELECT id FROM t WHERE v = $1", vec![ScalarValue::from("[1,2,3]")]), ["1"]);
    assert_eq!(with("SELECT v <-> $1 FROM t WHERE id = 1", vec![ScalarValue::Null]), ["NULL"]);
    let wrong = try_rows_with(near, Some(ParamValues::from(vec![list(&[1.0])]))).unwrap_err();
    assert_eq!(error::find(&wrong).unwrap().message(), "different vector dimensions 3 and 1");
    let nan = try_rows_with(near, Some(ParamValues::from(vec![list(&[1.0, f64::NAN, 0.0])]))).unwrap_err();
    assert_eq!(error::find(&nan).unwrap().message(), "NaN not allowed in vector");
}

#[test]
fn subqueries_views_and_joins() {
    check("SELECT a.id, b.id FROM t a JOIN t b ON a.v <-> b.v < 4 AND a.id < b.id ORDER BY 1, 2", &["1|2"]);
    check("SELECT id FROM t WHERE v IN (SELECT v FROM t WHERE v = '[1,2,3]')", &["1"]);
    check(
        "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.v <-> t.v < '[3,4]'::VECTOR(2) <-> '[0,0]' AND u.id <> t.id) ORDER BY 1",
        &["1", "2"],
    );
    check("WITH q AS (SELECT '[1,2,3]' AS q) SELECT t.id FROM t, q ORDER BY t.v <-> q.q, t.id LIMIT 2", &["1", "2"]);
    check(
        "SELECT v FROM (SELECT '[1,2]'::VECTOR(2) AS v UNION ALL SELECT '[3,4]'::VECTOR(2)) ORDER BY v <-> '[3,4]'",
        &["[3,4]", "[1,2]"],
    );
    check("SELECT x <-> '[0,0]' FROM (VALUES ('[3,4]'), ('[0,1]')) AS q(x)", &["5.0", "1.0"]);
}

#[test]
fn a_column_scored_without_sql_gives_the_same_bits() {
    let column = vectors("VECTOR(3)", &[Some("[1,2,3]"), None, Some("[4,-5,6]"), Some("[0,0,0]")]);
    for distance in crate::distance::ALL.into_iter().filter(|d| !d.metric.is_binary()) {
        assert_eq!(distance_of(&distance.udf()), Some(distance));
        let bound = distance.bind(column.data_type(), None, &ScalarValue::from("[0.5,1,-1]")).unwrap();
        let (mut all, mut some) = (Vec::new(), vec![9.0; 7]);
        let nulls = bound.evaluate(&column, None, &mut all).unwrap().unwrap();
        assert_eq!(nulls.iter().collect::<Vec<_>>(), [true, false, true, true]);
        let nulls = bound.evaluate(&column, Some(&[3, 1, 0]), &mut some).unwrap().unwrap();
        assert_eq!(nulls.iter().collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(some.iter().map(|d| d.to_bits()).collect::<Vec<_>>(), [3, 1, 0].map(|i: usize| all[i].to_bits()));
        // A slice is a column of its own, and has no NULL here.
        let mut tail = Vec::new();
        assert!(bound.evaluate(&column.slice(2, 2), None, &mut tail).unwrap().is_none());
        assert_eq!(tail.iter().map(|d| d.to_bits()).collect::<Vec<_>>(), [all[2].to_bits(), all[3].to_bits()]);
        assert!(bound.evaluate(&column, Some(&[4]), &mut tail).is_err());
    }
    let bits = vectors("BITVEC(9)", &[Some("111000001"), Some("000000000")]);
    let hamming = Distance { metric: Metric::Hamming, form: Form::Distance };
    let bound = hamming.bind(bits.data_type(), Some(ty("BITVEC(9)")), &ScalarValue::from("111000000")).unwrap();
    let mut out = Vec::new();
    bound.evaluate(&bits.slice(1, 1), Some(&[0, 0]), &mut out).unwrap();
    assert_eq!(out, [3.0, 3.0]);
    let short = hamming.bind(bits.data_type(), Some(ty("BITVEC(9)")), &ScalarValue::from("1")).unwrap_err();
    assert_eq!(short.message(), "different vector dimensions 9 and 1");
    let l2 = Distance { metric: Metric::L2, form: Form::Distance };
    assert!(l2.bind(&DataType::Int64, None, &ScalarValue::from("[1]")).is_err());
    assert!(l2.bind(&DataType::Utf8, None, &ScalarValue::from("[1]")).is_err());
    assert!(l2.bind(column.data_type(), None, &ScalarValue::Int64(Some(1))).is_err());
    let null = l2.bind(column.data_type(), None, &ScalarValue::Null).unwrap();
    assert_eq!(null.evaluate(&column, Some(&[0]), &mut out).unwrap().unwrap().null_count(), 1);
}

#[test]
fn values_for_a_column_are_cast_by_its_field() {
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
    let rows = vec![vec![lit("101"), lit("{}")], vec![lit("000"), lit("5")]];
    let mut json = Field::new("j", DataType::Utf8, true);
    json.set_metadata([("mvvd.type".to_owned(), crate::JSON.to_owned())].into());
    let plan = LogicalPlanBuilder::values(rows)
        .unwrap()
        .project([
            crate::cast_to_field(col("column1"), &ty("BITVEC(3)").field("b", true)).alias("b"),
            crate::cast_to_field(col("column2"), &json).alias("j"),
        ])
        .unwrap()
        .build()
        .unwrap();
    let run = async { session().execute_logical_plan(plan).await?.collect().await };
    let batches = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run).unwrap();
    assert_eq!(VectorType::of_field(batches[0].schema().field(0)), Some(ty("BITVEC(3)")));
    assert_eq!(batches[0].schema().field(1).metadata()["mvvd.type"], "JSON");
}

#[test]
fn many_rows_and_long_vectors_stay_cheap() {
    let long = format!("[{}1]", "0.25,".repeat(767));
    let values: Vec<String> = (0..300).map(|i| format!("({i}, '{long}')")).collect();
    let sql = format!(
        "SELECT count(*) FROM (SELECT x::VECTOR(768) AS v FROM (VALUES {}) AS q(id, x)) WHERE v <-> '{long}' = 0",
        values.join(",")
    );
    check(&sql, &["300"]);
    let values: Vec<String> = (0..300).map(|i| format!("({i}, mvvd_array('{long}')::VECTOR(768))")).collect();
    check(&format!("SELECT count(v) FROM (VALUES {}) AS q(id, v)", values.join(",")), &["300"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics(text in "[\\[\\]{}:,/0-9eE.+\\- a-zä]{0,30}") {
        let quoted = text.replace('\'', "''");
        for target in ["VECTOR(2)", "HALFVEC(2)", "BITVEC(2)", "SPARSEVEC(2)", "UUID", "JSON"] {
            let _ = try_rows_with(&format!("SELECT '{quoted}'::{target}"), None);
        }
        for function in ["l2_distance", "hamming_distance", "vector_add", "cosine_distance"] {
            let _ = try_rows_with(&format!("SELECT {function}('{quoted}', '{quoted}')"), None);
        }
        for function in ["l2_normalize", "vector_dims", "binary_quantize", "vector_norm", "mvvd_array"] {
            let _ = try_rows_with(&format!("SELECT {function}('{quoted}')"), None);
        }
        let _ = try_rows_with(&format!("SELECT v <-> '{quoted}', s = '{quoted}' FROM t"), None);
    }
}
