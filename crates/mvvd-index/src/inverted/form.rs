//! The bytes of an inverted index, and what must hold of them.
//!
//! ```text
//!  0   8  rows
//!  8   8  number of dimensions that any row has, d
//! 16   8  number of segments, s
//! 24   8  number of postings, p
//! 32   8  number of rows that have a vector, v; 0 where rows have no base
//!         arrays, each from a multiple of 64 on:
//!         u32[d]      the dimensions, ascending
//!         u32[d + 1]  the first segment of each, and s
//!         u64[d + 1]  the first posting of each, and p
//!         u32[s]      the segment's window: rows 8192 w to 8192 w + 8191; ascending within a dimension
//!         u16[s]      how many postings the segment has, less 1
//!         f32[s]      what its codes are multiplied with
//!         u16[p]      the row within the window, ascending within a segment
//!         i8[p]       the code of the row's weight, -127 to 127
//!         f64[rows]   the base of each row, only where rows have one, as u32[v] below
//!         u32[v]      the rows that have a vector, largest base first
//! ```

use std::ops::Range;

use arrow::buffer::{Buffer, ScalarBuffer};
use mvvd_core::{Ordinal, Result};

use super::measure::Measure;
use crate::parts::{PartsReader, PartsWriter, check_offsets, corrupt};

/// Rows of a window: their sums fill the first cache.
pub(super) const WINDOW: usize = 8192;

/// The postings of one dimension within one window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    pub(super) window: u32,
    pub(super) scale: f32,
    pub(super) postings: Range<usize>,
}

/// An open index.
#[derive(Debug)]
pub(super) struct Postings {
    pub(super) rows: usize,
    pub(super) dims: ScalarBuffer<u32>,
    first_segment: ScalarBuffer<u32>,
    first_posting: ScalarBuffer<u64>,
    windows: ScalarBuffer<u32>,
    lengths: ScalarBuffer<u16>,
    scales: ScalarBuffer<f32>,
    pub(super) locals: ScalarBuffer<u16>,
    pub(super) codes: ScalarBuffer<i8>,
    pub(super) bases: ScalarBuffer<f64>,
    pub(super) by_base: ScalarBuffer<Ordinal>,
    /// The lowest and the highest base of each window, where rows have one.
    pub(super) base_ranges: Vec<(f32, f32)>,
}

impl Postings {
    /// The index in `bytes`. Reads all of it once.
    pub(super) fn open(bytes: Buffer, measure: Measure) -> Result<Self> {
        let mut parts = PartsReader::new(bytes)?;
        let [rows, dims, segments, postings, valid] =
            [parts.count()?, parts.count()?, parts.count()?, parts.count()?, parts.count()?];
        if rows > Ordinal::MAX as usize {
            return Err(corrupt("it has too many rows"));
        }
        let one_more = dims.checked_add(1).ok_or_else(|| corrupt("a length is too large"))?;
        let mut index = Self {
            rows,
            dims: parts.array(dims)?,
            first_segment: parts.array(one_more)?,
            first_posting: parts.array(one_more)?,
            windows: parts.array(segments)?,
            lengths: parts.array(segments)?,
            scales: parts.array(segments)?,
            locals: parts.array(postings)?,
            codes: parts.array(postings)?,
            bases: parts.array(if measure.has_base() { rows } else { 0 })?,
            by_base: parts.array(valid)?,
            base_ranges: Vec::new(),
        };
        parts.finish()?;
        index.check(measure)?;
        let range = |bases: &[f64]| {
            let ends =
                bases.iter().fold((0.0, f64::NEG_INFINITY), |(low, high), &base| (base.min(low), base.max(high)));
            (ends.0 as f32, ends.1 as f32)
        };
        index.base_ranges = index.bases.chunks(WINDOW).map(range).collect();
        Ok(index)
    }

