//! What an index must answer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::buffer::Buffer;
use mvvd_core::metric::Metric;
use mvvd_core::{ErrorKind, VectorType};
use mvvd_index::{
    Build, Choice, Effort, Filter, Hit, IndexSpec, Registry, Request, Term, VectorIndex, Vectors, build, extended, open,
};

use crate::data::{Column, Numbers, Source, query};
use crate::kinds::{BINARY, BITS, DENSE, HALF, Kind, NUMBERS, SPARSE};
use crate::truth::{check, drain, truth};

/// Rows of the larger tests: more than a block of anything.
const ROWS: usize = 3000;
const QUERIES: usize = 20;
const RECALL: f64 = 0.95;

/// Columns and the index over them.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) spec: IndexSpec,
    pub(crate) columns: Vec<Column>,
    pub(crate) bytes: Vec<u8>,
}

impl Case {
    pub(crate) fn of(kind: &Kind, types: &[VectorType], metric: Metric, options: &[(&str, &str)], rows: usize) -> Self {
        let columns = types.iter().enumerate().map(|(i, &ty)| Column::clustered(ty, rows, 42 + i as u64)).collect();
        Self::over(kind, columns, metric, options)
    }

    pub(crate) fn over(kind: &Kind, columns: Vec<Column>, metric: Metric, options: &[(&str, &str)]) -> Self {
        let types = columns.iter().map(|column| column.ty).collect();
        let spec = Registry::builtin().spec(kind.name, metric, types, options.iter().copied()).unwrap();
        let bytes = with_build(1, |with| {
            let vectors: Vec<Vectors<'_>> = columns.iter().map(Column::vectors).collect();
            build(&Registry::builtin(), &spec, &vectors, with).unwrap()
        });
        let rows = columns[0].array.len();
        let what = format!("{} {metric} {:?} {options:?} n={rows}", kind.name, spec.columns);
        Self { what, spec, columns, bytes }
    }

    pub(crate) fn vectors(&self) -> Vec<Vectors<'_>> {
        self.columns.iter().map(Column::vectors).collect()
    }

    pub(crate) fn rows(&self) -> usize {
        self.columns[0].array.len()
    }

    pub(crate) fn open(&self) -> Arc<dyn VectorIndex> {
        let bytes = Buffer::from_slice_ref(&self.bytes);
        open(&Registry::builtin(), &self.spec, self.rows(), &bytes).unwrap()
    }

    /// One term for each column in turn, and one over all columns where there are more.
    pub(crate) fn queries(&self, count: usize) -> Vec<Vec<Term>> {
        let mut sources: Vec<Source> =
            self.spec.columns.iter().enumerate().map(|(i, &ty)| Source::new(ty, 1000 + i as u64)).collect();
        let mut numbers = Numbers(7);
        (0..count)
            .map(|i| {
                let width = sources.len();
                let mut terms: Vec<Term> = sources
                    .iter_mut()
                    .enumerate()
                    .map(|(column, source)| Term {
                        column,
                        metric: self.spec.metric,
                        query: source.query(),
                        weight: 1.0,
                    })
                    .collect();
                if width > 1 && i % 2 == 0 {
                    terms.iter_mut().for_each(|term| term.weight = 0.25 + numbers.below(8) as f32 / 4.0);
                    return terms;
                }
                vec![terms.swap_remove(i / 2 % width)]
            })
            .collect()
    }

    /// Searches for `queries`, checks each answer and the recall of all.
    #[track_caller]
    fn check(&self, exact: bool, index: &dyn VectorIndex, k: usize, filter: Option<&Filter>, effort: Effort) {
        let vectors = self.vectors();
        let what = format!("{} k={k} filter={:?} {effort:?}", self.what, filter.map(Filter::count));
        let mut recall = 0.0;
        for terms in self.queries(QUERIES) {
            let request = Request { terms: &terms, k, filter, effort };
            let hits = index.search(&vectors, &request).unwrap();
            let truth = truth(&vectors, self.rows(), &terms, filter);
            recall += check(&what, &hits, &vectors, &request, &truth) / QUERIES as f64;
        }
        // Knobs that were turned down are not held to a recall.
        let least = if exact { 1.0 } else { RECALL };
        assert!(recall >= least - 1e-9 || effort != Effort::default(), "{what}: recall {recall:.4}");
    }
}

