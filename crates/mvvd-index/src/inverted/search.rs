//! Adding up the postings of a query's dimensions, and which rows may then be among the nearest.

use mvvd_core::{Ordinal, Result};

use super::form::{Postings, Segment, WINDOW};
use super::measure::Measure;
use crate::exact;
use crate::filter::Filter;
use crate::kind::Cursor;
use crate::nearest::KthScore;
use crate::refine::{self, Refined};
use crate::request::{Hit, Query, Request};
use crate::vectors::{Values, Vectors};

/// Sums that are looked at at once.
/// How far sums in f64 that are taken in different orders can be apart, as a share.
const SUMS: f64 = 1e-12;
const CHUNK: usize = 64;
/// The sum of a row that no posting was added to. No sum of postings is -0.
const UNTOUCHED: f32 = -0.0;
/// Windows whose bounds are highest are searched before the others, for a high threshold early.
const FIRST_WINDOWS: usize = 2;
/// Sums beyond this could become infinite: nothing is concluded from them.
const SUM_MAX: f32 = 1e30;

/// The `k` nearest rows.
pub(super) fn search(postings: &Postings, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
    let Some(plan) = Plan::new(postings, columns, request)? else { return Ok(Vec::new()) };
    if plan.scans_instead(columns) {
        return Ok(exact::search(columns, postings.rows, request));
    }
    let touched = refine::by_bound(plan.candidates(columns));
    let least = plan.untouched_least();
    Ok(refine::nearest(columns, request, refine::merged(touched, plan.untouched(columns), least)))
}

/// All rows in their order.
pub(super) fn cursor<'a>(
    postings: &'a Postings,
    columns: &'a [Vectors<'a>],
    request: &'a Request<'a>,
) -> Result<Box<dyn Cursor + 'a>> {
    let Some(plan) = Plan::new(postings, columns, request)? else {
        return Ok(Box::new(Refined::new(columns, request, std::iter::empty())));
    };
    let touched = refine::by_bound(plan.all_touched(columns));
    let least = plan.untouched_least();
    Ok(Box::new(Refined::new(columns, request, refine::merged(touched, plan.untouched(columns), least))))
}

/// What is to be added up for a query.
struct Plan<'a> {
    postings: &'a Postings,
    measure: Measure,
    filter: Option<&'a Filter>,
    k: usize,
    weight: f64,
    /// The query's part of a distance.
    query_part: f64,
    entries: usize,
    /// By window, those of window `w` from `ends[w - 1]` to `ends[w]`.
    runs: Vec<Run>,
    ends: Vec<usize>,
    bounds: Vec<Bound>,
}

/// The postings of a segment and the query's value in its dimension.
struct Run {
    query: f32,
    segment: Segment,
}

/// What is known of the scores in a window.
#[derive(Clone, Copy)]
struct Bound {
    /// No score is higher, error included.
    score: f32,
    /// How far a sum may be from its score, on either side.
    error: f32,
}

