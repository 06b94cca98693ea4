//! How a segment is read: mapped, checked, and each column as an array over the map.

use std::fmt;
use std::slice;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::{Footer, root_as_footer, root_as_message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use mvvd_core::{Error, ErrorKind, Result, VectorType};
use parking_lot::Mutex;

use super::write::PREFIX_BYTES;
use super::{ALIGNMENT, COLUMN_KEY, STATS_KEY, SegmentMeta, SegmentStats, VERSION, VERSION_KEY, buffers_of, nested};
use crate::cache::Cache;
use crate::disk::StorageMode;
use crate::fs::FileSystem;
use crate::seal::{Seal, SealedReader};
use crate::sidecar::Sidecars;

/// Footer length and magic, at the end of the file.
const TRAILER_BYTES: usize = 10;

/// What reading a segment takes beside its file.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// Opens encrypted files.
    pub(crate) seal: Option<Arc<dyn Seal>>,
    /// Keeps columns that are on the heap.
    pub(crate) cache: Arc<Cache>,
    pub(crate) mode: StorageMode,
}

impl Access {
    /// Whether a column is read into the heap, not mapped: what is decrypted must be, and what hybrid mode keeps in
    /// memory is, if it can stay there.
    fn is_to_heap(&self, sealed: bool, field: &FieldRef, bytes: usize) -> bool {
        let is_hybrid = self.mode == StorageMode::Hybrid && VectorType::of_field(field).is_none();
        sealed || is_hybrid && self.cache.has_room_for(bytes)
    }
}

/// An open segment.
pub struct Segment {
    path: String,
    meta: SegmentMeta,
    source: Source,
    cache: Arc<Cache>,
    columns: Vec<Column>,
    stats: SegmentStats,
    sidecars: Sidecars,
}

// Arrow shows the bytes of a buffer, which here are the whole file.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}

enum Source {
    Plain(Buffer),
    Sealed(SealedReader),
}

struct Column {
    id: u32,
    field: FieldRef,
    start: usize,
    bytes: usize,
    checksum: u64,
    layout: ColumnLayout,
    /// Whether the array is on the heap and found in the cache, not over the map.
    on_heap: bool,
    /// The array over the map, or how the column is damaged, once somebody looked. Of a column that goes to the heap,
    /// nothing: the lock lets one reader load it, and the others wait.
    found: Mutex<Option<Result<ArrayRef, String>>>,
}

