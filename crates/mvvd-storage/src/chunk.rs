//! Rows that were written together: immutable columns in key order, and which of the rows are deleted.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{interleave, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use mvvd_core::{Error, Ordinal, Result, RowId, TableSchema};
use roaring::RoaringBitmap;

use crate::key::{Key, KeyColumn};
use crate::memory::{Memory, Taken};
use crate::segment::{Segment, SegmentMeta};
use crate::sidecar::Sidecars;

/// Most rows that small chunks are merged up to.
pub(crate) const MERGED_ROWS_MAX: usize = 65_536;

/// Id of the hidden key column of tables without a primary key: rows numbered in order of insertion.
pub(crate) const NUMBER_ID: u32 = u32::MAX;

/// Some rows of a table, in ascending order of their keys. Columns are shared between versions of a chunk.
#[derive(Debug, Clone)]
pub struct Chunk {
    uid: u32,
    rows: usize,
    data: Data,
    /// Id of the key column: the primary key, or the number of the row.
    key: u32,
    /// Bytes of the columns.
    data_bytes: usize,
    deleted: Arc<RoaringBitmap>,
}

/// Columns by id.
pub(crate) type Columns = Vec<(u32, ArrayRef)>;

/// Where the columns are.
#[derive(Debug, Clone)]
enum Data {
    Memory(Arc<InMemory>),
    Stored(Arc<Segment>),
}

/// Columns that are only in memory, and the memory that they take, once the table is part of a database.
#[derive(Debug)]
struct InMemory {
    columns: Columns,
    born: Born,
    taken: OnceLock<Taken>,
    sidecars: Sidecars,
}

/// The versions that rows came with. Rows of one key that came with the same version are one row, whatever chunks they
/// are in.
#[derive(Debug)]
pub(crate) enum Born {
    All(u64),
    Each(Box<[u64]>),
}

impl Born {
    fn at(&self, row: usize) -> u64 {
        match self {
            Self::All(version) => *version,
            Self::Each(versions) => versions[row],
        }
    }

    /// Bytes on the heap.
    fn bytes(&self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::Each(versions) => size_of_val(&**versions),
        }
    }
}

impl Chunk {
    /// A chunk of columns whose rows are in key order.
    pub(crate) fn new(uid: u32, key: u32, rows: usize, columns: Columns, born: Born) -> Self {
        let data_bytes = columns.iter().filter(|(id, _)| *id != NUMBER_ID).map(|(_, array)| slice_bytes(array)).sum();
        let data =
            Data::Memory(Arc::new(InMemory { columns, born, taken: OnceLock::new(), sidecars: Sidecars::default() }));
        Self { uid, rows, data, key, data_bytes, deleted: Arc::default() }
    }

    /// The rows of a segment.
    pub(crate) fn stored_in(uid: u32, key: u32, segment: Arc<Segment>, deleted: RoaringBitmap) -> Self {
        let columns = segment.meta().columns.iter().filter(|column| column.id != NUMBER_ID);
        let data_bytes = columns.map(|column| column.bytes as usize).sum();
        Self { uid, rows: segment.rows(), data: Data::Stored(segment), key, data_bytes, deleted: Arc::new(deleted) }
    }

    /// The segment that holds the columns, if they are on disk.
    pub fn segment(&self) -> Option<&Arc<Segment>> {
        match &self.data {
            Data::Memory(..) => None,
            Data::Stored(segment) => Some(segment),
        }
    }

    /// The indexes over the rows.
    pub(crate) fn sidecars(&self) -> &Sidecars {
        match &self.data {
            Data::Memory(memory) => &memory.sidecars,
            Data::Stored(segment) => segment.sidecars(),
        }
    }

    /// The version that a row in memory came with; none for rows on disk, of which nobody knows it any more.
    pub(crate) fn born(&self, row: usize) -> Option<u64> {
        match &self.data {
            Data::Memory(memory) => Some(memory.born.at(row)),
            Data::Stored(_) => None,
        }
    }

    /// Whether the columns are on disk.
    pub(crate) fn is_stored(&self) -> bool {
        self.segment().is_some()
    }

