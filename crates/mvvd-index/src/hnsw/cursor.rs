//! How are all rows given in turn? Best first through the graph, each once, and at last those that no way leads to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mvvd_core::{Ordinal, Result};

use super::beam::{Marks, key, parts};
use super::filtered::Passing;
use super::guide::{ByCodes, ByEstimates, ByVectors, Coded, Guide};
use super::index::Hnsw;
use super::layout::Codes;
use super::search::enough;
use crate::exact;
use crate::filter::Filter;
use crate::kind::Cursor;
use crate::request::{Hit, Query, Request, Term};
use crate::vectors::Vectors;

/// Opens a cursor over what `request` asks, whose one term is `term`.
pub(super) fn open<'a>(
    index: &'a Hnsw,
    columns: &'a [Vectors<'a>],
    request: &'a Request<'a>,
    term: &'a Term,
) -> Result<Box<dyn Cursor + 'a>> {
    let ef = index.ef(request);
    let few = request
        .filter
        .is_some_and(|filter| index.scans(Some(filter), index.filtered_ef(filter, ef, enough(ef, request.k))));
    let mut coded = Coded::default();
    let walks = match (index.settings.codes, &term.query) {
        (Codes::None, _) => true,
        (_, Query::Dense(values)) => coded.set(index, values),
        _ => false,
    };
    if few || !walks {
        return Ok(Box::new(exact::cursor(columns, index.rows, request)));
    }
    let mut state = State::default();
    state.marks.reset(index.nodes());
    state.seen.resize(index.rows.div_ceil(64), 0);
    Ok(Box::new(Walk { index, columns, request, term, coded, ef, state, rest: None }))
}

/// A walk through the graph that can go on.
struct Walk<'a> {
    index: &'a Hnsw,
    columns: &'a [Vectors<'a>],
    request: &'a Request<'a>,
    term: &'a Term,
    coded: Coded,
    /// Rows that are found before the nearest of them are given.
    ef: usize,
    state: State,
    /// What the graph does not lead to.
    rest: Option<exact::InOrder>,
}

/// How far a walk is.
#[derive(Default)]
struct State {
    started: bool,
    /// Nodes that were met and not visited.
    ahead: BinaryHeap<Reverse<u64>>,
    /// Rows of nodes that were visited, and not given: the discard heap. The bits of a distance, then the row.
    found: BinaryHeap<Reverse<u64>>,
    marks: Marks,
    /// A bit for each row that was found.
    seen: Vec<u64>,
}

impl Cursor for Walk<'_> {
    fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        loop {
            let missing = count - hits.len();
            let wanted = missing.saturating_add(self.ef);
            let (index, state) = (self.index, &mut self.state);
            let passing = Passing::new(index, self.request.filter);
            match index.settings.codes {
                Codes::RaBitQ => walk(ByEstimates { index, query: &self.coded }, passing, state, wanted),
                Codes::Sq8 => walk(ByCodes { index, query: &self.coded }, passing, state, wanted),
                Codes::None => {
                    let guide = ByVectors { index, vectors: &self.columns[0], query: &self.term.query };
                    walk(guide, passing, state, wanted);
                }
            }
            hits.extend(self.found(missing));
            // Distances that turned out to be NaN leave places, as long as the walk can go on.
            if hits.len() == count || self.state.ahead.is_empty() && self.state.found.is_empty() {
                break;
            }
        }
        if hits.len() < count {
            hits.extend(self.rest().next(count - hits.len())?);
        }
        hits.sort_unstable();
        Ok(hits)
    }
}

impl Walk<'_> {
    /// The nearest of those that were found, by exact distances.
    fn found(&mut self, count: usize) -> Vec<Hit> {
        // Some more than asked for: the order of codes is not exact.
        let some = count.saturating_add(count / 2).saturating_add(8);
        let rows: Vec<u64> =
            std::iter::from_fn(|| self.state.found.pop()).take(some).map(|Reverse(found)| found).collect();
        let ordinals: Vec<Ordinal> = rows.iter().map(|&found| found as Ordinal).collect();
        let mut distances = vec![0.0; ordinals.len()];
        exact::score(self.columns, self.request, &ordinals, &mut distances);
        let hits = ordinals.iter().zip(&distances).map(|(&ordinal, &distance)| Hit { distance, ordinal });
        let mut hits: Vec<(Hit, u64)> = hits.zip(rows).filter(|(hit, _)| !hit.distance.is_nan()).collect();
        hits.sort_unstable();
        for (_, found) in hits.drain(count.min(hits.len())..) {
            self.state.found.push(Reverse(found));
        }
        hits.into_iter().map(|(hit, _)| hit).collect()
    }

    /// Those that may be found and that the walk, which is at its end, did not come to.
    fn rest(&mut self) -> &mut exact::InOrder {
        let (index, seen) = (self.index, &self.state.seen);
        let (columns, request) = (self.columns, self.request);
        self.rest.get_or_insert_with(|| {
            let passes = |ordinal: Ordinal| request.filter.is_none_or(|filter| filter.has(ordinal));
            let unseen = |ordinal: Ordinal| seen[ordinal as usize / 64] >> (ordinal % 64) & 1 == 0;
            let ordinals = (0..index.rows as Ordinal).filter(|&ordinal| unseen(ordinal) && passes(ordinal));
            let filter = Filter::of_ordinals(index.rows, ordinals);
            exact::cursor(columns, index.rows, &Request { filter: Some(&filter), ..request.clone() })
        })
    }
}

/// Visits nodes, the nearest first, until `wanted` rows are waiting or there is no node left.
fn walk<G: Guide>(mut guide: G, passing: Passing<'_>, state: &mut State, wanted: usize) {
    let State { started, ahead, found, marks, seen } = state;
    if !std::mem::replace(started, true) {
        guide.starts(marks, |distance, node| ahead.push(Reverse(key(distance, node))));
    }
    while found.len() < wanted
        && let Some(Reverse(next)) = ahead.pop()
    {
        let (met, node) = parts(next);
        if G::ESTIMATES && !marks.set(node) {
            continue;
        }
        let distance = guide.visit(node, met, f32::INFINITY, marks, |distance, link| {
            ahead.push(Reverse(key(distance, link)));
        });
        for row in passing.rows(node) {
            seen[row as usize / 64] |= 1 << (row % 64);
            found.push(Reverse(key(distance, 0) | u64::from(row)));
        }
    }
}
