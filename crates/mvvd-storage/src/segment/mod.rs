//! A segment: rows that never change, one file, an array per column that is read without a copy.
//!
//! The file is an Arrow IPC file that any Arrow reader opens: uncompressed, one record batch, every buffer on a multiple
//! of 64 bytes. `docs/format.md` has it byte by byte. In short
//!
//! ```text
//! 0      8  "ARROW1", two zero bytes, 56 more zero bytes
//! 64     …  schema message; the metadata of a field has "mvvd.column", the column's id
//! …      …  header of the record batch message: where each buffer of each column is
//! head   …  buffers of the first column, each with zero bytes up to a multiple of 64, then of the second, …
//! …      8  end of stream
//! …      …  footer; its metadata has "mvvd.segment", the version, and "mvvd.stats", the zone maps
//! …     10  bytes of the footer (4), "ARROW1"
//! ```
//!
//! Every byte is under one CRC-64/NVME: a column's bytes under the column's, head and tail under a third. They stand in
//! [`SegmentMeta`], which the manifest keeps, as an IPC file has no place for the checksum of its own footer. Nothing is
//! parsed before its checksum was compared, so damage of any kind is an error and not a wrong value.
//!
//! The segment of an encrypted database is the same file in sealed blocks, see [`crate::seal`].

mod read;
mod stats;
mod write;

use arrow::datatypes::{DataType, Field};
use mvvd_core::schema::sql_type;
use mvvd_core::{Error, Result, TableSchema};
use serde::{Deserialize, Serialize};

pub(crate) use read::Access;
pub use read::Segment;
pub use stats::{BLOCK_ROWS, BlockStats, SegmentStats};
pub(crate) use write::write_segment;

/// Version of the format of segments.
const VERSION: &str = "1";
/// Key of the field metadata that holds the id of the column.
const COLUMN_KEY: &str = "mvvd.column";
/// Key of the footer metadata that holds the version.
const VERSION_KEY: &str = "mvvd.segment";
/// Key of the footer metadata that holds the zone maps: the base64 of an Arrow IPC stream.
const STATS_KEY: &str = "mvvd.stats";
/// Where buffers start: a multiple of this.
const ALIGNMENT: usize = 64;

/// What the manifest knows of a segment, and what the file is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Number of the segment in its table.
    pub id: u64,
    /// Number of rows, deleted ones included.
    pub rows: u64,
    /// Bytes of the file on disk.
    pub bytes: u64,
    /// Whether the file is encrypted.
    pub sealed: bool,
    /// Bytes before the first column.
    pub head_bytes: u64,
    /// Bytes after the last column.
    pub tail_bytes: u64,
    /// CRC-64/NVME of head and tail, one after the other.
    pub checksum: u64,
    /// The columns, as they follow each other in the file.
    pub columns: Vec<SegmentColumn>,
}

/// One column of a [`SegmentMeta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentColumn {
    /// The id of the column in its table.
    pub id: u32,
    /// Bytes of its buffers with what is between them.
    pub bytes: u64,
    /// CRC-64/NVME of these bytes.
    pub checksum: u64,
}

impl SegmentMeta {
    /// Tells segments apart by what is in them, whatever numbers they have: CRC-64/NVME over `rows` and `checksum`, and
    /// for each column over its id, its bytes and its checksum, as eight bytes each, little-endian.
    pub(crate) fn content(&self) -> u64 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        let columns = self.columns.iter().flat_map(|column| [u64::from(column.id), column.bytes, column.checksum]);
        for number in [self.rows, self.checksum].into_iter().chain(columns) {
            digest.update(&number.to_le_bytes());
        }
        digest.finalize()
    }
}

/// Refuses a table with a column that a segment cannot hold.
pub(crate) fn check_storable(schema: &TableSchema) -> Result<()> {
    match schema.columns().iter().find(|column| nested(column.field.data_type()).is_none()) {
        None => Ok(()),
        Some(column) => Err(not_storable(&column.field)),
    }
}

fn not_storable(field: &Field) -> Error {
    let (name, data_type) = (field.name(), field.data_type());
    Error::unsupported(format!("column \"{name}\" of type {} ({data_type}) cannot be stored", sql_type(field)))
}

/// Visits a type and what is inside it, in the order in which an IPC message lists them; `None` for types whose buffers
/// do not follow from the type alone, which a segment does not hold.
fn nested(data_type: &DataType) -> Option<Vec<&DataType>> {
    let mut types = vec![data_type];
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => types.extend(nested(item.data_type())?),
        DataType::Struct(fields) => {
            for field in fields {
                types.extend(nested(field.data_type())?);
            }
        }
        DataType::Utf8View
        | DataType::BinaryView
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Dictionary(..)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => return None,
        _ => {}
    }
    Some(types)
}

/// How many buffers an IPC message has for one type, without what is inside it.
fn buffers_of(data_type: &DataType) -> usize {
    // Validity is not among the buffers of a layout.
    if *data_type == DataType::Null { 0 } else { 1 + arrow::array::layout(data_type).buffers.len() }
}

#[cfg(test)]
mod tests;
