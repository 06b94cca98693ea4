//! The exact answer, by measuring every row that may be found: for few rows, and for what an index has no better way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use crate::filter::Filter;
use crate::kind::{Build, Cursor};
use crate::nearest::Nearest;
use crate::request::{Hit, Request};
use crate::vectors::Vectors;

/// Rows that are measured at once.
const BATCH: usize = 256;
/// Rows that a thread takes at once, a multiple of [`BATCH`].
const SHARE: usize = 64 * BATCH;

/// The `k` nearest of the first `rows` rows of `columns`.
pub(crate) fn search(columns: &[Vectors<'_>], rows: usize, request: &Request<'_>) -> Vec<Hit> {
    let mut nearest = Nearest::new(request.k);
    measure(columns, 0..rows, request, |hit| nearest.push(hit));
    nearest.into_sorted()
}

/// As [`search`] for each of `requests`: a row is read from memory once for all of them. Runs on the pool it is called
/// from.
pub(crate) fn search_each(
    columns: &[Vectors<'_>],
    rows: usize,
    requests: &[Request<'_>],
    build: &Build<'_>,
) -> Result<Vec<Vec<Hit>>> {
    let nothing = || requests.iter().map(|request| Nearest::new(request.k)).collect::<Vec<_>>();
    let parts = (0..rows.div_ceil(SHARE)).into_par_iter().map(|share| {
        build.check()?;
        let mut nearest = nothing();
        for start in (share * SHARE..rows.min((share + 1) * SHARE)).step_by(BATCH) {
            for (request, nearest) in requests.iter().zip(&mut nearest) {
                measure(columns, start..rows.min(start + BATCH), request, |hit| nearest.push(hit));
            }
        }
        Ok(nearest)
    });
    let mut nearest = nothing();
    for part in parts.collect::<Result<Vec<_>>>()? {
        for (nearest, part) in nearest.iter_mut().zip(part) {
            part.into_sorted().into_iter().for_each(|hit| nearest.push(hit));
        }
    }
    Ok(nearest.into_iter().map(Nearest::into_sorted).collect())
}

/// All of the first `rows` rows of `columns`, nearest first. Measures every row at once, then sorts as far as is asked.
pub(crate) fn cursor(columns: &[Vectors<'_>], rows: usize, request: &Request<'_>) -> InOrder {
    let mut hits = Vec::with_capacity(request.filter.map_or(rows, Filter::count));
    measure(columns, 0..rows, request, |hit| hits.extend((!hit.distance.is_nan()).then_some(Reverse(hit))));
    InOrder { hits: hits.into() }
}

/// Hits that are given out in their order.
#[derive(Debug)]
pub(crate) struct InOrder {
    hits: BinaryHeap<Reverse<Hit>>,
}

impl Cursor for InOrder {
    fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        Ok(std::iter::from_fn(|| self.hits.pop()).take(count).map(|Reverse(hit)| hit).collect())
    }
}

/// The distances of the rows at `ordinals`, which all have a vector in each column of `request`'s terms: the weighted
/// sum of the terms in their order.
pub(crate) fn score(columns: &[Vectors<'_>], request: &Request<'_>, ordinals: &[Ordinal], out: &mut [f64]) {
    let mut terms = request.terms.iter();
    let Some(first) = terms.next() else {
        return out.fill(0.0);
    };
    columns[first.column].distances(first.metric, &first.query, ordinals, out);
    if first.weight != 1.0 {
        out.iter_mut().for_each(|distance| *distance *= f64::from(first.weight));
    }
    let mut more = vec![0.0; if request.terms.len() > 1 { out.len() } else { 0 }];
    for term in terms {
        columns[term.column].distances(term.metric, &term.query, ordinals, &mut more);
        out.iter_mut().zip(&more).for_each(|(sum, distance)| *sum += f64::from(term.weight) * distance);
    }
}

/// Tells `found` every one of `rows` that may be found, in any order, NaN included.
fn measure(columns: &[Vectors<'_>], rows: Range<usize>, request: &Request<'_>, mut found: impl FnMut(Hit)) {
    // Whole blocks are read faster than rows by their ordinals.
    if let (None, [term]) = (request.filter, request.terms)
        && columns[term.column].has_no_nulls()
    {
        let mut distances = [0.0; BATCH];
        for start in rows.clone().step_by(BATCH) {
            let distances = &mut distances[..BATCH.min(rows.end - start)];
            columns[term.column].distances_from(term.metric, &term.query, start as Ordinal, distances);
            for (i, &distance) in distances.iter().enumerate() {
                let distance = if term.weight == 1.0 { distance } else { distance * f64::from(term.weight) };
                found(Hit { distance, ordinal: (start + i) as Ordinal });
            }
        }
        return;
    }
    let mut batch = Vec::with_capacity(BATCH);
    let mut distances = [0.0; BATCH];
    let mut flush = |batch: &mut Vec<Ordinal>| {
        let distances = &mut distances[..batch.len()];
        score(columns, request, batch, distances);
        for (&ordinal, &distance) in batch.iter().zip(distances.iter()) {
            found(Hit { distance, ordinal });
        }
        batch.clear();
    };
    let mut offer = |ordinal: Ordinal| {
        if request.terms.iter().all(|term| columns[term.column].is_valid(ordinal)) {
            batch.push(ordinal);
            if batch.len() == BATCH {
                flush(&mut batch);
            }
        }
    };
    match request.filter {
        None => rows.for_each(|row| offer(row as Ordinal)),
        Some(filter) => filter.ordinals().filter(|&row| rows.contains(&(row as usize))).for_each(&mut offer),
    }
    flush(&mut batch);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mvvd_core::kernels;
    use mvvd_core::metric::Metric;

    use super::*;
    use crate::request::{Effort, Query, Term};

    #[test]
    fn finds_what_sorting_everything_finds() {
        let rows = 1000;
        let [a, b]: [Vec<f32>; 2] = [3, 2].map(|dims| (0..rows * dims).map(|i| ((i * 37) % 101) as f32).collect());
        let columns = [Vectors::of_f32(&a, 3), Vectors::of_f32(&b, 2)];
        let (p, q) = ([3.0, 50.0, 9.0], [7.0, 1.0]);
        let terms =
            [(0, Metric::L2, Query::Dense(Arc::new(p)), 0.5), (1, Metric::Dot, Query::Dense(Arc::new(q)), -2.0)]
                .map(|(column, metric, query, weight)| Term { column, metric, query, weight });
        let filter = Filter::of_ordinals(rows, (0..rows as u32).filter(|i| i % 3 == 1));
        for filter in [None, Some(&filter)] {
            let request = Request { terms: &terms, k: 20, filter, effort: Effort::default() };
            let mut expected: Vec<Hit> = (0..rows as u32)
                .filter(|&ordinal| filter.is_none_or(|filter| filter.has(ordinal)))
                .map(|ordinal| {
                    let i = ordinal as usize;
                    let first = kernels::distance_f32(Metric::L2, &p, &a[i * 3..][..3]);
                    let second = kernels::distance_f32(Metric::Dot, &q, &b[i * 2..][..2]);
                    Hit { distance: 0.5 * first - 2.0 * second, ordinal }
                })
                .collect();
            expected.sort();
            let mut cursor = cursor(&columns, rows, &request);
            let mut all = Vec::new();
            while let more @ [_, ..] = &cursor.next(7).unwrap()[..] {
                all.extend_from_slice(more);
            }
            let bits = |hits: &[Hit]| hits.iter().map(|h| (h.distance.to_bits(), h.ordinal)).collect::<Vec<_>>();
            assert_eq!(bits(&all), bits(&expected));
            assert_eq!(bits(&search(&columns, rows, &request)), bits(&expected[..20]));
        }
    }
}
