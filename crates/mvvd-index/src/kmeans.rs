//! Where do the centroids of many lists lie, and which is the nearest of a point? k-means in two levels, over codes.
//!
//! Training takes a sample: first a few large clusters, then clusters within each, then rounds over all (as hierarchical
//! k-means in faiss and SuperKMeans 2026). The nearest of many centroids is found as the nearest of many rows: their RaBitQ
//! codes give bounds by [`kernels::fastscan`], 32 centroids at a time, and those that could be the nearest are measured.

use std::ops::Range;

use arrow::buffer::ScalarBuffer;
use mvvd_core::Result;
use mvvd_core::kernels::{self, BLOCK_ROWS, Bounds};
use mvvd_core::metric::Metric;
use rayon::prelude::*;

use crate::codec::Form;
use crate::codec::rabitq::{BitQuery, encode};
use crate::kind::Build;
use crate::rotate::Random;

/// Rounds of training within one level.
const ROUNDS: usize = 8;
/// Rounds over all centroids once both levels are trained.
const ROUNDS_ALL: usize = 2;
/// So many centroids are compared without codes.
const FEW_MAX: usize = 128;
/// As many clusters as are trained at once.
const FLAT_MAX: usize = 256;
/// Standard deviations to which a bound reaches when the nearest is looked for: one all but as near serves as well.
const DEVIATIONS: f32 = 0.8;
/// Points for each of the large clusters, about.
const POINTS_LARGE: usize = 256;
/// Points that a thread takes at once.
pub(crate) const CHUNK: usize = 256;

/// How the values of a point lie beside each other: those of each column, rotated.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    columns: Vec<Range<usize>>,
}

impl Shape {
    pub(crate) fn new(widths: impl IntoIterator<Item = usize>) -> Self {
        let mut start = 0;
        let columns = widths.into_iter().map(|width| {
            start += width;
            start - width..start
        });
        Self { columns: columns.collect() }
    }

    /// Values of a point.
    pub(crate) fn width(&self) -> usize {
        self.columns.last().map_or(0, |column| column.end)
    }

    /// Which values are those of each column.
    pub(crate) fn columns(&self) -> &[Range<usize>] {
        &self.columns
    }
}

/// Centroids beside their codes, whose centre is zero.
#[derive(Debug, Clone)]
pub(crate) struct Centroids {
    pub(crate) shape: Shape,
    pub(crate) count: usize,
    /// Centroid by centroid.
    pub(crate) values: ScalarBuffer<f32>,
    /// By block of 32 centroids, and in it by column.
    pub(crate) codes: ScalarBuffer<u8>,
    /// As the codes: 96 for each column.
    pub(crate) factors: ScalarBuffer<f32>,
}

impl Centroids {
    /// Codes `values`, `shape.width()` for each centroid.
    pub(crate) fn new(shape: &Shape, form: Form, values: Vec<f32>) -> Self {
        let width = shape.width();
        let count = values.len() / width;
        let (blocks, columns) = (count.div_ceil(BLOCK_ROWS), shape.columns.len());
        let mut codes = vec![0; blocks * 4 * width];
        let mut factors = vec![f32::NAN; blocks * columns * 3 * BLOCK_ROWS];
        let zero = vec![0.0; width];
        let mut bits = vec![0; width / 8];
        for (i, centroid) in values.chunks_exact(width).enumerate() {
            let (block, row) = (i / BLOCK_ROWS, i % BLOCK_ROWS);
            for (at, column) in shape.columns.iter().enumerate() {
                let bits = &mut bits[..column.len() / 8];
                let found = encode(form, &centroid[column.clone()], &zero[column.clone()], bits);
                let codes = &mut codes[4 * (block * width + column.start)..][..4 * column.len()];
                kernels::put_bits(codes, row, bits);
                let factors = &mut factors[(block * columns + at) * 3 * BLOCK_ROWS..][..3 * BLOCK_ROWS];
                found.put(row, factors);
            }
        }
        Self { shape: shape.clone(), count, values: values.into(), codes: codes.into(), factors: factors.into() }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.count.div_ceil(BLOCK_ROWS)
    }

    /// The values of centroid `i` in `column`.
    #[inline]
    pub(crate) fn get(&self, i: usize, column: usize) -> &[f32] {
        let range = &self.shape.columns[column];
        &self.values[i * self.shape.width() + range.start..][..range.len()]
    }

    /// All values of centroid `i`.
    pub(crate) fn point(&self, i: usize) -> &[f32] {
        &self.values[i * self.shape.width()..][..self.shape.width()]
    }

