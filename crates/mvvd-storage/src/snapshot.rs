//! A table at one version.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave;
use mvvd_core::{Error, Ordinal, Result, RowId, TableSchema};

use crate::chunk::Chunk;
use crate::key::Key;

/// A table at one version. Cheap to clone and to hold; readers never wait for writers.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) version: u64,
    /// When the version was made, in microseconds since 1970.
    pub(crate) created: i64,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) chunks: Vec<Arc<Chunk>>,
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
    /// A table without rows.
    pub(crate) fn empty(schema: TableSchema) -> Self {
        Self { version: 0, created: now_micros(), schema: Arc::new(schema), chunks: Vec::new() }
    }

    /// Number of this version; every committed change adds one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When this version was made, in microseconds since 1970.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// The schema at this version.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The chunks, each sorted by key; their ranges of keys may overlap.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The version after this one, made now, with the same rows so far.
    pub(crate) fn next(&self) -> Self {
        Self { version: self.version + 1, created: now_micros(), ..self.clone() }
    }

    /// Whether some rows are only in memory and in the log.
    pub(crate) fn has_unflushed(&self) -> bool {
        self.chunks.iter().rev().any(|chunk| !chunk.is_stored())
    }

    /// Number of rows that are not deleted.
    pub fn live(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live()).sum()
    }

    /// Where the row with this key is, if it is live. O(log n) for each chunk.
    pub fn find(&self, key: &Key) -> Result<Option<Place>> {
        // The youngest rows are asked for most.
        for (i, chunk) in self.chunks.iter().enumerate().rev() {
            if let Some(ordinal) = chunk.find(key)?
                && !chunk.deleted().contains(ordinal)
            {
                return Ok(Some(Place { chunk: i as u32, ordinal }));
            }
        }
        Ok(None)
    }

    /// Some columns of the rows with these keys, in that order; keys that do not exist are left out. Copies just these rows.
    pub fn get(&self, keys: &[Key], projection: &[usize]) -> Result<RecordBatch> {
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            places.extend(self.find(key)?);
        }
        self.take(&places, projection)
    }

    /// What the row at a place is called in a change.
    pub fn row_id(&self, place: Place) -> RowId {
        self.chunks[place.chunk as usize].row_id(place.ordinal as usize)
    }

    /// Some columns of the rows at `places`, in that order. Copies just these rows.
    pub fn take(&self, places: &[Place], projection: &[usize]) -> Result<RecordBatch> {
        let arrow = Arc::new(self.schema.arrow().project(projection)?);
        let columns = projection
            .iter()
            .map(|&column| {
                if places.is_empty() {
                    return Ok(arrow::array::new_empty_array(self.schema.arrow().field(column).data_type()));
                }
                self.take_with(places, |chunk| match chunk.constant(&self.schema, column) {
                    Some(value) => Ok((value, true)),
                    None => Ok((chunk.column(&self.schema, column, 0..chunk.len())?, false)),
                })
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(RecordBatch::try_new_with_options(arrow, columns, &options)?)
    }

    /// The keys of the rows at `places` (at least one), in that order; see [`Chunk::keys`].
    pub(crate) fn take_keys(&self, places: &[Place]) -> Result<ArrayRef> {
        self.take_with(places, |chunk| Ok((chunk.keys(0..chunk.len())?, false)))
    }

    /// The values at `places` of a column, which is given for a chunk: as an array, and whether its one value is that of
    /// all rows.
    fn take_with(&self, places: &[Place], column: impl Fn(&Chunk) -> Result<(ArrayRef, bool)>) -> Result<ArrayRef> {
        let mut used: Vec<u32> = places.iter().map(|place| place.chunk).collect();
        used.sort_unstable();
        used.dedup();
        let parts = used.iter().map(|&chunk| column(&self.chunks[chunk as usize])).collect::<Result<Vec<_>>>()?;
        let ordinal = |place: &Place, is_constant: bool| if is_constant { 0 } else { place.ordinal };
        if let ([(part, is_constant)], [place]) = (parts.as_slice(), places) {
            let row = arrow::array::UInt32Array::from(vec![ordinal(place, *is_constant)]);
            return Ok(arrow::compute::take(part, &row, None)?);
        }
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|place| {
                let part = used.partition_point(|&chunk| chunk < place.chunk);
                (part, ordinal(place, parts[part].1) as usize)
            })
            .collect();
        let parts: Vec<_> = parts.iter().map(|(part, _)| part.as_ref()).collect();
        Ok(interleave(&parts, &indices)?)
    }

    /// The places of rows that must be live here.
    pub fn places(&self, rows: &[RowId]) -> Result<Vec<Place>> {
        let chunks: HashMap<u32, u32> = self.chunks.iter().zip(0..).map(|(chunk, i)| (chunk.uid(), i)).collect();
        rows.iter()
            .map(|&row| {
                let ordinal = row.0 as Ordinal;
                let chunk = chunks.get(&((row.0 >> 32) as u32)).copied();
                let live = chunk.filter(|&i| {
                    let chunk = &self.chunks[i as usize];
                    (ordinal as usize) < chunk.len() && !chunk.deleted().contains(ordinal)
                });
                live.map(|chunk| Place { chunk, ordinal }).ok_or_else(|| {
                    Error::conflict("a row was changed by another writer").with_hint("run the statement again")
                })
            })
            .collect()
    }

    /// Bytes of the columns, shared buffers counted where they are used.
    pub fn data_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data_bytes()).sum()
    }
}

/// The current time in microseconds since 1970.
pub(crate) fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
