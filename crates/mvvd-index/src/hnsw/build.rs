//! How does a graph come to be? Nodes are coded, inserted side by side, given further links, and laid out as records.

use std::sync::atomic::{AtomicU32, Ordering};

use arrow::buffer::MutableBuffer;
use mvvd_core::kernels::{self, BLOCK_ROWS};
use mvvd_core::{Ordinal, Result, VectorKind};
use rayon::prelude::*;

use super::Settings;
use super::beam::NODES_MAX;
use super::fill::Filler;
use super::graph::{Graph, level_of};
use super::index::{Entries, Hnsw, Upper};
use super::insert::Inserter;
use super::layout::{Codes, Records, Shape};
use super::space::{Coded, Raw, Space};
use super::twins::{self, Key, Twins};
use crate::calibrate::{Curve, K, Sample};
use crate::codec::rabitq::{self, Form};
use crate::codec::sq8::{self, Sq8};
use crate::euclid::Euclid;
use crate::kind::Build;
use crate::rotate::{Random, Rotation};
use crate::vectors::Vectors;

/// Rows whose sum is formed at once, so that the mean does not depend on the number of threads.
const MEAN_CHUNK: usize = 4096;
/// Nodes between two looks at whether to go on.
const CHECK_EVERY: u32 = 64;
/// Tells the random numbers of the order of insertion from others of the same seed.
const ORDER: u64 = 0x0dde_5ced;
/// Efforts whose recall is measured.
const LADDER: [usize; 14] = [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1000];

/// What a graph is made of, before it is laid out.
pub(super) struct Draft {
    pub(super) settings: Settings,
    pub(super) seed: u64,
    pub(super) rows: usize,
    /// The row of each node, ascending.
    pub(super) ordinals: Vec<Ordinal>,
    /// Node and row of each twin, ascending.
    pub(super) twins: Vec<[u32; 2]>,
    /// None over the vectors themselves.
    pub(super) coding: Option<Coding>,
    pub(super) graph: Graph,
    /// On the highest level.
    pub(super) entry: u32,
}

/// The codes of all nodes.
pub(super) struct Coding {
    pub(super) euclid: Euclid,
    pub(super) sq8: Sq8,
    pub(super) codes: Vec<u8>,
    pub(super) factors: Vec<sq8::Factors>,
}

/// A new index over `column`.
pub(super) fn build(settings: Settings, column: &Vectors<'_>, build: &Build<'_>) -> Result<Hnsw> {
    build.pool.install(|| {
        let euclid = (settings.codes != Codes::None).then(|| Euclid::of(settings.metric, column));
        let mut ordinals = usable(euclid.as_ref(), column, 0);
        let mut coding = euclid.map(|euclid| {
            let sq8 = Sq8::new(mean(&euclid, column, &ordinals));
            let mut coding = Coding { euclid, sq8, codes: Vec::new(), factors: Vec::new() };
            coding.append(column, &ordinals);
            coding
        });
        build.check()?;
        let twins = twins::fold(column, &mut ordinals, &mut coding, 0);
        build.check()?;
        let levels: Vec<u8> = (0..ordinals.len() as u32).map(|node| level_of(build.seed, node, settings.m)).collect();
        let entry = (0..levels.len()).max_by_key(|&node| (levels[node], usize::MAX - node)).unwrap_or(0) as u32;
        let graph = Graph::new(settings.degree(), settings.m, levels);
        let draft = Draft { settings, seed: build.seed, rows: column.len(), ordinals, twins, coding, graph, entry };
        draft.insert(column, 0, build)?;
        draft.finish(column, build)
    })
}

/// The rows from `start` on that can be found.
pub(super) fn usable(euclid: Option<&Euclid>, column: &Vectors<'_>, start: usize) -> Vec<Ordinal> {
    let width = euclid.map_or(column.dims(), Euclid::dims);
    let is_usable = |buffer: &mut Vec<f32>, ordinal: Ordinal| match euclid {
        Some(euclid) => euclid.row(column, ordinal, buffer),
        None if !column.is_valid(ordinal) => false,
        None if column.vector_type().kind == VectorKind::Bit => true,
        None => {
            column.copy_f32(ordinal, buffer);
            buffer.iter().all(|x| x.is_finite())
        }
    };
    let rows: Vec<Option<Ordinal>> = (start as Ordinal..column.len() as Ordinal)
        .into_par_iter()
        .map_init(|| vec![0.0; width], |buffer, ordinal| is_usable(buffer, ordinal).then_some(ordinal))
        .collect();
    rows.into_iter().flatten().take(NODES_MAX).collect()
}

