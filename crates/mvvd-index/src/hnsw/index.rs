//! An index that is open: the parts of a graph, and what searches share.

use std::sync::{Mutex, PoisonError};

use arrow::buffer::{Buffer, ScalarBuffer};
use mvvd_core::kernels::BLOCK_ROWS;
use mvvd_core::{Ordinal, Result};

use super::graph::upper_starts;
use super::guide::{ByCodes, Coded, Distances, Scratch};
use super::layout::{Codes, Records};
use super::twins::Twins;
use super::{NONE, Settings, cursor, extend};
use crate::calibrate::{Curve, K};
use crate::codec::sq8::Sq8;
use crate::euclid::Euclid;
use crate::kind::{Build, Cursor, VectorIndex, without_codes};
use crate::request::{Effort, Hit, Query, Request, Term};
use crate::rotate::Rotation;
use crate::vectors::Vectors;

/// Scratches that are kept for later searches.
const SCRATCHES_MAX: usize = 16;
/// The recall that is aimed for where nothing is said.
const RECALL: f32 = 0.95;
/// Candidates where nothing was measured.
const EF: usize = 40;

/// A graph over the rows of a column.
#[derive(Debug)]
pub(super) struct Hnsw {
    pub(super) settings: Settings,
    pub(super) seed: u64,
    pub(super) rows: usize,
    /// The row of each node, ascending.
    pub(super) ordinals: ScalarBuffer<Ordinal>,
    pub(super) twins: Twins,
    pub(super) coding: Option<(Euclid, Sq8)>,
    pub(super) rotation: Option<Rotation>,
    pub(super) records: Records,
    /// On the highest level.
    pub(super) entry: u32,
    pub(super) upper: Upper,
    pub(super) entries: Entries,
    pub(super) curve: Curve,
    scratches: Mutex<Vec<Scratch>>,
}

/// The links of the levels above the lowest.
#[derive(Debug)]
pub(super) struct Upper {
    m: usize,
    pub(super) levels: ScalarBuffer<u8>,
    /// Where the links of a node on level 1 are; those on the levels above follow.
    at: Vec<u32>,
    pub(super) links: ScalarBuffer<u32>,
}

impl Upper {
    /// Of nodes of these levels, as a [`super::graph::Graph`] has them.
    pub(super) fn new(m: usize, levels: ScalarBuffer<u8>, links: ScalarBuffer<u32>) -> Self {
        let (at, _) = upper_starts(&levels, m);
        Self { m, levels, at, links }
    }

    /// The links of a node on a level, 1 or higher, that it is on.
    pub(super) fn links(&self, node: u32, level: u8) -> impl Iterator<Item = u32> {
        let start = self.at[node as usize] as usize + (usize::from(level) - 1) * self.m;
        self.links[start..][..self.m].iter().copied().take_while(|&link| link != NONE)
    }
}

/// Nodes at which a search by RaBitQ codes may start, coded around the centre in blocks of 32.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    pub(super) nodes: ScalarBuffer<u32>,
    pub(super) factors: ScalarBuffer<f32>,
    pub(super) codes: Buffer,
}

impl Default for Entries {
    fn default() -> Self {
        Self { nodes: Vec::new().into(), factors: Vec::new().into(), codes: Buffer::default() }
    }
}

impl Entries {
    /// Nodes, factors and codes of each block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&[u32], &[f32; 2 * BLOCK_ROWS], &[u8])> {
        let (factors, _) = self.factors.as_chunks::<{ 2 * BLOCK_ROWS }>();
        let width = (self.codes.len() / factors.len().max(1)).max(1);
        self.nodes.chunks(BLOCK_ROWS).zip(factors).zip(self.codes.chunks(width)).map(|((nodes, f), c)| (nodes, f, c))
    }
}

