//! The exact order of rows of which only bounds are known: those with the lowest bound are measured first, until no
//! other can be nearer (Seidl & Kriegel 1998, optimal multi-step k-nearest neighbour search).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;

use mvvd_core::{Ordinal, Result};

use crate::exact;
use crate::kind::Cursor;
use crate::nearest::Nearest;
use crate::request::{Hit, Request};
use crate::vectors::Vectors;

/// Rows that are measured at once.
const BATCH: usize = 16;
/// Rows that are put in order at once, at least.
const SORTED_MIN: usize = 32;

/// Rows, lowest bound first: a hit's distance is a bound from below of the row's own, as is the number in a [`Bound`].
///
/// They are put in order a part at a time, each as long as all before it: mostly few are asked for.
pub(crate) fn by_bound<T: Ord + Copy>(mut bounds: Vec<T>) -> impl Iterator<Item = T> {
    let (mut next, mut sorted) = (0, 0);
    std::iter::from_fn(move || {
        if next == sorted {
            let rest = &mut bounds[sorted..];
            let part = sorted.max(SORTED_MIN).min(rest.len());
            if part < rest.len() {
                rest.select_nth_unstable(part);
            }
            rest[..part].sort_unstable();
            sorted += part;
        }
        let bound = bounds.get(next).copied();
        next += usize::from(bound.is_some());
        bound
    })
}

/// A bound and the row that it is of, ordered by the bound, then the row: one number, which sorts fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bound(u64);

impl Bound {
    #[inline]
    pub(crate) fn new(bound: f32, ordinal: Ordinal) -> Self {
        let bits = bound.to_bits();
        // All bits of what is negative are turned around, else only the sign: numbers in the order of `total_cmp`.
        let turned = (bits.cast_signed() >> 31).cast_unsigned() | 1 << 31;
        Self(u64::from(bits ^ turned) << 32 | u64::from(ordinal))
    }

    #[inline]
    pub(crate) fn bound(self) -> f32 {
        let bits = (self.0 >> 32) as u32;
        let turned = (!bits.cast_signed() >> 31).cast_unsigned() | 1 << 31;
        f32::from_bits(bits ^ turned)
    }

    #[inline]
    pub(crate) fn ordinal(self) -> Ordinal {
        self.0 as u32
    }
}

/// Two such sequences as one. No bound of `b`, whose rows may take long to find, is below `b_least`.
pub(crate) fn merged(
    a: impl Iterator<Item = Hit>,
    b: impl Iterator<Item = Hit>,
    b_least: f64,
) -> impl Iterator<Item = Hit> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match a.peek() {
        Some(x) if x.distance < b_least => a.next(),
        Some(x) if b.peek().is_some_and(|y| y < x) => b.next(),
        Some(_) => a.next(),
        None => b.next(),
    })
}

/// The `k` nearest of the rows in `bounds`, lowest bound first; all of them have a vector.
pub(crate) fn nearest(columns: &[Vectors<'_>], request: &Request<'_>, bounds: impl Iterator<Item = Hit>) -> Vec<Hit> {
    let mut nearest = Nearest::new(request.k);
    let mut bounds = bounds.peekable();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        while batch.len() < BATCH
            && let Some(bound) = bounds.next_if(|bound| nearest.takes(bound))
        {
            batch.push(bound.ordinal);
        }
        if batch.is_empty() {
            return nearest.into_sorted();
        }
        measure(columns, request, &mut batch, |hit| nearest.push(hit));
    }
}

/// The rows of `bounds` in the order of their distances, as far as is asked.
pub(crate) struct Refined<'a, I: Iterator<Item = Hit>> {
    columns: &'a [Vectors<'a>],
    request: &'a Request<'a>,
    bounds: Peekable<I>,
    /// Measured and not yet given out.
    measured: BinaryHeap<Reverse<Hit>>,
}

impl<'a, I: Iterator<Item = Hit>> Refined<'a, I> {
    /// The rows in `bounds`, lowest bound first; all of them have a vector.
    pub(crate) fn new(columns: &'a [Vectors<'a>], request: &'a Request<'a>, bounds: I) -> Self {
        Self { columns, request, bounds: bounds.peekable(), measured: BinaryHeap::new() }
    }
}

impl<I: Iterator<Item = Hit>> Cursor for Refined<'_, I> {
    fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        let mut batch = Vec::with_capacity(BATCH);
        while hits.len() < count {
            let next = self.measured.peek().map(|Reverse(hit)| hit);
            let is_nearest = |hit: &Hit| self.bounds.peek().is_none_or(|bound| hit < bound);
            if next.is_some_and(is_nearest) {
                hits.extend(self.measured.pop().map(|Reverse(hit)| hit));
                continue;
            }
            batch.extend(self.bounds.by_ref().take(BATCH).map(|bound| bound.ordinal));
            if batch.is_empty() {
                break;
            }
            let measured = &mut self.measured;
            measure(self.columns, self.request, &mut batch, |hit| {
                measured.extend((!hit.distance.is_nan()).then_some(Reverse(hit)));
            });
        }
        // Bounds are rounded: two neighbours that are all but equally far may have been swapped.
        hits.sort_unstable();
        Ok(hits)
    }
}

/// Tells `found` the rows of `batch` with their distances and empties it.
fn measure(columns: &[Vectors<'_>], request: &Request<'_>, batch: &mut Vec<Ordinal>, mut found: impl FnMut(Hit)) {
    let mut distances = [0.0; BATCH];
    let distances = &mut distances[..batch.len()];
    exact::score(columns, request, batch, distances);
    for (ordinal, &distance) in batch.drain(..).zip(distances.iter()) {
        found(Hit { distance, ordinal });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_keep_their_number_and_sort_by_it() {
        let numbers = [f32::NEG_INFINITY, -3.5, -0.0, 0.0, f32::MIN_POSITIVE, 1.0, 1.5, f32::INFINITY];
        let bounds: Vec<Bound> =
            numbers.iter().flat_map(|&number| [7, u32::MAX].map(|i| Bound::new(number, i))).collect();
        assert!(bounds.is_sorted());
        let back: Vec<(u32, u32)> = bounds.iter().map(|bound| (bound.bound().to_bits(), bound.ordinal())).collect();
        let given = numbers.iter().flat_map(|number| [7, u32::MAX].map(|i| (number.to_bits(), i)));
        assert!(back.into_iter().eq(given));
    }

    #[test]
    fn all_come_in_order() {
        for count in [0, 1, 31, 32, 33, 64, 65, 1000] {
            let numbers: Vec<u32> = (0..count).map(|i| i * 7919 % 1009).collect();
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            assert!(by_bound(numbers).eq(sorted), "{count}");
        }
    }
}
