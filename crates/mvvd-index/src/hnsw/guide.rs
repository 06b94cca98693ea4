//! How does a search see the graph? Where it starts, and how far a node's neighbours are: estimated, coded or exact.

use mvvd_core::kernels::{self, BLOCK_ROWS, EstimateScale};

use super::NONE;
use super::beam::{Beam, Marks};
use super::index::Hnsw;
use super::space::{BATCH, raw_distances};
use crate::codec::rabitq::BitQuery;
use crate::codec::sq8;
use crate::request::Query;
use crate::vectors::Vectors;

/// Nodes at which a search by RaBitQ codes starts.
const STARTS: usize = 4;

/// What a search needs in memory; kept, so that nothing is allocated for each query.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) beam: Beam,
    pub(super) found: Beam,
    pub(super) marks: Marks,
    /// Nodes that were measured by their own code.
    pub(super) measured: Marks,
    pub(super) near: Vec<u32>,
    pub(super) distances: Vec<f32>,
    pub(super) query: Coded,
}

/// A query in all forms that codes are measured by.
#[derive(Debug, Default)]
pub(super) struct Coded {
    image: Vec<f32>,
    rotated: Vec<f32>,
    own: sq8::Query,
    bits: BitQuery,
    /// How sums become estimates.
    scale: EstimateScale,
}

/// The way through a graph towards one query.
pub(super) trait Guide {
    /// Whether neighbours are only estimated, so that a node may be met several times with several distances, counts as
    /// seen once it is visited, and its distance is known then.
    const ESTIMATES: bool;

    /// Tells the nodes to start with.
    fn starts(&mut self, marks: &mut Marks, near: impl FnMut(f32, u32));

    /// Visits `node`, which was met with the distance `met`, and gives its distance. Tells those of its neighbours that are below `limit` and not marked.
    fn visit(&mut self, node: u32, met: f32, limit: f32, marks: &mut Marks, near: impl FnMut(f32, u32)) -> f32;

    /// The distances of nodes, as [`Guide::visit`] gives them.
    fn measure(&self, nodes: &[u32], out: &mut [f32]);

    /// Asks for what a visit reads.
    fn prefetch(&self, node: u32);
}

impl Coded {
    /// Becomes the forms of `query`; false if it has none.
    pub(super) fn set(&mut self, index: &Hnsw, query: &[f32]) -> bool {
        let (euclid, sq8) = index.coding.as_ref().expect("a graph over codes");
        self.image.resize(euclid.dims(), 0.0);
        if !euclid.query(query, &mut self.image) {
            return false;
        }
        sq8.query(&self.image, &mut self.own);
        if let Some(rotation) = &index.rotation {
            self.image.iter_mut().zip(sq8.centre()).for_each(|(x, c)| *x -= c);
            self.rotated.resize(rotation.padded(), 0.0);
            rotation.rotate(&self.image, &mut self.rotated);
            self.bits.set(&self.rotated);
            let bound = self.bits.scale(1.0, 0.0, 0.0);
            let square = self.image.iter().map(|x| x * x).sum();
            self.scale = EstimateScale { centre: square, step: bound.step, base: bound.base };
        }
        true
    }
}

/// By the codes of neighbours that lie in a node's record.
pub(super) struct ByEstimates<'a> {
    pub(super) index: &'a Hnsw,
    pub(super) query: &'a Coded,
}

impl Guide for ByEstimates<'_> {
    const ESTIMATES: bool = true;

    fn starts(&mut self, _: &mut Marks, mut near: impl FnMut(f32, u32)) {
        let mut best = [(f32::INFINITY, NONE); STARTS];
        let mut estimates = [0.0; BLOCK_ROWS];
        for (nodes, factors, codes) in self.index.entries.blocks() {
            let limit = best[STARTS - 1].0;
            let tables = &self.query.bits.tables;
            let mut mask = kernels::estimate_block(codes, tables, factors, &self.query.scale, limit, &mut estimates);
            while mask != 0 {
                let i = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let Some(&node) = nodes.get(i) else { continue };
                if estimates[i] < best[STARTS - 1].0 {
                    best[STARTS - 1] = (estimates[i], node);
                    best.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                }
            }
        }
        for (distance, node) in best {
            if node != NONE {
                near(distance, node);
            }
        }
    }

    #[inline]
    fn visit(&mut self, node: u32, _: f32, limit: f32, marks: &mut Marks, mut near: impl FnMut(f32, u32)) -> f32 {
        let records = &self.index.records;
        let mut distance = [0.0];
        self.measure(&[node], &mut distance);
        let [distance] = distance;
        let links = records.links(node);
        let scale = EstimateScale { centre: distance, ..self.query.scale };
        let mut estimates = [0.0; BLOCK_ROWS];
        for (block, links) in links.as_chunks::<BLOCK_ROWS>().0.iter().enumerate() {
            let (factors, codes) = records.block(node, block);
            let tables = &self.query.bits.tables;
            let mut mask = kernels::estimate_block(codes, tables, factors, &scale, limit, &mut estimates);
            while mask != 0 {
                let i = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if links[i] != NONE && !marks.has(links[i]) {
                    near(estimates[i], links[i]);
                }
            }
        }
        distance
    }

    #[inline]
    fn measure(&self, nodes: &[u32], out: &mut [f32]) {
        ByCodes { index: self.index, query: self.query }.distances(nodes, out);
    }

    #[inline]
    fn prefetch(&self, node: u32) {
        kernels::prefetch(self.index.records.record(node));
    }
}

