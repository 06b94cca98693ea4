//! Which rows share a node? Those whose codes are equal, or whose vectors are where there are no codes: the first of them
//! is the node's own row, the others are its twins.
//!
//! As nodes of their own, some hundreds of equal rows would fill the candidates of a search and lead to no other place.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::buffer::ScalarBuffer;
use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use super::build::Coding;
use crate::filter::Filter;
use crate::parts::corrupt;
use crate::vectors::Vectors;

/// The twins of an index.
#[derive(Debug)]
pub(super) struct Twins {
    /// Node and row of each, ascending.
    pub(super) pairs: ScalarBuffer<u32>,
    /// Their places among the pairs, by row.
    by_row: Vec<u32>,
    /// The nodes that have twins.
    nodes: Filter,
}

impl Twins {
    /// Of pairs as [`fold`] gives them, of an index of `nodes` nodes.
    pub(super) fn new(pairs: ScalarBuffer<u32>, nodes: usize) -> Self {
        let (all, _) = pairs.as_chunks::<2>();
        let mut by_row: Vec<u32> = (0..all.len() as u32).collect();
        by_row.sort_unstable_by_key(|&at| all[at as usize][1]);
        let nodes = if all.is_empty() { 0 } else { nodes };
        let nodes = Filter::of_ordinals(nodes, all.iter().map(|&[node, _]| node));
        Self { pairs, by_row, nodes }
    }

    /// Of pairs that were read: each row is there once, after the row of its node, and is no node's own.
    pub(super) fn open(pairs: ScalarBuffer<u32>, ordinals: &[Ordinal], rows: usize) -> Result<Self> {
        let (all, _) = pairs.as_chunks::<2>();
        let follows = |&[node, row]: &[u32; 2]| {
            ordinals.get(node as usize).is_some_and(|&own| own < row) && (row as usize) < rows
        };
        if !all.iter().all(follows) || !all.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("its equal rows are not in order"));
        }
        let twins = Self::new(pairs, ordinals.len());
        let once = twins.rows().is_sorted_by(|a, b| a < b);
        if !once || twins.rows().any(|row| ordinals.binary_search(&row).is_ok()) {
            return Err(corrupt("a row has two nodes"));
        }
        Ok(twins)
    }

    fn pairs(&self) -> &[[u32; 2]] {
        self.pairs.as_chunks().0
    }

    /// Number of all.
    pub(super) fn len(&self) -> usize {
        self.by_row.len()
    }

    /// Bytes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        12 * self.len() + self.nodes.rows() / 8
    }

    fn rows(&self) -> impl Iterator<Item = Ordinal> {
        self.by_row.iter().map(|&at| self.pairs()[at as usize][1])
    }

    /// The twins of a node, ascending.
    pub(super) fn of(&self, node: u32) -> impl Iterator<Item = Ordinal> {
        let pairs = if self.nodes.has(node) { self.pairs() } else { &[] };
        let start = pairs.partition_point(|pair| pair[0] < node);
        pairs[start..].iter().take_while(move |pair| pair[0] == node).map(|pair| pair[1])
    }

    /// The node of a row that is a twin.
    pub(super) fn node_of(&self, row: Ordinal) -> Option<u32> {
        let pairs = self.pairs();
        let found = self.by_row.binary_search_by_key(&row, |&at| pairs[at as usize][1]).ok()?;
        Some(pairs[self.by_row[found] as usize][0])
    }
}

/// What tells the codes, or the vectors, of two rows apart.
pub(super) type Key<'a> = (&'a [u8], [u32; 2]);

/// Takes the rows from place `start` on that equal an earlier one out of `ordinals` and `coding`. Gives the node and the
/// row of each, ascending.
pub(super) fn fold(
    column: &Vectors<'_>,
    ordinals: &mut Vec<Ordinal>,
    coding: &mut Option<Coding>,
    start: usize,
) -> Vec<[u32; 2]> {
    let mut twins = Vec::new();
    let mut kept: Vec<u32> = Vec::with_capacity(ordinals.len());
    {
        let key = |place: usize| match &*coding {
            Some(coding) => coding.key(place),
            None => (column.bytes(ordinals[place]), [0; 2]),
        };
        let hash = |place| {
            let mut hasher = DefaultHasher::new();
            key(place).hash(&mut hasher);
            hasher.finish()
        };
        let hashes: Vec<u64> = (0..ordinals.len()).into_par_iter().map(hash).collect();
        let mut firsts: HashMap<u64, u32> = HashMap::with_capacity(hashes.len());
        for (place, hash) in hashes.into_iter().enumerate() {
            let node = *firsts.entry(hash).or_insert(kept.len() as u32);
            match kept.get(node as usize) {
                Some(&first) if place >= start && key(first as usize) == key(place) => {
                    twins.push([node, ordinals[place]]);
                }
                _ => kept.push(place as u32),
            }
        }
    }
    if !twins.is_empty() {
        kept.iter().enumerate().for_each(|(to, &from)| ordinals[to] = ordinals[from as usize]);
        ordinals.truncate(kept.len());
        if let Some(coding) = coding {
            coding.keep(&kept);
        }
        twins.sort_unstable();
    }
    twins
}

#[cfg(test)]
mod tests {
    use mvvd_core::ErrorKind;

    use super::*;

    #[test]
    fn equal_rows_fold_into_the_first() {
        let values = [1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 4.0];
        let column = Vectors::of_f32(&values, 1);
        let mut ordinals: Vec<Ordinal> = vec![0, 1, 2, 4, 5, 6];
        assert_eq!(fold(&column, &mut ordinals, &mut None, 0), [[0, 2], [0, 5], [1, 4]]);
        assert_eq!(ordinals, [0, 1, 6]);
        // Those before the start stay what they are.
        let mut ordinals: Vec<Ordinal> = vec![0, 1, 2, 3, 4, 5, 6];
        assert_eq!(fold(&column, &mut ordinals, &mut None, 3), [[0, 5], [1, 4]]);
        assert_eq!(ordinals, [0, 1, 2, 3, 6]);
    }

    #[test]
    fn twins_are_known_by_node_and_by_row() {
        let twins = Twins::open(vec![0, 4, 0, 9, 2, 6].into(), &[1, 3, 5], 10).unwrap();
        let of = |node| twins.of(node).collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(2)], [vec![4, 9], vec![], vec![6]]);
        assert_eq!([4, 5, 6, 9].map(|row| twins.node_of(row)), [Some(0), None, Some(2), Some(0)]);
        let none = Twins::open(vec![].into(), &[1, 3, 5], 10).unwrap();
        assert_eq!((none.len(), none.of(1).count(), none.node_of(3)), (0, 0, None));
    }

    #[test]
    fn wrong_twins_are_corrupt() {
        let wrong: [(&str, &[u32]); 7] = [
            ("no such node", &[3, 6]),
            ("no such row", &[0, 10]),
            ("before its node", &[2, 4]),
            ("not in order", &[2, 6, 0, 4]),
            ("twice", &[0, 4, 0, 4]),
            ("of two nodes", &[0, 6, 2, 6]),
            ("a node's own", &[0, 3]),
        ];
        for (what, pairs) in wrong {
            let error = Twins::open(pairs.to_vec().into(), &[1, 3, 5], 10).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        }
    }
}