fn mean(euclid: &Euclid, column: &Vectors<'_>, ordinals: &[Ordinal]) -> Vec<f32> {
    let sums: Vec<Vec<f64>> = ordinals
        .par_chunks(MEAN_CHUNK)
        .map(|ordinals| {
            let (mut image, mut sum) = (vec![0.0; euclid.dims()], vec![0.0; euclid.dims()]);
            for &ordinal in ordinals {
                euclid.row(column, ordinal, &mut image);
                sum.iter_mut().zip(&image).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            sum
        })
        .collect();
    let count = ordinals.len().max(1) as f64;
    (0..euclid.dims()).map(|i| (sums.iter().map(|sum| sum[i]).sum::<f64>() / count) as f32).collect()
}

impl Coding {
    /// Adds the codes of further rows.
    pub(super) fn append(&mut self, column: &Vectors<'_>, ordinals: &[Ordinal]) {
        let dims = self.sq8.dims();
        let start = self.factors.len();
        self.codes.resize((start + ordinals.len()) * dims, 0);
        self.factors.resize(start + ordinals.len(), sq8::Factors::default());
        let codes = self.codes[start * dims..].par_chunks_mut(dims);
        let (euclid, sq8) = (&self.euclid, &self.sq8);
        codes.zip(&mut self.factors[start..]).zip(ordinals).for_each_init(
            || vec![0.0; dims],
            |image, ((code, factors), &ordinal)| {
                euclid.row(column, ordinal, image);
                *factors = sq8.encode(image, code);
            },
        );
    }

    /// What tells the codes of two places apart.
    pub(super) fn key(&self, place: usize) -> Key<'_> {
        let sq8::Factors { scale, square } = self.factors[place];
        (&self.codes[place * self.sq8.dims()..][..self.sq8.dims()], [scale.to_bits(), square.to_bits()])
    }

    /// Keeps the codes at some places, which ascend.
    pub(super) fn keep(&mut self, places: &[u32]) {
        let dims = self.sq8.dims();
        for (to, &from) in places.iter().enumerate() {
            self.codes.copy_within(from as usize * dims..(from as usize + 1) * dims, to * dims);
            self.factors[to] = self.factors[from as usize];
        }
        self.codes.truncate(places.len() * dims);
        self.factors.truncate(places.len());
    }

    fn space(&self) -> Coded<'_> {
        Coded { codes: &self.codes, factors: &self.factors, dims: self.sq8.dims() }
    }
}

impl Draft {
    fn nodes(&self) -> u32 {
        self.ordinals.len() as u32
    }

    /// Links the nodes from `start` on.
    pub(super) fn insert(&self, column: &Vectors<'_>, start: u32, build: &Build<'_>) -> Result<()> {
        match &self.coding {
            Some(coding) => self.insert_by(&coding.space(), start, build),
            None => self.insert_by(&self.raw(column), start, build),
        }
    }

    fn raw<'a>(&'a self, column: &Vectors<'a>) -> Raw<'a> {
        Raw { vectors: *column, metric: self.settings.metric, ordinals: &self.ordinals }
    }

    fn insert_by<S: Space>(&self, space: &S, start: u32, build: &Build<'_>) -> Result<()> {
        // In an order of their own: where neighbours in the table are neighbours in space, as sorted keys often make them,
        // early nodes would never be linked across clusters. One thread alone gives the same graph every time.
        let mut order: Vec<u32> = (start..self.nodes()).collect();
        let mut random = Random::new(self.seed ^ ORDER);
        for i in 1..order.len() {
            order.swap(i, random.below(i + 1));
        }
        let next = AtomicU32::new(0);
        let results = build.pool.broadcast(|_| {
            let mut inserter = Inserter::new(space, &self.graph, self.settings.ef_construction);
            loop {
                let done = next.fetch_add(1, Ordering::Relaxed);
                let Some(&node) = order.get(done as usize) else { return Ok(()) };
                if done.is_multiple_of(CHECK_EVERY) {
                    build.check()?;
                    (build.progress)(0.8 * done as f32 / order.len() as f32);
                }
                if node != self.entry {
                    inserter.insert(node, self.entry);
                }
            }
        });
        results.into_iter().collect()
    }

