//! Recall, filters, cursors and odd rows of the graph, against the exact scan.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, Float32Array};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field};
use mvvd_core::{ErrorKind, Ordinal, VectorType};

use super::index::Hnsw;
use super::*;
use crate::exact;
use crate::filter::Filter;
use crate::kind::Registry;
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::rotate::Random;

const DENSE: [(Metric, &str); 7] = [
    (Metric::L2, "rabitq"),
    (Metric::L2Squared, "sq8"),
    (Metric::Cosine, "rabitq"),
    (Metric::Cosine, "sq8"),
    (Metric::Dot, "rabitq"),
    (Metric::Dot, "sq8"),
    (Metric::L1, "rabitq"),
];

/// Vectors around some centres.
fn clustered(rows: usize, dims: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let centres: Vec<f32> = (0..20 * dims).map(|_| random.float()).collect();
    let mut row = || {
        let centre = random.below(20) * dims;
        (0..dims).map(|i| centres[centre + i] + 0.5 * (random.float() + random.float())).collect::<Vec<_>>()
    };
    (0..rows).flat_map(|_| row()).collect()
}

fn array(values: &[f32], dims: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let field = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(values.to_vec()));
    Arc::new(FixedSizeListArray::new(field, dims as i32, values, nulls))
}

fn dense(dims: usize) -> VectorType {
    VectorType { kind: VectorKind::Dense, dims }
}

fn spec(metric: Metric, ty: VectorType, options: &[(&str, &str)]) -> IndexSpec {
    Registry::builtin().spec("hnsw", metric, vec![ty], options.iter().copied()).unwrap()
}

fn with_build<T>(run: impl FnOnce(&Build<'_>) -> T) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    run(&Build { pool: &pool, seed: 11, progress: &|_| (), cancelled: &AtomicBool::new(false) })
}

fn bytes_of(spec: &IndexSpec, column: Vectors<'_>) -> Vec<u8> {
    with_build(|build| HnswKind.build(spec, &[column], build).unwrap())
}

/// A copy that is aligned as a file's bytes are.
fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = MutableBuffer::new(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.into()
}

fn index_of(spec: &IndexSpec, column: Vectors<'_>) -> Arc<dyn VectorIndex> {
    HnswKind.open(spec, aligned(&bytes_of(spec, column))).unwrap()
}

fn term(metric: Metric, query: Query) -> [Term; 1] {
    [Term { column: 0, metric, query, weight: 1.0 }]
}

fn request<'a>(terms: &'a [Term], k: usize, filter: Option<&'a Filter>) -> Request<'a> {
    Request { terms, k, filter, effort: Effort::default() }
}

/// The share of the true `k` nearest that is found, over some rows as queries. Distances must be exact to the bit.
fn recall(
    index: &dyn VectorIndex,
    column: Vectors<'_>,
    metric: Metric,
    queries: &[Query],
    filter: Option<&Filter>,
) -> f64 {
    let (mut found, mut all) = (0, 0);
    for query in queries {
        let terms = term(metric, query.clone());
        let request = request(&terms, 10, filter);
        let truth = exact::search(&[column], column.len(), &request);
        let hits = index.search(&[column], &request).unwrap();
        assert_eq!(hits.len(), truth.len(), "as many as can be found");
        assert!(hits.is_sorted());
        for hit in &hits {
            let mut exact = [0.0];
            column.distances(metric, query, &[hit.ordinal], &mut exact);
            assert_eq!(exact[0].to_bits(), hit.distance.to_bits());
            assert!(filter.is_none_or(|filter| filter.has(hit.ordinal)));
        }
        let bound = truth.last().map_or(f64::NAN, |hit| hit.distance);
        found += hits.iter().filter(|hit| hit.distance <= bound).count();
        all += truth.len();
    }
    found as f64 / all as f64
}

fn queries(dims: usize, count: usize) -> Vec<Query> {
    // The same centres as the rows have, then other rows.
    clustered(4000 + count, dims, 3)[4000 * dims..].chunks(dims).map(|row| Query::Dense(Arc::from(row))).collect()
}

#[test]
fn finds_nearly_all_with_and_without_filters() {
    let (rows, dims) = (4000, 24);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let queries = queries(dims, 30);
    for (metric, codes) in DENSE {
        let index = index_of(&spec(metric, dense(dims), &[("codes", codes), ("ef_construction", "60")]), column);
        let all = recall(&*index, column, metric, &queries, None);
        assert!(all >= 0.95, "{metric} {codes}: {all}");
        for every in [2, 10, 100, 1000] {
            let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|i| i % every == 1));
            let some = recall(&*index, column, metric, &queries, Some(&filter));
            assert!(some >= 0.95, "{metric} {codes}, one in {every}: {some}");
        }
    }
}

