//! How a segment comes to be: the columns stream into the file, their checksums taken on the way.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::ipc::writer::FileWriter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use mvvd_core::{Error, Result};

use super::read::Layout;
use super::{
    COLUMN_KEY, STATS_KEY, SegmentColumn, SegmentMeta, SegmentStats, VERSION, VERSION_KEY, nested, not_storable,
};
use crate::fs::{FileSystem, WriteFile};
use crate::seal::{Seal, SealedWriter};

/// Most bytes that are checked and written in one step: they stay in the cache in between.
const STEP_BYTES: usize = 256 << 10;
/// Continuation marker and length, before the header of a message.
pub(super) const PREFIX_BYTES: usize = 8;

/// Writes the rows of `batch` to a new file, encrypted with `seal` if there is one, and makes the file durable. Its name
/// is for the caller to make durable. If it fails, a part of the file may remain, for the caller to remove.
///
/// `columns` are the ids and fields of the batch's columns, in order. Copies no column.
pub(crate) fn write_segment(
    fs: &dyn FileSystem,
    path: &str,
    id: u64,
    columns: &[(u32, FieldRef)],
    batch: &RecordBatch,
    seal: Option<Arc<dyn Seal>>,
) -> Result<SegmentMeta> {
    let schema = file_schema(columns, batch)?;
    let batch = RecordBatch::try_new_with_options(
        Arc::clone(&schema),
        batch.columns().to_vec(),
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
    )?;
    let stats = SegmentStats::of(columns, &batch).to_bytes()?;
    let sealed = seal.is_some();
    let out = match seal {
        None => Out::Plain { file: fs.create(path)?, bytes: 0 },
        Some(seal) => Out::Sealed(SealedWriter::create(fs, path, seal)?),
    };
    let types = columns.iter().map(|(_, field)| field.data_type().clone()).collect();
    let mut sink = Sink::new(out, types);
    let written = write_file(&mut sink, &batch, &stats);
    // What the file said is nearer to the cause than what Arrow made of it.
    if let Some(e) = sink.failed.take() {
        return Err(e);
    }
    written?;
    let tail_bytes = sink.at - sink.ends.last().copied().unwrap_or(sink.head.len() as u64);
    let mut start = sink.head.len() as u64;
    let columns = columns
        .iter()
        .zip(sink.ends.iter().zip(&sink.digests))
        .map(|((id, _), (&end, digest))| {
            let bytes = end - std::mem::replace(&mut start, end);
            SegmentColumn { id: *id, bytes, checksum: digest.finalize() }
        })
        .collect();
    Ok(SegmentMeta {
        id,
        rows: batch.num_rows() as u64,
        bytes: sink.out.finish()?,
        sealed,
        head_bytes: sink.head.len() as u64,
        tail_bytes,
        checksum: sink.other.finalize(),
        columns,
    })
}

fn write_file(sink: &mut Sink, batch: &RecordBatch, stats: &[u8]) -> Result<()> {
    let mut writer = FileWriter::try_new(sink, &batch.schema())?;
    let message = writer.get_ref().head.len();
    writer.get_mut().state = State::Message(message);
    writer.write_metadata(VERSION_KEY, VERSION);
    writer.write_metadata(STATS_KEY, STANDARD.encode(stats));
    writer.write(batch)?;
    Ok(writer.finish()?)
}

