//! The indexes of one chunk: which are open, and their files beside the segment.
//!
//! An index is derived data. Its file, `segments/<segment>.<index>.idx`, is named by nothing and names nothing: it is used
//! if it is there and sound, and built again if it is not. The index of a chunk that is only in memory has no file.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::buffer::{Buffer, MutableBuffer};
use mvvd_core::schema::IndexDef;
use mvvd_core::{Error, ErrorKind, Result, TableSchema, VectorType};
use mvvd_index::{Build, IndexSpec, Registry, VectorIndex, Vectors};
use parking_lot::Mutex;

use crate::chunk::{Chunk, slice_bytes};
use crate::disk::{SEGMENTS, segment_path};
use crate::fs::{FileSystem, replace_file};
use crate::memory::{Memory, Taken};
use crate::seal::{Seal, SealedReader, SealedWriter};

/// The end of the name of an index file.
const EXTENSION: &str = "idx";

/// How long after a failure that may pass, such as a full disk, a build is tried again: at first, and at most.
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(300);

/// The file of an index of a segment.
pub(crate) fn sidecar_path(segment: u64, index: u32) -> String {
    format!("{SEGMENTS}/{segment:012}.{index}.{EXTENSION}")
}

/// The number of the segment that a file name in the folder of segments belongs to, if it is that of an index.
pub(crate) fn segment_of_sidecar(name: &str) -> Option<u64> {
    let mut parts = name.split('.');
    let (segment, _index, extension) = (parts.next()?, parts.next()?, parts.next()?);
    (extension == EXTENSION).then(|| segment.parse().ok())?
}

/// An index that is open.
#[derive(Debug)]
pub struct OpenIndex {
    /// The index.
    pub index: Arc<dyn VectorIndex>,
    /// Bytes of the file, or of what would be in it.
    pub bytes: usize,
    /// The memory that it takes on the heap.
    _taken: Option<Taken>,
    /// When it was last asked for: a number that grows.
    used: AtomicU64,
}

impl OpenIndex {
    fn new(index: Arc<dyn VectorIndex>, bytes: usize, taken: Option<Taken>) -> Arc<Self> {
        Arc::new(Self { index, bytes, _taken: taken, used: AtomicU64::new(0) })
    }
}

/// The indexes of a chunk, by id; shared by all versions of the chunk.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    slots: Arc<Slots>,
}

type Slots = Mutex<BTreeMap<u32, Slot>>;

/// What is known of one index of a chunk.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Ready(Arc<OpenIndex>),
    /// It is there, and there is no memory to open it.
    Closed,
    /// It has to be built.
    Missing,
    /// It could not be built.
    Failed(Failure),
}

/// Why an index could not be built.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// When the background tries again, and how long after the failure that is; never before the database is opened
    /// again where it would only fail again.
    retry: Option<(Instant, Duration)>,
}

impl Failure {
    /// `before` is what was known of the index until now.
    fn new(e: &Error, before: Option<&Slot>) -> Self {
        let may_pass = matches!(e.kind(), ErrorKind::Exhausted | ErrorKind::Unavailable);
        let wait = match before {
            Some(Slot::Failed(Self { retry: Some((_, wait)), .. })) => (*wait * 2).min(RETRY_WAIT_MAX),
            _ => RETRY_WAIT_MIN,
        };
        Self { message: e.message().to_owned(), retry: may_pass.then(|| (Instant::now() + wait, wait)) }
    }

    /// Whether it may be built another time.
    pub(crate) fn may_pass(&self) -> bool {
        self.retry.is_some()
    }

    /// Whether it is time to try again.
    pub(crate) fn is_due(&self) -> bool {
        self.retry.is_some_and(|(at, _)| at <= Instant::now())
    }
}

/// What can be told of an index of a chunk without reading its file.
#[derive(Debug, Clone)]
pub(crate) enum Glance {
    /// So many bytes.
    There(usize),
    Missing,
    Failed(Failure),
}

impl Sidecars {
    pub(crate) fn forget(&self, index: u32) {
        self.slots.lock().remove(&index);
    }
}

/// What opening and building indexes takes.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) registry: Arc<Registry>,
    files: Option<Files>,
    memory: Arc<Memory>,
    /// Those that were decrypted, which can be again.
    heap: Mutex<Vec<OnHeap>>,
    /// How often an index was asked for.
    asked: AtomicU64,
}

