//! How far apart are two nodes? What a graph is built over: codes of a byte a dimension, or the vectors themselves.

use std::sync::Arc;

use mvvd_core::Ordinal;
use mvvd_core::kernels::ByteRows;
use mvvd_core::metric::Metric;

use crate::codec::sq8;
use crate::request::Query;
use crate::vectors::{Values, Vectors};

/// Nodes that are measured at once.
pub(super) const BATCH: usize = 64;

/// Nodes with distances.
pub(super) trait Space: Sync {
    /// A node, prepared to be measured against others.
    type From: Default + Send;
    fn set(&self, from: &mut Self::From, node: u32);
    fn distances(&self, from: &Self::From, nodes: &[u32], out: &mut [f32]);
}

/// Squared Euclidean distances of codes.
pub(super) struct Coded<'a> {
    pub(super) codes: &'a [u8],
    pub(super) factors: &'a [sq8::Factors],
    pub(super) dims: usize,
}

impl Space for Coded<'_> {
    type From = sq8::Query;

    fn set(&self, from: &mut sq8::Query, node: u32) {
        from.set_row(&self.codes[node as usize * self.dims..][..self.dims], self.factors[node as usize]);
    }

    #[inline]
    fn distances(&self, from: &sq8::Query, nodes: &[u32], out: &mut [f32]) {
        let rows = ByteRows::dense(self.codes, self.dims);
        let mut dots = [0; BATCH];
        for (nodes, out) in nodes.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
            let dots = &mut dots[..nodes.len()];
            from.dots_at(rows, nodes, dots);
            for ((out, &dot), &node) in out.iter_mut().zip(&*dots).zip(nodes) {
                *out = from.square_distance(dot, self.factors[node as usize]);
            }
        }
    }
}

/// The distances of a metric.
pub(super) struct Raw<'a> {
    pub(super) vectors: Vectors<'a>,
    pub(super) metric: Metric,
    pub(super) ordinals: &'a [Ordinal],
}

impl Space for Raw<'_> {
    type From = Option<Query>;

    fn set(&self, from: &mut Option<Query>, node: u32) {
        let ordinal = self.ordinals[node as usize];
        *from = Some(match self.vectors.values() {
            Values::Bits(_) => Query::Bits(Arc::from(self.vectors.bytes(ordinal))),
            _ => {
                let mut values = vec![0.0; self.vectors.dims()];
                self.vectors.copy_f32(ordinal, &mut values);
                Query::Dense(Arc::from(values))
            }
        });
    }

    fn distances(&self, from: &Option<Query>, nodes: &[u32], out: &mut [f32]) {
        let query = from.as_ref().expect("a node is set before others are measured");
        raw_distances(&self.vectors, self.metric, query, self.ordinals, nodes, out);
    }
}

/// The distances of nodes in a metric, as f32.
pub(super) fn raw_distances(
    vectors: &Vectors<'_>,
    metric: Metric,
    query: &Query,
    ordinals: &[Ordinal],
    nodes: &[u32],
    out: &mut [f32],
) {
    let (mut rows, mut distances) = ([0; BATCH], [0.0; BATCH]);
    for (nodes, out) in nodes.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
        let (rows, distances) = (&mut rows[..nodes.len()], &mut distances[..nodes.len()]);
        for (row, &node) in rows.iter_mut().zip(nodes) {
            *row = ordinals[node as usize];
        }
        vectors.distances(metric, query, rows, distances);
        for (out, &distance) in out.iter_mut().zip(&*distances) {
            *out = distance as f32;
        }
    }
}
