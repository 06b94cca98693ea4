//! How many lists does a search look at? As many as gave the recall that is asked for when the index was built.
//!
//! Weights come with the query, and what is near by one column may be far by all, by which the lists were made. So recall
//! is measured at both ends: for queries that ask all columns alike, and for queries that ask one. More rows lie in more
//! lists, so it is measured for few rows and for many. With a filter, the nearest of one in ten rows lie where the ten times
//! as many nearest of all do.

use mvvd_core::Result;
use mvvd_core::metric::Metric;

use super::Ivf;
use super::search::Search;
use crate::calibrate::{Curve, Sample};
use crate::codec::Codec;
use crate::exact;
use crate::kind::Build;
use crate::parts::{PartsReader, PartsWriter};
use crate::request::{Effort, Request};
use crate::vectors::Vectors;

/// The recall is that of so many nearest rows, ten times as many each.
const K: [usize; 3] = [10, 100, 1000];
/// The recall that is aimed for where nothing is said.
const RECALL: f32 = 0.98;
/// Lists at least, where nothing is said.
const NPROBE_MIN: usize = 8;
/// The most lists whose recall is measured: a share of all, yet so many.
const MEASURED_SHARE: usize = 4;
const MEASURED_MIN: usize = 64;

/// What recall so many lists gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Recall {
    /// For queries that ask all columns alike; by [`K`].
    alike: [Curve; 3],
    /// For queries that ask one of several columns; by [`K`].
    alone: [Curve; 3],
}

impl Recall {
    /// Of an index that is built but for this. Runs on the pool it is called from.
    pub(super) fn measure<C: Codec>(index: &Ivf<C>, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Self> {
        let all: Vec<usize> = (0..columns.len()).collect();
        let alike = curves(index, columns, &[&all], build)?;
        let alone = match &all[..] {
            [_] => Default::default(),
            all => curves(index, columns, &all.chunks(1).collect::<Vec<_>>(), build)?,
        };
        Ok(Self { alike, alone })
    }

    /// The number of lists for `k` rows by terms of these columns and weights, of an index with so many columns, where one
    /// of `one_in` rows may be found. None where nothing was measured that tells it.
    pub(super) fn lists(
        &self,
        effort: Effort,
        k: usize,
        one_in: f32,
        terms: impl Iterator<Item = (usize, f32)>,
        columns: usize,
    ) -> Option<usize> {
        let target = effort.recall_target.unwrap_or(RECALL);
        let by_k = |curves: &[Curve; 3]| {
            let [few, more, many] = curves.each_ref().map(|curve| curve.effort(target).map(|lists| lists as f32));
            // Straight lines in logarithms, the last of them beyond what was measured as well.
            let at = (k as f32 * one_in / K[0] as f32).max(1.0).log10();
            let (from, to, at) = if at < 1.0 { (few?, more?, at) } else { (more?, many?, at - 1.0) };
            Some(from * (to / from).max(1.0).powf(at))
        };
        let unlike = unlikeness(terms, columns)?;
        let alike = by_k(&self.alike)?;
        let lists = by_k(&self.alone).map_or(alike, |alone| alike.powf(1.0 - unlike) * alone.powf(unlike));
        let least = if effort.recall_target.is_none() { NPROBE_MIN } else { 1 };
        Some((lists.ceil() as usize).max(least))
    }

    pub(super) fn write(&self, parts: &mut PartsWriter) {
        self.alike.iter().chain(&self.alone).for_each(|curve| curve.write(parts));
    }

    pub(super) fn read(parts: &mut PartsReader) -> Result<Self> {
        let mut next = || Curve::read(parts);
        Ok(Self { alike: [next()?, next()?, next()?], alone: [next()?, next()?, next()?] })
    }
}

/// Where nothing was measured.
pub(super) fn guessed(lists: usize, columns: usize) -> usize {
    match columns {
        1 => (lists / 32).clamp(8, 128),
        _ => (lists / 6).clamp(48, 512),
    }
}

/// From 0, where terms weigh all columns alike, to 1, where one column decides. None where rows are wanted that are far by
/// some column.
fn unlikeness(terms: impl Iterator<Item = (usize, f32)>, columns: usize) -> Option<f32> {
    let mut weights = vec![0.0_f32; columns];
    terms.for_each(|(column, weight)| weights[column] += weight);
    let sum: f32 = weights.iter().sum();
    if weights.iter().any(|&weight| weight < 0.0) || sum <= 0.0 {
        return None;
    }
    // The shares' sum of squares is 1 over the number of columns for equal ones.
    let squares: f32 = weights.iter().map(|weight| (weight / sum) * (weight / sum)).sum();
    let least = 1.0 / columns as f32;
    Some(((squares - least) / (1.0 - least).max(f32::MIN_POSITIVE)).clamp(0.0, 1.0))
}

fn curves<C: Codec>(
    index: &Ivf<C>,
    columns: &[Vectors<'_>],
    asked: &[&[usize]],
    build: &Build<'_>,
) -> Result<[Curve; 3]> {
    let metric = match index.spec.metric {
        // Sums of rooted distances are not served.
        Metric::L2 if columns.len() > 1 => Metric::L2Squared,
        metric => metric,
    };
    let sample = Sample::of(metric, columns, asked, K[1], build)?;
    let of_many = Sample::of(metric, columns, asked, K[2], build)?;
    let most = (index.lists() / MEASURED_SHARE).max(MEASURED_MIN).min(index.lists());
    let measure = |k, sample: &Sample| {
        // 1, 2, 3, 4, 6, 8, 12, and so on, then the most.
        let ladder = (0..).map(|i| if i % 2 == 0 { 2 << (i / 2) } else { 3 << (i / 2) });
        let ladder = std::iter::once(1).chain(ladder).take_while(|&nprobe| nprobe < most).chain([most]);
        Curve::measure(ladder, sample, k, |nprobe, query| {
            build.check()?;
            let request = Request { terms: &query.terms, k, filter: None, effort: Effort::default() };
            match Search::new(index, columns, &request) {
                Some(search) => Ok(search.nearest(nprobe, nprobe)),
                None => Ok(exact::search(columns, index.rows, &request)),
            }
        })
    };
    Ok([measure(K[0], &sample)?, measure(K[1], &sample)?, measure(K[2], &of_many)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_alike_or_not() {
        let of = |weights: &[f32]| unlikeness(weights.iter().copied().enumerate(), weights.len());
        let near = |found: Option<f32>, expected: f32| found.is_some_and(|found| (found - expected).abs() < 1e-4);
        assert!(near(of(&[1.0, 1.0]), 0.0) && near(of(&[2.0; 3]), 0.0) && near(of(&[5.0]), 0.0));
        assert!(near(of(&[3.0, 0.0]), 1.0) && near(unlikeness([(0, 0.5), (0, 0.5)].into_iter(), 2), 1.0));
        assert!(of(&[0.6, 0.4]) < of(&[0.8, 0.2]));
        assert_eq!([of(&[0.0, 0.0]), of(&[1.0, -0.5])], [None; 2]);
    }
}
