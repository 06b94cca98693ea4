//! The manifest: which tables there are, which segments they have, and where replay of the log begins.
//!
//! One file, `MANIFEST`, replaced as a whole: a line of text, then JSON.
//!
//! ```text
//! mvvd manifest 1 <CRC-64/NVME of the rest in hexadecimal>\n
//! {"next_table": 3, …}
//! ```
//!
//! The catalogue lives in the same file, so tables and their segments change in one step. In an encrypted database the
//! rest is sealed, under the file's name as context.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::chunk::Chunk;
use crate::disk::segment_path;
use crate::encode::{read_schema, write_schema};
use crate::fs::{FileSystem, replace_file};
use crate::seal::Seal;
use crate::segment::SegmentMeta;
use crate::snapshot::Snapshot;
use crate::wal::Lsn;

/// Name of the file.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Version of the format on disk: of the manifest, and of all that it names.
pub(crate) const FORMAT_VERSION: u32 = 1;
const MAGIC: &str = "mvvd manifest";

/// What the file says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Counts the manifests of this database.
    pub(crate) number: u64,
    /// The id of the next new table.
    pub(crate) next_table: u64,
    /// Every create, drop and rename up to this record is in here.
    pub(crate) catalog_lsn: Lsn,
    /// No record before this one is needed.
    pub(crate) replay_from: Lsn,
    /// The data key of an encrypted database lies in its key file; this says that there is one.
    pub(crate) encrypted: bool,
    /// Tables by id.
    pub(crate) tables: BTreeMap<u64, TableEntry>,
}

/// One table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) name: String,
    /// As `encode` writes it.
    #[serde(with = "hex")]
    pub(crate) schema: Vec<u8>,
    pub(crate) version: u64,
    /// When the version was made, in microseconds since 1970.
    pub(crate) created: i64,
    /// Records up to this one are in the segments.
    pub(crate) flushed_lsn: Lsn,
    pub(crate) next_uid: u32,
    pub(crate) next_number: u64,
    pub(crate) segments: Vec<SegmentEntry>,
    /// Versions before the present one that are kept, newest first.
    pub(crate) older: Vec<Older>,
}

/// A version before the present one, told by what is different in the version after it, which comes before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Older {
    pub(crate) version: u64,
    /// Microseconds since 1970.
    pub(crate) created: i64,
    /// Whether the log has rows of it that are not in these segments.
    pub(crate) replays: bool,
    /// Left out if it is that of the version after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<Hex>,
    pub(crate) segments: Vec<Part>,
}

/// A segment of an older version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) uid: u32,
    /// Left out if it was told before, in a newer version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<SegmentMeta>,
    /// The rows that are deleted; left out if they are those that were told last of this segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted: Option<Hex>,
}

/// Segments by the numbers of their chunks, and which of their rows are deleted.
pub(crate) type Parts = Vec<(u32, RoaringBitmap)>;

/// Bytes in hexadecimal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hex(#[serde(with = "hex")] pub(crate) Vec<u8>);

/// One segment and the rows of it that are deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentEntry {
    pub(crate) uid: u32,
    pub(crate) meta: SegmentMeta,
    /// A roaring bitmap in its portable form.
    #[serde(with = "hex")]
    pub(crate) deleted: Vec<u8>,
}

impl TableEntry {
    pub(crate) fn write_schema(schema: &TableSchema) -> Result<Vec<u8>> {
        write_schema(schema)
    }

    /// A schema of the table, the present one or an older one.
    pub(crate) fn read_schema(&self, bytes: &[u8]) -> Result<TableSchema> {
        read_schema(bytes).map_err(|e| e.context(format!("table \"{}\" in {MANIFEST}", self.name)))
    }