    /// The codes of a block in `column`.
    #[inline]
    pub(crate) fn block(&self, block: usize, column: usize) -> (&[u8], &[f32; 3 * BLOCK_ROWS]) {
        let (width, range) = (self.shape.width(), &self.shape.columns[column]);
        let codes = &self.codes[4 * (block * width + range.start)..][..4 * range.len()];
        let at = (block * self.shape.columns.len() + column) * 3 * BLOCK_ROWS;
        (codes, self.factors[at..].first_chunk().expect("96 factors of each column and block"))
    }

    /// The centroid nearest to `point`, or one nearly as near, and its squared distance. The codes are of squared distances,
    /// and there is a centroid.
    pub(crate) fn nearest(&self, point: &[f32], scratch: &mut Scratch) -> (u32, f32) {
        scratch.set(&self.shape, point);
        scratch.candidates.clear();
        let (mut best, mut limit) = ((0, f32::INFINITY), f32::INFINITY);
        let mut sums = [0; BLOCK_ROWS];
        for block in 0..self.blocks() {
            let mut bounds = Bounds::of(scratch.square);
            for (column, (query, scale)) in scratch.queries.iter().zip(&scratch.scales).enumerate() {
                let (codes, factors) = self.block(block, column);
                kernels::fastscan(codes, &query.tables, &mut sums);
                kernels::add_bounds(&sums, factors, scale, &mut bounds);
            }
            let mut mask = kernels::below(&bounds.low, limit);
            while mask != 0 {
                let row = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                limit = limit.min(bounds.high[row]);
                scratch.candidates.push((bounds.low[row], (block * BLOCK_ROWS + row) as u32));
            }
        }
        for &(low, i) in &scratch.candidates {
            if low <= limit && low < best.1 {
                let distance = kernels::distance_f32(Metric::L2Squared, point, self.point(i as usize)) as f32;
                if distance < best.1 {
                    best = (i, distance);
                }
            }
        }
        best
    }
}

/// Few centroids, without codes: the products with all of them take less time than the tables of a point.
#[derive(Debug)]
struct Few {
    /// As [`kernels::nearest_word`] wants words.
    words: Vec<f32>,
    /// Half the squares of their lengths; infinite where there is no centroid.
    halves: Vec<f32>,
}

impl Few {
    fn new(values: &[f32], width: usize) -> Self {
        let count = (values.len() / width).next_multiple_of(kernels::WORDS_TOGETHER);
        let (mut words, mut halves) = (vec![0.0; count * width], vec![f32::INFINITY; count]);
        for (i, centroid) in values.chunks_exact(width).enumerate() {
            centroid.iter().enumerate().for_each(|(d, &value)| words[d * count + i] = value);
            halves[i] = -0.5 * kernels::distance_f32(Metric::Dot, centroid, centroid) as f32;
        }
        Self { words, halves }
    }

    fn nearest(&self, point: &[f32]) -> u32 {
        kernels::nearest_word(point, &self.words, &self.halves) as u32
    }
}

/// Memory for [`Centroids::nearest`].
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    queries: Vec<BitQuery>,
    scales: Vec<kernels::BoundScale>,
    /// The square of the point's length.
    square: f32,
    candidates: Vec<(f32, u32)>,
}

impl Scratch {
    /// Makes tables of a point.
    fn set(&mut self, shape: &Shape, point: &[f32]) {
        self.queries.resize_with(shape.columns.len(), BitQuery::default);
        self.scales.clear();
        self.square = 0.0;
        for (query, column) in self.queries.iter_mut().zip(&shape.columns) {
            let part = &point[column.clone()];
            query.set(part);
            let squared = -kernels::distance_f32(Metric::Dot, part, part) as f32;
            self.square += squared;
            self.scales.push(query.scale(1.0, DEVIATIONS, squared.sqrt()));
        }
    }
}

