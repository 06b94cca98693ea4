//! NumPy's `.npy`: a text header and an array in row-major order.

use std::io::Write;

use mvvd_bench::truth::Result;

use super::{Matrix, Source, matrix};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

pub(super) fn vectors(source: &mut Source) -> Result<Matrix> {
    let (kind, rows, dims) = header(source)?;
    let count = rows.checked_mul(dims).ok_or("its shape is too large")?;
    match kind.as_str() {
        "<f4" => matrix(source.numbers::<f32>(count)?, dims),
        "<f8" => matrix(source.numbers::<f64>(count)?.iter().map(|&v| v as f32).collect::<Vec<_>>(), dims),
        "<f2" => matrix(source.numbers::<half::f16>(count)?.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), dims),
        "|u1" => matrix(source.numbers::<u8>(count)?.iter().map(|&v| f32::from(v)).collect::<Vec<_>>(), dims),
        other => Err(format!("its numbers are {other}; vectors are read as f4, f8, f2 or u1").into()),
    }
}

pub(super) fn neighbours(source: &mut Source) -> Result<Vec<Vec<i64>>> {
    let (kind, rows, width) = header(source)?;
    let count = rows.checked_mul(width).ok_or("its shape is too large")?;
    let ids: Vec<i64> = match kind.as_str() {
        "<i4" => source.numbers::<i32>(count)?.iter().map(|&id| i64::from(id)).collect(),
        "<u4" => source.numbers::<u32>(count)?.iter().map(|&id| i64::from(id)).collect(),
        "<i8" => source.numbers::<i64>(count)?.to_vec(),
        "<u8" => source.numbers::<u64>(count)?.iter().map(|&id| i64::try_from(id).unwrap_or(-1)).collect(),
        other => return Err(format!("its numbers are {other}; neighbours are read as i4, u4, i8 or u8").into()),
    };
    match width {
        0 => Err("it holds no neighbours".into()),
        _ => Ok(ids.chunks(width).map(<[i64]>::to_vec).collect()),
    }
}

/// The type, rows and columns.
fn header(source: &mut Source) -> Result<(String, usize, usize)> {
    let start = source.numbers::<u8>(8)?;
    if !start.starts_with(MAGIC) {
        return Err("it does not start as .npy".into());
    }
    let length = match start[6] {
        1 => usize::from(source.number::<u16>()?),
        2 | 3 => source.number::<u32>()? as usize,
        other => return Err(format!("version {other} of .npy").into()),
    };
    let text = String::from_utf8_lossy(&source.numbers::<u8>(length)?).into_owned();
    let after = |key: &str| {
        let at = text.find(key).ok_or_else(|| format!("its header has no {key}"))?;
        Ok::<_, String>(text[at + key.len()..].trim_start_matches([':', ' ']))
    };
    if after("'fortran_order'")?.starts_with("True") {
        return Err("it is in column order; save it with numpy.ascontiguousarray".into());
    }
    let kind = after("'descr'")?.trim_start_matches('\'').split('\'').next().unwrap_or_default().to_owned();
    let shape = after("'shape'")?.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    match shape[..] {
        [rows, columns] => Ok((kind, rows, columns)),
        _ => Err(format!("its shape is {shape:?}, not rows and columns").into()),
    }
}

/// Writes a header of version 1 and the bytes of an array.
pub(super) fn write(to: &mut dyn Write, kind: &str, rows: usize, columns: usize, bytes: &[u8]) -> Result<()> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    to.write_all(MAGIC)?;
    to.write_all(&[1, 0])?;
    to.write_all(&(length as u16).to_le_bytes())?;
    to.write_all(text.as_bytes())?;
    to.write_all(bytes)?;
    Ok(())
}