    /// The segments of the present version that replay does not add.
    pub(crate) fn segments_of(head: &Snapshot, is_settled: impl Fn(&Chunk) -> bool) -> Vec<SegmentEntry> {
        let entry = |chunk: &Arc<Chunk>| {
            let meta = chunk.segment()?.meta().clone();
            Some(SegmentEntry { uid: chunk.uid(), meta, deleted: write_deleted(chunk.deleted()) })
        };
        head.chunks.iter().filter(|chunk| is_settled(chunk)).filter_map(entry).collect()
    }

    /// The versions before the present one, newest first, each with the deleted rows of its segments by their number.
    /// Calls `open` for each segment that the present version does not have, when it is first told.
    pub(crate) fn read_older(
        &self,
        mut open: impl FnMut(u32, &SegmentMeta, &RoaringBitmap) -> Result<()>,
    ) -> Result<Vec<(&Older, Parts)>> {
        let mut told: HashMap<u32, (&SegmentMeta, RoaringBitmap)> = HashMap::new();
        for segment in &self.segments {
            told.insert(segment.uid, (&segment.meta, read_deleted(&segment.meta, &segment.deleted)?));
        }
        let mut versions = Vec::with_capacity(self.older.len());
        for older in &self.older {
            let mut parts = Vec::with_capacity(older.segments.len());
            for part in &older.segments {
                let deleted = match (&part.meta, &part.deleted, told.get(&part.uid)) {
                    (Some(meta), Some(deleted), None) => {
                        let deleted = read_deleted(meta, &deleted.0)?;
                        open(part.uid, meta, &deleted)?;
                        told.insert(part.uid, (meta, deleted.clone()));
                        deleted
                    }
                    (None, Some(deleted), Some((meta, _))) => {
                        let deleted = read_deleted(meta, &deleted.0)?;
                        told.insert(part.uid, (meta, deleted.clone()));
                        deleted
                    }
                    (None, None, Some((_, deleted))) => deleted.clone(),
                    _ => {
                        return Err(corrupt(&format!(
                            "part {} of version {} is not told once",
                            part.uid, older.version
                        )));
                    }
                };
                parts.push((part.uid, deleted));
            }
            versions.push((older, parts));
        }
        Ok(versions)
    }
}

impl Older {
    /// The versions before `head`, given oldest first.
    pub(crate) fn of(
        head: &Snapshot,
        older: &[Arc<Snapshot>],
        is_settled: impl Fn(&Chunk) -> bool,
    ) -> Result<Vec<Self>> {
        let stored = |chunk: &&Arc<Chunk>| chunk.is_stored() && is_settled(chunk);
        let mut told: HashMap<u32, &RoaringBitmap> =
            head.chunks.iter().filter(stored).map(|chunk| (chunk.uid(), chunk.deleted())).collect();
        let mut after = head;
        let mut entries = Vec::with_capacity(older.len());
        for snapshot in older.iter().rev() {
            let mut segments = Vec::new();
            for chunk in snapshot.chunks.iter().filter(stored) {
                let before = told.insert(chunk.uid(), chunk.deleted());
                let meta = if before.is_none() { chunk.segment().map(|segment| segment.meta().clone()) } else { None };
                let is_same = before.is_some_and(|before| before == chunk.deleted());
                let deleted = (!is_same).then(|| Hex(write_deleted(chunk.deleted())));
                segments.push(Part { uid: chunk.uid(), meta, deleted });
            }
            let has_schema = !Arc::ptr_eq(&snapshot.schema, &after.schema);
            let schema = has_schema.then(|| write_schema(&snapshot.schema)).transpose()?.map(Hex);
            entries.push(Self {
                version: snapshot.version,
                created: snapshot.created,
                replays: segments.len() < snapshot.chunks.len(),
                schema,
                segments,
            });
            after = snapshot;
        }
        Ok(entries)
    }
}

impl SegmentEntry {
    pub(crate) fn deleted(&self) -> Result<RoaringBitmap> {
        read_deleted(&self.meta, &self.deleted)
    }
}

