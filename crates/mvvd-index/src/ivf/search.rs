//! The nearest rows: bounds of the rows of the nearest lists, then exact distances of those that could be among them.

use mvvd_core::kernels::{self, BLOCK_ROWS, Bounds};
use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, Result};

use super::probe::{Limit, Prepared, Probe, check_terms, nearest_lists};
use super::{Ivf, NO_ROW, recall};
use crate::codec::{Codec, Reach};
use crate::exact;
use crate::filter::Filter;
use crate::refine::{self, Bound};
use crate::request::{Effort, Hit, Request, Term};
use crate::vectors::Vectors;

/// Standard deviations to which the bounds of rows reach.
const DEVIATIONS: f32 = 1.9;
/// Bytes of each part of a list that are asked for in advance.
const PREFETCHED: usize = 1024;
/// Part of the usual number of rows that may be found that makes lists enough.
const USUAL_MIN: f64 = 0.7;
/// Where fewer than one of so many rows may be found, blocks without any are passed over before their bounds are known.
const SPARSE: usize = 16;

/// A request made ready for the lists.
pub(super) struct Search<'a, C: Codec> {
    pub(super) index: &'a Ivf<C>,
    pub(super) columns: &'a [Vectors<'a>],
    pub(super) request: &'a Request<'a>,
    pub(super) terms: Vec<Prepared<C>>,
    /// Columns whose terms weigh nothing, yet must have a vector.
    weightless: Vec<usize>,
    /// The weight of the only term, where its distance is rooted.
    root: Option<f32>,
    deviations: f32,
    filter_first: bool,
}

pub(super) fn search<C: Codec>(index: &Ivf<C>, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
    check_terms(index.spec.metric, request.terms)?;
    if request.k == 0 {
        return Ok(Vec::new());
    }
    let Some(search) = Search::new(index, columns, request) else {
        return Ok(exact::search(columns, index.rows, request));
    };
    let nprobe = search.nprobe();
    if search.is_scan_cheaper(nprobe) {
        return Ok(exact::search(columns, index.rows, request));
    }
    Ok(search.nearest(nprobe, index.lists()))
}

