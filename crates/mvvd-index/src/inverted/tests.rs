//! Many windows and odd values, against a scan. What every kind must do is in `tests/it`.

use std::sync::atomic::AtomicBool;

use arrow::buffer::Buffer;
use mvvd_core::VectorType;
use mvvd_core::kernels::{Sparse, distance_sparse};
use proptest::prelude::*;

use super::*;
use crate::filter::Filter;
use crate::request::{Effort, Query, Term};

const METRICS: [Metric; 5] = [Metric::Dot, Metric::Cosine, Metric::L2, Metric::L2Squared, Metric::L1];

struct Rows {
    offsets: Vec<i32>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Rows {
    fn of(rows: impl IntoIterator<Item = Vec<(u32, f32)>>) -> Self {
        let mut made = Self { offsets: vec![0], indices: vec![], values: vec![] };
        for row in rows {
            made.indices.extend(row.iter().map(|entry| entry.0));
            made.values.extend(row.iter().map(|entry| entry.1));
            made.offsets.push(made.indices.len() as i32);
        }
        made
    }

    fn row(&self, i: usize) -> Sparse<'_> {
        let range = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        Sparse { indices: &self.indices[range.clone()], values: &self.values[range] }
    }

    fn vectors(&self, rows: usize) -> Vectors<'_> {
        Vectors::of_sparse(&self.offsets[..=rows], &self.indices, &self.values, 1000)
    }
}

fn spec(metric: Metric) -> IndexSpec {
    let ty = VectorType { kind: VectorKind::Sparse, dims: 1000 };
    IndexSpec { kind: "inverted".into(), metric, columns: vec![ty], options: Default::default() }
}

fn with_build<T>(f: impl FnOnce(&Build<'_>) -> T) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    f(&Build { pool: &pool, seed: 0, progress: &|_| (), cancelled: &AtomicBool::new(false) })
}

fn open(metric: Metric, bytes: Vec<u8>) -> Arc<dyn VectorIndex> {
    InvertedKind.open(&spec(metric), Buffer::from_slice_ref(bytes)).unwrap()
}

fn built(metric: Metric, column: Vectors<'_>) -> Arc<dyn VectorIndex> {
    open(metric, with_build(|build| InvertedKind.build(&spec(metric), &[column], build).unwrap()))
}

/// Compares with a scan. Where rows are all but equally far, either may be found.
fn check(
    index: &dyn VectorIndex,
    metric: Metric,
    rows: &Rows,
    query: &[(u32, f32)],
    k: usize,
    filter: Option<&Filter>,
) {
    let (indices, values): (Vec<u32>, Vec<f32>) = query.iter().copied().unzip();
    let sparse = Sparse { indices: &indices, values: &values };
    let mut expected: Vec<Hit> = (0..index.rows())
        .filter(|&i| filter.is_none_or(|filter| filter.has(i as u32)))
        .map(|i| Hit { distance: distance_sparse(metric, sparse, rows.row(i)), ordinal: i as u32 })
        .filter(|hit| !hit.distance.is_nan())
        .collect();
    expected.sort();
    let query = Query::Sparse(indices.clone().into(), values.clone().into());
    let terms = [Term { column: 0, metric, query, weight: 1.0 }];
    let request = Request { terms: &terms, k, filter, effort: Effort::default() };
    let columns = [rows.vectors(index.rows())];
    let compare = |what: &str, hits: &[Hit], expected: &[Hit]| {
        assert_eq!(hits.len(), expected.len(), "{what} {metric} k={k}");
        for (hit, expected) in hits.iter().zip(expected) {
            let size = expected.distance.abs().max(hit.distance.abs());
            assert!(
                (hit.distance - expected.distance).abs() <= 1e-9 * size,
                "{what} {metric}: {hit:?} not {expected:?}"
            );
            let exact = distance_sparse(metric, sparse, rows.row(hit.ordinal as usize));
            assert_eq!(hit.distance.to_bits(), exact.to_bits(), "{what} {metric}");
        }
    };
    compare("search", &index.search(&columns, &request).unwrap(), &expected[..k.min(expected.len())]);
    let mut all = index.cursor(&columns, &request).unwrap().next(usize::MAX).unwrap();
    compare("cursor", &all, &expected);
    all.dedup_by_key(|hit| hit.ordinal);
    assert_eq!(all.len(), expected.len());
}

#[test]
fn windows_and_new_rows() {
    let mut state = 1u64;
    let mut below = |end: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(end)) as u32
    };
    let mut vector = || {
        // Low dimensions are frequent.
        let mut row: Vec<(u32, f32)> =
            (0..8).map(|_| (below(1000) * below(1000) / 1000, below(100) as f32 - 20.0)).collect();
        row.sort_by_key(|entry| entry.0);
        row.dedup_by_key(|entry| entry.0);
        row
    };
    let rows = Rows::of((0..30_000).map(|_| vector()));
    let queries: Vec<_> = (0..6).map(|_| vector()).collect();
    let third = Filter::of_ordinals(30_000, (0..30_000).step_by(3));
    let late = Filter::of_ordinals(30_000, 17_000..17_040);
    for metric in METRICS {
        let whole = built(metric, rows.vectors(30_000));
        let half = built(metric, rows.vectors(17_000));
        let bytes = with_build(|build| half.extended(&[rows.vectors(30_000)], build).unwrap().unwrap());
        let same = with_build(|build| InvertedKind.build(&spec(metric), &[rows.vectors(30_000)], build).unwrap());
        assert!(bytes == same, "{metric}: an extended index is that of all rows");
        for query in &queries {
            for filter in [None, Some(&third), Some(&late)] {
                check(&*whole, metric, &rows, query, 10, filter);
            }
        }
        // What no row has, and nothing at all.
        check(&*whole, metric, &rows, &[(999, 1.0)], 10, None);
        check(&*whole, metric, &rows, &[], 10, None);
    }
}

/// The best few are spread over all windows and close to each other: no window may be left out that has one of them.
#[test]
fn near_rows_in_every_window() {
    let rows = Rows::of((0..33_000_u32).map(|i| match i % 2750 {
        1000 => vec![(5, 1.0 + (i * 7 % 11) as f32 / 100.0)],
        _ => vec![(7, 0.01)],
    }));
    for metric in METRICS {
        let index = built(metric, rows.vectors(33_000));
        for k in [1, 5, 12, 20] {
            check(&*index, metric, &rows, &[(5, 2.0), (7, 0.001)], k, None);
        }
    }
}

/// Entries of a vector: few dimensions, so that rows share them, and values of any size.
fn entries() -> impl Strategy<Value = Vec<(u32, f32)>> {
    let value = prop_oneof![
        -4.0_f32..4.0,
        (-3_i8..4).prop_map(f32::from),
        (-44_i32..38, -9.0_f32..9.0)
            .prop_map(|(exponent, x)| x * 10_f32.powi(exponent))
            .prop_filter("finite", |x| x.is_finite()),
    ];
    prop::collection::btree_map(0_u32..12, value, 0..6).prop_map(|row| row.into_iter().collect())
}

proptest! {
    #[test]
    fn as_a_scan(rows in prop::collection::vec(entries(), 0..60), query in entries(), k in 1_usize..20, step in 1_usize..4) {
        let rows = Rows::of(rows);
        let count = rows.offsets.len() - 1;
        let filter = Filter::of_ordinals(count, (0..count as u32).step_by(step));
        for metric in METRICS {
            let index = built(metric, rows.vectors(count));
            check(&*index, metric, &rows, &query, k, (step > 1).then_some(&filter));
        }
    }
}