/// An index that was decrypted to the heap.
#[derive(Debug)]
struct OnHeap {
    slots: Weak<Slots>,
    index: u32,
    open: Weak<OpenIndex>,
}

/// Where the memory of a build comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Room is made for it.
    Made,
    /// It is what nobody misses.
    Spare,
}

/// Where the files are.
#[derive(Debug)]
struct Files {
    fs: Arc<dyn FileSystem>,
    seal: Option<Arc<dyn Seal>>,
}

impl Shelf {
    /// Indexes in memory only.
    pub(crate) fn in_memory(registry: Arc<Registry>, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { registry, files: None, memory, heap: Mutex::default(), asked: AtomicU64::new(0) })
    }

    /// Indexes in files, encrypted if there is a seal.
    pub(crate) fn in_files(
        registry: Arc<Registry>,
        memory: Arc<Memory>,
        fs: Arc<dyn FileSystem>,
        seal: Option<Arc<dyn Seal>>,
    ) -> Arc<Self> {
        let files = Some(Files { fs, seal });
        Arc::new(Self { registry, files, memory, heap: Mutex::default(), asked: AtomicU64::new(0) })
    }

    /// Whether chunks that are only in memory have no index, as they will be in segments soon.
    pub(crate) fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// The state of an index of a chunk. Opens its file when it is first asked for, which reads all of it.
    pub(crate) fn slot(&self, chunk: &Chunk, schema: &TableSchema, def: &IndexDef) -> Slot {
        let mut slots = chunk.sidecars().slots.lock();
        if let Some(slot) = slots.get(&def.id) {
            if let Slot::Ready(open) = slot {
                open.used.store(self.asked.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            }
            return slot.clone();
        }
        let slot = match self.open_file(chunk, schema, def) {
            Ok(Some(open)) => self.ready(chunk, def.id, open),
            // Not for ever: others may go.
            Err(e) if e.kind() == ErrorKind::Exhausted => return Slot::Closed,
            // Damaged, or made by another version: built again.
            Ok(None) | Err(_) => Slot::Missing,
        };
        slots.insert(def.id, slot.clone());
        slot
    }

    /// The state of an index that was opened now.
    fn ready(&self, chunk: &Chunk, index: u32, open: Arc<OpenIndex>) -> Slot {
        open.used.store(self.asked.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        // What has no file cannot be opened again.
        if open._taken.is_some() && self.has_files() {
            let slots = Arc::downgrade(&chunk.sidecars().slots);
            let mut heap = self.heap.lock();
            heap.retain(|on_heap| on_heap.open.strong_count() > 0);
            heap.push(OnHeap { slots, index, open: Arc::downgrade(&open) });
        }
        Slot::Ready(open)
    }

    /// Takes memory if it can be had, closing indexes that were decrypted and are not in use.
    pub(crate) fn take_heap(&self, bytes: usize) -> Option<Taken> {
        loop {
            if let Some(taken) = self.memory.try_take(bytes) {
                return Some(taken);
            }
            if !self.memory.could_have(bytes) || !self.close_one() {
                return None;
            }
        }
    }

    /// Closes the index on the heap that was not asked for the longest; whether there was one that nobody uses.
    fn close_one(&self) -> bool {
        let mut heap = self.heap.lock();
        heap.sort_by_cached_key(|on_heap| on_heap.open.upgrade().map(|open| open.used.load(Ordering::Relaxed)));
        for i in 0..heap.len() {
            let Some(slots) = heap[i].slots.upgrade() else { continue };
            // One that is locked is in use.
            let Some(mut slots) = slots.try_lock() else { continue };
            if matches!(slots.get(&heap[i].index), Some(Slot::Ready(open)) if Arc::strong_count(open) == 1) {
                slots.remove(&heap[i].index);
                heap.remove(i);
                return true;
            }
        }
        false
    }

    /// What is known of an index of a chunk without reading its file: bytes of one that is there, whether it is sound or
    /// not.
    pub(crate) fn glance(&self, chunk: &Chunk, def: &IndexDef) -> Glance {
        match (chunk.sidecars().slots.lock().get(&def.id), &self.files, chunk.segment()) {
            (Some(Slot::Ready(open)), ..) => Glance::There(open.bytes),
            (Some(Slot::Failed(failure)), ..) => Glance::Failed(failure.clone()),
            (None, Some(Files { fs, .. }), Some(segment)) => {
                let bytes = fs.len(&sidecar_path(segment.meta().id, def.id));
                bytes.map_or(Glance::Missing, |bytes| Glance::There(bytes as usize))
            }
            (Some(Slot::Missing | Slot::Closed) | None, ..) => Glance::Missing,
        }
    }

    fn open_file(&self, chunk: &Chunk, schema: &TableSchema, def: &IndexDef) -> Result<Option<Arc<OpenIndex>>> {
        let (Some(Files { fs, seal }), Some(segment)) = (&self.files, chunk.segment()) else { return Ok(None) };
        let path = sidecar_path(segment.meta().id, def.id);
        if !fs.exists(&path)? {
            return Ok(None);
        }
        let spec = self.spec(schema, def)?;
        let (bytes, taken) = match seal {
            None => (fs.map(&path)?, None),
            Some(seal) => {
                let reader = SealedReader::open(&**fs, &path, Arc::clone(seal))?;
                let bytes = reader.plain_bytes();
                let taken = self.take_heap(bytes);
                let taken = taken.ok_or_else(|| self.memory.short_of(format!("an index takes {bytes} bytes")))?;
                (reader.range(0, bytes)?, Some(taken))
            }
        };
        let index = mvvd_index::open_over(&self.registry, &spec, chunk.len(), segment.meta().content(), &bytes)?;
        Ok(Some(OpenIndex::new(index, bytes.len(), taken)))
    }

    /// What the index crate calls the index.
    fn spec(&self, schema: &TableSchema, def: &IndexDef) -> Result<IndexSpec> {
        let options = def.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.registry.spec(&def.kind, def.metric, index_types(schema, def)?, options)
    }

    /// Builds an index of a chunk and puts it in its place. What went wrong stays as the state of the index, apart from
    /// a build that was cancelled.
    pub(crate) fn build(
        &self,
        chunk: &Chunk,
        schema: &TableSchema,
        def: &IndexDef,
        build: &Build<'_>,
        room: Room,
    ) -> Result<()> {
        // A bug in one kind of index is no reason to lose the thread that builds all of them.
        let built = catch_unwind(AssertUnwindSafe(|| self.build_open(chunk, schema, def, build, room)));
        let built =
            built.unwrap_or_else(|panic| Err(Error::internal(format!("the build panicked: {}", text(&*panic)))));
        let mut slots = chunk.sidecars().slots.lock();
        let slot = match &built {
            Ok(Some(open)) => Some(self.ready(chunk, def.id, Arc::clone(open))),
            // Opened when it is first asked for.
            Ok(None) => None,
            Err(e) if e.kind() == ErrorKind::Cancelled => Some(Slot::Missing),
            Err(e) => Some(Slot::Failed(Failure::new(e, slots.get(&def.id)))),
        };
        match slot {
            Some(slot) => slots.insert(def.id, slot),
            None => slots.remove(&def.id),
        };
        built.map(drop).map_err(|e| e.context(format!("index \"{}\"", def.name)))
    }

    /// The index that was built; none if there is a file, and no memory to open it.
    fn build_open(
        &self,
        chunk: &Chunk,
        schema: &TableSchema,
        def: &IndexDef,
        build: &Build<'_>,
        room: Room,
    ) -> Result<Option<Arc<OpenIndex>>> {
        let spec = self.spec(schema, def)?;
        let arrays = index_columns(chunk, schema, def)?;
        let columns: Vec<Vectors<'_>> =
            arrays.iter().zip(&spec.columns).map(|(array, ty)| Vectors::new(&**array, *ty)).collect();
        let column_bytes = arrays.iter().map(slice_bytes).sum();
        // Decrypted columns are copies.
        let copied = self.files.as_ref().and_then(|files| files.seal.as_ref()).map_or(0, |_| column_bytes);
        let needed =
            self.registry.get(&spec.kind)?.build_bytes(&spec, chunk.len(), column_bytes).saturating_add(copied);
        let mut taken = match room {
            Room::Made => self.memory.take_or_none(needed)?,
            Room::Spare => self.memory.take_spare(needed),
        }
        .ok_or_else(|| {
            let what = format!("the build over {} rows takes {needed} bytes", chunk.len());
            self.memory.short_of(what).with_hint("raise the memory limit")
        })?;
        let content = chunk.segment().map_or(0, |segment| segment.meta().content());
        let bytes = mvvd_index::build_over(&self.registry, &spec, &columns, content, build)?;
        let (Some(Files { fs, seal }), Some(segment)) = (&self.files, chunk.segment()) else {
            let index = mvvd_index::open_over(&self.registry, &spec, chunk.len(), content, &aligned(&bytes))?;
            taken.resize(bytes.len());
            return Ok(Some(OpenIndex::new(index, bytes.len(), Some(taken))));
        };
        let path = sidecar_path(segment.meta().id, def.id);
        let written = match seal {
            None => replace_file(&**fs, &path, &bytes),
            Some(seal) => write_sealed(&**fs, &path, seal, &bytes),
        };
        written.map_err(without_place)?;
        drop((bytes, columns));
        drop((arrays, taken));
        match self.open_file(chunk, schema, def) {
            Ok(None) => Err(Error::new(ErrorKind::Unavailable, format!("file \"{path}\" is gone"))),
            Err(e) if e.kind() == ErrorKind::Exhausted => Ok(None),
            opened => opened.map_err(without_place),
        }
    }

    /// Whether the segment of a chunk has its file still; a chunk in memory has none.
    pub(crate) fn has_segment(&self, chunk: &Chunk) -> bool {
        match (&self.files, chunk.segment()) {
            (Some(Files { fs, .. }), Some(segment)) => fs.exists(&segment_path(segment.meta().id)).unwrap_or(true),
            _ => true,
        }
    }

    /// Removes the files of an index of segments, and lets go of it. A file that cannot be removed is removed when the
    /// database is opened.
    pub(crate) fn forget<'a>(&self, chunks: impl IntoIterator<Item = &'a Arc<Chunk>>, index: u32) {
        for chunk in chunks {
            chunk.sidecars().forget(index);
            if let (Some(files), Some(segment)) = (&self.files, chunk.segment()) {
                let _ = files.fs.remove(&sidecar_path(segment.meta().id, index));
            }
        }
    }
}