/// Calls with what a build needs.
pub(crate) fn with_build<T>(threads: usize, f: impl FnOnce(&Build<'_>) -> T) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    f(&Build { pool: &pool, seed: 1, progress: &|_| (), cancelled: &AtomicBool::new(false) })
}

/// Every columns and metric that the kind serves.
pub(crate) fn each(kind: &Kind, mut f: impl FnMut(&[VectorType], Metric)) {
    for (types, metrics) in &kind.serves {
        metrics.iter().for_each(|&metric| f(types, metric));
    }
}

/// As [`each`], with an index over the clustered columns.
fn each_case(kind: &Kind, rows: usize, mut f: impl FnMut(&Case, &dyn VectorIndex)) {
    each(kind, |types, metric| {
        let case = Case::of(kind, types, metric, &[], rows);
        f(&case, &*case.open());
    });
}

pub(crate) fn finds_the_nearest(kind: &Kind) {
    each_case(kind, ROWS, |case, index| {
        assert_eq!(index.rows(), ROWS);
        assert!(
            index.memory_bytes() >= case.bytes.len().saturating_sub(1000) / 2,
            "{}: {} bytes",
            case.what,
            index.memory_bytes()
        );
        for k in [1, 10, 100] {
            case.check(kind.exact, index, k, None, Effort::default());
        }
    });
}

pub(crate) fn every_filter(kind: &Kind) {
    each_case(kind, ROWS, |case, index| {
        let mut numbers = Numbers(3);
        let mut random = |per_mille: usize| {
            Filter::of_ordinals(ROWS, (0..ROWS as u32).filter(|_| numbers.below(1000) < per_mille).collect::<Vec<_>>())
        };
        let mut filters = vec![random(1000), random(500), random(100), random(30), random(10), random(3), random(1)];
        filters.push(Filter::of_ordinals(ROWS, [1234]));
        filters.push(Filter::of_ordinals(ROWS, []));
        // All in one place.
        filters.push(Filter::of_ordinals(ROWS, 1000..1200));
        for filter in &filters {
            case.check(kind.exact, index, 10, Some(filter), Effort::default());
        }
    });
}

pub(crate) fn every_size(kind: &Kind) {
    for rows in [0, 1, 2, 3, 31, 32, 33, 64, 65, 257] {
        each_case(kind, rows, |case, index| {
            let even = Filter::of_ordinals(rows, (0..rows as u32).step_by(2));
            for k in [1, 10, rows + 5] {
                for filter in [None, Some(&even)] {
                    case.check(kind.exact, index, k, filter, Effort::default());
                }
            }
        });
    }
}

/// Ties everywhere: nothing tells one row from another.
pub(crate) fn everything_equal(kind: &Kind) {
    each(kind, |types, metric| {
        let one = |&ty: &VectorType| Column::of(ty, &vec![Some(Source::new(ty, 5).vector()); 500]);
        let case = Case::over(kind, types.iter().map(one).collect(), metric, &[]);
        let index = case.open();
        let few = Filter::of_ordinals(500, [3, 77, 400]);
        for (k, filter) in [(10, None), (600, None), (10, Some(&few))] {
            case.check(kind.exact, &*index, k, filter, Effort::default());
        }
    });
}

/// Rows that are all NULL, or all zero.
pub(crate) fn nothing_to_find(kind: &Kind) {
    each(kind, |types, metric| {
        for zero in [false, true] {
            let column = |&ty: &VectorType| Column::of(ty, &vec![zero.then(|| Source::new(ty, 5).zero()); 100]);
            let case = Case::over(kind, types.iter().map(column).collect(), metric, &[]);
            case.check(kind.exact, &*case.open(), 10, None, Effort::default());
        }
        // A query that is zero.
        let case = Case::of(kind, types, metric, &[], 300);
        let (index, vectors) = (case.open(), case.vectors());
        let zero = query(Source::new(types[0], 5).zero());
        let terms = [Term { column: 0, metric, query: zero, weight: 1.0 }];
        let request = Request { terms: &terms, k: 10, filter: None, effort: Effort::default() };
        let truth = truth(&vectors, 300, &terms, None);
        let what = format!("{} zero query", case.what);
        check(&what, &index.search(&vectors, &request).unwrap(), &vectors, &request, &truth);
        assert_eq!(drain(&what, &*index, &vectors, &request).len(), truth.len(), "{what}");
    });
}

pub(crate) fn cursor_gives_every_row(kind: &Kind) {
    each_case(kind, 700, |case, index| {
        let vectors = case.vectors();
        let few = Filter::of_ordinals(700, (0..700).step_by(9));
        for filter in [None, Some(&few), Some(&Filter::of_ordinals(700, []))] {
            let what = format!("{} filter={:?}", case.what, filter.map(Filter::count));
            let (mut first, queries) = (0.0, 10);
            for terms in case.queries(queries) {
                let request = Request { terms: &terms, k: 10, filter, effort: Effort::default() };
                let truth = truth(&vectors, 700, &terms, filter);
                let mut all = drain(&what, index, &vectors, &request);
                let nearest = &truth[..truth.len().min(10)];
                first += nearest.iter().filter(|hit| all[..all.len().min(20)].contains(hit)).count() as f64
                    / (nearest.len().max(1) * queries) as f64;
                if kind.exact {
                    let distances = |hits: &[Hit]| hits.iter().map(|hit| hit.distance).collect::<Vec<_>>();
                    assert!(
                        distances(&all).iter().zip(distances(&truth)).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs()),
                        "{what}: a cursor of an exact index gives rows in order"
                    );
                }
                all.sort_by_key(|hit| hit.ordinal);
                let mut expected = truth.clone();
                expected.sort_by_key(|hit| hit.ordinal);
                assert_eq!(all, expected, "{what}: every row once");
            }
            let none = filter.is_some_and(|filter| filter.count() == 0);
            assert!(none || first >= 0.9 - 1e-9, "{what}: {first:.3} of the 10 nearest are among the first 20");
        }
        // Far more at once than there is.
        let terms = case.queries(1).remove(0);
        let request = Request { terms: &terms, k: 5, filter: None, effort: Effort::default() };
        let all = index.cursor(&vectors, &request).unwrap().next(usize::MAX).unwrap();
        assert_eq!(all, truth(&vectors, 700, &terms, None), "{}: all at once", case.what);
    });
}

