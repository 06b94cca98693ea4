//! Which links does a node get for the places that its choice left empty? The nearest of its neighbours' neighbours.
//!
//! A block of 32 codes costs the same however many of its places are taken (Gou et al. 2024, section 4).

use super::beam::Marks;
use super::graph::Graph;
use super::space::{Coded, Space};
use crate::codec::sq8;

/// What a thread needs while it fills.
pub(super) struct Filler<'a> {
    space: Coded<'a>,
    graph: &'a Graph,
    from: sq8::Query,
    marks: Marks,
    links: Vec<u32>,
    fresh: Vec<u32>,
    distances: Vec<f32>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(space: Coded<'a>, graph: &'a Graph) -> Self {
        Self {
            space,
            graph,
            from: sq8::Query::default(),
            marks: Marks::default(),
            links: Vec::new(),
            fresh: Vec::new(),
            distances: Vec::new(),
        }
    }

    /// Adds links to those of `node` until there is no place or no candidate left.
    pub(super) fn fill(&mut self, node: u32, links: &mut Vec<u32>) {
        let room = self.graph.degree - links.len();
        if room == 0 {
            return;
        }
        self.marks.reset(self.graph.levels.len());
        self.marks.set(node);
        for &link in &*links {
            self.marks.set(link);
        }
        self.fresh.clear();
        for &link in &*links {
            self.graph.read(link, 0, &mut self.links);
            for &next in &self.links {
                if self.marks.set(next) {
                    self.fresh.push(next);
                }
            }
        }
        self.space.set(&mut self.from, node);
        self.distances.resize(self.fresh.len(), 0.0);
        self.space.distances(&self.from, &self.fresh, &mut self.distances);
        let mut near: Vec<(f32, u32)> = self.distances.iter().copied().zip(self.fresh.iter().copied()).collect();
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        links.extend(near.iter().take(room).map(|&(_, link)| link));
    }
}