impl Segment {
    /// Opens the file of the segment `meta`.
    ///
    /// Reads and checks everything but the columns, which costs O(columns). No page of a column is touched.
    pub(crate) fn open(fs: &dyn FileSystem, path: &str, meta: SegmentMeta, access: &Access) -> Result<Arc<Self>> {
        let bytes = fs.len(path)?;
        if bytes != meta.bytes {
            return Err(damaged(path, format!("it has {bytes} bytes instead of {}", meta.bytes)));
        }
        let source = match (meta.sealed, access.seal.clone()) {
            (false, _) => Source::Plain(fs.map(path)?),
            (true, Some(seal)) => Source::Sealed(SealedReader::open(fs, path, seal)?),
            (true, None) => {
                return Err(Error::invalid(format!("file \"{path}\" is encrypted, and there is no encryption key")));
            }
        };
        let column_bytes = meta.columns.iter().try_fold(0u64, |sum, column| sum.checked_add(column.bytes));
        let plain_bytes = column_bytes.and_then(|n| n.checked_add(meta.head_bytes)?.checked_add(meta.tail_bytes));
        if plain_bytes != Some(source.bytes() as u64) {
            return Err(damaged(path, "its length is not that of its parts"));
        }
        let (head, tail) = read_ends(&source, &meta, path)?;
        let parsed = Parsed::of(&head, &tail, path)?;
        if parsed.layout.rows as u64 != meta.rows || !parsed.ids().eq(meta.columns.iter().map(|c| Some(c.id))) {
            return Err(damaged(path, "it is another segment"));
        }
        let mut start = head.len();
        let mut columns = Vec::with_capacity(meta.columns.len());
        for ((column, field), layout) in meta.columns.iter().zip(parsed.schema.fields()).zip(parsed.layout.columns) {
            let bytes = layout.bytes;
            if bytes as u64 != column.bytes {
                return Err(damaged(path, "it is another segment"));
            }
            let (id, checksum, field) = (column.id, column.checksum, Arc::clone(field));
            let on_heap = access.is_to_heap(meta.sealed, &field, bytes);
            columns.push(Column { id, field, start, bytes, checksum, layout, on_heap, found: Mutex::default() });
            start += bytes;
        }
        let cache = Arc::clone(&access.cache);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            meta,
            source,
            cache,
            columns,
            stats: parsed.stats,
            sidecars: Sidecars::default(),
        }))
    }

    /// What the manifest knows of the segment.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// The indexes over the rows.
    pub(crate) fn sidecars(&self) -> &Sidecars {
        &self.sidecars
    }

    /// Number of rows, deleted ones included.
    pub fn rows(&self) -> usize {
        self.meta.rows as usize
    }

    /// The path it was opened under.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Between what bounds the values lie.
    pub fn stats(&self) -> &SegmentStats {
        &self.stats
    }

    /// The field of the column with this id, as it was when the segment was written.
    pub fn field(&self, column: u32) -> Option<&FieldRef> {
        self.columns.iter().find(|c| c.id == column).map(|c| &c.field)
    }

    /// The values of the column with this id; `None` if the segment is older than the column.
    ///
    /// An array over the file's map, without a copy: the first call reads all of the column to check it. Of a sealed
    /// segment, and in hybrid mode of a column that has no vectors, an array on the heap, which the cache of the database
    /// keeps for the next call if it has room. Either way the caller keeps what it got, and a damaged column is an error
    /// every time.
    pub fn column(&self, column: u32) -> Result<Option<ArrayRef>> {
        let Some(column) = self.columns.iter().find(|c| c.id == column) else { return Ok(None) };
        if column.on_heap { self.cached(column).map(Some) } else { self.mapped(column).map(Some) }
    }

    fn mapped(&self, column: &Column) -> Result<ArrayRef> {
        // Held while the column is checked, so that it is checked once.
        let mut found = column.found.lock();
        match found.get_or_insert_with(|| self.load(column).map_err(|e| e.message().to_owned())) {
            Ok(array) => Ok(Arc::clone(array)),
            Err(message) => Err(Error::new(ErrorKind::Corrupt, message.clone())),
        }
    }

    fn cached(&self, column: &Column) -> Result<ArrayRef> {
        let key = (self.meta.id, column.id);
        if let Some(array) = self.cache.get(key) {
            return Ok(array);
        }
        let _one = column.found.lock();
        // Somebody else was faster.
        if let Some(array) = self.cache.get(key) {
            return Ok(array);
        }
        let array = self.load(column)?;
        self.cache.put(key, &array, column.bytes);
        Ok(array)
    }

    /// Reads the whole file and checks every byte, whatever was checked before.
    pub fn verify(&self) -> Result<()> {
        read_ends(&self.source, &self.meta, &self.path)?;
        self.columns.iter().try_for_each(|column| self.load(column).map(|_| ()))
    }

    fn load(&self, column: &Column) -> Result<ArrayRef> {
        let what = || format!("column \"{}\"", column.field.name());
        let bytes = match &self.source {
            Source::Plain(map) if column.on_heap => Buffer::from(&map[column.start..column.start + column.bytes]),
            source => source.range(column.start, column.bytes)?,
        };
        if crc_fast::checksum(Crc64Nvme, &bytes) != column.checksum {
            return Err(damaged(&self.path, format!("the checksum of {} differs", what())));
        }
        // Validated although the checksum fits: it costs little, and no file can then break memory safety.
        match column.layout.decode(column.field.data_type(), &bytes) {
            Ok(data) => Ok(make_array(data)),
            Err(e) => Err(damaged(&self.path, format!("{}: {e}", what()))),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.cache.forget(self.columns.iter().map(|column| (self.meta.id, column.id)));
    }
}

impl Source {
    /// Bytes of the file, of a sealed one those inside.
    fn bytes(&self) -> usize {
        match self {
            Self::Plain(map) => map.len(),
            Self::Sealed(reader) => reader.plain_bytes(),
        }
    }

    fn range(&self, start: usize, len: usize) -> Result<Buffer> {
        match self {
            Self::Plain(map) => Ok(map.slice_with_length(start, len)),
            Self::Sealed(reader) => reader.range(start, len),
        }
    }
}

fn damaged(path: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("file \"{path}\" is damaged: {what}"))
}

/// Head and tail of the file, checked.
fn read_ends(source: &Source, meta: &SegmentMeta, path: &str) -> Result<(Buffer, Buffer)> {
    let tail_bytes = meta.tail_bytes as usize;
    let head = source.range(0, meta.head_bytes as usize)?;
    let tail = source.range(source.bytes() - tail_bytes, tail_bytes)?;
    let mut digest = Digest::new(Crc64Nvme);
    digest.update(&head);
    digest.update(&tail);
    if digest.finalize() != meta.checksum {
        return Err(damaged(path, "the checksum of its metadata differs"));
    }
    Ok((head, tail))
}

/// What head and tail say.
struct Parsed {
    schema: Schema,
    layout: Layout,
    stats: SegmentStats,
}

impl Parsed {
    fn of(head: &[u8], tail: &[u8], path: &str) -> Result<Self> {
        let footer = parse_footer(tail).ok_or_else(|| damaged(path, "it has no footer"))?;
        match value_of(&footer, VERSION_KEY) {
            Some(VERSION) => {}
            version => {
                return Err(Error::unsupported(format!(
                    "file \"{path}\" is a segment of version {}, this program reads version {VERSION}",
                    version.unwrap_or("unknown")
                )));
            }
        }
        Self::of_footer(&footer, head).ok_or_else(|| damaged(path, "its metadata cannot be read"))
    }