impl Hnsw {
    #[expect(clippy::too_many_arguments, reason = "the parts of an index, each of its own type")]
    pub(super) fn new(
        settings: Settings,
        seed: u64,
        rows: usize,
        ordinals: ScalarBuffer<Ordinal>,
        twins: Twins,
        coding: Option<(Euclid, Sq8)>,
        records: Records,
        entry: u32,
        upper: Upper,
        entries: Entries,
    ) -> Self {
        let dims = coding.as_ref().map_or(0, |(euclid, _)| euclid.dims());
        let rotation = (settings.codes == Codes::RaBitQ).then(|| Rotation::new(dims, seed));
        let (curve, scratches) = (Curve::default(), Mutex::default());
        Self {
            settings,
            seed,
            rows,
            ordinals,
            twins,
            coding,
            rotation,
            records,
            entry,
            upper,
            entries,
            curve,
            scratches,
        }
    }

    /// Number of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.ordinals.len()
    }

    /// Number of rows that can be found.
    pub(super) fn findable_rows(&self) -> usize {
        self.nodes() + self.twins.len()
    }

    /// The node of a row.
    fn node_of(&self, row: Ordinal) -> Option<u32> {
        self.ordinals.binary_search(&row).map(|node| node as u32).ok().or_else(|| self.twins.node_of(row))
    }

    /// Candidates that a search keeps.
    pub(super) fn ef(&self, request: &Request<'_>) -> usize {
        let effort = request.effort;
        let measured = |target: f32| self.curve.effort(target);
        if let Some(ef) = effort.ef_search {
            return ef.max(request.k);
        }
        let ef = measured(effort.recall_target.unwrap_or(RECALL)).unwrap_or(EF);
        // Recall was measured for so many rows; of more, some lie beyond the way to the nearest, and of fewer a miss weighs
        // more. Estimates lead less straight.
        let for_each = if self.settings.codes == Codes::RaBitQ { 6 } else { 4 };
        ef.max(request.k.max(K).saturating_mul(for_each))
    }

    /// Lends what a search needs in memory.
    pub(super) fn scratch(&self) -> Scratch {
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes it back.
    pub(super) fn give_back(&self, scratch: Scratch) {
        let mut scratches = self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        if scratches.len() < SCRATCHES_MAX {
            scratches.push(scratch);
        }
    }
}

impl VectorIndex for Hnsw {
    fn rows(&self) -> usize {
        self.rows
    }

    fn findable(&self, _: usize) -> Option<usize> {
        Some(self.findable_rows())
    }

    fn memory_bytes(&self) -> usize {
        let upper = self.upper.levels.len() + 4 * (self.upper.at.len() + self.upper.links.len());
        let entries = 4 * (self.entries.nodes.len() + self.entries.factors.len()) + self.entries.codes.len();
        self.records.bytes().len() + 4 * self.ordinals.len() + self.twins.memory_bytes() + upper + entries
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        let term = request.single_term(self.settings.metric)?;
        self.nearest(columns, request, term)
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        let term = request.single_term(self.settings.metric)?;
        cursor::open(self, columns, request, term)
    }

    fn estimates(&self, _: &[Vectors<'_>], term: &Term, ordinals: &[Ordinal]) -> Result<Vec<f64>> {
        let request = Request { terms: std::slice::from_ref(term), k: 1, filter: None, effort: Effort::default() };
        request.single_term(self.settings.metric)?;
        let (Some((euclid, _)), Query::Dense(query)) = (&self.coding, &term.query) else {
            return Err(without_codes());
        };
        let mut estimates = vec![f64::NAN; ordinals.len()];
        let mut coded = Coded::default();
        if !coded.set(self, query) {
            return Ok(estimates);
        }
        let found = ordinals.iter().enumerate();
        let found = found.filter_map(|(i, &row)| Some((i, self.node_of(row)?)));
        let (places, nodes): (Vec<usize>, Vec<u32>) = found.unzip();
        let mut squares = vec![0.0; nodes.len()];
        ByCodes { index: self, query: &coded }.distances(&nodes, &mut squares);
        for (place, square) in places.into_iter().zip(squares) {
            estimates[place] = f64::from(term.weight) * euclid.distance(square, query);
        }
        Ok(estimates)
    }

    fn extended(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Vec<u8>>> {
        extend::extended(self, &columns[0], build)
    }
}
