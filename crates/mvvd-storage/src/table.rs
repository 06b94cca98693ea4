//! One table: a chain of chunks, one writer at a time, snapshots for readers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use mvvd_core::{Error, Ordinal, Result, RowId, TableSchema};
use parking_lot::{Mutex, RwLock};

use crate::chunk::{Chunk, MERGED_ROWS_MAX};
use crate::key::{Key, KeyIndex, keys_of};
use crate::snapshot::{Place, Snapshot};
use crate::validate::validate;

/// A table. Writes are atomic: a reader sees all of a change or nothing of it.
#[derive(Debug)]
pub struct Table {
    current: RwLock<Arc<Snapshot>>,
    /// The single writer holds this from its first check to the publishing of the new snapshot.
    keys: Mutex<KeyIndex>,
}

/// Sizes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Live rows.
    pub rows: usize,
    /// Bytes of the columns.
    pub data_bytes: usize,
    /// Bytes beside the columns: keys, row numbers, deletions.
    pub bookkeeping_bytes: usize,
}

impl Table {
    /// An empty table.
    pub fn new(schema: TableSchema) -> Self {
        let snapshot = Snapshot { version: 0, schema: Arc::new(schema), chunks: Vec::new(), next_row: 0 };
        Self { current: RwLock::new(Arc::new(snapshot)), keys: Mutex::default() }
    }

    /// The table as it is now, for as long as the caller holds it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// Adds rows. A key that exists, or comes twice, is an error and nothing is added.
    ///
    /// Batches have the schema's columns in order. Returns the number of rows.
    pub fn append(&self, batches: &[RecordBatch]) -> Result<usize> {
        self.replace(&[], batches)
    }

    /// Deletes rows, which must be live.
    pub fn delete(&self, rows: &[RowId]) -> Result<usize> {
        self.replace(rows, &[])?;
        Ok(rows.len())
    }

    /// Deletes `rows` and adds `batches` in one step: the form that every write takes.
    ///
    /// Keys are checked against what remains. A row that is no longer live means that another writer was first:
    /// [`Conflict`](mvvd_core::ErrorKind::Conflict), and nothing changes. Returns the number of rows added.
    pub fn replace(&self, rows: &[RowId], batches: &[RecordBatch]) -> Result<usize> {
        let mut keys = self.keys.lock();
        let before = self.snapshot();
        let schema = &before.schema;
        let batches = batches.iter().map(|batch| validate(schema, batch)).collect::<Result<Vec<_>>>()?;
        let places = before.places(rows)?;

        // Everything that can fail comes before the first change.
        let old_keys = self.old_keys(&before, &places)?;
        let new_keys = match schema.primary_key() {
            Some(column) => {
                let name = schema.columns()[column].field.name();
                let new_keys =
                    batches.iter().map(|batch| keys_of(batch.column(column))).collect::<Result<Vec<_>>>()?.concat();
                let freed: HashSet<&Key> = old_keys.iter().collect();
                let mut seen = HashSet::with_capacity(new_keys.len());
                for key in &new_keys {
                    if !seen.insert(key) {
                        return Err(Error::conflict(format!(
                            "duplicate key: {name} = {key} comes twice in one statement"
                        )));
                    }
                    if keys.get(key).is_some() && !freed.contains(key) {
                        return Err(Error::conflict(format!("duplicate key: {name} = {key} already exists")));
                    }
                }
                new_keys
            }
            None => Vec::new(),
        };
        let mut chunks = delete_places(&before.chunks, &places);
        let mut next_row = before.next_row;
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            chunks.push(Arc::new(Chunk::new(schema, batch, RowId(next_row))));
            next_row += batch.num_rows() as u64;
        }
        merge_small(schema, &mut chunks)?;

