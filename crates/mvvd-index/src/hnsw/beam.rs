//! Which nodes come next in a search? A sorted array of the nearest ones, and marks on those that were seen.

/// No node.
pub(super) const NONE: u32 = u32::MAX;
/// Node numbers stay below this, so that a key has a bit to spare.
pub(super) const NODES_MAX: usize = 1 << 31;

/// A distance, 0 if it is below, and a node, as one number that sorts by distance. The lowest bit is left for a mark.
#[inline(always)]
pub(super) fn key(distance: f32, node: u32) -> u64 {
    u64::from(distance.max(0.0).to_bits()) << 32 | u64::from(node) << 1
}

/// What [`key`] was made of.
#[inline(always)]
pub(super) fn parts(key: u64) -> (f32, u32) {
    (f32::from_bits((key >> 32) as u32), (key as u32) >> 1)
}

/// The nearest nodes of those offered, sorted. For some hundreds an array beats a heap.
#[derive(Debug, Default)]
pub(super) struct Beam {
    keys: Vec<u64>,
    size: usize,
    /// All before it were taken.
    next: usize,
}

impl Beam {
    /// Empties it and sets how many nodes it holds, at least 1.
    pub(super) fn reset(&mut self, size: usize) {
        self.keys.clear();
        self.size = size.max(1);
        self.next = 0;
    }

    /// What a distance must be below to get in.
    #[inline(always)]
    pub(super) fn limit(&self) -> f32 {
        match self.keys.last() {
            Some(&last) if self.keys.len() == self.size => f32::from_bits((last >> 32) as u32),
            _ => f32::INFINITY,
        }
    }

    /// The distance of the farthest of the `count` nearest; infinite while there are fewer.
    #[inline(always)]
    pub(super) fn farthest_of(&self, count: usize) -> f32 {
        self.keys.get(count.saturating_sub(1)).map_or(f32::INFINITY, |&key| f32::from_bits((key >> 32) as u32))
    }

    /// Offers a node; a distance below 0 counts as 0. False if it was not near enough, or is there with this distance.
    #[inline]
    pub(super) fn push(&mut self, distance: f32, node: u32) -> bool {
        let key = key(distance, node);
        let at = self.keys.partition_point(|&other| other < key);
        if self.keys.get(at).is_some_and(|&other| other | 1 == key | 1) {
            return false;
        }
        if self.keys.len() == self.size {
            if at == self.size {
                return false;
            }
            self.keys.pop();
        }
        self.keys.insert(at, key);
        self.next = self.next.min(at);
        true
    }

    /// The nearest node that was not taken yet, which is taken now.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(f32, u32)> {
        let rest = &mut self.keys[self.next..];
        let Some(at) = rest.iter().position(|key| key & 1 == 0) else {
            self.next = self.keys.len();
            return None;
        };
        rest[at] |= 1;
        let found = parts(rest[at]);
        self.next += at + 1;
        Some(found)
    }

    /// The node that [`Beam::take`] would give.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        self.keys[self.next..].iter().find(|&&key| key & 1 == 0).map(|&key| parts(key).1)
    }

    /// The nodes, nearest first.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (f32, u32)> {
        self.keys.iter().map(|&key| parts(key))
    }
}

/// Marks on nodes that can all be taken off at once.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: Vec<u8>,
    round: u8,
}

impl Marks {
    /// No mark on any of `nodes` nodes.
    pub(super) fn reset(&mut self, nodes: usize) {
        self.round = self.round.wrapping_add(1);
        if self.round == 0 || self.marks.len() != nodes {
            self.marks.clear();
            self.marks.resize(nodes, 0);
            self.round = 1;
        }
    }

    /// Marks a node; false if it was marked.
    #[inline(always)]
    pub(super) fn set(&mut self, node: u32) -> bool {
        std::mem::replace(&mut self.marks[node as usize], self.round) != self.round
    }

    #[inline(always)]
    pub(super) fn has(&self, node: u32) -> bool {
        self.marks[node as usize] == self.round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beam_is_a_sorted_list_cut_off() {
        let mut beam = Beam::default();
        beam.reset(4);
        for (i, distance) in [5.0, 1.0, 3.0, 9.0, 2.0, 8.0, 0.5].into_iter().enumerate() {
            beam.push(distance, i as u32);
        }
        assert_eq!(beam.nodes().collect::<Vec<_>>(), [(0.5, 6), (1.0, 1), (2.0, 4), (3.0, 2)]);
        assert_eq!((beam.limit(), beam.take(), beam.peek()), (3.0, Some((0.5, 6)), Some(1)));
        assert_eq!([1, 2, 4, 5].map(|count| beam.farthest_of(count)), [0.5, 1.0, 3.0, f32::INFINITY]);
        assert!(!beam.push(0.5, 6), "is there, and taken");
        assert!(beam.push(-1.0, 9), "before all that were taken");
        assert_eq!(
            [beam.take(), beam.take(), beam.take(), beam.take()],
            [Some((0.0, 9)), Some((1.0, 1)), Some((2.0, 4)), None]
        );
        assert!(!beam.push(f32::INFINITY, 3) && !beam.push(7.0, 3));
    }

    #[test]
    fn marks_are_taken_off_at_once() {
        let mut marks = Marks::default();
        for _ in 0..600 {
            marks.reset(3);
            assert!(!marks.has(1) && marks.set(1) && marks.has(1) && !marks.set(1) && !marks.has(2));
        }
        marks.reset(5);
        assert!(marks.set(4));
    }
}
