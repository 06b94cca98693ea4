//! HDF5 as ann-benchmarks publishes it: a set is one file, its vectors, queries and neighbours are datasets in it.

use std::path::Path;

use hdf5_pure::{DType, Dataset, File};
use mvvd_bench::truth::Result;

use super::{Matrix, matrix};

/// The dataset of the vectors to search in.
pub(crate) const TRAIN: &str = "train";
/// The dataset of the vectors to search for.
pub(crate) const TEST: &str = "test";
/// The dataset of the latter's neighbours, nearest first.
const NEIGHBORS: &str = "neighbors";

/// A byte that Deflate wrote holds at most this many.
const INFLATED_MAX: u64 = 1032;

pub(super) fn vectors(path: &Path, dataset: &str) -> Result<Matrix> {
    read(path, dataset, |data, dims| match data.dtype()? {
        DType::F32 | DType::F64 | DType::U8 | DType::I8 => matrix(data.read_f32()?, dims),
        other => Err(format!("its numbers are {other}; vectors are read as f32, f64, u8 or i8").into()),
    })
}

pub(super) fn neighbours(path: &Path) -> Result<Vec<Vec<i64>>> {
    read(path, NEIGHBORS, |data, width| match data.dtype()? {
        DType::I32 | DType::U32 | DType::I64 | DType::U64 => {
            Ok(data.read_i64()?.chunks(width).map(<[i64]>::to_vec).collect())
        }
        other => Err(format!("its numbers are {other}; neighbours are read as i32, u32, i64 or u64").into()),
    })
}

/// Gives the dataset `name` and its number of columns to `take`.
fn read<T>(path: &Path, name: &str, take: impl FnOnce(&Dataset, usize) -> Result<T>) -> Result<T> {
    let file = File::open_streaming(path)?;
    let data = file.dataset(name).map_err(|e| match file.root().datasets() {
        Ok(mut names) if !names.iter().any(|known| known == name) => {
            names.sort();
            format!("it has no dataset {name}; there are: {}", names.join(", "))
        }
        _ => format!("dataset {name}: {e}"),
    })?;
    let all = || take(&data, columns(&data, file.file_size())?);
    all().map_err(|e| format!("dataset {name}: {e}").into())
}

/// The columns of a dataset that is rows and columns. An error where a file of `bytes` cannot hold what it states: reading
/// would allocate that, and fill with zeros what is not there.
fn columns(data: &Dataset, bytes: u64) -> Result<usize> {
    let shape = data.shape()?;
    let columns = match shape[..] {
        [rows, columns] if rows > 0 && columns > 0 => usize::try_from(columns)?,
        [_, _] => return Err("it is empty".into()),
        _ => return Err(format!("its shape is {shape:?}, not rows and columns").into()),
    };
    let chunk = data.chunk_shape()?.unwrap_or_else(|| shape.clone());
    if chunk.len() != shape.len() || chunk.contains(&0) {
        return Err(format!("its shape is {shape:?}, its chunks are {chunk:?}").into());
    }
    let chunks = product(shape.iter().zip(&chunk).map(|(all, one)| all.div_ceil(*one)));
    let stated = product(chunk.into_iter().chain([chunks, data.element_size()?]));
    let most = if data.filters().is_empty() { bytes } else { bytes.saturating_mul(INFLATED_MAX) };
    if stated > most {
        return Err(format!("its shape is {shape:?}, too large for a file of {bytes} bytes").into());
    }
    if data.is_chunked() {
        let there = data.chunks()?;
        if there.len() as u64 != chunks || there.iter().any(|chunk| chunk.storage_size > bytes) {
            return Err("some of its chunks are not in the file".into());
        }
    }
    Ok(columns)
}

fn product(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(1, u64::saturating_mul)
}