#[test]
fn bits_are_found() {
    let (rows, bytes) = (3000, 16);
    let mut random = Random::new(5);
    let centres: Vec<u8> = (0..30 * bytes).map(|_| random.next() as u8).collect();
    let row = |random: &mut Random| -> Vec<u8> {
        let centre = random.below(30) * bytes;
        (0..bytes).map(|i| centres[centre + i] ^ (random.next() & random.next() & random.next()) as u8).collect()
    };
    let values: Vec<Vec<u8>> = (0..rows).map(|_| row(&mut random)).collect();
    let array = FixedSizeBinaryArray::try_from_iter(values.iter()).unwrap();
    let ty = VectorType { kind: VectorKind::Bit, dims: 8 * bytes };
    let column = Vectors::new(&array, ty);
    let queries: Vec<Query> = (0..30).map(|_| Query::Bits(row(&mut random).into())).collect();
    for metric in [Metric::Hamming, Metric::Jaccard] {
        let index = index_of(&spec(metric, ty, &[("ef_construction", "60")]), column);
        let found = recall(&*index, column, metric, &queries, None);
        assert!(found >= 0.95, "{metric}: {found}");
    }
}

#[test]
fn a_cursor_gives_every_row_once() {
    let (rows, dims) = (700, 8);
    let mut values = clustered(rows, dims, 3);
    values[5 * dims..6 * dims].fill(0.0);
    values[9 * dims] = 1e30;
    let nulls = NullBuffer::from((0..rows).map(|i| i % 50 != 7).collect::<Vec<_>>());
    let array = array(&values, dims, Some(nulls));
    let column = Vectors::new(&array, dense(dims));
    let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|i| i % 3 != 0));
    for (metric, codes) in DENSE {
        let index =
            index_of(&spec(metric, dense(dims), &[("codes", codes), ("m", "4"), ("ef_construction", "16")]), column);
        for filter in [None, Some(&filter)] {
            let terms = term(metric, queries(dims, 1)[0].clone());
            let effort = Effort { ef_search: Some(10), ..Effort::default() };
            let request = Request { effort, ..request(&terms, 10, filter) };
            let columns = [column];
            let mut cursor = index.cursor(&columns, &request).unwrap();
            let mut given: Vec<Hit> = Vec::new();
            loop {
                let hits = cursor.next(17).unwrap();
                assert!(hits.is_sorted());
                if hits.is_empty() {
                    break;
                }
                given.extend(hits);
            }
            let first: HashSet<Ordinal> = given[..34].iter().map(|hit| hit.ordinal).collect();
            given.sort();
            let all = exact::search(&columns, rows, &Request { k: rows, ..request });
            assert_eq!(given, all, "{metric} {codes}");
            let early = all[..17].iter().filter(|hit| first.contains(&hit.ordinal)).count();
            assert!(early >= 15, "{metric} {codes}: nearer rows come first, {early}");
        }
    }
}

#[test]
fn odd_numbers_of_rows_and_dimensions() {
    for rows in [0, 1, 2, 5, 40] {
        for dims in [1, 3, 65] {
            let values = clustered(rows, dims, 9);
            let column = Vectors::of_f32(&values, dims);
            for (metric, codes) in DENSE {
                let index = index_of(&spec(metric, dense(dims), &[("codes", codes)]), column);
                assert_eq!(index.rows(), rows);
                let found = recall(&*index, column, metric, &queries(dims, 3), None);
                assert!(found.is_nan() || found > 0.9, "{metric} {codes} {rows} {dims}: {found}");
            }
        }
    }
}