fn file_schema(columns: &[(u32, FieldRef)], batch: &RecordBatch) -> Result<Arc<Schema>> {
    assert_eq!(columns.len(), batch.num_columns(), "a batch has the columns that are said");
    let fields = columns.iter().map(|(id, field)| {
        if nested(field.data_type()).is_none() {
            return Err(not_storable(field));
        }
        let mut metadata = field.metadata().clone();
        metadata.insert(COLUMN_KEY.to_owned(), id.to_string());
        Ok(field.as_ref().clone().with_metadata(metadata))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

enum Out {
    Plain { file: Box<dyn WriteFile>, bytes: u64 },
    Sealed(SealedWriter),
}

impl Out {
    fn write(&mut self, part: &[u8]) -> Result<()> {
        match self {
            Self::Plain { file, bytes } => {
                *bytes += part.len() as u64;
                file.write(part)
            }
            Self::Sealed(writer) => writer.write(part),
        }
    }

    fn finish(self) -> Result<u64> {
        match self {
            Self::Plain { mut file, bytes } => {
                file.sync()?;
                Ok(bytes)
            }
            Self::Sealed(writer) => writer.finish(),
        }
    }
}

/// What comes next from Arrow.
enum State {
    /// What stands before the record batch message.
    Head,
    /// The header of that message, which starts here in the head.
    Message(usize),
    /// The columns, then the tail.
    Body,
}

/// Where Arrow writes to: passes everything on, and finds out on the way which bytes are whose.
struct Sink {
    out: Out,
    state: State,
    /// Bytes so far.
    at: u64,
    /// All bytes before the columns.
    head: Vec<u8>,
    types: Vec<DataType>,
    /// Where each column ends, once the head is complete.
    ends: Vec<u64>,
    digests: Vec<Digest>,
    /// The first column that has bytes to come.
    column: usize,
    other: Digest,
    failed: Option<Error>,
}

impl Sink {
    fn new(out: Out, types: Vec<DataType>) -> Self {
        Self {
            out,
            state: State::Head,
            at: 0,
            head: Vec::new(),
            digests: types.iter().map(|_| Digest::new(Crc64Nvme)).collect(),
            types,
            ends: Vec::new(),
            column: 0,
            other: Digest::new(Crc64Nvme),
            failed: None,
        }
    }

    /// Takes some bytes from the front, all of one owner. Returns how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize> {
        let part = &bytes[..bytes.len().min(STEP_BYTES)];
        let part = match self.state {
            State::Head => self.take_head(part, usize::MAX),
            State::Message(start) => {
                let part = self.take_head(part, message_bytes(&self.head[start..]) - (self.head.len() - start));
                let message = &self.head[start..];
                if message.len() > PREFIX_BYTES && message.len() == message_bytes(message) {
                    self.find_columns(start)?;
                }
                part
            }
            State::Body => {
                while self.ends.get(self.column) == Some(&self.at) {
                    self.column += 1;
                }
                let to_come = self.ends.get(self.column).map_or(usize::MAX, |end| (end - self.at) as usize);
                let part = &part[..part.len().min(to_come)];
                self.digests.get_mut(self.column).unwrap_or(&mut self.other).update(part);
                part
            }
        };
        self.out.write(part)?;
        self.at += part.len() as u64;
        Ok(part.len())
    }

    fn take_head<'a>(&mut self, bytes: &'a [u8], bytes_max: usize) -> &'a [u8] {
        let part = &bytes[..bytes.len().min(bytes_max)];
        self.head.extend_from_slice(part);
        self.other.update(part);
        part
    }

    fn find_columns(&mut self, message: usize) -> Result<()> {
        let layout = Layout::parse(&self.head[message + PREFIX_BYTES..], &self.types)
            .ok_or_else(|| Error::internal("arrow laid out a record batch in another way than expected"))?;
        let mut end = self.head.len() as u64;
        self.ends.extend(layout.columns.iter().map(|column| {
            end += column.bytes as u64;
            end
        }));
        self.state = State::Body;
        Ok(())
    }
}

/// How many bytes prefix and header of a message have in all; of the prefix alone, while that is not complete.
fn message_bytes(start: &[u8]) -> usize {
    match start.first_chunk::<PREFIX_BYTES>() {
        Some([_, _, _, _, length @ ..]) => PREFIX_BYTES + u32::from_le_bytes(*length) as usize,
        None => PREFIX_BYTES,
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step(bytes).map_err(|e| {
            let message = e.to_string();
            self.failed = Some(e);
            io::Error::other(message)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