/// Weights and several terms: right, or `Unsupported`.
pub(crate) fn terms_and_weights(kind: &Kind) {
    each_case(kind, 1000, |case, index| {
        let vectors = case.vectors();
        let mut terms: Vec<Term> = case.queries(4).into_iter().map(|mut terms| terms.swap_remove(0)).collect();
        let weights = [2.5, 0.0, -1.5, 1e-3];
        terms.iter_mut().zip(weights).for_each(|(term, weight)| term.weight = weight);
        let sets: Vec<&[Term]> = vec![&terms[..1], &terms[1..2], &terms[2..3], &terms[3..], &terms[..2], &terms];
        for (i, terms) in sets.into_iter().enumerate() {
            let request = Request { terms, k: 10, filter: None, effort: Effort::default() };
            let what = format!("{} terms {i}", case.what);
            match index.search(&vectors, &request) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
                    assert!(!matches!(i, 0 | 3), "{what}: a positive weight is nothing special: {error}");
                }
                Ok(hits) => {
                    let truth = truth(&vectors, case.rows(), terms, None);
                    let recall = check(&what, &hits, &vectors, &request, &truth);
                    assert!(recall >= if kind.exact { 1.0 } else { 0.5 }, "{what}: recall {recall}");
                }
            }
        }
    });
}

