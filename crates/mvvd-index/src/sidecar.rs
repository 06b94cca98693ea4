//! The frame around an index on disk.
//!
//! All numbers are little-endian.
//!
//! ```text
//!  0   8  magic "MVVDIDX\0"
//!  8   4  version, 1
//! 12   4  length of the head
//! 16   8  rows that the index covers
//! 24   8  length of the index
//! 32   8  CRC-64/NVME of the index
//! 40   8  CRC-64/NVME of bytes 0 to 39 and of the head
//! 48      head: JSON, what the index is over
//!         zeros up to the next multiple of 64
//!         the index, in its kind's own form
//! ```

use std::sync::Arc;

use arrow::buffer::Buffer;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use mvvd_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::kind::{Build, IndexSpec, Registry, VectorIndex};
use crate::vectors::Vectors;

const MAGIC: &[u8; 8] = b"MVVDIDX\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const ALIGNMENT: usize = 64;

/// What the index is over, as text.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    kind: String,
    metric: String,
    columns: Vec<String>,
    options: Vec<(String, String)>,
    /// Tells what the rows are: a checksum over the segment; 0 where they are in none.
    segment: u64,
}

impl Head {
    fn of(spec: &IndexSpec, segment: u64) -> Self {
        Self {
            kind: spec.kind.clone(),
            metric: spec.metric.name().to_owned(),
            columns: spec.columns.iter().map(ToString::to_string).collect(),
            options: spec.options.given().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            segment,
        }
    }
}

/// Builds the index that `spec` describes over `columns`, which are in no segment, as the bytes of a sidecar file.
pub fn build(registry: &Registry, spec: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
    build_over(registry, spec, columns, 0, build)
}

/// As [`build`], over columns of the segment that `segment` tells from all others: numbers of segments are given again.
pub fn build_over(
    registry: &Registry,
    spec: &IndexSpec,
    columns: &[Vectors<'_>],
    segment: u64,
    build: &Build<'_>,
) -> Result<Vec<u8>> {
    let rows = columns.first().map_or(0, Vectors::len);
    let types: Vec<_> = columns.iter().map(Vectors::vector_type).collect();
    assert_eq!(types, spec.columns, "the columns of the index");
    assert!(columns.iter().all(|column| column.len() == rows), "columns of one segment");
    framed(spec, rows, segment, &registry.get(&spec.kind)?.build(spec, columns, build)?)
}

/// The bytes of a sidecar file of the index that `index`, opened for `spec`, becomes with the rows of `columns` that it
/// does not cover yet and that are in no segment; none where only a new build will do. As [`VectorIndex::extended`].
pub fn extended(
    spec: &IndexSpec,
    index: &dyn VectorIndex,
    columns: &[Vectors<'_>],
    build: &Build<'_>,
) -> Result<Option<Vec<u8>>> {
    let rows = columns.first().map_or(0, Vectors::len);
    index.extended(columns, build)?.map(|index| framed(spec, rows, 0, &index)).transpose()
}

fn framed(spec: &IndexSpec, rows: usize, segment: u64, index: &[u8]) -> Result<Vec<u8>> {
    let head = serde_json::to_vec(&Head::of(spec, segment))
        .map_err(|e| Error::internal(format!("the head of an index: {e}")))?;
    let start = (HEADER_BYTES + head.len()).next_multiple_of(ALIGNMENT);
    let mut bytes = Vec::with_capacity(start + index.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(rows as u64).to_le_bytes());
    bytes.extend_from_slice(&(index.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc_fast::checksum(Crc64Nvme, index).to_le_bytes());
    let sum = head_checksum(&bytes, &head);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.resize(start, 0);
    bytes.extend_from_slice(index);
    Ok(bytes)
}

/// Opens the index of `rows` rows that `spec` describes from the bytes of a sidecar file, aligned to 64 bytes.
///
/// `Corrupt` where a checksum or a length does not fit, and where it is another index; `Unsupported` for another
/// version. All of it is read once, for the checksum.
pub fn open(registry: &Registry, spec: &IndexSpec, rows: usize, bytes: &Buffer) -> Result<Arc<dyn VectorIndex>> {
    open_over(registry, spec, rows, 0, bytes)
}

/// As [`open`], of an index from [`build_over`] over the same segment.
pub fn open_over(
    registry: &Registry,
    spec: &IndexSpec,
    rows: usize,
    segment: u64,
    bytes: &Buffer,
) -> Result<Arc<dyn VectorIndex>> {
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("the index is damaged: {what}"));
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("it is too short"))?;
    if !header.starts_with(MAGIC) {
        return Err(corrupt("it does not start as an index"));
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if u32_at(8) != VERSION {
        return Err(Error::unsupported(format!("the index has version {}, this program reads {VERSION}", u32_at(8))));
    }
    let head_end = HEADER_BYTES + u32_at(12) as usize;
    let head = bytes.get(HEADER_BYTES..head_end).ok_or_else(|| corrupt("it is too short"))?;
    if head_checksum(&header[..40], head) != u64_at(40) {
        return Err(corrupt("the checksum of its head differs"));
    }
    let head: Head = serde_json::from_slice(head).map_err(|e| corrupt(&e.to_string()))?;
    if head != Head::of(spec, segment) || u64_at(16) != rows as u64 {
        return Err(corrupt("it is another index"));
    }
    let start = head_end.next_multiple_of(ALIGNMENT);
    let length = usize::try_from(u64_at(24)).unwrap_or(usize::MAX);
    if start.checked_add(length) != Some(bytes.len()) {
        return Err(corrupt("its length is not that of its parts"));
    }
    let index = bytes.slice(start);
    if crc_fast::checksum(Crc64Nvme, &index) != u64_at(32) {
        return Err(corrupt("its checksum differs"));
    }
    let index = registry.get(&spec.kind)?.open(spec, index)?;
    match index.rows() == rows {
        true => Ok(index),
        false => Err(corrupt("it covers another number of rows")),
    }
}

fn head_checksum(header: &[u8], head: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new(Crc64Nvme);
    digest.update(header);
    digest.update(head);
    digest.finalize()
}
