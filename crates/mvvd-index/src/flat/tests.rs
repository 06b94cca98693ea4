//! Vectors of any size and spread, whose answers must be those of a scan. What every kind must do is in `tests/it`.

use std::sync::atomic::AtomicBool;

use mvvd_core::Ordinal;
use proptest::prelude::*;

use super::*;
use crate::filter::Filter;
use crate::request::{Effort, Query, Term};

const METRICS: [Metric; 5] = [Metric::L2, Metric::L2Squared, Metric::Dot, Metric::Cosine, Metric::L1];

fn check(rows: &[f32], dims: usize, query: &[f32], k: usize, filter: Option<&Filter>) {
    let column = Vectors::of_f32(rows, dims);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let build = Build { pool: &pool, seed: 0, progress: &|_| (), cancelled: &AtomicBool::new(false) };
    for metric in METRICS {
        let spec =
            IndexSpec { kind: "flat".into(), metric, columns: vec![column.vector_type()], options: Default::default() };
        let bytes = FlatKind.build(&spec, &[column], &build).unwrap();
        let index = FlatKind.open(&spec, Buffer::from_slice_ref(bytes)).unwrap();
        let terms = [Term { column: 0, metric, query: Query::Dense(query.into()), weight: 1.0 }];
        let request = Request { terms: &terms, k, filter, effort: Effort::default() };
        let mut expected: Vec<Hit> = (0..column.len() as Ordinal)
            .filter(|&ordinal| filter.is_none_or(|filter| filter.has(ordinal)))
            .map(|ordinal| {
                let mut distance = [0.0];
                column.distances(metric, &terms[0].query, &[ordinal], &mut distance);
                Hit { distance: distance[0], ordinal }
            })
            .filter(|hit| !hit.distance.is_nan())
            .collect();
        expected.sort();
        let columns = [column];
        let found = index.search(&columns, &request).unwrap();
        assert_eq!(found, expected[..k.min(expected.len())], "{metric} {dims}");
        let all = index.cursor(&columns, &request).unwrap().next(usize::MAX).unwrap();
        assert_eq!(all, expected, "{metric} {dims}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Rows of one size, with an offset and a spread, and some of another size.
    #[test]
    fn as_a_scan(
        seed: u64, dims in 1_usize..140, size in -21_i32..18, spread in -7_i32..3, other in -21_i32..18, k in 1_usize..40,
        step in 1_usize..9,
    ) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let offset: Vec<f32> = (0..dims).map(|_| next()).collect();
        let [size, spread, other] = [size, spread, other].map(|exponent| 10_f32.powi(exponent));
        let mut row = |i: usize| -> Vec<f32> {
            match i % 37 {
                36 => offset.iter().map(|_| other * next()).collect(),
                35 => vec![0.0; dims],
                _ => offset.iter().map(|x| size * (x + spread * next())).collect(),
            }
        };
        let mut rows: Vec<f32> = (0..700).flat_map(&mut row).collect();
        // Equals.
        rows.extend_from_within(..40 * dims);
        let query = row(1);
        let filter = Filter::of_ordinals(740, (0..740).step_by(step));
        check(&rows, dims, &query, k, (step > 1).then_some(&filter));
        // A query that is a row.
        check(&rows, dims, &rows[5 * dims..6 * dims], k, None);
    }
}

#[test]
fn few_rows_are_measured() {
    let dims = 96;
    let mut state = 5u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let rows: Vec<f32> = (0..5000 * dims).map(|_| next()).collect();
    let query: Vec<f32> = (0..dims).map(|_| next()).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let build = Build { pool: &pool, seed: 0, progress: &|_| (), cancelled: &AtomicBool::new(false) };
    for metric in [Metric::L2, Metric::Dot, Metric::Cosine] {
        let bytes = codes::build(metric, &Vectors::of_f32(&rows, dims), None, &build).unwrap();
        let codes = Codes::open(Buffer::from_slice_ref(bytes), dims).unwrap();
        let terms = [Term { column: 0, metric, query: Query::Dense(query.clone().into()), weight: 1.0 }];
        let request = Request { terms: &terms, k: 10, filter: None, effort: Effort::default() };
        let count = scan::candidates(&codes, &Vectors::of_f32(&rows, dims), &request).unwrap().len();
        assert!((10..100).contains(&count), "{metric}: {count} candidates");
    }
}
