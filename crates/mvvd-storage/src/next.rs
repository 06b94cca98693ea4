//! What a change adds to a table: chunks with their numbers, rows in key order, no key twice.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use mvvd_core::{Error, Result, TableSchema};

use crate::chunk::{Born, Chunk, MERGED_ROWS_MAX, Merge, NUMBER_ID, key_id};
use crate::key::{KeyColumn, KeyRef};
use crate::memory::Memory;
use crate::segment::Segment;

/// Numbers that the next change gives out; they count once it is recorded.
pub(crate) struct Next {
    uid: u32,
    number: u64,
    /// Chunks of the head that must stay as they are.
    frozen: usize,
}

impl Next {
    pub(crate) fn new(uid: u32, number: u64, frozen: usize) -> Self {
        Self { uid, number, frozen }
    }

    /// The next chunk, and the next row of a table without a key.
    pub(crate) fn numbers(&self) -> (u32, u64) {
        (self.uid, self.number)
    }

    /// Row numbers up to `last` are taken.
    pub(crate) fn number_after(&mut self, last: u64) {
        self.number = self.number.max(last + 1);
    }

    /// The row numbers of a segment are taken.
    pub(crate) fn number_in(&mut self, segment: &Segment) -> Result<()> {
        if let Some(numbers) = segment.column(NUMBER_ID)?.filter(|numbers| !numbers.is_empty())
            && let KeyRef::Int(last) = KeyColumn::of(&numbers)?.at(numbers.len() - 1)
        {
            self.number_after(u64::try_from(last).unwrap_or(0));
        }
        Ok(())
    }

    pub(crate) fn uid(&mut self) -> Result<u32> {
        let uid = self.uid;
        self.uid = uid.checked_add(1).ok_or_else(|| Error::exhausted("the table has no numbers left for its parts"))?;
        Ok(uid)
    }

    /// The rows of `batches`, which come with `version`, as chunks in key order. Keys that come twice are an error.
    pub(crate) fn chunks_of(
        &mut self,
        schema: &TableSchema,
        batches: &[RecordBatch],
        version: u64,
    ) -> Result<Vec<Arc<Chunk>>> {
        let key = key_id(schema);
        let mut chunks = Vec::with_capacity(batches.len());
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let mut columns: Vec<(u32, ArrayRef)> =
                schema.columns().iter().zip(batch.columns()).map(|(c, array)| (c.id, Arc::clone(array))).collect();
            if key == NUMBER_ID {
                let end = self.number + batch.num_rows() as u64;
                columns.push((NUMBER_ID, Arc::new(UInt64Array::from_iter_values(self.number..end))));
                self.number = end;
            }
            chunks.push(Arc::new(Chunk::new(self.uid()?, key, batch.num_rows(), columns, Born::All(version))));
        }
        if is_in_order(&chunks)? {
            return Ok(chunks);
        }
        // The order of the whole, not of each batch: chunks that do not overlap are searched one at a time.
        let merge = Merge::new(schema, &chunks)?;
        let rows = merge.sources().len();
        let mut sorted = Vec::with_capacity(chunks.len());
        for start in (0..rows).step_by(MERGED_ROWS_MAX) {
            let range = start..(start + MERGED_ROWS_MAX).min(rows);
            sorted.push(Arc::new(merge.chunk(self.uid()?, range)?));
        }
        check_distinct(schema, &sorted)?;
        Ok(sorted)
    }

    /// Keeps the number of chunks logarithmic: the last ones are merged while they are small and of like size, so a row
    /// is copied O(log n) times in its life. Waits for another time if `memory` has no room for the copy.
    pub(crate) fn merge_small(
        &mut self,
        schema: &TableSchema,
        chunks: &mut Vec<Arc<Chunk>>,
        memory: Option<&Arc<Memory>>,
    ) -> Result<()> {
        let bytes_max = memory.map_or(usize::MAX, |memory| memory.step_bytes_max());
        let mut start = chunks.len();
        let (mut rows, mut bytes) = (0, 0);
        while start > self.frozen {
            let previous = &chunks[start - 1];
            let grows = rows == 0 || previous.live() < rows * 2;
            let fits = rows + previous.live() <= MERGED_ROWS_MAX && bytes + previous.data_bytes() <= bytes_max;
            if !grows || !fits || previous.is_stored() {
                break;
            }
            rows += previous.live();
            bytes += previous.data_bytes();
            start -= 1;
        }
        if chunks.len() - start > 1 && memory.is_none_or(|memory| memory.has(bytes)) {
            let merged = Merge::new(schema, &chunks[start..])?;
            let merged = merged.chunk(self.uid()?, 0..merged.sources().len())?;
            chunks.truncate(start);
            chunks.push(Arc::new(merged));
        }
        Ok(())
    }
}

/// Whether the keys ascend within each chunk and from one to the next.
fn is_in_order(chunks: &[Arc<Chunk>]) -> Result<bool> {
    let columns = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<_>>>()?;
    let keys = columns.iter().map(|column| KeyColumn::of(column)).collect::<Result<Vec<_>>>()?;
    Ok(keys.iter().all(|keys| keys.first_out_of_order().is_none())
        && keys.windows(2).all(|pair| pair[0].at(pair[0].len() - 1) < pair[1].at(0)))
}

fn key_name(schema: &TableSchema) -> &str {
    schema.primary_key().map_or("row number", |i| schema.columns()[i].field.name())
}

/// Refuses keys that come twice in sorted chunks.
fn check_distinct(schema: &TableSchema, chunks: &[Arc<Chunk>]) -> Result<()> {
    let twice = |key: &dyn std::fmt::Display| {
        Error::conflict(format!("duplicate key: {} = {key} comes twice in one statement", key_name(schema)))
    };
    let columns = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<_>>>()?;
    let keys = columns.iter().map(|column| KeyColumn::of(column)).collect::<Result<Vec<_>>>()?;
    for (i, keys_here) in keys.iter().enumerate() {
        if let Some(row) = keys_here.first_out_of_order() {
            return Err(twice(&keys_here.at(row)));
        }
        if i > 0 && keys[i - 1].at(keys[i - 1].len() - 1) >= keys_here.at(0) {
            return Err(twice(&keys_here.at(0)));
        }
    }
    Ok(())
}

/// Refuses new rows whose key a live row has.
pub(crate) fn check_keys(schema: &TableSchema, chunks: &[Arc<Chunk>], added: &[Arc<Chunk>]) -> Result<()> {
    if key_id(schema) == NUMBER_ID {
        return Ok(());
    }
    for new in added {
        let new_keys = new.keys(0..new.len())?;
        let new_keys = KeyColumn::of(&new_keys)?;
        for chunk in chunks {
            let keys = chunk.keys(0..chunk.len())?;
            let keys = KeyColumn::of(&keys)?;
            let mut from = (0, 0);
            while let Some((here, there)) = new_keys.next_shared(keys, from) {
                if !chunk.deleted().contains(there as u32) {
                    let (name, key) = (key_name(schema), new_keys.at(here));
                    return Err(Error::conflict(format!("duplicate key: {name} = {key} already exists")));
                }
                from = (here + 1, there + 1);
            }
        }
    }
    Ok(())
}
