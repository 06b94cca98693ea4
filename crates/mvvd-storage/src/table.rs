//! One table: chunks sorted by key, one writer at a time, snapshots for readers.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use mvvd_core::{Ordinal, Result, RowId, TableSchema};
use parking_lot::{Mutex, MutexGuard};
use roaring::RoaringBitmap;

use crate::chunk::{Chunk, Merge, batch_bytes, key_id};
use crate::log::{Change, Commit, TableLog};
use crate::memory::{Memory, Taken};
use crate::moves::Moves;
use crate::next::{Next, check_keys};
use crate::snapshot::{Place, Snapshot};
use crate::validate::validate;
use crate::versions::{VERSIONS_KEPT, Versions};
use crate::wal::Lsn;

/// A table. Writes are atomic: a reader sees all of a change or nothing of it.
#[derive(Debug)]
pub struct Table {
    /// What readers see, changes that are as durable as the database promises; and what they will see.
    versions: Arc<Versions>,
    /// The single writer holds this from its first check to the record in the log.
    writer: Mutex<Writer>,
    log: TableLog,
    /// The account that rows in memory are on; none until the table is part of a database.
    memory: OnceLock<Arc<Memory>>,
}

/// What the next change builds on.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The newest version, durable or about to be.
    pub(crate) head: Arc<Snapshot>,
    /// That one and those before it.
    versions: Arc<Versions>,
    /// Chunks of the head that must stay as they are, because they are being written to a segment.
    pub(crate) frozen: usize,
    pub(crate) next_uid: u32,
    pub(crate) next_number: u64,
    /// The record of the newest change.
    pub(crate) last_lsn: Lsn,
    /// Changes up to this record are in segments.
    pub(crate) flushed_lsn: Lsn,
    /// Segments that a record after `flushed_lsn` names: replay adds them, so no manifest may name them, nor may a
    /// compaction put others in their place.
    pub(crate) unsettled: Vec<Unsettled>,
    /// Where rows went when their chunks were written to segments: old chunk to new row, by ordinal. The last few.
    moved: VecDeque<HashMap<u32, Vec<u64>>>,
}

/// A segment that the log names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsettled {
    /// Its chunk.
    pub(crate) uid: u32,
    pub(crate) segment: u64,
    /// The record that names it.
    pub(crate) lsn: Lsn,
}

/// How many rearrangements a running statement may miss.
const MOVES_KEPT: usize = 8;
/// A chunk in memory that has more than this share of deleted rows is copied when memory is short.
const WORN_SHARE: f64 = 0.1;
/// A row that did not move: it was deleted.
pub(crate) const GONE: u64 = u64::MAX;

/// Part of a table on its way to segments.
pub(crate) struct Frozen {
    pub(crate) snapshot: Arc<Snapshot>,
    /// The chunks in memory.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    /// Versions before it that have chunks in memory, oldest first.
    pub(crate) older: Vec<Arc<Snapshot>>,
    /// They hold all changes up to this record.
    pub(crate) lsn: Lsn,
}

/// Sizes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Live rows.
    pub rows: usize,
    /// Bytes of the columns.
    pub data_bytes: usize,
    /// Bytes beside the columns: row numbers, deletions.
    pub bookkeeping_bytes: usize,
}

impl Table {
    /// An empty table in memory.
    pub fn new(schema: TableSchema) -> Self {
        Self::restored(Snapshot::empty(schema), 0, 0, TableLog::none())
    }

    /// A table as it was found on disk.
    pub(crate) fn restored(snapshot: Snapshot, next_uid: u32, next_number: u64, log: TableLog) -> Self {
        Self::restored_with(snapshot, Vec::new(), VERSIONS_KEPT, next_uid, next_number, log)
    }

    /// As [`Table::restored`], with versions before the present one, oldest first, of which `kept` are kept.
    pub(crate) fn restored_with(
        snapshot: Snapshot,
        older: Vec<Arc<Snapshot>>,
        kept: usize,
        next_uid: u32,
        next_number: u64,
        log: TableLog,
    ) -> Self {
        let head = Arc::new(snapshot);
        let versions = Arc::new(Versions::new(Arc::clone(&head), older, kept));
        let writer = Writer {
            head,
            versions: Arc::clone(&versions),
            frozen: 0,
            next_uid,
            next_number,
            last_lsn: Lsn::default(),
            flushed_lsn: Lsn::default(),
            unsettled: Vec::new(),
            moved: VecDeque::new(),
        };
        Self { versions, writer: Mutex::new(writer), log, memory: OnceLock::new() }
    }

