//! The k best rows seen so far, in a total order: sort keys first, primary key last.

use std::collections::BinaryHeap;

use arrow::compute::SortOptions;
use mvvd_storage::Place;

/// One row with its sort keys. Ordered by `first`, then `rest`; smaller is better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// The first sort key as [`order_f64`] encodes it, or 0 where it is not a number of type f64.
    pub(crate) first: u64,
    /// The remaining keys and the primary key in Arrow's row format, which compares as bytes.
    pub(crate) rest: Box<[u8]>,
    /// Where the row is. Never decides: the rows before differ in their primary key or row number.
    pub(crate) place: PlaceOrd,
}

/// A [`Place`] with an order, so that [`Candidate`] has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlaceOrd(pub(crate) u32, pub(crate) u32);

impl From<PlaceOrd> for Place {
    fn from(place: PlaceOrd) -> Self {
        Self { chunk: place.0, ordinal: place.1 }
    }
}

/// A bounded heap: keeps the `k` smallest candidates.
#[derive(Debug)]
pub(crate) struct Heap {
    k: usize,
    worst_first: BinaryHeap<Candidate>,
}

impl Heap {
    /// An empty heap for `k` candidates.
    pub(crate) fn new(k: usize) -> Self {
        Self { k, worst_first: BinaryHeap::new() }
    }

    /// The first key of the worst candidate once there are k: a row whose first key is larger cannot win.
    pub(crate) fn bound(&self) -> u64 {
        match self.worst_first.peek() {
            Some(worst) if self.worst_first.len() == self.k => worst.first,
            _ => u64::MAX,
        }
    }

    /// Offers one candidate.
    pub(crate) fn push(&mut self, candidate: Candidate) {
        if self.worst_first.len() < self.k {
            self.worst_first.push(candidate);
        } else if let Some(mut worst) = self.worst_first.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// The k best of both.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        other.worst_first.into_iter().for_each(|candidate| self.push(candidate));
        self
    }

    /// The candidates, best first.
    pub(crate) fn into_sorted(self) -> Vec<Candidate> {
        self.worst_first.into_sorted_vec()
    }
}

/// A number as an unsigned integer of the same order under `options`.
///
/// NaN is larger than every other number, as in PostgreSQL; NULL stands before or after everything; zeros are equal.
pub(crate) fn order_f64(value: Option<f64>, options: SortOptions) -> u64 {
    let Some(value) = value else {
        return if options.nulls_first { 0 } else { u64::MAX };
    };
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = value.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    if options.descending { !ordered } else { ordered }
}

/// The number behind a [`Heap::bound`], where every NULL and NaN lies beyond it; none where there is no such number.
pub(crate) fn value_of_bound(bound: u64, options: SortOptions) -> Option<f64> {
    if options.descending || options.nulls_first {
        return None;
    }
    let bits = if bound >> 63 == 1 { bound ^ 1 << 63 } else { !bound };
    Some(f64::from_bits(bits)).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(first: u64, key: u8) -> Candidate {
        Candidate { first, rest: Box::new([key]), place: PlaceOrd(0, u32::from(key)) }
    }

    #[test]
    fn order_of_special_values() {
        let asc = SortOptions { descending: false, nulls_first: false };
        let values = [f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE, 0.0, 1e-300, 1.0, f64::INFINITY, f64::NAN];
        let keys: Vec<u64> = values.iter().map(|v| order_f64(Some(*v), asc)).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
        assert_eq!(order_f64(Some(-0.0), asc), order_f64(Some(0.0), asc));
        assert_eq!(order_f64(Some(-f64::NAN), asc), order_f64(Some(f64::NAN), asc));
        assert!(order_f64(None, asc) > order_f64(Some(f64::NAN), asc));
        for value in [-1.5, 0.0, 1e-300, 7.25] {
            assert_eq!(value_of_bound(order_f64(Some(value), asc), asc), Some(value));
        }
        assert_eq!(value_of_bound(u64::MAX, asc), None, "no bound yet");
        assert_eq!(value_of_bound(order_f64(Some(f64::NAN), asc), asc), None);
        let desc = SortOptions { descending: true, nulls_first: false };
        assert!(order_f64(Some(2.0), desc) < order_f64(Some(1.0), desc));
        assert!(order_f64(None, desc) > order_f64(Some(f64::NEG_INFINITY), desc));
        assert!(order_f64(None, SortOptions { descending: true, nulls_first: true }) < order_f64(Some(f64::NAN), desc));
    }

    proptest! {
        #[test]
        fn keeps_the_k_smallest(keys in prop::collection::vec((0u64..20, 0u8..255), 0..200), k in 1usize..30, cut in 0usize..200) {
            let all: Vec<Candidate> = keys.iter().map(|&(first, key)| candidate(first, key)).collect();
            let (left, right) = all.split_at(cut.min(all.len()));
            let fill = |part: &[Candidate]| {
                let mut heap = Heap::new(k);
                part.iter().cloned().for_each(|c| heap.push(c));
                heap
            };
            let mut expected = all.clone();
            expected.sort();
            expected.truncate(k);
            prop_assert_eq!(fill(left).merge(fill(right)).into_sorted(), expected);
        }
    }
}