    /// All columns of a chunk in memory, by id.
    pub(crate) fn all_columns(&self) -> Result<Columns> {
        match &self.data {
            Data::Memory(memory) => Ok(memory.columns.clone()),
            Data::Stored(_) => Err(Error::internal("the columns of a segment stay in it")),
        }
    }

    /// Tells the chunk apart from all others of its table, for ever.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Number of rows, deleted ones included.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row at all; the engine keeps no such chunk.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number of rows that are not deleted.
    pub fn live(&self) -> usize {
        self.len() - self.deleted.len() as usize
    }

    /// Ordinals of the deleted rows.
    pub fn deleted(&self) -> &RoaringBitmap {
        &self.deleted
    }

    /// What the row at `ordinal` is called while its chunk exists.
    pub fn row_id(&self, ordinal: usize) -> RowId {
        RowId(u64::from(self.uid) << 32 | ordinal as u64)
    }

    /// The names of the rows in `range`.
    pub fn row_ids(&self, range: Range<usize>) -> UInt64Array {
        UInt64Array::from_iter_values(range.map(|i| self.row_id(i).0))
    }

    /// The values by which the rows in `range` are sorted: the primary key, or numbers in order of insertion.
    pub fn keys(&self, range: Range<usize>) -> Result<ArrayRef> {
        let keys = self.stored(self.key)?.ok_or_else(|| Error::internal("a chunk without its key column"))?;
        Ok(if range.len() == keys.len() { keys } else { keys.slice(range.start, range.len()) })
    }

    /// Position of the row with this key, deleted or not.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Ordinal>> {
        Ok(KeyColumn::of(&self.keys(0..self.rows)?)?.find(key))
    }

    fn stored(&self, id: u32) -> Result<Option<ArrayRef>> {
        match &self.data {
            Data::Memory(memory) => {
                Ok(memory.columns.iter().find(|(stored, _)| *stored == id).map(|(_, array)| Arc::clone(array)))
            }
            Data::Stored(segment) => segment.column(id),
        }
    }

    /// The one value, as an array of one row, of a column that is newer than the chunk; none if the chunk has the column.
    pub(crate) fn constant(&self, schema: &TableSchema, index: usize) -> Option<ArrayRef> {
        let column = &schema.columns()[index];
        let is_there = match &self.data {
            Data::Memory(memory) => memory.columns.iter().any(|(id, _)| *id == column.id),
            Data::Stored(segment) => segment.field(column.id).is_some(),
        };
        let null = || new_null_array(column.field.data_type(), 1);
        (!is_there).then(|| column.initial.clone().unwrap_or_else(null))
    }

    /// Column `index` of `schema` for the rows in `range`, without copying. A column that is newer than the chunk
    /// is filled with its initial value.
    pub fn column(&self, schema: &TableSchema, index: usize, range: Range<usize>) -> Result<ArrayRef> {
        let column = &schema.columns()[index];
        if let Some(array) = self.stored(column.id)? {
            return Ok(if range.len() == array.len() { array } else { array.slice(range.start, range.len()) });
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

    /// Bytes of the columns.
    pub(crate) fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Puts the columns on the account of `memory`, once, until nobody has them any more. Nothing to do for a segment.
    pub(crate) fn account(&self, memory: &Arc<Memory>) {
        if let Data::Memory(columns) = &self.data {
            let beside = self.number_bytes() + columns.born.bytes();
            columns.taken.get_or_init(|| memory.note(self.data_bytes + beside));
        }
    }

    /// Bytes of the numbers of rows in memory, which are no data.
    fn number_bytes(&self) -> usize {
        if self.key == NUMBER_ID { self.rows * size_of::<u64>() } else { 0 }
    }

    /// What is known of the segment that holds the rows; none for rows that are only in memory and in the log.
    pub fn segment_meta(&self) -> Option<&SegmentMeta> {
        self.segment().map(|segment| segment.meta())
    }

    /// Bytes beside the columns.
    pub(crate) fn bookkeeping_bytes(&self) -> usize {
        let beside = match &self.data {
            Data::Memory(memory) => self.number_bytes() + memory.born.bytes(),
            Data::Stored(segment) => segment.meta().bytes as usize - self.data_bytes(),
        };
        beside + self.deleted.serialized_size() + size_of::<Self>()
    }
}

/// Bytes of the values of a batch, as tables count them: batches that were sliced or received share larger buffers.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(slice_bytes).sum()
}