/// At most `k` centroids of `points`, at least one where there is a point.
pub(crate) fn train(shape: &Shape, points: &[f32], k: usize, seed: u64, build: &Build<'_>) -> Result<Vec<f32>> {
    let width = shape.width();
    let all: Vec<u32> = (0..(points.len() / width) as u32).collect();
    let mut random = Random::new(seed);
    if k <= FLAT_MAX {
        let start = pick(points, width, &all, k, &mut random);
        return lloyd(shape, points, &all, start, ROUNDS, &mut random, build);
    }
    let count = (k as f64).sqrt() as usize;
    let start = pick(points, width, &all, count, &mut random);
    let some: Vec<u32> = all.iter().copied().step_by((all.len() / (count * POINTS_LARGE)).max(1)).collect();
    let large = lloyd(shape, points, &some, start, ROUNDS, &mut random, build)?;
    let large = Centroids::new(shape, Form::Squared, large);
    let groups = group(&assign(&large, points, &all), &all, large.count);
    // As many clusters within a large one as its share of the points.
    let seeds: Vec<u64> = groups.iter().map(|_| random.next()).collect();
    let small: Vec<Vec<f32>> = groups
        .par_iter()
        .zip(seeds)
        .map(|(group, seed)| {
            let share = (k as f64 * group.len() as f64 / all.len() as f64).round() as usize;
            let mut random = Random::new(seed);
            let start = pick(points, width, group, share.max(1), &mut random);
            lloyd(shape, points, group, start, ROUNDS, &mut random, build)
        })
        .collect::<Result<_>>()?;
    lloyd(shape, points, &all, small.concat(), ROUNDS_ALL, &mut random, build)
}

/// `k` of `members` at random, all of them if there are fewer.
fn pick(points: &[f32], width: usize, members: &[u32], k: usize, random: &mut Random) -> Vec<f32> {
    let mut members = members.to_vec();
    let k = k.min(members.len());
    for i in 0..k {
        let other = i + random.below(members.len() - i);
        members.swap(i, other);
    }
    members[..k].iter().flat_map(|&i| &points[i as usize * width..][..width]).copied().collect()
}

/// Rounds of assignment and means (Lloyd 1982) over `members` of `points`.
fn lloyd(
    shape: &Shape,
    points: &[f32],
    members: &[u32],
    mut values: Vec<f32>,
    rounds: usize,
    random: &mut Random,
    build: &Build<'_>,
) -> Result<Vec<f32>> {
    let width = shape.width();
    for _ in 0..rounds {
        build.check()?;
        let centroids = Centroids::new(shape, Form::Squared, std::mem::take(&mut values));
        let clusters = assign(&centroids, points, members);
        let groups = group(&clusters, members, centroids.count);
        values = centroids.values.to_vec();
        values.par_chunks_exact_mut(width).zip(&groups).for_each(|(mean, group)| {
            if !group.is_empty() {
                mean.fill(0.0);
                for &i in group {
                    let point = &points[i as usize * width..][..width];
                    mean.iter_mut().zip(point).for_each(|(sum, value)| *sum += value);
                }
                mean.iter_mut().for_each(|sum| *sum /= group.len() as f32);
            }
        });
        fill_empty(&mut values, points, width, &groups, random);
    }
    Ok(values)
}

/// Puts centroids that no point is near to beside those that most points are near to.
fn fill_empty(values: &mut [f32], points: &[f32], width: usize, groups: &[Vec<u32>], random: &mut Random) {
    let mut largest: std::collections::BinaryHeap<(usize, usize)> =
        groups.iter().enumerate().map(|(i, group)| (group.len(), i)).collect();
    for (empty, _) in groups.iter().enumerate().filter(|(_, group)| group.is_empty()) {
        if let Some((share, full)) = largest.pop()
            && share > 1
        {
            let point = groups[full][random.below(groups[full].len())] as usize;
            values[empty * width..][..width].copy_from_slice(&points[point * width..][..width]);
            largest.push((share / 2, full));
        }
    }
}

/// The nearest centroid of each of `members`, or one all but as near.
fn assign(centroids: &Centroids, points: &[f32], members: &[u32]) -> Vec<u32> {
    let width = centroids.shape.width();
    let all = |nearest: &(dyn Fn(&[f32], &mut Scratch) -> u32 + Sync)| {
        let chunks = members.par_chunks(CHUNK).map_init(Scratch::default, |scratch, members| {
            let nearest = |&i: &u32| nearest(&points[i as usize * width..][..width], scratch);
            members.iter().map(nearest).collect::<Vec<u32>>()
        });
        chunks.collect::<Vec<_>>().concat()
    };
    match centroids.count <= FEW_MAX {
        true => {
            let few = Few::new(&centroids.values, width);
            all(&|point, _| few.nearest(point))
        }
        false => all(&|point, scratch| centroids.nearest(point, scratch).0),
    }
}

/// The members of each of `count` clusters, in their order.
fn group(clusters: &[u32], members: &[u32], count: usize) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); count];
    for (&cluster, &member) in clusters.iter().zip(members) {
        groups[cluster as usize].push(member);
    }
    groups
}
