//! How does a node get its links? Malkov & Yashunin 2018: algorithm 1 (insert) with 2 (search of a level) and 4 (choice).

use super::beam::{Beam, Marks};
use super::graph::Graph;
use super::space::Space;

/// What a thread needs while it inserts; kept, so that nothing is allocated for each node.
pub(super) struct Inserter<'a, S: Space> {
    space: &'a S,
    graph: &'a Graph,
    /// Candidates that are kept while links are looked for.
    ef: usize,
    from: S::From,
    other: S::From,
    beam: Beam,
    marks: Marks,
    links: Vec<u32>,
    fresh: Vec<u32>,
    distances: Vec<f32>,
    near: Vec<(f32, u32)>,
    chosen: Vec<u32>,
    /// Level, distance and node of each new link.
    of_levels: Vec<(u8, f32, u32)>,
}

impl<'a, S: Space> Inserter<'a, S> {
    pub(super) fn new(space: &'a S, graph: &'a Graph, ef: usize) -> Self {
        Self {
            space,
            graph,
            ef,
            from: S::From::default(),
            other: S::From::default(),
            beam: Beam::default(),
            marks: Marks::default(),
            links: Vec::new(),
            fresh: Vec::new(),
            distances: Vec::new(),
            near: Vec::new(),
            chosen: Vec::new(),
            of_levels: Vec::new(),
        }
    }

    /// Links `node` with those that are reached from `entry`, which is on the highest level and has its place already.
    pub(super) fn insert(&mut self, node: u32, entry: u32) {
        let (graph, top) = (self.graph, self.graph.levels[entry as usize]);
        self.space.set(&mut self.from, node);
        let mut start = (self.distance(entry), entry);
        let level = graph.levels[node as usize].min(top);
        for above in (level + 1..=top).rev() {
            start = self.descend(start, above);
        }
        self.near.clear();
        self.near.push(start);
        let mut links = std::mem::take(&mut self.of_levels);
        links.clear();
        for level in (0..=level).rev() {
            self.search(level);
            let mut near = std::mem::take(&mut self.near);
            self.choose(&near, graph.m);
            for &to in &self.chosen {
                let distance = near.iter().find(|found| found.1 == to).map_or(0.0, |found| found.0);
                links.push((level, distance, to));
            }
            near.truncate(self.ef);
            self.near = near;
        }
        // Written from the lowest level up: who comes to the node on one level finds its links on those below.
        for links in links.chunk_by(|a, b| a.0 == b.0).rev() {
            self.link(node, links);
        }
        self.of_levels = links;
    }

    fn distance(&self, node: u32) -> f32 {
        let mut out = [0.0];
        self.space.distances(&self.from, &[node], &mut out);
        out[0]
    }

    /// The node of a level that is nearest, as far as walking on always to the nearest neighbour tells.
    fn descend(&mut self, mut nearest: (f32, u32), level: u8) -> (f32, u32) {
        loop {
            let before = nearest.1;
            self.graph.read(before, level, &mut self.links);
            self.distances.resize(self.links.len(), 0.0);
            self.space.distances(&self.from, &self.links, &mut self.distances);
            for (&distance, &link) in self.distances.iter().zip(&self.links) {
                if distance < nearest.0 {
                    nearest = (distance, link);
                }
            }
            if nearest.1 == before {
                return nearest;
            }
        }
    }

    /// Replaces `near` by the `ef` nearest that are reached from it, nearest first.
    fn search(&mut self, level: u8) {
        self.beam.reset(self.ef);
        self.marks.reset(self.graph.levels.len());
        for &(distance, node) in &self.near {
            self.marks.set(node);
            self.beam.push(distance, node);
        }
        while let Some((_, node)) = self.beam.take() {
            self.fresh.clear();
            self.graph.read(node, level, &mut self.links);
            for &link in &self.links {
                if self.marks.set(link) {
                    self.fresh.push(link);
                }
            }
            self.distances.resize(self.fresh.len(), 0.0);
            self.space.distances(&self.from, &self.fresh, &mut self.distances);
            let limit = self.beam.limit();
            for (&distance, &link) in self.distances.iter().zip(&self.fresh) {
                if distance < limit {
                    self.beam.push(distance, link);
                }
            }
        }
        self.near.clear();
        self.near.extend(self.beam.nodes());
    }

    /// Chooses at most `count` of `near` (ascending): those nearer to the node than to any chosen before. Algorithm 4.
    fn choose(&mut self, near: &[(f32, u32)], count: usize) {
        /// Chosen ones that are compared at once: many candidates fall to the first few.
        const AT_ONCE: usize = 4;
        self.chosen.clear();
        for &(distance, node) in near {
            if self.chosen.len() == count {
                break;
            }
            if !self.chosen.is_empty() {
                self.space.set(&mut self.other, node);
            }
            let apart = self.chosen.chunks(AT_ONCE).all(|chosen| {
                let mut distances = [0.0; AT_ONCE];
                self.space.distances(&self.other, chosen, &mut distances[..chosen.len()]);
                distances[..chosen.len()].iter().all(|&between| between >= distance)
            });
            if apart {
                self.chosen.push(node);
            }
        }
    }

    /// Gives `node` new links on one level, beside those that others gave it meanwhile, and links them back.
    fn link(&mut self, node: u32, links: &[(u8, f32, u32)]) {
        let (graph, level) = (self.graph, links[0].0);
        {
            let _guard = graph.lock(node);
            graph.read(node, level, &mut self.links);
            self.chosen.clear();
            self.chosen.extend(links.iter().map(|&(.., to)| to));
            let chosen = self.chosen.len();
            self.chosen.extend(self.links.iter().filter(|to| !links.iter().any(|(.., new)| new == *to)));
            self.chosen.truncate(graph.room(level).max(chosen));
            graph.write(node, level, &self.chosen);
        }
        for &(_, distance, to) in links {
            self.link_back(to, node, distance, level);
        }
    }

    /// Links `from` to `to`, which drops links that the new one makes needless if it has no place left.
    fn link_back(&mut self, from: u32, to: u32, distance: f32, level: u8) {
        let (graph, space) = (self.graph, self.space);
        let _guard = graph.lock(from);
        graph.read(from, level, &mut self.links);
        if self.links.contains(&to) {
            return;
        }
        let room = graph.room(level);
        if self.links.len() < room {
            self.links.push(to);
            graph.write(from, level, &self.links);
            return;
        }
        space.set(&mut self.other, from);
        self.distances.resize(self.links.len(), 0.0);
        space.distances(&self.other, &self.links, &mut self.distances);
        let mut near: Vec<(f32, u32)> = self.distances.iter().copied().zip(self.links.iter().copied()).collect();
        near.push((distance, to));
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let chosen = std::mem::take(&mut self.chosen);
        self.choose(&near, room);
        graph.write(from, level, &self.chosen);
        self.chosen = chosen;
    }
}