    /// The table as it is now, for as long as the caller holds it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.versions.current()
    }

    /// The table as it was at `version`, if that is still kept.
    pub fn at(&self, version: u64) -> Result<Arc<Snapshot>> {
        self.versions.at(version)
    }

    /// The versions that are kept, oldest first; the last one is the present one.
    pub fn versions(&self) -> Vec<Arc<Snapshot>> {
        self.versions.seen()
    }

    /// Keeps so many versions beside the present one. A version that is kept holds rows that were deleted since.
    pub fn keep_versions(&self, kept: usize) {
        self.versions.keep(kept);
    }

    /// The version that the next change builds on: a statement that writes must read this one.
    ///
    /// It may hold changes that are not durable yet; whatever is built on them becomes durable after them. Does not wait
    /// for a change that is being made.
    pub fn head(&self) -> Arc<Snapshot> {
        self.versions.newest()
    }

    /// Adds rows. A key that exists, or comes twice, is an error and nothing is added.
    ///
    /// Batches have the schema's columns in order.
    pub fn append(&self, batches: &[RecordBatch]) -> Result<Commit> {
        self.replace(&[], batches)
    }

    /// Deletes rows, which must be live.
    pub fn delete(&self, rows: &[RowId]) -> Result<Commit> {
        self.replace(rows, &[])
    }

    /// Deletes `rows` and adds `batches` in one step: the form that every write takes.
    ///
    /// Keys are checked against what remains. A row that is no longer live means that another writer was first:
    /// [`Conflict`](mvvd_core::ErrorKind::Conflict), and nothing changes. No memory for the rows:
    /// [`Exhausted`](mvvd_core::ErrorKind::Exhausted), and nothing changes either; the room that deleted rows take cannot
    /// be had while the caller holds a snapshot of them. The change is durable and visible once [`Commit::wait`] returns.
    pub fn replace(&self, rows: &[RowId], batches: &[RecordBatch]) -> Result<Commit> {
        self.log.wait_for_room(|| self.unflushed_bytes())?;
        let check =
            |schema: &TableSchema| batches.iter().map(|batch| validate(schema, batch)).collect::<Result<Vec<_>>>();
        // Most of the time the schema is still the same when it is this writer's turn.
        let expected = Arc::clone(&self.head().schema);
        let checked = check(&expected)?;
        let taken = self.take_memory(batches)?;
        let mut writer = self.writer.lock();
        let before = Arc::clone(&writer.head);
        let schema = &before.schema;
        let batches = if Arc::ptr_eq(schema, &expected) { checked } else { check(schema)? };
        let places = before.places(&writer.resolve(rows))?;

        // Everything that can fail comes before the first change.
        let mut next = writer.next();
        let added = next.chunks_of(schema, &batches, before.version + 1)?;
        let mut chunks = delete_places(&before.chunks, &places, writer.frozen);
        check_keys(schema, &chunks, &added)?;
        let deleted = if places.is_empty() { None } else { Some(before.take_keys(&places)?) };
        let added = self.log.store_bulk(schema, added, &mut next)?;
        chunks.extend(added.iter().cloned());
        next.merge_small(schema, &mut chunks, self.memory.get())?;
        let snapshot = Snapshot { chunks, ..before.next() };
        // From now on it is the chunks that hold the memory.
        drop(taken);
        self.account(&snapshot);
        self.commit(&mut writer, next, snapshot, &Change::Rows { deleted, added: &added })
    }

    /// Memory for rows that are about to be added. Needs to be called before the table is locked: to make room, it may
    /// have to be locked.
    fn take_memory(&self, batches: &[RecordBatch]) -> Result<Option<Taken>> {
        let bytes = batches.iter().map(batch_bytes).sum();
        self.memory.get().filter(|_| bytes > 0).map(|memory| memory.take(bytes)).transpose()
    }

    /// Puts the rows that are in memory on the account of the database, if the table is part of one.
    fn account(&self, snapshot: &Snapshot) {
        if let Some(memory) = self.memory.get() {
            snapshot.chunks.iter().for_each(|chunk| chunk.account(memory));
        }
    }

    /// Makes the table part of a database, whose account its rows in memory are on.
    pub(crate) fn belongs_to(&self, memory: &Arc<Memory>) {
        let memory = self.memory.get_or_init(|| Arc::clone(memory));
        self.versions.all().iter().flat_map(|snapshot| &snapshot.chunks).for_each(|chunk| chunk.account(memory));
    }

    /// Whether [`Table::replace`] may wait for a file or for background work, as far as can be told now; if not, it only
    /// computes.
    pub fn may_wait(&self, batches: &[RecordBatch]) -> bool {
        let Some(writer) = self.writer.try_lock() else { return true };
        let bytes = batches.iter().map(batch_bytes).sum();
        let is_free = || self.memory.get().is_none_or(|memory| memory.has(bytes));
        self.log.may_wait(bytes, unflushed_bytes(&writer.head)) || !is_free()
    }

    /// Deletes every row.
    pub fn truncate(&self) -> Result<Commit> {
        let mut writer = self.writer.lock();
        let (next, snapshot) = (writer.next(), writer.truncated());
        self.commit(&mut writer, next, snapshot, &Change::Truncate)
    }

    /// Changes the schema; `change` sees the current one. Rows keep their values: columns are known by id.
    pub fn alter(&self, change: impl FnOnce(&TableSchema) -> Result<TableSchema>) -> Result<Commit> {
        let mut writer = self.writer.lock();
        let schema = Arc::new(change(&writer.head.schema)?);
        let (next, snapshot) = (writer.next(), writer.altered(&schema));
        self.commit(&mut writer, next, snapshot, &Change::Schema(&schema))
    }

    /// Records a change and makes its snapshot the head.
    fn commit(&self, writer: &mut Writer, next: Next, snapshot: Snapshot, change: &Change) -> Result<Commit> {
        let lsn = self.log.append(&snapshot, change)?;
        Ok(self.advance(writer, next, snapshot, lsn, change))
    }

    /// Makes the snapshot of a recorded change the head.
    pub(crate) fn advance(
        &self,
        writer: &mut Writer,
        next: Next,
        snapshot: Snapshot,
        lsn: Option<Lsn>,
        change: &Change,
    ) -> Commit {
        let snapshot = Arc::new(snapshot);
        if let Some(lsn) = lsn {
            writer.recorded(lsn, change);
        }
        writer.head = Arc::clone(&snapshot);
        (writer.next_uid, writer.next_number) = next.numbers();
        let version = snapshot.version;
        self.versions.push(snapshot);
        Commit::new(&self.log, lsn, &self.versions, version)
    }

    /// The rows of a statement that is about to change them, all columns, in this order.
    pub fn take(&self, rows: &[RowId]) -> Result<RecordBatch> {
        let (head, rows) = {
            let writer = self.writer.lock();
            (Arc::clone(&writer.head), writer.resolve(rows))
        };
        let all: Vec<usize> = (0..head.schema.columns().len()).collect();
        head.take(&head.places(&rows)?, &all)
    }

    pub(crate) fn log(&self) -> &TableLog {
        &self.log
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// Keeps the chunks in memory as they are, apart from deletions, until [`Table::install`] or [`Table::thaw`].
    pub(crate) fn freeze(&self) -> Frozen {
        let mut writer = self.writer.lock();
        assert_eq!(writer.frozen, 0, "one flush at a time: the end of the first one would thaw the second one's rows");
        writer.frozen = writer.head.chunks.len();
        let chunks = writer.head.chunks.iter().filter(|chunk| !chunk.is_stored()).cloned().collect();
        let mut older = self.versions.all();
        older.retain(|snapshot| snapshot.version < writer.head.version && snapshot.has_unflushed());
        Frozen { snapshot: Arc::clone(&writer.head), chunks, older, lsn: writer.last_lsn }
    }

    /// Lets chunks in memory be merged again.
    pub(crate) fn thaw(&self) {
        self.writer.lock().frozen = 0;
    }

    /// Puts segments in the place of the chunks whose rows they hold. `flushed` is the record up to which everything is
    /// in segments now.
    ///
    /// Rows that were deleted since `moves` was made are deleted in the segments too. Versions that `moves` does not
    /// speak of keep their chunks.
    pub(crate) fn install(&self, mut moves: Moves, flushed: Option<Lsn>) -> Result<()> {
        let mut writer = self.writer.lock();
        let head = Arc::clone(&writer.head);
        let key = key_id(&head.schema);
        let mut next = writer.next();
        let segments = std::mem::take(&mut moves.segments);
        let chunk_of = |segment| Ok(Arc::new(Chunk::stored_in(next.uid()?, key, segment, RoaringBitmap::new())));
        let chunks = segments.into_iter().map(chunk_of).collect::<Result<Vec<Arc<Chunk>>>>()?;
        let mut rearranged = Vec::new();
        for snapshot in self.versions.all() {
            let is_head = snapshot.version == head.version;
            if let Some(chunks) = moves.applied_to(&snapshot, &chunks, is_head) {
                rearranged.push(Arc::new(Snapshot { chunks, ..Snapshot::clone(&snapshot) }));
            }
        }
        if let Some(head) = rearranged.last().filter(|snapshot| snapshot.version == head.version) {
            writer.head = Arc::clone(head);
        }
        let used: HashSet<u32> = rearranged.iter().flat_map(|snapshot| &snapshot.chunks).map(|c| c.uid()).collect();
        let unused = chunks.iter().filter(|chunk| !used.contains(&chunk.uid()));
        self.versions.drop_segments(unused.filter_map(|chunk| Some(chunk.segment()?.meta().id)));
        self.versions.replace(rearranged);
        (writer.next_uid, _) = next.numbers();
        writer.note_moves(moves.into_row_ids(&chunks));
        writer.frozen = 0;
        if let Some(lsn) = flushed {
            writer.settle(lsn);
        }
        Ok(())
    }

    /// Copies the live rows of chunks in memory that have many deleted ones, which are gone for good then.
    pub(crate) fn squeeze(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let mut moved = HashMap::new();
        let result = (writer.frozen..writer.head.chunks.len()).try_for_each(|i| {
            // One at a time: each makes room for the next.
            let head = Arc::clone(&writer.head);
            let chunk = &head.chunks[i];
            if chunk.is_stored() || chunk.deleted().len() as f64 <= chunk.len() as f64 * WORN_SHARE {
                return Ok(());
            }
            let merge = Merge::new(&head.schema, std::slice::from_ref(chunk))?;
            let mut next = writer.next();
            let copy = merge.chunk(next.uid()?, 0..merge.sources().len())?;
            let mut to = vec![GONE; chunk.len()];
            for (ordinal, &(_, row)) in merge.sources().iter().enumerate() {
                to[row] = copy.row_id(ordinal).0;
            }
            moved.insert(chunk.uid(), to);
            (writer.next_uid, _) = next.numbers();
            let mut chunks = head.chunks.clone();
            chunks[i] = Arc::new(copy);
            let squeezed = Snapshot { chunks, ..Snapshot::clone(&head) };
            self.account(&squeezed);
            writer.head = Arc::new(squeezed);
            self.versions.replace(vec![Arc::clone(&writer.head)]);
            Ok(())
        });
        if !moved.is_empty() {
            writer.note_moves(moved);
        }
        result
    }

    /// Lets go of versions before the present one that have rows which are only in memory.
    pub(crate) fn forget_versions_in_memory(&self) {
        self.versions.forget_unflushed();
    }

    /// Whether some rows, of whatever version, are only in memory and in the log.
    pub(crate) fn has_unflushed(&self) -> bool {
        self.versions.has_unflushed()
    }

    /// All versions, those that readers do not see yet included; the last one is the newest.
    pub(crate) fn all_versions(&self) -> Vec<Arc<Snapshot>> {
        self.versions.all()
    }

    /// How many versions are kept beside the present one.
    pub(crate) fn versions_kept(&self) -> usize {
        self.versions.kept()
    }

    /// Whether there are segments that no version has any more.
    pub(crate) fn has_dropped(&self) -> bool {
        self.versions.has_dropped()
    }

    /// The segments that no version has any more; each is told once.
    pub(crate) fn take_dropped(&self) -> BTreeSet<u64> {
        self.versions.take_dropped()
    }

    /// The same table, recorded in a log from now on. `chunks` hold the rows it has.
    pub(crate) fn recorded(self, log: TableLog, chunks: Vec<Arc<Chunk>>, lsn: Lsn) -> Self {
        let writer = self.writer.into_inner();
        let mut snapshot = Snapshot::clone(&writer.head);
        let uid = chunks.iter().map(|chunk| chunk.uid() + 1).max().unwrap_or(0).max(writer.next_uid);
        snapshot.version = snapshot.version.max(u64::from(!chunks.is_empty()));
        snapshot.chunks = chunks;
        let table = Self::restored(snapshot, uid, writer.next_number, log);
        let mut writer = table.writer();
        writer.last_lsn = lsn;
        // Rows in memory are in this very record.
        writer.flushed_lsn = if writer.has_unflushed() { Lsn(lsn.0.saturating_sub(1)) } else { lsn };
        drop(writer);
        table
    }

    /// Bytes of the rows that are only in memory and in the log.
    pub(crate) fn unflushed_bytes(&self) -> usize {
        unflushed_bytes(&self.head())
    }

    /// The chunks on disk that may be rewritten.
    pub(crate) fn settled_chunks(&self) -> Vec<Arc<Chunk>> {
        let writer = self.writer.lock();
        let has_unflushed = writer.has_unflushed();
        let is_settled = |chunk: &Chunk| !has_unflushed || writer.is_settled(chunk);
        writer.head.chunks.iter().filter(|chunk| chunk.is_stored() && is_settled(chunk)).cloned().collect()
    }

    /// Number of segments that wait for a flush of the changes before them.
    pub(crate) fn unsettled(&self) -> usize {
        let writer = self.writer.lock();
        if !writer.has_unflushed() {
            return 0;
        }
        writer.head.chunks.iter().filter(|chunk| !writer.is_settled(chunk)).count()
    }

    /// Rows and bytes.
    pub fn size(&self) -> TableSize {
        let snapshot = self.snapshot();
        TableSize {
            rows: snapshot.live(),
            data_bytes: snapshot.data_bytes(),
            bookkeeping_bytes: snapshot.chunks.iter().map(|chunk| chunk.bookkeeping_bytes()).sum::<usize>(),
        }
    }
}

