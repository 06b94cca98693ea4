//! How are the nearest rows found? Best first through the graph by codes, then by exact distances.

use mvvd_core::{Ordinal, Result};

use super::beam::Beam;
use super::filtered::{self, Passing};
use super::guide::{ByCodes, ByEstimates, ByVectors, Guide, Scratch};
use super::index::Hnsw;
use super::layout::Codes;
use crate::exact;
use crate::filter::Filter;
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::vectors::Vectors;

/// What a walk through the graph should find.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Rows.
    pub(super) k: usize,
    /// Candidates that lead the way.
    pub(super) ef: usize,
    /// With a filter, more of them lead it until so many nodes that may be found are nearer than what lies ahead.
    pub(super) enough: usize,
    /// Candidates at most; `ef` without a filter.
    pub(super) most: usize,
    /// Nodes that are kept to be measured exactly.
    pub(super) keep: usize,
}

impl Wanted {
    /// How near what lies ahead must be to lead on.
    #[inline(always)]
    fn limit(&self, beam: &Beam, found: &Beam) -> f32 {
        match self.most > self.ef {
            true => beam.limit().min(beam.farthest_of(self.ef).max(found.farthest_of(self.enough))),
            false => beam.limit(),
        }
    }
}

impl Hnsw {
    /// The nearest rows of a request, whose one term is `term`.
    pub(super) fn nearest(&self, columns: &[Vectors<'_>], request: &Request<'_>, term: &Term) -> Result<Vec<Hit>> {
        let ef = self.ef(request);
        self.find(&columns[0], term, request.k, ef, request.filter)
    }

    /// The `k` nearest rows with a given effort.
    pub(super) fn search_with(&self, column: &Vectors<'_>, term: &Term, k: usize, ef: usize) -> Result<Vec<Hit>> {
        self.find(column, term, k, ef, None)
    }

    fn find(
        &self,
        column: &Vectors<'_>,
        term: &Term,
        k: usize,
        ef: usize,
        filter: Option<&Filter>,
    ) -> Result<Vec<Hit>> {
        let filter = filter.filter(|filter| filter.count() < self.rows);
        let most = filter.map_or(self.findable_rows(), Filter::count);
        let enough = enough(ef, k);
        let keep = k.saturating_add(k / 2).saturating_add(8).max(if filter.is_some() { enough } else { 0 });
        let wanted = Wanted { k, ef, enough, most: ef, keep };
        if most <= wanted.keep {
            return Ok(self.measure_all(column, term, k, filter));
        }
        let mut scratch = self.scratch();
        let walked = self.propose(column, &term.query, &wanted, filter, &mut scratch);
        let nodes: Vec<u32> = scratch.found.nodes().map(|(_, node)| node).collect();
        self.give_back(scratch);
        if !walked {
            // No form of this query for codes.
            return Ok(self.measure_all(column, term, k, filter));
        }
        let passing = Passing::new(self, filter);
        let first = |&node: &u32| passing.rows(node).next().expect("a node is found for a row that may be");
        let firsts: Vec<Ordinal> = nodes.iter().map(first).collect();
        let mut hits = measure(column, term, &firsts);
        if self.twins.len() > 0 {
            // Codes are equal, vectors need not be; of equal ones no more than `keep` can be among the nearest.
            let mut order: Vec<(Hit, u32)> = hits.iter().copied().zip(nodes).collect();
            order.sort_unstable();
            let others = order.iter().flat_map(|&(_, node)| passing.rows(node).skip(1));
            let others: Vec<Ordinal> = others.take(wanted.keep).collect();
            hits.extend(measure(column, term, &others));
        }
        hits.retain(|hit| !hit.distance.is_nan());
        if hits.len() < k.min(most) {
            // Not enough that the graph reaches.
            return Ok(self.measure_all(column, term, k, filter));
        }
        hits.sort_unstable();
        hits.truncate(k);
        Ok(hits)
    }

    /// The exact answer, by the vectors of every row that may be found.
    fn measure_all(&self, column: &Vectors<'_>, term: &Term, k: usize, filter: Option<&Filter>) -> Vec<Hit> {
        let request = Request { terms: std::slice::from_ref(term), k, filter, effort: Effort::default() };
        exact::search(&[*column], self.rows, &request)
    }

    /// Leaves the nearest nodes in `scratch.found`; false if the query has no form for codes.
    fn propose(
        &self,
        column: &Vectors<'_>,
        query: &Query,
        wanted: &Wanted,
        filter: Option<&Filter>,
        scratch: &mut Scratch,
    ) -> bool {
        match (self.settings.codes, query) {
            (Codes::None, _) => {
                let guide = ByVectors { index: self, vectors: column, query };
                match filter {
                    None => best_first(self, guide, wanted, Passing::new(self, None), scratch),
                    Some(filter) => filtered::search(self, guide, filter, wanted, scratch),
                }
            }
            (codes, Query::Dense(values)) => {
                let mut coded = std::mem::take(&mut scratch.query);
                if !coded.set(self, values) {
                    return false;
                }
                let by_codes = ByCodes { index: self, query: &coded };
                let all = Passing::new(self, None);
                match (filter, codes) {
                    (Some(filter), _) => filtered::search(self, by_codes, filter, wanted, scratch),
                    (None, _) if self.scans(None, wanted.ef) => {
                        filtered::scan(self, &by_codes, None, wanted.keep, scratch);
                    }
                    (None, Codes::RaBitQ) => {
                        best_first(self, ByEstimates { index: self, query: &coded }, wanted, all, scratch);
                    }
                    (None, _) => best_first(self, by_codes, wanted, all, scratch),
                }
                scratch.query = coded;
            }
            _ => return false,
        }
        true
    }
}

/// Nodes that may be found, and are nearer than what lies ahead, that end a walk with a filter: few more than `k`, since by
/// then it has visited many more nodes than a walk without one.
pub(super) fn enough(ef: usize, k: usize) -> usize {
    k.saturating_add((ef / 16).max(2))
}

/// Rows with their distances.
fn measure(column: &Vectors<'_>, term: &Term, ordinals: &[Ordinal]) -> Vec<Hit> {
    let mut distances = vec![0.0; ordinals.len()];
    column.distances(term.metric, &term.query, ordinals, &mut distances);
    let weight = f64::from(term.weight);
    let hits = ordinals.iter().zip(distances);
    hits.map(|(&ordinal, distance)| Hit { distance: weight * distance, ordinal }).collect()
}

/// Malkov & Yashunin 2018, algorithm 2, towards a query: visits the nearest known node until the `ef` nearest known ones
/// are visited, or with a filter, until [`Wanted::enough`] are nearer than it.
///
/// With estimates (Gou et al. 2024), a node that looks near is measured at once rather than when it is visited: that
/// costs a fraction of a visit, and far fewer visits find the same.
pub(super) fn best_first<G: Guide>(
    index: &Hnsw,
    mut guide: G,
    wanted: &Wanted,
    passing: Passing<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { beam, found, marks, measured, near, distances, .. } = scratch;
    beam.reset(wanted.most);
    found.reset(wanted.keep);
    marks.reset(index.nodes());
    if G::ESTIMATES {
        measured.reset(index.nodes());
    }
    guide.starts(marks, |distance, node| {
        beam.push(distance, node);
        if !G::ESTIMATES && passing.has(node) {
            found.push(distance, node);
        }
    });
    while let Some((met, node)) = beam.take() {
        if G::ESTIMATES && !marks.set(node) {
            continue;
        }
        if let Some(next) = beam.peek() {
            guide.prefetch(next);
        }
        near.clear();
        let limit = wanted.limit(beam, found);
        if met > limit {
            break;
        }
        let distance = guide.visit(node, met, limit, marks, |distance, link| {
            if G::ESTIMATES {
                if beam.push(distance, link) && distance < found.limit() && passing.has(link) {
                    near.push(link);
                }
            } else {
                beam.push(distance, link);
                if passing.has(link) {
                    found.push(distance, link);
                }
            }
        });
        if G::ESTIMATES {
            if measured.set(node) && passing.has(node) {
                found.push(distance, node);
            }
            near.retain(|&link| measured.set(link));
            distances.resize(near.len(), 0.0);
            guide.measure(near, distances);
            for (&distance, &link) in distances.iter().zip(&*near) {
                found.push(distance, link);
            }
        }
    }
}
