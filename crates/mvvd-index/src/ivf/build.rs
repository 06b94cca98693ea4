//! How an index of lists is built: a sample is clustered, every row goes to the list of the nearest centroid, and its code
//! is made relative to it. Rows are read twice from where they lie; no rotated copy of all of them is held.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use mvvd_core::kernels::BLOCK_ROWS;
use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use super::recall::Recall;
use super::{Ivf, NO_ROW};
use crate::codec::{Codec, Form};
use crate::kind::{Build, IndexSpec};
use crate::kmeans::{self, CHUNK, Centroids, Scratch, Shape};
use crate::rotate::Random;
use crate::space::Space;
use crate::vectors::Vectors;

/// Rows of the sample for each list.
const SAMPLE_PER_LIST: usize = 64;
/// Values of the sample, so that its memory has a bound: 256 MiB.
const SAMPLE_VALUES_MAX: usize = 1 << 26;
/// Rows of the sample by which codecs are trained, about.
const SAMPLE_CODES: usize = 16_384;
/// Rows from which a mean is taken.
const MEAN_ROWS: usize = 10_000;
/// A list with so many times the rows of the mean one is cut.
const CUT: usize = 8;
/// Up to so many times the rows that were clustered, more are added to the same lists.
const GROWTH_MAX: usize = 2;
/// The list of a row that has no vector.
const NO_LIST: u32 = u32::MAX;

