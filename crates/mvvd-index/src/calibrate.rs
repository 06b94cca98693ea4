//! How much effort gives which recall? Measured when an index is built, on rows of its own that are moved a little.
//!
//! A kind of index asks [`Sample::of`] for queries with their true answers, tells [`Curve::measure`] how to search with a
//! given effort (candidates of a graph, lists that are looked at), stores the curve, and later asks it which effort
//! reaches a recall.

use std::sync::Arc;

use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use crate::exact;
use crate::kind::Build;
use crate::parts::{PartsReader, PartsWriter, corrupt};
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::rotate::Random;
use crate::vectors::{Values, Vectors};

/// The recall is that of so many nearest rows, unless a kind says otherwise.
pub(crate) const K: usize = 10;
/// Values that the exact scan reads, at most, all queries together: a second or two.
const VALUES_MAX: usize = 1 << 33;
const QUERIES_MAX: usize = 128;
const QUERIES_MIN: usize = 16;
/// Answers that are compared, about, all queries together: many answers take long.
const ANSWERS_MAX: usize = 1 << 15;
/// Points that a stored curve may have.
const POINTS_MAX: usize = 64;
/// Beyond this recall more effort is not measured.
const ENOUGH: f32 = 0.9995;
/// From this recall on, steps that find no more end the measuring.
const MOST: f32 = 0.9;
/// How far a query is moved from its row, as a share of the distance from the row to another one at random.
const MOVED: f32 = 0.4;

/// Queries and what is true about them.
pub(crate) struct Sample {
    queries: Vec<Sampled>,
}

/// A query, and the distances of its nearest rows.
pub(crate) struct Sampled {
    /// One term of weight 1 over each column that is asked.
    pub(crate) terms: Vec<Term>,
    /// Ascending, at least one.
    distances: Vec<f64>,
}

impl Sample {
    /// Queries near rows of columns that are not sparse, and their `k` true nearest. Each asks the columns that the next
    /// of `asked` names, in turn. Runs on the pool it is called from.
    pub(crate) fn of(
        metric: Metric,
        columns: &[Vectors<'_>],
        asked: &[&[usize]],
        k: usize,
        build: &Build<'_>,
    ) -> Result<Self> {
        let rows = columns.first().map_or(0, Vectors::len);
        let dims: usize = columns.iter().map(Vectors::dims).sum();
        let most = (ANSWERS_MAX / k).clamp(QUERIES_MIN, QUERIES_MAX);
        let count = VALUES_MAX.checked_div(rows * dims).map_or(0, |count| count.clamp(QUERIES_MIN, most));
        let has_all = |asked: &[usize], row: Ordinal| asked.iter().all(|&column| columns[column].is_valid(row));
        let usable: Vec<Vec<Ordinal>> =
            asked.iter().map(|asked| (0..rows as Ordinal).filter(|&row| has_all(asked, row)).collect()).collect();
        let mut random = Random::new(build.seed ^ 0x5eed);
        let mut queries: Vec<Vec<Term>> = Vec::with_capacity(count);
        for (asked, usable) in asked.iter().zip(&usable).cycle().take(count).filter(|(_, usable)| !usable.is_empty()) {
            let mut pick = || usable[random.below(usable.len())];
            let (row, other) = (pick(), pick());
            let term = |&column: &usize| {
                let query = moved(&columns[column], row, other);
                Term { column, metric, query, weight: 1.0 }
            };
            queries.push(asked.iter().map(term).collect());
        }
        let request = |terms| Request { terms, k, filter: None, effort: Effort::default() };
        let requests: Vec<Request<'_>> = queries.iter().map(|terms| request(terms)).collect();
        let answers = exact::search_each(columns, rows, &requests, build)?;
        drop(requests);
        let sampled = |(terms, hits): (Vec<Term>, Vec<Hit>)| {
            let distances = hits.iter().map(|hit| hit.distance).collect();
            (!hits.is_empty()).then_some(Sampled { terms, distances })
        };
        let queries = queries.into_iter().zip(answers).filter_map(sampled);
        Ok(Self { queries: queries.collect() })
    }
}

impl Sampled {
    /// The share of the `k` true nearest rows that are among `hits`; rows of equal distance count alike.
    fn recall(&self, hits: &[Hit], k: usize) -> f32 {
        let nearest = &self.distances[..k.min(self.distances.len())];
        let found = hits.iter().filter(|hit| nearest.last().is_some_and(|bound| hit.distance <= *bound)).count();
        found.min(nearest.len()) as f32 / nearest.len() as f32
    }
}

/// A point between two rows, near the first.
fn moved(column: &Vectors<'_>, row: Ordinal, other: Ordinal) -> Query {
    match column.values() {
        Values::Bits(bits) => {
            let bytes = bits.len() / column.len();
            let of = |ordinal: Ordinal| &bits[ordinal as usize * bytes..][..bytes];
            // Every tenth byte from the other row.
            let mixed = of(row).iter().zip(of(other)).enumerate();
            Query::Bits(mixed.map(|(i, (&a, &b))| if i % 10 == 9 { b } else { a }).collect())
        }
        _ => {
            let mut values = vec![0.0; 2 * column.dims()];
            let (a, b) = values.split_at_mut(column.dims());
            column.copy_f32(row, a);
            column.copy_f32(other, b);
            let mixed: Vec<f32> = a.iter().zip(&*b).map(|(a, b)| a + MOVED * (b - a)).collect();
            Query::Dense(Arc::from(mixed))
        }
    }
}

/// Efforts, ascending, and the recall that each gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Curve {
    points: Vec<(u32, f32)>,
}

