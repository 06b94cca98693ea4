//! Postings from rows: each window on its own, then all in the order of their dimensions.

use mvvd_core::metric::Metric;
use mvvd_core::{Ordinal, Result};
use rayon::prelude::*;

use super::form::{Postings, PostingsWriter, WINDOW};
use super::measure::Measure;
use crate::kind::Build;
use crate::vectors::{Values, Vectors};

/// The largest code; -128 is not used.
const CODE_MAX: f32 = 127.0;

/// The postings of one window, by dimension.
struct Window {
    segments: Vec<Part>,
    locals: Vec<u16>,
    codes: Vec<i8>,
}

/// A segment within its window's arrays.
struct Part {
    dim: u32,
    scale: f32,
    start: u32,
    len: u32,
}

/// The index over `column` as bytes. The whole windows of `old`, which covers its first rows, are taken over.
pub(super) fn build(
    metric: Metric,
    column: &Vectors<'_>,
    old: Option<&Postings>,
    build: &Build<'_>,
) -> Result<Vec<u8>> {
    let measure = Measure::of(metric)?;
    let whole = old.map_or(0, |old| old.rows / WINDOW);
    let windows: Vec<Window> = build.pool.install(|| {
        (whole..column.len().div_ceil(WINDOW))
            .into_par_iter()
            .map(|window| {
                build.check()?;
                Ok(window_of(measure, column, window))
            })
            .collect::<Result<_>>()
    })?;
    (build.progress)(0.7);

    // Where each segment is: of the old index by its place there, of the new windows by theirs.
    let mut places: Vec<(u32, u32, usize)> = Vec::new();
    let mut kept = Vec::new();
    if let Some(old) = old {
        for (i, &dim) in old.dims.iter().enumerate() {
            for segment in old.segments(i).take_while(|segment| (segment.window as usize) < whole) {
                places.push((dim, segment.window, kept.len()));
                kept.push(segment);
            }
        }
    }
    for (i, window) in windows.iter().enumerate() {
        let number = (whole + i) as u32;
        places.extend(window.segments.iter().enumerate().map(|(place, part)| (part.dim, number, place)));
    }
    build.pool.install(|| places.par_sort_unstable());
    build.check()?;
    (build.progress)(0.8);

    let mut writer = PostingsWriter::default();
    for (dim, window, place) in places {
        match (window as usize).checked_sub(whole) {
            Some(i) => {
                let part = &windows[i].segments[place];
                let range = part.start as usize..(part.start + part.len) as usize;
                writer.push(dim, window, part.scale, &windows[i].locals[range.clone()], &windows[i].codes[range]);
            }
            None => {
                let (old, segment) = (old.expect("what is kept is of the old index"), &kept[place]);
                let range = segment.postings.clone();
                writer.push(dim, window, segment.scale, &old.locals[range.clone()], &old.codes[range]);
            }
        }
    }
    build.check()?;
    let (bases, by_base) = if measure.has_base() { bases(measure, column) } else { Default::default() };
    (build.progress)(1.0);
    Ok(writer.finish(column.len(), &bases, &by_base))
}

fn window_of(measure: Measure, column: &Vectors<'_>, window: usize) -> Window {
    let rows = window * WINDOW..((window + 1) * WINDOW).min(column.len());
    // Dimension, row in the window, weight.
    let mut entries: Vec<(u32, u16, f32)> = Vec::new();
    for row in rows.clone() {
        let (indices, values) = entries_of(column, row);
        if let Some(factor) = measure.factor(values) {
            let weights = values.iter().map(|&value| (f64::from(value) * factor) as f32);
            let local = (row - rows.start) as u16;
            entries.extend(indices.iter().zip(weights).map(|(&dim, weight)| (dim, local, weight)));
        }
    }
    entries.sort_unstable_by_key(|&(dim, local, _)| (dim, local));
    let mut made = Window { segments: Vec::new(), locals: Vec::new(), codes: Vec::new() };
    for run in entries.chunk_by(|a, b| a.0 == b.0) {
        let largest = run.iter().fold(0.0, |largest: f32, entry| largest.max(entry.2.abs()));
        // At least a normal number, so that dividing by it is exact enough.
        let scale = if largest > 0.0 { (largest / CODE_MAX).clamp(f32::MIN_POSITIVE, f32::MAX) } else { 0.0 };
        let code =
            |weight: f32| if scale > 0.0 { (weight / scale).round().clamp(-CODE_MAX, CODE_MAX) as i8 } else { 0 };
        made.segments.push(Part { dim: run[0].0, scale, start: made.locals.len() as u32, len: run.len() as u32 });
        made.locals.extend(run.iter().map(|entry| entry.1));
        made.codes.extend(run.iter().map(|entry| code(entry.2)));
    }
    made
}

/// The entries of a row; none if it has no vector.
fn entries_of<'a>(column: &Vectors<'a>, row: usize) -> (&'a [u32], &'a [f32]) {
    match column.values() {
        Values::Sparse { offsets, indices, values } if column.is_valid(row as Ordinal) => {
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            (&indices[range.clone()], &values[range])
        }
        _ => (&[], &[]),
    }
}

/// The base of each row, and the rows that have a vector, largest base first.
fn bases(measure: Measure, column: &Vectors<'_>) -> (Vec<f64>, Vec<Ordinal>) {
    let bases: Vec<f64> = (0..column.len()).map(|row| measure.base(entries_of(column, row).1)).collect();
    let mut by_base: Vec<Ordinal> = (0..column.len() as Ordinal).filter(|&row| column.is_valid(row)).collect();
    by_base.sort_by(|&a, &b| bases[b as usize].total_cmp(&bases[a as usize]));
    (bases, by_base)
}
