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

use std::collections::BTreeMap;

use mvvd_core::{Error, ErrorKind, Result, TableSchema};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::disk::segment_path;
use crate::encode::{read_schema, write_schema};
use crate::fs::{FileSystem, replace_file};
use crate::seal::Seal;
use crate::segment::SegmentMeta;
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
    /// Versions before the present one that are whole in segments, oldest first.
    #[serde(default)]
    pub(crate) older: Vec<VersionEntry>,
}

/// A version before the present one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VersionEntry {
    pub(crate) version: u64,
    /// Microseconds since 1970.
    pub(crate) created: i64,
    #[serde(with = "hex")]
    pub(crate) schema: Vec<u8>,
    pub(crate) segments: Vec<SegmentEntry>,
}

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

    pub(crate) fn schema(&self) -> Result<TableSchema> {
        read_schema(&self.schema).map_err(|e| e.context(format!("table \"{}\" in {MANIFEST}", self.name)))
    }
}

impl SegmentEntry {
    pub(crate) fn deleted(&self) -> Result<RoaringBitmap> {
        let deleted = RoaringBitmap::deserialize_from(&self.deleted[..])
            .map_err(|e| corrupt(&format!("a set of deleted rows: {e}")))?;
        match deleted.max() {
            Some(row) if u64::from(row) >= self.meta.rows => Err(corrupt(&format!(
                "row {row} of {} is deleted, which has {} rows",
                segment_path(self.meta.id),
                self.meta.rows
            ))),
            _ => Ok(deleted),
        }
    }
}

pub(crate) fn write_deleted(deleted: &RoaringBitmap) -> Vec<u8> {
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
            let older = table.older.iter().flat_map(|version| &version.segments);
            table.segments.iter().chain(older).map(|segment| segment_path(segment.meta.id))
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
