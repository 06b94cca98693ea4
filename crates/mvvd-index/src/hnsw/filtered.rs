//! How are rows found of which only some may be? A walk over all, of which those that may are kept; where they are few,
//! those alone by their codes; and every row that may, by the caller, where the walk finds too little.
//!
//! Walking over the nodes that may be found only, and over the neighbours of others (Patel et al. 2024, "ACORN"), found
//! no more in the same time at any share of generated clusters: what it saves in distances it spends on links, and clusters come apart.

use mvvd_core::Ordinal;

use super::guide::{Distances, Scratch};
use super::index::Hnsw;
use super::search::{Wanted, best_first};
use super::space::BATCH;
use crate::filter::Filter;

/// Nodes that are measured in a row in the time that a walk takes for one of its candidates: 47 ns against 550 over 60,000
/// rows of 784 dimensions.
const SCANNED: usize = 12;

/// A walk may take so many times the candidates that it should need, since near its query may be fewer nodes that may be
/// found than elsewhere; or those that take as long as measuring all.
const MORE: usize = 2;
/// Candidates of a walk with a filter, at most: they lie in a sorted array.
const CANDIDATES_MAX: usize = 4096;

/// The nodes that may be found: those of which a row may be.
#[derive(Clone, Copy)]
pub(super) struct Passing<'a> {
    index: &'a Hnsw,
    filter: Option<&'a Filter>,
    /// Every row is the node of its number.
    same: bool,
}

impl<'a> Passing<'a> {
    pub(super) fn new(index: &'a Hnsw, filter: Option<&'a Filter>) -> Self {
        Self { index, filter, same: index.nodes() == index.rows }
    }

    #[inline(always)]
    pub(super) fn has(&self, node: u32) -> bool {
        match self.filter {
            None => true,
            Some(filter) if self.same => filter.has(node),
            Some(_) => self.rows(node).next().is_some(),
        }
    }

    /// The rows of a node that may be found, ascending.
    pub(super) fn rows(&self, node: u32) -> impl Iterator<Item = Ordinal> {
        let rows = std::iter::once(self.index.ordinals[node as usize]).chain(self.index.twins.of(node));
        rows.filter(|&row| self.filter.is_none_or(|filter| filter.has(row)))
    }

    /// All of them, ascending.
    fn nodes(&self) -> impl Iterator<Item = u32> {
        let by_row = self.filter.filter(|_| self.same).map(Filter::ordinals);
        let by_node = by_row.is_none().then(|| (0..self.index.nodes() as u32).filter(|&node| self.has(node)));
        let nodes = self.index.nodes();
        by_row
            .into_iter()
            .flatten()
            .take_while(move |&node| (node as usize) < nodes)
            .chain(by_node.into_iter().flatten())
    }
}

impl Hnsw {
    /// The candidates of a walk until it has met `enough` nodes that may be found, at least `ef`.
    pub(super) fn filtered_ef(&self, filter: &Filter, ef: usize, enough: usize) -> usize {
        let one_in = (self.rows as f64 / filter.count().max(1) as f64).max(1.0);
        ef.max((enough as f64 * one_in) as usize)
    }

    /// Whether measuring the codes of all rows that may be found costs less than a walk with `ef` candidates.
    pub(super) fn scans(&self, filter: Option<&Filter>, ef: usize) -> bool {
        filter.map_or(self.nodes(), Filter::count) <= ef.saturating_mul(SCANNED)
    }
}

/// Leaves the nearest nodes that may be found in `scratch.found`; none where fewer than `k` rows are nearer than what lies
/// beyond all candidates: the filter has little of what is near the query, and codes tell little apart of what is far.
pub(super) fn search<D: Distances>(index: &Hnsw, guide: D, filter: &Filter, wanted: &Wanted, scratch: &mut Scratch) {
    let candidates = index.filtered_ef(filter, wanted.ef, wanted.enough);
    if index.scans(Some(filter), candidates) || MORE * candidates > CANDIDATES_MAX.max(MORE * wanted.ef) {
        return scan(index, &guide, Some(filter), wanted.keep, scratch);
    }
    let most = (MORE * candidates).max((filter.count() / SCANNED).min(CANDIDATES_MAX));
    let passing = Passing::new(index, Some(filter));
    best_first(index, guide, &Wanted { most, ..*wanted }, passing, scratch);
    let beyond = scratch.beam.limit();
    let mut rows = 0;
    let is_enough = scratch.found.nodes().take_while(|&(distance, _)| distance <= beyond).any(|(_, node)| {
        rows += passing.rows(node).take(wanted.k).count();
        rows >= wanted.k
    });
    if !is_enough {
        scratch.found.reset(wanted.keep);
    }
}

/// Leaves the nearest of all nodes that may be found in `scratch.found`.
pub(super) fn scan<D: Distances>(index: &Hnsw, guide: &D, filter: Option<&Filter>, keep: usize, scratch: &mut Scratch) {
    let Scratch { found, near, distances, .. } = scratch;
    found.reset(keep);
    let passing = Passing::new(index, filter);
    let mut nodes = passing.nodes();
    distances.resize(BATCH, 0.0);
    loop {
        near.clear();
        near.extend(nodes.by_ref().take(BATCH));
        if near.is_empty() {
            return;
        }
        guide.distances(near, &mut distances[..near.len()]);
        for (&distance, &node) in distances.iter().zip(&*near) {
            if distance < found.limit() {
                found.push(distance, node);
            }
        }
    }
}