impl<C: Codec> Ivf<C> {
    pub(super) fn build(spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Self> {
        let rows = columns.first().map_or(0, Vectors::len);
        let mut random = Random::new(build.seed);
        let space_sample = sample(rows, MEAN_ROWS, &mut random);
        let spaces: Vec<Space> =
            columns.iter().map(|column| Space::new(spec.metric, column, &space_sample, build.seed)).collect();
        let shape = Shape::new(spaces.iter().map(Space::width));
        let lists = spec.options.number("nlist").map_or_else(|| default_lists(rows), |lists| lists as usize);
        let count = (lists * SAMPLE_PER_LIST).min(SAMPLE_VALUES_MAX / shape.width()).max(1);
        let usable = with_vectors(columns);
        let ordinals: Vec<Ordinal> = match &usable {
            None => sample(rows, count, &mut random),
            Some(usable) => sample(usable.len(), count, &mut random).into_iter().map(|i| usable[i as usize]).collect(),
        };
        let mut points = gather(&spaces, &shape, columns, &ordinals);
        if points.is_empty() {
            // Nearly all rows are without a length, say: any of the others will do.
            let mut one = (0..rows as Ordinal).map(|ordinal| gather(&spaces, &shape, columns, &[ordinal]));
            points = one.find(|point| !point.is_empty()).unwrap_or_default();
        }
        build.check()?;
        let values = kmeans::train(&shape, &points, lists, random.next(), build)?;
        (build.progress)(0.3);
        let mut centroids = Centroids::new(&shape, Form::Squared, values);
        let done = AtomicUsize::new(0);
        let mut of_row = assign(&spaces, &centroids, columns, 0..rows, build, &done)?;
        cut(&spaces, &mut centroids, columns, &mut of_row, random.next(), build)?;
        let codecs = train_codecs(spec, &spaces, &centroids, &points, random.next());
        drop(points);
        let centroids = used(centroids, &mut of_row, spaces[0].form());
        let empty = Self {
            spec: spec.clone(),
            rows: 0,
            seed: build.seed,
            spaces,
            codecs,
            centroids,
            offsets: Vec::new().into(),
            ordinals: Vec::new().into(),
            codes: Vec::new().into(),
            factors: Vec::new().into(),
            recall: Recall::default(),
            coded: Vec::new(),
        };
        let mut index = empty.filled(columns, &of_row, build)?;
        (build.progress)(0.9);
        index.recall = Recall::measure(&index, columns, build)?;
        (build.progress)(1.0);
        Ok(index)
    }

    /// This index with the rows of `columns` in place of its own, in the lists that `of_row` says.
    fn filled(self, columns: &[Vectors<'_>], of_row: &[u32], build: &Build<'_>) -> Result<Self> {
        let mut lists: Vec<Vec<Ordinal>> = vec![Vec::new(); self.lists()];
        for (ordinal, &list) in of_row.iter().enumerate().filter(|(_, list)| **list != NO_LIST) {
            lists[list as usize].push(ordinal as Ordinal);
        }
        let mut offsets = vec![0_u32];
        let mut blocks = 0;
        for list in &lists {
            blocks += list.len().div_ceil(BLOCK_ROWS);
            offsets.push(blocks as u32);
        }
        let mut ordinals = vec![NO_ROW; blocks * BLOCK_ROWS];
        for (list, &offset) in lists.iter().zip(&offsets) {
            ordinals[offset as usize * BLOCK_ROWS..][..list.len()].copy_from_slice(list);
        }
        let mut index = Self { rows: of_row.len(), offsets: offsets.into(), ordinals: ordinals.into(), ..self };
        let mut codes = vec![0_u8; blocks * index.code_bytes()];
        let mut factors = vec![f32::NAN; blocks * index.factor_count()];
        let mut work = Vec::with_capacity(index.lists());
        let (mut codes_rest, mut factors_rest) = (&mut codes[..], &mut factors[..]);
        for list in 0..index.lists() {
            let blocks = index.blocks(list).len();
            let (codes, rest) = codes_rest.split_at_mut(blocks * index.code_bytes());
            let (factors, more) = factors_rest.split_at_mut(blocks * index.factor_count());
            (codes_rest, factors_rest) = (rest, more);
            work.push((list, codes, factors));
        }
        work.into_par_iter().try_for_each(|(list, codes, factors)| -> Result<()> {
            build.check()?;
            index.encode(list, columns, codes, factors);
            Ok(())
        })?;
        (index.codes, index.factors) = (codes.into(), factors.into());
        Ok(index)
    }

    /// Writes the codes of a list's rows.
    fn encode(&self, list: usize, columns: &[Vectors<'_>], codes: &mut [u8], factors: &mut [f32]) {
        let (mut scratch, mut row) = (Vec::new(), vec![0.0; self.centroids.shape.width()]);
        let places = codes.chunks_exact_mut(self.code_bytes()).zip(factors.chunks_exact_mut(self.factor_count()));
        for (block, (mut codes, mut factors)) in self.blocks(list).zip(places) {
            for (at, (codec, space)) in self.codecs.iter().zip(&self.spaces).enumerate() {
                let (part, rest) = codes.split_at_mut(codec.code_bytes());
                let (numbers, more) = factors.split_at_mut(codec.factor_count());
                (codes, factors) = (rest, more);
                let centre = self.centroids.get(list, at);
                let row = &mut row[..space.width()];
                for (i, &ordinal) in self.block_rows(block).iter().enumerate().filter(|(_, row)| **row != NO_ROW) {
                    if space.row(&columns[at], ordinal, &mut scratch, row) {
                        row.iter_mut().zip(centre).for_each(|(value, centre)| *value -= centre);
                        codec.encode(space, centre, row, i, part, numbers);
                    }
                }
            }
        }
    }

    /// This index and the rows of `columns` beyond its own, in the lists that there are; none where there are none.
    pub(super) fn append(&self, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Option<Self>> {
        let rows = columns.first().map_or(0, Vectors::len);
        // Once most rows are new, the old clusters are not theirs.
        if self.lists() == 0 || rows < self.rows || rows > GROWTH_MAX * self.rows {
            return Ok(None);
        }
        let mut of_row = vec![NO_LIST; self.rows];
        for list in 0..self.lists() {
            for &ordinal in self.blocks(list).flat_map(|block| self.block_rows(block)).filter(|&&row| row != NO_ROW) {
                of_row[ordinal as usize] = list as u32;
            }
        }
        // Codes of squared distances, whatever the metric is.
        let nearest = match self.spaces[0].form() {
            Form::Squared => self.centroids.clone(),
            Form::Dot => Centroids::new(&self.centroids.shape, Form::Squared, self.centroids.values.to_vec()),
        };
        let done = AtomicUsize::new(0);
        of_row.extend(assign(&self.spaces, &nearest, columns, self.rows..rows, build, &done)?);
        let same = Self {
            spec: self.spec.clone(),
            spaces: self.spaces.clone(),
            codecs: self.codecs.clone(),
            centroids: self.centroids.clone(),
            offsets: self.offsets.clone(),
            ordinals: self.ordinals.clone(),
            codes: self.codes.clone(),
            factors: self.factors.clone(),
            coded: Vec::new(),
            // The lists are the same, and so is how many of them are worth a look.
            recall: self.recall.clone(),
            ..*self
        };
        same.filled(columns, &of_row, build).map(Some)
    }
}

/// The rows that have a vector in any column; none if no column has NULLs.
fn with_vectors(columns: &[Vectors<'_>]) -> Option<Vec<Ordinal>> {
    if columns.iter().any(Vectors::has_no_nulls) {
        return None;
    }
    let rows = columns.first().map_or(0, Vectors::len) as Ordinal;
    Some((0..rows).filter(|&row| columns.iter().any(|column| column.is_valid(row))).collect())
}

/// About four times the root of the number of rows, and not so many that blocks of 32 rows stay half empty.
fn default_lists(rows: usize) -> usize {
    ((4.0 * (rows as f64).sqrt()) as usize).min(rows / BLOCK_ROWS).clamp(1, 65_536)
}

/// `count` of `rows` rows, ascending; all if there are fewer.
fn sample(rows: usize, count: usize, random: &mut Random) -> Vec<Ordinal> {
    if count >= rows {
        return (0..rows as Ordinal).collect();
    }
    // One of each stretch of equal length.
    let edge = |i: usize| (i as u128 * rows as u128 / count as u128) as usize;
    (0..count).map(|i| (edge(i) + random.below(edge(i + 1) - edge(i))) as Ordinal).collect()
}

/// Writes a row, zeros for the columns that it has no vector in; false if it has none at all.
fn point(
    spaces: &[Space],
    shape: &Shape,
    columns: &[Vectors<'_>],
    ordinal: Ordinal,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) -> bool {
    let mut any = false;
    for ((space, vectors), range) in spaces.iter().zip(columns).zip(shape.columns()) {
        let part = &mut out[range.clone()];
        match space.row(vectors, ordinal, scratch, part) {
            true => any = true,
            false => part.fill(0.0),
        }
    }
    any
}

/// The rows at `ordinals` that have a vector, one after the other.
fn gather(spaces: &[Space], shape: &Shape, columns: &[Vectors<'_>], ordinals: &[Ordinal]) -> Vec<f32> {
    let parts = ordinals.par_chunks(CHUNK).map(|ordinals| {
        let (mut scratch, mut points) = (Vec::new(), vec![0.0; ordinals.len() * shape.width()]);
        let mut count = 0;
        for &ordinal in ordinals {
            let out = &mut points[count * shape.width()..][..shape.width()];
            count += usize::from(point(spaces, shape, columns, ordinal, &mut scratch, out));
        }
        points.truncate(count * shape.width());
        points
    });
    parts.collect::<Vec<_>>().concat()
}

/// The list of each of `rows`.
fn assign(
    spaces: &[Space],
    centroids: &Centroids,
    columns: &[Vectors<'_>],
    rows: std::ops::Range<usize>,
    build: &Build<'_>,
    done: &AtomicUsize,
) -> Result<Vec<u32>> {
    let (shape, all) = (&centroids.shape, rows.len().max(1));
    let mut lists = vec![NO_LIST; rows.len()];
    lists.par_chunks_mut(CHUNK).enumerate().try_for_each_init(
        || (Vec::new(), vec![0.0; shape.width()], Scratch::default()),
        |(scratch, out, nearest), (chunk, lists)| -> Result<()> {
            build.check()?;
            for (i, list) in lists.iter_mut().enumerate() {
                let ordinal = (rows.start + chunk * CHUNK + i) as Ordinal;
                if point(spaces, shape, columns, ordinal, scratch, out) {
                    *list = centroids.nearest(out, nearest).0;
                }
            }
            let done = done.fetch_add(lists.len(), Ordering::Relaxed);
            (build.progress)(0.3 + 0.5 * done as f32 / all as f32);
            Ok(())
        },
    )?;
    Ok(lists)
}

/// Cuts lists that have many more rows than others, so that no search takes long.
fn cut(
    spaces: &[Space],
    centroids: &mut Centroids,
    columns: &[Vectors<'_>],
    of_row: &mut [u32],
    seed: u64,
    build: &Build<'_>,
) -> Result<()> {
    let mut sizes = vec![0_usize; centroids.count];
    of_row.iter().filter(|&&list| list != NO_LIST).for_each(|&list| sizes[list as usize] += 1);
    let mean = (of_row.len() / centroids.count.max(1)).max(BLOCK_ROWS);
    let mut values = centroids.values.to_vec();
    let shape = centroids.shape.clone();
    for (list, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > CUT * mean) {
        let members: Vec<Ordinal> =
            (0..of_row.len()).filter(|&i| of_row[i] == list as u32).map(|i| i as Ordinal).collect();
        let parts = size.div_ceil(2 * mean);
        let mut random = Random::new(seed ^ list as u64);
        let chosen: Vec<Ordinal> = sample(size, parts * SAMPLE_PER_LIST, &mut random);
        let chosen: Vec<Ordinal> = chosen.into_iter().map(|i| members[i as usize]).collect();
        let points = gather(spaces, &shape, columns, &chosen);
        let found = kmeans::train(&shape, &points, parts, random.next(), build)?;
        let found = Centroids::new(&shape, Form::Squared, found);
        let first = (values.len() / shape.width()) as u32;
        values.extend_from_slice(&found.values);
        let nearest: Vec<u32> = members
            .par_iter()
            .map_init(
                || (Vec::new(), vec![0.0; shape.width()], Scratch::default()),
                |(scratch, out, nearest), &ordinal| {
                    point(spaces, &shape, columns, ordinal, scratch, out);
                    found.nearest(out, nearest).0
                },
            )
            .collect();
        for (&ordinal, part) in members.iter().zip(nearest) {
            of_row[ordinal as usize] = first + part;
        }
    }
    if values.len() > centroids.values.len() {
        *centroids = Centroids::new(&shape, Form::Squared, values);
    }
    Ok(())
}

/// The codec of each column, from the residuals of the sample.
fn train_codecs<C: Codec>(
    spec: &IndexSpec,
    spaces: &[Space],
    centroids: &Centroids,
    points: &[f32],
    seed: u64,
) -> Vec<C> {
    let width = centroids.shape.width();
    let residuals = LazyLock::new(|| {
        let one = |scratch: &mut Scratch, point: &[f32]| -> Vec<f32> {
            let centre = centroids.point(centroids.nearest(point, scratch).0 as usize);
            point.iter().zip(centre).map(|(value, centre)| value - centre).collect()
        };
        let apart = (points.len() / width / SAMPLE_CODES).max(1);
        let some = points.par_chunks_exact(width).step_by(apart).map_init(Scratch::default, one);
        some.collect::<Vec<_>>().concat()
    });
    let columns = spaces.iter().zip(centroids.shape.columns());
    columns
        .map(|(space, column)| {
            let part = || residuals.chunks_exact(width).flat_map(|row| &row[column.clone()]).copied().collect();
            C::train(&spec.options, space, part, seed)
        })
        .collect()
}

/// The centroids of lists that have rows, coded for searches; `of_row` names them by their new numbers then.
fn used(centroids: Centroids, of_row: &mut [u32], form: Form) -> Centroids {
    let mut numbers = vec![NO_LIST; centroids.count];
    of_row.iter().filter(|&&list| list != NO_LIST).for_each(|&list| numbers[list as usize] = 0);
    let mut values = Vec::with_capacity(centroids.values.len());
    let lists = numbers.iter_mut().enumerate().filter(|(_, number)| **number == 0);
    for (count, (list, number)) in lists.enumerate() {
        *number = count as u32;
        values.extend_from_slice(centroids.point(list));
    }
    of_row.iter_mut().filter(|list| **list != NO_LIST).for_each(|list| *list = numbers[*list as usize]);
    Centroids::new(&centroids.shape, form, values)
}