#[test]
fn many_equal_vectors_cut_nothing_off() {
    let (rows, dims) = (3000, 12);
    let mut values = clustered(rows, dims, 3);
    // Five vectors, 300 times each.
    for i in 0..1500 {
        let from = 2000 + i % 5;
        values.copy_within(from * dims..(from + 1) * dims, i * dims);
    }
    let column = Vectors::of_f32(&values, dims);
    let mut queries = queries(dims, 20);
    queries.extend((2000..2005).map(|i| Query::Dense(Arc::from(&values[i * dims..][..dims]))));
    for (metric, codes) in DENSE {
        let index = index_of(&spec(metric, dense(dims), &[("codes", codes), ("ef_construction", "60")]), column);
        let found = recall(&*index, column, metric, &queries, None);
        assert!(found >= 0.95, "{metric} {codes}: {found}");
    }
    let same = vec![1.5; 500 * 4];
    let column = Vectors::of_f32(&same, 4);
    for codes in ["rabitq", "sq8"] {
        let index = index_of(&spec(Metric::L2, dense(4), &[("codes", codes)]), column);
        let query = Query::Dense(Arc::from([1.0, 1.5, 1.5, 2.0]));
        assert_eq!(recall(&*index, column, Metric::L2, &[query], None), 1.0);
    }
}

/// `rows` rows that repeat `distinct` clustered ones in turn.
fn repeated(rows: usize, dims: usize, distinct: usize) -> Vec<f32> {
    let few = clustered(distinct, dims, 3);
    (0..rows).flat_map(|row| few[row % distinct * dims..][..dims].to_vec()).collect()
}

/// That searches with and without filters, cursors and estimates of a few distinct rows are exact, ties by ordinal.
fn check_equal_rows(index: &Hnsw, column: Vectors<'_>, query: &Query) {
    let (rows, metric, columns) = (column.len(), index.settings.metric, [column]);
    let what = format!("{metric} {:?}", index.settings.codes);
    let valid = (0..rows as Ordinal).filter(|&row| column.is_valid(row)).count();
    assert_eq!(index.findable(0), Some(valid), "{what}");
    let terms = term(metric, query.clone());
    let only = |passes: fn(Ordinal) -> bool| Filter::of_ordinals(rows, (0..rows as Ordinal).filter(|&row| passes(row)));
    let filters = [
        only(|row| row >= 60),
        only(|row| row >= 60 && row % 6 == 4),
        only(|row| row % 100 == 99),
        only(|row| row % 2 == 0),
        only(|_| false),
    ];
    for filter in filters.iter().map(Some).chain([None]) {
        for k in [1, 10, 400] {
            let request = request(&terms, k, filter);
            let truth = exact::search(&columns, rows, &request);
            assert_eq!(index.search(&columns, &request).unwrap(), truth, "{what} {k} {:?}", filter.map(Filter::count));
        }
        let request =
            Request { effort: Effort { ef_search: Some(1), ..Effort::default() }, ..request(&terms, 5, filter) };
        let mut cursor = index.cursor(&columns, &request).unwrap();
        let mut given = Vec::new();
        while let hits @ [_, ..] = &cursor.next(70).unwrap()[..] {
            given.extend_from_slice(hits);
        }
        given.sort();
        assert_eq!(given, exact::search(&columns, rows, &Request { k: rows, ..request }), "{what}");
    }
    if index.settings.codes != Codes::None {
        let all: Vec<Ordinal> = (0..rows as Ordinal).collect();
        let estimates = index.estimates(&columns, &terms[0], &all).unwrap();
        let first = |row: usize| (row % 6..rows).step_by(6).find(|&row| column.is_valid(row as Ordinal)).unwrap();
        for (row, estimate) in estimates.iter().enumerate() {
            match column.is_valid(row as Ordinal) {
                true => assert_eq!(*estimate, estimates[first(row)], "{what} {row}"),
                false => assert!(estimate.is_nan(), "{what} {row}"),
            }
        }
    }
}

