//! Vectors and neighbours from files, in the formats in which such data is published.

mod hdf5;
mod npy;
mod parquet;
mod vecs;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use arrow::buffer::{MutableBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use mvvd_bench::truth::Result;

pub(crate) use hdf5::{TEST, TRAIN};

/// Values of f32, row by row.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    values: ScalarBuffer<f32>,
    dims: usize,
}

impl Matrix {
    /// `values` in rows of `dims`, at least 1.
    pub(crate) fn new(values: impl Into<ScalarBuffer<f32>>, dims: usize) -> Self {
        let values = values.into();
        assert!(dims > 0 && values.len().is_multiple_of(dims), "{} values in rows of {dims}", values.len());
        Self { values, dims }
    }

    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.dims
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dims..(row + 1) * self.dims]
    }

    /// The first rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if rows < self.len() {
            self.values = self.values.slice(0, rows * self.dims);
        }
    }
}

/// The formats, as an error lists them.
const FORMATS: &str = ".npy, .parquet, .hdf5, .h5, .fvecs, .bvecs, .fbin, .u8bin and .i8bin hold vectors; .npy, .parquet, \
                       .hdf5, .h5, .ivecs and .ibin (also with distances behind) hold neighbours";

/// The vectors in a file. Of a Parquet file the column `column`, or the only one that holds vectors; of an HDF5 file the
/// dataset `column`, or `dataset`.
pub(crate) fn vectors(path: &Path, column: Option<&str>, dataset: &str) -> Result<Matrix> {
    let read = || match extension(path).as_str() {
        "npy" => npy::vectors(&mut open(path)?),
        "parquet" => parquet::vectors(File::open(path)?, column),
        "hdf5" | "h5" => hdf5::vectors(path, column.unwrap_or(dataset)),
        "fvecs" => vecs::fvecs(&mut open(path)?),
        "bvecs" => vecs::bvecs(&mut open(path)?),
        "fbin" => vecs::fbin(&mut open(path)?),
        "u8bin" => vecs::bin(&mut open(path)?, f32::from),
        "i8bin" => vecs::bin(&mut open(path)?, |byte| f32::from(byte.cast_signed())),
        other => Err(format!("no format of vectors is named .{other}; {FORMATS}").into()),
    };
    let matrix: Matrix = read().map_err(|e| format!("{}: {e}", path.display()))?;
    if matrix.values().iter().any(|v| !v.is_finite()) {
        return Err(format!("{}: a value is not finite", path.display()).into());
    }
    Ok(matrix)
}

/// The neighbours in a file, nearest first, one list a query: row numbers below `rows`.
pub(crate) fn neighbours(path: &Path, rows: usize) -> Result<Vec<Vec<u32>>> {
    let read = || match extension(path).as_str() {
        "npy" => npy::neighbours(&mut open(path)?),
        "parquet" => parquet::neighbours(File::open(path)?),
        "hdf5" | "h5" => hdf5::neighbours(path),
        "ivecs" => vecs::ivecs(&mut open(path)?),
        "ibin" | "bin" => vecs::ibin(&mut open(path)?),
        other => Err(format!("no format of neighbours is named .{other}; {FORMATS}").into()),
    };
    let lists: Vec<Vec<i64>> = read().map_err(|e| format!("{}: {e}", path.display()))?;
    let row = |id: i64| match u32::try_from(id) {
        Ok(row) if (row as usize) < rows => Ok(row),
        _ => Err(format!("{}: neighbour {id} of {rows} rows", path.display())),
    };
    lists.into_iter().map(|list| Ok(list.into_iter().map(row).collect::<std::result::Result<_, _>>()?)).collect()
}

/// Writes a matrix of f32 as .npy, under a temporary name until it is whole.
pub(crate) fn save_vectors(path: &Path, matrix: &Matrix) -> Result<()> {
    save(path, |to| npy::write(to, "<f4", matrix.len(), matrix.dims(), matrix.values().to_byte_slice()))
}

/// Writes lists of equal length as .npy of int32.
pub(crate) fn save_neighbours(path: &Path, lists: &[Vec<u32>]) -> Result<()> {
    let width = lists.first().map_or(0, Vec::len);
    if lists.iter().any(|list| list.len() != width) {
        return Err(format!("{}: the lists of neighbours differ in length", path.display()).into());
    }
    save(path, |to| npy::write(to, "<i4", lists.len(), width, lists.concat().to_byte_slice()))
}

fn save(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let part = path.with_extension("part");
    let all = || -> Result<()> {
        let mut to = BufWriter::new(File::create(&part)?);
        write(&mut to)?;
        to.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(std::fs::rename(&part, path)?)
    };
    all().map_err(|e| format!("{}: {e}", path.display()).into())
}

fn extension(path: &Path) -> String {
    path.extension().map_or_else(String::new, |extension| extension.to_string_lossy().to_ascii_lowercase())
}

/// A file being read, and how much of it is left.
struct Source {
    from: BufReader<File>,
    left: u64,
}

fn open(path: &Path) -> Result<Source> {
    let file = File::open(path)?;
    let left = file.metadata()?.len();
    Ok(Source { from: BufReader::with_capacity(1 << 20, file), left })
}

impl Source {
    /// The next `count` numbers, little-endian. An error where the file is shorter, before anything is allocated.
    fn numbers<T: ArrowNativeType>(&mut self, count: usize) -> Result<ScalarBuffer<T>> {
        let bytes = count.checked_mul(size_of::<T>()).filter(|&bytes| bytes as u64 <= self.left);
        let Some(bytes) = bytes else {
            return Err(format!("{count} numbers should follow, the file has {} bytes left", self.left).into());
        };
        let mut buffer = MutableBuffer::from_len_zeroed(bytes);
        self.from.read_exact(buffer.as_slice_mut())?;
        self.left -= bytes as u64;
        Ok(buffer.into())
    }

    /// The next number.
    fn number<T: ArrowNativeType>(&mut self) -> Result<T> {
        Ok(self.numbers::<T>(1)?[0])
    }
}

/// A matrix, or an error if it is empty.
fn matrix(values: impl Into<ScalarBuffer<f32>>, dims: usize) -> Result<Matrix> {
    let values = values.into();
    if dims == 0 || values.is_empty() {
        return Err("it holds no vectors".into());
    }
    Ok(Matrix::new(values, dims))
}

/// The length of a row as a file states it.
fn width(stated: i32) -> Result<usize> {
    usize::try_from(stated).ok().filter(|&width| width > 0).ok_or_else(|| format!("a row of {stated} values").into())
}

#[cfg(test)]
mod tests;
