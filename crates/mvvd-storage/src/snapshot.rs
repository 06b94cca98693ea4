//! What one reader sees: a table at one version, unchanged however long it is held.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use mvvd_core::{Error, Ordinal, Result, RowId, TableSchema};

use crate::chunk::Chunk;

/// A table at one version. Cheap to clone and to hold; readers never wait for writers.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) version: u64,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) next_row: u64,
}

/// A row's place in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the chunk.
    pub chunk: u32,
    /// Position within the chunk.
    pub ordinal: Ordinal,
}

impl Snapshot {
    /// Number of this version; every committed change adds one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The schema at this version.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The chunks, in ascending order of [`RowId`].
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Number of rows that are not deleted.
    pub fn live(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live()).sum()
    }

    /// Where the row is, if it is live in this snapshot.
    pub fn place(&self, row: RowId) -> Option<Place> {
        let chunk = self.chunks.partition_point(|chunk| chunk.first() <= row.0).checked_sub(1)?;
        let ordinal = self.chunks[chunk].ordinal(row)?;
        (!self.chunks[chunk].deleted().contains(ordinal)).then_some(Place { chunk: chunk as u32, ordinal })
    }

    /// Some columns of the rows at `places`, in that order. Copies just these rows.
    pub fn take(&self, places: &[Place], projection: &[usize]) -> Result<RecordBatch> {
        let arrow = Arc::new(self.schema.arrow().project(projection)?);
        let mut used: Vec<u32> = places.iter().map(|place| place.chunk).collect();
        used.sort_unstable();
        used.dedup();
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|place| (used.partition_point(|&chunk| chunk < place.chunk), place.ordinal as usize))
            .collect();
        let columns = projection
            .iter()
            .map(|&column| {
                let parts = used
                    .iter()
                    .map(|&chunk| {
                        let chunk = &self.chunks[chunk as usize];
                        chunk.column(&self.schema, column, 0..chunk.len())
                    })
                    .collect::<Result<Vec<ArrayRef>>>()?;
                if parts.is_empty() {
                    return Ok(arrow::array::new_empty_array(self.schema.arrow().field(column).data_type()));
                }
                let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
                Ok(interleave(&parts, &indices)?)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(RecordBatch::try_new_with_options(arrow, columns, &options)?)
    }

    /// The places of rows that must be live here.
    pub fn places(&self, rows: &[RowId]) -> Result<Vec<Place>> {
        rows.iter()
            .map(|&row| {
                self.place(row).ok_or_else(|| Error::conflict(format!("row {} was changed by another writer", row.0)))
            })
            .collect()
    }

    /// Bytes of the columns, shared buffers counted where they are used.
    pub fn data_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data_bytes()).sum()
    }
}
