//! Generated rows: keys and vectors from a seed, in memory and as Parquet files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use mvvd_bench::truth::Result;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::{Place, SEED};

/// Dimensions of a generated vector.
pub(super) const DIMS: usize = 128;
/// Rows of a batch on the way to a file.
const BATCH_ROWS: usize = 8_192;

/// The files of the generated rows.
#[derive(Debug)]
pub(super) struct Generated {
    /// In random order of keys.
    pub(super) unsorted: PathBuf,
    /// In order of keys.
    pub(super) sorted: PathBuf,
    pub(super) rows: usize,
}

impl Generated {
    pub(super) fn vector_bytes(&self) -> usize {
        self.rows * DIMS * size_of::<f32>()
    }
}

/// Writes the rows to two Parquet files.
pub(super) fn write(place: &Place<'_>, rows: usize) -> Result<Generated> {
    let generated = Generated { unsorted: place.file("unsorted.parquet"), sorted: place.file("sorted.parquet"), rows };
    let mut keys: Vec<i64> = (0..rows as u64).map(key).collect();
    write_file(&generated.unsorted, &keys)?;
    keys.sort_unstable();
    write_file(&generated.sorted, &keys)?;
    Ok(generated)
}

fn write_file(path: &PathBuf, keys: &[i64]) -> Result<()> {
    // No dictionary for numbers that are all different.
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(ColumnPath::from(vec!["v".into(), "list".into(), "element".into()]), false)
        .build();
    let schema = batch(&keys[..0])?.schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for keys in keys.chunks(BATCH_ROWS) {
        writer.write(&batch(keys)?)?;
    }
    writer.close()?;
    Ok(())
}

/// The key of the `i`th row: distinct for every `i`, in no order, never negative.
pub(super) fn key(i: u64) -> i64 {
    // A permutation of the 63-bit numbers: xor-shifts and odd factors can be undone.
    let mask = (1 << 63) - 1;
    let mut x = (i ^ SEED) & mask;
    for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 31)).wrapping_mul(factor) & mask;
    }
    (x ^ (x >> 32)) as i64
}

/// Rows with these keys; a vector follows from its key.
pub(super) fn batch(keys: &[i64]) -> Result<RecordBatch> {
    let mut values = Vec::with_capacity(keys.len() * DIMS);
    for &key in keys {
        extend_with_vector(&mut values, key as u64);
    }
    let item = Arc::new(Field::new("element", DataType::Float32, false));
    let vectors = FixedSizeListArray::try_new(item, DIMS as i32, Arc::new(Float32Array::from(values)), None)?;
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(Int64Array::from(keys.to_vec()))), ("v", Arc::new(vectors))];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A vector of `DIMS` values in [-1, 1).
pub(super) fn extend_with_vector(values: &mut Vec<f32>, seed: u64) {
    let mut state = seed ^ SEED;
    values.extend((0..DIMS).map(|_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }));
}
