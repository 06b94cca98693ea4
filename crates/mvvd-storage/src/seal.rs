//! Sealed bytes: what encryption promises, and files made of sealed blocks.
//!
//! A sealed file is
//!
//! ```text
//! 0   8  "MVVDSEAL"
//! 8   4  version, 1
//! 12  4  plain bytes of a block, 1 MiB
//! 16  …  blocks: each sealed on its own, all full but the last
//! ```
//!
//! Integers are little-endian. The context of a block is these 16 bytes, the number of the block (8 bytes), 1 for the
//! last block and 0 for others (1 byte), and the path of the file: a block that was moved, in its file or to another
//! one, does not open, nor does a file that was cut at the end of a block.

use std::fmt;
use std::sync::Arc;

use arrow::buffer::{Buffer, MutableBuffer};
use mvvd_core::{Error, ErrorKind, Result};

use crate::fs::{FileSystem, WriteFile};

/// Encrypts and authenticates bytes.
pub trait Seal: Send + Sync + std::fmt::Debug {
    /// Bytes that hold `plain`, and that open only with the same `context`.
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>>;

    /// What was sealed with this `context`, or [`Corrupt`](ErrorKind::Corrupt) if anything was changed since.
    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>>;

    /// How many bytes [`seal`](Seal::seal) adds, whatever it seals.
    fn overhead(&self) -> usize;
}

const MAGIC: &[u8; 8] = b"MVVDSEAL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;

/// Plain bytes of every block but the last. A multiple of 64, so that what is aligned in the plain bytes stays so.
pub const BLOCK_BYTES: usize = 1 << 20;

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    header
}

fn block_context(path: &str, block: u64, last: bool) -> Vec<u8> {
    let mut context = header().to_vec();
    context.extend_from_slice(&block.to_le_bytes());
    context.push(u8::from(last));
    context.extend_from_slice(path.as_bytes());
    context
}

/// A sealed file being written.
pub struct SealedWriter {
    file: Box<dyn WriteFile>,
    seal: Arc<dyn Seal>,
    path: String,
    block: u64,
    pending: Vec<u8>,
    bytes: u64,
}

// Plain bytes stay out of what is shown.
impl fmt::Debug for SealedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedWriter").field("path", &self.path).field("block", &self.block).finish_non_exhaustive()
    }
}

impl SealedWriter {
    /// Starts a file, which must be read under the same path.
    pub fn create(fs: &dyn FileSystem, path: &str, seal: Arc<dyn Seal>) -> Result<Self> {
        let mut file = fs.create(path)?;
        file.write(&header())?;
        let pending = Vec::with_capacity(BLOCK_BYTES);
        Ok(Self { file, seal, path: path.to_owned(), block: 0, pending, bytes: HEADER_BYTES as u64 })
    }

    /// Appends plain bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // A full block waits for the next byte: until then it may be the last one.
            if self.pending.len() == BLOCK_BYTES {
                self.flush(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the last block and makes the file durable. Returns the bytes of the file.
    pub fn finish(mut self) -> Result<u64> {
        self.flush(true)?;
        self.file.sync()?;
        Ok(self.bytes)
    }

    fn flush(&mut self, last: bool) -> Result<()> {
        let sealed = self.seal.seal(&block_context(&self.path, self.block, last), &self.pending)?;
        self.file.write(&sealed)?;
        self.bytes += sealed.len() as u64;
        self.block += 1;
        self.pending.clear();
        Ok(())
    }
}

/// A sealed file, opened a range at a time.
pub struct SealedReader {
    map: Buffer,
    seal: Arc<dyn Seal>,
    path: String,
    blocks: usize,
    plain_bytes: usize,
}

impl fmt::Debug for SealedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedReader").field("path", &self.path).field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl SealedReader {
    /// Takes the file at `path`; opens no block yet.
    pub fn open(fs: &dyn FileSystem, path: &str, seal: Arc<dyn Seal>) -> Result<Self> {
        let map = fs.map(path)?;
        let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("file \"{path}\" is damaged: {what}"));
        if map.get(..HEADER_BYTES) != Some(&header()) {
            return Err(damaged("it does not begin like a sealed file"));
        }
        let body = map.len() - HEADER_BYTES;
        let blocks = body.div_ceil(BLOCK_BYTES + seal.overhead());
        let Some(plain_bytes) = body.checked_sub(blocks * seal.overhead()).filter(|_| blocks > 0) else {
            return Err(damaged("it ends within a block"));
        };
        Ok(Self { map, seal, path: path.to_owned(), blocks, plain_bytes })
    }

    /// Number of plain bytes, as the length of the file has it; the last block, once opened, proves it.
    pub fn plain_bytes(&self) -> usize {
        self.plain_bytes
    }

    /// Plain bytes from `start`, aligned to 64 bytes if `start` is. The range lies within the plain bytes.
    pub fn range(&self, start: usize, len: usize) -> Result<Buffer> {
        assert!(start + len <= self.plain_bytes, "a range lies within the file");
        let first = start / BLOCK_BYTES;
        let end = (start + len).div_ceil(BLOCK_BYTES).max(first);
        let mut plain = MutableBuffer::with_capacity((end - first) * BLOCK_BYTES);
        for block in first..end {
            plain.extend_from_slice(&self.block(block)?);
        }
        Ok(Buffer::from(plain).slice_with_length(start - first * BLOCK_BYTES, len))
    }

    fn block(&self, block: usize) -> Result<Vec<u8>> {
        let sealed_bytes = BLOCK_BYTES + self.seal.overhead();
        let start = HEADER_BYTES + block * sealed_bytes;
        let sealed = &self.map[start..self.map.len().min(start + sealed_bytes)];
        let context = block_context(&self.path, block as u64, block + 1 == self.blocks);
        self.seal
            .open(&context, sealed)
            .map_err(|e| e.context(format!("file \"{}\" is damaged: block {block}", self.path)))
    }
}
