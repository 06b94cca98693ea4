//! Which lists does a search look at, and in what order?

use mvvd_core::kernels::{self, BLOCK_ROWS, Bounds};
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result};

use super::Ivf;
use crate::codec::{BitQuery, Codec, Form};
use crate::request::{Query, Term};
use crate::space::Point;

/// Standard deviations to which the bounds of centroids reach: a list all but as near serves as well, and of a million rows
/// in 4,000 lists 1.9 of them found no more and measured ten times as many centroids.
const DEVIATIONS: f32 = 0.8;

/// A term of a request, made ready.
#[derive(Debug)]
pub(super) struct Prepared<C: Codec> {
    pub(super) column: usize,
    /// What estimates are multiplied with.
    pub(super) weight: f32,
    form: Form,
    point: Point,
    /// The length of the rotated query.
    length: f32,
    pub(super) bits: BitQuery,
    pub(super) query: C::Query,
}

/// A list and the score of its centroid: the weighted sum of the distances to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) score: f32,
    pub(super) list: u32,
}

/// `Unsupported` for terms that an index of this metric does not serve.
pub(super) fn check_terms(metric: Metric, terms: &[Term]) -> Result<()> {
    let euclidean = |metric| matches!(metric, Metric::L2 | Metric::L2Squared);
    for term in terms {
        if term.metric != metric && !(euclidean(term.metric) && euclidean(metric)) {
            let message = format!("an index of metric {metric} does not serve the metric {}", term.metric);
            return Err(Error::unsupported(message));
        }
        if term.metric == Metric::L2 && terms.len() > 1 {
            let message = "an index of lists does not serve sums of l2 distances";
            return Err(Error::unsupported(message).with_hint("sums of l2_squared distances are served"));
        }
    }
    Ok(())
}

impl<C: Codec> Prepared<C> {
    /// None where every distance is NaN, and where the query is too long for numbers.
    pub(super) fn new(index: &Ivf<C>, term: &Term) -> Option<Self> {
        let Query::Dense(query) = &term.query else {
            panic!("a dense vector is not searched with {:?}", term.query);
        };
        let space = &index.spaces[term.column];
        let point = space.query(query)?;
        let length = kernels::norm_f32(&point.rotated) as f32;
        if !(length * length).is_finite() {
            return None;
        }
        // A single rooted term is estimated squared, so only the sign of its weight counts.
        let weight = if term.metric == Metric::L2 { term.weight.signum() } else { term.weight * space.factor() };
        Some(Self {
            column: term.column,
            weight,
            form: space.form(),
            length,
            bits: BitQuery::new(&point.rotated),
            query: index.codecs[term.column].query(&point),
            point,
        })
    }

    /// The distance to a centroid, of weight 1 and without what comes from the mean.
    pub(super) fn distance(&self, centroid: &[f32]) -> f32 {
        kernels::distance_f32(self.metric(), &self.point.rotated, centroid) as f32
    }

    fn metric(&self) -> Metric {
        match self.form {
            Form::Squared => Metric::L2Squared,
            Form::Dot => Metric::Dot,
        }
    }

    /// The length that errors grow with, at this distance from a centroid.
    pub(super) fn length(&self, distance: f32) -> f32 {
        match self.form {
            Form::Squared => distance.max(0.0).sqrt(),
            Form::Dot => self.length,
        }
    }

    /// What comes from the mean, weighted.
    pub(super) fn offset(&self) -> f32 {
        self.weight * self.point.offset
    }
}