impl Curve {
    /// Searches `sample` for the `k` nearest with each of `efforts`, ascending, until nearly everything is found or more
    /// effort finds no more. `k` is at most that of the sample. Runs on the pool it is called from.
    pub(crate) fn measure(
        efforts: impl IntoIterator<Item = usize>,
        sample: &Sample,
        k: usize,
        search: impl Fn(usize, &Sampled) -> Result<Vec<Hit>> + Sync,
    ) -> Result<Self> {
        let mut points: Vec<(u32, f32)> = Vec::new();
        for effort in efforts.into_iter().take(POINTS_MAX) {
            let enough = points.last().is_some_and(|&(_, recall)| recall >= ENOUGH);
            // Two steps in vain: codes or links let no more be found.
            let in_vain = matches!(points[..], [.., (_, before), _, (_, recall)] if before == recall && recall >= MOST);
            if sample.queries.is_empty() || enough || in_vain {
                break;
            }
            let recalls: Result<Vec<f32>> =
                sample.queries.par_iter().map(|query| Ok(query.recall(&search(effort, query)?, k))).collect();
            let recall = recalls?.iter().sum::<f32>() / sample.queries.len() as f32;
            // Chance must not make more effort look worse.
            let recall = points.last().map_or(recall, |&(_, before)| before.max(recall));
            points.push((effort as u32, recall));
        }
        Ok(Self { points })
    }

    /// The least effort that reaches `target`, between two measured ones where they suggest it; where none does, the
    /// least that reaches as much as any. None if nothing was measured.
    pub(crate) fn effort(&self, target: f32) -> Option<usize> {
        let &(_, most) = self.points.last()?;
        let target = target.min(most);
        let at = self.points.partition_point(|&(_, recall)| recall < target);
        let (effort, recall) = self.points[at];
        let Some(&(before, low)) = at.checked_sub(1).and_then(|before| self.points.get(before)) else {
            return Some(effort as usize);
        };
        // What is missed shrinks about exponentially with the logarithm of the effort.
        let missed = |recall: f32| (1.0 - recall).max(1.0 - ENOUGH).ln();
        let share = (missed(low) - missed(target)) / (missed(low) - missed(recall)).max(f32::MIN_POSITIVE);
        let ratio = effort as f32 / before as f32;
        Some((before as f32 * ratio.powf(share.clamp(0.0, 1.0))).ceil() as usize)
    }

    pub(crate) fn write(&self, parts: &mut PartsWriter) {
        parts.number(self.points.len() as u32);
        for &(effort, recall) in &self.points {
            parts.number(effort);
            parts.number(recall);
        }
    }

    pub(crate) fn read(parts: &mut PartsReader) -> Result<Self> {
        let count = parts.number::<u32>()? as usize;
        if count > POINTS_MAX {
            return Err(corrupt("its curve of recall is too long"));
        }
        let points: Vec<(u32, f32)> =
            (0..count).map(|_| Ok((parts.number()?, parts.number()?))).collect::<Result<_>>()?;
        let ascending = points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        match ascending && points.iter().all(|&(effort, recall)| effort > 0 && (0.0..=1.0).contains(&recall)) {
            true => Ok(Self { points }),
            false => Err(corrupt("its curve of recall does not rise")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effort_for_a_recall_lies_between_measured_ones() {
        let curve = Curve { points: vec![(10, 0.8), (20, 0.9), (40, 0.99)] };
        assert_eq!([0.5, 0.8, 0.9, 0.99, 0.999].map(|target| curve.effort(target)), [10, 10, 20, 40, 40].map(Some));
        let between = curve.effort(0.95).unwrap();
        assert!((21..40).contains(&between), "{between}");
        assert_eq!(Curve::default().effort(0.9), None);
        let flat = Curve { points: vec![(1, 0.5), (2, 0.9), (9, 0.9)] };
        assert_eq!(flat.effort(0.99), Some(2), "more effort finds no more");
    }

    #[test]
    fn a_curve_is_read_as_written_or_refused() {
        let read = |points: Vec<(u32, f32)>| {
            let mut parts = PartsWriter::default();
            Curve { points }.write(&mut parts);
            Curve::read(&mut PartsReader::new(arrow::buffer::Buffer::from_slice_ref(parts.finish())).unwrap())
        };
        assert_eq!(read(vec![(5, 0.5), (6, 0.5)]).unwrap().points, [(5, 0.5), (6, 0.5)]);
        for wrong in [vec![(5, 0.5), (5, 0.6)], vec![(5, 0.5), (6, 0.4)], vec![(1, f32::NAN)], vec![(1, 1.5)]] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn a_search_that_is_exact_has_recall_one_and_a_poor_one_less() {
        let rows: Vec<f32> = (0..2000).map(|i| ((i * 7919) % 1009) as f32).collect();
        let column = Vectors::of_f32(&rows, 4);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let cancelled = std::sync::atomic::AtomicBool::new(false);
        let build = Build { pool: &pool, seed: 1, progress: &|_| (), cancelled: &cancelled };
        let sample = Sample::of(Metric::L2, &[column], &[&[0]], K, &build).unwrap();
        let curve = Curve::measure([1, 5, 10, 99], &sample, K, |effort, query| {
            let request = Request { terms: &query.terms, k: effort.min(K), filter: None, effort: Effort::default() };
            Ok(exact::search(&[column], column.len(), &request))
        });
        let points = curve.unwrap().points;
        assert_eq!(points.len(), 3, "stops once everything is found");
        assert!((points[0].1 - 0.1).abs() < 0.05 && points[2].1 == 1.0, "{points:?}");
    }
}