/// Whatever the knobs say, the answer is one.
pub(crate) fn every_effort(kind: &Kind) {
    each_case(kind, 1000, |case, index| {
        let half = Filter::of_ordinals(1000, (0..1000).step_by(2));
        let knobs = [0, 1, 50, 100_000].map(Some);
        let mut efforts = Vec::new();
        efforts.extend(knobs.map(|ef_search| Effort { ef_search, ..Effort::default() }));
        efforts.extend(knobs.map(|nprobe| Effort { nprobe, ..Effort::default() }));
        let targets = [0.0, 0.5, 0.99, 1.0].map(Some);
        efforts.extend(targets.map(|recall_target| Effort { recall_target, ..Effort::default() }));
        for effort in efforts {
            for filter in [None, Some(&half)] {
                case.check(kind.exact, index, 10, filter, effort);
            }
        }
    });
}

/// The ends of the range of each option, and each name.
pub(crate) fn every_option(kind: &Kind) {
    let registry = Registry::builtin();
    for option in registry.get(kind.name).unwrap().options() {
        let values: Vec<String> = match option.choice {
            Choice::Number { min, max, .. } => vec![min.to_string(), max.to_string()],
            Choice::Name(names) => names.iter().map(|&name| name.to_owned()).collect(),
        };
        for value in &values {
            let (types, metrics) = &kind.serves[0];
            let options = [(option.name, value.as_str())];
            // Two options may not go together; that is said when the index is made, not later.
            if registry.spec(kind.name, metrics[0], types.clone(), options).is_ok() {
                let case = Case::of(kind, types, metrics[0], &options, 300);
                let effort = Effort { ef_search: Some(50), nprobe: Some(50), ..Effort::default() };
                case.check(kind.exact, &*case.open(), 10, None, effort);
            }
        }
    }
}

/// An index that is extended covers all rows.
pub(crate) fn more_rows(kind: &Kind) {
    each(kind, |types, metric| {
        for (old, new) in [(0, 40), (1, 2), (300, 301), (1000, 1700), (500, 500)] {
            let case = Case::of(kind, types, metric, &[], new);
            let first: Vec<Column> = case.columns.iter().map(|column| column.slice(0, old)).collect();
            let index = Case::over(kind, first, metric, &[]).open();
            let vectors = case.vectors();
            let Some(bytes) = with_build(1, |with| extended(&case.spec, &*index, &vectors, with).unwrap()) else {
                continue;
            };
            let case = Case { what: format!("{} extended from {old}", case.what), bytes, ..case };
            let index = case.open();
            let even = Filter::of_ordinals(new, (0..new as u32).step_by(2));
            for filter in [None, Some(&even)] {
                case.check(kind.exact, &*index, 10, filter, Effort::default());
            }
        }
    });
}

/// Columns that begin in the middle of an array, and a build on two threads.
pub(crate) fn slices_of_columns(kind: &Kind) {
    each(kind, |types, metric| {
        let columns: Vec<Column> = types.iter().map(|&ty| Column::clustered(ty, 900, 9).slice(77, 801)).collect();
        let mut case = Case::over(kind, columns, metric, &[]);
        case.check(kind.exact, &*case.open(), 10, None, Effort::default());
        case.bytes = with_build(2, |with| build(&Registry::builtin(), &case.spec, &case.vectors(), with).unwrap());
        case.check(kind.exact, &*case.open(), 10, None, Effort::default());
    });
}

/// What the suite does not test, the kind says no to.
pub(crate) fn other_columns_are_refused(kind: &Kind) {
    for ty in [DENSE, HALF, BITS, SPARSE] {
        for &metric in NUMBERS.iter().chain(BINARY) {
            let serves = kind.serves.iter().any(|(types, metrics)| types[..] == [ty] && metrics.contains(&metric));
            match Registry::builtin().spec(kind.name, metric, vec![ty], []) {
                Ok(_) => assert!(serves, "{} {ty} {metric} is not tested", kind.name),
                Err(error) => {
                    assert!(!serves, "{} {ty} {metric}: {error}", kind.name);
                    let refused = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid);
                    assert!(refused, "{} {ty} {metric}: {error:?}", kind.name);
                }
            }
        }
    }
    // Several columns only where it is said.
    let several = kind.serves.iter().any(|(types, _)| types.len() > 1);
    let (types, metrics) = &kind.serves[0];
    let twice = Registry::builtin().spec(kind.name, metrics[0], vec![types[0]; 2], []);
    assert_eq!(twice.is_ok(), several, "{} over two columns", kind.name);
}
