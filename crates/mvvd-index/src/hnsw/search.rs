//! How are the nearest rows found? Best first through the graph by codes, then by exact distances.

use mvvd_core::{Ordinal, Result};

use super::guide::{ByCodes, ByEstimates, ByVectors, Guide, Scratch};
use super::index::Hnsw;
use super::layout::Codes;
use crate::exact;
use crate::filter::Filter;
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::vectors::Vectors;

/// What a walk through the graph should find.
pub(super) struct Wanted<'a> {
    /// Candidates that lead the way.
    pub(super) ef: usize,
    /// Rows that are kept to be measured exactly.
    pub(super) keep: usize,
    pub(super) filter: Option<&'a Filter>,
}

impl Hnsw {
    /// The nearest rows of a request, whose one term has this query and any weight.
    pub(super) fn nearest(&self, columns: &[Vectors<'_>], request: &Request<'_>, query: &Query) -> Result<Vec<Hit>> {
        let ef = self.ef(request);
        self.find(&columns[0], query, request.k, ef, request.filter)
    }

    /// The `k` nearest rows with a given effort.
    pub(super) fn search_with(&self, column: &Vectors<'_>, query: &Query, k: usize, ef: usize) -> Result<Vec<Hit>> {
        self.find(column, query, k, ef, None)
    }

    fn find(
        &self,
        column: &Vectors<'_>,
        query: &Query,
        k: usize,
        ef: usize,
        filter: Option<&Filter>,
    ) -> Result<Vec<Hit>> {
        let most = filter.map_or(self.rows, Filter::count);
        if most == 0 {
            return Ok(Vec::new());
        }
        if filter.is_some_and(|filter| self.scans(filter, ef, k)) || self.nodes() <= k {
            return Ok(self.scan(column, query, k, filter));
        }
        let ef = match filter {
            None => ef,
            Some(filter) => self.filtered_ef(filter, ef),
        };
        let wanted = Wanted { ef, keep: k + k / 2 + 8, filter };
        let mut scratch = self.scratch();
        let walked = self.walk(column, query, &wanted, &mut scratch);
        let ordinals: Vec<Ordinal> = scratch.found.nodes().map(|(_, node)| self.ordinals[node as usize]).collect();
        self.give_back(scratch);
        if !walked || ordinals.len() < k.min(most) {
            // No form of this query, or not enough that the graph reaches.
            return Ok(self.scan(column, query, k, filter));
        }
        let mut distances = vec![0.0; ordinals.len()];
        column.distances(self.settings.metric, query, &ordinals, &mut distances);
        let hits = ordinals.into_iter().zip(distances).map(|(ordinal, distance)| Hit { distance, ordinal });
        let mut hits: Vec<Hit> = hits.filter(|hit| !hit.distance.is_nan()).collect();
        hits.sort_unstable();
        hits.truncate(k);
        Ok(hits)
    }

    /// Measures every row that may be found.
    pub(super) fn scan(&self, column: &Vectors<'_>, query: &Query, k: usize, filter: Option<&Filter>) -> Vec<Hit> {
        let terms = [Term { column: 0, metric: self.settings.metric, query: query.clone(), weight: 1.0 }];
        let request = Request { terms: &terms, k, filter, effort: Effort::default() };
        exact::search(&[*column], self.rows, &request)
    }

    /// Whether measuring all rows that may be found costs less than a walk.
    pub(super) fn scans(&self, filter: &Filter, ef: usize, k: usize) -> bool {
        filter.count() <= (ef * 16).max(4 * k)
    }

    /// Candidates that lead the way to enough rows that may be found.
    fn filtered_ef(&self, filter: &Filter, ef: usize) -> usize {
        let share = filter.count() as f64 / self.rows as f64;
        (ef as f64 / share.max(1e-3).sqrt()) as usize
    }

    /// Leaves the nearest nodes in `scratch.found`; false if the query has no form for codes.
    fn walk(&self, column: &Vectors<'_>, query: &Query, wanted: &Wanted<'_>, scratch: &mut Scratch) -> bool {
        match (self.settings.codes, query) {
            (Codes::None, _) => {
                let guide = ByVectors { index: self, vectors: column, query };
                best_first(self, guide, wanted, scratch);
            }
            (codes, Query::Dense(values)) => {
                let mut coded = std::mem::take(&mut scratch.query);
                if !coded.set(self, values) {
                    return false;
                }
                match codes {
                    Codes::RaBitQ => best_first(self, ByEstimates { index: self, query: &coded }, wanted, scratch),
                    _ => best_first(self, ByCodes { index: self, query: &coded }, wanted, scratch),
                }
                scratch.query = coded;
            }
            _ => return false,
        }
        true
    }
}

/// Malkov & Yashunin 2018, algorithm 2, towards a query: visits the nearest known node until the `ef` nearest known ones
/// are visited.
///
/// With estimates (Gou et al. 2024), a node that looks near is measured at once rather than when it is visited: that
/// costs a fraction of a visit, and far fewer visits find the same.
fn best_first<G: Guide>(index: &Hnsw, mut guide: G, wanted: &Wanted<'_>, scratch: &mut Scratch) {
    let Scratch { beam, found, marks, measured, near, distances, .. } = scratch;
    beam.reset(wanted.ef);
    found.reset(wanted.keep);
    marks.reset(index.nodes());
    if G::ESTIMATES {
        measured.reset(index.nodes());
    }
    let passes = |node: u32| wanted.filter.is_none_or(|filter| filter.has(index.ordinals[node as usize]));
    guide.starts(marks, |distance, node| {
        beam.push(distance, node);
        if !G::ESTIMATES && passes(node) {
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
        let limit = beam.limit();
        let distance = guide.visit(node, met, limit, marks, |distance, link| {
            if beam.push(distance, link) && distance < found.limit() && passes(link) {
                match G::ESTIMATES {
                    true => near.push(link),
                    false => _ = found.push(distance, link),
                }
            }
        });
        if G::ESTIMATES {
            if measured.set(node) && passes(node) {
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
