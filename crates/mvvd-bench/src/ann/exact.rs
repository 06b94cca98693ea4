//! Exact nearest rows by brute force: the truth that recall is measured against.

use mvvd_core::kernels;
use mvvd_core::metric::Metric;
use mvvd_index::{Filter, Hit};
use rayon::prelude::*;

use super::load::Matrix;

/// Rows that are compared with a few queries while they are in the cache.
const BLOCK_ROWS: usize = 512;
/// Queries that share a pass over the rows.
const QUERIES: usize = 16;

/// The `k` nearest rows of each query, nearest first, ties by row; fewer where fewer can be found. Runs on the current
/// pool of rayon.
pub(crate) fn nearest(
    base: &Matrix,
    queries: &Matrix,
    metric: Metric,
    k: usize,
    filter: Option<&Filter>,
) -> Vec<Vec<u32>> {
    let dims = base.dims();
    (0..queries.len())
        .collect::<Vec<_>>()
        .par_chunks(QUERIES)
        .flat_map_iter(|numbers| {
            let mut best: Vec<Vec<Hit>> = vec![Vec::with_capacity(2 * k + BLOCK_ROWS); numbers.len()];
            let mut bound = vec![f64::INFINITY; numbers.len()];
            let mut distances = [0.0; BLOCK_ROWS];
            for (block, rows) in base.values().chunks(BLOCK_ROWS * dims).enumerate() {
                let out = &mut distances[..rows.len() / dims];
                for ((&query, best), bound) in numbers.iter().zip(&mut best).zip(&mut bound) {
                    kernels::distances_f32(metric, queries.row(query), rows, out);
                    for (row, &distance) in out.iter().enumerate() {
                        let ordinal = (block * BLOCK_ROWS + row) as u32;
                        // False for NaN, which no search finds.
                        if distance <= *bound && filter.is_none_or(|filter| filter.has(ordinal)) {
                            best.push(Hit { distance, ordinal });
                        }
                    }
                    if best.len() >= 2 * k {
                        best.select_nth_unstable(k - 1);
                        best.truncate(k);
                        *bound = best.iter().map(|hit| hit.distance).fold(f64::NEG_INFINITY, f64::max);
                    }
                }
            }
            best.into_iter().map(|mut best| {
                best.sort_unstable();
                best.truncate(k);
                best.into_iter().map(|hit| hit.ordinal).collect()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ann::generate::Mixture;

    #[test]
    fn the_nearest_are_those_of_a_sort() {
        let mixture = Mixture { dims: 8, clusters: 5, rank: 2, seed: 3 };
        let (mut rows, queries) = mixture.generate(3_000, 20);
        // Ties, and a row without a direction.
        rows.copy_within(0..80, 800);
        rows[16..24].fill(0.0);
        let (base, queries) = (Matrix::new(rows, 8), Matrix::new(queries, 8));
        let filter = Filter::of_ordinals(3_000, (0..3_000).filter(|i| i % 3 != 0));
        for metric in [Metric::L2, Metric::Cosine, Metric::Dot] {
            for filter in [None, Some(&filter)] {
                let found = nearest(&base, &queries, metric, 25, filter);
                for (query, found) in found.iter().enumerate() {
                    let mut all: Vec<Hit> = (0..3_000)
                        .filter(|&row| filter.is_none_or(|filter| filter.has(row)))
                        .map(|row| Hit {
                            distance: kernels::distance_f32(metric, queries.row(query), base.row(row as usize)),
                            ordinal: row,
                        })
                        .filter(|hit| !hit.distance.is_nan())
                        .collect();
                    all.sort();
                    let expected: Vec<u32> = all.iter().take(25).map(|hit| hit.ordinal).collect();
                    assert_eq!(found, &expected, "{metric} query {query}");
                }
            }
        }
        let few = Filter::of_ordinals(3_000, [5, 9]);
        assert_eq!(nearest(&base, &queries, Metric::L2, 25, Some(&few))[0].len(), 2);
    }
}
