//! Lists against the exact answer: recall, weights, missing vectors, filters, cursors, damaged bytes, more rows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, FixedSizeListArray};
use arrow::buffer::Buffer;
use arrow::datatypes::Float32Type;
use mvvd_core::metric::Metric;
use mvvd_core::{ErrorKind, VectorKind, VectorType};

use crate::filter::Filter;
use crate::kind::{Build, IndexSpec, Registry, VectorIndex};
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::rotate::Random;
use crate::vectors::Vectors;
use crate::{exact, sidecar};

const KINDS: [(&str, &[(&str, &str)]); 3] = [("ivf_rabitq", &[]), ("ivf_pq", &[]), ("ivf_pq", &[("pq_bits", "8")])];

/// `rows` points around some centres.
fn clustered(rows: usize, dims: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let centres: Vec<f32> = (0..40 * dims).map(|_| 3.0 + random.float() * 2.0).collect();
    let mut values = Vec::with_capacity(rows * dims);
    for _ in 0..rows {
        let centre = random.below(40) * dims;
        values.extend((0..dims).map(|i| centres[centre + i] + random.float() + random.float()));
    }
    values
}

fn build(spec: &IndexSpec, columns: &[Vectors<'_>]) -> Buffer {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let build = Build { pool: &pool, seed: 9, progress: &|_| (), cancelled: &AtomicBool::new(false) };
    Buffer::from_slice_ref(sidecar::build(&Registry::builtin(), spec, columns, &build).unwrap())
}

fn spec(kind: &str, metric: Metric, columns: &[Vectors<'_>], options: &[(&str, &str)]) -> IndexSpec {
    let types = columns.iter().map(Vectors::vector_type).collect();
    Registry::builtin().spec(kind, metric, types, options.iter().copied()).unwrap()
}

fn index(kind: &str, metric: Metric, columns: &[Vectors<'_>], options: &[(&str, &str)]) -> Arc<dyn VectorIndex> {
    let spec = spec(kind, metric, columns, options);
    sidecar::open(&Registry::builtin(), &spec, columns[0].len(), &build(&spec, columns)).unwrap()
}

fn term(column: usize, metric: Metric, query: &[f32], weight: f32) -> Term {
    Term { column, metric, query: Query::Dense(query.into()), weight }
}

/// The share of the true nearest that are among `found`, whose distances must be exact.
fn recall(columns: &[Vectors<'_>], request: &Request<'_>, found: &[Hit]) -> f64 {
    let truth = exact::search(columns, columns[0].len(), request);
    assert_eq!(found.len(), truth.len());
    assert!(found.is_sorted());
    for hit in found {
        let mut distance = [0.0];
        exact::score(columns, request, &[hit.ordinal], &mut distance);
        assert_eq!(distance[0].to_bits(), hit.distance.to_bits());
    }
    let hits = found.iter().filter(|hit| truth.iter().any(|other| other.ordinal == hit.ordinal)).count();
    if truth.is_empty() { 1.0 } else { hits as f64 / truth.len() as f64 }
}

#[test]
fn finds_nearly_all_of_the_nearest_by_every_metric() {
    let (rows, dims) = (4000, 48);
    let values = clustered(rows, dims, 1);
    let columns = [Vectors::of_f32(&values, dims)];
    for (kind, options) in KINDS {
        for metric in [Metric::L2, Metric::L2Squared, Metric::Cosine, Metric::Dot] {
            let index = index(kind, metric, &columns, options);
            let mut sum = 0.0;
            for query in 0..30 {
                for weight in [1.0, 0.25] {
                    let terms = [term(0, metric, &values[query * 100 * dims..][..dims], weight)];
                    let request = Request { terms: &terms, k: 10, filter: None, effort: Effort::default() };
                    sum += recall(&columns, &request, &index.search(&columns, &request).unwrap());
                }
            }
            let least = if metric == Metric::Dot { 0.85 } else { 0.95 };
            assert!(sum / 60.0 > least, "{kind} {metric}: {}", sum / 60.0);
        }
    }
}

#[test]
fn weights_come_with_the_query() {
    let rows = 3000;
    let (a, b) = (clustered(rows, 32, 2), clustered(rows, 20, 3));
    let columns = [Vectors::of_f32(&a, 32), Vectors::of_f32(&b, 20)];
    for (kind, options) in KINDS {
        for metric in [Metric::L2Squared, Metric::Cosine, Metric::Dot] {
            let index = index(kind, metric, &columns, options);
            for weights in [[0.6, 0.4], [1.0, 0.0], [0.05, 2.0], [1.0, -0.3], [-1.0, 0.2], [0.0, 0.0]] {
                let mut sum = 0.0;
                for query in 0..20 {
                    let (p, q) = (&a[query * 32 * 50..][..32], &b[query * 20 * 90..][..20]);
                    let terms = [term(0, metric, p, weights[0]), term(1, metric, q, weights[1])];
                    let effort = Effort { nprobe: Some(60), ..Effort::default() };
                    let request = Request { terms: &terms, k: 10, filter: None, effort };
                    sum += recall(&columns, &request, &index.search(&columns, &request).unwrap());
                }
                assert!(sum / 20.0 > 0.9, "{kind} {metric} {weights:?}: {}", sum / 20.0);
            }
        }
    }
}

#[test]
fn sums_of_rooted_distances_are_refused() {
    let values = clustered(100, 8, 4);
    let columns = [Vectors::of_f32(&values, 8), Vectors::of_f32(&values, 8)];
    for (kind, options) in KINDS {
        let index = index(kind, Metric::L2, &columns, options);
        let terms = [term(0, Metric::L2, &values[..8], 1.0), term(1, Metric::L2, &values[..8], 1.0)];
        let mut request = Request { terms: &terms, k: 5, filter: None, effort: Effort::default() };
        assert_eq!(index.search(&columns, &request).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(index.cursor(&columns, &request).err().unwrap().to_string().contains("sums of l2"));
        request.terms = &terms[..1];
        assert_eq!(recall(&columns, &request, &index.search(&columns, &request).unwrap()), 1.0);
        let farthest = [term(0, Metric::L2, &values[..8], -1.0)];
        request.terms = &farthest;
        assert_eq!(recall(&columns, &request, &index.search(&columns, &request).unwrap()), 1.0);
    }
    let registry = Registry::builtin();
    for (kind, metric) in [(VectorKind::Bit, Metric::Hamming), (VectorKind::Dense, Metric::L1)] {
        let refused = registry.spec("ivf_rabitq", metric, vec![VectorType { kind, dims: 8 }], []);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

/// Rows of dims 2, some NULL, some of zero length.
fn with_gaps(rows: usize, seed: u64) -> ArrayRef {
    let mut random = Random::new(seed);
    let values = (0..rows).map(|i| {
        let value = [random.float(), random.float()].map(|v| if i % 7 == 3 { Some(0.0) } else { Some(v) });
        (random.below(4) > 0).then_some(value)
    });
    Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(values, 2))
}

#[test]
fn rows_without_a_vector_are_never_found_and_all_others_are() {
    let rows = 900;
    let (a, b) = (with_gaps(rows, 5), with_gaps(rows, 6));
    let ty = VectorType { kind: VectorKind::Dense, dims: 2 };
    let columns = [Vectors::new(&a, ty), Vectors::new(&b, ty)];
    let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|i| i % 3 > 0));
    for (kind, options) in KINDS {
        for metric in [Metric::L2Squared, Metric::Cosine, Metric::Dot] {
            let index = index(kind, metric, &columns, options);
            for weights in [[1.0, 1.0], [1.0, 0.0], [-1.0, 0.5]] {
                let terms = [term(0, metric, &[0.3, 0.5], weights[0]), term(1, metric, &[-0.2, 0.9], weights[1])];
                for filter in [None, Some(&filter)] {
                    let request = Request { terms: &terms, k: rows, filter, effort: Effort::default() };
                    assert_eq!(recall(&columns, &request, &index.search(&columns, &request).unwrap()), 1.0);
                    let all = exact::search(&columns, rows, &request).len();
                    // Small k, so that lists are used.
                    let request = Request { k: 3, ..request };
                    let mut cursor = index.cursor(&columns, &request).unwrap();
                    let mut found = Vec::new();
                    while let hits @ [_, ..] = &cursor.next(17).unwrap()[..] {
                        assert!(hits.is_sorted());
                        found.extend(hits.iter().map(|hit| hit.ordinal));
                    }
                    found.sort_unstable();
                    found.dedup();
                    assert_eq!(found.len(), all, "{kind} {metric} {weights:?}");
                }
            }
        }
    }
}

#[test]
fn filters_leave_recall_and_number_of_rows() {
    let (rows, dims) = (20_000, 24);
    let values = clustered(rows, dims, 7);
    let columns = [Vectors::of_f32(&values, dims)];
    for (kind, options) in KINDS {
        let index = index(kind, Metric::L2, &columns, options);
        for every in [2, 10, 40, 100, 1000, 9000] {
            let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|i| i % every == 0));
            let mut sum = 0.0;
            for query in 0..20 {
                let terms = [term(0, Metric::L2, &values[query * 77 * dims..][..dims], 1.0)];
                let request = Request { terms: &terms, k: 10, filter: Some(&filter), effort: Effort::default() };
                sum += recall(&columns, &request, &index.search(&columns, &request).unwrap());
            }
            assert!(sum / 20.0 > 0.95, "{kind}, one of {every}: {}", sum / 20.0);
        }
    }
}

#[test]
fn odd_numbers_of_rows_and_odd_values() {
    for (kind, options) in KINDS {
        for rows in [0, 1, 2, 31, 33, 200] {
            for scale in [1.0, 0.0, 1e-30, 1e25, 1e38] {
                let values: Vec<f32> = clustered(rows, 3, 8).iter().map(|v| v * scale).collect();
                let columns = [Vectors::of_f32(&values, 3)];
                for metric in [Metric::L2, Metric::Cosine, Metric::Dot] {
                    let index = index(kind, metric, &columns, options);
                    let terms = [term(0, metric, &[1.0, 2.0, 3.0], 1.0)];
                    for k in [1, 7, 300] {
                        let request = Request { terms: &terms, k, filter: None, effort: Effort::default() };
                        let found = index.search(&columns, &request).unwrap();
                        assert_eq!(
                            found.len(),
                            exact::search(&columns, rows, &request).len(),
                            "{metric} {rows} {scale}"
                        );
                        let mut cursor = index.cursor(&columns, &request).unwrap();
                        let all = exact::search(&columns, rows, &Request { k: 1000, ..request.clone() }).len();
                        assert_eq!(cursor.next(1000).unwrap().len(), all, "{metric} {rows} {scale}");
                    }
                }
            }
        }
    }
}

#[test]
fn more_rows_go_to_the_lists_that_there_are() {
    let (rows, more, dims) = (2000, 3000, 32);
    let values = clustered(more, dims, 11);
    let (few, all) = ([Vectors::of_f32(&values[..rows * dims], dims)], [Vectors::of_f32(&values, dims)]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let build = Build { pool: &pool, seed: 9, progress: &|_| (), cancelled: &AtomicBool::new(false) };
    for (kind, options) in KINDS {
        for metric in [Metric::L2, Metric::Dot] {
            let small = index(kind, metric, &few, options);
            let bytes = small.extended(&all, &build).unwrap().unwrap();
            let registry = Registry::builtin();
            let kind = registry.get(kind).unwrap();
            let large = kind.open(&spec(kind.name(), metric, &all, options), Buffer::from_slice_ref(bytes)).unwrap();
            assert_eq!(large.rows(), more);
            let mut sum = 0.0;
            for query in 0..30 {
                let terms = [term(0, metric, &values[query * 99 * dims..][..dims], 1.0)];
                let request = Request { terms: &terms, k: 10, filter: None, effort: Effort::default() };
                sum += recall(&all, &request, &large.search(&all, &request).unwrap());
            }
            assert!(sum / 30.0 > 0.95, "{}", sum / 30.0);
        }
    }
}

/// A target is met, by about as many lists as it takes; one that is higher takes more.
#[test]
fn recall_targets_are_met_whatever_columns_are_asked() {
    let (rows, dims) = (20_000, 16);
    let (a, b) = (clustered(rows, dims, 14), clustered(rows, dims, 15));
    let columns = [Vectors::of_f32(&a, dims), Vectors::of_f32(&b, dims)];
    let mut random = Random::new(16);
    // Between two rows, nearer to the first.
    let mut near = |values: &[f32]| -> Vec<f32> {
        let [one, other] = [0, 1].map(|_| random.below(rows) * dims);
        (0..dims).map(|i| values[one + i] + 0.2 * (values[other + i] - values[one + i])).collect()
    };
    let queries: Vec<[Vec<f32>; 2]> = (0..60).map(|_| [near(&a), near(&b)]).collect();
    for (kind, options) in KINDS {
        for columns in [&columns[..1], &columns] {
            let index = index(kind, Metric::L2Squared, columns, options);
            for weights in [[1.0, 1.0], [0.8, 0.2], [1.0, 0.0]] {
                let found = |effort| {
                    let recalls = queries.iter().map(|query| {
                        let term = |column: usize| term(column, Metric::L2Squared, &query[column], weights[column]);
                        let terms: Vec<Term> = (0..columns.len()).map(term).collect();
                        let request = Request { terms: &terms, k: 10, filter: None, effort };
                        recall(columns, &request, &index.search(columns, &request).unwrap())
                    });
                    recalls.sum::<f64>() / queries.len() as f64
                };
                let target = |target| found(Effort { recall_target: Some(target), ..Effort::default() });
                let [few, some, most] = [0.6, 0.9, 0.98].map(target);
                let what = format!("{kind}, {} columns, {weights:?}: {few} {some} {most}", columns.len());
                assert!(few >= 0.5 && some >= 0.85 && most >= 0.95, "{what}");
                assert!(few < 0.9 && few <= some && some <= most, "{what}");
            }
        }
    }
}

#[test]
fn damaged_bytes_are_corrupt_or_harmless() {
    let values = clustered(300, 10, 12);
    let columns = [Vectors::of_f32(&values, 10)];
    let terms = [term(0, Metric::L2, &values[..10], 1.0)];
    let request = Request { terms: &terms, k: 5, filter: None, effort: Effort::default() };
    let registry = Registry::builtin();
    for (kind, options) in KINDS {
        let spec = spec(kind, Metric::L2, &columns, options);
        let kind = registry.get(kind).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let build = Build { pool: &pool, seed: 9, progress: &|_| (), cancelled: &AtomicBool::new(false) };
        let bytes = kind.build(&spec, &columns, &build).unwrap();
        let mut random = Random::new(13);
        for round in 0..3000 {
            let mut damaged = bytes.clone();
            match round % 3 {
                0 => damaged.truncate(random.below(bytes.len())),
                // The head, where lengths are.
                1 => damaged[random.below(256)] = random.next() as u8,
                _ => (0..20).for_each(|_| damaged[random.below(bytes.len())] = random.next() as u8),
            }
            match kind.open(&spec, Buffer::from_slice_ref(damaged)) {
                // The frame tells the number of rows, which is compared.
                Ok(index) if index.rows() != 300 => (),
                Ok(index) => {
                    let _ = index.search(&columns, &request);
                    index.cursor(&columns, &request).unwrap().next(400).unwrap();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }
}

#[test]
fn a_row_is_found_once_however_many_lists_it_takes() {
    let (rows, dims) = (6000, 24);
    let values = clustered(rows, dims, 4);
    let columns = [Vectors::of_f32(&values, dims)];
    let index = index("ivf_rabitq", Metric::Dot, &columns, &[("nlist", "300")]);
    // All lists are equally far from no direction at all.
    for query in [vec![0.0; dims], values[..dims].to_vec()] {
        for k in [10, 500] {
            for nprobe in [1, 3, 8] {
                let terms = [term(0, Metric::Dot, &query, 1.0)];
                let effort = Effort { nprobe: Some(nprobe), ..Effort::default() };
                let hits = index.search(&columns, &Request { terms: &terms, k, filter: None, effort }).unwrap();
                let rows: std::collections::HashSet<_> = hits.iter().map(|hit| hit.ordinal).collect();
                assert_eq!((hits.len(), rows.len()), (k, k), "nprobe {nprobe}");
            }
        }
    }
}

#[test]
fn a_column_that_is_nearly_empty_is_indexed() {
    let rows = 50_000;
    let array = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        (0..rows).map(|row| (row == 1234).then_some([Some(1.0), Some(2.0)])),
        2,
    );
    let array: ArrayRef = Arc::new(array);
    let ty = VectorType { kind: VectorKind::Dense, dims: 2 };
    let mut zeros = vec![0.0; rows * 2];
    zeros[2 * 1234..][..2].copy_from_slice(&[1.0, 2.0]);
    for (column, metric) in [(Vectors::new(&*array, ty), Metric::L2), (Vectors::of_f32(&zeros, 2), Metric::Cosine)] {
        let index = index("ivf_rabitq", metric, &[column], &[]);
        let terms = [term(0, metric, &[1.0, 2.0], 1.0)];
        let request = Request { terms: &terms, k: 3, filter: None, effort: Effort::default() };
        let found: Vec<u32> = index.search(&[column], &request).unwrap().iter().map(|hit| hit.ordinal).collect();
        assert_eq!(found, [1234], "{metric}");
        assert_eq!(index.findable(0), Some(1));
    }
}

#[test]
fn estimates_are_near_the_distances() {
    let (rows, dims) = (1000, 48);
    let values = clustered(rows, dims, 1);
    let columns = [Vectors::of_f32(&values, dims)];
    let ordinals: Vec<u32> = (0..rows as u32).step_by(7).collect();
    for (kind, options) in KINDS {
        for metric in [Metric::L2, Metric::L2Squared, Metric::Cosine, Metric::Dot] {
            let index = index(kind, metric, &columns, options);
            let term = term(0, metric, &values[300 * dims..][..dims], 1.0);
            let estimates = index.estimates(&columns, &term, &ordinals).unwrap();
            let mut exact = vec![0.0; ordinals.len()];
            columns[0].distances(metric, &term.query, &ordinals, &mut exact);
            let spread = exact.iter().fold(f64::MIN, |a, &b| a.max(b)) - exact.iter().fold(f64::MAX, |a, &b| a.min(b));
            let off = estimates.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum::<f64>() / exact.len() as f64;
            assert!(off <= 0.1 * spread, "{kind} {metric}: {off} of {spread}");
        }
    }
}
