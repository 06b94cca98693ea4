//! Runs queries against an engine: queries a second, latencies, and how many of the true neighbours were found.

use std::time::{Duration, Instant};

use mvvd_bench::truth::Result;
use mvvd_core::kernels;
use mvvd_core::metric::Metric;
use mvvd_index::Effort;

use super::engine::Engine;
use super::load::Matrix;

/// Timed passes, of which the fastest counts.
const PASSES: usize = 3;
/// A pass goes over the queries again until it has lasted this long.
const PASS: Duration = Duration::from_millis(400);
/// How much farther than the k-th true neighbour a row may be and count as found: ties, and sums in another order.
const TIE: f64 = 1e-6;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Questions<'a> {
    pub(crate) base: &'a Matrix,
    pub(crate) queries: &'a Matrix,
    /// The nearest rows of each query, nearest first, at least `k` where there are so many.
    pub(crate) truth: &'a [Vec<u32>],
    pub(crate) metric: Metric,
    pub(crate) k: usize,
}

/// What one setting gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) recall: f64,
    pub(crate) queries_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Fewest rows that any query found.
    pub(crate) fewest: usize,
}

/// A pass to warm up, whose answers are compared with the truth, then the fastest of some timed passes.
pub(crate) fn run(engine: &dyn Engine, questions: Questions<'_>, threads: usize, effort: Effort) -> Result<Measured> {
    let Questions { queries, k, .. } = questions;
    let answers = (0..queries.len()).map(|i| engine.search(queries.row(i), k, effort)).collect::<Result<Vec<_>>>()?;
    let mut best: Option<(f64, Vec<Duration>)> = None;
    for _ in 0..PASSES {
        let (rate, times) = pass(engine, queries, k, threads, effort)?;
        if best.as_ref().is_none_or(|(fastest, _)| rate > *fastest) {
            best = Some((rate, times));
        }
    }
    let (queries_per_second, mut times) = best.ok_or("no pass was run")?;
    times.sort_unstable();
    Ok(Measured {
        recall: questions.recall(&answers)?,
        queries_per_second,
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        fewest: answers.iter().map(Vec::len).min().unwrap_or(0),
    })
}

/// Queries a second and the time of each. Each thread asks all queries, from a place of its own on.
fn pass(
    engine: &dyn Engine,
    queries: &Matrix,
    k: usize,
    threads: usize,
    effort: Effort,
) -> Result<(f64, Vec<Duration>)> {
    let start = Instant::now();
    let ask = |first: usize| -> std::result::Result<Vec<Duration>, String> {
        let mut times = Vec::with_capacity(queries.len());
        while start.elapsed() < PASS {
            for i in 0..queries.len() {
                let before = Instant::now();
                let found = engine.search(queries.row((first + i) % queries.len()), k, effort);
                times.push(before.elapsed());
                std::hint::black_box(found.map_err(|e| e.to_string())?);
            }
        }
        Ok(times)
    };
    let times = match threads {
        1 => ask(0)?,
        _ => std::thread::scope(|scope| {
            let ask = &ask;
            let started: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || ask(thread * queries.len() / threads))).collect();
            let mut all = Vec::new();
            for thread in started {
                all.extend(thread.join().map_err(|_| "a searching thread panicked".to_owned())??);
            }
            Ok::<_, String>(all)
        })?,
    };
    Ok((times.len() as f64 / start.elapsed().as_secs_f64(), times))
}

impl Questions<'_> {
    /// The share of the true neighbours that was found. A row counts if it is as near as the k-th true one.
    fn recall(&self, answers: &[Vec<u32>]) -> Result<f64> {
        let (mut found, mut expected) = (0, 0);
        for (query, (answer, truth)) in answers.iter().zip(self.truth).enumerate() {
            let truth = &truth[..truth.len().min(self.k)];
            let distance =
                |row: u32| kernels::distance_f32(self.metric, self.queries.row(query), self.base.row(row as usize));
            let Some(bound) = truth.last().map(|&row| distance(row)) else { continue };
            let bound = bound + TIE * bound.abs();
            let mut rows = answer.clone();
            rows.sort_unstable();
            rows.dedup();
            if rows.len() < answer.len() || answer.len() > self.k {
                return Err(
                    format!("query {query} found {} rows, {} of them different", answer.len(), rows.len()).into()
                );
            }
            found += rows.into_iter().filter(|&row| distance(row) <= bound).count().min(truth.len());
            expected += truth.len();
        }
        Ok(found as f64 / expected.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows 0, 1, 2, … on a line; the answer to `x` is what the test says.
    fn recall(answer: &[u32], truth: &[u32], k: usize) -> Result<f64> {
        let base = Matrix::new(vec![0.0, 1.0, 1.0, 3.0, 4.0], 1);
        let queries = Matrix::new(vec![0.0], 1);
        let truth = [truth.to_vec()];
        Questions { base: &base, queries: &queries, truth: &truth, metric: Metric::L2, k }.recall(&[answer.to_vec()])
    }

    #[test]
    fn rows_as_near_as_the_last_true_one_are_found() {
        assert_eq!(recall(&[0, 1], &[0, 1, 2], 2).unwrap(), 1.0);
        assert_eq!(recall(&[0, 2], &[0, 1, 2], 2).unwrap(), 1.0);
        assert_eq!(recall(&[0, 3], &[0, 1, 2], 2).unwrap(), 0.5);
        assert_eq!(recall(&[], &[0, 1, 2], 2).unwrap(), 0.0);
        assert_eq!(recall(&[0], &[0], 2).unwrap(), 1.0);
        assert!(recall(&[0, 0], &[0, 1], 2).is_err());
        assert!(recall(&[0, 1, 2], &[0, 1], 2).is_err());
    }
}