/// What the codes say of the distances of the rows at `ordinals`, which ascend; NaN where they say nothing.
pub(super) fn estimates<C: Codec>(
    index: &Ivf<C>,
    columns: &[Vectors<'_>],
    term: &Term,
    ordinals: &[Ordinal],
) -> Result<Vec<f64>> {
    let terms = std::slice::from_ref(term);
    check_terms(index.spec.metric, terms)?;
    let mut estimates = vec![f64::NAN; ordinals.len()];
    let known = ordinals.partition_point(|&ordinal| (ordinal as usize) < index.rows);
    let filter = Filter::of_ordinals(index.rows, ordinals[..known].iter().copied());
    let request = Request { terms, k: 1, filter: Some(&filter), effort: Effort::default() };
    let Some(search) = Search::new(index, columns, &request) else { return Ok(estimates) };
    let search = Search { filter_first: true, deviations: 0.0, ..search };
    for probe in nearest_lists(index, &search.terms, index.lists()) {
        search.each_block(probe, |block, mut allowed, bounds| {
            while allowed != 0 {
                let row = allowed.trailing_zeros() as usize;
                allowed &= allowed - 1;
                let ordinal = index.block_rows(block)[row];
                let middle = (bounds.low[row] + bounds.high[row]) / 2.0;
                if let (Ok(at), false) = (ordinals.binary_search(&ordinal), middle.is_nan()) {
                    estimates[at] = search.bound(middle);
                }
            }
        });
    }
    Ok(estimates)
}

impl<'a, C: Codec> Search<'a, C> {
    /// None where lists are of no help: all distances are NaN or 0, or beyond numbers.
    pub(super) fn new(index: &'a Ivf<C>, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Option<Self> {
        let terms: Vec<_> = request.terms.iter().map(|term| Prepared::new(index, term)).collect::<Option<_>>()?;
        let (terms, weightless): (Vec<_>, Vec<_>) = terms.into_iter().partition(|term| term.weight != 0.0);
        let weightless = weightless.iter().map(|term| term.column).collect();
        if terms.is_empty() {
            return None;
        }
        let root = request.terms.iter().find(|term| term.metric == Metric::L2).map(|term| term.weight);
        let filter_first = request.filter.is_some_and(|filter| filter.count() < index.rows / SPARSE);
        Some(Self { index, columns, request, terms, weightless, root, deviations: DEVIATIONS, filter_first })
    }

    /// The nearest rows of the `nprobe` nearest lists, and of more, yet at most `most`, where these have too few, or fewer of
    /// those that may be found than as many lists elsewhere: then the filter has little of what is near.
    pub(super) fn nearest(&self, mut nprobe: usize, most: usize) -> Vec<Hit> {
        let (index, request) = (self.index, self.request);
        let mut limit = Limit::new(request.k);
        let mut candidates = Vec::new();
        // The nearest lists are found by estimates: more of them need not be the same and others.
        let mut scanned = vec![false; index.lists()];
        let usual = match request.filter {
            Some(filter) if self.filter_first => filter.count() as f64 / index.lists() as f64 * nprobe as f64,
            _ => 0.0,
        };
        let mut seen = 0.0;
        loop {
            let probes = nearest_lists(index, &self.terms, nprobe);
            for (probe, next) in probes.iter().zip(probes.iter().skip(1).map(Some).chain([None])) {
                next.inspect(|next| index.prefetch(next.list as usize));
                if !std::mem::replace(&mut scanned[probe.list as usize], true) {
                    seen += f64::from(self.scan(*probe, &mut limit, &mut candidates));
                }
            }
            if (limit.get() < f32::INFINITY && seen >= USUAL_MIN * usual) || nprobe >= most {
                break;
            }
            nprobe = (2 * nprobe).min(most);
        }
        let full = limit.exact() < f32::INFINITY;
        candidates.retain(|candidate: &Bound| candidate.bound() <= limit.get());
        if let Some(root) = self.root {
            // The root makes no difference below nothing, nor must the order of bounds.
            let clamped = |low: f32| if root < 0.0 { low.min(0.0) } else { low.max(0.0) };
            candidates.iter_mut().for_each(|one| *one = Bound::new(clamped(one.bound()), one.ordinal()));
        }
        let hit = |bound: Bound| Hit { distance: self.bound(bound.bound()), ordinal: bound.ordinal() };
        let bounds = refine::by_bound(candidates).map(hit);
        let hits = refine::nearest(self.columns, request, bounds);
        // Codes say nothing of vectors whose distances have no number.
        match full && hits.len() < request.k {
            true => exact::search(self.columns, index.rows, request),
            false => hits,
        }
    }

    /// Lists to look at.
    pub(super) fn nprobe(&self) -> usize {
        let (index, effort) = (self.index, self.request.effort);
        let nprobe = effort.nprobe.unwrap_or_else(|| {
            let columns = index.spaces.len();
            let terms = self.terms.iter().map(|term| (term.column, term.weight));
            let found = self.request.filter.map_or(index.rows, |filter| filter.count().max(1));
            let one_in = (index.rows as f32 / found as f32).max(1.0);
            let measured = index.recall.lists(effort, self.request.k, one_in, terms, columns);
            measured.unwrap_or_else(|| (recall::guessed(index.lists(), columns) as f32 * one_in.sqrt()) as usize)
        });
        nprobe.clamp(1, self.index.lists().max(1))
    }

    /// Whether measuring every row that the filter lets through takes less time than looking at `nprobe` lists.
    pub(super) fn is_scan_cheaper(&self, nprobe: usize) -> bool {
        let index = self.index;
        let width = index.centroids.shape.width() as f64;
        let (rows, lists) = (index.rows.max(1) as f64, index.lists().max(1) as f64);
        let found = self.request.filter.map_or(index.rows, |filter| filter.count().min(index.rows)) as f64;
        // The share of blocks that have a row that may be found.
        let touched = if self.filter_first { 1.0 - (1.0 - found / rows).powi(BLOCK_ROWS as i32) } else { 1.0 };
        // Nanoseconds, roughly.
        let (exact, coded) = (10.0 + 0.12 * width, 1.0 + touched * (2.0 + 0.01 * width));
        let scanned = coded * rows * nprobe as f64 / lists;
        found * exact < scanned + 3.0 * lists + 50.0 * nprobe as f64 + 10.0 * self.request.k as f64 * exact
    }

    /// Adds the rows of a list that may be among the nearest. How many it has that may be found, where the filter comes
    /// first.
    fn scan(&self, probe: Probe, limit: &mut Limit, out: &mut Vec<Bound>) -> u32 {
        let mut seen = 0;
        self.each_block(probe, |block, allowed, bounds| {
            seen += allowed.count_ones();
            let mut mask = kernels::below(&bounds.low, limit.get()) & allowed;
            while mask != 0 {
                let row = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let ordinal = self.index.block_rows(block)[row];
                if self.may_be_found(ordinal) {
                    limit.push(bounds.high[row]);
                    out.push(Bound::new(bounds.low[row], ordinal));
                }
            }
        });
        seen
    }

    /// Calls `found` with each block of a list, the rows in it that are not known to be filtered out, and their bounds,
    /// which are NaN where there is no row.
    pub(super) fn each_block(&self, probe: Probe, mut found: impl FnMut(usize, u32, &Bounds)) {
        let index = self.index;
        let list = probe.list as usize;
        let (mut base, mut reaches) = (0.0, [Reach { weight: 0.0, deviations: 0.0, length: 0.0 }; 4]);
        let mut more = Vec::new();
        let reaches = match self.terms.len() {
            count @ ..=4 => &mut reaches[..count],
            count => {
                more.resize(count, reaches[0]);
                &mut more
            }
        };
        for (term, reach) in self.terms.iter().zip(&mut *reaches) {
            let distance = match self.terms.len() {
                1 => probe.score / term.weight,
                _ => term.distance(index.centroids.get(list, term.column)),
            };
            base += term.weight * distance + term.offset();
            *reach = Reach { weight: term.weight, deviations: self.deviations, length: term.length(distance) };
        }
        // A centroid infinitely far away still has rows.
        let base = if base.is_nan() { 0.0 } else { base.clamp(-f32::MAX, f32::MAX) };
        for block in index.blocks(list) {
            let allowed = match self.request.filter {
                Some(filter) if self.filter_first => mask(filter, index.block_rows(block)),
                _ => u32::MAX,
            };
            if allowed == 0 {
                continue;
            }
            let mut bounds = Bounds::of(base);
            for (term, reach) in self.terms.iter().zip(&*reaches) {
                let (codes, factors) = index.block(block, term.column);
                index.codecs[term.column].bounds((&term.bits, &term.query), codes, factors, *reach, &mut bounds);
            }
            found(block, allowed, &bounds);
        }
    }

    /// Whether a row is one that the filter lets through and that has all vectors.
    pub(super) fn may_be_found(&self, ordinal: Ordinal) -> bool {
        ordinal != NO_ROW
            && (self.filter_first || self.request.filter.is_none_or(|filter| filter.has(ordinal)))
            && self.weightless.iter().all(|&column| self.columns[column].is_valid(ordinal))
    }

    /// A bound as one of the request's distance.
    pub(super) fn bound(&self, low: f32) -> f64 {
        match self.root {
            None => f64::from(low),
            // Estimated with the sign of the weight.
            Some(weight) if weight < 0.0 => f64::from(weight) * f64::from(-low).max(0.0).sqrt(),
            Some(weight) => f64::from(weight) * f64::from(low).max(0.0).sqrt(),
        }
    }
}

impl<C: Codec> Ivf<C> {
    /// Asks for the start of a list, which is to be scanned soon; what follows, the processor asks for itself.
    fn prefetch(&self, list: usize) {
        let blocks = self.blocks(list);
        let start = |width: usize, part: &[u8]| {
            let all = width * blocks.start..(width * blocks.end).min(width * blocks.start + PREFETCHED);
            kernels::prefetch(&part[all]);
        };
        start(self.code_bytes(), &self.codes);
        start(size_of::<f32>() * self.factor_count(), self.factors.inner());
        start(size_of::<u32>() * BLOCK_ROWS, self.ordinals.inner());
    }

    /// The codes and factors of a block in a column.
    pub(super) fn block(&self, block: usize, column: usize) -> (&[u8], &[f32]) {
        let before = &self.codecs[..column];
        let (codes, factors) = (&self.codes[block * self.code_bytes()..], &self.factors[block * self.factor_count()..]);
        let code_start: usize = before.iter().map(Codec::code_bytes).sum();
        let factor_start: usize = before.iter().map(Codec::factor_count).sum();
        let codec = &self.codecs[column];
        (&codes[code_start..][..codec.code_bytes()], &factors[factor_start..][..codec.factor_count()])
    }
}

/// Which of 32 rows a filter lets through.
fn mask(filter: &Filter, rows: &[u32; BLOCK_ROWS]) -> u32 {
    let mut mask = 0;
    for (i, &row) in rows.iter().enumerate() {
        mask |= u32::from(row != NO_ROW && filter.has(row)) << i;
    }
    mask
}
