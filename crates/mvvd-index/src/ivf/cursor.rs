//! One row after the other: lists in the order of their centroids, rows in that of their bounds, measured as they come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mvvd_core::Result;

use super::Ivf;
use super::probe::{Probe, check_terms, nearest_lists};
use super::search::Search;
use crate::codec::Codec;
use crate::exact;
use crate::kind::Cursor;
use crate::request::{Hit, Request};
use crate::vectors::Vectors;

/// Rows that are measured at once.
const BATCH: usize = 16;

pub(super) fn cursor<'a, C: Codec>(
    index: &'a Ivf<C>,
    columns: &'a [Vectors<'a>],
    request: &'a Request<'a>,
) -> Result<Box<dyn Cursor + 'a>> {
    check_terms(index.spec.metric, request.terms)?;
    let search = Search::new(index, columns, request).filter(|search| !search.is_scan_cheaper(search.nprobe()));
    let Some(search) = search else {
        return Ok(Box::new(exact::cursor(columns, index.rows, request)));
    };
    Ok(Box::new(InLists {
        // All of them, the farthest first, to be taken from the end.
        lists: nearest_lists(index, &search.terms, index.lists()).into_iter().rev().collect(),
        nprobe: search.nprobe(),
        search,
        scanned: 0,
        given: 0,
        waiting: BinaryHeap::new(),
        measured: BinaryHeap::new(),
    }))
}

struct InLists<'a, C: Codec> {
    search: Search<'a, C>,
    lists: Vec<Probe>,
    /// Lists to look at for as many rows as are likely to be asked for.
    nprobe: usize,
    scanned: usize,
    given: usize,
    /// Lower bounds of rows.
    waiting: BinaryHeap<Reverse<Hit>>,
    /// Rows with their distances.
    measured: BinaryHeap<Reverse<Hit>>,
}

impl<C: Codec> InLists<'_, C> {
    /// Looks at one more list; false if there is none.
    fn scan(&mut self) -> bool {
        let Some(probe) = self.lists.pop() else {
            return false;
        };
        let (search, waiting) = (&self.search, &mut self.waiting);
        search.each_block(probe, |block, allowed, bounds| {
            for (row, &ordinal) in search.index.block_rows(block).iter().enumerate() {
                let is_row = allowed >> row & 1 == 1 && !bounds.low[row].is_nan();
                if is_row && search.may_be_found(ordinal) {
                    waiting.push(Reverse(Hit { distance: search.bound(bounds.low[row]), ordinal }));
                }
            }
        });
        self.scanned += 1;
        true
    }

    /// Measures the rows with the lowest bounds.
    fn measure(&mut self) {
        let mut distances = [0.0; BATCH];
        let batch: Vec<u32> =
            std::iter::from_fn(|| self.waiting.pop()).take(BATCH).map(|Reverse(hit)| hit.ordinal).collect();
        let distances = &mut distances[..batch.len()];
        exact::score(self.search.columns, self.search.request, &batch, distances);
        let hits = batch.iter().zip(distances.iter()).map(|(&ordinal, &distance)| Hit { distance, ordinal });
        self.measured.extend(hits.filter(|hit| !hit.distance.is_nan()).map(Reverse));
    }
}

impl<C: Codec> Cursor for InLists<'_, C> {
    fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        let mut hits = Vec::with_capacity(count.min(self.search.index.rows));
        while hits.len() < count {
            // The further out, the more lists.
            let wanted =
                self.nprobe.saturating_mul((self.given.saturating_add(count) / self.search.request.k.max(1)).max(1));
            if self.scanned < wanted && self.scan() {
                continue;
            }
            let bound = self.waiting.peek();
            let is_nearest = |hit: &Reverse<Hit>| bound.is_none_or(|bound| hit >= bound);
            if self.measured.peek().is_some_and(is_nearest) {
                hits.extend(self.measured.pop().map(|Reverse(hit)| hit));
            } else if bound.is_some() {
                self.measure();
            } else if !self.scan() {
                break;
            }
        }
        self.given += hits.len();
        hits.sort_unstable();
        Ok(hits)
    }
}
