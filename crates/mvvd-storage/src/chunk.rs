//! Rows that were written together: immutable columns, and which of the rows are deleted.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{concat, take};
use mvvd_core::kernels::prefer_large_pages;
use mvvd_core::{Ordinal, Result, RowId, TableSchema};
use roaring::RoaringBitmap;

/// Most rows that small chunks are merged up to.
pub(crate) const MERGED_ROWS_MAX: usize = 65_536;

/// Some rows of a table, in ascending order of [`RowId`]. Columns are shared between versions of a chunk.
#[derive(Debug, Clone)]
pub struct Chunk {
    columns: Arc<Vec<(u32, ArrayRef)>>,
    row_ids: RowIds,
    deleted: Arc<RoaringBitmap>,
}

/// The numbers of a chunk's rows.
#[derive(Debug, Clone)]
enum RowIds {
    /// `first`, `first + 1`, …
    Run { first: u64, len: usize },
    /// Ascending, with gaps where deleted rows were dropped.
    List(UInt64Array),
}

impl RowIds {
    fn len(&self) -> usize {
        match self {
            Self::Run { len, .. } => *len,
            Self::List(ids) => ids.len(),
        }
    }

    fn get(&self, ordinal: usize) -> u64 {
        match self {
            Self::Run { first, .. } => first + ordinal as u64,
            Self::List(ids) => ids.value(ordinal),
        }
    }
}

impl Chunk {
    /// A chunk of the rows of `batch`, numbered from `first`. Its columns are those of `schema`, in order.
    pub(crate) fn new(schema: &TableSchema, batch: &RecordBatch, first: RowId) -> Self {
        let columns =
            schema.columns().iter().zip(batch.columns()).map(|(c, array)| (c.id, Arc::clone(array))).collect();
        Self {
            columns: Arc::new(columns),
            row_ids: RowIds::Run { first: first.0, len: batch.num_rows() },
            deleted: Arc::default(),
        }
    }

    /// Number of rows, deleted ones included.
    pub fn len(&self) -> usize {
        self.row_ids.len()
    }

    /// Whether there is no row at all; the engine keeps no such chunk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rows that are not deleted.
    pub fn live(&self) -> usize {
        self.len() - self.deleted.len() as usize
    }

    /// Ordinals of the deleted rows.
    pub fn deleted(&self) -> &RoaringBitmap {
        &self.deleted
    }

    /// The stable number of the row at `ordinal`.
    pub fn row_id(&self, ordinal: usize) -> RowId {
        RowId(self.row_ids.get(ordinal))
    }

    /// The numbers of the rows in `range`.
    pub fn row_ids(&self, range: Range<usize>) -> UInt64Array {
        match &self.row_ids {
            RowIds::Run { first, .. } => range.map(|i| first + i as u64).collect::<Vec<_>>().into(),
            RowIds::List(ids) => ids.slice(range.start, range.len()),
        }
    }

    /// Number of the first row.
    pub(crate) fn first(&self) -> u64 {
        self.row_ids.get(0)
    }

    /// Position of a row, deleted or not.
    pub(crate) fn ordinal(&self, row: RowId) -> Option<Ordinal> {
        let found = match &self.row_ids {
            RowIds::Run { first, len } => row.0.checked_sub(*first).map(|i| i as usize).filter(|i| i < len),
            RowIds::List(ids) => ids.values().binary_search(&row.0).ok(),
        };
        found.map(|i| i as Ordinal)
    }

    /// Column `index` of `schema` for the rows in `range`, without copying. A column that is newer than the chunk
    /// is filled with its initial value.
    pub fn column(&self, schema: &TableSchema, index: usize, range: Range<usize>) -> Result<ArrayRef> {
        let column = &schema.columns()[index];
        if let Some((_, array)) = self.columns.iter().find(|(id, _)| *id == column.id) {
            return Ok(if range.len() == array.len() {
                Arc::clone(array)
            } else {
                array.slice(range.start, range.len())
            });
        }
        match &column.initial {
            Some(value) => Ok(take(value, &UInt32Array::from(vec![0; range.len()]), None)?),
            None => Ok(new_null_array(column.field.data_type(), range.len())),
        }
    }

    /// Some columns of `schema` for the rows in `range`, deleted rows included, without copying.
    pub fn batch(&self, schema: &TableSchema, projection: &[usize], range: Range<usize>) -> Result<RecordBatch> {
        let arrow = Arc::new(schema.arrow().project(projection)?);
        let columns =
            projection.iter().map(|&i| self.column(schema, i, range.clone())).collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(range.len()));
        Ok(RecordBatch::try_new_with_options(arrow, columns, &options)?)
    }

    /// The same rows with more of them deleted.
    pub(crate) fn with_deleted(&self, ordinals: impl IntoIterator<Item = Ordinal>) -> Self {
        let mut deleted = RoaringBitmap::clone(&self.deleted);
        deleted.extend(ordinals);
        Self { deleted: Arc::new(deleted), ..self.clone() }
    }

    /// One chunk of the live rows of `chunks`, which must be neighbours in this order. Copies.
    pub(crate) fn merge(schema: &TableSchema, chunks: &[Arc<Self>]) -> Result<Self> {
        let live: Vec<UInt32Array> = chunks
            .iter()
            .map(|chunk| (0..chunk.len() as u32).filter(|i| !chunk.deleted.contains(*i)).collect::<Vec<_>>().into())
            .collect();
        let mut columns = Vec::with_capacity(schema.columns().len());
        for (index, column) in schema.columns().iter().enumerate() {
            let parts = chunks
                .iter()
                .zip(&live)
                .map(|(chunk, live)| {
                    let all = chunk.column(schema, index, 0..chunk.len())?;
                    Ok(if live.len() == all.len() { all } else { take(&all, live, None)? })
                })
                .collect::<Result<Vec<ArrayRef>>>()?;
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let merged = concat(&parts)?;
            prefer_large_pages(&merged);
            columns.push((column.id, merged));
        }
        let ids: Vec<u64> = chunks
            .iter()
            .zip(&live)
            .flat_map(|(chunk, live)| live.values().iter().map(|&i| chunk.row_ids.get(i as usize)))
            .collect();
        let is_run = ids.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let row_ids = match ids.first() {
            Some(&first) if is_run => RowIds::Run { first, len: ids.len() },
            _ => RowIds::List(ids.into()),
        };
        Ok(Self { columns: Arc::new(columns), row_ids, deleted: Arc::default() })
    }

    /// Bytes of the columns.
    pub(crate) fn data_bytes(&self) -> usize {
        self.columns.iter().map(|(_, array)| array.get_array_memory_size()).sum()
    }

    /// Bytes beside the columns.
    pub(crate) fn bookkeeping_bytes(&self) -> usize {
        let ids = match &self.row_ids {
            RowIds::Run { .. } => 0,
            RowIds::List(ids) => ids.len() * 8,
        };
        ids + self.deleted.serialized_size() + size_of::<Self>()
    }
}