/// Bytes of the values themselves: arrays that came over a network share one buffer.
pub(crate) fn slice_bytes(array: &ArrayRef) -> usize {
    let width = match array.data_type() {
        DataType::FixedSizeList(item, size) => item.data_type().primitive_width().map(|width| width * *size as usize),
        data_type => data_type.primitive_width(),
    };
    match width {
        // Known without asking for the buffers, which takes longer than the insert of a row.
        Some(width) => width * array.len() + array.nulls().map_or(0, |_| array.len().div_ceil(8)),
        None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// The id of the column by which the chunks of a table are sorted.
pub(crate) fn key_id(schema: &TableSchema) -> u32 {
    schema.primary_key().map_or(NUMBER_ID, |i| schema.columns()[i].id)
}

/// The live rows of some chunks in one order, key by key, before they are written or copied.
pub(crate) struct Merge<'a> {
    schema: &'a TableSchema,
    chunks: &'a [Arc<Chunk>],
    /// Chunk and ordinal of each row, in key order.
    sources: Vec<(usize, usize)>,
}

/// A column as a segment names it.
pub(crate) fn stored_fields(schema: &TableSchema) -> Vec<(u32, FieldRef)> {
    let number = (key_id(schema) == NUMBER_ID)
        .then(|| (NUMBER_ID, Arc::new(Field::new("__mvvd_number", DataType::UInt64, false))));
    number.into_iter().chain(schema.columns().iter().map(|c| (c.id, Arc::clone(&c.field)))).collect()
}

impl<'a> Merge<'a> {
    /// Puts the live rows of `chunks` in order. Keys must differ.
    pub(crate) fn new(schema: &'a TableSchema, chunks: &'a [Arc<Chunk>]) -> Result<Self> {
        let mut sources: Vec<(usize, usize)> = Vec::with_capacity(chunks.iter().map(|chunk| chunk.live()).sum());
        for (i, chunk) in chunks.iter().enumerate() {
            let live = (0..chunk.len()).filter(|&row| !chunk.deleted.contains(row as u32));
            sources.extend(live.map(|row| (i, row)));
        }
        let columns = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<ArrayRef>>>()?;
        let keys = columns.iter().map(|column| KeyColumn::of(column)).collect::<Result<Vec<_>>>()?;
        // Chunks that follow each other need no sorting.
        let key = |&(chunk, row): &(usize, usize)| keys[chunk].at(row);
        if !sources.is_sorted_by_key(key) {
            match columns.first().map(|column| column.data_type().clone()) {
                Some(DataType::Utf8) | None => sources.sort_unstable_by(|a, b| key(a).cmp(&key(b))),
                Some(_) => {
                    let parts: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
                    let order = sort_to_indices(&interleave(&parts, &sources)?, None, None)?;
                    sources = order.values().iter().map(|&i| sources[i as usize]).collect();
                }
            }
        }
        Ok(Self { schema, chunks, sources })
    }

    /// Some rows of `chunks`, by chunk and ordinal, in key order.
    pub(crate) fn of_rows(schema: &'a TableSchema, chunks: &'a [Arc<Chunk>], sources: Vec<(usize, usize)>) -> Self {
        Self { schema, chunks, sources }
    }

    /// The versions that the rows in `range` of the order came with; all chunks must be in memory.
    fn born(&self, range: Range<usize>) -> Result<Born> {
        let born = |&(chunk, row): &(usize, usize)| self.chunks[chunk].born(row);
        let versions: Option<Box<[u64]>> = self.sources[range].iter().map(born).collect();
        let versions = versions.ok_or_else(|| Error::internal("rows on disk are merged in memory"))?;
        Ok(match versions.first() {
            Some(&first) if versions.iter().all(|version| *version == first) => Born::All(first),
            _ => Born::Each(versions),
        })
    }

    /// The rows in `range` of the order as a chunk in memory.
    pub(crate) fn chunk(&self, uid: u32, range: Range<usize>) -> Result<Chunk> {
        let (rows, born) = (range.len(), self.born(range.clone())?);
        Ok(Chunk::new(uid, key_id(self.schema), rows, self.columns(range)?, born))
    }

    /// The schema that the rows are written with.
    pub(crate) fn schema(&self) -> &TableSchema {
        self.schema
    }

    /// Chunk and ordinal of each row, in key order.
    pub(crate) fn sources(&self) -> &[(usize, usize)] {
        &self.sources
    }

    /// Bytes that a row takes on average.
    pub(crate) fn row_bytes(&self) -> usize {
        // Columns that are newer than a chunk are written too.
        let row = |chunk: &Chunk| -> usize {
            let newer = (0..self.schema.columns().len()).filter_map(|i| chunk.constant(self.schema, i));
            newer.map(|value| slice_bytes(&value)).sum()
        };
        let bytes: usize = self.chunks.iter().map(|chunk| chunk.data_bytes() + chunk.len() * row(chunk)).sum();
        let rows: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        (bytes / rows.max(1)).max(1)
    }

    /// One column of the rows in `range` of the order, copied.
    fn column(&self, index: Option<usize>, range: Range<usize>) -> Result<ArrayRef> {
        let mut parts = Vec::with_capacity(self.chunks.len());
        let mut is_constant = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks {
            let constant = index.and_then(|index| chunk.constant(self.schema, index));
            is_constant.push(constant.is_some());
            parts.push(match (constant, index) {
                (Some(constant), _) => constant,
                (None, Some(index)) => chunk.column(self.schema, index, 0..chunk.len())?,
                (None, None) => chunk.keys(0..chunk.len())?,
            });
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if !is_constant.contains(&true) {
            return Ok(interleave(&parts, &self.sources[range])?);
        }
        let sources: Vec<(usize, usize)> =
            self.sources[range].iter().map(|&(chunk, row)| (chunk, if is_constant[chunk] { 0 } else { row })).collect();
        Ok(interleave(&parts, &sources)?)
    }

    /// The columns, by id, of the rows in `range` of the order, copied.
    fn columns(&self, range: Range<usize>) -> Result<Columns> {
        let mut columns = Vec::with_capacity(self.schema.columns().len() + 1);
        if key_id(self.schema) == NUMBER_ID {
            columns.push((NUMBER_ID, self.column(None, range.clone())?));
        }
        for (index, column) in self.schema.columns().iter().enumerate() {
            columns.push((column.id, self.column(Some(index), range.clone())?));
        }
        Ok(columns)
    }

    /// The chunk in memory, and where in it, that has the rows in `range` of the order one after the other.
    pub(crate) fn run(&self, range: Range<usize>) -> Option<(&'a Chunk, Range<usize>)> {
        let &(chunk, first) = self.sources.get(range.start)?;
        if self.chunks[chunk].is_stored() {
            return None;
        }
        let is_run =
            self.sources[range.clone()].iter().copied().eq((first..).map(|row| (chunk, row)).take(range.len()));
        is_run.then(|| (&*self.chunks[chunk], first..first + range.len()))
    }

    /// The rows in `range` of the order, with `fields` as [`stored_fields`] gives them; copied, unless a chunk in memory
    /// has them as they are.
    pub(crate) fn batch(&self, fields: &[(u32, FieldRef)], range: Range<usize>) -> Result<RecordBatch> {
        let rows = range.len();
        let columns = match self.run(range.clone()) {
            Some((chunk, place)) => {
                let numbers = (key_id(self.schema) == NUMBER_ID).then(|| chunk.keys(place.clone()));
                let columns = (0..self.schema.columns().len()).map(|i| chunk.column(self.schema, i, place.clone()));
                numbers.into_iter().chain(columns).collect::<Result<_>>()?
            }
            None => self.columns(range)?.into_iter().map(|(_, array)| array).collect(),
        };
        let schema = Schema::new(fields.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
    }
}
