//! What does a graph in the making look like? Rows of links of a fixed size on every level, written by many threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::beam::NONE;
use crate::rotate::Random;

/// Levels above the lowest: enough for more nodes than there can be.
const LEVEL_MAX: u8 = 15;
/// Nodes share so many locks; nobody holds two.
const LOCKS: usize = 1 << 12;

/// Who links to whom. Malkov & Yashunin 2018: every node is on level 0, and a share of 1/m of each level also on the next.
pub(super) struct Graph {
    /// Links of a node on level 0.
    pub(super) degree: usize,
    /// Links of a node on the other levels.
    pub(super) m: usize,
    pub(super) levels: Vec<u8>,
    /// Where the links of a node on level 1 are; those on the levels above follow.
    upper_at: Vec<u32>,
    base: Vec<AtomicU32>,
    upper: Vec<AtomicU32>,
    locks: Vec<Mutex<()>>,
}

/// Where the links of each node of these levels start among those of the upper levels, `m` a level, and where all end.
pub(super) fn upper_starts(levels: &[u8], m: usize) -> (Vec<u32>, u32) {
    let mut end = 0;
    let start = |&level: &u8| {
        let start = end;
        end += u32::from(level) * m as u32;
        start
    };
    let starts = levels.iter().map(start).collect();
    (starts, end)
}

impl Graph {
    /// Nodes without links.
    pub(super) fn new(degree: usize, m: usize, levels: Vec<u8>) -> Self {
        let (upper_at, end) = upper_starts(&levels, m);
        let empty = |count: usize| (0..count).map(|_| AtomicU32::new(NONE)).collect();
        let base = empty(levels.len() * degree);
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Self { degree, m, upper_at, base, upper: empty(end as usize), locks, levels }
    }

    /// The links of a node on a level that it is on, up to the first [`NONE`].
    pub(super) fn links(&self, node: u32, level: u8) -> &[AtomicU32] {
        match level {
            0 => &self.base[node as usize * self.degree..][..self.degree],
            _ => {
                let start = self.upper_at[node as usize] as usize + (usize::from(level) - 1) * self.m;
                &self.upper[start..][..self.m]
            }
        }
    }

    /// Most links of a node on a level.
    pub(super) fn room(&self, level: u8) -> usize {
        if level == 0 { self.degree } else { self.m }
    }

    /// Copies the links of a node.
    pub(super) fn read(&self, node: u32, level: u8, out: &mut Vec<u32>) {
        out.clear();
        out.extend(
            self.links(node, level).iter().map(|link| link.load(Ordering::Relaxed)).take_while(|&to| to != NONE),
        );
    }

    /// Replaces the links of a node, whose lock the caller holds if others may write them too.
    pub(super) fn write(&self, node: u32, level: u8, links: &[u32]) {
        let padded = links.iter().copied().chain(std::iter::repeat(NONE));
        for (slot, link) in self.links(node, level).iter().zip(padded) {
            slot.store(link, Ordering::Relaxed);
        }
    }

    /// Keeps others from writing the links of a node.
    pub(super) fn lock(&self, node: u32) -> MutexGuard<'_, ()> {
        // Links are never half-written in a way that matters, so a panic elsewhere does not spoil them.
        self.locks[node as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Links of the other levels, in the order of nodes.
    pub(super) fn upper(&self) -> Vec<u32> {
        self.upper.iter().map(|link| link.load(Ordering::Relaxed)).collect()
    }

    /// The links of [`Graph::upper`] of a graph whose nodes are the first ones of this.
    pub(super) fn set_upper(&self, links: &[u32]) {
        for (slot, &link) in self.upper.iter().zip(links) {
            slot.store(link, Ordering::Relaxed);
        }
    }
}

/// The level of a node, which a seed decides: 0 for all but 1/m, 1 for all but 1/m of these, and so on.
pub(super) fn level_of(seed: u64, node: u32, m: usize) -> u8 {
    let mut random = Random::new(seed ^ u64::from(node).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut level = 0;
    while level < LEVEL_MAX && random.below(m) == 0 {
        level += 1;
    }
    level
}
