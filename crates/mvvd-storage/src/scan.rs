//! All rows of a snapshot in order of their keys, a batch at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use mvvd_core::Result;

use crate::chunk::Merge;
use crate::snapshot::{Place, Snapshot};

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// Rows in ascending order of their keys, or of insertion in a table without a key. Holds its snapshot.
#[derive(Debug)]
pub(crate) struct Scan {
    snapshot: Arc<Snapshot>,
    columns: Vec<usize>,
    /// Where the rows are, in order.
    order: Vec<Place>,
    next: usize,
}

impl Scan {
    /// Reads the keys; the columns are read as the scan goes on.
    pub(crate) fn new(snapshot: Arc<Snapshot>, columns: &[usize]) -> Result<Self> {
        // A position that is not there is an error also where there are no rows.
        snapshot.schema().arrow().project(columns)?;
        let merge = Merge::new(snapshot.schema(), snapshot.chunks())?;
        let place = |&(chunk, row): &(usize, usize)| Place { chunk: chunk as u32, ordinal: row as u32 };
        let order = merge.sources().iter().map(place).collect();
        Ok(Self { columns: columns.to_vec(), order, next: 0, snapshot })
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.next + BATCH_ROWS).min(self.order.len());
        let places = &self.order[self.next..end];
        self.next = end;
        (!places.is_empty()).then(|| self.snapshot.take(places, &self.columns))
    }
}
