//! Which `k` of many hits are the nearest, and how near one must be for that.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::request::Hit;

/// The `k` nearest of the hits that were offered, equal distances by ordinal. Those with a NaN are not taken.
#[derive(Debug)]
pub(crate) struct Nearest {
    k: usize,
    /// The farthest is on top.
    hits: BinaryHeap<Hit>,
}

impl Nearest {
    /// Of nothing yet.
    pub(crate) fn new(k: usize) -> Self {
        Self { k, hits: BinaryHeap::new() }
    }

    /// Offers one more.
    #[inline]
    pub(crate) fn push(&mut self, hit: Hit) {
        if hit.distance.is_nan() {
            return;
        }
        if self.hits.len() < self.k {
            self.hits.push(hit);
        } else if let Some(mut farthest) = self.hits.peek_mut()
            && hit < *farthest
        {
            *farthest = hit;
        }
    }

    /// Whether a hit like this one would be taken.
    #[inline]
    pub(crate) fn takes(&self, hit: &Hit) -> bool {
        self.hits.len() < self.k || self.hits.peek().is_some_and(|farthest| hit < farthest)
    }

    /// The hits, nearest first.
    pub(crate) fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec()
    }
}

/// The `k`-th highest of the scores that rows have at least: none with a lower one is among the best `k`.
pub(crate) struct KthScore {
    k: usize,
    scores: BinaryHeap<Reverse<Score>>,
    least: f32,
}

impl KthScore {
    /// For 0 there is never a least.
    pub(crate) fn new(k: usize) -> Self {
        Self { k, scores: BinaryHeap::new(), least: f32::NEG_INFINITY }
    }

    /// That score; minus infinity until there are `k`.
    #[inline]
    pub(crate) fn least(&self) -> f32 {
        self.least
    }

    /// Offers the score that one more row has at least.
    #[inline]
    pub(crate) fn push(&mut self, score: f32) {
        if self.scores.len() < self.k {
            self.scores.push(Reverse(Score(score)));
        } else if let Some(mut least) = self.scores.peek_mut()
            && least.0.0 < score
        {
            *least = Reverse(Score(score));
        }
        if self.scores.len() == self.k {
            self.least = self.scores.peek().map_or(f32::NEG_INFINITY, |least| least.0.0);
        }
    }
}

/// A number in its total order.
struct Score(f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_nearest_and_of_equals_the_first() {
        let mut nearest = Nearest::new(3);
        let distances = [5.0, f64::NAN, 2.0, 2.0, 9.0, -1.0, 2.0, 0.0];
        for (i, &distance) in distances.iter().enumerate() {
            assert_eq!(nearest.takes(&Hit { distance: 5.5, ordinal: 0 }), i < 4);
            nearest.push(Hit { distance, ordinal: i as u32 });
        }
        let found: Vec<u32> = nearest.into_sorted().iter().map(|hit| hit.ordinal).collect();
        assert_eq!(found, [5, 7, 2]);
    }
}