#[test]
fn equal_rows_are_one_node() {
    let (rows, dims, distinct) = (1500, 8, 6);
    let values = repeated(rows, dims, distinct);
    let nulls = NullBuffer::from((0..rows).map(|row| row > 3 && row % 7 != 0).collect::<Vec<_>>());
    let array = array(&values, dims, Some(nulls));
    for column in [Vectors::new(&array, dense(dims)), Vectors::of_f32(&values, dims)] {
        for (metric, codes) in DENSE {
            let spec = spec(metric, dense(dims), &[("codes", codes), ("ef_construction", "16")]);
            let bytes = bytes_of(&spec, column);
            assert_eq!(bytes, bytes_of(&spec, column));
            let index = open_index(&spec, &bytes, dims);
            assert_eq!(index.nodes(), distinct, "{metric} {codes}");
            check_equal_rows(&index, column, &queries(dims, 1)[0]);
            check_equal_rows(&index, column, &Query::Dense(values[..dims].into()));
        }
    }
    // As many ones at the end as tell the distances apart.
    let bits: Vec<[u8; 2]> = (0..rows).map(|row| [0x35, (1 << (row % distinct)) - 1]).collect();
    let array = FixedSizeBinaryArray::try_from_iter(bits.iter()).unwrap();
    let ty = VectorType { kind: VectorKind::Bit, dims: 16 };
    let column = Vectors::new(&array, ty);
    for metric in [Metric::Hamming, Metric::Jaccard] {
        let spec = spec(metric, ty, &[]);
        let index = format::open(Settings::of(&spec), ty, aligned(&bytes_of(&spec, column))).unwrap();
        assert_eq!(index.nodes(), distinct);
        check_equal_rows(&index, column, &Query::Bits(Arc::from([0x35, 0])));
    }
}

#[test]
fn which_rows_are_one_node_does_not_depend_on_threads() {
    let (rows, dims, distinct) = (3000, 8, 900);
    let values = repeated(rows, dims, distinct);
    for (metric, codes) in DENSE {
        let spec = spec(metric, dense(dims), &[("codes", codes), ("ef_construction", "16")]);
        let [one, four] = [1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let build = Build { pool: &pool, seed: 11, progress: &|_| (), cancelled: &AtomicBool::new(false) };
            open_index(&spec, &HnswKind.build(&spec, &[Vectors::of_f32(&values, dims)], &build).unwrap(), dims)
        });
        assert_eq!(one.nodes(), distinct, "{metric} {codes}");
        assert_eq!((one.ordinals, one.twins.pairs), (four.ordinals, four.twins.pairs), "{metric} {codes}");
    }
}

#[test]
fn a_query_without_a_direction_finds_nothing_whatever_was_found_before() {
    let (rows, dims) = (1500, 8);
    let values = repeated(rows, dims, 6);
    let column = Vectors::of_f32(&values, dims);
    let index = index_of(&spec(Metric::Cosine, dense(dims), &[]), column);
    let [near, zero] = [queries(dims, 1).remove(0), Query::Dense(vec![0.0; dims].into())];
    let [even, odd] = [0, 1].map(|rest| Filter::of_ordinals(rows, (0..rows as Ordinal).filter(|row| row % 2 == rest)));
    for (query, filter, count) in [(near, &even, 10), (zero, &odd, 0)] {
        let terms = term(Metric::Cosine, query);
        assert_eq!(index.search(&[column], &request(&terms, 10, Some(filter))).unwrap().len(), count);
    }
}

#[test]
fn new_rows_join_the_nodes_of_old_ones() {
    let (rows, dims, distinct) = (1500, 8, 6);
    let values = repeated(rows, dims, distinct);
    // The last of the distinct rows is not among the old ones.
    let mut old = values[..500 * dims].to_vec();
    old.chunks_mut(distinct * dims).filter(|rows| rows.len() == distinct * dims).for_each(|rows| {
        let (rest, last) = rows.split_at_mut((distinct - 1) * dims);
        last.copy_from_slice(&rest[..dims]);
    });
    let all = [&old[..], &values[500 * dims..]].concat();
    let column = Vectors::of_f32(&all, dims);
    for (metric, codes) in DENSE {
        let spec = spec(metric, dense(dims), &[("codes", codes)]);
        let index = index_of(&spec, Vectors::of_f32(&old, dims));
        let bytes = with_build(|build| index.extended(&[column], build).unwrap().expect("one node more"));
        let index = open_index(&spec, &bytes, dims);
        assert_eq!((index.nodes(), index.findable(0)), (distinct, Some(rows)), "{metric} {codes}");
        for query in queries(dims, 3) {
            for k in [1, 10, 400] {
                let terms = term(metric, query.clone());
                let request = request(&terms, k, None);
                let truth = exact::search(&[column], rows, &request);
                assert_eq!(index.search(&[column], &request).unwrap(), truth, "{metric} {codes}");
            }
        }
    }
}