    fn check(&self, measure: Measure) -> Result<()> {
        if !self.dims.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("its dimensions do not ascend"));
        }
        check_offsets(&self.first_segment, self.windows.len())?;
        check_offsets(&self.first_posting, self.locals.len())?;
        if !self.scales.iter().all(|scale| scale.is_finite() && *scale >= 0.0) {
            return Err(corrupt("a scale is no positive number"));
        }
        for dim in 0..self.dims.len() {
            let mut last = None;
            let mut end = self.first_posting[dim] as usize;
            for segment in self.segments(dim) {
                if last.is_some_and(|last| last >= segment.window) || segment.postings.end > self.locals.len() {
                    return Err(corrupt("its segments do not follow each other"));
                }
                let rows = self.window_rows(segment.window as usize);
                let locals = &self.locals[segment.postings.clone()];
                if !locals.is_sorted_by(|a, b| a < b) || locals.last().is_none_or(|&last| last as usize >= rows.len()) {
                    return Err(corrupt("its postings do not ascend"));
                }
                (last, end) = (Some(segment.window), segment.postings.end);
            }
            if end as u64 != self.first_posting[dim + 1] {
                return Err(corrupt("its segments do not hold its postings"));
            }
        }
        let mut seen = vec![false; self.rows];
        let unique = |row: &Ordinal| seen.get_mut(*row as usize).is_some_and(|seen| !std::mem::replace(seen, true));
        if (!measure.has_base() && !self.by_base.is_empty()) || !self.by_base.iter().all(unique) {
            return Err(corrupt("its order of rows is none"));
        }
        if !self.bases.iter().all(|base| *base <= 0.0) {
            return Err(corrupt("a base is no negative number"));
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + [self.dims.inner(), self.first_segment.inner(), self.first_posting.inner(), self.windows.inner()]
                .into_iter()
                .chain([self.lengths.inner(), self.scales.inner(), self.locals.inner(), self.codes.inner()])
                .chain([self.bases.inner(), self.by_base.inner()])
                .map(Buffer::len)
                .sum::<usize>()
    }

    /// Number of windows.
    pub(super) fn window_count(&self) -> usize {
        self.rows.div_ceil(WINDOW)
    }

    /// The rows of a window; none of one that is not there.
    pub(super) fn window_rows(&self, window: usize) -> Range<usize> {
        (window * WINDOW).min(self.rows)..((window + 1) * WINDOW).min(self.rows)
    }

    /// The segments of the dimension at this place in `dims`, by window.
    pub(super) fn segments(&self, dim: usize) -> impl Iterator<Item = Segment> {
        let segments = self.first_segment[dim] as usize..self.first_segment[dim + 1] as usize;
        let mut posting = self.first_posting[dim] as usize;
        segments.map(move |i| {
            let start = posting;
            posting += self.lengths[i] as usize + 1;
            Segment { window: self.windows[i], scale: self.scales[i], postings: start..posting }
        })
    }
}

/// An index that is being written: segments in the order of their dimensions, then of their windows.
#[derive(Debug, Default)]
pub(super) struct PostingsWriter {
    dims: Vec<u32>,
    first_segment: Vec<u32>,
    first_posting: Vec<u64>,
    windows: Vec<u32>,
    lengths: Vec<u16>,
    scales: Vec<f32>,
    locals: Vec<u16>,
    codes: Vec<i8>,
}

impl PostingsWriter {
    /// Adds a segment, which has at least one posting.
    pub(super) fn push(&mut self, dim: u32, window: u32, scale: f32, locals: &[u16], codes: &[i8]) {
        if self.dims.last() != Some(&dim) {
            self.dims.push(dim);
            self.first_segment.push(self.windows.len() as u32);
            self.first_posting.push(self.locals.len() as u64);
        }
        self.windows.push(window);
        self.lengths.push((locals.len() - 1) as u16);
        self.scales.push(scale);
        self.locals.extend_from_slice(locals);
        self.codes.extend_from_slice(codes);
    }

    /// The bytes of the index, given bases and order of its rows if they have any.
    pub(super) fn finish(mut self, rows: usize, bases: &[f64], by_base: &[Ordinal]) -> Vec<u8> {
        self.first_segment.push(self.windows.len() as u32);
        self.first_posting.push(self.locals.len() as u64);
        let mut parts = PartsWriter::default();
        for count in [rows, self.dims.len(), self.windows.len(), self.locals.len(), by_base.len()] {
            parts.number(count as u64);
        }
        parts.array(&self.dims);
        parts.array(&self.first_segment);
        parts.array(&self.first_posting);
        parts.array(&self.windows);
        parts.array(&self.lengths);
        parts.array(&self.scales);
        parts.array(&self.locals);
        parts.array(&self.codes);
        parts.array(bases);
        parts.array(by_base);
        parts.finish()
    }
}