/// The `count` nearest lists, or ones nearly as near, nearest first; all of them in order if `count` is not less.
pub(super) fn nearest_lists<C: Codec>(index: &Ivf<C>, terms: &[Prepared<C>], count: usize) -> Vec<Probe> {
    let centroids = &index.centroids;
    let lists: Vec<u32> = match count * 2 >= centroids.count || centroids.count <= 2 * BLOCK_ROWS {
        true => (0..centroids.count as u32).collect(),
        false => candidates(index, terms, count),
    };
    let mut probes: Vec<Probe> = match terms {
        [term] if centroids.shape.columns().len() == 1 => {
            let mut distances = vec![0.0; lists.len()];
            let query = &term.point.rotated;
            kernels::distances_f32_at(term.metric(), query, &centroids.values, &lists, &mut distances);
            let probe = |(&list, &distance): (&u32, &f64)| Probe { score: term.weight * distance as f32, list };
            lists.iter().zip(&distances).map(probe).collect()
        }
        _ => lists.into_iter().map(|list| Probe { score: score(index, terms, list), list }).collect(),
    };
    if count < probes.len() {
        probes.select_nth_unstable_by(count, |a, b| a.score.total_cmp(&b.score));
        probes.truncate(count);
    }
    probes.sort_unstable_by(|a, b| a.score.total_cmp(&b.score).then(a.list.cmp(&b.list)));
    probes
}

fn score<C: Codec>(index: &Ivf<C>, terms: &[Prepared<C>], list: u32) -> f32 {
    let one = |term: &Prepared<C>| term.weight * term.distance(index.centroids.get(list as usize, term.column));
    terms.iter().map(one).sum()
}

/// Lists among which the `count` nearest are, mostly, by the bounds of their centroids.
fn candidates<C: Codec>(index: &Ivf<C>, terms: &[Prepared<C>], count: usize) -> Vec<u32> {
    let centroids = &index.centroids;
    let scales: Vec<_> = terms.iter().map(|term| term.bits.scale(term.weight, DEVIATIONS, term.length)).collect();
    // The centre of the centroids' codes is zero.
    let at_zero = |term: &Prepared<C>| if term.form == Form::Squared { term.length * term.length } else { 0.0 };
    let base = terms.iter().map(|term| term.weight * at_zero(term)).sum();
    let mut limit = Limit::new(count);
    let mut found = Vec::with_capacity(4 * count);
    let mut sums = [0; BLOCK_ROWS];
    for block in 0..centroids.blocks() {
        let mut bounds = Bounds::of(base);
        for (term, scale) in terms.iter().zip(&scales) {
            let (codes, factors) = centroids.block(block, term.column);
            kernels::fastscan(codes, &term.bits.tables, &mut sums);
            kernels::add_bounds(&sums, factors, scale, &mut bounds);
        }
        let mut mask = kernels::below(&bounds.low, limit.get());
        while mask != 0 {
            let row = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            limit.push(bounds.high[row]);
            found.push((bounds.low[row], (block * BLOCK_ROWS + row) as u32));
        }
    }
    let limit = limit.exact();
    found.into_iter().filter(|(low, _)| *low <= limit).map(|(_, list)| list).collect()
}

/// The `k`-th smallest of many numbers, or a little above it.
///
/// Numbers below it are gathered until there are twice as many and a few more, then the largest go: cheaper than a heap.
#[derive(Debug)]
pub(super) struct Limit {
    k: usize,
    numbers: Vec<f32>,
    limit: f32,
}

impl Limit {
    pub(super) fn new(k: usize) -> Self {
        Self { k, numbers: Vec::new(), limit: f32::INFINITY }
    }

    /// Infinite until there are `k`.
    #[inline]
    pub(super) fn get(&self) -> f32 {
        self.limit
    }

    #[inline]
    pub(super) fn push(&mut self, number: f32) {
        if number < self.limit {
            self.numbers.push(number);
            if self.numbers.len() >= 2 * self.k + 16 || self.numbers.len() == self.k {
                self.exact();
            }
        }
    }

    /// Makes it the `k`-th smallest.
    pub(super) fn exact(&mut self) -> f32 {
        if self.numbers.len() >= self.k {
            let (_, &mut limit, _) = self.numbers.select_nth_unstable_by(self.k - 1, f32::total_cmp);
            self.numbers.truncate(self.k);
            self.limit = limit;
        }
        self.limit
    }
}