#[test]
fn rows_of_equal_codes_are_told_apart_by_their_vectors() {
    let (rows, dims) = (3000, 4);
    // Ten of each code: the first dimension decides the scale, and the last is far below a step of it.
    let mut random = Random::new(4);
    let values: Vec<f32> = (0..rows / 10)
        .flat_map(|_| {
            let [x, y] = [0, 1].map(|_| random.float());
            (0..10).flat_map(move |i| [40.0 + x, y, 2.0 * y, 1e-4 * i as f32].map(|v| if x > 0.0 { v } else { -v }))
        })
        .collect();
    let column = Vectors::of_f32(&values, dims);
    for codes in ["rabitq", "sq8"] {
        let spec = spec(Metric::L2, dense(dims), &[("codes", codes)]);
        let index = open_index(&spec, &bytes_of(&spec, column), dims);
        assert!(index.nodes() < rows / 5, "{}", index.nodes());
        let queries: Vec<Query> = (0..40).map(|i| Query::Dense(values[i * 71 * dims..][..dims].into())).collect();
        let found = recall(&index, column, Metric::L2, &queries, None);
        assert!(found >= 0.95, "{codes}: {found}");
    }
}

#[test]
fn an_extended_index_finds_old_and_new_rows() {
    let (rows, dims) = (3000, 16);
    let values = clustered(rows, dims, 3);
    let (old, all) = (Vectors::of_f32(&values[..2000 * dims], dims), Vectors::of_f32(&values, dims));
    for (metric, codes) in DENSE {
        let spec = spec(metric, dense(dims), &[("codes", codes), ("ef_construction", "60")]);
        let index = index_of(&spec, old);
        let bytes = with_build(|build| index.extended(&[all], build).unwrap().expect("half as many again"));
        let index = HnswKind.open(&spec, aligned(&bytes)).unwrap();
        assert_eq!(index.rows(), rows);
        let found = recall(&*index, all, metric, &queries(dims, 30), None);
        assert!(found >= 0.92, "{metric} {codes}: {found}");
    }
}

#[test]
fn recall_targets_are_met_and_more_effort_finds_more() {
    let (rows, dims) = (4000, 32);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let index = index_of(&spec(Metric::L2, dense(dims), &[("m", "6"), ("ef_construction", "20")]), column);
    let found = |effort: Effort| {
        let shares = queries(dims, 50).into_iter().map(|query| {
            let terms = term(Metric::L2, query);
            let request = Request { effort, ..request(&terms, 10, None) };
            let truth: HashSet<Ordinal> =
                exact::search(&[column], rows, &request).iter().map(|hit| hit.ordinal).collect();
            let hits = index.search(&[column], &request).unwrap();
            hits.iter().filter(|hit| truth.contains(&hit.ordinal)).count() as f64 / 10.0
        });
        shares.sum::<f64>() / 50.0
    };
    let target = |recall| found(Effort { recall_target: Some(recall), ..Effort::default() });
    let ef = |ef| found(Effort { ef_search: Some(ef), ..Effort::default() });
    assert!(target(0.8) >= 0.7 && target(0.97) >= 0.92, "{} {}", target(0.8), target(0.97));
    assert!(ef(10) <= ef(200) && ef(200) > 0.97, "{} {}", ef(10), ef(200));
}

#[test]
fn a_seed_decides_every_byte_and_damage_is_told() {
    let (rows, dims) = (300, 10);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let mut random = Random::new(1);
    for (metric, codes) in DENSE {
        let spec = spec(metric, dense(dims), &[("codes", codes)]);
        let bytes = bytes_of(&spec, column);
        assert_eq!(bytes, bytes_of(&spec, column));
        let other = Settings { m: 8, ..Settings::of(&spec) };
        assert_eq!(format::open(other, dense(dims), aligned(&bytes)).unwrap_err().kind(), ErrorKind::Corrupt);
        for round in 0..300 {
            let mut broken = bytes.clone();
            match round % 3 {
                0 => broken.truncate(random.below(bytes.len())),
                _ => {
                    // The first bytes, which say how much there is, more often than their share.
                    let end = if round % 3 == 1 { 256 } else { bytes.len() };
                    let at = random.below(end);
                    broken[at] ^= 1 << random.below(8);
                }
            }
            // Whatever opens may find anything, but it must not panic.
            if let Ok(index) = HnswKind.open(&spec, aligned(&broken))
                && index.rows() == rows
            {
                let terms = term(metric, queries(dims, 1)[0].clone());
                let columns = [column];
                let request = request(&terms, 10, None);
                index.search(&columns, &request).unwrap();
                index.cursor(&columns, &request).unwrap().next(50).unwrap();
            }
        }
    }
}

