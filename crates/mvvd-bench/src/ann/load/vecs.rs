//! The formats of the TEXMEX sets (`.fvecs`, `.bvecs`, `.ivecs`: each row after its length) and of big-ann-benchmarks
//! (`.fbin`, `.u8bin`, `.i8bin`, `.ibin`: number of rows and of columns, then the rows).

use mvvd_bench::truth::Result;

use super::{Matrix, Source, matrix, width};

pub(super) fn fvecs(source: &mut Source) -> Result<Matrix> {
    let mut values: Vec<f32> = Vec::with_capacity(source.left as usize / 4);
    let dims = rows(source, |source, dims| {
        values.extend_from_slice(&source.numbers::<f32>(dims)?);
        Ok(())
    })?;
    matrix(values, dims)
}

pub(super) fn bvecs(source: &mut Source) -> Result<Matrix> {
    let mut values: Vec<f32> = Vec::new();
    let dims = rows(source, |source, dims| {
        values.extend(source.numbers::<u8>(dims)?.iter().map(|&v| f32::from(v)));
        Ok(())
    })?;
    matrix(values, dims)
}

pub(super) fn ivecs(source: &mut Source) -> Result<Vec<Vec<i64>>> {
    let mut lists = Vec::new();
    rows(source, |source, width| {
        lists.push(source.numbers::<i32>(width)?.iter().map(|&id| i64::from(id)).collect());
        Ok(())
    })?;
    Ok(lists)
}

/// Reads rows of one length up to the end of the file, and gives the length.
fn rows(source: &mut Source, mut read: impl FnMut(&mut Source, usize) -> Result<()>) -> Result<usize> {
    let (mut dims, mut row) = (0, 0);
    while source.left > 0 {
        let stated = width(source.number::<i32>()?)?;
        if row > 0 && stated != dims {
            return Err(format!("row {row} has {stated} values, the first has {dims}").into());
        }
        dims = stated;
        read(source, dims).map_err(|e| format!("row {row}: {e}"))?;
        row += 1;
    }
    Ok(dims)
}

pub(super) fn fbin(source: &mut Source) -> Result<Matrix> {
    let (count, dims) = shape(source)?;
    matrix(source.numbers::<f32>(count)?, dims)
}

/// Rows of bytes, each made a number by `number`.
pub(super) fn bin(source: &mut Source, number: impl Fn(u8) -> f32) -> Result<Matrix> {
    let (count, dims) = shape(source)?;
    matrix(source.numbers::<u8>(count)?.iter().map(|&byte| number(byte)).collect::<Vec<_>>(), dims)
}

/// Neighbours; their distances may follow, and are not read.
pub(super) fn ibin(source: &mut Source) -> Result<Vec<Vec<i64>>> {
    let (count, width) = shape(source)?;
    let ids = source.numbers::<u32>(count)?;
    Ok(ids.chunks(width).map(|list| list.iter().map(|&id| i64::from(id)).collect()).collect())
}

/// Number of values and columns.
fn shape(source: &mut Source) -> Result<(usize, usize)> {
    let (rows, columns) = (source.number::<u32>()? as usize, width(source.number::<i32>()?)?);
    Ok((rows.checked_mul(columns).ok_or("its shape is too large")?, columns))
}