        for (key, row) in old_keys.iter().zip(rows) {
            keys.remove(key, *row);
        }
        for (i, key) in new_keys.into_iter().enumerate() {
            keys.insert(key, RowId(before.next_row + i as u64));
        }
        let added = (next_row - before.next_row) as usize;
        self.publish(Snapshot { version: before.version + 1, schema: Arc::clone(schema), chunks, next_row });
        Ok(added)
    }

    /// Deletes every row. Returns how many there were.
    pub fn truncate(&self) -> usize {
        let mut keys = self.keys.lock();
        let before = self.snapshot();
        keys.clear();
        let rows = before.live();
        self.publish(Snapshot { version: before.version + 1, chunks: Vec::new(), ..Snapshot::clone(&before) });
        rows
    }

    /// Changes the schema; `change` sees the current one. Rows keep their values: columns are known by id.
    pub fn alter(&self, change: impl FnOnce(&TableSchema) -> Result<TableSchema>) -> Result<()> {
        let _writer = self.keys.lock();
        let before = self.snapshot();
        let schema = Arc::new(change(&before.schema)?);
        self.publish(Snapshot { version: before.version + 1, schema, ..Snapshot::clone(&before) });
        Ok(())
    }

    /// The rows that have these keys, in the same order.
    pub fn find(&self, wanted: &[Key]) -> Vec<Option<RowId>> {
        let keys = self.keys.lock();
        wanted.iter().map(|key| keys.get(key)).collect()
    }

    /// The places of these keys, in the same order, and the snapshot that they are places of.
    pub fn find_in(&self, wanted: &[Key]) -> (Arc<Snapshot>, Vec<Option<Place>>) {
        // Keys and snapshot change together, under this lock.
        let keys = self.keys.lock();
        let snapshot = self.snapshot();
        let places = wanted.iter().map(|key| snapshot.place(keys.get(key)?)).collect();
        (snapshot, places)
    }

    /// Rows and bytes.
    pub fn size(&self) -> TableSize {
        let snapshot = self.snapshot();
        TableSize {
            rows: snapshot.live(),
            data_bytes: snapshot.data_bytes(),
            bookkeeping_bytes: self.keys.lock().bytes()
                + snapshot.chunks.iter().map(|chunk| chunk.bookkeeping_bytes()).sum::<usize>(),
        }
    }

    fn publish(&self, snapshot: Snapshot) {
        *self.current.write() = Arc::new(snapshot);
    }

    fn old_keys(&self, before: &Snapshot, places: &[Place]) -> Result<Vec<Key>> {
        match before.schema.primary_key() {
            Some(column) if !places.is_empty() => keys_of(before.take(places, &[column])?.column(0)),
            _ => Ok(Vec::new()),
        }
    }
}

fn delete_places(chunks: &[Arc<Chunk>], places: &[Place]) -> Vec<Arc<Chunk>> {
    let mut by_chunk: HashMap<u32, Vec<Ordinal>> = HashMap::new();
    for place in places {
        by_chunk.entry(place.chunk).or_default().push(place.ordinal);
    }
    chunks
        .iter()
        .enumerate()
        .map(|(i, chunk)| match by_chunk.remove(&(i as u32)) {
            Some(ordinals) => Arc::new(chunk.with_deleted(ordinals)),
            None => Arc::clone(chunk),
        })
        .filter(|chunk| chunk.live() > 0)
        .collect()
}

/// Keeps the number of chunks logarithmic: the last ones are merged while they are small and of like size, so a row is
/// copied O(log n) times in its life.
fn merge_small(schema: &TableSchema, chunks: &mut Vec<Arc<Chunk>>) -> Result<()> {
    let mut start = chunks.len();
    let mut rows = 0;
    while start > 0 {
        let previous = chunks[start - 1].live();
        let grows = rows == 0 || previous < rows * 2;
        if !grows || rows + previous > MERGED_ROWS_MAX {
            break;
        }
        rows += previous;
        start -= 1;
    }
    if chunks.len() - start > 1 {
        let merged = Chunk::merge(schema, &chunks[start..])?;
        chunks.truncate(start);
        chunks.push(Arc::new(merged));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