    fn of_footer(footer: &Footer<'_>, head: &[u8]) -> Option<Self> {
        let schema = fb_to_schema(footer.schema()?);
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let batches = footer.recordBatches()?;
        if batches.len() != 1 {
            return None;
        }
        let message = usize::try_from(batches.get(0).offset()).ok()?.checked_add(PREFIX_BYTES)?;
        let layout = Layout::parse(head.get(message..)?, &types)?;
        let stats = STANDARD.decode(value_of(footer, STATS_KEY)?).ok()?;
        Some(Self { schema, layout, stats: SegmentStats::from_bytes(&stats)? })
    }

    fn ids(&self) -> impl Iterator<Item = Option<u32>> {
        self.schema.fields().iter().map(|field| field.metadata().get(COLUMN_KEY)?.parse().ok())
    }
}

fn parse_footer(tail: &[u8]) -> Option<Footer<'_>> {
    let (rest, trailer) = tail.split_last_chunk::<TRAILER_BYTES>()?;
    let (length, magic) = trailer.split_first_chunk::<4>()?;
    let start = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    (magic == b"ARROW1").then(|| root_as_footer(&rest[start..]).ok())?
}

fn value_of<'a>(footer: &Footer<'a>, key: &str) -> Option<&'a str> {
    footer.custom_metadata()?.iter().find(|pair| pair.key() == Some(key))?.value()
}

/// Where a record batch has its columns.
pub(super) struct Layout {
    rows: usize,
    /// They follow each other without a gap.
    pub(super) columns: Vec<ColumnLayout>,
}

/// The parts of one column.
pub(super) struct ColumnLayout {
    /// Length of the column in the file, a multiple of 64.
    pub(super) bytes: usize,
    /// Length and number of NULLs of the array and of those inside it.
    nodes: Vec<(usize, usize)>,
    /// Start within the column and length.
    buffers: Vec<(usize, usize)>,
}

impl Layout {
    /// Reads the header of a record batch message; `None` if it is not as [`super::write_segment`] writes it.
    pub(super) fn parse(header: &[u8], types: &[DataType]) -> Option<Self> {
        let message = root_as_message(header).ok()?;
        let batch = message.header_as_record_batch()?;
        if batch.compression().is_some() {
            return None;
        }
        let rows = usize::try_from(batch.length()).ok()?;
        let mut nodes = batch.nodes()?.iter();
        let mut buffers = batch.buffers()?.iter();
        let mut body = 0;
        let columns = types
            .iter()
            .map(|data_type| {
                let start = body;
                let mut column = ColumnLayout { bytes: 0, nodes: Vec::new(), buffers: Vec::new() };
                for data_type in nested(data_type)? {
                    let node = nodes.next()?;
                    column.nodes.push((usize::try_from(node.length()).ok()?, usize::try_from(node.null_count()).ok()?));
                    for _ in 0..buffers_of(data_type) {
                        let buffer = buffers.next()?;
                        let length = usize::try_from(buffer.length()).ok()?;
                        if usize::try_from(buffer.offset()).ok()? != body {
                            return None;
                        }
                        column.buffers.push((body - start, length));
                        body = body.checked_add(length)?.checked_next_multiple_of(ALIGNMENT)?;
                    }
                }
                column.bytes = body - start;
                (column.nodes[0].0 == rows).then_some(column)
            })
            .collect::<Option<Vec<_>>>()?;
        let is_all = nodes.next().is_none() && buffers.next().is_none();
        (is_all && usize::try_from(message.bodyLength()).ok()? == body).then_some(Self { rows, columns })
    }
}

impl ColumnLayout {
    /// The array whose parts are in `bytes`, shared and not copied.
    fn decode(&self, data_type: &DataType, bytes: &Buffer) -> Result<ArrayData, ArrowError> {
        let mut parts = Parts { bytes, nodes: self.nodes.iter(), buffers: self.buffers.iter() };
        parts.decode(data_type)
    }
}

struct Parts<'a> {
    bytes: &'a Buffer,
    nodes: slice::Iter<'a, (usize, usize)>,
    buffers: slice::Iter<'a, (usize, usize)>,
}

impl Parts<'_> {
    fn decode(&mut self, data_type: &DataType) -> Result<ArrayData, ArrowError> {
        let &(len, null_count) = self.nodes.next().expect("the layout was made for this type");
        let mut builder = ArrayData::builder(data_type.clone()).len(len);
        for i in 0..buffers_of(data_type) {
            let &(start, bytes) = self.buffers.next().expect("the layout was made for this type");
            let buffer = self.bytes.slice_with_length(start, bytes);
            // Arrow checks the other buffers, but asserts this.
            if i == 0 && null_count > 0 && bytes < len.div_ceil(8) {
                return Err(ArrowError::IpcError(format!(
                    "{bytes} bytes are too few for which of {len} values are null"
                )));
            }
            builder = match i {
                0 if null_count == 0 => builder,
                0 => builder.null_bit_buffer(Some(buffer)).null_count(null_count),
                _ => builder.add_buffer(buffer),
            };
        }
        match data_type {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => builder = builder.add_child_data(self.decode(item.data_type())?),
            DataType::Struct(fields) => {
                for field in fields {
                    builder = builder.add_child_data(self.decode(field.data_type())?);
                }
            }
            _ => {}
        }
        builder.build()
    }
}