/// Distances of nodes.
pub(super) trait Distances {
    fn index(&self) -> &Hnsw;
    fn distances(&self, nodes: &[u32], out: &mut [f32]);
}

/// By each neighbour's own code.
pub(super) struct ByCodes<'a> {
    pub(super) index: &'a Hnsw,
    pub(super) query: &'a Coded,
}

impl Distances for ByCodes<'_> {
    fn index(&self) -> &Hnsw {
        self.index
    }

    #[inline]
    fn distances(&self, nodes: &[u32], out: &mut [f32]) {
        let (records, own) = (&self.index.records, &self.query.own);
        let mut dots = [0; BATCH];
        for (nodes, out) in nodes.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let dots = &mut dots[..nodes.len()];
            own.dots_at(records.own_codes(), nodes, dots);
            for ((out, &dot), &node) in out.iter_mut().zip(&*dots).zip(nodes) {
                *out = own.square_distance(dot, records.own_factors(node));
            }
        }
    }
}

/// By the vectors.
pub(super) struct ByVectors<'a> {
    pub(super) index: &'a Hnsw,
    pub(super) vectors: &'a Vectors<'a>,
    pub(super) query: &'a Query,
}

impl Distances for ByVectors<'_> {
    fn index(&self) -> &Hnsw {
        self.index
    }

    fn distances(&self, nodes: &[u32], out: &mut [f32]) {
        let (metric, ordinals) = (self.index.settings.metric, &self.index.ordinals);
        raw_distances(self.vectors, metric, self.query, ordinals, nodes, out);
    }
}

impl<D: Distances> Guide for D {
    const ESTIMATES: bool = false;

    /// Walks down the levels, always to the nearest neighbour.
    fn starts(&mut self, marks: &mut Marks, mut near: impl FnMut(f32, u32)) {
        let index = self.index();
        if index.nodes() == 0 {
            return;
        }
        let mut first = [0.0];
        self.distances(&[index.entry], &mut first);
        let mut nearest = (first[0], index.entry);
        let mut links = Vec::new();
        let mut distances = Vec::new();
        for level in (1..=index.upper.levels[index.entry as usize]).rev() {
            loop {
                let before = nearest.1;
                links.clear();
                links.extend(index.upper.links(before, level));
                distances.resize(links.len(), 0.0);
                self.distances(&links, &mut distances);
                for (&distance, &link) in distances.iter().zip(&links) {
                    if distance < nearest.0 {
                        nearest = (distance, link);
                    }
                }
                if nearest.1 == before {
                    break;
                }
            }
        }
        marks.set(nearest.1);
        near(nearest.0, nearest.1);
    }

    #[inline]
    fn visit(&mut self, node: u32, met: f32, limit: f32, marks: &mut Marks, mut near: impl FnMut(f32, u32)) -> f32 {
        let (mut fresh, mut distances) = ([0; BATCH], [0.0; BATCH]);
        for links in self.index().records.links(node).chunks(BATCH) {
            let mut count = 0;
            for &link in links.iter().take_while(|&&link| link != NONE) {
                fresh[count] = link;
                count += usize::from(marks.set(link));
            }
            self.distances(&fresh[..count], &mut distances[..count]);
            for (&distance, &link) in distances.iter().zip(&fresh[..count]) {
                if distance < limit {
                    near(distance, link);
                }
            }
        }
        met
    }

    #[inline]
    fn measure(&self, nodes: &[u32], out: &mut [f32]) {
        self.distances(nodes, out);
    }

    #[inline]
    fn prefetch(&self, node: u32) {
        let degree = self.index().records.shape.degree;
        kernels::prefetch(&self.index().records.record(node)[..4 * degree]);
    }
}