fn unflushed_bytes(head: &Snapshot) -> usize {
    head.chunks.iter().filter(|chunk| !chunk.is_stored()).map(|chunk| chunk.data_bytes()).sum()
}

impl Writer {
    /// Whether some rows, of whatever version, are only in memory and in the log.
    pub(crate) fn has_unflushed(&self) -> bool {
        self.versions.has_unflushed()
    }

    /// Whether replay has no part in the chunk, of a table that has unflushed rows; if it has none, that holds for all.
    pub(crate) fn is_settled(&self, chunk: &Chunk) -> bool {
        self.unsettled.iter().all(|unsettled| unsettled.uid != chunk.uid())
    }

    /// The next version, without rows.
    pub(crate) fn truncated(&self) -> Snapshot {
        Snapshot { chunks: Vec::new(), ..self.head.next() }
    }

    /// The next version, with another schema.
    pub(crate) fn altered(&self, schema: &Arc<TableSchema>) -> Snapshot {
        Snapshot { schema: Arc::clone(schema), ..self.head.next() }
    }

    /// Takes note of the record of a change, before the change becomes the head.
    fn recorded(&mut self, lsn: Lsn, change: &Change) {
        // Replay begins after everything that was in segments, not where the last flush was: that log may be gone.
        if !self.has_unflushed() {
            self.settle(Lsn(lsn.0.saturating_sub(1)));
        }
        self.last_lsn = lsn;
        if let Change::Rows { added, .. } = change {
            let unsettled =
                |chunk: &Arc<Chunk>| Some(Unsettled { uid: chunk.uid(), segment: chunk.segment()?.meta().id, lsn });
            self.unsettled.extend(added.iter().filter_map(unsettled));
        }
    }