/// The columns of an index for all rows of a chunk.
pub fn index_columns(chunk: &Chunk, schema: &TableSchema, def: &IndexDef) -> Result<Vec<ArrayRef>> {
    let position = |&id: &u32| schema.position(id).ok_or_else(|| Error::internal("an index without its column"));
    let column = |id: &u32| chunk.column(schema, position(id)?, 0..chunk.len());
    def.columns.iter().map(column).collect()
}

/// The types of the columns of an index.
pub fn index_types(schema: &TableSchema, def: &IndexDef) -> Result<Vec<VectorType>> {
    let one = |id: &u32| {
        let field = schema.position(*id).map(|i| &schema.columns()[i].field);
        field
            .and_then(|field| VectorType::of_field(field))
            .ok_or_else(|| Error::internal("an index without its column"))
    };
    def.columns.iter().map(one).collect()
}

/// A sealed file knows its name, so it is written under it; half of one does not open, and is removed.
fn write_sealed(fs: &dyn FileSystem, path: &str, seal: &Arc<dyn Seal>, bytes: &[u8]) -> Result<()> {
    if fs.exists(path)? {
        fs.remove(path)?;
    }
    let write = || {
        let mut writer = SealedWriter::create(fs, path, Arc::clone(seal))?;
        writer.write(bytes)?;
        writer.finish()
    };
    let written = write();
    if written.is_err() {
        let _ = fs.remove(path);
    }
    written.map(drop)
}

/// The same error without the place of the database, which not everybody who sees the state of an index should know.
pub(crate) fn without_place(e: Error) -> Error {
    let cause = e.source().map(|cause| format!("its file cannot be written or read: {cause}"));
    match cause {
        Some(message) => Error::new(e.kind(), message).with_source(e),
        None => e,
    }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let string = panic.downcast_ref::<String>().map(String::as_str);
    string.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// The same bytes, aligned to 64.
fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = MutableBuffer::new(bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.into()
}