fn read_deleted(meta: &SegmentMeta, bytes: &[u8]) -> Result<RoaringBitmap> {
    let deleted =
        RoaringBitmap::deserialize_from(bytes).map_err(|e| corrupt(&format!("a set of deleted rows: {e}")))?;
    match deleted.max() {
        Some(row) if u64::from(row) >= meta.rows => {
            Err(corrupt(&format!("row {row} of {} is deleted, which has {} rows", segment_path(meta.id), meta.rows)))
        }
        _ => Ok(deleted),
    }
}

fn write_deleted(deleted: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(deleted.serialized_size());
    deleted.serialize_into(&mut bytes).expect("a Vec takes every write");
    bytes
}

impl Manifest {
    /// Reads the manifest; none if there is no file.
    pub(crate) fn read(fs: &dyn FileSystem, seal: Option<&dyn Seal>) -> Result<Option<Self>> {
        if !fs.exists(MANIFEST)? {
            return Ok(None);
        }
        let bytes = fs.read(MANIFEST)?;
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| corrupt("it has no first line"))?;
        let line = std::str::from_utf8(&bytes[..end]).map_err(|_| corrupt("its first line is no text"))?;
        let mut words = line.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not start as a manifest"))?.split(' ');
        let (Some(""), Some(version), Some(sum), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(corrupt("its first line has another form"));
        };
        let body = &bytes[end + 1..];
        let expected = u64::from_str_radix(sum, 16).map_err(|_| corrupt("its checksum is no number"))?;
        if checksum(version, body) != expected || format!("{expected:016x}") != sum {
            return Err(corrupt("its checksum does not fit"));
        }
        if version != FORMAT_VERSION.to_string() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("this database has format version {version}, this program reads version {FORMAT_VERSION}"),
            )
            .with_hint("open it with the version of mvvd that wrote it, and copy it with mvvd backup or COPY"));
        }
        let opened;
        let body = match seal {
            Some(seal) => {
                opened = seal.open(MANIFEST.as_bytes(), body).map_err(|e| corrupt(e.message()))?;
                &opened
            }
            None => body,
        };
        let manifest = serde_json::from_slice(body).map_err(|e| corrupt(&e.to_string()));
        manifest.map(Some).map_err(|e: Error| match seal {
            None => e.with_hint("an encrypted database needs its key"),
            Some(_) => e,
        })
    }

    /// Makes this the manifest, durably and in one step.
    pub(crate) fn write(&self, fs: &dyn FileSystem, seal: Option<&dyn Seal>) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| Error::internal(format!("the manifest: {e}")))?;
        let body = match seal {
            Some(seal) => seal.seal(MANIFEST.as_bytes(), &json)?,
            None => json,
        };
        let version = FORMAT_VERSION.to_string();
        let mut bytes = format!("{MAGIC} {version} {:016x}\n", checksum(&version, &body)).into_bytes();
        bytes.extend(body);
        replace_file(fs, MANIFEST, &bytes)
    }

    /// The files of all segments.
    pub(crate) fn files(&self) -> impl Iterator<Item = String> {
        self.tables.values().flat_map(|table| {
            let older = table.older.iter().flat_map(|version| &version.segments).filter_map(|part| part.meta.as_ref());
            table.segments.iter().map(|segment| &segment.meta).chain(older).map(|meta| segment_path(meta.id))
        })
    }
}

fn checksum(version: &str, body: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(version.as_bytes());
    digest.update(body);
    digest.finalize()
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("file \"{MANIFEST}\" is damaged: {what}"))
}

/// Bytes in JSON.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a half byte is a digit"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a half byte is a digit"));
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |b: u8| (b as char).to_digit(16).ok_or_else(|| D::Error::custom("no hexadecimal digit"));
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(D::Error::custom("an odd number of hexadecimal digits"));
        }
        pairs.iter().map(|[high, low]| Ok((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
    }
}