    /// All changes up to this record are in segments.
    fn settle(&mut self, lsn: Lsn) {
        self.flushed_lsn = self.flushed_lsn.max(lsn);
        self.unsettled.retain(|unsettled| unsettled.lsn > self.flushed_lsn);
    }

    /// Remembers where rows went, for statements that have read them already.
    fn note_moves(&mut self, moved: HashMap<u32, Vec<u64>>) {
        self.moved.push_back(moved);
        if self.moved.len() > MOVES_KEPT {
            self.moved.pop_front();
        }
    }

    /// The present names of rows that a running statement has read.
    fn resolve(&self, rows: &[RowId]) -> Vec<RowId> {
        let mut rows = rows.to_vec();
        for moved in &self.moved {
            for row in &mut rows {
                if let Some(to) = moved.get(&((row.0 >> 32) as u32))
                    && let Some(&to) = to.get(row.0 as u32 as usize)
                {
                    *row = RowId(to);
                }
            }
        }
        rows
    }

    pub(crate) fn next(&self) -> Next {
        Next::new(self.next_uid, self.next_number, self.frozen)
    }
}

pub(crate) fn delete_places(chunks: &[Arc<Chunk>], places: &[Place], frozen: usize) -> Vec<Arc<Chunk>> {
    let mut by_chunk: HashMap<u32, Vec<Ordinal>> = HashMap::new();
    for place in places {
        by_chunk.entry(place.chunk).or_default().push(place.ordinal);
    }
    chunks
        .iter()
        .zip(0..)
        .map(|(chunk, i)| match by_chunk.remove(&i) {
            Some(ordinals) => Arc::new(chunk.with_deleted(ordinals)),
            None => Arc::clone(chunk),
        })
        .enumerate()
        // What a flush is writing keeps its place.
        .filter(|(i, chunk)| *i < frozen || chunk.is_stored() || chunk.live() > 0)
        .map(|(_, chunk)| chunk)
        .collect()
}

#[cfg(test)]
mod tests;