impl<'a> Plan<'a> {
    /// None if no row is at any distance from the query.
    fn new(postings: &'a Postings, columns: &[Vectors<'_>], request: &Request<'a>) -> Result<Option<Self>> {
        let term = &request.terms[0];
        let Query::Sparse(indices, values) = &term.query else {
            panic!("{} is not searched with {:?}", columns[0].vector_type(), term.query);
        };
        let measure = Measure::of(term.metric)?;
        let Some(factor) = measure.factor(values) else { return Ok(None) };
        let windows = postings.window_count();
        let mut found = Vec::new();
        let mut ends = vec![0; windows + 1];
        for (index, &value) in indices.iter().zip(values.iter()) {
            let Ok(dim) = postings.dims.binary_search(index) else { continue };
            let query = (f64::from(value) * factor) as f32;
            for segment in postings.segments(dim) {
                ends[segment.window as usize + 1] += 1;
                found.push(Run { query, segment });
            }
        }
        // The sort is stable: the dimensions of each window stay in order.
        found.sort_by_key(|run| run.segment.window);
        for window in 0..windows {
            ends[window + 1] += ends[window];
        }
        let mut plan = Self {
            postings,
            measure,
            filter: request.filter,
            k: request.k,
            weight: f64::from(term.weight),
            query_part: measure.query_part(values),
            entries: values.len(),
            runs: found,
            ends,
            bounds: Vec::new(),
        };
        plan.bounds = (0..windows).map(|window| plan.bound(window)).collect();
        Ok(Some(plan))
    }

    fn runs(&self, window: usize) -> &[Run] {
        &self.runs[self.ends[window]..self.ends[window + 1]]
    }

    fn bases(&self, window: usize) -> &[f64] {
        self.postings.bases.get(self.postings.window_rows(window)).unwrap_or(&[])
    }

    fn bound(&self, window: usize) -> Bound {
        let (mut highest, mut error, mut size) = (0.0_f32, 0.0_f32, 0.0_f32);
        for Run { query, segment } in self.runs(window) {
            highest += self.measure.contribution_max(*query, segment.scale * 127.5);
            error += self.measure.contribution_error(*query, segment.scale * 0.51);
        }
        size += highest;
        if let Some(&(lowest_base, highest_base)) = self.postings.base_ranges.get(window) {
            highest += highest_base;
            size -= lowest_base;
        }
        // Each step rounds by at most 2^-24 of what it makes, which is at most the sum of all sizes.
        error += size * (self.runs(window).len() + 8) as f32 * f32::EPSILON + f32::MIN_POSITIVE;
        let finite = size < SUM_MAX && error < SUM_MAX;
        if finite {
            Bound { score: highest + error, error }
        } else {
            Bound { score: f32::INFINITY, error: f32::INFINITY }
        }
    }

    /// Whether measuring all rows that may be found takes less time than adding up. The figures were measured.
    fn scans_instead(&self, columns: &[Vectors<'_>]) -> bool {
        let Some(filter) = self.filter else { return false };
        let entries = match columns[0].values() {
            Values::Sparse { indices, .. } => indices.len() / columns[0].len().max(1),
            _ => 0,
        };
        let scan_ns = filter.count() * (100 + 3 * (entries + self.entries) / 2);
        let postings: usize = self.runs.iter().map(|run| run.segment.postings.len()).sum();
        scan_ns < postings + 1000 * self.postings.window_count()
    }

    fn may_be_found(&self, column: &Vectors<'_>, row: Ordinal) -> bool {
        self.filter.is_none_or(|filter| filter.has(row)) && column.is_valid(row)
    }

    /// Adds the postings of a window to `sums`, which are all untouched.
    fn add_up(&self, window: usize, sums: &mut [f32; WINDOW]) {
        for Run { query, segment } in self.runs(window) {
            let range = segment.postings.clone();
            let postings = self.postings.locals[range.clone()].iter().zip(&self.postings.codes[range]);
            match self.measure {
                Measure::L1 => {
                    let (limit, factor) = (query.abs(), segment.scale * query.signum());
                    for (&local, &code) in postings {
                        let shared = (factor * f32::from(code)).clamp(0.0, limit);
                        sums[local as usize % WINDOW] += shared + shared + 0.0;
                    }
                }
                _ => {
                    let factor = query * segment.scale;
                    for (&local, &code) in postings {
                        // Adding 0 makes 0 of -0.
                        sums[local as usize % WINDOW] += factor * f32::from(code) + 0.0;
                    }
                }
            }
        }
    }

    /// The rows with a posting that may be among the `k` nearest, each with a bound of its distance.
    fn candidates(&self, columns: &[Vectors<'_>]) -> Vec<Hit> {
        let mut windows: Vec<usize> = (0..self.bounds.len()).collect();
        let first = FIRST_WINDOWS.min(windows.len());
        if first < windows.len() {
            windows.select_nth_unstable_by(first, |&a, &b| self.bounds[b].score.total_cmp(&self.bounds[a].score));
            windows[first..].sort_unstable();
        }
        let mut best = KthScore::new(self.k);
        let mut candidates = Vec::new();
        let mut sums: Box<[f32; WINDOW]> = Box::new([UNTOUCHED; WINDOW]);
        for window in windows {
            let bound = self.bounds[window];
            if !self.runs(window).is_empty() && bound.score >= best.least() && self.any_passes(window) {
                self.add_up(window, &mut sums);
                self.collect(window, &mut sums, &columns[0], &mut best, &mut candidates);
            }
        }
        let least = best.least();
        candidates.retain(|&(_, score)| score >= least);
        self.to_hits(&candidates)
    }

    /// All rows with a posting that may be found, each with a bound of its distance.
    fn all_touched(&self, columns: &[Vectors<'_>]) -> Vec<Hit> {
        let mut touched = Vec::new();
        let mut sums: Box<[f32; WINDOW]> = Box::new([UNTOUCHED; WINDOW]);
        // Of no rows at all there is no least.
        let mut best = KthScore::new(0);
        for window in (0..self.bounds.len()).filter(|&window| !self.runs(window).is_empty()) {
            self.add_up(window, &mut sums);
            self.collect(window, &mut sums, &columns[0], &mut best, &mut touched);
        }
        self.to_hits(&touched)
    }

    /// Whether the filter lets any row of the window through.
    fn any_passes(&self, window: usize) -> bool {
        const WORDS: usize = WINDOW / 64;
        self.filter.is_none_or(|filter| (window * WORDS..(window + 1) * WORDS).any(|word| filter.word(word) != 0))
    }

    /// Takes the rows that may be among the best out of a window's sums, each with the highest score that it may have,
    /// and leaves the sums untouched.
    fn collect(
        &self,
        window: usize,
        sums: &mut [f32; WINDOW],
        column: &Vectors<'_>,
        best: &mut KthScore,
        candidates: &mut Vec<(Ordinal, f32)>,
    ) {
        let rows = self.postings.window_rows(window);
        let (bases, error) = (self.bases(window), self.bounds[window].error);
        for (i, chunk) in sums.as_chunks_mut::<CHUNK>().0[..rows.len().div_ceil(CHUNK)].iter_mut().enumerate() {
            let mut scores = *chunk;
            if let Some(bases) = bases.get(i * CHUNK..) {
                scores.iter_mut().zip(bases).for_each(|(score, &base)| *score += base as f32);
            }
            // No comparison with NaN or infinity: where they may be, the error is infinite.
            if highest(&scores) + error >= best.least() || error == f32::INFINITY {
                for (j, (&sum, &score)) in chunk.iter().zip(&scores).enumerate() {
                    let row = (rows.start + i * CHUNK + j) as Ordinal;
                    let (low, high) = match error == f32::INFINITY {
                        true => (-error, error),
                        false => (score - error, score + error),
                    };
                    if sum.to_bits() != UNTOUCHED.to_bits() && high >= best.least() && self.may_be_found(column, row) {
                        best.push(low);
                        candidates.push((row, high));
                    }
                }
            }
            *chunk = [UNTOUCHED; CHUNK];
        }
    }

    /// What the distance of a row with this score is at least: sums in another order differ in their last bits.
    fn least(&self, score: f64) -> f64 {
        let score = score + SUMS * (self.query_part.abs() + score.abs());
        self.weight * self.measure.distance(self.query_part, score)
    }

    fn to_hits(&self, candidates: &[(Ordinal, f32)]) -> Vec<Hit> {
        let hit = |&(ordinal, score): &(Ordinal, f32)| Hit { distance: self.least(f64::from(score)), ordinal };
        candidates.iter().map(hit).collect()
    }

    /// What the distance of any row without a posting is at least.
    fn untouched_least(&self) -> f64 {
        let nearest = self.postings.by_base.first().map_or(0, |&row| row as usize);
        self.least(if self.measure.has_base() { self.postings.bases.get(nearest).copied().unwrap_or(0.0) } else { 0.0 })
    }

    /// The rows without a posting that may be found, nearest first, each with what its distance is at least.
    fn untouched<'b>(self, columns: &'b [Vectors<'b>]) -> impl Iterator<Item = Hit> + 'b
    where
        'a: 'b,
    {
        let mut touched: Vec<Option<Box<[u64]>>> = vec![None; self.bounds.len()];
        let postings = self.postings;
        let rows = if self.measure.has_base() { postings.by_base.len() } else { postings.rows };
        (0..rows).filter_map(move |i| {
            let row = postings.by_base.get(i).copied().unwrap_or(i as Ordinal);
            let (window, local) = (row as usize / WINDOW, row as usize % WINDOW);
            if !self.may_be_found(&columns[0], row) {
                return None;
            }
            let touched = touched[window].get_or_insert_with(|| self.touched(window));
            if touched[local / 64] >> (local % 64) & 1 == 1 {
                return None;
            }
            let base = postings.bases.get(row as usize).copied().unwrap_or(0.0);
            Some(Hit { distance: self.least(base), ordinal: row })
        })
    }

    /// The rows of a window that have a posting, as bits.
    fn touched(&self, window: usize) -> Box<[u64]> {
        let mut bits = vec![0; WINDOW / 64];
        for run in self.runs(window) {
            for &local in &self.postings.locals[run.segment.postings.clone()] {
                bits[local as usize % WINDOW / 64] |= 1 << (local % 64);
            }
        }
        bits.into()
    }
}

#[inline]
fn highest(scores: &[f32; CHUNK]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for (lane, &score) in lanes.iter_mut().zip(scores) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