#[test]
fn what_it_does_not_serve_is_said() {
    let registry = Registry::builtin();
    let check = |metric, ty: VectorType, options: &[(&str, &str)]| {
        registry.spec("hnsw", metric, vec![ty], options.iter().copied()).unwrap_err().to_string()
    };
    let sparse = VectorType { kind: VectorKind::Sparse, dims: 9 };
    assert_eq!(check(Metric::L2, sparse, &[]), "an index of type hnsw does not serve sparse vectors");
    assert_eq!(check(Metric::Hamming, dense(3), &[]), "hamming does not measure VECTOR(3)");
    let options = [("m", "40"), ("ef_construction", "39")];
    assert_eq!(check(Metric::L2, dense(3), &options), "option \"ef_construction\" must be at least m = 40, got 39");
    let values = clustered(20, 3, 1);
    let column = Vectors::of_f32(&values, 3);
    let index = index_of(&spec(Metric::L2, dense(3), &[]), column);
    let terms = term(Metric::Dot, Query::Dense(Arc::from([0.0; 3])));
    assert_eq!(index.search(&[column], &request(&terms, 1, None)).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_build_that_nobody_wants_ends() {
    let values = clustered(500, 4, 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let build = Build { pool: &pool, seed: 1, progress: &|_| (), cancelled: &AtomicBool::new(true) };
    let found = HnswKind.build(&spec(Metric::L2, dense(4), &[]), &[Vectors::of_f32(&values, 4)], &build);
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Cancelled);
}

/// Rows that lie along a random walk: neighbours in the table are neighbours in space.
fn walk(rows: usize, dims: usize) -> Vec<f32> {
    let mut random = Random::new(12);
    let mut place = vec![0.0; dims];
    let step = |_| {
        place.iter_mut().for_each(|x| *x += random.float() + random.float());
        place.clone()
    };
    (0..rows).flat_map(step).collect()
}

fn open_index(spec: &IndexSpec, bytes: &[u8], dims: usize) -> Hnsw {
    format::open(Settings::of(spec), dense(dims), aligned(bytes)).unwrap()
}

#[test]
fn every_node_is_reached_whatever_the_threads() {
    let (rows, dims) = (6000, 8);
    let values = walk(rows, dims);
    let column = Vectors::of_f32(&values, dims);
    for (metric, codes, threads) in [(Metric::L2, "sq8", 1), (Metric::L2, "sq8", 4), (Metric::L1, "sq8", 4)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let build = Build { pool: &pool, seed: 11, progress: &|_| (), cancelled: &AtomicBool::new(false) };
        let spec = spec(metric, dense(dims), &[("codes", codes)]);
        let index = open_index(&spec, &HnswKind.build(&spec, &[column], &build).unwrap(), dims);
        let (mut seen, mut ahead) = (vec![false; rows], vec![index.entry]);
        seen[index.entry as usize] = true;
        while let Some(node) = ahead.pop() {
            let lowest = index.records.links(node).iter().copied().filter(|&link| link != NONE);
            let upper = (1..=index.upper.levels[node as usize]).flat_map(|level| index.upper.links(node, level));
            for link in lowest.chain(upper) {
                if !std::mem::replace(&mut seen[link as usize], true) {
                    ahead.push(link);
                }
            }
        }
        let missed = seen.iter().filter(|seen| !**seen).count();
        assert_eq!(missed, 0, "{metric} {codes} {threads}");
    }
}

#[test]
fn rows_in_the_order_of_their_places_are_found_as_others_are() {
    let (rows, dims) = (6000, 8);
    let values = walk(rows, dims);
    let column = Vectors::of_f32(&values, dims);
    let queries: Vec<Query> = (0..rows).step_by(97).map(|i| Query::Dense(values[i * dims..][..dims].into())).collect();
    for codes in ["sq8", "rabitq"] {
        let index = index_of(&spec(Metric::L2, dense(dims), &[("codes", codes)]), column);
        let found = recall(&*index, column, Metric::L2, &queries, None);
        assert!(found >= 0.95, "{codes}: {found}");
    }
}

#[test]
fn one_very_long_row_spoils_no_other() {
    let (rows, dims) = (3000, 16);
    let mut values = clustered(rows, dims, 3);
    values[5 * dims..6 * dims].iter_mut().for_each(|x| *x *= 1e4);
    values[7 * dims..8 * dims].fill(1e18);
    let column = Vectors::of_f32(&values, dims);
    let mut queries = queries(dims, 20);
    queries.push(Query::Dense(Arc::from(vec![1.0; dims])));
    for codes in ["sq8", "rabitq"] {
        let index = index_of(&spec(Metric::Dot, dense(dims), &[("codes", codes)]), column);
        let found = recall(&*index, column, Metric::Dot, &queries, None);
        assert!(found >= 0.9, "{codes}: {found}");
        let terms = term(Metric::Dot, queries[20].clone());
        assert_eq!(index.search(&[column], &request(&terms, 1, None)).unwrap()[0].ordinal, 7, "{codes}");
    }
}

#[test]
fn a_curve_is_measured_where_most_rows_are_null() {
    let (rows, dims) = (20_000, 8);
    let values = clustered(rows, dims, 3);
    let nulls = NullBuffer::from((0..rows).map(|i| i % 50 == 0).collect::<Vec<_>>());
    let array = array(&values, dims, Some(nulls));
    let spec = spec(Metric::L2, dense(dims), &[]);
    let index = open_index(&spec, &bytes_of(&spec, Vectors::new(&array, dense(dims))), dims);
    assert_eq!(index.nodes(), 400);
    assert!(index.curve.effort(0.9).is_some());
}

#[test]
fn a_filter_is_walked_with_or_scanned() {
    let (rows, dims) = (12_000, 8);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let spec = spec(Metric::L2, dense(dims), &[]);
    let index = open_index(&spec, &bytes_of(&spec, column), dims);
    for (one_in, scans) in [(2, false), (3, false), (60, true)] {
        let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|row| row % one_in == 0));
        assert_eq!(
            index.scans(Some(&filter), index.filtered_ef(&filter, 40, super::search::enough(40, 10))),
            scans,
            "one in {one_in}"
        );
        let found = recall(&index, column, Metric::L2, &queries(dims, 40), Some(&filter));
        assert!(found >= 0.95, "one in {one_in}: {found}");
    }
}