    /// Lays the graph out and measures it.
    pub(super) fn finish(self, column: &Vectors<'_>, build: &Build<'_>) -> Result<Hnsw> {
        let Settings { codes, m, .. } = self.settings;
        let dims = self.coding.as_ref().map_or(0, |coding| coding.sq8.dims());
        let rotation = (codes == Codes::RaBitQ).then(|| Rotation::new(dims, self.seed));
        let padded = rotation.as_ref().map_or(0, Rotation::padded);
        let shape = Shape { codes, degree: self.settings.degree(), dims, padded };
        let mut bytes = MutableBuffer::from_len_zeroed(self.ordinals.len() * shape.stride());
        let rotated = rotation.as_ref().map(|rotation| self.rotated(column, rotation, build)).transpose()?;
        let rotated = rotated.unwrap_or_default();
        bytes.as_slice_mut().par_chunks_mut(shape.stride()).enumerate().try_for_each_init(
            || (Vec::new(), self.coding.as_ref().map(|coding| Filler::new(coding.space(), &self.graph))),
            |(links, filler), (node, record)| -> Result<()> {
                build.check()?;
                self.graph.read(node as u32, 0, links);
                if let (Codes::RaBitQ, Some(filler)) = (codes, filler) {
                    filler.fill(node as u32, links);
                }
                shape.put_links(record, links);
                if let Some(coding) = &self.coding {
                    shape.put_own(record, coding.factors[node], &coding.codes[node * dims..][..dims]);
                }
                for block in 0..shape.blocks() {
                    let links = links.iter().skip(block * BLOCK_ROWS).take(BLOCK_ROWS).copied();
                    let centre = &rotated[node * padded..][..padded];
                    let (factors, codes) = shape.block_mut(record, block);
                    code_block(links, &rotated, centre, factors, codes);
                }
                Ok(())
            },
        )?;
        (build.progress)(0.9);
        let entries = rotation.as_ref().map(|_| self.entries(&rotated, padded, shape)).unwrap_or_default();
        drop(rotated);
        let records = Records::new(shape, bytes.into());
        let upper = Upper::new(m, self.graph.levels.clone().into(), self.graph.upper().into());
        let coding = self.coding.map(|coding| (coding.euclid, coding.sq8));
        let twins = Twins::new(self.twins.into_flattened().into(), self.ordinals.len());
        let mut hnsw = Hnsw::new(
            self.settings,
            self.seed,
            self.rows,
            self.ordinals.into(),
            twins,
            coding,
            records,
            self.entry,
            upper,
            entries,
        );
        let sample = Sample::of(hnsw.settings.metric, &[*column], &[&[0]], K, build)?;
        hnsw.curve = Curve::measure(LADDER, &sample, K, |ef, query| {
            build.check()?;
            hnsw.search_with(column, &query.terms[0], K, ef)
        })?;
        (build.progress)(1.0);
        Ok(hnsw)
    }

    /// The images of all nodes without the centre, rotated.
    fn rotated(&self, column: &Vectors<'_>, rotation: &Rotation, build: &Build<'_>) -> Result<Vec<f32>> {
        let coding = self.coding.as_ref().expect("RaBitQ codes are over a Euclidean space");
        let (padded, dims) = (rotation.padded(), coding.sq8.dims());
        let mut rotated = vec![0.0; self.ordinals.len() * padded];
        rotated.par_chunks_mut(padded).zip(&self.ordinals).try_for_each_init(
            || vec![0.0; dims],
            |image, (out, &ordinal)| -> Result<()> {
                build.check()?;
                coding.euclid.row(column, ordinal, image);
                image.iter_mut().zip(coding.sq8.centre()).for_each(|(x, c)| *x -= c);
                rotation.rotate(image, out);
                Ok(())
            },
        )?;
        Ok(rotated)
    }

    /// Where searches start: nodes of the highest levels, coded around the centre.
    fn entries(&self, rotated: &[f32], padded: usize, shape: Shape) -> Entries {
        let nodes = self.nodes();
        let count = ((f64::from(nodes).sqrt() as usize).next_multiple_of(BLOCK_ROWS)).min(nodes as usize);
        let mut picked: Vec<u32> = (0..nodes).collect();
        let mut random = Random::new(self.seed);
        // The start of a random order.
        for i in 0..count {
            let other = i + random.below(picked.len() - i);
            picked.swap(i, other);
        }
        picked.truncate(count);
        let blocks = count.div_ceil(BLOCK_ROWS);
        let mut factors = vec![0.0_f32; blocks * 2 * BLOCK_ROWS];
        let mut codes = vec![0; blocks * shape.codes_bytes()];
        let centre = vec![0.0; padded];
        let mut bytes = vec![0; 2 * BLOCK_ROWS * 4];
        for ((links, factors), codes) in picked
            .chunks(BLOCK_ROWS)
            .zip(factors.chunks_mut(2 * BLOCK_ROWS))
            .zip(codes.chunks_mut(shape.codes_bytes().max(1)))
        {
            code_block(links.iter().copied(), rotated, &centre, &mut bytes, codes);
            for (factor, bytes) in factors.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *factor = f32::from_le_bytes(*bytes);
            }
        }
        Entries { nodes: picked.into(), factors: factors.into(), codes: codes.into() }
    }
}

/// Codes up to 32 nodes around a centre. Places without a node are infinitely far.
fn code_block(links: impl Iterator<Item = u32>, rotated: &[f32], centre: &[f32], factors: &mut [u8], codes: &mut [u8]) {
    let padded = centre.len();
    let (mut residual, mut bits) = (vec![0.0; padded], vec![0; padded / 8]);
    let (factors, _) = factors.as_chunks_mut::<4>();
    for factor in &mut factors[..BLOCK_ROWS] {
        *factor = f32::INFINITY.to_le_bytes();
    }
    for (i, link) in links.enumerate() {
        let vector = &rotated[link as usize * padded..][..padded];
        for ((r, x), c) in residual.iter_mut().zip(vector).zip(centre) {
            *r = x - c;
        }
        let found = rabitq::encode(Form::Squared, &residual, centre, &mut bits);
        kernels::put_bits(codes, i, &bits);
        factors[i] = found.add.to_le_bytes();
        factors[BLOCK_ROWS + i] = found.scale.to_le_bytes();
    }
}