#[test]
fn a_filter_may_have_nothing_near_the_query() {
    let (rows, dims) = (12_000, 8);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let index = index_of(&spec(Metric::L2, dense(dims), &[]), column);
    let mut found = 0.0;
    for query in queries(dims, 20) {
        let [term] = term(Metric::L2, query.clone());
        let ordinals: Vec<Ordinal> = (0..rows as Ordinal).collect();
        let mut distances = vec![0.0; rows];
        column.distances(Metric::L2, &term.query, &ordinals, &mut distances);
        let mut sorted = distances.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // Half of the rows, and none of the nearest third.
        let far = |row: &Ordinal| distances[*row as usize] > sorted[rows / 3] && !row.is_multiple_of(4);
        let filter = Filter::of_ordinals(rows, ordinals.iter().copied().filter(far));
        found += recall(&*index, column, Metric::L2, &[query], Some(&filter)) / 20.0;
    }
    assert!(found >= 0.95, "{found}");
}

#[test]
fn estimates_are_near_the_distances() {
    let (rows, dims) = (500, 24);
    let values = clustered(rows, dims, 3);
    let column = Vectors::of_f32(&values, dims);
    let ordinals: Vec<Ordinal> = (0..rows as Ordinal).step_by(7).collect();
    for metric in [Metric::L2, Metric::L2Squared, Metric::Cosine, Metric::Dot] {
        let index = index_of(&spec(metric, dense(dims), &[]), column);
        let [term] = term(metric, queries(dims, 1).remove(0));
        let estimates = index.estimates(&[column], &term, &ordinals).unwrap();
        let mut exact = vec![0.0; ordinals.len()];
        column.distances(metric, &term.query, &ordinals, &mut exact);
        let scale = exact.iter().fold(0.0_f64, |most, distance| most.max(distance.abs()));
        for (estimate, exact) in estimates.iter().zip(&exact) {
            assert!((estimate - exact).abs() <= 0.03 * scale, "{metric}: {estimate} for {exact}");
        }
    }
}
